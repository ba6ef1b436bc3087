"""How new a row is to a classifier: measured on outliers, kept with the run, told by `predict`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from sklearn.metrics import roc_auc_score

from finetune import artefact, novelty
from finetune.cli import main
from finetune.evaluation.novelty import DETECTORS, SCORE, Looked, Novelty, fit, novelty_scores
from finetune.models.vector_vae import VectorVAE, VectorVAEConfig

WIDTH, CLASSES = 6, 3


def looked(count: int, seed: int, shift: float = 0.0) -> tuple[Looked, np.ndarray]:
    """Return embeddings of three classes around their means, moved by `shift` along the first number."""
    draw = np.random.default_rng(seed)
    means = np.random.default_rng(0).normal(size=(CLASSES, WIDTH)) * 3
    targets = np.arange(count) % CLASSES
    embeddings = means[targets] + draw.normal(size=(count, WIDTH))
    embeddings[:, 0] += shift
    squares = ((embeddings[:, None] - means) ** 2).sum(axis=2)
    return Looked(embeddings.astype(np.float32), (-squares / 2).astype(np.float32)), targets


@pytest.fixture(scope="module")
def fitted() -> Novelty:
    return fit(*looked(600, seed=1), validation=looked(200, seed=2)[0])


@pytest.fixture
def far(tmp_path: Path) -> Path:
    """Images of uniform noise: neither bright above nor below."""
    path = tmp_path / "far.npz"
    np.savez_compressed(path, image=np.random.default_rng(7).integers(0, 256, (30, 8, 8)).astype(np.uint8))
    return path


def test_densities_tell_far_rows_for_sure_and_rows_of_the_same_kind_not_at_all(fitted: Novelty):
    usual, same, other = (fitted.scores(looked(400, seed, shift)[0]) for seed, shift in ((3, 0), (4, 0), (5, 40)))
    for told, least in (("vae", 0.999), ("mahalanobis", 0.999), ("knn", 0.9)):  # knn sees directions alone
        assert novelty_scores(usual, other, told, 0)[0][SCORE].value > least, told
        assert abs(novelty_scores(usual, same, told, 0)[0][SCORE].value - 0.5) < 0.07, told


def test_the_score_is_scikit_learns_area_and_a_gap_is_a_difference(fitted: Novelty):
    usual, other = (fitted.scores(looked(80, seed, shift)[0]) for seed, shift in ((3, 0), (5, 2)))
    own, rivals = novelty_scores(usual, other, "vae", 100)
    positive = np.r_[np.zeros(80), np.ones(80)]
    for name, found in {"vae": own, **rivals}.items():
        assert found[SCORE].value == pytest.approx(roc_auc_score(positive, np.r_[usual[name], other[name]])), name
    assert {"vae", *rivals} == set(DETECTORS)
    gap = rivals["energy"][f"{SCORE}_gap"]
    assert gap.value == pytest.approx(own[SCORE].value - rivals["energy"][SCORE].value)
    assert gap.low <= gap.value <= gap.high


def test_mahalanobis_is_the_distance_under_the_covariance_inside_classes():
    seen, targets = looked(900, seed=1)
    scores = fit(seen, targets, seen).scores(Looked(seen.embeddings[:50], seen.logits[:50]))["mahalanobis"]
    inside = [seen.embeddings[targets == number] for number in range(CLASSES)]
    covariance = sum(np.cov(each.T) for each in inside) / CLASSES
    means = [each.mean(axis=0) for each in inside]
    expected = [
        min((row - mean) @ np.linalg.solve(covariance, row - mean) for mean in means) for row in seen.embeddings[:50]
    ]
    np.testing.assert_allclose(scores, expected, rtol=0.15)


def test_novelty_of_usual_rows_is_spread_evenly(fitted: Novelty):
    seen = looked(1000, seed=9)[0]
    for name, scores in fitted.scores(seen).items():
        shares = fitted.shares(name, scores)
        assert 0 <= shares.min() <= shares.max() <= 1
        assert abs(np.median(shares) - 0.5) < 0.12, name


def test_a_row_is_as_new_beside_others_as_alone(fitted: Novelty):
    seen = looked(30, seed=3)[0]
    together = fitted.scores(seen)
    for name in DETECTORS:
        alone = [fitted.scores(Looked(seen.embeddings[[at]], seen.logits[[at]]))[name][0] for at in (0, 17)]
        np.testing.assert_allclose(alone, together[name][[0, 17]], rtol=1e-4, err_msg=name)


def test_a_fit_is_the_same_again_and_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    one, two = (fit(*looked(60, seed=1), validation=None) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for mine, other in zip(one.vae.parameters(), two.vae.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_what_is_kept_comes_back_and_is_refused_when_damaged(fitted: Novelty, tmp_path: Path):
    novelty.save(fitted, tmp_path)
    again = novelty.load(tmp_path)
    seen = looked(40, seed=3)[0]
    for name, scores in again.scores(seen).items():
        np.testing.assert_array_equal(scores, fitted.scores(seen)[name])
        np.testing.assert_array_equal(again.shares(name, scores), fitted.shares(name, scores))
    assert {each.suffix for each in (tmp_path / "novelty").iterdir()} == {".json", ".safetensors"}
    (tmp_path / "novelty" / novelty.TABLES).write_bytes(b"nothing")
    with pytest.raises(novelty.UserError, match="the run is damaged"):
        novelty.load(tmp_path)


def test_the_importance_weighted_bound_of_a_linear_autoencoder_is_its_likelihood():
    torch.manual_seed(0)
    model = VectorVAE(VectorVAEConfig(size=3, latent_dim=2, hidden_sizes=[4])).eval()
    with torch.no_grad():  # the decoder ignores its latent, the encoder says the prior: p(x) is one Gaussian
        for layer in (model.head, model.decoder[-1]):
            layer.weight.zero_()
            layer.bias.zero_()
        vectors = torch.randn(5, 3)
        expected = torch.distributions.Normal(0.0, 1.0).log_prob(vectors).sum(dim=1)
        bound = -model(vectors, torch.randn(5, 2))
    torch.testing.assert_close(model.log_likelihood(vectors, 7), expected, rtol=1e-3, atol=0.02)
    torch.testing.assert_close(bound, expected, rtol=1e-3, atol=0.02)


def test_a_run_measures_outliers_keeps_its_detectors_and_predicts_novelty(run: Any, home: Path, far: Path, capsys: Any):
    folder = run("image-classification", evaluate={"outliers": str(far)}, train={"max_steps": 30, "learning_rate": 0.2})

    scores = artefact.read_json(folder / "scores.json")
    assert scores["test"][SCORE]["n"] == 22 + 30
    assert {"energy", "knn", "mahalanobis", "softmax"} <= set(scores["baselines"])
    facts = artefact.read_json(folder / "examination.json")["novelty"]
    assert facts["outliers"] == 30
    assert facts["usual_rows_from"] == "validation"
    assert (folder / "samples" / "novelty.png").exists()
    assert SCORE.replace("_auroc", "") in (folder / "report.html").read_text()

    answers = {}
    for size in ("1", "16"):
        output = folder.parent / f"{size}.jsonl"
        told = ["--output", str(output), "--train.per_device_eval_batch_size", size]
        assert main(["predict", str(folder), str(home / "test.npz"), *told]) == 0
        answers[size] = [json.loads(line)["novelty"] for line in output.read_text().splitlines()]
    np.testing.assert_allclose(answers["1"], answers["16"], atol=0.06)  # one of 18 usual rows may be passed
    assert all(0 <= share <= 1 for share in answers["1"])
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--evaluate.novelty", "energy", "--evaluate.resamples", "0"]) == 0
    assert "vae: novelty_auroc" in capsys.readouterr().out


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("adapter", ["whole", "lora"])
def test_the_embedding_is_what_the_head_multiplies(run: Any, home: Path, family: str, adapter: str):
    from finetune.reloading import load_run
    from finetune.tasks.embeddings import seen_by_head

    folder = run("text-classification", adapter, model={"path": str(home / family)}, train={"max_steps": 1})
    _, model, processor = load_run(folder)
    batch = processor(["a good film", "the dull and bitter story of my evening"], padding=True, return_tensors="pt")
    with torch.no_grad():
        embeddings, logits = seen_by_head(model, lambda: model(**batch).logits)
        linear = [each for each in model.modules() if isinstance(each, torch.nn.Linear) and each.out_features == 2][-1]
        torch.testing.assert_close(linear(embeddings), logits)


def test_a_finished_run_learns_novelty_from_its_training_rows(run: Any, home: Path, tmp_path: Path, capsys: Any):
    folder = run("text-classification")
    odd = tiny.write_rows(tmp_path / "odd.jsonl", [{"text": f"x{n} y z q"} for n in range(25)])
    assert main(["predict", str(folder), str(odd), "--evaluate.novelty", "knn"]) == 2
    assert "has no novelty/; finetune evaluate" in capsys.readouterr().err
    assert main(["evaluate", str(folder), "--evaluate.outliers", str(odd), "--evaluate.resamples", "0"]) == 0
    said = capsys.readouterr().out
    assert "novelty_auroc" in said
    assert "kept in" in said
    assert main(["predict", str(folder), str(odd)]) == 0
    assert "novelty" in json.loads(capsys.readouterr().out.splitlines()[0])


def test_a_run_whose_detectors_stayed_behind_still_predicts(run: Any, home: Path, capsys: Any):
    folder = run("text-classification", evaluate={"novelty": "vae"}, train={"max_steps": 1})
    shutil.rmtree(folder / "novelty")
    capsys.readouterr()
    assert main(["predict", str(folder), str(home / "test.jsonl")]) == 0
    said = capsys.readouterr()
    assert "novelty" not in json.loads(said.out.splitlines()[0])
    assert "No column novelty" in said.err


def test_outliers_that_are_rows_of_the_run_are_said(run: Any, home: Path, capsys: Any):
    run("text-classification", evaluate={"outliers": str(home / "train.jsonl")})
    assert "64 of 64 outliers are rows of train as well" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        (
            "text-classification",
            {"evaluate": {"outliers": "gone.jsonl"}},
            "evaluate.outliers: gone.jsonl: no such file",
        ),
        ("text-classification", {"evaluate": {"outliers": []}}, "evaluate.outliers is an empty list"),
        ("text-classification", {"evaluate": {"novelty": "veal"}}, "evaluate.novelty"),
        ("text-classification", {"evaluate": {"novelty": "vae"}, "data": {"streaming": True}}, "data.streaming is on"),
        ("causal-lm", {"evaluate": {"novelty": "vae"}}, "is of a classifier, and task.kind is causal-lm"),
        ("image-vae", {"evaluate": {"outliers": "x.npz"}}, "is of a classifier, and task.kind is image-vae"),
        (
            "text-classification",
            {"evaluate": {"outliers": "x.jsonl"}, "data": {"test": None, "validation": None}},
            "name data.test or data.validation",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    sections: Any, write_recipe: Any, kind: str, changes: dict[str, Any], said: str, capsys: Any
):
    recipe = write_recipe(sections(kind, **changes, train={"max_steps": 2}))
    assert main(["train", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
