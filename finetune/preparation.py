"""Everything that stands before a weight is loaded: rows, checks, inputs; and a look at them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.editing.personal import Place
    from finetune.recipe import Recipe
    from finetune.task import Encoded, Processor, Task

ONE_SIDED = (
    0.15  # of the variance of length explained by the label; 0.21 for the SMS spam collection, which did not train
)


@dataclass(frozen=True)
class Prepared:
    """Everything that stands before a weight is loaded."""

    recipe: Recipe  # with the task's options that the data decides filled in
    splits: Splits
    processor: Processor
    encoded: dict[str, Encoded]
    reader: str  # sha256 of the processor, as it was before it had read anything
    outliers: Dataset | None = None  # inputs of evaluate.outliers


def prepare(recipe: Recipe, wanted: tuple[str, ...] = ("train", "validation", "test")) -> Prepared:
    """Load, check and encode the rows; say aloud what was inferred. Writes nothing but the encoding cache."""
    from finetune.editing import with_words
    from finetune.novelty import read_outliers
    from finetune.rewriting import load_rows
    from finetune.tasks.extractor import check_networks
    from finetune.taught import check_alone

    with recipe.train.main_process_first(desc="networks"):
        check_networks(recipe.evaluate)
    splits = load_rows(recipe, wanted)
    task = _resolved(recipe, splits)
    # The size that was read off the images goes into the run's recipe: other images are brought to it.
    # So do the words of files that texts are cleaned by: later ones are cleaned as these were.
    data = replace(recipe.data, image=splits.image or recipe.data.image, clean=with_words(recipe.data.clean))
    recipe = replace(recipe, task=task, data=data)
    source = splits.rows.get("train")
    columns = task.columns()
    learned = (*columns.texts, *([columns.target] if columns.target else []))  # what a tokenizer is trained on
    texts = (lambda: (text for name in learned for text in source[name])) if source else (lambda: iter(()))
    processor = task.load_processor(recipe.model, texts)
    reader = digest_of(processor)  # now: cutting a text leaves its trace in a tokenizer
    _check_length(recipe)
    task.check_teacher(processor, recipe.model)
    check_alone(recipe, splits)
    outliers = read_outliers(recipe, processor)
    with recipe.train.main_process_first(desc="tokens"):
        encoded = {name: _encode(recipe, splits, name, processor, reader) for name in splits.rows}
    if splits.stream is not None:
        encoded["train"] = task.encode(splits.stream, processor, recipe.data.on_long)
    if recipe.train.process_index == 0:
        for line in (*splits.notes, *_facts(task, encoded), *_one_sided(recipe, encoded), *_pointless(recipe)):
            print(line, flush=True)
    return Prepared(recipe, splits, processor, encoded, reader, outliers)


def _resolved(recipe: Recipe, splits: Splits) -> Task:
    """Return the task with what it reads off the rows; where a limit left it too few, the message says so."""
    try:
        return recipe.task.resolve(splits.rows)
    except UserError as error:
        most, said = recipe.data.max_train_rows, str(error)
        if most is None or not ("every row has the same label" in said or "no training row has" in said):
            raise
        raise UserError(f"{said} data.max_train_rows keeps {most:,} of the rows: raise it.") from None


def _pointless(recipe: Recipe) -> Iterator[str]:
    """Yield a warning for each option that is given and does nothing, or stands twice."""
    distill, clean = getattr(recipe.task, "distill", None), recipe.data.clean
    if distill is not None and distill.alpha == 0 and distill.hidden is None:
        yield (
            "Beware: task.distill.alpha is 0 and hidden is left out: the teacher teaches nothing, and the student "
            "learns from the targets alone."
        )
    for place, item in enumerate(clean):
        first, name = clean.index(item), item if isinstance(item, str) else next(iter(item))
        if first < place:
            yield (
                f"Beware: data.clean.{place} says {name} again: it cleans what data.clean.{first} and those after it "
                "left."
            )


def _check_length(recipe: Recipe) -> None:
    from finetune.loading import context_length, load_config

    option = "max_length" if hasattr(recipe.task, "max_length") else "block_size"
    wanted = getattr(recipe.task, option, None)
    if wanted is None:
        return
    limit = context_length(load_config(recipe.model))
    if wanted and limit and wanted > limit:
        raise UserError(f"task.{option}: {wanted} is more than the {limit} positions that the model has.")


def _encode(recipe: Recipe, splits: Splits, name: str, processor: Processor, reader: str) -> Encoded:
    """Encode a split, or take it from the cache when data, tokenizer, options and code are all the same."""
    from huggingface_hub.constants import HF_HOME

    from finetune.data import cached
    from finetune.training.checkpoints import disk

    key = {
        "split": name,
        "fingerprints": splits.fingerprints,
        "data": asdict(recipe.data),
        "task": [type(recipe.task).__qualname__, asdict(recipe.task)],
        "tokenizer": reader,
        "code": _code_version(recipe.task),
    }
    folder = Path(recipe.data.cache_dir) if recipe.data.cache_dir else Path(HF_HOME) / "finetune" / "encodings"
    encode = recipe.task.encode if name == "train" else recipe.task.encode_held
    with disk(folder):
        return cached(lambda: encode(splits.rows[name], processor, recipe.data.on_long), key, folder)


def digest_of(processor: Processor) -> str:
    """Return the sha256 of what a processor does, wherever its files lie."""
    from finetune.tasks.two_tokenizers import decoder_tokenizer, encoder_tokenizer

    if hasattr(processor, "init_kwargs"):
        both = dict.fromkeys((decoder_tokenizer(processor), encoder_tokenizer(processor)))
        text = "".join(map(_tokenizer_text, both))
    else:  # an image processor
        text = str(processor.to_json_string())
    return hashlib.sha256(text.encode()).hexdigest()


def _tokenizer_text(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend else repr(sorted(tokenizer.get_vocab().items()))
    return words + repr({name: each for name, each in tokenizer.init_kwargs.items() if not _is_place(name)})


def _is_place(option: str) -> bool:
    return option.endswith("_file") or option in ("name_or_path", "is_local", "local_files_only")


def _code_version(task: Any) -> str:
    """Return a digest of the code that encodes: the task's file, and all that tasks here lean on."""
    import inspect

    from finetune import tasks

    files = (inspect.getsourcefile(type(task)), *sorted(Path(tasks.__file__).parent.glob("*.py")))
    return hashlib.sha256(b"".join(Path(name).read_bytes() for name in files if name)).hexdigest()


