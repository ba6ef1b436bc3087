"""Complete PEFT's configuration for one model: targets, orientation of weights, task, modules to save."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from finetune.adapters.heads import saved_names
from finetune.adapters.methods import NORMS, OWN_TARGETS, check_layers
from finetune.adapters.targets import block_linears, block_norms, check_targets, shortest_names, targeted
from finetune.errors import UserError
from finetune.foreign.adapters import settle_patterns

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


def completed(adapter: PeftConfig, kind: str, model: PreTrainedModel, heads: list[str]) -> Any:
    """Return a copy of the configuration that is complete for this model; `heads` are its new modules.

    Raises:
        UserError: a target module is unknown, the method cannot change the targets, or the task type does not fit.
    """
    config: Any = copy.deepcopy(adapter)
    config.task_type = _task_type(config, model)
    config.inference_mode = False
    if hasattr(config, "modules_to_save"):
        given = list(config.modules_to_save or [])
        check_targets(model, given, "adapter.modules_to_save")
        config.modules_to_save = [*given, *(name for name in saved_names(model, heads) if name not in given)] or None
    if hasattr(config, "target_modules"):
        _complete_targets(config, kind, model, heads)
    return config


def _complete_targets(config: Any, kind: str, model: PreTrainedModel, heads: list[str]) -> None:
    from transformers.pytorch_utils import Conv1D

    if config.target_modules in (None, "auto") and not getattr(config, "target_parameters", None):
        config.target_modules = None
        if kind in OWN_TARGETS:
            return
        _choose_targets(config, kind, model, heads)
    elif config.target_modules == "auto":
        config.target_modules = None
    pattern = isinstance(config.target_modules, str)
    if isinstance(config.target_modules, set | list | tuple):
        if not config.target_modules:
            raise UserError("adapter.target_modules is empty; name modules, or leave it at auto.")
        check_targets(model, sorted(config.target_modules), "adapter.target_modules")
    settle_patterns(config, model, "adapter")  # what is saved is read without patterns
    if pattern and not isinstance(config.target_modules, str):
        config.target_modules = set(shortest_names(model, sorted(config.target_modules)))
    layers = targeted(model, config)
    transposed = any(isinstance(layer, Conv1D) for layer in layers)
    check_layers(kind, model, transposed)
    if hasattr(config, "fan_in_fan_out") and layers:
        config.fan_in_fan_out = transposed


def _choose_targets(config: Any, kind: str, model: PreTrainedModel, heads: list[str]) -> None:
    layers = block_norms(model, heads) if kind in NORMS else block_linears(model, heads)
    if not layers:
        raise UserError(f"adapter.target_modules: auto finds no layers in {type(model).__name__}; name them.")
    if kind != "IA3":
        config.target_modules = set(shortest_names(model, list(layers)))
        return
    # (IA)³ scales what comes out of a layer; of a feed-forward block's second layer, what goes in (Liu et al. 2022)
    narrowing = [name for name, layer in layers.items() if _narrows(layer)]
    others = [name for name in layers if name not in narrowing]
    config.feedforward_modules = set(shortest_names(model, narrowing))
    config.target_modules = config.feedforward_modules | set(shortest_names(model, others))


def _narrows(layer: Any) -> bool:
    first, second = layer.weight.shape
    return first > second if type(layer).__name__ == "Conv1D" else second > first


def _task_type(config: Any, model: PreTrainedModel) -> Any:
    from peft import TaskType
    from transformers.models.auto import modeling_auto

    tables = {
        TaskType.SEQ_CLS: modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        TaskType.CAUSAL_LM: modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        TaskType.TOKEN_CLS: modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        TaskType.QUESTION_ANS: modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
        TaskType.SEQ_2_SEQ_LM: modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    }
    name = type(model).__name__
    found = next((task for task, table in tables.items() if name in table.values()), None)
    if found is None and model.can_generate() and not model.config.is_encoder_decoder:  # a family of our own
        found = TaskType.CAUSAL_LM
    if config.task_type not in (None, found):
        raise UserError(f"adapter.task_type: {config.task_type} does not fit {name}; leave it out, it is set to fit.")
    # PEFT 0.21's model for question answering passes no token_type_ids on: question and text would be one.
    return None if found == TaskType.QUESTION_ANS else found
