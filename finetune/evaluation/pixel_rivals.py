"""Simple rivals of an image classifier on the same test images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.evaluation.baselines import constant_answer, held_against
from finetune.evaluation.linear import line_model
from finetune.task import Scores

MOST = 5_000  # training images of the linear model: more make it slow, and hardly better


def pixel_baselines(
    pixels: dict[str, np.ndarray],
    targets: dict[str, np.ndarray],
    labels: Sequence[str],
    answers: np.ndarray,
    resamples: int,
    seed: int = 13,
) -> dict[str, Scores]:
    """Return the scores of the majority class and of logistic regression on pixels, on the test images.

    The rest is as of `text_baselines`.

    Args:
        pixels: by split ("train", "test", perhaps "validation"); uint8 of shape (n, width).
        targets: by split, class numbers of shape (n,).
        labels: their names.
        answers: the model's logits on the test images, shape (n, classes).
        resamples, seed: of the bootstrap.
    """
    test = targets["test"]
    rivals = {"majority": np.tile(constant_answer(targets["train"], len(labels), "single"), (len(test), 1))}
    chosen = np.sort(np.random.default_rng(seed).permutation(len(pixels["train"]))[:MOST])
    features = {name: (each[chosen] if name == "train" else each) / 255 for name, each in pixels.items()}
    linear = line_model(features, {**targets, "train": targets["train"][chosen]}, len(labels), "single", seed)
    if linear is not None:
        rivals["linear"] = linear
    return held_against(rivals, test, labels, "single", answers, resamples, seed)
