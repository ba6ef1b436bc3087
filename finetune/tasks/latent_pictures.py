"""Images out of a latent space, and the pictures of it that a report shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.task import Picture
from finetune.tasks.generated import pixels

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

    from finetune.tasks.image_vae import ImageVAE

ROWS = 100  # images in one pass
SHOWN = 64  # samples in a grid
ACROSS = 3.0  # standard deviations of the prior, to both sides, that pictures walk through
PAIRS = 10  # reconstructions a line
WALKED = 10  # dimensions that are walked along
SEED = 13  # of everything that is drawn here


def batches(task: ImageVAE, model: PreTrainedModel, held: Dataset) -> list[dict[str, Any]]:
    """Return the images as the model takes them, with the keys that they have whenever they are looked at."""
    import torch

    from finetune.models.noise import FIXED, keys

    values = torch.from_numpy(pixels(held).copy()).permute(0, 3, 1, 2).float() / 255
    classes = torch.tensor(held[task.condition][:]) if task.condition else None
    own = keys(SEED, FIXED, torch.tensor(held["row"][:]))
    found = []
    for start in range(0, len(held), ROWS):
        rows = slice(start, start + ROWS)
        batch = {"pixel_values": values[rows].contiguous(), "keys": own[rows]}
        batch |= {} if classes is None else {"condition": classes[rows]}
        found.append({name: each.to(model.device) for name, each in batch.items()})
    return found


def as_images(values: Tensor) -> np.ndarray:
    """Return images of [0, 1], (n, channels, size, size), as uint8 of shape (n, size, size, channels)."""
    import torch

    rounded = (values.float().clamp(0, 1) * 255).round().to(torch.uint8)
    images: np.ndarray = rounded.permute(0, 2, 3, 1).cpu().numpy()
    return images


def classes_of(model: PreTrainedModel, count: int, only: int | None = None) -> Tensor | None:
    """Return the classes of a conditional model, in turn or only one, shape (count,); None for another model."""
    import torch

    number = model.config.num_classes
    if only is not None:
        return torch.full((count,), only, device=model.device)
    return torch.arange(count, device=model.device) % number if number else None


def generated(model: PreTrainedModel, count: int, seed: int, only: int | None = None) -> np.ndarray:
    """Return images of latents from the prior, uint8; a conditional model's classes take turns, or all are of one."""
    import numpy as np
    import torch

    z, classes = model.prior(count, seed), classes_of(model, count, only)  # type: ignore[operator]
    parts = []
    with torch.no_grad():
        for start in range(0, count, ROWS):
            rows = slice(start, start + ROWS)
            parts.append(as_images(model.decode(z[rows], None if classes is None else classes[rows])))  # type: ignore[operator]
    return np.concatenate(parts)


def interpolated(model: PreTrainedModel, lines: int, steps: int, seed: int) -> np.ndarray:
    """Return walks between two draws from the prior, uint8, line after line."""
    both = model.prior(2 * lines, seed)  # type: ignore[operator]
    walks = model.interpolate(both[:lines], both[lines:], steps, classes_of(model, lines))  # type: ignore[operator]
    return as_images(walks)


def traversed(
    model: PreTrainedModel, steps: int, seed: int, dimensions: list[int] | None = None, start: Tensor | None = None
) -> np.ndarray:
    """Return walks of one latent along some dimensions (the first 10), from -3 to 3, uint8, line after line."""
    import torch

    start = model.prior(1, seed)[0] if start is None else start  # type: ignore[operator]
    dimensions = list(range(min(WALKED, len(start)))) if dimensions is None else dimensions
    values = torch.linspace(-ACROSS, ACROSS, steps, device=model.device)
    classes = classes_of(model, 1)
    return as_images(model.traverse(start, dimensions, values, classes))  # type: ignore[operator]


def sample_grid(model: PreTrainedModel) -> Picture:
    """Return 64 images of fixed latents from the prior; one column a class of a conditional model with up to 16."""
    from finetune.evaluation.grids import grid

    number = model.config.num_classes
    columns = number if 1 < number <= 16 else 8
    images = generated(model, SHOWN // columns * columns, SEED)
    return Picture(grid(images, columns), "Images of fixed draws from the prior; the decoder's means.")


def reconstructions(task: ImageVAE, model: PreTrainedModel, held: Dataset) -> Picture:
    """Return held-out images above what the autoencoder makes of them."""
    import numpy as np
    import torch

    from finetune.evaluation.grids import grid
    from finetune.models.likelihoods import binarised

    batch = batches(task, model, held.select(range(min(40, len(held)))))[0]
    with torch.no_grad():
        _, again = model.reconstruct(**batch)  # type: ignore[operator]
    first = as_images(binarised(batch["pixel_values"], task.binarize, batch["keys"]))
    second, columns = as_images(again), min(PAIRS, len(first))
    parts = [each[start : start + columns] for start in range(0, len(first), columns) for each in (first, second)]
    parts = [np.concatenate((part, part[:1].repeat(columns - len(part), 0) * 0 + 128)) for part in parts]
    return Picture(grid(np.concatenate(parts), columns), "Held-out images, and below each what the model makes of it.")


def latent_pictures(
    task: ImageVAE, model: PreTrainedModel, held: Dataset, means: np.ndarray, kl: np.ndarray
) -> dict[str, Picture]:
    """Return pictures of the latent space: walks between images, and a plane of two dimensions or walks along each."""
    import torch

    from finetune.evaluation.grids import grid

    latents = torch.from_numpy(means).float().to(model.device)
    lines, steps = min(6, len(means) // 2), 12
    pictures = {}
    if lines:
        classes = torch.tensor(held[task.condition][:lines], device=model.device) if task.condition else None
        walks = model.interpolate(latents[:lines], latents[lines : 2 * lines], steps, classes)  # type: ignore[operator]
        caption = "From one held-out image to another, in even steps between their latents."
        pictures["interpolation"] = Picture(grid(as_images(walks), steps), caption)
    if means.shape[1] == 2:
        return pictures | plane_pictures(task, model, held, means)
    order = [int(place) for place in kl.mean(axis=0).argsort()[::-1][:WALKED]]
    walks = traversed(model, 11, SEED, order, latents[0])
    caption = "The first held-out image, with one latent dimension a line set from -3 to 3; those that say most first."
    return pictures | {"traversals": Picture(grid(walks, 11), caption)}


def plane_pictures(task: ImageVAE, model: PreTrainedModel, held: Dataset, means: np.ndarray) -> dict[str, Picture]:
    """Return where held-out images lie in a latent plane, and what the decoder makes of the places of the prior."""
    import numpy as np
    import torch

    from finetune.evaluation.grids import grid
    from finetune.evaluation.latent_plane import scatter

    column = task.columns().label
    classes = np.asarray(held[column][:]) if column is not None and column in held.column_names else None
    steps = 20
    # Equal shares of the prior between two neighbours, as in Kingma & Welling 2014, figure 4.
    ends = torch.linspace(0.5 / steps, 1 - 0.5 / steps, steps)
    values = torch.special.ndtri(ends).to(model.device)
    places = torch.stack((values.repeat(steps), values.flip(0).repeat_interleave(steps)), dim=1)
    with torch.no_grad():
        images = as_images(model.decode(places, _same_class(model, len(places))))  # type: ignore[operator]
    return {
        "latent_plane": scatter(means, classes, task.labels or ()),
        "manifold": Picture(grid(images, steps), "The decoder's images over the plane, in equal shares of the prior."),
    }


def _same_class(model: PreTrainedModel, count: int) -> Tensor | None:
    classes = classes_of(model, count)
    return None if classes is None else classes * 0
