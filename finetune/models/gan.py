"""Generators and discriminators of images, of any size from 8 to 256, grey or in colour, conditional or not.

Images are in [-1, 1], as the tanh of the generator leaves them; config.image_range says so. In a folder the generator
stands at the root and the discriminator in discriminator/:

    AutoModel.from_pretrained(run); Discriminator.from_pretrained(run, subfolder="discriminator")
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from finetune.models import noise
from finetune.models.gan_blocks import (
    ConvolutionalBody,
    DeconvolutionalGenerator,
    PlainBody,
    PlainGenerator,
    ResidualBody,
    ResidualGenerator,
)

SMALLEST, LARGEST = 8, 256
FIRST_ITERATIONS = 15  # of the power method on new weights, as torch takes them
PRESETS: dict[str, dict[str, Any]] = {
    "dcgan": {"latent_dim": 100, "channels": 64, "generator_norm": "batch", "initializer_range": 0.02},
    "resnet": {"latent_dim": 128, "channels": 64, "generator_norm": "batch"},
    "mlp": {"latent_dim": 32, "hidden_sizes": [256, 256], "generator_norm": "none"},
}


class GANConfig(PreTrainedConfig):
    """Both players of a GAN; the preset names the network and fills in what is not given.

    preset: dcgan (Radford et al. 2015), resnet (Miyato et al. 2018) or mlp.
    image_size, num_channels: pixels a side, 8 to 256; 1 for grey, 3 for colour.
    latent_dim: standard normal numbers an image is made from.
    channels: of the convolutions at full size; deeper ones have up to 8 times as many.
    hidden_sizes: of the fully connected layers (mlp).
    generator_norm: "batch" or "none". Batch norm sees one micro-batch of one process: steps that are accumulated or
        shared are then near those of one batch, and equal only without it. The discriminator has no normalisation but
        the spectral one.
    spectral_norm: divide each weight of the discriminator by its largest singular value (Miyato et al. 2018).
    num_classes: of a conditional GAN: projected in the discriminator, embedded in the generator; 0: unconditional.
    embedding_dim: of a class in the generator, beside the latents.
    initializer_range: standard deviation of new weights; None for torch's own initialisation.
    """

    model_type = "finetune-gan"

    preset: str = "dcgan"
    image_size: int = 32
    num_channels: int = 3
    latent_dim: int | None = None
    channels: int | None = None
    hidden_sizes: list[int] | None = None
    generator_norm: str | None = None
    spectral_norm: bool = False
    num_classes: int = 0
    embedding_dim: int = 32
    initializer_range: float | None = None
    image_range: list[float] | tuple[float, ...] = (-1.0, 1.0)

    def __post_init__(self, **kwargs: Any) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is not one of {', '.join(PRESETS)}")
        for name, value in PRESETS[self.preset].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if not SMALLEST <= self.image_size <= LARGEST:
            raise ValueError(f"image_size {self.image_size} is not from {SMALLEST} to {LARGEST}")
        if self.num_channels not in (1, 3):
            raise ValueError(f"num_channels {self.num_channels} is neither 1 (grey) nor 3 (colour)")
        if self.generator_norm not in ("batch", "none"):
            raise ValueError(f"generator_norm {self.generator_norm!r} is neither batch nor none")
        if self.num_classes < 0:
            raise ValueError(f"num_classes is {self.num_classes}; it must be 0 or more")
        sizes = ("latent_dim", "embedding_dim", "hidden_sizes" if self.preset == "mlp" else "channels")
        for name in sizes if self.initializer_range is None else (*sizes, "initializer_range"):
            value = getattr(self, name)
            if not value or min(value if isinstance(value, list | tuple) else [value]) <= 0:
                raise ValueError(f"{name} is {value}; it must be positive")
        super().__post_init__(**kwargs)


class _Player(PreTrainedModel):
    """What both players share: their configuration and how new weights are drawn."""

    config_class = GANConfig
    base_model_prefix = ""
    accepts_loss_kwargs = False
    _supports_sdpa = True  # there is no attention: every implementation is right

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Return a saved player, which answers to the bit as it did.

        Weights are copied out of the mapped file: there they may begin at any byte, and how memory is aligned decides
        in which order a spectral norm is added up.
        """
        found = super().from_pretrained(*args, **kwargs)
        network = found[0] if isinstance(found, tuple) else found
        for each in (*network.parameters(), *network.buffers()):
            each.data = each.data.clone()
        return found

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        known: Any = module
        weight = getattr(module, "weight", None)
        if parametrize.is_parametrized(module, "weight"):
            weight = known.parametrizations.weight.original
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            super()._init_weights(module)
            if std is not None:
                init.normal_(module.weight, 1.0, std)
        elif isinstance(weight, Tensor) and std is not None:
            init.normal_(weight, 0.0, std)
            if getattr(module, "bias", None) is not None:
                init.zeros_(known.bias)


