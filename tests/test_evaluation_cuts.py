"""Scores are those of the rows: equal for every batch and both numbers of processes, and what ten lines compute."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import launched_evaluation
import pytest
import tiny
import torch
import yaml
from datasets import Dataset
from test_two_processes import ROOT, launch
from transformers import PreTrainedModel

from finetune.cli import main
from finetune.models.noise import FIXED
from finetune.preparation import Prepared, prepare
from finetune.recipe import Recipe
from finetune.run import load_model
from finetune.training.batching import drawn

KINDS = tuple(tiny.TASKS)
RELATIVE = 1e-6  # or absolute, below 1
COUNTED = ("accuracy", "exact_match", "f1", "precision", "recall")  # made of counts: they are the same to the bit


@pytest.fixture(scope="module")
def found(home, tmp_path_factory) -> dict[str, dict]:
    """What one process and two have found, and the recipes by kind."""
    folder = tmp_path_factory.mktemp("cuts")
    paths = {}
    for kind in KINDS:
        made = tiny.sections(home, folder / "run", kind, "whole")
        made["train"]["use_cpu"] = True
        paths[kind] = folder / f"{kind}.yaml"
        paths[kind].write_text(yaml.safe_dump(made))
    names = [str(path) for path in paths.values()]
    launched_evaluation.main(str(folder / "one.json"), names)
    done = launch("cpu", str(ROOT / "tests" / "launched_evaluation.py"), str(folder / "two.json"), *names)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return {"paths": paths, **{name: json.loads((folder / f"{name}.json").read_text()) for name in ("one", "two")}}


def test_as_many_processes_come_up_as_were_asked_for(found, contract) -> None:
    assert [found[name]["world"] for name in ("one", "two")] == [1, 2]
    contract("R10", processes=2)


def test_a_command_that_finds_fewer_processes_than_were_asked_for_ends_with_2(
    sections, write_recipe, monkeypatch, capsys, contract
) -> None:
    monkeypatch.setattr(
        "finetune.training.world._parent_command", lambda: ["accelerate", "launch", "--num_processes", "2"]
    )

    assert main(["train", str(write_recipe(sections("text-classification")))]) == 2
    assert "2 processes were asked for and 1 came up" in capsys.readouterr().err
    contract("R10", refused=1)


@pytest.mark.parametrize("kind", KINDS)
def test_no_score_depends_on_batch_or_processes(found, contract, kind) -> None:
    cells = [(world, cut, scores) for world in ("one", "two")
             for cut, scores in found[world]["found"][str(found["paths"][kind])].items()]  # fmt: skip
    largest = 0.0
    for world, cut, scores in cells:
        count = cut.split("/")[0]
        expected = found["one"]["found"][str(found["paths"][kind])][f"{count}/1"]
        assert scores.keys() == expected.keys()
        for name, (value, n) in scores.items():
            assert n == expected[name][1], f"{world} {cut} {name}"
            both_missing = math.isnan(value) and math.isnan(expected[name][0])
            apart = 0.0 if both_missing else abs(value - expected[name][0]) / max(1, abs(expected[name][0]))
            most = 0.0 if name.partition("/")[0].endswith(COUNTED) else RELATIVE
            assert apart <= most, f"{world} {cut} {name}"
            largest = max(largest, apart)
    contract("R9", cells=len(cells), largest_difference=largest)


every_count = pytest.mark.parametrize("count", launched_evaluation.COUNTS)


def alone(path: Path, count: int) -> tuple[Prepared, PreTrainedModel, Dataset]:
    """Return a recipe's rows, its model as it was scored, and the test inputs that it was asked, for one at a time."""
    torch.manual_seed(3)
    prepared = prepare(Recipe.read(path))
    model, _ = load_model(prepared.recipe, prepared.processor)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return prepared, model.eval().requires_grad_(False), prepared.encoded["test"].inputs.select(range(count))


