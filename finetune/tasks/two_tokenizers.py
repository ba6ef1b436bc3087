"""The tokenizers of a model whose encoder and decoder have vocabularies of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.loading import ModelOptions

FOLDER = "encoder_tokenizer"  # inside a run: the encoder's; the decoder's lies in the run itself


class TwoTokenizers:
    """A decoder's tokenizer, which stands for the pair wherever one is asked for, and the encoder's beside it."""

    def __init__(self, decoder: PreTrainedTokenizerBase, encoder: PreTrainedTokenizerBase) -> None:
        self.decoder, self.encoder = decoder, encoder
        self.init_kwargs = decoder.init_kwargs
        self.backend_tokenizer = getattr(decoder, "backend_tokenizer", None)

    def get_vocab(self) -> dict[str, int]:
        """Return the decoder's vocabulary."""
        return dict(self.decoder.get_vocab())

    def convert_ids_to_tokens(self, ids: list[int]) -> Any:
        """Return the decoder's tokens."""
        return self.decoder.convert_ids_to_tokens(ids)

    def save_pretrained(self, folder: str | Path) -> None:
        """Save both, the encoder's in a folder of its own."""
        self.decoder.save_pretrained(folder)
        self.encoder.save_pretrained(Path(folder) / FOLDER)


def decoder_tokenizer(processor: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer of what is written."""
    tokenizer: PreTrainedTokenizerBase = processor.decoder if isinstance(processor, TwoTokenizers) else processor
    return tokenizer


def encoder_tokenizer(processor: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer of what is read."""
    tokenizer: PreTrainedTokenizerBase = processor.encoder if isinstance(processor, TwoTokenizers) else processor
    return tokenizer


def load_tokenizers(model: ModelOptions) -> TwoTokenizers | None:
    """Return both tokenizers of a recipe's `model.config.encoder` and `decoder`, or of a run that has two; else None.

    An encoder that reads fewer tokens than its tokenizer would give is given no more.
    """
    from finetune.loading import context_length, load_config, load_tokenizer

    given = model.config or {}
    saved = Path(model.tokenizer or model.path or "") / FOLDER
    if saved.is_dir():
        return TwoTokenizers(load_tokenizer(model), load_tokenizer(replace(model, tokenizer=str(saved))))
    if not given.get("encoder") or not given.get("decoder"):
        return None
    halves = {half: replace(model, path=given[half], config=None, tokenizer=None) for half in ("encoder", "decoder")}
    decoder = load_tokenizer(halves["decoder"] if model.tokenizer is None else model)
    encoder = load_tokenizer(halves["encoder"])
    limit = context_length(load_config(halves["encoder"]))
    encoder.model_max_length = min(encoder.model_max_length, limit or encoder.model_max_length)
    return TwoTokenizers(decoder, encoder)


def end_of(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the token that ends what is written: the end of text, or what ends a text of an encoder."""
    return tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id


def start_of(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the token that a decoder begins with: that of the beginning, or else of the end of text."""
    starts = (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id)
    return next((each for each in starts if each is not None), None)
