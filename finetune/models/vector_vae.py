"""A variational autoencoder of vectors, such as what a classifier's last layer sees: how likely is one more of them?"""

from __future__ import annotations

from typing import ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from finetune.models import latent, noise
from finetune.models.image_networks import Dense, initialise
from finetune.models.likelihoods import LEAST_LOG_SCALE, log_prob

DRAWS = 12  # the stream of what is drawn for a latent
AT_ONCE = 65_536  # vectors that are decoded at once


@strict
class VectorVAEConfig(PreTrainedConfig):
    """The widths of a VAE of vectors."""

    model_type = "finetune-vector-vae"

    size: int = 2  # numbers a vector
    latent_dim: int = 16
    hidden_sizes: list[int] | tuple[int, ...] = (256,)  # of the encoder; the decoder has them reversed

    def __post_init__(self, **kwargs: int) -> None:
        self.hidden_sizes = tuple(self.hidden_sizes)
        if not self.hidden_sizes or min(self.size, self.latent_dim, *self.hidden_sizes) < 1:
            raise ValueError("size, latent_dim and hidden_sizes are numbers from 1 on")
        super().__post_init__(**kwargs)


class VectorVAE(PreTrainedModel):
    """p(x | z) p(z) of standardised vectors: a standard normal prior, a Gaussian of one learned scale around the mean.

    The σ-VAE of Rybkin, Daniilidis & Levine 2021 (arXiv:2006.13202), on dense layers. `centre` and `spread`, the mean
    and the standard deviation of each number over the rows that it learns from, are saved with the weights.
    """

    config_class = VectorVAEConfig
    base_model_prefix = "vector_vae"
    main_input_name = "vectors"
    accepts_loss_kwargs: ClassVar[bool] = False
    centre: Tensor
    spread: Tensor

    def __init__(self, config: VectorVAEConfig) -> None:
        super().__init__(config)
        hidden = tuple(config.hidden_sizes)
        self.register_buffer("centre", torch.zeros(config.size))
        self.register_buffer("spread", torch.ones(config.size))
        self.encoder = Dense(config.size, hidden)
        self.head = nn.Linear(hidden[-1], 2 * config.latent_dim)
        self.decoder = nn.Sequential(Dense(config.latent_dim, hidden[::-1]), nn.Linear(hidden[0], config.size))
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        initialise(module)

    def standardise(self, vectors: Tensor) -> None:
        """Take centre and spread from vectors of shape (n, size); a number that never varies keeps a spread of 1."""
        spread = vectors.std(dim=0, correction=0)
        self.centre.copy_(vectors.mean(dim=0))
        self.spread.copy_(torch.where(spread > 1e-6 * (1 + self.centre.abs()), spread, 1.0))

    def forward(self, vectors: Tensor, draws: Tensor) -> Tensor:
        """Return the negative evidence lower bound of each vector, shape (batch,), in nats of standardised numbers.

        Args:
            vectors: shape (batch, size).
            draws: standard normal, shape (batch, latent_dim).
        """
        standard = (vectors - self.centre) / self.spread
        mean, log_variance = self.head(self.encoder(standard)).chunk(2, dim=1)
        z = latent.reparameterised(mean, log_variance, draws)
        return latent.gaussian_kl(mean, log_variance).sum(dim=1) - self._log_likelihood(standard, z)

    def _log_likelihood(self, standard: Tensor, z: Tensor) -> Tensor:
        scale = LEAST_LOG_SCALE + nn.functional.softplus(self.log_scale[0] - LEAST_LOG_SCALE)
        return log_prob("gaussian", standard, self.decoder(z), scale).sum(dim=-1)

    @torch.no_grad()
    def log_likelihood(self, vectors: Tensor, num_importance_samples: int) -> Tensor:
        """Return the importance-weighted estimate of log p(x), shape (batch,); a function of the vector alone.

        Every vector has the same draws of the standard normal, which its posterior moves: so the estimate depends on no
        neighbour and no place in a file, and two vectors are compared under the same luck.
        """
        part = max(1, AT_ONCE // num_importance_samples)
        if len(vectors) > part:
            parts = [self.log_likelihood(each, num_importance_samples) for each in vectors.split(part)]
            return torch.cat(parts)
        keys = noise.keys(0, noise.FIXED, torch.arange(num_importance_samples, device=vectors.device))
        draws = noise.normal(keys, self.config.latent_dim, DRAWS)[:, None]
        standard = (vectors - self.centre) / self.spread
        mean, log_variance = self.head(self.encoder(standard)).chunk(2, dim=1)
        z = latent.reparameterised(mean, log_variance, draws)
        prior = latent.log_normal(z, torch.zeros_like(z), torch.zeros_like(z))
        ratio = prior - latent.log_normal(z, mean, log_variance)
        return latent.importance_weighted(self._log_likelihood(standard, z) + ratio)
