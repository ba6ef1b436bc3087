"""The sweep itself: a study that asks, trials that answer, and one look at the test rows when all is chosen."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import CheckFailed, UserError
from finetune.recipe_reading import Given, override, to_yaml
from finetune.showing import MINOR
from finetune.sweeping.space import Sweep, of_one_run, read_sweep
from finetune.sweeping.trials import run_trial

if TYPE_CHECKING:
    import optuna

    from finetune.recipe import Recipe

STUDY, TRIALS, RESULT, PICTURE, BEST = "study.db", "trials", "sweep.json", "sweep.png", "best.yaml"
MARK = "sweep"  # of the study: the digest of recipe and sweep that it belongs to


def sweep(recipe: Recipe, sweep: Path) -> Path:
    """Train a recipe many times with other options, and return the folder of the sweep.

    Each trial is an ordinary run, trained in a process of its own without the test rows. When all trials are done the
    best one, by its validation score, is held to the test rows once. The same command goes on with a sweep that was
    cut short, with the trial that was cut short first.

    Args:
        recipe: what every trial is made of.
        sweep: the file that says what is chosen, see `finetune.sweeping.space`.

    Raises:
        UserError: the sweep's file, or a trial's recipe, is not right.
        CheckFailed: no trial ended well.
    """
    _check_installed()
    plan = read_sweep(sweep)
    if recipe.data.validation is None:
        raise UserError(f"{sweep}: a sweep chooses by validation rows, and data.validation is missing.")
    plain = recipe.to_dict()
    for options in _first_options(plan):
        _recipe_of(plain, plan, options, Path(plan.output_dir))  # names and values, before anything is trained
    folder = Path(plan.output_dir)
    study = _study(folder, plan, plain)
    started, done_before = time.monotonic(), len(_done(study))
    for trial in _asked(study, plan):
        _run(study, trial, plan, plain, folder, recipe.train.max_hours)
        _say(study, trial.number, plan, started, done_before)
    return _conclude(study, plan, plain, folder)


def shown(folder: Path) -> str:
    """Return the trials, best first, and the best one's test scores."""
    found = artefact.read_json(folder / RESULT)
    lines = [f"{'trial':>5}  {found['score']:>12}  options"]
    for each in found["trials"]:
        value = "-" if each["value"] is None else f"{each['value']:.4f}"
        lines.append(f"{each['number']:>5}  {value:>12}  {_options_text(each['options'])}{_state_text(each)}")
    for name, score in found.get("test", {}).items():
        if "/" not in name and not name.startswith(MINOR):
            lines.append(f"test {name:<20} {score['value']:.4f}  [{_bound(score['low'])}, {_bound(score['high'])}]")
    return "\n".join([*lines, f"best: {folder / BEST}, trained as {found['best_run']}", f"plot: {folder / PICTURE}"])


