"""Autoencoders of images with discrete codes: finite scalar quantisation, or a codebook of moving averages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from finetune.models.image_networks import Grow, Shrink, initialise
from finetune.models.likelihoods import PixelLikelihood, binarised, full
from finetune.models.vae_config import check_image, check_likelihood, usual_likelihood

LARGEST_SIDE = 8  # of the map of codes, where `channels` is left out


@strict
class VQVAEConfig(PreTrainedConfig):
    """The networks, the quantiser and the likelihood of a VQ-VAE."""

    model_type = "finetune-vqvae"

    image_size: int = 28  # pixels a side
    num_channels: int = 1  # 1 grey, 3 colour
    channels: list[int] | tuple[int, ...] | None = None  # convolutions, each halving the side; None: to 8 or fewer
    quantizer: str = "fsq"  # or "ema": a codebook
    levels: list[int] | tuple[int, ...] = (8, 5, 5, 5)  # of fsq: values of each dimension of a code; 1,000 codes
    codebook_size: int = 256  # of ema
    code_dim: int = 8  # of ema
    decay: float = 0.99  # of ema, an optimiser step
    commitment: float = 0.25  # of ema: what the distance to its code costs the encoder
    likelihood: str | None = None  # bernoulli, gaussian, discretised-logistic; bernoulli for grey, gaussian for colour
    scale: float | int | None = None  # of gaussian (standard deviation) and logistic; pixels are 0 to 1; None: learned
    binarize: str = "none"  # threshold, dynamic: see `likelihoods.binarised`

    def __post_init__(self, **kwargs: Any) -> None:
        check_image(self.image_size, self.num_channels)
        self.likelihood = self.likelihood or usual_likelihood(self.num_channels)
        check_likelihood(self.likelihood, self.binarize, self.scale)
        if self.channels is None:
            count = max(1, math.ceil(math.log2((self.image_size + 1) / (LARGEST_SIDE + 1))))
            self.channels = tuple(min(256, 64 * 2**place) for place in range(count))
        self.channels, self.levels = tuple(self.channels), tuple(self.levels)
        if not self.channels or min(self.channels) < 1 or self.image_size >> len(self.channels) < 1:
            raise ValueError(f"channels {self.channels} leave no map of codes of {self.image_size} pixels")
        if self.quantizer not in ("fsq", "ema"):
            raise ValueError(f"quantizer {self.quantizer!r} is not known: fsq, ema")
        if not self.levels or min(self.levels) < 2 or self.codebook_size < 2 or self.code_dim < 2:
            raise ValueError("levels, codebook_size and code_dim are numbers from 2 on")
        super().__post_init__(**kwargs)


@dataclass
class VQVAEOutput(ModelOutput):
    """What a VQ-VAE says of images; nats an image."""

    loss: Tensor | None = None  # shape (): mean of reconstruction_loss over the batch, and the commitment of ema
    reconstruction_loss: Tensor | None = None  # shape (batch,): -log p(x | codes)
    kl: Tensor | None = None  # shape (batch, 1): positions * log(codebook), the codes under a uniform prior
    codes: Tensor | None = None  # shape (batch, positions), int64
    codebook: Tensor | None = None  # shape (batch,): how many codes there are
    bits_per_dim: Tensor | None = None  # shape (batch,): of the bound; None for Bernoulli on grey


class FSQ(nn.Module):
    """Rounds each of a few numbers to a few levels (Mentzer et al. 2023, arXiv:2309.15505): nothing is learned."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels, self.size, self.dim = levels, math.prod(levels), len(levels)

    def forward(self, values: Tensor, progress: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return codes of [-1, 1] whose gradient goes straight through, their numbers, and what they cost: nothing.

        Args:
            values: shape (rows, dim).
            progress: not read.
        """
        levels = torch.tensor(self.levels, device=values.device)
        half = (levels - 1) * (1 - 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        bounded = torch.tanh(values + torch.atanh(offset / half)) * half - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        width = levels // 2
        places = torch.tensor([math.prod(self.levels[:place]) for place in range(self.dim)], device=values.device)
        numbers = ((rounded.detach() + width).round().to(torch.int64) * places).sum(dim=-1)
        return rounded / width, numbers, values.new_zeros(len(values))


class Codebook(nn.Module):
    """Directions that follow the mean of what is near them (van den Oord et al. 2017, arXiv:1711.00937, appendix A.1).

    Values and codes have length 1, so that codes begin where values are and none lies idle for its length (Yu et al.
    2022, arXiv:2110.04627). The averages move once an optimiser step: what its micro-batches and all processes say is
    summed in `pending`, and taken in when `progress` says that the next step has begun. A row that only keeps
    processes in step counts as well.
    """

    codes: Tensor
    pending: Tensor
    pending_at: Tensor

    def __init__(self, size: int, dim: int, decay: float, commitment: float) -> None:
        super().__init__()
        self.size, self.dim, self.decay, self.commitment = size, dim, decay, commitment
        self.register_buffer("codes", torch.randn(size, dim))  # moving sums; their directions are the codes
        self.register_buffer("pending", torch.zeros(size, dim))
        self.register_buffer("pending_at", torch.tensor(-1.0))

    def forward(self, values: Tensor, progress: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return codes whose gradient goes straight through, their numbers, and each value's commitment cost.

        Args:
            values: shape (rows, dim).
            progress: shape (), the share of training that is done; None takes every batch for a step.
        """
        values = nn.functional.normalize(values.float(), dim=-1)
        if self.training:
            self._step(progress)
        numbers = (values.detach() @ nn.functional.normalize(self.codes, dim=-1).T).argmax(dim=-1)
        chosen = nn.functional.normalize(self.codes[numbers], dim=-1)
        if self.training:
            self._note(values.detach(), numbers)
        cost = self.commitment * (values - chosen).square().sum(dim=-1)
        return values + (chosen - values).detach(), numbers, cost

    @torch.no_grad()
    def _step(self, progress: Tensor | None) -> None:
        if progress is not None and bool(progress == self.pending_at):
            return
        self.codes.copy_(self.decay * self.codes + (1 - self.decay) * self.pending)
        self.pending.zero_()
        if progress is not None:
            self.pending_at.copy_(progress)

    @torch.no_grad()
    def _note(self, values: Tensor, numbers: Tensor) -> None:
        sums = torch.zeros_like(self.pending).index_add_(0, numbers, values)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        self.pending += sums


class VQVAE(PreTrainedModel):
    """A map of codes between an encoder and a decoder. It has no prior: it reconstructs, and generates nothing."""

    config_class = VQVAEConfig
    base_model_prefix = "vqvae"
    main_input_name = "pixel_values"
    accepts_loss_kwargs: ClassVar[bool] = False  # else the stock Trainer multiplies the loss

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__(config)
        channels = tuple(config.channels or ())
        width = channels[-1]
        self.quantizer: FSQ | Codebook = (
            FSQ(tuple(config.levels))
            if config.quantizer == "fsq"
            else Codebook(config.codebook_size, config.code_dim, config.decay, config.commitment)
        )
        self.shrink = Shrink(config.num_channels, channels)
        self.mix = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.to_codes = nn.Conv2d(width, self.quantizer.dim, 1)
        self.from_codes = nn.Sequential(nn.Conv2d(self.quantizer.dim, width, 3, padding=1), nn.ReLU())
        self.grow = Grow(config.image_size, config.num_channels, channels)
        self.likelihood = PixelLikelihood(config.likelihood, config.scale, config.binarize)  # type: ignore[arg-type]
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        initialise(module)
        if isinstance(module, Codebook):
            init.normal_(module.codes)
            init.zeros_(module.pending)
            init.constant_(module.pending_at, -1.0)

    def _quantised(self, pixels: Tensor, progress: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the map of codes (batch, dim, side, side), their numbers (batch, positions), and costs (batch,)."""
        values = self.to_codes(self.mix(self.shrink(pixels.to(self.dtype)))).permute(0, 2, 3, 1)
        codes, numbers, cost = self.quantizer(full(values).flatten(0, 2), progress)
        codes = codes.view(values.shape).permute(0, 3, 1, 2)
        return codes, numbers.view(len(pixels), -1), cost.view(len(pixels), -1).sum(dim=1)

    def encode(self, pixel_values: Tensor, keys: Tensor | None = None) -> Tensor:
        """Return the numbers of the codes of images in [0, 1], of shape (batch, positions)."""
        return self._quantised(binarised(pixel_values, self.config.binarize, keys))[1]

    def reconstruct(
        self, pixel_values: Tensor, condition: Tensor | None = None, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return each image's codes, flattened, and the mean image of them; `condition` is not heard."""
        codes, _, _ = self._quantised(binarised(pixel_values, self.config.binarize, keys))
        return codes.flatten(1), self.likelihood.means(full(self.grow(self.from_codes(codes.to(self.dtype)))))

    def forward(
        self,
        pixel_values: Tensor,
        keys: Tensor | None = None,
        progress: Tensor | None = None,
        return_loss: bool = True,
    ) -> VQVAEOutput:
        """Return the reconstruction of images and its cost.

        Args:
            pixel_values: shape (batch, channels, size, size), in [0, 1].
            keys: shape (batch,), for dynamic binarisation.
            progress: shape (), the share of training that is done, for the codebook of "ema".
            return_loss: False leaves `loss` out.
        """
        pixels = binarised(full(pixel_values), self.config.binarize, keys)
        codes, numbers, cost = self._quantised(pixels, progress)
        said = full(self.grow(self.from_codes(codes.to(self.dtype))))
        reconstruction = -self.likelihood(pixels, said[None])[0]
        count = numbers.new_full((len(numbers),), self.quantizer.size)
        kl = numbers.shape[1] * count.to(reconstruction.dtype).log()
        return VQVAEOutput(
            loss=(reconstruction + cost).mean() if return_loss else None,
            reconstruction_loss=reconstruction,
            kl=kl[:, None],
            codes=numbers,
            codebook=count,
            bits_per_dim=self.likelihood.bits_per_dim(reconstruction + kl, pixels[0].numel()),
        )
