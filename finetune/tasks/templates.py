"""Chat templates: how a conversation becomes one text, and by which token a reply ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.errors import UserError
from finetune.tasks.rendering import TooMuch, refuse_powers, within_bounds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.tasks.conversations import Turn

# For tokenizers without a template of their own. Replies end with the end of text, which every tokenizer has.
TEMPLATES = {
    "plain": (
        "{{ bos_token or '' }}{% for turn in messages %}"
        "{% if turn['role'] == 'assistant' %}Assistant: {{ turn['content'] | trim }}{{ eos_token }}\n"
        "{% else %}{{ turn['role'] | capitalize }}: {{ turn['content'] | trim }}\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
    ),
    "alpaca": (
        "{{ bos_token or '' }}{% for turn in messages %}"
        "{% if turn['role'] == 'system' %}{{ turn['content'] | trim }}\n\n"
        "{% elif turn['role'] == 'user' %}### Instruction:\n{{ turn['content'] | trim }}\n\n"
        "{% else %}### Response:\n{{ turn['content'] | trim }}{{ eos_token }}\n\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
    ),
    "chatml": (
        "{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n{{ turn['content'] | trim }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
}
NEEDS = {"chatml": ("<|im_start|>", "<|im_end|>")}  # tokens that the tokenizer must have


def settle_template(processor: PreTrainedTokenizerBase, name: str | None) -> None:
    """Give the tokenizer the template of this name, or leave it its own; it is saved with the run.

    Raises:
        UserError: it has none and none is named, or lacks the tokens that the template is made of.
    """
    if name is None and processor.chat_template is None:
        raise UserError(
            "task.template is missing: this tokenizer has no chat template of its own. Set it to plain or alpaca."
        )
    if name is None:
        return
    if processor.eos_token is None:
        raise UserError("model.path: this tokenizer has no end-of-text token, so a model could never learn to stop.")
    missing = [token for token in NEEDS.get(name, ()) if token not in processor.get_vocab()]
    if missing:
        raise UserError(f"task.template: {name} is made of {missing[0]}, which is no token here; use plain or alpaca.")
    processor.chat_template = TEMPLATES[name]


def rendered(processor: PreTrainedTokenizerBase, turns: list[Turn], asks: bool, row_id: str) -> str:
    """Return a conversation as one text, with the opening of a reply after it where the model is asked for one.

    Raises:
        UserError: the template refuses it, as some do a system's turn, or it takes too much time or memory.
    """

    def render() -> str:
        held = processor.chat_template
        for template in held.values() if isinstance(held, dict) else [held]:
            refuse_powers(template)
        return str(processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=asks))

    try:
        return within_bounds(render)
    except TooMuch as error:
        raise UserError(f"{row_id}: the chat template was stopped: {error}. Set task.template.") from None
    except Exception as error:  # it is somebody's program, and fails in whatever way it likes
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{row_id}: the chat template does not take this conversation: {said}.") from error


def special_tokens(processor: PreTrainedTokenizerBase) -> list[str]:
    """Return the texts that the tokenizer takes for tokens of its own; a turn that holds one is refused."""
    added = [str(token) for token in processor.added_tokens_decoder.values() if token.special]
    return sorted({token for token in (*processor.all_special_tokens, *added) if token.strip()})


def refuse_special(turns: list[Turn], special: list[str], row_id: str) -> None:
    """Raise UserError for a turn that holds a special token: the template's own could not be told from it."""
    for turn in turns:
        for token in special:
            if token in turn["content"]:
                raise UserError(f"{row_id}: a turn holds {token}, which the tokenizer takes for its own; remove it.")


def end_of_turn(processor: PreTrainedTokenizerBase) -> int:
    """Return the token that ends a reply. Raises UserError for a template that ends none."""
    turns = [{"role": "user", "content": "a"}]
    asked = rendered(processor, turns, True, "task.template")
    whole = rendered(processor, [*turns, {"role": "assistant", "content": "b"}], False, "task.template")
    ids = processor(whole[len(asked) :], add_special_tokens=False)["input_ids"] if whole.startswith(asked) else []
    ends = [one for one in ids if one in {*processor.all_special_ids, *_added(processor)}]
    if not ends:
        raise UserError(
            "task.template: the tokenizer's chat template ends no reply with a token of its own, so a model could "
            "never learn to stop. Set it to plain."
        )
    return int(ends[0])


def _added(processor: PreTrainedTokenizerBase) -> list[int]:
    return [number for number, token in processor.added_tokens_decoder.items() if token.special]
