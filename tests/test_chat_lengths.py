"""Conversations that are too long lose whole turns, the oldest first; what is answered last is never cut."""

from __future__ import annotations

import pytest
import tiny
from test_chat import DIALOGUE, learned, rows, whole

from finetune.errors import UserError
from finetune.loading import ModelOptions
from finetune.tasks.chat import Chat

SYSTEM = ("system", "Be brief.")
LONG = [("user", "x" * 80), ("assistant", "Too long.")]
LAST = "User: And one?\nAssistant: Five, of course.<|endoftext|>"


def plain(size: int, **options) -> Chat:
    return Chat(template="plain", block_size=size, **options)


def test_the_oldest_question_goes_with_its_reply_and_the_systems_message_stays(processor) -> None:
    task = plain(70)

    encoded = task.encode(rows([SYSTEM, *DIALOGUE]), processor, "truncate")

    assert whole(processor, encoded.inputs[0]) == f"<|endoftext|>System: Be brief.\n{LAST}"
    assert learned(processor, encoded.inputs[0]) == " Five, of course.<|endoftext|>"
    assert {name: encoded.facts[name] for name in ("cut", "dropped", "turns_left_out")} == {
        "cut": 1, "dropped": 0, "turns_left_out": 2,
    }  # fmt: skip
    assert encoded.facts["said"] == [
        "2 of the oldest turns left out for task.block_size 70; system messages, last questions and replies are whole"
    ]


@pytest.fixture(scope="module")
def processor(home):
    return plain(60).load_processor(ModelOptions(path=str(home / "gpt2-long")), lambda: iter(()))


@pytest.mark.parametrize("size", range(78, 160, 6))
def test_no_more_is_left_out_than_must_be_and_replies_are_whole(processor, size) -> None:
    turns = [turn for n in range(3) for turn in (("user", f"say {n}" * (n + 1)), ("assistant", f"well, {n}."))]
    task = plain(size)
    texts = []
    for start in range(0, 6, 2):
        alone = plain(500).encode(rows([SYSTEM, *turns[start:]]), processor, "error").inputs[0]
        texts.append((alone["length"], whole(processor, alone)))

    made = task.encode(rows([SYSTEM, *turns]), processor, "truncate").inputs[0]

    assert whole(processor, made) == next(text for length, text in texts if length <= size)
    assert learned(processor, made).endswith("well, 2.<|endoftext|>")


def test_a_last_question_and_reply_that_do_not_fit_are_left_out_and_counted(processor) -> None:
    table = rows([*DIALOGUE, *LONG], DIALOGUE[:2])
    for pack in (False, True):
        task = plain(60, pack=pack)
        encoded = task.encode(table, processor, "truncate")

        assert encoded.inputs["row_id"] == ["c.jsonl:2"]
        assert encoded.facts["dropped"] == 1
        assert encoded.facts["said"] == [
            "1 of 2 conversations left out: the last question and its reply alone are longer than task.block_size 60"
        ]
    with pytest.raises(UserError, match="all 1 conversations are longer than task"):
        task.encode(rows(LONG), processor, "truncate")


def test_a_prompt_keeps_its_last_question_whole_and_is_asked_as_it_would_be_alone(processor) -> None:
    task = plain(40)

    long, short = task.encode_held(rows(DIALOGUE[:3], DIALOGUE[2:3]), processor, "truncate").inputs

    assert long["input_ids"] == short["input_ids"]
    assert long["prompt_length"] == short["prompt_length"] == short["length"]
    assert long["question"] == "And one?"


def test_packed_conversations_count_the_turns_that_each_lost(processor) -> None:
    task = plain(120, pack=True)
    encoded = task.encode(rows([*LONG, *DIALOGUE], [*LONG, *DIALOGUE], DIALOGUE[:2]), processor, "truncate")

    assert encoded.facts["turns_left_out"] == 4
    assert encoded.facts["dropped"] == 0
    assert encoded.facts["documents"] == 3


def test_what_training_left_out_is_said_and_a_row_that_cannot_be_answered_is_refused(run, tmp_path, capsys) -> None:
    from finetune.reuse import predict

    good = [{"messages": [{"role": role, "content": text} for role, text in DIALOGUE]} for _ in range(4)]
    bad = [{"messages": [{"role": role, "content": text} for role, text in [*DIALOGUE, *LONG]]}]
    path = tiny.write_rows(tmp_path / "turns.jsonl", good + bad)
    trained = run(
        "chat", task={"block_size": 60, "max_new_tokens": 10},
        data={"train": str(path), "validation": None, "test": None, "columns": {}, "duplicates": "off"},
    )  # fmt: skip

    said = capsys.readouterr().out
    assert "train: 8 of the oldest turns left out for task.block_size 60" in said
    assert "train: 1 of 5 conversations left out" in said
    asked = tiny.write_rows(tmp_path / "asked.jsonl", [{"prompt": "Hi"}, {"prompt": "x" * 90}])
    with pytest.raises(UserError, match=r"asked\.jsonl:2: cannot be answered: it is too long to be cut"):
        predict(trained, asked)
