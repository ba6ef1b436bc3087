"""Autoencoders of images through the line: every objective from a recipe, what a run finds, and what it refuses."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from finetune.cli import main
from finetune.errors import UserError
from finetune.recipe import Recipe
from finetune.tasks.image_latents import Looked, latent_facts

EVERY_STEP = {"save_steps": 4, "save_strategy": "steps", "max_steps": 4}
CODES = {"config": {"model_type": "finetune-vqvae", "channels": [4], "levels": [4, 3], "codebook_size": 12}}
PLAIN = {"binarize": "dynamic", "kl_warmup": 0.0, "free_bits": 0.0, "flip": False}


def found(run, name="scores.json"):
    return json.loads((run / name).read_text(encoding="utf-8"))


def losses(run):
    return [each["loss"] for each in found(run, "history.json") if "loss" in each]


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ({"beta": 2.0}, {}),
        ({"kl_warmup": 0.5, "kl_schedule": "cyclical", "kl_cycles": 2}, {}),
        ({"objective": "iwae", "num_samples": 3}, {}),
        ({"condition": "label"}, {}),
        ({"binarize": "none"}, {"likelihood": "discretised-logistic"}),
        ({"binarize": "none"}, {"likelihood": "gaussian", "scale": 0.2}),
        ({"binarize": "none"}, {"preset": "vae-conv", "channels": [4], "likelihood": "gaussian"}),
        ({"binarize": "threshold"}, {"preset": "vae-2d", "hidden_sizes": [8], "latent_dim": 2}),
    ],
    ids=["beta", "cyclical", "iwae", "conditional", "levels", "density", "convolutions", "plane"],
)
def test_every_objective_and_likelihood_trains_from_a_recipe_and_comes_back(run, task, model):
    config = {"model_type": "finetune-vae", "latent_dim": 3, "hidden_sizes": [16], **model}
    folder = run("image-vae", task={**PLAIN, **task}, model={"config": config}, train={"max_steps": 3})
    scores, facts = found(folder)["test"], found(folder, "examination.json")

    assert found(folder, "reload.json")["same"]
    assert scores["nelbo"]["value"] == pytest.approx(scores["reconstruction"]["value"] + scores["kl"]["value"])
    assert sum(facts["kl_per_dimension"]) == pytest.approx(scores["kl"]["value"], abs=1e-3)
    assert len(facts["kl_per_dimension"]) == facts["latent_dim"]
    assert ("bits_per_dim" in scores) is (model.get("likelihood") is not None or task.get("binarize") != "none")
    planes = {"latent_plane", "manifold"} if facts["latent_dim"] == 2 else {"traversals"}
    drawn = {path.stem for path in (folder / "samples").glob("*.png") if not path.stem.startswith("step")}
    assert drawn == {"before", "after", "reconstructions", "interpolation", "nearest"} | planes


@pytest.mark.parametrize("quantizer", ["fsq", "ema"])
def test_codes_train_from_a_recipe_and_say_how_many_of_them_are_used(run, quantizer):
    folder = run(
        "image-vae", task=PLAIN, model={"config": {**CODES["config"], "quantizer": quantizer}},
        train={"max_steps": 3}, evaluate={"baselines": True},
    )  # fmt: skip
    scores = found(folder)["test"]

    assert found(folder, "reload.json")["same"]
    assert 0 < scores["code_usage"]["value"] <= 1
    assert 1 <= scores["code_perplexity"]["value"] <= 12
    assert scores["kl"]["value"] == pytest.approx(16 * np.log(12))  # a map of 4 x 4 codes
    assert {path.stem for path in (folder / "samples").glob("*.png")} == {"reconstructions"}
    assert "independent_pixels" not in found(folder).get("baselines", {})  # a fair rival of a density alone
    assert found(folder, "examination.json")["prior"].startswith("uniform over the codes")


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ({"objective": "iwae", "num_samples": 3}, {}),
        ({"kl_warmup": 1.0, "kl_schedule": "cyclical", "free_bits": 1.0}, {}),
        ({}, {"config": {**CODES["config"], "quantizer": "ema"}}),
        ({}, CODES),
    ],
    ids=["iwae", "cyclical", "ema", "fsq"],
)
def test_accumulation_changes_neither_the_logged_loss_nor_the_weights(run, weights, tmp_path, task, model):
    runs = [
        run(
            "image-vae", task={**PLAIN, **task}, model=model,
            train={"output_dir": str(tmp_path / f"by{parts}"), "per_device_train_batch_size": 16 // parts,
                   "gradient_accumulation_steps": parts, "max_steps": 3, "logging_steps": 1},
        )
        for parts in (1, 4)
    ]  # fmt: skip
    whole, parts = (weights(each) for each in runs)

    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=1e-4)
    for name, each in whole.items():
        assert np.allclose(parts[name], each, rtol=1e-3, atol=1e-4), name


def test_a_validation_split_is_scored_while_it_trains_and_chooses_the_best(run):
    folder = run(
        "image-vae",
        train={**EVERY_STEP, "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True},
    )
    logged = [each for each in found(folder, "history.json") if "eval_nelbo" in each]

    assert [each["step"] for each in logged] == [2, 4]
    for each in logged:
        assert each["eval_nelbo"] == pytest.approx(each["eval_reconstruction"] + each["eval_kl"], rel=1e-6)
        assert 0 <= each["eval_active_units"] <= 3


def test_no_model_from_scratch_takes_whatever_it_is_given():
    """`**kwargs` makes transformers' Trainer multiply losses; a "label" in a name makes it drop the evaluation loss."""
    from finetune.models.image_classifier import ImageClassifier
    from finetune.models.text_vae import TextVAE
    from finetune.models.vae import VAE
    from finetune.models.vqvae import VQVAE

    for model in (VAE, VQVAE, TextVAE, ImageClassifier):
        given = inspect.signature(model.forward).parameters
        assert model.accepts_loss_kwargs is False, model
        assert not [each for each in given.values() if each.kind is each.VAR_KEYWORD], model
    for model in (VAE, VQVAE, TextVAE):
        given = inspect.signature(model.forward).parameters
        assert given["return_loss"].default is True, model
        assert not [name for name in given if "label" in name], model


