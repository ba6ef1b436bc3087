"""Take a command line apart: positions, flags, and `--section.option VALUE` overrides of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune import schema
from finetune.errors import UserError
from finetune.recipe_names import nearest
from finetune.recipe_reading import Written
from finetune.sparing import refuse_what_is_read

GENERATION = {  # options of transformers' GenerationConfig
    "max_new_tokens": int, "min_new_tokens": int, "num_beams": int, "temperature": float, "top_k": int, "top_p": float,
    "repetition_penalty": float, "no_repeat_ngram_size": int, "length_penalty": float,
}  # fmt: skip
SWITCHES = (  # flags without a value
    *("overwrite", "print_config", "interpolate", "traverse", "dry_run"),
    *("embeddings", "distill", "int8", "do_sample"),
)
READS = {
    "rows": int, "count": int, "canaries": int, "seed": int, "rounds": int,
    "tolerance": float, "density": float,
    "feed_forward": float, "heads": float, "zeros": float, "recover": float,
    "grid": Path, "output": Path, "head": Path, "file": Path, "json": Path, "prompt": str, **GENERATION,
    "profile": str, "method": str, "weights": str, "to": str, "class": str, "importance": str,
    "model": str, "combine": str, "personal": Path,
}  # fmt: skip
WRITTEN = {"personal": ".jsonl", "json": ".json"}  # files that a verb writes after long work
SEVERAL = "runs"  # the position that takes one or more


@dataclass(frozen=True)
class Verb:
    """One thing that `finetune` does: a function of a room, and what it takes."""

    call: str  # "module:function"
    help: str
    positions: tuple[str, ...] = ()  # the last may be "runs": one or more
    flags: dict[str, str] = field(default_factory=dict)  # name: help
    optional: tuple[str, ...] = ()  # positions that may be left out, the last ones
    together: str = ""  # "module:function" that is called instead where several runs stand in the place of "run"
    of_several: tuple[str, ...] = ()  # flags that it alone takes
    overrides: bool = False  # takes --section.option VALUE
    shows: str = ""  # "module:function" from what `call` returns to what is printed
    data: bool = False  # what it prints is for another program: all other words go to stderr
    of_seeds: bool = False  # takes the folder of train.seeds as well as a run
    resumes: bool = False  # the same command goes on where one that was stopped has got to
    hidden: bool = False  # for our own processes


@dataclass
class Command:
    """A command line, taken apart."""

    name: str
    positions: dict[str, Any]  # a path each; under SEVERAL, a list of them
    flags: dict[str, Any]
    overrides: dict[str, Any]


def take_apart(name: str, verb: Verb, arguments: list[str]) -> Command:
    """Sort a verb's arguments into positions, flags and overrides; UserError for what fits nowhere."""
    command = Command(name, {}, {}, {})
    loose: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if not word.startswith("--") or word == "--":
            loose.append(word)
            continue
        option, equals, value = word[2:].partition("=")
        flag = option.replace("-", "_")
        if flag in verb.flags and flag in SWITCHES:
            if equals:
                raise UserError(f"--{option} takes no value, and was given {value}.")
            command.flags[flag] = True
            continue
        _check_known(name, verb, option)
        if not equals:
            value = next(rest, "--")
            if value.startswith("--"):
                raise UserError(f"--{option} needs a value, such as --{option} {_example(name, option)}.")
        if flag in verb.flags:
            command.flags[flag] = _read(flag, value)
        else:
            command.overrides.pop(option, None)  # the last one counts, and stands last
            command.overrides[option] = Written(value)
    _place(command, verb, loose)
    _spare_what_is_read(command)
    if command.flags.pop("overwrite", False):
        command.overrides["train.overwrite"] = True
    return command


def _check_known(name: str, verb: Verb, option: str) -> None:
    """Refuse an option that is neither a flag of the verb nor an option of a section."""
    sections = schema.load()["properties"]
    if option.replace("-", "_") in verb.flags:
        return
    if verb.overrides and ("." in option or option in sections):
        return
    if not verb.overrides:
        known = ", ".join(f"--{flag}" for flag in verb.flags) or "none"
        raise UserError(
            f"--{option} is not an option of finetune {name}; options: {known}.{nearest(option, verb.flags)}"
        )
    inner = _options_by_name()
    short = option.replace("-", "_")
    hint = f" Did you mean --{inner[short]}?" if short in inner else nearest(option, [*verb.flags, *sections, *inner])
    raise UserError(
        f"--{option} is not an option of finetune {name}; say --section.option, such as --train.seed 1.{hint}"
    )


