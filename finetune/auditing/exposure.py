"""How far a secret is exposed: its rank among others of its kind, by what the model thinks of each.

Carlini et al. 2019 (arXiv:1802.08232), section 4.3: exposure = log2(candidates) - log2(rank). A secret that the model
never saw has any rank alike, and a mean exposure of about 1 / ln 2 = 1.44.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.auditing.canaries import CANDIDATES, TIMES, Canary, as_rows

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset
    from transformers import PreTrainedModel

    from finetune.recipe import Recipe
    from finetune.task import Processor, Task

CHANCE = float(np.mean(np.log2(CANDIDATES / np.arange(1, CANDIDATES + 1))))  # 1.44
MOST = float(np.log2(CANDIDATES))  # 9.97
TOGETHER = 64  # candidates asked at once
DOUBTFUL = 1e-3  # chance below which ranks of secrets that were never seen are not taken for random


def asked(recipe: Recipe, processor: Processor, rows: Dataset, canaries: Sequence[Canary]) -> Dataset:
    """Return what a model is asked of its canaries: CANDIDATES inputs each, its own secret first.

    Args:
        recipe, processor: of the model.
        rows: of training, for their columns.
        canaries: planted or not.

    Raises:
        UserError: a canary is too long for the model.
    """
    texts = [("canary:1", canary.before, secret) for canary in canaries for secret in (canary.secret, *canary.others)]
    task = unpacked(recipe.task)
    inputs = task.encode_held(as_rows(rows, task, texts), processor, "error").inputs
    assert len(inputs) == len(texts)
    return inputs


def exposures(
    recipe: Recipe, model: PreTrainedModel, processor: Processor, questions: Dataset, folder: Path
) -> np.ndarray:
    """Return the exposure of each canary in bits, from 0 to MOST; ties count half.

    Args:
        recipe: says task and device.
        model, processor: after training.
        questions: as `asked` returns them.
        folder: where a trainer would write.
    """
    costs = _costs(recipe, model, processor, questions, folder).reshape(-1, CANDIDATES)
    own, others = costs[:, :1], costs[:, 1:]
    ranks = 1 + (others < own).sum(axis=1) + (others == own).sum(axis=1) / 2
    return np.asarray(np.log2(CANDIDATES / ranks))


def summary(found: np.ndarray, canaries: Sequence[Canary]) -> dict[str, dict[str, Any]]:
    """Return {times: mean exposure with its 95 % t-interval over canaries, share ranked first, each value}."""
    from scipy import stats

    held = {}
    for times in TIMES:
        values = found[[canary.times == times for canary in canaries]]
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
        mean = float(values.mean())
        held[str(times)] = {
            "exposure": mean, "low": max(mean - half, 0.0), "high": max(min(mean + half, MOST), mean), "n": len(values),
            "first": float((values >= MOST - 1e-9).mean()), "values": values.round(4).tolist(),
        }  # fmt: skip
    return held


def control_holds(found: np.ndarray, canaries: Sequence[Canary]) -> bool:
    """Say whether ranks of the canaries that were never planted look random (Kolmogorov-Smirnov)."""
    from scipy import stats

    never = found[[canary.times == 0 for canary in canaries]]
    return float(stats.kstest(2.0**-never, "uniform").pvalue) > DOUBTFUL


def unpacked(task: Task) -> Task:
    """Return a task whose inputs are single rows."""
    return replace(task, pack=False) if getattr(task, "pack", False) else task  # type: ignore[call-arg]  # of some


def _costs(recipe: Recipe, model: PreTrainedModel, processor: Processor, inputs: Dataset, folder: Path) -> np.ndarray:
    """Return how unlikely each input is, in nats."""
    from finetune.rescoring import trainer_for

    task = unpacked(recipe.task)
    trainer = trainer_for(replace(recipe, task=task), model, processor, folder)
    trainer.args.per_device_eval_batch_size = TOGETHER
    if task.kind != "masked-lm":
        return np.asarray(trainer.answers(inputs)["nll"])
    return _all_hidden(task, trainer, processor, inputs)


def _all_hidden(task: Any, trainer: Any, processor: Any, inputs: Dataset) -> np.ndarray:
    """Return the nats of each secret's tokens, all of them hidden at once: one question for secrets of one length."""
    import torch
    from torch.nn import functional as F

    ids = inputs["input_ids"]
    collate, costs = task.collator(processor), np.zeros(len(inputs))
    with torch.no_grad():
        for start in range(0, len(inputs), CANDIDATES):
            group = [list(each) for each in ids[start : start + CANDIDATES]]
            before, after = _shared(group), _shared([each[::-1] for each in group])
            for length in sorted({len(each) for each in group}):
                members = [place for place, each in enumerate(group) if len(each) == length]
                batch = collate([inputs[start + members[0]]])
                batch = {
                    key: each.to(trainer.args.device) for key, each in batch.items() if key not in ("row", "row_id")
                }
                places = torch.zeros((1, length), dtype=torch.bool, device=trainer.args.device)
                places[0, min(before, length - after - 1) : length - after] = True
                hidden = batch["input_ids"].masked_fill(places, int(processor.mask_token_id))
                logits, _ = task.predicted(trainer.model.eval(), batch, hidden, places)
                for place in members:
                    told = torch.tensor([group[place]], device=logits.device)[places]
                    costs[start + place] = float(F.cross_entropy(logits, told, reduction="sum"))
    return costs


def _shared(group: list[list[int]]) -> int:
    """Return how many first tokens are the same in all."""
    size = 0
    while all(len(each) > size and each[size] == group[0][size] for each in group):
        size += 1
    return size
