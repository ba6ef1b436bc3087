"""Masked language modelling: what is hidden, where, and what it costs to tell."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM, AutoTokenizer

from finetune.errors import UserError
from finetune.evaluation.options import EvaluateOptions
from finetune.loading import ModelOptions, train_masked_tokenizer
from finetune.models.noise import keys
from finetune.tasks.masked_lm import MaskedLM, packing_gap
from finetune.tasks.masking import FREE, Masking, predicting_at

HIDING = Masking(0.15, mask_id=4, vocabulary=30)


def rows(texts: list[str]) -> Dataset:
    return Dataset.from_dict({"text": texts, "row_id": [f"t.jsonl:{n + 1}" for n in range(len(texts))]})


def many(count: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.arange(count * length).view(count, length) % 25 + 5
    units = torch.arange(length).repeat(count, 1)
    return {"input_ids": ids, "units": units, "keys": keys(0, 3, torch.arange(count))}


def network(folder: Path, family: str = "bert", **options: Any) -> Any:
    if not folder.exists():
        tiny.save_encoder(folder, family)
    torch.manual_seed(1)
    return AutoModelForMaskedLM.from_pretrained(folder, **options).eval()


def batch_of(task: MaskedLM, tokenizer: Any, texts: list[str], on_long: str = "truncate") -> dict[str, Any]:
    inputs = task.encode(rows(texts), tokenizer, on_long).inputs
    batch = task.collator(tokenizer)([inputs[place] for place in range(len(inputs))])
    return {**batch, "keys": keys(0, 0, batch["row"])}


def test_fifteen_in_a_hundred_are_hidden_and_of_those_eight_in_ten_by_the_mask() -> None:
    batch = many(500, 100)

    hidden, targets = HIDING(batch)

    chosen = targets != -100
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.005)
    masked, kept = hidden[chosen] == 4, hidden[chosen] == batch["input_ids"][chosen]
    assert masked.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert kept.float().mean().item() == pytest.approx(0.1 + 0.1 / 30, abs=0.015)
    assert torch.equal(hidden[~chosen], batch["input_ids"][~chosen])
    assert torch.equal(targets[chosen], batch["input_ids"][chosen])
    assert set(hidden[chosen & (hidden != 4)].tolist()) == set(range(30)) - {4} | set(range(5, 30))


def test_what_is_hidden_in_a_row_depends_on_no_neighbour_and_no_padding() -> None:
    batch = many(8, 20)

    together, targets = HIDING(batch)

    for row in range(8):
        alone = {name: each[row : row + 1] for name, each in batch.items()}
        wider = {
            **alone,
            "input_ids": F.pad(alone["input_ids"], (0, 7)),
            "units": F.pad(alone["units"], (0, 7), value=FREE),
        }
        ids, labels = HIDING(wider)
        assert torch.equal(ids[0, :20], together[row])
        assert torch.equal(labels[0, :20], targets[row])
        assert (labels[0, 20:] == -100).all()


def test_an_input_of_which_nothing_would_be_hidden_gets_one_and_special_tokens_never() -> None:
    batch = many(200, 10)
    batch["units"][:, [0, 9]] = FREE

    _, targets = Masking(1e-9, 4, 30)(batch)

    assert ((targets != -100).sum(dim=1) == 1).all()
    assert (targets[:, [0, 9]] == -100).all()
    _, most = Masking(0.999999, 4, 30)(batch)
    assert ((most != -100).sum(dim=1) == 8).all()


def test_words_are_hidden_whole() -> None:
    tokenizer = train_masked_tokenizer(iter(()), vocab_size=260)  # bytes alone: every word is several tokens
    task = MaskedLM(whole_word=True, pack=False, mask_probability=0.4)
    batch = batch_of(task, tokenizer, ["some words are longer than others", "and a few are not"] * 10)

    _, targets = Masking(0.4, tokenizer.mask_token_id, len(tokenizer))(batch)

    for units, labels in zip(batch["units"], targets, strict=True):
        for unit in set(units.tolist()) - {FREE}:
            assert len(set((labels[units == unit] != -100).tolist())) == 1
        assert units[0] == FREE  # [CLS]
    assert int(batch["units"][0].max()) == 5
    shares = (targets != -100).float().sum() / (batch["units"] != FREE).sum()
    assert shares.item() == pytest.approx(0.4, abs=0.1)


def test_a_text_longer_than_a_block_goes_on_in_the_next_with_special_tokens_of_its_own(home) -> None:
    tokenizer = AutoTokenizer.from_pretrained(home / "bert")
    texts = ["the film was good", " ".join(["warm"] * 13), "bad", "slow story"]

    packed = MaskedLM(block_size=8).encode(rows(texts), tokenizer, "truncate")
    cut = MaskedLM(block_size=8, pack=False).encode(rows(texts), tokenizer, "truncate")
    windows = MaskedLM(block_size=8, pack=False).encode(rows(texts), tokenizer, "window")

    shown = [" ".join(tokenizer.convert_ids_to_tokens(ids)) for ids in packed.inputs["input_ids"]]
    assert shown == [
        "[CLS] the film was good [SEP]",
        *["[CLS] " + "warm " * 6 + "[SEP]"] * 2,
        "[CLS] warm [SEP] [CLS] bad [SEP]",
        "[CLS] slow story [SEP]",
    ]
    assert packed.inputs["position_ids"][3] == [0, 1, 2, 0, 1, 2]
    assert packed.inputs["units"][3] == [FREE, 0, FREE, FREE, 1, FREE]
    assert packed.inputs["row"][:] == [0, 1, 2, 3, 4]
    assert [len(ids) for ids in cut.inputs["input_ids"]] == [6, 8, 3, 4]
    assert (cut.facts["cut"], cut.facts["dropped"]) == (1, 0)
    assert [len(ids) for ids in windows.inputs["input_ids"]] == [6, 8, 8, 3, 3, 4]
    with pytest.raises(UserError, match=r"t.jsonl:2: 15 tokens, and task.block_size is 8"):
        MaskedLM(block_size=8, pack=False).encode(rows(texts), tokenizer, "error")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "modernbert"])
def test_packed_texts_are_answered_as_separate_ones(tmp_path, family, attention) -> None:
    model = network(tmp_path / family, family, attn_implementation=attention)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / family)
    texts = ["the film was good", "a story felt warm this evening", "bad music"]
    packed, apart = MaskedLM(block_size=32), MaskedLM(block_size=32, pack=False)
    block, single = batch_of(packed, tokenizer, texts), batch_of(apart, tokenizer, texts)

    with torch.no_grad():
        together = packed._forward(model, block, block["input_ids"]).logits[0]
        alone = apart._forward(model, single, single["input_ids"]).logits

    assert packing_gap(packed, model) < 1e-5
    expected = torch.cat([alone[row, : mask.sum()] for row, mask in enumerate(single["attention_mask"])])
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "line"),
    [("deberta-v2", "no mask of texts"), ("convbert", "lets one text see another"), ("roformer", "takes no positions")],
)
def test_a_family_that_would_mix_packed_texts_is_refused_and_taken_without(tmp_path, family, line) -> None:
    model = network(tmp_path / family, family)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / family)

    with pytest.raises(UserError, match=rf"task\.pack: .*{line}"):
        MaskedLM(block_size=32).probe(model, tokenizer)
    task = MaskedLM(block_size=32, pack=False)
    task.probe(model, tokenizer)
    assert torch.isfinite(task.loss(model, batch_of(task, tokenizer, ["the film was good"]))[0])


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert"])
def test_the_loss_is_the_models_own_times_the_number_of_hidden_tokens(tmp_path, family) -> None:
    model = network(tmp_path / family, family)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / family)
    task = MaskedLM(block_size=32, pack=False, mask_probability=0.3)
    batch = batch_of(task, tokenizer, ["the film was good", "a story felt warm this evening", "bad music"])
    ids, labels = Masking(0.3, tokenizer.mask_token_id, len(tokenizer))(batch)

    with torch.no_grad():
        total, _ = task.loss(model, batch)
        own = model(input_ids=ids, attention_mask=batch["attention_mask"], labels=labels)
        answer = task.answer(model, batch)

    count = int((labels != -100).sum())
    assert int(task.weight(batch)) == count == int(answer["tokens"].sum())
    assert float(total) == pytest.approx(float(own.loss) * count, rel=1e-5)
    assert float(answer["nll"].sum()) == pytest.approx(float(total), rel=1e-5)
    right = (own.logits.argmax(-1) == labels).sum(dim=1)
    assert answer["right"].tolist() == right.tolist()


def test_a_head_that_sees_the_hidden_places_alone_says_there_what_it_says_of_all(home) -> None:
    model = network(home / "bert")
    ids = torch.randint(5, 20, (3, 9), generator=torch.Generator().manual_seed(0))
    places = torch.rand(3, 9, generator=torch.Generator().manual_seed(1)) < 0.3

    with torch.no_grad():
        every = model(input_ids=ids).logits
        with predicting_at(model, places) as alone:
            some = model(input_ids=ids).logits

    assert alone
    assert some.shape[:2] == (1, int(places.sum()))
    torch.testing.assert_close(some[0], every[places])
    assert not model.base_model._forward_hooks


def test_the_pseudo_perplexity_is_that_of_every_token_hidden_by_itself(home) -> None:
    model, tokenizer = network(home / "bert"), AutoTokenizer.from_pretrained(home / "bert")
    texts = ["the film was good", "bad music"]
    task = MaskedLM(block_size=32, pack=False, pseudo_perplexity=5)
    inputs = {"test": task.encode(rows(texts), tokenizer, "truncate").inputs}

    found = task.examine(model, inputs, tokenizer, EvaluateOptions(resamples=0))

    costs = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        for place in range(1, ids.shape[1] - 1):
            hidden = ids.clone()
            hidden[0, place] = tokenizer.mask_token_id
            with torch.no_grad():
                costs.append(-model(hidden).logits[0, place].log_softmax(0)[ids[0, place]].item())
    score = found.scores["test"]["pseudo_perplexity"]
    assert score.value == pytest.approx(math.exp(np.mean(costs)), rel=1e-5)
    assert (score.n, found.facts["tokens_hidden_in_turn"]) == (2, 6)
    packed = MaskedLM(block_size=32, pseudo_perplexity=5)
    block = {"test": packed.encode(rows(texts), tokenizer, "truncate").inputs}
    again = packed.examine(model, block, tokenizer, EvaluateOptions(resamples=0))
    assert again.scores["test"]["pseudo_perplexity"].value == pytest.approx(score.value, rel=1e-5)


def test_the_unigram_rival_is_scored_on_the_same_hidden_tokens(run) -> None:
    trained = run("masked-lm", evaluate={"baselines": True})

    scores = json.loads((trained / "scores.json").read_text())
    rival, own = scores["baselines"]["unigram"], scores["test"]
    assert rival["nll_gap"]["value"] == pytest.approx(own["nll"]["value"] - rival["nll"]["value"])
    assert rival["masked_accuracy_gap"]["value"] == pytest.approx(
        own["masked_accuracy"]["value"] - rival["masked_accuracy"]["value"]
    )
    assert math.log(4) < rival["nll"]["value"] < math.log(40)
    assert "→" in (trained / "samples" / "after.txt").read_text()


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_from_scratch_it_trains_a_tokenizer_with_a_mask_and_the_run_fills_blanks(run, family) -> None:
    from transformers import pipeline

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
             "max_position_embeddings": 80}  # fmt: skip
    trained = run(
        "masked-lm",
        task={"vocab_size": 300, "pack": True, "whole_word": True, "block_size": 64, "pseudo_perplexity": 3},
        model={"path": None, "config": {"model_type": family, **sizes}},
    )

    fill = pipeline("fill-mask", model=str(trained))
    assert len(fill("the film was [MASK]")) == 5
    assert fill.tokenizer.decode(fill.tokenizer("so good!")["input_ids"], skip_special_tokens=True) == "so good!"
    assert json.loads((trained / "scores.json").read_text())["test"]["pseudo_perplexity"]["n"] == 3


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (lambda home: MaskedLM(mask_probability=0.0), "mask_probability: 0.0 is not between"),
        (lambda home: MaskedLM(pseudo_perplexity=-1), "pseudo_perplexity: -1"),
        (lambda home: MaskedLM().load_processor(ModelOptions(path=str(home / "gpt2")), iter), "no mask token"),
        (
            lambda home: MaskedLM(prompts=("a film",)).load_processor(ModelOptions(path=str(home / "bert")), iter),
            r'"a film" has nothing to fill; write \[MASK\]',
        ),
        (lambda home: MaskedLM(vocab_size=200).load_processor(ModelOptions(config={}), lambda: iter(())), "make 260"),
        (
            lambda home: MaskedLM(block_size=2).encode(
                rows(["a"]), AutoTokenizer.from_pretrained(home / "bert"), "truncate"
            ),
            "no room for text",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(home, made, line) -> None:
    with pytest.raises(UserError, match=line):
        made(home)
