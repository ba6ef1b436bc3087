"""Tiny models of a recipe's family: two layers, 32 numbers a token; its own tokenizer where that is at hand."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import EnvironmentFailed, UserError

if TYPE_CHECKING:
    from finetune.loading import ModelOptions
    from finetune.recipe import Recipe

SIZES = {  # what is larger in a configuration is brought down to this
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff"), 64),
    **dict.fromkeys(("d_kv", "head_dim"), 16),
    "n_inner": 64,
    "vocab_size": 2**17,
}
NARROW = 32  # the widest layer of a model whose sizes are a list
CHANNELS = 16
FAMILIES = (  # what a name says of the family, where its weights are not at hand; the first that fits
    *("distilbert", "deberta-v2", "modernbert", "roberta", "electra", "albert", "bert"),
    *("gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "marian", "bart", "t5"),
)
USUAL = {"causal-lm": "gpt2", "chat": "gpt2", "seq2seq": "bart"}
VOCABULARY = 400  # tokens of a tokenizer that is trained here
POSITIONS = 512
HEADS = {"causal-lm": "CausalLM", "chat": "CausalLM", "masked-lm": "MaskedLM", "seq2seq": "Seq2SeqLM"}


def tiny_model(
    recipe: Recipe, folder: Path, sections: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return two `model` sections, as the recipe has it and without dropout, and sentences on what stands for what."""
    given = recipe.model
    kept = {"attn_implementation": given.attn_implementation} if given.attn_implementation else {}
    texts = list(_texts(sections["data"]["train"], recipe))
    if given.config is not None:
        return _from_scratch(dict(given.config), given, recipe, folder, texts, kept)
    if recipe.task.columns().image is not None:
        config = {"model_type": "finetune-image-classifier", "channels": [8, 16], "hidden": 16}
        said = f"model: {given.path}: a small network of convolutions stands in for it"
        return {"config": config}, {"config": dict(config)}, [said]
    places, said = saved_twice(given, recipe.task.kind, folder / "model", texts)
    return {"path": str(places[0]), **kept}, {"path": str(places[1]), **kept}, [f"model: {said}"]


def without_dropout(values: dict[str, Any]) -> None:
    """Set every share of dropout in a configuration to 0, in place."""
    for name, value in values.items():
        if isinstance(value, dict):
            without_dropout(value)
        elif isinstance(value, float) and any(word in name for word in ("dropout", "pdrop", "layerdrop")):
            values[name] = 0.0


