from __future__ import annotations

import os
import signal
import threading

import pytest
from test_training_resume import logged, whole_state
from tiny_training import rows, trainer
from torch.testing import assert_close
from transformers import TrainerCallback

from finetune.endings import Terminated, terminated
from finetune.errors import Stopped, UserError
from finetune.training import checkpoints
from finetune.training.options import TrainOptions


class At(TrainerCallback):
    """Does something at the beginning or the end of a step, an evaluation or a save."""

    def __init__(self, moment, step, work):
        self.moment, self.step, self.work = moment, step, work

    def __getattribute__(self, name):
        get = super().__getattribute__
        if name == get("moment"):
            return lambda args, state, control, **_: get("work")() if state.global_step == get("step") else None
        return get(name)


def send(number=signal.SIGTERM):
    return lambda: os.kill(os.getpid(), number)


OPTIONS = {
    "steps": {"num_train_epochs": 3, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "logging_steps": 3},
    "epochs": {"num_train_epochs": 3, "eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"},
    "mixed": {"num_train_epochs": 3, "eval_strategy": "epoch", "save_strategy": "steps", "save_steps": 5},
    "unsaved": {"max_steps": 12, "eval_strategy": "steps", "eval_steps": 5, "save_strategy": "no"},
    "bare": {"max_steps": 12, "eval_strategy": "no", "save_strategy": "no"},
}


STOPS = [
    ("steps", "on_step_begin", 3),
    ("steps", "on_step_end", 9),
    ("steps", "on_evaluate", 6),
    ("steps", "on_save", 8),
    ("epochs", "on_step_begin", 4),  # in the last step of an epoch, whose end is due as well
    ("epochs", "on_step_end", 5),
    ("mixed", "on_step_end", 4),
    ("mixed", "on_save", 10),
    ("unsaved", "on_step_end", 9),
    ("unsaved", "on_step_begin", 11),  # in the last step of all
    ("bare", "on_step_begin", 11),  # with nothing due after it
]


@pytest.mark.parametrize(("name", "moment", "step"), STOPS)
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, contract, name, moment, step):
    def made(folder):
        return trainer(folder, train=rows(37), evaluate=rows(9, 1), **OPTIONS[name])  # five steps an epoch

    unbroken = made(tmp_path / "unbroken")
    unbroken.train()
    broken = made(tmp_path / "broken")
    broken.add_callback(At(moment, step, send()))
    with pytest.raises(Stopped, match="stopped by SIGTERM after step"):
        broken.train(resume_from_checkpoint=True)
    last = checkpoints.last_good(broken.checkpoints)
    assert last is not None
    assert last.name == f"checkpoint-{broken.state.global_step}"
    assert broken.state.global_step - step <= 1
    resumed = made(tmp_path / "broken")
    resumed.train(resume_from_checkpoint=True)

    assert_close(whole_state(resumed), whole_state(unbroken), rtol=0, atol=0)
    assert logged(resumed) == logged(unbroken)
    assert resumed.state.best_global_step == unbroken.state.best_global_step
    contract("R5", stops_in_process=1, different=0)


@pytest.mark.parametrize("steps", [{"eval_steps": 2}, {"eval_strategy": "epoch"}], ids=["steps", "epoch"])
def test_an_evaluation_that_was_left_is_made_up_for(tmp_path, monkeypatch, steps):
    def made(folder):
        return trainer(
            folder,
            train=rows(37),
            evaluate=rows(9, 1),
            per_device_eval_batch_size=2,
            save_strategy="steps",
            save_steps=100,
            num_train_epochs=2,
            load_best_model_at_end=False,
            **steps,
        )

    unbroken = made(tmp_path / "unbroken")
    unbroken.train()
    broken = made(tmp_path / "broken")
    answer = type(broken.task).answer
    asked = []

    def interrupted(self, *args):
        asked.append(0)
        if len(asked) == 7:  # five batches an evaluation
            os.kill(os.getpid(), signal.SIGTERM)
        return answer(self, *args)

    monkeypatch.setattr(type(broken.task), "answer", interrupted)
    with pytest.raises(Stopped, match="SIGTERM"):
        broken.train()
    assert len(asked) == 7  # nothing was asked after it
    monkeypatch.undo()
    resumed = made(tmp_path / "broken")
    resumed.train(resume_from_checkpoint=True)

    assert logged(resumed) == logged(unbroken)
    assert_close(whole_state(resumed), whole_state(unbroken), rtol=0, atol=0)


def test_a_file_asks_for_a_checkpoint_and_the_run_goes_on(tmp_path, contract):
    asked = tmp_path / "checkpoint-now"
    run = trainer(tmp_path, train=rows(37), num_train_epochs=2, save_strategy="no")
    run.add_callback(At("on_step_end", 2, asked.touch))
    run.train()

    assert checkpoints.steps(run.checkpoints) == [3]
    assert run.state.global_step == 10
    assert not asked.exists()
    contract("R5", checkpoints_asked_for_by_a_file=1)


def test_a_run_stops_when_its_time_is_over(tmp_path, monkeypatch, contract):
    monkeypatch.setattr("finetune.training.stopping._started", lambda: 0.0)
    run = trainer(tmp_path, train=rows(37), num_train_epochs=2, max_hours=3.0)

    with pytest.raises(Stopped, match=r"stopped by train.max_hours 3.0 after step 1 of 10"):
        run.train()
    assert checkpoints.steps(run.checkpoints) == [1]
    again = trainer(tmp_path, train=rows(37), num_train_epochs=2)  # another limit is no other recipe
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 10
    contract("R5", stops_by_the_clock=1)


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_after_the_last_step_ends_the_command_as_it_would_without_a_training(tmp_path, number, ends):
    run = trainer(tmp_path, train=rows(16), max_steps=2, save_strategy="no")
    run.add_callback(At("on_train_end", 2, send(number)))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background of a shell

    try:
        with terminated(), pytest.raises(ends):
            run.train()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("overwrite", "again"), [(False, "command"), (True, r"command without --overwrite \(.*\)")])
def test_a_run_that_was_stopped_says_how_it_goes_on(tmp_path, overwrite, again):
    run = trainer(tmp_path, train=rows(16), max_steps=4, overwrite=overwrite)
    run.add_callback(At("on_step_begin", 1, send()))

    with pytest.raises(Stopped, match=rf"holds it, and the same {again} goes on from there\.$"):
        run.train()


def test_a_limit_is_a_number_above_0():
    with pytest.raises(UserError, match=r"train.max_hours is 0"):
        TrainOptions(output_dir="x", max_hours=0)


def test_what_signals_did_before_they_do_again_after_a_training(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    trainer(tmp_path, train=rows(8), max_steps=1).train()

    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_training_in_a_thread_leaves_signals_alone(tmp_path):
    run = trainer(tmp_path, train=rows(8), max_steps=1)
    thread = threading.Thread(target=run.train)
    thread.start()
    thread.join()

    assert run.state.global_step == 1
