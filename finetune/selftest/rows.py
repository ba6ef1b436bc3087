"""A few of a recipe's own rows, or generated ones of the same columns where its data is not at hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.data.options import Holdout, ImageOptions
from finetune.errors import EnvironmentFailed
from finetune.selftest.generated import generated, generated_images
from finetune.tasks.conversations import turns_of

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.recipe import Recipe
    from finetune.task import Columns

COUNTS = {"train": 37, "validation": 11, "test": 7}  # no multiple of a batch of eight
PACKED = 4  # times as many rows where several make an input
CLASSES = 4  # the commonest ones
LONG = 400  # characters that are kept of a text, of few long ones 3000
KEPT = ("on_long", "image", "clean", "empty_texts", "seed")  # of the recipe's data section
SEED = 13


def sampled(recipe: Recipe, folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Write few rows of each split into `folder`; return the data section, changes of the task, and sentences.

    Raises:
        UserError: the recipe's files are there and are not right.
    """
    columns, missing = recipe.task.columns(), _missing(recipe)
    kept = {name: value for name, value in recipe.to_dict()["data"].items() if name in KEPT}
    splits = None
    if missing is None:
        from finetune.data import load_splits
        from finetune.data.files import named_sources

        options = replace(recipe.data, leakage="off", duplicates="off", streaming=False, augment=None)
        try:
            splits = load_splits(options, columns)
        except EnvironmentFailed:
            missing = named_sources(recipe.data.train, "train")[0].path
    task: dict[str, Any] = {}
    if splits is None:
        notes = [f"data: {missing} is not at hand: generated rows of the same columns stand in for it"]
        kept.pop("clean", None)  # made for other texts
        files, more = _generated(recipe, columns, folder)
        kept |= more
    else:
        if splits.image is not None:
            kept["image"] = {"size": splits.image.size, "channels": splits.image.channels}
        files, task, counts = _own(recipe, splits.rows, columns, folder)
        kept.pop("clean", None)  # done
        notes = [f"data: {', '.join(counts)} rows of the recipe's own"]
    return {**{name: str(file) for name, file in files.items()}, **kept}, task, notes


def _missing(recipe: Recipe) -> str | None:
    """Return the first source of the recipe that is no file here and no Hub data set either."""
    from finetune.data.files import is_hub_id, named_sources

    for split in ("train", "validation", "test"):
        given = getattr(recipe.data, split)
        if given is None or isinstance(given, Holdout):
            continue
        for source in named_sources(given, split):
            if not (Path(source.path).exists() or "*" in source.path or is_hub_id(source.path)):
                return source.path
    return None


def _own(
    recipe: Recipe, splits: dict[str, Dataset], columns: Columns, folder: Path
) -> tuple[dict[str, Path], dict[str, Any], list[str]]:
    many = PACKED if getattr(recipe.task, "pack", False) else 1
    shuffled = {name: rows.shuffle(seed=SEED) for name, rows in splits.items()}
    source = {name: name for name in splits}
    for name in ("validation", "test"):  # every check has rows to ask
        source.setdefault(name, "test" if "test" in splits else "train")
    files, counts, task = {}, [], dict[str, Any]()
    known: set[str] | None = None
    for name in ("train", "validation", "test"):
        rows = _plain(shuffled[source[name]], columns)
        picked = _picked(rows, columns, COUNTS[name] * many, known)
        if name == "train" and columns.label is not None and columns.passage is None:
            known = {part for row in picked for part in _classes(row[columns.label])}
            task = _fitted(recipe, known)
        files[name] = _written(picked, columns, recipe, folder / name)
        counts.append(f"{len(picked)} of {len(rows)} {source[name]}")
    return files, task, counts


def _plain(rows: Dataset, columns: Columns) -> Dataset:
    """Return the rows with the names of classes in the place of their numbers."""
    names = [each for each in rows.column_names if each != "row_id"]
    feature = rows.features.get(columns.label) if columns.label else None
    inner: Any = getattr(feature, "feature", feature)
    if hasattr(inner, "names"):
        told = inner.names

        def name(value: Any) -> Any:
            return [told[each] for each in value] if isinstance(value, list) else told[value]

        given = [name(value) for value in rows[columns.label]]
        rows = rows.remove_columns(columns.label).add_column(columns.label, given)
    return rows.select_columns(names)


