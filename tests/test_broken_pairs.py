"""Broken pairs of texts, lengths, generation options and models of seq2seq: one line, exit 2, nothing written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_broken_inputs import Files, files_of, place, refused, write

__all__ = ["place"]  # the fixture

GOOD = "".join(json.dumps({"en": f"text number {n}", "de": f"Text Nummer {n}"}) + "\n" for n in range(20))
TASK = {"kind": "seq2seq", "source": "en", "target": "de", "max_source_length": 40, "max_target_length": 30}
SCRATCH = {"model_type": "bart", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 1,
           "decoder_attention_heads": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}  # fmt: skip
JOINED = {"model_type": "encoder-decoder", "encoder": "bert", "decoder": "gpt2"}


def row(**given: Any) -> str:
    return json.dumps(given) + "\n"


def task(**given: Any) -> dict[str, Any]:
    return {"task": {**TASK, **given}}


def scratch(config: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {**task(**given), "model": {"path": None, "config": config}}


CASES: list[tuple[str, Files, dict[str, Any], str]] = [
    ("no-target-column", {}, task(target="fr"), r"no column \"fr\".*its columns"),
    ("source-is-target", {}, task(target="en"), "task.target: en is the source too"),
    ("empty-target", {"train.jsonl": GOOD + row(en="a", de=" ")}, {}, r'train\.jsonl:21: column "de" is empty'),
    ("null-target", {"train.jsonl": GOOD + row(en="a", de=None)}, {}, r'train\.jsonl:21: column "de" is null'),
    ("target-is-a-number", {"train.jsonl": GOOD + row(en="a", de=5)}, {}, r'train\.jsonl:21: column "de" is a number'),
    ("leaking-source", {"test.jsonl": GOOD.replace("Nummer", "Zahl")}, {}, r"test\.jsonl:1: the text is that of"),
    ("long-source", {}, {**task(max_source_length=5), "data": {"on_long": "error"}},
     r"train\.jsonl:1: its source has 14 tokens, and task\.max_source_length is 5"),
    ("long-target", {}, {**task(max_target_length=5), "data": {"on_long": "error"}},
     r"train\.jsonl:1: its target has 14 tokens, and task\.max_target_length is 5"),
    ("all-dropped", {}, {**task(max_target_length=5), "data": {"on_long": "drop"}}, "all 20 rows are longer"),
    ("windows", {}, {"data": {"on_long": "window"}}, "a pair of texts has no windows"),
    ("source-longer-than-the-model", {}, task(max_source_length=97), "task.max_source_length: 97 is more than"),
    ("target-longer-than-the-model", {}, task(max_target_length=97), "task.max_target_length: 97 is more than"),
    ("more-than-the-model-writes", {}, task(generation={"max_new_tokens": 97}), "max_new_tokens: 97 is more"),
    ("unknown-generation-option", {}, task(generation={"num_beam": 4}),
     r"task\.generation\.num_beam is not an option of GenerationConfig\. Did you mean num_beams"),
    ("beams-of-text", {}, task(generation={"num_beams": "four"}), "num_beams: 'four' is not a whole number"),
    ("drawn-scores", {}, task(generation={"do_sample": True}), "do_sample: drawn texts would make scores chance"),
    ("temperature-without-draws", {}, task(generation={"temperature": 0.5}), "task.generation: .*temperature"),
    ("unknown-words", {}, task(words="mecab"), "task.words"),
    ("smoothing", {}, task(label_smoothing=1.5), "task.label_smoothing: 1.5 is not between 0 and 0.9"),
    ("no-room", {}, task(max_target_length=1), "task.max_target_length: 1 is not between 2"),
    ("a-decoder-alone", {}, {"model": {"path": "gpt2"}}, "model.path: gpt2 does not write a text for a text"),
    ("an-encoder-from-scratch", {}, scratch({"model_type": "bert"}), "model.config.model_type: bert does not write"),
    ("small-vocabulary", {}, scratch(SCRATCH, vocab_size=200), "task.vocab_size: 200 is too small"),
    ("unknown-size", {}, scratch({**SCRATCH, "d_modell": 3}), "Did you mean d_model"),
    ("half-a-pair", {}, scratch({"model_type": "encoder-decoder", "encoder": "bert"}),
     "model.config.decoder is missing"),
    ("third-of-a-pair", {}, scratch({**JOINED, "decoders": "gpt2"}), "model.config.decoders is not an option"),
    ("no-such-half", {}, scratch({**JOINED, "decoder": "./gpt3"}), r"gpt3.*Did you mean"),
    ("half-is-too-short", {}, scratch(JOINED, max_source_length=65), "max_source_length: 65 is more than the 64"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "files", "changes", "line"), CASES, ids=[case[0] for case in CASES])
def test_a_broken_pair_is_one_line_exit_2_and_nothing_written(
    home, place, capsys, contract, name, files, changes, line
) -> None:
    (place / "bart").symlink_to(home / "bart")
    write(place, {"train.jsonl": GOOD, **files}, {"task": TASK, "model": {"path": "bart"}, **changes})
    before = files_of(place)

    refused(capsys, contract, line)
    assert files_of(place) == before
