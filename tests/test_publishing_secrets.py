"""Nothing of this machine leaves it: tokens, paths and rows planted wherever a run can pick them up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import hub_server
import pytest
import tiny
import yaml

from finetune import published
from finetune.cli import main
from finetune.errors import UserError
from finetune.publication import publish
from finetune.publishing.files import Upload
from finetune.publishing.leaks import Needle, leaks_of, needles
from finetune.publishing.scrubbing import holds_secret, without_paths

REPO = "jane/made"
PLANTED = "planted-51c3a7d09e"
GIVEN = {"publish.license": "mit", "publish.language": "en", "publish.base_model": "jane/bert"}


@pytest.fixture
def secret_home(tmp_path, monkeypatch, home, hub) -> Path:
    """A home folder with a base and rows in it, each with something planted; a token in the environment."""
    hub.upload("jane/bert", home / "bert")
    folder = tmp_path / "houses" / "janes-own-house"
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("MY_SERVICE_API_KEY", PLANTED)
    shutil.copytree(home / "bert", folder / "models" / "bert")
    config = folder / "models" / "bert" / "config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "_name_or_path": str(folder), "notes": f"{folder}/x"})
    )
    for name, count, seed in (("train", 64, 1), ("validation", 18, 2), ("test", 22, 3)):
        rows = tiny.sentences(count, seed)
        rows[0]["text"] += f" {PLANTED} {folder}/rows"
        tiny.write_rows(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture
def everything(hub):
    """Return a function to all bytes that the Hub holds: every version of every file, but those of the base."""

    def collect() -> bytes:
        repos = [repo for (_, name), repo in hub.repos.items() if name != "jane/bert"]
        return b"\n".join(
            blob.content for repo in repos for commit in repo.commits.values() for blob in commit.files.values()
        )

    return collect


@pytest.mark.parametrize("adapter", ["lora", "whole"])
def test_planted_tokens_and_paths_appear_nowhere_in_what_is_uploaded_or_said(
    secret_home, everything, sections, write_recipe, hub, capfd, monkeypatch, contract, adapter
):
    monkeypatch.setattr(published, "check_published", lambda *given: {"same": True, "said": ""})
    made = sections("text-classification", adapter, model={"path": str(secret_home / "models" / "bert")})
    made["data"] |= {name: str(secret_home / f"{name}.jsonl") for name in ("train", "validation", "test")}
    made["train"]["output_dir"] = str(secret_home / "runs" / "made")
    made["publish"] = {"to": REPO, "license": "mit", "language": "en", "base_model": "jane/bert"}

    assert main(["train", str(write_recipe(made))]) == 0

    uploaded, said = everything(), "".join(capfd.readouterr())
    assert len(uploaded) > 10_000
    for secret in (PLANTED, hub_server.TOKEN, str(secret_home), "janes-own-house"):
        assert secret.encode() not in uploaded
        assert secret.encode() not in b"".join(hub.received)
    for secret in (PLANTED, hub_server.TOKEN):
        assert secret not in said
        assert not any(secret.encode() in file.read_bytes() for file in (secret_home / "runs").rglob("*.json"))
    contract("S4", bytes_published=len(uploaded), secrets_and_paths_in_them=0)


def test_a_token_in_a_file_that_would_go_up_stops_the_publication_and_is_not_said(run, hub, home):
    hub.upload("jane/bert", home / "bert")
    made = run("text-classification", "whole")
    config = made / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hub_token": hub_server.TOKEN}))

    with pytest.raises(UserError, match=r"config\.json holds the") as raised:
        publish(made, REPO, overrides=GIVEN)

    assert hub_server.TOKEN not in str(raised.value)
    assert ("model", REPO) not in hub.repos


def test_rows_of_the_data_are_shown_by_consent_alone(run, hub, home, everything, monkeypatch):
    monkeypatch.setattr(published, "check_published", lambda *given: {"same": True, "said": ""})
    hub.upload("jane/bert", home / "bert")
    made = run("text-classification", "lora")

    publish(made, REPO, overrides=GIVEN)
    assert b"n3x0" not in everything()
    publish(made, REPO, overrides={**GIVEN, "publish.share_examples": True})

    assert b"n3x0" in everything()


def test_pictures_beside_rows_of_the_data_stay_without_consent(run, hub, monkeypatch):
    monkeypatch.setattr(published, "check_published", lambda *given: {"same": True, "said": ""})
    made = run("image-vae")

    shy = publish(made, REPO, overrides={"publish.license": "mit"}, dry_run=True).files
    open_ = publish(
        made, REPO, overrides={"publish.license": "mit", "publish.share_examples": True}, dry_run=True
    ).files

    assert {name for name in shy if name.startswith("samples/")} == {"samples/after.png", "samples/before.png"}
    assert {"samples/nearest.png", "samples/reconstructions.png"} <= set(open_)


def test_texts_of_the_data_in_the_recipe_of_a_text_vae_stay_without_consent(run, hub, everything, monkeypatch):
    monkeypatch.setattr(published, "check_published", lambda *given: {"same": True, "said": ""})
    made = run("text-vae")
    between = yaml.safe_load((made / "recipe.yaml").read_text())["task"]["between"]

    publish(made, REPO, overrides={"publish.license": "mit", "publish.language": "en"})

    assert len(between) == 2
    assert not any(text.encode() in everything() for text in between)


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("/data/jane/bert", "bert"),
        ("~/bert", "bert"),
        ("../models/bert", "bert"),
        ("file:///data/rows.csv", "rows.csv"),
        (r"C:\Users\jane\bert", "bert"),
        ({"/data/rows.csv": {"rows": 3}}, {"rows.csv": {"rows": 3}}),
        ("read /data/jane/rows.csv: 3 rows", "read rows.csv: 3 rows"),
        ("jane/bert", "jane/bert"),
        ("package://wheel/model", "package://wheel/model"),
        ("https://huggingface.co/jane/bert", "https://huggingface.co/jane/bert"),
        ("data/train.csv", "data/train.csv"),
        ("and/or", "and/or"),
        (
            {"added_tokens_decoder": {"5": {"content": "/tmp/x"}}},
            {"added_tokens_decoder": {"5": {"content": "/tmp/x"}}},
        ),
        ([1, None, True, 2.5], [1, None, True, 2.5]),
    ],
)
def test_of_a_path_of_this_machine_the_last_name_is_left(given, left):
    assert without_paths(given) == left


@pytest.mark.parametrize("place", [0, (1 << 24) - 5, (1 << 24) + 3])
def test_a_secret_is_found_wherever_it_lies_in_a_large_file(place):
    content = bytearray(b"\0" * ((1 << 24) + 1000))
    content[place : place + 12] = b"the-password"

    found = set(leaks_of(Upload("model.safetensors", bytes(content)), [Needle("it", b"the-password")]))

    assert found == {"it"}


LOOKS = ["what looks like a token or a key"]


@pytest.mark.parametrize(
    "text",
    ["hf_" + "a" * 34, "sk-" + "b1" * 20, "ghp_" + "c" * 36, "AKIA" + "D" * 16, "-----BEGIN RSA PRIVATE KEY-----",
     "github_pat_" + "a1B2_" * 16, "ASIA" + "D" * 16, "AIza" + "b-" * 17 + "c", "glpat-" + "c" * 20, "npm_" + "d" * 36,
     "xapp-1-A01-" + "e" * 30, "-----BEGIN PGP PRIVATE KEY BLOCK-----"],
)  # fmt: skip
@pytest.mark.parametrize("before", ["", "key:\n", "\t", "\r\n", "x_", "\x0b", "é"])
def test_what_looks_like_a_token_is_one_wherever_it_begins_in_a_file_of_json(text, before):
    for written in (json.dumps(before + text), json.dumps(before + text, ensure_ascii=False)):
        assert list(leaks_of(Upload("x.json", written.encode()), [])) == LOOKS
    assert holds_secret(before + text)


@pytest.mark.parametrize("text", ["ask-" + "b1" * 20, "0hf_" + "a" * 34, "AKIA" + "D" * 17, "sk-learn", "npm_install"])
def test_what_is_part_of_a_longer_word_or_too_short_is_no_token(text):
    assert not list(leaks_of(Upload("x.json", json.dumps(text).encode()), []))


def test_the_names_of_user_and_machine_are_looked_for_in_texts_and_not_in_vocabularies(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "lighthouse")
    monkeypatch.setattr("getpass.getuser", lambda: "margaret")
    text = b"trained by margaret on lighthouse"

    private = needles([], "acme/model")

    assert len(set(leaks_of(Upload("README.md", text, written_here=True), private))) == 2
    assert not list(leaks_of(Upload("vocab.txt", text), private))
    assert len(set(leaks_of(Upload("README.md", text, written_here=True), needles([], "margaret/model")))) == 1
