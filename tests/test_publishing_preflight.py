"""What can be known before training is asked before training, and a push that fails costs no run."""

from __future__ import annotations

import json
import os
import signal

import hub_server
import pytest
import yaml

from finetune import artefact, published
from finetune.cli import main
from finetune.errors import UserError
from finetune.publication import preflight
from finetune.recipe import Recipe
from finetune.tasks.text_classification import TextClassification

REPO = "jane/made"
PUBLISH = {"to": REPO, "license": "mit", "language": "en", "base_model": "jane/bert"}


@pytest.fixture
def hub(hub, home):
    hub.upload("jane/bert", home / "bert")
    hub.accounts |= {
        "hf_fine": hub_server.Account("jane", "fineGrained", writes=("jane",)),
        "hf_elsewhere": hub_server.Account("jane", "fineGrained", writes=("acme",)),
    }
    return hub


@pytest.fixture
def recipe(sections, write_recipe):
    """Return a function that reads a tiny recipe with a publish section."""

    def read(kind: str = "text-classification", adapter: str = "lora", **publish: object) -> Recipe:
        given = {name: value for name, value in {**PUBLISH, **publish}.items() if value is not None}
        return Recipe.read(write_recipe(sections(kind, adapter, publish=given)))

    return read


@pytest.mark.parametrize("token", [hub_server.TOKEN, "hf_fine"])
def test_a_pre_flight_makes_the_private_repository_and_pins_the_base(hub, recipe, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)

    checked = preflight(recipe())

    assert hub.repos["model", REPO].private
    assert checked.publish.base_revision == hub.repos["model", "jane/bert"].branches["main"]


def test_a_check_asks_the_same_and_makes_nothing(hub, recipe):
    preflight(recipe(), create=False)

    assert ("model", REPO) not in hub.repos


REFUSED = [
    ({}, {"HF_TOKEN": "hf_readsonly"}, "may only read"),
    ({}, {"HF_TOKEN": "hf_elsewhere"}, "may not write to jane/made"),
    ({}, {"HF_TOKEN": "hf_unknown"}, "does not know this token"),
    ({}, {"HF_TOKEN": ""}, "there is no token. Set HF_TOKEN, or run `hf auth login`"),
    ({"to": "acne/made"}, {}, "acne is neither jane, whose token this is, nor an organisation of theirs. Did you mean"),
    ({"license": None}, {}, "publish.license is missing"),
    ({"license": "mine"}, {}, "publish: the card: the Hub refuses it"),
    ({"language": None}, {}, "publish.language is missing"),
    ({"language": "English"}, {}, "publish: the card: the Hub refuses it"),
    ({"base_model": None}, {}, "publish.base_model is missing: model.path is"),
    ({"base_model": "none"}, {}, "an adapter is worth nothing without its base"),
    ({"base_model": "jane/bertt"}, {}, "the Hub has no model jane/bertt"),
    ({"base_revision": "v9"}, {}, "has no revision 'v9'"),
]


@pytest.mark.parametrize(("publish", "environment", "said"), REFUSED)
def test_what_would_stop_the_publication_stops_the_training_in_one_line(
    hub, recipe, monkeypatch, publish, environment, said
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(UserError) as raised:
        preflight(recipe(**publish))

    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert ("model", REPO) not in hub.repos


def test_a_public_repository_is_not_filled_with_what_should_be_private(hub, recipe):
    hub.create(REPO)

    with pytest.raises(UserError, match=r"is public on the Hub, and publish\.private is true"):
        preflight(recipe())
    preflight(recipe(private=False))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"to": "a/b/c"}, "a repository of the Hub is called USER/NAME"),
        ({"attempts": 0}, "give 1 or more"),
        ({"license": "other"}, "publish.license_name is missing"),
        ({"token": "hf_x"}, "publish.token is not an option of publish"),
        ({"privat": True}, "Did you mean private?"),
    ],
)
def test_a_wrong_option_is_said_with_its_place(recipe, option, said):
    with pytest.raises(UserError) as raised:
        recipe(**option)

    assert said in str(raised.value)
    assert "recipe.yaml:" in str(raised.value)