def _facts(task: Any, encoded: dict[str, Encoded]) -> list[str]:
    lines = [task.described()] if task.described() else []
    for name, each in encoded.items():
        if "inputs" in each.facts:
            facts = each.facts
            cut = f"{facts['cut_share']:.1%} cut at {facts['limit']}" if facts["cut"] else "none cut"
            dropped = f", {facts['dropped']} dropped" if facts["dropped"] else ""
            learned = (
                f", {facts['learned'] / max(facts['tokens'], 1):.1%} of them learned" if "learned" in facts else ""
            )
            lines.append(
                f"{name}: {facts['rows']:,} rows → {facts['inputs']:,} inputs, "
                f"{facts['tokens']:,} {task.unit}{learned} ({cut}{dropped})"
            )
            lines += [f"{name}: {said}" for said in facts.get("said", ())]
    return lines


def _one_sided(recipe: Recipe, encoded: dict[str, Encoded]) -> list[str]:
    """Return a warning where grouping by length would fill steps with rows of one label."""
    from finetune.training.dealing import length_of_labels

    inputs: Any = encoded["train"].inputs if "train" in encoded else None
    names: Any = getattr(recipe.task, "labels", None)
    grouped = recipe.train.train_sampling_strategy == "group_by_length" and hasattr(inputs, "num_rows") and names
    if not grouped or getattr(recipe.task, "problem", None) != "single":
        return []
    share, medians = length_of_labels(inputs["length"], inputs["labels"])
    if share < ONE_SIDED:
        return []
    ends = [pick(medians, key=lambda label: medians[label]) for pick in (max, min)]
    said = " and ".join(f"{names[label]} {medians[label]:.0f}" for label in ends)
    return [
        "Beware: train.train_sampling_strategy: group_by_length makes steps of one label here, for the length tells "
        f"the label (median {recipe.task.unit}: {said}). If the loss does not fall, leave it out."
    ]


