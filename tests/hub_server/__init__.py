"""A Hub on this machine, for tests: the protocol that huggingface_hub speaks, over loopback, with faults on request.

Repositories, commits, branches, tags, git-LFS uploads, private repositories and tokens are real; what is stored lies in
memory. Xet is not spoken: the clients run with HF_HUB_DISABLE_XET.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hub_server.faults import Fault
from hub_server.protocol import serve
from hub_server.store import Account, Commit, Repo, Store

__all__ = ["TOKEN", "Account", "Commit", "Fault", "Repo", "Store", "serving"]

TOKEN = "hf_" + "writeswithoutlimits" * 2  # of the account "jane"


@contextmanager
def serving() -> Iterator[Store]:
    """Serve an empty Hub with two accounts: jane writes (also for the organisation acme), rita reads."""
    store = Store(
        accounts={
            TOKEN: Account("jane", "write", organisations=("acme",)),
            "hf_readsonly": Account("rita", "read"),
        }
    )
    server = serve(store)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    store.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
