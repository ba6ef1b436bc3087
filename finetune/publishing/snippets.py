"""The code on a card: how what was published is loaded with transformers and PEFT, and what to do with it then."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from finetune.publishing.bases import Base

if TYPE_CHECKING:
    from finetune.recipe import Recipe

OWN_FAMILY = "finetune-"  # of model types that transformers learns from finetune.models
OWN_BITS = "finetune"  # quant_method of what finetune.models.quantized reads
PROCESSORS = {"tokenizer": "AutoTokenizer", "processor": "AutoImageProcessor"}


def snippet(recipe: Recipe, name: str, revision: str | None, base: Base | None, config: dict[str, Any]) -> str:
    """Return Python that loads the model as it was trained, bit for bit, and uses it once.

    Args:
        recipe: of the run.
        name: what `from_pretrained` is given.
        revision: a branch or tag other than main.
        base: of an adapter.
        config: config.json of a run with weights of its own.
    """
    usage = recipe.task.usage(config.get("model_type"))
    adapter = recipe.adapter is not None and getattr(recipe.adapter, "peft_type", None) != "head"
    family = str(config.get("model_type") or (recipe.model.config or {}).get("model_type") or "")
    rounded = (config.get("quantization_config") or {}).get("quant_method") == "finetune"
    pinned = f", revision={json.dumps(revision)}" if revision else ""
    in_fewer_bits = "BitsAndBytesConfig" if adapter and recipe.model.quantize else None
    kinds = sorted(each for each in (usage.auto_class, PROCESSORS.get(usage.processor), in_fewer_bits) if each)
    lines = ["import torch"]
    if family.startswith(OWN_FAMILY) or rounded:
        lines.append("import finetune.models  # makes the family, or its 8 and 4 bits, known to transformers")
    lines += ["from peft import PeftModel"] if adapter else []
    lines += [f"from transformers import {', '.join(kinds)}", ""]
    if usage.processor:
        lines.append(f"{usage.processor} = {PROCESSORS[usage.processor]}.from_pretrained({json.dumps(name)}{pinned})")
    dtype = f"dtype=torch.{recipe.model.dtype}"
    if adapter:
        lines += _with_base(recipe, usage.auto_class, base, dtype)
        lines.append(f"model = PeftModel.from_pretrained(base, {json.dumps(name)}{pinned}).eval()")
    else:
        lines.append(f"model = {usage.auto_class}.from_pretrained({json.dumps(name)}{pinned}, {dtype}).eval()")
    return "\n".join([*lines, *(["", usage.code] if usage.code else [])])


def graphs_snippet(name: str, revision: str | None) -> str:
    """Return Python that downloads the graphs in onnx/ and opens each in fp32; int8 lies beside, where there is any."""
    pinned = f", revision={json.dumps(revision)}" if revision else ""
    return "\n".join(
        (
            "from pathlib import Path",
            "from huggingface_hub import snapshot_download",
            "from onnxruntime import InferenceSession",
            "",
            f'folder = Path(snapshot_download({json.dumps(name)}{pinned}, allow_patterns="onnx/*")) / "onnx"',
            'files = [file for file in sorted(folder.glob("*.onnx")) if ".int8." not in file.name]',
            "sessions = {file.stem: InferenceSession(file) for file in files}",
        )
    )


def _with_base(recipe: Recipe, auto_class: str, base: Base | None, dtype: str) -> list[str]:
    """Return the lines that load the base at its commit, with a head for these labels."""
    named = base.id if base is not None else None
    words = [
        json.dumps(named or "THE-BASE"),
        *([f"revision={json.dumps(base.commit)}"] if base and base.commit else []),
        dtype,
    ]
    labels = getattr(recipe.task, "labels", None)
    if labels is not None:  # a head of the right size; its weights come with the adapter
        names = list(labels) or ["value"]
        words += [f"id2label=dict(enumerate({json.dumps(names, ensure_ascii=False)}))", f"num_labels={len(names)}"]
        words += ["pad_token_id=tokenizer.pad_token_id", "ignore_mismatched_sizes=True"]
    if recipe.model.quantize:
        words.append(f"quantization_config=BitsAndBytesConfig(**{_bits(recipe, auto_class)!r})")
    lines = [f"base = {auto_class}.from_pretrained(", *(f"    {word}," for word in words), ")"]
    if recipe.model.quantize:
        lines += [
            "for module in base.modules():  # or bitsandbytes rounds its weights once more, on some CPUs",
            "    module.support_avx512bf16_for_cpu = False",
        ]
    return lines


def _bits(recipe: Recipe, auto_class: str) -> dict[str, Any]:
    """Return the options with which bitsandbytes holds the base, as training read it."""
    import transformers

    from finetune.loading import load_config
    from finetune.loading.quantized import quantization

    made = quantization(recipe.model, getattr(transformers, auto_class), load_config(recipe.model))
    return {name: value for name, value in made["quantization_config"].to_diff_dict().items() if name[0] != "_"}
