"""A text for a text: losses, ends, lengths, families and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from finetune.data.options import DataOptions
from finetune.errors import UserError
from finetune.loading import ModelOptions
from finetune.tasks.seq2seq import Seq2Seq
from finetune.tasks.two_tokenizers import TwoTokenizers
from finetune.tasks.writing import as_bytes, as_texts, written

SCRATCH = {
    "model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 96,
    "dropout": 0.0,
}  # fmt: skip
LONG = {"max_source_length": 80, "max_target_length": 12}


@pytest.fixture(scope="module")
def families(home, tmp_path_factory) -> dict[str, ModelOptions]:
    folder = tmp_path_factory.mktemp("families")
    for family in ("t5", "marian"):
        tiny.save_seq2seq(folder / family, family)
    return {
        "bart": ModelOptions(path=str(home / "bart")),
        "t5": ModelOptions(path=str(folder / "t5")),
        "marian": ModelOptions(path=str(folder / "marian")),
        "bert2gpt2": joined(home, "bert", "gpt2"),
        "bert2bert": joined(home, "bert", "bert"),
        "scratch": ModelOptions(config=SCRATCH),
        "scratch-t5": ModelOptions(config={"model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1,
                                           "num_heads": 2, "dropout_rate": 0.0}),
    }  # fmt: skip


def joined(home: Path, encoder: str, decoder: str) -> ModelOptions:
    halves = {"encoder": str(home / encoder), "decoder": str(home / decoder)}
    return ModelOptions(config={"model_type": "encoder-decoder", **halves})


def pairs(texts: list[tuple[str, str]]):
    from datasets import Dataset

    sources, targets = zip(*texts, strict=True)
    ids = [f"rows.jsonl:{line}" for line in range(1, len(texts) + 1)]
    return Dataset.from_dict({"source": list(sources), "target": list(targets), "row_id": ids})


def loaded(options: ModelOptions, **given):
    """Return task, processor and model of one of the families, made for a few short texts."""
    task = Seq2Seq(max_source_length=60, max_target_length=40, vocab_size=300, **given)
    processor = task.load_processor(options, lambda: iter(["the film was good", "a dull story"]))
    torch.manual_seed(0)
    model, new = task.load_model(options, processor)
    return task, processor, model.eval(), new


ROWS = [("the film was good", "good"), ("a cold dull story of its actors this evening", "dull and cold"), ("my", "a")]
FAMILIES = ("bart", "t5", "marian", "bert2gpt2", "bert2bert", "scratch", "scratch-t5")


def batches(task, processor, rows=ROWS):
    """Return one batch of all rows, and a batch for each row."""
    inputs = list(task.encode(pairs(rows), processor, "truncate").inputs)
    collate = task.collator(processor)
    return collate(inputs), [collate([each]) for each in inputs]


def plain(batch: dict) -> dict:
    return {name: each for name, each in batch.items() if name in ("input_ids", "attention_mask", "labels")}


@pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces")  # of the joined model's own loss
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_sum_over_the_target_tokens_that_the_models_own_mean_is_of(families, family):
    task, processor, model, _ = loaded(families[family])
    together, alone = batches(task, processor)

    with torch.no_grad():
        total, _ = task.loss(model, plain(together))
        own = sum(
            # A joined model left to itself hides the start where that is the padding token too; writing, it does not.
            model(**plain(each), decoder_attention_mask=torch.ones_like(each["labels"])).loss * each["labels"].numel()
            for each in alone
        )

    assert float(total) == pytest.approx(float(own), rel=1e-5)  # and padding, of sources and targets, changes nothing
    assert int(task.weight(together)) == sum(int((each["labels"] != -100).sum()) for each in alone)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_target_ends_with_the_end_that_is_learned_and_begins_with_the_models_start(families, family):
    task, processor, model, _ = loaded(families[family])
    together, alone = batches(task, processor)

    for each in alone:
        assert int(each["labels"][0, -1]) == model.config.eos_token_id
    assert (together["labels"] == model.config.eos_token_id).sum() == len(ROWS)
    shifted = model.prepare_decoder_input_ids_from_labels(labels=together["labels"])
    assert set(shifted[:, 0].tolist()) == {model.config.decoder_start_token_id}
    model.zero_grad()
    task.loss(model.train(), plain(together))[0].backward()
    head = model.get_output_embeddings() or model.decoder.get_output_embeddings()
    assert head.weight.grad[model.config.eos_token_id].abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_does_not_depend_on_the_batch(families, family):
    task, processor, model, _ = loaded(families[family])
    together, alone = batches(task, processor)
    model.generation_config.num_beams = 4  # what the checkpoint would have, and nobody asked for

    def texts(batch):
        return as_texts(task.write(model, processor, batch)["written"].numpy())

    assert texts(together) == [text for each in alone for text in texts(each)]
    assert model.generation_config.num_beams == 4


@pytest.mark.parametrize(
    ("family", "expected"),
    [("t5", {"k", "o", "q", "v", "wi", "wo"}),
     ("bart", {"fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"})],
)  # fmt: skip
def test_auto_targets_are_every_linear_layer_of_both_halves(families, family, expected):
    from peft import LoraConfig

    from finetune.adapters import attach

    _, _, model, new = loaded(families[family])
    attached = attach(model, LoraConfig(r=2, target_modules="auto"), new)

    assert set(attached.peft_config["default"].target_modules) == expected
    assert attached.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    adapted = {name.split(".lora_A")[0] for name, _ in attached.named_parameters() if "lora_A" in name}
    assert {name.split(".")[3 if family == "bart" else 2] for name in adapted} == {"encoder", "decoder"}


def test_an_encoder_and_a_decoder_are_joined_by_new_attention_alone(families):
    _, processor, model, new = loaded(families["bert2gpt2"])

    assert isinstance(processor, TwoTokenizers)
    assert new
    assert all("crossattention" in name or "ln_cross_attn" in name for name in new)
    assert model.encoder.pooler is None


@pytest.mark.parametrize("adapter", [pytest.param(None, marks=pytest.mark.slow), {"peft_type": "LORA", "r": 4}])
def test_a_joined_model_trains_comes_back_and_is_used_from_its_folder(home, run, tmp_path, adapter):
    from finetune.reuse import predict

    config = joined(home, "bert", "gpt2").config
    made = run("seq2seq", model={"path": None, "config": config}, task={"max_source_length": 40},
               **({"adapter": adapter} if adapter else {}), evaluate={"reload": "fresh"})  # fmt: skip
    answers = predict(made, home / "test.jsonl")

    assert (made / "encoder_tokenizer" / "tokenizer.json").exists()
    assert json.loads((made / "reload.json").read_text())["max_difference"] == 0.0
    assert len(answers["generated"]) == 22
    assert "target" not in answers.column_names


def test_a_model_from_scratch_learns_to_write_what_it_reads(run):
    made = run("seq2seq", model={"path": None, "config": SCRATCH}, task={"vocab_size": 400},
               train={"optim": "adamw_torch", "learning_rate": 3e-3, "num_train_epochs": 40},
               evaluate={"baselines": True})  # fmt: skip
    scores = json.loads((made / "scores.json").read_text())

    assert scores["test"]["rouge1"]["value"] > 90  # one word of two, which the words of the text tell
    assert scores["test"]["nll"]["value"] < 0.3
    assert scores["test"]["rougeL"]["low"] <= scores["test"]["rougeL"]["value"] <= scores["test"]["rougeL"]["high"]
    assert scores["baselines"]["copy"]["rouge1_gap"]["low"] > 50
    assert "rougeL" not in scores["validation"]  # nothing is written of it where there are test rows
    predictions = (made / "report.html").read_text(encoding="utf-8")
    assert "positive" in predictions


def test_the_tokenizer_from_scratch_is_trained_on_both_columns_and_pads_with_a_token_of_its_own(run):
    from transformers import AutoTokenizer

    made = run("seq2seq", model={"path": None, "config": SCRATCH}, task={"vocab_size": 400})
    tokenizer = AutoTokenizer.from_pretrained(made)

    assert len(tokenizer.tokenize("positive")) < 4  # stands in the targets alone
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id


def test_lengths_are_counted_and_a_cut_target_does_not_learn_to_end(families):
    task, processor, model, _ = loaded(families["bart"])
    rows = pairs([("a" * 100, "b"), ("a", "b" * 100), ("a", "b")])
    cut = task.encode(rows, processor, "truncate")

    assert (cut.facts["cut"], cut.facts["cut_sources"], cut.facts["limit"]) == (2, 1, "60 + 40")
    assert [len(ids) for ids in cut.inputs["input_ids"]] == [60, 2, 2]
    assert [ids[-1] == model.config.eos_token_id for ids in cut.inputs["labels"]] == [True, False, True]
    assert cut.inputs["bytes"][1] == pytest.approx(100 * 40 / 101)
    assert len(task.encode(rows, processor, "drop").inputs) == 1
    for number, what in ((1, "source has 101"), (2, "target has 101")):
        with pytest.raises(UserError, match=rf"rows\.jsonl:{number}: its {what}"):
            task.encode(rows.select([number - 1]), processor, "error")
    with pytest.raises(UserError, match="no windows"):
        task.encode(rows, processor, "window")


def test_a_prefix_stands_before_every_source(families):
    task, processor, _, _ = loaded(families["t5"], prefix="tell: ")

    assert processor.decode(task.encode(pairs(ROWS), processor, "error").inputs["input_ids"][0]).startswith("tell: the")


def test_smoothed_labels_change_the_loss_of_training_and_no_score(families):
    task, processor, model, _ = loaded(families["bart"])
    smooth, _, _, _ = loaded(families["bart"], label_smoothing=0.1)
    batch = plain(batches(task, processor)[0])

    with torch.no_grad():
        hard, logits = task.loss(model, batch)
        expected = torch.nn.functional.cross_entropy(
            logits.logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum", label_smoothing=0.1
        )
        assert float(smooth.loss(model, batch)[0]) == pytest.approx(float(expected), rel=1e-6)
        assert smooth.answer(model, batch)["nll"].sum() == pytest.approx(float(hard), rel=1e-5)


def test_beams_and_lengths_of_the_recipe_are_those_of_the_saved_model(run):
    from transformers import GenerationConfig

    made = run("seq2seq", task={"generation": {"num_beams": 2, "max_new_tokens": 5}})
    kept = GenerationConfig.from_pretrained(made)

    assert (kept.num_beams, kept.max_new_tokens, kept.do_sample) == (2, 5, False)


@pytest.mark.parametrize("model", ["path", "joined"])
def test_the_code_on_the_card_writes_what_the_run_writes(home, run, capsys, model):
    from finetune.publishing.snippets import snippet
    from finetune.reloading import load_run

    config = {"path": None, "config": joined(home, "bert", "gpt2").config}
    made = run("seq2seq", task={"max_source_length": 40}, **({"model": config} if model == "joined" else {}))
    recipe, network, processor = load_run(made)
    told = snippet(recipe, str(made), None, None, json.loads((made / "config.json").read_text()))
    exec(told, {})  # noqa: S102
    reader, writer = (processor.encoder, processor.decoder) if model == "joined" else (processor, processor)
    given = reader("A text to read.", return_tensors="pt", return_token_type_ids=False)

    assert written(network, writer, dict(given), recipe.task.writing)[0] in capsys.readouterr().out


def test_texts_travel_as_bytes():
    texts = ["", "a\0b", "汤姆 é", "x" * 50]

    assert as_texts(as_bytes(texts).numpy()) == ["", "ab", "汤姆 é", "x" * 50]
    assert as_bytes([]).shape == (0, 0)


def test_a_source_may_have_several_targets_and_is_no_copy_then(tmp_path):
    from finetune.data import load_splits

    rows = [{"source": "a b", "target": "x"}, {"source": "a b", "target": "y"}, {"source": "a  B", "target": "x"}]
    path = tiny.write_rows(tmp_path / "train.jsonl", rows)
    splits = load_splits(DataOptions(train=str(path), duplicates="drop"), Seq2Seq().columns(), ("train",))

    assert splits.rows["train"]["target"] == ["x", "y"]


def test_a_held_out_source_that_was_trained_on_leaks_whatever_its_target(tmp_path):
    from finetune.data import load_splits

    for name, target in (("train", "x"), ("test", "y")):
        tiny.write_rows(tmp_path / f"{name}.jsonl", [{"source": "the very same text", "target": target}])
    options = DataOptions(train=str(tmp_path / "train.jsonl"), test=str(tmp_path / "test.jsonl"))

    with pytest.raises(UserError, match=r"test\.jsonl:1: the text is that of"):
        load_splits(options, Seq2Seq().columns(), ("train", "test"))