def _picked(rows: Dataset, columns: Columns, count: int, known: set[str] | None) -> list[dict[str, Any]]:
    """Return `count` rows; of rows with one label each, the commonest classes in turn."""
    label = columns.label if columns.label in rows.column_names and columns.passage is None else None
    if label is None:
        return [_short(row, columns, len(rows)) for row in rows.select(range(min(count, len(rows))))]
    values = rows[label]
    if known is None and not isinstance(values[0], list | float):
        known = {name for name, _ in Counter(map(str, values)).most_common(CLASSES)}
    waiting: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        parts = _classes(value)
        if known is None or parts <= known or isinstance(value, float):
            waiting.setdefault("" if isinstance(value, list | float) else str(value), []).append(place)
    if columns.words is not None:  # rows that name something first: with none, nothing could be scored
        waiting = {
            name: sorted(places, key=lambda place: len(set(values[place])) < 2) for name, places in waiting.items()
        }
    picked: list[int] = []
    while len(picked) < count and any(waiting.values()):
        picked += [places.pop(0) for places in waiting.values() if places]
    return [_short(rows[place], columns, len(rows)) for place in picked[:count]]


def _classes(value: Any) -> set[str]:
    return {str(each) for each in value} if isinstance(value, list) else {str(value)}


def _short(row: dict[str, Any], columns: Columns, rows: int) -> dict[str, Any]:
    """Return a row whose plain texts are cut; lists of words, passages and conversations stay whole."""
    if columns.parts is not None:  # a file of conversations has no column of their text
        return {"messages": turns_of(row[columns.parts.text])}
    if columns.words or columns.passage:
        return row
    most = LONG if rows > 4 else 3000
    texts = (*columns.texts, columns.target)
    return {name: value[:most].strip() if name in texts and value else value for name, value in row.items()}


def _fitted(recipe: Recipe, known: set[str]) -> dict[str, Any]:
    """Return what of the task names classes, without those that the few rows do not have."""
    changes: dict[str, Any] = {}
    labels, weights = getattr(recipe.task, "labels", None), getattr(recipe.task, "class_weights", None)
    if labels:
        changes["labels"] = [name for name in labels if name in known]
    if isinstance(weights, dict):
        changes["class_weights"] = {name: weight for name, weight in weights.items() if name in known}
    return changes


def _written(rows: list[dict[str, Any]], columns: Columns, recipe: Recipe, path: Path) -> Path:
    if columns.image is not None:
        return _npz(rows, columns, path.with_suffix(".npz"))
    lines = [json.dumps(row, ensure_ascii=False, default=str) for row in rows]
    file = path.with_suffix(".jsonl")
    file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return file


def _npz(rows: list[dict[str, Any]], columns: Columns, path: Path) -> Path:
    import numpy as np

    from finetune.data.squares import shape_of

    assert columns.image is not None
    size, channels = shape_of(rows[0][columns.image])
    pixels = [np.frombuffer(row[columns.image], np.uint8).reshape(size, size, channels) for row in rows]
    arrays: dict[str, Any] = {columns.image: np.stack(pixels)}
    if channels == 1:
        arrays[columns.image] = arrays[columns.image][..., 0]
    if columns.label is not None and columns.label in rows[0]:
        arrays[columns.label] = np.asarray([row[columns.label] for row in rows])
    np.savez_compressed(path, **arrays)
    return path


def _generated(recipe: Recipe, columns: Columns, folder: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    files, image = {}, recipe.data.image or ImageOptions()
    many = PACKED if getattr(recipe.task, "pack", False) else 1
    for seed, (name, count) in enumerate(COUNTS.items()):
        path = folder / name
        if columns.image is not None:
            arrays: dict[str, Any] = generated_images(columns, count, seed, image.size or 16, image.channels or 1)
            import numpy as np

            np.savez_compressed(path.with_suffix(".npz"), **arrays)
            files[name] = path.with_suffix(".npz")
        else:
            files[name] = _written(generated(recipe.task, columns, count * many, seed), columns, recipe, path)
    return files, {"image": {"size": image.size or 16}} if columns.image is not None else {}
