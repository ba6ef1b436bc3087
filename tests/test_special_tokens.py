"""A special token that somebody typed is text: in every task's inputs, in prompts, and in what a run is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from transformers import AutoTokenizer

from finetune.cli import main
from finetune.errors import UserError
from finetune.preparation import prepare
from finetune.recipe import Recipe

TEXTS = [kind for kind in tiny.TASKS if not kind.startswith("image") and kind != "chat"]


def typed(row: dict[str, Any], token: str) -> dict[str, Any]:
    """Return a row with the token typed into each of its texts; labels and answers stay."""
    made = dict(row)
    for name in {"text", "question", "context"} & set(row):
        made[name] = f"{row[name]} {token} the film"
    if "tokens" in row:
        made["tokens"] = [row["tokens"][0] + token, *row["tokens"][1:]]
    return made


@pytest.mark.parametrize("kind", TEXTS)
def test_a_typed_token_is_text_in_every_tasks_inputs(sections, write_recipe, tmp_path, contract, kind):
    made = sections(kind)
    train = Path(made["data"]["train"])
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    made["data"]["cache_dir"] = str(tmp_path / "cache")
    made["data"]["duplicates"] = "off"

    def specials(token: str | None) -> tuple[int, int, Any]:
        """Return how many special tokens stand in the inputs of the training rows, their number, the tokenizer."""
        given = rows if token is None else [typed(row, token) for row in rows]
        made["data"]["train"] = str(tiny.write_rows(tmp_path / "train.jsonl", given))
        prepared = prepare(Recipe.read(write_recipe(made)), ("train",))
        reader = getattr(prepared.processor, "encoder", prepared.processor)
        known = {reader.sep_token_id, reader.eos_token_id, reader.cls_token_id, reader.bos_token_id} - {None}
        held = prepared.encoded["train"].inputs["input_ids"][:]
        return sum(one in known for ids in held for one in ids), len(held), reader

    plain, inputs, reader = specials(None)
    token = reader.sep_token or reader.eos_token
    with_token, inputs_with, _ = specials(token)

    assert reader(f"x {token}")["input_ids"].count(reader.convert_tokens_to_ids(token)) >= 1
    if kind in ("question-answering", "token-classification"):  # longer texts fall into more windows
        assert with_token / inputs_with == plain / inputs
    else:
        assert with_token == plain
    contract("S2", tasks_with_typed_tokens=1)


def test_a_turn_with_a_special_token_is_refused_where_it_is_learned_and_where_it_is_asked(run):
    from finetune.writing import generate

    made = run("chat")
    with pytest.raises(UserError, match=r"endoftext.* takes for its own"):
        generate(made, prompt="hello <|endoftext|> there")


def test_a_typed_token_is_text_where_a_run_is_asked(run, monkeypatch):
    from finetune.writing import generate

    made = run("causal-lm")
    given: list[list[int]] = []
    tokenizer = AutoTokenizer.from_pretrained(made)
    kept = type(tokenizer).__call__

    def watched(self: Any, *texts: Any, **options: Any) -> Any:
        found = kept(self, *texts, **options)
        given.extend(found["input_ids"] if isinstance(found["input_ids"][0], list) else [found["input_ids"]])
        return found

    monkeypatch.setattr(type(tokenizer), "__call__", watched)
    generate(made, prompt="my <|endoftext|> film")

    asked = [ids for ids in given if len(ids) > 10]
    assert asked
    assert not any(tokenizer.eos_token_id in ids for ids in asked)


def test_predict_reads_a_typed_token_as_text(run, tmp_path):
    made = run("text-classification")
    rows = [{"text": "the film [SEP] a story", "label": "positive"}]
    tiny.write_rows(tmp_path / "new.jsonl", rows)

    assert main(["predict", str(made), str(tmp_path / "new.jsonl"), "--output", str(tmp_path / "out.jsonl")]) == 0

    assert (tmp_path / "out.jsonl").exists()
