"""Letting a run write for a prompt or for the rows of a file, and refusals of one line."""

from __future__ import annotations

import json

import pytest
import tiny

from finetune.cli import main
from finetune.writing import generate


@pytest.fixture(scope="module")
def runs(home, tmp_path_factory):
    """A run of a language model, one of texts for texts, and one that writes nothing."""
    import yaml

    from finetune.recipe import Recipe
    from finetune.run import train

    made = {}
    for kind in ("causal-lm", "seq2seq", "text-classification"):
        folder = tmp_path_factory.mktemp(kind)
        recipe = folder / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(tiny.sections(home, folder / "run", kind, "lora")))
        made[kind] = train(Recipe.read(recipe))
    return made


@pytest.mark.parametrize("kind", ["causal-lm", "seq2seq"])
def test_a_prompt_alone_is_written_as_among_others_and_anew_from_the_same_seed(runs, home, capsys, kind, tmp_path):
    file, output = tmp_path / "rows.jsonl", tmp_path / "made.jsonl"
    tiny.write_rows(file, [{"text": row["text"][:30]} for row in tiny.sentences(12, seed=7)])
    together = generate(runs[kind], file=file, max_new_tokens=4)
    texts = [json.loads(line)["text"] for line in file.read_text().splitlines()]
    assert [row["prompt"] for row in together] == texts
    assert together[3]["row_id"].endswith("rows.jsonl:4")
    for row in together[:5]:
        assert main(["generate", str(runs[kind]), "--prompt", row["prompt"], "--max_new_tokens", "4"]) == 0
        assert capsys.readouterr().out.rstrip("\n") == row["generated"].rstrip("\n")
    drawn = ["generate", str(runs[kind]), "--prompt", "the film", "--top_k", "20", "--count", "3", "--seed", "5"]
    assert main([*drawn, "--output", str(output)]) == 0
    first = output.read_text()
    assert len({json.loads(line)["generated"] for line in first.splitlines()}) > 1
    assert main([*drawn, "--output", str(output)]) == 0
    assert output.read_text() == first


def test_what_a_run_predicts_is_what_it_writes(runs, home):
    from finetune.reuse import predict

    predicted = predict(runs["seq2seq"], home / "test.jsonl")["generated"]
    assert list(predicted) == [row["generated"] for row in generate(runs["seq2seq"], file=home / "test.jsonl")]


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        ("text-classification", ["--prompt", "a"], "text-classification, which writes nothing for a prompt"),
        ("causal-lm", [], "give one of the two"),
        ("causal-lm", ["--prompt", "a", "--file", "x.jsonl"], "give one of the two"),
        ("causal-lm", ["--file", "x.jsonl"], r"x\.jsonl"),
        ("causal-lm", ["--prompt", "a " * 40], "--prompt: 81 tokens and max_new_tokens 5 are more than the 64"),
        ("causal-lm", ["--prompt", "a", "--max_new_tokens", "64"], "max_new_tokens 64 are more than the 64"),
        ("causal-lm", ["--prompt", "a", "--num_beams", "0"], "--num_beams: 0 is not a whole number from 1 on"),
        ("causal-lm", ["--prompt", "a", "--num_beams", "two"], "must be a whole number"),
        ("causal-lm", ["--prompt", "a", "--temperature", "-1"], "temperature"),
        ("causal-lm", ["--prompt", "a", "--count", "2"], "needs --do_sample"),
        ("causal-lm", ["--prompt", "a", "--num_beam", "2"], "Did you mean num_beams"),
        ("causal-lm", ["--prompt", "a", "--output", "made.txt"], r"should end in \.jsonl"),
        ("seq2seq", ["--prompt", "a " * 60], "--prompt: its source has 121 tokens, and task.max_source_length is 80"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(runs, capsys, kind, words, said):
    import re

    assert main(["generate", str(runs[kind]), *words]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("finetune: ")]
    assert len(error) == 1
    assert re.search(said, error[0]), error[0]


def test_what_needs_a_prompt_says_so_when_it_is_asked_for_samples(runs, capsys):
    assert main(["sample", str(runs["seq2seq"])]) == 2
    assert "seq2seq generates nothing without a prompt; see finetune generate." in capsys.readouterr().err
