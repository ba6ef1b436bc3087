"""Variational autoencoders of images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from finetune.errors import UserError
from finetune.task import Columns, Encoded, Examination, Picture, Scores, Task, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

    from finetune.evaluation.options import EvaluateOptions
    from finetune.loading import ModelOptions
    from finetune.task import Answers, Batch, Processor

FAMILIES = ("finetune-vae", "finetune-vqvae")
COMPARED = 1024  # pixels an image, at most, on which a reloaded model is compared


@dataclass(frozen=True)
class ImageVAE(Task):
    """Images through a narrow latent space and back.

    All scores are nats an image at the plain bound: beta, warm-up, free bits and flips are for training alone.
    """

    image: str = "image"  # the column of the image
    condition: str | None = None  # the column of a class that encoder and decoder are told
    label: str | None = None  # the column of a class that the model never sees: it colours the latent plane
    labels: tuple[str, ...] | None = None  # names of the classes by number; read off the training rows when left out
    image_size: int | None = None  # pixels a side; read off the rows when left out
    num_channels: Literal[1, 3] | None = None  # grey or colour; read off the rows when left out
    flip: bool = False  # mirror every second training image, left to right
    # 0 and 1 for grey: 1 above one half ("threshold"), or drawn with the pixel as its chance, anew at every training
    # step ("dynamic"); at evaluation that is one fixed draw an image. "none" leaves a cross entropy to Bernoulli.
    binarize: Literal["none", "threshold", "dynamic"] = "none"
    beta: float = 1.0  # weight of the divergence
    kl_warmup: float = 0.0  # share of the steps (of a cycle) in which that weight grows from 0
    kl_schedule: Literal["linear", "cyclical"] = "linear"
    kl_cycles: int = 4  # of the cyclical schedule
    free_bits: float = 0.0  # nats an image, over all dimensions, that cost nothing
    objective: Literal["elbo", "iwae"] = "elbo"  # iwae: the importance-weighted bound of num_samples draws
    num_samples: int = 1  # draws of the latent, an image and step

    kind: ClassVar[str] = "image-vae"
    targets: ClassVar[str] = "image"
    best_score: ClassVar[str] = "nelbo"
    best_is_greatest: ClassVar[bool] = False
    unit: ClassVar[str] = "images"
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.condition is not None and self.label not in (None, self.condition):
            raise UserError("task.label and task.condition name two columns of classes; a run has one.")
        for name, least in (("beta", 0.0), ("free_bits", 0.0), ("kl_cycles", 1), ("num_samples", 1)):
            if not getattr(self, name) >= least:
                raise UserError(f"task.{name} is {getattr(self, name)}; give {least:g} or more.")
        if not 0 <= self.kl_warmup <= 1:
            raise UserError(f"task.kl_warmup is {self.kl_warmup}; it is a share of the steps, from 0 to 1.")
        if self.objective == "iwae":
            if self.num_samples < 2:
                raise UserError("task.objective iwae needs task.num_samples of 2 or more; with 1 it is the elbo.")
            if (self.beta, self.kl_warmup, self.free_bits) != (1.0, 0.0, 0.0):
                raise UserError("task.objective iwae has no divergence for beta, kl_warmup or free_bits to weigh.")

    def columns(self) -> Columns:
        label, asked = self.condition or self.label, self.condition is not None
        return Columns(texts=(), label=label, label_is_asked=asked, image=self.image)

    def resolve(self, splits: dict[str, Dataset]) -> ImageVAE:
        from finetune.tasks.images import resolve_shape
        from finetune.tasks.labels import infer_names

        size, channels = resolve_shape(splits, self.image)
        for name, found in (("image_size", size), ("num_channels", channels)):
            if getattr(self, name) not in (None, found):
                raise UserError(f"task.{name} is {getattr(self, name)}, and the images have {found}: see data.image.")
        column, names = self.columns().label, self.labels
        if column is not None and names is None and "train" in splits:
            names = infer_names(splits["train"], column, "single", None)
        return replace(self, image_size=size, num_channels=3 if channels == 3 else 1, labels=names)

    def described(self) -> str:
        colour = "colour" if self.num_channels == 3 else "grey"
        classes = f", {len(self.labels)} classes" if self.labels else ""
        return f"images: {self.image_size} x {self.image_size}, {colour}{classes}"

    def usage(self, family: str | None = None) -> Usage:
        colour = "colour" if self.num_channels == 3 else "grey"
        shape = f"{self.image_size}×{self.image_size} {colour} images"
        classes = f", condition=torch.arange(16) % {len(self.labels or ())}" if self.condition else ""
        code = f"images = model.sample(16{classes})  # from 0 to 1"
        if family == "finetune-vqvae":  # its codes have no prior to draw from
            code = (
                f"pixels = torch.rand(16, {self.num_channels}, {self.image_size}, {self.image_size})  # or yours\n"
                "codes, images = model.reconstruct(pixels)"
            )
        return Usage(
            does=f"A variational autoencoder of {shape}.", pipeline="unconditional-image-generation", code=code
        )

    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> Processor:
        from finetune.loading import load_image_processor

        processor = load_image_processor(model, self.image_size or 0, self.num_channels or 1, 0.0, 1.0)
        if {*processor.image_mean} != {0.0} or {*processor.image_std} != {1.0}:
            raise UserError("model.path: its image processor shifts pixels, and a VAE takes them as 0 to 1.")
        return processor

    def encode(self, rows: Dataset, processor: Processor, on_long: str) -> Encoded:
        from finetune.tasks.images import encode_images

        if self.condition is not None and self.condition not in rows.column_names:
            raise UserError(f"task.condition: the model must be told {self.condition!r}, which these rows lack.")
        return encode_images(rows, self.image, self.columns().label, self.labels or ())

    def shown_target(self, example: dict[str, Any], processor: Processor) -> str:
        return f"the image itself, {self.image_size} x {self.image_size} x {self.num_channels}"

    def collator(self, processor: Processor) -> Callable[[list[dict[str, Any]]], Batch]:
        from finetune.tasks.images import Collate

        return Collate(processor.image_mean, processor.image_std, self.condition, "condition")

    def load_model(self, model: ModelOptions, processor: Processor) -> tuple[PreTrainedModel, list[str]]:
        from transformers import AutoModel

        from finetune.loading import load_config, load_pretrained

        decided = {"image_size": self.image_size, "num_channels": self.num_channels, "binarize": self.binarize}
        decided |= {"num_classes": len(self.labels or ())} if self.condition else {}
        for name, value in decided.items():
            if model.config is not None and model.config.get(name, value) != value:
                raise UserError(f"model.config.{name} is {model.config[name]}, and the task makes it {value}.")
        config = load_config(model, **decided)
        if config.model_type not in FAMILIES:
            raise UserError(f"model: {self.kind} trains {' or '.join(FAMILIES)}, and not {config.model_type}.")
        if config.model_type == "finetune-vqvae":
            self._refuse_divergence()
        return load_pretrained(model, AutoModel, config)

    def _refuse_divergence(self) -> None:
        plain = {"beta": 1.0, "kl_warmup": 0.0, "free_bits": 0.0, "objective": "elbo", "num_samples": 1}
        for name, value in plain.items():
            if getattr(self, name) != value:
                raise UserError(f"task.{name}: finetune-vqvae draws no codes and has no divergence to weigh.")
        if self.condition is not None:
            raise UserError("task.condition: finetune-vqvae is told no classes.")

    def weight(self, batch: Batch) -> Tensor:
        import torch

        return torch.tensor(len(batch["pixel_values"]))

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Any]:
        from finetune.models.latent import kl_weight
        from finetune.tasks.images import flipped

        pixels = flipped(batch["pixel_values"], batch["keys"]) if self.flip else batch["pixel_values"]
        given = {"pixel_values": pixels, "keys": batch["keys"]}
        if is_quantised(model):
            outputs = model(**given, progress=batch["progress"])
            return outputs.loss * len(pixels), outputs
        outputs = model(
            **given,
            condition=batch.get("condition"),
            kl_weight=kl_weight(batch["progress"], self.beta, self.kl_warmup, self.kl_schedule, self.kl_cycles),
            free_bits=self.free_bits,
            objective=self.objective,
            num_samples=self.num_samples,
        )
        return outputs.loss * len(pixels), outputs

    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return latents and, of their mean image, at most 1,024 pixels, evenly spread."""
        import torch

        pixels = batch["pixel_values"]
        keys = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
        codes, images = model.reconstruct(pixels, batch.get("condition"), keys)  # type: ignore[operator]
        flat = images.flatten(1)
        return torch.cat((codes, flat[:, :: -(-flat.shape[1] // COMPARED)]), dim=1).float()

    def answer(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        given = {name: batch[name] for name in ("pixel_values", "keys", "condition") if name in batch}
        outputs = model(**given, return_loss=False)
        found = {name: each for name, each in outputs.items() if name not in ("log_variance", "reconstruction_loss")}
        reconstruction = outputs.reconstruction_loss
        return {"nelbo": reconstruction + outputs.kl.sum(dim=1), "reconstruction": reconstruction, **found}

    def score(self, answers: Answers, inputs: Dataset, resamples: int = 0) -> Scores:
        from finetune.evaluation.image_bounds import image_bound_scores

        return image_bound_scores(answers, resamples)

    def predictions(self, answers: Answers, inputs: Dataset, rows: Dataset) -> Dataset:
        from datasets import Dataset as Table

        table = {name: answers[name] for name in ("nelbo", "reconstruction")} | {"kl": answers["kl"].sum(axis=1)}
        return Table.from_dict({"row_id": list(inputs["row_id"]), **table})

    def baselines(
        self,
        rows: dict[str, Dataset],
        inputs: dict[str, Dataset],
        answers: Answers,
        processor: Processor,
        resamples: int,
    ) -> dict[str, Scores]:
        from finetune.evaluation.image_bounds import independent_pixels
        from finetune.tasks.image_latents import likelihood_of, targets

        if "codes" in answers:
            return {}  # of likelihood: without a prior over its codes the model has none worth comparing
        train, test = (targets(inputs[name], self.binarize) for name in ("train", "test"))
        kind = likelihood_of(answers, self.binarize, test.shape[1])
        return {"independent_pixels": independent_pixels(train, test, kind, answers["nelbo"], resamples)}

    def sample(self, model: PreTrainedModel, processor: Processor) -> list[str] | Picture:
        from finetune.tasks.latent_pictures import sample_grid

        return [] if is_quantised(model) else sample_grid(model)

    def examine(
        self, model: PreTrainedModel, inputs: dict[str, Dataset], processor: Processor, options: EvaluateOptions
    ) -> Examination:
        from finetune.tasks.image_latents import examine_image_vae

        return examine_image_vae(self, model, inputs, options)

    def generate(self, model: PreTrainedModel, processor: Processor, count: int, seed: int) -> np.ndarray:
        from finetune.tasks.latent_pictures import generated

        refuse_codes(model)
        return generated(model, count, seed)

    def generate_class(self, model: PreTrainedModel, name: str, count: int, seed: int) -> np.ndarray:
        from finetune.tasks.images import class_number
        from finetune.tasks.latent_pictures import generated

        refuse_codes(model)
        return generated(model, count, seed, class_number(name, self.condition, self.labels or ()))

    def drawn_labels(self, count: int) -> list[str] | None:
        from finetune.tasks.images import in_turn

        return in_turn(count, self.condition, self.labels or ())

    def interpolate(
        self, model: PreTrainedModel, processor: Processor, lines: int, steps: int, seed: int
    ) -> np.ndarray:
        from finetune.tasks.latent_pictures import interpolated

        refuse_codes(model)
        return interpolated(model, lines, steps, seed)

    def traverse(self, model: PreTrainedModel, processor: Processor, steps: int, seed: int) -> np.ndarray:
        from finetune.tasks.latent_pictures import traversed

        refuse_codes(model)
        return traversed(model, steps, seed)


def is_quantised(model: PreTrainedModel) -> bool:
    """Say whether a model, wrapped for training or not, has codes in place of a continuous latent."""
    from accelerate.utils import extract_model_from_parallel

    return bool(extract_model_from_parallel(model).config.model_type == "finetune-vqvae")


def refuse_codes(model: PreTrainedModel) -> None:
    """Raise UserError for a model that cannot draw from its latent space."""
    if is_quantised(model):
        raise UserError("finetune-vqvae has no prior over its codes: it reconstructs images, and generates none.")
