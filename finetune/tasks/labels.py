"""What the labels of a classifier are: their kind, their names and order, and their checks."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from finetune.errors import UserError, did_you_mean
from finetune.task import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PretrainedConfig

Problem = Literal["single", "multi", "regression"]


def infer_problem(rows: Dataset, column: str, separator: str | None) -> Problem:
    """Return the kind of problem that the label column's values make: lists, fractions, or names."""
    values = rows[column]
    if separator is not None or isinstance(values[0], list):
        return "multi"
    if all(isinstance(value, float) for value in values) and any(value != int(value) for value in values):
        return "regression"
    return "single"


def infer_names(rows: Dataset, column: str, problem: Problem, separator: str | None) -> tuple[str, ...]:
    """Return the label names: a ClassLabel's own order, else numbers by size and names by alphabet."""
    named = class_names(rows, column)
    if named:
        return named
    values = {value for row in rows[column] for value in _split(row, problem, separator)}
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values):
        return tuple(as_name(value) for value in sorted(numbers))
    return tuple(sorted(map(as_name, values)))


def as_name(value: Any) -> str:
    """Return the name of a label as a file wrote it: 1.0 is "1", so that CSV, JSON and Parquet agree."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def check_names(
    rows: Dataset, column: str, names: Sequence[str], problem: Problem, separator: str | None, split: str
) -> Counter[str]:
    """Return how often each label occurs. UserError names the first row whose label is not one of `names`."""
    if column not in rows.column_names:
        raise UserError(f"data.{split}: the column {column!r} (task.label) is missing.")
    of_class = class_names(rows, column)
    known, counts = set(names), Counter[str]()
    for place, value in enumerate(rows[column]):
        for part in _split(value, problem, separator):
            name = of_class[part] if of_class else as_name(part)
            counts[name] += 1
            if name not in known:
                shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
                raise UserError(
                    f"{rows['row_id'][place]}: column {column!r} is {name!r}, and no training row has that label; "
                    f"known labels: {shown}.{did_you_mean(name, names)}"
                )
    return counts


def check_variety(counts: Counter[str], names: Sequence[str], problem: Problem, column: str) -> None:
    """Raise UserError where there is nothing to learn, or a label that no training row has."""
    if len(counts) < (1 if problem == "multi" else 2):
        only = next(iter(counts), "none")
        raise UserError(f"data.train: every row has the same label in {column!r} ({only}); there is nothing to learn.")
    absent = [name for name in names if not counts[name]]
    if absent:
        raise UserError(f"task.labels: no training row has the label {absent[0]!r}.{did_you_mean(absent[0], counts)}")


def check_numbers(rows: Dataset, column: str, split: str) -> None:
    """Raise UserError for the first target of a regression that is not a finite number."""
    if column not in rows.column_names:
        raise UserError(f"data.{split}: the column {column!r} (task.label) is missing.")
    for place, value in enumerate(rows[column]):
        if _number(value) is None:
            raise UserError(
                f"{rows['row_id'][place]}: column {column!r} is {value!r}, and task.problem regression wants a number."
            )


def check_order(base: PretrainedConfig, names: Sequence[str], path: str | None) -> None:
    """Raise UserError when the base's own head has the same labels in another order: its head would be swapped."""
    own = [str(name) for _, name in sorted((base.id2label or {}).items())]
    if sorted(own) == sorted(names) and own != list(names):
        raise UserError(f"task.labels: {path} already has these labels in another order; set task.labels to {own}.")


def class_weights(
    given: Literal["auto"] | dict[str, float], counts: Counter[str], names: Sequence[str]
) -> dict[str, float]:
    """Return one positive weight a label; "auto" is n / (classes x count), as scikit-learn's "balanced"."""
    if given == "auto":
        total = sum(counts.values())
        return {name: total / (len(names) * counts[name]) for name in names}
    assert isinstance(given, dict)
    unknown = [name for name in given if name not in names]
    if unknown:
        raise UserError(f"task.class_weights: {unknown[0]!r} is not a label.{did_you_mean(unknown[0], names)}")
    bad = [name for name, weight in given.items() if not (math.isfinite(weight) and weight > 0)]
    if bad:
        raise UserError(f"task.class_weights.{bad[0]}: {given[bad[0]]} is not a weight; give a number above 0.")
    return {name: float(given.get(name, 1.0)) for name in names}


def head_options(names: Sequence[str], problem: Problem) -> dict[str, Any]:
    """Return what a model's configuration says of its head."""
    kinds = {"single": "single_label_classification", "multi": "multi_label_classification", "regression": "regression"}
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": kinds[problem],
    }


def usage(problem: Problem, pairs: bool, max_length: int) -> Usage:
    """Return how a classifier of texts is used elsewhere."""
    inputs = '"The first text.", "The second text."' if pairs else '"Put your text here."'
    read = {
        "multi": "[model.config.id2label[place] for place, score in enumerate(logits.sigmoid()) if score > 0.5]",
        "regression": "float(logits[0])",
        "single": "model.config.id2label[int(logits.argmax())]",
    }[problem]
    what = {"multi": "any number of labels", "regression": "a number", "single": "one of its labels"}[problem]
    return Usage(
        does=f"Gives a {'pair of texts' if pairs else 'text'} {what}.",
        auto_class="AutoModelForSequenceClassification",
        processor="tokenizer",
        pipeline="text-classification",
        code=f'inputs = tokenizer({inputs}, truncation=True, max_length={max_length}, return_tensors="pt")\n'
        f"with torch.no_grad():\n    logits = model(**inputs).logits[0]\nprint({read})",
    )


