"""Instruction tuning: what is learned of a conversation, that it is learned to stop, and what comes out."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.errors import UserError
from finetune.evaluation.replies import distinct, repetition, reply_scores
from finetune.loading import ModelOptions
from finetune.tasks.chat import Chat
from finetune.tasks.chat_preview import marked
from finetune.tasks.chat_writing import answered, replies
from finetune.tasks.conversations import conversation

DIALOGUE = [("user", "Two and two?"), ("assistant", "Four."), ("user", "And one?"), ("assistant", "Five, of course.")]


def text_of(turns: list[tuple[str, str]]) -> str:
    return conversation({"messages": [{"role": role, "content": content} for role, content in turns]})


def rows(*conversations: list[tuple[str, str]]) -> Dataset:
    names = [f"c.jsonl:{number + 1}" for number in range(len(conversations))]
    return Dataset.from_dict({"conversation": [text_of(each) for each in conversations], "row_id": names})


@pytest.fixture
def loaded(home):
    """Return a function from a task to (its tokenizer, its model)."""

    def load(task: Chat) -> tuple[Any, Any]:
        source = ModelOptions(path=str(home / "gpt2-long"))
        processor = task.load_processor(source, lambda: iter(()))
        return processor, task.load_model(source, processor)[0].eval()

    return load


def learned(processor: Any, each: dict[str, Any]) -> str:
    return processor.decode([label for label in each["labels"] if label != -100])


def whole(processor: Any, each: dict[str, Any]) -> str:
    """The text of an input and the token after it."""
    return processor.decode([*each["input_ids"], *([each["labels"][-1]] if each["labels"][-1] != -100 else [])])


@pytest.mark.parametrize(
    ("train_on", "said"),
    [
        ("assistant", " Four.<|endoftext|> Five, of course.<|endoftext|>"),
        ("last", " Five, of course.<|endoftext|>"),
        (
            "all",
            "User: Two and two?\nAssistant: Four.<|endoftext|>\nUser: And one?\nAssistant: Five, of course."
            "<|endoftext|>\n",
        ),
    ],
)
def test_replies_and_their_end_are_learned_and_nothing_else(loaded, train_on, said) -> None:
    task = Chat(template="plain", block_size=90, train_on=train_on)
    processor, _ = loaded(task)

    encoded = task.encode(rows(DIALOGUE), processor, "error")
    each = encoded.inputs[0]

    assert learned(processor, each) == said
    assert [label for label, following in zip(each["labels"], each["input_ids"][1:], strict=False)
            if label not in (-100, following)] == []  # fmt: skip
    assert encoded.facts["learned"] == sum(label != -100 for label in each["labels"])


@pytest.mark.parametrize("name", ["plain", "alpaca"])
def test_a_prompt_has_in_training_the_tokens_that_it_has_in_use(home, name) -> None:
    task, chooser = Chat(template=name, block_size=300), random.Random(0)
    processor = task.load_processor(ModelOptions(path=str(home / "gpt2-long")), lambda: iter(()))
    letters = "abc .,!?\n'\"é漢🙂 "
    for _ in range(40):
        turns = [(("user", "assistant")[n % 2], "x" + "".join(chooser.choices(letters, k=4)) + "y") for n in range(4)]
        turns = [("system", "Be brief."), *turns] if chooser.random() < 0.5 else turns
        each = task.encode_held(rows(turns), processor, "error").inputs[0]
        asked = [{"role": role, "content": content} for role, content in turns]
        prompt = processor.apply_chat_template(asked[:-1], add_generation_prompt=True)["input_ids"]
        everything = processor.apply_chat_template(asked)["input_ids"]

        assert each["input_ids"] == everything[:-1]
        assert each["prompt_length"] == len(prompt)
        assert everything[: len(prompt)] == prompt


def test_the_loss_is_the_models_own_on_the_learned_tokens(loaded) -> None:
    task = Chat(template="plain", block_size=90)
    processor, model = loaded(task)
    inputs = task.encode_held(rows(DIALOGUE, DIALOGUE[:2]), processor, "error").inputs
    batch = task.collator(processor)([inputs[0], inputs[1]])

    with torch.no_grad():
        total, _ = task.loss(model, batch)
        own = [model(input_ids=torch.tensor([each["input_ids"]])).logits[0] for each in inputs]

    expected = 0.0
    for each, logits in zip(inputs, own, strict=True):
        expected += torch.nn.functional.cross_entropy(logits, torch.tensor(each["labels"]), reduction="sum").item()
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert int(task.weight(batch)) == sum(label != -100 for each in inputs for label in each["labels"])


def test_packed_conversations_are_read_as_separate_ones_and_none_is_cut(loaded) -> None:
    apart, packed = (Chat(template="plain", block_size=96, pack=pack) for pack in (False, True))
    processor, model = loaded(packed)
    packed.probe(model, processor)
    table = rows(DIALOGUE[:2], DIALOGUE[2:], DIALOGUE, DIALOGUE[:2])

    blocks, single = (task.encode(table, processor, "error").inputs for task in (packed, apart))

    assert [each["length"] for each in blocks] == [
        single[0]["length"] + single[1]["length"], single[2]["length"], single[3]["length"],
    ]  # fmt: skip
    assert blocks[0]["row_id"] == "c.jsonl:1 … c.jsonl:2 (2 conversations)"
    with torch.no_grad():
        sums = [
            task.loss(model, task.collator(processor)([inputs[n] for n in range(len(inputs))]))[0]
            for task, inputs in ((packed, blocks), (apart, single))
        ]
    assert float(sums[0]) == pytest.approx(float(sums[1]), rel=1e-5)


def test_a_prompt_padded_on_the_left_is_answered_as_it_is_alone(loaded) -> None:
    task = Chat(template="plain", max_new_tokens=20, block_size=100)
    processor, model = loaded(task)
    prompts = [
        torch.tensor(processor(text)["input_ids"]) for text in ("User: a\nAssistant:", "User: longer\nAssistant:")
    ]

    together, stopped = replies(model, processor, prompts, task._writing)
    alone = [replies(model, processor, [prompt], task._writing) for prompt in prompts]

    assert together == [texts[0] for texts, _ in alone]
    assert stopped.tolist() == [bool(each[0]) for _, each in alone]


def test_it_learns_what_to_answer_and_to_stop(run, tmp_path) -> None:
    pairs = [{"prompt": f"say {word}", "completion": f"{word}!"} for word in ("good", "cold", "warm", "dull")]
    path = tiny.write_rows(tmp_path / "pairs.jsonl", pairs * 4)
    trained = run(
        "chat",
        task={"max_new_tokens": 30, "block_size": 60},
        data={"train": str(path), "validation": None, "test": str(path), "columns": {}},
        train={"optim": "adamw_torch", "learning_rate": 1e-2, "num_train_epochs": 120},
        evaluate={"baselines": True},
    )

    scores = json.loads((trained / "scores.json").read_text())
    assert scores["test"]["stopped"]["value"] == 1.0
    assert scores["test"]["exact_match"]["value"] == 1.0
    assert scores["test"]["rougeL"]["value"] == 100.0
    assert scores["test"]["repetition"]["value"] == 0.0
    assert scores["baselines"]["untuned"]["nll"]["value"] > 4 > scores["baselines"]["unigram"]["nll"]["value"]
    assert scores["baselines"]["untuned"]["nll_gap"]["value"] == pytest.approx(
        scores["test"]["nll"]["value"] - scores["baselines"]["untuned"]["nll"]["value"]
    )

    tokenizer, model = (kind.from_pretrained(trained) for kind in (AutoTokenizer, AutoModelForCausalLM))
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "say warm"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    told = model.generate(**asked, max_new_tokens=30)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(told, skip_special_tokens=True) == " warm!"
    assert told[-1] == tokenizer.eos_token_id

    from finetune.writing import generate

    assert generate(trained, prompt="say cold")[0]["generated"] == "cold!"
    more = tiny.write_rows(
        tmp_path / "more.jsonl", [{"prompt": "say dull"}, {"messages": [{"role": "user", "content": "say good"}]}]
    )
    assert [row["generated"] for row in generate(trained, file=more)] == ["dull!", "good!"]

    from finetune.reuse import predict

    table = predict(trained, more)
    assert table["generated"] == ["dull!", "good!"]
    assert table["source"] == ["say dull", "say good"]
    assert "target" not in table.column_names


@pytest.mark.parametrize("family", ["gpt2", "finetune-rnn-lm"])
def test_it_is_trained_from_scratch_too_packed(run, family) -> None:
    sizes = {"gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 160}}.get(family, {"hidden_size": 16})
    trained = run(
        "chat", task={"vocab_size": 300, "pack": True}, model={"path": None, "config": {"model_type": family, **sizes}},
        evaluate={"baselines": True},
    )  # fmt: skip

    scores = json.loads((trained / "scores.json").read_text())
    assert set(scores["baselines"]) == {"unigram"}  # there were no weights before
    assert scores["test"]["stopped"]["n"] == 22


def test_what_is_learned_is_marked_in_brackets_or_in_colour(loaded, monkeypatch) -> None:
    task = Chat(template="plain", block_size=90)
    processor, _ = loaded(task)
    each = task.encode(rows(DIALOGUE), processor, "error").inputs[0]

    plain = marked(each, processor)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    coloured = marked(each, processor)

    assert plain == (
        "<|endoftext|>User: Two and two?\nAssistant:⟦ Four.<|endoftext|>⟧\nUser: And one?\nAssistant:"
        "⟦ Five, of course.<|endoftext|>⟧"
    )
    assert "\x1b[1;32m Four.<|endoftext|>\x1b[0m" in coloured
    assert task.shown_target(each, processor).startswith(f"{len(' Four.') + len(' Five, of course.') + 2} of ")


def test_a_conversation_that_ends_with_a_reply_is_answered_without_it(loaded) -> None:
    task = Chat(template="plain", max_new_tokens=10, block_size=100)
    processor, model = loaded(task)
    asked = [{"role": "user", "content": "Hi"}]

    told = answered(
        model, processor, [asked, [*asked, {"role": "assistant", "content": "Ho"}]], ["a", "b"], task._writing, 2
    )

    assert told[0] == told[1]
    with pytest.raises(UserError, match=r"^a: 3\d+ tokens and max_new_tokens 10 are more than the 160"):
        answered(model, processor, [[{"role": "user", "content": "x" * 300}]], ["a"], task._writing, 2)


def test_replies_are_scored_by_themselves() -> None:
    assert repetition(["a", "b", "c", "d", "a", "b", "c", "d"]) == pytest.approx(1 / 5)
    assert repetition(["a", "b", "c"]) == 0.0
    assert distinct([["a", "b", "a"], ["b"]], 1) == 0.5
    assert distinct([["a", "b", "a"], ["b"]], 2) == 1.0
    found = reply_scores(["Yes ", "no no"], ["yes", "No"], np.array([True, False]), "13a", resamples=100)
    assert found["exact_match"].value == 0.5
    assert found["stopped"].value == 0.5
    assert found["distinct_1"].value == pytest.approx(2 / 3)
    assert found["distinct_2"].value == 1.0
    assert found["stopped"].low is not None
