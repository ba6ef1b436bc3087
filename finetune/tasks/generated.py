"""What generated images are worth beside real ones: every generator of images is examined here, in the same way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.task import Examination, Picture, Score, Scores
from finetune.tasks.images import shape_of

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from finetune.evaluation.inception import Inception
    from finetune.evaluation.options import EvaluateOptions
    from finetune.tasks.extractor import Extractor

MOST = 10_000  # held-out images that are looked at
SHOWN = 10  # generated images that are shown beside the nearest training image
# Each of these rates noise bad.
FIRST = ("fid", "kid", "fcd", "kcd", "coverage", "density", "cs", "c2st_features", "c2st_pixels", "swd")
LAST = ("recall", "precision", "memorisation")  # precision rates uniform noise high, and noise is no copy

COPIES = 0.5  # of the memorisation ratio
DROPPED = 0.7  # of the coverage of real training images
RARE = 0.1  # of a class's share of the held-out images
INTERVALS = (
    "fcd, kcd, swd: jackknife over 20 groups of each set; cs, coverage, density, recall, precision, c2st: bootstrap "
    "over rows, everything else held fixed; memorisation: bootstrap over generated and held-out images; fid, kid: "
    "none; all others: bootstrap over rows"
)
NO_EXTRACTOR = (
    "fcd, kcd, cs, coverage, density, recall, precision and c2st_features, which compare images in the features of a "
    "classifier. Train one on the same images (task.kind: image-classification) and name its run: "
    "--evaluate.extractor RUN"
)
NO_TRAIN = "the floor `real` and the memorisation ratio, which need the training images"


@dataclass(frozen=True)
class Comparison:
    """Sets of images and how they are compared."""

    held: np.ndarray  # uint8, shape (n, size, size, channels): real images that were not trained on
    extractor: Extractor | None
    inception: Inception | None
    resamples: int
    seed: int

    def scores(self, images: np.ndarray) -> Scores:
        """Return the scores of images against the held-out ones."""
        from finetune.evaluation.features import feature_scores
        from finetune.evaluation.pixels import pixel_scores

        found = pixel_scores(images, self.held, self.resamples, self.seed)
        if self.extractor is not None:
            ours, theirs = (self.extractor.look(each) for each in (images, self.held))
            found |= feature_scores(ours, theirs, self.resamples, self.seed)
        if self.inception is not None:
            found |= self.inception.scores(images)
        return ordered(found)


def examine_generator(
    draw: Callable[[int], np.ndarray], inputs: dict[str, Dataset], options: EvaluateOptions, seed: int = 13
) -> Examination:
    """Compare generated images with held-out ones, beside real training images and noise in their place.

    Args:
        draw: from a number to so many images, uint8 of shape (n, size, size, channels), from a fixed seed.
        inputs: the encoded splits there are; the held-out one is test, else validation, else train.
        options: of the recipe's `evaluate` section: how many images are drawn, resamples, extractor.
        seed: of everything that is drawn here.
    """
    import numpy as np

    from finetune.evaluation.inception import load_inception
    from finetune.tasks.extractor import load_extractor

    split = next(name for name in ("test", "validation", *inputs) if name in inputs)
    held = pixels(inputs[split], MOST)
    train = pixels(inputs["train"]) if "train" in inputs and split != "train" else None
    count = options.generated if train is None else min(options.generated, len(train))
    images, speed = _timed(draw, count)
    extractor = None if options.extractor is None else load_extractor(options.extractor)
    inception = load_inception(held) if options.inception else None
    compared = Comparison(held, extractor, inception, options.resamples, seed)
    chooser = np.random.default_rng(seed)
    noise = chooser.integers(0, 256, images.shape, dtype=np.uint8)
    scores = compared.scores(images)
    baselines = {"noise": compared.scores(noise)}
    facts: dict[str, Any] = {"split": split, "generated": count, "held_out": len(held), "intervals": INTERVALS, **speed}
    facts |= {} if inception is None else inception.facts()
    left_out: list[str] = []
    pictures: dict[str, Picture] = {}
    if extractor is None:
        left_out.append(NO_EXTRACTOR)
    else:
        facts |= extractor.facts(held.shape[1], held.shape[-1])
        shares = {"generated": class_shares(images, extractor), "held_out": class_shares(held, extractor)}
        facts["classes_seen"] = shares
    if train is None:
        left_out.append(NO_TRAIN)
    else:
        real = train[np.sort(chooser.permutation(len(train))[:count])]
        baselines = {"real": compared.scores(real), **baselines}
        copied, pictures, more = _copying(images, held, train, options.resamples, seed)
        scores = ordered(scores | copied)
        facts |= {"floor_images": len(real), **more}
    for line in left_out:
        print(f"Left out: {line}.", flush=True)
    facts |= {"left_out": left_out} if left_out else {}
    found = [*repeated(images), *missed(facts.get("classes_seen", {})), *alarms(scores, baselines)]
    return Examination({split: scores}, baselines, pictures, facts, tuple(found))


def ordered(scores: Scores) -> Scores:
    """Return scores in the order in which they are read: first those that uniform noise does not please."""
    return {name: scores[name] for name in (*FIRST, *LAST) if name in scores}


def pixels(inputs: Dataset, most: int | None = None) -> np.ndarray:
    """Return the first images of encoded inputs, uint8 of shape (n, size, size, channels)."""
    import numpy as np

    images = inputs.select(range(min(most or len(inputs), len(inputs))))["image"][:]
    size, channels = shape_of(images[0])
    return np.frombuffer(b"".join(images), dtype=np.uint8).reshape(len(images), size, size, channels)


def class_shares(images: np.ndarray, extractor: Extractor) -> dict[str, float]:
    """Return the share of images that the extractor puts into each class, by the class's name."""
    import numpy as np

    probabilities = extractor.look(images).probabilities
    shares = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1]) / len(probabilities)
    names: Any = extractor.model.config.id2label or {}
    return {names.get(number, str(number)): round(float(share), 4) for number, share in enumerate(shares)}


