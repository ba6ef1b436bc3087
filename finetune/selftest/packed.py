"""The check of tasks that pack: no text of an input sees another."""

from __future__ import annotations

from typing import Any

from finetune.selftest.differences import apart
from finetune.selftest.stage import ROUNDING, Found, LeftOut, Stage


def packing(stage: Stage) -> Found:
    """The loss of several texts in one input = of each by itself."""
    import torch

    task, processor = stage.exact.recipe.task, stage.exact.processor
    if not getattr(task, "pack", False):
        raise LeftOut(f"{task.kind} makes an input of one row here")
    model = stage.whole.trainer.model.eval()
    if task.kind == "masked-lm":  # what is hidden depends on the place: logits are compared, with nothing hidden
        from finetune.tasks.masked_lm import packing_gap

        return Found(packing_gap(task, model), ROUNDING, "logits of two texts in one input, and by themselves")  # type: ignore[arg-type]
    rows, collate = _short(task, stage.exact.splits.rows["train"]), task.collator(processor)
    together, several = _fitting(task, rows, processor)

    def loss(inputs: Any) -> tuple[float, float]:
        batch = collate([inputs[place] for place in range(len(inputs))])
        batch = {name: value for name, value in batch.items() if name not in ("index", "row", "row_id")}
        with torch.no_grad():
            return float(task.loss(model, batch)[0]), float(task.weight(batch))

    packed, separate = loss(together), [loss(each) for each in several]
    alone = tuple(sum(each[place] for each in separate) for place in (0, 1))
    return Found(
        apart([packed], [alone]), ROUNDING, f"loss and targets of {len(several)} texts in one input, and alone"
    )


def _short(task: Any, rows: Any) -> Any:
    """Return pieces of the texts of a language model, short enough for several to fit one input; else the rows."""
    if task.kind != "causal-lm":
        return rows
    from datasets import Dataset

    size = max(4, task.block_size // 4)  # characters: no more tokens than bytes
    texts = [piece for text in rows[task.text][:8] for piece in (text[:size], text[size : 2 * size]) if piece.strip()]
    return Dataset.from_dict({task.text: texts, "row_id": [f"text:{place}" for place in range(len(texts))]})


def _fitting(task: Any, rows: Any, processor: Any) -> tuple[Any, list[Any]]:
    """Return the first rows that fit one input together, encoded as such, and each encoded by itself."""
    taken, several = list[int](), list[Any]()
    for place in range(len(rows)):
        made = task.encode(rows.select([place]), processor, "truncate").inputs
        both = task.encode(rows.select([*taken, place]), processor, "truncate").inputs
        if len(made) == 1 and len(both) == 1:
            taken.append(place)
            several.append(made)
        if len(taken) == 3:
            break
    if len(taken) < 2:
        raise LeftOut("no two texts of these rows fit into one input")
    return task.encode(rows.select(taken), processor, "truncate").inputs, several
