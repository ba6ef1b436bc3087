"""What the methods of PEFT can and cannot do here; a test holds every line against PEFT itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.errors import UserError
from finetune.foreign.adapters import METHODS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Put learned tokens before the embedded text: the logits grow longer by as many.
EMBEDDED_PROMPTS = frozenset({"PROMPT_TUNING", "P_TUNING"})

# Learn what every layer attends to besides the text; the logits keep their length.
PREFIXES = frozenset({"PREFIX_TUNING", "CARTRIDGE"})

# Find their own places, which are no linear layers: `auto` leaves the choice to PEFT.
OWN_TARGETS = frozenset({"ADAPTION_PROMPT", "SHADOW", "TRAINABLE_TOKENS"})

NORMS = frozenset({"LN_TUNING"})  # change normalisation layers

# Change GPT-2's Conv1D layers; every other method refuses them (OSF passes them over in silence).
WITH_CONV1D = frozenset({
    "ADALORA", "DEFT", "FOURIERFT", "FROD", "GRALORA", "HIRA", "IA3", "LORA", "PVERA", "RANDLORA", "TINYLORA",
    "UNILORA", "VBLORA", "VERA", "WAVEFT",
})  # fmt: skip

# Train and save no other module than their own: a new head would stay random.
WITHOUT_HEAD = frozenset({"ADAPTION_PROMPT", "TRAINABLE_TOKENS"})

NEED_MORE = {
    "CPT": "the kind of every token with every row",
    "MULTITASK_PROMPT_TUNING": "the number of a task with every row",
    "POLY": "the number of a task with every row",
    "XLORA": "several trained adapters to mix",
}


def check_method(kind: str, model: PreTrainedModel, heads: list[str]) -> None:
    """Refuse, in one line, a method that this model or these new modules (`heads`) would make silently wrong."""
    if not model.name_or_path:
        raise UserError(
            f"adapter: {kind} adapts saved weights; a model from scratch (model.config) is trained as a whole."
        )
    if kind in NEED_MORE:
        raise UserError(f"adapter.peft_type: {kind} needs {NEED_MORE[kind]}, which a recipe cannot give; try LORA.")
    if kind not in METHODS:
        raise UserError(f"adapter.peft_type: {kind} of this PEFT is newer than this program; try LORA.")
    if heads and kind in WITHOUT_HEAD:
        raise UserError(
            f"adapter.peft_type: {kind} trains no new module, and {', '.join(heads)} would stay random; "
            "LORA trains them (and tokens too, with trainable_token_indices)."
        )
    if kind in EMBEDDED_PROMPTS and _is_of(model, "TOKEN_CLASSIFICATION"):
        raise UserError(
            f"adapter.peft_type: with {kind}, {type(model).__name__} would answer for learned tokens too, and what it "
            f"says would be of other tokens than a row's; use {' or '.join(sorted(PREFIXES))}, or LORA."
        )
    if kind in EMBEDDED_PROMPTS | PREFIXES and _is_of(model, "QUESTION_ANSWERING"):
        raise UserError(
            f"adapter.peft_type: with {kind}, PEFT tells {type(model).__name__} not which tokens are the question's; "
            "use LORA."
        )
    if kind in EMBEDDED_PROMPTS and _pools_last_token(model):
        raise UserError(
            f"adapter.peft_type: with {kind}, {type(model).__name__} would classify by its padding (transformers finds "
            f"no last token behind embedded prompts); use {' or '.join(sorted(PREFIXES))}, or LORA."
        )


def check_layers(kind: str, model: PreTrainedModel, transposed: bool) -> None:
    """Refuse a method that cannot change the Conv1D layers that it is pointed at."""
    if transposed and kind not in WITH_CONV1D | NORMS | OWN_TARGETS:
        raise UserError(
            f"adapter.peft_type: {kind} cannot change the Conv1D layers of {type(model).__name__}; "
            "LORA, ADALORA, IA3, VERA and LN_TUNING can."
        )


def _is_of(model: PreTrainedModel, head: str) -> bool:
    """Say whether the model has a head of a kind that transformers knows: "TOKEN_CLASSIFICATION" and so on."""
    from transformers.models.auto import modeling_auto

    known: dict[str, str] = getattr(modeling_auto, f"MODEL_FOR_{head}_MAPPING_NAMES")
    return type(model).__name__ in known.values()


def _pools_last_token(model: PreTrainedModel) -> bool:
    """Say whether the model is a decoder that classifies by the last token that is no padding."""
    from transformers.models.auto import modeling_auto

    family = model.config.model_type
    decoder = family in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return (
        type(model).__name__ in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values()
        and decoder
        and family not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )
