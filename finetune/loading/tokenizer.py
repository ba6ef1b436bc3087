"""Tokenizers: read from a source, or trained on the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from finetune.errors import UserError
from finetune.foreign.tokenizer_files import (
    TEMPLATE,
    check_template,
    check_tokenizer,
    check_tokenizer_file,
    tokenizer_files,
)
from finetune.loading.failures import one_line, quiet
from finetune.loading.merged import base_options, holds_adapter
from finetune.loading.options import ModelOptions
from finetune.loading.source import Source, locate

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
BYTES = 256
MASKED = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


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
    _check_files(source, f"{option}: {options.path}")
    with one_line(f"{option}: the tokenizer of {options.path}"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(
            source.place, trust_remote_code=options.trust_remote_code, **source.keywords()
        )
    held = tokenizer.chat_template
    for template in held.values() if isinstance(held, dict) else [held or ""]:  # the Hub's may have come just now
        if len(template) > TEMPLATE:
            raise UserError(f"{option}: a chat template of {options.path} has more than {TEMPLATE:,} characters.")
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # what transformers builds from no files
        raise UserError(f"{option}: {options.path} holds no tokenizer; name one with model.tokenizer.")
    return tokenizer


def _check_files(source: Source, what: str) -> None:
    config = source.file("tokenizer_config.json")
    if config is not None:
        check_tokenizer(config, what)
    if (template := source.file("chat_template.jinja")) is not None:
        check_template(template, what)
    if source.folder is not None:
        for template in source.folder.glob("additional_chat_templates/*.jinja"):
            check_template(template, what)
    for name in tokenizer_files(config):
        if (file := source.file(name)) is not None:
            check_tokenizer_file(file, what)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer learned from `texts`, as GPT-2's (Radford et al. 2019, section 2.2).

    Its vocabulary is `<|endoftext|>` (id 0), the 256 bytes and then merges, so no text is ever unknown and decoding
    gives back every text exactly; 257 means bytes alone. Fewer merges come out when the texts hold fewer.

    Raises:
        UserError: `vocab_size` is below 257.
    """
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_pairs(texts, vocab_size, [END_OF_TEXT]),
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def train_masked_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer for masked language models: [CLS] text [SEP], with [MASK] and [PAD] (id 0).

    Otherwise as `train_tokenizer`; 260 means bytes alone. `[MASK]` takes the space before it, as RoBERTa's does, so
    that it stands for a word in the midst of a text.

    Raises:
        UserError: `vocab_size` is below 260.
    """
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    backend = _byte_pairs(texts, vocab_size, list(MASKED.values()))
    ends = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    mask = AddedToken("[MASK]", lstrip=True, special=True, normalized=False)
    backend.add_special_tokens([mask])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **{**MASKED, "mask_token": mask}, clean_up_tokenization_spaces=False
    )


def _byte_pairs(texts: Iterable[str], vocab_size: int, special: list[str]) -> Tokenizer:
    """Return byte-level BPE learned from `texts`; its first ids are the special tokens, then the 256 bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    least = BYTES + len(special)
    if vocab_size < least:
        raise UserError(
            f"vocab_size: {vocab_size} is too small; the 256 bytes and {', '.join(special)} alone make {least}."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
