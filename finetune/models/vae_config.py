"""What a VAE of images is made of: its preset, networks and likelihood."""

from __future__ import annotations

from typing import Any, get_args

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from finetune.models.image_networks import stages
from finetune.models.likelihoods import Binarize, Likelihood

PRESETS: dict[str, dict[str, Any]] = {
    "vae-2d": {"hidden_sizes": (128, 64, 32), "latent_dim": 2},  # 784-128-64-32-2
    "vae-mnist": {"hidden_sizes": (400,), "latent_dim": 40},  # 784-400-40
    "vae-conv": {},  # by size and colour, see `_convolutional`
}
SMALLEST, LARGEST = 8, 256  # pixels a side


@strict
class VAEConfig(PreTrainedConfig):
    """The networks and the likelihood of a VAE.

    `preset` fills in what is not given: "vae-mnist" (the default), "vae-2d", or "vae-conv", which halves the image
    until 7 pixels or fewer are left, from 32 channels (64 of a colour image) up to 256, and has latent_dim 16 (128).
    """

    model_type = "finetune-vae"

    preset: str | None = None
    image_size: int = 28  # pixels a side
    num_channels: int = 1  # 1 grey, 3 colour
    latent_dim: int | None = None
    hidden_sizes: list[int] | tuple[int, ...] | None = (
        None  # dense layers of the encoder; the decoder has them reversed
    )
    channels: list[int] | tuple[int, ...] | None = None  # convolutions, each halving the side; none: dense layers alone
    likelihood: str | None = None  # bernoulli, gaussian, discretised-logistic; bernoulli for grey, gaussian for colour
    scale: float | int | None = (
        None  # of gaussian (standard deviation) and logistic, in pixels of [0, 1]; None: learned
    )
    binarize: str = "none"  # threshold, dynamic: see `likelihoods.binarised`
    num_classes: int = 0  # of `condition`; 0: not conditional

    def __post_init__(self, **kwargs: Any) -> None:
        check_image(self.image_size, self.num_channels)
        preset = self.preset or "vae-mnist"
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r} is not known: {', '.join(PRESETS)}")
        filling = _convolutional(self.image_size, self.num_channels) if preset == "vae-conv" else PRESETS[preset]
        for name, value in {**filling, "likelihood": usual_likelihood(self.num_channels)}.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        self.hidden_sizes, self.channels = tuple(self.hidden_sizes or ()), tuple(self.channels or ())
        _check(self)
        super().__post_init__(**kwargs)

    def sizes(self) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """Return latent_dim, hidden_sizes and channels, as they are once the preset has filled them in."""
        return self.latent_dim or 0, tuple(self.hidden_sizes or ()), tuple(self.channels or ())


def check_image(image_size: int, num_channels: int) -> None:
    """Raise ValueError for an image that these networks do not take."""
    if not SMALLEST <= image_size <= LARGEST:
        raise ValueError(f"image_size {image_size} is not between {SMALLEST} and {LARGEST}")
    if num_channels not in (1, 3):
        raise ValueError(f"num_channels {num_channels} is neither 1 (grey) nor 3 (colour)")


def _convolutional(image_size: int, num_channels: int) -> dict[str, Any]:
    first, dims = (32, 16) if num_channels == 1 else (64, 128)
    channels = tuple(min(256, first * 2**place) for place in range(stages(image_size)))
    return {"channels": channels, "hidden_sizes": (256,), "latent_dim": dims}


def _check(config: VAEConfig) -> None:
    check_likelihood(config.likelihood, config.binarize, config.scale)
    latent_dim, hidden, channels = config.sizes()
    if min(latent_dim, *hidden, *channels, 1) < 1:
        raise ValueError("latent_dim, hidden_sizes and channels are numbers from 1 on")
    if config.image_size >> len(channels) < 1:
        raise ValueError(f"channels: {len(channels)} halvings leave nothing of {config.image_size} pixels")


def usual_likelihood(num_channels: int) -> str:
    """Return the likelihood of images of which nothing else is said."""
    return "bernoulli" if num_channels == 1 else "gaussian"


def check_likelihood(likelihood: str | None, binarize: str, scale: float | None) -> None:
    """Raise ValueError for a likelihood that there is not, or that goes with no such pixels."""
    for name, value, kinds in (("likelihood", likelihood, Likelihood), ("binarize", binarize, Binarize)):
        if value not in get_args(kinds):
            raise ValueError(f"{name} {value!r} is not known: {', '.join(get_args(kinds))}")
    if binarize != "none" and likelihood != "bernoulli":
        raise ValueError(f"binarize {binarize} needs likelihood bernoulli, and not {likelihood}")
    if scale is not None and not scale > 0:
        raise ValueError(f"scale {scale} is not above 0")
