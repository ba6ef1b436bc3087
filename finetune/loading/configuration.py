"""Configurations of models: read from a source, or built from a recipe."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError, did_you_mean
from finetune.foreign.bounds import check_config
from finetune.foreign.files import read_object
from finetune.loading.failures import one_line, quiet
from finetune.loading.merged import ADAPTER, base_options
from finetune.loading.options import ModelOptions
from finetune.loading.source import Source, locate

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Their position table starts at padding_idx + 1, so it holds that many fewer positions than rows.
POSITIONS_AFTER_PADDING = {
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "roberta-prelayernorm",
    "camembert",
    "xmod",
    "longformer",
    "mpnet",
    "data2vec-text",
    "ibert",
}
KEPT = {"architectures", "dtype", "quantization_config", "tie_word_embeddings", "torch_dtype", "transformers_version"}
NOT_OPTIONS = {"transformers_version", "architectures", "dtype"}  # fields that the library fills in by itself


def load_config(options: ModelOptions, **changes: Any) -> PreTrainedConfig:
    """Return the configuration of the model's source, or of `options.config`, with `changes` applied.

    Raises:
        UserError: the source is missing or damaged; an option of `config` is unknown or has a wrong type.
        EnvironmentFailed: the Hub cannot be reached.
    """
    if options.config is None:
        return read_config(locate(options), options, changes)
    if options.path is not None:
        raise UserError(
            "model.path and model.config exclude each other: weights to start from, or a model from scratch."
        )
    return _new_config(dict(options.config), changes)


def read_config(source: Source, options: ModelOptions, changes: dict[str, Any]) -> PreTrainedConfig:
    """Return the configuration that lies at `source`."""
    from transformers import AutoConfig

    import finetune.models  # noqa: F401  # makes our own families known

    folder = source.folder
    if folder is not None and source.gguf_file is None and not (folder / "config.json").is_file():
        if not (folder / ADAPTER).is_file():
            raise UserError(f"model.path: {options.path} holds no config.json; it is not the folder of a model.")
        base = base_options(folder, options)
        return read_config(locate(base), base, changes)
    file = None if source.gguf_file is not None else source.file("config.json")
    if file is not None:
        check_config(file, f"model.path: {options.path}", trusted=options.trust_remote_code)
    with one_line(f"model.path: {options.path}"), quiet():
        config = AutoConfig.from_pretrained(
            source.place, trust_remote_code=options.trust_remote_code, **source.keywords(), **changes
        )
    if file is not None and not options.trust_remote_code:
        with one_line(f"model.path: {options.path}"), quiet():
            _pass_over_unknown(config, read_object(file))
    config._commit_hash = source.commit  # transformers leaves this name out of config.json
    return config


def _pass_over_unknown(config: PreTrainedConfig, held: dict[str, Any]) -> None:
    """Take away texts, lists and objects beyond the fields of the family: transformers makes attributes of anything.

    Numbers stay: heads ask for some that no family lists, such as `decoder_start_token_id`.
    """
    kind: Any = type(config)
    known = {field.name for field in dataclasses.fields(kind)} | set(kind.attribute_map) | KEPT
    strangers = {name for name in set(held) - known if isinstance(held[name], str | list | dict)}
    if not strangers:
        return
    without = kind(**{name: _with_floats(value) for name, value in held.items() if name not in strangers})
    for name in strangers:
        if name in config.__dict__ and not hasattr(without, name):  # the family may make it of others, as T5 does
            delattr(config, name)


def _with_floats(value: Any) -> Any:
    """Return a value of a config.json with the numbers that JSON lacks, which transformers writes as objects."""
    if isinstance(value, dict):
        return (
            float(value["__float__"]) if set(value) == {"__float__"} else {k: _with_floats(v) for k, v in value.items()}
        )
    return [_with_floats(each) for each in value] if isinstance(value, list) else value


def context_length(config: PreTrainedConfig) -> int | None:
    """Return how many tokens the model can read at once, or None when its positions have no end (T5, BLOOM)."""
    config = config.get_text_config()
    rows = getattr(config, "max_position_embeddings", None)
    if rows is None:
        rows = getattr(config, "max_seq_len", None)
    if not isinstance(rows, int) or rows <= 0:
        return None
    if config.model_type in POSITIONS_AFTER_PADDING:
        return rows - (getattr(config, "pad_token_id", None) or 0) - 1
    return rows


def first_position(config: PreTrainedConfig) -> int:
    """Return the position id of a text's first token: 0, but for the families that count from their padding id."""
    if config.model_type not in POSITIONS_AFTER_PADDING:
        return 0
    return (getattr(config, "pad_token_id", None) or 0) + 1


def _new_config(given: dict[str, Any], changes: dict[str, Any]) -> PreTrainedConfig:
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    import finetune.models  # noqa: F401  # makes our own families known

    kind = given.pop("model_type", None)
    if kind is None:
        raise UserError("model.config.model_type is missing: the family to build, such as gpt2, llama or bert.")
    if kind not in CONFIG_MAPPING:
        raise UserError(f"model.config.model_type: {kind!r} is not known.{did_you_mean(kind, CONFIG_MAPPING.keys())}")
    config_class = CONFIG_MAPPING[kind]
    known = (
        {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map) | {"num_labels"}
    )
    known = {name for name in known if not name.startswith("_")} - NOT_OPTIONS
    for name in given:
        if name not in known:
            raise UserError(f"model.config.{name} is not an option of {kind}.{did_you_mean(name, known)}")
    with one_line("model.config"):
        return AutoConfig.for_model(kind, **{**given, **changes})
