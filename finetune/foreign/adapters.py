"""A foreign adapter: bounded ranks, plain names, no imports; and the base that it belongs to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.foreign.bounds import check_sizes
from finetune.foreign.files import digest, read_object, refuse_pickle

if TYPE_CHECKING:
    from torch import nn

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
RANK = 1024
VIRTUAL = 1 << 14  # learned tokens, and the width of what computes them
RANKS = {"r", "init_r", "target_r", "rank"}
METHODS = frozenset({  # of PEFT's: those that a recipe can train
    "ADALORA", "ADAMSS", "ADAPTION_PROMPT", "BEFT", "BOFT", "C3A", "CARTRIDGE", "DEFT", "DELORA", "FOURIERFT",
    "FROD", "GLORA", "GRALORA", "HIRA", "HRA", "IA3", "LILY", "LN_TUNING", "LOHA", "LOKR", "LORA", "MISS",
    "OFT", "OSF", "PEANUT", "PREFIX_TUNING", "PROMPT_TUNING", "PSOFT", "PVERA", "P_TUNING", "RANDLORA", "ROAD",
    "SHADOW", "SHIRA", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "VERA", "WAVEFT",
})  # fmt: skip
FOLLOWED = {  # what PEFT would read besides the folder: the field, its harmless value, what it names
    "adapters": (None, "other adapters"),
    "arrow_config": (None, "other adapters"),
    "prompt_tuning_init_state_dict_path": (None, "another file"),
    "shadow_model": ("mirror", "another model"),
}
STEPS = 100  # of an iterative start
MODULES = 1 << 14  # names in a list
IMPORTS = {
    "auto_mapping": None,
    "megatron_config": None,
    "megatron_core": "megatron.core",
}  # PEFT imports what they name
NAMES = re.compile(r"[\w.\[\]-]{1,200}")  # of modules; [ ] stand in some parameter names
PATTERNED = re.compile(r"\^?(?:[\w-]|\\?\.)+\$?")  # keys of rank_pattern, which PEFT takes for a pattern
NAMED = ("modules_to_save", "target_parameters", "feedforward_modules", "layers_pattern", "trainable_token_indices")
BASE = "base_weights_sha256"  # in the header of the adapter's weights
MARK = "_finetune_weights"  # of a model: the files that its weights came from


def check_adapter(folder: Path, option: str) -> dict[str, Any]:
    """Return what a folder's adapter_config.json says, when there is nothing in it that could run, hang or escape.

    Raises:
        UserError: a rank beyond RANK, a method beyond METHODS, names that are patterns, imports, other files; pickled
            weights.
    """
    file = folder / CONFIG
    held = read_object(file)
    if (folder / WEIGHTS).is_file():
        refuse_pickle(folder / WEIGHTS, option)
    for name, (usual, what) in FOLLOWED.items():
        if held.get(name) not in (None, usual):
            raise UserError(f"{option}: {file} sets {name}, which names {what}; they are not followed: take it out.")
    if held.get("peft_type") not in tuple(METHODS):
        raise UserError(
            f"{option}: {file} has the peft_type {str(held.get('peft_type'))[:60]!r}, which is not read here."
        )
    for name, usual in IMPORTS.items():
        if held.get(name) not in (None, usual) and not (name == "auto_mapping" and _is_ours(held[name])):
            raise UserError(f"{option}: {file} sets {name}, by which PEFT imports modules; take it out.")
    check_sizes(held, file, option)
    for name in RANKS & set(held):
        _check_rank(name, held[name], file, option)
    for name in ("rank_pattern", "alpha_pattern"):
        for pattern, value in _mapping(held.get(name), name, file, option).items():
            if not PATTERNED.fullmatch(pattern) or len(pattern) > 200:
                raise UserError(
                    f"{option}: {file}: {name} has the pattern {pattern[:80]!r}; only plain names are read."
                )
            if name == "rank_pattern" and not _is_mask(value, held):
                _check_rank(name, value, file, option)
    for name in ("num_virtual_tokens", "encoder_hidden_size", "token_dim", "encoder_num_layers"):
        value = held.get(name)
        if value is not None and (type(value) is not int or value > VIRTUAL):
            raise UserError(f"{option}: {file} asks for {name} {str(value)[:40]}, and at most {VIRTUAL:,} is believed.")
    _check_start(held, file, option)
    for name in (*NAMED, "target_modules", "exclude_modules"):
        if isinstance(held.get(name), list | dict) and len(held[name]) > MODULES:
            raise UserError(
                f"{option}: {file}: {name} has {len(held[name]):,} names, and at most {MODULES:,} are read."
            )
    for name in NAMED:
        _check_names(name, held.get(name), file, option)
    _check_replication(held.get("layer_replication"), file, option)
    return held


def settle_patterns(config: Any, model: nn.Module, option: str) -> None:
    """Put the names of the modules in place of patterns in a PEFT configuration: PEFT matches without a time limit.

    Raises:
        UserError: a pattern takes too long, or matches nothing.
    """
    from finetune.foreign.patterns import names_that_match

    every = [name for name, _ in model.named_modules() if name]
    for field in ("target_modules", "exclude_modules"):
        pattern = getattr(config, field, None)
        if not isinstance(pattern, str) or re.fullmatch(r"[\w.-]+", pattern):  # a name, or a word that PEFT knows
            continue
        found = names_that_match(pattern, every, f"{option}.{field}")
        if not found and field == "target_modules":
            raise UserError(f"{option}.{field}: {pattern[:80]!r} matches no module of {type(model).__name__}.")
        setattr(config, field, set(found) or None)


def mark_source(model: nn.Module, files: list[Path]) -> None:
    """Remember which files the weights of a model came from; they are hashed only where somebody asks."""
    model.__dict__[MARK] = files


def mark_as(model: nn.Module, whole: nn.Module) -> None:
    """Remember that the weights of a model are some of those of another."""
    model.__dict__[MARK] = whole.__dict__[MARK]


def base_digest(model: Any) -> str | None:
    """Return the sha256 of the weights that a base came from; None for one that came from no file."""
    files = model.__dict__.get(MARK)
    if isinstance(files, str):
        return files
    if not files or not all(file.is_file() for file in files):
        return None
    model.__dict__[MARK] = digest(files)
    return str(model.__dict__[MARK])


def origin(model: nn.Module) -> str | None:
    """Return the `base_digest` of a model, with an adapter or without; of one that was joined, those of its parts.

    None for a model from scratch.
    """
    found = [base_digest(each) for each in model.modules() if MARK in each.__dict__]
    return "+".join(each for each in found if each is not None) or None


def bind(folder: Path, base: Any) -> None:
    """Write the sha256 of the base's weights into the header of the adapter in `folder`.

    The header is written here: safetensors writes metadata in another order each time, and the same weights would not
    be the same file.
    """
    found, file = base_digest(base), folder / WEIGHTS
    if found is None or not file.is_file():
        return
    held = file.read_bytes()
    data = 8 + int.from_bytes(held[:8], "little")  # the length of the header stands before it
    header = json.loads(held[8:data])
    metadata = {**header.pop("__metadata__", {}), "format": "pt", BASE: found}
    text = json.dumps({"__metadata__": dict(sorted(metadata.items())), **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + held[data:])


def digest_of_base(folder: Path) -> str | None:
    """Return the sha256 of the base's weights that the adapter in a folder names; None where it names none."""
    from safetensors import safe_open

    if not (folder / WEIGHTS).is_file():
        return None
    with safe_open(folder / WEIGHTS, framework="pt") as opened:
        return (opened.metadata() or {}).get(BASE)


