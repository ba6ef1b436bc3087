"""Attach an adapter to a model, or load a saved one onto its base."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.adapters.completion import completed
from finetune.adapters.heads import new_modules
from finetune.adapters.methods import EMBEDDED_PROMPTS, PREFIXES, check_method
from finetune.errors import CheckFailed, UserError
from finetune.foreign.adapters import base_digest, check_adapter, check_base, settle_patterns

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class HeadOnly:
    """Train the new modules (head, pooler) and nothing else."""

    peft_type: Literal["head"] = "head"


def attach(model: PreTrainedModel, adapter: PeftConfig | HeadOnly, new_parameters: list[str]) -> Any:
    """Return the model with an adapter that trains, and saves, every module with `new_parameters` too.

    The adapter's configuration is completed on a copy: target modules, `fan_in_fan_out`, task type, modules to save,
    base and revision. With `HeadOnly` the model itself comes back, all but the new parameters frozen.

    Raises:
        UserError: the method cannot change this model, a target module is unknown, or nothing would be trained.
        CheckFailed: something would be trained that PEFT does not save.
    """
    if isinstance(adapter, HeadOnly):
        return _head_only(model, new_parameters)
    from peft import get_peft_model

    base_digest(model)  # now, while its files are those that were read
    kind = str(getattr(adapter.peft_type, "value", adapter.peft_type))
    heads = new_modules(model, new_parameters)
    check_method(kind, model, heads)
    if getattr(adapter, "shadow_model", "mirror") != "mirror":
        raise UserError("adapter.shadow_model: another model beside the base is not read; leave it at mirror.")
    config = completed(adapter, kind, model, heads)
    try:
        with without_noise():
            attached = get_peft_model(model, config)
    except (ValueError, TypeError, NotImplementedError, RuntimeError, AttributeError, KeyError, ImportError) as error:
        raise UserError(f"adapter: {kind} cannot change {type(model).__name__}: {first_line(error)}") from error
    if getattr(config, "modules_to_save", None):
        config.modules_to_save = list(dict.fromkeys(config.modules_to_save))  # PEFT adds its own names once more
    attached.active_peft_config.revision = getattr(model.config, "_commit_hash", None)
    _check_saved(attached, kind)
    _align_logits(attached)
    _say_share(attached, kind)
    return attached


def load_adapter(base: PreTrainedModel, folder: str | Path) -> PeftModel:
    """Return the base with the adapter saved in `folder`, in evaluation mode.

    Raises:
        UserError: the adapter is missing, pickled or damaged, or belongs to another base: every saved tensor must find
            its place, and every place its tensor.
    """
    return load_adapters(base, {"default": folder})


def load_adapters(base: PreTrainedModel, folders: Mapping[str, str | Path]) -> PeftModel:
    """Return the base with several saved adapters; the first is at work, `set_adapter(name)` switches to another.

    Each adapter has its own head; all heads have the same size.

    Raises:
        UserError: as `load_adapter` raises it, for any of the adapters.
    """
    attached: Any = None
    for name, folder in folders.items():
        attached = _loaded(base if attached is None else attached, Path(folder), name, fresh=attached is None)
    attached.set_adapter(next(iter(folders)))
    _align_logits(attached)
    return attached.eval()


def _loaded(model: Any, folder: Path, name: str, fresh: bool) -> Any:
    """Return the model with one more adapter; `fresh` for the first, which the base is wrapped for."""
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    base = model if fresh else model.get_base_model()
    named: Any = {"adapter_name": name, "torch_device": str(base.device)}
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / file).is_file():
            raise UserError(f"{folder} holds no adapter: {file} is missing.")
    check_adapter(folder, str(folder))
    try:
        check_base(folder, base, str(folder))
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        settle_patterns(config, base, str(folder))
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as opened:
            saved = set(opened.keys())
        with without_noise():
            if fresh:
                model = PeftModel.from_pretrained(base, str(folder), config=config, **named)
            else:
                model.load_adapter(str(folder), peft_config=config, **named)
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError, OSError, SafetensorError) as error:
        raise UserError(f"{folder}: its adapter does not fit {type(base).__name__}: {first_line(error)}") from error
    needed = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    strangers = (needed - saved) | (saved - needed - set(model.state_dict()))  # PEFT may save embeddings besides
    if strangers:
        raise UserError(f"{folder}: its adapter is not that of {type(base).__name__}: {min(strangers)} has no match.")
    return model


def _head_only(model: PreTrainedModel, new_parameters: list[str]) -> PreTrainedModel:
    if not new_parameters:
        raise UserError(
            "adapter.peft_type: head trains the new modules, and every weight here comes from the checkpoint."
        )
    known = dict(model.named_parameters())
    for name, weight in known.items():
        weight.requires_grad_(name in set(new_parameters))
    _say_share(model, "head")
    return model


def _check_saved(attached: Any, kind: str) -> None:
    """Hold what is trained against what PEFT saves: a weight that is trained and not saved would be lost."""
    from peft import get_peft_model_state_dict
    from peft.utils import ModulesToSaveWrapper

    trained = {name: weight for name, weight in attached.named_parameters() if weight.requires_grad}
    wrapped = tuple(f"{name}." for name, each in attached.named_modules() if isinstance(each, ModulesToSaveWrapper))
    if all(name.startswith(wrapped) for name in trained):
        raise UserError(f"adapter: with these options {kind} itself trains nothing.")
    if kind in EMBEDDED_PROMPTS | PREFIXES:  # they save the tokens that come out of their encoder, not its weights
        trained = {name: weight for name, weight in trained.items() if name.startswith(wrapped)}
    saved = {each.data_ptr() for each in get_peft_model_state_dict(attached, save_embedding_layers=False).values()}
    lost = [name for name, weight in trained.items() if weight.numel() and weight.data_ptr() not in saved]
    if lost:
        raise CheckFailed(
            f"adapter: {kind} would train {lost[0]} and not save it; use another method or other targets."
        )


def _align_logits(attached: Any) -> None:
    """Cut off what a language model says about learned tokens before the text: logits stand at the tokens given."""
    config = attached.active_peft_config
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind not in EMBEDDED_PROMPTS or str(getattr(config.task_type, "value", config.task_type)) != "CAUSAL_LM":
        return

    def cut(module: Any, args: Any, outputs: Any) -> Any:
        outputs.logits = outputs.logits[:, config.num_virtual_tokens :]
        return outputs

    attached.register_forward_hook(cut)


def _say_share(model: Any, kind: str) -> None:
    if os.environ.get("RANK", "0") != "0":  # once, not by every process of a launch
        return
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    every = sum(weight.numel() for weight in model.parameters())
    print(f"Adapter {kind}: {trained:,} of {every:,} weights are trained ({trained / max(every, 1):.2%}).", flush=True)


@contextmanager
def without_noise() -> Iterator[None]:
    """Leave out the one warning that PEFT raises of itself."""
    with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5.23 under a name that the latter gives up
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def first_line(error: Exception) -> str:
    """Return what an error says, in one line of at most 300 characters."""
    text = " ".join(str(error).split())
    return text[:297] + "…" if len(text) > 300 else text or type(error).__name__
