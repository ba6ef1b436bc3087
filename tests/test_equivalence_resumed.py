"""A run that was cut short and resumed is the unbroken one: for every task in the table, whole and with LoRA."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from same_weights import assert_same_weights
from test_equivalence import every_cell_often_or_slow


def scores(folder: Path) -> dict:
    return json.loads((folder / "scores.json").read_text())


@every_cell_often_or_slow
def test_a_run_resumed_in_the_middle_of_an_epoch_ends_with_the_bits_of_an_unbroken_one(
    run, weights, tmp_path, kind, adapter, monkeypatch
) -> None:
    from finetune.tasks import task_class, trainer_class

    trainer = trainer_class(task_class(kind))
    steps = {"save_strategy": "steps", "save_steps": 3, "num_train_epochs": 2, "per_device_train_batch_size": 8,
             "optim": "adamw_torch", "learning_rate": 1e-3}  # fmt: skip
    unbroken = run(kind, adapter, train={"output_dir": str(tmp_path / "unbroken"), **steps})

    class Interrupted(Exception):
        pass

    def broken_step(self, *args, original=trainer.training_step, **kwargs):  # type: ignore[no-untyped-def]
        if self.state.global_step == 5:  # the epoch has eight steps: the last checkpoint stands at step 3
            raise Interrupted
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "training_step", broken_step)
        with pytest.raises(Interrupted):
            run(kind, adapter, train={"output_dir": str(tmp_path / "broken"), **steps})
    resumed = run(kind, adapter, train={"output_dir": str(tmp_path / "broken"), **steps})

    assert_same_weights(weights(resumed), weights(unbroken), rtol=0, atol=0)
    assert scores(resumed) == scores(unbroken)
