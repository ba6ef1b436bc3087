"""How the report says numbers, scores and gaps."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

HEADLINES = (  # the first two that exist
    "nelbo",
    "fid",
    "fcd",
    "coverage",
    "span_f1",
    "answer_f1",
    "exact_match",
    "accuracy",
    "macro_f1",
    "micro_f1",
    "rougeL",
    "chrf",
    "nll",
    "perplexity",
    "pearson",
    "mse",
    "c2st_pixels",
    "swd",
)
LESS_IS_BETTER = {
    *("nll", "perplexity", "pseudo_perplexity", "bits_per_byte", "mse", "mae", "hamming_loss"),
    *("next_nll", "nelbo", "iw_nll", "reconstruction", "bits_per_dim"),
    *("fid", "kid", "fcd", "kcd", "swd", "c2st_features", "c2st_pixels", "self_bleu"),
}
# Of generated images.
OF_SETS = ("fid", "kid", "fcd", "kcd", "coverage", "density", "cs", "c2st_features", "c2st_pixels", "swd")
NAMES = {
    "answer_f1": "F1 of the answers",
    "answered_answer_f1": "F1 where there is an answer",
    "answered_exact_match": "exact match where there is an answer",
    "alone": "the same student alone",
    "auroc": "AUROC",
    "bits_per_byte": "bits per byte",
    "bits_per_dim": "bits per dimension",
    "bleu": "BLEU",
    "c2st_features": "told apart by features (0.5: not)",
    "c2st_pixels": "told apart by pixels (0.5: not)",
    "chrf": "chrF",
    "commonest": "rows with the commonest text",
    "copied": "words copied from the source",
    "copy": "the source, copied",
    "cs": "classifier score",
    "critic_gap": "critic: held-out real minus generated",
    "critic_overfitting": "critic: training minus held-out images",
    "d_accuracy_fake": "discriminator right on generated images",
    "d_accuracy_held_out": "discriminator right on held-out images",
    "d_accuracy_train": "discriminator right on training images",
    "d_overfitting": "discriminator: training minus held-out",
    "fcd": "FCD (Fréchet classifier distance)",
    "fid": "FID (Fréchet Inception distance)",
    "empty": "empty texts",
    "independent_pixels": "independent pixels",
    "iw_nll": "importance-weighted −log p (nats)",
    "kcd": "KCD (kernel classifier distance)",
    "kid": "KID (kernel Inception distance)",
    "kl": "KL (nats)",
    "next_accuracy": "pairs told right",
    "next_nll": "cost of a pair (nats)",
    "never": "no answer to anything",
    "no_answer_accuracy": "accuracy where there is no answer",
    "overlap": "a name in the sentence most like the question",
    "lookup": "each word's most frequent tag",
    "mae": "mean absolute error",
    "masked_accuracy": "hidden tokens told right",
    "mcc": "MCC",
    "memorisation": "memorisation (copies: towards 0)",
    "mse": "mean squared error",
    "nelbo": "−ELBO (nats)",
    "nll": "negative log-likelihood (nats)",
    "noise": "uniform noise",
    "pseudo_perplexity": "pseudo-perplexity",
    "real": "real training images",
    "reconstruction": "reconstruction (nats)",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "self_bleu": "self-BLEU",
    "swd": "sliced Wasserstein distance",
    "majority": "majority class",
    "mean": "mean of train",
    "teacher": "its teacher",
    "tfidf": "TF-IDF + linear model",
    "unigram": "unigram frequencies",
    "untuned": "the model before training",
}


def number(value: float | None) -> str:
    """Return a number as the report prints it: three decimals, thousands marked, or a dash."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}" if abs(value) >= 100 else f"{value:.3f}"


def fact(value: float) -> str:
    """Return a number that is no score: as `number` does, but below one with four significant digits (1e-05)."""
    return f"{value:.4g}" if isinstance(value, float) and 0 < abs(value) < 1 else number(value)


def interval(score: dict[str, Any]) -> str:
    """Return "low–high", or "" where there is no interval."""
    return "" if score.get("low") is None else f"{number(score['low'])} to {number(score['high'])}"


def named(name: str) -> str:
    """Return a score's or a rival's name in words."""
    return NAMES.get(name, name.replace("_", " ").replace("f1", "F1"))


def reading(name: str, gap: dict[str, Any]) -> str:
    """Say in a word what a gap (this run minus the rival) means."""
    if gap["low"] is None:
        return ""
    sign = -1 if name in LESS_IS_BETTER else 1
    low, high = sorted((sign * gap["low"], sign * gap["high"]))
    return "better" if low > 0 else "worse" if high < 0 else "no clear difference"


def lead(own: dict[str, Any], split: str | None, baselines: dict[str, Any]) -> str:
    """Say in two sentences what the run is worth: its first score, and its gap to the strongest rival."""
    name = next((name for name in HEADLINES if name in own), None)
    if name is None:
        return ""
    score, sign = own[name], -1 if name in LESS_IS_BETTER else 1
    spread = f" ({interval(score)})" if interval(score) else ""
    if name in OF_SETS:
        floor = baselines.get("real", {}).get(name)
        beside = f" As many real training images have {number(floor['value'])}." if floor else ""
        told = f"{named(name)} of {score['n']:,} generated images against the {split} ones"
        return f"{told} is {number(score['value'])}{spread}.{beside}"
    unit = "inputs" if name in ("nll", "perplexity") else "rows"  # of a language model: blocks of tokens
    told = f"On {score['n']:,} {split} {unit}, {named(name)} is {number(score['value'])}{spread}."
    rivals = [rival for rival, held in baselines.items() if f"{name}_gap" in held and rival != "teacher"]
    if not rivals:
        return told
    strongest = max(rivals, key=lambda rival: sign * baselines[rival][name]["value"])
    gap = baselines[strongest][f"{name}_gap"]
    meaning = {"no clear difference": "which chance alone could explain", "": "with no interval asked for"}
    word = reading(name, gap)
    word = meaning.get(word, f"{word} with 95 % confidence")
    spread = f" ({interval(gap)})" if interval(gap) else ""
    return f"{told} That is {gap['value']:+.3f}{spread} against {named(strongest)}: {word}."


def page(template: str, **contents: Any) -> str:
    """Return a page of this room's templates, filled in."""
    return _pages().get_template(template).render(**contents)


@cache
def _pages() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("finetune.evaluation", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    pages.filters |= {"number": number, "fact": fact, "named": named, "interval": interval}
    return pages
