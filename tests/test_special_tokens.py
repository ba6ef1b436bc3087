"""A special token that somebody typed is text: in every task's inputs, in prompts, and in what a run is asked."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from datasets import Dataset
from transformers import AutoModelForMaskedLM, AutoTokenizer

from finetune.cli import main
from finetune.editing.contextual import substituted
from finetune.errors import UserError
from finetune.loading import ModelOptions
from finetune.preparation import prepare
from finetune.recipe import Recipe
from finetune.tasks.text_vae import TextVAETask
from finetune.tasks.two_tokenizers import encoder_tokenizer

CELLS = [(kind, "whole") for kind in tiny.TASKS if not kind.startswith("image") and kind != "chat"]


def with_typed(row: dict[str, Any], words: str) -> dict[str, Any]:
    """Return a row with the words typed into each of its texts; labels and answers stay."""
    made = dict(row)
    for name in {"text", "question", "context"} & set(row):
        made[name] = f"{row[name]} {words} the film"
    if "tokens" in row:
        made["tokens"] = [row["tokens"][0] + words, *row["tokens"][1:]]
    return made


def lookalike(token: str) -> str:
    """Return a text of the same letters as a special token, in another order."""
    letters = iter([each for each in token if each.isalpha()][::-1])
    return "".join(next(letters) if each.isalpha() else each for each in token)


@pytest.mark.parametrize(("kind", "adapter"), [*CELLS, ("masked-lm", "paired")])
def test_a_typed_token_is_text_in_every_tasks_inputs(sections, write_recipe, tmp_path, contract, kind, adapter):
    made = sections(kind, adapter, data={"cache_dir": str(tmp_path / "cache")})
    prepared = prepare(Recipe.read(write_recipe(made)), ("train",))
    task, rows = prepared.recipe.task, prepared.splits.rows["train"]
    reader = encoder_tokenizer(prepared.processor)

    def specials(words: str) -> int:
        """Return how many special tokens stand in the inputs of rows with these words."""
        given = rows.map(with_typed, fn_kwargs={"words": words}, load_from_cache_file=False)
        held = task.encode(given, prepared.processor, prepared.recipe.data.on_long).inputs["input_ids"][:]
        return sum(one in reader.all_special_ids for ids in held for one in ids)

    for token in reader.all_special_tokens:
        assert reader.convert_tokens_to_ids(token) in reader(f"x {token}", add_special_tokens=False)["input_ids"]
        assert specials(token) == specials(lookalike(token)), token
    contract("S2", tasks_with_typed_tokens=1, tokens_typed=len(reader.all_special_tokens))


def test_a_typed_token_is_text_for_the_encoder_of_a_text_autoencoder(home):
    task = TextVAETask(max_length=64)
    halves = {"encoder": str(home / "bert"), "decoder": str(home / "gpt2")}
    options = ModelOptions(config={"model_type": "finetune-text-vae", "preset": "pretrained", **halves})
    processor = task.load_processor(options, lambda: iter(()))
    tokens = processor.encoder.all_special_tokens
    rows = Dataset.from_dict({"text": [f"the {each} film" for each in tokens], "row_id": tokens})
    inputs = task.encode(rows, processor, "error").inputs

    batch = task.collator(processor)(list(inputs))

    plain = processor.encoder(f"the {lookalike('[MASK]')} film")["input_ids"]
    assert batch["encoder_input_ids"].tolist() == [plain] * len(tokens)


def test_a_text_with_a_typed_token_is_left_alone_where_a_model_writes_other_words(home):
    model = AutoModelForMaskedLM.from_pretrained(home / "bert").eval()
    processor = AutoTokenizer.from_pretrained(home / "bert")
    texts = [f"the film {each} was good" for each in (*processor.all_special_tokens, "[PES]")]

    made = substituted(texts, [str(number) for number in range(len(texts))], 0.5, model, processor)

    assert [one == other for one, other in zip(made, texts, strict=True)] == [True] * (len(texts) - 1) + [False]


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
