"""Small classifiers of images, for 8 to 256 pixels a side: a LeNet and a ResNet without batch statistics."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput

LEAST_SIDE = 7  # pixels: halved until no more are left
PRESETS = ("lenet", "resnet")
GROUPS = 8  # of a group norm


@strict
class ImageClassifierConfig(PreTrainedConfig):
    """The layers of a small classifier of images.

    `preset` fills in what is not given. "lenet" (the default): a 3 x 3 convolution with ReLU and a halving for each of
    `channels` (32, 64, … as the size asks), then a layer of `hidden` (64 to 16 pixels, 128 above). "resnet": a stage of
    `blocks` (2) residual blocks for each of `channels` (16, 32, 64, …), each stage but the first halving, then the mean
    over all places; `hidden` 0: the features are that mean.
    """

    model_type = "finetune-image-classifier"

    preset: str | None = None
    image_size: int = 28  # pixels a side
    num_channels: int = 1  # 1 grey, 3 colour
    channels: list[int] | tuple[int, ...] | None = None
    hidden: int | None = None  # width of the layer before the last, which `features` returns; 0: none
    blocks: int | None = None  # residual blocks a stage

    def __post_init__(self, **kwargs: Any) -> None:
        preset = self.preset or "lenet"
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r} is not known: {', '.join(PRESETS)}")
        halvings = max(2, next(count for count in range(9) if self.image_size >> count <= LEAST_SIDE))
        first, stages = (32, halvings) if preset == "lenet" else (16, 1 + halvings)
        lenet = preset == "lenet"
        filling: dict[str, Any] = {
            "channels": [min(256, first << place) for place in range(stages)],
            "hidden": (64 if self.image_size <= 16 else 128) if lenet else 0,
            "blocks": 0 if lenet else 2,
        }
        for name, value in filling.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        self.channels = list(self.channels or ())
        _check(self)
        super().__post_init__(**kwargs)

    def widths(self) -> tuple[list[int], int, int]:
        """Return channels, hidden and blocks, as they are once the preset has filled them in."""
        return list(self.channels or ()), self.hidden or 0, self.blocks or 0


def _check(config: ImageClassifierConfig) -> None:
    channels, hidden, blocks = config.widths()
    if not 8 <= config.image_size <= 256 or config.num_channels not in (1, 3):
        raise ValueError("image_size lies between 8 and 256, and num_channels is 1 or 3")
    if not channels or min(*channels, hidden + 1, blocks + 1, 1) < 1:
        raise ValueError("channels are numbers from 1 on, hidden and blocks from 0 on")
    if config.image_size >> (len(channels) - bool(blocks)) < 1:
        raise ValueError(f"channels: {len(channels)} stages leave nothing of {config.image_size} pixels")


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al. 2016, arXiv:1603.05027, normalised before each).

    Group norm (Wu & He 2018, arXiv:1803.08494) instead of batch norm: an image's features do not depend on the images
    beside it, so accumulated steps and several processes are exact.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(inputs), nn.ReLU(), _conv(inputs, outputs, stride))
        self.second = nn.Sequential(_norm(outputs), nn.ReLU(), _conv(outputs, outputs, 1))
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, side, side) to (batch, outputs, side / stride, side / stride)."""
        return self.shortcut(x) + self.second(self.first(x))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS if width % GROUPS == 0 else 1, width)


def _conv(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _lenet(config: ImageClassifierConfig) -> nn.Sequential:
    channels, hidden, _ = config.widths()
    layers: list[nn.Module] = []
    inputs, side = config.num_channels, config.image_size
    for width in channels:
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        inputs, side = width, side // 2
    layers += [nn.Flatten()]
    layers += [nn.Linear(inputs * side * side, hidden), nn.ReLU()] if hidden else []
    return nn.Sequential(*layers)


def _resnet(config: ImageClassifierConfig) -> nn.Sequential:
    channels, hidden, blocks = config.widths()
    layers: list[nn.Module] = [_conv(config.num_channels, channels[0], 1)]
    inputs = channels[0]
    for stage, width in enumerate(channels):
        for block in range(blocks):
            layers.append(Residual(inputs, width, stride=2 if stage and not block else 1))
            inputs = width
    layers += [_norm(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Linear(inputs, hidden), nn.ReLU()] if hidden else []
    return nn.Sequential(*layers)


class ImageClassifier(PreTrainedModel):
    """Convolutions, a layer of features, and a linear layer of one number a class."""

    config_class = ImageClassifierConfig
    base_model_prefix = "body"
    main_input_name = "pixel_values"
    accepts_loss_kwargs: ClassVar[bool] = False  # else the stock Trainer multiplies the loss by the accumulation

    def __init__(self, config: ImageClassifierConfig) -> None:
        super().__init__(config)
        channels, hidden, blocks = config.widths()
        side = config.image_size >> len(channels)
        width = hidden or (channels[-1] if blocks else channels[-1] * side * side)
        self.body = _resnet(config) if blocks else _lenet(config)
        self.classifier = nn.Linear(width, config.num_labels or 0)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Draw new weights: a LeNet's as torch draws those of its layers, a ResNet's for ReLU (He et al. 2015).

        Distances between features go with the square of their scale, and a LeNet's keep the scale they start from:
        within ±1 / √inputs a trained one's features vary about a quarter as much as after He et al., and tell the
        digits apart as well. The last layer of a ResNet is small: training starts undecided.
        """
        if not isinstance(module, nn.Linear | nn.Conv2d):
            return
        if not self.config.blocks:
            bound = module.weight[0].numel() ** -0.5
            for each in module.parameters(recurse=False):
                init.uniform_(each, -bound, bound)
            return
        init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module is getattr(self, "classifier", None):
            init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            init.zeros_(module.bias)

    def features(self, pixel_values: Tensor) -> Tensor:
        """Return what goes into the last layer: the space in which sets of images are compared.

        Args:
            pixel_values: shape (batch, num_channels, image_size, image_size), normalised as in training.

        Returns:
            Shape (batch, width): `hidden`, or the last of `channels` of a ResNet.
        """
        return self.body(pixel_values.to(self.dtype))

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        """Return logits (batch, classes), and the mean cross entropy where labels (batch,) are given."""
        if pixel_values.shape[1:] != (self.config.num_channels, self.config.image_size, self.config.image_size):
            wanted = (self.config.num_channels, self.config.image_size, self.config.image_size)
            raise ValueError(f"images of shape {tuple(pixel_values.shape[1:])} where the model takes {wanted}")
        logits = self.classifier(self.features(pixel_values))
        loss = None if labels is None else nn.functional.cross_entropy(logits.float(), labels)
        return ImageClassifierOutput(loss=loss, logits=logits)
