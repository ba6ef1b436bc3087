"""FID and KID as an extra: what they are, and one line where they cannot be. Inception's own weights are not here."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest
import torch
from torch import nn

from finetune.cli import main
from finetune.errors import EnvironmentFailed, UserError
from finetune.evaluation import inception
from finetune.evaluation.inception import Inception, check_inception, features
from finetune.evaluation.metrics.fcd import fcd
from finetune.evaluation.options import EvaluateOptions
from finetune.tasks.extractor import check_networks

MODULE = "torch_fidelity.feature_extractor_inceptionv3"
PUBLISHED = b"what was published"
NAME = f"weights-of-a-test-{hashlib.sha256(PUBLISHED).hexdigest()[:8]}.pth"


class StandIn(nn.Module):
    """Twelve features of uint8 images in colour, where Inception has 2,048."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3 * 8 * 8, 12)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 8, 8)
        return self.layer(images.float().flatten(1) / 255).tanh()


def pictures(count: int, seed: int, most: int = 256, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most, (count, 8, 8, channels), dtype=np.uint8)


@pytest.fixture
def fidelity(tmp_path, monkeypatch):
    """Return a function that makes a package torch_fidelity of this text; torch's cache is a folder of the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(inception, "PACKAGES", ("torch_fidelity",))

    def make(package: str = "", module: str = f"URL_INCEPTION_V3 = 'https://example.org/{NAME}'") -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "torch_fidelity"]:
            monkeypatch.delitem(sys.modules, name)
        (tmp_path / "torch_fidelity").mkdir()
        (tmp_path / "torch_fidelity/__init__.py").write_text(package)
        (tmp_path / "torch_fidelity/feature_extractor_inceptionv3.py").write_text(module)

    yield make
    for name in [name for name in sys.modules if name.split(".")[0] == "torch_fidelity"]:
        del sys.modules[name]


def cached(tmp_path, content):
    path = tmp_path / "torch/hub/checkpoints" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_fid_is_the_frechet_distance_of_the_networks_features():
    ours, theirs, network = pictures(80, 1, most=200), pictures(60, 2), StandIn()
    found = Inception(network, "stand-in", theirs).scores(ours)

    expected = fcd(features(network, ours).numpy(), features(network, theirs).numpy())
    assert found["fid"].value == pytest.approx(expected, rel=1e-6)
    assert expected > 0.01
    assert (found["fid"].n, found["fid"].low) == (80, None)


def test_kid_is_the_unbiased_kernel_distance_of_the_networks_features():
    ours, theirs, network = pictures(50, 1, most=200), pictures(50, 2), StandIn()
    found = Inception(network, "stand-in", theirs).scores(ours)

    def kernel(first, second):
        return (first @ second.T / 12 + 1) ** 3

    x, y = (features(network, each).numpy() for each in (ours, theirs))
    own, other = kernel(x, x), kernel(y, y)
    pairs = 50 * 49
    expected = (own.sum() - np.trace(own) + other.sum() - np.trace(other)) / pairs - 2 * kernel(x, y).mean()
    assert found["kid"].value == pytest.approx(expected, rel=1e-6)  # every subset is the whole set


def test_scores_are_the_same_each_time_and_draw_nothing_from_torchs_generator(monkeypatch):
    monkeypatch.setattr(inception, "SUBSET", 20)
    judge = Inception(StandIn(), "stand-in", pictures(60, 2))
    state = torch.get_rng_state()
    first, second = (judge.scores(pictures(60, 1)) for _ in range(2))

    assert first == second
    assert torch.equal(torch.get_rng_state(), state)


def test_grey_is_the_same_as_that_grey_in_colour():
    grey = pictures(70, 3)

    assert torch.equal(features(StandIn(), grey), features(StandIn(), grey.repeat(3, axis=3)))


def test_an_examination_has_fid_beside_the_floor_and_noise_and_says_what_was_done(monkeypatch):
    from datasets import Dataset

    from finetune.tasks.generated import examine_generator

    monkeypatch.setattr(inception, "load_inception", lambda real: Inception(StandIn(), "stand-in", real))
    inputs = {
        name: Dataset.from_dict({"image": [each.tobytes() for each in pictures(40, seed, most=150)]})
        for name, seed in (("train", 1), ("test", 2))
    }
    found = examine_generator(
        lambda count: pictures(count, 9, most=100), inputs, EvaluateOptions(resamples=0, inception=True, generated=40)
    )

    assert list(found.scores["test"])[:2] == ["fid", "kid"]
    fid = {name: held["fid"].value for name, held in found.baselines.items()} | {
        "own": found.scores["test"]["fid"].value
    }
    assert fid["real"] < fid["own"] < fid["noise"]
    assert found.facts["inception"] == "stand-in"
    assert found.facts["inception_resized"].startswith("from 8 to 299 pixels")


def test_without_the_extra_it_is_one_line_before_training(sections, write_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inception, "PACKAGES", ("torchmetrics", "no_such_package"))
    recipe = write_recipe(sections("image-vae", evaluate={"inception": True}))

    assert main(["check", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("finetune: evaluate.inception: not installed: no-such-package. pip install 'finetune[fid]'")
    assert main(["train", str(recipe)]) == 2
    assert not (tmp_path / "run").exists()


def test_a_task_that_generates_no_images_has_no_fid(sections, write_recipe, capsys):
    assert main(["check", str(write_recipe(sections("text-classification", evaluate={"inception": True})))]) == 2
    assert "evaluate.inception compares generated images, and task.kind text-classification" in capsys.readouterr().err


def test_a_torchvision_of_another_torch_is_the_machines_failure(fidelity):
    fidelity("raise RuntimeError('operator torchvision::nms does not exist\\nand more')")

    with pytest.raises(
        EnvironmentFailed, match=r"imported here \(operator torchvision::nms does not exist\)\. Install"
    ):
        check_networks(EvaluateOptions(inception=True))


def test_weights_that_are_not_there_are_not_waited_for_when_offline(fidelity, monkeypatch):
    fidelity()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(EnvironmentFailed, match=f"offline, and there is no .*{NAME}; it is https://example.org/"):
        check_inception()


def test_weights_that_cannot_be_fetched_are_one_line(fidelity, monkeypatch, tmp_path):
    (tmp_path / "server").mkdir()
    fidelity(module=f"URL_INCEPTION_V3 = '{(tmp_path / 'server' / NAME).as_uri()}'")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    with pytest.raises(EnvironmentFailed, match=f"{NAME} cannot be fetched"):
        check_inception()
    (tmp_path / "server" / NAME).write_bytes(b"something else")
    with pytest.raises(EnvironmentFailed, match=f"{NAME} cannot be fetched .*invalid hash value"):
        check_inception()
    (tmp_path / "server" / NAME).write_bytes(PUBLISHED)
    assert check_inception().read_bytes() == PUBLISHED


def test_weights_that_are_not_those_published_are_refused(fidelity, tmp_path):
    fidelity()
    path = cached(tmp_path, PUBLISHED)
    assert check_inception() == path
    path.write_bytes(PUBLISHED + b"x")

    with pytest.raises(EnvironmentFailed, match="is damaged: its sha256 does not begin with"):
        check_inception()


def test_while_the_network_is_made_torch_reads_nothing_but_tensors(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"weights": Evil()}, tmp_path / "file.pth")
    monkeypatch.delenv(inception.ONLY_TENSORS, raising=False)

    with inception._tensors_alone(), pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "file.pth", weights_only=False)
    assert inception.ONLY_TENSORS not in inception.os.environ


def test_nothing_is_asked_for_where_no_distance_is_wanted(monkeypatch):
    monkeypatch.setattr(inception, "PACKAGES", ("no_such_package",))

    check_networks(EvaluateOptions())
    with pytest.raises(UserError):
        check_networks(EvaluateOptions(inception=True))