def weight_tensor(weights: Any, names: Sequence[str] | None, device: Any) -> Tensor:
    """Return the resolved class weights in the order of the labels."""
    import torch

    return torch.tensor([weights[name] for name in names or ()], device=device)


def check_smoothing(smoothing: float, problem: Problem | None) -> None:
    """Raise UserError for a share of smoothing that is none, or with labels that are not one of several."""
    if not 0 <= smoothing < 1:
        raise UserError(f"task.label_smoothing is {smoothing}; it is a share, from 0 to below 1, such as 0.1.")
    if smoothing and problem in ("multi", "regression"):
        raise UserError(f"task.label_smoothing works with one label a row, and the problem is {problem}. Leave it out.")


def summed_loss(
    logits: Tensor, labels: Tensor, problem: Problem, weights: Tensor | None, smoothing: float = 0.0
) -> Tensor:
    """Return the loss on the targets, summed over rows; `weights` and `smoothing` are for single labels.

    A row weighs what its label does, smoothed or not: torch's own way weighs the smoothed share of each label by that
    label's weight, and so a row by what it is not.
    """
    from torch.nn import functional as F

    if problem == "single":
        each = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        return (each if weights is None else each * weights[labels]).sum()
    if problem == "multi":
        each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return each.mean(dim=1).sum()  # a row's loss is the mean over its labels
    return F.mse_loss(logits[:, 0], labels, reduction="sum")


def targets_of(
    rows: dict[str, list[Any]],
    column: str,
    names: Sequence[str],
    problem: Problem,
    separator: str | None,
    class_names: Sequence[str] = (),
) -> list[Any]:
    """Return the labels as the loss wants them: ids, multi-hot rows of floats, or numbers.

    Args:
        class_names: what a ClassLabel column's integers stand for; () when the column holds the labels themselves.

    Raises:
        UserError: a label that is not one of `names`.
    """
    if problem == "regression":
        return [_number(value) for value in rows[column]]
    ids = {name: number for number, name in enumerate(names)}
    found = []
    for row_id, value in zip(rows["row_id"], rows[column], strict=True):
        parts = [class_names[part] if class_names else as_name(part) for part in _split(value, problem, separator)]
        for part in parts:
            if part not in ids:
                raise UserError(
                    f"{row_id}: column {column!r} is {part!r}, which is not a label of this run; "
                    f"known labels: {', '.join(names[:10])}.{did_you_mean(part, names)}"
                )
        found.append([ids[part] for part in parts])
    if problem == "single":
        return [parts[0] for parts in found]
    return [[float(number in parts) for number in range(len(names))] for parts in found]


def prediction_table(
    table: dict[str, list[Any]], logits: np.ndarray, names: Sequence[str], problem: Problem
) -> Dataset:
    """Return `table` with the columns prediction, score (its probability) and p/<label>."""
    import numpy as np
    from datasets import Dataset
    from scipy.special import expit, softmax

    if problem == "regression":
        return Dataset.from_dict({**table, "prediction": [float(value) for value in logits[:, 0]]})
    p = softmax(logits, axis=1) if problem == "single" else expit(logits)
    if problem == "single":
        table["prediction"] = [names[int(number)] for number in p.argmax(axis=1)]
        table["score"] = [float(value) for value in p.max(axis=1)]
    else:
        table["prediction"] = [[name for name, value in zip(names, row, strict=True) if value > 0.5] for row in p]
        table["score"] = [float(np.maximum(row, 1 - row).prod()) for row in p]
    return Dataset.from_dict({**table, **{f"p/{name}": p[:, number] for number, name in enumerate(names)}})


def by_row(values: np.ndarray, inputs: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return one row of values a row, the mean over its windows, and where each row's first input stands."""
    import numpy as np

    rows = np.asarray(inputs.with_format("numpy")["row"][:])
    _, first, owner = np.unique(rows, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        order = np.argsort(rows, kind="stable")
        return values[order], first
    sums = np.zeros((len(first), values.shape[1]))
    np.add.at(sums, owner, values)
    return sums / np.bincount(owner)[:, None], first


def class_names(rows: Dataset, column: str) -> tuple[str, ...]:
    """Return what the integers of a ClassLabel column (or list of them) stand for; () for any other column."""
    feature = rows.features[column] if rows.features else None
    return tuple(getattr(getattr(feature, "feature", feature), "names", None) or ())


def _split(value: Any, problem: Problem, separator: str | None) -> list[Any]:
    if problem != "multi":
        return [value]
    if isinstance(value, str):
        parts = value.split(separator) if separator else [value]
        return [part.strip() for part in parts if part.strip()]
    return list(value)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
