from __future__ import annotations

import itertools
import os
import stat
from types import SimpleNamespace

import pytest
from tiny_training import model, rows, trainer, weights
from torch.testing import assert_close

from finetune.task import Score
from finetune.training import checkpoints

TIMES = ("tokens_per_second", "eval_runtime", "eval_rows_per_second", "train_runtime")


class Killed(BaseException):
    """Ends a training as a kill would: nothing catches it."""


def killed_after(run, step, resume=False):
    inner = run.callback_handler.on_step_begin

    def begin(args, state, control, **kwargs):
        if state.global_step == step:
            raise Killed
        return inner(args, state, control, **kwargs)

    run.callback_handler.on_step_begin = begin
    with pytest.raises(Killed):
        run.train(resume_from_checkpoint=resume)


def logged(run):
    return [{name: value for name, value in each.items() if name not in TIMES} for each in run.history]


def whole_state(run):
    state = run.optimizer.state_dict()["state"]
    moments = {f"{number}.{name}": each for number, inner in state.items() for name, each in inner.items()}
    return {**weights(run.model), **moments}


@pytest.mark.parametrize(
    ("adapter", "dropout", "accumulation", "stop"),
    [
        (False, 0.1, 1, 2),  # in the first epoch
        (False, 0.0, 1, 6),  # at a boundary: five steps an epoch, saved at five
        (False, 0.1, 4, 3),
        (True, 0.1, 1, 8),  # in the second epoch
        (True, 0.1, 4, 3),
    ],
)
def test_a_resumed_run_ends_as_if_it_had_never_stopped(tmp_path, adapter, dropout, accumulation, stop):
    def made(folder):
        return trainer(
            folder,
            train=rows(37),
            evaluate=rows(9, 1),
            network=model(dropout, adapter),
            per_device_train_batch_size=8 if accumulation == 1 else 2,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=3,
            eval_strategy="steps",
            eval_steps=1,
            save_steps=1,
            logging_steps=2,
            early_stopping_patience=20,
            lr_scheduler_type="cosine",
            warmup_steps=2,
        )

    unbroken = made(tmp_path / "unbroken")
    unbroken.train()
    broken = made(tmp_path / "broken")
    killed_after(broken, stop)
    resumed = made(tmp_path / "broken")
    resumed.train(resume_from_checkpoint=True)

    assert_close(whole_state(resumed), whole_state(unbroken), rtol=0, atol=0)
    assert logged(resumed) == logged(unbroken)
    assert resumed.state.best_global_step == unbroken.state.best_global_step


@pytest.mark.parametrize("stop", [3, 7, 10])
def test_a_stream_resumes_where_it_was_in_any_epoch(tmp_path, stop):
    def made(folder):
        return trainer(
            folder,
            train=rows(21).to_iterable_dataset().shuffle(seed=3, buffer_size=8),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            max_steps=12,
            save_steps=1,
        )

    unbroken = made(tmp_path / "unbroken")
    unbroken.train()
    broken = made(tmp_path / "broken")
    killed_after(broken, stop)
    resumed = made(tmp_path / "broken")
    resumed.train(resume_from_checkpoint=True)

    assert_close(whole_state(resumed), whole_state(unbroken), rtol=0, atol=0)
    assert resumed.state.num_input_tokens_seen == unbroken.state.num_input_tokens_seen


def test_groups_by_length_resume_in_the_second_epoch(tmp_path):
    def made(folder):
        options = {"train_sampling_strategy": "group_by_length", "save_strategy": "steps", "save_steps": 1}
        return trainer(folder, train=rows(40), num_train_epochs=2, **options)

    unbroken = made(tmp_path / "unbroken")
    unbroken.train()
    broken = made(tmp_path / "broken")
    killed_after(broken, 7)
    resumed = made(tmp_path / "broken")
    resumed.train(resume_from_checkpoint=True)

    assert_close(whole_state(resumed), whole_state(unbroken), rtol=0, atol=0)


def test_patience_is_counted_on_after_a_resume_and_a_stopped_run_stays_stopped(tmp_path):
    def made(folder):
        return trainer(
            folder,
            train=rows(16),
            evaluate=rows(9, 1),
            num_train_epochs=12,
            early_stopping_patience=3,
            learning_rate=0.0,
        )

    unbroken = made(tmp_path / "unbroken")
    unbroken.train()
    broken = made(tmp_path / "broken")
    killed_after(broken, 6)
    resumed = made(tmp_path / "broken")
    resumed.train(resume_from_checkpoint=True)
    again = made(tmp_path / "broken")
    again.train(resume_from_checkpoint=True)

    assert unbroken.state.global_step == resumed.state.global_step == again.state.global_step == 8


def test_a_finished_training_that_is_resumed_takes_no_further_step(tmp_path):
    def made():
        return trainer(tmp_path, train=rows(20), max_steps=4, save_steps=1)  # three steps an epoch: ends inside one

    first = made()
    first.train()
    second = made()
    second.train(resume_from_checkpoint=True)

    assert second.state.global_step == 4
    assert_close(whole_state(second)["classifier.bias"], whole_state(first)["classifier.bias"], rtol=0, atol=0)


