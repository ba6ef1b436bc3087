"""What a file is taken for: by the names of its columns first, by what they hold last."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.data.files import IMAGES, known_format
from finetune.drafting.rows import SEEN, opened, rows_of
from finetune.errors import UserError

FEW = 200  # different values of a column that may still be labels
TEXTS = ("text", "sentence", "content", "review", "message", "document", "tweet", "comment", "body", "title")
LABELS = ("label", "labels", "class", "category", "intent", "sentiment", "target", "topic", "rating", "score", "stars")
CHATS = (("messages",), ("conversations",), ("instruction", "output"), ("prompt", "completion"))
PAIRS = (("source", "target"), ("article", "highlights"), ("document", "summary"), ("text", "summary"), ("en", "zh"),
         ("input", "output"), ("src", "tgt"), ("en", "de"), ("en", "fr"), ("question", "reply"))  # fmt: skip
ENCODER, TAGGER, DECODER = (
    "distilbert/distilbert-base-uncased",
    "distilbert/distilbert-base-cased",
    "openai-community/gpt2",
)
WRITER = "google-t5/t5-small"


@dataclass
class Draft:
    """What a file was taken for."""

    kind: str
    why: str
    seen: str
    task: dict[str, str] = field(default_factory=dict)  # option: YAML with its comment
    model: dict[str, str] = field(default_factory=dict)
    train: dict[str, str] = field(default_factory=dict)
    rank: int | None = 16  # of LoRA; None: every weight is trained
    stratify: bool = False


def of_folder(data: Path) -> Draft:
    """Return what a folder of images is taken for."""
    files = [each for each in data.rglob("*") if each.suffix.lower() in IMAGES]
    if not files:
        raise UserError(f"{data} holds no images; name a file of rows.")
    classes = sorted({each.parent.relative_to(data).parts[-1] for each in files if each.parent != data})
    seen = f"{len(files):,} images in {len(classes) or 'no'} folders"
    if len(classes) > 1:
        return _image_classes(
            seen, f"its folders look like classes ({', '.join(classes[:4])}{' …' * (len(classes) > 4)})"
        )
    return _images_alone(seen, "one heap of images, without classes", "size: 32, channels: 3")


def of_file(data: Path) -> Draft:
    """Return what a file is taken for; UserError where nothing of it fits a task."""
    form = known_format(str(data), "train")
    if form == "conll":
        return _tags(f"a file with a word a line, {data.name}", "its name ends so", {})
    if form in ("npz", "idx"):
        return _of_arrays(data, form)
    if form == "text":
        lines = sum(1 for line in opened(data) if line.strip())
        return _language(f"{lines:,} lines of text", "plain text, without labels", {})
    rows = list(itertools.islice(rows_of(data, form), SEEN))
    if not rows:
        raise UserError(f"{data} holds no rows.")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    seen = f"{len(rows):,}{' or more' if len(rows) == SEEN else ''} rows; columns: " + ", ".join(map(str, columns[:12]))
    return _of_rows(rows, columns, seen, data)


def _of_rows(rows: list[dict[str, Any]], columns: list[str], seen: str, data: Path) -> Draft:
    """Return what rows are taken for: the most telling names of columns first, what they hold last."""
    names = set(columns)
    for wanted in CHATS:
        if names >= set(wanted) and not (wanted == ("prompt", "completion") and _few(rows, "completion")):
            return Draft(
                "chat", f"it has {' and '.join(wanted)}", seen, {}, {"path": DECODER}, {"learning_rate": "5e-4"}
            )
    if {"question", "context", "answers"} <= names:
        return _answers(seen, "it has question, context and answers")
    lists = [name for name in columns if _holds(rows, name, list)]
    words = next((name for name in ("tokens", "words") if name in lists), None)
    tags = next((name for name in lists if name != words and ("tag" in name or name in ("labels", "pos"))), None)
    if words and tags:
        return _tags(seen, f"{words} and {tags} are lists of one length", {"words": words, "tags": tags})
    texts = [name for name in columns if _holds(rows, name, str)]
    for source, target in PAIRS:
        if source in texts and target in texts and not _few(rows, target):
            task = {"source": source, "target": f"{target} # the text that is written"}
            return Draft("seq2seq", f"{source} and {target} are texts both", seen, task, {"path": WRITER},
                         {"learning_rate": "1e-3"})  # fmt: skip
    label = _label(rows, columns)
    long = [name for name in texts if name != label and not (_few(rows, name) and name not in TEXTS)]
    if not long:
        raise UserError(
            f"{data}: no column of text among {', '.join(map(str, columns))}; say more in a recipe of your own."
        )
    text = next((name for name in TEXTS if name in long), max(long, key=lambda name: _mean_length(rows, name)))
    if label is None:
        return _language(seen, f"{text} is text, and no other column looks like labels", {"text": text})
    return _classes(rows, text, label, seen)


def _classes(rows: list[dict[str, Any]], text: str, label: str, seen: str) -> Draft:
    values = [row.get(label) for row in rows]
    task = {"text": text, "label": label, "max_length": "128 # tokens; the check says how many texts are longer"}
    if all(isinstance(value, float) and not value.is_integer() for value in values if value is not None):
        return Draft("text-classification", f"{label} is a number: regression", seen, task, {"path": ENCODER},
                     {"learning_rate": "1e-3"})  # fmt: skip
    counts = Counter(str(value) for value in values)
    shares = sorted(counts.values())
    told = ", ".join(name for name, _ in counts.most_common(4)) + (" …" if len(counts) > 4 else "")
    if shares[-1] > 5 * shares[0]:
        task["class_weights"] = (
            f"auto # the rarest label has {shares[0]} rows of those seen, the commonest {shares[-1]}"
        )
    why = f"{label} has {len(counts)} values ({told}) in the rows seen"
    return Draft("text-classification", why, seen, task, {"path": ENCODER}, {"learning_rate": "1e-3"}, stratify=True)


def _label(rows: list[dict[str, Any]], columns: list[str]) -> str | None:
    """Return the column that looks like labels: by its name, else by how few values it has."""
    fitting = [name for name in columns if not _holds(rows, name, list) or name in LABELS]
    named = [name for name in fitting if name.lower() in LABELS]
    if named:
        return named[0]
    few = [name for name in fitting if _few(rows, name) and name.lower() not in (*TEXTS, "id", "index")]
    return few[-1] if few else None


def _few(rows: list[dict[str, Any]], name: str) -> bool:
    """Say whether a column's values come again and again, as labels do."""
    values = [str(row.get(name)) for row in rows]
    different = len(set(values))
    return 1 < different <= min(FEW, max(2, len(values) // 5))


def _holds(rows: list[dict[str, Any]], name: str, kind: type) -> bool:
    values = [row[name] for row in rows if row.get(name) is not None]
    return bool(values) and all(isinstance(value, kind) for value in values)


def _mean_length(rows: list[dict[str, Any]], name: str) -> float:
    return sum(len(str(row.get(name) or "")) for row in rows) / len(rows)


def _tags(seen: str, why: str, task: dict[str, str]) -> Draft:
    return Draft("token-classification", why, seen, task, {"path": TAGGER}, {"learning_rate": "1e-3"})


def _answers(seen: str, why: str) -> Draft:
    return Draft("question-answering", why, seen, {}, {"path": ENCODER}, {"learning_rate": "1e-3"})


def _language(seen: str, why: str, task: dict[str, str]) -> Draft:
    task = task | {"block_size": "128 # tokens an input"}
    return Draft("causal-lm", why, seen, task, {"path": DECODER}, {"learning_rate": "5e-4"})


def _image_classes(seen: str, why: str) -> Draft:
    config = "{model_type: finetune-image-classifier, preset: lenet} # from scratch; or path: of any image classifier"
    return Draft("image-classification", why, seen, {}, {"config": config}, {"learning_rate": "1e-3"}, None)


def _images_alone(seen: str, why: str, squares: str) -> Draft:
    config = "{model_type: finetune-vae, preset: vae-conv} # from scratch; task.kind image-gan draws sharper images"
    return Draft("image-vae", why, seen, {"image": f"image # data.image: {{{squares}}} resizes"}, {"config": config},
                 {"learning_rate": "1e-3"}, None)  # fmt: skip


def _of_arrays(data: Path, form: str) -> Draft:
    import numpy as np

    if form == "idx":
        return _image_classes(f"an IDX file, {data.name}", "MNIST's format; its labels lie in the file beside it")
    try:
        with np.load(data, allow_pickle=False) as held:
            shapes = {name: held[name].shape for name in held.files}
    except (OSError, ValueError) as error:
        raise UserError(f"{data}: {' '.join(str(error).split())[:200]}") from None
    seen = "arrays " + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    images = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
    if not images:
        raise UserError(
            f"{data}: no array of images, of shape (n, height, width) or (n, height, width, 3), among {seen}."
        )
    flat = [name for name, shape in shapes.items() if len(shape) == 1 and name in (*LABELS, "y")]
    made = _image_classes(seen, f"{flat[0]} names a class for each") if flat else _images_alone(
        seen, "images without classes", "size: 32, channels: 3")  # fmt: skip
    made.task["image"] = images[0]
    if flat:
        made.task["label"] = flat[0]
    return made
