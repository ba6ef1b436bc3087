"""A trained autoencoder of images as a whole: its likelihood, its latent space, and pictures of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.task import Examination, Score
from finetune.tasks.generated import examine_generator, pixels
from finetune.tasks.latent_pictures import SEED, batches, generated, latent_pictures, reconstructions

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedModel

    from finetune.evaluation.image_bounds import Pixels
    from finetune.evaluation.options import EvaluateOptions
    from finetune.tasks.image_vae import ImageVAE

MOST = 10_000  # held-out images that are encoded
WEIGHED = 1000  # held-out images whose likelihood is estimated, each with evaluate.importance_samples decodings
COLLAPSED = 0.5  # nats an image, below which the latent says nothing
UNIFORM = "uniform over the codes, none is learned: kl is what naming them evenly costs, and nothing is generated"
IDLE = 0.1  # share of the dimensions in use below which this is said


@dataclass(frozen=True)
class Looked:
    """What the encoder says of held-out images."""

    mean: np.ndarray  # shape (n, latent_dim)
    kl: np.ndarray  # nats, shape (n, latent_dim)


def examine_image_vae(
    task: ImageVAE, model: PreTrainedModel, inputs: dict[str, Dataset], options: EvaluateOptions
) -> Examination:
    """Look at an autoencoder on the held-out images (test, else validation, else train).

    Scores: `iw_nll`, nats an image, from `options.importance_samples` draws of the posterior for each of the first
    1,000 images; and of what it generates, see `examine_generator`. Alarms say where the posterior has collapsed.
    """
    split = next(name for name in ("test", "validation", *inputs) if name in inputs)
    held = inputs[split].select(range(min(MOST, len(inputs[split]))))
    pictures = {"reconstructions": reconstructions(task, model, held)}
    if model.config.model_type == "finetune-vqvae":
        return Examination({}, {}, pictures, {"split": split, "images": len(held), "prior": UNIFORM})
    looked = look(task, model, held)
    facts, alarms = latent_facts(looked)
    score, more = likelihood(task, model, held, options)
    facts = {"split": split, "images": len(held), **facts, **more}
    pictures |= latent_pictures(task, model, held, looked.mean, looked.kl)
    drawn = examine_generator(lambda count: generated(model, count, SEED), inputs, options)
    return Examination(
        {split: {"iw_nll": score, **drawn.scores.get(split, {})}},
        drawn.baselines,
        pictures | drawn.pictures,
        facts | drawn.facts,
        alarms + drawn.alarms,
    )


def look(task: ImageVAE, model: PreTrainedModel, held: Dataset) -> Looked:
    """Return what the encoder says of the images."""
    import torch

    from finetune.models.latent import gaussian_kl

    found = []
    with torch.no_grad():
        for batch in batches(task, model, held):
            found.append(model.encode(**batch))  # type: ignore[operator]  # the family's own method
    mean, spread = (torch.cat([getattr(each, name) for each in found]) for name in ("mean", "log_variance"))
    return Looked(mean.double().cpu().numpy(), gaussian_kl(mean, spread).double().cpu().numpy())


def latent_facts(looked: Looked) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return plain facts on the latent space, and a sentence where nothing passes through it."""
    from finetune.evaluation.metrics.active_units import active_units

    each, dims = looked.kl.mean(axis=0), looked.kl.shape[1]
    active, total = int(active_units(looked.mean)), float(each.sum())
    facts = {
        "latent_dim": dims,
        "active_units": active,
        "kl": round(total, 4),
        "kl_per_dimension": [round(float(value), 4) for value in each],
    }
    said = f"{active} of {dims} latent dimensions are in use and carry {total:.2f} nats an image"
    if total < COLLAPSED:
        return facts, (f"the posterior has collapsed: {said}. Lower task.beta, or give task.free_bits or kl_warmup.",)
    if active < IDLE * dims:
        return facts, (f"most of the latent space is idle: {said}. A smaller latent_dim would do as much.",)
    return facts, ()


def likelihood(
    task: ImageVAE, model: PreTrainedModel, held: Dataset, options: EvaluateOptions
) -> tuple[Score, dict[str, Any]]:
    """Return the importance-weighted negative log-likelihood of the first images, and how it was estimated."""
    import torch

    from finetune.evaluation.bootstrap import bootstrap
    from finetune.evaluation.metrics.nelbo import nelbo

    some = held.select(range(min(WEIGHED, len(held))))
    parts = [
        -model.log_likelihood(num_importance_samples=options.importance_samples, **batch)  # type: ignore[operator]
        for batch in batches(task, model, some)
    ]
    nats = torch.cat(parts).double().cpu().numpy()
    score = bootstrap(lambda weights: {"": nelbo(nats, weights)}, len(nats), options.resamples)[""]
    return score, {"importance_samples": options.importance_samples, "importance_weighted_images": len(nats)}


def targets(inputs: Dataset, binarize: str) -> np.ndarray:
    """Return the pixels that a likelihood is of, shape (n, pixels): of dynamic binarisation the chances."""
    import numpy as np

    values = pixels(inputs).reshape(len(inputs), -1).astype(np.float32) / 255
    return (values > 0.5).astype(np.float32) if binarize == "threshold" else values


def likelihood_of(answers: dict[str, np.ndarray], binarize: str, count: int) -> Pixels:
    """Return what kind of pixels the bound of `answers` is of; a density's bits have the width of a level in them."""
    if binarize != "none":
        return "binary"
    if "bits_per_dim" not in answers:
        return "grey"
    offset = answers["bits_per_dim"] - answers["nelbo"] / (count * math.log(2))
    return "density" if offset.mean() > 1 else "levels"
