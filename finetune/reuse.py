"""Using a run again: evaluate it on other rows, predict with it, check that it reloads as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.recipe import Recipe
    from finetune.task import Scores
    from finetune.training.trainer import Trainer


def load_run(
    run: Path, overrides: Mapping[str, Any] | None = None
) -> tuple[Recipe, PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the recipe, the model (adapter attached) and the processor of a run, from its folder alone."""
    from finetune.adapters import HeadOnly, load_adapter
    from finetune.recipe import Recipe

    recipe = Recipe.read(run / artefact.RECIPE, overrides)
    source = replace(recipe.model, tokenizer=str(run))
    whole = recipe.adapter is None or isinstance(recipe.adapter, HeadOnly)
    if whole:
        source = replace(source, path=str(run), revision=None, config=None, gguf_file=None, sha256=None)
    processor = recipe.task.load_processor(source, lambda: iter(()))
    model, _ = recipe.task.load_model(source, processor)
    loaded: PreTrainedModel = model if whole else load_adapter(model, run)  # type: ignore[assignment]
    return recipe, loaded.eval(), processor


def verify(run: Path) -> artefact.Verdict:
    """Reload a run in this process and compare its logits with those kept when it was trained.

    Raises:
        CheckFailed: they differ by more than the tolerance.
    """
    return compare_reloaded(run, "fresh")


def compare_reloaded(run: Path, process: str) -> artefact.Verdict:
    """Reload a run here, compare, and record the verdict in the run."""
    import torch

    if not (run / artefact.REFERENCE).exists():
        raise UserError(f"{run} is not a run with reference rows: {artefact.REFERENCE} is missing.")
    recipe, model, _ = load_run(run)
    model.to(recipe.train.device)  # type: ignore[arg-type]  # the stub of a decorated method
    with torch.no_grad():
        verdict = artefact.compare(
            run,
            lambda batch: recipe.task.logits(model, {n: each.to(recipe.train.device) for n, each in batch.items()}),
            process,
        )
    artefact.write_verdict(run, verdict)
    return verdict


def evaluate(run: Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Scores]:
    """Score a run on its test split, or on another (`{"data.test": "other.csv"}`), and return {split: scores}.

    The scores of other rows than the run's own are written under evaluations/ in the run; the run's scores stay.
    """
    from finetune.data import load_splits

    artefact.open_run(run)
    recipe, model, processor = load_run(run, overrides)
    wanted = ("test",) if recipe.data.test is not None else ("validation",)
    if wanted == ("validation",) and recipe.data.validation is None:
        raise UserError(f"{run}: the recipe has no test or validation rows. Name some: --data.test FILE.")
    # A validation set that was held out of the training rows needs them to be found again.
    splits = load_splits(recipe.data, recipe.task.columns(), wanted)
    trainer = _trainer(recipe, model, processor, run)
    scores = {}
    for name in wanted:
        rows = splits.rows[name]
        inputs = recipe.task.encode(rows, processor, recipe.data.on_long).inputs
        if recipe.task.targets not in inputs.column_names:
            raise UserError(f"data.{name}: the rows have no {recipe.task.columns().label!r} to score against.")
        answers = trainer.answers(inputs)
        scores[name] = recipe.task.score(answers, inputs, recipe.evaluate.resamples)
        if trainer.is_world_process_zero():
            found = recipe.task.examine(model.eval(), {name: inputs}, processor, recipe.evaluate)
            scores[name] |= found.scores.get(name, {})
    if trainer.is_world_process_zero():
        _write_evaluation(run, splits.fingerprints, scores)
    return scores


def _write_evaluation(run: Path, fingerprints: dict[str, Any], scores: dict[str, Scores]) -> None:
    name = hashlib.sha256(repr(sorted(fingerprints.items())).encode()).hexdigest()[:12]
    folder = run / "evaluations"
    folder.mkdir(exist_ok=True)
    plain = {split: {score: asdict(each) for score, each in table.items()} for split, table in scores.items()}
    artefact.write_json(folder / f"{name}.json", {"data": fingerprints, "scores": plain})


def predict(run: Path, file: Path, output: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Dataset:
    """Answer every row of a file; write the answers to `output` (.jsonl, .csv or .parquet) when it is given."""
    from finetune.data import read_rows

    artefact.open_run(run)
    if output is not None and output.suffix not in (".jsonl", ".csv", ".parquet"):
        raise UserError(f"--output: {output} should end in .jsonl, .csv or .parquet.")
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise UserError(f"--output: {output} cannot be written: {output.parent} is no folder, or {output.name} is one.")
    recipe, model, processor = load_run(run, overrides)
    columns = replace(recipe.task.columns(), label=None)  # answers need no labels: `evaluate` holds them against some
    rows = read_rows(str(file), recipe.data, columns)
    # Every row gets an answer: what training would drop or refuse is cut here.
    on_long = "window" if recipe.data.on_long == "window" else "truncate"
    inputs = recipe.task.encode(rows, processor, on_long).inputs
    trainer = _trainer(recipe, model, processor, run)
    table = recipe.task.predictions(trainer.answers(inputs), inputs, rows)
    if output is not None and trainer.is_world_process_zero():
        artefact.write_table(table, output)
    return table


def _trainer(recipe: Recipe, model: PreTrainedModel, processor: PreTrainedTokenizerBase, run: Path) -> Trainer:
    from finetune.tasks import trainer_class
    from finetune.training.options import fitted_to

    args = fitted_to(recipe.train, False, recipe.task.best_score, recipe.task.best_is_greatest)
    args.output_dir = str(run)
    return trainer_class(recipe.task)(
        task=recipe.task, model=model, args=args, train_inputs=None, eval_inputs=None, processor=processor, stamp={}
    )
