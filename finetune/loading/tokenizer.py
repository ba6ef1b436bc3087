"""Tokenizers: read from a source, or trained on the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from finetune.errors import UserError
from finetune.loading.failures import one_line, quiet
from finetune.loading.merged import base_options, holds_adapter
from finetune.loading.options import ModelOptions
from finetune.loading.source import locate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
BYTES = 256


def load_tokenizer(options: ModelOptions) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `options.tokenizer`, or else the one that lies beside the weights.

    Raises:
        UserError: there is none, or its files are damaged.
        EnvironmentFailed: the Hub cannot be reached.
    """
    from transformers import AutoTokenizer

    option = "model.path" if options.tokenizer is None else "model.tokenizer"
    if options.tokenizer is not None:  # the revision and the GGUF file are those of the weights
        options = replace(options, path=options.tokenizer, revision=None, gguf_file=None)
    if options.path is None:
        raise UserError("model.tokenizer is missing: a model from scratch brings no tokenizer of its own.")
    source = locate(options, option)
    if (
        source.folder is not None
        and holds_adapter(source.folder)
        and not (source.folder / "tokenizer_config.json").exists()
    ):
        return load_tokenizer(base_options(source.folder, options))
    with one_line(f"{option}: the tokenizer of {options.path}"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(
            source.place, trust_remote_code=options.trust_remote_code, **source.keywords()
        )
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # what transformers builds from no files
        raise UserError(f"{option}: {options.path} holds no tokenizer; name one with model.tokenizer.")
    return tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer learned from `texts`, as GPT-2's (Radford et al. 2019, section 2.2).

    Its vocabulary is `<|endoftext|>` (id 0), the 256 bytes and then merges, so no text is ever unknown and decoding
    gives back every text exactly; 257 means bytes alone. Fewer merges come out when the texts hold fewer.

    Raises:
        UserError: `vocab_size` is below 257.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < BYTES + 1:
        raise UserError(f"vocab_size: {vocab_size} is too small; the 256 bytes and {END_OF_TEXT} alone make 257.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
