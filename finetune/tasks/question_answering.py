"""Extractive question answering: the answer to a question stands in a text, or, where rows say so, it does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.errors import UserError
from finetune.objectives.consistency import apart
from finetune.task import Columns, Encoded, Scores, Usage
from finetune.tasks.teachers import Taught

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.loading import ModelOptions
    from finetune.task import Answers, Batch


@dataclass(frozen=True)
class QuestionAnswering(Taught):
    """The answer to a question, as a part of a text.

    The score of a part is the logit of its first token as a beginning plus that of its last as an end. Where rows may
    have no answer, none is given when [CLS] twice scores better by more than `threshold` (SQuAD 2.0, Rajpurkar 2018).
    """

    question: str = "question"  # the column of the question
    context: str = "context"  # the column of the text that holds the answer
    answers: str = "answers"  # the column of the answers: {text: […], answer_start: […]}, in characters
    max_length: int = 384  # tokens, of question, context and special ones
    stride: int = 128  # tokens that two windows share (data.on_long: window)
    max_answer_length: int = 30  # tokens
    n_best: int = 5  # answers that predictions list
    can_be_none: bool | None = None  # the text may hold no answer; read off the training rows when left out
    threshold: float | None = None  # chosen on the validation rows when left out, 0 where there are none

    kind: ClassVar[str] = "question-answering"
    problem: ClassVar[str] = "answers"
    best_score: ClassVar[str] = "answer_f1"
    settles: ClassVar[tuple[str, ...]] = ("threshold",)

    def columns(self) -> Columns:
        return Columns(texts=(self.question, self.context), label=self.answers, passage=self.context)

    def resolve(self, splits: dict[str, Dataset]) -> QuestionAnswering:
        for name, least in (("max_length", 8), ("stride", 0), ("max_answer_length", 1), ("n_best", 1)):
            if getattr(self, name) < least:
                raise UserError(f"task.{name}: {getattr(self, name)} is too small; give at least {least}.")
        if self.stride >= self.max_length:
            raise UserError(f"task.stride: {self.stride} must be less than task.max_length {self.max_length}.")
        train = splits.get("train")
        if train is None:
            if self.can_be_none is None:
                raise UserError("task.can_be_none must be given where data.train is streamed or missing.")
            return self
        for name, rows in splits.items():
            if self.answers not in rows.column_names:
                raise UserError(f"data.{name}: the column {self.answers!r} (task.answers) is missing.")
        missing = {name: _without_answer(rows, self.answers) for name, rows in splits.items()}
        if not any(each["text"] for each in train[self.answers]):
            raise UserError(f"data.train: no row has an answer in {self.answers!r}; there is nothing to learn.")
        can_be_none = self.can_be_none if self.can_be_none is not None else missing["train"] is not None
        for name, row_id in missing.items():
            if row_id is not None and not can_be_none:
                why = "task.can_be_none is false" if self.can_be_none is False else "every training row has one"
                raise UserError(
                    f"{row_id}: the question has no answer in {self.answers!r}, and {why}; "
                    + ("remove it." if name == "train" else "remove it, or set task.can_be_none to true.")
                )
        if self.threshold is not None and not can_be_none:
            raise UserError("task.threshold says when there is no answer, and every row has one. Leave it out.")
        return replace(self, can_be_none=can_be_none)

    def described(self) -> str:
        return "task: some questions have no answer" if self.can_be_none else "task: every question has an answer"

    def settled(self, answers: dict[str, Answers], inputs: dict[str, Dataset]) -> QuestionAnswering:
        from finetune.evaluation.answering import best_threshold
        from finetune.tasks.question_answers import by_row

        if not self.can_be_none or self.threshold is not None:
            return self
        if "validation" not in answers:
            return replace(self, threshold=0.0)
        found = by_row(answers["validation"], inputs["validation"], self.n_best)
        chosen = best_threshold(found.best, found.gaps, found.meant)
        print(f"task.threshold: {chosen:.4g}, beyond which no answer has the greatest F1 on validation.", flush=True)
        return replace(self, threshold=chosen)

    def usage(self, family: str | None = None) -> Usage:
        from finetune.tasks.question_parts import CODE, NONE, SOME

        or_none = ", or says that it has none" if self.can_be_none else ""
        return Usage(
            does=f"Finds the answer to a question in a text{or_none}.",
            auto_class="AutoModelForQuestionAnswering",
            processor="tokenizer",
            pipeline="question-answering",
            code=CODE.format(max_length=self.max_length, most=self.max_answer_length)
            + (NONE.format(threshold=self.threshold or 0.0) if self.can_be_none else SOME),
        )

    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> PreTrainedTokenizerBase:
        from finetune.loading import load_tokenizer, train_tokenizer

        if model.path is None and model.tokenizer is None:
            return train_tokenizer(texts(), vocab_size=int((model.config or {}).get("vocab_size", 8000)))
        return load_tokenizer(model)

    def encode(self, rows: Dataset, processor: PreTrainedTokenizerBase, on_long: str) -> Encoded:
        from finetune.tasks.question_inputs import Layout, encode_questions

        known = rows.column_names
        answers = self.answers if known is None or self.answers in known else None
        layout = Layout(
            self.question, self.context, answers, self.max_length, self.stride, self.max_answer_length,
            bool(self.can_be_none),
        )  # fmt: skip
        return encode_questions(rows, processor, layout, on_long)

    def shown_target(self, example: dict[str, Any], processor: PreTrainedTokenizerBase) -> str:
        first, last = example["labels"]
        if first < example["begins"]:
            return "no answer here"
        return str(processor.decode(example["input_ids"][first : last + 1]))

    def collator(self, processor: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], Batch]:
        from finetune.tasks.question_parts import collate

        return partial(collate, pad_id=processor.pad_token_id)

    def load_model(self, model: ModelOptions, processor: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, list[str]]:
        from transformers import AutoModelForQuestionAnswering

        from finetune.loading import load_config, load_pretrained, set_padding

        config = load_config(model, num_labels=2, **({} if model.path else {"vocab_size": len(processor)}))
        network, new = load_pretrained(model, AutoModelForQuestionAnswering, config)
        set_padding(network, processor)
        return network, new

    def probe(self, model: PreTrainedModel, processor: PreTrainedTokenizerBase) -> None:
        """Raise UserError where rows may have no answer and the first place, which says so, sees no text."""
        import torch

        if not self.can_be_none:
            return
        vocabulary = model.config.get_text_config().vocab_size
        ids = torch.tensor([[1, 2, 3, 4], [1, 2, 4, 3]], device=model.device) % vocabulary
        was_training = model.training
        model.eval()
        with torch.no_grad():
            first = model(input_ids=ids, attention_mask=torch.ones_like(ids)).start_logits[:, 0]
        model.train(was_training)
        if bool(first[0] == first[1]):
            raise UserError(
                f"model.path: a {model.config.model_type} reads from left to right, and its first token, which stands "
                "for no answer, sees nothing of the text; take a BERT-like model, or rows that all have an answer."
            )

    def weight(self, batch: Batch) -> Tensor:
        return (batch["labels"] >= 0).sum()  # two an input, the beginning and the end

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Any]:
        from finetune.tasks.question_parts import part_losses

        outputs = model(**_read(batch))
        return part_losses(outputs, batch).sum(), outputs

    def divergence(self, one: Any, other: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
        from finetune.tasks.question_parts import of_places

        return apart(of_places(one, batch), of_places(other, batch), batch["labels"], temperature=temperature)

    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        import torch

        outputs = model(**_read(batch))
        both = torch.stack([outputs.start_logits, outputs.end_logits], dim=1).float()
        return (both * batch["attention_mask"][:, None]).flatten(1)

    def answer(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        from finetune.tasks.question_parts import best_parts, part_losses

        outputs = model(**_read(batch))
        kept = best_parts(
            outputs.start_logits.float(), outputs.end_logits.float(), batch["context_mask"], self.max_answer_length,
            max(20, self.n_best),
        )  # fmt: skip
        if "labels" in batch:
            kept["nll"] = part_losses(outputs, batch).double()
        return kept

    def score(self, answers: Answers, inputs: Dataset, resamples: int = 0) -> Scores:
        from finetune.evaluation.answering import answering_scores
        from finetune.tasks.question_answers import by_row, nll_of

        found = by_row(answers, inputs, self.n_best)
        return answering_scores(self._said(found), found.meant, resamples, nll_of(answers, inputs))

    def _said(self, found: Any) -> list[str]:
        """Return the answer of each row; before a threshold is chosen, with the one that is best on these rows."""
        from finetune.evaluation.answering import best_threshold

        if not self.can_be_none:
            return list(found.best)
        chosen = self.threshold
        if chosen is None:
            chosen = best_threshold(found.best, found.gaps, found.meant) if found.meant else 0.0
        return ["" if gap > chosen else text for text, gap in zip(found.best, found.gaps, strict=True)]

    def predictions(self, answers: Answers, inputs: Dataset, rows: Dataset) -> Dataset:
        from finetune.tasks.question_answers import by_row, prediction_table

        found = by_row(answers, inputs, self.n_best)
        table = prediction_table(found, rows, self.question, self.context, "answers" in inputs.column_names)
        return table(self._said(found), bool(self.can_be_none))

    def baselines(
        self,
        rows: dict[str, Dataset],
        inputs: dict[str, Dataset],
        answers: Answers,
        processor: PreTrainedTokenizerBase,
        resamples: int,
    ) -> dict[str, Scores]:
        from finetune.evaluation.answering import overlap_answer, rival_scores
        from finetune.tasks.question_answers import by_row

        found = by_row(answers, inputs["test"], self.n_best)
        kept = rows["test"].select(found.rows)
        pairs = zip(kept[self.question], kept[self.context], strict=True)
        rivals = {"overlap": [overlap_answer(*pair) for pair in pairs]}
        if self.can_be_none:
            rivals["never"] = [""] * len(found.rows)
        return rival_scores(rivals, self._said(found), found.meant, resamples)  # type: ignore[arg-type]


def _without_answer(rows: Dataset, column: str) -> str | None:
    """Return the id of the first row without an answer."""
    pairs = zip(rows["row_id"], rows[column], strict=True)
    return next((row_id for row_id, each in pairs if not each["text"]), None)


def _read(batch: Batch) -> Batch:
    """Return what of a batch the model reads."""
    return {name: value for name, value in batch.items() if name not in ("labels", "context_mask")}
