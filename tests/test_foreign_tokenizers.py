"""Tokenizers of somebody who means harm: what would blow a text up is refused, and those of every family are read."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from foreign import edit, refused

from finetune.errors import UserError
from finetune.loading import ModelOptions, load_tokenizer

# ---- S2: tokenizer.json

A = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
TEMPLATE = {"type": "TemplateProcessing", "pair": [], "special_tokens": {}}
PIECE = {"Sequence": {"id": "A", "type_id": 0}}


def several(kind: str, parts: list[Any]) -> dict[str, Any]:
    name = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}.get(
        kind, "processors"
    )
    return {kind: {"type": "Sequence", name: parts}}


def replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def charsmap(longest: int) -> dict[str, Any]:
    trie, texts = bytes(1024), b"a" * longest + b"\0b\0"
    held = base64.b64encode(struct.pack("<I", len(trie)) + trie + texts).decode()
    return {"type": "Precompiled", "precompiled_charsmap": held}


BLOWN: list[tuple[dict[str, Any], str]] = [
    (several("normalizer", [A] * 40), "longer"),
    (several("normalizer", [several("normalizer", [A] * 9)["normalizer"]] * 3), "longer"),
    ({"normalizer": {"normalizers": [{"pattern": {"String": "a"}, "content": "aa"}] * 20}}, "longer"),  # without a type
    ({"normalizer": replaced({"String": "a"}, "a" * 10_000)}, "longer"),
    ({"normalizer": replaced({"Regex": "."}, "a" * 10_000)}, "longer"),
    ({"normalizer": {"type": "Prepend", "prepend": "a" * 10_000}}, "Prepend"),
    (several("normalizer", [charsmap(99)] * 3), "longer"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "?"}}, "charsmap"),
    (several("normalizer", [{"type": "NFKD"}, replaced({"String": " "}, "\ufdfa")] * 3), "longer"),
    (several("normalizer", [{"type": "Lowercase"}] * 100), "parts"),
    (several("pre_tokenizer", [BYTES] * 30), "longer"),
    (several("decoder", [A] * 30), "longer"),
    (several("post_processor", [{**TEMPLATE, "single": [PIECE] * 40}] * 9), "parts"),
    ({"post_processor": {**TEMPLATE, "single": [{"SpecialToken": {"id": "x", "type_id": 0}}] * 9_999}}, "parts"),
    (
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?:a|b)" * 9_000}, "behavior": "Isolated"}},
        "characters",
    ),
    ({"padding": {"strategy": {"Fixed": 10**12}}}, "padding"),
    ({"model": {"type": "WordPiece", "vocab": {}, "max_input_chars_per_word": 10**9}}, "max_input_chars_per_word"),
    ({"added_tokens": [{"id": 10**9, "content": "x"}]}, "added_tokens"),
    ({"added_tokens": {}}, "added_tokens"),
    ({"normalizer": {"a": json.loads("[" * 60 + "]" * 60)}}, "deep"),
    ({"normalizer": []}, "normalizer"),
    ({"model": []}, "model"),
]


@pytest.mark.parametrize(("changes", "said"), BLOWN, ids=[str(n) for n in range(len(BLOWN))])
def test_a_tokenizer_that_blows_texts_up_is_refused(bert, contract, changes, said):
    edit(bert / "tokenizer.json", **changes)

    assert said in refused(lambda: load_tokenizer(ModelOptions(path=str(bert))))
    contract("S2", refused=1)


def test_a_tokenizer_of_too_many_bytes_is_refused(bert):
    with (bert / "tokenizer.json").open("r+b") as stream:
        stream.truncate(1 << 28)  # sparse

    assert "bytes" in refused(lambda: load_tokenizer(ModelOptions(path=str(bert))))


def test_a_tokenizer_for_another_version_of_transformers_is_looked_at_too(bert):
    (bert / "tokenizer.4.0.json").write_bytes((bert / "tokenizer.json").read_bytes())
    edit(bert / "tokenizer.4.0.json", **several("normalizer", [A] * 40))
    edit(bert / "tokenizer_config.json", fast_tokenizer_files=["tokenizer.4.0.json", "tokenizer.json"])

    assert "longer" in refused(lambda: load_tokenizer(ModelOptions(path=str(bert))))


def test_a_tokenizer_of_the_hub_is_looked_at_before_it_is_read(hub, bert):
    edit(bert / "tokenizer.json", **several("normalizer", [A] * 40))
    (bert / "tokenizer_config.json").unlink()
    hub.upload("jane/bert", bert)

    assert "longer" in refused(lambda: load_tokenizer(ModelOptions(path="jane/bert")))


SPACE = replaced({"String": " "}, "▁")
FAMILIES: dict[str, dict[str, Any]] = {  # as converted checkpoints have them
    "BERT": {"normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                            "strip_accents": None, "lowercase": True}},
    "GPT-2": {"pre_tokenizer": BYTES, "decoder": BYTES, "post_processor": BYTES},
    "CLIP": several("normalizer", [{"type": "NFC"}, replaced({"Regex": r"\s+"}, " "), {"type": "Lowercase"}]),
    "Llama": {
        **several("normalizer", [{"type": "Prepend", "prepend": "▁"}, SPACE]),
        **several("decoder", [replaced({"String": "▁"}, " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                              {"type": "Strip", "content": " ", "start": 1, "stop": 0}]),
    },
    "Gemma": {"normalizer": SPACE},
    "T5": {
        **several("normalizer", [charsmap(33), {"type": "Strip", "strip_left": False, "strip_right": True},
                                 replaced({"Regex": " {2,}"}, "▁")]),
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    },
    "Albert": several("normalizer", [replaced({"String": "``"}, '"'), replaced({"String": "''"}, '"'),
                                     {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, charsmap(33),
                                     replaced({"Regex": " {2,}"}, " ")]),
    "punctuation": several("normalizer", [replaced({"String": each}, " x") for each in "，。？！：；（）「」『』…～—"]),
    "Llama 3": several("pre_tokenizer", [
        {"type": "Split", "pattern": {"Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\s+(?!\S)|\s+"},
         "behavior": "Isolated", "invert": False}, BYTES]),
    "RoBERTa": {"post_processor": {"type": "TemplateProcessing", "single": [PIECE],
                                   "pair": [PIECE, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {}}},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_steps_of_known_families_pass(bert, contract, family):
    from finetune.foreign.tokenizer_files import check_tokenizer_file

    edit(bert / "tokenizer.json", **FAMILIES[family])

    check_tokenizer_file(bert / "tokenizer.json", "model.path")
    if "Precompiled" not in json.dumps(FAMILIES[family]):  # the map here is none that the library takes
        assert len(load_tokenizer(ModelOptions(path=str(bert)))) > 30
    contract("I3", tokenizers_that_pass=1)


# ---- S2: templates that are files


@pytest.mark.parametrize("config", [True, False])
def test_a_template_file_of_too_many_characters_is_refused(bert, contract, config):
    (bert / "chat_template.jinja").write_text("x" * (1 << 21))
    if not config:
        (bert / "tokenizer_config.json").unlink()

    assert "chat_template.jinja" in refused(lambda: load_tokenizer(ModelOptions(path=str(bert))))
    contract("S2", refused=1)


@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/tools.jinja"])
def test_a_template_file_of_the_hub_has_its_bound_too(hub, bert, name):
    (bert / name).parent.mkdir(exist_ok=True)
    (bert / name).write_text("x" * (1 << 21))
    hub.upload("jane/bert", bert)

    assert "template" in refused(lambda: load_tokenizer(ModelOptions(path="jane/bert")))


def test_a_template_file_is_read(bert):
    (bert / "chat_template.jinja").write_text("{{ messages[0].content }}")

    assert load_tokenizer(ModelOptions(path=str(bert))).chat_template == "{{ messages[0].content }}"


def test_the_configuration_of_a_tokenizer_has_no_more_than_its_size(bert: Path):
    (bert / "tokenizer_config.json").write_text('{"a": "' + "x" * (1 << 25) + '"}')

    with pytest.raises(UserError, match="bytes"):
        load_tokenizer(ModelOptions(path=str(bert)))
