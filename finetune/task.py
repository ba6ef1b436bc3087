"""What a task is: the contract between data, model, trainer and scores.

The words are the same everywhere: *rows* (raw data), *inputs* (encoded), *answers* (what the model says),
*targets* (what they are held against), *scores* (numbers).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:  # torch, transformers and datasets are heavy: a recipe is read and refused without them
    from collections.abc import Callable

    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.loading import ModelOptions

    Batch = dict[str, Any]
    Answers = dict[str, np.ndarray]


@dataclass(frozen=True)
class Score:
    """One number with its 95 % bootstrap interval (None where it was not asked for) and its sample size."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0


Scores = dict[str, Score]


@dataclass(frozen=True)
class Columns:
    """The columns of the rows that a task reads."""

    texts: tuple[str, ...]  # hold text that must not be empty; compared for duplicates and leaks
    label: str | None = None


@dataclass(frozen=True)
class Encoded:
    """Inputs, and what was done to lengths on the way.

    Every input carries `row` (int, the number of its row in the split) and `row_id` (str, "file:line"); the other
    columns belong to the task. `length` (int, tokens) is always there: batches are sorted and counted by it.
    """

    inputs: Dataset
    facts: dict[str, Any]  # rows, inputs, tokens, cut (rows shortened), dropped, windows, quantiles of length


@dataclass(frozen=True)
class Task(ABC):
    """One kind of job. Concrete tasks are final; their fields are the options of the recipe's `task` section.

    The methods stand in the order in which data meets them.
    """

    kind: ClassVar[str]
    targets: ClassVar[str] = "labels"  # the key of a batch that answers are held against
    best_score: ClassVar[str]  # the score of the validation split that picks the best checkpoint
    best_is_greatest: ClassVar[bool] = True

    @abstractmethod
    def columns(self) -> Columns:
        """Say which columns of the rows this task reads."""

    def resolve(self, splits: dict[str, Dataset]) -> Task:
        """Return this task with every option that the data decides filled in (labels, problem type, weights).

        The result goes into the run's recipe, so that `evaluate` and `predict` need no training data. Raises
        UserError for rows that contradict the options; prints what was inferred.
        """
        return self

    def described(self) -> str:
        """Return one line that says what was inferred, or "" when nothing was."""
        return ""

    @abstractmethod
    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> PreTrainedTokenizerBase:
        """Return the tokenizer of the model's source, or one trained on `texts()` when there is none."""

    @abstractmethod
    def encode(self, rows: Dataset, processor: PreTrainedTokenizerBase, on_long: str) -> Encoded:
        """Turn rows into inputs. Rows without targets (at prediction) give inputs without targets."""

    @abstractmethod
    def shown_target(self, example: dict[str, Any], processor: PreTrainedTokenizerBase) -> str:
        """Return what is learned from one input, for people."""

    @abstractmethod
    def collator(self, processor: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], Batch]:
        """Return the function that makes a batch of inputs; it passes `index`, `row` and `row_id` through."""

    @abstractmethod
    def load_model(self, model: ModelOptions, processor: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, list[str]]:
        """Return the model in `model.dtype`, padding id and label names set, and the names of its new parameters."""

    def probe(self, model: PreTrainedModel, processor: PreTrainedTokenizerBase) -> None:
        """Raise UserError when this model cannot do what the options ask, seen by trying it on a few tokens."""

    @abstractmethod
    def weight(self, batch: Batch) -> Tensor:
        """Return the scalar that the loss of this batch is divided by in the end: targets, or their class weights."""

    @abstractmethod
    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Any]:
        """Return (loss summed over the batch's targets, the model's outputs).

        The trainer divides the sum once by the optimiser step's global `weight`, so that accumulation, processes,
        class weights and packing share one rule.
        """

    @abstractmethod
    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return one row of fp32 logits an input: what a reloaded run is compared on. Shape (batch, n)."""

    @abstractmethod
    def answer(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        """Return what is kept of the model's answers: small tensors, first dimension the batch, finite padding."""

    @abstractmethod
    def score(self, answers: Answers, inputs: Dataset, resamples: int = 0) -> Scores:
        """Hold answers, in the order of `inputs`, against the targets; intervals from `resamples` bootstraps."""

    @abstractmethod
    def predictions(self, answers: Answers, inputs: Dataset, rows: Dataset) -> Dataset:
        """Return one row a row: what was asked, what the model says, how sure it is, and the target if known."""

    def baselines(
        self,
        rows: dict[str, Dataset],
        inputs: dict[str, Dataset],
        answers: Answers,
        processor: PreTrainedTokenizerBase,
        resamples: int,
    ) -> dict[str, Scores]:
        """Return {name: scores} of simple rivals on the test split, whose `answers` are given for paired gaps."""
        return {}

    def sample(self, model: PreTrainedModel, processor: PreTrainedTokenizerBase) -> list[str]:
        """Return a few generations for the report; [] for tasks that generate nothing."""
        return []
