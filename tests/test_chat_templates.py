"""Chat templates: the tokenizer's own or a named one, and by what a reply ends."""

from __future__ import annotations

import pytest
from test_chat import DIALOGUE, learned, rows
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from finetune.errors import UserError
from finetune.loading import ModelOptions
from finetune.tasks.chat import Chat
from finetune.tasks.templates import end_of_turn

OWN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def with_own_template(home, folder, template: str) -> ModelOptions:
    tokenizer = AutoTokenizer.from_pretrained(home / "gpt2-long")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    model = AutoModelForCausalLM.from_pretrained(home / "gpt2-long")
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelOptions(path=str(folder))


def test_the_tokenizers_own_template_is_used_and_its_end_of_turn_stops_the_model(home, tmp_path) -> None:
    task, source = Chat(block_size=90), with_own_template(home, tmp_path / "own", OWN)
    processor = task.load_processor(source, lambda: iter(()))
    model, _ = task.load_model(source, processor)

    each = task.encode(rows(DIALOGUE[:2]), processor, "error").inputs[0]

    end = processor.convert_tokens_to_ids("<|im_end|>")
    assert learned(processor, each) == "Four.<|im_end|>"
    assert end_of_turn(processor) == end
    assert model.generation_config.eos_token_id == [end, processor.eos_token_id]
    named = Chat(template="chatml", block_size=90).load_processor(source, lambda: iter(()))
    assert named.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False).startswith(
        "<|im_start|>user\na"
    )


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}", "never learn to stop"),
        (OWN.replace("m['content'] }}", "m['content'] if loop.last or m['role'] != 'assistant' else 'cut' }}"),
         r"c\.jsonl:1: .*writes turn 3 otherwise"),
        ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + OWN,
         r"c\.jsonl:1: the chat template does not take this conversation: no system here"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_learned_from_is_refused(home, tmp_path, template, line) -> None:
    task, source = Chat(block_size=90), with_own_template(home, tmp_path / "own", template)

    with pytest.raises(UserError, match=line):
        task.encode(rows([("system", "Be brief."), *DIALOGUE]), task.load_processor(source, lambda: iter(())), "error")


def test_the_run_keeps_its_template_and_where_it_stops(run) -> None:
    trained = run("chat", task={"template": "alpaca"})

    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert "### Response:" in tokenizer.chat_template
    assert GenerationConfig.from_pretrained(trained).eos_token_id == [tokenizer.eos_token_id]
    assert "→" in (trained / "samples" / "after.txt").read_text()
    assert "layout: prompt" in (trained / "recipe.yaml").read_text()
