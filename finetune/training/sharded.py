"""State that DeepSpeed and FSDP split over processes, in their own formats.

The named exception to "safetensors and JSON": both hold pickles. They are read after the manifest of this run verified.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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

    plugin = trainer.accelerator.state.fsdp_plugin
    if "SHARDED" not in str(plugin.state_dict_type):
        raise UserError("FSDP checkpoints need fsdp_state_dict_type: SHARDED_STATE_DICT in the profile.")
    save_fsdp_model(plugin, trainer.accelerator, trainer.model, str(stage), adapter_only=True)
    save_fsdp_optimizer(plugin, trainer.accelerator, trainer.optimizer, trainer.model, str(stage))


def load_sharded_optimizer(trainer: Checkpointed, path: Path) -> None:
    """Read the optimizer state that FSDP wrote; DeepSpeed reads its own with the weights."""
    from accelerate.utils import load_fsdp_optimizer

    plugin = trainer.accelerator.state.fsdp_plugin
    load_fsdp_optimizer(plugin, trainer.accelerator, trainer.optimizer, trainer.model, str(path), adapter_only=True)
