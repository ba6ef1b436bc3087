"""Words in whose place a masked language model writes others.

Kobayashi 2018 (arXiv:1805.06201) with the model of Wu et al. 2019 (arXiv:1812.06705), but for the label, which it is
not told: a word may come that belongs to another.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.editing.augmenting import cased, core

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOP = 20  # the likeliest words, of which one is drawn by its probability
BATCH = 16  # texts
LIMIT = 512  # tokens that are read of a text, or fewer where the model has fewer positions


@dataclass
class Hidden:
    """A text with words hidden, and what of it is kept to put others there."""

    pieces: list[str]  # the text around and between the hidden words
    words: list[str]
    chance: random.Random

    def filled(self, words: list[str]) -> str:
        """Return the text with these words in place of the hidden ones."""
        return "".join(part for pair in zip(self.pieces, [*words, ""], strict=True) for part in pair)


def substituted(
    texts: list[str],
    seeds: list[str],
    share: float,
    model: PreTrainedModel,
    processor: PreTrainedTokenizerBase,
    limit: int = LIMIT,
    size: int = BATCH,
) -> list[str]:
    """Return each text with a share of its words, one at least, replaced by words that the model finds likely there.

    Words stand between spaces; what is written is a word of one token, never the word itself. A text of one word stays,
    and so do words beyond `limit` tokens.

    Args:
        texts: as many as seeds.
        seeds: what is drawn for a text depends on its seed alone.
        share: of the words.
        model: a masked language model.
        processor: its tokenizer.
        limit: tokens of a text.
        size: texts that are read at once; it changes nothing but the time.
    """
    import torch

    special = processor.all_special_tokens
    hidden = [_hidden(text, share, seed, special) for text, seed in zip(texts, seeds, strict=True)]
    made = list(texts)
    order = sorted((at for at, each in enumerate(hidden) if each is not None), key=lambda at: (len(texts[at]), at))
    words = _words(processor, model.config.vocab_size).to(model.device) if order else None
    with torch.no_grad():
        for start in range(0, len(order), size):
            part = order[start : start + size]
            _fill(part, hidden, made, words, model, processor, limit)
    return made


def _hidden(text: str, share: float, seed: str, special: list[str]) -> Hidden | None:
    """Return a text with words hidden, drawn by the seed; None where there is nothing to hide, or nothing around it.

    None too for a text in which somebody typed a special token: it could not be told from the masks.
    """
    chance = random.Random(f"{seed}\x1fwords")
    found = list(re.finditer(r"\S+", text))
    places = [place for place, each in enumerate(found) if core(each[0])[1].isalpha()]
    if len(found) < 2 or not places or any(token in text for token in special):
        return None
    times = min(max(1, round(share * len(found))), len(places), len(found) - 1)
    pieces, words, at = [], [], 0
    for place in sorted(chance.sample(places, times)):
        before, word, _ = core(found[place][0])
        start = found[place].start() + len(before)
        pieces.append(text[at:start])
        words.append(word)
        at = start + len(word)
    return Hidden([*pieces, text[at:]], words, chance)


def _fill(
    part: list[int],
    hidden: list[Any],
    made: list[str],
    words: Any,
    model: PreTrainedModel,
    processor: PreTrainedTokenizerBase,
    limit: int,
) -> None:
    """Put words into the texts of one batch."""
    masks = [hidden[at].filled([str(processor.mask_token)] * len(hidden[at].words)) for at in part]
    batch = processor(
        masks, truncation=True, max_length=limit, padding=True, return_tensors="pt", return_token_type_ids=False
    ).to(model.device)
    logits = model(**batch).logits
    for row, at in enumerate(part):
        each, new = hidden[at], list(hidden[at].words)
        places = (batch["input_ids"][row] == processor.mask_token_id).nonzero()[:, 0].tolist()
        for number, place in enumerate(places[: len(new)]):  # words beyond the limit stay
            new[number] = _drawn(logits[row, place].float(), words, new[number], each.chance, processor)
        made[at] = each.filled(new)


def _drawn(
    logits: Tensor, words: Tensor, before: str, chance: random.Random, processor: PreTrainedTokenizerBase
) -> str:
    """Return one of the likeliest words, drawn by its probability; the word that stood there is none of them."""
    likely = logits.masked_fill(~words, float("-inf")).log_softmax(-1).topk(min(TOP + 1, int(words.sum())))
    found = zip(likely.indices.tolist(), likely.values.exp().tolist(), strict=True)
    told = [(str(processor.decode([one])).strip(), p) for one, p in found]
    told = [(word, p) for word, p in told if word.lower() != before.lower()][:TOP]
    if not told or not any(p > 0 for _, p in told):
        return before
    return cased(chance.choices([word for word, _ in told], [p for _, p in told])[0], before)


def _words(processor: PreTrainedTokenizerBase, size: int) -> Tensor:
    """Return which tokens are a whole word in running text, bool of shape (vocabulary,)."""
    import torch

    special = set(processor.all_special_ids)
    alone = {
        one: str(processor.decode([one])).strip() for one in range(min(size, len(processor))) if one not in special
    }
    alone = {one: word for one, word in alone.items() if word.isalpha()}
    again = processor([f"a {word}" for word in alone.values()], add_special_tokens=False)["input_ids"] if alone else []
    first = processor("a", add_special_tokens=False)["input_ids"]
    found = torch.zeros(size, dtype=torch.bool)
    for one, ids in zip(alone, again, strict=True):
        found[one] = ids == [*first, one]
    return found
