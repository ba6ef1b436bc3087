"""Read a recipe's YAML and the command line into one tree of plain values that knows where each value was written."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from finetune.errors import UserError, did_you_mean

MOST = 20_000  # values of a recipe; a few lines of anchors within anchors would make billions
Place = tuple[Any, ...]  # the keys that lead to a value: ("data", "validation", "fraction")


class Written(str):
    """A value as it was typed on the command line: read as YAML, kept as text where only text is possible."""


class Loader(yaml.SafeLoader):
    """Read the core schema of YAML 1.2: `2e-5` is a number; `no`, `off` and `2024-01-01`, and every key, are text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key.start_mark)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


class Dumper(yaml.SafeDumper):
    """Write what `Loader` reads back unchanged."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


SCALARS = (  # https://yaml.org/spec/1.2.2/#103-core-schema; PyYAML knows 1.1 alone, where `off` is false and 2e-5 text
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
)
for reader in (Loader, Dumper):
    reader.yaml_implicit_resolvers = {}
    for tag, pattern, first in SCALARS:
        reader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)
Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(node.value, 16 if node.value.startswith("0x") else 10)
)
Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: _float(node.value))
Dumper.add_representer(float, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", _digits(value)))


@dataclass
class Given:
    """What a recipe's author wrote: plain values, and the place in a file or on the command line of each."""

    values: dict[str, Any]
    source: str = ""  # the file's name as the reader wrote it, "" for a recipe without a file
    lines: dict[Place, int] = field(default_factory=dict)  # in the file, from 1
    typed: set[Place] = field(default_factory=set)  # given on the command line
    texts: dict[Place, str] = field(default_factory=dict)  # as they were typed there

    def name(self, place: Place) -> str:
        """Return "my.yaml:7: task.text" for a value from the file, "--task.text" for one from the command line."""
        option = ".".join(map(str, place))
        inner = any(known[: len(place)] == place for known in self.typed)  # --train.dp.epsilon makes train.dp
        if inner and place not in self.lines:
            return f"--{option}"
        for end in range(len(place), 0, -1):
            if place[:end] in self.typed:
                return f"--{option}"
            if place[:end] in self.lines:
                return f"{self.source}:{self.lines[place[:end]]}: {option}"
        return f"{self.source}: {option}" if self.source else option


def read_file(path: Path) -> Given:
    """Read a recipe. Raises UserError, naming the line, for what is no mapping, no YAML or says a thing twice."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"there is no recipe {path}.{_near_file(path)}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; a recipe is one YAML file.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a recipe: byte {error.start} is not UTF-8 text.") from None
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        lines = {} if node is None else _lines(node, str(path))
        values = {} if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise UserError(f"{path}{_problem(error)}") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; lists within lists within lists
        raise UserError(f"{path} is not a recipe: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a recipe: it holds no sections (task, data, model, train).")
    return Given(values, str(path), lines)


def override(given: Given, overrides: Mapping[str, Any]) -> None:
    """Put `{"section.option": value}` over what the file says, in order; `Written` values are read as YAML."""
    for dotted, value in overrides.items():
        place: Place = tuple(dotted.split("."))
        holder: Any = given.values
        for depth, key in enumerate(place[:-1], start=1):
            inner = holder[int(key)] if isinstance(holder, list) else holder.get(key)
            if not isinstance(inner, dict | list):  # `--data.validation.fraction 0.1` over `validation: file.csv`
                inner = {}
                _set(holder, key, inner, dotted)
            if isinstance(inner, list) and not _is_index(place[depth], inner):
                raise UserError(f"--{dotted}: {'.'.join(place[:depth])} is a list of {len(inner)}; say which: 0, 1, …")
            holder = inner
        _set(holder, place[-1], typed_value(value) if isinstance(value, Written) else value, dotted)
        if isinstance(value, Written):
            given.texts[place] = value
        given.typed = {known for known in given.typed if known[: len(place)] != place} | {place}


def typed_value(text: str) -> Any:
    """Read a value of the command line as YAML; what is no YAML (`*.csv`), or not all of it (`|`, `#`), is text."""
    try:
        node, value = yaml.compose(text, Loader), yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return str(text)
    if text and (node is None or text in ("-", "?")):  # white space, a comment, a list of nothing
        return str(text)
    if isinstance(node, yaml.ScalarNode) and node.style not in ("'", '"') and node.value != text.strip():
        return str(text)
    return value


def to_yaml(values: Any) -> str:
    """Write plain values as a recipe's YAML."""
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def _set(holder: Any, key: str, value: Any, dotted: str) -> None:
    if isinstance(holder, list):
        holder[int(key)] = value
    else:
        holder[key] = value


def _is_index(key: str, items: list[Any]) -> bool:
    return key.isdigit() and int(key) < len(items)


def _lines(node: yaml.Node, source: str, place: Place = (), depth: int = 0) -> dict[Place, int]:
    """Return the line of each key and list item; refuse a key that stands twice in one mapping."""
    if depth > 50:
        raise UserError(f"{source}:{node.start_mark.line + 1}: nested more than 50 deep, or an anchor inside itself.")
    found: dict[Place, int] = {}
    if isinstance(node, yaml.MappingNode):
        own: dict[str, int] = {}
        for key, value in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if name in own:
                option = ".".join(map(str, (*place, name)))
                raise UserError(f"{source}:{line}: {option} is given twice; the first is on line {own[name]}.")
            own[name] = line
            found[(*place, name)] = line
            found |= _lines(value, source, place if name == "<<" else (*place, name), depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found[(*place, index)] = value.start_mark.line + 1
            found |= _lines(value, source, (*place, index), depth + 1)
    if len(found) > MOST:
        raise UserError(f"{source}:{node.start_mark.line + 1}: more than {MOST:,} values, anchors written out.")
    return found


def _problem(error: yaml.YAMLError) -> str:
    """Return ":line: what is wrong" for a YAML error, on one line."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " is not YAML: " + " ".join(str(error).split())
    mark = error.problem_mark or error.context_mark
    where = f":{mark.line + 1}" if mark else ""
    hint = ' Put text with special characters into quotes: "*.csv".' if "alias" in str(error) else ""
    if "\\t" in str(error.problem):
        hint = " Indent with spaces, not tabs."
    return f"{where}: not YAML: {' '.join(str(error.problem or error.context).split())}.{hint}"


def _near_file(path: Path) -> str:
    """Return the nearest recipe beside a path that does not exist, or in ./recipes."""
    folders = [path.parent, Path("recipes")]
    known = {str(file) for folder in folders if folder.is_dir() for file in folder.glob("*.y*ml")}
    same = [name for name in sorted(known) if Path(name).stem == path.stem]
    return f" Did you mean {same[0]}?" if same else did_you_mean(str(path), known)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _digits(value: float) -> str:
    """Return the shortest digits that read back as this number, as YAML spells them."""
    plain = repr(value)
    return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(plain, plain)
