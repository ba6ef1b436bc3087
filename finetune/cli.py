"""The `finetune` command: one table of verbs, and what stands between argv and their functions."""

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
from finetune.command_line import GENERATE, Command, Verb, take_apart
from finetune.endings import ending, leave_group, say
from finetune.errors import UserError
from finetune.recipe_names import nearest

PROFILE = {"profile": "NAME or FILE: start the processes of accelerate_configs/NAME.yaml"}
PRINT = {"print_config": "print the recipe as it is understood, and stop"}
OVERWRITE = {"overwrite": "start anew where output_dir holds a run (train.overwrite true)"}

VERBS = {
    "train": Verb(
        "finetune.run:train",
        "Train a recipe; resume one that was cut short.",
        ("recipe",),
        {**PROFILE, **OVERWRITE, **PRINT},
        overrides=True,
        shows="finetune.showing:run",
    ),
    "evaluate": Verb(
        "finetune.reuse:evaluate",
        "Score a run again, or on other rows (--data.test FILE).",
        ("run",),
        {**PROFILE, **PRINT},
        overrides=True,
        shows="finetune.showing:scores",
    ),
    "predict": Verb(
        "finetune.reuse:predict",
        "Answer every row of a file with a run.",
        ("run", "file"),
        {"output": "FILE.jsonl, .csv or .parquet for the answers; printed when left out"},
        overrides=True,
        shows="finetune.showing:answers",
        data=True,
    ),
    "sample": Verb(
        "finetune.reuse:sample",
        "Draw texts or images from a run.",
        ("run",),
        {
            "count": "how many (64 images, 8 texts), or how many walks (8)",
            "seed": "the same one draws the same (13)",
            "grid": "FILE.png for all images side by side (RUN/samples/sample.png)",
            "output": "folder for images, one PNG each, or FILE.npz to train on; FILE.jsonl for texts (else printed)",
            "class": "NAME: draw this class alone, of a run with task.condition",
            "interpolate": "walk between pairs of points of the latent space",
            "traverse": "walk along each of the first 10 latent dimensions",
        },
        overrides=True,
        shows="finetune.showing:drawn",
        data=True,
    ),
    "generate": GENERATE,
    "merge": Verb(
        "finetune.merging:merge",
        "Merge a run's adapter, or several, into the base: a run of its own, scored beside the first.",
        ("runs",),
        {
            "output": "folder of the new run (RUN-merged)",
            "method": "of several: cat (the weighted sum of the updates), svd, linear, ties, dare_linear …",
            "weights": "of several: one each, as 0.7,0.3 (equal, summing to 1)",
            "density": "of ties and dare: share of the values that is kept (0.5)",
            "head": "RUN whose labels and head are taken, where labels differ (the average)",
            "tolerance": "of one: how far logits may move on the reference rows, relative to the largest (1e-4)",
        },
        overrides=True,
        shows="finetune.showing:run",
    ),
    "export": Verb(
        "finetune.exporting:export",
        "Write a run in another program's format, checked against the run.",
        ("run",),
        {
            "to": "onnx, torch, safetensors, gguf-ready or adapter",
            "output": "folder (RUN-FORMAT)",
            "int8": "of onnx: in int8 too, with its score beside",
        },
        overrides=True,
        shows="finetune.exporting.exported:text",
    ),
    "diff": Verb(
        "finetune.difference:diff",
        "Compare two runs of one base: what each changed, module by module, and whether they answer alike.",
        ("runs",),
        shows="finetune.difference:text",
    ),
    "quantize": Verb(
        "finetune.compressing.quantize:quantize",
        "Write a run in 8 or 4 bits, scored beside the run that it comes from.",
        ("run",),
        {
            "output": "folder of the new run",
            "method": "int8-dynamic (faster on a CPU), int8-weight or int4-weight (smallest)",
            "embeddings": "round the token vectors too",
        },
        overrides=True,
        shows="finetune.showing:run",
    ),
    "prune": Verb(
        "finetune.compressing.prune:prune",
        "Write a run with fewer units or weights, trained again, scored beside the run that it comes from.",
        ("run",),
        {
            "output": "folder of the new run",
            "feed_forward": "share of the feed-forward units of each layer that go, 0.4",
            "heads": "share of the attention heads of each layer that go (Llama-like models)",
            "zeros": "share of the weights of linear layers that become zero, the smallest of all",
            "importance": "what makes a unit stay: taylor (its effect on the loss of training rows) or magnitude",
            "rounds": "in how many steps, each followed by recovery (1)",
            "recover": "epochs of training after each round, by the run's own recipe (0: none)",
            "distill": "recover under the original run's answers too",
        },
        overrides=True,
        shows="finetune.showing:run",
    ),
    "compare": Verb(
        "finetune.compressing.comparison:compare",
        "Hold runs against the first: size, latency, memory and score, each measured in a fresh process.",
        ("runs",),
        {"output": "folder for comparison.json, comparison.md and pareto.png"},
        shows="finetune.compressing.comparison:shown",
    ),
    "check": Verb(
        "finetune.preparation:check",
        "Read a recipe and its data, and say whether training could start.",
        ("recipe",),
        PRINT,
        overrides=True,
    ),
    "preview": Verb(
        "finetune.preparation:preview",
        "Show a few rows as the model would see them.",
        ("recipe",),
        {"rows": "how many (5)"},
        overrides=True,
    ),
    "report": Verb(
        "finetune.evaluation.report:write_report",
        "Write a run's report.html again, from its folder alone.",
        ("run",),
        shows="finetune.showing:path",
    ),
    "publish": Verb(
        "finetune.publication:publish",
        "Publish a run on the Hugging Face Hub, and see that it answers there as it does here.",
        ("run",),
        {"to": "USER/NAME: the repository (publish.to)", "dry_run": "say which files would go up, and change nothing"},
        overrides=True,
        shows="finetune.showing:publication",
    ),
    "schema": Verb("finetune.schema:text", "Print the JSON schema of a recipe, for editors.", shows="builtins:str"),
    "env": Verb("finetune.environment:text", "Print versions and hardware, ready to paste.", shows="builtins:str"),
    "measure": Verb(
        "finetune.compressing.measuring:measure",
        "Measure what a run costs.",
        ("run",),
        shows="finetune.compressing.measuring:as_json",
        data=True,
        hidden=True,
    ),
    "verify": Verb("finetune.reloading:verify", "Reload a run and compare it.", ("run",), hidden=True),
    "verify_published": Verb(
        "finetune.published:verify_published",
        "Load a published run and compare it.",
        ("run", "repository", "commit", "verdict"),
        hidden=True,
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 the user, 3 a failed check, 4 the machine."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        code = _run(arguments)
    except (Exception, KeyboardInterrupt) as error:  # what `ending` does not know is raised again
        known = ending(error)
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
            if run is not None:
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
        result = _function(verb.call)(**given, **flags)
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
