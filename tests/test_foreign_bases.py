"""An adapter's folder names its base: no code runs that the reader did not ask for, and no chain goes on for ever."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from foreign import edit, load, refused

from finetune.errors import UserError
from finetune.loading import ModelOptions, load_config, load_image_processor, load_tokenizer


def of(adapter: Path, base: Path) -> Path:
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    return adapter


def recipe(adapter: Path, held: Any) -> None:
    (adapter / "recipe.yaml").write_text(yaml.safe_dump(held))


@pytest.fixture
def evil(bert: Path, adapter: Path, tmp_path: Path) -> Path:  # the adapter is made before
    """A base whose files name code, which makes a folder when it is imported."""
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        auto = {"AutoConfig": "evil.A", "AutoModel": "evil.A", "AutoImageProcessor": "evil.A"}
        edit(bert / name, model_type="evil", auto_map={**auto, "AutoTokenizer": ["evil.A", "evil.A"]})
    (bert / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
    return bert


def test_a_recipe_beside_an_adapter_allows_no_code(evil, adapter, tmp_path, contract):
    recipe(adapter, {"model": {"path": str(evil), "trust_remote_code": True}})
    options = ModelOptions(path=str(adapter))

    for read in (load_config, load_tokenizer, lambda chosen: load_image_processor(chosen, 8, 1, 0.5, 0.5)):
        with suppress(UserError):
            read(options)
    with suppress(UserError):
        load(adapter)

    assert not (tmp_path / "ran").exists()
    contract("S2", executed=0)


def test_code_of_a_base_runs_where_the_reader_allows_it(evil, adapter, tmp_path):
    recipe(adapter, {"model": {"path": str(evil)}})

    with pytest.raises(UserError):  # evil.py has no class A
        load_config(ModelOptions(path=str(adapter), trust_remote_code=True))

    assert (tmp_path / "ran").exists()


def everything(adapter: Path) -> list[str]:
    chosen = ModelOptions(path=str(adapter))
    calls = (
        lambda: load_config(chosen),
        lambda: load_tokenizer(chosen),
        lambda: load_image_processor(chosen, 8, 1, 0.5, 0.5),
        lambda: load(adapter),
    )
    return [refused(call) for call in calls]


def test_an_adapter_on_itself_is_refused(adapter, contract):
    of(adapter, adapter)

    assert all("its own base" in said for said in everything(adapter))
    contract("S2", refused=4)


def test_an_adapter_on_itself_by_another_name_is_refused(adapter, tmp_path):
    (tmp_path / "other").symlink_to(adapter)
    of(adapter, tmp_path / "other")

    assert all("its own base" in said for said in everything(adapter))


def test_two_adapters_on_each_other_are_refused(adapter, tmp_path):
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    of(adapter, other)
    of(other, adapter)

    assert all("its own base" in said for said in everything(adapter))


def test_a_long_chain_of_adapters_is_refused_and_a_short_one_read(bert, adapter, tmp_path):
    chain = [of(adapter, bert)]
    for number in range(6):
        chain.append(of(Path(shutil.copytree(adapter, tmp_path / f"a{number}")), chain[-1]))

    assert load_config(ModelOptions(path=str(chain[1]))).model_type == "bert"
    assert load(chain[1])[1] == []
    assert all("one upon another" in said for said in everything(chain[-1]))


RECIPES = [
    [],
    {"data": {}},
    {"model": ["x"]},
    {"model": {"path": ["x"]}},
    {"model": {"path": 5}},
    {"model": {"pathh": "x"}},
    {"model": {"config": {"model_type": "bert"}}},
    {"model": {"path": "x" * 2_000_000}},
]


@pytest.mark.parametrize("held", RECIPES, ids=[str(n) for n in range(len(RECIPES))])
def test_a_recipe_beside_an_adapter_that_names_no_base_is_said_in_one_line(adapter, held):
    recipe(adapter, held)

    everything(adapter)


@pytest.mark.parametrize(
    "text", ["[" * 30_000, "a: [", "\x00", "a: &a [*a]", "model: !!python/object/apply:os.mkdir [ran]"]
)
def test_a_damaged_recipe_beside_an_adapter_is_said_in_one_line(adapter, text):
    (adapter / "recipe.yaml").write_text(text)

    everything(adapter)


@pytest.mark.parametrize("base", [5, ["x"], "", None, {"a": 1}])
def test_an_adapter_that_names_no_base_is_said_in_one_line(adapter, base):
    edit(adapter / "adapter_config.json", base_model_name_or_path=base)

    everything(adapter)


def test_a_large_configuration_of_an_adapter_is_not_read(adapter):
    (adapter / "adapter_config.json").write_text(json.dumps({"a": "x" * (1 << 25)}))

    assert all("bytes" in said for said in everything(adapter))
