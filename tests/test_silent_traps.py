"""What is legal, and wrong: each trap stops the run or is said, with its place and its count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from tiny_training import Parity, rows, trainer

from finetune.cli import main
from finetune.errors import CheckFailed, UserError
from finetune.recipe import Recipe
from finetune.run import train

OFF = {"leakage": "error", "duplicates": "warn"}


@pytest.fixture
def said(sections, write_recipe, tmp_path, capsys, contract):
    """Return a function that checks a classifier of these rows: (exit code, what was said on both streams)."""

    def check(train_rows=None, validation=None, test=None, kind="text-classification", **changes):
        data = dict(OFF)
        for name, given in (("train", train_rows), ("validation", validation), ("test", test)):
            if given is not None:
                data[name] = str(tiny.write_rows(tmp_path / f"{name}.jsonl", given))
        changes["data"] = {**data, **changes.get("data", {})}
        code = main(["check", str(write_recipe(sections(kind, **changes)))])
        printed = capsys.readouterr()
        contract("I2", traps=1)
        return code, printed.out + printed.err

    return check


SOUND = tiny.sentences(20, 5)
HELD = (tiny.sentences(6, 6), tiny.sentences(6, 7))  # validation, test


def test_labels_that_are_all_ignored_are_nothing_to_learn(said):
    ignored = [[{**row, "label": -100} for row in each] for each in (SOUND, *HELD)]
    code, line = said(*ignored)

    assert code == 2
    assert "every row has the same label in 'label' (-100); there is nothing to learn" in line


def test_a_step_without_a_target_stops_the_training(contract):
    with pytest.raises(CheckFailed, match="no target to learn from"):
        trainer(train=rows(8), task=Parity(weights=(0.0, 0.0, 0.0)), max_steps=1).train()
    contract("I2", traps=1)


def test_tags_that_are_all_o_are_nothing_to_learn(said):
    bare = [{"tokens": row["tokens"], "ner_tags": ["O"] * len(row["tokens"])} for row in tiny.tagged(8, 1)]
    code, line = said(bare, kind="token-classification")

    assert code == 2
    assert "every row has the same label in 'ner_tags' (O); there is nothing to learn" in line


def test_one_class_is_nothing_to_learn(said):
    code, line = said(*([{**row, "label": "positive"} for row in each] for each in (SOUND, *HELD)))

    assert code == 2
    assert "(positive); there is nothing to learn" in line


def test_one_class_that_a_limit_left_is_the_limits(said):
    code, line = said(SOUND, data={"max_train_rows": 1, "validation": None, "test": None})

    assert code == 2
    assert "there is nothing to learn. data.max_train_rows keeps 1 of the rows: raise it." in line


def test_a_validation_label_that_no_training_row_has_is_refused_with_its_line(said):
    code, line = said(SOUND, validation=[*tiny.sentences(4, 6), {"text": "something else", "label": "maybe"}])

    assert code == 2
    assert "validation.jsonl:5" in line
    assert "'maybe', and no training row has that label; known labels: negative, positive" in line


def test_labels_that_are_off_by_one_are_refused_with_their_line(said):
    shifted = ([{**row, "label": 1 + (row["label"] == "positive")} for row in each] for each in (SOUND, *HELD))
    code, line = said(*shifted, task={"labels": ["0", "1"]})

    assert code == 2
    assert "train.jsonl:1: column 'label' is '2', and no training row has that label; known labels: 0, 1" in line


def test_a_label_without_a_row_is_refused(said):
    code, line = said(SOUND, task={"labels": ["negative", "positive", "postive"]})

    assert code == 2
    assert "task.labels: no training row has the label 'postive'. Did you mean positive?" in line


def test_test_rows_that_stand_in_train_are_refused_with_count_share_and_both_lines(said):
    upper = [{**row, "text": row["text"].upper() + "  "} for row in SOUND[3:7]]
    code, line = said(SOUND, test=[*tiny.sentences(6, 8), *upper])

    assert code == 2
    assert "test.jsonl:7: the text is that of " in line
    assert "train.jsonl:4" in line
    assert "4 (40.0%) equal" in line


def test_test_rows_that_nearly_stand_in_train_are_said_with_count_share_and_both_lines(said):
    long = [{"text": f"{row['text']} and so on for a good while, as the first reader told us", "label": row["label"]}
            for row in SOUND]  # fmt: skip
    nearly = [{**row, "text": row["text"] + "!"} for row in long[:3]]
    code, line = said(long, test=[*tiny.sentences(3, 8), *nearly])

    assert code == 2
    assert "3 (50.0%) nearly equal, " in line
    assert "test.jsonl:4 = " in line


def test_rows_that_are_repeated_are_said_with_count_share_and_both_lines(said):
    code, line = said([*SOUND, *SOUND[:3]])

    assert code == 0
    assert "train.jsonl:21: 3 of 23 train rows (13.0%) repeat an earlier row: " in line
    assert "train.jsonl:1 is the first" in line


def test_one_text_with_two_labels_is_said(said):
    code, line = said([*SOUND, {**SOUND[0], "label": "negative"}])

    assert code == 0
    assert "1 of 21 train rows (4.8%) have the text of an earlier row and another label" in line


@pytest.mark.parametrize("text", ["", "  \t\n"])
def test_an_empty_text_is_refused_with_its_line(said, text):
    code, line = said([*SOUND, {"text": text, "label": "positive"}])

    assert code == 2
    assert "train.jsonl:21" in line


def test_the_share_of_texts_that_are_cut_is_said(said):
    code, line = said(SOUND, task={"max_length": 8})

    assert code == 0
    cut = sum(len(row["text"].split()) > 6 for row in SOUND)  # [CLS] and [SEP]; each word is a token
    assert f"({cut / 20:.1%} cut at 8)" in line


def test_a_tokenizer_of_another_model_is_refused_with_both_sizes(sections, write_recipe, home, capsys, contract):
    made = sections("text-classification", model={"tokenizer": str(home / "gpt2")})

    assert main(["train", str(write_recipe(made))]) == 2
    assert "the tokenizer knows 257 tokens, the model's embedding holds 34" in capsys.readouterr().err
    contract("I2", traps=1)


def test_a_tokenizer_with_nothing_to_pad_with_is_refused(home, contract):
    from finetune.loading import ModelOptions, load_config, load_pretrained, load_tokenizer, set_padding

    options = ModelOptions(path=str(home / "gpt2"))
    from transformers import AutoModelForCausalLM

    model, _ = load_pretrained(options, AutoModelForCausalLM, load_config(options))
    processor = load_tokenizer(options)
    processor.pad_token = processor.eos_token = model.config.pad_token_id = None
    with pytest.raises(UserError, match="neither a padding nor an end-of-text token"):
        set_padding(model, processor)
    contract("I2", traps=1)


def test_an_end_of_text_that_is_also_the_padding_is_learned(home, contract):
    from finetune.loading import ModelOptions, load_tokenizer
    from finetune.tasks.causal_lm import CausalLM

    task, source = CausalLM(block_size=48, pack=False), ModelOptions(path=str(home / "gpt2"))
    processor = load_tokenizer(source)
    task.load_model(source, processor)
    from datasets import Dataset

    inputs = task.encode(
        Dataset.from_dict({"text": ["ab", "a longer text"], "row_id": ["a:1", "a:2"]}), processor, "drop"
    )
    batch = task.collator(processor)(list(inputs.inputs))
    assert processor.pad_token_id == processor.eos_token_id
    assert (batch["labels"] == processor.eos_token_id).sum(dim=1).tolist() == [1, 1]
    contract("I2", traps=1)


def test_a_file_in_another_encoding_is_refused_with_its_line(said, tmp_path):
    file = tmp_path / "latin.jsonl"
    good = "".join(json.dumps(row) + "\n" for row in SOUND)
    file.write_bytes(good.encode() + '{"text": "café", "label": "positive"}\n'.encode("latin-1"))
    code, line = said(data={"train": str(file)})

    assert code == 2
    assert "latin.jsonl:21" in line
    assert "encoding" in line


def test_labels_of_two_types_are_refused_with_their_line(said):
    code, line = said([*SOUND, {"text": "one more", "label": 1}])

    assert code == 2
    assert "train.jsonl:21" in line


def test_labels_that_differ_in_case_or_spaces_are_said(said):
    code, line = said([*SOUND, {"text": "one more", "label": "Positive"}])

    assert code in (0, 2)  # the sentence is what counts
    assert "differ in case or spaces only" in line


def run_with_bias(made: dict, head: str, place: int) -> Path:
    """Train at a rate of 0 a model whose head says one label whatever it reads."""

    def ready(model: torch.nn.Module) -> None:
        bias = model.get_parameter(head)
        with torch.no_grad():
            bias.zero_()[place] = 100.0

    made["train"]["learning_rate"] = 0.0
    return train(Recipe.from_dict(made), ready=ready)


@pytest.mark.parametrize("kind", ["text-classification", "token-classification"])
def test_one_answer_for_every_row_is_said_in_the_terminal_and_the_report(sections, capsys, contract, kind):
    made = sections(kind)
    if kind == "token-classification":
        run, line = run_with_bias(made, "classifier.bias", 0), "Not one span is found in 22 rows that hold "
        assert json.loads((run / "labels.json").read_text())[0] == "O"
    else:
        run, line = run_with_bias(made, "classifier.bias", 1), 'All 22 rows are answered with the label "positive".'

    assert f"Beware: {line}" in capsys.readouterr().out
    report = (run / "report.html").read_text().replace("&#34;", '"')
    assert line in report
    assert "It has learned nothing that tells rows apart" in report
    contract("I2", traps=1)


def test_a_model_that_tells_rows_apart_is_not_accused(run, capsys):
    run("text-classification", train={"learning_rate": 5e-3, "num_train_epochs": 6, "optim": "adamw_torch"})

    assert "answered with" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({"prediction": ["", ""], "target": [["a"], ["b"]], "question": ["?", "?"]}, "with no answer"),
        ({"prediction": [[], []], "target": [["a"], ["b"]]}, "with no label"),
        ({"prediction": [0.5, 0.5], "target": [0.1, 0.9]}, "the same number"),
        (
            {"prediction": [["A", "A"], ["A"]], "target": [["A", "B"], ["A"]], "words": [["x", "y"], ["z"]]},
            'the tag "A"',
        ),
        ({"prediction": ["a", "a"], "target": ["a", "a"]}, None),
        ({"prediction": ["a", "b"], "target": ["a", "a"]}, None),
        ({"prediction": ["a"], "target": ["b"]}, None),
        ({"prediction": ["a", "a"]}, None),
    ],
)
def test_one_answer_is_seen_for_every_kind_of_answer_and_only_where_targets_differ(columns, line):
    from datasets import Dataset

    from finetune.evaluation.sameness import one_answer

    found = one_answer(Dataset.from_dict(columns))
    assert (line in found[0]) if line else found == ()
    assert all("lower train.learning_rate" in each for each in found)
    private = one_answer(Dataset.from_dict(columns), private=True)
    assert all("the noise of train.dp may drown the signal" in each for each in private)
    assert len(private) == len(found)
