"""A trained text autoencoder as a whole: its likelihood, what its latent carries, and the sentences that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.task import Examination, Score
from finetune.tasks.text_latents import ROWS, Writer, collate
from finetune.tasks.two_tokenizers import decoder_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from finetune.evaluation.options import EvaluateOptions
    from finetune.task import Batch

MOST = 200  # held-out texts that are looked at; each costs as many decoder passes as there are importance samples
WRITTEN = 200  # sentences from the prior, at most, that are compared with each other
AT_ONCE = 512  # texts in one pass of the decoder
COLLAPSED = 1.02  # perplexity with a stranger's latent over that with one's own, below which the latent says nothing


def examine_text_vae(
    writer: Writer, inputs: dict[str, Dataset], options: EvaluateOptions, seed: int = 13
) -> Examination:
    """Look at a text autoencoder on the first held-out texts (test, else validation, else train).

    Scores: `iw_nll` (nats a text) and `perplexity_iw`, from `options.importance_samples`; `mutual_information` of texts
    and latents, in nats, at most the log of the number of texts; `perplexity_own_z` and `perplexity_shuffled_z`, of the
    words given a draw of the text's own posterior or of another text's; `reconstruction_bleu` of the likeliest words
    given the posterior mean; `self_bleu` of sentences from the prior. Real texts have a `self_bleu` as a baseline.
    """
    split = next(name for name in ("test", "validation", *inputs) if name in inputs)
    held = inputs[split].select(range(min(MOST, len(inputs[split]))))
    facts: dict[str, Any] = {"split": split, "texts": len(held), "importance_samples": options.importance_samples}
    found = _latent_scores(writer, held, options.importance_samples, seed, facts)
    words = decoder_tokenizer(writer.processor)
    real = [str(words.decode(ids, skip_special_tokens=True)) for ids in held["labels"]]
    more, baselines = _written_scores(writer, held, real, min(WRITTEN, options.generated, len(held)), seed, facts)
    scores = {name: Score(value, n=len(held)) for name, value in {**found, **more}.items() if value == value}
    return Examination({split: scores}, baselines, {}, facts, tuple(_alarms(found)))


def _latent_scores(writer: Writer, held: Dataset, samples: int, seed: int, facts: dict[str, Any]) -> dict[str, float]:
    import numpy as np
    import torch

    from finetune.models.latent import gaussian_kl, importance_weighted, mutual_information, reparameterised

    generator = torch.Generator().manual_seed(seed)
    batches = [collate([held[place] for place in part], writer.processor) for part in _parts(len(held), ROWS)]
    read = [writer.read(batch) for batch in batches]
    mean, log_variance = (torch.cat(each) for each in zip(*read, strict=True))
    each = gaussian_kl(mean.double(), log_variance.double()).mean(dim=0)
    facts["kl_per_dimension"] = [round(value, 4) for value in each.tolist()]
    draw = reparameterised(mean, log_variance, torch.randn(mean.shape, generator=generator).to(mean))
    # Everybody's latent moves on by one place of a random circle: nobody keeps their own, whatever the batches.
    circle = torch.randperm(len(draw), generator=generator)
    stranger = torch.empty_like(draw)
    stranger[circle] = draw[circle.roll(1)]
    own, other, bound, start = [], [], [], 0
    for batch in batches:
        rows = slice(start, start + len(batch["labels"]))
        start = rows.stop
        own.append(_cost(writer, batch, draw[rows][None])[0])
        other.append(_cost(writer, batch, stranger[rows][None])[0])
        weights = log_weights(writer, batch, mean[rows], log_variance[rows], samples, generator)
        bound.append(-importance_weighted(weights))
    tokens = float(sum((batch["labels"] != -100).sum() for batch in batches))
    nats = {name: torch.cat(each).double().sum().item() for name, each in
            {"iw": bound, "own_z": own, "shuffled_z": other}.items()}  # fmt: skip
    return {
        "iw_nll": nats["iw"] / len(held),
        **{f"perplexity_{name}": float(np.exp(min(nats[name] / tokens, 700.0))) for name in nats},
        "mutual_information": mutual_information(mean.float(), log_variance.float(), draw.float()),
    }


def log_weights(
    writer: Writer, batch: Batch, mean: Tensor, log_variance: Tensor, samples: int, generator: Any
) -> Tensor:
    """Return log p(text, z) - log q(z | text) of `samples` draws of each text's posterior, shape (samples, batch)."""
    import torch

    from finetune.models.latent import log_normal, reparameterised

    found, zero, size = [], torch.zeros_like(mean), max(1, AT_ONCE // len(mean))
    for part in _parts(samples, size):
        noise = torch.randn((len(part), *mean.shape), generator=generator).to(mean)
        latent = reparameterised(mean, log_variance, noise)
        prior, posterior = log_normal(latent, zero, zero), log_normal(latent, mean, log_variance)
        found.append((prior - posterior - _cost(writer, batch, latent)).double())
    return torch.cat(found)


def _cost(writer: Writer, batch: Batch, latent: Tensor) -> Tensor:
    """Return -log p(text | z) for latents of shape (k, batch, latent_dim): shape (k, batch), nats."""
    import torch

    device, k = writer.model.device, len(latent)
    ids, targets = (batch[name].to(device).repeat(k, 1) for name in ("input_ids", "labels"))
    with torch.no_grad():
        cost, _ = writer.model.reconstruction(ids, targets, latent.flatten(0, 1))
    shaped: Tensor = cost.view(k, -1)
    return shaped


def _written_scores(
    writer: Writer, held: Dataset, real: list[str], count: int, seed: int, facts: dict[str, Any]
) -> tuple[dict[str, float], dict[str, Any]]:
    import torch

    from finetune.evaluation.metrics.bleu import bleu, self_bleu

    means = [writer.read(collate([held[place] for place in part], writer.processor))[0]
             for part in _parts(len(held), ROWS)]  # fmt: skip
    again = writer.texts(torch.cat(means))
    prior = writer.from_prior(count, seed)
    facts |= {
        "prior_sentences": count,
        "temperature": writer.task.temperature,
        "reconstructions": [{"text": text, "again": said} for text, said in zip(real[:8], again, strict=False)],
    }
    scores = {"reconstruction_bleu": bleu(again, real), "self_bleu": self_bleu(prior)}
    floor = self_bleu(real[:count])
    return scores, {"real texts": {"self_bleu": Score(floor, n=count)}} if floor == floor else {}


def _alarms(found: dict[str, float]) -> list[str]:
    own, shuffled = found["perplexity_own_z"], found["perplexity_shuffled_z"]
    if shuffled > COLLAPSED * own:
        return []
    return [
        f"The latent has collapsed: with another text's latent the perplexity of the words is {shuffled:.1f}, with "
        f"their own {own:.1f}. Raise task.free_bits or task.word_dropout, or lower task.beta."
    ]


def _parts(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
