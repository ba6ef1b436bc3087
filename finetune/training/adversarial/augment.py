"""DiffAugment: the same kind of random change for real and generated images, differentiable, by row keys.

After Zhao et al. 2020 (arXiv:2006.10738). What is seen of an image is drawn from its row's key, so it does not matter
how rows fall into batches. Pixels are in [-1, 1]; what is moved in or cut out is 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from finetune.models import noise

SHIFT = 8  # images move by up to an eighth of their side
HOLE = 2  # a square of half the side is cut out


def translation(images: Tensor, random: Tensor) -> Tensor:
    """Return images moved by whole pixels; `random` has shape (batch, 2), in (0, 1)."""
    size = images.shape[-1]
    most = max(size // SHIFT, 1)
    shift = (random * (2 * most + 1)).long()  # from 0 to 2 * most: where the window stands in the padded image
    place = torch.arange(size, device=images.device)
    rows, columns = shift[:, :1] + place, shift[:, 1:] + place
    padded = F.pad(images, (most, most, most, most))
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor, random: Tensor) -> Tensor:
    """Return images with a square of half the side set to 0; `random` (batch, 2) says where its middle stands."""
    size = images.shape[-1]
    hole = max(size // HOLE, 1)
    first = (random * (size + 1 - hole % 2)).long() - hole // 2
    place = torch.arange(size, device=images.device)
    inside = (place >= first[..., None]) & (place < first[..., None] + hole)  # (batch, 2, size)
    mask = inside[:, 0, :, None] & inside[:, 1, None, :]
    return images * (~mask)[:, None].to(images.dtype)


def colour(images: Tensor, random: Tensor) -> Tensor:
    """Return images of other brightness, saturation and contrast; `random` has shape (batch, 3), in (0, 1)."""
    bright, saturation, contrast = (each[:, None, None, None] for each in random.unbind(dim=1))
    images = images + (bright - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * (2 * saturation) + grey
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - middle) * (contrast + 0.5) + middle


POLICIES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {  # and the random numbers a row
    "colour": (colour, 3),
    "translation": (translation, 2),
    "cutout": (cutout, 2),
}


def augmented(images: Tensor, policy: tuple[str, ...], keys: Tensor, stream: int) -> Tensor:
    """Return what the discriminator sees of images under a policy; colour comes first and cutout last.

    Args:
        images: shape (batch, channels, size, size).
        policy: names of POLICIES.
        keys: shape (batch,), of the rows.
        stream: of the random numbers; each policy takes one, counted from here.
    """
    for place, (name, (change, count)) in enumerate(POLICIES.items()):
        if name in policy:
            images = change(images, noise.uniform(keys, count, stream + place))
    return images
