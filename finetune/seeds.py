"""`train.seeds`: one recipe trained with several seeds, and what its scores are on average."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping
from contextlib import redirect_stdout
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import CheckFailed, EnvironmentFailed, Stopped, UserError
from finetune.evaluation.ranges import bounds
from finetune.evaluation.seeds_report import write_report
from finetune.opening import refuse_own_sources
from finetune.preparation import prepare
from finetune.recipe_reading import to_yaml
from finetune.showing import seeds as shown
from finetune.sweeping.trials import held, run_trial

if TYPE_CHECKING:
    from finetune.recipe import Recipe

CONFIDENCE = 0.95
LEAST = 3  # seeds of an interval: of two, Student's t is 12.7 standard errors wide on each side
OWN = (artefact.SEEDS, artefact.staged(Path(artefact.SEEDS)).name, artefact.REPORT)


def train_seeds(recipe: Recipe) -> Path:
    """Train a recipe once a seed, each an ordinary run in a process of its own, and return the folder of them all.

    The runs are output_dir/seed-N, beside each its recipe and its log; seeds.json has the scores, and report.html shows
    them. The same command goes on with a seed that was cut short, and leaves finished ones as they are.

    Raises:
        UserError: something else lies in the folder, or seeds of another recipe or other rows; or what any run
            is refused for.
        CheckFailed: a seed diverged; the others are trained and told first.
        Stopped: a signal, or `train.max_hours`, which are those of all seeds together.
    """
    folder, seeds = Path(str(recipe.train.output_dir)), list(recipe.train.seeds or ())
    if "LOCAL_RANK" in os.environ:
        raise UserError("train.seeds starts a process for each seed itself: leave out --profile, or train each seed.")
    _refuse_strangers(folder)
    if recipe.train.overwrite:
        refuse_own_sources(recipe, folder)
    written = {seed: to_yaml(_of_seed(recipe, seed, _run(folder, seed))) for seed in seeds}
    if not recipe.train.overwrite:
        for seed, text in written.items():
            _refuse_other(_run(folder, seed), text)
    if recipe.train.overwrite or not all(_done(_run(folder, seed)) for seed in seeds):
        _look(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.train.overwrite:
        _remove(folder, seeds)
    failed: dict[int, str] = {}
    for place, (seed, text) in enumerate(written.items(), 1):
        run = _run(folder, seed)
        print(
            f"seed {seed} ({place}/{len(seeds)}): {'finished before' if _done(run) else f'see {run}.log'}", flush=True
        )
        _file(run, ".yaml").write_text(text, encoding="utf-8")
        try:
            ended = run_trial(_file(run, ".yaml"), run, lambda found: False, recipe.train.max_hours)
        except (UserError, EnvironmentFailed, Stopped) as error:
            line = str(error).replace(f"{_file(run, '.yaml')}:", f"seed {seed}:", 1)
            if recipe.train.overwrite:  # which the seed itself was not told: its line is of the command that it was
                line = line.replace("the same command", "the same command without --overwrite (train.overwrite)")
            raise type(error)(line) from None
        if ended.failed is not None:
            failed[seed] = ended.failed
            print(f"seed {seed} failed: {ended.failed}", flush=True)
    whole = [seed for seed in seeds if seed not in failed]
    if whole:
        found = {**summary({seed: _run(folder, seed) for seed in whole}), "failed": failed}
        artefact.write_json(folder / artefact.SEEDS, found)
        write_report(folder)
    if failed:
        if whole:
            print(shown(found, folder), flush=True)
        others = "no seed ended well" if not whole else f"the means are over {len(whole)} of {len(seeds)} seeds"
        raise CheckFailed(f"{folder}: seed {next(iter(failed))}: {next(iter(failed.values()))} So {others}.")
    return folder


def _look(recipe: Recipe) -> None:
    """Look at the rows, the tokenizer and the teacher as each seed will, before anything is written.

    What is found there stands in the log of each seed. What is encoded is kept, and they need not do it again.
    """
    with redirect_stdout(io.StringIO()):
        prepare(recipe)


def summary(runs: Mapping[int, Path]) -> dict[str, Any]:
    """Return what seeds.json says of finished runs that differ by their seed.

    Returns:
        seeds; runs: {seed: its folder's name}; interval: what it is; scores: {split: {score: {mean, low, high, sd, n,
        cut, values: {seed: value}}}}; baselines: {name: {score: the same}}, of the test split as in scores.json.

    Raises:
        UserError: they were trained or scored on other rows.
    """
    rows = {seed: artefact.read_json(run / artefact.DATA)["fingerprints"] for seed, run in runs.items()}
    first = next(iter(runs))
    for seed, files in rows.items():
        if files != rows[first]:
            changed = next(name for name in {**files, **rows[first]} if files.get(name) != rows[first].get(name))
            raise UserError(
                f"{runs[seed]} and {runs[first].name} read different rows: {changed} has changed; --overwrite."
            )
    tables = {seed: artefact.read_json(run / artefact.SCORES) for seed, run in runs.items()}
    baselines = {seed: table.pop("baselines", {}) for seed, table in tables.items()}
    return {
        "seeds": list(runs),
        "runs": {str(seed): run.name for seed, run in runs.items()},
        "interval": _said(len(runs)),
        "scores": _means(tables),
        "baselines": _means(baselines),
    }


def _means(tables: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return {group: {score: its mean and values}} of {seed: {group: {score: …}}}, where a seed has the score."""
    made: dict[str, Any] = {}
    for table in tables.values():
        for group, scores in table.items():
            for name in scores:
                if name not in made.setdefault(group, {}):
                    each = {seed: other.get(group, {}).get(name) for seed, other in tables.items()}
                    values = {seed: one["value"] for seed, one in each.items() if one}
                    made[group][name] = mean_over(values, bounds(name))
    return made


