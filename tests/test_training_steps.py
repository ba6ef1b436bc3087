from __future__ import annotations

import json

import pytest
import torch
from tiny_training import SGD, Parity, collate, model, rows, trainer, weights
from torch.testing import assert_close

from finetune.errors import CheckFailed, UserError
from finetune.training.dealing import Dealer


@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("count", [32, 37], ids=["even", "uneven"])
def test_accumulated_steps_take_the_step_of_one_batch(adapter, count):
    options = {"num_train_epochs": 2, **SGD}
    whole = trainer(train=rows(count), network=model(adapter=adapter), per_device_train_batch_size=16, **options)
    parts = trainer(
        train=rows(count),
        network=model(adapter=adapter),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        **options,
    )
    whole.train()
    parts.train()

    assert whole.state.global_step == parts.state.global_step == 2 * -(-count // 16)
    assert_close(weights(parts.model), weights(whole.model), rtol=1e-4, atol=1e-6)
    for one, other in zip(whole.history, parts.history, strict=True):
        for name in {"loss", "grad_norm"} & one.keys():
            assert one[name] == pytest.approx(other[name], rel=1e-4)


def test_the_logged_loss_is_the_weighted_mean_over_the_batch():
    inputs, task = rows(16), Parity()
    run = trainer(train=inputs, per_device_train_batch_size=16, max_steps=1, **SGD)
    network = model()
    run.train()

    batch = collate(list(inputs))
    logits = network.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = torch.nn.functional.cross_entropy(logits, batch["labels"], torch.tensor(task.weights))
    assert run.history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_rows_of_like_length_share_a_step_and_steps_come_in_no_order_of_length():
    lengths = torch.randint(5, 100, (16 * 60 + 7,), generator=torch.Generator().manual_seed(0)).tolist()
    options = {"rows": len(lengths), "batch": 8, "strategy": "group_by_length", "lengths": lengths, "group": 16}
    order = Dealer(seed=3, **options).order()
    steps = [[lengths[row] for row in order[start : start + 16]] for start in range(0, len(order), 16)]
    means = [sum(step) / len(step) for step in steps]

    assert sorted(order) == list(range(len(lengths)))
    assert max(lengths) in steps[0]  # what does not fit into memory is found at once
    assert sum(max(step) - min(step) for step in steps[1:-1]) / len(steps[1:-1]) < 10  # of 95
    assert abs(torch.corrcoef(torch.tensor([[float(step) for step in range(58)], means[1:59]]))[0, 1]) < 0.3
    assert order != Dealer(seed=4, **options).order()
    assert [len(Dealer(seed=3, **{**options, "rows": n, "lengths": lengths[:n]}).order()) for n in (1, 16)] == [1, 16]


def test_every_row_is_seen_once_an_epoch_and_every_token_is_counted():
    inputs = rows(21)
    run = trainer(train=inputs, per_device_train_batch_size=4, gradient_accumulation_steps=2, num_train_epochs=2)
    seen: list[str] = []
    original = run.get_batch_samples

    def spy(*args):
        result = original(*args)
        seen.extend(row for carried in run._carried for row in carried.row_ids)
        return result

    run.get_batch_samples = spy
    run.train()

    assert sorted(seen[:21]) == sorted(seen[21:]) == sorted(inputs["row_id"])
    assert seen[:21] != seen[21:]
    assert run.state.num_input_tokens_seen == 2 * sum(inputs["length"])


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
def test_answers_do_not_depend_on_the_batch_size(batch):
    inputs = rows(19)
    run = trainer(per_device_eval_batch_size=batch)
    answers = run.answers(inputs)

    alone = model().eval()
    for number in range(len(inputs)):
        ids = torch.tensor([inputs[number]["input_ids"]])
        assert_close(torch.from_numpy(answers["logits"][number]), alone(input_ids=ids).logits[0], rtol=1e-5, atol=1e-6)
        assert answers["tokens"][number] == inputs[number]["length"]
        assert answers["ids"][number][: inputs[number]["length"]].tolist() == inputs[number]["input_ids"]


def test_scores_are_computed_in_fp32_while_training_runs_in_bf16():
    inputs = rows(8)
    run = trainer(train=inputs, max_steps=1, learning_rate=0.0, bf16=True)
    run.train()
    half = trainer(train=inputs, max_steps=1, learning_rate=0.0, bf16=True)
    half.precision = "bfloat16"
    half.train()

    exact = trainer().answers(inputs)["logits"]
    assert (run.answers(inputs)["logits"] == exact).all()
    assert (half.answers(inputs)["logits"] != exact).any()


def test_looking_at_the_scores_does_not_change_what_is_learned():
    often = trainer(
        train=rows(24),
        evaluate=rows(8, 1),
        network=model(dropout=0.2),
        num_train_epochs=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=False,
    )
    never = trainer(train=rows(24), network=model(dropout=0.2), num_train_epochs=1)
    often.train()
    never.train()

    assert_close(weights(often.model), weights(never.model), rtol=0, atol=0)


def test_evaluation_gives_every_score_of_the_task():
    run = trainer(evaluate=rows(10))
    metrics = run.evaluate()
    scores = run.task.score(run.answers(rows(10)), rows(10))

    assert {name: metrics[f"eval_{name}"] for name in scores} == {name: each.value for name, each in scores.items()}
    assert run.history[-1]["eval_accuracy"] == metrics["eval_accuracy"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_first_loss_that_is_not_finite_stops_before_its_step_and_names_the_rows(tmp_path, value, accumulation):
    inputs = rows(16)
    poison = [1.0] * 16
    poison[5] = value
    inputs = inputs.remove_columns("poison").add_column("poison", poison)
    run = trainer(
        tmp_path,
        train=inputs,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=accumulation,
        train_sampling_strategy="sequential",
        save_strategy="steps",
        save_steps=1,
        num_train_epochs=1,
    )

    with pytest.raises(CheckFailed, match=r"numbers\.csv:7"):
        run.train()

    step = 5 // (2 * accumulation) + 1
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert found["step"] == step
    assert found["row_ids"] == ["numbers.csv:6", "numbers.csv:7"]
    assert run.state.global_step == step - 1
    assert all(torch.isfinite(each).all() for each in run.model.parameters())
    assert len(list((tmp_path / "checkpoints").glob("checkpoint-*"))) == min(step - 1, 2)


def test_a_learning_rate_that_diverges_stops_the_run(tmp_path):
    options = {**SGD, "learning_rate": 1e30, "num_train_epochs": 8, "save_strategy": "steps", "save_steps": 1}
    run = trainer(tmp_path, train=rows(16), **options)

    with pytest.raises(CheckFailed):
        run.train()

    assert all(value == value for each in run.history for value in each.values())


def test_a_step_without_any_target_is_refused():
    with pytest.raises(CheckFailed, match="no target"):
        trainer(train=rows(8), task=Parity(weights=(0.0, 0.0, 0.0)), max_steps=1).train()


def test_a_stream_needs_the_number_of_steps():
    with pytest.raises(UserError, match="max_steps"):
        trainer(train=rows(8).to_iterable_dataset())


def test_the_head_learns_at_its_own_rate_and_keeps_its_weight_decay():
    run = trainer(
        train=rows(16),
        max_steps=1,
        learning_rate=0.0,
        head_learning_rate=0.1,
        weight_decay=0.5,
        lr_scheduler_type="constant",
    )
    run.head_parameters = ("classifier.weight", "classifier.bias")
    before = weights(run.model)
    run.train()

    moved = {name for name, each in weights(run.model).items() if not torch.equal(each, before[name])}
    assert moved == {"classifier.weight", "classifier.bias"}
    rates = {(group["lr"], group["weight_decay"]) for group in run.optimizer.param_groups}
    assert rates == {(0.0, 0.5), (0.0, 0.0), (0.1, 0.5), (0.1, 0.0)}


def test_the_head_of_an_adapter_is_what_peft_keeps_besides():
    run = trainer(train=rows(16), max_steps=1, network=model(adapter=True), learning_rate=0.0, head_learning_rate=0.1)
    before = weights(run.model)
    run.train()

    moved = {name for name, each in weights(run.model).items() if not torch.equal(each, before[name])}
    assert moved
    assert all("modules_to_save" in name for name in moved)


def test_a_head_rate_without_a_new_module_is_refused():
    with pytest.raises(UserError, match="head_learning_rate"):
        trainer(train=rows(8), max_steps=1, head_learning_rate=0.1).train()
