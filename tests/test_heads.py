"""Loss, gradient and weights of every head do not depend on how a batch is cut, and are those of rows by themselves."""

from __future__ import annotations

import json
from pathlib import Path

import heads
import pytest
import torch
import yaml
from test_two_processes import ROOT, launch

from finetune.preparation import prepare
from finetune.recipe import Recipe
from finetune.run import load_model
from finetune.selftest.observing import observe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
every_head = pytest.mark.parametrize(("kind", "family"), heads.HEADS, ids=heads.NAMES)
CUTS = [(8, 1), (4, 2), (2, 4), (1, 8)]  # rows a micro-batch, micro-batches a step
RELATIVE = 1e-5


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


def apart(one, other) -> float:
    assert len(one) == len(other) > 0
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    return max(abs(left - right) / abs(right) for left, right in pairs)


def observed(path: Path, tmp_path: Path, size: int, parts: int):
    return observe(
        prepare(Recipe.read(path)),
        output_dir=str(tmp_path / f"{size}-{parts}"),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=parts,
    )


@every_head
def test_a_batch_may_be_cut_in_any_way_and_its_loss_is_that_of_its_rows_alone(
    recipes, tmp_path, contract, kind, family
) -> None:
    path = recipes[f"{kind}-{family}"]
    whole, *others = [observed(path, tmp_path, size, parts) for size, parts in CUTS]
    assert len(whole.steps) >= 3
    found = [apart(other.steps, whole.steps) for other in others]
    for other in others:
        for name, weight in whole.weights.items():
            torch.testing.assert_close(other.weights[name], weight, rtol=1e-4, atol=1e-6)

    prepared = prepare(Recipe.read(path))  # an independent forward: each row by itself, without padding
    task, inputs = prepared.recipe.task, prepared.encoded["train"].inputs
    model, _ = load_model(prepared.recipe, prepared.processor)
    collate = task.collator(prepared.processor)

    def loss(places) -> tuple[float, float]:
        batch = collate([{**inputs[place], "index": place} for place in places])
        batch = {name: value for name, value in batch.items() if name not in ("index", "row_id")}
        if task.draws:
            from finetune.training.batching import drawn

            batch |= drawn(13, 0, batch["row"], 0.0)
        batch.pop("row", None)
        with torch.no_grad():
            return float(task.loss(model.eval(), batch)[0]), float(task.weight(batch))

    together, alone = loss(range(6)), [loss([place]) for place in range(6)]
    found.append(apart([together], [tuple(sum(each[at] for each in alone) for at in (0, 1))]))
    assert max(found) < RELATIVE
    contract("R8", heads=1, ways_to_cut=len(CUTS), largest_difference=float(max(found)))


def test_two_processes_take_every_heads_steps(recipes, tmp_path, contract) -> None:
    file = tmp_path / "found.json"
    paths = []
    for name, path in recipes.items():
        made = yaml.safe_load(path.read_text())
        made["train"] |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
        made["train"]["output_dir"] = str(tmp_path / name)
        paths.append(tmp_path / path.name)
        paths[-1].write_text(yaml.safe_dump(made))
    done = launch("cpu", str(ROOT / "tests" / "launched_heads.py"), str(file), *map(str, paths), limit=1000)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    told = json.loads(file.read_text())
    assert told["world"] == 2  # counted by an all-reduce
    largest = 0.0
    for (name, path), two in zip(recipes.items(), paths, strict=True):
        steps = [tuple(each) for each in told["found"][str(two)]["steps"]]
        difference = apart(steps, observed(path, tmp_path / "alone" / name, 8, 1).steps)
        assert difference < RELATIVE, name
        largest = max(largest, difference)
    contract("R8", heads=len(recipes), largest_difference=largest)


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
