"""`finetune merge`: the adapter of a run, or of several, becomes part of the base, in a run of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.adapters import METHODS, Combination, combine
from finetune.agreement import Gap, beside_reference, meaning
from finetune.deriving import derive, fingerprint, refuse_existing
from finetune.errors import CheckFailed, UserError, did_you_mean
from finetune.reloading import holds_adapter, load_base, load_merged
from finetune.soups import soup

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetune.recipe import Recipe

SOUP = "soup"  # the method for whole models
TOLERANCE = 1e-4  # of logits, relative to the largest


def merge(
    runs: Path | Sequence[Path],
    output: Path | None = None,
    method: str | None = None,
    weights: str | Sequence[float] | None = None,
    density: float | None = None,
    head: Path | None = None,
    tolerance: float | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Merge the adapter of a run, or several combined, into the base in full precision; return the new run's folder.

    With the method "soup" the runs are of whole models, and the new run's weights are their mean.

    Args:
        runs: one that trained an adapter, or several that trained LoRA adapters of one base.
        output: the new run's folder; RUN-merged when left out.
        method: of several, how they are combined: one of `adapters.METHODS`, the weighted sum of the updates (cat)
            when left out; or "soup".
        weights: of several, one each, in order ("0.7,0.3" or numbers); equal ones that sum to 1 when left out.
        density: of ties and dare, the share of the values that is kept; 0.5 when left out.
        head: of several, the run whose labels and head are taken; needed where labels differ.
        tolerance: of one, how far the merged model's logits on the reference rows may lie from the run's, relative to
            the largest of them; 1e-4 when left out.
        overrides: of the recipe; of the first run's, or of that of `head`.

    Raises:
        UserError: a run has no adapter, its method cannot be merged, bases or labels differ, or something lies at
            `output`.
        CheckFailed: the merged model answers otherwise than the one run, beyond the tolerance. Nothing is written.
    """
    runs = [runs] if isinstance(runs, Path) else list(runs)
    output = output or runs[0].with_name(f"{runs[0].name}-merged")
    refuse_existing(output)
    for run in runs:
        artefact.open_run(run)
    if method == SOUP and len(runs) > 1:
        for flag, value in (("weights", weights), ("density", density), ("head", head), ("tolerance", tolerance)):
            if value is not None:
                raise UserError(f"--{flag} says nothing to soup, which is the equal mean of whole models.")
        return soup(runs, output, overrides)
    for run in runs:
        if not holds_adapter(run):
            hint = " --method soup takes the mean of several." if len(runs) > 1 else ""
            raise UserError(f"{run} holds no adapter: its weights are those of a whole model already.{hint}")
    several = {"--method": method, "--weights": weights, "--density": density, "--head": head}
    if len(runs) == 1:
        for flag, value in several.items():
            if value is not None:
                raise UserError(f"{flag} is for several runs; {runs[0]} is one.")
        return _merge_one(runs[0], output, TOLERANCE if tolerance is None else tolerance, overrides)
    if tolerance is not None:
        raise UserError("--tolerance is for one run: several combined answer like none of them.")
    how = _combination(runs, method, weights, density, head)
    return _merge_several(runs, output, how, overrides)


def _merge_one(run: Path, output: Path, tolerance: float, overrides: Mapping[str, Any] | None) -> Path:
    recipe, model, processor = load_merged(run, overrides)
    model.to(recipe.train.device)  # type: ignore[arg-type]  # the stub of a decorated method
    found = beside_reference(run, recipe.task, model)
    if not found.relative <= tolerance:
        raise CheckFailed(
            f"{run}: merged, it would answer otherwise: {found.described()}, and the tolerance is {tolerance:g}. "
            "Nothing was written; --tolerance allows more."
        )
    print(f"Merged: {found.described()}.", flush=True)
    origin = {"made_by": "merge", "of": [fingerprint(run)], "tolerance": tolerance, "gap": asdict(found)}
    return derive(run, output, (whole_recipe(recipe), model, processor), origin)


