"""Teachers: models of the same task that another one learns from, checked and loaded."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from finetune.errors import EnvironmentFailed, UserError
from finetune.loading import ModelOptions, context_length, load_config, load_tokenizer
from finetune.loading.source import locate
from finetune.objectives import Distillation
from finetune.task import Task

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.objectives.teaching import Teacher
    from finetune.task import Batch, Processor

OPTION = "task.distill.teacher"
PROBES = ("It's 3.14 o'clock!", "ÀÉîøß naïve Straße", "你好 мир 🙂", "a\tb  c\nd", "UPPER lower_case [MASK]")
LENGTHS = ("max_length", "block_size", "max_source_length", "max_target_length")  # options of tasks, in tokens
# Options of a task that a teacher must have been taught with: another value asks it something that it never saw.
MEANT = ("kind", "problem", "prefix", "next_sentence", "image_size", "num_channels")


@dataclass(frozen=True)
class Taught(Task):
    """A task whose model can learn from another model's answers to the same inputs."""

    distill: Distillation | None = field(default=None, kw_only=True)  # learn from another model's answers too

    def check_teacher(self, processor: Processor, model: ModelOptions) -> None:
        if self.distill is not None:
            check_teacher(self, self.distill, processor, model)

    def load_teacher(self, processor: Processor) -> Teacher | None:
        from finetune.objectives.teaching import Teacher

        return None if self.distill is None else Teacher(self, load_teacher(self, self.distill, processor))

    def label_weights(self, labels: Tensor) -> Tensor | None:
        """Return the weight of each label, shape (labels,): a row's is the same in all that it is held against."""
        from finetune.tasks.labels import weight_tensor

        weights = getattr(self, "class_weights", None)
        return None if weights is None else weight_tensor(weights, getattr(self, "labels", None), labels.device)

    def row_weights(self, batch: Batch) -> Tensor:
        """Return what each row of a batch adds to its `weight`, shape (batch,)."""
        labels = batch["labels"]
        if labels.is_floating_point():
            return labels.new_ones(len(labels))
        weights, there = self.label_weights(labels), labels != -100
        each = there.float() if weights is None else weights[labels.clamp(min=0)] * there
        return each if labels.dim() == 1 else each.sum(dim=1)

    def read_places(self, batch: Batch) -> Tensor:
        """Return which hidden states are of inputs and not of padding; bool, shape (batch, length) or (batch, 1)."""
        if "attention_mask" in batch:
            return batch["attention_mask"].bool()
        labels = batch["labels"]
        return labels != -100 if labels.dim() == 2 else (labels == labels)[:, None]


def check_teacher(task: Task, options: Distillation, processor: Processor, student: ModelOptions) -> None:
    """Refuse, before a weight is loaded, a teacher that would be asked something else than it was taught.

    Raises:
        UserError: it is not there, splits texts into other tokens, has other labels or the same ones in another order,
            is of another task, or cannot read texts as long.
    """
    import yaml

    source = ModelOptions(path=options.teacher, revision=options.revision)
    try:
        config, folder = load_config(source), locate(source).folder
        taught: dict[str, Any] = {}
        if folder is not None and (folder / "recipe.yaml").is_file():
            taught = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))["task"]
            _check_meaning(task, options.teacher, taught)
        _check_processor(task, options.teacher, source, processor)
    except (UserError, EnvironmentFailed) as error:
        raise type(error)(_renamed(error)) from None
    limit = context_length(config)
    for option in LENGTHS:
        longest = getattr(task, option, 0)
        if limit and longest > limit:
            raise UserError(f"{OPTION}: {options.teacher} reads {limit} tokens, and task.{option} is {longest}.")
    if hasattr(task, "labels"):
        own = list(taught.get("labels") or ("value",)) if taught else list(_names(config))
        _check_labels(task, options.teacher, [str(name) for name in own])
    if options.hidden is not None:
        for name, shape in ((options.teacher, config), (student.path or "model.config", load_config(student))):
            if shape.model_type == "finetune-rnn-lm":
                raise UserError(f"task.distill.hidden: {name} is recurrent, and shows no hidden states. Leave it out.")


def _names(config: Any) -> list[str]:
    return [str(name) for _, name in sorted((config.id2label or {}).items())]


def _check_meaning(task: Task, teacher: str, taught: dict[str, Any]) -> None:
    """Hold the task of a run, whose adapter's base knows nothing of labels, against this one."""
    known = {each.name: each.default for each in fields(task)} | {"kind": None}
    for option in (name for name in MEANT if name in known):
        wanted, given = getattr(task, option), taught.get(option, known[option])
        if given != wanted:
            raise UserError(f"{OPTION}: task.{option} of {teacher} is {given!r}, and {wanted!r} here.")


def _check_labels(task: Task, teacher: str, own: list[str]) -> None:
    wanted = list(getattr(task, "labels", None) or ("value",))
    if len(own) != len(wanted):
        raise UserError(f"{OPTION}: {teacher} has {len(own)} labels, and this task has {len(wanted)}.")
    if own == wanted or len(wanted) == 1:
        return
    first = next(number for number, (one, other) in enumerate(zip(own, wanted, strict=True)) if one != other)
    hint = "set task.labels to its order" if sorted(own) == sorted(wanted) else "it must know the same labels"
    raise UserError(f"{OPTION}: label {first} is {own[first]!r} in {teacher} and {wanted[first]!r} here; {hint}.")


def _check_processor(task: Task, teacher: str, source: ModelOptions, processor: Processor) -> None:
    """Hold what makes inputs of rows against the teacher's own: tokenizers, templates of chats, ways to see images."""
    from finetune.tasks.images import normalisation
    from finetune.tasks.two_tokenizers import decoder_tokenizer, encoder_tokenizer

    own = task.load_processor(source, lambda: iter(()))
    if task.columns().image is not None:
        theirs, ours = normalisation(own), normalisation(processor)
        if theirs != ours:
            raise UserError(f"{OPTION}: {teacher} sees pixels as (mean, std) {theirs}, and this model as {ours}.")
        return
    for half in (encoder_tokenizer, decoder_tokenizer):
        _check_tokens(teacher, half(own), half(processor))
    if hasattr(task, "template"):
        template = load_tokenizer(source).chat_template  # `own` has the one of this recipe
        if template is not None and template != processor.chat_template:
            raise UserError(f"{OPTION}: {teacher} was taught another chat template; set task.template to its own.")


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


def load_teacher(task: Task, options: Distillation, processor: Processor) -> PreTrainedModel:
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
    said = str(error)
    said = said if "task.distill" in said or "model." in said else f"{OPTION}: {said}"
    return said.replace("model.path", OPTION).replace("model.revision", "task.distill.revision")
