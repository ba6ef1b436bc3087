"""Image processors: read from a source, or made for images that are trained on from scratch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from finetune.foreign.bounds import check_sizes
from finetune.foreign.files import read_object
from finetune.loading.failures import one_line, quiet
from finetune.loading.merged import base_options, holds_adapter
from finetune.loading.options import ModelOptions
from finetune.loading.source import locate

FILE = "preprocessor_config.json"


def load_image_processor(options: ModelOptions, size: int, channels: int, mean: float, std: float) -> Any:
    """Return the image processor of `options.tokenizer` or `options.path`, or else one of the given numbers.

    Only its `image_mean` and `image_std` are used here, for the rows hold images of the right size already. It is
    saved with the run as preprocessor_config.json, so that other programs read images as the model was trained.

    Args:
        options: a folder without preprocessor_config.json counts as none.
        size: the images' side, pixels.
        channels: 1 or 3.
        mean, std: of a pixel from 0 to 1: the model sees (pixel - mean) / std, the same in every channel.

    Raises:
        UserError: the file there is damaged.
        EnvironmentFailed: the Hub cannot be reached.
    """
    from transformers import AutoImageProcessor

    place = options.tokenizer or options.path
    if place is None:
        return _new(size, channels, mean, std)
    option = "model.path" if options.tokenizer is None else "model.tokenizer"
    if options.tokenizer is not None:  # the revision and the GGUF file are those of the weights
        options = replace(options, path=place, tokenizer=None, revision=None, gguf_file=None)
    source = locate(options, option)
    if source.folder is not None and not (source.folder / FILE).is_file():
        if holds_adapter(source.folder):
            return load_image_processor(base_options(source.folder, options), size, channels, mean, std)
        return _new(size, channels, mean, std)
    if (said := source.file(FILE)) is not None:
        check_sizes(read_object(said), said, f"{option}: {place}")
    with one_line(f"{option}: the image processor of {place}"), quiet():
        return AutoImageProcessor.from_pretrained(
            source.place, backend="pil", trust_remote_code=options.trust_remote_code, **source.keywords()
        )


def _new(size: int, channels: int, mean: float, std: float) -> Any:
    from transformers import ViTImageProcessorPil  # resizes, scales and normalises, and needs no torchvision

    return ViTImageProcessorPil(
        size={"height": size, "width": size},
        image_mean=[mean] * channels,
        image_std=[std] * channels,
        do_convert_rgb=channels == 3,
    )
