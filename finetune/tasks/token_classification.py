"""Token classification: a tag for every word. Names in a text, slots of a command, parts of speech."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from finetune.errors import UserError
from finetune.objectives.consistency import apart
from finetune.task import Columns, Encoded, Scores, Usage
from finetune.tasks import labels as label_rules
from finetune.tasks import tag_schemes, tagged_words
from finetune.tasks.tag_schemes import Scheme
from finetune.tasks.teachers import Taught

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.loading import ModelOptions
    from finetune.task import Answers, Batch


@dataclass(frozen=True)
class TokenClassification(Taught):
    """A tag for every word; tags in IOB1, IOB2, IOBES or BILOU name spans, others are labels of words.

    A word has the tag of its first sub-word. Spans are learned and scored as IOB2.
    """

    words: str = "tokens"  # the column of the words, a list; of a CoNLL file its first
    tags: str = "ner_tags"  # the column of the tags, a list as long; of a CoNLL file its last
    text: str | None = None  # the column of the text that the words come from: offsets are then its own
    max_length: int = 128  # tokens, special ones included
    scheme: Scheme | None = None  # read off the training rows when left out; spans in another one are then an error
    labels: tuple[str, ...] | None = None  # in the order of their ids, where tags are numbers; else read off the rows
    label_subwords: Literal["first", "all"] = "first"  # which sub-words of a word are learned from
    class_weights: Literal["auto"] | dict[str, float] | None = None  # auto: n / (labels x count of the label)

    kind: ClassVar[str] = "token-classification"
    problem: ClassVar[str] = "tags"

    @property
    def best_score(self) -> str:  # type: ignore[override]
        """The validation score that picks the checkpoint."""
        return "span_f1" if self._spans else "macro_f1"

    @property
    def _spans(self) -> bool:
        return self.scheme != "plain" and any(label.startswith("B-") for label in self.labels or ())

    def columns(self) -> Columns:
        texts = (self.words,) if self.text is None else (self.words, self.text)
        return Columns(texts=texts, label=self.tags, words=self.words)

    def resolve(self, splits: dict[str, Dataset]) -> TokenClassification:
        if self.max_length < 3:
            raise UserError(f"task.max_length: {self.max_length} leaves no room for text; give at least 3 tokens.")
        train = splits.get("train")
        if train is None:
            if self.labels is None:
                raise UserError("task.labels must be given where data.train is streamed or missing.")
            return self
        for name, rows in splits.items():
            tagged_words.check_columns(rows, self.words, self.tags, name)
        tags = {name: list(tagged_words.all_tags(rows, self.tags, self.labels)) for name, rows in splits.items()}
        counts = tagged_words.counted(tags["train"])
        spans = tag_schemes.names_spans(counts, self.scheme, "data.train")
        if spans:
            labels, counts = self._span_labels(tags)
        else:
            labels = self.labels or tuple(sorted(counts))
            label_rules.check_variety(counts, labels, "single", self.tags)
        task = replace(self, labels=labels, scheme=self.scheme if spans else "plain")
        for name, rows in tags.items():
            for row_id, each in rows:
                tagged_words.to_learn(row_id, each, labels, self.scheme, spans, self.tags)
            if spans and name == "validation" and not any(tag != "O" for _, each in rows for tag in each):
                raise UserError("data.validation: no row has a span, so no checkpoint can be found the best one.")
        return replace(task, class_weights=self._weights(counts, labels))

    def _span_labels(self, tags: dict[str, list[tuple[str, list[str]]]]) -> tuple[tuple[str, ...], Any]:
        """Return the labels of words in IOB2, and how often each occurs in train."""
        tagged_words.check_prefixes(tags["train"], self.scheme)
        made = [(row_id, tag_schemes.iob2(each, self.scheme)) for row_id, each in tags["train"]]
        counts = tagged_words.counted(made)
        kinds = tag_schemes.kinds_of(counts)
        if not kinds:
            raise UserError(f"data.train: every tag in {self.tags!r} is O; there is nothing to learn.")
        whole = tag_schemes.labels_of(kinds)
        if self.labels is None:
            return whole, counts
        unknown = [name for name in self.labels if name not in whole]
        foreign = [name for name in unknown if name[:1] in tag_schemes.ENDINGS and name[1:2] == "-"]
        if foreign:
            raise UserError(
                f"task.labels: {foreign[0]} is no label of IOB2, in which spans are learned; "
                "leave task.labels out, and name tags in the rows instead of numbering them."
            )
        if unknown:
            label_rules.check_variety(counts, unknown, "multi", self.tags)
        return (*self.labels, *(name for name in whole if name not in self.labels)), counts

    def _weights(self, counts: Any, labels: tuple[str, ...]) -> dict[str, float] | None:
        if self.class_weights is None:
            return None
        if self.class_weights == "auto":  # a label that no training word has, such as the I- of short names, weighs 1
            made = label_rules.class_weights("auto", counts, [name for name in labels if counts[name]])
            return {name: made.get(name, 1.0) for name in labels}
        return label_rules.class_weights(self.class_weights, counts, labels)

    def described(self) -> str:
        names = tag_schemes.kinds_of(self.labels or ()) if self._spans else self.labels or ()
        shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        if self._spans:
            return f"task: {self.tags!r} names spans of {len(names)} kinds: {shown}"
        hint = "; if O means none, task.scheme: IO makes spans of them" if "O" in names else ""
        return f"task: {self.tags!r} has one of {len(names)} labels a word: {shown}{hint}"

    def usage(self, family: str | None = None) -> Usage:
        return Usage(
            does="Marks names and other spans in a text." if self._spans else "Gives every word a label.",
            auto_class="AutoModelForTokenClassification",
            processor="tokenizer",
            pipeline="token-classification",
            code=CODE.format(max_length=self.max_length),
        )

    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> PreTrainedTokenizerBase:
        from finetune.loading import load_tokenizer, train_tokenizer

        if model.path is None and model.tokenizer is None:
            joined = (each if isinstance(each, str) else " ".join(each) for each in texts())
            return train_tokenizer(joined, vocab_size=int((model.config or {}).get("vocab_size", 8000)))
        return load_tokenizer(model)

    def encode(self, rows: Dataset, processor: PreTrainedTokenizerBase, on_long: str) -> Encoded:
        from finetune.tasks.tagged_inputs import Layout, encode_words

        assert self.labels is not None
        known = rows.column_names
        tags = self.tags if known is None or self.tags in known else None
        every = self.label_subwords == "all"
        layout = Layout(
            self.words, self.text, tags, self.labels, self.scheme, self._spans, self.max_length, every_part=every
        )
        return encode_words(rows, processor, layout, on_long)

    def shown_target(self, example: dict[str, Any], processor: PreTrainedTokenizerBase) -> str:
        pieces = processor.convert_ids_to_tokens(example["input_ids"])
        pairs = zip(pieces, example["labels"], strict=True)
        return " ".join(f"{piece}={(self.labels or ())[label]}" for piece, label in pairs if label >= 0)

    def collator(self, processor: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], Batch]:
        from finetune.tasks.tagged_inputs import IGNORED
        from finetune.tasks.windows import padded_batch

        return partial(padded_batch, pad_id=processor.pad_token_id, more={"labels": IGNORED})

    def load_model(self, model: ModelOptions, processor: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, list[str]]:
        from transformers import AutoModelForTokenClassification

        from finetune.loading import load_config, load_pretrained, set_padding

        names = self.labels or ()
        head = label_rules.head_options(names, "single")
        del head["problem_type"]  # of heads that answer once a text
        config = load_config(model, **head, **({} if model.path else {"vocab_size": len(processor)}))
        label_rules.check_order(load_config(model), names, model.path)
        network, new = load_pretrained(model, AutoModelForTokenClassification, config)
        set_padding(network, processor)
        return network, new

    def weight(self, batch: Batch) -> Tensor:
        labels = batch["labels"]
        real = labels[labels >= 0]
        weights = self.label_weights(labels)
        return (labels >= 0).sum() if weights is None else weights[real].sum()

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Any]:
        outputs = model(**_read(batch))
        weights = self.label_weights(batch["labels"])
        return _token_losses(outputs.logits, batch["labels"], weights).sum(), outputs

    def divergence(self, one: Any, other: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
        labels = batch["labels"]
        return apart(one.logits, other.logits, labels, temperature=temperature, weights=self.label_weights(labels))

    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        logits = model(**_read(batch)).logits.float()
        return (logits * batch["attention_mask"][:, :, None]).flatten(1)

    def answer(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        logits = model(**_read(batch)).logits.float()
        sure, tag = logits.softmax(dim=2).max(dim=2)
        kept = {"tag": tag, "sure": sure}
        if "labels" in batch:
            kept["nll"] = _token_losses(logits, batch["labels"], None).double().sum(dim=1)
            kept["targets"] = (batch["labels"] >= 0).sum(dim=1)
        return kept

    def score(self, answers: Answers, inputs: Dataset, resamples: int = 0) -> Scores:
        import numpy as np

        from finetune.evaluation.tagging import tagging_scores
        from finetune.tasks.tagged_answers import by_row, true_tags

        said, _ = by_row(answers, inputs, self.labels or ())
        owner = np.unique(np.asarray(inputs["row"][:]), return_inverse=True)[1]
        costs = np.bincount(owner, answers["nll"]), np.bincount(owner, answers["targets"])
        meant = true_tags(inputs, self.labels or ())
        return tagging_scores(said, meant, self._scored, self._spans, resamples, costs)

    @property
    def _scored(self) -> tuple[str, ...]:
        """What has scores of its own: kinds of spans, or labels."""
        return tag_schemes.kinds_of(self.labels or ()) if self._spans else self.labels or ()

    def predictions(self, answers: Answers, inputs: Dataset, rows: Dataset) -> Dataset:
        from finetune.tasks.tagged_answers import prediction_table

        return prediction_table(answers, inputs, rows, self.words, self.text, self.labels or (), self._spans)

    def baselines(
        self,
        rows: dict[str, Dataset],
        inputs: dict[str, Dataset],
        answers: Answers,
        processor: PreTrainedTokenizerBase,
        resamples: int,
    ) -> dict[str, Scores]:
        from finetune.evaluation.tagging import lookup_baseline
        from finetune.tasks.tagged_answers import by_row, numbers_of, true_tags

        labels = self.labels or ()
        known = {
            name: (rows[name].select(numbers_of(inputs[name]))[self.words][:], true_tags(inputs[name], labels))
            for name in ("train", "test")
        }
        said, _ = by_row(answers, inputs["test"], labels)
        return {"lookup": lookup_baseline(known["train"], known["test"], said, self._scored, self._spans, resamples)}


CODE = """text = "Put your text here."
inputs = tokenizer(
    text, truncation=True, max_length={max_length}, return_offsets_mapping=True, return_tensors="pt"
)
places = inputs.pop("offset_mapping")[0].tolist()
with torch.no_grad():
    tags = model(**inputs).logits[0].argmax(dim=-1).tolist()
for (start, end), tag in zip(places, tags):
    opens = text[start:end].startswith(" ") or not text[max(start - 1, 0) : start].strip()
    if text[start:end].strip() and opens:  # a word has the tag of its first token
        print(text[start:].split()[0], model.config.id2label[tag])"""


def _read(batch: Batch) -> Batch:
    """Return what of a batch the model reads."""
    return {name: value for name, value in batch.items() if name != "labels"}


def _token_losses(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return the weighted cross entropy of every token in nats, 0 where it has no label; shape (batch, length)."""
    from torch.nn import functional as F

    flat = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), weights, reduction="none", ignore_index=-100)
    return flat.view_as(labels)