def test_a_latent_that_says_nothing_sets_off_an_alarm_and_one_that_speaks_does_not():
    rows = np.random.default_rng(0).standard_normal((200, 8))
    speaking = Looked(mean=rows, kl=np.full((200, 8), 0.9))
    silent = Looked(mean=rows * 0.01, kl=np.full((200, 8), 0.04))
    idle = Looked(mean=np.tile(rows, (1, 4)) * ([1] + [0] * 31), kl=np.full((200, 32), 0.1))

    facts, alarms = latent_facts(speaking)
    assert (facts["active_units"], facts["kl"], alarms) == (8, 7.2, ())
    assert latent_facts(silent)[1][0].startswith("the posterior has collapsed: 0 of 8 latent dimensions are in use and")
    assert latent_facts(idle)[1][0].startswith("most of the latent space is idle: 1 of 32")


def test_a_heavy_divergence_collapses_a_trained_model_and_the_run_says_so(run, capsys):
    folder = run("image-vae", task={**PLAIN, "beta": 50.0}, train={"num_train_epochs": 15, "learning_rate": 0.002})

    assert found(folder, "examination.json")["alarms"][0].startswith("the posterior has collapsed")
    assert "Beware: the posterior has collapsed" in capsys.readouterr().out
    assert "the posterior has collapsed" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_conditional_run_predicts_and_draws_by_class_and_refuses_rows_without_one(run, home, tmp_path):
    from finetune.reuse import evaluate, sample

    folder = run("image-vae", task={**PLAIN, "condition": "label"}, train={"max_steps": 2})
    without = tmp_path / "no-classes.npz"
    np.savez(without, image=np.load(home / "test.npz")["image"])

    assert sample(folder, count=6).is_file()
    with pytest.raises(UserError, match="label"):
        evaluate(folder, {"data.test": str(without)})


@pytest.mark.parametrize(
    ("task", "config", "line"),
    [
        ({"beta": -1.0}, {}, "task.beta is -1.0; give 0 or more"),
        ({"kl_warmup": 1.5}, {}, "task.kl_warmup is 1.5; it is a share of the steps"),
        ({"objective": "iwae"}, {}, "task.objective iwae needs task.num_samples of 2 or more"),
        ({"objective": "iwae", "num_samples": 2, "beta": 2.0}, {}, "task.objective iwae has no divergence"),
        ({"objective": "iwea"}, {}, "Did you mean iwae?"),
        ({"condition": "label", "label": "class"}, {}, "task.label and task.condition name two columns"),
        ({"free_bits": 1.0}, CODES["config"], "task.free_bits: finetune-vqvae draws no codes"),
        ({"condition": "label"}, CODES["config"], "task.condition: finetune-vqvae is told no classes"),
        ({"binarize": "threshold"}, {"likelihood": "gaussian"}, "binarize threshold needs likelihood bernoulli"),
        ({}, {"binarize": "threshold"}, "model.config.binarize is threshold, and the task makes it dynamic"),
        ({}, {"model_type": "gpt2"}, "model: image-vae trains finetune-vae or finetune-vqvae, and not gpt2"),
        ({}, {"preset": "vae-3d"}, "vae-3d"),
        ({}, {"latent_dims": 3}, "latent_dims"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_2(sections, tmp_path, capsys, task, config, line):
    made = sections("image-vae", task={**PLAIN, **task})
    made["model"] = {"config": {"model_type": "finetune-vae", **config}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(made), encoding="utf-8")
    code = main(["train", str(path)])
    said = [each for each in capsys.readouterr().err.splitlines() if each.startswith("finetune: ")]

    assert code == 2
    assert len(said) == 1
    assert line in said[0]
    assert not (tmp_path / "run").exists()


def test_the_recipes_of_this_repository_name_presets_that_there_are():
    from transformers import AutoConfig

    import finetune.models  # noqa: F401  # makes the families known

    recipes = [*Path(__file__).parents[1].glob("recipes/*vae*.yaml")]
    assert len(recipes) > 5
    for path in recipes:
        config = dict(Recipe.read(path).model.config)
        AutoConfig.for_model(config.pop("model_type"), **config)
