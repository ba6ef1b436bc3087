"""A token that is given in any of seven ways stands in no byte of what a run leaves or says, however it ends."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hub_server
import psutil
import pytest

CANARY = "hf_" + "CanaryBirdSingsAtDawn" + "0123456789abcdef"
ROUTES = ["flag", "flag of its own", "environment", "netrc", "token file", "configuration", "recipe"]
OFTEN = {("flag", "ok"), ("recipe", "ok"), ("environment", "ok"), ("token file", "crash")}  # a process of 10 s each
REFUSED = ("flag", "flag of its own", "recipe")
CRASH = """
import sys
from finetune.training import trainer

def fails(*given, **named):
    raise RuntimeError("boom")

if sys.argv.pop(1) == "crash":
    trainer.Trainer.training_step = fails
from finetune.cli import main
sys.exit(main(sys.argv[1:]))
"""


def give(
    route: str, made: dict[str, Any], home: Path, host: str = "huggingface.co"
) -> tuple[list[str], dict[str, str]]:
    """Put the token where a route has it; return words for the command line and variables."""
    home.mkdir()
    variables = {"HOME": str(home), "HF_HOME": str(home / "hf")}
    (home / "hf").mkdir()
    if route == "flag":
        return ["--train.hub_token", CANARY], variables
    if route == "flag of its own":
        return [f"--token={CANARY}"], variables
    if route == "environment":
        return [], variables | {"HF_TOKEN": CANARY, "HUGGING_FACE_HUB_TOKEN": CANARY}
    if route == "netrc":
        (home / ".netrc").write_text(f"machine {host} login jane password {CANARY}\n")
        (home / ".netrc").chmod(0o600)
    elif route == "token file":
        (home / "hf" / "token").write_text(CANARY)
    elif route == "configuration":
        (home / "hf" / "stored_tokens").write_text(f"[jane]\nhf_token = {CANARY}\n")
    else:
        made["train"]["run_name"] = CANARY
    return [], variables


def followed(command: list[str], environment: dict[str, str], log: Path) -> tuple[int, str, set[str]]:
    """Run a command; return its exit code, all that it said, and the command lines of the processes that it started."""
    lines: set[str] = set()
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=environment) as process,
    ):
        while process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                try:
                    lines.add(" ".join(child.cmdline()))
                except psutil.Error:
                    continue
            time.sleep(0.02)
    return process.returncode, log.read_text(errors="replace"), lines


@pytest.mark.parametrize(
    ("route", "ending"),
    [
        pytest.param(*case, marks=[] if case in OFTEN else pytest.mark.slow)
        for case in itertools.product(ROUTES, ("ok", "crash"))
    ],
)
def test_a_token_stands_in_no_byte_of_a_run(sections, write_recipe, tmp_path, contract, route, ending):
    folder = tmp_path / "work"
    folder.mkdir()
    made = sections(
        "text-classification", "lora", train={"save_strategy": "steps", "save_steps": 2, "report_to": "tensorboard"}
    )
    made["train"]["output_dir"] = str(folder / "run")
    made["data"]["cache_dir"] = str(folder / "cache")
    words, variables = give(route, made, tmp_path / "jane")
    recipe = write_recipe(made)
    command = [sys.executable, "-c", CRASH, ending, "train", str(recipe), *words]

    code, said, lines = followed(command, {**os.environ, **variables}, tmp_path / "said.txt")

    refused = route in REFUSED
    assert code == (2 if refused else 0 if ending == "ok" else 1), said
    assert ("boom" in said) == (ending == "crash" and not refused)
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) >= (0 if refused else 3)
    held = [file for file in files if CANARY.encode() in file.read_bytes()]
    assert not held
    assert CANARY not in said
    assert not any(CANARY in line for line in lines)
    contract("S4", outputs_searched=len(files) + 1, found=0)


TAKEN = {"environment": True, "token file": True, "netrc": False, "configuration": False}  # by huggingface_hub
CODES = {"crash": 1, "commit": 0, "whoami": 4}  # a run that cannot be published is whole
SHOWN = [*itertools.product(("environment", "token file"), CODES), ("netrc", "crash"), ("configuration", "crash")]


@pytest.mark.slow
@pytest.mark.parametrize(("route", "ending"), SHOWN)
def test_a_token_that_was_shown_to_the_hub_stands_in_no_byte_either(
    sections, write_recipe, home, tmp_path, hub, contract, route, ending
):
    folder = tmp_path / "work"
    folder.mkdir()
    hub.accounts[CANARY] = hub_server.Account("jane", "write")
    hub.upload("jane/bert", home / "bert", private=True)
    made = sections("text-classification", "lora", model={"path": "jane/bert"}, train={"report_to": "tensorboard"})
    made["train"]["output_dir"] = str(folder / "run")
    made["data"]["cache_dir"] = str(folder / "cache")
    made["publish"] = {"to": "jane/made", "license": "mit", "language": "en", "attempts": 1}
    if ending != "crash":  # a Hub that repeats what it was shown
        hub.fail("status", 99, path=f"/{ending}", status=500, message=f"no access for {CANARY}")
    words, variables = give(route, made, tmp_path / "jane", host="127.0.0.1")
    given = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"} | variables
    ends = "crash" if ending == "crash" else "ok"
    command = [sys.executable, "-c", CRASH, ends, "train", str(write_recipe(made)), *words]

    code, said, lines = followed(command, given, tmp_path / "said.txt")

    assert (CANARY in hub.tokens) == TAKEN[route]
    assert code == (CODES[ending] if TAKEN[route] else 2), said
    left = [file for file in [*folder.rglob("*"), *(tmp_path / "jane" / "hf" / "hub").rglob("*")] if file.is_file()]
    assert not [file for file in left if CANARY.encode() in file.read_bytes()]
    assert CANARY not in said
    assert not any(CANARY in line for line in lines)
    assert CANARY.encode() not in b"".join(hub.received)
    contract("S4", outputs_searched=len(left) + 1, runs_that_showed_the_token=int(TAKEN[route]), found=0)


def test_a_line_that_ends_a_command_hides_a_token(capsys):
    from finetune.endings import say

    say(RuntimeError("x"), f"the Hub refused {CANARY}: no access")

    assert capsys.readouterr().err == "finetune: the Hub refused [a token]: no access\n"
