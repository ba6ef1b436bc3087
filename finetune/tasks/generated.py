"""What generated images are worth beside real ones: every generator of images is examined here, in the same way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from finetune.task import Examination, Scores
from finetune.tasks.images import shape_of

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from finetune.evaluation.options import EvaluateOptions

MOST = 10_000  # held-out images that are looked at


def examine_generator(
    draw: Callable[[int], np.ndarray], inputs: dict[str, Dataset], options: EvaluateOptions, seed: int = 13
) -> Examination:
    """Compare generated images with held-out and training ones.

    Args:
        draw: from a number to so many images, uint8 of shape (n, size, size, channels), from a fixed seed.
        inputs: the encoded splits there are; the held-out one is test, else validation, else train.
        options: of the recipe's `evaluate` section: how many images are drawn, resamples, extractor.
        seed: of everything that is drawn here.
    """
    import numpy as np

    from finetune.evaluation.pixels import pixel_scores

    split = next(name for name in ("test", "validation", *inputs) if name in inputs)
    held = pixels(inputs[split], MOST)
    train = pixels(inputs["train"]) if "train" in inputs and split != "train" else None
    count = options.generated if train is None else min(options.generated, len(train))
    started = time.perf_counter()
    fake = draw(count)
    seconds = time.perf_counter() - started
    chosen = np.random.default_rng(seed)
    noise = chosen.integers(0, 256, fake.shape, dtype=np.uint8)
    scores = pixel_scores(fake, held, options.resamples, seed)
    baselines: dict[str, Scores] = {"noise": pixel_scores(noise, held, options.resamples, seed)}
    if train is not None:
        real = train[np.sort(chosen.permutation(len(train))[:count])]
        baselines = {"real": pixel_scores(real, held, options.resamples, seed), **baselines}
    facts: dict[str, Any] = {
        "generated": count,
        "held_out": len(held),
        "split": split,
        "samples_per_second": round(count / seconds, 1),
    }
    if train is None:
        facts["left_out"] = "the floor and the memorisation ratio: they need the training split"
    return Examination({split: scores}, baselines, {}, facts)


def pixels(inputs: Dataset, most: int | None = None) -> np.ndarray:
    """Return the first images of encoded inputs, uint8 of shape (n, size, size, channels)."""
    import numpy as np

    images = inputs.select(range(min(most or len(inputs), len(inputs))))["image"][:]
    size, channels = shape_of(images[0])
    return np.frombuffer(b"".join(images), dtype=np.uint8).reshape(len(images), size, size, channels)
