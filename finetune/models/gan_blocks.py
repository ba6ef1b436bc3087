"""The networks of the generators and discriminators: deconvolutions, residual blocks, or plain layers.

A generator body maps (batch, latent_dim + embedding) to (batch, channels, size, size) before the tanh; a
discriminator body maps images to features (batch, `features`). Every size from 8 to 256 is doublings of 4 to 7.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of LeakyReLU (Radford et al. 2015, arXiv:1511.06434)
WIDEST = 8  # the widest layer has this many times the channels of the one at full size


def stages(size: int) -> tuple[int, int]:
    """Return (the size to start from, how often it is doubled) so that the last is at least `size`."""
    doublings = max(size.bit_length() - 3, 1)
    return -(-size // 2**doublings), doublings


def widths(channels: int, count: int) -> list[int]:
    """Return the channels of `count` layers, from full size inwards: doubled each time, up to WIDEST times."""
    return [channels * min(2**place, WIDEST) for place in range(count)]


def cropped(images: Tensor, size: int) -> Tensor:
    """Return the middle `size` x `size` of images that are at least as large."""
    offset = (images.shape[-1] - size) // 2
    return images[..., offset : offset + size, offset : offset + size]


def _norm(norm: str, channels: int, flat: bool = False) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    return nn.BatchNorm1d(channels) if flat else nn.BatchNorm2d(channels)


class DeconvolutionalGenerator(nn.Module):
    """DCGAN's generator: transposed convolutions with kernel 4 and stride 2 (Radford et al. 2015)."""

    def __init__(self, inputs: int, channels: int, size: int, colours: int, norm: str) -> None:
        super().__init__()
        start, doublings = stages(size)
        wide = widths(channels, doublings)[::-1]
        self.size = size
        layers: list[nn.Module] = [nn.ConvTranspose2d(inputs, wide[0], start, bias=norm == "none")]
        for before, after in itertools.pairwise(wide):
            layers += [_norm(norm, before), nn.ReLU(), nn.ConvTranspose2d(before, after, 4, 2, 1, bias=norm == "none")]
        layers += [_norm(norm, wide[-1]), nn.ReLU(), nn.ConvTranspose2d(wide[-1], colours, 4, 2, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        return cropped(self.layers(latents[:, :, None, None]), self.size)


class ConvolutionalBody(nn.Module):
    """DCGAN's discriminator: convolutions with kernel 4 and stride 2, LeakyReLU, no normalisation."""

    def __init__(self, channels: int, size: int, colours: int) -> None:
        super().__init__()
        _, doublings = stages(size)
        wide = widths(channels, doublings)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise([colours, *wide]):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.features = wide[-1] * (size >> doublings) ** 2

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


class UpBlock(nn.Module):
    """A residual block that doubles the size (Miyato et al. 2018, arXiv:1802.05957, appendix B.4)."""

    def __init__(self, before: int, after: int, norm: str) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = _norm(norm, before), _norm(norm, after)
        self.conv_1, self.conv_2 = nn.Conv2d(before, after, 3, 1, 1), nn.Conv2d(after, after, 3, 1, 1)
        self.skip = nn.Conv2d(before, after, 1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv_1(F.interpolate(F.relu(self.norm_1(images)), scale_factor=2))
        hidden = self.conv_2(F.relu(self.norm_2(hidden)))
        return hidden + F.interpolate(self.skip(images), scale_factor=2)


class DownBlock(nn.Module):
    """A residual block that halves the size; the first of a network does not begin with an activation."""

    def __init__(self, before: int, after: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.conv_1, self.conv_2 = nn.Conv2d(before, after, 3, 1, 1), nn.Conv2d(after, after, 3, 1, 1)
        self.skip = nn.Conv2d(before, after, 1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv_1(images if self.first else F.leaky_relu(images, SLOPE))
        hidden = F.avg_pool2d(self.conv_2(F.leaky_relu(hidden, SLOPE)), 2)
        return hidden + self.skip(F.avg_pool2d(images, 2))


class ResidualGenerator(nn.Module):
    """A generator of residual blocks with nearest-neighbour upsampling (Miyato et al. 2018)."""

    def __init__(self, inputs: int, channels: int, size: int, colours: int, norm: str) -> None:
        super().__init__()
        self.start, doublings = stages(size)
        wide = widths(channels, doublings + 1)[::-1]
        self.size = size
        self.first = nn.Linear(inputs, wide[0] * self.start**2)
        self.blocks = nn.Sequential(*(UpBlock(*pair, norm) for pair in itertools.pairwise(wide)))
        self.last = nn.Sequential(_norm(norm, wide[-1]), nn.ReLU(), nn.Conv2d(wide[-1], colours, 3, 1, 1))

    def forward(self, latents: Tensor) -> Tensor:
        hidden = self.first(latents).view(len(latents), -1, self.start, self.start)
        return cropped(self.last(self.blocks(hidden)), self.size)


class ResidualBody(nn.Module):
    """A discriminator of residual blocks; its features are sums over the last image (Miyato et al. 2018)."""

    def __init__(self, channels: int, size: int, colours: int) -> None:
        super().__init__()
        _, doublings = stages(size)
        wide = [colours, *widths(channels, doublings)]
        pairs = enumerate(itertools.pairwise(wide))
        self.blocks = nn.Sequential(*(DownBlock(*pair, first=place == 0) for place, pair in pairs))
        self.features = wide[-1]

    def forward(self, images: Tensor) -> Tensor:
        return F.leaky_relu(self.blocks(images), SLOPE).sum(dim=(2, 3))


class PlainGenerator(nn.Module):
    """A generator of fully connected layers, for tiny images."""

    def __init__(self, inputs: int, hidden_sizes: Sequence[int], size: int, colours: int, norm: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise([inputs, *hidden_sizes]):
            layers += [nn.Linear(before, after), _norm(norm, after, flat=True), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear([inputs, *hidden_sizes][-1], colours * size * size))
        self.shape = (colours, size, size)

    def forward(self, latents: Tensor) -> Tensor:
        return torch.unflatten(self.layers(latents), 1, self.shape)


class PlainBody(nn.Module):
    """A discriminator of fully connected layers, for tiny images."""

    def __init__(self, hidden_sizes: Sequence[int], size: int, colours: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise([colours * size * size, *hidden_sizes]):
            layers += [nn.Linear(before, after), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers)
        self.features = hidden_sizes[-1]

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features
