"""What each player loses, one number a row, from the logits of real and generated images.

Adding up is left to the caller: the trainer divides sums once by the number of rows of the whole step.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Loss = Literal["bce", "hinge", "wgan-gp", "r3gan"]
BETAS: dict[Loss, tuple[float, float]] = {  # of Adam, as the authors of each loss had them
    "bce": (0.5, 0.999),
    "hinge": (0.0, 0.9),
    "wgan-gp": (0.0, 0.9),
    "r3gan": (0.0, 0.99),
}


def discriminator_losses(loss: Loss, real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's loss of each row, shape (batch,), without penalties.

    bce: Goodfellow et al. 2014 (arXiv:1406.2661), in nats; hinge: Lim & Ye 2017 (arXiv:1705.02894); wgan-gp: Gulrajani
    et al. 2017 (arXiv:1704.00028); r3gan: the relativistic pairing of Huang et al. 2024 (arXiv:2501.05441).

    Args:
        loss: which one.
        real, fake: shape (batch,), the logits of a real and a generated image; a pair a row.
    """
    if loss == "bce":
        return F.softplus(-real) + F.softplus(fake)
    if loss == "hinge":
        return F.relu(1 - real) + F.relu(1 + fake)
    if loss == "wgan-gp":
        return fake - real
    return F.softplus(fake - real)


def generator_losses(loss: Loss, real: Tensor | None, fake: Tensor) -> Tensor:
    """Return the generator's loss of each row, shape (batch,); r3gan alone looks at the real images too.

    bce is the non-saturating form: minus the logarithm of the probability that a fake is taken for real.
    """
    if loss == "bce":
        return F.softplus(-fake)
    if loss == "r3gan":
        assert real is not None
        return F.softplus(real - fake)
    return -fake
