"""A recurrent language model: LSTMs or GRUs from scratch, used as any causal language model of transformers."""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import Cache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}
State = tuple[Tensor, ...]  # of each layer, shape (layers, batch, hidden_size): hidden, and cell of an LSTM


@strict
class RNNConfig(PreTrainedConfig):
    """The shape of a recurrent language model."""

    model_type = "finetune-rnn-lm"
    attribute_map = {"tie_weights": "tie_word_embeddings", "num_hidden_layers": "num_layers"}  # noqa: RUF012

    cell: str = "lstm"  # lstm or gru
    vocab_size: int = 8000
    embedding_size: int = 256
    hidden_size: int = 512
    num_layers: int = 2
    dropout: float = 0.0  # of embeddings, between layers, and before the vocabulary
    tie_word_embeddings: bool = True  # one matrix reads and says tokens
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.cell not in CELLS:
            raise ValueError(f"cell is {self.cell!r}; known: {', '.join(CELLS)}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}; give a number from 0 to below 1.")
        for name in ("embedding_size", "hidden_size", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more.")


class RNNCache(Cache):
    """What a recurrent model remembers of the tokens so far: its state, of one size however many they are."""

    def __init__(self, state: State | None = None, seen: int = 0) -> None:
        super().__init__(layers=[])
        self.state, self.seen = state, seen

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens were read."""
        return self.seen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the states of these rows, in this order: the beams that go on."""
        if self.state is not None:
            self.state = tuple(each.index_select(1, beam_idx.to(each.device)) for each in self.state)


class RNNForCausalLM(PreTrainedModel, GenerationMixin):
    """The next token, told from the state that the tokens before left behind."""

    config_class = RNNConfig
    base_model_prefix = "rnn"
    main_input_name = "input_ids"
    accepts_loss_kwargs = False
    config: RNNConfig
    supports_gradient_checkpointing = False  # there are no blocks to forget
    _is_stateful = True  # a state cannot be taken back: no assisted generation
    _tied_weights_keys = {"head.weight": "embedding.weight"}  # noqa: RUF012

    def __init__(self, config: RNNConfig) -> None:
        super().__init__(config)
        between = config.dropout if config.num_layers > 1 else 0.0
        width = config.embedding_size if config.tie_word_embeddings else config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.rnn = CELLS[config.cell](
            config.embedding_size, config.hidden_size, config.num_layers, batch_first=True, dropout=between
        )
        self.narrow = nn.Identity() if width == config.hidden_size else nn.Linear(config.hidden_size, width)
        self.head = nn.Linear(width, config.vocab_size, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif isinstance(module, nn.Linear | nn.LSTM | nn.GRU):
            module.reset_parameters()
        if isinstance(module, nn.LSTM):  # gates open to what was: Jozefowicz et al. 2015
            for name, bias in module.named_parameters():
                if name.startswith("bias_ih"):
                    bias[module.hidden_size : 2 * module.hidden_size].fill_(1.0)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """Say that keys and values of attention are no cache for this model: its first forward makes its own."""
        return False

    def get_input_embeddings(self) -> nn.Module:
        """Return the table of the tokens that are read."""
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        """Return the layer that says tokens."""
        return self.head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: RNNCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast:
        """Return the logits of the next tokens, and the state after the last one.

        A document opens where `position_ids` are 0 (of packed ones: none sees another), and where `attention_mask` of
        shape (batch, tokens so far) goes from 0 to 1 (after padding on the left): there the state is that of nothing.

        Args:
            input_ids: shape (batch, length).
            attention_mask: as above; one of four dimensions, made for attention from the same positions, is not read.
            position_ids: shape (batch, length).
            past_key_values: what the call before returned, to go on from there.
            inputs_embeds: instead of `input_ids`, shape (batch, length, embedding_size).
            labels: shape (batch, length), the tokens themselves: the loss is the mean nats of each next one.
            use_cache: return the state.
            logits_to_keep: of the last so many places alone; 0: of all.
            output_attentions, output_hidden_states, return_dict: not read, for callers that pass them to every model.
        """
        words = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        opens = _opens(words, attention_mask, position_ids)
        before = None if past_key_values is None else past_key_values.state
        hidden, state = self._read(self.dropout(words), opens, before)
        logits = self.head(self.dropout(self.narrow(hidden[:, -logits_to_keep:])))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        seen = words.shape[1] + (0 if past_key_values is None else past_key_values.seen)
        keep = self.config.use_cache if use_cache is None else use_cache
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=RNNCache(state, seen) if keep else None)

    def _read(self, words: Tensor, opens: Tensor, before: State | None) -> tuple[Tensor, State]:
        """Return the outputs, (batch, length, hidden_size), and the state after the last token of each row."""
        batch, length = opens.shape
        if not bool(opens[:, 1:].any()) and not (before is not None and bool(opens[:, 0].any())):
            hidden, after = self.rnn(words, _given(before))
            return hidden, _state(after)
        # Each document is read as a row of its own: no state is reset in the midst of a fused kernel.
        starts = opens.clone()
        starts[:, 0] = True
        first = starts.flatten().nonzero()[:, 0]
        lengths = torch.diff(first, append=first.new_tensor([batch * length]))
        places = torch.arange(int(lengths.max()), device=words.device)
        real = places < lengths[:, None]
        rows = words.flatten(0, 1)[(first[:, None] + places).clamp(max=batch * length - 1)]
        given = _carried(before, opens, first, length) if before is not None else None
        packed = pack_padded_sequence(rows, lengths.cpu(), batch_first=True, enforce_sorted=False)
        said, after = self.rnn(packed, _given(given))
        hidden = pad_packed_sequence(said, batch_first=True)[0][real].view(batch, length, -1)
        last = starts.sum(dim=1).cumsum(dim=0) - 1
        return hidden, tuple(each[:, last] for each in _state(after))


def _opens(words: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None) -> Tensor:
    """Return where a document opens, bool of shape (batch, length)."""
    length = words.shape[1]
    opens = torch.zeros(words.shape[:2], dtype=torch.bool, device=words.device)
    if position_ids is not None:
        opens |= position_ids == 0
    if attention_mask is not None and attention_mask.dim() == 2:
        seen = F.pad(attention_mask.bool(), (1, 0))
        opens |= (seen[:, 1:] & ~seen[:, :-1])[:, -length:]
    return opens


def _carried(before: State, opens: Tensor, first: Tensor, length: int) -> State:
    """Return the state that each document starts with: that of its row where it goes on, else nothing's."""
    row, goes_on = first // length, (first % length == 0) & ~opens.flatten()[first]
    return tuple(each[:, row] * goes_on[None, :, None] for each in before)


def _given(state: State | None) -> Any:
    """Return a state as torch's layers take it: a GRU's by itself."""
    return state[0] if state is not None and len(state) == 1 else state


def _state(given: Any) -> State:
    return given if isinstance(given, tuple) else (given,)
