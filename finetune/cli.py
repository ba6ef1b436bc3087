"""The `finetune` command: what stands between argv and the functions of the table of verbs."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from functools import partial
from importlib import import_module
from keyword import iskeyword
from typing import Any

from finetune import artefact, usage
from finetune.command_line import Command, take_apart
from finetune.endings import ending, leave_group, say, terminated
from finetune.errors import UserError
from finetune.launching import end_with_launcher
from finetune.recipe_names import nearest
from finetune.verbs import VERBS


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 the user, 3 a failed check, 4 the machine, 143 stopped."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    end_with_launcher()
    try:
        with terminated():
            code = _run(arguments)
    except BaseException as error:  # what `ending` does not know is raised again
        verb = VERBS.get(arguments[0]) if arguments else None
        known = ending(error, verb is not None and verb.resumes, "--overwrite" in arguments)
        if known is None:
            raise
        say(error, known[1])
        code = known[0]
    leave_group(code)
    return code


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage.of_command({name: verb for name, verb in VERBS.items() if not verb.hidden}) + "\n")
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"finetune {version('finetune')}\n")
        return 0
    name = arguments[0]
    if name not in VERBS:
        known = [each for each, verb in VERBS.items() if not verb.hidden]
        hint = f" Did you mean: finetune train {name}?" if name.endswith((".yaml", ".yml")) else nearest(name, known)
        raise UserError(f"{name} is not a command; known: {', '.join(known)}.{hint}")
    if "-h" in arguments or "--help" in arguments:
        sys.stdout.write(usage.of_verb(name, VERBS[name]) + "\n")
        return 0
    command = take_apart(name, VERBS[name], arguments[1:])
    if profile := command.flags.pop("profile", None):
        return _launch(command, profile)
    return _call(command)


def _check_light(command: Command) -> None:
    """Refuse what names, types and choices can tell, before torch is imported."""
    from finetune.recipe import read_names

    if "recipe" in command.positions:
        read_names(command.positions["recipe"], command.overrides)
    elif not VERBS[command.name].hidden:
        for run in command.positions.get("runs", [command.positions.get("run")]):
            of_seeds = VERBS[command.name].of_seeds and run is not None and (run / artefact.SEEDS).exists()
            if run is not None and not of_seeds:
                read_names(artefact.open_run(run) / artefact.RECIPE, command.overrides)


def _call(command: Command) -> int:
    from finetune.recipe import Recipe

    verb, given = VERBS[command.name], dict[str, Any](command.positions)
    _check_light(command)
    _quiet_libraries()  # before they are imported: they look once
    printing = command.flags.pop("print_config", False)
    if "recipe" in given:
        given["recipe"] = Recipe.read(given["recipe"], command.overrides)
    elif verb.overrides:
        given["overrides"] = command.overrides
    if printing:
        recipe = given.get("recipe") or Recipe.read(given["run"] / artefact.RECIPE, command.overrides)
        _print(recipe.to_yaml())
        return 0
    with contextlib.redirect_stdout(sys.stderr) if verb.data else contextlib.nullcontext():
        flags = {f"{name}_" if iskeyword(name) else name: value for name, value in command.flags.items()}
        call = verb.together if verb.together and "runs" in given else verb.call
        result = _function(call)(**given, **flags)
    if verb.shows and not (verb.data and command.flags.get("output")):
        _print(_function(verb.shows)(result))
    return 0


def _launch(command: Command, profile: str) -> int:
    """Start the processes of a profile, each of which runs this command without `--profile`."""
    from finetune.launching import launch, profile_file

    profile_file(profile)
    _check_light(command)
    words = [command.name, *(str(path) for path in command.positions.values())]
    words += [f"--{name}={value}" for name, value in command.overrides.items()]
    words += ["--print_config"] if command.flags.get("print_config") else []
    return launch(profile, words)


def _quiet_libraries() -> None:
    """Leave out what libraries say that is known to be harmless here."""
    if not sys.stderr.isatty():  # bars are for a terminal, not for a log file
        for library in ("HF_DATASETS", "HF_HUB"):  # transformers goes by the second
            os.environ.setdefault(f"{library}_DISABLE_PROGRESS_BARS", "1")
    harmless = {
        "DeepSpeed": "Setting accelerator to CPU",
        "bitsandbytes.backends.cpu.ops": "gemm_4bit_forward",  # a kernel of the Hub's that it would have taken
        "transformers.modeling_utils": "passing in an `attention_mask`",  # right padding under a causal mask needs none
    }
    for logger, words in harmless.items():
        logging.getLogger(logger).addFilter(partial(_says_more_than, words))


def _says_more_than(words: str, record: logging.LogRecord) -> bool:
    return words not in record.getMessage()


def _function(where: str) -> Any:
    module, name = where.split(":")
    return getattr(import_module(module), name)


def _print(text: str) -> None:
    """Print on rank 0 alone."""
    if text and os.environ.get("RANK", "0") == "0":
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()