def mean_over(values: Mapping[int, float], limits: tuple[float, float] = (-inf, inf)) -> dict[str, Any]:
    """Return the mean of one value a seed, its t-interval, their standard deviation, and them.

    The interval is None for fewer than LEAST seeds. It ends where the score's values do, `limits`, and `cut` says that
    it did: what lies beyond cannot be the mean, so that no less of the mean's chances is within.
    """
    import numpy as np
    from scipy.stats import t

    numbers = np.array(list(values.values()), dtype=np.float64)
    n, mean = len(numbers), float(numbers.mean())
    made: dict[str, Any] = {"mean": mean, "low": None, "high": None, "sd": None, "n": n, "cut": False}
    if n > 1:
        made["sd"] = sd = float(numbers.std(ddof=1))
        if n >= LEAST:
            half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / n**0.5
            ends = mean - half, mean + half
            made |= {"low": max(ends[0], limits[0]), "high": min(ends[1], limits[1])}
            made["cut"] = (made["low"], made["high"]) != ends
    return {**made, "values": {str(seed): value for seed, value in values.items()}}


def _said(n: int) -> str:
    """Say what the intervals of n seeds are."""
    if n < LEAST:
        return f"none: {LEAST} seeds or more have an interval, and here {'is 1' if n == 1 else f'are {n}'}"
    told = f"{CONFIDENCE:.0%} t-interval of the mean over seeds, on the same rows: what the seed alone moves"
    return f"{told}; cut where the values of a score end"


def _run(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}"


def _remove(folder: Path, seeds: list[int]) -> None:
    """Remove what seeds left, all of them before the first trains: what a start anew leaves is its own.

    A run that is half removed has no recipe beside it, and does not pass for one of this recipe.
    """
    for name in OWN:
        (folder / name).unlink(missing_ok=True)
    for run in (_run(folder, seed) for seed in seeds):
        if run.exists():
            with held(_file(run, ".log")):
                _file(run, ".yaml").unlink(missing_ok=True)
                shutil.rmtree(run)


def _done(run: Path) -> bool:
    return run.exists() and artefact.status(run) == "finished"


def _file(run: Path, ending: str) -> Path:
    return run.with_name(run.name + ending)


def _of_seed(recipe: Recipe, seed: int, run: Path) -> dict[str, Any]:
    """Return the plain values of the recipe of one seed; the order of the data follows the seed where it did."""
    values = recipe.to_dict()
    train = {name: value for name, value in values["train"].items() if name != "seeds"}
    return {**values, "train": {**train, "seed": seed, "output_dir": str(run)}}


def _refuse_strangers(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"train.output_dir: {folder} is a file.")
    if folder.exists() and artefact.status(folder):
        raise UserError(
            f"train.output_dir: {folder} holds a run, and train.seeds makes a folder of them. Give another."
        )
    names = [each.name for each in folder.iterdir()] if folder.exists() else []
    strangers = [name for name in names if not name.startswith("seed-") and name not in OWN]
    if strangers:
        raise UserError(f"train.output_dir: {folder} holds other files ({strangers[0]}). Give another folder.")


def _refuse_other(run: Path, text: str) -> None:
    """Refuse to go on with, or to count, a run of another recipe."""
    before = _file(run, ".yaml")
    if run.exists() and (not before.exists() or before.read_text(encoding="utf-8") != text):
        raise UserError(f"{run} was trained by another recipe. Give another train.output_dir, or --overwrite.")
