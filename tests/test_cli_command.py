from __future__ import annotations

import errno
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finetune import artefact, endings
from finetune.cli import VERBS, main
from finetune.endings import ending
from finetune.errors import CheckFailed, EnvironmentFailed, UserError
from finetune.launching import FOLDERS, profile_file

RECIPE = (
    "task: {kind: text-classification}\ndata: {train: a.csv, validation: {fraction: 0.1}}\n"
    "model: {path: some/model}\ntrain: {output_dir: runs/my}\n"
)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(RECIPE, encoding="utf-8")
    return Path("my.yaml")


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every verb's function is one that keeps what it was given."""
    calls: list[dict[str, Any]] = []
    room = ModuleType("room")
    room.function = lambda **given: calls.append(given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "room", room)
    for name, verb in list(VERBS.items()):
        monkeypatch.setitem(VERBS, name, type(verb)(**{**vars(verb), "call": "room:function", "shows": ""}))
    return calls


def test_train_gets_the_recipe_with_what_the_command_line_says(recipe: Path, called: list):
    assert main(["train", "--train.seed", "7", str(recipe), "--train.learning_rate=2e-5", "--overwrite"]) == 0

    made = called[0]["recipe"]
    assert (made.train.seed, made.train.learning_rate, made.train.overwrite) == (7, 2e-5, True)


def test_the_last_of_two_equal_options_counts(recipe: Path, called: list):
    assert main(["train", str(recipe), "--train.seed", "7", "--train.seed", "8"]) == 0
    assert called[0]["recipe"].train.seed == 8


def test_a_number_is_text_where_only_text_is_possible(recipe: Path, called: list):
    assert main(["train", str(recipe), "--model.revision", "2024", "--data.train", "*.csv", "--task.text", "3"]) == 0

    made = called[0]["recipe"]
    assert (made.model.revision, made.data.train, made.task.text) == ("2024", "*.csv", "3")


def test_preview_takes_a_number_of_rows(recipe: Path, called: list):
    assert main(["preview", str(recipe), "--rows", "3"]) == 0
    assert called[0]["rows"] == 3


def test_a_run_is_used_by_its_path_alone(recipe: Path, called: list, tmp_path: Path):
    run = tmp_path / "runs" / "my"
    run.mkdir(parents=True)
    (run / artefact.RECIPE).write_text(RECIPE, encoding="utf-8")
    artefact.write_status(run, "finished", "text-classification")

    assert main(["evaluate", "runs/my", "--data.test", "other.csv"]) == 0
    assert main(["predict", "runs/my", "new.jsonl", "--output", "answers.jsonl"]) == 0
    assert main(["evaluate", "runs/my", "--data.tets", "other.csv"]) == 2

    evaluated, predicted = called
    assert evaluated == {"run": Path("runs/my"), "overrides": {"data.test": "other.csv"}}
    assert predicted == {
        "run": Path("runs/my"), "file": Path("new.jsonl"), "output": Path("answers.jsonl"), "overrides": {}
    }  # fmt: skip


