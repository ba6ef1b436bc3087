"""The values that a score can take, by its name."""

from __future__ import annotations

from math import inf

SHARES = {
    *("exact_match", "answered_exact_match", "stopped", "repetition", "empty", "commonest", "copied", "novel_bigrams"),
    *("distinct_1", "distinct_2", "average_precision", "auroc", "hamming_loss", "coverage", "precision", "recall"),
    *("c2st_features", "c2st_pixels", "code_usage"),
}
HUNDREDS = {"bleu", "chrf", "rouge1", "rouge2", "rougeL", "self_bleu"}
COSTS = {"nll", "next_nll", "mse", "mae", "bits_per_byte", "fid", "fcd", "swd", "length_ratio", "density"}
FROM_ONE = {"perplexity", "pseudo_perplexity", "code_perplexity"}
SIGNED = {"mcc", "pearson", "spearman"}


def bounds(name: str) -> tuple[float, float]:
    """Return the least and the greatest value of a score; infinite where none is known, as for gaps between two."""
    kind = name.split("/")[0]
    if kind.endswith("_gap"):
        return -inf, inf
    if kind in SIGNED:
        return -1.0, 1.0
    if kind in HUNDREDS:
        return 0.0, 100.0
    if kind in SHARES or kind.endswith(("accuracy", "f1", "precision", "recall")):
        return 0.0, 1.0
    return (1.0 if kind in FROM_ONE else 0.0 if kind in COSTS else -inf), inf
