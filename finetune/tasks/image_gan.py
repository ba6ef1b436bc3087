"""Generative adversarial networks of images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from finetune.errors import UserError, did_you_mean
from finetune.task import Columns, Encoded, Examination, Picture, Scores, Task, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

    from finetune.evaluation.options import EvaluateOptions
    from finetune.loading import ModelOptions
    from finetune.models.gan import Discriminator, GANConfig
    from finetune.task import Answers, Batch, Processor
    from finetune.training.adversarial.game import Game, Judged

FAMILY = "finetune-gan"
AUGMENTATIONS = ("colour", "translation", "cutout")
# What an option is when it is left out, where that depends on the loss.
R1_GAMMA = {"r3gan": 0.5}
GP_WEIGHT = {"wgan-gp": 10.0}
CRITIC_STEPS = {"wgan-gp": 5}
EVALUATED, RELOADED = 8, 0  # a stream of random numbers for evaluation; the seed of what a reload is compared on


@dataclass(frozen=True)
class ImageGAN(Task):
    """A generator of images that learns from a discriminator which images are real.

    `max_steps` counts updates of the generator; the averaged generator (`ema_decay`) is what is kept and judged.
    """

    image: str = "image"  # the column of the image
    condition: str | None = None  # the column of a class that both players are told
    labels: tuple[str, ...] | None = None  # names of the classes by number; read off the training rows when left out
    image_size: int | None = None  # pixels a side; read off the rows when left out
    num_channels: Literal[1, 3] | None = None  # grey or colour; read off the rows when left out
    flip: bool = False  # mirror every second training image, left to right
    # r3gan: relativistic pairs, with R1 and R2 penalties.
    loss: Literal["r3gan", "hinge", "bce", "wgan-gp"] = "r3gan"  # type: ignore[assignment]
    r1_gamma: float | None = None  # half of it times the squared slope at real images; 0.5 for r3gan, else 0
    r2_gamma: float | None = None  # the same at generated images; r1_gamma for r3gan, else 0
    gp_weight: float | None = None  # of (slope - 1) squared between real and generated images; 10 for wgan-gp, else 0
    n_critic: int | None = None  # discriminator steps, each on new rows, an update; 5 for wgan-gp, else 1
    ema_decay: float = 0.999  # of the average of the generator's weights, a step; 0: keep the last weights
    diffaugment: tuple[str, ...] = ()  # what the discriminator sees changed: colour, translation, cutout
    instance_noise: float = 0.0  # added to what the discriminator sees, at the start; falls linearly to 0
    adam_betas: tuple[float, float] | None = None  # of both optimisers; those of the loss's authors when left out
    discriminator_learning_rate: float | None = None  # train.learning_rate when left out

    kind: ClassVar[str] = "image-gan"
    targets: ClassVar[str] = "image"
    best_score: ClassVar[str] = "swd"
    best_is_greatest: ClassVar[bool] = False
    unit: ClassVar[str] = "images"
    draws: ClassVar[bool] = True
    # `loss` is a name here, for this trainer calls generator_loss and discriminator_loss instead.
    trainer: ClassVar[str] = "finetune.training.adversarial:AdversarialTrainer"

    def __post_init__(self) -> None:
        for name in ("r1_gamma", "r2_gamma", "gp_weight", "instance_noise"):
            if (value := getattr(self, name)) is not None and not value >= 0:
                raise UserError(f"task.{name} is {value}; give 0 or more.")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"task.ema_decay is {self.ema_decay}; give 0, or a share below 1 such as 0.999.")
        if self.adam_betas is not None and not all(0 <= beta < 1 for beta in self.adam_betas):
            raise UserError(f"task.adam_betas are {list(self.adam_betas)}; give two numbers from 0 to below 1.")
        if self.n_critic is not None and self.n_critic < 1:
            raise UserError(f"task.n_critic is {self.n_critic}; give 1 or more.")
        if self.discriminator_learning_rate is not None and not self.discriminator_learning_rate >= 0:
            raise UserError(f"task.discriminator_learning_rate is {self.discriminator_learning_rate}; give 0 or more.")
        for name in self.diffaugment:
            if name not in AUGMENTATIONS:
                known = ", ".join(AUGMENTATIONS)
                raise UserError(f"task.diffaugment: {name!r} is not known: {known}.{did_you_mean(name, AUGMENTATIONS)}")

    # ---- what the adversarial trainer asks for

    @property
    def game(self) -> Game:
        """The rules: loss, penalties and what the discriminator sees."""
        from finetune.training.adversarial.game import Game

        r1 = R1_GAMMA.get(self.loss, 0.0) if self.r1_gamma is None else self.r1_gamma
        r2 = (r1 if self.loss == "r3gan" else 0.0) if self.r2_gamma is None else self.r2_gamma
        gp = GP_WEIGHT.get(self.loss, 0.0) if self.gp_weight is None else self.gp_weight
        return Game(self.loss, r1, r2, gp, tuple(self.diffaugment), self.instance_noise)

    @property
    def critic_steps(self) -> int:
        """Discriminator steps an update."""
        return CRITIC_STEPS.get(self.loss, 1) if self.n_critic is None else self.n_critic

    @property
    def betas(self) -> tuple[float, float]:
        """Of Adam."""
        from finetune.training.adversarial.losses import BETAS

        return BETAS[self.loss] if self.adam_betas is None else self.adam_betas

    @property
    def tallied(self) -> tuple[str, ...]:
        """What is logged of the discriminator besides its loss.

        A relativistic loss asks only that the real image of a pair has the higher logit, and a critic not even that.
        """
        by_loss = {"wgan-gp": ("critic_gap",), "r3gan": ("d_accuracy_pairs",)}
        return by_loss.get(self.loss, ("d_accuracy_real", "d_accuracy_fake"))

    def adversary(self, model: PreTrainedModel) -> Discriminator:
        """Return the discriminator that was saved with this generator, in a folder or on the Hub, or else a new one."""
        from transformers.utils.hub import cached_file

        from finetune.loading import announce, resolved_revision
        from finetune.loading.failures import one_line, quiet
        from finetune.models.gan import Discriminator

        place, commit = model.name_or_path, resolved_revision(model)
        if place:
            known = {"revision": commit, "subfolder": "discriminator"}
            with one_line(f"model.path: {place}/discriminator"), quiet():
                if cached_file(place, "config.json", **known, _raise_exceptions_for_missing_entries=False) is not None:
                    found: Discriminator = Discriminator.from_pretrained(place, **known, use_safetensors=True)
                    return found
            announce(["discriminator"])
        return Discriminator(cast("GANConfig", model.config))

    def discriminator_loss(self, discriminator: Any, generator: Any, batch: Batch) -> Judged:
        """Return what the discriminator loses on a batch, summed over its rows, and how it judged."""
        latent_dim = int(generator.config.latent_dim)
        return self.game.discriminator(discriminator, generator, latent_dim, self._flipped(batch))

    def generator_loss(self, generator: Any, discriminator: Any, batch: Batch) -> Tensor:
        """Return what the generator loses on a batch, summed over its rows."""
        latent_dim = int(discriminator.config.latent_dim)
        return self.game.generator(generator, discriminator, latent_dim, self._flipped(batch))

    def _flipped(self, batch: Batch) -> Batch:
        from finetune.tasks.images import flipped

        return {**batch, "pixel_values": flipped(batch["pixel_values"], batch["keys"])} if self.flip else batch

    # ---- what every task has

    def columns(self) -> Columns:
        return Columns(texts=(), label=self.condition, label_is_asked=self.condition is not None, image=self.image)

    def resolve(self, splits: dict[str, Dataset]) -> ImageGAN:
        from finetune.tasks.images import resolve_shape
        from finetune.tasks.labels import infer_names

        size, channels = resolve_shape(splits, self.image)
        for name, found in (("image_size", size), ("num_channels", channels)):
            if getattr(self, name) not in (None, found):
                raise UserError(f"task.{name} is {getattr(self, name)}, and the images have {found}: see data.image.")
        names = self.labels
        if self.condition is not None and names is None and "train" in splits:
            names = infer_names(splits["train"], self.condition, "single", None)
        return replace(self, image_size=size, num_channels=3 if channels == 3 else 1, labels=names)

    def described(self) -> str:
        colour = "colour" if self.num_channels == 3 else "grey"
        classes = f", {len(self.labels)} classes" if self.labels else ""
        game = self.game
        penalties = {"R1": game.r1_gamma, "R2": game.r2_gamma, "slope": game.gp_weight}
        said = ", ".join(f"{name} {value:g}" for name, value in penalties.items() if value) or "no penalty"
        return f"images: {self.image_size} x {self.image_size}, {colour}{classes}; loss {self.loss}, {said}"

    def usage(self, family: str | None = None) -> Usage:
        colour = "colour" if self.num_channels == 3 else "grey"
        shape = f"{self.image_size}×{self.image_size} {colour} images"
        return Usage(
            does=f"Makes {shape} from noise: the generator of a generative adversarial network.",
            pipeline="unconditional-image-generation",
            code="images = model.sample(16)  # from -1 to 1",
        )

    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> Processor:
        from finetune.loading import load_image_processor

        processor = load_image_processor(model, self.image_size or 0, self.num_channels or 1, 0.5, 0.5)
        if {*processor.image_mean, *processor.image_std} != {0.5}:
            raise UserError("model.path: its image processor has other pixels than a GAN, which takes them as -1 to 1.")
        return processor

    def encode(self, rows: Dataset, processor: Processor, on_long: str) -> Encoded:
        from finetune.tasks.images import encode_images

        if self.condition is not None and self.condition not in rows.column_names:
            raise UserError(f"task.condition: the model must be told {self.condition!r}, which these rows lack.")
        return encode_images(rows, self.image, self.condition, self.labels or ())

    def shown_target(self, example: dict[str, Any], processor: Processor) -> str:
        return f"images like this one, {self.image_size} x {self.image_size} x {self.num_channels}"

    def collator(self, processor: Processor) -> Callable[[list[dict[str, Any]]], Batch]:
        from finetune.tasks.images import Collate

        return Collate(processor.image_mean, processor.image_std, self.condition, "condition")

    def load_model(self, model: ModelOptions, processor: Processor) -> tuple[PreTrainedModel, list[str]]:
        from transformers import AutoModel

        from finetune.loading import load_config, load_pretrained

        decided = {
            "image_size": self.image_size,
            "num_channels": self.num_channels,
            "num_classes": len(self.labels or ()) if self.condition else 0,
        }
        own = (load_config(model) if model.path else model.config) or {}
        for name, value in decided.items():
            held = own.get(name, value) if isinstance(own, dict) else getattr(own, name, value)
            if held != value:
                raise UserError(f"model: its {name} is {held}, and the task makes it {value}.")
        config = load_config(model, **decided)
        if config.model_type != FAMILY:
            raise UserError(f"model: {self.kind} trains {FAMILY}, and not {config.model_type}.")
        return load_pretrained(model, AutoModel, config)

    def weight(self, batch: Batch) -> Tensor:
        import torch

        return torch.tensor(len(batch["pixel_values"]))

    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return generated images of fixed latents, flattened: what a reloaded generator is compared on."""
        latents = model.latents(len(batch["pixel_values"]), RELOADED)  # type: ignore[operator]
        flat: Tensor = model(latents, batch.get("condition")).flatten(1).float()
        return flat

    def answer(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        """Return the discriminator's logits of the real images, and a generated image of each row with its logit."""
        from finetune.models import noise
        from finetune.tasks.gan_images import as_bytes

        condition = batch.get("condition")
        fake = model(noise.normal(batch["keys"], int(model.config.latent_dim), EVALUATED), condition)
        return {
            "logits": model.adversary(batch["pixel_values"], condition).float(),
            "fake_logits": model.adversary(fake, condition).float(),
            "generated": as_bytes(fake),
        }

    def score(self, answers: Answers, inputs: Dataset, resamples: int = 0) -> Scores:
        from finetune.tasks.gan_images import generator_scores

        return generator_scores(answers, inputs, self.loss, resamples)

    def predictions(self, answers: Answers, inputs: Dataset, rows: Dataset) -> Dataset:
        from datasets import Dataset as Table

        return Table.from_dict({"row_id": list(inputs["row_id"]), "logit": answers["logits"]})

    def sample(self, model: PreTrainedModel, processor: Processor) -> list[str] | Picture:
        from finetune.tasks.gan_images import sample_grid

        return sample_grid(model)

    def examine(
        self, model: PreTrainedModel, inputs: dict[str, Dataset], processor: Processor, options: EvaluateOptions
    ) -> Examination:
        from finetune.tasks.gan_images import examine_gan

        return examine_gan(self, model, inputs, processor, options)

    def generate(self, model: PreTrainedModel, processor: Processor, count: int, seed: int) -> np.ndarray:
        from finetune.tasks.gan_images import generated

        return generated(model, count, seed)

    def generate_class(self, model: PreTrainedModel, name: str, count: int, seed: int) -> np.ndarray:
        from finetune.tasks.gan_images import generated
        from finetune.tasks.images import class_number

        return generated(model, count, seed, class_number(name, self.condition, self.labels or ()))

    def drawn_labels(self, count: int) -> list[str] | None:
        from finetune.tasks.images import in_turn

        return in_turn(count, self.condition, self.labels or ())

    def interpolate(
        self, model: PreTrainedModel, processor: Processor, lines: int, steps: int, seed: int
    ) -> np.ndarray:
        from finetune.tasks.gan_images import interpolated

        return interpolated(model, lines, steps, seed)