def hold(found: dict, kind: str, count: int, expected: dict[str, float]) -> None:
    """Hold every cut's scores against those of a reference."""
    for world, size in itertools.product(("one", "two"), launched_evaluation.BATCHES):
        scores = found[world]["found"][str(found["paths"][kind])][f"{count}/{size}"]
        for name, value in expected.items():
            near = 1e-12 if name.endswith(COUNTED) else RELATIVE
            assert scores[name][0] == pytest.approx(value, rel=near, abs=near), f"{world} {size} {name}"


def nats(logits: torch.Tensor, targets: list[int]) -> list[float]:
    """Return what each target costs under its logits, in double precision; -100 is no target."""
    table = logits.double().log_softmax(dim=-1)
    return [-float(table[place, target]) for place, target in enumerate(targets) if target != -100]


@every_count
def test_a_language_models_scores_are_those_of_ten_lines_that_weigh_tokens(found, count, contract) -> None:
    _, model, inputs = alone(found["paths"]["causal-lm"], count)
    costs = [cost for row in inputs for cost in nats(model(torch.tensor([row["input_ids"]])).logits[0], row["labels"])]
    mean = sum(costs) / len(costs)

    hold(found, "causal-lm", count, {"nll": mean, "perplexity": math.exp(mean)})
    contract("R9", references=1)


@every_count
def test_a_classifiers_scores_are_those_of_ten_lines(found, count, contract) -> None:
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    _, model, inputs = alone(found["paths"]["text-classification"], count)
    said = torch.cat([model(torch.tensor([row["input_ids"]])).logits for row in inputs]).double()
    meant, chosen = list(inputs["labels"]), said.argmax(dim=1).tolist()

    expected = {"accuracy": accuracy_score(meant, chosen), "macro_f1": f1_score(meant, chosen, average="macro")}
    expected["nll"] = log_loss(meant, said.softmax(dim=1).numpy())
    hold(found, "text-classification", count, expected)
    contract("R9", references=1)


def spans(tags: list[str]) -> set[tuple[str, int, int]]:
    """Return (kind, first word, one past the last) of each span; an I- that continues nothing opens one."""
    made, kind, start = set(), "", 0
    for place, tag in enumerate([*tags, "O"]):
        if kind and tag != f"I-{kind}":
            made.add((kind, start, place))
            kind = ""
        if not kind and tag != "O":
            kind, start = tag[2:], place
    return made


@every_count
def test_a_taggers_scores_are_those_of_ten_lines(found, home, count, contract) -> None:
    prepared, model, inputs = alone(found["paths"]["token-classification"], count)
    rows = [json.loads(line) for line in (home / "test-tags.jsonl").read_text().splitlines()]
    said, costs = {row: ["O"] * len(rows[row]["tokens"]) for row in inputs["row"]}, []
    for each in inputs:  # a window of a row, which is asked about some of its words
        logits = model(torch.tensor([each["input_ids"]])).logits[0]
        costs += nats(logits, each["labels"])
        for word, place in zip(each["numbers"], each["places"], strict=True):
            said[each["row"]][word] = prepared.recipe.task.labels[int(logits[place].argmax())]
    pairs = [(spans(tags), spans(rows[row]["ner_tags"])) for row, tags in said.items()]
    right, told, there = (sum(map(len, each)) for each in ([a & b for a, b in pairs], *zip(*pairs, strict=True)))
    words = [one == other for row, tags in said.items() for one, other in zip(tags, rows[row]["ner_tags"], strict=True)]

    expected = {"span_f1": 2 * right / (told + there), "span_precision": right / told, "span_recall": right / there}
    expected |= {"accuracy": sum(words) / len(words), "nll": sum(costs) / len(costs)}
    hold(found, "token-classification", count, expected)
    contract("R9", references=1)


def squad(said: str, meant: list[str]) -> tuple[float, float]:
    """Return exact match and F1 of an answer, as SQuAD has them for words without capitals and punctuation."""
    texts = [said, *(meant or [""])]
    ours, *golds = ([word for word in each.split() if word not in ("a", "an", "the")] for each in texts)
    scores = []
    for gold in golds:
        same = sum((Counter(ours) & Counter(gold)).values())
        scores.append(2 * same / (len(ours) + len(gold)) if ours and gold else float(ours == gold))
    return float(ours in golds), max(scores)