def test_a_refused_pre_flight_leaves_no_run(hub, sections, write_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_readsonly")
    file = write_recipe(sections("text-classification", "lora", publish=PUBLISH))

    assert main(["train", str(file)]) == 2

    assert "may only read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_push_that_fails_does_not_fail_the_training_and_is_finished_later(
    hub, sections, write_recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(published, "check_published", lambda *given: {"same": True, "said": ""})
    monkeypatch.setattr("finetune.publishing.patience.time.sleep", lambda seconds: None)
    broken = hub.fail("status", times=1000, path="/commit/", status=500)
    file = write_recipe(sections("text-classification", "lora", publish={**PUBLISH, "attempts": 2}))

    assert main(["train", str(file)]) == 0

    run, shown = tmp_path / "run", capsys.readouterr().out
    assert f"Not published: publish.to: {REPO}: the Hub answered 500" in shown
    assert f"`finetune publish {run}` publishes it later" in shown
    assert artefact.status(run) == "finished"
    assert not hub.repos["model", REPO].files()
    broken.times = 0
    assert main(["publish", str(run)]) == 0
    assert "adapter_model.safetensors" in hub.repos["model", REPO].files()


def test_a_recipe_with_where_to_publish_publishes_when_it_is_trained(
    hub, sections, write_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(published, "check_published", lambda *given: {"same": True, "said": ""})
    file = write_recipe(sections("text-classification", "whole", publish={**PUBLISH, "tag": "v1"}))

    assert main(["train", str(file)]) == 0

    files = hub.repos["model", REPO].files("v1")
    assert "model.safetensors" in files
    assert yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())["publish"]["to"] == REPO
    assert json.loads((tmp_path / "run/publish.json").read_text())["tag"] == "v1"


def test_a_training_that_is_stopped_pushes_nothing_and_publishes_when_it_has_gone_on(
    hub, sections, write_recipe, tmp_path, monkeypatch, contract
):
    monkeypatch.setattr(published, "check_published", lambda *given: {"same": True, "said": ""})
    file = write_recipe(sections("text-classification", "whole", publish=PUBLISH))
    loss, asked = TextClassification.loss, []

    def stopped(self, *args):
        asked.append(0)
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(TextClassification, "loss", stopped)
        assert main(["train", str(file)]) == 143

    assert artefact.status(tmp_path / "run") != "finished"
    assert not hub.repos["model", REPO].files()
    assert not [path for method, path, _ in hub.requests if method in ("POST", "PUT") and REPO in path]
    assert not hub.objects  # no weights either, of which no commit speaks yet
    assert main(["train", str(file)]) == 0
    assert "model.safetensors" in hub.repos["model", REPO].files()
    contract("R5", pushed_when_stopped=0)


@pytest.mark.parametrize("adapter", ["lora", "whole"])
def test_a_base_of_the_hub_needs_no_name_and_keeps_the_commit_that_was_trained_on(hub, run, monkeypatch, adapter):
    from finetune.publication import publish

    monkeypatch.setattr(published, "check_published", lambda *given: {"same": True, "said": ""})
    repo = hub.repos["model", "jane/bert"]
    first = repo.branches["main"]
    made = run("text-classification", adapter, model={"path": "jane/bert"})
    repo.add("main", {}, "somebody empties the base")

    publish(made, REPO, overrides={"publish.license": "mit", "publish.language": "en"})

    files = hub.repos["model", REPO].files()
    assert f"`jane/bert` at revision `{first}`" in files["README.md"].decode()
    if adapter == "lora":
        config = json.loads(files["adapter_config.json"])
        assert (config["base_model_name_or_path"], config["revision"]) == ("jane/bert", first)


def test_a_whole_model_may_come_from_a_base_that_is_not_on_the_hub(hub, recipe):
    assert preflight(recipe(adapter="whole", base_model="none")).publish.base_revision is None
