"""Documents packed into one block do not see each other."""

from __future__ import annotations

import json

import pytest
import torch

from finetune.errors import UserError
from finetune.loading import ModelOptions, load_tokenizer
from finetune.tasks.causal_lm import CausalLM


def load(home, family: str, attention: str):
    task, source = CausalLM(block_size=48), ModelOptions(path=str(home / family), attn_implementation=attention)
    processor = load_tokenizer(source)
    return task, task.load_model(source, processor)[0].eval(), processor


def documents(processor, task, texts):
    from datasets import Dataset

    rows = Dataset.from_dict({"text": texts, "row_id": [f"a.txt:{n}" for n in range(len(texts))]})
    inputs = task.encode(rows, processor, "truncate").inputs
    return task.collator(processor)([inputs[n] for n in range(len(inputs))])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_packed_logits_are_the_logits_of_separate_documents(home, family, attention) -> None:
    task, model, processor = load(home, family, attention)
    texts = ["a first text", "and another one", "third"]
    packed = documents(processor, task, texts)
    assert packed["input_ids"].shape[0] == 1, "the three documents fit one block"
    with torch.no_grad():
        together = task._forward(model, packed).logits[0]
        alone = [task._forward(model, documents(processor, task, [text])).logits[0] for text in texts]

    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_the_probe_passes_what_packs_and_refuses_what_leaks(home, family, monkeypatch) -> None:
    task, model, processor = load(home, family, "sdpa")
    task.probe(model, processor)

    monkeypatch.setattr("finetune.training.batching.block_causal_mask", lambda *_: None)
    monkeypatch.setattr(CausalLM, "_forward", lambda self, model, batch: model(input_ids=batch["input_ids"]))
    with pytest.raises(UserError, match=r"task\.pack"):
        task.probe(model, processor)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_the_loss_of_padded_rows_is_the_mean_over_their_tokens(home, family) -> None:
    task, model, processor = load(home, family, "sdpa")
    task = CausalLM(block_size=48, pack=False)
    texts = ["short", "a much longer text than that", "mid size one"]
    batch = documents(processor, task, texts)
    with torch.no_grad():
        total, _ = task.loss(model, batch)
        each = [task.loss(model, documents(processor, task, [text]))[0] for text in texts]
    assert float(total) == pytest.approx(sum(map(float, each)), rel=1e-5)
    assert int(task.weight(batch)) == sum(len(processor(text)["input_ids"]) + 1 for text in texts)

    # An independent source: the model's own loss on one text without padding is the mean over the same targets.
    ids = torch.tensor([[processor.bos_token_id, *processor(texts[1])["input_ids"], processor.eos_token_id]])
    with torch.no_grad():
        own = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:])
    assert float(each[1]) / int(task.weight(documents(processor, task, [texts[1]]))) == pytest.approx(float(own), 1e-5)


def test_the_end_of_a_text_is_learned_although_padding_has_the_same_id(home) -> None:
    _, _, processor = load(home, "gpt2", "sdpa")
    task = CausalLM(block_size=48, pack=False)
    batch = documents(processor, task, ["ab", "a longer text"])

    assert processor.pad_token_id == processor.eos_token_id
    last = batch["labels"][0].ne(-100).sum() - 1
    assert batch["labels"][0, last] == processor.eos_token_id
    assert batch["labels"][0, last + 1 :].eq(-100).all()


def test_blocks_hold_every_token_once_and_are_full_but_for_the_last(home) -> None:
    _, _, processor = load(home, "gpt2", "sdpa")
    texts = ["one", "two two", "a text that is longer than a whole block " * 3, "end"]
    task = CausalLM(block_size=16)
    batch = documents(processor, task, texts)

    lengths = batch["labels"].ne(-100).sum(dim=1)
    assert lengths[:-1].eq(16).all()
    assert int(lengths.sum()) == sum(len(processor(text)["input_ids"]) + 1 for text in texts)


def test_packed_blocks_under_eager_attention_make_a_run_that_reloads(run) -> None:
    trained = run("causal-lm", task={"pack": True}, model={"attn_implementation": "eager"})

    assert json.loads((trained / "reload.json").read_text())["same"]
