"""The folder of an adapter, or of a run that trained one, as the start of another training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import UserError
from finetune.foreign.adapters import check_adapter, check_base, settle_patterns
from finetune.foreign.files import read_object
from finetune.loading.failures import one_line, quiet
from finetune.loading.options import ModelOptions
from finetune.loading.source import source_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
DEEPEST = 4  # adapters, one upon another
RECIPE = 1 << 16  # bytes


def holds_adapter(folder: Path) -> bool:
    """Say whether the folder is that of an adapter and not of a whole model."""
    return (folder / ADAPTER).is_file() and not any(folder.glob("model*.safetensors"))


def base_options(folder: Path, options: ModelOptions) -> ModelOptions:
    """Return where the base of an adapter comes from: by the recipe of its run, else by the adapter's configuration.

    Whether its code may run is for the reader's own recipe to say.

    Raises:
        UserError: the adapter names no base, or itself, or stands on more than DEEPEST other adapters.
    """
    found = above = _named_base(folder, options)
    met = [folder.resolve()]
    while (place := Path(source_folder(str(above.path)))).is_dir() and (place / ADAPTER).is_file():
        if place.resolve() in met:
            raise UserError(f"model.path: {options.path} holds an adapter that is its own base, by way of {place}.")
        if len(met) > DEEPEST:
            raise UserError(f"model.path: {options.path} holds more than {DEEPEST} adapters, one upon another.")
        if (place / "config.json").is_file() and not holds_adapter(place):
            break
        met.append(place.resolve())
        above = _named_base(place, options)
    return found


def _named_base(folder: Path, options: ModelOptions) -> ModelOptions:
    import yaml

    recipe, what = folder / "recipe.yaml", f"model.path: {options.path}"
    if recipe.is_file():
        if recipe.stat().st_size > RECIPE:
            raise UserError(f"{what}: {recipe} has more than {RECIPE:,} bytes, which no recipe has.")
        with one_line(f"{what}: {recipe}"):
            held = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        section = held.get("model") if isinstance(held, dict) else None
    else:
        held = read_object(folder / ADAPTER)
        section = {"path": held.get("base_model_name_or_path"), "revision": held.get("revision")}
    base = section.get("path") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not base or not isinstance(base, str):
        name = recipe.name if recipe.is_file() else ADAPTER
        raise UserError(f"{what}/{name} does not say which base the adapter belongs to.")
    for name in ("revision", "gguf_file", "tokenizer", "sha256"):
        if not isinstance(section.get(name), str | None):
            raise UserError(f"{what}: {recipe}: model.{name} should be a text.")
    with one_line(f"{what}: {recipe}"):
        return replace(ModelOptions(**section), config=None, trust_remote_code=options.trust_remote_code)


def merge(
    base: PreTrainedModel, new: list[str], options: ModelOptions, folder: Path
) -> tuple[PreTrainedModel, list[str]]:
    """Return the base with the adapter of `folder` merged in, and which of the `new` parameters it did not bring.

    A head of other labels in the adapter is passed over: the base's own, new one stays.

    Raises:
        UserError: the adapter is missing or damaged, fits another base, or its method cannot be merged.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from peft.utils import ModulesToSaveWrapper
    from safetensors import safe_open

    from finetune.models.ties import untie_parted

    what = f"model.path: {options.path}"
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{what} holds an adapter without {ADAPTER_WEIGHTS}; pickled weights are not read.")
    check_adapter(folder, what)
    with one_line(what), quiet():
        check_base(folder, base, what)
        adapter = PeftConfig.from_pretrained(str(folder))
        if adapter.is_prompt_learning:
            kind = getattr(adapter.peft_type, "value", adapter.peft_type)
            raise UserError(
                f"{what}: {kind} learned tokens that stand before the text; weights have no place for them."
            )
        settle_patterns(adapter, base, what)
        adapter.task_type = None  # the model that is wanted decides, not the task that the adapter was trained for
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
            shapes = {name.removeprefix("base_model.model."): file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        attached = PeftModel.from_pretrained(base, str(folder), config=adapter, ignore_mismatched_sizes=True)
        wrapped = {
            f"{name}.{inner}".removeprefix("base_model.model.")
            for name, module in attached.named_modules()
            if isinstance(module, ModulesToSaveWrapper)
            for inner, _ in module.original_module.named_parameters()
        }
        placed = get_peft_model_state_dict(attached, save_embedding_layers=False)
        needed = {name.removeprefix("base_model.model."): list(each.shape) for name, each in placed.items()}
        lost = sorted(name for name, shape in needed.items() if name not in wrapped and shapes.get(name) != shape)
        if lost:
            raise UserError(f"{what} holds an adapter of another base: {lost[0]} is missing or has another size in it.")
        merged = attached.merge_and_unload()
        untie_parted(merged)
    own = {name: list(weight.shape) for name, weight in merged.named_parameters()}
    brought = {name for name in wrapped if shapes.get(name) == own.get(name)}
    return merged, [name for name in new if name not in brought]
