"""The plain networks of image autoencoders: dense layers, halving and doubling convolutions, at any image size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import initialization as init

from finetune.models.likelihoods import FIRST_LOG_SCALE, PixelLikelihood

LEAST_SIDE = 7  # pixels: `stages` halves until no more than this many are left


def stages(image_size: int) -> int:
    """Return how often an image is halved until at most 7 pixels a side are left: 2 for 28, 3 for 32, 4 for 64."""
    count = 0
    while image_size >> count > LEAST_SIDE:
        count += 1
    return count


class Dense(nn.Sequential):
    """Linear layers with ReLU after each: (batch, inputs) → (batch, sizes[-1])."""

    def __init__(self, inputs: int, sizes: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for width in sizes:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        super().__init__(*layers)


class Shrink(nn.Sequential):
    """Convolutions that halve the side, each with ReLU: (batch, C, size, size) → (batch, channels[-1], side, side)."""

    def __init__(self, num_channels: int, channels: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for width in channels:
            layers += [nn.Conv2d(num_channels, width, kernel_size=4, stride=2, padding=1), nn.ReLU()]
            num_channels = width
        super().__init__(*layers)


class Grow(nn.Sequential):
    """Transposed convolutions that undo `Shrink`, to the pixel also where a side was odd; no ReLU after the last."""

    def __init__(self, image_size: int, num_channels: int, channels: Sequence[int]) -> None:
        widths = [num_channels, *channels]
        layers: list[nn.Module] = []
        for place in reversed(range(len(channels))):
            odd = image_size >> place & 1
            grown = nn.ConvTranspose2d(widths[place + 1], widths[place], 4, stride=2, padding=1, output_padding=odd)
            layers += [grown, nn.ReLU()] if place else [grown]
        super().__init__(*layers)


def initialise(module: nn.Module) -> None:
    """Give a layer the weights that torch would give it, and not transformers' normal ones of 0.02.

    With a gain for ReLU's loss of variance they would start better; torch's are what published networks of this size
    were trained from (Kingma & Welling's code and its many copies).
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        init.kaiming_uniform_(module.weight, a=math.sqrt(5))
        if module.bias is not None:
            bound = 1 / math.sqrt(math.prod(module.weight.shape[1:]))  # of a transposed convolution, too
            init.uniform_(module.bias, -bound, bound)
    elif isinstance(module, PixelLikelihood) and module.learned:
        init.constant_(module.log_scale, FIRST_LOG_SCALE)


def with_classes(values: Tensor, condition: Tensor | None, num_classes: int) -> Tensor:
    """Return the values with the class of each row beside them, as one of `num_classes` ones; as they are without.

    Args:
        values: shape (batch, features).
        condition: shape (batch,), the class numbers.
        num_classes: 0 for a network that knows no classes.

    Raises:
        ValueError: a conditional network got no classes, or another one got some.
    """
    if not num_classes:
        if condition is not None:
            raise ValueError("this model knows no classes: num_classes is 0")
        return values
    if condition is None:
        raise ValueError(f"this model is conditional on {num_classes} classes: it needs `condition`")
    ones = nn.functional.one_hot(condition.to(torch.int64), num_classes).to(values)
    return torch.cat((values, ones), dim=1)
