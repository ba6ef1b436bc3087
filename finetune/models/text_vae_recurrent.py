"""The two halves of a text autoencoder that are trained from scratch: GRUs (Bowman et al. 2016, arXiv:1511.06349)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


class RecurrentEncoder(nn.Module):
    """Reads a text in both directions; its last states stand for it."""

    def __init__(self, vocab_size: int, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.width = 2 * hidden_size
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.gru = nn.GRU(embedding_size, hidden_size, batch_first=True, bidirectional=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the states of shape (batch, width); padding (mask 0, on the right) is not read."""
        lengths = attention_mask.sum(dim=1).cpu()
        packed = pack_padded_sequence(self.embedding(input_ids), lengths, batch_first=True, enforce_sorted=False)
        _, last = self.gru(packed)
        return torch.cat((last[0], last[1]), dim=1)


class RecurrentDecoder(nn.Module):
    """Writes a text from a latent, which makes its first state and stands beside every token that it reads."""

    def __init__(self, vocab_size: int, embedding_size: int, hidden_size: int, latent_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.opening = nn.Linear(latent_dim, hidden_size)
        self.gru = nn.GRU(embedding_size + latent_dim, hidden_size, batch_first=True)
        self.vocabulary = nn.Linear(hidden_size, vocab_size)

    def forward(
        self, input_ids: Tensor, latent: Tensor, dropped: Tensor | None = None, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of the next tokens and the state after the last one.

        Args:
            input_ids: shape (batch, length).
            latent: shape (batch, latent_dim).
            dropped: bool, shape (batch, length): tokens that are read as zeros (word dropout).
            state: what the call before returned, to go on from there.
        """
        words = self.embedding(input_ids)
        if dropped is not None:
            words = words.masked_fill(dropped[..., None], 0.0)
        state = torch.tanh(self.opening(latent))[None] if state is None else state
        beside = latent[:, None].expand(-1, words.shape[1], -1)
        hidden, state = self.gru(torch.cat((words, beside), dim=-1), state)
        return self.vocabulary(hidden), state
