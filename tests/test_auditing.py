"""What an audit measures: secrets that were planted, and rows told by their loss."""

from __future__ import annotations

import html
import json
import os
import signal
import time

import numpy as np
import pytest
import tiny
from pace import slowness
from transformers import AutoModelForMaskedLM, AutoTokenizer, TrainerCallback

from finetune.auditing import canaries as planting
from finetune.auditing import exposure
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

    pace, started = slowness(), time.process_time()
    assert main(["audit", str(path)]) == 0
    taken = (time.process_time() - started) / max(pace, slowness())

    assert taken < 60  # seconds of an idle core
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
    contract("P1", seconds=taken, secrets=80,
             exposure_seen_16_times=often["exposure"], exposure_never_seen=never["exposure"],
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
    card = tmp_path / "run" / "README.md"
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file() and file != card}
    plain = card.read_text(encoding="utf-8")

    assert main(["audit", str(path), "--output", str(tmp_path / "one")]) == 0
    assert card.read_text(encoding="utf-8") == plain
    assert main(["audit", str(tmp_path / "run"), "--canaries", "50"]) == 2
    assert "--canaries: a finished run is trained" in capsys.readouterr().err
    assert main(["audit", str(tmp_path / "run")]) == 0

    assert before == {file: file.read_bytes() for file in before}
    assert before.keys() | {card} == {file for file in (tmp_path / "run").rglob("*") if file.is_file()}
    one, other = result(tmp_path / "one"), result(tmp_path / "run-audit")
    assert "canaries" not in one
    assert one["membership"].keys() == other["membership"].keys()
    assert one["losses"] == other["losses"]  # the recipe's seed gives the run's weights, and rows are chosen by it
    told = other["membership"]["loss"]
    row = f"| loss | {told['auc']:.3f} | {told['low']:.3f} to {told['high']:.3f} |"
    assert row in card.read_text(encoding="utf-8")
    assert "asked these weights" in card.read_text(encoding="utf-8")
    assert "exposure" not in card.read_text(encoding="utf-8")


def test_a_model_that_learns_pairs_of_sentences_is_asked_for_its_rows_alone(
    home, sections, write_recipe, tmp_path, capsys
):
    made = sections("masked-lm", "paired", train={"num_train_epochs": 1})

    assert main(["audit", str(write_recipe(made))]) == 0

    documents = result(tmp_path / "run-audit")["facts"]["documents"]
    losses = result(tmp_path / "run-audit")["losses"]
    assert all(count < len(losses["trained on" if split == "train" else split]) for split, count in documents.items())
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
    patient = ["--output", str(tmp_path / "two"), "--train.early_stopping_patience", "2"]
    assert main(["audit", str(path), *patient]) == 0
    assert "Beware: the validation rows chose the checkpoint, the end of" in capsys.readouterr().out
    plateau = ["--output", str(tmp_path / "three"), "--train.lr_scheduler_type", "reduce_lr_on_plateau"]
    assert main(["audit", str(path), *plateau]) == 0
    assert "of training or its learning rate" in capsys.readouterr().out
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
