"""Whole runs of texts from texts that stand apart from the families: merged ones, and a family that must be told."""

from __future__ import annotations

import json

import pytest
from test_seq2seq import SCRATCH


def test_a_merged_run_is_held_against_the_first_row_by_row(run):
    from finetune.merging import merge

    merged = merge(run("seq2seq", "lora"))
    rival = json.loads((merged / "scores.json").read_text())["baselines"]["original"]

    assert {"nll_gap", "rougeL_gap", "bleu_gap", "chrf_gap"} <= set(rival)
    assert rival["nll_gap"]["value"] == pytest.approx(0, abs=1e-4)


def test_a_marian_from_scratch_listens_where_its_tokens_start_as_large_as_its_positions(run):
    config = {**SCRATCH, "model_type": "marian", "scale_embedding": True, "init_std": 0.17}
    made = run("seq2seq", model={"path": None, "config": config}, task={"vocab_size": 400},
               train={"optim": "adamw_torch", "learning_rate": 3e-3, "num_train_epochs": 40})  # fmt: skip
    scores = json.loads((made / "scores.json").read_text())["test"]

    assert scores["rouge1"]["value"] > 80
    assert scores["commonest"]["value"] < 0.7  # half the rows mean either word
