"""Generated rows: of the columns that a task reads, and such that there is something to learn."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from finetune.task import Columns, Task

GOOD = ["good", "fine", "warm", "bright", "kind", "brave"]
BAD = ["bad", "cold", "dull", "cruel", "sour", "weak"]
FILLER = ["the", "film", "a", "story", "its", "actors", "this", "scene", "my", "evening", "was", "felt", "music"]


def generated(task: Task, columns: Columns, count: int, seed: int) -> list[dict[str, Any]]:
    """Return rows for a task on texts; two seeds share no text."""
    chooser = random.Random(seed)
    return [_row(task, columns, number, seed, chooser) for number in range(count)]


def _row(task: Any, columns: Columns, number: int, seed: int, chooser: random.Random) -> dict[str, Any]:
    side, known = number % 2, (GOOD, BAD)[number % 2]
    said = [*chooser.choices(FILLER, k=chooser.randint(3, 9)), *chooser.choices(known, k=chooser.randint(1, 3))]
    chooser.shuffle(said)
    words = [f"n{seed}x{number}", *said]
    if columns.words is not None and columns.label is not None:
        tags = ["B-PRAISE" if word in GOOD else "B-BLAME" if word in BAD else "O" for word in words]
        return {columns.words: words, columns.label: tags}
    text = " ".join(words)
    if columns.passage is not None and columns.label is not None:
        answer = next(word for word in words if word in known)
        question = next(name for name in columns.texts if name != columns.passage)
        found = {"text": [answer], "answer_start": [text.index(f" {answer}") + 1]}
        return {question: f"what was {'good' if side == 0 else 'bad'}", columns.passage: text, columns.label: found}
    if columns.parts is not None:
        return {"prompt": text, "completion": " ".join(chooser.choices(known, k=3))}
    row: dict[str, Any] = dict.fromkeys(columns.texts, text)
    if columns.target is not None:
        row[columns.target] = " ".join(word for word in words if word in known)
    if columns.label is not None:
        row[columns.label] = _label(task, side, chooser)
    return row


def _label(task: Any, side: int, chooser: random.Random) -> Any:
    names = list(task.labels or ("negative", "positive"))
    if getattr(task, "problem", None) == "regression":
        return side + chooser.random()
    if getattr(task, "problem", None) == "multi":
        return names[: 1 + side]
    return names[side % len(names)]


def generated_images(columns: Columns, count: int, seed: int, size: int, channels: int) -> dict[str, np.ndarray]:
    """Return arrays of images and classes: class 0 is bright above, class 1 below."""
    import numpy as np

    numbers = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = numbers.integers(0, 80, (count, size, size, channels))
    for image, label in zip(images, labels, strict=True):
        half = size // 2
        image[half * label : half * (label + 1)] += 160
    assert columns.image is not None
    arrays = {columns.image: (images[..., 0] if channels == 1 else images).astype(np.uint8)}
    return arrays | ({columns.label: labels} if columns.label else {})
