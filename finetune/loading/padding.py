"""One padding token for tokenizer and model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def set_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give tokenizer, configuration and generation the same padding id; the embedding keeps its size.

    The tokenizer's own padding token is kept; one that has none (GPT-2, Llama) pads with its end-of-text token, which
    is therefore masked by length and never by id.

    Raises:
        UserError: the tokenizer knows more tokens than the embedding has rows, has nothing to pad with, or pads with
            another id than a model whose positions are counted from its padding id (RoBERTa).
    """
    embedding: Any = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    if rows and len(tokenizer) > rows:  # 0 rows: the weights are sharded away (ZeRO-3)
        raise UserError(
            f"model.tokenizer: the tokenizer knows {len(tokenizer)} tokens, the model's embedding holds {rows}; "
            "they belong to different models."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = _padding_token(model, tokenizer)
    pad = tokenizer.pad_token_id
    _check_positions(model, pad)
    for config in {id(each): each for each in (model.config, model.config.get_text_config())}.values():
        config.pad_token_id = pad
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.pad_token_id = pad
    if pad == tokenizer.eos_token_id:
        # torch keeps the gradient of the padding row at zero: the model could not learn where texts end
        embedding.padding_idx = None


def _padding_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    if tokenizer.eos_token is not None:
        return str(tokenizer.eos_token)
    known = getattr(model.config, "pad_token_id", None)
    if known is not None and 0 <= known < len(tokenizer):
        return str(tokenizer.convert_ids_to_tokens(known))
    raise UserError("model.tokenizer: the tokenizer has neither a padding nor an end-of-text token; name another one.")


def _check_positions(model: PreTrainedModel, pad: int) -> None:
    """Refuse another padding id than the one that a RoBERTa-like model counts its positions from."""
    from torch import nn

    for module in model.modules():
        built_for = None if isinstance(module, nn.Embedding) else getattr(module, "padding_idx", None)
        if isinstance(built_for, int) and hasattr(module, "position_embeddings") and built_for != pad:
            raise UserError(
                f"model.tokenizer: it pads with id {pad}, but {model.config.model_type} counts positions from "
                f"its padding id {built_for}; use its own tokenizer (from scratch: model.config.pad_token_id: {pad})."
            )
