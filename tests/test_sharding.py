"""FSDP's units: every family that the tasks load answers as before when it is sharded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from peft import LoraConfig
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, ViTConfig, ViTModel

from finetune.adapters import attach
from finetune.errors import UserError
from finetune.training.sharded import shard_blocks

HERE = Path(__file__).parent


OFTEN, SELDOM = ["bert"], ["gpt2", "roberta", "modernbert", "electra", "distilbert", "deberta-v2", "opt", "llama"]


@pytest.mark.parametrize("family", [*OFTEN, *(pytest.param(each, marks=pytest.mark.slow) for each in SELDOM)])
def test_a_sharded_model_answers_and_learns(family):
    path = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(HERE / "sharding.py"), family],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-4000:]
    words = done.stdout.split()
    told = dict(zip(words[-6::2], words[-5::2], strict=True))
    assert float(told["apart"]) < 1e-6
    assert int(told["units"]) >= 4  # two blocks, the embeddings or what they are tied to, and the rest
    assert told["learned"] == "True"


def units(model):
    """Return the names of the classes that FSDP would make a unit of."""
    plugin = SimpleNamespace(fsdp_version=2, transformer_cls_names_to_wrap=None)
    shard_blocks(SimpleNamespace(accelerator=SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin)), model=model))
    return plugin.transformer_cls_names_to_wrap


def test_an_adapter_on_the_embeddings_is_no_other_place_of_theirs(home):
    base = AutoModelForSequenceClassification.from_pretrained(home / "bert")
    adapted = attach(base, LoraConfig(r=2, target_modules=["query", "word_embeddings"]), [])

    assert units(adapted) == ["BertLayer"]


def test_a_model_of_images_has_no_embeddings_to_look_for():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    assert units(ViTModel(ViTConfig(image_size=8, patch_size=4, **sizes))) is None


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_embeddings_that_stand_in_several_places_are_refused(tmp_path, family):
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny.save_seq2seq(tmp_path / family, family))

    with pytest.raises(UserError, match="whose embeddings stand in 4 places: use the profile ddp, zero2 or zero3"):
        units(model)
