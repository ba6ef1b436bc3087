"""What this machine computes on, and in which precision."""

from __future__ import annotations

from pathlib import Path

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86 AVX512-BF16, x86 AMX, ARMv8.6 (its name on Linux)


def has_accelerator() -> bool:
    """Say whether torch sees a GPU or another accelerator."""
    import torch

    return torch.accelerator.is_available()


def computes_bf16(on_cpu: bool, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Say whether bfloat16 is computed by the hardware here, not emulated slowly.

    oneDNN runs bfloat16 on every AVX-512 CPU, converting to and fro; only instructions of its own make it worth while.
    """
    import torch

    if not on_cpu:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if not cpuinfo.exists():  # macOS, Windows
        return False
    for line in cpuinfo.read_text(errors="replace").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not BF16_FLAGS.isdisjoint(flags.split())
    return False
