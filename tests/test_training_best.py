"""Which checkpoint is the best one, where evaluations come oftener than saves."""

from __future__ import annotations

import pytest
from test_training_resume import killed_after, logged
from tiny_training import Parity, rows, trainer, weights
from torch.testing import assert_close

from finetune.task import Score
from finetune.training import checkpoints, saved_state


@pytest.fixture
def scored(monkeypatch):
    """Return a function that makes a trainer whose accuracy at each step is a given one, else 0."""

    def made(folder, curve, **options):
        run = trainer(
            folder, train=rows(64), evaluate=rows(9, 1), eval_strategy="steps", eval_steps=1, save_steps=2, **options
        )

        def score(*_, **__):
            step = run.state.global_step
            return {"accuracy": Score(curve.get(step, 0.0), n=9), "nll": Score(1.0, n=9)}

        monkeypatch.setattr(Parity, "score", score)
        return run

    return made


@pytest.mark.parametrize("killed", [None, 4, 7])
def test_the_best_one_is_kept_where_nothing_was_to_be_saved(tmp_path, scored, killed):
    curve = {1: 0.1, 2: 0.2, 3: 0.9}
    options = {"num_train_epochs": 2, "dataloader_drop_last": True}
    run = scored(tmp_path, curve, **options)
    assert run.args.load_best_model_at_end
    if killed is not None:
        killed_after(run, killed)
        run = scored(tmp_path, curve, **options)
    run.train(resume_from_checkpoint=True)

    assert run.state.best_global_step == 3
    assert set(checkpoints.steps(run.checkpoints)) == {3, 16}
    kept = saved_state.read_weights(checkpoints.checkpoint_path(run.checkpoints, 3), run.model)
    assert_close(weights(run.model), {name: kept[name] for name in weights(run.model)}, rtol=0, atol=0)


def test_patience_without_the_best_model_at_the_end_counts_on_after_a_resume(tmp_path, scored):
    curve = {3: 0.9}
    options = {"num_train_epochs": 5, "early_stopping_patience": 6, "load_best_model_at_end": False}
    unbroken = scored(tmp_path / "unbroken", curve, **options)
    unbroken.train()
    broken = scored(tmp_path / "broken", curve, **options)
    killed_after(broken, 7)
    resumed = scored(tmp_path / "broken", curve, **options)
    resumed.train(resume_from_checkpoint=True)

    assert resumed.state.global_step == unbroken.state.global_step == 9
    assert logged(resumed) == logged(unbroken)