def check_base(folder: Path, base: Any, option: str) -> None:
    """Refuse to put an adapter on other weights than those that it was trained on; one that names none is let pass.

    Raises:
        UserError: the base has another sha256 than the adapter's header says.
    """
    wanted = digest_of_base(folder)
    found = base_digest(base) if wanted else None
    if wanted and found and wanted != found:
        raise UserError(
            f"{option}: its adapter was trained on weights with sha256 {wanted[:12]}…, and those of "
            f"{base.name_or_path or type(base).__name__} have {found[:12]}…: another base, or another revision of it."
        )


def _is_ours(said: Any) -> bool:
    """Say whether auto_mapping is what PEFT writes for a model without a task type: a class of transformers or ours."""
    parent = said.get("parent_library", "") if isinstance(said, dict) else ""
    return isinstance(parent, str) and parent.split(".")[0] in ("transformers", "finetune")


def _check_rank(name: str, value: Any, file: Path, option: str) -> None:
    for each in value if isinstance(value, list) else [value]:
        if each is not None and (type(each) is not int or not 0 <= each <= RANK):
            raise UserError(f"{option}: {file} has {name} {str(each)[:40]}, and at most {RANK} is believed.")


def _is_mask(value: Any, held: dict[str, Any]) -> bool:
    """Say whether a value of rank_pattern is what AdaLoRA ends with: of every rank, whether it stays."""
    return (
        held.get("peft_type") == "ADALORA"
        and isinstance(value, list)
        and len(value) <= RANK
        and all(isinstance(each, bool) for each in value)
    )


def _check_start(held: dict[str, Any], file: Path, option: str) -> None:
    """Refuse starts of LoRA that go round for ever, which PEFT runs before it puts the saved weights in their place."""
    start, loft = held.get("init_lora_weights"), held.get("loftq_config")
    rounds = re.fullmatch(r"pissa_niter_(\d+)", start) if isinstance(start, str) else None
    if rounds and (len(rounds[1]) > 9 or int(rounds[1]) > STEPS):
        raise UserError(
            f"{option}: {file}: init_lora_weights is {rounds[0][:40]}, and at most {STEPS} rounds are believed."
        )
    each = loft.get("loftq_iter") if isinstance(loft, dict) else None
    if each is not None and (type(each) is not int or each > STEPS):
        raise UserError(f"{option}: {file}: loftq_iter is {str(each)[:40]}, and at most {STEPS} rounds are believed.")


def _mapping(value: Any, name: str, file: Path, option: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{option}: {file}: {name} is {type(value).__name__}, and should be an object.")
    return value or {}


def _check_names(name: str, value: Any, file: Path, option: str) -> None:
    for each in value if isinstance(value, list) else list(value or ()) if isinstance(value, dict) else [value]:
        if isinstance(each, str) and not NAMES.fullmatch(each):
            raise UserError(f"{option}: {file}: {name} has {each[:80]!r}, which is no name of a module.")


def _check_replication(value: Any, file: Path, option: str) -> None:
    if value is None:
        return
    pairs = value if isinstance(value, list) else [value]
    whole = all(isinstance(pair, list) and len(pair) == 2 and all(type(end) is int for end in pair) for pair in pairs)
    if not whole or sum(max(last - first, 0) for first, last in pairs) > 512 or any(min(pair) < 0 for pair in pairs):
        raise UserError(f"{option}: {file}: layer_replication should be pairs of layers, at most 512 in all.")