def _bound(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _state_text(each: dict[str, Any]) -> str:
    return (
        "" if each["state"] == "COMPLETE" else f"  ({each['state'].lower()}{': ' + each['why'] if each['why'] else ''})"
    )


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise UserError('finetune sweep needs optuna: pip install "finetune[sweep]"')


def _first_options(plan: Sweep) -> Iterator[dict[str, Any]]:
    """Yield options in which every value of a list, and both ends of every range, stands once."""
    most = max(len(each.values) or 2 for each in plan.space)
    for place in range(most):
        chosen = {}
        for each in plan.space:
            held = each.held() if each.values else [each.low, each.high]
            chosen[each.name] = held[min(place, len(held) - 1)]
        yield plan.options(chosen)


def _recipe_of(plain: dict[str, Any], plan: Sweep, options: dict[str, Any], run: Path) -> Recipe:
    """Return the recipe of a trial: without test rows, baselines and publication."""
    from finetune.recipe import Recipe

    values = copy.deepcopy(plain)
    for name in ("test", "max_test_rows"):
        values["data"].pop(name, None)
    values.pop("publish", None)
    values.setdefault("evaluate", {})["baselines"] = False
    values = _with(values, {**options, "train.output_dir": str(run)})
    try:
        return of_one_run(Recipe.from_dict(values))
    except UserError as error:
        raise UserError(f"{plan.source}: space: {error}") from None


def _with(plain: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's plain values with `{"section.option": value}` put over them, as the command line does it."""
    given = Given(copy.deepcopy(plain))
    override(given, options)
    return given.values


def _study(folder: Path, plan: Sweep, plain: dict[str, Any]) -> optuna.Study:
    """Return the study of a folder, made now or gone on with."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if folder.exists() and any(folder.iterdir()) and not (folder / STUDY).exists():
        raise UserError(f"{plan.source}: output_dir {folder} holds other files and no sweep. Give another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=plan.seed)
    if plan.sampler == "tpe":
        sampler = optuna.samplers.TPESampler(seed=plan.seed, multivariate=True)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / STUDY}",
        study_name="sweep",
        sampler=sampler,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4) if plan.prune else optuna.pruners.NopPruner(),
        direction="maximize",  # a score that is better when smaller is held with its sign turned
        load_if_exists=True,
    )
    mark = _digest(plan, plain)
    if study.user_attrs.setdefault(MARK, mark) != mark:
        raise UserError(
            f"{plan.source}: {folder} holds a sweep of another recipe or space. Give another output_dir, or remove it."
        )
    if not study.trials:
        study.set_user_attr(MARK, mark)
        for chosen in plan.grid() if plan.sampler == "grid" else ():
            study.enqueue_trial(chosen)
    return study


def _digest(plan: Sweep, plain: dict[str, Any]) -> str:
    """Return what tells one sweep from another; more trials of the same one are the same."""
    space = [(each.name, each.values, each.low, each.high, each.log, each.step) for each in plan.space]
    train = {name: value for name, value in plain["train"].items() if name not in ("output_dir", "overwrite")}
    text = json.dumps([space, plan.sampler, plan.score, {**plain, "train": train}], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _done(study: optuna.Study) -> list[Any]:
    return [each for each in study.trials if each.state.is_finished()]


def _asked(study: optuna.Study, plan: Sweep) -> Iterator[optuna.Trial]:
    """Yield the trial that was cut short, if any, then new ones until there are enough."""
    import optuna

    for frozen in study.trials:
        if frozen.state == optuna.trial.TrialState.RUNNING:
            yield optuna.Trial(study, frozen._trial_id)
    wanted = len(plan.grid()) if plan.sampler == "grid" else plan.trials
    while len(_done(study)) < wanted:
        yield study.ask()


def _run(
    study: optuna.Study, trial: optuna.Trial, plan: Sweep, plain: dict[str, Any], folder: Path, hours: float | None
) -> None:
    """Train one trial, within the hours of the whole sweep, and tell the study what came of it."""
    import optuna

    options = plan.options({each.name: each.suggested(trial) for each in plan.space})
    trial.set_user_attr("options", options)
    run = folder / TRIALS / f"{trial.number:03}"
    run.parent.mkdir(exist_ok=True)
    recipe = _recipe_of(plain, plan, options, run)
    file = run.with_suffix(".yaml")
    file.write_text(to_yaml(recipe.to_dict()), encoding="utf-8")

    def watch(found: list[dict[str, float]]) -> bool:
        name, sign = _score_of(recipe, plan)
        for step, each in enumerate(found):
            if f"eval_{name}" in each and step not in trial.storage.get_trial(trial._trial_id).intermediate_values:
                trial.report(sign * each[f"eval_{name}"], step)
        return trial.should_prune()

    ended = run_trial(file, run, watch, hours)
    if ended.pruned:
        study.tell(trial.number, state=optuna.trial.TrialState.PRUNED)
    elif ended.failed is not None:
        trial.set_user_attr("why", ended.failed)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial.number, _value(run, plan))


def _score_of(recipe: Recipe, plan: Sweep) -> tuple[str, int]:
    """Return the score that is maximised, and 1, or -1 where a smaller one is better."""
    greatest = recipe.task.best_is_greatest if plan.score is None else bool(plan.greater_is_better)
    return plan.score or recipe.task.best_score, 1 if greatest else -1


def _value(run: Path, plan: Sweep) -> float:
    """Return what the study maximises of a finished run, whose recipe says what kind of problem the rows were."""
    from finetune.recipe import Recipe

    name, sign = _score_of(Recipe.read(run / artefact.RECIPE), plan)
    scores = artefact.read_json(run / artefact.SCORES).get("validation", {})
    if name not in scores:
        raise UserError(f"{plan.source}: score {name} is none of the run's; known: {', '.join(sorted(scores)[:12])}.")
    return float(sign * scores[name]["value"])


def _say(study: optuna.Study, number: int, plan: Sweep, started: float, before: int) -> None:
    done = _done(study)
    wanted = len(plan.grid()) if plan.sampler == "grid" else plan.trials
    trial = study.trials[number]
    value = trial.state.name.lower() if trial.value is None else f"{abs(trial.value):.4f}"
    seconds = (time.monotonic() - started) / max(1, len(done) - before) * max(0, wanted - len(done))
    best = [each for each in done if each.value is not None]
    leader = max(best, key=lambda each: each.value).number if best else "none yet"
    print(
        f"trial {number} ({len(done)}/{wanted}): {_options_text(trial.user_attrs['options'])} → {value}; "
        f"best: {leader}; {int(seconds) // 60}:{int(seconds) % 60:02} left",
        flush=True,
    )


def _options_text(options: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in options.items()
    )


def _conclude(study: optuna.Study, plan: Sweep, plain: dict[str, Any], folder: Path) -> Path:
    """Write the best recipe, its test scores and the plot."""
    from finetune.recipe import Recipe
    from finetune.sweeping.plot import write_plot

    whole = [each for each in study.trials if each.value is not None]
    if not whole:
        raise CheckFailed(f"no trial of {folder} ended well; their .log files in {folder / TRIALS} say why.")
    best = max(whole, key=lambda each: (each.value, -each.number))
    run = folder / TRIALS / f"{best.number:03}"
    options = best.user_attrs["options"]
    name, sign = _score_of(Recipe.read(run / artefact.RECIPE), plan)
    chosen = _with(plain, {**options, "train.output_dir": str(folder / "best")})
    (folder / BEST).write_text(to_yaml(Recipe.from_dict(chosen).to_dict()), encoding="utf-8")
    order = sorted(study.trials, key=lambda each: (each.value is None, -(each.value or 0.0), each.number))
    result = {
        "score": name,
        "best": best.number,
        "best_run": str(run),
        "trials": [
            {
                "number": each.number,
                "value": None if each.value is None else sign * each.value,
                "state": each.state.name,
                "options": each.user_attrs.get("options", {}),
                "why": each.user_attrs.get("why", ""),
            }
            for each in order
        ],
        "test": _test(run, plain, folder, best.number),
    }
    artefact.write_json(folder / RESULT, result)
    write_plot(folder / PICTURE, result)
    return folder


def _test(run: Path, plain: dict[str, Any], folder: Path, number: int) -> dict[str, Any]:
    """Return the test scores of the best run: asked once, and kept while it stays the best."""
    from finetune.reuse import evaluate

    if plain["data"].get("test") is None:
        return {}
    if (folder / RESULT).exists():
        before = artefact.read_json(folder / RESULT)
        if before["best"] == number and before["test"]:
            return dict(before["test"])
    kept = {f"data.{name}": plain["data"][name] for name in ("test", "max_test_rows") if name in plain["data"]}
    return artefact.plain_scores(evaluate(run, kept)["test"])
