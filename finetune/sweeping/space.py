"""The sweep's file: which options take which values, and how they are chosen."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError, did_you_mean
from finetune.recipe_reading import Given, read_file

if TYPE_CHECKING:
    import optuna

    from finetune.recipe import Recipe

SAMPLERS = ("tpe", "random", "grid")
OPTIONS = ("output_dir", "space", "trials", "sampler", "prune", "score", "greater_is_better", "seed")
RANGE = ("low", "high", "log", "step")
RESERVED = ("train.output_dir", "data.test", "train.overwrite", "train.max_hours")


@dataclass(frozen=True)
class Choice:
    """One thing that is chosen: a number of a range, one of several values, or one of several sets of options."""

    name: str
    values: tuple[Any, ...] = ()  # of a list; a set is a mapping {"section.option": value}
    low: float | int = 0
    high: float | int = 0
    log: bool = False
    step: float | int | None = None

    @property
    def plain(self) -> bool:
        """Whether the study can hold the values themselves, and not their places in the list."""
        return all(each is None or isinstance(each, bool | int | float | str) for each in self.values)

    def suggested(self, trial: optuna.Trial) -> Any:
        """Return what the study chooses, as it holds it."""
        if self.values:
            return trial.suggest_categorical(self.name, self.held())
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def held(self) -> list[Any]:
        """Return the values of a list as the study holds them."""
        return list(self.values) if self.plain else list(range(len(self.values)))

    def options(self, chosen: Any) -> dict[str, Any]:
        """Return {"section.option": value} for what the study holds."""
        value = self.values[chosen] if self.values and not self.plain else chosen
        return dict(value) if isinstance(value, dict) and "." not in self.name else {self.name: value}


@dataclass(frozen=True)
class Sweep:
    """A sweep as its file says it."""

    output_dir: str  # study, trials and what came of them
    space: tuple[Choice, ...]
    trials: int = 20  # of a grid: all of it
    sampler: str = "tpe"
    prune: bool = False  # end a trial that is worse than the median of those before it at the same evaluation
    score: str | None = None  # of the validation rows; the task's own when left out
    greater_is_better: bool | None = None  # of a score that is not the task's own
    seed: int = 13  # of the sampler
    source: str = field(default="", compare=False)

    def grid(self) -> list[dict[str, Any]]:
        """Return every combination, as the study holds it."""
        names = [each.name for each in self.space]
        return [dict(zip(names, held, strict=True)) for held in itertools.product(*(e.held() for e in self.space))]

    def options(self, chosen: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a trial, {"section.option": value}."""
        return {name: value for each in self.space for name, value in each.options(chosen[each.name]).items()}


def read_sweep(path: Path) -> Sweep:
    """Read a sweep's file. Raises UserError, naming the line, for what it cannot mean."""
    given = read_file(path)
    for name in given.values:
        if name not in OPTIONS:
            known = f"known: {', '.join(OPTIONS)}.{did_you_mean(name, OPTIONS)}"
            raise UserError(f"{given.name((name,))} is no option of a sweep; {known}")
    for name in ("output_dir", "space"):
        if not given.values.get(name):
            raise UserError(f"{path}: {name} is missing.")
    if not isinstance(given.values["space"], dict):
        raise UserError(f"{given.name(('space',))} must name options: train.learning_rate: {{low: 1e-5, high: 1e-3}}.")
    space = tuple(_choice(given, name, value) for name, value in given.values["space"].items())
    taken: dict[str, str] = {}
    for each in space:
        for option in _options_of(each):
            if option in RESERVED:
                raise UserError(f"{given.name(('space', each.name))}: {option} is the sweep's own. Leave it out.")
            if option in taken:
                raise UserError(f"{given.name(('space', each.name))}: {option} is chosen by {taken[option]} already.")
            taken[option] = each.name
    made = Sweep(**{**given.values, "output_dir": str(given.values["output_dir"]), "space": space, "source": str(path)})
    _check(made, given)
    return made


def _choice(given: Given, name: str, value: Any) -> Choice:
    where = given.name(("space", name))
    if isinstance(value, list):
        sets = [isinstance(each, dict) for each in value]
        if not value:
            raise UserError(f"{where} is an empty list; give values to choose from.")
        if "." not in name and not all(sets):
            raise UserError(f"{where}: write section.option, such as train.{name}, or a list of sets of options.")
        return Choice(name, values=tuple(value))
    if not isinstance(value, dict) or "." not in name:
        raise UserError(f"{where} must be a list of values, or a range {{low: 1e-5, high: 1e-3, log: true}}.")
    for key in value:
        if key not in RANGE:
            raise UserError(
                f"{where}.{key} is no part of a range; known: {', '.join(RANGE)}.{did_you_mean(key, RANGE)}"
            )
    bounds: list[Any] = [value.get(key) for key in RANGE]
    low, high, log, step = bounds
    for key, number in (("low", low), ("high", high), *((("step", step),) if step is not None else ())):
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise UserError(f"{where}.{key} must be a number.")
    if not low < high:
        raise UserError(f"{where}: low {low} is not below high {high}.")
    if log and (low <= 0 or step is not None):
        raise UserError(f"{where}: log needs a low above 0 and no step.")
    return Choice(name, low=low, high=high, log=bool(log), step=step)


def _options_of(choice: Choice) -> set[str]:
    if choice.values and "." not in choice.name:
        return {option for each in choice.values for option in each}
    return {choice.name}


def _check(made: Sweep, given: Given) -> None:
    if made.sampler not in SAMPLERS:
        near = did_you_mean(str(made.sampler), SAMPLERS)
        raise UserError(f"{given.name(('sampler',))} is {made.sampler}; known: {', '.join(SAMPLERS)}.{near}")
    if isinstance(made.trials, bool) or not isinstance(made.trials, int) or made.trials < 1:
        raise UserError(f"{given.name(('trials',))} is {made.trials}; give a whole number from 1 on.")
    if isinstance(made.seed, bool) or not isinstance(made.seed, int):
        raise UserError(f"{given.name(('seed',))} is {made.seed}; give a whole number.")
    for name in ("prune", "greater_is_better"):
        if getattr(made, name) not in (True, False, None):
            raise UserError(f"{given.name((name,))} is {getattr(made, name)}; say true or false.")
    if made.score is not None and made.greater_is_better is None:
        raise UserError(f"{made.source}: greater_is_better is missing: is a larger {made.score} a better one?")
    ranges = [each.name for each in made.space if not each.values]
    if made.sampler == "grid" and ranges:
        raise UserError(f"{given.name(('space', ranges[0]))} is a range, and a grid needs lists of values.")


def of_one_run(recipe: Recipe) -> Recipe:
    """Return a trial's recipe; UserError where it makes several runs, of which no one score could be told."""
    if recipe.train.seeds is not None:
        raise UserError("train.seeds makes several runs, and a trial is one: put train.seed into the space.")
    return recipe
