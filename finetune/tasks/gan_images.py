"""Images of a GAN's generator, and what is said of both players."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune.task import Examination, Picture, Score, Scores

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor

    from finetune.evaluation.options import EvaluateOptions
    from finetune.task import Answers, Processor
    from finetune.tasks.image_gan import ImageGAN

ROWS = 128  # images in one pass
SHOWN = 64  # samples in a grid
LINES, STEPS = 6, 12  # of the walks between latents
SEED = 13  # of everything that is drawn here


def as_bytes(images: Tensor) -> Tensor:
    """Return images of [-1, 1], (n, channels, size, size), as uint8 of shape (n, size, size, channels)."""
    import torch

    rounded = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return rounded.permute(0, 2, 3, 1).contiguous()


def generated(model: Any, count: int, seed: int, only: int | None = None) -> np.ndarray:
    """Return images of latents that the seed fixes, uint8; a conditional model's classes take turns, or all are of one.

    Args:
        model: the generator.
        count: how many.
        seed: of the latents.
        only: the number of the one class.
    """
    import torch

    condition = None if only is None else torch.full((count,), only, device=model.device)
    images: np.ndarray = as_bytes(model.sample(count, seed, condition, batch=ROWS)).cpu().numpy()
    return images


def interpolated(model: Any, lines: int, steps: int, seed: int) -> np.ndarray:
    """Return walks between two draws of the latent, on the sphere, uint8, line after line.

    Normal latents lie near a sphere, and a straight walk would leave it (White 2016, arXiv:1609.04468).
    """
    import torch

    both = model.latents(2 * lines, seed)
    first, last = both[:lines, None], both[lines:, None]
    share = torch.linspace(0, 1, steps, device=both.device)[None, :, None]
    cosine = torch.cosine_similarity(first, last, dim=-1).clamp(-0.9999, 0.9999)
    angle = torch.arccos(cosine)[..., None]
    walk = (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * last) / torch.sin(angle)
    number = model.config.num_classes
    classes = torch.arange(lines, device=both.device).repeat_interleave(steps) % number if number else None
    with torch.no_grad():
        images: np.ndarray = as_bytes(model(walk.flatten(0, 1), classes)).cpu().numpy()
    return images


def sample_grid(model: Any) -> Picture:
    """Return 64 images of fixed latents; one column a class of a conditional model with up to 16."""
    from finetune.evaluation.grids import grid

    number = model.config.num_classes
    columns = number if 1 < number <= 16 else 8
    return Picture(grid(generated(model, SHOWN // columns * columns, SEED), columns), "Images of fixed latents.")


def generator_scores(answers: Answers, inputs: Dataset, loss: str, resamples: int) -> Scores:
    """Return the sliced Wasserstein distance to held-out images, and how the discriminator judges them.

    Args:
        answers: of `ImageGAN.answer`.
        inputs: the held-out images.
        loss: of the GAN: what a right judgement is depends on it.
        resamples: bootstraps of the intervals.
    """
    from finetune.evaluation.metrics.swd import swd
    from finetune.evaluation.pixels import accuracy
    from finetune.tasks.generated import pixels

    fake, real = (
        each.reshape(len(each), -1).astype("float32") / 255 for each in (answers["generated"], pixels(inputs))
    )
    scores = {"swd": Score(swd(fake, real), n=len(real))}
    logits, fakes = answers["logits"], answers["fake_logits"]
    if loss == "wgan-gp":
        return scores | {"critic_gap": Score(float(logits.mean() - fakes.mean()), n=len(logits))}
    scores["d_accuracy_held_out"] = accuracy(right(logits, fakes, loss), resamples)
    return scores if loss == "r3gan" else scores | {"d_accuracy_fake": accuracy(fakes < 0, resamples)}


def right(real: np.ndarray, fake: np.ndarray, loss: str) -> np.ndarray:
    """Say of each real image whether it was judged rightly: above 0, or above its pair by a relativistic loss."""
    judged: np.ndarray = real > fake if loss == "r3gan" else real > 0
    return judged


def examine_gan(
    task: ImageGAN, model: Any, inputs: dict[str, Dataset], processor: Processor, options: EvaluateOptions
) -> Examination:
    """Compare generated with real images, walk between latents, and say how far the discriminator knows its rows."""
    from finetune.evaluation.grids import grid
    from finetune.tasks.generated import examine_generator

    found = examine_generator(lambda count: generated(model, count, SEED), inputs, options)
    walks = grid(interpolated(model, LINES, STEPS, SEED), STEPS)
    pictures = found.pictures | {"interpolation": Picture(walks, "From one latent to another, in even steps.")}
    split = next((name for name in ("test", "validation") if name in inputs), None)
    scores = dict(found.scores)
    if split is not None and "train" in inputs and hasattr(model, "adversary"):
        scores[split] = scores.get(split, {}) | _overfitting(task, model, inputs["train"], inputs[split], processor)
    return replace(found, scores=scores, pictures=pictures)


def _overfitting(task: ImageGAN, model: Any, train: Dataset, held: Dataset, processor: Processor) -> Scores:
    """Return the discriminator's accuracy on as many training images, and its lead over held-out ones.

    Of a critic, the lead in its mean value instead.
    """
    count = min(len(train), len(held))
    seen, unseen = (judged(task, model, each, count, processor) for each in (train, held))
    if task.loss == "wgan-gp":
        return {"critic_overfitting": Score(float((seen[0] - unseen[0]).mean()), n=count)}
    known, new = (float(right(each[0], each[1], task.loss).mean()) for each in (seen, unseen))
    return {"d_accuracy_train": Score(known, n=count), "d_overfitting": Score(known - new, n=count)}


def judged(task: ImageGAN, model: Any, inputs: Dataset, count: int, processor: Processor) -> list[np.ndarray]:
    """Return the discriminator's logits of the first `count` images, and of as many generated ones."""
    import numpy as np
    import torch

    from finetune.models.noise import FIXED, keys

    collate, parts = task.collator(processor), []
    with torch.no_grad():
        for start in range(0, count, ROWS):
            batch = collate([inputs[place] for place in range(start, min(start + ROWS, count))])
            batch["keys"] = keys(SEED, FIXED, batch["row"])
            batch = {name: each.to(model.device) for name, each in batch.items() if name != "row_id"}
            answer = task.answer(model, batch)
            parts.append([answer[name].cpu().numpy() for name in ("logits", "fake_logits")])
    return [np.concatenate(each) for each in zip(*parts, strict=True)]
