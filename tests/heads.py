"""Every head that the table of tasks loads, in the families that the repository names: tiny recipes of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import torch

from finetune.loading import ModelOptions
from finetune.selftest.models import saved_twice

ENCODERS = ("bert", "distilbert", "roberta", "electra", "albert", "modernbert")
DECODERS = ("gpt2", "opt", "llama", "qwen2", "gpt_neox", "mistral")
LABELS = {
    "several labels": lambda row: [row["label"], *(["long"] if len(row["text"]) > 45 else [])],
    "a number": lambda row: len(row["text"]) / 40,
}
HEADS = [
    *(("text-classification", family) for family in (*ENCODERS, "gpt2", "llama")),
    *(("token-classification", family) for family in ENCODERS),
    *(("question-answering", family) for family in (*ENCODERS[:5], "gpt2")),
    *(("masked-lm", family) for family in ENCODERS),
    *(("causal-lm", family) for family in DECODERS),
    *(("chat", family) for family in ("gpt2", "llama")),
    *(("seq2seq", family) for family in ("bart", "marian", "t5")),
    ("text-classification", "bert, several labels"),
    ("text-classification", "bert, a number"),
    ("masked-lm", "bert, next sentence"),
    ("image-classification", "of its own"),
]
NAMES = [f"{kind}-{family}" for kind, family in HEADS]


def sections(home: Path, folder: Path, kind: str, named: str) -> dict[str, Any]:
    """Return the sections of a tiny recipe on a tiny model of a family, without dropout; its files go into `folder`.

    Rows come in their order, so that the first step has the first ones.
    """
    family, _, variant = named.partition(", ")
    made = tiny.sections(home, folder / "run", kind, "paired" if variant == "next sentence" else "whole")
    made["data"]["max_train_rows"] = 24
    made["train"] |= {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "use_cpu": True}
    made["train"]["train_sampling_strategy"] = "sequential"
    if kind == "image-classification":
        made["task"]["flip"] = False
        return made
    if variant in LABELS:
        for name, count, seed in (("train", 24, 1), ("validation", 18, 2), ("test", 18, 3)):
            labelled = [{**row, "label": LABELS[variant](row)} for row in tiny.sentences(count, seed)]
            made["data"][name] = str(tiny.write_rows(folder / f"{name}.jsonl", labelled))
    torch.manual_seed(0)  # the weights are the same whichever test runs first
    texts = [" ".join(row["text"].split()) for row in tiny.sentences(64, 1)]
    (_, exact), _ = saved_twice(ModelOptions(path=family), kind, folder / "model", texts)
    made["model"] = {"path": str(exact)}
    for name in ("block_size", "max_length", "max_source_length"):  # a token a byte, or nearly
        if name in made["task"]:
            made["task"][name] = 160
    if kind == "question-answering":
        made["task"]["stride"] = 32
    made["data"].pop("on_long", None)
    return made
