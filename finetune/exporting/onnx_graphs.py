"""ONNX graphs of a run's model: by transformers' exporter for its families, by torch.onnx for this project's own."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from finetune.errors import UserError
from finetune.exporting.original import Original

if TYPE_CHECKING:
    import onnx_ir

    from finetune.task import Batch

SIDECAR = 1 << 30  # bytes: a graph with more weights keeps them in a second file, for a protobuf ends at 2 GB
NEEDS = ("onnx", "onnxscript", "onnxruntime")


class Decoder(nn.Module):
    """The decoder of a VAE alone: from latents (and class) to mean images in [0, 1]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.model.decode(latents, condition)


class Encoder(nn.Module):
    """The encoder of a VAE alone: from pixels, binarised already where it takes them so, to the posterior."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        posterior = self.model._encode(pixel_values, condition)
        return posterior.mean, posterior.log_variance


def check_installed() -> None:
    """Refuse where the extra is not installed."""
    from importlib.util import find_spec

    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise UserError(f'--to onnx needs {", ".join(missing)}: pip install "finetune[onnx]"')


def graphs(original: Original) -> dict[str, onnx_ir.Model]:
    """Return the graphs that a run's model is made of, by name; batch and length are dynamic.

    `model` for a classifier, `prefill` and `decode` for a language model, `decoder` and `encoder` for a VAE,
    `generator` for a GAN.

    Raises:
        UserError: the task has no export, or the exporter cannot trace this model.
    """
    makers = {
        "text-classification": _whole,
        "image-classification": _whole,
        "causal-lm": _language_model,
        "image-vae": _autoencoder,
        "image-gan": _generator,
    }
    if original.kind not in makers:
        raise UserError(f"--to onnx: {original.kind} has no export; known: {', '.join(makers)}.")
    try:
        with quietly():
            return makers[original.kind](original)
    except (
        RuntimeError,
        ValueError,
        TypeError,
        NotImplementedError,
        KeyError,
        AttributeError,
        AssertionError,
    ) as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(f"--to onnx: {type(original.model).__name__} cannot be traced: {said}") from error


def save(graph: onnx_ir.Model, path: Path) -> None:
    """Write a graph, with its weights inside it or, past a gigabyte, in PATH.data beside it; without notes.

    Exporters note with each node from which line of which file it comes, and with it where on this machine that lies.
    """
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(graph)
    held = (each.const_value for each in graph.graph.initializers.values())
    size = sum(tensor.nbytes for tensor in held if tensor is not None)
    onnx_ir.save(graph, str(path), external_data=f"{path.name}.data" if size > SIDECAR else None)


def int8(graph: onnx_ir.Model) -> onnx_ir.Model:
    """Return a graph with weights (embeddings too) in int8 and activations quantised as they come."""
    from transformers.exporters.configs import ExportFormat
    from transformers.exporters.quantizers.quantizer_onnxruntime import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    with quietly():
        quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(per_channel=True))
        return quantizer.quantize(graph, {}, ExportFormat.ONNX)


def _whole(original: Original) -> dict[str, Any]:
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    inputs = original.batch()
    exported = OnnxExporter().export(original.model, inputs, config=OnnxConfig(dynamic=True))
    return {"model": exported.program}


def _language_model(original: Original) -> dict[str, Any]:
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    ids = original.batch()["input_ids"][:2, :7]
    mask = torch.ones_like(ids)
    mask[0, :2] = 0  # of unlike length, so that nothing is specialised to a full mask
    exported = OnnxExporter().export_for_generation(
        original.model, {"input_ids": ids, "attention_mask": mask}, config=OnnxConfig(dynamic=True)
    )
    return {name: part.program for name, part in exported.components.items()}


def _autoencoder(original: Original) -> dict[str, Any]:
    model: Any = original.model
    if model.config.model_type != "finetune-vae":
        raise UserError(f"--to onnx: {model.config.model_type} is not exported; finetune-vae is.")
    batch = original.batch()
    latents = torch.zeros(2, model.config.sizes()[0])
    told = {"condition": batch["condition"]} if "condition" in batch else {}
    return {
        "decoder": _traced(Decoder(model), {"latents": latents, **told}, ["images"]),
        "encoder": _traced(Encoder(model), {"pixel_values": batch["pixel_values"], **told}, ["mean", "log_variance"]),
    }


def _generator(original: Original) -> dict[str, Any]:
    model: Any = original.model
    batch = original.batch()
    told = {"condition": batch["condition"]} if "condition" in batch else {}
    return {"generator": _traced(model, {"latents": model.latents(2), **told}, ["images"])}


def _traced(module: nn.Module, inputs: Batch, outputs: list[str]) -> Any:
    program = torch.onnx.export(
        module.eval(),
        (),
        kwargs=inputs,
        input_names=list(inputs),
        output_names=outputs,
        dynamic_shapes={name: {0: torch.export.Dim("batch")} for name in inputs},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return program.model


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Leave out the steps and doubts that exporters print: what they wrote is compared with the original."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
