"""Two gloo processes play the game of one: gradients, weights, answers, resumes; all in one launch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_two_processes import ROOT, launch
from tiny_gan import GAMES, NORMED, SGD, gradients_of, history, images, state, trainer

pytestmark = pytest.mark.slow  # test_two_processes holds a whole run of every task against one process
WHOLE = {"per_device_train_batch_size": 16}
every_game = pytest.mark.parametrize("name", GAMES)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    done = launch("cpu", str(ROOT / "tests" / "launched_gan.py"), str(folder))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return folder


def results(folder: Path) -> list[dict]:
    return [json.loads((folder / f"result-{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_come_up(two):
    assert [(each["world"], each["type"]) for each in results(two)] == [(2, "DistributedType.MULTI_CPU")] * 2


@every_game
def test_gradients_of_two_processes_are_those_of_one_penalties_among_them(two, name):
    run = trainer(GAMES[name], **{**SGD, "learning_rate": 0.0}, **WHOLE, max_steps=1)
    found = gradients_of(run)
    run.train()
    given = load_file(two / f"gradients-{name}-0.safetensors")

    assert len(given) == sum(len(each) for each in found)
    for step, held in enumerate(found):
        for place, each in enumerate(held):
            torch.testing.assert_close(given[f"{step}.{place}"], each, rtol=1e-5, atol=1e-6)


@every_game
def test_two_processes_take_the_steps_of_one_and_judge_as_it_does(two, name):
    run = trainer(GAMES[name], **SGD, **WHOLE, num_train_epochs=2)  # the last of 33 rows leaves one process without any
    run.train()
    given = load_file(two / f"steps-{name}-0.safetensors")

    for key, each in state(run).items():
        torch.testing.assert_close(given[key], each, rtol=1e-4, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")
    for result in results(two):
        found = result["steps"][name]
        assert found["rows"] == run.state.num_input_tokens_seen
        for one, other in zip(found["history"], history(run), strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
        assert found["logits"] == pytest.approx(run.answers(images(9, 1))["logits"], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", [*GAMES, "normed"])
def test_both_processes_hold_the_same_bits(two, name):
    first, second = (load_file(two / f"steps-{name}-{rank}.safetensors") for rank in (0, 1))

    assert first.keys() == second.keys()
    assert [each for each in first if not torch.equal(first[each], second[each])] == []
    one, other = (each["steps"][name] for each in results(two))
    assert one == other


def test_batch_norm_has_met_images_in_two_processes(two):
    held = load_file(two / "steps-normed-0.safetensors")
    before = state(trainer(NORMED))

    means = [name for name in held if name.startswith("average") and name.endswith("running_mean")]
    assert means
    assert all(not torch.equal(held[name], before[name]) for name in means)


def test_a_process_without_a_row_changes_nothing_batch_norm_among_it(two):
    run = trainer(NORMED, train=images(4), **SGD, per_device_train_batch_size=4, num_train_epochs=6)
    run.train()
    expected = state(run)

    assert [name for name in expected if name.startswith("average") and name.endswith("running_var")]
    for rank in (0, 1):
        given = load_file(two / f"alone-{rank}.safetensors")
        for name, each in expected.items():
            torch.testing.assert_close(given[name], each, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def test_two_processes_resume_to_the_bit(two):
    assert [each["resumed"] for each in results(two)] == [{"same": True, "logged": True}] * 2
    first, second = (load_file(two / f"resumed-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    files = {path.name for path in (two / "broken").rglob("*") if path.is_file()}
    assert {"process-0.json", "process-1.json", "manifest.json"} <= files


def test_a_game_that_diverges_stops_both_processes_and_names_rows_of_both(two):
    said = {each["diverged"] for each in results(two)}

    assert len(said) == 1
    assert "is not a finite number; the step was not taken. Its batch: images.npz:" in said.pop()
    found = json.loads((two / "diverged" / "nonfinite.json").read_text())
    assert len(found["row_ids"]) == len(set(found["row_ids"])) == 16
