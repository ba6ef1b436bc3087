"""Lines R2 and R11: checkpoints whose files, or whose content alone, are not right; and which ones are removed."""

from __future__ import annotations

import json
import random
import shutil
import stat

import pytest
import tiny_gan
import torch
from safetensors.torch import load_file, save_file
from test_training_checkpoints import DAMAGES
from test_training_resume import killed_after
from tiny_training import model, rows, trainer
from torch.testing import assert_close

from finetune.errors import CheckFailed
from finetune.training import checkpoints, packing

EVERY = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 5}


def classifier(folder, adapter=False):
    return trainer(folder, train=rows(24), network=model(adapter=adapter), num_train_epochs=1, **EVERY)


def game(folder):
    return tiny_gan.trainer(tiny_gan.NORMED, folder, **tiny_gan.ADAM, **EVERY, max_steps=3)


MADE = {"whole": classifier, "lora": lambda folder: classifier(folder, adapter=True), "gan": game}
PLACES = [
    ("whole", "model"),
    ("lora", "trained"),
    ("gan", "model"),
    ("gan", "discriminator/model"),
    ("gan", "average"),
]
every_network = pytest.mark.parametrize(("kind", "place"), PLACES)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Return a function that gives the run of a kind, with the checkpoints of its three steps."""
    known = {}

    def of(kind):
        if kind not in known:
            known[kind] = tmp_path_factory.mktemp("three")
            MADE[kind](known[kind]).train()
        return known[kind]

    return of


def changed(path, place, change):
    """Write the weights of a checkpoint anew."""
    file = path / f"{place}.safetensors"
    if packing.has_state(path, place):
        packing.write_state(path, place, change(packing.read_state(path, place)))
    else:
        save_file(change(load_file(file)), file)
    sealed(path)


def sealed(path):
    """Write the manifest of a checkpoint anew: nothing but its content tells of the damage."""
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["files"].pop("manifest.json", None)
    manifest["files"] = {name: each for name, each in checkpoints._listed(path).items() if name != "manifest.json"}
    manifest["sha256"] = checkpoints._digest(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def half_missing(held):
    return {name: each for number, (name, each) in enumerate(held.items()) if number % 2}


def renamed(held):
    return {f"other.{name}": each for name, each in held.items()}


def added(held):
    return {**held, "stranger.weight": torch.ones(2)}


def reshaped(held):
    return {name: each.flatten() for name, each in held.items()}


def filled(value, all_of_it):
    def change(held):
        changed = {name: each.clone() for name, each in held.items()}
        floats = [each for each in changed.values() if each.is_floating_point()]
        for each in floats if all_of_it else floats[-1:]:
            each.view(-1)[0 if not all_of_it else slice(None)] = value
        return changed

    return change


CONTENT = {
    "half of the keys missing": half_missing,
    "other keys": renamed,
    "a key too many": added,
    "other shapes": reshaped,
    "all NaN": filled(torch.nan, True),
    "one NaN": filled(torch.nan, False),
    "one infinity": filled(torch.inf, False),
}


@pytest.mark.parametrize("name", CONTENT)
@every_network
def test_weights_that_cannot_be_right_are_passed_over_though_their_manifest_is(
    three, tmp_path, capsys, contract, kind, place, name
):
    shutil.copytree(three(kind) / "checkpoints", tmp_path / "checkpoints")
    changed(tmp_path / "checkpoints" / "checkpoint-3", place, CONTENT[name])
    MADE[kind](tmp_path).train(resume_from_checkpoint=True)

    said = capsys.readouterr().out
    assert said.count("checkpoint-3 is damaged and passed over") == 1
    assert f"resuming from {tmp_path / 'checkpoints' / 'checkpoint-2'}\n" in said
    for _, each in [pair for pair in PLACES if pair[0] == kind]:
        file = f"checkpoints/checkpoint-3/{each}.safetensors"
        assert_close(load_file(tmp_path / file), load_file(three(kind) / file), rtol=0, atol=0)
    contract("R2", damaged=1, passed_over=1)


@every_network
def test_weights_that_were_cut_before_they_were_hashed_are_passed_over(three, tmp_path, capsys, kind, place):
    shutil.copytree(three(kind) / "checkpoints", tmp_path / "checkpoints")
    path = tmp_path / "checkpoints" / "checkpoint-3"
    DAMAGES["cut"](path / f"{place}.safetensors")
    sealed(path)
    MADE[kind](tmp_path).train(resume_from_checkpoint=True)

    assert f"damaged and passed over: {place.split('/')[-1]}.safetensors cannot be read" in capsys.readouterr().out


@every_network
def test_when_no_checkpoint_can_be_loaded_the_run_does_not_start_anew(three, tmp_path, kind, place):
    shutil.copytree(three(kind) / "checkpoints", tmp_path / "checkpoints")
    for path in (tmp_path / "checkpoints").iterdir():
        changed(path, place, renamed)

    with pytest.raises(CheckFailed, match=r"checkpoint-3.* cannot be loaded: it is of another model"):
        MADE[kind](tmp_path).train(resume_from_checkpoint=True)


def of_two_processes(folder):
    """Write checkpoints with a part of each of two processes."""
    for step in (2, 3):
        stage = checkpoints.open_stage(folder / "checkpoints", step, 0)
        for process in (0, 1):
            packing.write_state(stage, f"process-{process}", {"torch": torch.get_rng_state(), "step": step})
        checkpoints.commit(folder / "checkpoints", step, {"stamp": {}, "processes": 2})


PLAYER = ("model.safetensors", "optimizer.json", "optimizer.safetensors", "schedule.json")
OTHERS = {  # files that a checkpoint of one process that trains one whole model has not
    "lora": ("trained.safetensors",),
    "gan": ("average.json", "average.safetensors", *(f"discriminator/{name}" for name in PLAYER)),
    "two processes": tuple(f"process-{process}.{end}" for process in (0, 1) for end in ("json", "safetensors")),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in OTHERS.items() for name in names])
def test_a_damaged_file_of_an_adapter_a_game_or_another_process_is_passed_over(
    three, tmp_path, capsys, contract, kind, name, damage
):
    folder = tmp_path / "checkpoints"
    if kind in MADE:
        shutil.copytree(three(kind) / "checkpoints", folder)
    else:
        of_two_processes(tmp_path)
    assert checkpoints.last_good(folder) == folder / "checkpoint-3"
    DAMAGES[damage](folder / "checkpoint-3" / name)
    capsys.readouterr()

    assert checkpoints.last_good(folder) == folder / "checkpoint-2"
    said = capsys.readouterr().out
    assert said.startswith(f"{folder / 'checkpoint-3'} is damaged and passed over: {name} ")
    assert said.count("\n") == 1
    contract("R2", damaged=1, passed_over=1)


def test_these_are_all_files_that_a_game_has_besides_those_of_one_model(three):
    path = three("gan") / "checkpoints" / "checkpoint-3"
    whole = {each.name for each in (three("whole") / "checkpoints" / "checkpoint-3").iterdir()}

    found = {each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()}
    assert found - whole == set(OTHERS["gan"])
    assert "trained.safetensors" in {each.name for each in (three("lora") / "checkpoints/checkpoint-3").iterdir()}


def committed(folder, step):
    packing.write_state(checkpoints.open_stage(folder, step, 0), "state", {"step": step})
    checkpoints.commit(folder, step, {"stamp": {}})


def test_rotation_never_removes_the_best_the_last_or_the_only_good_one(tmp_path, contract):
    chooser = random.Random(0)
    removed = damaged = 0
    for number in range(500):
        folder = tmp_path / str(number)
        keep, best, step = chooser.choice([None, 0, 1, 2, 3, 4]), None, 0
        for _ in range(chooser.randint(1, 8)):
            if chooser.random() < 0.3 and (found := checkpoints.steps(folder)):
                path = checkpoints.checkpoint_path(folder, chooser.choice(found))
                file = path / chooser.choice(["state.json", "manifest.json"])
                if file.is_file() and file.stat().st_size:
                    DAMAGES[chooser.choice([*DAMAGES])](file)
                    damaged += 1
            if chooser.random() < 0.4:  # a resume, after which damaged ones may be the newer ones
                good = checkpoints.last_good(folder)
                step = 0 if good is None else int(good.name.rpartition("-")[2])
            step += chooser.randint(1, 9)
            committed(folder, step)
            written = set(checkpoints.steps(folder))
            best = step if chooser.random() < 0.3 else best if best in written else None
            checkpoints.rotate(folder, keep, best, step)
            left, spared = set(checkpoints.steps(folder)), {step, best, max(written)} - {None}
            removed += len(written - left)
            assert spared <= left
            assert len(left) == min(len(written), max(keep, len(spared))) if keep else left == written
            assert all(old < new for old in written - left for new in left - spared)
            assert checkpoints.read_manifest(checkpoints.checkpoint_path(folder, step))["step"] == step
        assert not list(folder.glob(".*"))
        shutil.rmtree(folder)
    contract("R11", sequences=500, damaged=damaged, removed=removed, wrong=0)


def test_of_several_checkpoints_the_only_good_one_outlives_damaged_newer_ones(tmp_path, monkeypatch, contract):
    for step in (1, 2, 3):
        committed(tmp_path, step)
    for step in (2, 3):
        DAMAGES["flipped"](tmp_path / f"checkpoint-{step}" / "state.json")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "_sha256", None)  # a save does not read again what was saved before
        checkpoints.rotate(tmp_path, 1, best=None, good=1)

    assert checkpoints.last_good(tmp_path) == tmp_path / "checkpoint-1"
    contract("R11", only_good_ones_kept=1)


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_newer_checkpoint_does_not_cost_those_of_the_run_that_passed_over_it(tmp_path, contract, damage):
    def run(**options):
        return trainer(tmp_path, train=rows(24), num_train_epochs=2, save_strategy="steps", **options)

    run(save_steps=2).train()
    DAMAGES[damage](tmp_path / "checkpoints" / "checkpoint-6" / "model.safetensors")
    killed_after(run(save_steps=1, save_total_limit=1), 5, resume=True)

    assert checkpoints.last_good(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "checkpoint-5"
    contract("R11", only_good_ones_kept=1)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_files_and_folders_have_the_modes_that_umask_grants(tmp_path, umask, contract, mask):
    umask(mask)
    run = trainer(tmp_path / "run", train=rows(8), max_steps=1)
    run.train()
    run.save_model(str(tmp_path / "run" / "model"))

    found = list((tmp_path / "run").rglob("*"))
    assert found
    for each in found:
        granted = (0o777 if each.is_dir() else 0o666) & ~mask
        assert stat.S_IMODE(each.stat().st_mode) == granted, each
    contract("R11", files_with_the_granted_mode=len(found))


@pytest.fixture
def umask():
    import os

    before = os.umask(0o022)
    yield os.umask
    os.umask(before)
