"""GANs of the bundled digits are worth what their recipes say, beside real images, noise and half of the digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.cli import main
from finetune.evaluation.wording import LESS_IS_BETTER
from finetune.tasks.generated import FIRST

ROOT = Path(__file__).parents[1]
KEPT = 5  # digits that the control is left with

pytestmark = pytest.mark.slow


def trained(recipe: str, run: Path, *options: str) -> dict[str, Any]:
    fast = ("--evaluate.resamples=0", "--evaluate.reload=same")
    assert main(["train", str(ROOT / "recipes" / f"{recipe}.yaml"), f"--train.output_dir={run}", *fast, *options]) == 0
    return json.loads((run / "scores.json").read_text())


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    """The run of the digits' classifier; its recipe names files from the repository's folder."""
    run = tmp_path_factory.mktemp("runs") / "classifier"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert trained("digits-classifier", run)["test"]["accuracy"]["value"] > 0.96
    return f"--evaluate.extractor={run}"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_relativistic_gan_draws_all_digits_and_noise_is_rated_bad_by_every_first_summary(extractor, tmp_path):
    scores = trained("digits-gan", tmp_path / "run", extractor)
    own, real, noise = scores["test"], scores["baselines"]["real"], scores["baselines"]["noise"]

    assert 0.5 < real["fcd"]["value"] < 3
    assert own["fcd"]["value"] < 9
    assert own["coverage"]["value"] > 0.8
    for name in (each for each in FIRST if each in own):  # fid and kid need a network that is not fetched here
        sign = 1 if name in LESS_IS_BETTER else -1
        better = max(sign * each[name]["value"] for each in (real, own))
        assert sign * noise[name]["value"] > better, name
    assert noise["fcd"]["value"] > 100


def test_real_digits_of_half_the_classes_are_far_off_and_cover_little(extractor, tmp_path):
    with np.load("recipes/data/digits/train.npz") as digits:
        kept = digits["label"] < KEPT
        np.savez(tmp_path / "half.npz", image=digits["image"][kept], label=digits["label"][kept])

    options = (f"--data.train={tmp_path / 'half.npz'}", "--train.max_steps=1", "--train.save_steps=1")
    control = trained("digits-gan", tmp_path / "run", extractor, *options)["baselines"]["real"]

    assert control["fcd"]["value"] > 50
    assert control["coverage"]["value"] < 0.6
