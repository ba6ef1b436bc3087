"""A sweep: trials that are ordinary runs, a study that goes on, and test rows that are looked at once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from finetune.cli import main
from finetune.errors import UserError
from finetune.recipe import Recipe
from finetune.sweeping.space import read_sweep

optuna = pytest.importorskip("optuna")

SPACE = {"train.learning_rate": [1e-4, 0.05], "train.seed": [1, 2]}


@pytest.fixture
def files(sections, write_recipe, tmp_path):
    """Return a function that writes a recipe and a sweep's file, and returns both."""

    def write(space=None, train=None, **options):
        made = sections(
            "text-classification", train={"eval_strategy": "epoch", "save_strategy": "epoch", **(train or {})}
        )
        path = tmp_path / "sweep.yaml"
        given = {"output_dir": str(tmp_path / "sweep"), "space": SPACE if space is None else space, **options}
        path.write_text(yaml.safe_dump(given), encoding="utf-8")
        return write_recipe(made), path

    return write


@pytest.fixture
def here(monkeypatch):
    """Train each trial in this process: what starts one of its own has a test of its own."""
    from finetune.errors import CheckFailed
    from finetune.run import train
    from finetune.sweeping import study
    from finetune.sweeping.trials import Ended

    def trial(file, run, watch, hours):
        try:
            return Ended(train(Recipe.read(file)), pruned=False)
        except CheckFailed as error:
            return Ended(run, pruned=False, failed=str(error))

    monkeypatch.setattr(study, "run_trial", trial)


def result(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "sweep" / "sweep.json").read_text())


def test_a_grid_is_trained_whole_and_its_best_run_alone_meets_the_test_rows(files, tmp_path, capsys) -> None:
    recipe, sweep = files(sampler="grid", space={"train.learning_rate": [1e-4, 0.05]})

    assert main(["sweep", str(recipe), str(sweep)]) == 0

    found = result(tmp_path)
    options = [tuple(each["options"].values()) for each in found["trials"]]
    assert sorted(options) == [(1e-4,), (0.05,)]
    values = [each["value"] for each in found["trials"]]
    assert values == sorted(values, reverse=True)
    runs = sorted((tmp_path / "sweep" / "trials").glob("???"))
    for run in runs:
        scores = json.loads((run / "scores.json").read_text())
        assert "test" not in scores
        number = int(run.name)
        (told,) = [each for each in found["trials"] if each["number"] == number]
        assert told["value"] == scores["validation"]["macro_f1"]["value"]
        assert bool((run / "evaluations").exists()) is (number == found["best"])
    assert found["test"]["accuracy"]["n"] == 22
    best = Recipe.read(tmp_path / "sweep" / "best.yaml")
    assert best.data.test is not None
    (told,) = [each for each in found["trials"] if each["number"] == found["best"]]
    assert best.train.learning_rate == told["options"]["train.learning_rate"]
    assert (tmp_path / "sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "trial 1 (2/2)" in shown
    assert "test accuracy" in shown

    again = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("sweep/trials/*/*.json"))]
    assert main(["sweep", str(recipe), str(sweep)]) == 0  # nothing is left to train
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("sweep/trials/*/*.json"))] == again