def check(recipe: Recipe, personal: Path | None = None) -> Prepared:
    """Do all that training does before a weight is loaded, and say what was found; `personal`: see write_places."""
    from finetune.editing.personal import refuse_rows, write_places
    from finetune.publication import preflight

    if personal is not None:
        refuse_rows(personal, _row_files(recipe))
    preflight(recipe, create=False)
    prepared = prepare(recipe)
    places = _personal(prepared)
    if personal is not None:
        write_places(personal, places)
    for row in prepared.splits.ledger:
        print(f"{row['split']}: {row['step']}: {row['before']} → {row['after']} rows")
    print("The recipe, the data and the tokenizer are in order.")
    return prepared


def _row_files(recipe: Recipe) -> Iterator[str]:
    """Yield the files, globs, folders and Hub ids that a recipe names for its rows."""
    from finetune.data import Holdout
    from finetune.data.files import named_sources

    for split in ("train", "validation", "test"):
        given = getattr(recipe.data, split)
        if given is not None and not isinstance(given, Holdout):
            yield from (source.path for source in named_sources(given, split))
    outliers = recipe.evaluate.outliers or ()
    yield from (outliers,) if isinstance(outliers, str) else outliers


def _personal(prepared: Prepared) -> list[Place]:
    """Return where personal data and keys stand in the texts that are learned or answered; say it for each split."""
    from finetune.editing.personal import personal_places, told_places
    from finetune.recipe_checks import may_scrub

    columns, found = prepared.recipe.task.columns(), []
    for split, rows in prepared.splits.rows.items():
        names = [name for name in (*columns.texts, columns.target) if name is not None and name in rows.column_names]
        texts: dict[str, Iterable[Any]] = {name: rows[name] for name in names}
        if columns.parts is not None and columns.parts.text in texts:
            texts[columns.parts.text] = map(columns.parts.said, texts[columns.parts.text])
        places = personal_places(split, rows["row_id"], texts) if names else []
        if names:
            print(told_places(split, rows.num_rows, places, may_scrub(prepared.recipe)))
        found += places
    if prepared.splits.stream is not None:
        print("train: a stream is not looked through for personal data.")
    return found


def preview(recipe: Recipe, rows: int = 5) -> None:
    """Print what cleaning changed, and the first inputs as the model will see them: tokens, and what is learned."""
    prepared = prepare(recipe, ("train",))
    for line in _changed(recipe, prepared, rows):
        print(line)
    inputs = prepared.encoded["train"].inputs
    first = inputs.select(range(min(rows, len(inputs)))) if hasattr(inputs, "select") else inputs.take(rows)
    for each in first:
        print(f"\n{each['row_id']} · {each['length']} {prepared.recipe.task.unit}")
        if "input_ids" in each:
            print(prepared.recipe.task.shown_input(each, prepared.processor))
        print(f"→ {prepared.recipe.task.shown_target(each, prepared.processor)}")


def _changed(recipe: Recipe, prepared: Prepared, most: int) -> list[str]:
    """Return the first texts that data.clean changed, before and after; [] where a recipe cleans nothing."""
    from finetune.data import load_splits

    if not recipe.data.clean or "train" not in prepared.splits.rows:
        return []
    plain = replace(recipe.data, clean=[], augment=None, duplicates="off", leakage="off")
    before = load_splits(plain, recipe.task.columns(), ("train",)).rows["train"]
    names = [name for name in recipe.task.columns().texts if name in before.column_names]
    known = {row_id: number for number, row_id in enumerate(before["row_id"])}
    lines: list[str] = []
    for row in prepared.splits.rows["train"]:
        old = before[known[row["row_id"]]] if row["row_id"] in known else row
        for name in names:
            if old[name] != row[name] and len(lines) < 3 * most:
                lines += [f"\n{row['row_id']} · {name}, as data.clean leaves it", f"- {old[name]}", f"+ {row[name]}"]
    return lines