class Generator(_Player):
    """Makes images from standard normal numbers."""

    main_input_name = "latents"

    def __init__(self, config: GANConfig) -> None:
        super().__init__(config)
        inputs = int(config.latent_dim or 0)
        self.embedding = nn.Embedding(config.num_classes, config.embedding_dim) if config.num_classes else None
        inputs += config.embedding_dim if config.num_classes else 0
        size, colours, norm = config.image_size, config.num_channels, str(config.generator_norm)
        if config.preset == "mlp":
            self.body: nn.Module = PlainGenerator(inputs, config.hidden_sizes or [], size, colours, norm)
        elif config.preset == "resnet":
            self.body = ResidualGenerator(inputs, config.channels or 0, size, colours, norm)
        else:
            self.body = DeconvolutionalGenerator(inputs, config.channels or 0, size, colours, norm)
        self.post_init()

    def forward(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return images of shape (batch, num_channels, image_size, image_size), in [-1, 1].

        Args:
            latents: shape (batch, latent_dim), standard normal.
            condition: shape (batch,), int64, the class of each image; conditional generators need it.
        """
        if self.embedding is not None:
            if condition is None:
                raise ValueError("a conditional generator needs the class of each image: condition")
            latents = torch.cat((latents, self.embedding(condition)), dim=1)
        return torch.tanh(self.body(latents))

    def latents(self, count: int, seed: int = 0) -> Tensor:
        """Return `count` fixed latents of shape (count, latent_dim); the first are the same for every count."""
        keys = noise.keys(seed, noise.FIXED, torch.arange(count, device=self.device))
        return noise.normal(keys, int(self.config.latent_dim))

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0, condition: Tensor | None = None, batch: int = 256) -> Tensor:
        """Return `count` images in [-1, 1]; classes take turns in a conditional generator without `condition`."""
        latents = self.latents(count, seed)
        if self.embedding is not None and condition is None:
            condition = torch.arange(count, device=self.device) % self.embedding.num_embeddings
        parts = range(0, count, batch)
        return torch.cat(
            [
                self(latents[start : start + batch], None if condition is None else condition[start : start + batch])
                for start in parts
            ]
        )


class Discriminator(_Player):
    """Says how real images look: a logit, or the value of a critic."""

    main_input_name = "images"

    def __init__(self, config: GANConfig) -> None:
        super().__init__(config)
        size, colours = config.image_size, config.num_channels
        if config.preset == "mlp":
            self.body: PlainBody | ConvolutionalBody | ResidualBody = PlainBody(
                config.hidden_sizes or [], size, colours
            )
        elif config.preset == "resnet":
            self.body = ResidualBody(config.channels or 0, size, colours)
        else:
            self.body = ConvolutionalBody(config.channels or 0, size, colours)
        self.head = nn.Linear(self.body.features, 1)
        # Projection of the class (Miyato & Koyama 2018, arXiv:1802.05637).
        self.projection = nn.Embedding(config.num_classes, self.body.features) if config.num_classes else None
        if config.spectral_norm:
            for module in list(self.modules()):
                if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
                    parametrizations.spectral_norm(module)
        self.post_init()
        self.refine(FIRST_ITERATIONS)  # the weights that it was estimated from at first are gone

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return one logit an image, shape (batch,); above 0 for what looks real.

        Args:
            images: shape (batch, num_channels, image_size, image_size), in [-1, 1].
            condition: shape (batch,), int64; conditional discriminators need it.
        """
        features = self.body(images)
        logits: Tensor = self.head(features)[:, 0]
        if self.projection is not None:
            if condition is None:
                raise ValueError("a conditional discriminator needs the class of each image: condition")
            logits = logits + (self.projection(condition) * features).sum(dim=1)
        return logits

    def train(self, mode: bool = True) -> Discriminator:
        """Choose the mode; the spectral norm is estimated anew by `refine` alone, never by a forward pass."""
        super().train(mode)
        for norm, _ in _spectral_norms(self):
            norm.eval()
        return self

    @torch.no_grad()
    def refine(self, iterations: int = 1) -> None:
        """Take a power iteration of every spectral norm: one a step, however many micro-batches it has."""
        for norm, weight in _spectral_norms(self):
            norm.train()
            for _ in range(iterations):
                norm(weight)
            norm.eval()


def _spectral_norms(network: nn.Module) -> list[tuple[nn.Module, Tensor]]:
    """Return each spectral norm and the weight that it divides."""
    found: Any = network.modules()
    lists: list[Any] = [each.parametrizations.weight for each in found if parametrize.is_parametrized(each, "weight")]
    return [(each[0], each.original) for each in lists]


def attach(generator: nn.Module, discriminator: Discriminator) -> None:
    """Let a generator name its discriminator, as `adversary`: no part of it, so neither saved, moved nor trained."""
    object.__setattr__(generator, "adversary", discriminator)
