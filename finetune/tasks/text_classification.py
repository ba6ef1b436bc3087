"""Text classification and regression: one text or a pair; one label, several, or a number."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from finetune.errors import UserError
from finetune.objectives.consistency import apart
from finetune.task import Columns, Encoded, Scores, Usage
from finetune.tasks import labels as label_rules
from finetune.tasks.lengths import encode_texts
from finetune.tasks.teachers import Taught

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.loading import ModelOptions
    from finetune.task import Answers, Batch


@dataclass(frozen=True)
class TextClassification(Taught):
    """A label, several labels or a number for a text, or for a pair of texts."""

    text: str = "text"  # the column of the text
    pair: str | None = None  # the second text's column, for tasks on pairs
    label: str = "label"  # the column of the label: a name, a list of names, or a number
    label_separator: str | None = None  # splits "a|b" into two labels, for multi-label files without lists
    max_length: int = 128  # tokens, special ones included
    problem: Literal["single", "multi", "regression"] | None = None  # read off the labels when left out
    labels: tuple[str, ...] | None = None  # names in the order of their ids; read off the training rows when left out
    class_weights: Literal["auto"] | dict[str, float] | None = None  # auto: n / (classes x count of the class)
    label_smoothing: float = 0.0  # share of a target that goes to all labels alike (Szegedy et al. 2016)

    kind: ClassVar[str] = "text-classification"

    def __post_init__(self) -> None:
        if self.label_separator == "":
            raise UserError('task.label_separator is empty; a sign that YAML reads as its own needs quotes: "|"')

    @property
    def best_score(self) -> str:  # type: ignore[override]
        """The validation score that picks the checkpoint: it must not reward ignoring a rare class."""
        return {"regression": "mse", "multi": "micro_f1"}.get(self.problem or "single", "macro_f1")

    @property
    def best_is_greatest(self) -> bool:  # type: ignore[override]
        return self.problem != "regression"

    def columns(self) -> Columns:
        return Columns(texts=(self.text,) if self.pair is None else (self.text, self.pair), label=self.label)

    def resolve(self, splits: dict[str, Dataset]) -> TextClassification:
        label_rules.check_smoothing(self.label_smoothing, self.problem)
        if self.max_length < 3:
            raise UserError(f"task.max_length: {self.max_length} leaves no room for text; give at least 3 tokens.")
        train = splits.get("train")
        if train is None:
            if self.problem is None or (self.labels is None and self.problem != "regression"):
                raise UserError("task.labels and task.problem must be given where data.train is streamed or missing.")
            return self
        problem = self.problem or label_rules.infer_problem(train, self.label, self.label_separator)
        label_rules.check_smoothing(self.label_smoothing, problem)
        if problem == "regression":
            if self.class_weights is not None:
                raise UserError("task.class_weights has no meaning for task.problem regression. Leave it out.")
            task = replace(self, problem=problem, labels=())
            for name, rows in splits.items():
                label_rules.check_numbers(rows, self.label, name)
            return task
        task = replace(self, problem=problem)
        names = self.labels or label_rules.infer_names(train, self.label, problem, self.label_separator)
        counts = Counter[str]()
        for name, rows in splits.items():
            found = label_rules.check_names(rows, task.label, names, problem, self.label_separator, name)
            counts = found if name == "train" else counts
        label_rules.check_variety(counts, names, problem, self.label)
        return replace(task, labels=tuple(names), class_weights=self._weights(counts, names, problem))

    def _weights(self, counts: Counter[str], names: tuple[str, ...], problem: str) -> dict[str, float] | None:
        if self.class_weights is None:
            return None
        if problem == "multi":
            raise UserError("task.class_weights works with one label a row, and these rows hold several. Leave it out.")
        return label_rules.class_weights(self.class_weights, counts, names)

    def described(self) -> str:
        if self.problem == "regression":
            return f"task: {self.label!r} is a number, so this is regression."
        names = list(self.labels or ())
        shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        kind = {"multi": "any number of"}.get(self._problem, "one of")
        return f"task: {self.label!r} is {kind} {len(names)} labels: {shown}"

    def usage(self, family: str | None = None) -> Usage:
        return label_rules.usage(self.problem or "single", self.pair is not None, self.max_length)

    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> PreTrainedTokenizerBase:
        from finetune.loading import load_tokenizer, train_tokenizer

        if model.path is None and model.tokenizer is None:
            return train_tokenizer(texts(), vocab_size=int((model.config or {}).get("vocab_size", 8000)))
        return load_tokenizer(model)

    def encode(self, rows: Dataset, processor: PreTrainedTokenizerBase, on_long: str) -> Encoded:
        texts = [name for name in (self.text, self.pair) if name]
        return encode_texts(rows, processor, texts, self.max_length, on_long, targets=self._targets(rows))

    def _targets(self, rows: Dataset) -> Callable[[dict[str, list[Any]]], list[Any]] | None:
        """Return the function from a batch of rows to labels as the loss wants them, or None where there are none."""
        known = rows.column_names
        if known is not None and self.label not in known:
            return None
        assert self.labels is not None
        return partial(
            label_rules.targets_of,
            column=self.label,
            names=self.labels,
            problem=self._problem,
            separator=self.label_separator,
            class_names=label_rules.class_names(rows, self.label),
        )

    def shown_target(self, example: dict[str, Any], processor: PreTrainedTokenizerBase) -> str:
        import numpy as np

        return str(self._named(np.asarray([example["labels"]]))[0])

    def collator(self, processor: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], Batch]:
        return partial(_collate, pad_id=processor.pad_token_id, float_targets=self.problem != "single")

    def load_model(self, model: ModelOptions, processor: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, list[str]]:
        from transformers import AutoModelForSequenceClassification

        from finetune.loading import load_config, load_pretrained, set_padding

        names = self.labels or ("value",)
        config = load_config(
            model,
            **label_rules.head_options(names, self.problem or "regression"),
            **({} if model.path else {"vocab_size": len(processor)}),
        )
        label_rules.check_order(load_config(model), names, model.path)
        network, new = load_pretrained(model, AutoModelForSequenceClassification, config)
        set_padding(network, processor)
        return network, new

    def weight(self, batch: Batch) -> Tensor:
        import torch

        labels = batch["labels"]
        weights = self.label_weights(labels)
        return torch.tensor(float(len(labels)), device=labels.device) if weights is None else weights[labels].sum()

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Any]:
        labels = batch["labels"]
        outputs = model(**_read(batch))
        weights = self.label_weights(labels)
        logits = outputs.logits.float()
        return label_rules.summed_loss(logits, labels, self._problem, weights, self.label_smoothing), outputs

    def divergence(self, one: Any, other: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
        labels = batch["labels"]
        return apart(one.logits, other.logits, labels, self._problem, temperature, self.label_weights(labels))

    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        return model(**_read(batch)).logits.float()

    def answer(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.logits(model, batch)}

    def embed(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        from finetune.tasks.embeddings import seen_by_head

        embedding, logits = seen_by_head(model, lambda: self.logits(model, batch))
        return {"logits": logits, "embedding": embedding}

    def score(self, answers: Answers, inputs: Dataset, resamples: int = 0) -> Scores:
        from finetune.evaluation.classification import classification_scores

        logits, first = label_rules.by_row(answers["logits"], inputs)
        targets = self._target_array(inputs, first)
        return classification_scores(logits, targets, list(self.labels or ()), self._problem, resamples)

    @property
    def _problem(self) -> Literal["single", "multi", "regression"]:
        assert self.problem is not None
        return self.problem

    def _target_array(self, inputs: Dataset, first: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.asarray(inputs.with_format("numpy")["labels"][:])[first]

    def predictions(self, answers: Answers, inputs: Dataset, rows: Dataset) -> Dataset:
        logits, first = label_rules.by_row(answers["logits"], inputs)
        numbers = [int(number) for number in inputs.with_format("numpy")["row"][:][first]]
        kept = rows.select(numbers)  # rows that on_long dropped have no answer
        table: dict[str, list[Any]] = {"row_id": list(kept["row_id"]), "text": list(kept[self.text])}
        if self.pair:
            table["pair"] = list(kept[self.pair])
        if "labels" in inputs.column_names:
            table["target"] = self._named(self._target_array(inputs, first))
        return label_rules.prediction_table(table, logits, self.labels or (), self._problem)

    def _named(self, targets: np.ndarray) -> list[Any]:
        names = self.labels or ()
        if self.problem == "single":
            return [names[int(number)] for number in targets]
        if self.problem == "multi":
            return [[name for name, on in zip(names, row, strict=True) if on] for row in targets]
        return [float(number) for number in targets]

    def baselines(
        self,
        rows: dict[str, Dataset],
        inputs: dict[str, Dataset],
        answers: Answers,
        processor: PreTrainedTokenizerBase,
        resamples: int,
    ) -> dict[str, Scores]:
        from finetune.evaluation.baselines import text_baselines

        texts, targets = {}, {}
        for name, split in rows.items():
            numbers, first = _row_numbers(inputs[name])
            kept = split.select(numbers)
            texts[name] = [" ".join(parts) for parts in zip(*(kept[c] for c in self.columns().texts), strict=True)]
            targets[name] = self._target_array(inputs[name], first)
        logits, _ = label_rules.by_row(answers["logits"], inputs["test"])
        return text_baselines(texts, targets, list(self.labels or ()), self._problem, logits, resamples)


def _collate(inputs: list[dict[str, Any]], pad_id: int, float_targets: bool) -> Batch:
    import torch

    from finetune.training.batching import carried, padded

    ids = [each["input_ids"] for each in inputs]
    longest = max(map(len, ids))
    batch = carried(inputs)
    batch["input_ids"] = padded(ids, pad_id, longest)
    batch["attention_mask"] = padded([[1] * len(each) for each in ids], 0, longest)  # by length, never by the pad's id
    if "token_type_ids" in inputs[0]:
        batch["token_type_ids"] = padded([each["token_type_ids"] for each in inputs], 0, longest)
    if "labels" in inputs[0]:
        dtype = torch.float32 if float_targets else torch.long
        batch["labels"] = torch.tensor([each["labels"] for each in inputs], dtype=dtype)
    return batch


def _read(batch: Batch) -> Batch:
    """Return what of a batch the model reads."""
    return {name: value for name, value in batch.items() if name != "labels"}


def _row_numbers(inputs: Dataset) -> tuple[list[int], np.ndarray]:
    """Return the numbers of the rows that have inputs, and where each one's first input stands."""
    import numpy as np

    numbers, first = np.unique(np.asarray(inputs.with_format("numpy")["row"][:]), return_index=True)
    return [int(number) for number in numbers], first
