"""Image classification: one label for an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from finetune.errors import UserError
from finetune.objectives.consistency import apart
from finetune.task import Columns, Encoded, Examination, Picture, Scores, Usage
from finetune.tasks import labels as label_rules
from finetune.tasks.images import Collate, array_of, encode_images, flipped, normalisation, resolve_shape
from finetune.tasks.teachers import Taught

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

    from finetune.evaluation.options import EvaluateOptions
    from finetune.loading import ModelOptions
    from finetune.task import Answers, Batch, Processor

MEAN, STD = 0.5, 0.5  # of a model from scratch: it sees pixels from -1 to 1
SHOWN = 32  # mistakes in the picture
SIDE = 56  # pixels, at least, of an image in it


@dataclass(frozen=True)
class ImageClassification(Taught):
    """A label for an image, by any image classifier of transformers or by a small one from scratch."""

    image: str = "image"  # the column of the image
    label: str = "label"  # the column of the label: a name or a number
    labels: tuple[str, ...] | None = None  # names in the order of their ids; read off the training rows when left out
    class_weights: Literal["auto"] | dict[str, float] | None = None  # auto: n / (classes x count of the class)
    label_smoothing: float = 0.0  # share of a target that goes to all labels alike (Szegedy et al. 2016)
    flip: bool = False  # mirror half of the training images, left to right: not for digits and letters
    image_size: int | None = None  # pixels a side; read off the rows, whose size `data.image` decides
    num_channels: int | None = None  # 1 grey, 3 colour; read off the rows

    kind: ClassVar[str] = "image-classification"
    best_score: ClassVar[str] = "macro_f1"
    unit: ClassVar[str] = "images"
    draws: ClassVar[bool] = True  # which images are mirrored

    def columns(self) -> Columns:
        return Columns(texts=(), label=self.label, image=self.image)

    def resolve(self, splits: dict[str, Dataset]) -> ImageClassification:
        size, channels = resolve_shape(splits, self.image)
        for name, own in (("image_size", size), ("num_channels", channels)):
            if getattr(self, name) not in (None, own):
                given = getattr(self, name)
                raise UserError(f"task.{name} is {given}, and the images have {own}; say data.image, or leave it out.")
        task = replace(self, image_size=size, num_channels=channels)
        train = splits.get("train")
        if train is None:
            if self.labels is None:
                raise UserError("task.labels must be given where data.train is missing.")
            return task
        if label_rules.infer_problem(train, self.label, None) != "single":
            raise UserError(f"task.label: {self.label!r} holds lists or fractions, and an image gets one label.")
        names = self.labels or label_rules.infer_names(train, self.label, "single", None)
        found = {
            name: label_rules.check_names(rows, self.label, names, "single", None, name)
            for name, rows in splits.items()
        }
        label_rules.check_smoothing(self.label_smoothing, "single")
        label_rules.check_variety(found["train"], names, "single", self.label)
        weights = self.class_weights
        if weights is not None:
            weights = label_rules.class_weights(weights, found["train"], names)
        return replace(task, labels=tuple(names), class_weights=weights)

    def described(self) -> str:
        names = list(self.labels or ())
        shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        return f"task: {self.label!r} is one of {len(names)} labels: {shown}; images are {self._shape()}"

    def _shape(self) -> str:
        return f"{self.image_size} x {self.image_size} pixels, {'grey' if self.num_channels == 1 else 'colour'}"

    def usage(self, family: str | None = None) -> Usage:
        mode, side = "L" if self.num_channels == 1 else "RGB", self.image_size
        return Usage(
            does="Gives an image one of its labels.",
            auto_class="AutoModelForImageClassification",
            processor="processor",
            pipeline="image-classification",
            code=f'from PIL import Image\n\nimage = Image.new("{mode}", ({side}, {side}))  # put yours here\n'
            'inputs = processor(image, return_tensors="pt")\nwith torch.no_grad():\n'
            "    logits = model(**inputs).logits[0]\nprint(model.config.id2label[int(logits.argmax())])",
        )

    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> Processor:
        from finetune.loading import load_image_processor

        return load_image_processor(model, self.image_size or 0, self.num_channels or 1, MEAN, STD)

    def encode(self, rows: Dataset, processor: Processor, on_long: str) -> Encoded:
        return encode_images(rows, self.image, self.label, self.labels or (), self.targets)

    def shown_target(self, example: dict[str, Any], processor: Processor) -> str:
        return f"{(self.labels or ())[example[self.targets]]} ({self._shape()})"

    def collator(self, processor: Processor) -> Callable[[list[dict[str, Any]]], Batch]:
        return Collate(*normalisation(processor), column=self.targets)

    def load_model(self, model: ModelOptions, processor: Processor) -> tuple[PreTrainedModel, list[str]]:
        from transformers import AutoModelForImageClassification

        from finetune.loading import load_config, load_pretrained

        names, own = self.labels or (), model.config or {}
        shape = {"image_size": self.image_size, "num_channels": self.num_channels} if model.path is None else {}
        for name, value in shape.items():
            if own.get(name, value) != value:
                raise UserError(f"model.config.{name} is {own[name]}, and the images have {value}; say data.image.")
        config = load_config(model, **label_rules.head_options(names, "single"), **shape)
        label_rules.check_order(load_config(model), names, model.path)
        return load_pretrained(model, AutoModelForImageClassification, config)

    def probe(self, model: PreTrainedModel, processor: Processor) -> None:
        import torch

        blank = torch.zeros(1, self.num_channels or 1, self.image_size or 0, self.image_size or 0, device=model.device)
        was_training = model.training
        try:
            with torch.no_grad():
                model.eval()(pixel_values=blank.to(model.dtype))
        except (ValueError, RuntimeError) as error:
            said = str(error).split("\n")[0].rstrip(".")
            size, channels = (getattr(model.config, name, "?") for name in ("image_size", "num_channels"))
            raise UserError(
                f"data.image: the model takes no images of {self._shape()} ({said}); "
                f"say data.image: {{size: {size}, channels: {channels}}}."
            ) from None
        finally:
            model.train(was_training)

    def weight(self, batch: Batch) -> Tensor:
        import torch

        labels = batch["labels"]
        weights = self.label_weights(labels)
        return torch.tensor(float(len(labels)), device=labels.device) if weights is None else weights[labels].sum()

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Any]:
        pixels = (
            flipped(batch["pixel_values"], batch["keys"]) if self.flip and model.training else batch["pixel_values"]
        )
        outputs = model(pixel_values=pixels)
        logits = outputs.logits.float()
        weights = self.label_weights(batch["labels"])
        return label_rules.summed_loss(logits, batch["labels"], "single", weights, self.label_smoothing), outputs

    def divergence(self, one: Any, other: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
        labels = batch["labels"]
        return apart(one.logits, other.logits, labels, "single", temperature, self.label_weights(labels))

    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        return model(pixel_values=batch["pixel_values"]).logits.float()

    def answer(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.logits(model, batch)}

    def embed(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        from finetune.tasks.embeddings import seen_by_head

        embedding, logits = seen_by_head(model, lambda: self.logits(model, batch))
        return {"logits": logits, "embedding": embedding}

    def score(self, answers: Answers, inputs: Dataset, resamples: int = 0) -> Scores:
        from finetune.evaluation.classification import classification_scores

        names = list(self.labels or ())
        return classification_scores(answers["logits"], self._target_array(inputs), names, "single", resamples)

    def _target_array(self, inputs: Dataset) -> np.ndarray:
        import numpy as np

        return np.asarray(inputs[self.targets][:])

    def predictions(self, answers: Answers, inputs: Dataset, rows: Dataset) -> Dataset:
        names = self.labels or ()
        table: dict[str, list[Any]] = {"row_id": list(inputs["row_id"])}
        if self.targets in inputs.column_names:
            table["target"] = [names[int(number)] for number in self._target_array(inputs)]
        return label_rules.prediction_table(table, answers["logits"], names, "single")

    def baselines(
        self,
        rows: dict[str, Dataset],
        inputs: dict[str, Dataset],
        answers: Answers,
        processor: Processor,
        resamples: int,
    ) -> dict[str, Scores]:
        from finetune.evaluation.pixel_rivals import pixel_baselines

        pixels = {name: array_of(each).reshape(len(each), -1) for name, each in inputs.items()}
        targets = {name: self._target_array(each) for name, each in inputs.items()}
        return pixel_baselines(pixels, targets, list(self.labels or ()), answers["logits"], resamples)

    def examine(
        self, model: PreTrainedModel, inputs: dict[str, Dataset], processor: Processor, options: EvaluateOptions
    ) -> Examination:
        held = next((inputs[name] for name in ("test", "validation") if name in inputs), None)
        if held is None or self.targets not in held.column_names:
            return Examination()
        picture = self._mistakes(model, held, processor)
        return Examination(pictures={} if picture is None else {"mistakes": picture})

    def _mistakes(self, model: PreTrainedModel, inputs: Dataset, processor: Processor) -> Picture | None:
        """Return the images that the model is surest of and wrong about, with its words and the true ones."""
        import numpy as np
        import torch
        from scipy.special import softmax

        from finetune.evaluation.grids import grid

        collate, names = self.collator(processor), self.labels or ()
        parts = []
        with torch.no_grad():
            for start in range(0, len(inputs), 256):
                batch = collate([inputs[place] for place in range(start, min(start + 256, len(inputs)))])
                batch["pixel_values"] = batch["pixel_values"].to(model.device, model.dtype)
                parts.append(self.logits(model, batch).cpu().numpy())
        p, targets = softmax(np.concatenate(parts), axis=1), self._target_array(inputs)
        said = p.argmax(axis=1)
        wrong = np.flatnonzero(said != targets)
        wrong = wrong[np.argsort(-p.max(axis=1)[wrong], kind="stable")][:SHOWN]
        if not len(wrong):
            return None
        images = array_of(inputs.select(wrong))
        factor = max(1, SIDE // images.shape[1])
        tiles = images.repeat(factor, axis=1).repeat(factor, axis=2)
        words = ", ".join(f"{names[targets[place]]} as {names[said[place]]}" for place in wrong)
        return Picture(grid(tiles, columns=8, gap=4), f"Wrong, the surest first, line by line: {words}.")
