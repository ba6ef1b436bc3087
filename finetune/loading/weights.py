"""Weights: read from a source, or fresh ones from a configuration."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.foreign.adapters import mark_as, mark_source
from finetune.foreign.bounds import check_generation
from finetune.loading.failures import one_line, quiet
from finetune.loading.layers import keep_layers
from finetune.loading.merged import ADAPTER_WEIGHTS, base_options, holds_adapter, merge
from finetune.loading.options import ModelOptions
from finetune.loading.proportions import check_described, check_layers, files_of
from finetune.loading.quantized import quantization, settle
from finetune.loading.source import Source, check_weights, locate

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    Sizes = dict[str, tuple[list[int], list[int]]]  # of parameters whose shape differs: in the file, in the model
    Loaded = tuple[PreTrainedModel, list[str], Sizes]

MOST = 0.5  # of the weight tensors: with more of them missing, the checkpoint is of another architecture


def load_pretrained(
    options: ModelOptions, auto_class: Any, config: PreTrainedConfig
) -> tuple[PreTrainedModel, list[str]]:
    """Return the model in `options.dtype` and the sorted names of its newly initialised parameters.

    New are the parameters that the checkpoint lacks or holds in another size (this is said), such as the head for other
    labels; who trains them calls `announce`, for the adapter of a saved run brings its own. A model from scratch is new
    as a whole and returns []. The caller sets the seed before.

    Raises:
        UserError: the weights are missing, pickled, damaged, not finite, not those of `options.sha256`, or most of the
            model is not among them.
        EnvironmentFailed: the Hub cannot be reached, or the memory does not suffice.
    """
    if options.trust_remote_code:
        _say("model.trust_remote_code is true: code that comes with the weights runs on this machine.")
    if options.config is not None:
        quantization(options, auto_class, config)
        with one_line("model.config"):
            return auto_class.from_config(config, **_chosen(options)), []
    source = locate(options)
    model, new, sizes = _read(source, options, auto_class, config)
    _say_sizes(new, sizes, options)
    _check_finite(model, options)
    if options.layers is not None:
        small, said = keep_layers(model, options.layers, str(options.path))
        mark_as(small, model)
        model = small
        _say(said)
    model.config._commit_hash = source.commit  # transformers leaves this name out of config.json
    return model, new


def resolved_revision(model: PreTrainedModel) -> str | None:
    """Return the commit of the Hub repository that the weights came from; None for a folder or a model from scratch."""
    return getattr(model.config, "_commit_hash", None)


def _read(source: Source, options: ModelOptions, auto_class: Any, config: PreTrainedConfig) -> Loaded:
    """Return the model, its new parameters and those that the checkpoint holds in another size."""
    if source.folder is not None and holds_adapter(source.folder):
        return _read_merged(source.folder, options, auto_class, config)
    from finetune.models.quantized import in_fewer_bits

    check_weights(source, options)
    files = files_of(source, f"model.path: {options.path}")
    with one_line(f"model.path: {options.path}"), quiet():
        if (said := source.file("generation_config.json")) is not None:
            check_generation(said, f"model.path: {options.path}")
        check_described(auto_class, config, files, options)
    quantized = quantization(options, auto_class, config)
    with one_line(f"model.path: {options.path}"), quiet():
        model, report = auto_class.from_pretrained(
            source.place,
            config=config,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=options.trust_remote_code,
            output_loading_info=True,
            **source.keywords(),
            **_gguf(source),
            **quantized,
            **_chosen(options),
        )
    sizes = {name: (list(read), list(wanted)) for name, read, wanted in report["mismatched_keys"]}
    if in_fewer_bits(config) and (report["missing_keys"] or sizes):
        lost = min([*report["missing_keys"], *sizes])
        raise UserError(f"model.path: {options.path} is in fewer bits, and {lost} is missing or of another size in it.")
    known = dict(model.named_parameters(remove_duplicate=False))
    new = _once(sorted(name for name in {*report["missing_keys"], *sizes} if name in known), model)
    if len(new) > MOST * len(known):
        raise UserError(
            f"model.path: {len(new)} of the {len(known)} weights of {type(model).__name__} are missing in "
            f"{options.path} or have another size there ({_an_example(new, sizes)}): another architecture's."
        )
    check_layers(model, list(report["missing_keys"]), list(report["unexpected_keys"]), options)
    mark_source(model, files)
    if quantized:
        settle(model, new)
    return model, new, sizes


def _once(new: list[str], model: PreTrainedModel) -> list[str]:
    """Return the names without second ones of tied parameters: `bias` of BERT's head is `decoder.bias` too."""
    first = {id(weight): name for name, weight in model.named_parameters()}
    known = dict(model.named_parameters(remove_duplicate=False))
    return [name for name in new if first[id(known[name])] == name or first[id(known[name])] not in new]


def _read_merged(folder: Path, options: ModelOptions, auto_class: Any, config: PreTrainedConfig) -> Loaded:
    if options.quantize is not None:
        raise UserError(
            f"model.quantize: {options.path} holds an adapter; merge it (finetune merge), then quantise that."
        )
    whole: dict[str, Any] = {"dtype": "float32", "quantize": None, "attn_implementation": options.attn_implementation}
    base = replace(base_options(folder, options), **whole)
    _say(f"{options.path} holds an adapter: it is merged into its base, {base.path}.")
    model, new, sizes = _read(locate(base), base, auto_class, config)
    files = [*files_of(locate(base), f"model.path: {base.path}"), folder / ADAPTER_WEIGHTS]
    model, new = merge(model, new, options, folder)
    mark_source(model, files)
    model.name_or_path = model.config.name_or_path = str(options.path)
    return model.to(_chosen(options)["dtype"]), new, {name: sizes[name] for name in new if name in sizes}


def _chosen(options: ModelOptions) -> dict[str, Any]:
    import torch

    attention = {"attn_implementation": options.attn_implementation} if options.attn_implementation else {}
    return {"dtype": getattr(torch, options.dtype), **attention}


def announce(new: list[str]) -> None:
    """Say which modules start with random weights."""
    if new:
        _say(f"New, with random weights: {', '.join(_shortened(new))}.")


def _say_sizes(new: list[str], sizes: Sizes, options: ModelOptions) -> None:
    for name in sorted(set(sizes) & set(new)):
        read, wanted = sizes[name]
        _say(f"{name} has the shape {read} in {options.path} and {wanted} here: it starts anew.")


def _an_example(new: list[str], sizes: Sizes) -> str:
    differing = [name for name in new if name in sizes]
    if not differing:
        return new[0]
    return f"{differing[0]}: {sizes[differing[0]][0]} there, {sizes[differing[0]][1]} here"


def _shortened(names: list[str]) -> list[str]:
    modules = sorted({name.rpartition(".")[0] or name for name in names})
    return modules if len(modules) <= 8 else [*modules[:8], f"and {len(modules) - 8} more"]


def _check_finite(model: PreTrainedModel, options: ModelOptions) -> None:
    """Refuse weights with NaN or infinity in them: they would poison every step."""
    import torch

    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise UserError(f"model.path: {name} of {options.path} holds NaN or infinite values; the file is damaged.")


def _gguf(source: Source) -> dict[str, Any]:
    """Return what makes transformers unpack a GGUF file into plain weights."""
    if source.gguf_file is None:
        return {}
    from transformers import GgufConfig

    return {"quantization_config": GgufConfig(dequantize=True)}


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # once, not by every process of a launch
        print(line, flush=True)