def repeated(images: np.ndarray) -> list[str]:
    """Return an alarm when many generated images are the same to the pixel."""
    distinct, count = len({image.tobytes() for image in images}), len(images)
    if distinct >= 0.9 * count:
        return []
    return [f"only {distinct:,} of {count:,} generated images are distinct: the generator repeats itself."]


def missed(shares: dict[str, dict[str, float]]) -> list[str]:
    """Return an alarm for the classes that the extractor hardly ever sees in generated images."""
    ours, theirs = shares.get("generated", {}), shares.get("held_out", {})
    gone = [name for name, share in theirs.items() if ours[name] < RARE * share]
    if not gone:
        return []
    shown = ", ".join(gone[:10]) + (" …" if len(gone) > 10 else "")
    return [f"{len(gone)} of {len(theirs)} classes are hardly ever generated, as the extractor sees it: {shown}."]


def alarms(scores: Scores, baselines: dict[str, Scores]) -> list[str]:
    """Return an alarm for copies, and for a coverage far below that of real training images."""
    found = []
    copies = scores.get("memorisation")
    if copies is not None and (copies.value if copies.high is None else copies.high) < COPIES:
        found.append(
            f"generated images lie {copies.value:.2f} times as far from the nearest training image as unseen real "
            "ones: the generator copies."
        )
    if "coverage" in scores and "real" in baselines:
        ours, floor = scores["coverage"], baselines["real"]["coverage"]
        if (ours.value if ours.high is None else ours.high) < DROPPED * floor.value:
            found.append(
                f"coverage is {ours.value:.2f}, and {floor.value:.2f} for as many training images: parts of the data "
                "are missed."
            )
    return found


def _timed(draw: Callable[[int], np.ndarray], count: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Return so many images, and how fast they came after a first call that warms up."""
    import torch

    draw(2)
    started = time.perf_counter()
    images = draw(count)  # arrays on the host: what a GPU still had to do is done
    seconds = time.perf_counter() - started
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return images, {"samples_per_second": round(count / seconds, 1), "samples_device": device, "samples_warm_up": 2}


def _copying(
    images: np.ndarray, held: np.ndarray, train: np.ndarray, resamples: int, seed: int
) -> tuple[dict[str, Score], dict[str, Picture], dict[str, Any]]:
    """Return the memorisation ratio, the generated images nearest to training ones beside those, and exact copies."""
    import numpy as np

    from finetune.evaluation.grids import grid
    from finetune.evaluation.metrics.memorisation import nearest
    from finetune.evaluation.pixels import memorisation_ratio

    flat = train.reshape(len(train), -1)
    distances, places = nearest(images.reshape(len(images), -1), flat)
    unseen, _ = nearest(held.reshape(len(held), -1), flat)
    ratio = memorisation_ratio(distances, unseen, resamples, seed)
    order = np.argsort(distances, kind="stable")[:SHOWN]
    picture = Picture(
        grid(np.concatenate([images[order], train[places[order]]]), len(order)),
        "The generated images that lie nearest to a training image (above), and that image (below).",
    )
    facts = {"exact_copies": int((distances == 0).sum())}
    return {} if ratio is None else {"memorisation": ratio}, {"nearest": picture}, facts