def _from_scratch(
    config: dict[str, Any], given: ModelOptions, recipe: Recipe, folder: Path, texts: list[str], kept: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    said = [f"model: {config['model_type']} from scratch, with fewer and narrower layers"]
    exact = deepcopy(config)
    for name in ("encoder", "decoder"):
        if isinstance(config.get(name), str):  # two models joined
            kind = "causal-lm" if name == "decoder" else "encoder"
            source = replace(given, path=config[name], config=None)
            places, words = saved_twice(source, kind, folder / name, texts)
            config[name], exact[name] = map(str, places)
            said.append(f"model.config.{name}: {words}")
    _shrink(config)
    _shrink(exact)
    if not isinstance(config.get("encoder"), str):  # of two models joined, each folder says what it drops
        exact |= _steady(exact, given)
    if given.tokenizer is not None:
        said.append(f"model.tokenizer: one trained on the rows stands in for {given.tokenizer}")
    return {"config": config, **kept}, {"config": exact, **kept}, said


def _steady(config: dict[str, Any], given: ModelOptions) -> dict[str, Any]:
    """Return what keeps a family's own defaults, too, from depending on how a batch is cut: dropout, batch norm."""
    from finetune.loading import load_config

    whole = load_config(replace(given, config=dict(config), tokenizer=None)).to_dict()
    shares = {name: value for name, value in whole.items() if isinstance(value, float) and value}
    without_dropout(shares)
    steady: dict[str, Any] = {name: value for name, value in shares.items() if not value}
    return steady | ({"generator_norm": "none"} if whole.get("generator_norm") == "batch" else {})


def saved_twice(given: ModelOptions, kind: str, folder: Path, texts: list[str]) -> tuple[tuple[Path, Path], str]:
    """Save a tiny model twice, with the family's dropout and without; return the folders and what was taken."""
    import transformers

    import finetune.models  # noqa: F401  # makes our own families known
    from finetune.loading import load_config, load_tokenizer

    try:
        config, tokenizer = load_config(given).to_dict(), load_tokenizer(given)
        said = f"a {config['model_type']} of random weights and the tokenizer of {given.path}"
    except (UserError, EnvironmentFailed):
        family = _family(str(given.path), kind)
        tokenizer = _tokenizer(family, kind, texts)
        config = transformers.AutoConfig.for_model(family).to_dict()
        config |= {"vocab_size": len(tokenizer), **_ends(tokenizer)}
        config |= {name: POSITIONS for name in ("max_position_embeddings", "n_positions") if name in config}
        said = f"{given.path} is not at hand: a {family} of random weights, and a tokenizer trained on the rows"
    _shrink(config)
    made = _config(config)
    auto = getattr(transformers, f"AutoModelFor{HEADS[kind]}" if kind in HEADS else "AutoModel")
    network = auto.from_config(made)
    own, exact = folder, folder.with_name(f"{folder.name}-exact")
    for place in (own, exact):
        if place == exact:
            values = made.to_dict()
            without_dropout(values)
            network.config = _config(values)
        network.save_pretrained(place)
        tokenizer.save_pretrained(place)
    return (own, exact), said


def _config(values: dict[str, Any]) -> Any:
    import transformers

    left_out = {"model_type", "transformers_version", "architectures", "dtype", "torch_dtype", "quantization_config"}
    left_out |= {"id2label", "label2id", "num_labels", "problem_type", "auto_map", "_name_or_path"}
    return transformers.AutoConfig.for_model(
        values["model_type"], **{name: value for name, value in values.items() if name not in left_out}
    )


def _shrink(config: dict[str, Any]) -> None:
    for name, most in SIZES.items():
        if isinstance(config.get(name), int):
            config[name] = min(config[name], most)
    if isinstance(config.get("layer_types"), list):
        config["layer_types"] = config["layer_types"][:2]
    if isinstance(config.get("hidden_sizes"), list | tuple):
        config["hidden_sizes"] = [min(each, NARROW) for each in config["hidden_sizes"]]
    if isinstance(config.get("channels"), int):
        config["channels"] = min(config["channels"], CHANNELS)
    elif config.get("model_type") == "finetune-gan" and config.get("preset", "dcgan") != "mlp":
        config["channels"] = CHANNELS


def _family(path: str, kind: str) -> str:
    name = path.lower().replace("-", "_")
    found = next((each for each in FAMILIES if each.replace("-", "_") in name), None)
    return found or USUAL.get(kind, "bert")


def _tokenizer(family: str, kind: str, texts: list[str]) -> Any:
    from finetune.loading import train_masked_tokenizer, train_tokenizer
    from finetune.tasks.seq2seq_loading import byte_pairs

    if kind == "seq2seq":
        return byte_pairs(iter(texts), VOCABULARY)
    decoder = kind in USUAL or family in ("gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2")
    return (train_tokenizer if decoder else train_masked_tokenizer)(iter(texts), VOCABULARY)


def _ends(tokenizer: Any) -> dict[str, Any]:
    """Return the ids of special tokens for a configuration; those of a family's own vocabulary would not exist."""
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    start = ids["eos_token_id"] if ids["eos_token_id"] is not None else ids["pad_token_id"]
    filled = {name: start if value is None else value for name, value in ids.items()}
    return {**filled, "decoder_start_token_id": filled["eos_token_id"], "forced_eos_token_id": None}


def _texts(file: str, recipe: Recipe) -> Iterator[str]:
    """Yield every text of the few rows that a tokenizer may learn from."""
    import json

    if not file.endswith(".jsonl"):
        return

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | dict):
            for each in value.values() if isinstance(value, dict) else value:
                yield from walk(each)

    for line in Path(file).read_text(encoding="utf-8").splitlines():
        yield from walk(json.loads(line))