@every_count
def test_the_scores_of_answers_are_those_of_ten_lines(found, home, count, contract) -> None:
    prepared, model, inputs = alone(found["paths"]["question-answering"], count)
    rows = [json.loads(line) for line in (home / "test-questions.jsonl").read_text().splitlines()]
    best: dict[int, list[tuple[float, str]]] = {}
    none, costs = {}, {}
    for each in inputs:  # a window of a row
        ids, types = (torch.tensor([each[name]]) for name in ("input_ids", "token_type_ids"))
        outputs = model(ids, token_type_ids=types)
        start, end, begins = outputs.start_logits[0], outputs.end_logits[0], each["begins"]
        longest, context = prepared.recipe.task.max_answer_length, rows[each["row"]]["context"]
        for (i, first), (j, last) in itertools.product(enumerate(each["starts"]), enumerate(each["ends"])):
            if i <= j < i + longest and context[first:last].strip():
                scored = float(start[begins + i] + end[begins + j]), context[first:last].strip()
                best.setdefault(each["row"], []).append(scored)
        none[each["row"]] = min(none.get(each["row"], math.inf), float(start[0] + end[0]))
        costs.setdefault(each["row"], []).append(sum(nats(torch.stack((start, end)), each["labels"])))
    gaps = {row: none[row] - max(parts)[0] for row, parts in best.items()}
    scored = []
    for cut in [-math.inf, *gaps.values()]:  # answered up to this gap; the best cut is taken, as before it is settled
        said = {row: max(best[row])[1] if gap <= cut else "" for row, gap in gaps.items()}
        each = [squad(text, rows[row]["answers"]["text"]) for row, text in said.items()]
        scored.append(tuple(sum(values) / len(each) for values in zip(*each, strict=True)))
    f1 = max(score for _, score in scored)

    nll = sum(sum(each) / len(each) for each in costs.values()) / len(costs)
    hold(found, "question-answering", count, {"answer_f1": f1, "nll": nll})
    told = found["one"]["found"][str(found["paths"]["question-answering"])][f"{count}/1"]["exact_match"][0]
    assert any(told == pytest.approx(exact) for exact, score in scored if score == pytest.approx(f1))
    contract("R9", references=1)


@every_count
def test_a_masked_models_scores_are_those_of_ten_lines(found, count, contract) -> None:
    prepared, model, inputs = alone(found["paths"]["masked-lm"], count)
    task, costs, right = prepared.recipe.task, [], []
    collate = task.collator(prepared.processor)
    for each in inputs:  # what is hidden of it is the recipe's to say; what that costs is counted here
        batch = collate([each]) | drawn(prepared.recipe.train.seed, FIXED, torch.tensor([each["row"]]), 1.0)
        hidden, targets = (part[0] for part in task._masked(batch))
        logits = model(hidden[None]).logits[0]
        costs += nats(logits, targets.tolist())
        right += (logits.argmax(dim=1) == targets)[targets != -100].tolist()
    mean = sum(costs) / len(costs)

    expected = {"nll": mean, "perplexity": math.exp(mean), "masked_accuracy": sum(right) / len(right)}
    hold(found, "masked-lm", count, expected)
    contract("R9", references=1)


@every_count
def test_a_translators_scores_are_those_of_ten_lines(found, count, contract) -> None:
    _, model, inputs = alone(found["paths"]["seq2seq"], count)
    costs = []
    for each in inputs:
        before = [model.config.decoder_start_token_id, *each["labels"][:-1]]
        ids = torch.tensor([each["input_ids"]])
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([before])).logits[0]
        costs += nats(logits, each["labels"])

    hold(found, "seq2seq", count, {"nll": sum(costs) / len(costs), "perplexity": math.exp(sum(costs) / len(costs))})
    contract("R9", references=1)
