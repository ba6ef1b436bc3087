"""Token classification: from words to tokens and back, and what is lost on the way is said."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest
import tiny
import torch

from finetune.errors import UserError
from finetune.loading import ModelOptions, load_tokenizer
from finetune.tasks.tagged_inputs import IGNORED, tokens_of_words
from finetune.tasks.token_classification import TokenClassification

LABELS = ("O", "B-BLAME", "I-BLAME", "B-PRAISE", "I-PRAISE")


def rows(words: list[list[str]], tags: list[list] | None = None, **more) -> datasets.Dataset:
    table = {"tokens": words, "row_id": [f"a.jsonl:{number + 1}" for number in range(len(words))], **more}
    return datasets.Dataset.from_dict(table if tags is None else {**table, "ner_tags": tags})


def encoded(home, given, on_long="truncate", family="bert", **options):
    processor = load_tokenizer(ModelOptions(path=str(home / family)))
    if processor.pad_token_id is None:
        processor.pad_token = processor.eos_token
    task = TokenClassification(**{"labels": LABELS, "max_length": 8, **options})
    return task, task.encode(given, processor, on_long)


def answers(inputs, tags: dict[tuple[int, int], int]) -> dict[str, np.ndarray]:
    """Return answers of O but for {(input, token): label}."""
    longest = max(map(len, inputs["input_ids"]))
    said = np.zeros((len(inputs), longest), dtype=np.int64)
    for place, tag in tags.items():
        said[place] = tag
    return {"tag": said, "sure": np.full(said.shape, 0.9), "nll": np.ones(len(inputs)), "targets": np.ones(len(inputs))}


WINDOWED = [[f"{word}" for word in [*tiny.GOOD, *tiny.BAD]], ["film"]]


def test_every_word_is_asked_once_whatever_the_windows(home):
    given = rows(WINDOWED, [["B-PRAISE"] * 8 + ["B-BLAME"] * 8, ["O"]])
    _, made = encoded(home, given, "window")

    asked = [
        (row, word) for row, words in zip(made.inputs["row"], made.inputs["numbers"], strict=True) for word in words
    ]
    assert sorted(asked) == [(0, word) for word in range(16)] + [(1, 0)]
    assert sum(label != IGNORED for labels in made.inputs["labels"] for label in labels) == 17
    assert made.facts["spans"] == made.facts["spans_encoded"] == 16
    assert max(made.inputs["length"]) <= 8


def test_answers_of_windows_become_one_row_of_words(home):
    given = rows(WINDOWED, [["B-PRAISE"] * 8 + ["B-BLAME"] * 8, ["O"]])
    task, made = encoded(home, given, "window")
    right = {
        (place, token): LABELS.index(given["ner_tags"][row][word])
        for place, (row, words, tokens) in enumerate(
            zip(made.inputs["row"], made.inputs["numbers"], made.inputs["places"], strict=True)
        )
        for word, token in zip(words, tokens, strict=True)
    }

    table = task.predictions(answers(made.inputs, right), made.inputs, given)

    assert table["prediction"][:] == table["target"][:] == given["ner_tags"][:]
    assert task.score(answers(made.inputs, right), made.inputs)["span_f1"].value == 1.0
    assert [span["text"] for span in table["spans"][0]] == WINDOWED[0]


def test_what_is_cut_off_is_said_and_counts_as_missed(home):
    given = rows(WINDOWED, [["B-PRAISE"] * 8 + ["B-BLAME"] * 8, ["O"]])
    task, made = encoded(home, given, "truncate")

    assert (made.facts["spans"], made.facts["spans_encoded"], made.facts["words_without_tokens"]) == (16, 6, 10)
    assert "16 spans before encoding, 6 with all their words after it" in made.facts["said"]
    said = answers(made.inputs, {(0, token): 3 for token in range(1, 7)})
    scores = task.score(said, made.inputs)
    assert (scores["span_precision"].value, scores["span_recall"].value) == (1.0, 6 / 16)


def test_a_word_without_tokens_keeps_its_place(home):
    given = rows([["good", "", "film"], ["", ""]], [["B-PRAISE", "O", "O"], ["O", "O"]])
    task, made = encoded(home, given)

    assert made.facts["words_without_tokens"] == 3
    assert any("3 of 5 words have no token" in said for said in made.facts["said"])
    table = task.predictions(answers(made.inputs, {(0, 1): 3}), made.inputs, given)
    assert table["prediction"][:] == [["B-PRAISE", "O", "O"], ["O", "O"]]
    assert table["score"][1] == 0.0


def test_a_sentence_without_tokens_is_an_input_also_where_nothing_stands_around_it(home):
    _, made = encoded(home, rows([["good"], [""]], [["O"], ["O"]]), family="gpt2", max_length=16)

    assert [len(ids) for ids in made.inputs["input_ids"]] == [4, 1]
    assert made.inputs["numbers"][:] == [[0], []]


@pytest.mark.parametrize(("label_subwords", "labelled"), [("first", 2), ("all", 8)])
def test_the_first_sub_word_or_all_have_the_label_and_spaces_none(home, label_subwords, labelled):
    given = rows([["good", "film"]], [["B-PRAISE", "O"]])
    _, made = encoded(home, given, family="gpt2", max_length=16, label_subwords=label_subwords)

    assert made.inputs["length"][0] == 9  # bytes, a space among them
    assert sum(label != IGNORED for label in made.inputs["labels"][0]) == labelled
    assert made.inputs["places"][0] == [0, 5]
    assert made.inputs["labels"][0][4] == IGNORED


def test_offsets_are_those_of_the_text_that_the_words_come_from(home):
    given = rows([["good", "film"]], [["B-PRAISE", "O"]], text=["A  good--film!"])
    task, made = encoded(home, given, text="text")
    place = made.inputs["places"][0][0]

    span = task.predictions(answers(made.inputs, {(0, place): 3}), made.inputs, given)["spans"][0][0]

    assert (span["type"], span["text"], span["start"], span["end"]) == ("PRAISE", "good", 3, 7)
    assert span["score"] == pytest.approx(0.9)


def test_a_token_that_begins_with_a_space_is_of_the_word_after_it():
    assert tokens_of_words([(0, 2), (2, 10), (10, 12), (12, 13), (13, 14)], [(0, 2), (3, 10), (11, 12), (13, 14)]) == {
        0: (0, 0), 1: (1, 1), 2: (2, 2), 3: (4, 4)
    }  # fmt: skip


def test_parts_of_one_letter_are_all_of_its_word():
    assert tokens_of_words([(0, 1), (0, 1), (0, 1)], [(0, 1)]) == {0: (0, 2)}


def test_iob1_is_rewritten_and_said(home):
    given = rows([["good", "fine", "bad"]] * 2, [["I-PRAISE", "B-PRAISE", "I-BLAME"]] * 2)
    task = TokenClassification().resolve({"train": given})
    _, made = encoded(home, given)

    assert task.labels == LABELS
    assert "tags are IOB1; its 6 spans are rewritten in IOB2" in made.facts["said"]
    assert made.inputs["tags"][0] == [LABELS.index(tag) for tag in ("B-PRAISE", "B-PRAISE", "B-BLAME")]


def test_a_few_tags_that_break_the_scheme_are_taken_as_conlleval_does_and_said(home):
    tags = [["B-PRAISE", "I-PRAISE"], ["B-BLAME", "O"], ["O", "I-BLAME"]]
    given = rows([["good", "film"], ["bad", "film"], ["film", "bad"]], tags)
    _, made = encoded(home, given)

    assert made.facts["said"] == [
        '1 of 3 spans are not written as IOB2 has them (a.jsonl:3, word 2: "I-BLAME" is the first); they are taken as '
        "conlleval does"
    ]


def test_numbers_are_named_by_the_labels_and_keep_their_order(home):
    labels = ["B-PRAISE", "O", "B-BLAME", "I-BLAME"]
    given = rows([["good", "film", "bad"]], [[0, 1, 2]])
    task = TokenClassification(labels=tuple(labels)).resolve({"train": given})
    _, made = encoded(home, given, labels=task.labels)

    assert task.labels == (*labels, "I-PRAISE")
    assert made.inputs["tags"][0] == [0, 1, 2]


def test_labels_of_words_have_accuracy_and_no_spans(home):
    given = rows([["the", "film", "felt"]] * 2, [["DET", "NOUN", "VERB"]] * 2)
    task = TokenClassification().resolve({"train": given})
    assert (task.labels, task.scheme, task.best_score) == (("DET", "NOUN", "VERB"), "plain", "macro_f1")

    _, made = encoded(home, given, labels=task.labels, scheme=task.scheme)
    said = answers(made.inputs, {(0, 2): 1, (0, 3): 2, (1, 2): 1})
    scores = task.score(said, made.inputs)
    assert scores["accuracy"].value == 5 / 6
    assert "span_f1" not in scores
    table = task.predictions(said, made.inputs, given)
    assert "spans" not in table.column_names
    assert table["prediction"][0] == ["DET", "NOUN", "VERB"]


def test_tags_that_are_kinds_alone_are_spans_where_the_scheme_says_so():
    given = rows([["good", "fine", "bad"]], [["PRAISE", "PRAISE", "BLAME"]])

    assert TokenClassification().resolve({"train": given}).labels == ("BLAME", "PRAISE")
    assert TokenClassification(scheme="IO").resolve({"train": given}).labels == LABELS


@pytest.mark.parametrize("weights", [None, {"O": 0.5, "B-PRAISE": 3.0}])
def test_the_summed_loss_over_its_weight_is_the_mean_that_torch_computes(weights):
    given = rows([["good"]], [["B-PRAISE"]])
    task = TokenClassification(class_weights=weights).resolve({"train": given})
    logits, labels = torch.randn(2, 4, 3), torch.tensor([[-100, 0, 1, 2], [1, -100, -100, -100]])

    class Model:
        def __call__(self, **_):
            return type("Outputs", (), {"logits": logits})

    total, _ = task.loss(Model(), {"labels": labels})
    tensor = None if weights is None else torch.tensor([task.class_weights[name] for name in task.labels])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), tensor)
    torch.testing.assert_close(total / task.weight({"labels": labels}), expected)


def test_answers_are_held_apart_at_labelled_tokens_alone():
    from types import SimpleNamespace

    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 3), torch.tensor([[-100, 0, 1, 2], [1, -100, -100, -100]])
    changed = logits + torch.randn(2, 4, 3) * (labels == IGNORED)[:, :, None]
    one, other, third = (SimpleNamespace(logits=each) for each in (logits, changed, logits + torch.randn(2, 4, 3)))
    task = TokenClassification(labels=("O", "B-X", "I-X"))

    assert float(task.divergence(one, other, {"labels": labels})) == pytest.approx(0.0, abs=1e-6)
    assert float(task.divergence(one, third, {"labels": labels})) > 0.1


def test_automatic_weights_are_even_over_the_labels_that_there_are():
    given = rows([["good", "film", "film", "bad"]], [["B-PRAISE", "O", "O", "B-BLAME"]])
    weights = TokenClassification(class_weights="auto").resolve({"train": given}).class_weights

    assert weights == pytest.approx({"O": 4 / 6, "B-BLAME": 4 / 3, "I-BLAME": 1.0, "B-PRAISE": 4 / 3, "I-PRAISE": 1.0})


def test_a_slow_tokenizer_is_refused_in_one_line(home):
    processor = load_tokenizer(ModelOptions(path=str(home / "bert")))

    class Slow(type(processor)):
        is_fast = False

    processor.__class__ = Slow
    with pytest.raises(UserError, match="does not say where in the text its tokens stand"):
        TokenClassification(labels=LABELS).encode(rows([["good"]]), processor, "truncate")


def test_a_gpt2_learns_tags_and_a_run_answers_words_alone(run, tmp_path, home):
    from finetune.reuse import predict

    trained = run(
        "token-classification", task={"kind": "token-classification", "max_length": 64},
        model={"path": str(home / "gpt2")}, train={"output_dir": str(tmp_path / "run"), "num_train_epochs": 2},
        evaluate={"reload": "same", "baselines": True, "resamples": 100},
    )  # fmt: skip
    tiny.write_rows(tmp_path / "new.jsonl", [{"tokens": ["the", "film", "felt", "warm"]}])
    (tmp_path / "new.txt").write_text("the\nfilm\n\nwarm\n")

    scores = json.loads((trained / "scores.json").read_text())
    assert {"span_f1", "span_precision", "span_recall", "accuracy", "nll"} & set(scores["test"]) >= {"accuracy", "nll"}
    assert "span_f1_gap" in scores["baselines"]["lookup"]
    table = predict(trained, tmp_path / "new.jsonl", tmp_path / "said.csv")
    assert table["words"][0] == ["the", "film", "felt", "warm"]
    assert "target" not in table.column_names
    assert len(predict(trained, tmp_path / "new.txt")) == 2


def test_a_tiny_bert_learns_the_spans_and_the_report_shows_what_was_missed(run, tmp_path):
    trained = run(
        "token-classification", evaluate={"baselines": True},
        train={"output_dir": str(tmp_path / "run"), "optim": "adamw_torch", "learning_rate": 1e-2,
               "num_train_epochs": 6, "eval_strategy": "epoch", "save_strategy": "epoch",
               "load_best_model_at_end": True},
    )  # fmt: skip

    scores = json.loads((trained / "scores.json").read_text())
    assert scores["test"]["span_f1"]["value"] > 0.8
    report = (trained / "report.html").read_text()
    assert "span F1" in report
    assert "PRAISE" in report
    history = json.loads((trained / "history.json").read_text())
    assert any("eval_span_f1" in record for record in history)


def test_learned_tokens_in_front_are_refused_where_every_token_has_an_answer(run):
    with pytest.raises(UserError, match="would answer for learned tokens too"):
        run("token-classification", adapter={"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4})


def test_rows_may_be_streamed(run, sections, tmp_path):
    data = {**sections("token-classification")["data"], "streaming": True}
    trained = run("token-classification", task={"labels": list(LABELS)},
                  data=data, train={"output_dir": str(tmp_path / "run"), "max_steps": 3})  # fmt: skip

    assert "accuracy" in json.loads((trained / "scores.json").read_text())["test"]