@pytest.mark.faults
def test_a_sweep_that_is_killed_goes_on_with_the_trial_that_was_cut_short(files, tmp_path) -> None:
    recipe, sweep = files(sampler="grid", space={"train.seed": [1, 2]}, train={"num_train_epochs": 3})
    command = [sys.executable, "-m", "finetune", "sweep", str(recipe), str(sweep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, start_new_session=True)
    second = tmp_path / "sweep" / "trials" / "001.yaml"
    limit = time.monotonic() + 200
    while not second.exists() and time.monotonic() < limit:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert second.exists()
    first = (tmp_path / "sweep" / "trials" / "000" / "scores.json").stat().st_mtime_ns

    assert main(["sweep", str(recipe), str(sweep)]) == 0

    assert sorted(each["number"] for each in result(tmp_path)["trials"]) == [0, 1]
    assert {each["state"] for each in result(tmp_path)["trials"]} == {"COMPLETE"}
    assert (tmp_path / "sweep" / "trials" / "000" / "scores.json").stat().st_mtime_ns == first


@pytest.mark.faults
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only its kernel tells a process of its parent's end")
def test_a_trial_whose_sweep_alone_is_killed_saves_and_ends_and_is_not_trained_twice(files, tmp_path) -> None:
    recipe, sweep = files(
        sampler="grid", space={"train.seed": [1]}, train={"num_train_epochs": 400, "eval_strategy": "no"}
    )
    command = [sys.executable, "-m", "finetune", "sweep", str(recipe), str(sweep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    trial = tmp_path / "sweep" / "trials" / "000"
    limit = time.monotonic() + 200
    while not any(trial.glob("checkpoints/checkpoint-*")) and time.monotonic() < limit:
        time.sleep(0.1)
    (worker,) = psutil.Process(process.pid).children()
    worker.suspend()  # as one whose last step is long
    process.kill()
    process.wait()

    again = subprocess.Popen([*command, "--train.max_hours=1e-6"], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        said = again.stdout.readline()  # "" when it ends without a word
        waits = again.poll() is None
    finally:
        worker.resume()
    again.communicate(timeout=100)

    assert said == "000 is still being trained by another process, whose end is waited for.\n"
    assert waits
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert again.returncode == 143
    assert "stopped by SIGTERM after step" in trial.with_suffix(".log").read_text()


@pytest.mark.usefixtures("here")
def test_sets_of_options_go_together_and_tpe_stays_in_its_ranges(files, tmp_path) -> None:
    together = [{"train.learning_rate": 1e-3, "train.weight_decay": 0.1}, {"train.learning_rate": 1e-2}]
    recipe, sweep = files(
        trials=3, space={"rates": together, "task.max_length": {"low": 8, "high": 32}, "train.max_grad_norm":
                         {"low": 0.1, "high": 10.0, "log": True}},
    )  # fmt: skip

    assert main(["sweep", str(recipe), str(sweep)]) == 0

    trials = result(tmp_path)["trials"]
    assert len(trials) == 3
    for each in trials:
        options = each["options"]
        assert (options["train.learning_rate"] == 1e-3) is ("train.weight_decay" in options)
        assert isinstance(options["task.max_length"], int)
        assert 8 <= options["task.max_length"] <= 32
        assert 0.1 <= options["train.max_grad_norm"] <= 10


@pytest.mark.usefixtures("here")
def test_a_trial_that_diverges_is_noted_and_the_others_go_on(files, tmp_path) -> None:
    recipe, sweep = files(
        sampler="grid", space={"train.learning_rate": [1e30, 0.01]}, train={"num_train_epochs": 4, "max_grad_norm": 0.0}
    )

    assert main(["sweep", str(recipe), str(sweep)]) == 0

    states = {each["options"]["train.learning_rate"]: each for each in result(tmp_path)["trials"]}
    assert states[1e30]["state"] == "FAIL"
    assert "not a finite number" in states[1e30]["why"]
    assert states[0.01]["state"] == "COMPLETE"


def test_a_hopeless_trial_is_ended_early(monkeypatch, files, tmp_path) -> None:
    """The process is not what is tested here: what it would log is given, three evaluations a trial."""
    from finetune.sweeping import study as sweeping
    from finetune.sweeping.trials import Ended

    recipe, sweep = files(sampler="random", trials=6, prune=True, space={"train.seed": {"low": 1, "high": 1000}})
    asked = []

    def trial(file, run, watch, hours):
        good = 0.5 if len(asked) < 4 else 0.1
        asked.append(run)
        for count in range(1, 4):
            if watch([{"eval_macro_f1": good} for _ in range(count)]):
                return Ended(run, pruned=True)
        return Ended(run, pruned=False)

    monkeypatch.setattr(sweeping, "run_trial", trial)
    monkeypatch.setattr(sweeping, "_value", lambda run, plan: 0.5)
    monkeypatch.setattr(sweeping, "_conclude", lambda study, plan, plain, folder: study.trials)
    states = [each.state.name for each in sweeping.sweep(Recipe.read(recipe), sweep)]

    assert states == ["COMPLETE"] * 4 + ["PRUNED"] * 2


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"space": {"train.learning_rat": [1, 2]}}, r"train\.learning_rat .*Did you mean learning_rate"),
        ({"space": {"train.seed": ["one"]}}, r"train\.seed"),
        ({"space": {"seed": [1, 2]}}, r"sweep\.yaml:\d+: space\.seed: write section\.option, such as train\.seed"),
        ({"space": {"train.seed": []}}, r"space\.train\.seed is an empty list"),
        ({"space": {"train.seed": 3}}, "must be a list of values, or a range"),
        (
            {"space": {"train.learning_rate": {"low": 1.0, "hihg": 2.0}}},
            r"hihg is no part of a range.*Did you mean high",
        ),
        ({"space": {"train.learning_rate": {"low": 1.0, "high": "x"}}}, r"high must be a number"),
        ({"space": {"train.learning_rate": {"low": 2.0, "high": 1.0}}}, "low 2.0 is not below high 1.0"),
        ({"space": {"train.learning_rate": {"low": 0.0, "high": 1.0, "log": True}}}, "log needs a low above 0"),
        ({"space": {"train.output_dir": ["a", "b"]}}, "train.output_dir is the sweep's own"),
        ({"space": {"data.test": ["a.csv"]}}, "data.test is the sweep's own"),
        ({"space": {"train.max_hours": [1.0, 2.0]}}, "train.max_hours is the sweep's own"),
        ({"space": {"train.seed": [1], "x": [{"train.seed": 2}]}}, "train.seed is chosen by train.seed already"),
        ({"sampler": "tpee"}, "sampler is tpee; known: tpe, random, grid. Did you mean tpe"),
        ({"sampler": "grid", "space": {"train.seed": {"low": 1, "high": 3}}}, "a grid needs lists of values"),
        ({"trials": 0}, "give a whole number from 1 on"),
        ({"score": "accuracy"}, "greater_is_better is missing"),
        ({"trails": 3}, "trails is no option of a sweep.*Did you mean trials"),
        ({"space": {}}, "space is missing"),
    ],
)
def test_a_sweep_that_cannot_be_meant_is_one_line_and_nothing_is_written(files, tmp_path, capsys, given, line) -> None:
    recipe, sweep = files(**given)

    assert main(["sweep", str(recipe), str(sweep)]) == 2

    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(line, told), told
    assert not (tmp_path / "sweep").exists()


