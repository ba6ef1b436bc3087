"""A masked language model asked about every token in turn, and about the blanks of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.task import Examination
from finetune.tasks.masking import FREE, inner
from finetune.tasks.next_sentence import said_of_tokens

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.evaluation.options import EvaluateOptions
    from finetune.tasks.masked_lm import MaskedLM

AT_ONCE = 64  # copies of an input, each with another token hidden
SHOWN = 5  # words for a blank


def examine_masked(
    task: MaskedLM,
    model: PreTrainedModel,
    inputs: dict[str, Dataset],
    processor: PreTrainedTokenizerBase,
    options: EvaluateOptions,
) -> Examination:
    """Return the pseudo-perplexity of the first held-out inputs (of test, else validation, else train).

    exp of the mean of -log p(token | all others), every token hidden once (Salazar et al. 2020, arXiv:1910.14659,
    section 2.3); as many forward passes as there are tokens. It is no perplexity: the tokens' chances do not multiply
    to that of the text.
    """
    import numpy as np

    from finetune.evaluation.masked import pseudo_scores

    split = next(name for name in ("test", "validation", *inputs) if name in inputs)
    held = inputs[split].select(range(min(task.pseudo_perplexity, len(inputs[split]))))
    collate = task.collator(processor)
    costs = [_cost(task, model, collate([each]), int(processor.mask_token_id)) for each in held]
    sums, tokens = (np.array(each) for each in zip(*costs, strict=True))
    facts = {"split": split, "inputs": len(held), "tokens_hidden_in_turn": int(tokens.sum())}
    return Examination({split: pseudo_scores(sums, tokens, options.resamples)}, facts=facts)


def _cost(task: MaskedLM, model: PreTrainedModel, batch: Any, mask_id: int) -> tuple[float, int]:
    """Return (nats, number) of the tokens of one input, each with all others seen."""
    import torch
    from torch.nn import functional as F

    batch = {name: each.to(model.device) for name, each in batch.items() if name not in ("row", "row_id", "index")}
    ids, total = batch["input_ids"], 0.0
    places = (batch["units"][0] != FREE).nonzero()[:, 0]
    for part in places.split(AT_ONCE):
        copies = {name: each.expand(len(part), -1) for name, each in batch.items() if each.ndim == 2}
        one = torch.zeros_like(copies["input_ids"], dtype=torch.bool)
        one[range(len(part)), part] = True
        with torch.no_grad():
            logits, _ = task.predicted(model, copies, copies["input_ids"].masked_fill(one, mask_id), one)
        total += float(F.cross_entropy(logits, ids[0, part], reduction="sum"))
    return total, len(places)


def filled(model: PreTrainedModel, processor: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return a text with blanks, and the likeliest words for each blank with their probabilities."""
    import torch

    given = processor(prompt, return_tensors="pt").to(model.device)
    with torch.no_grad():
        outputs = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
    logits = said_of_tokens(outputs)[0].float()
    lines = []
    for place in (given["input_ids"][0] == processor.mask_token_id).nonzero()[:, 0].tolist():
        chances, ids = logits[place].softmax(dim=0).topk(min(SHOWN, inner(model).config.vocab_size))
        words = [str(processor.decode([each])).strip() for each in ids.tolist()]
        lines.append(", ".join(f"{word} {chance:.2f}" for word, chance in zip(words, chances.tolist(), strict=True)))
    return "\n".join([prompt, *(f"→ {line}" for line in lines)])
