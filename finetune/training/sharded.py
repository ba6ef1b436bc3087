"""State that DeepSpeed and FSDP split over processes, in their own formats.

The named exception to "safetensors and JSON": both hold pickles. They are read after the manifest of this run verified.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from finetune.errors import UserError

if TYPE_CHECKING:
    from finetune.training.checkpointed import Checkpointed


def save_sharded(trainer: Checkpointed, stage: Path) -> None:
    """Write this process's share of weights and optimizer state; every process calls it."""
    if trainer.is_deepspeed_enabled:
        adapted = any(not each.requires_grad for each in trainer.model.parameters())
        trainer.model_wrapped.save_checkpoint(str(stage), exclude_frozen_parameters=adapted)
        return
    from accelerate.utils import save_fsdp_model, save_fsdp_optimizer

    with in_shards(trainer) as plugin:
        save_fsdp_model(plugin, trainer.accelerator, trainer.model, str(stage), adapter_only=True)
        save_fsdp_optimizer(plugin, trainer.accelerator, trainer.optimizer, trainer.model, str(stage))


def load_sharded_optimizer(trainer: Checkpointed, path: Path) -> None:
    """Read the optimizer state that FSDP wrote; DeepSpeed reads its own with the weights."""
    from accelerate.utils import load_fsdp_optimizer

    with in_shards(trainer) as plugin:
        load_fsdp_optimizer(plugin, trainer.accelerator, trainer.optimizer, trainer.model, str(path), adapter_only=True)


def shard_blocks(trainer: Checkpointed) -> None:
    """Have FSDP make a unit of each of the model's blocks, where the profile does not name its modules.

    accelerate 1.15 makes units of `_no_split_modules`, which ELECTRA, DistilBERT and DeBERTa do not have, and then of
    the input embeddings; where the module around those is among the first, as in BERT, the forward pass fails.

    Raises:
        UserError: the embeddings stand in other places too, which accelerate cannot shard: BART's and T5's.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is None or plugin.fsdp_version != 2 or plugin.transformer_cls_names_to_wrap is not None:
        return
    model, modules = trainer.model, list(trainer.model.modules())
    try:
        embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    except NotImplementedError:  # images have none
        return
    weight = getattr(embeddings, "weight", None)
    if weight is None:
        return
    same = [each for each in modules if getattr(each, "weight", None) is weight]
    known = {*embeddings.modules(), *(() if head is None else head.modules())}  # adapters wrap the layers themselves
    if not known.issuperset(same):
        raise UserError(
            f"FSDP cannot shard {type(model).__name__}, whose embeddings stand in {len(same)} places: use the profile "
            "ddp, zero2 or zero3."
        )
    around = {type(each).__name__ for each in modules if embeddings in set(each.modules())}
    blocks = {type(each).__name__ for found in modules if isinstance(found, nn.ModuleList) for each in found}
    named = getattr(model, "_no_split_modules", None) or blocks
    plugin.transformer_cls_names_to_wrap = sorted(set(named) - around)


@contextmanager
def in_shards(trainer: Checkpointed) -> Iterator[Any]:
    """Have FSDP write and read shards, whatever the profile asks for at the end; yields its plugin, if there is one.

    A profile has one `fsdp_state_dict_type`. FULL_STATE_DICT, for a run that is one whole model, would have rank 0
    gather every checkpoint too, and write it by torch.save.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        yield None
        return
    names = ("state_dict_type", "state_dict_config", "optim_state_dict_config")
    before = {name: getattr(plugin, name) for name in names}
    for name in names:
        setattr(plugin, name, None)
    plugin.set_state_dict_type("SHARDED_STATE_DICT")
    try:
        yield plugin
    finally:
        for name, value in before.items():
            setattr(plugin, name, value)
