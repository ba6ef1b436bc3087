"""What a server of adapters takes: the rules of vLLM, held against an adapter's files without vLLM."""

from __future__ import annotations

import json
from pathlib import Path

# vllm/config/lora.py, MaxLoRARanks: --max-lora-rank is one of these, and 16 when it is left out.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
PLAIN_RANK = 16


def vllm_refusals(folder: Path) -> list[str]:
    """Return what vLLM would refuse about an adapter, a sentence each; [] for one that it serves as it is.

    The rules are those of vllm/lora/peft_helper.py (PEFTHelper.validate_legal) and vllm/lora/lora_model.py.
    """
    from safetensors import safe_open

    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    kind = config.get("peft_type")
    if kind != "LORA":
        return [f"peft_type is {kind}; only LORA is served."]
    found = []
    if saved := config.get("modules_to_save"):
        found.append(f"modules_to_save is {saved}; merge the run instead, or train without a head.")
    if config.get("use_dora"):
        found.append("use_dora is true; DoRA has to be merged.")
    if config.get("bias", "none") != "none":
        found.append(f"bias is {config['bias']}; it has to be none.")
    ranks = [config["r"], *config.get("rank_pattern", {}).values()]
    if max(ranks) > RANKS[-1]:
        found.append(f"rank {max(ranks)} is above {RANKS[-1]}, the greatest --max-lora-rank.")
    with safe_open(folder / "adapter_model.safetensors", framework="numpy") as file:
        names = list(file.keys())
    strangers = [name for name in names if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
    strangers = [name for name in strangers if ".lora_embedding_" not in name]
    if strangers and not saved:
        found.append(f"{strangers[0]} is no weight of a LoRA.")
    return found


def least_rank(r: int) -> int | None:
    """Return the --max-lora-rank that vLLM needs for an adapter of rank `r`; None where none is enough."""
    return next((rank for rank in RANKS if rank >= r), None)
