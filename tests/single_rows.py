"""What a head's targets cost on rows by themselves: torch's own losses on the model's logits, no padding, no batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from finetune.preparation import Prepared
from finetune.training.batching import drawn


def cost(model: Any, prepared: Prepared, row: dict[str, Any]) -> tuple[Tensor, float]:
    """Return (nats or squared error of a row's targets in the first step, their weight)."""
    task, given = prepared.recipe.task, {}
    for name in ("input_ids", "token_type_ids"):
        if name in row:
            given[name] = torch.tensor([row[name]])
    if task.kind == "image-classification":
        pixels = task.collator(prepared.processor)([row])["pixel_values"]
        return F.cross_entropy(model(pixel_values=pixels).logits[0], torch.tensor(row["labels"])), 1.0
    if task.kind == "text-classification":
        said, meant = model(**given).logits[0], torch.tensor(row["labels"])
        if task.problem == "regression":
            return F.mse_loss(said[0], meant), 1.0
        loss = F.cross_entropy if task.problem == "single" else F.binary_cross_entropy_with_logits
        return loss(said, meant), 1.0
    if task.kind == "question-answering":
        outputs, (first, last) = model(**given), torch.tensor(row["labels"])
        return F.cross_entropy(outputs.start_logits[0], first) + F.cross_entropy(outputs.end_logits[0], last), 2.0
    if task.kind == "masked-lm":
        return _masked(model, prepared, row, given)
    if task.kind == "seq2seq":
        given["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id, *row["labels"][:-1]]])
    return _tokens(model(**given).logits[0], torch.tensor(row["labels"]))


def _tokens(logits: Tensor, targets: Tensor) -> tuple[Tensor, float]:
    each = [F.cross_entropy(logits[place], target) for place, target in enumerate(targets) if target != -100]
    return torch.stack(each).sum(), float(len(each))


def _masked(model: Any, prepared: Prepared, row: dict[str, Any], given: dict[str, Tensor]) -> tuple[Tensor, float]:
    """What is hidden in the first step is the recipe's to say; what that costs is counted here."""
    task = prepared.recipe.task
    keys = drawn(prepared.recipe.train.seed, 0, torch.tensor([row["row"]]), 0.0)
    hidden, targets = task._masked(task.collator(prepared.processor)([row]) | keys)
    outputs = model(**{**given, "input_ids": hidden})
    total, weight = _tokens((outputs.prediction_logits if task.next_sentence else outputs.logits)[0], targets[0])
    if task.next_sentence:
        total = total + weight * F.cross_entropy(outputs.seq_relationship_logits[0], torch.tensor(row["next"]))
    return total, weight
