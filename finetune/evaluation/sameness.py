"""A model that answers every row alike has learned nothing, whatever its scores say: seen in what it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune.evaluation.findings import Predictions
from finetune.evaluation.metrics.span_f1 import spans_of

if TYPE_CHECKING:
    from datasets import Dataset

CURE = "It has learned nothing that tells rows apart: try a lower train.learning_rate, or look at the labels."
PRIVATE_CURE = (
    "It has learned nothing that tells rows apart: the noise of train.dp may drown the signal. Try larger steps "
    "(train.gradient_accumulation_steps), a larger epsilon or fewer trained weights (adapter), or look at the labels."
)


def one_answer(table: Dataset, private: bool = False) -> tuple[str, ...]:
    """Return a sentence where a table of predictions holds one answer for rows whose targets differ; () elsewhere.

    Its advice is another one where the training was private.
    """
    if len(table) < 2 or "target" not in table.column_names:
        return ()
    columns = {name: list(table[name][:]) for name in ("target", "prediction", "words", "question", "spans")
               if name in table.column_names}  # fmt: skip
    if "prediction" not in columns:
        return ()
    kind, said, meant = Predictions(columns).kind, columns["prediction"], columns["target"]
    found = ""
    if kind == "tags":
        found = _tags(said, meant, "spans" in columns)
    elif kind == "answers":
        found = _one(said, meant, "no answer" if not any(said) else "the same answer")
    elif kind == "multi":
        found = _one(said, meant, "no label" if not any(said) else "the same labels")
    elif kind == "regression":
        found = "" if max(said) > min(said) or max(meant) == min(meant) else f"{len(said):,} rows get the same number."
    elif kind == "single":
        found = _one(said, meant, f'the label "{said[0]}"')
    return (f"{found} {PRIVATE_CURE if private else CURE}",) if found else ()


def _one(said: Sequence[Any], meant: Sequence[Any], what: str) -> str:
    same = all(each == said[0] for each in said) and any(each != meant[0] for each in meant)
    return f"All {len(said):,} rows are answered with {what}." if same else ""


def _tags(said: Sequence[Sequence[Any]], meant: Sequence[Sequence[Any]], spans: bool) -> str:
    if spans:
        there = sum(len(spans_of(tags)) for tags in meant)
        if there and not any(spans_of(tags) for tags in said):
            return f"Not one span is found in {len(said):,} rows that hold {there:,}: every word is answered with O."
        return ""
    told = {tag for tags in said for tag in tags if tag is not None}
    if len(told) == 1 and len({tag for tags in meant for tag in tags}) > 1:
        return f'Every word of {len(said):,} rows is answered with the tag "{told.pop()}".'
    return ""
