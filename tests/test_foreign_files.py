"""Models of somebody who means harm: one line, soon, and nothing of them runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import base_of, edit, load, refused
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from finetune.adapters import load_adapter
from finetune.errors import UserError
from finetune.foreign.bounds import check_config
from finetune.foreign.files import refuse_pickle
from finetune.loading import ModelOptions, load_config, load_tokenizer

# ---- S1: pickles, by name and by first bytes


class Payload:
    """What it is unpickled to has made a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def _zip(payload: Payload, file: Path) -> None:
    torch.save(payload, file)


def _legacy(payload: Payload, file: Path) -> None:
    torch.save(payload, file, _use_new_zipfile_serialization=False)


def _plain(payload: Payload, file: Path) -> None:
    file.write_bytes(pickle.dumps(payload))


def _text(payload: Payload, file: Path) -> None:
    file.write_bytes(pickle.dumps(payload, protocol=0))


def _seven(payload: Payload, file: Path) -> None:
    file.write_bytes(b"7z\xbc\xaf\x27\x1c\x00\x04" + pickle.dumps(payload))


def _tar(payload: Payload, file: Path) -> None:
    with tarfile.open(file, "w") as archive:
        content = pickle.dumps(payload)
        entry = tarfile.TarInfo("pickle")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


WRITERS = [_zip, _legacy, _plain, _text, _seven, _tar]
NAMES = ["pytorch_model.bin", "model.pt", "model.pth", "weights.pkl", "model.ckpt", "model.safetensors"]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_is_no_model_whatever_its_name(bert, tmp_path, contract, name, write):
    (bert / "model.safetensors").unlink()
    write(Payload(tmp_path / "ran"), bert / name)

    said = refused(lambda: load(bert))
    refused(lambda: load(bert / name))

    assert not (tmp_path / "ran").exists()
    if not (name == "model.safetensors" and write is _text):  # a text to any reader: damaged
        assert "convert" in said
    contract("S1", pickles_refused=2, executed=0)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
def test_a_pickle_is_no_adapter(adapter, bert, tmp_path, contract, name, write):
    (adapter / "adapter_model.safetensors").unlink()
    write(Payload(tmp_path / "ran"), adapter / name)

    refused(lambda: load_adapter(base_of(bert), adapter))
    refused(lambda: load(adapter))

    assert not (tmp_path / "ran").exists()
    contract("S1", pickles_refused=2, executed=0)


def test_weights_whose_header_begins_like_a_pickle_are_read(bert):
    """A header of 0x10280 bytes begins with the bytes 80 02, as a pickle of protocol 2 does."""
    import struct

    file, length = bert / "model.safetensors", 0x10280
    held = file.read_bytes()
    data = 8 + struct.unpack("<Q", held[:8])[0]
    header = {**json.loads(held[8:data]), "__metadata__": {"format": "pt", "note": ""}}
    header["__metadata__"]["note"] = "x" * (length - len(json.dumps(header)))
    file.write_bytes(struct.pack("<Q", length) + json.dumps(header).encode() + held[data:])

    assert file.read_bytes()[:2] == b"\x80\x02"
    assert base_of(bert) is not None


def test_a_short_pickle_in_a_long_file_is_no_header(tmp_path):
    """Its frame of 16 bytes, read as the length of a header, is shorter than the file."""
    file = tmp_path / "model.safetensors"
    with file.open("wb") as stream:
        stream.write(b"\x80\x04\x95\x10" + b"\0" * 7 + b"\x8c\x02os" + b"\x94.")
        stream.truncate(0x10950480 + 16)  # sparse

    assert "a pickle" in refused(lambda: refuse_pickle(file, "model.path"))


# ---- S2: configurations

CONFIGS = [
    ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
    ({"vocab_size": 10**12}, "vocab_size"),
    ({"vocab_size": 1 << 24}, "describes"),
    ({"hidden_size": 1 << 20, "num_attention_heads": 2}, "describes"),
    ({"intermediate_size": 1 << 23}, "describes"),
    ({"max_position_embeddings": 10**11}, "max_position_embeddings"),
    ({"num_labels": 10**9}, "num_labels"),
    ({"num_hidden_layers": 3}, "counts 3 layers"),
    ({"num_hidden_layers": 1}, "counts 1 layers"),
    ({"_attn_implementation": "somebody/kernel"}, "code from the Hub"),
    ({"attn_implementation": "somebody/kernel:flash"}, "code from the Hub"),
    ({"text_config": {"experts_implementation": "somebody/kernel"}}, "code from the Hub"),
    ({"nested": json.loads("[" * 40 + "]" * 40)}, "levels deep"),
    ({"hidden_layers": [1] * 2_000_000}, "values"),
    ({"x" * 9_000_000: [1] * 9}, "longer"),
    ({"many": [""] * 3_000_000}, "values"),
    ({"text_config": {"id2label": dict.fromkeys(map(str, range((1 << 20) + 1)), "x")}}, "labels"),
]


