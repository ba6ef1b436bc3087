"""Exported graphs in the place of the model that they were made of, so that its task can ask and score them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np

    from finetune.exporting.original import Original


class Graph:
    """An ONNX file that ONNX Runtime runs on the CPU."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [each.name for each in self.session.get_inputs()]
        self.outputs = [each.name for each in self.session.get_outputs()]

    def __call__(self, **given: Any) -> dict[str, np.ndarray]:
        """Return the outputs by name; inputs that the graph does not know are passed over."""
        arrays = {name: each.cpu().numpy() if isinstance(each, Tensor) else each for name, each in given.items()}
        found = self.session.run(None, {name: arrays[name] for name in self.inputs})
        return dict(zip(self.outputs, found, strict=True))


class Exported(nn.Module):
    """What the graphs of a run have in common with its model; answers lie where the inputs do."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, original: Original, files: dict[str, Path]) -> None:
        super().__init__()
        self.config = original.model.config
        self.graphs = {name: Graph(path) for name, path in files.items()}


class Classifier(Exported):
    """A graph that gives logits."""

    def forward(self, **inputs: Tensor) -> Any:
        """Return the logits, as the model does."""
        found = torch.from_numpy(self.graphs["model"](**inputs)["logits"])
        return SimpleNamespace(logits=found.to(next(iter(inputs.values())).device))


class LanguageModel(Exported):
    """The prefill graph of a language model; documents that share a block are asked apart."""

    def forward(self, input_ids: Tensor, position_ids: Tensor, **_: Any) -> Any:
        """Return the logits of every position: a document is what begins at position 0."""
        pieces = [
            (row, start, end)
            for row, positions in enumerate(position_ids.tolist())
            for start, end in _documents(positions)
        ]
        longest = max(end - start for _, start, end in pieces)
        ids = torch.zeros(len(pieces), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, (row, start, end) in enumerate(pieces):
            ids[place, : end - start] = input_ids[row, start:end]
            mask[place, : end - start] = 1
        places = torch.arange(longest).expand_as(ids)
        found = torch.from_numpy(
            self.graphs["prefill"](input_ids=ids, attention_mask=mask, position_ids=places)["logits"]
        )
        logits = found.new_zeros((*input_ids.shape, found.shape[-1]))
        for place, (row, start, end) in enumerate(pieces):
            logits[row, start:end] = found[place, : end - start]
        return SimpleNamespace(logits=logits.to(input_ids.device))

    def greedy(self, ids: list[int], count: int, end: int | None) -> list[int]:
        """Return `ids` continued by the likeliest tokens, through prefill once and decode for each further one."""
        import numpy as np

        given = np.array([ids], np.int64)
        found = self.graphs["prefill"](
            input_ids=given, attention_mask=np.ones_like(given), position_ids=np.arange(len(ids), dtype=np.int64)[None]
        )
        made = [*ids, int(found["logits"][0, -1].argmax())]
        while len(made) < len(ids) + count and made[-1] != end:
            past = {f"input.{name.removeprefix('output.')}": each for name, each in found.items() if "past" in name}
            found = self.graphs["decode"](
                input_ids=np.array([made[-1:]], np.int64),
                attention_mask=np.ones((1, len(made)), np.int64),
                position_ids=np.array([[len(made) - 1]], np.int64),
                **past,
            )
            made.append(int(found["logits"][0, -1].argmax()))
        return made


class Autoencoder(Exported):
    """Encoder and decoder of a VAE."""

    def reconstruct(
        self, pixel_values: Tensor, condition: Tensor | None = None, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return each posterior's numbers and the image of its mean."""
        from finetune.models.likelihoods import binarised

        told = {} if condition is None else {"condition": condition}
        seen = binarised(pixel_values, self.config.binarize, keys)
        code = {
            name: torch.from_numpy(each) for name, each in self.graphs["encoder"](pixel_values=seen, **told).items()
        }
        images = self.graphs["decoder"](latents=code["mean"], **told)["images"]
        numbers = torch.cat((code["mean"], code["log_variance"]), dim=1)
        return numbers.to(pixel_values.device), torch.from_numpy(images).to(pixel_values.device)


class ImageGenerator(Exported):
    """The generator of a GAN."""

    def __init__(self, original: Original, files: dict[str, Path]) -> None:
        super().__init__(original, files)
        self.latents = original.model.latents

    def forward(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return images of shape (batch, channels, size, size), in [-1, 1]."""
        told = {} if condition is None else {"condition": condition}
        return torch.from_numpy(self.graphs["generator"](latents=latents, **told)["images"]).to(latents.device)


STAND_INS: dict[str, type[Exported]] = {
    "text-classification": Classifier,
    "image-classification": Classifier,
    "causal-lm": LanguageModel,
    "image-vae": Autoencoder,
    "image-gan": ImageGenerator,
}


def _documents(positions: list[int]) -> list[tuple[int, int]]:
    starts = [place for place, position in enumerate(positions) if position == 0]
    return list(zip(starts, [*starts[1:], len(positions)], strict=True))
