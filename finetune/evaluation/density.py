"""A variational autoencoder fitted to the vectors of some thousand rows, in seconds on a CPU."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from finetune.models.vector_vae import VectorVAE

LATENT, HIDDEN = 16, 128  # dimensions of the latent, and units of the one hidden layer
RATE, BATCH = 2e-3, 256  # of Adam
MOST_EPOCHS, PATIENCE = 100, 5  # epochs, and those without a better bound on the held-out rows after which it ends


def fit_vae(train: np.ndarray, held: np.ndarray, seed: int) -> tuple[VectorVAE, dict[str, Any]]:
    """Return a VAE of the vectors with its best weights on held-out ones, and plain facts; global randomness stays.

    Args:
        train: shape (n, size), float32.
        held: shape (m, size), not trained on: the bound on them says when to end.
        seed: of weights, order and draws.
    """
    import torch

    from finetune.models.vector_vae import VectorVAE, VectorVAEConfig

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = VectorVAE(VectorVAEConfig(size=train.shape[1], latent_dim=LATENT, hidden_sizes=[HIDDEN]))
        rows, unseen = torch.from_numpy(train), torch.from_numpy(held)
        model.standardise(rows)
        same = torch.randn(len(unseen), LATENT)  # the held-out rows are judged under the same draws each time
        optimizer = torch.optim.Adam(model.parameters(), RATE)
        best, kept, since, epochs = float("inf"), model.state_dict(), 0, 0
        while epochs < MOST_EPOCHS and since < PATIENCE:
            _epoch(model, optimizer, rows)
            with torch.no_grad():
                bound = float(model(unseen, same).mean())
            epochs, since = epochs + 1, since + 1
            if bound < best:
                best, kept, since = bound, copy.deepcopy(model.state_dict()), 0
        model.load_state_dict(kept)
    facts = {"latent_dim": LATENT, "hidden_size": HIDDEN, "epochs": epochs, "held_out_nelbo": round(best, 3)}
    return model.eval(), facts


def _epoch(model: VectorVAE, optimizer: Any, rows: Tensor) -> None:
    import torch

    for places in torch.randperm(len(rows)).split(BATCH):
        loss = model(rows[places], torch.randn(len(places), LATENT)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
