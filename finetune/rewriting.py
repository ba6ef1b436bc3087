"""The rows of a recipe, and the models that write the copies of `data.augment` which need one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.editing.augmenting import Rewriter
from finetune.errors import EnvironmentFailed, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.loading import ModelOptions
    from finetune.recipe import Recipe
    from finetune.tasks.seq2seq import Seq2Seq

    Write = Callable[[list[str], list[str]], list[str]]

SIZE = 16  # texts that are translated at once
LONGEST = 256  # tokens that a translator without a run's options reads and writes
MADE_BY = ("rewriting.py", "editing/contextual.py", "tasks/seq2seq_inputs.py", "tasks/seq2seq.py", "tasks/writing.py")


def load_rows(recipe: Recipe, wanted: tuple[str, ...]) -> Splits:
    """Return the wanted splits of a recipe, the training rows with their copies.

    What a model writes is kept in the cache of encoded inputs: the first process writes it, the others and later runs
    read it.

    Raises:
        UserError: as `load_splits`; or a model is not there, or not of the kind that is asked for.
    """
    from finetune.data import load_splits

    columns, given = recipe.task.columns(), recipe.data.augment
    if "train" not in wanted or given is None or not (given.contextual or given.translate):
        return load_splits(recipe.data, columns, wanted)
    with recipe.train.main_process_first(desc="rows"):
        return load_splits(recipe.data, columns, wanted, rewriters(recipe))


def rewriters(recipe: Recipe) -> dict[str, Rewriter]:
    """Return the operations of a recipe's `data.augment` that need a model; none is loaded before it is asked."""
    given, made = recipe.data.augment, dict[str, Rewriter]()
    if given is not None and given.contextual:
        option = "data.augment.contextual" if given.masked_lm is None else "data.augment.masked_lm"
        source = _masked(recipe)
        marks = {str(source.path): _mark(source, option)}
        made["contextual"] = Rewriter(_remembered(recipe, marks, _contextual(recipe, source, option)), marks)
    if given is not None and given.translate is not None:
        option = "data.augment.translate"
        marks = {path: _mark(_model(path), option) for path in given.translate}
        made["translate"] = Rewriter(_remembered(recipe, marks, _back(recipe, given.translate, option)), marks)
    return made


def _model(path: str) -> ModelOptions:
    from finetune.loading import ModelOptions

    return ModelOptions(path=path)


def _masked(recipe: Recipe) -> ModelOptions:
    """Return where the masked language model is: the one that is named, or the recipe's base."""
    assert recipe.data.augment is not None
    named = recipe.data.augment.masked_lm
    return replace(recipe.model, quantize=None, dtype="float32") if named is None else _model(named)


def _mark(source: ModelOptions, option: str) -> dict[str, Any]:
    """Return the fingerprint of a model: of the files of a folder, or the commit of a Hub id."""
    from finetune.loading.source import locate

    with _told_of(option):
        found = locate(source)
    if found.folder is None:
        return {"commit": found.commit}
    digest, size = hashlib.sha256(), 0
    for file in sorted(found.folder.iterdir()):
        if file.name.endswith((".safetensors", ".gguf")) or file.name in ("config.json", artefact.RECIPE):
            digest.update(file.name.encode() + file.read_bytes())
            size += file.stat().st_size
    return {"sha256": digest.hexdigest(), "bytes": size}


class _told_of:
    """Says of a failure to load, which speaks of the recipe's model, which option it is of."""

    def __init__(self, option: str) -> None:
        self.option = option

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, UserError | EnvironmentFailed):
            raise type(error)(f"{self.option}: {str(error).removeprefix('model.path: ')}") from None


def _remembered(recipe: Recipe, marks: dict[str, dict[str, Any]], write: Write) -> Write:
    """Return a function that writes a list of texts once, and reads it from the cache ever after."""
    from huggingface_hub.constants import HF_HOME

    place = Path(recipe.data.cache_dir) if recipe.data.cache_dir else Path(HF_HOME) / "finetune" / "encodings"
    root = Path(artefact.__file__).parent
    code = hashlib.sha256(b"".join((root / name).read_bytes() for name in MADE_BY)).hexdigest()
    assert recipe.data.augment is not None
    key = [marks, recipe.data.augment.contextual, recipe.data.augment.translate, code]

    def remembered(texts: list[str], seeds: list[str]) -> list[str]:
        entry = place / f"{hashlib.sha256(json.dumps([key, texts, seeds]).encode()).hexdigest()}.json"
        if entry.exists():
            found = artefact.read_json(entry)
            if isinstance(found, list) and len(found) == len(texts):
                return [str(text) for text in found]
        made = write(texts, seeds)
        entry.parent.mkdir(parents=True, exist_ok=True)
        artefact.write_json(entry, made)
        return made

    return remembered