@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "lora"])
def test_the_best_checkpoint_is_what_remains_in_the_model(tmp_path, adapter):
    run = trainer(
        tmp_path,
        train=rows(24),
        evaluate=rows(9, 1),
        network=model(adapter=adapter),
        num_train_epochs=6,
        save_total_limit=1,
    )
    run.train()
    known = [each for each in run.history if "eval_accuracy" in each]
    best = max(known, key=lambda each: (each["eval_accuracy"], -each["eval_nll"]))

    assert run.state.best_global_step == best["step"]
    assert run.evaluate()["eval_accuracy"] == best["eval_accuracy"]
    assert set(checkpoints.steps(run.checkpoints)) == {best["step"], run.state.global_step}


def test_no_pickle_is_written_or_read(tmp_path):
    def made():
        return trainer(tmp_path, train=rows(16), evaluate=rows(9, 1), num_train_epochs=2, fp16=False)

    made().train()
    run = made()
    run.train(resume_from_checkpoint=True)
    run.save_model(str(tmp_path / "model"))

    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert {each.suffix for each in files} == {".safetensors", ".json"}
    for each in files:
        assert not each.read_bytes().startswith((b"PK", b"\x80")), each


def test_files_have_the_modes_that_umask_grants(tmp_path):
    before = os.umask(0o027)
    try:
        run = trainer(tmp_path, train=rows(8), max_steps=1)
        run.train()
        run.save_model(str(tmp_path / "model"))
    finally:
        os.umask(before)

    for each in tmp_path.rglob("*.*"):
        if each.is_file():
            assert stat.S_IMODE(each.stat().st_mode) == 0o640, each


def test_of_equal_scores_the_likelier_checkpoint_is_kept(tmp_path, monkeypatch):
    run = trainer(tmp_path, train=rows(24), evaluate=rows(9, 1), num_train_epochs=4)
    scores = iter([(0.5, 0.9), (0.5, 0.7), (0.5, 0.8), (0.4, 0.1)])

    def score(*_, **__):
        accuracy, nll = next(scores)
        return {"accuracy": Score(accuracy, n=9), "nll": Score(nll, n=9)}

    monkeypatch.setattr(type(run.task), "score", score)
    run.train()

    steps = [row["step"] for row in run.history if "eval_nll" in row]
    assert run.state.best_global_step == steps[1]


def test_a_kill_between_the_last_checkpoint_and_its_rotation_leaves_no_checkpoint_too_many(tmp_path, monkeypatch):
    def made():
        return trainer(tmp_path / "run", train=rows(37), network=model(0.0, False), per_device_train_batch_size=8,
                       num_train_epochs=2, save_strategy="steps", save_steps=5, save_total_limit=1)  # fmt: skip

    def killed(folder, keep, best, good, rotate=checkpoints.rotate):
        if checkpoints.steps(folder)[-1] == 10:
            raise Killed
        rotate(folder, keep, best, good)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "rotate", killed)
        with pytest.raises(Killed):
            made().train()
    assert checkpoints.steps(tmp_path / "run" / "checkpoints") == [5, 10]
    made().train(resume_from_checkpoint=True)

    assert checkpoints.steps(tmp_path / "run" / "checkpoints") == [10]


def test_saves_and_logs_follow_the_cadence_that_a_resumed_run_was_given(tmp_path):
    def made(**options):
        return trainer(tmp_path, train=rows(37), num_train_epochs=2, save_total_limit=None, **options)

    killed_after(made(save_steps=4, logging_steps=4), 5)
    resumed = made(save_steps=1, logging_steps=1)
    resumed.train(resume_from_checkpoint=True)

    assert checkpoints.steps(resumed.checkpoints) == [4, 5, 6, 7, 8, 9, 10]
    assert [row["step"] for row in resumed.history if "loss" in row] == [4, 5, 6, 7, 8, 9, 10]


def test_the_first_speed_after_a_resume_is_of_the_tokens_after_it(tmp_path, monkeypatch):
    """The clock goes on by one whenever it is asked."""
    clock = itertools.count()
    monkeypatch.setattr("finetune.training.trainer.time", SimpleNamespace(monotonic=lambda: float(next(clock))))

    def made(folder):
        return trainer(folder, train=rows(37), num_train_epochs=2, logging_steps=1, save_steps=2)

    unbroken = made(tmp_path / "unbroken")
    unbroken.train()
    killed_after(made(tmp_path / "broken"), 4)
    resumed = made(tmp_path / "broken")
    resumed.train(resume_from_checkpoint=True)

    speeds = [[row["tokens_per_second"] for row in run.history if "loss" in row] for run in (resumed, unbroken)]
    assert speeds[0] == speeds[1]
