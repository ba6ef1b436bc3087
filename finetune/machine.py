"""What the machine refuses: memory, disk, network."""

from __future__ import annotations

import errno

from finetune.publishing.scrubbing import in_short

DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EFBIG: "a file may not become that large here (ulimit -f)",
}
DENIED = (errno.EACCES, errno.EPERM)
NETWORK = {  # by name: requests, httpx and huggingface_hub each have their own, and none is imported for this
    "ConnectionError",
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
    "ProxyError",
    "gaierror",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
}
MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "CUDA error: out of memory")


def refused(error: BaseException) -> str | None:
    """Return a line on what the machine refused: memory, disk, network; None for anything else."""
    words = " ".join(str(error).split())
    short = in_short(error, 300)
    if isinstance(error, MemoryError) or _is_out_of_memory(error, words):
        return (
            "out of memory. Lower train.per_device_train_batch_size (and raise train.gradient_accumulation_steps), "
            f"or the length of the inputs. {short.partition('. ')[0]}"
        )
    if isinstance(error, OSError):
        if error.errno in DISK:
            return f"{DISK[error.errno]}: {error.filename or short}."
        if error.errno in DENIED:
            return f"not allowed: {error.filename or short}."
        if any(_is_network(cause) for cause in _causes(error)):
            return f"no network, or the Hub cannot be reached, and it is not in the local cache: {short}"
    return f"the network failed: {short}" if _is_network(error) else None


def _is_out_of_memory(error: BaseException, words: str) -> bool:
    """Say whether torch could not get memory: its own error on a GPU, a RuntimeError on a CPU."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and any(each in words for each in MEMORY)
    )


def _is_network(error: BaseException) -> bool:
    return any(cls.__name__ in NETWORK for cls in type(error).__mro__)


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and those that it was raised from."""
    found: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in found:
        found.append(step)
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return found
