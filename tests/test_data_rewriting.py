"""Copies that models write: words by a masked language model, texts by two translators; never of held-out rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

from finetune import rewriting
from finetune.cli import main
from finetune.editing.contextual import substituted
from finetune.recipe import Recipe
from finetune.rewriting import load_rows

TEXTS = [row["text"] for row in tiny.sentences(12, seed=5)] + ["alone", "The FILM, was (good)!", "12 34"]
SEEDS = [f"13\x1f{number}" for number in range(len(TEXTS))]


@pytest.fixture(scope="module")
def masked(home: Path) -> Path:
    """A tiny BERT with a head for hidden words, which has them all about as likely."""
    folder = home / "bert-masked"
    torch.manual_seed(3)
    AutoModelForMaskedLM.from_pretrained(home / "bert").save_pretrained(folder)
    AutoTokenizer.from_pretrained(home / "bert").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(masked: Path):
    return AutoModelForMaskedLM.from_pretrained(masked).eval(), AutoTokenizer.from_pretrained(masked)


@pytest.fixture(scope="module")
def writer(home: Path) -> Path:
    """A tiny BART that writes letters, others for another text; an untrained one ends at once."""
    folder = home / "bart-letters"
    model, processor = (kind.from_pretrained(home / "bart") for kind in (AutoModelForSeq2SeqLM, AutoTokenizer))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    model.final_logits_bias.fill_(-1000)
    model.final_logits_bias[:, processor.convert_tokens_to_ids(list("abcdefgh"))] = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_share_of_the_words_is_replaced_and_all_else_is_kept(loaded):
    model, processor = loaded
    made = substituted(TEXTS, SEEDS, 0.25, model, processor)

    for before, after in zip(TEXTS[:12], made, strict=False):
        one, other = before.split(), after.split()
        assert sum(a != b for a, b in zip(one, other, strict=True)) == max(1, round(0.25 * len(one)))
        assert one[0] == other[0]  # "n5x3" is no word
        assert set(other) <= {*one, *tiny.GOOD, *tiny.BAD, *tiny.FILLER}
    assert made[12] == "alone"  # nothing around it
    assert made[14] == "12 34"
    changed = [(a, b) for a, b in zip(TEXTS[13].split(), made[13].split(), strict=True) if a != b]
    assert len(changed) == 1
    assert [one for one in made[13] if not one.isalpha()] == [one for one in TEXTS[13] if not one.isalpha()]
    assert "FILM" in made[13] or made[13].split()[1][:-1].isupper()


def test_what_is_written_for_a_text_depends_on_its_seed_and_not_on_its_neighbours(loaded):
    model, processor = loaded
    whole = substituted(TEXTS, SEEDS, 0.3, model, processor, size=16)

    assert substituted(TEXTS, SEEDS, 0.3, model, processor, size=1) == whole
    assert substituted(TEXTS[::-1], SEEDS[::-1], 0.3, model, processor, size=4)[::-1] == whole
    assert substituted(TEXTS, [f"14{seed}" for seed in SEEDS], 0.3, model, processor) != whole


def test_words_are_drawn_by_the_models_probabilities(loaded):
    model, processor = loaded
    text, counts = "my film", dict[str, int]()
    for number in range(600):
        (made,) = substituted([text], [str(number)], 0.5, model, processor)
        first, second = made.split()
        if first == "my":
            counts[second] = counts.get(second, 0) + 1
    ids = processor("my [MASK]", return_tensors="pt")
    p = model(**ids).logits[0, 2].detach().softmax(-1)
    words = {word: float(p[processor.convert_tokens_to_ids(word)]) for word in (*tiny.GOOD, *tiny.BAD, *tiny.FILLER)}
    likely = dict(sorted(((w, q) for w, q in words.items() if w != "film"), key=lambda each: -each[1])[:20])
    assert set(counts) <= set(likely)
    total, sum_p = sum(counts.values()), sum(likely.values())
    error = sum(abs(counts.get(word, 0) / total - q / sum_p) for word, q in likely.items()) / 2
    assert error < 0.15  # of 20 words in about 300 draws


def read(write_recipe, sections, wanted=("train", "validation", "test"), **augment):
    data = {"augment": augment, "duplicates": "off"}
    return load_rows(Recipe.read(write_recipe(sections("text-classification", data=data))), wanted)


@pytest.mark.parametrize("by", ["contextual", "translate"])
def test_only_training_rows_are_rewritten_and_copies_stand_beside_their_rows(
    home, masked, writer, run, sections, write_recipe, by
):
    trained = run("seq2seq", model={"path": str(writer)}, train={"learning_rate": 0.0}) if by == "translate" else None
    asked = {
        "contextual": {"contextual": 0.2, "masked_lm": str(masked), "copies": 2},
        "translate": {"translate": [str(trained), str(trained)], "copies": 2},
    }[by]
    plain = {
        name: [json.loads(line) for line in (home / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "validation", "test")
    }
    splits = read(write_recipe, sections, **asked)

    for name in ("validation", "test"):
        assert splits.rows[name]["text"] == [row["text"] for row in plain[name]]
        assert not any("~" in row_id for row_id in splits.rows[name]["row_id"])
    texts = dict(zip(splits.rows["train"]["row_id"], splits.rows["train"]["text"], strict=True))
    labels = dict(zip(splits.rows["train"]["row_id"], splits.rows["train"]["label"], strict=True))
    copies = [row_id for row_id in texts if "~" in row_id]
    assert [texts[row_id] for row_id in texts if "~" not in row_id] == [row["text"] for row in plain["train"]]
    assert all(labels[row_id] == labels[row_id.partition("~")[0]] for row_id in copies)
    assert all(texts[row_id] != texts[row_id.partition("~")[0]] for row_id in copies)
    held = {row["text"] for name in ("validation", "test") for row in plain[name]}
    assert not held & set(texts.values())
    note = splits.notes[-1]
    assert note.startswith(f"augment: {len(copies)} copies")
    if by == "translate":  # one model writes one text: the second copy is the first
        assert 32 < len(copies) <= 64
        assert "came out as an earlier copy" in note
    else:
        assert len(copies) > 120


def test_a_copy_that_comes_out_as_a_held_out_row_is_left_out(home, sections, write_recipe, monkeypatch):
    held = json.loads((home / "test.jsonl").read_text().splitlines()[0])["text"]
    monkeypatch.setattr(rewriting, "rewriters", lambda recipe: {
        "translate": rewriting.Rewriter(lambda texts, seeds: [held.upper(), "", *texts[2:]], {})
    })  # fmt: skip
    splits = read(write_recipe, sections, translate=["a", "b"])

    assert len(splits.rows["train"]) == 64
    assert "1 came out as a held-out row" in splits.notes[-1]
    assert "63 came out as their row" in splits.notes[-1]


def test_models_write_once_and_later_runs_read_it(home, masked, sections, write_recipe, monkeypatch):
    asked = {"contextual": 0.2, "masked_lm": str(masked), "delete": 0.1, "copies": 3}
    first = read(write_recipe, sections, **asked).rows["train"]

    def never(*given):
        raise AssertionError("asked again")

    monkeypatch.setattr("finetune.editing.contextual.substituted", never)
    again = read(write_recipe, sections, **asked)
    assert again.rows["train"].to_dict() == first.to_dict()
    assert again.fingerprints[str(masked)]["bytes"] > 0
    assert "by contextual" in again.notes[-1]
    assert "by delete" in again.notes[-1]
    with pytest.raises(AssertionError, match="asked again"):
        read(write_recipe, sections, **{**asked, "contextual": 0.3})
    read(write_recipe, sections, wanted=("validation", "test"), **{**asked, "contextual": 0.4})  # no model is asked


def test_the_base_itself_writes_words_and_preview_and_training_count_them(masked, run, sections, write_recipe, capsys):
    changes = {"data": {"augment": {"contextual": 0.2}}, "model": {"path": str(masked)}}
    assert main(["preview", str(write_recipe(sections("text-classification", **changes))), "--rows", "2"]) == 0
    shown = capsys.readouterr().out
    assert "train.jsonl:1~1 ·" in shown
    assert "copies" in shown
    made = run("text-classification", **changes)
    data = json.loads((made / "data.json").read_text())
    added = next(step for step in data["ledger"] if step["step"] == "augmented")
    assert data["encoding"]["train"]["rows"] == added["after"] > added["before"] == 64
    assert data["encoding"]["test"]["rows"] == 22
    assert str(masked) in data["fingerprints"]


def test_a_run_of_seq2seq_translates_with_its_own_options(run, writer, sections, write_recipe):
    trained = run("seq2seq", model={"path": str(writer)}, train={"learning_rate": 0.0})
    (told,) = rewriting._translated(str(trained), ["a good film"], "cpu")
    splits = read(write_recipe, sections, translate=[str(trained), str(trained)])

    assert len(told) == 12  # task.max_target_length of the run
    assert set(told) <= set("abcdefgh")
    copies = [text for text in splits.rows["train"]["text"] if set(text) <= set("abcdefgh")]
    assert len(copies) == len(splits.rows["train"]) - 64 > 32


def test_a_text_that_is_too_long_to_be_translated_stays(home, writer):
    short, long = "a good film", "x" * 400
    made = rewriting._translated(str(writer), [long, short], "cpu")

    assert made[0] is None
    assert made[1]
    assert made[1] == rewriting._translated(str(writer), [short], "cpu")[0]
    assert rewriting._translated(str(home / "bart"), [short], "cpu") == [None]  # it writes nothing


@pytest.mark.parametrize(
    ("kind", "augment", "said"),
    [
        ("text-classification", {"contextual": 1.5}, "data.augment.contextual is 1.5; it is a share of the words"),
        ("text-classification", {"contextual": 0.1},
         r"bert is no masked language model: cls.predictions.bias is missing, and would be random. Name one with"),
        ("text-classification", {"contextual": 0.1, "masked_lm": "{home}/gpt2"},
         "data.augment.masked_lm: {home}/gpt2 has no mask token, so it is no masked language model"),
        ("text-classification", {"contextual": 0.1, "masked_lm": "{home}/brt"},
         "data.augment.masked_lm: there is no folder {home}/brt. Did you mean"),
        ("text-classification", {"delete": 0.1, "masked_lm": "x/y"}, "masked_lm is for contextual, and that is 0"),
        ("text-classification", {"translate": ["x/y"]}, "data.augment.translate names 1; give two models, [THERE"),
        ("text-classification", {"translate": "x/y"}, "data.augment.translate"),
        ("text-classification", {"translate": ["{home}/bart", "{home}/brt"]}, "no folder {home}/brt"),
        ("text-classification", {"translate": ["{home}/bart", "{home}/gpt2"]}, "data.augment.translate: "),
        ("token-classification", {"contextual": 0.1}, "varies texts that have a label as a whole"),
        ("question-answering", {"translate": ["a", "b"]}, "varies texts that have a label as a whole"),
        ("seq2seq", {"contextual": 0.1}, "varies texts that have a label as a whole"),
    ],
)  # fmt: skip
def test_what_no_model_can_write_is_refused_in_a_line(home, sections, write_recipe, capsys, kind, augment, said):
    def placed(value):
        if isinstance(value, list):
            return [placed(each) for each in value]
        return value.replace("{home}", str(home)) if isinstance(value, str) else value

    given = {name: placed(value) for name, value in augment.items()}
    assert main(["train", str(write_recipe(sections(kind, data={"augment": given})))]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("finetune: ")]
    assert len(error) == 1
    assert placed(said) in error[0], error[0]


@pytest.mark.parametrize(
    ("option", "augment"),
    [
        ("data.augment.masked_lm", {"contextual": 0.1, "masked_lm": "nothere"}),
        ("data.augment.translate", {"translate": ["nothere", "northere"]}),
    ],
)
def test_a_model_that_cannot_be_found_is_called_by_its_own_option(sections, write_recipe, capsys, option, augment):
    assert main(["check", str(write_recipe(sections("text-classification", data={"augment": augment})))]) == 4
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"finetune: {option}: nothere is no folder here")
    assert "model.path" not in error


def test_a_run_of_another_task_does_not_translate(run, sections, write_recipe, capsys, tmp_path):
    trained = run("text-classification")
    made = sections("text-classification", data={"augment": {"translate": [str(trained)] * 2}})
    made["train"]["output_dir"] = str(tmp_path / "other")
    assert main(["train", str(write_recipe(made))]) == 2
    assert "is a run of task.kind text-classification; a translator is one of seq2seq" in capsys.readouterr().err


def test_a_model_from_scratch_knows_no_words(sections, write_recipe, capsys):
    made = sections("text-classification", data={"augment": {"contextual": 0.1}})
    made["model"] = {"config": {"model_type": "bert"}, "tokenizer": made["model"]["path"]}
    assert main(["train", str(write_recipe(made))]) == 2
    assert "data.augment.masked_lm is missing: model.config trains from scratch" in capsys.readouterr().err
