"""Line R4: a base or a tokenizer that was replaced, at its own place, since the checkpoint was written."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import tiny
from foreign import edit
from test_training_damage import sealed

from finetune.errors import UserError
from finetune.foreign import adapters, files
from finetune.training.checkpoints import manifest_of

STEPS = {"save_strategy": "steps", "save_steps": 1}


class Interrupted(Exception):
    """Ends a training after a checkpoint."""


@pytest.fixture
def broken(run, bert, monkeypatch):
    """Return a function that trains on the copy of the tiny encoder, from the last checkpoint to a given step."""
    from finetune.training.trainer import Trainer

    def go(adapter="lora", until=None, **train):
        def step(self, *args, original=Trainer.training_step, **kwargs):
            if self.state.global_step == until:
                raise Interrupted
            return original(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "training_step", step)
            if until is None:
                return run("text-classification", adapter, model={"path": str(bert)}, train={**STEPS, **train})
            with pytest.raises(Interrupted):
                run("text-classification", adapter, model={"path": str(bert)}, train={**STEPS, **train})

    return go


@pytest.mark.parametrize("adapter", ["lora", "whole"])
def test_other_weights_at_the_bases_place_are_refused(broken, bert, tmp_path, contract, adapter):
    broken(adapter, until=2)
    before = files.digest([bert / "model.safetensors"])
    shutil.copy(tiny.save_encoder(tmp_path / "other", seed=5) / "model.safetensors", bert)
    after = files.digest([bert / "model.safetensors"])

    with pytest.raises(UserError) as caught:
        broken(adapter)
    assert f'(base.weights_sha256: "{before}" → "{after}")' in str(caught.value)
    assert "allow_change" not in str(caught.value)
    with pytest.raises(UserError, match=r"base\.weights_sha256 cannot be allowed"):
        broken(adapter, allow_change=["base.weights_sha256"])
    contract("R4", changes_refused=1)


def test_another_tokenizer_at_the_bases_place_is_refused(broken, bert, contract):
    broken(until=2)
    edit(bert / "tokenizer.json", normalizer=None)  # its words are the same, and capitals are unknown to it

    with pytest.raises(UserError, match=r'\(base\.tokenizer_sha256: "\w{64}" → "\w{64}"\)'):
        broken()
    contract("R4", changes_refused=1)


@pytest.mark.parametrize("adapter", ["lora", "whole"])
def test_the_same_base_written_anew_is_gone_on_with_and_read_once(broken, bert, tmp_path, monkeypatch, adapter):
    broken(adapter, until=2)
    shutil.copytree(bert, tmp_path / "copy")
    shutil.rmtree(bert)
    shutil.move(tmp_path / "copy", bert)
    digests = []
    monkeypatch.setattr(adapters, "digest", lambda found: digests.append(found) or files.digest(found))
    broken(adapter, until=3)

    assert digests == [[bert / "model.safetensors"]]


def test_a_checkpoint_that_says_nothing_of_its_base_is_resumed_where_that_is_allowed(broken, tmp_path, contract):
    broken(until=2)
    path = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    old = json.loads((path / "manifest.json").read_text())
    del old["stamp"]["base"]
    (path / "manifest.json").write_text(json.dumps(old))
    sealed(path)

    names = ["base.tokenizer_sha256", "base.weights_sha256"]
    with pytest.raises(UserError) as caught:
        broken()
    assert all(f"{name}: null → " in str(caught.value) for name in names)
    assert f"--train.allow_change '{json.dumps(names)}'" in str(caught.value)
    broken(allow_change=names)
    last = max((tmp_path / "run" / "checkpoints").iterdir(), key=lambda each: int(each.name.split("-")[1]))
    assert [each["name"] for each in manifest_of(last)["changes"]] == names
    contract("R4", changes_refused=1, changes_allowed=1)


def test_another_version_may_write_a_tokenizer_in_other_words_where_both_are_allowed(broken, tmp_path, contract):
    broken(until=2)
    path = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    old = json.loads((path / "manifest.json").read_text())
    old["stamp"]["base"]["tokenizer_sha256"] = "0" * 64
    (path / "manifest.json").write_text(json.dumps(old))
    sealed(path)
    with pytest.raises(UserError, match=r"base\.tokenizer_sha256 cannot be allowed"):
        broken(allow_change=["base.tokenizer_sha256"])

    old["stamp"]["versions"]["transformers"] = "5.0.0"
    (path / "manifest.json").write_text(json.dumps(old))
    sealed(path)
    broken(allow_change=["base.tokenizer_sha256", "versions.transformers"])
    contract("R4", changes_refused=1, changes_allowed=1)


@pytest.mark.parametrize("layers", [None, 1])
def test_what_a_model_came_from_is_known_where_it_starts_from_some_layers_too(bert, layers):
    from transformers import AutoConfig, AutoModel

    from finetune.loading import ModelOptions, load_pretrained

    options = ModelOptions(path=str(bert), layers=layers)
    model, _ = load_pretrained(options, AutoModel, AutoConfig.from_pretrained(bert))

    assert adapters.origin(model) == files.digest([bert / "model.safetensors"])


def test_of_a_joined_model_both_halves_are_held(run, home):
    halves = {"encoder": str(home / "bert"), "decoder": str(home / "gpt2")}
    joined = {"config": {"model_type": "encoder-decoder", **halves}, "path": None}
    folder = run("seq2seq", model=joined, task={"max_source_length": 40}, train=STEPS)

    base = manifest_of(next((folder / "checkpoints").iterdir()))["stamp"]["base"]
    digests = [files.digest([home / half / "model.safetensors"]) for half in ("bert", "gpt2")]
    assert base["weights_sha256"] == "+".join(digests)
    assert re.fullmatch(r"\w{64}", base["tokenizer_sha256"])


def test_of_two_tokenizers_either_one_tells(home, bert):
    from finetune.loading import ModelOptions
    from finetune.preparation import digest_of
    from finetune.tasks.two_tokenizers import load_tokenizers

    def told():
        return digest_of(load_tokenizers(ModelOptions(config={"encoder": str(bert), "decoder": str(home / "gpt2")})))

    before = told()
    assert told() == before
    edit(bert / "tokenizer.json", normalizer=None)
    assert told() != before


def test_a_tokenizer_is_the_same_wherever_it_lies(bert, tmp_path):
    from finetune.loading import ModelOptions, load_tokenizer
    from finetune.preparation import digest_of

    shutil.copytree(bert, tmp_path / "elsewhere")
    one, other = (load_tokenizer(ModelOptions(path=str(each))) for each in (bert, tmp_path / "elsewhere"))

    assert digest_of(one) == digest_of(other)
