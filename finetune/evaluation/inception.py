"""FID and KID: distances in the features of Inception-v3 of 2015, by torchmetrics and torch-fidelity (the extra `fid`).

The distances that need nobody's weights are `fcd` and `kcd`; nothing but this is called `fid` or `kid`. Tested with
other networks in its place: the published weights come from the internet, and no test of this repository fetches them.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import EnvironmentFailed, UserError
from finetune.task import Score, Scores

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

PACKAGES = ("torchmetrics", "torch_fidelity", "torchvision")
LAYER = "2048"  # the last pooling, the layer of every published FID
BATCH = 64
SUBSETS, SUBSET = 100, 1000  # of KID: random subsets, whose mean it is, and images of each set in one
ONLY_TENSORS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class Inception:
    """Compares sets of images with one set of real ones, all uint8 of shape (n, size, size, channels).

    Args:
        network: from uint8 images (n, 3, height, width) to features (n, width), in evaluation mode.
        name: of its weights: what scores are comparable within.
        real: the images that all others are compared with.
    """

    def __init__(self, network: nn.Module, name: str, real: np.ndarray) -> None:
        self.network, self.name = network, name
        self.real, self.size = features(network, real), real.shape[1]

    def scores(self, images: np.ndarray) -> Scores:
        """Return `fid` and `kid` of images against the real ones, as torchmetrics computes them; without intervals.

        Heusel et al. 2017 (arXiv:1706.08500); Bińkowski et al. 2018 (arXiv:1801.01401).
        """
        import torch
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        given = features(self.network, images)
        n = min(len(given), len(self.real))
        known: Any = torch.nn.Identity()  # each set goes through the network once, and not once a score
        known.num_features = given.shape[1]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
            fid = FrechetInceptionDistance(feature=known)
            kid = KernelInceptionDistance(feature=known, subsets=SUBSETS, subset_size=min(SUBSET, n))
        for distance in (fid, kid):
            distance.update(self.real, real=True)
            distance.update(given, real=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of the subsets
            found = {"fid": fid.compute(), "kid": kid.compute()[0]}
        return {name: Score(float(value), n=len(given)) for name, value in found.items()}

    def facts(self) -> dict[str, Any]:
        """Return what examination.json says of the network and of what is done to images for it."""
        resized = f"from {self.size} to 299 pixels, bilinear as in TensorFlow 1, for the network alone"
        return {"inception": self.name, "inception_layer": LAYER, "inception_resized": resized}


def features(network: nn.Module, images: np.ndarray) -> Tensor:
    """Return the features of images, uint8 of shape (n, size, size, channels): (n, width), float64; grey as colour."""
    import torch

    device = next(network.parameters(), torch.empty(0)).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            raw = torch.from_numpy(images[start : start + BATCH].copy()).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
            parts.append(network(raw.contiguous().to(device)).double().cpu())
    return torch.cat(parts)


def check_inception() -> Path:
    """Return the file of Inception's weights, fetched where it is missing; reads none of them.

    Raises:
        UserError: a package of the extra is not installed.
        EnvironmentFailed: one cannot be imported, or the weights cannot be fetched or are not those published.
    """
    missing = [name.replace("_", "-") for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"evaluate.inception: not installed: {', '.join(missing)}. pip install 'finetune[fid]', or leave it out: "
            "fcd and kcd (evaluate.extractor) need no weights of others."
        )
    try:
        url = str(importlib.import_module("torch_fidelity.feature_extractor_inceptionv3").URL_INCEPTION_V3)
    except (ImportError, RuntimeError, AttributeError, OSError) as error:  # torchvision beside another torch, mostly
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EnvironmentFailed(
            f"evaluate.inception: torch-fidelity cannot be imported here ({reason}). Install the torchvision that "
            "belongs to this torch, or leave evaluate.inception out."
        ) from None
    return _weights(url)


def _weights(url: str) -> Path:
    """Return where the file of a URL lies in torch's own cache; the start of its sha256 is in its name."""
    import torch
    from huggingface_hub.constants import HF_HUB_OFFLINE

    name = url.rsplit("/", 1)[-1]
    path, start = Path(torch.hub.get_dir(), "checkpoints", name), Path(name).stem.rsplit("-", 1)[-1]
    if not path.is_file():
        if HF_HUB_OFFLINE:
            raise EnvironmentFailed(f"evaluate.inception: offline, and there is no {path}; it is {url}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"Fetching {url}", flush=True)
        try:
            torch.hub.download_url_to_file(url, str(path), start, progress=False)
        except (OSError, RuntimeError) as error:  # a RuntimeError: another sha256
            raise EnvironmentFailed(f"evaluate.inception: {url} cannot be fetched ({error}).") from None
    if not sha256(path).startswith(start):
        raise EnvironmentFailed(f"evaluate.inception: {path} is damaged: its sha256 does not begin with {start}.")
    return path


def load_inception(real: np.ndarray) -> Inception:
    """Return Inception-v3 with the published weights, on the accelerator where there is one, and what it compares with.

    Raises as `check_inception` does.
    """
    import torch

    path = check_inception()
    from torchmetrics.image.fid import NoTrainInceptionV3

    with _tensors_alone():
        network = NoTrainInceptionV3("inception-v3-compat", [LAYER], str(path), antialias=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Inception(network.to(device), f"{path.stem}@{sha256(path)[:12]}", real)


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Let torch read tensors and nothing else: torch-fidelity would unpickle whatever the file holds."""
    before = os.environ.get(ONLY_TENSORS)
    os.environ[ONLY_TENSORS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[ONLY_TENSORS]
        else:
            os.environ[ONLY_TENSORS] = before


def sha256(path: Path) -> str:
    """Return the digest of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
