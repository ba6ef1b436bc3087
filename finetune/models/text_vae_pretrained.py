"""The two halves of a text autoencoder that come from pretrained models: an encoder such as BERT, a decoder as GPT-2.

The latent reaches the decoder as in Optimus (Li et al. 2020, arXiv:2004.04092): as one more key and value in every
layer that all tokens attend to ("memory"), and added to the embedding of every token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, DynamicCache, PreTrainedConfig


class PretrainedEncoder(nn.Module):
    """Reads a text with a pretrained encoder; the mean of its last hidden states stands for it."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.width: int = config.hidden_size
        self.network = without_pooler(AutoModel.from_config(config))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the means of shape (batch, width), without padding (mask 0)."""
        hidden = self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        mean: Tensor = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
        return mean


class MemoryDecoder(nn.Module):
    """Writes a text with a pretrained decoder that sees the latent as a memory and in every embedding."""

    def __init__(self, config: PreTrainedConfig, latent_dim: int) -> None:
        super().__init__()
        self.layers, self.heads, self.head_size = _attention_shape(config)
        self.network = AutoModelForCausalLM.from_config(config)
        # transformers asks a model's children, and no grandchildren, which of their weights are one
        tied = self.network.all_tied_weights_keys
        self.all_tied_weights_keys = {f"network.{name}": f"network.{other}" for name, other in tied.items()}
        self.memory = nn.Linear(latent_dim, 2 * self.layers * self.heads * self.head_size)
        self.beside = nn.Linear(latent_dim, self.network.get_input_embeddings().weight.shape[1])

    def forward(
        self, input_ids: Tensor, latent: Tensor, dropped: Tensor | None = None, state: Any = None
    ) -> tuple[Tensor, Any]:
        """Return the logits of the next tokens and what has been read, to go on from there.

        Args and shapes are those of the recurrent decoder; right padding needs no mask under a causal one.
        """
        words = self.network.get_input_embeddings()(input_ids)
        if dropped is not None:
            words = words.masked_fill(dropped[..., None], 0.0)
        read = 0 if state is None else state.get_seq_length() - 1  # the memory is no token and takes no position
        state = self._memory(latent) if state is None else state
        positions = torch.arange(read, read + input_ids.shape[1], device=input_ids.device)[None]
        outputs = self.network(
            inputs_embeds=words + self.beside(latent)[:, None],
            past_key_values=state,
            position_ids=positions.expand(len(input_ids), -1),
            use_cache=True,
        )
        return outputs.logits, outputs.past_key_values

    def _memory(self, latent: Tensor) -> DynamicCache:
        made = self.memory(latent).view(len(latent), 2, self.layers, self.heads, 1, self.head_size)
        cache = DynamicCache()
        for layer in range(self.layers):
            cache.update(made[:, 0, layer], made[:, 1, layer], layer)
        return cache


def without_pooler(network: Any) -> Any:
    """Return the network without its pooler: nothing would train it, and no process may wait for its gradient."""
    if getattr(network, "pooler", None) is not None:
        network.pooler = None
    return network


def _attention_shape(config: PreTrainedConfig) -> tuple[int, int, int]:
    """Return (layers, heads of keys, size of a head) of a decoder."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, size
