"""Letting a run write: `finetune generate`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import UserError
from finetune.reloading import load_run
from finetune.sparing import refuse_what_is_read
from finetune.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.recipe import Recipe

DRAWS = ("temperature", "top_k", "top_p")  # mean nothing where the likeliest token is taken


def generate(
    run: Path,
    prompt: str | None = None,
    file: Path | None = None,
    output: Path | None = None,
    count: int = 1,
    seed: int = 13,
    overrides: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[dict[str, str]]:
    """Return what a run writes, as rows of `row_id`, `prompt` and `generated`.

    Args:
        run: of a task that writes: it goes on with a text, or answers one.
        prompt: the text; or
        file: rows with the column that the run was trained on.
        output: .jsonl for the rows.
        count: how many texts each prompt gets, where they are drawn.
        seed: the same one draws the same.
        overrides: of the recipe.
        options: of GenerationConfig, over those of the task; temperature, top_k or top_p mean that tokens are drawn.

    Raises:
        UserError: the run writes nothing, a text is too long, or an option says nothing that can be done.
    """
    import torch

    from finetune.recipe import Recipe
    from finetune.tasks.writing import check_options

    artefact.open_run(run)
    known = Recipe.read(run / artefact.RECIPE, overrides)
    if type(known.task).reply is Task.reply:
        raise UserError(f"{run} is of {known.task.kind}, which writes nothing for a prompt; see finetune predict.")
    if (prompt is None) == (file is None):
        raise UserError(f'give one of the two: finetune generate {run} --prompt "TEXT", or --file FILE.')
    _check_output(output)
    refuse_what_is_read("output", output, (), () if file is None else (file,))
    options |= {"do_sample": True} if any(name in options for name in DRAWS) else {}
    check_options(options, "--", sampling=True)
    if count < 1 or (count > 1 and not options.get("do_sample")):
        raise UserError(f"--count is {count}; more than one text needs --do_sample, and fewer there are not.")
    rows = _rows(known, prompt, file, count)
    recipe, model, processor = load_run(run, overrides)
    model.to(recipe.train.device)  # type: ignore[arg-type]  # the stub of a decorated method
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        size = recipe.train.per_device_eval_batch_size
        try:
            texts = recipe.task.reply(model, processor, rows, options, size)
        except ValueError as error:  # transformers looks at some values when it needs them
            raise UserError(f"finetune generate: {' '.join(str(error).split())[:200]}") from error
    asked = rows[recipe.task.columns().texts[0]]
    table = [
        {"row_id": row_id, "prompt": given, "generated": text}
        for row_id, given, text in zip(rows["row_id"], asked, texts, strict=True)
    ]
    if output is not None:
        lines = (json.dumps(row, ensure_ascii=False) for row in table)
        output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return table


def shown(table: list[dict[str, str]]) -> str:
    """Return the text for a single prompt, or one row of JSON a line."""
    if len(table) == 1:
        return table[0]["generated"]
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in table)


def _rows(recipe: Recipe, prompt: str | None, file: Path | None, count: int) -> Dataset:
    from datasets import Dataset, concatenate_datasets

    from finetune.novelty import read_unlabelled

    if prompt is not None:
        column = recipe.task.columns().texts[0]
        return Dataset.from_dict({column: [prompt] * count, "row_id": ["--prompt"] * count})
    rows = read_unlabelled(recipe, str(file))
    return concatenate_datasets([rows] * count)


def _check_output(output: Path | None) -> None:
    if output is None:
        return
    if output.suffix != ".jsonl":
        raise UserError(f"--output: {output} should end in .jsonl.")
    if output.is_dir() or not output.parent.is_dir():
        raise UserError(f"--output: {output} cannot be written: {output.parent} is no folder, or {output.name} is one.")
