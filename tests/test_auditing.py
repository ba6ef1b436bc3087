"""What an audit measures: secrets that were planted, and rows told by their loss."""

from __future__ import annotations

import html
import json
import os
import signal

import numpy as np
import pytest
import tiny
from transformers import AutoModelForMaskedLM, AutoTokenizer, TrainerCallback

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
    assert main(["audit", str(tmp_path / "run"), "--canaries", "50"]) == 2
    assert "--canaries: a finished run is trained" in capsys.readouterr().err
    assert main(["audit", str(tmp_path / "run")]) == 0

    assert before == {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    one, other = result(tmp_path / "one"), result(tmp_path / "run-audit")
    assert "canaries" not in one
    assert one["membership"].keys() == other["membership"].keys()
    assert one["losses"] == other["losses"]  # the recipe's seed gives the run's weights, and rows are chosen by it


def test_a_model_that_learns_pairs_of_sentences_is_asked_for_its_rows_alone(
    home, sections, write_recipe, tmp_path, capsys
):
    made = sections("masked-lm", "paired", train={"num_train_epochs": 1})

    assert main(["audit", str(write_recipe(made))]) == 0

    assert "canaries" not in result(tmp_path / "run-audit")
    assert "task.next_sentence learns from documents, and a secret is one sentence" in capsys.readouterr().out


class At(TrainerCallback):
    """Sends a signal to this process at the beginning of the second step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_an_audit_that_is_stopped_says_that_nothing_of_it_is_kept(recipe, tmp_path, monkeypatch, capsys):
    from finetune import run

    build = run.build_trainer

    def stopped(*given):
        trainer = build(*given)
        trainer.add_callback(At())
        return trainer

    monkeypatch.setattr(run, "build_trainer", stopped)

    assert main(["audit", str(recipe("text-classification", rows=40))]) == 143

    said = capsys.readouterr().err
    assert "audit: stopped by SIGTERM; nothing of it is kept, and the same command starts it anew." in said
    assert "checkpoint" not in said
    assert not list(tmp_path.glob("*run-audit*"))


def test_an_audit_takes_no_note_of_a_limit_that_it_could_not_go_on_from(recipe, tmp_path):
    path = recipe("text-classification", rows=40, train={"max_hours": 1e-9})

    assert main(["audit", str(path)]) == 0


def test_rows_that_made_an_audit_diverge_are_kept_beside_it(recipe, tmp_path, monkeypatch, capsys):
    from finetune.tasks.text_classification import TextClassification

    loss = TextClassification.loss
    monkeypatch.setattr(
        TextClassification, "loss", lambda *given: tuple(each * float("nan") if at == 0 else each
                                                         for at, each in enumerate(loss(*given)))
    )  # fmt: skip

    assert main(["audit", str(recipe("text-classification", rows=40))]) == 3

    kept = tmp_path / "run-audit-nonfinite.json"
    assert f"all in {kept}" in capsys.readouterr().err
    assert json.loads(kept.read_text())["row_ids"]
    assert not (tmp_path / "run-audit").exists()


@pytest.mark.parametrize("of", ["recipe", "run"])
def test_rows_that_a_model_writes_copies_of_are_audited(recipe, home, tmp_path, of):
    for kind in (AutoModelForMaskedLM, AutoTokenizer):
        kind.from_pretrained(home / "bert").save_pretrained(tmp_path / "masked")
    writes = {"contextual": 0.3, "masked_lm": str(tmp_path / "masked")}
    path = recipe("text-classification", rows=40, data={"augment": writes})
    if of == "run":
        assert main(["train", str(path)]) == 0

    assert main(["audit", str(tmp_path / "run" if of == "run" else path)]) == 0

    assert result(tmp_path / "run-audit")["facts"]["rows"] > 40


def test_held_out_rows_do_not_choose_the_weights_that_they_are_held_against(recipe, tmp_path, monkeypatch, capsys):
    from finetune import run

    chosen, build = [], run.build_trainer

    def seen(*given):
        made = build(*given)
        chosen.append(made.args.load_best_model_at_end)
        return made

    monkeypatch.setattr(run, "build_trainer", seen)
    best = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    path = recipe("text-classification", rows=40, train=best)
    assert main(["train", str(path)]) == 0

    assert main(["audit", str(path), "--output", str(tmp_path / "one")]) == 0
    assert chosen == [True, False]
    assert "chose" not in capsys.readouterr().out
    assert main(["audit", str(tmp_path / "run")]) == 0
    assert "Beware: the validation rows chose the checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "changes", "arguments", "said"),
    [
        ("image-gan", {}, [], "task.kind image-gan has no loss of a single row"),
        ("causal-lm", {"data": {"validation": None}}, [], "rows that were not trained on are needed"),
        ("causal-lm", {}, ["--canaries", "2"], "--canaries is 2; give 5 or more"),
        ("causal-lm", {}, ["--output", "."], "--output: . is there already"),
        ("causal-lm", {"task": {"block_size": 8}}, ["--data.on_long", "truncate"], "canary:"),
        ("causal-lm", {}, ["--train.seeds", "[1, 2]"], "train.seeds makes several runs, and an audit is of one"),
        ("text-classification", {}, ["--canaries", "50"], "--canaries: text-classification does not learn to write"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_one_line(
    sections, write_recipe, capsys, monkeypatch, kind, changes, arguments, said
):
    made = sections(kind, "whole", **changes)
    if "data" in changes:
        made["data"] = {name: each for name, each in made["data"].items() if name not in ("validation", "test")}

    trained = []
    monkeypatch.setattr("finetune.training.trainer.Trainer.train", lambda self, *_: trained.append(self))

    assert main(["audit", str(write_recipe(made)), *arguments]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not trained  # what cannot be is known before


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


@pytest.mark.parametrize("count", [20, 50, 99, 100, 150, 1000])
def test_no_more_than_one_percent_of_held_out_rows_are_taken_for_members(count):
    others = np.random.default_rng(count).permutation(count).astype(float)

    taken = membership.caught(others, others)  # each of the others is told as a member would be

    assert taken <= membership.FALSE_ALARMS
    assert taken == (count // 100) / count  # and no fewer than that allows


def test_texts_that_make_several_inputs_are_drawn_whole():
    chooser = np.random.default_rng(5)
    documents = [(place, side) for side in (0, 1) for place in range(12)]
    level = {each: chooser.normal() for each in documents}  # inputs of one document are alike
    sides = [np.repeat([level[place, side] for place in range(12)], 30) for side in (0, 1)]
    rows = np.repeat(np.arange(12), 30)

    alone = membership.auc(*sides, 500, 1)
    whole = membership.auc(*sides, 500, 1, (rows, rows))

    assert whole.value == alone.value
    assert whole.high - whole.low > 3 * (alone.high - alone.low)
    single = np.arange(360)
    assert membership.auc(*sides, 500, 1, (single, single)) == alone  # a text an input: nothing has changed
    attacks = membership.attacks(*sides, None, 50, 1, (rows, rows))
    assert attacks["loss"]["high"] - attacks["loss"]["low"] > 3 * (alone.high - alone.low)


def test_a_verdict_over_few_texts_says_that_its_intervals_are_too_narrow():
    found = {"membership": {"loss": attack(0.6, 0.55, 0.65)}, "facts": {"documents": {"train": 50, "test": 1}}}

    assert [line for line in verdict(found) if "Beware" in line] == [
        "Beware: test has 1 text, each of many inputs: the intervals are wider in truth."
    ]


def test_losses_stand_as_they_are_however_small():
    from finetune.auditing.audit import _plain

    sides = (np.array([1e-6, 2e-6]), np.array([3e-7, 4e-5]))

    assert _plain("validation", sides) == {"trained on": [1e-6, 2e-6], "validation": [3e-7, 4e-5]}


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
