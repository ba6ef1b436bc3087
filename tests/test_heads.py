"""Line R8: loss, gradient and weights of every head do not depend on how a batch is cut, and are those of its rows."""

from __future__ import annotations

import json
from pathlib import Path

import heads
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file
from single_rows import cost
from test_two_processes import ROOT, launch

from finetune.preparation import prepare
from finetune.recipe import Recipe
from finetune.run import load_model
from finetune.selftest.observing import observe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
every_head = pytest.mark.parametrize(("kind", "family"), heads.HEADS, ids=heads.NAMES)
CUTS = [(4, 2), (2, 4), (1, 8)]  # rows a micro-batch, micro-batches a step
RELATIVE = 1e-5
LEARNING_RATE = 1e-3


@pytest.fixture(scope="module")
def recipes(home, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("heads")
    made = {}
    for name, (kind, family) in zip(heads.NAMES, heads.HEADS, strict=True):
        (folder / name).mkdir()
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(heads.sections(home, folder / name, kind, family)))
        made[name] = path
    return made


@pytest.fixture(scope="module")
def whole(recipes, tmp_path_factory):
    """Return a function that gives what the uncut batches of a head have left, trained once."""
    known, folder = {}, tmp_path_factory.mktemp("whole")

    def go(name: str):
        if name not in known:
            known[name] = observed(recipes[name], folder / name, 8, 1)
        return known[name]

    return go


def observed(path: Path, tmp_path: Path, size: int, parts: int):
    return observe(
        prepare(Recipe.read(path)),
        output_dir=str(tmp_path / f"{size}-{parts}"),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=parts,
    )


def apart(one, other) -> float:
    """Return by how much losses and norms of the gradient differ, relative to them."""
    assert len(one) == len(other) > 0
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    return max(abs(left - right) / abs(right) for left, right in pairs)


def weights_apart(given: dict[str, torch.Tensor], expected) -> float:
    """Return by how much a tensor of weights differs at most, relative to its norm.

    Of a tensor that began at 0, such as a bias that no gradient reaches, all is rounding: the least that a difference
    is relative to is how far the steps have moved the weights together.
    """
    assert given.keys() == expected.weights.keys()
    moved = sum(expected.norms) * LEARNING_RATE
    return max(
        float((given[name] - each).norm() / each.norm().clamp(min=moved)) for name, each in expected.weights.items()
    )


@every_head
def test_a_batch_may_be_cut_in_any_way(recipes, whole, tmp_path, contract, kind, family) -> None:
    name = f"{kind}-{family}"
    expected, others = whole(name), [observed(recipes[name], tmp_path, size, parts) for size, parts in CUTS]
    assert len(expected.steps) >= 3
    steps = max(apart(other.steps, expected.steps) for other in others)
    weights = max(weights_apart(other.weights, expected) for other in others)

    assert steps < RELATIVE
    assert weights < RELATIVE
    contract("R8", heads=1, ways_to_cut=1 + len(CUTS), largest_difference=steps, of_weights=weights)


@every_head
def test_a_steps_loss_and_gradient_are_those_of_its_rows_by_themselves(recipes, whole, contract, kind, family) -> None:
    name = f"{kind}-{family}"
    prepared = prepare(Recipe.read(recipes[name]))
    transformers.set_seed(prepared.recipe.train.seed)
    model, _ = load_model(prepared.recipe, prepared.processor)
    costs = [cost(model.eval(), prepared, row) for row in prepared.encoded["train"].inputs.select(range(8))]
    loss = torch.stack([each for each, _ in costs]).sum() / sum(weight for _, weight in costs)
    loss.backward()
    gradient = torch.stack([each.grad.norm() for each in model.parameters() if each.grad is not None]).norm()

    found = apart([whole(name).steps[0]], [(loss.item(), gradient.item())])
    assert found < RELATIVE
    contract("R8", heads=1, from_single_rows=found)


def test_two_processes_take_every_heads_steps(recipes, whole, tmp_path, contract) -> None:
    file = tmp_path / "found.json"
    paths = {}
    for name, path in recipes.items():
        made = yaml.safe_load(path.read_text())
        made["train"] |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
        made["train"]["output_dir"] = str(tmp_path / name)
        paths[name] = tmp_path / path.name
        paths[name].write_text(yaml.safe_dump(made))
    words = [str(file), *map(str, paths.values())]
    done = launch("cpu", str(ROOT / "tests" / "launched_heads.py"), *words, limit=1000)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    told = json.loads(file.read_text())
    assert told["world"] == 2  # counted by an all-reduce
    steps = weights = 0.0
    for name, path in paths.items():
        found = [tuple(each) for each in told["found"][str(path)]]
        of_steps = apart(found, whole(name).steps)
        of_weights = weights_apart(load_file(path.with_suffix(".safetensors")), whole(name))
        assert max(of_steps, of_weights) < RELATIVE, f"{name}: {of_steps}, {of_weights}"
        steps, weights = max(steps, of_steps), max(weights, of_weights)
    contract("R8", heads=len(recipes), largest_difference=steps, of_weights=weights)


@pytest.mark.parametrize(
    ("kind", "family", "line"),
    [
        ("masked-lm", "gpt2", "no mask token"),
        ("token-classification", "marian", "model"),
        ("seq2seq", "gpt2", "model"),
        ("causal-lm", "t5", "model"),
    ],
)
def test_a_head_that_a_family_does_not_have_is_refused(home, tmp_path, kind, family, line, contract) -> None:
    from finetune.errors import UserError

    other = "causal-lm" if family == "gpt2" else "seq2seq"
    made = heads.sections(home, tmp_path, other, family)
    fitting = heads.sections(home, tmp_path / "fitting", kind, "bert" if kind != "seq2seq" else "bart")
    recipe = Recipe.from_dict({**fitting, "model": made["model"]})

    def loaded() -> None:
        prepared = prepare(recipe)
        load_model(prepared.recipe, prepared.processor)

    with pytest.raises(UserError, match=line):
        loaded()
    contract("R8", refused=1)
