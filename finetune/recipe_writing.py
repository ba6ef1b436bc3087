"""Turn the classes of a recipe back into plain values: only what differs from the defaults."""

from __future__ import annotations

import dataclasses
import enum
from functools import cache
from pathlib import Path
from typing import Any

from finetune.training.option_tables import REFUSED

NEVER_WRITTEN = {  # of this command, this machine or PEFT's own making, or secret
    "overwrite",
    "max_hours",
    "use_cpu",
    "local_rank",
    "hub_token",
    "peft_version",
    "inference_mode",
    "base_model_name_or_path",
    "runtime_config",
    "task_type",
}
FOLLOWS = {  # options that the class sets to another's value where they are left out
    "data_seed": "seed",
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}


def changed_options(section: Any) -> dict[str, Any]:
    """Return the options of one section's instance that differ from its defaults, as plain YAML values."""
    changed: dict[str, Any] = {}
    if peft_type := getattr(section, "peft_type", None):
        changed["peft_type"] = plain(peft_type)
    cls: Any = type(section)
    defaults, never = _defaults(cls), {*NEVER_WRITTEN, *REFUSED, "peft_type"}
    automatic: frozenset[str] = getattr(
        section, "automatic", frozenset()
    )  # filled in by the class itself, not by the recipe's author
    chosen = defaults.get("automatic", frozenset()) - automatic  # given, and perhaps as the class would have it
    for option in dataclasses.fields(section):
        if not option.init or option.name in never or option.name in automatic:
            continue
        value = plain(getattr(section, option.name))
        if value != defaults.get(option.name) or option.name in chosen:
            changed[option.name] = value
    for follower, leader in FOLLOWS.items():
        if follower in changed and changed[follower] == plain(getattr(section, leader)):
            del changed[follower]
    if isinstance(changed.get("debug"), list):  # TrainingArguments splits the text; its list is of enums
        changed["debug"] = " ".join(changed["debug"])
    return changed


def plain(value: Any) -> Any:
    """Return a value as YAML spells it: enums by value, sets sorted, dataclasses as mappings of what they change."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return changed_options(value)
    return value


@cache
def _defaults(cls: Any) -> dict[str, Any]:
    """Return the plain defaults of a class, as its own __post_init__ leaves them where no option has to be given."""
    fields = [option for option in dataclasses.fields(cls) if option.init]
    given: dict[str, Any] = {}
    if any(option.name == "target_modules" for option in fields):
        given["target_modules"] = "auto"
    try:
        made = cls(**given)
    except (TypeError, ValueError):  # an option without a default, or one that has to be given
        made = None
    found: dict[str, Any] = {"automatic": getattr(made, "automatic", frozenset())}
    for option in fields:
        if made is not None:
            found[option.name] = plain(getattr(made, option.name))
        elif option.default is not dataclasses.MISSING:
            found[option.name] = plain(option.default)
        elif option.default_factory is not dataclasses.MISSING:
            found[option.name] = plain(option.default_factory())
    return found | given
