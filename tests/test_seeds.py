"""One recipe trained with several seeds: ordinary runs that are not trained twice, and the mean of their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from scipy import stats

from finetune import artefact
from finetune.cli import main
from finetune.errors import CheckFailed, EnvironmentFailed, Stopped, UserError
from finetune.recipe import Recipe
from finetune.run import train
from finetune.seeds import mean_over


@pytest.fixture
def recipe(sections: Any, write_recipe: Any, tmp_path: Path) -> Any:
    """Return a function that writes the recipe of several seeds."""

    def write(seeds: Any, **changes: dict[str, Any]) -> Path:
        given = {"output_dir": str(tmp_path / "all"), "seeds": seeds, **changes.pop("train", {})}
        return write_recipe(sections("text-classification", train=given, **changes))

    return write


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Train each seed in this process, and return the list of those that were begun."""
    from finetune import seeds
    from finetune.sweeping.trials import Ended

    begun: list[str] = []

    def trial(file: Path, run: Path, watch: Any, hours: float | None) -> Ended:
        if run.exists() and artefact.status(run) == "finished":
            return Ended(run, pruned=False)
        begun.append(run.name)
        try:
            return Ended(train(Recipe.read(file)), pruned=False)
        except CheckFailed as error:
            return Ended(run, pruned=False, failed=str(error))

    monkeypatch.setattr(seeds, "run_trial", trial)
    return begun


@pytest.mark.parametrize("where", ["here", pytest.param("in processes of their own", marks=pytest.mark.slow)])
def test_each_seed_is_the_run_that_its_own_recipe_gives(
    recipe: Any, run: Any, weights: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: Any, where: str
):
    if where == "here":
        request.getfixturevalue("here")
    alone = run("text-classification", train={"output_dir": str(tmp_path / "alone"), "seed": 3})
    file = recipe([3, 1], evaluate={"baselines": True})
    assert main(["train", str(file)]) == 0

    folder = tmp_path / "all"
    for name, tensor in weights(alone).items():
        assert (weights(folder / "seed-3")[name] == tensor).all()
    found = json.loads((folder / "seeds.json").read_text(encoding="utf-8"))
    scores = {seed: json.loads((folder / f"seed-{seed}" / "scores.json").read_text()) for seed in (3, 1)}
    assert (found["seeds"], found["runs"], found["failed"]) == ([3, 1], {"3": "seed-3", "1": "seed-1"}, {})
    told = found["scores"]["test"]["nll"]
    values = [scores[seed]["test"]["nll"]["value"] for seed in (3, 1)]
    assert list(told["values"].items()) == [("3", values[0]), ("1", values[1])]
    assert (told["mean"], told["n"]) == (pytest.approx(np.mean(values)), 2)
    rival, theirs = next(iter(scores[3]["baselines"].items()))
    assert found["baselines"][rival]["accuracy"]["values"]["3"] == theirs["accuracy"]["value"]
    lines = capsys.readouterr().out
    assert "seed 3" in lines
    assert f"n = 2 seeds, the same rows; runs: {folder}" in lines

    before = (folder / "seed-3" / "scores.json").stat().st_mtime_ns
    assert main(["train", str(file)]) == 0
    assert (folder / "seed-3" / "scores.json").stat().st_mtime_ns == before
    assert "seed 3 (1/2): finished before" in capsys.readouterr().out


def test_more_seeds_are_added_and_one_that_was_cut_short_goes_on(
    recipe: Any, here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    train(Recipe.read(recipe([1])))
    one = json.loads((tmp_path / "all" / "seeds.json").read_text())["scores"]["test"]["accuracy"]
    assert (one["n"], one["low"], one["sd"]) == (1, None, None)

    def cut(run: Path, *rest: Any) -> None:
        raise KeyboardInterrupt

    both = Recipe.read(recipe([1, 2]))
    with monkeypatch.context() as patched:
        patched.setattr("finetune.run.finish", cut)
        with pytest.raises(KeyboardInterrupt):
            train(both)
    assert here == ["seed-1", "seed-2"]
    assert artefact.status(tmp_path / "all" / "seed-2") == "unfinished"

    train(Recipe.read(recipe([1, 2])))
    assert here == ["seed-1", "seed-2", "seed-2"]
    assert json.loads((tmp_path / "all" / "seeds.json").read_text())["seeds"] == [1, 2]

    with pytest.raises(UserError, match="seed-1 was trained by another recipe"):
        train(Recipe.read(recipe([1, 2], train={"learning_rate": 0.01})))
    train(Recipe.read(recipe([1, 2]), {"train.overwrite": True}))
    assert here[3:] == ["seed-1", "seed-2"]

    rows = tiny.write_rows(Path(Recipe.read(recipe([1])).data.test).with_name("more.jsonl"), tiny.sentences(12, 9))
    with pytest.raises(UserError, match="trained by another recipe"):
        train(Recipe.read(recipe([1, 2, 4], data={"test": str(rows)})))
    assert len(here) == 5


@pytest.mark.usefixtures("here")
def test_rows_that_changed_between_two_seeds_are_seen(recipe: Any, tmp_path: Path):
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.sentences(12, 9))
    train(Recipe.read(recipe([1], data={"test": str(rows)})))
    tiny.write_rows(rows, tiny.sentences(14, 9))

    with pytest.raises(UserError, match=r"seed-2 and seed-1 read different rows: .*rows\.jsonl has changed"):
        train(Recipe.read(recipe([1, 2], data={"test": str(rows)})))


