"""The other half of a checkpoint and of a run: the discriminator, its optimiser and schedule, and the average."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from finetune.training import checkpoints
from finetune.training.packing import read_state, write_state
from finetune.training.saved_state import (
    check_weights,
    fitting,
    load_weights,
    read_weights,
    save_weights,
    trained_state,
)

if TYPE_CHECKING:
    from finetune.training.adversarial.trainer import AdversarialTrainer

FOLDER = "discriminator"
AVERAGE = "average"
RAW = "raw"  # the variant of the weights that were trained, beside their average


def write(trainer: AdversarialTrainer, stage: Path) -> None:
    """Write into the stage of a checkpoint what it holds besides the generator."""
    folder = stage / FOLDER
    folder.mkdir()
    save_weights(folder, trainer.discriminator)
    write_state(folder, "optimizer", trainer.d_optimizer.state_dict())
    write_state(folder, "schedule", trainer.d_scheduler.state_dict())
    if trainer.average is not None:
        write_state(stage, AVERAGE, dict(trainer.average.network.state_dict()))


def size(trainer: AdversarialTrainer) -> int:
    """Return about how many bytes `write` writes: weights, two moments of each, and the average."""
    held = 3 * sum(each.nbytes for each in trained_state(trainer.discriminator).values())
    return held + (0 if trainer.average is None else _bytes(trainer.average.network))


def _bytes(network: nn.Module) -> int:
    return sum(each.nbytes for each in network.state_dict().values())


def weights(trainer: AdversarialTrainer) -> dict[str, Iterable[Tensor]]:
    """Return what a checkpoint holds of the other player and the average, by what to call it."""
    held: dict[str, Iterable[Tensor]] = {"the discriminator's weights": trained_state(trainer.discriminator).values()}
    if trainer.average is not None:
        held["the averaged weights"] = trainer.average.network.state_dict().values()
    return held


def check_networks(trainer: AdversarialTrainer, path: Path) -> None:
    """Raise ValueError when a checkpoint's discriminator or average cannot be this game's."""
    read_weights(path / FOLDER, trainer.discriminator)
    if trainer.average is not None:
        _read_average(path, trainer.average.network)


def read_networks(trainer: AdversarialTrainer, path: Path) -> None:
    """Put the discriminator and the average of a checkpoint back in place; CheckFailed when they do not fit."""
    load_weights(path / FOLDER, trainer.discriminator)
    if trainer.average is not None:
        with fitting(path):
            held = _read_average(path, trainer.average.network)
        trainer.average.network.load_state_dict(held)


def _read_average(path: Path, network: nn.Module) -> dict[str, Tensor]:
    held: dict[str, Tensor] = read_state(path, AVERAGE)
    check_weights(held, network.state_dict())
    return held


def read_optimizer(trainer: AdversarialTrainer, path: Path) -> None:
    """Put the discriminator's optimiser and schedule of a checkpoint back in place."""
    trainer.d_optimizer.load_state_dict(read_state(path / FOLDER, "optimizer"))
    trainer.d_scheduler.load_state_dict(read_state(path / FOLDER, "schedule"))


def write_players(trainer: AdversarialTrainer, folder: Path) -> None:
    """Write the raw weights and the discriminator of a run beside its generator."""
    player: Any = trainer.discriminator
    generator: Any = trainer._network
    if trainer.raw is not None:
        generator.save_pretrained(str(folder), state_dict=dict(trainer.raw), variant=RAW)  # it empties what it is given
    player.save_pretrained(str(folder / FOLDER))
    checkpoints.honour_umask(folder)