def test_what_predict_prints_is_answers_alone(
    recipe: Path, called: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def answer(**given: object) -> list[dict[str, int]]:
        print("loading")
        return [{"a": 1}, {"a": 2}]

    run = Path("runs/my")
    run.mkdir(parents=True)
    (run / artefact.RECIPE).write_text(RECIPE, encoding="utf-8")
    artefact.write_status(run, "finished", "text-classification")
    monkeypatch.setattr(sys.modules["room"], "function", answer)
    predict = VERBS["predict"]
    monkeypatch.setitem(VERBS, "predict", type(predict)(**{**vars(predict), "shows": "finetune.showing:answers"}))

    assert main(["predict", "runs/my", "new.csv"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ('{"a": 1}\n{"a": 2}\n', "loading\n")


def test_scores_stand_beside_those_of_the_baselines(tmp_path: Path):
    from finetune.showing import run
    from finetune.task import Score

    ours = {"accuracy": Score(0.8, 0.75, 0.85, 200), "f1/negative": Score(0.7), "micro_f1": Score(0.8)}
    ours["iw_nll"] = Score(97.0, n=100)
    rival = {"accuracy": Score(0.7, 0.6, 0.8, 200), "accuracy_gap": Score(0.1, 0.05, 0.15, 200)}
    artefact.write_scores(tmp_path, {"test": ours}, {"tfidf": rival})

    lines = [line.split() for line in run(tmp_path).splitlines()]

    assert lines[:4] == [
        ["test", "(n", "=", "200)", "tfidf"],
        ["accuracy", "0.8000", "[0.7500,", "0.8500]", "0.7000"],
        ["iw_nll", "97.0000", "n", "=", "100"],
        ["accuracy_gap", "0.1000", "[0.0500,", "0.1500]", "over", "tfidf"],
    ]


def test_print_config_prints_a_recipe_that_reads_back_and_runs_nothing(
    recipe: Path, called: list, capsys: pytest.CaptureFixture[str]
):
    from finetune.recipe import Recipe

    assert main(["train", str(recipe), "--print_config", "--train.seed", "7"]) == 0
    Path("printed.yaml").write_text(capsys.readouterr().out, encoding="utf-8")

    assert called == []
    assert Recipe.read("printed.yaml") == Recipe.read(recipe, {"train.seed": 7})


def test_help_of_every_verb_names_its_arguments(capsys: pytest.CaptureFixture[str]):
    for name, verb in VERBS.items():
        assert main([name, "--help"]) == 0
        said = capsys.readouterr().out
        assert all(f"--{flag}" in said for flag in verb.flags)
        assert ("--train.learning_rate" in said) == verb.overrides


def test_every_verb_stands_for_a_function_that_exists():
    from importlib import import_module

    for verb in VERBS.values():
        for where in filter(None, (verb.call, verb.shows)):
            module, function = where.split(":")
            assert callable(getattr(import_module(module), function))


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class ConnectError(Exception):
    """Named as httpx names its own."""


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (UserError("task.text is wrong"), 2, "task.text"),
        (CheckFailed("diverged"), 3, "diverged"),
        (EnvironmentFailed("no disk"), 4, "no disk"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 4, "the disk is full: runs/x"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 4, "not allowed: runs/x"),
        (MemoryError(), 4, "out of memory"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), 4, "CUDA out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 4, "per_device_train_batch_size"),
        (ConnectionResetError("reset"), 4, "reset"),
        (raised_from(OSError("We couldn't connect to the Hub"), ConnectError("no route")), 4, "Hub"),
    ],
)
def test_what_goes_wrong_has_its_exit_code_and_one_line(
    recipe: Path, called: list, monkeypatch: pytest.MonkeyPatch, capsys: Any, error: Any, code: int, word: str
):
    def fail(**given: object) -> None:
        raise error

    monkeypatch.setattr(sys.modules["room"], "function", fail)

    assert main(["train", str(recipe)]) == code

    said = capsys.readouterr().err
    assert word in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("verb", "goes_on"), [("train", True), ("preview", False), ("selftest", False)])
def test_only_a_command_that_goes_on_later_says_so(
    recipe: Path, called: list, monkeypatch: pytest.MonkeyPatch, capsys: Any, verb: str, goes_on: bool
):
    def fail(**given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["room"], "function", fail)

    assert main([verb, str(recipe)]) == 130
    line = "finetune: interrupted" + "; the same command goes on from its last checkpoint, if it has one." * goes_on
    assert capsys.readouterr().err == f"{line}\n"


def test_a_command_that_starts_anew_says_how_it_goes_on(
    recipe: Path, called: list, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    def fail(**given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["room"], "function", fail)

    assert main(["train", str(recipe), "--overwrite"]) == 130
    assert "; the same command without --overwrite goes on from its last" in capsys.readouterr().err


def test_our_own_faults_keep_their_traceback(recipe: Path, called: list, monkeypatch: pytest.MonkeyPatch):
    def fail(**given: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(sys.modules["room"], "function", fail)

    with pytest.raises(KeyError):
        main(["train", str(recipe)])
    assert ending(FileNotFoundError("ours")) is None


def test_another_rank_leaves_the_line_to_the_first_and_says_what_that_one_has_not_met(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    waited: list[float] = []
    monkeypatch.setattr(endings.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "finetune (rank 1): there is no recipe nowhere.yaml.\n"
    assert waited == [endings.PATIENCE]

    endings.say(MemoryError(), "out of memory")  # what it alone can know
    assert capsys.readouterr().err == "finetune (rank 1): out of memory\n"
    endings.say(KeyboardInterrupt(), "interrupted")
    assert capsys.readouterr().err == ""
    assert len(waited) == 1


def test_profiles_are_found_by_name_or_path(tmp_path: Path):
    names = {file.stem for folder in FOLDERS for file in folder.glob("*.yaml")}
    assert {"cpu", "ddp", "fsdp2", "zero2", "zero3"} <= names
    assert all(profile_file(name).is_file() for name in names)

    (tmp_path / "own.yaml").write_text("num_processes: 2\n", encoding="utf-8")
    assert profile_file(str(tmp_path / "own.yaml")) == tmp_path / "own.yaml"
    with pytest.raises(UserError, match=r"--profile zero_2: known: .* Did you mean zero2\?"):
        profile_file("zero_2")


def test_the_environment_is_plain_and_names_no_one():
    import getpass
    import json

    from finetune.environment import collect, text

    found = collect()

    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["torch"]
    assert str(Path.home()) not in text()
    assert getpass.getuser() not in text().split()
