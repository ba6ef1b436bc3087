"""Faults of the Hub and of the way there: success after another try, or one line and a run that is still whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils import _http

from finetune import published
from finetune.errors import CheckFailed, EnvironmentFailed, UserError
from finetune.publication import publish
from finetune.publishing import patience

REPO = "jane/reviews"
GIVEN = {"publish.license": "mit", "publish.language": "en", "publish.base_model": "jane/bert", "publish.attempts": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, home) -> Path:
    import tiny
    import yaml

    from finetune.recipe import Recipe
    from finetune.run import train

    folder = tmp_path_factory.mktemp("faults")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny.sections(home, folder / "run", "text-classification", "lora")))
    return train(Recipe.read(recipe))


@pytest.fixture
def copied(trained, tmp_path, hub, home) -> Path:
    """A run, and a Hub that has its base."""
    hub.upload("jane/bert", home / "bert")
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def run(copied, monkeypatch) -> Path:
    """A run whose check downloads all files and loads none: what it finds has tests of its own."""

    def check(run: Path, repository: str, commit: str, size: int) -> dict:
        folder = Path(snapshot_download(repository, revision=commit))
        weights = "adapter_model.safetensors"
        return {"same": (folder / weights).read_bytes() == (run / weights).read_bytes(), "said": ""}

    monkeypatch.setattr(published, "check_published", check)
    return copied


@pytest.fixture(autouse=True)
def pauses(monkeypatch) -> list[float]:
    """Pauses are noted and not waited for."""
    noted: list[float] = []
    clock = SimpleNamespace(sleep=noted.append, time=_http.time.time, monotonic=_http.time.monotonic)
    monkeypatch.setattr(patience, "time", clock)
    monkeypatch.setattr(_http, "time", clock)
    return noted


def digests(run: Path) -> dict[str, str]:
    files = (file for file in run.rglob("*") if file.is_file() and file.name != "publish.json")
    return {str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def head_files(hub) -> set[str]:
    repo = hub.repos.get(("model", REPO))
    return set(repo.files()) if repo else set()


def named(given: object) -> str:
    return "-".join(str(each) for each in given.values()) if isinstance(given, dict) else ""


PASSING = [
    ({"path": "/api/whoami", "kind": "status", "status": 500, "times": 2}, 3),
    ({"path": "/commit/", "kind": "status", "status": 500, "times": 2}, 3),
    ({"path": "/commit/", "kind": "status", "status": 429, "headers": {"Retry-After": "7"}}, 7),
    ({"path": "/commit/", "kind": "status", "status": 409}, 1),
    ({"path": "/commit/", "kind": "status", "status": 412}, 1),
    ({"path": "/repos/create", "kind": "status", "status": 503}, 1),
    ({"path": "/preupload/", "kind": "status", "status": 502}, 1),
    ({"path": "/lfs/", "method": "PUT", "kind": "cut"}, 1),
    ({"path": "/lfs/", "method": "PUT", "kind": "status", "status": 500, "times": 4}, 15),
    ({"path": "/objects/batch", "kind": "cut"}, 1),
    ({"path": "/commit/", "kind": "cut"}, 1),
    ({"path": "/commit/", "kind": "lost"}, 1),
    ({"path": "/tag/", "kind": "lost"}, 1),
    ({"path": "/cdn/", "kind": "short"}, 0),
    ({"path": "/resolve/.*tokenizer.json", "method": "GET", "kind": "cut"}, 0),
]


@pytest.mark.parametrize(("fault", "waited"), PASSING, ids=named)
def test_a_fault_that_passes_is_waited_for_and_one_commit_comes_of_it(hub, run, pauses, fault, waited):
    before, fault = digests(run), dict(fault)
    hub.fail(fault.pop("kind"), **fault)

    made = publish(run, REPO, overrides={**GIVEN, "publish.tag": "v1"})

    assert made.check["same"]
    assert sum(pauses) >= waited
    repo = hub.repos["model", REPO]
    assert set(repo.files("v1")) == set(made.files)
    assert len(repo.commits) == 2  # the empty one, and ours
    assert digests(run) == before


@pytest.mark.parametrize("kind", ["stall", "drip"])
def test_a_hub_that_answers_too_slowly_is_left_and_asked_again(hub, run, monkeypatch, kind):
    monkeypatch.setattr(patience, "SILENCE", 1.0)
    monkeypatch.setattr(published, "BYTES_A_SECOND", 1)
    monkeypatch.setattr("finetune.publishing.hub.SECONDS", 3.0)
    hub.fail(kind, path="/commit/", pause=5.0 if kind == "stall" else 0.05)

    made = publish(run, REPO, overrides=GIVEN)

    assert made.check["same"]
    assert set(hub.repos["model", REPO].files()) == set(made.files)


def test_an_upload_that_the_client_gives_up_is_made_again_and_said_in_the_end(hub, run, monkeypatch):
    real, left = HfApi.create_commit, [2]

    def failing(self, *given, **named):
        left[0] -= 1
        if left[0] >= 0:
            raise RuntimeError("Data processing error: CAS service error")  # as hf_xet's are
        return real(self, *given, **named)

    monkeypatch.setattr(HfApi, "create_commit", failing)
    assert publish(run, REPO, overrides=GIVEN).check["same"]

    left[0] = 3
    with pytest.raises(EnvironmentFailed, match=r"CAS service error\), 3 times"):
        publish(run, REPO, overrides=GIVEN)


LASTING = [
    ({"path": "/api/whoami", "kind": "status", "status": 401}, UserError, "does not know this token"),
    ({"path": "/repos/create", "kind": "status", "status": 403}, UserError, "may not write there"),
    ({"path": "/preupload/", "kind": "status", "status": 403}, UserError, "may not write there"),
    ({"path": "/commit/", "kind": "status", "status": 401}, UserError, "does not know this token"),
    ({"path": "/commit/", "kind": "status", "status": 403}, UserError, "may not write there"),
    ({"path": "/commit/", "kind": "status", "status": 412}, EnvironmentFailed, "412"),
    ({"path": "/commit/", "kind": "status", "status": 429}, EnvironmentFailed, "429"),
    ({"path": "/commit/", "kind": "status", "status": 500}, EnvironmentFailed, "500"),
    ({"path": "/commit/", "kind": "cut"}, EnvironmentFailed, "cannot be reached"),
    ({"path": "/lfs/", "method": "PUT", "kind": "cut"}, EnvironmentFailed, "cannot be reached"),
    ({"path": "/lfs/", "method": "PUT", "kind": "status", "status": 403}, UserError, "403"),
    ({"path": "/validate-yaml", "kind": "status", "status": 500}, EnvironmentFailed, "500"),
    ({"path": "/validate-yaml", "kind": "status", "status": 400}, UserError, "the card"),
]


@pytest.mark.parametrize(
    ("fault", "error", "said"), LASTING, ids=lambda each: each["path"] if isinstance(each, dict) else ""
)
def test_a_fault_that_lasts_ends_in_one_line_nothing_visible_and_a_later_success(hub, run, fault, error, said):
    before, fault = digests(run), dict(fault)
    broken = hub.fail(fault.pop("kind"), **{"times": 1000, **fault})

    with pytest.raises(error) as raised:
        publish(run, REPO, overrides=GIVEN)

    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not head_files(hub)
    assert digests(run) == before
    broken.times = 0
    made = publish(run, REPO, overrides=GIVEN)
    assert made.check["same"]
    assert head_files(hub) == set(made.files)
    sent = [path for method, path, status in hub.requests if (method, status) == ("PUT", 200)]
    assert len(sent) == len(set(sent))  # what had arrived was not sent again


@pytest.mark.faults
def test_a_disk_that_fills_while_the_publication_is_checked_is_said_and_the_check_made_up_for_later(hub, copied):
    resource = pytest.importorskip("resource")
    before, (soft, hard) = digests(copied), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))
    try:
        with pytest.raises(EnvironmentFailed, match="could not be checked: a file may not become that large") as raised:
            publish(copied, REPO, overrides=GIVEN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert f"`finetune publish {copied}` checks it again" in str(raised.value)
    assert json.loads((copied / "publish.json").read_text())["check"] is None
    assert digests(copied) == before
    made = publish(copied, REPO, overrides=GIVEN)
    assert made.check["same"]
    assert len(hub.repos["model", REPO].commits) == 2


@pytest.mark.faults
def test_a_download_that_never_ends_is_given_up(hub, copied, monkeypatch):
    monkeypatch.setattr(published, "BYTES_A_SECOND", 1e9)
    monkeypatch.setattr(published, "PATIENCE", 20.0)
    hub.fail("drip", path="/cdn/", times=1000, pause=0.5)

    with pytest.raises(EnvironmentFailed, match="loading it elsewhere took more than"):
        publish(copied, REPO, overrides=GIVEN)


@pytest.mark.faults
def test_a_base_that_is_gone_is_found_by_the_check(hub, copied, monkeypatch):
    real = published.check_published

    def check(*given):
        del hub.repos["model", "jane/bert"]
        return real(*given)

    monkeypatch.setattr(published, "check_published", check)

    with pytest.raises(CheckFailed, match=r"does not load elsewhere: .*jane/bert"):
        publish(copied, REPO, overrides=GIVEN)
