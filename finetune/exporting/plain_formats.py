"""`--to safetensors`, `gguf-ready` and `adapter`: folders that transformers, llama.cpp's converter and PEFT read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from finetune.adapters.serving import PLAIN_RANK, least_rank, vllm_refusals
from finetune.errors import UserError
from finetune.exporting.original import Original
from finetune.reloading import holds_adapter

GPT2_WORDS = {"Hello world": [15496, 995], " unlikely": [7485]}  # the ids that GPT-2's own vocabulary gives these


def write(original: Original, folder: Path) -> dict[str, Any]:
    """Write a folder that transformers alone reads; return the model as it comes back from there.

    Raises:
        UserError: the model is of this project's own family.
    """
    original.refuse_own_family("safetensors")
    original.model.save_pretrained(folder)
    original.processor.save_pretrained(folder)
    return {"safetensors": type(original.model).from_pretrained(folder, use_safetensors=True).eval()}


def write_for_gguf(original: Original, folder: Path) -> dict[str, Any]:
    """Write a folder for llama.cpp's convert_hf_to_gguf.py, and say what that script will not know.

    Raises:
        UserError: the task is no language model, or its tokenizer has no merges.
    """
    if original.kind != "causal-lm":
        raise UserError(f"--to gguf-ready: llama.cpp continues texts, and {original.kind} does not; try --to onnx.")
    found = write(original, folder)
    told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    if told.get("type") != "BPE":
        raise UserError(
            f"--to gguf-ready: the converter knows BPE tokenizers here, and this one is {told.get('type')}."
        )
    if original.model.config.model_type == "gpt2" and not _is_gpt2s(original.processor):
        print(
            "Beware: this is not GPT-2's own vocabulary. convert_hf_to_gguf.py knows tokenizers by a hash of what they "
            'make of a text and stops at others ("BPE pre-tokenizer was not recognized"): add this one to its '
            'get_vocab_base_pre as "gpt-2", whose way of splitting it shares.',
            flush=True,
        )
    return {"gguf-ready": found["safetensors"]}


def write_adapter(run: Path, folder: Path) -> None:
    """Copy the adapter as PEFT reads it, with the tokenizer; say what vLLM would refuse about it.

    Raises:
        UserError: the run has no adapter.
    """
    if not holds_adapter(run):
        raise UserError(f"--to adapter: {run} holds no adapter.")
    names = ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    for name in names:
        if (run / name).exists():
            shutil.copyfile(run / name, folder / name)
    for line in vllm_refusals(folder):
        print(f"vLLM would refuse it: {line}", flush=True)
    rank = least_rank(int(json.loads((folder / names[0]).read_text(encoding="utf-8")).get("r", 0)))
    if rank is not None and rank > PLAIN_RANK:
        print(f"vLLM serves it with --max-lora-rank {rank}.", flush=True)


def _is_gpt2s(tokenizer: Any) -> bool:
    return all(tokenizer(text)["input_ids"] == ids for text, ids in GPT2_WORDS.items())
