"""The tokenizers and the model of the task seq2seq: pretrained, from scratch, or an encoder and a decoder joined."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError, did_you_mean
from finetune.tasks.two_tokenizers import TwoTokenizers, decoder_tokenizer, end_of, load_tokenizers, start_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.loading import ModelOptions
    from finetune.task import Processor
    from finetune.tasks.seq2seq import Seq2Seq

JOINED = "encoder-decoder"  # the model_type of two models that were trained apart
LEAST = 258  # the 256 bytes, the end of text and the padding
PADDING = "<|padding|>"


def load_seq2seq_tokenizer(task: Seq2Seq, model: ModelOptions, texts: Callable[[], Any]) -> Processor:
    """Return the tokenizer of the model's source, the two of a joined model, or one trained on both columns.

    Raises:
        UserError: it cannot be had, asks for languages, or the model reads or writes fewer tokens than the task asks.
    """
    from finetune.loading import load_tokenizer

    _check_family(model)
    processor: Any = load_tokenizers(model)
    if processor is None and model.path is None and model.tokenizer is None:
        processor = byte_pairs(texts(), task.vocab_size)
    elif processor is None:
        processor = load_tokenizer(model)
    if hasattr(processor, "src_lang") or hasattr(processor, "lang_code_to_id"):
        raise UserError(
            "model.path: this tokenizer must be told languages (mBART, M2M-100, NLLB), which seq2seq does not do; "
            "use a Marian, BART or T5 model."
        )
    if end_of(decoder_tokenizer(processor)) is None:
        raise UserError("model.path: this tokenizer has no end-of-text token, so a model could never learn to stop.")
    _check_room(task, model)
    return processor


def byte_pairs(texts: Any, vocab_size: int) -> PreTrainedTokenizerBase:
    """Return a byte-level BPE whose texts end with the end of text, and which has a padding token of its own."""
    from tokenizers import processors

    from finetune.loading import train_tokenizer

    if vocab_size < LEAST:
        raise UserError(f"task.vocab_size: {vocab_size} is too small; bytes, end of text and padding make {LEAST}.")
    tokenizer = train_tokenizer(texts, vocab_size=vocab_size - 1)
    tokenizer.add_special_tokens({"pad_token": PADDING})
    end, number = str(tokenizer.eos_token), tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, number)]
    )
    return tokenizer


def load_seq2seq(model: ModelOptions, processor: Processor) -> tuple[PreTrainedModel, list[str]]:
    """Return the model, told where texts begin and end and what pads them, and the names of its new parameters."""
    from transformers import AutoModelForSeq2SeqLM

    from finetune.loading import load_config, load_pretrained, set_padding
    from finetune.models.text_vae_pretrained import without_pooler

    writer = decoder_tokenizer(processor)
    if _joins(model):
        network, new = _from_halves(model)
    else:
        config = load_config(model, **({} if model.path else _ends(model, writer)))
        network, new = load_pretrained(model, AutoModelForSeq2SeqLM, config)
    whole: Any = network
    if whole.config.model_type == JOINED:
        without_pooler(whole.encoder)  # nothing would train it
        known = {name for name, _ in whole.named_parameters()}
        new = [name for name in new if name in known]
    if isinstance(processor, TwoTokenizers):
        for half, tokenizer in (("encoder", processor.encoder), ("decoder", processor.decoder)):
            set_padding(getattr(whole, half), tokenizer)
    else:
        set_padding(network, processor)
    given: dict[str, Any] = {"pad_token_id": writer.pad_token_id, "eos_token_id": end_of(writer)}
    if whole.config.model_type == JOINED:
        given["decoder_start_token_id"] = start_of(writer)
    for config in (whole.config, whole.generation_config):
        for name, value in given.items():
            setattr(config, name, value)
    start = whole.config.decoder_start_token_id
    if start is None:
        start = start_of(writer)
        whole.config.decoder_start_token_id = start
    whole.generation_config.decoder_start_token_id = start
    if not 0 <= start < _rows(whole):
        raise UserError(f"model.path: decoder_start_token_id is {start}, which is no token of this model.")
    _leave_unread(whole)
    return network, new


def _leave_unread(network: Any) -> None:
    """Train no embedding that no gradient reaches; several processes would wait for it.

    Without tied embeddings BART's and Marian's `shared` is left over; Marian's fixed positions are fixed where they are
    made, and transformers 5.23 forgets it where they are loaded.
    """
    for module in network.modules():
        if "Sinusoidal" in type(module).__name__:
            module.weight.requires_grad_(False)
    inner = getattr(network, "model", network)
    shared = getattr(inner, "shared", None)
    if shared is None:
        return
    halves = [getattr(getattr(inner, name, None), "embed_tokens", None) for name in ("encoder", "decoder")]
    read = [each for each in (*halves, network.get_output_embeddings()) if each is not None]
    if all(each.weight is not shared.weight for each in read):
        shared.weight.requires_grad_(False)


def _rows(network: Any) -> int:
    decoder = network.decoder if network.config.model_type == JOINED else network
    embedding: Any = decoder.get_input_embeddings()
    return int(embedding.weight.shape[0]) or 10**9  # 0 rows: the weights are sharded away (ZeRO-3)


def _ends(model: ModelOptions, writer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return what a model from scratch is told of its tokens."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    end = end_of(writer)
    given = {
        "vocab_size": len(writer),
        "pad_token_id": end if writer.pad_token_id is None else writer.pad_token_id,
        "bos_token_id": start_of(writer),
        "eos_token_id": end,
        "decoder_start_token_id": start_of(writer),
    }
    known = CONFIG_MAPPING[str((model.config or {})["model_type"])]
    defaults = {"decoder_vocab_size": len(writer), "forced_eos_token_id": None, "forced_bos_token_id": None}
    return given | {name: value for name, value in defaults.items() if hasattr(known(), name)}


def _joins(model: ModelOptions) -> bool:
    return model.path is None and (model.config or {}).get("model_type") == JOINED


def _halves(model: ModelOptions) -> dict[str, ModelOptions]:
    given = dict(model.config or {})
    for half in ("encoder", "decoder"):
        if not isinstance(given.pop(half, None), str):
            raise UserError(f"model.config.{half} is missing: the {half} of {JOINED} is a folder or a Hub id.")
    given.pop("model_type")
    for name in given:
        near = did_you_mean(name, ("encoder", "decoder"))
        raise UserError(f"model.config.{name} is not an option of {JOINED}: it has encoder and decoder.{near}")
    return {
        half: replace(model, path=(model.config or {})[half], config=None, tokenizer=None)
        for half in ("encoder", "decoder")
    }


def _from_halves(model: ModelOptions) -> tuple[PreTrainedModel, list[str]]:
    """Return an encoder and a decoder joined by new layers of attention to what was read (Rothe et al. 2020)."""
    from transformers import AutoModel, AutoModelForCausalLM, EncoderDecoderModel

    from finetune.loading import load_config, load_pretrained

    halves = _halves(model)
    encoder, _ = load_pretrained(halves["encoder"], AutoModel, load_config(halves["encoder"]))
    reads = load_config(halves["decoder"], is_decoder=True, add_cross_attention=True)
    decoder, fresh = load_pretrained(halves["decoder"], AutoModelForCausalLM, reads)
    whole: Any = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    known = {name for name, _ in whole.named_parameters()}
    if not any("attn" in name.lower() or "attention" in name.lower() for name in fresh):
        raise UserError(f"model.config.decoder: {decoder.config.model_type} cannot be told to read an encoder.")
    new = {f"decoder.{name}" for name in fresh} | {name for name in known if name.startswith("enc_to_dec_proj.")}
    whole.name_or_path = str((model.config or {})["decoder"])  # saved weights: an adapter may stand beside them
    return whole, sorted(new & known)


def _check_family(model: ModelOptions) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as FAMILIES

    from finetune.loading import load_config

    if _joins(model):
        _halves(model)
        return
    kind = load_config(model).model_type
    if kind not in FAMILIES:
        where = "model.path" if model.path else "model.config.model_type"
        raise UserError(
            f"{where}: {kind} does not write a text for a text. Use a T5, BART or Marian model; or join two: "
            f"model.config {{model_type: {JOINED}, encoder: PATH, decoder: PATH}}."
        )


def _check_room(task: Seq2Seq, model: ModelOptions) -> None:
    """Refuse lengths that the model has no positions for."""
    from finetune.loading import context_length, load_config

    if _joins(model):
        limits = {half: context_length(load_config(each)) for half, each in _halves(model).items()}
    else:
        config: Any = load_config(model)
        parts: dict[str, Any] = {half: getattr(config, half, None) for half in ("encoder", "decoder")}
        limits = {half: context_length(part if hasattr(part, "model_type") else config) for half, part in parts.items()}
    asked = {
        "max_source_length": (task.max_source_length, limits["encoder"]),
        "max_target_length": (task.max_target_length, limits["decoder"]),
        "generation.max_new_tokens": (task.generation.get("max_new_tokens", 1), limits["decoder"]),
    }
    for name, (wanted, limit) in asked.items():
        if limit and wanted > limit:
            raise UserError(f"task.{name}: {wanted} is more than the {limit} positions that the model has.")
