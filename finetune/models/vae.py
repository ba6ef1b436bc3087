"""The variational autoencoder of images (Kingma & Welling 2014, arXiv:1312.6114), dense or convolutional."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from finetune.models import latent, noise
from finetune.models.image_networks import Dense, Grow, Shrink, initialise, with_classes
from finetune.models.likelihoods import PixelLikelihood, binarised, full
from finetune.models.vae_config import VAEConfig

POSTERIOR, PRIOR = 12, 13  # the streams of what is drawn
AT_ONCE = 4096  # images that are decoded at once


@dataclass
class VAEOutput(ModelOutput):
    """What a VAE says of images; nats an image, summed over pixels."""

    loss: Tensor | None = None  # shape (): reconstruction_loss and weighted kl, or the IWAE bound; mean over the batch
    reconstruction_loss: Tensor | None = None  # shape (batch,): -log p(x | z), the mean over the draws of z
    kl: Tensor | None = None  # shape (batch, latent_dim)
    mean: Tensor | None = None  # shape (batch, latent_dim), of the posterior
    log_variance: Tensor | None = None  # shape (batch, latent_dim), of the posterior
    bits_per_dim: Tensor | None = None  # shape (batch,): of the bound; None for Bernoulli on grey, a cross entropy


@dataclass(frozen=True)
class Posterior:
    """The diagonal Gaussian that the encoder names for each image; both of shape (batch, latent_dim)."""

    mean: Tensor
    log_variance: Tensor

    def draw(self, keys: Tensor, samples: range = range(1)) -> Tensor:
        """Return the numbered draws of each row, of shape (len(samples), batch, latent_dim).

        A draw belongs to its row's key and to its number: it is the same in whatever part it is asked for.
        """
        numbers = torch.arange(samples.start, samples.stop, device=keys.device)[:, None]
        each = noise.keys(0, 0, (keys[None] + (numbers + 1) * noise.GOLDEN).flatten())
        drawn = noise.normal(each, self.mean.shape[1], POSTERIOR).to(self.mean)
        return latent.reparameterised(self.mean, self.log_variance, drawn.view(len(samples), *self.mean.shape))


class VAE(PreTrainedModel):
    """p(x | z) p(z) with a standard normal prior, and a Gaussian posterior that an encoder names."""

    config_class = VAEConfig
    base_model_prefix = "vae"
    main_input_name = "pixel_values"
    accepts_loss_kwargs: ClassVar[bool] = False  # else the stock Trainer multiplies the loss by the accumulation

    def __init__(self, config: VAEConfig) -> None:
        super().__init__(config)
        latent_dim, hidden, channels = config.sizes()
        code = latent_dim + config.num_classes
        side = config.image_size >> len(channels)
        shape = (channels[-1] if channels else config.num_channels, side, side)
        flat = shape[0] * side * side
        self.shrink = Shrink(config.num_channels, channels)
        self.encoder = Dense(flat + config.num_classes, hidden)
        self.head = nn.Linear(hidden[-1] if hidden else flat + config.num_classes, 2 * latent_dim)
        self.decoder = Dense(code, hidden[::-1])
        grown: list[nn.Module] = [nn.Linear(hidden[0] if hidden else code, flat)]
        grown += [nn.ReLU()] if channels else []
        self.grow = nn.Sequential(
            *grown, nn.Unflatten(1, shape), Grow(config.image_size, config.num_channels, channels)
        )
        self.likelihood = PixelLikelihood(config.likelihood, config.scale, config.binarize)  # type: ignore[arg-type]
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        initialise(module)

    def encode(self, pixel_values: Tensor, condition: Tensor | None = None, keys: Tensor | None = None) -> Posterior:
        """Return the posterior of images in [0, 1]; `keys` are for dynamic binarisation."""
        return self._encode(binarised(pixel_values, self.config.binarize, keys), condition)

    def _encode(self, pixels: Tensor, condition: Tensor | None) -> Posterior:
        pixels = pixels.to(self.dtype)
        flat = with_classes(self.shrink(pixels).flatten(1), condition, self.config.num_classes)
        return Posterior(*full(self.head(self.encoder(flat))).chunk(2, dim=1))

    def decode(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the mean image of each latent, of shape (batch, channels, size, size), in [0, 1]."""
        return self.likelihood.means(self._said(z, condition))

    def _said(self, z: Tensor, condition: Tensor | None) -> Tensor:
        features = self.decoder(with_classes(z.to(self.dtype), condition, self.config.num_classes))
        return full(self.grow(features))

    def _log_likelihood(self, pixels: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        """Return log p(x | z) of shape (k, batch), for pixels (batch, ...) and z (k, batch, latent_dim)."""
        repeated = None if condition is None else condition.repeat(len(z))
        said = self._said(z.flatten(0, 1), repeated)
        return self.likelihood(pixels, said.view(len(z), *pixels.shape))

    def forward(
        self,
        pixel_values: Tensor,
        condition: Tensor | None = None,
        keys: Tensor | None = None,
        kl_weight: Tensor | float = 1.0,
        free_bits: float = 0.0,
        objective: Literal["elbo", "iwae"] = "elbo",
        num_samples: int = 1,
        return_loss: bool = True,
    ) -> VAEOutput:
        """Return the negative evidence lower bound of images and its parts.

        Args:
            pixel_values: shape (batch, channels, size, size), in [0, 1].
            condition: shape (batch,), classes of a conditional model.
            keys: shape (batch,), of finetune.models.noise; left out, they are drawn from torch's generator.
            kl_weight: of the divergence in `loss` (β, and its warm-up).
            free_bits: nats an image that cost nothing, see `latent.with_free_bits`.
            objective: "elbo", or "iwae" for the importance-weighted bound, which knows neither weight nor free bits.
            num_samples: draws of z an image.
            return_loss: False leaves `loss` out.
        """
        keys = self.fresh_keys(len(pixel_values)) if keys is None else keys
        pixels = binarised(full(pixel_values), self.config.binarize, keys)
        posterior = self._encode(pixels, condition)
        z = posterior.draw(keys, range(num_samples))
        likelihood = self._log_likelihood(pixels, z, condition)
        kl = latent.gaussian_kl(posterior.mean, posterior.log_variance)
        reconstruction = -likelihood.mean(dim=0)
        loss = None
        if return_loss and objective == "iwae":
            loss = -latent.importance_weighted(likelihood + _log_ratio(z, posterior)).mean()
        elif return_loss:
            loss = (reconstruction + kl_weight * latent.with_free_bits(kl, free_bits)).mean()
        bits = self.likelihood.bits_per_dim(reconstruction + kl.sum(dim=1), pixels[0].numel())
        return VAEOutput(loss, reconstruction, kl, posterior.mean, posterior.log_variance, bits)

    def reconstruct(
        self, pixel_values: Tensor, condition: Tensor | None = None, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return each posterior's numbers, of shape (batch, 2 * latent_dim), and the image of its mean."""
        posterior = self.encode(pixel_values, condition, keys)
        images = self.decode(posterior.mean, condition)
        return torch.cat((posterior.mean, posterior.log_variance), dim=1), images

    @torch.no_grad()
    def log_likelihood(
        self,
        pixel_values: Tensor,
        num_importance_samples: int = 1000,
        condition: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> Tensor:
        """Return the importance-weighted estimate of log p(x), shape (batch,), in nats; see `importance_weighted`.

        A lower bound in expectation, tighter with more samples. At most about 4,096 images are decoded at once.
        """
        keys = self.fresh_keys(len(pixel_values)) if keys is None else keys
        pixels = binarised(full(pixel_values), self.config.binarize, keys)
        posterior = self._encode(pixels, condition)
        part = max(1, AT_ONCE // len(pixels))
        weights = []
        for start in range(0, num_importance_samples, part):
            z = posterior.draw(keys, range(start, min(start + part, num_importance_samples)))
            weights.append(self._log_likelihood(pixels, z, condition) + _log_ratio(z, posterior))
        return latent.importance_weighted(torch.cat(weights))

    def fresh_keys(self, count: int) -> Tensor:
        """Return keys from torch's own generator, for who has none."""
        return torch.randint(-(2**62), 2**62, (count,)).to(self.device)

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0, condition: Tensor | None = None) -> Tensor:
        """Return the means of `count` draws from the prior, of shape (count, channels, size, size), in [0, 1].

        Classes take turns in a conditional model without `condition`.
        """
        if self.config.num_classes and condition is None:
            condition = torch.arange(count, device=self.device) % self.config.num_classes
        return self.decode(self.prior(count, seed), condition)

    def prior(self, count: int, seed: int = 0) -> Tensor:
        """Return `count` draws of the standard normal prior, of shape (count, latent_dim); the first ones of more."""
        keys = noise.keys(seed, noise.FIXED, torch.arange(count, device=self.device))
        return noise.normal(keys, self.config.latent_dim, PRIOR)

    @torch.no_grad()
    def interpolate(self, start: Tensor, end: Tensor, steps: int, condition: Tensor | None = None) -> Tensor:
        """Return the images on the lines between latents, of shape (lines * steps, channels, size, size).

        Args:
            start, end: shape (lines, latent_dim).
            steps: images a line, the two ends among them.
            condition: shape (lines,).
        """
        share = torch.linspace(0, 1, steps, device=start.device)[None, :, None]
        walks = (start[:, None] * (1 - share) + end[:, None] * share).flatten(0, 1)
        return self.decode(walks, None if condition is None else condition.repeat_interleave(steps))

    @torch.no_grad()
    def traverse(self, z: Tensor, dimensions: Sequence[int], values: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return one latent's images with one dimension after the other set to each value.

        Args:
            z: shape (latent_dim,).
            dimensions: which are walked along.
            values: shape (steps,).
            condition: shape (), the class.

        Returns:
            Shape (len(dimensions) * steps, channels, size, size), in [0, 1].
        """
        walks = z.repeat(len(dimensions), len(values), 1)
        for place, dimension in enumerate(dimensions):
            walks[place, :, dimension] = values
        repeated = None if condition is None else condition.reshape(1).repeat(len(dimensions) * len(values))
        return self.decode(walks.flatten(0, 1), repeated)


def _log_ratio(z: Tensor, posterior: Posterior) -> Tensor:
    """Return log p(z) - log q(z | x) of shape (k, batch)."""
    prior = latent.log_normal(z, torch.zeros_like(z), torch.zeros_like(z))
    return prior - latent.log_normal(z, posterior.mean, posterior.log_variance)
