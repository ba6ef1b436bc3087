"""Tokenizers trained on the data, and one padding token for tokenizer and model."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from finetune.errors import UserError
from finetune.loading import ModelOptions, load_config, load_pretrained, load_tokenizer, set_padding, train_tokenizer

TEXTS = ["the cat sat on the mat", "the dog sat on the log"] * 20


def random_text(chooser: random.Random) -> str:
    """Any characters that UTF-8 can hold, from all planes; half of them ASCII with blanks and controls."""
    codes = (chooser.randrange(128 if chooser.random() < 0.5 else sys.maxunicode) for _ in range(chooser.randrange(60)))
    return "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


@pytest.mark.parametrize("vocab_size", [257, 300])
def test_every_text_comes_back_and_nothing_is_unknown(vocab_size: int):
    tokenizer, chooser = train_tokenizer(TEXTS, vocab_size), random.Random(0)
    assert tokenizer.unk_token is None
    for text in (random_text(chooser) for _ in range(500)):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert len(ids) <= len(text.encode())


def test_257_tokens_are_the_bytes_and_the_end():
    tokenizer = train_tokenizer(TEXTS, 257)
    assert len(tokenizer) == 257
    assert tokenizer.eos_token_id == 0
    text = "naïve Ünïcödé 🙂"
    assert len(tokenizer(text)["input_ids"]) == len(text.encode())


def test_merges_are_learned_alike_each_time_and_shorten_the_text():
    one, other, plain = (train_tokenizer(iter(TEXTS), size) for size in (290, 290, 257))
    assert one.get_vocab() == other.get_vocab()
    assert len(one(TEXTS[0])["input_ids"]) < len(plain(TEXTS[0])["input_ids"])


def test_fewer_tokens_than_bytes_are_refused():
    with pytest.raises(UserError, match="256 bytes"):
        train_tokenizer(TEXTS, 256)


def test_a_trained_tokenizer_is_saved_as_it_is(tmp_path: Path):
    tokenizer, chooser = train_tokenizer(TEXTS, 300), random.Random(1)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in (random_text(chooser) for _ in range(100)):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert again.decode(again(text)["input_ids"]) == text


@pytest.mark.parametrize("family", ["bert", "gpt2", "opt", "llama"])
def test_tokenizer_model_and_generation_agree_on_the_padding_id(home: Path, tmp_path: Path, family: str):
    options = ModelOptions(path=str(home / family))
    model, _ = load_pretrained(options, AutoModelForCausalLM, load_config(options))
    tokenizer, rows = load_tokenizer(options), model.get_input_embeddings().weight.shape
    own = tokenizer.pad_token_id
    set_padding(model, tokenizer)
    pad = tokenizer.pad_token_id
    assert pad == model.config.pad_token_id == model.generation_config.pad_token_id
    assert pad == (own if own is not None else tokenizer.eos_token_id)
    assert model.get_input_embeddings().weight.shape == rows
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert (
        AutoConfig.from_pretrained(tmp_path).pad_token_id == AutoTokenizer.from_pretrained(tmp_path).pad_token_id == pad
    )


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_a_decoder_classifies_a_padded_batch_as_each_text_alone(home: Path, family: str):
    options = ModelOptions(path=str(home / family))
    config = load_config(options, num_labels=3)
    model, _ = load_pretrained(options, AutoModelForSequenceClassification, config)
    tokenizer = load_tokenizer(options)
    set_padding(model, tokenizer)
    texts = ["short", "a text of some more words", "between"]
    together = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    assert torch.allclose(together, alone, atol=1e-6)


def test_a_reloaded_llama_still_learns_where_texts_end(home: Path, tmp_path: Path):
    options = ModelOptions(path=str(home / "llama"))
    for _ in range(2):  # the second time, config.json names the end as padding
        model, _ = load_pretrained(options, AutoModelForCausalLM, load_config(options))
        tokenizer = load_tokenizer(options)
        set_padding(model, tokenizer)
        ids = torch.tensor([[5, tokenizer.eos_token_id, 6, 7]])
        model(input_ids=ids, labels=ids).loss.backward()
        assert model.get_input_embeddings().weight.grad[tokenizer.eos_token_id].abs().sum() > 0
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        options = ModelOptions(path=str(tmp_path))


def test_a_tokenizer_too_big_for_the_embedding_is_refused_with_both_sizes(home: Path):
    options = ModelOptions(path=str(home / "bert"))
    model, _ = load_pretrained(options, AutoModel, load_config(options))
    with pytest.raises(UserError, match=rf"257 tokens.* {model.config.vocab_size}"):
        set_padding(model, train_tokenizer(TEXTS, 257))


def test_another_padding_id_than_the_positions_start_from_is_refused():
    sizes = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = AutoModel.from_config(AutoConfig.for_model("roberta", **sizes))
    with pytest.raises(UserError, match=r"pads with id 0.* 1"):
        set_padding(model, train_tokenizer(TEXTS, 257))


def test_the_tokenizer_may_come_from_elsewhere(home: Path):
    other = load_tokenizer(ModelOptions(path=str(home / "bert"), tokenizer=str(home / "gpt2")))
    assert len(other) == 257
    with pytest.raises(UserError, match=r"model\.tokenizer"):
        load_tokenizer(ModelOptions(config={"model_type": "gpt2"}))
    with pytest.raises(UserError, match=r"model\.tokenizer"):
        load_tokenizer(ModelOptions(path=str(home / "bert"), tokenizer=str(home / "gpt3")))