def _contextual(recipe: Recipe, source: ModelOptions, option: str) -> Write:
    def write(texts: list[str], seeds: list[str]) -> list[str]:
        from finetune.editing.contextual import LIMIT, substituted
        from finetune.loading import context_length

        assert recipe.data.augment is not None
        print(f"augment: {source.path} writes words into {len(texts):,} texts", flush=True)
        model, processor = _load_masked(source, option)
        limit = min(context_length(model.config) or LIMIT, LIMIT)
        model.to(recipe.train.device)  # type: ignore[arg-type]  # the stub of a decorated method
        return substituted(texts, seeds, recipe.data.augment.contextual, model, processor, limit)

    return write


def _load_masked(source: ModelOptions, option: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a masked language model and its tokenizer; UserError for a model that is none."""
    from transformers import AutoModelForMaskedLM

    from finetune.loading import load_config, load_pretrained, load_tokenizer

    name = "" if option.endswith("masked_lm") else " Name one with data.augment.masked_lm."
    with _told_of(option):
        processor = load_tokenizer(source)
        if processor.mask_token_id is None:
            raise UserError(f"{source.path} has no mask token, so it is no masked language model.{name}")
        model, new = load_pretrained(source, AutoModelForMaskedLM, load_config(source))
    if new:
        raise UserError(
            f"{option}: {source.path} is no masked language model: {new[0]} is missing, and would be random.{name}"
        )
    return model.eval(), processor


def _back(recipe: Recipe, translate: list[str], option: str) -> Write:
    def write(texts: list[str], seeds: list[str]) -> list[str]:
        print(f"augment: {' and '.join(translate)} translate {len(texts):,} texts", flush=True)
        made, places = list(texts), list(range(len(texts)))
        for path in translate:
            with _told_of(option):
                told = _translated(path, [made[place] for place in places], recipe.train.device)
            for place, text in zip(places, told, strict=True):
                made[place] = texts[place] if text is None else text  # too long, or nothing came: the row itself
            places = [place for place, text in zip(places, told, strict=True) if text is not None]
        return made

    return write


def _translated(path: str, texts: list[str], device: Any) -> list[str | None]:
    """Return each text as a seq2seq model writes it; None where it is too long to be read, or nothing was written."""
    from datasets import Dataset

    task, model, processor = _translator(path)
    model.to(device)
    read = processor.encoder if hasattr(processor, "encoder") else processor
    sizes = [len(ids) for ids in read([task.prefix + text for text in texts])["input_ids"]] if texts else []
    fit = [place for place, size in enumerate(sizes) if size <= task.max_source_length]
    made: list[str | None] = [None] * len(texts)
    if not fit:
        return made
    rows = Dataset.from_dict({task.source: [texts[place] for place in fit], "row_id": ["data.augment"] * len(fit)})
    for place, text in zip(fit, task.reply(model, processor, rows, {}, SIZE), strict=True):
        made[place] = text if text.strip() else None
    return made


def _translator(path: str) -> tuple[Seq2Seq, PreTrainedModel, Any]:
    """Return a run of the task seq2seq, or a pretrained model with the task's own options."""
    from finetune.loading import context_length, load_config
    from finetune.loading.source import source_folder
    from finetune.reloading import load_run
    from finetune.tasks.seq2seq import Seq2Seq

    folder = Path(source_folder(path))
    if folder.is_dir() and artefact.status(folder):
        artefact.open_run(folder)
        recipe, model, processor = load_run(folder)
        if not isinstance(recipe.task, Seq2Seq):
            raise UserError(f"{path} is a run of task.kind {recipe.task.kind}; a translator is one of seq2seq.")
        return recipe.task, model, processor
    source = _model(path)
    limit = min(context_length(load_config(source)) or LONGEST, LONGEST)
    task = Seq2Seq(source="text", target="", max_source_length=limit, max_target_length=limit)
    processor = task.load_processor(source, lambda: iter(()))
    model, new = task.load_model(source, processor)
    if new:
        raise UserError(f"{path} cannot translate: {new[0]} is missing, and would be random.")
    return task, model.eval(), processor
