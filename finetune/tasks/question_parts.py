"""Parts of a text as a model points at them: their losses, the best of them, and the code that does so elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from finetune.task import Batch

IMPOSSIBLE = -1e9  # finite, as answers must be: the score of a part that is none

CODE = """question, text = "Who wrote it?", "It was written by Mary Shelley in 1818."
inputs = tokenizer(
    question, text, truncation="only_second", max_length={max_length}, return_offsets_mapping=True, return_tensors="pt"
)
places = inputs.pop("offset_mapping")[0].tolist()
with torch.no_grad():
    outputs = model(**inputs)
scores = outputs.start_logits[0][:, None] + outputs.end_logits[0][None]
of_text = torch.tensor([side == 1 for side in inputs.sequence_ids(0)])
allowed = (of_text[:, None] & of_text[None]).triu().tril({most} - 1)  # the end not before the start, nor far behind
first, last = divmod(int(scores.masked_fill(~allowed, -torch.inf).argmax()), len(places))
"""
SOME = "print(text[places[first][0] : places[last][1]].strip())"
NONE = """none = float(scores[0, 0] - scores[first, last]) > {threshold!r}
print("no answer" if none else text[places[first][0] : places[last][1]].strip())"""


def part_losses(outputs: Any, batch: Batch) -> Tensor:
    """Return the cross entropy of the beginning plus that of the end of each input, in nats; shape (batch,).

    Padding is no place: with it, as in transformers' own loss, an input's loss would depend on its neighbours' lengths.
    """
    from torch.nn import functional as F

    logits = of_places(outputs, batch).transpose(1, 2)
    return F.cross_entropy(logits, batch["labels"], reduction="none", ignore_index=-100).sum(dim=1)


def of_places(outputs: Any, batch: Batch) -> Tensor:
    """Return the logits of beginning and end, shape (batch, 2, length), out of reach at padding."""
    import torch

    both = torch.stack([outputs.start_logits, outputs.end_logits], dim=1).float()
    return both.masked_fill(batch["attention_mask"][:, None] == 0, IMPOSSIBLE)


def best_parts(start: Tensor, end: Tensor, allowed: Tensor, longest: int, count: int) -> dict[str, Tensor]:
    """Return the best parts of each input: `start` and `end` (places), `score`, each (batch, count); `none`, (batch,).

    Args:
        start, end: logits, shape (batch, length).
        allowed: 1 at tokens of the context, shape (batch, length).
        longest: tokens of a part at most.
        count: of parts; where there are fewer, the rest have the score IMPOSSIBLE.
    """
    import torch
    from torch.nn import functional as F

    length = start.shape[1]
    kept = allowed.bool()
    begins, closes = (each.masked_fill(~kept, IMPOSSIBLE) for each in (start, end))
    # Ends that are 0, 1, … tokens behind each beginning: (batch, length, longest).
    behind = F.pad(closes, (0, longest - 1), value=IMPOSSIBLE).unfold(1, longest, 1)
    scores = (begins[:, :, None] + behind).flatten(1)
    scores = F.pad(scores, (0, max(0, count - scores.shape[1])), value=2 * IMPOSSIBLE)
    score, place = scores.topk(count, dim=1)
    first = (place // longest).clamp(max=length - 1)
    return {
        "start": first,
        "end": (first + place % longest).clamp(max=length - 1),
        "score": torch.where(score < IMPOSSIBLE / 2, torch.full_like(score, IMPOSSIBLE), score),
        "none": start[:, 0] + end[:, 0],
    }


def collate(inputs: list[dict[str, Any]], pad_id: int) -> Batch:
    """Return a batch of inputs padded on the right, with a mask of the tokens of the context."""
    import torch

    from finetune.tasks.windows import padded_batch
    from finetune.training.batching import padded

    batch = padded_batch(inputs, pad_id, {})
    masks = [[0] * each["begins"] + [1] * len(each["starts"]) for each in inputs]
    batch["context_mask"] = padded(masks, 0, batch["input_ids"].shape[1])
    if "labels" in inputs[0]:
        batch["labels"] = torch.tensor([each["labels"] for each in inputs])
    return batch
