"""The image classifier in whose features images are compared: any run or Hub model of image classification."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel

    from finetune.evaluation.features import Seen
    from finetune.evaluation.options import EvaluateOptions

BATCH = 256
PROCESSOR = "preprocessor_config.json"
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow turns colour into grey


@dataclass(frozen=True)
class Extractor:
    """A classifier with what it takes images to be."""

    model: PreTrainedModel
    name: str
    digest: str  # sha256 of its weights as a safetensors file
    size: int  # pixels
    channels: int
    mean: tuple[float, ...]  # of a pixel from 0 to 1, one number or one a channel
    std: tuple[float, ...]

    @property
    def id(self) -> str:
        """What scores are comparable within: the name and the first 12 digits of the digest."""
        return f"{self.name}@{self.digest[:12]}"

    def look(self, images: np.ndarray) -> Seen:
        """Return features and probabilities of images, uint8 of shape (n, size, size, channels)."""
        import numpy as np
        import torch

        from finetune.evaluation.features import Seen

        parts = []
        with torch.no_grad():
            for start in range(0, len(images), BATCH):
                raw = torch.from_numpy(images[start : start + BATCH].copy()).to(self.model.device)
                features, logits = _both(self.model, self.prepared(raw))
                parts.append((features.float().cpu().numpy(), logits.float().softmax(1).cpu().numpy()))
        return Seen(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def prepared(self, raw: Tensor) -> Tensor:
        """Return uint8 images (n, size, size, channels) as the classifier wants them: channels, side and scale."""
        import torch
        from torch.nn import functional as F

        pixels = raw.permute(0, 3, 1, 2).float() / 255
        if pixels.shape[1] == 3 and self.channels == 1:
            pixels = (pixels * torch.tensor(GREY, device=pixels.device)[:, None, None]).sum(dim=1, keepdim=True)
        pixels = pixels.expand(-1, self.channels, -1, -1)
        if pixels.shape[-1] != self.size:
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(each, device=pixels.device)[:, None, None] for each in (self.mean, self.std))
        return (pixels - mean) / std

    def facts(self, size: int, channels: int) -> dict[str, Any]:
        """Return what examination.json says of the extractor, beside images of this size."""
        facts: dict[str, Any] = {"extractor": self.id, "extractor_sha256": self.digest}
        if size != self.size:
            facts["resized"] = f"from {size} to {self.size} pixels, bilinear with antialiasing, for the extractor alone"
        if channels != self.channels:
            facts["channels"] = f"from {channels} to {self.channels}, for the extractor alone"
        return facts


def check_networks(options: EvaluateOptions) -> None:
    """Raise where images cannot be compared as the options ask: before hours of training rather than after."""
    if options.extractor is not None:
        check_extractor(options.extractor)
    if options.inception:
        from finetune.evaluation.inception import check_inception

        check_inception()


def check_extractor(path: str) -> None:
    """Raise UserError when a path can be no extractor; reads no weights."""
    from finetune.loading import source_folder

    folder = Path(path).expanduser()
    if folder.is_dir() and not (folder / PROCESSOR).is_file():
        raise UserError(
            f"evaluate.extractor: {path} holds no {PROCESSOR}; give a finished run of task image-classification, or a "
            "Hub id of an image classifier."
        )
    source_folder(path, "evaluate.extractor")


def load_extractor(path: str) -> Extractor:
    """Return the classifier of a run folder or Hub id, in evaluation mode, on the accelerator where there is one.

    Raises:
        UserError: it is missing, damaged, or no image classifier.
        EnvironmentFailed: the Hub cannot be reached.
    """
    import torch
    from safetensors.torch import save
    from transformers import AutoModelForImageClassification

    from finetune.loading import ModelOptions, load_config, load_image_processor, load_pretrained

    check_extractor(path)
    options = ModelOptions(path=path)
    try:
        config = load_config(options)
        model, new = load_pretrained(options, AutoModelForImageClassification, config)
    except UserError as error:
        raise UserError(str(error).replace("model.path", "evaluate.extractor")) from None
    if new:
        raise UserError(f"evaluate.extractor: {path} is no image classifier: it lacks {', '.join(new[:3])}.")
    channels, size = getattr(config, "num_channels", 3), getattr(config, "image_size", 224)
    processor: Any = load_image_processor(options, size if isinstance(size, int) else size[0], channels, 0.5, 0.5)
    weights = {name: each.contiguous() for name, each in model.state_dict().items()}
    digest = hashlib.sha256(save(weights, {"format": "pt"})).hexdigest()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Extractor(
        model=model.eval().to(device),
        name=Path(path).name,
        digest=digest,
        size=_side(processor.size, size),
        channels=channels,
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
    )


def _side(size: Any, otherwise: Any) -> int:
    given = dict(size or {})
    return int(given.get("height") or given.get("shortest_edge") or otherwise)


def _both(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return (features, logits): the model's own `features`, or what goes into its last linear layer."""
    from finetune.tasks.embeddings import seen_by_head

    if hasattr(model, "features"):
        return model.features(pixels), model(pixel_values=pixels).logits
    return seen_by_head(model, lambda: model(pixel_values=pixels).logits)
