"""Word 1- and 2-grams, sublinear TF-IDF, and a linear model on them: the rival that a fine-tuned model must beat."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from finetune.evaluation.metrics.log_loss import losses

STRENGTHS = (1.0, 3.0, 10.0)  # C of the logistic regression, 1 / alpha of the ridge
LEAST = 1e-9  # the least probability that a rival gives: a class that it never saw must not cost infinite nats

# scikit-learn's words, two letters or digits at least; where words are written without spaces, a character is one.
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]{{2,}}")


class Line(NamedTuple):
    """A fitted linear model, one line a class."""

    slopes: np.ndarray  # (C, words)
    offsets: np.ndarray  # (C,)

    def answers(self, x: Any) -> np.ndarray:
        """Return one number a row and class, shape (n, C)."""
        return np.asarray(x @ self.slopes.T) + self.offsets


def word_model(
    texts: Mapping[str, Sequence[str]], targets: dict[str, np.ndarray], classes: int, problem: str, seed: int
) -> np.ndarray | None:
    """Return the answers of a linear model on the test texts: logits (n, C), or numbers (n, 1).

    Its strength is the best of `STRENGTHS` on the validation texts, or else on a tenth of train, after which it
    learns from the whole of train. None when train has no words or targets that are all alike.

    Args:
        texts, targets: by split: "train", "test", perhaps "validation".
        classes: how many labels there are.
        problem: "single", "multi" or "regression".
        seed: of the tenth.
    """
    train = texts["train"]
    if not any(WORD.search(text) for text in train) or not _varied(targets["train"]):
        return None
    vectors = _vectorizer().fit(train)
    features = {name: vectors.transform(split) for name, split in texts.items()}
    return line_model(features, targets, classes, problem, seed)


def line_model(
    features: Mapping[str, Any], targets: dict[str, np.ndarray], classes: int, problem: str, seed: int
) -> np.ndarray | None:
    """Return what `word_model` returns, of features (n, width) by split; None when the targets are all alike."""
    x, y = features["train"], targets["train"]
    if not _varied(y):
        return None
    if "validation" in features:
        _, line = _chosen(x, y, features["validation"], targets["validation"], classes, problem)
    else:
        rows = np.random.default_rng(seed).permutation(len(y))
        held, rest = np.split(rows, [max(1, len(y) // 10)])
        if not _varied(y[rest]):
            held = rest = rows
        strength, start = _chosen(x[rest], y[rest], x[held], y[held], classes, problem)
        line = _fitted(x, y, strength, classes, problem, start)
    return line.answers(features["test"])


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(tokenizer=WORD.findall, token_pattern=None, ngram_range=(1, 2), sublinear_tf=True)


def _varied(targets: np.ndarray) -> bool:
    return bool((targets != targets[0]).any())


def _chosen(x: Any, y: np.ndarray, held: Any, held_y: np.ndarray, classes: int, problem: str) -> tuple[float, Line]:
    """Return the strength that is best on the held-out rows (the least of equals), and its line."""
    found: list[tuple[float, float, Line]] = []
    line = None
    for strength in STRENGTHS:
        line = _fitted(x, y, strength, classes, problem, line)
        found.append((_quality(line.answers(held), held_y, problem), strength, line))
    _, strength, line = max(found, key=lambda one: one[0])
    return strength, line


def _quality(answers: np.ndarray, targets: np.ndarray, problem: str) -> float:
    if problem == "regression":
        return -float(((answers[:, 0] - targets) ** 2).mean())
    if problem == "multi":
        return -float(losses(answers, targets).mean())
    return float((answers.argmax(axis=1) == targets).mean())


def _fitted(x: Any, y: np.ndarray, strength: float, classes: int, problem: str, start: Line | None) -> Line:
    if problem == "regression":
        from sklearn.linear_model import Ridge

        ridge = Ridge(alpha=1 / strength).fit(x, y)
        return Line(ridge.coef_.reshape(1, -1), np.reshape(ridge.intercept_, 1))
    if problem == "multi":
        lines = [_one_label(x, y[:, number], strength) for number in range(classes)]
        return Line(np.stack([line.slopes for line in lines]), np.array([line.offsets for line in lines]))
    return _one_of_classes(x, y, strength, classes, start)


def _one_label(x: Any, y: np.ndarray, strength: float) -> Line:
    from sklearn.linear_model import LogisticRegression

    if not _varied(y):  # always or never there: no line to learn
        return Line(np.zeros(x.shape[1]), np.log1p(-LEAST) - np.log(LEAST) if y[0] else np.log(LEAST))
    model = LogisticRegression(C=strength, max_iter=1000).fit(x, y)
    return Line(model.coef_[0], model.intercept_[0])


def _one_of_classes(x: Any, y: np.ndarray, strength: float, classes: int, start: Line | None) -> Line:
    """Return a multinomial logistic regression, begun at `start`: neighbouring strengths have near solutions."""
    from sklearn.linear_model import LogisticRegression

    seen = np.unique(y)
    model = LogisticRegression(C=strength, max_iter=1000, warm_start=True)
    if start is not None and len(seen) > 2 and not np.any(start.offsets[seen] == np.log(LEAST)):
        model.coef_, model.intercept_ = start.slopes[seen], start.offsets[seen]
    model.fit(x, y)
    slopes, offsets = np.zeros((classes, x.shape[1])), np.full(classes, np.log(LEAST))
    if len(seen) == 2:  # scikit-learn keeps one line for two classes
        slopes[seen[1]], offsets[seen] = model.coef_[0], [0.0, model.intercept_[0]]
    else:
        slopes[seen], offsets[seen] = model.coef_, model.intercept_
    return Line(slopes, offsets)
