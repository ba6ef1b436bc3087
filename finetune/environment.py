"""Where a run is made: versions, hardware and commit; never a token, a user's name or a home folder."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = (
    "finetune",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "peft",
    "evaluate",
    "tokenizers",
    "safetensors",
    "numpy",
    "scikit-learn",
    "pyarrow",
    "deepspeed",
    "bitsandbytes",
    "gguf",
    "onnx",
    "onnxscript",
    "onnxruntime",
)


def collect() -> dict[str, Any]:
    """Return versions, platform, processor, GPUs and the commit of this project, as plain values."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": memory_gb(),
        "gpus": gpus(),
        "versions": versions(),
        "commit": commit(),
    }


def text() -> str:
    """Return what `collect` finds as a block that is ready to paste into an issue."""
    found = collect()
    found["gpus"] = ", ".join(found["gpus"]) or "none"
    found |= found.pop("versions")
    width = max(map(len, found))
    return "\n".join(f"{name:<{width}}  {'unknown' if value is None else value}" for name, value in found.items())


def versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # an extra that is not installed, or finetune run from a checkout
    return found


def processor() -> str:
    """Return the CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def memory_gb() -> float | None:
    """Return the machine's memory in GB, or None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def gpus() -> list[str]:
    """Return the name and memory of each GPU that torch sees."""
    import torch

    if not torch.cuda.is_available():
        return []
    known = [torch.cuda.get_device_properties(each) for each in range(torch.cuda.device_count())]
    return [f"{each.name} ({each.total_memory / 1e9:.0f} GB)" for each in known]


def commit() -> str | None:
    """Return the commit of the checkout that this package runs from, "+changes" if edited; None outside one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    revision = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return revision and revision + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):  # git is not installed, or hangs
        return None
    return done.stdout.strip() if done.returncode == 0 else None
