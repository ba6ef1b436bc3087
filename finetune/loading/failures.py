"""Turn what the libraries raise while reading foreign files into one line."""

from __future__ import annotations

import errno
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from finetune.errors import EnvironmentFailed, FinetuneError, UserError


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Re-raise any failure of the block as one line that starts with `what` ("model.path: FOLDER").

    The files are foreign and each reader fails in its own way (the tokenizers library raises bare `Exception`), so
    everything is translated; the original stays attached as the cause.
    """
    try:
        yield
    except FinetuneError:
        raise
    except MemoryError as error:
        raise EnvironmentFailed(f"{what} does not fit into memory.") from error
    except Exception as error:
        raise _translated(what, error) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the reports, bars and one warning of transformers: what matters of them is said in our own words."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5.23 under a name that the latter gives up
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="peft")  # says what `merge` checks
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _translated(what: str, error: Exception) -> FinetuneError:
    causes = _chain(error)
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    said = _first_sentence(error)
    if names & {
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "NetworkError",
        "ConnectionError",
        "TimeoutException",
    }:
        return EnvironmentFailed(f"{what}: the Hugging Face Hub cannot be reached and its cache lacks a file: {said}")
    if any(getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES) for cause in causes):
        return EnvironmentFailed(f"{what}: {said}")
    if "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower():
        return EnvironmentFailed(f"{what} does not fit into memory: {said}")
    if "SafetensorError" in names:
        return UserError(f"{what}: its weights cannot be read ({said}): the file is cut or damaged; fetch it again.")
    if "no file named model.safetensors" in str(error) or "file named model.safetensors" in str(error):
        return UserError(f"{what}: it has no model.safetensors; pickled weights are not read: convert them first.")
    return UserError(f"{what}: {said}")


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def _first_sentence(error: Exception) -> str:
    """Return what the error says in one line of at most 300 characters; a KeyError alone says too little."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    text = re.split(r"(?<=[a-z0-9`'\")])\. (?=[A-Z])", text)[0]
    if isinstance(error, KeyError):
        text = f"unknown or missing key {text}"
    return (text[:297] + "…" if len(text) > 300 else text) or type(error).__name__
