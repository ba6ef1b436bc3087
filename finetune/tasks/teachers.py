"""Teachers: models of the same task that another one learns from, checked and loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.errors import EnvironmentFailed, UserError
from finetune.loading import ModelOptions, context_length, load_config, load_tokenizer
from finetune.loading.source import locate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.objectives import Distillation
    from finetune.task import Task

OPTION = "task.distill.teacher"
PROBES = ("It's 3.14 o'clock!", "ÀÉîøß naïve Straße", "你好 мир 🙂", "a\tb  c\nd", "UPPER lower_case [MASK]")


def check_teacher(task: Task, options: Distillation, processor: PreTrainedTokenizerBase) -> None:
    """Refuse, before a weight is loaded, a teacher that would be asked something else than it was taught.

    Raises:
        UserError: it is not there, splits texts into other tokens, has other labels or the same ones in another order,
            or cannot read texts as long.
    """
    import yaml

    source = ModelOptions(path=options.teacher, revision=options.revision)
    try:
        tokenizer, config, folder = load_tokenizer(source), load_config(source), locate(source).folder
    except (UserError, EnvironmentFailed) as error:
        raise type(error)(_renamed(error)) from None
    _check_tokens(options.teacher, tokenizer, processor)
    limit, longest = context_length(config), getattr(task, "max_length", 0)
    if limit and longest > limit:
        raise UserError(f"{OPTION}: {options.teacher} reads {limit} tokens, and task.max_length is {longest}.")
    if folder is not None and (folder / "recipe.yaml").is_file():
        _check_run(task, options.teacher, yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))["task"])
    else:
        _check_labels(task, options.teacher, [str(name) for _, name in sorted((config.id2label or {}).items())])


def _check_run(task: Task, teacher: str, taught: dict[str, Any]) -> None:
    """Hold the task of a run, whose adapter's base knows nothing of labels, against this one."""
    for option, wanted in (("kind", task.kind), ("problem", getattr(task, "problem", None))):
        if taught.get(option) != wanted:
            raise UserError(f"{OPTION}: task.{option} of {teacher} is {taught.get(option)}, and {wanted} here.")
    _check_labels(task, teacher, [str(name) for name in taught.get("labels") or ("value",)])


def _check_labels(task: Task, teacher: str, own: list[str]) -> None:
    wanted = list(getattr(task, "labels", None) or ("value",))
    if len(own) != len(wanted):
        raise UserError(f"{OPTION}: {teacher} has {len(own)} labels, and this task has {len(wanted)}.")
    if own == wanted or len(wanted) == 1:
        return
    first = next(number for number, (one, other) in enumerate(zip(own, wanted, strict=True)) if one != other)
    hint = "set task.labels to its order" if sorted(own) == sorted(wanted) else "it must know the same labels"
    raise UserError(f"{OPTION}: label {first} is {own[first]!r} in {teacher} and {wanted[first]!r} here; {hint}.")


def _check_tokens(teacher: str, tokenizer: PreTrainedTokenizerBase, processor: PreTrainedTokenizerBase) -> None:
    """Hold the two tokenizers against each other by vocabulary, and by what they make of a few difficult texts."""
    theirs, ours = tokenizer.get_vocab(), processor.get_vocab()
    if theirs != ours:
        other = min(set(theirs.items()) ^ set(ours.items()))[0]
        raise UserError(f"{OPTION}: {teacher} has another tokenizer: the two differ in {other!r}.")
    words = " ".join([word for word in sorted(ours) if word.isalpha()][:: max(len(ours) // 200, 1)])
    for text in (*PROBES, words, words.upper()):
        if tokenizer(text)["input_ids"] != processor(text)["input_ids"]:
            raise UserError(f"{OPTION}: {teacher} has another tokenizer: the two split {text[:40]!r} differently.")


def load_teacher(task: Task, options: Distillation, processor: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return the teacher, in fp32 and with an adapter merged in.

    Raises:
        UserError: its weights are missing or damaged, its head has not been trained, or the launch splits weights over
            processes.
        EnvironmentFailed: the Hub cannot be reached, or the memory does not suffice.
    """
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
    from transformers.integrations.fsdp import is_fsdp_enabled

    if is_deepspeed_zero3_enabled() or is_fsdp_enabled():
        raise UserError("task.distill: a teacher is whole on every process; use ddp or ZeRO-2, not FSDP or ZeRO-3.")
    try:
        model, new = task.load_model(ModelOptions(path=options.teacher, revision=options.revision), processor)
    except (UserError, EnvironmentFailed) as error:
        raise type(error)(_renamed(error)) from None
    if new:
        raise UserError(f"{OPTION}: {options.teacher} has no trained head of this task: {new[0]} is missing in it.")
    return model


def _renamed(error: Exception) -> str:
    return str(error).replace("model.path", OPTION).replace("model.revision", "task.distill.revision")