@pytest.mark.parametrize(("changes", "said"), CONFIGS, ids=[str(n) for n in range(len(CONFIGS))])
def test_a_config_that_asks_for_too_much_is_refused(bert, contract, changes, said):
    edit(bert / "config.json", **changes)

    assert said in refused(lambda: load(bert))
    contract("S2", refused=1)


def test_a_config_that_is_too_large_or_no_object_is_refused(bert):
    (bert / "config.json").write_text("[" * 100_000)
    refused(lambda: load(bert))
    (bert / "config.json").write_text("[]")
    refused(lambda: load(bert))
    (bert / "config.json").write_text('{"a": "' + "x" * (1 << 25) + '"}')
    assert "bytes" in refused(lambda: load(bert))


def test_fields_that_the_family_does_not_have_are_passed_over(bert):
    edit(
        bert / "config.json",
        custom_pipelines={"x": {"impl": "evil.Pipe"}},
        classifier_dropout=0.25,
    )

    model, new = load(bert, AutoModelForSequenceClassification)

    assert not hasattr(model.config, "custom_pipelines")
    assert model.config.classifier_dropout == 0.25
    assert new == ["classifier.bias", "classifier.weight"]


def test_many_labels_are_read_whatever_they_are_called(bert):
    names = ["num_layers", *(f"label {number}" for number in range(140_000))]
    edit(bert / "config.json", id2label=dict(enumerate(names)), label2id={n: 600 + i for i, n in enumerate(names)})

    check_config(bert / "config.json", "model.path", trusted=False)


@pytest.mark.parametrize("auto", [{"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}, {"AutoModel": "evil.Model"}])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_code_beside_a_known_family_does_not_run(bert, tmp_path, contract, name, auto):
    edit(bert / name, auto_map=auto)
    (bert / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")

    with suppress(UserError):
        load(bert)
        load_tokenizer(ModelOptions(path=str(bert)))
    assert not (tmp_path / "ran").exists()
    contract("S2", executed=0)


@pytest.mark.parametrize("place", ["../other.safetensors", "/etc/other.safetensors", "a/b.safetensors", "other.bin", 5])
def test_an_index_reads_no_file_outside_its_folder(bert, contract, place):
    outside = bert.parent / "other.safetensors"
    shutil.move(bert / "model.safetensors", outside)
    (bert / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(load_file(outside), place)})
    )

    assert "index" in refused(lambda: load(bert))
    contract("S2", refused=1, files_outside=0)


GENERATION = [{"max_length": 10**9}, {"max_new_tokens": 10**9}, {"num_beams": 10**6}, {"num_return_sequences": 10**9}]


@pytest.mark.parametrize("changes", GENERATION, ids=str)
def test_a_generation_config_that_asks_for_too_much_is_refused(bert, contract, changes):
    edit(bert / "generation_config.json", **changes)

    assert next(iter(changes)) in refused(lambda: load(bert))
    contract("S2", refused=1)


TOKENIZERS = [
    ({"vocab_file": "/etc/passwd"}, "vocab_file"),
    ({"tokenizer_file": "../../tokenizer.json"}, "tokenizer_file"),
    ({"fast_tokenizer_files": ["tokenizer.json", "../../tokenizer.4.0.json"]}, "fast_tokenizer_files"),
    ({"vocab_file": {"a": "/etc/passwd"}}, "vocab_file"),
    ({"chat_template": [{"name": "../../x", "template": "a"}]}, "a path"),
    ({"chat_template": "x" * (1 << 21)}, "characters"),
    ({"chat_template": 7}, "should be a text"),
    ({"added_tokens_decoder": {"99999999999": {"content": "x"}}}, "added_tokens_decoder"),
    ({"added_tokens_decoder": {"-1": {"content": "x"}}}, "added_tokens_decoder"),
]


@pytest.mark.parametrize(("changes", "said"), TOKENIZERS, ids=[str(n) for n in range(len(TOKENIZERS))])
def test_a_tokenizer_config_that_leaves_its_folder_or_bounds_is_refused(bert, contract, changes, said):
    edit(bert / "tokenizer_config.json", **changes)

    assert said in refused(lambda: load_tokenizer(ModelOptions(path=str(bert))))
    contract("S2", refused=1)


@pytest.mark.slow
def test_the_configuration_of_every_family_passes_unchanged(tmp_path, contract):
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    import finetune.models  # noqa: F401  # our own among them

    passed, changed = 0, {}
    for number, kind in enumerate(CONFIG_MAPPING.keys()):
        folder = tmp_path / str(number)
        try:  # some cannot be made without a part, or do not come back to transformers itself
            CONFIG_MAPPING[kind]().save_pretrained(folder)
            plain = AutoConfig.from_pretrained(folder).to_dict()
        except Exception as error:  # noqa: BLE001  # whatever; it is counted by what is left
            print(kind, error)
            continue
        ours = load_config(ModelOptions(path=str(folder))).to_dict()
        passed += 1
        if {**plain, "_commit_hash": None} != {**ours, "_commit_hash": None}:
            changed[kind] = {name for name in plain if plain[name] != ours.get(name)}

    assert not changed
    assert passed > 500
    contract("I3", families_whose_configuration_passes=passed)
