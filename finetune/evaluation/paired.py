"""Two runs on the same test rows, from what both answered: the other's scores, and the gap with a paired interval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from scipy.special import logit

from finetune import artefact
from finetune.evaluation.answering import rival_scores
from finetune.evaluation.baselines import held_against
from finetune.evaluation.bootstrap import bootstrap, with_gaps
from finetune.evaluation.findings import Predictions
from finetune.evaluation.generation import generation_rivals
from finetune.evaluation.language import language_measure
from finetune.evaluation.metrics.span_f1 import OUTSIDE
from finetune.evaluation.tagging import GAPS, tagging_measure
from finetune.evaluation.words import Cut

if TYPE_CHECKING:
    from finetune.task import Scores

LEAST = 1e-12  # a probability that was rounded to 0 or 1


def paired_scores(run: Path, rival: Path, resamples: int, seed: int = 13) -> Scores | None:
    """Return the rival's scores and, as `SCORE_gap`, the run's minus the rival's; None where the rows are not the same.

    Args:
        run, rival: folders of runs; predictions.parquet of both is read.
        resamples, seed: of the bootstrap.
    """
    paths = [each / artefact.PREDICTIONS for each in (run, rival)]
    if not all(path.exists() for path in paths):
        return None
    ours, theirs = map(Predictions.read, paths)
    same = ("row_id", "text", "pair", "source", "question", "target", "tokens")
    if ours.kind == "unknown" or any(ours.columns.get(name) != theirs.columns.get(name) for name in same):
        return None
    if ours.kind == "language":
        return _language(ours, theirs, resamples, seed)
    if ours.kind == "written":
        return _written(ours, theirs, _cut(rival), resamples, seed) | _language(ours, theirs, resamples, seed)
    if ours.kind == "tags":
        return _tags(ours, theirs, resamples, seed)
    if ours.kind == "answers":
        said = [each.columns["prediction"] for each in (theirs, ours)]
        return rival_scores({"rival": said[0]}, said[1], ours.columns["target"], resamples, seed)["rival"]
    labels = [name.removeprefix("p/") for name in ours.columns if name.startswith("p/")]
    if any(f"p/{label}" not in theirs.columns for label in labels) or len(theirs.columns) != len(ours.columns):
        return None
    targets = _targets(ours, labels)
    answers = {"rival": _answers(theirs, labels)}
    return held_against(answers, targets, labels, ours.kind, _answers(ours, labels), resamples, seed)["rival"]  # type: ignore[arg-type]


def agreement(run: Path, rival: Path) -> float | None:
    """Return the share of test rows that both answer alike; None where the rows are not the same."""
    paths = [each / artefact.PREDICTIONS for each in (run, rival)]
    if not all(path.exists() for path in paths):
        return None
    ours, theirs = (Predictions.read(path).columns for path in paths)
    if "prediction" not in ours or ours["row_id"] != theirs["row_id"]:
        return None
    return float(np.mean([one == other for one, other in zip(ours["prediction"], theirs["prediction"], strict=True)]))


def _language(ours: Predictions, theirs: Predictions, resamples: int, seed: int) -> Scores:
    tokens, unknown = np.array(ours.columns["tokens"]), np.zeros(len(ours.columns["tokens"]))  # bytes: not written down
    model, rival = (language_measure(np.array(each.columns["nll"]), tokens, unknown) for each in (ours, theirs))

    def measured(measure):  # type: ignore[no-untyped-def]
        def known(weights: np.ndarray) -> dict[str, np.ndarray]:
            with np.errstate(divide="ignore", invalid="ignore"):
                return {name: value for name, value in measure(weights).items() if name != "bits_per_byte"}

        return known

    return bootstrap(with_gaps(measured(rival), measured(model), ("nll",)), len(tokens), resamples, seed)


def _written(ours: Predictions, theirs: Predictions, cut: Cut, resamples: int, seed: int) -> Scores:
    both = list(zip(*(held.columns["generated"] for held in (ours, theirs)), ours.columns["target"], strict=True))
    told = [each for each in both if None not in each]  # beyond evaluate.generated nothing was written
    if not told:
        return {}
    texts, rival, targets = (list(column) for column in zip(*told, strict=True))
    return generation_rivals({"rival": rival}, texts, targets, cut, resamples, seed)["rival"]


def _cut(run: Path) -> Cut:
    """Return how a run's recipe cuts texts into words."""
    recipe = yaml.safe_load((run / artefact.RECIPE).read_text(encoding="utf-8"))
    found: Cut = recipe["task"].get("words") or "13a"
    return found


def _tags(ours: Predictions, theirs: Predictions, resamples: int, seed: int) -> Scores | None:
    spans, meant = "spans" in ours.columns, ours.columns["target"]
    every = [
        tag
        for held in (ours, theirs)
        for name in ("prediction", "target")
        for tags in held.columns[name]
        for tag in tags
    ]
    known = sorted({str(tag) for tag in every if tag is not None})
    names = sorted({tag.partition("-")[2] for tag in known if tag != OUTSIDE}) if spans else known
    model, rival = (tagging_measure(each.columns["prediction"], meant, names, spans) for each in (ours, theirs))
    return bootstrap(with_gaps(rival, model, GAPS[spans]), len(meant), resamples, seed)


def _targets(held: Predictions, labels: list[str]) -> np.ndarray:
    targets = held.columns["target"]
    if held.kind == "single":
        return np.array([labels.index(name) for name in targets])
    if held.kind == "multi":
        return np.array([[int(label in names) for label in labels] for names in targets])
    return np.array(targets)


def _answers(held: Predictions, labels: list[str]) -> np.ndarray:
    """Return what the probabilities were logits of, up to a constant."""
    if held.kind == "regression":
        return np.array(held.columns["prediction"])[:, None]
    p = np.stack([np.array(held.columns[f"p/{label}"]) for label in labels], axis=1).clip(LEAST, 1 - LEAST)
    return np.log(p) if held.kind == "single" else logit(p)
