"""The recipe: one YAML file and a command line make one frozen, typed value (default < file < command line)."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import recipe_names
from finetune.adapters import HeadOnly
from finetune.data.options import DataOptions
from finetune.errors import UserError
from finetune.evaluation.options import EvaluateOptions
from finetune.loading import ModelOptions
from finetune.publishing.options import PublishOptions
from finetune.recipe_checks import check_together
from finetune.recipe_reading import Given, Place, override, read_file, to_yaml
from finetune.recipe_writing import changed_options
from finetune.task import Task
from finetune.tasks import TASKS, task_class

if TYPE_CHECKING:
    from peft import PeftConfig

    from finetune.training.options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run is made of. Made by `Recipe.read`, or in Python: `Recipe(task=MyTask(), …)`.

    Raises UserError where two options contradict each other, naming both.
    """

    task: Task
    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    adapter: PeftConfig | HeadOnly | None = None  # None: every weight is trained
    train: TrainOptions
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    publish: PublishOptions | None = None  # None: nothing is published

    def __post_init__(self) -> None:
        check_together(self)

    @classmethod
    def read(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """Read a recipe, with `{"section.option": value}` put over it.

        Raises UserError with one line that names the file and line, or the option of the command line.
        """
        return cls._typed(read_names(path, overrides))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Make a recipe of what `to_dict` returned."""
        given = Given(copy.deepcopy(dict(values)))
        recipe_names.check(given)
        return cls._typed(given)

    @classmethod
    def _typed(cls, given: Given) -> Recipe:
        values = copy.deepcopy(given.values)  # jsonargparse writes into what it parses
        sections: dict[str, Any] = {}
        try:
            task = values["task"]
            sections["task"] = _parse(_task_class(task.pop("kind")), task, "task")
            for name, light in (("data", DataOptions), ("model", ModelOptions), ("evaluate", EvaluateOptions)):
                sections[name] = _parse(light, values.get(name, {}), name)
            if "publish" in values:
                sections["publish"] = _parse(PublishOptions, values["publish"], "publish")
            sections["adapter"] = _adapter(values.get("adapter"), sections["task"])
            from finetune.training.options import TrainOptions

            sections["train"] = _parse(TrainOptions, values["train"], "train")
            return cls(**sections)
        except UserError as error:
            raise UserError(_located(str(error), given)) from None

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values: what differs from the defaults, nothing secret or of this machine."""
        sections = {
            "task": {"kind": _kind(self.task)} | changed_options(self.task),
            "data": changed_options(self.data),
            "model": changed_options(self.model),
            "adapter": None if self.adapter is None else changed_options(self.adapter),
            "train": changed_options(self.train),
            "evaluate": changed_options(self.evaluate),
            "publish": None if self.publish is None else changed_options(self.publish),
        }
        return {name: values for name, values in sections.items() if values or name in ("data", "train")}

    def to_yaml(self) -> str:
        """Return the recipe as YAML that reads back to an equal recipe."""
        return to_yaml(self.to_dict())

    def write(self, path: str | Path) -> None:
        """Write the recipe as YAML that reads back to an equal recipe."""
        Path(path).write_text(self.to_yaml(), encoding="utf-8")


def read_names(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Given:
    """Read a recipe and hold it against the schema only: names, types and choices, without importing torch."""
    given = read_file(Path(path))
    override(given, overrides or {})
    recipe_names.check(given)
    return given


def _kind(task: Task) -> str:
    """Return a task's name in a recipe: its kind, or "module:Class" for one outside this repository."""
    where = f"{type(task).__module__}:{type(task).__qualname__}"
    return task.kind if TASKS.get(task.kind) == where else where


def _task_class(kind: str) -> type[Task]:
    if ":" not in kind:
        return task_class(kind)
    module, name = kind.split(":", 1)
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"task.kind is {kind}, which cannot be imported: {error}.") from None
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UserError(f"task.kind is {kind}, which is not a finetune.Task.")
    return found


def _adapter(values: dict[str, Any] | None, task: Task) -> PeftConfig | HeadOnly | None:
    if values is None:
        return None
    kind = values.pop("peft_type")
    if kind == "head":
        return _parse(HeadOnly, values, "adapter")
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {each.value: config for each, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if kind not in known:
        raise UserError(f"adapter.peft_type is {kind}; known: head, {', '.join(known)}.")
    config = known[kind]
    if "target_modules" in {each.name for each in dataclasses.fields(config)}:
        values.setdefault("target_modules", "auto")
    if values.get("layers_to_transform") is not None and isinstance(values.get("target_modules"), str):
        raise UserError(
            "adapter.layers_to_transform needs adapter.target_modules as a list of names, and not "
            f"{values['target_modules']}."
        )
    if task.kind in ("causal-lm", "chat"):  # some methods take no other; `attach` says it for the others
        values["task_type"] = "CAUSAL_LM"
    return _parse(config, values, "adapter")


def _parse(cls: type, values: dict[str, Any], section: str) -> Any:
    """Make an instance of a section's class with jsonargparse; one line for a reader's mistake."""
    # What was not given is not passed on: some classes warn of their own defaults when they are.
    left_out = {each.name for each in dataclasses.fields(cls) if each.name not in values and not _is_required(each)}
    parser = _parser(cls, section, frozenset(left_out))
    try:
        return parser.instantiate(parser.parse_object({section: values}))[section]
    except argparse.ArgumentError as error:
        raise UserError(_reason(str(error), section)) from None
    except (ValueError, TypeError, ImportError) as error:  # a class's own __post_init__
        raise UserError(_reason(f"{section}: {error}", section)) from None


@cache  # a recipe is read more than once in a run, and a sweep or an audit reads many
def _parser(cls: type, section: str, left_out: frozenset[str]) -> Any:
    import jsonargparse

    jsonargparse.set_loader("values", lambda text: text)  # values are YAML's already: "[qv]" stays text
    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, parser_mode="values")
    parser.add_class_arguments(cls, section, skip=set(left_out))
    return parser


def _is_required(option: dataclasses.Field) -> bool:
    return option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING


def _reason(message: str, section: str) -> str:
    """Turn jsonargparse's message into one line that begins with the option's name."""
    if own := re.search(rf"- ({section}[.:][^\n]+)", message):  # what a class of a union said itself
        return own[1]
    line = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", " ".join(message.split()))
    line = re.sub(rf"^Group '{section}' does not accept option '([\w.]+)'", rf"{section}.\1 is not an option.", line)
    return re.sub(r'^(?:Parser key|Key) "([\w.]+)":', r"\1:", line)


def _located(message: str, given: Given) -> str:
    """Put file and line before a message that begins with an option's name, or the file alone."""
    named = re.match(r"(?:task|data|model|adapter|train|evaluate|publish)(?:\.\w+)*", message)
    if named is None:
        return message
    place: Place = tuple(named[0].split("."))
    return given.name(place) + message[named.end() :]
