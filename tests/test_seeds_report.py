"""The page of several seeds: means with their intervals, a picture, and the way to each run."""

from __future__ import annotations

import json
import re
from math import inf
from pathlib import Path
from typing import Any

import pytest

from finetune import artefact
from finetune.cli import main
from finetune.evaluation.ranges import bounds
from finetune.evaluation.report import write_report
from finetune.seeds import mean_over, summary
from finetune.showing import seeds as shown


def runs_of(folder: Path, values: dict[int, float]) -> dict[int, Path]:
    """Write runs that have scores and no more."""
    made = {}
    for seed, value in values.items():
        run = folder / f"seed-{seed}"
        run.mkdir(parents=True)
        scores = {
            name: {"value": one, "low": one - 0.01, "high": one + 0.01, "n": 50}
            for name, one in {"accuracy": value, "nll": 3 - value, "f1/<b>": value, "micro_f1": value}.items()
        }
        table = {"validation": scores, "test": scores, "baselines": {"majority": {"accuracy": scores["accuracy"]}}}
        artefact.write_json(run / artefact.SCORES, table)
        artefact.write_json(run / artefact.DATA, {"fingerprints": {}})
        (run / artefact.RECIPE).write_text(
            "task: {kind: text-classification}\nmodel: {path: some/bert}\n"
            f"train: {{seed: {seed}, output_dir: x, learning_rate: 0.1}}\n"
        )
        (run / artefact.REPORT).write_text("a report")
        made[seed] = run
    return made


def page(folder: Path, values: dict[int, float], failed: dict[str, str] | None = None) -> tuple[str, dict[str, Any]]:
    found = {**summary(runs_of(folder, values)), "failed": failed or {}}
    artefact.write_json(folder / artefact.SEEDS, found)
    return write_report(folder).read_text(encoding="utf-8"), found


def test_the_page_has_every_score_with_its_mean_and_links_to_the_runs(tmp_path):
    html, found = page(tmp_path / "all", {3: 0.8, 1: 0.86, 7: 0.83})
    one = found["scores"]["test"]["accuracy"]

    assert "Over 3 seeds, accuracy on the test rows is 0.830 on average" in html
    assert f"{one['low']:.3f} to {one['high']:.3f}" in html
    assert "from seed to seed 0.800 to 0.860" in html
    links = re.findall(r'<a href="([^"]+)"', html)
    assert links == ["seed-3/report.html", "seed-1/report.html", "seed-7/report.html"]
    assert all((tmp_path / "all" / link).exists() for link in links)
    assert html.count("<svg") == 2  # accuracy and nll; single classes and micro averages are in the folded table
    assert "majority class" in html
    assert "<b>" not in re.sub(r"<b[ >][^<]*</b>", "", html.replace("&lt;b&gt;", ""))
    assert "f1/&lt;b&gt;" in html or "F1/&lt;b&gt;" in html
    assert "some/bert" in html
    assert "output_dir" not in html
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|http-equiv', "", html)  # nothing from elsewhere


def test_runs_without_a_score_have_a_page_and_lines(tmp_path):
    folder = tmp_path / "all"
    for run in runs_of(folder, {1: 0.5, 2: 0.6}).values():
        artefact.write_json(run / artefact.SCORES, {})
    found = {**summary({seed: folder / f"seed-{seed}" for seed in (1, 2)}), "failed": {}}
    artefact.write_json(folder / artefact.SEEDS, found)

    assert "No row was scored." in write_report(folder).read_text(encoding="utf-8")
    assert shown(found, folder).splitlines()[0] == "no row was scored"


def test_two_seeds_have_no_interval_and_it_is_said(tmp_path):
    html, found = page(tmp_path / "all", {1: 0.5, 2: 0.99})
    one = found["scores"]["test"]["accuracy"]

    assert (one["low"], one["high"], one["n"]) == (None, None, 2)
    assert one["sd"] == pytest.approx(0.49 / 2**0.5)
    assert "none: 3 seeds or more have an interval, and here are 2" in html
    assert "two seeds are too few for an interval; give three or more" in shown(found, tmp_path / "all")


def test_an_interval_ends_where_the_scores_values_do_and_it_is_said(tmp_path):
    html, found = page(tmp_path / "all", {1: 0.7, 2: 0.99, 3: 0.99})
    one = found["scores"]["test"]["accuracy"]

    assert one["high"] == 1.0
    assert one["cut"]
    assert one["low"] == pytest.approx(mean_over({1: 0.7, 2: 0.99, 3: 0.99})["low"])
    assert not found["scores"]["test"]["nll"]["cut"]
    assert "* The interval ends where the score" in html
    assert "intervals end where the values of a score do" in shown(found, tmp_path / "all")


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("accuracy", (0, 1)), ("macro_f1", (0, 1)), ("f1/some class", (0, 1)), ("next_accuracy", (0, 1)),
        ("mcc", (-1, 1)), ("rougeL", (0, 100)), ("nll", (0, inf)), ("perplexity", (1, inf)),
        ("accuracy_gap", (-inf, inf)), ("something_new", (-inf, inf)),
    ],
)  # fmt: skip
def test_the_values_of_a_score_are_known_by_its_name(name, ends):
    assert bounds(name) == ends


def test_a_seed_that_failed_stands_on_the_page(tmp_path):
    html, _ = page(tmp_path / "all", {1: 0.8}, failed={"2": "it <diverged>."})

    assert "seed 2: it &lt;diverged&gt;. It is in no mean." in html
    assert "here is 1" in html


def test_report_writes_it_again_and_a_damaged_file_is_one_line(tmp_path, capsys):
    page(tmp_path / "all", {1: 0.8, 2: 0.9, 3: 0.85})
    (tmp_path / "all" / "report.html").unlink()
    assert main(["report", str(tmp_path / "all")]) == 0
    assert (tmp_path / "all" / "report.html").exists()
    (tmp_path / "all" / "seeds.json").write_text("{")
    capsys.readouterr()
    assert main(["report", str(tmp_path / "all")]) == 2
    assert "seeds.json: not JSON" in capsys.readouterr().err


def test_training_writes_the_page_and_goes_on_in_its_folder(sections, write_recipe, tmp_path, monkeypatch, capsys):
    from finetune import seeds
    from finetune.recipe import Recipe
    from finetune.run import train
    from finetune.sweeping.trials import Ended

    def trial(file: Path, run: Path, watch: Any, hours: float | None) -> Ended:
        done = run.exists() and artefact.status(run) == "finished"
        return Ended(run if done else train(Recipe.read(file)), pruned=False)

    monkeypatch.setattr(seeds, "run_trial", trial)
    given = {"output_dir": str(tmp_path / "all"), "seeds": [1, 2]}
    file = write_recipe(sections("text-classification", train=given))
    assert main(["train", str(file)]) == 0
    assert f"report: {tmp_path / 'all' / 'report.html'}" in capsys.readouterr().out
    first = (tmp_path / "all" / "report.html").read_text(encoding="utf-8")
    assert "seed-2/report.html" in first
    assert main(["train", str(file)]) == 0  # the page is no stranger in the folder
    told = json.loads((tmp_path / "all" / "seeds.json").read_text())
    assert told["scores"]["test"]["accuracy"]["low"] is None
