"""What an audit measures: secrets that were planted, and rows told by their loss."""

from __future__ import annotations

import html
import json

import numpy as np
import pytest
import tiny

from finetune.auditing import canaries as planting
from finetune.auditing import exposure, membership
from finetune.auditing.verdict import verdict
from finetune.cli import main

LEARN = {"optim": "adamw_torch", "learning_rate": 5e-3, "per_device_train_batch_size": 16, "logging_steps": 0.5}


@pytest.fixture
def recipe(home, tmp_path, write_recipe):
    """Return a function that writes a tiny recipe which learns its rows by heart."""

    def make(kind, rows=120, **changes):
        made = tiny.sections(home, tmp_path / "run", kind, "whole")
        for name, count, seed in (("train", rows, 1), ("validation", rows, 2)):
            made["data"][name] = str(tiny.write_rows(tmp_path / f"{name}.jsonl", tiny.sentences(count, seed)))
        del made["data"]["test"]
        made["train"] |= LEARN
        for name, options in changes.items():
            made[name] = {**made.get(name, {}), **options}
        return write_recipe(made)

    return make


def result(folder):
    return json.loads((folder / "audit.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_secrets_that_were_seen_are_exposed_and_those_that_were_not_are_at_chance(recipe, tmp_path, capsys, contract):
    path = recipe("causal-lm", train={"num_train_epochs": 7})

    assert main(["audit", str(path)]) == 0

    found = result(tmp_path / "run-audit")
    never, often = found["canaries"]["0"], found["canaries"]["16"]
    assert often["exposure"] > 7
    assert never["low"] <= exposure.CHANCE <= never["high"]
    assert found["control_holds"]
    assert found["canaries"]["1"]["exposure"] < found["canaries"]["4"]["exposure"] <= often["exposure"]
    assert {each["n"] for each in found["canaries"].values()} == {20}
    assert found["facts"]["planted"] == 20 * (1 + 4 + 16)
    attack, control = found["membership"]["loss"], found["membership"]["control: held-out against held-out"]
    assert attack["low"] > 0.5
    assert control["low"] < 0.5 < control["high"]
    said = capsys.readouterr().out
    assert "Secrets: what stands" in said
    assert "Rows: by its loss a row can be told" in said
    assert not (tmp_path / "run").exists()  # the user's own
    assert sorted(file.name for file in (tmp_path / "run-audit").iterdir()) == ["audit.html", "audit.json", "audit.png"]
    page = (tmp_path / "run-audit" / "audit.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert found["verdict"][0] in html.unescape(page)
    contract("P1", secrets=80, exposure_seen_16_times=often["exposure"], exposure_never_seen=never["exposure"],
             membership_auc=attack["auc"], held_out_against_held_out=control["auc"])  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "epochs"),
    [("masked-lm", 12), ("seq2seq", 10), ("chat", 3)],
)
def test_every_task_that_learns_to_write_is_asked_for_its_secrets(recipe, tmp_path, monkeypatch, kind, epochs):
    monkeypatch.setattr(planting, "CANDIDATES", 100)
    monkeypatch.setattr(exposure, "CANDIDATES", 100)
    monkeypatch.setattr(exposure, "MOST", float(np.log2(100)))

    assert main(["audit", str(recipe(kind, rows=40, train={"num_train_epochs": epochs})), "--canaries", "5"]) == 0

    found = result(tmp_path / "run-audit")["canaries"]
    assert found["16"]["exposure"] > found["0"]["exposure"] + 1.5


def test_a_classifier_and_a_finished_run_are_asked_for_their_rows_alone(recipe, tmp_path, capsys):
    path = recipe("text-classification", rows=40, train={"num_train_epochs": 2})
    assert main(["train", str(path)]) == 0
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}

    assert main(["audit", str(path), "--output", str(tmp_path / "one")]) == 0
    assert main(["audit", str(tmp_path / "run")]) == 0

    assert before == {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    one, other = result(tmp_path / "one"), result(tmp_path / "run-audit")
    assert "canaries" not in one
    assert one["membership"].keys() == other["membership"].keys()
    assert one["losses"] == other["losses"]  # the recipe's seed gives the run's weights, and rows are chosen by it


@pytest.mark.parametrize(
    ("kind", "changes", "arguments", "said"),
    [
        ("image-gan", {}, [], "task.kind image-gan has no loss of a single row"),
        ("causal-lm", {"data": {"validation": None}}, [], "rows that were not trained on are needed"),
        ("causal-lm", {}, ["--canaries", "2"], "--canaries is 2; give 5 or more"),
        ("causal-lm", {}, ["--output", "."], "--output: . is there already"),
        ("causal-lm", {"task": {"block_size": 8}}, ["--data.on_long", "truncate"], "canary:"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_one_line(sections, write_recipe, capsys, kind, changes, arguments, said):
    made = sections(kind, "whole", **changes)
    if "data" in changes:
        made["data"] = {name: each for name, each in made["data"].items() if name not in ("validation", "test")}

    assert main(["audit", str(write_recipe(made)), *arguments]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_area_is_the_chance_that_a_member_lies_lower():
    from sklearn.metrics import roc_auc_score

    chooser = np.random.default_rng(1)
    members, others = chooser.integers(0, 9, 80) * 1.0, chooser.integers(1, 10, 50) * 1.0

    score = membership.auc(members, others, 300, 1)

    target = np.r_[np.ones(80), np.zeros(50)]
    assert score.value == pytest.approx(roc_auc_score(target, -np.r_[members, others]))
    assert score.low < score.value < score.high
    same = membership.auc(chooser.normal(size=400), chooser.normal(size=400), 300, 1)
    assert same.low < 0.5 < same.high


def test_the_mean_of_random_ranks_is_chance():
    assert pytest.approx(1 / np.log(2), abs=0.01) == exposure.CHANCE


@pytest.fixture
def digits(home):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(home / "gpt2")


def test_canaries_stand_as_often_as_they_say_and_the_rows_in_their_order(digits):
    from datasets import Dataset

    from finetune.tasks.causal_lm import CausalLM

    texts = [each["text"] for each in tiny.sentences(50, 1)]
    rows = Dataset.from_dict({"row_id": [f"x:{number}" for number in range(50)], "text": texts})
    made = planting.made(digits, rows["text"], 6, seed=3)
    mixed = planting.planted(rows, CausalLM(), made, seed=3)

    assert [each for each in mixed["row_id"] if each.startswith("x:")] == rows["row_id"][:]
    assert len(set(mixed["row_id"])) == len(mixed)  # private training counts each for itself
    for canary in made:
        assert mixed["text"][:].count(f"{canary.before} {canary.secret}") == canary.times
        assert len({canary.secret, *canary.others}) == planting.CANDIDATES
    assert len({canary.before for canary in made}) == len(made)
    assert made == planting.made(digits, rows["text"], 6, seed=3)
    assert made != planting.made(digits, rows["text"], 6, seed=4)
    assert mixed["row_id"][-1] != mixed["row_id"][0]
    assert not all(each.startswith("canary") for each in mixed["row_id"][50:])  # not all of them at the end


def test_a_tokenizer_without_digits_has_secrets_of_words_and_one_without_either_is_refused(home):
    from transformers import AutoTokenizer

    from finetune.errors import UserError

    words = AutoTokenizer.from_pretrained(home / "bert")
    made = planting.made(words, [each["text"] for each in tiny.sentences(80, 1)], 5, seed=3)

    assert set(made[0].secret.split()) <= {*tiny.GOOD, *tiny.BAD, *tiny.FILLER}
    with pytest.raises(UserError, match="cannot tell random secrets apart"):
        planting.made(words, ["xyz unheard of"], 5, seed=3)


def attack(value, low, high):
    return {"auc": value, "low": low, "high": high, "caught": 0.02}


def secrets(*means):
    return {
        times: {"exposure": mean, "low": mean - 0.5, "high": mean + 0.5, "first": float(mean > 9), "n": 20}
        for times, mean in zip(("0", "1", "4", "16"), means, strict=True)
    }


@pytest.mark.parametrize(
    ("canaries", "told", "said"),
    [
        (secrets(1.4, 1.5, 1.6, 1.7), attack(0.5, 0.48, 0.52), ["none was memorised", "cannot be told"]),
        (secrets(1.4, 1.5, 3.0, 9.5), attack(0.8, 0.7, 0.9), ["what stands 4 times", "stand 16 times", "told easily"]),
        (secrets(1.4, 9.9, 9.9, 9.9), attack(0.62, 0.6, 0.7), ["what stands once", "better than by chance"]),
    ],
)
def test_the_verdict_says_from_when_on(canaries, told, said):
    lines = " ".join(verdict({"canaries": canaries, "control_holds": True, "membership": {"loss": told}}))

    assert all(each in lines for each in said)
    assert "Beware" not in lines


def test_a_verdict_that_is_not_to_be_trusted_says_so():
    apart = {"loss": attack(0.9, 0.8, 0.95), "loss against the untrained model": attack(0.5, 0.4, 0.6),
             "control: the untrained model": attack(0.9, 0.8, 0.95)}  # fmt: skip
    lines = verdict({"canaries": secrets(5, 5, 5, 5), "control_holds": False, "membership": apart})

    assert sum(line.startswith("Beware") for line in lines) == 2
    assert "cannot be told" in " ".join(lines)
