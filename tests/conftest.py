"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import contract as reliability
import hub_server
import pytest
import tiny
import unpickling
import yaml
from tiny_documents import documents

# Equal bits are promised for an equal number of threads; one also keeps test processes off each other's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.fsync = lambda handle: None  # it waits for a disk that no test takes away; tests of the checkpoints count its calls
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job ignores it, as its children would
    signal.signal(signal.SIGINT, signal.default_int_handler)
unpickling.begin()
nothing_is_unpickled = unpickling.nothing_is_unpickled
HANDED: list[tuple[str, str, dict[str, Any]]] = []  # figures of the tests that passed: node, line, figures


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--contract", type=Path, metavar="FILE", help="keep the figures of the reliability contract")
    parser.addoption("--kills", type=int, default=60, help="how many runs tests/faults kills; 200 for the long mode")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        HANDED.extend((report.nodeid, *each) for name, each in report.user_properties if name == "contract")


def pytest_runtest_teardown(kept: dict[str, int] = {"modules": 0}) -> None:  # noqa: B006 - one for all tests
    """Leave the objects of newly imported libraries out of the collections that end every training."""
    if len(sys.modules) > kept["modules"] + 100:
        gc.collect()
        gc.freeze()
        kept["modules"] = len(sys.modules)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--contract")
    if path is not None and HANDED and not hasattr(session.config, "workerinput"):  # the workers report to this one
        reliability.write(path, reliability.collected(HANDED))


@pytest.fixture
def contract(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that keeps a test's figures for a line of the contract: contract("R1", kills=60)."""

    def keep(line: str, /, **figures: float) -> None:
        reliability.check(line, figures)
        plain = {name: int(value) if isinstance(value, int) else float(value) for name, value in figures.items()}
        request.node.user_properties.append(("contract", (line, plain)))  # NumPy's numbers do not pass between workers

    return keep


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models (bert/, gpt2/, …) and the rows of three splits."""
    folder = tmp_path_factory.mktemp("home")
    tiny.save_teacher(folder / "teacher", tiny.save_encoder(folder / "bert"))
    for family in ("gpt2", "opt", "llama"):
        tiny.save_decoder(folder / family, family)
    tiny.save_decoder(folder / "gpt2-dropout", "gpt2", dropout=0.1)
    tiny.save_decoder(folder / "gpt2-long", "gpt2", positions=160)
    tiny.save_decoder(folder / "gpt2-wide", "gpt2", width=48, layers=4)
    tiny.save_teacher(folder / "teacher-tags", folder / "bert", "TokenClassification", tiny.TAGS)
    tiny.save_seq2seq(folder / "bart")
    for name, count, seed in (("train", 64, 1), ("validation", 18, 2), ("test", 22, 3)):
        tiny.write_rows(folder / f"{name}.jsonl", tiny.sentences(count, seed))
        tiny.write_rows(folder / f"{name}-tags.jsonl", tiny.tagged(count, seed))
        tiny.write_rows(folder / f"{name}-questions.jsonl", tiny.questions(count, seed))
        tiny.write_rows(folder / f"{name}-documents.jsonl", documents(count, seed))
        tiny.write_images(folder / f"{name}.npz", count, seed)
    return folder


@pytest.fixture
def sections(home: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that makes the sections of a tiny recipe: sections(kind, adapter, train={…}, task={…})."""

    def make(kind: str, adapter: str = "whole", /, **changes: dict[str, Any]) -> dict[str, Any]:
        made = tiny.sections(home, tmp_path / "run", kind, adapter)
        for name, options in changes.items():
            made[name] = {**made.get(name, {}), **options}
        if "dp" in made["train"] and "max_grad_norm" not in changes["train"]:
            del made["train"]["max_grad_norm"]  # tiny.SGD's
        return made

    return make


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Return a function that writes sections into a recipe file and returns its path."""

    def write(made: dict[str, Any], name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(made, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def run(sections: Any, write_recipe: Any) -> Callable[..., Path]:
    """Return a function that trains a tiny recipe and returns its run folder."""
    from finetune.recipe import Recipe
    from finetune.run import train

    def go(kind: str, adapter: str = "whole", /, **changes: dict[str, Any]) -> Path:
        return train(Recipe.read(write_recipe(sections(kind, adapter, **changes))))

    return go


@pytest.fixture(scope="session")
def known() -> dict[tuple[str, str], Path]:
    """The runs of `plain`."""
    return {}


@pytest.fixture
def plain(run: Any, known: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Return a function that gives the run of a cell's own recipe, trained once for all tests that only read it."""

    def go(kind: str, adapter: str = "whole") -> Path:
        if (kind, adapter) not in known:
            folder = tmp_path_factory.mktemp("plain") / "run"
            known[kind, adapter] = run(kind, adapter, train={"output_dir": str(folder)})
        return known[kind, adapter]

    return go


@pytest.fixture
def bert(home: Path, tmp_path: Path) -> Path:
    """A copy of the tiny encoder, to be damaged."""
    return Path(shutil.copytree(home / "bert", tmp_path / "bert"))


@pytest.fixture
def adapter(bert: Path, tmp_path: Path) -> Path:
    """An adapter on that copy."""
    from foreign import base_of
    from peft import LoraConfig

    from finetune.adapters import attach

    attached = attach(base_of(bert), LoraConfig(r=2, target_modules="auto"), [])
    attached.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.Store]:
    """A Hub on this machine, which this process and those that it starts talk to, with jane's token and no cache."""
    import datasets.config  # before the variables are set: it reads them once, and keeps them for the next test
    from huggingface_hub import constants, hf_api

    with hub_server.serving() as store:
        variables = {
            "HF_ENDPOINT": store.address, "HF_TOKEN": hub_server.TOKEN, "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0",
        }  # fmt: skip
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        template = store.address + "/{repo_id}/resolve/{revision}/{filename}"
        for name, known in {
            "ENDPOINT": store.address, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(tmp_path / "hf" / "hub"),
            "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_DISABLE_XET": True,
        }.items():  # fmt: skip
            monkeypatch.setattr(constants, name, known)
        for name, known in {
            "HF_ENDPOINT": store.address, "HF_HUB_OFFLINE": False, "HF_DATASETS_CACHE": tmp_path / "hf" / "datasets",
            "HUB_DATASETS_URL": store.address + "/datasets/{repo_id}/resolve/{revision}/{path}",
        }.items():  # fmt: skip
            monkeypatch.setattr(datasets.config, name, known)
        monkeypatch.setattr(hf_api.api, "endpoint", store.address)  # behind huggingface_hub's own functions
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # made once, with the Hub of that moment
        yield store


@pytest.fixture
def weights() -> Callable[[Path], dict[str, Any]]:
    """Return a function from a run folder to its trained tensors by name."""
    from safetensors.torch import load_file

    def load(folder: Path) -> dict[str, Any]:
        adapter = folder / "adapter_model.safetensors"
        return load_file(adapter if adapter.exists() else folder / "model.safetensors")

    return load
