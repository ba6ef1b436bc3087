"""Pairs of sentences of which the second follows the first, or comes from another text, for BERT's second objective.

Devlin et al. 2019 (arXiv:1810.04805), section 3.1 and appendix A.2. A row is a document.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.task import Encoded
from finetune.tasks.lengths import AS_TEXT, length_facts
from finetune.tasks.masked_texts import renumbered
from finetune.tasks.masking import FREE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from finetune.evaluation.bootstrap import Measure
    from finetune.loading import ModelOptions
    from finetune.task import Batch, Scores

FAMILY = "bert"  # the only one whose pretrained models have this head: BertForPreTraining
LISTS = ("input_ids", "units", "token_type_ids")
PLAIN = {"next": "int64", "row": "int64", "row_id": "string", "length": "int64", "cut": "bool"}
FOLLOWS, RANDOM = 0, 1  # targets, as BERT numbers them


@dataclass(frozen=True)
class Pair:
    """Two runs of sentences."""

    first: str
    second: str
    target: int


def load_kind(model: ModelOptions) -> Any:
    """Return the class of transformers that has both heads; UserError for a family that has none."""
    from transformers import AutoModelForPreTraining

    from finetune.loading import load_config

    kind = load_config(model).model_type
    if kind != FAMILY:
        raise UserError(f"task.next_sentence: {kind} has no head for it; BERT has (model_type bert). Leave it out.")
    return AutoModelForPreTraining


def said_of_tokens(outputs: Any) -> Tensor:
    """Return the logits of hidden tokens, whatever else the model says."""
    both = "prediction_logits" in outputs
    return outputs.prediction_logits if both else outputs.logits


def said_at(outputs: Any, places: Tensor) -> Tensor:
    """Return the fp32 logits of the hidden tokens, shape (places, vocabulary), whether others were told too or not."""
    logits = said_of_tokens(outputs)
    return (logits[places] if logits.shape[:2] == places.shape else logits[0]).float()


def told_apart(one: Any, other: Any, places: Tensor, temperature: float) -> Tensor:
    """Return how far two models' words for hidden tokens, and for pairs, lie apart; a pair weighs as in the loss."""
    from finetune.objectives.consistency import apart
    from finetune.objectives.distillation import divergence

    total = apart(said_at(one, places), said_at(other, places), places, temperature=temperature)
    if "seq_relationship_logits" not in one:
        return total
    pairs = divergence(other.seq_relationship_logits.float(), one.seq_relationship_logits.float(), temperature)
    return total + (places.sum(dim=1) * pairs).sum()


def next_losses(outputs: Any, batch: Batch) -> Tensor:
    """Return the cross entropy of each pair's target in nats, shape (batch,)."""
    from torch.nn import functional as F

    return F.cross_entropy(outputs.seq_relationship_logits.float(), batch["next"], reduction="none")


def next_answers(outputs: Any, batch: Batch) -> dict[str, Tensor]:
    """Return what is kept of each pair: whether it was told right, its cost in nats, the chance that it follows."""
    logits = outputs.seq_relationship_logits.float()
    return {
        "next_right": logits.argmax(dim=1) == batch["next"],
        "next_nll": next_losses(outputs, batch).double(),
        "next_p": logits.softmax(dim=1)[:, FOLLOWS],
    }


def next_told(answers: dict[str, Any], inputs: Dataset) -> dict[str, Any]:
    """Return the columns of predictions: whether the second follows, whether the model says so, and how likely."""
    target = [each == FOLLOWS for each in inputs["next"]]
    said = [is_so == bool(right) for is_so, right in zip(target, answers["next_right"], strict=True)]
    return {"follows/target": target, "follows/prediction": said, "p/follows": answers["next_p"]}


def next_scores(answers: dict[str, Any], resamples: int) -> Scores:
    """Return `next_accuracy` and `next_nll` (nats a pair), with 95 % intervals over pairs."""
    from finetune.evaluation.bootstrap import bootstrap

    return bootstrap(_measure(answers["next_right"], answers["next_nll"]), len(answers["next_nll"]), resamples)


