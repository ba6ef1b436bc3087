"""`finetune quantize`: the layers of a run's model, and its embeddings on request, in 8 or 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.compressing.saving import open_whole
from finetune.deriving import derive, fingerprint
from finetune.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

METHODS = {
    "int8-dynamic": "weights and what they meet in 8 bits, products of integers: smaller and faster on a CPU",
    "int8-weight": "weights in 8 bits, computed with in fp32: smaller, and as exact as 8 bits can be",
    "int4-weight": "weights in 4 bits, computed with in fp32: smallest, and slower",
}


def quantize(
    run: Path,
    output: Path | None = None,
    method: str = "int8-dynamic",
    embeddings: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run whose model holds its weights in fewer bits, scored beside the run that it comes from.

    Every linear layer inside the encoder or decoder is rounded, GPT-2's `Conv1D` too; the head, biases and norms are
    not. Nothing is trained, no row is looked at.

    Args:
        run: with or without an adapter, which is merged into its base first.
        output: the new run's folder.
        method: one of METHODS.
        embeddings: round the table of token vectors too, and a language model's head that is tied to it.
        overrides: of the recipe, such as other test rows.

    Raises:
        UserError: what was given does not fit; nothing is written.
        CheckFailed: what was saved does not come back in a fresh process.
    """
    from finetune.models.quantized import QuantizationConfig, replace_modules, share_tied

    if method not in METHODS:
        raise UserError(f"--method: {method} is not known; known: {', '.join(METHODS)}.{did_you_mean(method, METHODS)}")
    whole = open_whole(run, output, overrides, "quantize")
    assert output is not None  # `open_whole` has asked
    names = chosen_modules(whole.model, embeddings)
    if not names:
        raise UserError(f"{run}: {type(whole.model).__name__} has no linear layer that can be put into fewer bits.")
    before = whole.model.get_memory_footprint()
    replace_modules(whole.model, names, method, filled=True)
    share_tied(whole.model)
    whole.model.requires_grad_(False).config.quantization_config = QuantizationConfig(method, names)
    facts = _shares(whole.model, names, before)
    print(", ".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    origin = {"made_by": "quantize", "of": [fingerprint(run)], "method": method, "embeddings": embeddings, **facts}
    return derive(run, output, (whole.recipe, whole.model, whole.processor), origin)


def chosen_modules(model: Any, embeddings: bool) -> list[str]:
    """Return the names of the modules to round: linear layers of the encoder or decoder, and token vectors if asked."""
    from torch import nn

    from finetune.models.quantized import quantizable

    inner = {id(each) for each in model.base_model.modules()}
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    chosen = []
    for name, module in model.named_modules():
        layer = id(module) in inner and not isinstance(module, nn.Embedding)
        vectors = embeddings and (module is table or (module is head and head.weight is table.weight))
        if quantizable(module) and (layer or vectors):
            chosen.append(name)
    return chosen


def _shares(model: Any, names: list[str], before: int) -> dict[str, Any]:
    from finetune.models.quantized import is_quantized, weight_count

    inside = {each.weight.data_ptr(): each.rows * each.columns for each in model.modules() if is_quantized(each)}
    every, after = weight_count(model), model.get_memory_footprint()
    return {
        "modules in fewer bits": len(names),
        "weights in fewer bits": f"{sum(inside.values()) / every:.1%} of {every:,}",
        "weights in memory": f"{after / 1e6:.1f} MB, before {before / 1e6:.1f} MB",
    }