def whole_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe of a run whose adapter was merged."""
    return replace(recipe, adapter=None, model=replace(recipe.model, quantize=None))


def _combination(
    runs: Sequence[Path], method: str | None, weights: Any, density: float | None, head: Path | None
) -> Combination:
    """Return how the runs are combined; UserError for what the command line says wrongly."""
    method = method or METHODS[0]
    if method not in METHODS:
        known = (*METHODS, SOUP)
        raise UserError(f"--method is {method}; known: {', '.join(known)}.{did_you_mean(method, known)}")
    prunes = method.startswith(("ties", "dare"))
    if density is not None and not prunes:
        raise UserError(f"--density says nothing to {method}: ties and dare alone leave values out.")
    if density is not None and not 0 < density <= 1:
        raise UserError(f"--density is {density:g}; it is a share of the values, above 0 and up to 1.")
    if head is not None and head not in runs:
        raise UserError(f"--head is {head}; give one of the runs: {', '.join(map(str, runs))}.")
    try:
        each = weights.split(",") if isinstance(weights, str) else weights or [1 / len(runs)] * len(runs)
        numbers = tuple(float(weight) for weight in each)
    except ValueError:
        raise UserError(f"--weights is {weights}; give numbers with commas between, such as 0.7,0.3.") from None
    if len(numbers) != len(runs):
        raise UserError(f"--weights has {len(numbers)} numbers for {len(runs)} runs.")
    return Combination(numbers, method, density or 0.5, None if head is None else list(runs).index(head))


def _merge_several(runs: Sequence[Path], output: Path, how: Combination, overrides: Mapping[str, Any] | None) -> Path:
    from transformers import set_seed

    first = how.head or 0
    recipe, base, processor, new = load_base(runs[first], {**(overrides or {}), "model.quantize": None})
    _check_alike(runs, first, recipe, headless=how.head is None)
    set_seed(recipe.train.seed)  # dare leaves values out by chance
    model, brought, departure = combine(base, runs, how)
    if left := sorted(set(new) - set(brought)):
        raise CheckFailed(f"{runs[first]}: its adapter does not bring {left[0]}, which would stay random when merged.")
    model = model.to(recipe.train.device).eval()  # type: ignore[arg-type]  # the stub of a decorated method
    print(f"Combined by {how.method}: the update is {departure:.1%} off the weighted sum of the updates.", flush=True)
    gaps = {run: _beside(run, recipe, model) for run in runs}
    for run, found in gaps.items():
        if found is not None:
            print(f"Beside {run}: {found.described()}.", flush=True)
    origin = {
        "made_by": "merge",
        "of": [fingerprint(run) | {"weight": weight} for run, weight in zip(runs, how.weights, strict=True)],
        "method": how.method,
        **({"density": how.density} if how.method.startswith(("ties", "dare")) else {}),
        "head": "average" if how.head is None else runs[first].resolve().name,
        "departure": departure,
        "gaps": [None if gap is None else asdict(gap) for gap in gaps.values()],
    }
    return derive(runs[first], output, (whole_recipe(recipe), model, processor), origin)


def _check_alike(runs: Sequence[Path], first: int, recipe: Recipe, headless: bool) -> None:
    """Refuse adapters of other bases, and other labels where no head was chosen."""
    from finetune.loading import same_weights
    from finetune.recipe import Recipe as AnyRecipe

    for run in runs:
        other = AnyRecipe.read(run / artefact.RECIPE)
        if not same_weights(recipe.model, other.model):
            raise UserError(
                f"{run} adapts {other.model.path}, and {runs[first]} adapts {recipe.model.path}: adapters of different "
                "bases do not add up."
            )
        if headless and meaning(other) != meaning(recipe):
            raise UserError(
                f"{run} and {runs[first]} have different labels or tasks; say with --head RUN whose head is taken."
            )


def _beside(run: Path, recipe: Recipe, model: PreTrainedModel) -> Gap | None:
    """Return how far the combined model lies from one run; None where their logits mean different things."""
    from finetune.recipe import Recipe as AnyRecipe

    if meaning(AnyRecipe.read(run / artefact.RECIPE)) != meaning(recipe):
        return None
    return beside_reference(run, recipe.task, model)
