"""What the labels of a classifier are, its loss, and its long texts."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from datasets import ClassLabel, Dataset, Features, Value

from finetune.cli import main
from finetune.errors import UserError
from finetune.loading import ModelOptions
from finetune.tasks.text_classification import TextClassification


def rows(labels: list, texts: list[str] | None = None, **features) -> Dataset:
    texts = texts or [f"text {number}" for number in range(len(labels))]
    table = {"text": texts, "label": labels, "row_id": [f"a.csv:{number + 2}" for number in range(len(labels))]}
    return Dataset.from_dict(table, **features)


@pytest.mark.parametrize(
    ("labels", "problem", "names"),
    [
        (["b", "a", "b"], "single", ("a", "b")),
        ([10, 9, 10], "single", ("9", "10")),  # by size, not by alphabet
        ([1.0, 0.0, 1.0], "single", ("0", "1")),  # whole floats are classes that a CSV reader wrote so
        ([True, False, True], "single", ("False", "True")),
        ([0.5, 1.25, 3.0], "regression", ()),
        ([["a"], ["b", "a"], []], "multi", ("a", "b")),
    ],
)
def test_the_problem_is_read_off_the_labels(labels, problem, names) -> None:
    task = TextClassification().resolve({"train": rows(labels)})

    assert (task.problem, task.labels) == (problem, names)
    assert task.described().startswith("task: 'label' is ")


def test_a_class_label_column_keeps_its_own_order() -> None:
    features = Features(text=Value("string"), label=ClassLabel(names=["pos", "neg"]), row_id=Value("string"))
    task = TextClassification().resolve({"train": rows([0, 1, 1], features=features)})

    assert task.labels == ("pos", "neg")


def test_labels_may_be_separated_by_a_sign() -> None:
    task = TextClassification(label_separator="|").resolve({"train": rows(["a|b", "b", "c|a"])})

    assert (task.problem, task.labels) == ("multi", ("a", "b", "c"))


@pytest.mark.parametrize(
    ("options", "splits", "line"),
    [
        ({}, {"train": ["a", "a"]}, "every row has the same label"),
        ({}, {"train": ["bad", "good"], "validation": ["goood"]}, r"a\.csv:2: .*'goood'.*Did you mean good\?"),
        ({"labels": ("bad", "good", "fine")}, {"train": ["bad", "good"]}, "no training row has the label 'fine'"),
        ({"labels": ("bad",)}, {"train": ["bad", "good"]}, r"a\.csv:3: column 'label' is 'good'"),
        ({"problem": "regression"}, {"train": ["1.5", "much"]}, r"a\.csv:3: .*'much'.*wants a number"),
        ({"class_weights": {"god": 2.0}}, {"train": ["bad", "good"]}, "'god' is not a label. Did you mean good"),
        ({"class_weights": {"good": -1.0}}, {"train": ["bad", "good"]}, "give a number above 0"),
        ({"class_weights": "auto"}, {"train": [["a"], ["b"]]}, "several"),
        ({"max_length": 2}, {"train": ["a", "b"]}, "max_length"),
    ],
)
def test_labels_that_contradict_the_options_are_refused_in_one_line(options, splits, line) -> None:
    with pytest.raises(UserError, match=line) as caught:
        TextClassification(**options).resolve({name: rows(labels) for name, labels in splits.items()})
    assert "\n" not in str(caught.value)


def test_automatic_class_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = ["a"] * 7 + ["b"] * 2 + ["c"]
    task = TextClassification(class_weights="auto").resolve({"train": rows(labels)})

    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=np.array(labels))
    assert list(task.class_weights.values()) == pytest.approx(list(expected))


@pytest.mark.parametrize("weights", [None, {"a": 3.0, "b": 0.5}])
def test_the_summed_loss_over_its_weight_is_the_mean_that_torch_computes(weights) -> None:
    task = TextClassification(problem="single", labels=("a", "b"), class_weights=weights)
    logits, labels = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])

    class Model:
        def __call__(self, **_):
            return type("Outputs", (), {"logits": logits})

    total, _ = task.loss(Model(), {"labels": labels})
    tensor = None if weights is None else torch.tensor([3.0, 0.5])
    expected = torch.nn.functional.cross_entropy(logits, labels, tensor)
    torch.testing.assert_close(total / task.weight({"labels": labels}), expected)


def encode(home, on_long: str, texts: list[str]):
    from finetune.loading import load_tokenizer

    processor = load_tokenizer(ModelOptions(path=str(home / "bert")))
    task = TextClassification(max_length=8, problem="single", labels=("a", "b"))
    return task, task.encode(rows(["a", "b"][: len(texts)], texts), processor, on_long)


def test_long_texts_are_cut_dropped_split_or_refused(home) -> None:
    texts = [" ".join(tiny.GOOD * 3), "short"]

    assert encode(home, "truncate", texts)[1].facts["cut"] == 1
    assert encode(home, "drop", texts)[1].inputs["row_id"][:] == ["a.csv:3"]
    windows = encode(home, "window", texts)[1]
    assert windows.facts["inputs"] > 2
    assert windows.facts["dropped"] == windows.facts["cut"] == 0
    with pytest.raises(UserError, match=r"a\.csv:2: 26 tokens, and task\.max_length is 8"):
        encode(home, "error", texts)
    with pytest.raises(UserError, match="all 1 rows are longer"):
        encode(home, "drop", texts[:1])


def test_windows_of_one_row_are_scored_as_one_row(home) -> None:
    task, encoded = encode(home, "window", [" ".join(tiny.GOOD * 3), "short"])
    count = len(encoded.inputs)
    logits = np.tile([[2.0, -2.0]], (count, 1))
    logits[-1] = [-2.0, 2.0]

    score = task.score({"logits": logits}, encoded.inputs)["accuracy"]
    assert (score.value, score.n) == (1.0, 2)


def test_an_integer_that_is_no_label_is_not_taken_for_an_id(home) -> None:
    from finetune.loading import load_tokenizer

    processor = load_tokenizer(ModelOptions(path=str(home / "bert")))
    task = TextClassification(max_length=8).resolve({"train": rows([1, 2, 1])})
    with pytest.raises(UserError, match=r"a\.csv:2: column 'label' is '0'"):
        task.encode(rows([0, 1]), processor, "truncate")


def test_a_base_with_the_same_labels_in_another_order_is_refused(home, tmp_path) -> None:
    from finetune.loading import load_tokenizer

    source = ModelOptions(path=str(home / "bert"))
    processor = load_tokenizer(source)
    task = TextClassification(problem="single", labels=("pos", "neg"))
    model, new = task.load_model(source, processor)
    assert any("classifier" in name for name in new)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    swapped = TextClassification(problem="single", labels=("neg", "pos"))
    with pytest.raises(UserError, match=r"another order; set task\.labels to \['pos', 'neg'\]"):
        swapped.load_model(ModelOptions(path=str(tmp_path)), processor)


@pytest.mark.parametrize(
    ("strategy", "long", "said"), [("group_by_length", 8, 1), ("group_by_length", 1, 0), ("random", 8, 0)]
)
def test_a_length_that_tells_the_label_is_said_where_rows_are_grouped_by_it(
    sections, write_recipe, tmp_path, capsys, strategy, long, said
):
    rows = [
        {"text": f"n{number} " + "film " * (number % 5 + (long if number % 2 else 1)), "label": "ab"[number % 2]}
        for number in range(40)
    ]
    data = {"train": str(tiny.write_rows(tmp_path / "rows.jsonl", rows)), "validation": None, "test": None}
    made = sections("text-classification", data=data, train={"train_sampling_strategy": strategy})

    assert main(["check", str(write_recipe(made))]) == 0
    assert capsys.readouterr().out.count("for the length tells the label (median tokens: b 13 and a 6)") == said