def _options_by_name() -> dict[str, str]:
    """Return {"learning_rate": "train.learning_rate", …} for every option of a recipe."""
    found: dict[str, str] = {}
    for section, definition in schema.load()["definitions"].items():
        for option in definition["properties"]:
            found.setdefault(option, f"{section.split('.')[0]}.{option}")
    return found


def _example(verb: str, option: str) -> str:
    if (verb, option) == ("export", "to"):
        return "onnx"
    return {
        "profile": "cpu",
        "importance": "taylor",
        "feed_forward": "0.4",
        "heads": "0.25",
        "zeros": "0.5",
        "recover": "1",
        "rounds": "2",
        "output": "answers.jsonl",
        "grid": "grid.png",
        "rows": "5",
        "count": "64",
        "seed": "7",
        "to": "USER/NAME",
        "tolerance": "1e-3",
        "density": "0.5",
        "head": "runs/my",
        "prompt": '"Once upon a time"',
        "file": "rows.jsonl",
        "json": "selftest.json",
        "method": "ties",
        "weights": "0.7,0.3",
        "class": "NAME",
        "model": "distilbert/distilbert-base-uncased",
        "combine": "vote",
    }.get(option, "VALUE")


def _read(flag: str, value: str) -> Any:
    try:
        read = READS[flag](value)
    except ValueError:
        kind = "a whole number" if READS[flag] is int else "a number"
        raise UserError(f"--{flag} is {value}; it must be {kind}.") from None
    if flag == "rows" and read < 1:
        raise UserError(f"--rows is {value}; give 1 or more.")
    return read


def _place(command: Command, verb: Verb, loose: list[str]) -> None:
    several = verb.positions[-1:] == (SEVERAL,)
    if verb.together and len(loose) > len(verb.positions) and all(map(_is_path, loose)):
        last = len(loose) - len(verb.positions) + 1
        command.positions = {SEVERAL: [Path(word) for word in loose[:last]]}
        command.positions |= {name: Path(word) for name, word in zip(verb.positions[1:], loose[last:], strict=True)}
        return
    for flag in verb.of_several:
        if flag in command.flags:
            raise UserError(f"--{flag} is for several runs: finetune {command.name} RUN RUN … FILE.")
    if len(loose) > len(verb.positions) and not several:
        extra = loose[len(verb.positions)]
        hint = (
            f" Options begin with two dashes: --{extra.lstrip('-')}." if "=" in extra or extra.startswith("-") else ""
        )
        raise UserError(f"{extra} is one argument too many for finetune {command.name}.{hint}")
    if len(loose) < len(verb.positions) - len(verb.optional):
        missing = shown(verb.positions[len(loose)])
        call = " ".join(["finetune", command.name, *map(shown, verb.positions)])
        raise UserError(f"{missing} is missing: {call}")
    command.positions = {name: Path(word) for name, word in zip(verb.positions, loose, strict=False)}
    if several:
        command.positions[SEVERAL] = [Path(word) for word in loose[len(verb.positions) - 1 :]]


def _spare_what_is_read(command: Command) -> None:
    """Refuse a file to write that cannot be one, or that the command reads, before any work is done for it."""
    rows = [held["file"] for held in (command.positions, command.flags) if "file" in held]
    read = [each for value in command.positions.values() for each in (value if isinstance(value, list) else [value])]
    for flag in ("output", "grid", *WRITTEN):
        path = command.flags.get(flag)
        if path is None:
            continue
        if flag in WRITTEN and path.suffix != WRITTEN[flag]:
            raise UserError(f"--{flag}: {path} should end in {WRITTEN[flag]}.")
        if flag in WRITTEN and path.is_dir():
            raise UserError(f"--{flag}: {path} cannot be written: it is a folder.")
        if flag in WRITTEN and not path.absolute().parent.is_dir():
            raise UserError(f"--{flag}: {path} cannot be written: {path.parent} is no folder.")
        refuse_what_is_read(flag, path, read, rows)


def _is_path(word: str) -> bool:
    """Say whether a word is meant as a path, and not as an option whose dashes were forgotten."""
    return not ("=" in word or word.startswith("-")) or Path(word).exists()


def shown(position: str) -> str:
    """Return a position as the help writes it."""
    return "RUN …" if position == SEVERAL else position.upper()
