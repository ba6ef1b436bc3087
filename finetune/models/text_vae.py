"""A variational autoencoder of texts: an encoder that names a Gaussian, and a decoder that writes from a draw of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from finetune.models.latent import gaussian_kl, reparameterised, with_free_bits
from finetune.models.text_vae_pretrained import MemoryDecoder, PretrainedEncoder
from finetune.models.text_vae_recurrent import RecurrentDecoder, RecurrentEncoder

IGNORED = -100  # the target that does not count


@strict
class TextVAEConfig(PreTrainedConfig):
    """The shape of a text autoencoder.

    Preset "gru" is trained from scratch. Preset "pretrained" has an encoder (BERT …) and a decoder (GPT-2 …) of other
    models: in a recipe `encoder` and `decoder` are their Hub ids or folders, in a saved run their whole
    configurations, so that it loads without them.
    """

    model_type = "finetune-text-vae"

    preset: str = "gru"  # gru or pretrained
    latent_dim: int = 32
    vocab_size: int = 8000
    embedding_size: int = 300  # of gru, as in Sentence-VAE
    hidden_size: int = 256  # of gru, each direction
    encoder: str | dict[str, Any] | None = None  # of pretrained
    decoder: str | dict[str, Any] | None = None  # of pretrained
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.preset not in ("gru", "pretrained"):
            raise ValueError(f"preset is {self.preset!r}; known: gru, pretrained.")
        sources = (self.encoder, self.decoder)
        if self.preset == "pretrained" and None in sources:
            raise ValueError("preset pretrained needs an encoder and a decoder: Hub ids or folders.")
        if self.preset == "gru" and sources != (None, None):
            raise ValueError("encoder and decoder belong to preset: pretrained.")

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """Return this configuration: it is the text's own, whatever halves it has."""
        return self


@dataclass
class TextVAEOutput(ModelOutput):
    """What the model says of a batch of texts."""

    loss: Tensor | None = None  # shape (), nats a text, mean over the batch
    reconstruction: Tensor | None = None  # shape (batch,): -log p(text | latent), nats, summed over its tokens
    kl: Tensor | None = None  # shape (batch, latent_dim), nats
    mean: Tensor | None = None  # of the posterior, shape (batch, latent_dim)
    log_variance: Tensor | None = None  # of the posterior, shape (batch, latent_dim)
    logits: Tensor | None = None  # shape (batch, length, vocab_size)


class TextVAE(PreTrainedModel):
    """A sentence as a point of a latent space, and back."""

    config_class = TextVAEConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    accepts_loss_kwargs = False
    config: TextVAEConfig
    supports_gradient_checkpointing = False  # it would drop the decoder's memory, and say nothing
    _supports_sdpa = True

    def __init__(self, config: TextVAEConfig) -> None:
        super().__init__(config)
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.preset == "gru":
            sizes = (config.vocab_size, config.embedding_size, config.hidden_size)
            self.encoder = RecurrentEncoder(*sizes)
            self.decoder = RecurrentDecoder(*sizes, config.latent_dim)
        else:
            self.encoder = PretrainedEncoder(_configuration(config.encoder))
            self.decoder = MemoryDecoder(_configuration(config.decoder), config.latent_dim)
        self.posterior = nn.Linear(int(self.encoder.width), 2 * config.latent_dim)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
        elif isinstance(module, nn.Linear | nn.GRU):
            module.reset_parameters()

    def get_input_embeddings(self) -> nn.Module:
        """Return the decoder's: the vocabulary that is written."""
        if isinstance(self.decoder, RecurrentDecoder):
            return self.decoder.embedding
        embeddings: nn.Module = self.decoder.network.get_input_embeddings()  # type: ignore[union-attr, operator]
        return embeddings

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the posterior, each of shape (batch, latent_dim)."""
        mean, log_variance = self.posterior(self.encoder(input_ids, attention_mask)).chunk(2, dim=-1)
        return mean, log_variance

    def reconstruction(
        self, input_ids: Tensor, targets: Tensor, latent: Tensor, dropped: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (-log p(targets | latent) of each text in nats, of shape (batch,); the logits)."""
        logits, _ = self.decoder(input_ids, latent, dropped)
        flat = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none", ignore_index=IGNORED)
        return flat.view_as(targets).sum(dim=1), logits

    def forward(
        self,
        input_ids: Tensor,
        targets: Tensor,
        encoder_input_ids: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        noise: Tensor | None = None,
        dropped: Tensor | None = None,
        beta: float = 1.0,
        free_bits: float = 0.0,
        return_loss: bool = True,
    ) -> TextVAEOutput:
        """Return both halves of the evidence lower bound for each text.

        Args:
            input_ids, targets: shape (batch, length): what the decoder reads, and what must follow each token (-100:
                nothing, which is so wherever there is padding).
            encoder_input_ids, encoder_attention_mask: the text as the encoder's tokenizer cuts it; left out, it reads
                what the decoder reads.
            noise: standard normal, shape (batch, latent_dim); left out, it is drawn in training, and 0 otherwise.
            dropped: bool, shape (batch, length): tokens that the decoder reads as zeros.
            beta, free_bits: of `loss` alone (see `with_free_bits`).
            return_loss: stands here so that transformers' own Trainer reports a loss at evaluation.
        """
        if encoder_input_ids is None:
            encoder_input_ids, encoder_attention_mask = input_ids, (targets != IGNORED).long()
        if encoder_attention_mask is None:
            encoder_attention_mask = torch.ones_like(encoder_input_ids)
        mean, log_variance = self.encode(encoder_input_ids, encoder_attention_mask)
        if noise is None:
            noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        latent = reparameterised(mean, log_variance, noise.to(mean.dtype))
        cost, logits = self.reconstruction(input_ids, targets, latent, dropped)
        kl = gaussian_kl(mean.float(), log_variance.float())
        loss = (cost + beta * with_free_bits(kl, free_bits)).mean() if return_loss else None
        return TextVAEOutput(loss, cost, kl, mean, log_variance, logits)

    @torch.no_grad()
    def write(
        self, latent: Tensor, most: int, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> list[list[int]]:
        """Return the token ids of a text for each latent, without its end; at most `most` tokens.

        Args:
            latent: shape (batch, latent_dim).
            most: tokens.
            temperature: of the draws; 0: the likeliest token each time.
            generator: of the draws.
        """
        end, start = self.config.eos_token_id, self.config.bos_token_id
        last = latent.new_full((len(latent), 1), int(start if start is not None else end), dtype=torch.long)  # type: ignore[arg-type]
        open_, written, state = torch.ones(len(latent), dtype=torch.bool, device=latent.device), [], None
        for _ in range(most):
            logits, state = self.decoder(last, latent, None, state)
            last = _next(logits[:, -1].float(), temperature, generator)
            open_ = open_ & (last[:, 0] != end)
            written.append(torch.where(open_, last[:, 0], -1))
            if not bool(open_.any()):
                break
        rows: list[list[int]] = torch.stack(written, dim=1).tolist()
        return [[number for number in row if number >= 0] for row in rows]


def _next(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature <= 0:
        return logits.argmax(dim=-1, keepdim=True)
    shares = (logits / temperature).softmax(dim=-1)
    return torch.multinomial(shares.cpu(), 1, generator=generator).to(logits.device)


def _configuration(given: str | dict[str, Any] | None) -> PreTrainedConfig:
    if not isinstance(given, dict):
        raise ValueError(f"{given!r} is no configuration yet: the task text-vae reads it from its source.")
    plain = dict(given)
    return AutoConfig.for_model(plain.pop("model_type"), **plain)
