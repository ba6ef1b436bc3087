"""Waiting for the Hub: what is worth another try, how long until then, and one line for what is not."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from typing import TypeVar

from finetune.errors import EnvironmentFailed, FinetuneError, UserError
from finetune.publishing.scrubbing import in_short

T = TypeVar("T")

BUSY = (408, 409, 412, 429, 500, 502, 503, 504)  # 409, 412: somebody else was at it in the same moment
SILENCE = 60.0  # seconds without a byte after which a connection is given up
SECONDS = 120.0  # for one request whose answer is short, however slowly it drips
LONGEST_PAUSE = 60.0  # seconds
TOKENS = "huggingface.co/settings/tokens"


def patiently(action: Callable[[], T], what: str) -> T:
    """Do a short thing, a few times if need be; see `persistently`."""
    return persistently(action, what, 3)


def persistently(action: Callable[[], T], what: str, attempts: int, seconds: float = SECONDS) -> T:
    """Return what `action` returns, tried again with growing pauses (or as long as the Hub asks) when that may help.

    Raises:
        UserError: the Hub refuses.
        EnvironmentFailed: nothing helped `attempts` times, or something came that no second try mends.
    """
    from huggingface_hub import get_session

    for attempt in range(1, attempts + 1):
        get_session().timeout = SILENCE
        try:
            return within(seconds, action)
        except Exception as error:
            origin = _origin(error)
            if not _may_pass(origin) or attempt == attempts:
                raise _in_one_line(origin, what, attempt) from error
            pause = _pause(origin, attempt)
            print(f"{what}: {_said(origin)}; trying again in {pause:.0f} s ({attempt} of {attempts}).", flush=True)
            time.sleep(pause)
    raise AssertionError("attempts is 1 or more")


def within(seconds: float, action: Callable[[], T]) -> T:
    """Return what `action` returns; TimeoutError when it takes longer: its thread is left behind, and ends with us."""
    pool = ThreadPool(1)  # its threads are daemons: a stuck one does not keep the process alive
    try:
        return pool.apply_async(action).get(seconds)
    except multiprocessing.TimeoutError:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    finally:
        pool.terminate()  # waits for no stuck thread


def _origin(error: BaseException) -> BaseException:
    """Return what came of the Hub, or of the way there, among the errors behind this one; or this one."""
    step: BaseException | None = error
    found = error
    while step is not None:
        if isinstance(step, FinetuneError) or _status(step) is not None:
            return step
        found = step if _is_network(step) else found  # the innermost: what wraps it says less
        step = step.__cause__ or step.__context__
    return found


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_network(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    # The first is of httpx, which the Hub's client uses; the last is all that hf_xet, its way for large files, raises.
    return bool(names & {"TransportError", "TimeoutError", "ConnectionError", "RuntimeError"})


def _may_pass(error: BaseException) -> bool:
    return _status(error) in BUSY or _is_network(error)


def _pause(error: BaseException, attempt: int) -> float:
    """Return the seconds that the Hub asks for, or 1, then 2, then 4."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = str(headers.get("Retry-After", ""))
    return min(float(asked) if asked.isdigit() else 2.0 ** (attempt - 1), LONGEST_PAUSE)


def _said(error: BaseException) -> str:
    """Return in a few words what went wrong, without addresses, headers and tokens, which a Hub may repeat."""
    status = _status(error)
    if status is not None:
        own = in_short(getattr(error, "server_message", None) or "", 200).rstrip(".")
        return f"the Hub answered {status}" + (f" ({own})" if own else "")
    words = in_short(error, 200).rstrip(".")
    return f"the Hub cannot be reached ({words or type(error).__name__})"


def _in_one_line(error: BaseException, what: str, attempt: int) -> BaseException:
    """Return the error that ends the command; what is none of the Hub's comes back as it is."""
    if isinstance(error, FinetuneError):
        return error
    status, tried = _status(error), f", {attempt} times" if attempt > 1 else ""
    if status == 401:
        return UserError(f"publish: the Hub does not know this token; make a new one ({TOKENS}), HF_TOKEN goes first.")
    if status == 403:
        return UserError(f"{what}: the token may not write there: {_said(error)}.")
    if status == 404:
        return UserError(f"{what}: the Hub has no such repository any more, or the token no access to it.")
    if status == 400 or "Invalid metadata in README.md" in str(error):
        return UserError(f"{what}: the Hub refuses it: {in_short(error, 400).rstrip('.')}.")
    if status is not None or _is_network(error):
        return EnvironmentFailed(f"{what}: {_said(error)}{tried}.")
    return error