@pytest.mark.usefixtures("here")
def test_another_space_does_not_go_on_with_a_sweep_and_more_trials_do(files, tmp_path, capsys) -> None:
    recipe, sweep = files(sampler="random", trials=1, space={"train.seed": {"low": 1, "high": 99}})
    assert main(["sweep", str(recipe), str(sweep)]) == 0
    recipe, sweep = files(sampler="random", trials=2, space={"train.seed": {"low": 1, "high": 99}})
    assert main(["sweep", str(recipe), str(sweep), "--train.max_hours", "3"]) == 0  # of the command
    assert len(result(tmp_path)["trials"]) == 2

    recipe, sweep = files(sampler="random", trials=2, space={"train.seed": {"low": 1, "high": 98}})
    assert main(["sweep", str(recipe), str(sweep)]) == 2
    assert "holds a sweep of another recipe or space" in capsys.readouterr().err


def test_a_sweep_needs_validation_rows(files, tmp_path) -> None:
    recipe, sweep = files()
    made = yaml.safe_load(recipe.read_text())
    del made["data"]["validation"]
    made["train"] = {"output_dir": made["train"]["output_dir"]}
    recipe.write_text(yaml.safe_dump(made))
    from finetune.sweeping import sweep as run

    with pytest.raises(UserError, match=r"data\.validation is missing"):
        run(Recipe.read(recipe), sweep)


def test_the_example_of_the_repository_fits_the_quickstart() -> None:
    from finetune.sweeping.study import _first_options, _recipe_of

    root = Path(__file__).parent.parent / "recipes"
    plan, plain = read_sweep(root / "sweeps" / "quickstart.yaml"), Recipe.read(root / "quickstart.yaml").to_dict()
    for options in _first_options(plan):
        assert _recipe_of(plain, plan, options, Path("run")).train.learning_rate == options["train.learning_rate"]


def test_the_file_is_read_as_it_says(files) -> None:
    _, sweep = files(trials=7, seed=3, prune=True)
    plan = read_sweep(sweep)

    assert (plan.trials, plan.seed, plan.prune, plan.sampler) == (7, 3, True, "tpe")
    assert len(plan.grid()) == 4
