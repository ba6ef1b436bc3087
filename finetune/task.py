"""What a task is: the contract between data, model, trainer and scores.

The words are the same everywhere: *rows* (raw data), *inputs* (encoded), *answers* (what the model says),
*targets* (what they are held against), *scores* (numbers).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from finetune.errors import UserError
from finetune.found import Examination as Examination
from finetune.found import Picture as Picture
from finetune.found import Score as Score
from finetune.found import Scores as Scores

if TYPE_CHECKING:  # torch, transformers and datasets are heavy: a recipe is read and refused without them
    from collections.abc import Callable

    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

    from finetune.evaluation.options import EvaluateOptions
    from finetune.loading import ModelOptions
    from finetune.objectives.teaching import Teacher

    Processor = Any  # a tokenizer, or the image processor of images
    Batch = dict[str, Any]
    Answers = dict[str, np.ndarray]
    Generated = list[str] | np.ndarray


@dataclass(frozen=True)
class Parts:
    """Columns of a file of which one text of the rows is made, whichever of them it has."""

    text: str  # the column of the rows
    names: tuple[str, ...]  # in the file
    make: Callable[[dict[str, Any]], str]  # from a row's values; ValueError says in a sentence what is wrong with them
    said: Callable[[str], str] = str  # from such a text: what people wrote in it, without what holds it together


@dataclass(frozen=True)
class Columns:
    """The columns of the rows that a task reads."""

    texts: tuple[str, ...]  # hold text that must not be empty; compared for duplicates and leaks
    label: str | None = None
    target: str | None = None  # holds the text that is to be written: never empty, not looked for in other splits
    parts: Parts | None = None  # what the text is made of, where the file has no column of it
    label_is_asked: bool = False  # the model is told the label, at prediction too: the class of a conditional model
    image: str | None = (
        None  # holds an image; rows have it as bytes, size * size * channels of uint8 (see tasks/images)
    )
    words: str | None = None  # that one of the texts which holds a list of words
    passage: str | None = None  # that one of the texts in which the label, answers with their places, must be found


@dataclass(frozen=True)
class Encoded:
    """Inputs, and what was done to lengths on the way.

    Every input carries `row` (int, the number of its row in the split) and `row_id` (str, "file:line"); the other
    columns belong to the task. `length` (int, tokens) is always there: batches are sorted and counted by it.
    """

    inputs: Dataset
    facts: dict[str, Any]  # rows, inputs, tokens, cut (rows shortened), dropped, windows, quantiles of length


@dataclass(frozen=True)
class Usage:
    """How a trained model is used elsewhere: what its card says of it."""

    does: str  # a sentence
    auto_class: str = "AutoModel"  # of transformers
    processor: Literal["tokenizer", "processor", ""] = ""  # that the code needs: a tokenizer, an image processor, none
    pipeline: str | None = None  # the Hub's name for what it does
    code: str = ""  # Python that goes on from `model` and the processor


@dataclass(frozen=True)
class Task(ABC):
    """One kind of job. Concrete tasks are final; their fields are the options of the recipe's `task` section.

    The methods stand in the order in which data meets them.
    """

    kind: ClassVar[str]
    targets: ClassVar[str] = "labels"  # the key of a batch that answers are held against
    best_score: ClassVar[str]  # the score of the validation split that picks the best checkpoint
    best_is_greatest: ClassVar[bool] = True
    unit: ClassVar[str] = "tokens"  # what the `length` of an input counts: "images" for images, each of length 1
    # The loss draws random numbers or follows a schedule: batches for `loss` and `answer` then hold "keys" (int64,
    # shape (batch,), for finetune.models.noise) and "progress" (float32, shape (): share of the steps that is done).
    draws: ClassVar[bool] = False
    asks_untuned: ClassVar[bool] = False  # weights to start from are answered before they are trained: see `untuned`
    examined_by: ClassVar[str | None] = None  # the option that turns `examine` on, where it needs one
    settles: ClassVar[tuple[str, ...]] = ()  # options that `settled` fills in, which change no weight
    trainer: ClassVar[str] = "finetune.training.trainer:Trainer"  # the class that trains it

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

    def usage(self, family: str | None = None) -> Usage:
        """Say how a trained model is used elsewhere; `family`: its model_type, where a run has weights of its own."""
        return Usage(does=(type(self).__doc__ or self.kind).strip().splitlines()[0])

    @abstractmethod
    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> Processor:
        """Return the tokenizer of the model's source, or one trained on `texts()` when there is none."""

    @abstractmethod
    def encode(self, rows: Dataset, processor: Processor, on_long: str) -> Encoded:
        """Turn rows into inputs. Rows without targets (at prediction) give inputs without targets."""

    def encode_held(self, rows: Dataset, processor: Processor, on_long: str) -> Encoded:
        """Turn rows that are answered, and not trained on, into inputs: one a row for a task that writes."""
        return self.encode(rows, processor, on_long)

    def shown_input(self, example: dict[str, Any], processor: Processor) -> str:
        """Return the tokens of one input, for people; of tasks whose inputs have `input_ids`."""
        return " ".join(processor.convert_ids_to_tokens(example["input_ids"]))

    @abstractmethod
    def shown_target(self, example: dict[str, Any], processor: Processor) -> str:
        """Return what is learned from one input, for people."""

    @abstractmethod
    def collator(self, processor: Processor) -> Callable[[list[dict[str, Any]]], Batch]:
        """Return the function that makes a batch of inputs; it passes `index`, `row` and `row_id` through."""

    @abstractmethod
    def load_model(self, model: ModelOptions, processor: Processor) -> tuple[PreTrainedModel, list[str]]:
        """Return the model in `model.dtype`, padding id and label names set, and the names of its new parameters."""

    def probe(self, model: PreTrainedModel, processor: Processor) -> None:
        """Raise UserError when this model cannot do what the options ask, seen by trying it on a few tokens."""

    def check_teacher(self, processor: Processor, model: ModelOptions) -> None:
        """Raise UserError, before a weight is loaded, when the model to learn from cannot be asked these inputs."""

    def load_teacher(self, processor: Processor) -> Teacher | None:
        """Return the model to learn from beside the targets, or None where the options name none.

        `divergence` then says how far its answers lie from those of the model that learns.
        """
        return None

    @abstractmethod
    def weight(self, batch: Batch) -> Tensor:
        """Return the scalar that the loss of this batch is divided by in the end: targets, or their class weights."""

    @abstractmethod
    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Any]:
        """Return (loss summed over the batch's targets, the model's outputs).

        The trainer divides the sum once by the optimiser step's global `weight`, so that accumulation, processes,
        class weights and packing share one rule.
        """

    def divergence(self, one: Any, other: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
        """Return how far the answers of two outputs of `loss` lie apart: KL(one || other) at a temperature, times T².

        Summed over the batch's targets as `loss` is, with the weights that they have there; in nats.
        """
        raise UserError(f"task.kind: {self.kind} has no answers to hold against each other.")

    @abstractmethod
    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return one row of fp32 logits an input: what a reloaded run is compared on. Shape (batch, n)."""

    @abstractmethod
    def answer(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        """Return what is kept of the model's answers: small tensors, first dimension the batch, finite padding."""

    def write(self, model: PreTrainedModel, processor: Processor, batch: Batch) -> dict[str, Tensor]:
        """Return what the model writes for a batch, to be kept beside `answer`; {} for tasks that write nothing.

        Asked for the rows that a run is judged on and for those to be predicted, never on the way.
        """
        return {}

    def reply(
        self, model: PreTrainedModel, processor: Processor, rows: Dataset, options: dict[str, Any], size: int
    ) -> list[str]:
        """Return what the model writes for the text of each row, `size` at a time: it goes on with it, or answers it.

        `options` are some of GenerationConfig, over those that the task has for itself.
        """
        raise UserError(f"task.kind: {self.kind} writes nothing for a prompt.")

    def embed(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        """Return what `answer` returns and, as "embedding", what the last layer sees: float32, shape (batch, width)."""
        raise UserError(f"task.kind: {self.kind} classifies nothing, and has no embeddings.")

    def settled(self, answers: dict[str, Answers], inputs: dict[str, Dataset]) -> Task:
        """Return this task with what answers to validation decide filled in, after training; it is the run's then."""
        return self

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
        processor: Processor,
        resamples: int,
    ) -> dict[str, Scores]:
        """Return {name: scores} of simple rivals on the test split, whose `answers` are given for paired gaps."""
        return {}

    def untuned(self, before: Answers, answers: Answers, inputs: Dataset, resamples: int) -> Scores:
        """Return the scores of the model as it was loaded, and paired gaps of the trained one's `answers` to it."""
        return {}

    def sample(self, model: PreTrainedModel, processor: Processor) -> list[str] | Picture:
        """Return a few generations for the report, texts or a grid; [] for tasks that generate nothing.

        Called before and after training, and on the way for a grid: it draws from fixed noise.
        """
        return []

    def examine(
        self,
        model: PreTrainedModel,
        inputs: dict[str, Dataset],
        processor: Processor,
        options: EvaluateOptions,
    ) -> Examination:
        """Look at a trained model as a whole: distances, likelihoods, latent space, pictures. On process 0 alone.

        Args:
            model: in evaluation mode, on its device, without what training wrapped around it.
            inputs: the splits there are: all of a run, the one that is evaluated of `finetune evaluate`.
            processor: of the model.
            options: of the recipe's `evaluate` section.
        """
        return Examination()

    def generate(self, model: PreTrainedModel, processor: Processor, count: int, seed: int) -> Generated:
        """Return `count` generations: texts, or images as uint8 of shape (count, size, size, channels)."""
        hint = " without a prompt; see finetune generate" if type(self).reply is not Task.reply else ""
        raise UserError(f"task.kind: {self.kind} generates nothing{hint}.")

    def generates_images(self) -> bool:
        """Say whether what `generate` returns is images."""
        return self.columns().image is not None and type(self).generate is not Task.generate

    def generate_class(self, model: PreTrainedModel, name: str, count: int, seed: int) -> np.ndarray:
        """Return `count` generations of one class, by its name, as `generate` does; UserError for an unknown one."""
        raise UserError(f"--class: task.kind {self.kind} draws no classes.")

    def drawn_labels(self, count: int) -> list[str] | None:
        """Return the classes of what `generate` draws, one each; None for a task or a run that is told none."""
        return None

    def interpolate(self, model: PreTrainedModel, processor: Processor, lines: int, steps: int, seed: int) -> Generated:
        """Return `lines` walks of `steps` generations between two points of the latent space, one after the other."""
        raise UserError(f"task.kind: {self.kind} has no latent space to walk in.")

    def traverse(self, model: PreTrainedModel, processor: Processor, steps: int, seed: int) -> Generated:
        """Return a walk of `steps` generations along each of the first 10 latent dimensions, one after the other."""
        raise UserError(f"task.kind: {self.kind} has no latent space to walk in.")