def test_a_seed_that_diverges_is_named_and_the_others_are_told(
    recipe: Any, here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from finetune import seeds
    from finetune.sweeping.trials import Ended

    trial = seeds.run_trial

    def one_fails(file: Path, run: Path, *rest: Any) -> Ended:
        return Ended(run, pruned=False, failed="it diverged.") if run.name == "seed-2" else trial(file, run, *rest)

    monkeypatch.setattr(seeds, "run_trial", one_fails)
    assert main(["train", str(recipe([1, 2]))]) == 3
    said = capsys.readouterr()
    assert "seed 2: it diverged. So the means are over 1 of 2 seeds." in said.err
    assert "n = 1 seed: no interval" in said.out
    found = json.loads((tmp_path / "all" / "seeds.json").read_text())
    assert (found["seeds"], found["failed"]) == ([1], {"2": "it diverged."})


def test_seeds_that_are_stopped_as_they_start_anew_say_to_go_on_without(
    recipe: Any, here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And nothing of before is counted then: all of it is removed before the first seed is trained."""
    from finetune import seeds

    train(Recipe.read(recipe([1, 2])))
    anew, trial = Recipe.read(recipe([1, 2]), {"train.overwrite": True}), seeds.run_trial

    def stopped(file: Path, run: Path, *rest: Any) -> Any:
        if run.name == "seed-2":
            raise Stopped(f"{file}: stopped by SIGTERM after step 3 of 9: x holds it, and the same command goes on.")
        return trial(file, run, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(seeds, "run_trial", stopped)
        with pytest.raises(
            Stopped, match=r"^seed 2: .*, and the same command without --overwrite \(train\.overwrite\) goes on\.$"
        ):
            train(anew)
    assert not (tmp_path / "all" / "seed-2").exists()
    assert not (tmp_path / "all" / "seeds.json").exists()

    train(Recipe.read(recipe([1, 2])))
    assert here == ["seed-1", "seed-2", "seed-1", "seed-2"]


def test_a_limit_of_hours_is_of_the_command_and_not_of_the_recipe(recipe: Any, here: list[str], tmp_path: Path):
    train(Recipe.read(recipe([1], train={"max_hours": 11.5})))
    train(Recipe.read(recipe([1, 2], train={"max_hours": 3.0})))
    train(Recipe.read(recipe([1, 2])))

    assert here == ["seed-1", "seed-2"]
    assert not [each for each in tmp_path.glob("all/**/*.yaml") if "max_hours" in each.read_text()]


def test_the_interval_is_students():
    values = {1: 0.8, 2: 0.9, 3: 0.85}
    found = mean_over(values)
    low, high = stats.t.interval(0.95, 2, np.mean([*values.values()]), stats.sem([*values.values()]))
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(
    ("seeds", "changes", "said"),
    [
        ([], {}, "train.seeds is empty; give some"),
        ([1, 2, 1], {}, "train.seeds has 1 twice"),
        ([1, -2], {}, "train.seeds has -2; give whole numbers from 0"),
        (["a"], {}, "train.seeds"),
        ([1, 2], {"train": {"seed": 4}}, "train.seed is 4, and train.seeds says which are trained; leave one out."),
        ([1, 2], {"publish": {"to": "me/it"}}, "train.seeds makes several runs, and publish.to takes one"),
    ],
)
def test_what_seeds_cannot_be_is_said_in_a_line(
    recipe: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, seeds: Any, changes: Any, said: str
):
    assert main(["train", str(recipe(seeds, **changes))]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "all").exists()


def test_what_no_seed_could_train_is_said_of_the_recipe_and_writes_nothing(
    recipe: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """As of one run: the recipe, its files and its teacher are looked at before the first seed begins."""
    for changes, said in (
        ({"data": {"train": "nofile.jsonl"}}, "finetune: data.train: nofile.jsonl: no such file."),
        (
            {"data": {"validation": None, "test": None}},
            "there are no rows to score: give data.validation or data.test.",
        ),
        (
            {"task": {"distill": {"teacher": "./nowhere"}}},
            "finetune: task.distill.teacher: there is no folder ./nowhere",
        ),
    ):
        assert main(["train", str(recipe([1, 2], **changes))]) == 2
        told = capsys.readouterr().err
        assert said in told.splitlines()[-1]
        assert "seed-1" not in told
        assert not (tmp_path / "all").exists()


def test_a_seed_that_the_machine_ended_is_called_a_seed(recipe: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from finetune.sweeping import trials

    monkeypatch.setattr(trials.sys, "executable", "/bin/false")
    with pytest.raises(
        EnvironmentFailed, match=r"^seed 3: the training ended with code 1: it said nothing\. See .*log"
    ):
        train(Recipe.read(recipe([3])))


def test_other_folders_launches_and_sweeps_are_refused(
    recipe: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from finetune.sweeping.space import of_one_run

    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "notes.txt").write_text("mine")
    made = Recipe.read(recipe([1, 2]))
    with pytest.raises(UserError, match=r"holds other files \(notes.txt\)"):
        train(made)
    with pytest.raises(UserError, match="`ready` cannot be called"):
        train(made, ready=print)
    with pytest.raises(UserError, match=r"put train\.seed into the space"):
        of_one_run(made)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UserError, match="leave out --profile"):
        train(made)
