"""The rules of the game: what each player loses on a batch, all random numbers drawn from the rows' keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune.models import noise
from finetune.training.adversarial.augment import augmented
from finetune.training.adversarial.losses import Loss, discriminator_losses, generator_losses
from finetune.training.adversarial.penalties import one_centred, slopes, zero_centred

# Streams of random numbers; an augmentation takes three.
MIX = 1
LATENTS = {"discriminator": 2, "generator": 3}
NOISE = {"real": 4, "fake": 5}
SEEN = {
    ("discriminator", "real"): 10,
    ("discriminator", "fake"): 13,
    ("generator", "real"): 16,
    ("generator", "fake"): 19,
}


@dataclass(frozen=True)
class Judged:
    """The discriminator's loss, and how it judged: each a sum over the rows of a batch."""

    loss: Tensor
    real_right: Tensor  # real images with a logit above 0
    fake_right: Tensor  # generated images with a logit below 0
    pair_right: Tensor  # pairs in which the real image has the higher logit: all that a relativistic loss asks
    gap: Tensor  # logit of the real minus that of the generated image: a critic's estimate of the distance


@dataclass(frozen=True)
class Game:
    """How the two players are scored against each other."""

    loss: Loss
    r1_gamma: float = 0.0  # times half the squared slope at real images
    r2_gamma: float = 0.0  # the same at generated ones
    gp_weight: float = 0.0  # times (slope - 1) squared between real and generated ones
    diffaugment: tuple[str, ...] = ()
    instance_noise: float = 0.0  # standard deviation at the start, falling linearly to 0 at the end of training

    def discriminator(self, discriminator: Any, generator: Any, latent_dim: int, batch: dict[str, Any]) -> Judged:
        """Return the discriminator's loss with its penalties, summed over rows; the generator learns nothing.

        Args:
            discriminator: (images, classes) → logits; called through what is wrapped around it for training.
            generator: (latents, classes) → images in [-1, 1].
            latent_dim: standard normal numbers an image.
            batch: "pixel_values", "keys", "progress" and, for conditional players, "condition".
        """
        player, keys, condition = "discriminator", batch["keys"], batch.get("condition")
        real = batch["pixel_values"]
        with torch.no_grad():
            fake = generator(noise.normal(keys, latent_dim, LATENTS[player]), condition)
        images = torch.cat((real, fake.to(real.dtype)))
        both = None if condition is None else torch.cat((condition, condition))
        penalised = bool(self.r1_gamma or self.r2_gamma)
        images.requires_grad_(penalised)

        def judge(pairs: Tensor) -> Tensor:
            real, fake = pairs.chunk(2)
            return discriminator(
                torch.cat((self._seen(real, player, "real", batch), self._seen(fake, player, "fake", batch))), both
            )

        logits = judge(images)
        real_logits, fake_logits = logits.float().chunk(2)
        losses = discriminator_losses(self.loss, real_logits, fake_logits)
        if penalised:
            at_real, at_fake = zero_centred(slopes(judge, images, logits)).chunk(2)
            losses = losses + self.r1_gamma / 2 * at_real + self.r2_gamma / 2 * at_fake
        if self.gp_weight:
            share = noise.uniform(keys, 1, MIX)[:, :, None, None]
            between = (share * real + (1 - share) * fake).requires_grad_()
            losses = losses + self.gp_weight * one_centred(slopes(lambda each: discriminator(each, condition), between))
        return Judged(
            losses.sum(),
            (real_logits > 0).sum(),
            (fake_logits < 0).sum(),
            (real_logits > fake_logits).sum(),
            (real_logits - fake_logits).detach().sum(),
        )

    def generator(self, generator: Any, discriminator: Any, latent_dim: int, batch: dict[str, Any]) -> Tensor:
        """Return the generator's loss, summed over rows; the discriminator's weights take no gradient."""
        player, keys, condition = "generator", batch["keys"], batch.get("condition")
        fake = generator(noise.normal(keys, latent_dim, LATENTS[player]), condition)
        logits = discriminator(self._seen(fake, player, "fake", batch), condition)
        real = None
        if self.loss == "r3gan":
            with torch.no_grad():
                real = discriminator(self._seen(batch["pixel_values"], player, "real", batch), condition).float()
        return generator_losses(self.loss, real, logits.float()).sum()

    def _seen(self, images: Tensor, player: str, kind: str, batch: dict[str, Any]) -> Tensor:
        """Return images as the discriminator sees them: noisy and augmented."""
        keys, left = batch["keys"], 1.0 - batch["progress"]
        if self.instance_noise:
            drawn = noise.normal(keys, images[0].numel(), NOISE[kind] + (2 if player == "generator" else 0))
            images = images + self.instance_noise * left * drawn.view_as(images)
        return augmented(images, self.diffaugment, keys, SEEN[player, kind])
