"""What a resumed run must share with the run that it goes on with, and what of it may be changed by name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.training.checkpoints import manifest_of
from finetune.training.option_tables import CHANGEABLE
from finetune.training.options import TrainOptions, resume_stamp

if TYPE_CHECKING:
    from torch.optim import Optimizer

LIBRARIES = ("torch", "transformers", "accelerate", "peft")
Change = dict[str, Any]  # step, name, old, new
IN_GROUPS = {  # where an optimiser keeps the options that may be changed, besides its rate
    "train.weight_decay": "weight_decay",
    "train.adam_beta1": "betas",
    "train.adam_beta2": "betas",
    "train.adam_epsilon": "eps",
}


def stamped(stamp: dict[str, Any], args: TrainOptions, streams: bool = False) -> dict[str, Any]:
    """Return a stamp with the trainer's own part: options that change what is learned, processes, versions.

    Of a stream each worker reads a share, so their number decides which rows come next.
    """
    workers = {"dataloader_num_workers": args.dataloader_num_workers} if streams else {}
    world = {"processes": args.world_size, "strategy": _strategy(args), "device": args.device.type}
    versions = {name: version(name) for name in LIBRARIES}
    return {**stamp, "train": {**resume_stamp(args), **workers}, "world": world, "versions": versions}


def _strategy(args: TrainOptions) -> str:
    """Return how state lies in a checkpoint: plain, zero1 to zero3, fsdp1 or fsdp2."""
    zero: Any = getattr(args, "deepspeed_plugin", None)
    if zero is not None:
        return f"zero{zero.zero_stage}"
    shards: Any = getattr(args, "fsdp_plugin_args", None)
    if shards is None and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return "plain"
    return f"fsdp{(shards or {}).get('fsdp_version') or os.environ.get('FSDP_VERSION', '1')}"


def differences(path: Path, stamp: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return {section.option: (the checkpoint's, this run's)} of what is not the same."""
    old, new = dict(_flat(manifest_of(path)["stamp"])), dict(_flat(json.loads(json.dumps(stamp))))
    return {name: (old.get(name), new.get(name)) for name in sorted({*old, *new}) if old.get(name) != new.get(name)}


def check(path: Path, stamp: dict[str, Any], allowed: list[str] | None) -> list[Change]:
    """Return what has been changed by now on the way to this checkpoint and after it, as `train.allow_change` allows.

    Raises:
        UserError: lists `section.option: old → new` of all that may not be changed, or was not allowed.
    """
    found = differences(path, stamp)
    named = {name if "." in name else f"train.{name}" for name in allowed or ()}
    other = any(name.startswith("versions.") for name in found)
    free = {name for name, (old, _) in found.items() if _may_change(name, old, other)}
    kept = free & named
    if left := [name for name in found if name not in kept]:
        listed = "; ".join(f"{name}: {json.dumps(found[name][0])} → {json.dumps(found[name][1])}" for name in left)
        could = [name for name in left if name in free]
        hint = f"allow it (--train.allow_change '{json.dumps(could)}'), " if could == left else ""
        never = [name for name in left if name in named]
        also = f" ({', '.join(never)} cannot be allowed: it decides which rows come next, or what learns.)"
        raise UserError(
            f"{path} was written by another recipe ({listed}). Take these changes back to resume, {hint}choose another "
            f"train.output_dir, or start anew with train.overwrite.{also if never else ''}"
        )
    if stamp["world"]["strategy"].startswith("zero") and (fixed := sorted(kept & IN_GROUPS.keys())):
        raise UserError(
            f"train.allow_change: DeepSpeed would go on with the {', '.join(fixed)} of {path}. Take the change back."
        )
    step = manifest_of(path)["step"]
    new = [{"step": step, "name": name, "old": found[name][0], "new": found[name][1]} for name in sorted(kept)]
    return [*manifest_of(path).get("changes", []), *new]


def _may_change(name: str, old: Any, other_versions: bool) -> bool:
    section, _, option = name.partition(".")
    if section == "base":  # an old checkpoint says nothing of it; another version may write a tokenizer in other words
        return old is None or (other_versions and option != "weights_sha256")
    return section == "versions" or name == "world.device" or (section == "train" and option in CHANGEABLE)


@contextmanager
def applied(changes: Sequence[Change], optimizer: Optimizer, schedule: Any) -> Iterator[None]:
    """Keep the rates of a new optimizer and schedule while the state of old ones is loaded, if one was changed."""
    if not any(each["name"].startswith("train.") for each in changes):
        yield
        return
    keys = {"initial_lr", *(IN_GROUPS[each["name"]] for each in changes if each["name"] in IN_GROUPS)}
    groups = [{name: value for name, value in each.items() if name in keys} for each in optimizer.param_groups]
    bases, factors = list(getattr(schedule, "base_lrs", [])), getattr(schedule, "lr_lambdas", None)
    if factors is None:
        raise UserError(f"train.allow_change does not go with the schedule {type(schedule).__name__}.")
    yield
    schedule.base_lrs = bases
    for group, kept, base, factor in zip(optimizer.param_groups, groups, bases, factors, strict=True):
        group.update({**kept, "lr": base * factor(schedule.last_epoch)})
    schedule._last_lr = [group["lr"] for group in optimizer.param_groups]


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
