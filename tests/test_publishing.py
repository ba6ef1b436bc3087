"""A run goes to the Hub and answers there as it does here, loaded as its card says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml

from finetune import published
from finetune.cli import main
from finetune.compressing.quantize import quantize
from finetune.compressing.saving import TASKS as QUANTIZED
from finetune.deriving import fingerprint
from finetune.errors import CheckFailed, UserError
from finetune.exporting import companion
from finetune.merging import merge
from finetune.publication import publish

REPO = "jane/made"
TEXTS = {
    "text-classification": "bert",
    "token-classification": "bert",
    "question-answering": "bert",
    "causal-lm": "gpt2",
    "masked-lm": "bert",
    "chat": "gpt2-long",
    "seq2seq": "bart",
}  # fmt: skip
FIRST = [("text-classification", "lora")]
LORA = [kind for kind, adapter in tiny.CELLS if adapter == "lora"]
DERIVED = [(kind, made) for kind in LORA for made in ("merged", "int8", "nf4") if made != "int8" or kind in QUANTIZED]
GRAPHS = ("text-classification", "image-classification", "causal-lm", "image-vae", "image-gan")
CELLS = [pytest.param(*cell, marks=() if cell in FIRST else pytest.mark.slow) for cell in tiny.CELLS + DERIVED]


def said(kind: str) -> dict[str, str]:
    """Return what a publication of a tiny run must be told."""
    given = {"publish.license": "mit", "publish.language": "en"}
    return given | ({"publish.base_model": f"jane/{TEXTS[kind]}"} if kind in TEXTS else {})


def trained(run, kind: str, made: str) -> Path:
    """Return a run: trained as tiny.ADAPTERS says, merged, in 8 bits, or an adapter on a base in 4 bits."""
    if made == "merged":
        return merge(run(kind, "lora"))
    if made == "int8":
        whole = run(kind, "whole")
        return quantize(whole, whole.with_name("int8"), "int8-weight")
    if made == "nf4":
        pytest.importorskip("bitsandbytes")
        return run(kind, "lora", model={"quantize": "nf4"})
    return run(kind, made)


@pytest.fixture
def bases(hub, home):
    for name in dict.fromkeys(TEXTS.values()):
        hub.upload(f"jane/{name}", home / name)
    return hub


@pytest.fixture
def trusting(monkeypatch) -> None:
    """Leave out the fresh process, where it is not what is tested."""
    monkeypatch.setattr(published, "check_published", lambda *given: {"same": True, "said": "nothing was loaded"})


@pytest.mark.parametrize(("kind", "adapter"), CELLS)
def test_what_is_published_answers_elsewhere_bit_for_bit_by_the_code_on_its_card(run, bases, tmp_path, kind, adapter):
    made = trained(run, kind, adapter)

    found = publish(made, REPO, overrides={**said(kind), "publish.tag": "v1"})

    assert (found.check["same"], found.check["max_difference"]) == (True, 0.0)
    assert found.check["scores"]
    assert all(ours == theirs for ours, theirs in found.check["scores"].values())
    card = tmp_path / "README.md"
    card.write_bytes(bases.repos["model", REPO].files("v1")["README.md"])
    words = [sys.executable, str(Path(__file__).with_name("used_as_on_the_card.py"))]
    words += [str(card), str(made), str(tmp_path / "verdict.json")]
    elsewhere = {**os.environ, "HF_HOME": str(tmp_path / "elsewhere"), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(words, env=elsewhere, cwd=tmp_path, check=True, timeout=200)
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert (verdict["same"], verdict["max_difference"]) == (True, 0.0)
    assert verdict["scores"] == found.check["scores"]


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in GRAPHS])
def test_graphs_that_are_published_beside_a_run_answer_elsewhere_as_it_does(run, bases, tmp_path, monkeypatch, kind):
    pytest.importorskip("onnxruntime")
    made = run(kind, "lora" if kind in TEXTS else "whole")

    found = publish(made, REPO, overrides={**said(kind), "publish.onnx": "int8", "publish.tag": "v1"})

    graphs = found.check["graphs"]
    assert graphs["same"]
    assert graphs["onnx"]["relative"] < 1e-4
    assert graphs["onnx"]["scores"] or kind in ("image-vae", "image-gan")
    assert {"onnx", "int8"} <= set(graphs)
    files = bases.repos["model", REPO].files("v1")
    assert "onnx/run.py" in files
    code = re.findall(r"```python\n(.*?)```", files["README.md"].decode(), re.DOTALL)[1]
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    names: dict = {}
    exec(code, names)  # noqa: S102
    assert {f"onnx/{name}.onnx" for name in names["sessions"]} < set(files)
    again = companion.held_against(made, names["folder"])
    assert (again["same"], again["onnx"]["largest"]) == (True, graphs["onnx"]["largest"])
    second = publish(made, REPO, overrides={**said(kind), "publish.onnx": "int8", "publish.tag": "v1"})
    assert second.commit == found.commit  # the export is used again, and nothing is new


def test_graphs_of_other_weights_or_of_a_task_without_any_are_refused_before_anything_goes_up(run, bases, tmp_path):
    pytest.importorskip("onnxruntime")
    made = run("text-classification", "lora")
    given = {**said("text-classification"), "publish.onnx": "fp32"}
    folder = made.with_name(f"{made.name}-onnx")
    folder.mkdir()
    (folder / "export.json").write_text('{"format": "onnx", "of": {"run": "run", "weights": "0"}}')
    with pytest.raises(UserError, match="exported from other weights"):
        publish(made, REPO, overrides=given)
    (folder / "export.json").write_text(json.dumps({"format": "onnx", "of": fingerprint(made)}))
    with pytest.raises(UserError, match="has no graphs in int8"):
        publish(made, REPO, overrides=given | {"publish.onnx": "int8"})
    with pytest.raises(UserError, match="text-vae has no export to ONNX"):
        companion.refuse_unfit("text-vae")
    assert ("model", REPO) not in bases.repos


@pytest.mark.usefixtures("trusting")
def test_a_publication_is_private_tagged_and_one_commit_that_a_second_one_does_not_repeat(run, bases):
    made = run("text-classification", "lora")
    given = {**said("text-classification"), "publish.tag": "v1"}

    first, second = publish(made, REPO, overrides=given), publish(made, REPO, overrides=given)

    repo = bases.repos["model", REPO]
    assert repo.private
    assert first.commit == second.commit == repo.tags["v1"] == repo.branches["main"]
    assert json.loads((made / "publish.json").read_text())["commit"] == first.commit


@pytest.mark.usefixtures("trusting")
def test_another_run_takes_the_place_of_the_first_and_leaves_what_others_put_there(run, bases, sections, tmp_path):
    whole = run("text-classification", "whole")
    publish(whole, REPO, overrides=said("text-classification"))
    repo = bases.repos["model", REPO]
    held = repo.commits[repo.branches["main"]].files
    repo.add("main", held | {"notes.txt": held["README.md"]}, "by hand")
    lora = run("text-classification", "lora", train={"output_dir": str(tmp_path / "lora")})

    publish(lora, REPO, overrides=said("text-classification"))

    assert "notes.txt" in repo.files()
    assert "adapter_model.safetensors" in repo.files()
    assert not {"model.safetensors", "config.json"} & set(repo.files())


@pytest.mark.usefixtures("trusting")
def test_a_branch_is_made_where_it_is_asked_for(run, bases):
    made = run("text-classification", "lora")

    publish(made, REPO, overrides={**said("text-classification"), "publish.revision": "second"})

    repo = bases.repos["model", REPO]
    assert "README.md" in repo.files("second")
    assert 'revision="second"' in repo.files("second")["README.md"].decode()
    assert not repo.files("main")


def test_a_dry_run_shows_every_file_with_its_size_and_changes_nothing(run, bases, capsys, contract):
    made = run("text-classification", "lora")
    words = [f"--{name}={value}" for name, value in said("text-classification").items()]

    assert main(["publish", str(made), "--to", REPO, "--dry-run", *words]) == 0

    shown = capsys.readouterr().out
    assert f"{(made / 'adapter_model.safetensors').stat().st_size:,} bytes" in shown
    kept = next(line for line in shown.splitlines() if line.startswith("Not published: "))
    assert {"data.json", "history.json", "predictions.parquet", "reference.safetensors"} <= set(kept[15:-1].split(", "))
    assert ("model", REPO) not in bases.repos
    assert not (made / "publish.json").exists()
    contract("S5", dry_runs_shown=1)


@pytest.mark.usefixtures("trusting")
def test_only_what_is_listed_goes_up_whatever_lies_in_the_run(run, bases, contract):
    made = run("text-classification", "lora")
    for name in ("training_args.bin", "optimizer.pt", "notes.md", "other.json", ".env", "samples.png"):
        (made / name).write_bytes(b"something private")
    (made / "vocab.txt").symlink_to("/etc/hostname")

    found = publish(made, REPO, overrides=said("text-classification"))

    assert sorted(found.files) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "environment.json", "labels.json",
        "recipe.yaml", "scores.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert set(bases.repos["model", REPO].files()) == set(found.files)
    contract("S5", files_planted=7, files_planted_that_went_up=0)


@pytest.mark.usefixtures("bases")
def test_a_pickle_by_the_name_of_weights_is_refused(run):
    made = run("text-classification", "whole")
    (made / "model.safetensors").write_bytes(b"\x80\x04\x95 a pickle")

    with pytest.raises(UserError, match="is not a safetensors file"):
        publish(made, REPO, overrides=said("text-classification"))


@pytest.mark.usefixtures("trusting")
def test_an_adapter_names_its_base_on_the_hub_by_its_commit(run, bases):
    publish(run("text-classification", "lora"), REPO, overrides=said("text-classification"))

    files, commit = bases.repos["model", REPO].files(), bases.repos["model", "jane/bert"].branches["main"]
    config, recipe = json.loads(files["adapter_config.json"]), yaml.safe_load(files["recipe.yaml"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("jane/bert", commit)
    assert (recipe["model"]["path"], recipe["model"]["revision"]) == ("jane/bert", commit)
    assert "publish" not in recipe


def test_another_base_under_that_name_is_refused_before_anything_goes_up(run, hub, home):
    hub.upload("jane/bert", home / "gpt2")

    with pytest.raises(UserError, match="another base"):
        publish(run("text-classification", "lora"), REPO, overrides=said("text-classification"))

    assert ("model", REPO) not in hub.repos


def test_what_answers_otherwise_elsewhere_is_said_and_exits_with_3(run, bases, monkeypatch, tmp_path):
    from huggingface_hub import snapshot_download

    def check(run, repository, commit, size):
        return published.compared(run, Path(snapshot_download(repository, revision=commit)))

    monkeypatch.setattr(published, "check_published", check)
    made = run("text-classification", "lora")
    other = run("text-classification", "lora", train={"output_dir": str(tmp_path / "other"), "seed": 5})
    (made / "adapter_model.safetensors").write_bytes((other / "adapter_model.safetensors").read_bytes())

    with pytest.raises(CheckFailed, match="answers otherwise than") as raised:
        publish(made, REPO, overrides={**said("text-classification"), "publish.tag": "v1"})

    assert raised.value.exit_code == 3
    assert "v1" not in bases.repos["model", REPO].tags
    assert not json.loads((made / "publish.json").read_text())["check"]["same"]