def next_majority(train: Dataset, test: Dataset, answers: dict[str, Any], resamples: int) -> Scores:
    """Return the scores of saying of every pair what is true of most training pairs, with paired gaps of the model's.

    Its chances are the shares in train, add-one smoothed. A gap is the model's score minus the rival's.
    """
    import numpy as np

    from finetune.evaluation.bootstrap import bootstrap, with_gaps

    counts, targets = np.bincount(train["next"][:], minlength=2), np.array(test["next"][:])
    rival = _measure(targets == counts.argmax(), -np.log((counts + 1) / (counts.sum() + 2))[targets])
    model = _measure(answers["next_right"], answers["next_nll"])
    return bootstrap(with_gaps(rival, model, ("next_accuracy", "next_nll")), len(targets), resamples)


def next_rivals(inputs: dict[str, Dataset], answers: dict[str, Any], resamples: int) -> dict[str, Scores]:
    """Return the rivals of `next_scores` by name."""
    return {"majority": next_majority(inputs["train"], inputs["test"], answers, resamples)}


def _measure(right: np.ndarray, cost: np.ndarray) -> Measure:
    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(axis=0)
        return {"next_accuracy": right.astype(float) @ weights / total, "next_nll": cost @ weights / total}

    return measure


class SentencePairs:
    """Turns rows of documents into pairs of at most `block_size` tokens, special ones included.

    A document is read from its start: as many sentences as fit are parted in two at random, and with a chance of one
    half the second part is sentences of another document of the same split. What is drawn depends on the row's number
    and the texts, on no batch or process, and is the same at every evaluation. A document of one sentence has no pair.
    """

    def __init__(self, processor: PreTrainedTokenizerBase, text: str, block_size: int, whole_word: bool, on_long: str):
        """Take the task's options; UserError for those that pairs do not have."""
        if on_long == "window":
            raise UserError("data.on_long: window cuts texts apart, and task.next_sentence has pairs; use truncate.")
        if not processor.is_fast:
            raise UserError("task.next_sentence: this tokenizer does not say where words begin; use a fast one.")
        self.processor, self.text, self.block_size = processor, text, block_size
        self.whole_word, self.on_long = whole_word, on_long
        self.room = block_size - processor.num_special_tokens_to_add(pair=True)
        if self.room < 2:
            raise UserError(f"task.block_size: {block_size} leaves no room for two sentences beside special tokens.")

    def encode(self, rows: Dataset) -> Encoded:
        """Return the inputs. Raises UserError for a pair too long under on_long "error", or when nothing is left."""
        from datasets import Dataset, Features, List, Value

        if not hasattr(rows, "num_rows"):
            raise UserError("data.streaming: task.next_sentence draws from every document; leave streaming out.")
        documents, sizes = self._read(rows[self.text][:])
        if len(documents) < 2:
            raise UserError("task.next_sentence: needs two documents or more, a row each; there is one.")
        table: dict[str, list[Any]] = {name: [] for name in (*LISTS, *PLAIN)}
        for number, row_id in enumerate(rows["row_id"][:]):
            pairs = list(self._pairs(number, documents, sizes))
            for made in self._encoded(pairs, number, row_id):
                for name, value in made.items():
                    table[name].append(value)
        if not table["row"]:
            raise UserError(
                f"task.next_sentence: none of {rows.num_rows} rows has two sentences that fit task.block_size "
                f"{self.block_size}; a row is a document."
            )
        features = Features({name: List(Value("int32")) for name in LISTS} | {n: Value(k) for n, k in PLAIN.items()})
        inputs = Dataset.from_dict(table, features=features)
        facts = length_facts(rows.num_rows, inputs, self.block_size)
        one, random_ = sum(len(each) < 2 for each in documents), sum(inputs["next"][:])
        said = [f"{len(inputs):,} pairs of sentences, {random_ / len(inputs):.1%} with the second of another document"]
        said += [f"{one:,} of {rows.num_rows:,} documents have one sentence, and no pair"] if one else []
        facts |= {"dropped": 0, "documents": rows.num_rows, "said": said}
        # A pair is its own unit: a document has several, and what is hidden in each is drawn by its number.
        inputs = inputs.remove_columns(["cut", "row"]).add_column("row", list(range(len(inputs))))
        return Encoded(inputs, facts)

    def _read(self, texts: list[str]) -> tuple[list[list[str]], list[list[int]]]:
        """Return the sentences of each document, and how many tokens each has."""
        from finetune.evaluation.leading import sentences_of

        documents = [
            [each.strip() for line in text.splitlines() for each in sentences_of(line) if each.strip()]
            for text in texts
        ]
        flat = [sentence for each in documents for sentence in each]
        ids = self.processor(flat, add_special_tokens=False, **AS_TEXT)["input_ids"] if flat else []
        counts = iter(len(one) for one in ids)
        return documents, [[next(counts) for _ in each] for each in documents]

    def _pairs(self, number: int, documents: list[list[str]], sizes: list[list[int]]) -> Iterator[Pair]:
        """Yield the pairs of one document."""
        sentences, chance, at = documents[number], random.Random(f"next\x1f{number}"), 0
        last = len(sentences) < 2
        while not last and at < len(sentences):
            if len(sentences) - at == 1:  # the last sentence alone: with the one before it
                at, last = at - 1, True
            end = self._fitting(sizes[number], at)
            split = chance.randint(at + 1, end - 1)
            first, drawn = " ".join(sentences[at:split]), chance.random() < 0.5
            if drawn:
                second = self._of_another(number, documents, sizes, sum(sizes[number][at:split]), chance)
            else:
                second = " ".join(sentences[split:end])
            yield Pair(first, second, RANDOM if drawn else FOLLOWS)
            at = split if drawn and len(sentences) - split >= 2 else end  # what a random one stood for comes again

    def _fitting(self, sizes: list[int], at: int, used: int = 0, least: int = 2) -> int:
        """Return where the sentences from `at` end that fit into an input, `least` of them at least."""
        end = at
        while end < len(sizes) and (end - at < least or used + sizes[end] <= self.room):
            used += sizes[end]
            end += 1
        return end

    def _of_another(
        self, number: int, documents: list[list[str]], sizes: list[list[int]], used: int, chance: random.Random
    ) -> str:
        """Return sentences of another document, from one of them on, that fit beside `used` tokens."""
        other = (number + chance.randint(1, len(documents) - 1)) % len(documents)
        while not documents[other]:  # nothing but white space
            other = (other + 1) % len(documents)
        start = chance.randrange(len(documents[other]))
        return " ".join(documents[other][start : self._fitting(sizes[other], start, used, least=1)])

    def _encoded(self, pairs: list[Pair], number: int, row_id: str) -> Iterator[dict[str, Any]]:
        if not pairs:
            return
        firsts, seconds = [each.first for each in pairs], [each.second for each in pairs]
        whole = self.processor(firsts, seconds, **AS_TEXT)["input_ids"]
        cut_to = {"truncation": "longest_first", "max_length": self.block_size}
        told = self.processor(firsts, seconds, return_token_type_ids=True, **cut_to, **AS_TEXT)
        special = set(self.processor.all_special_ids)
        for place, pair in enumerate(pairs):
            cut = len(whole[place]) > self.block_size
            if cut and self.on_long == "error":
                raise UserError(
                    f"{row_id}: a pair of sentences has {len(whole[place])} tokens, and task.block_size is "
                    f"{self.block_size}. Raise it, or set data.on_long to truncate or drop."
                )
            ids = told["input_ids"][place]
            words = told.word_ids(place) if self.whole_word else range(len(ids))
            owners = zip(ids, told.sequence_ids(place), words, strict=True)
            units = [
                FREE if one in special or side is None or word is None else 2 * word + side
                for one, side, word in owners
            ]
            if (cut and self.on_long == "drop") or set(units) == {FREE}:
                continue
            yield {
                "input_ids": ids, "units": renumbered(units), "token_type_ids": told["token_type_ids"][place],
                "next": pair.target, "row": number, "row_id": row_id, "length": len(ids), "cut": cut,
            }  # fmt: skip
