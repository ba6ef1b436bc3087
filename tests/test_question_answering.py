"""Extractive question answering: from answers in a text to places of tokens and back, scored as SQuAD does."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest
import torch

from finetune.errors import UserError
from finetune.loading import ModelOptions, load_tokenizer
from finetune.tasks.question_answering import QuestionAnswering
from finetune.tasks.question_answers import by_row
from finetune.tasks.question_inputs import places_of, text_between
from finetune.tasks.question_parts import best_parts, part_losses

CONTEXT = "the film felt warm and my evening was dull . its actors felt brave"


def rows(*given: tuple[str, str, list[str]]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({
        "question": [question for question, _, _ in given],
        "context": [context for _, context, _ in given],
        "answers": [
            {"text": texts, "answer_start": [context.index(text) for text in texts]} for _, context, texts in given
        ],
        "row_id": [f"a.jsonl:{number + 1}" for number in range(len(given))],
    })  # fmt: skip


def encoded(home, given, on_long="window", family="bert", **options):
    processor = load_tokenizer(ModelOptions(path=str(home / family)))
    if processor.pad_token_id is None:
        processor.pad_token = processor.eos_token
    task = QuestionAnswering(**{"max_length": 16, "stride": 4, "can_be_none": False, **options})
    return task, task.encode(given, processor, on_long)


def answers(inputs, parts: dict[int, tuple[int, int, float]], none: float = -5.0) -> dict[str, np.ndarray]:
    """Return answers with one part an input: (first token, last token, score); others have none."""
    count = len(inputs)
    made = {"start": np.zeros((count, 2), int), "end": np.zeros((count, 2), int), "score": np.full((count, 2), -1e9)}
    for place, (first, last, score) in parts.items():
        made["start"][place, 0], made["end"][place, 0], made["score"][place, 0] = first, last, score
    return {**made, "none": np.full(count, none), "nll": np.ones(count)}


def test_places_of_answers_are_those_of_their_tokens():
    offsets = [(0, 3), (3, 8), (8, 10), (10, 15)]  # of a byte-level BPE: a word with the space before it

    assert places_of(offsets, {"text": ["film", "the", "fi"], "answer_start": [4, 0, 4]}) == [(1, 1), (0, 0), (1, 1)]
    assert text_between("the film is", 3, 8) == ("film", 4, 8)


def test_windows_go_over_the_context_alone_and_one_has_the_answer(home):
    given = rows(("my film", CONTEXT, ["felt brave"]))
    _, made = encoded(home, given)
    processor = load_tokenizer(ModelOptions(path=str(home / "bert")))

    assert len(made.inputs) == 2
    for ids in made.inputs["input_ids"]:
        assert processor.decode(ids).startswith("[CLS] my film [SEP]")
        assert len(ids) <= 16
    targets = [tuple(labels) for labels in made.inputs["labels"]]
    assert targets[0] == (0, 0)
    first, last = targets[1]
    assert processor.decode(made.inputs["input_ids"][1][first : last + 1]) == "felt brave"
    assert made.facts["answers_lost"] == 0


def test_an_input_that_begins_with_the_question_has_no_place_to_keep_silent(home):
    _, made = encoded(home, rows(("my film", CONTEXT, ["felt brave"])), family="gpt2", max_length=48)

    assert made.inputs["labels"][0] == [-100, -100]
    assert made.inputs["labels"][-1][0] >= made.inputs["begins"][-1]


def test_where_rows_may_have_no_answer_a_window_without_it_points_at_the_first_place(home):
    _, made = encoded(home, rows(("my film", CONTEXT, ["felt brave"]), ("a", "the film", [])), can_be_none=True)

    assert made.inputs["labels"][0] == [0, 0]
    assert made.inputs["labels"][2] == [0, 0]


def test_an_answer_that_is_cut_off_is_said_and_counts_as_missed(home):
    given = rows(("my film", CONTEXT, ["felt brave"]), ("its story", "the film", ["film"]))
    task, made = encoded(home, given, "truncate")

    assert made.facts["answers_lost"] == 1
    assert "1 of 2 answers are wholly in no input" in made.facts["said"][0]
    assert "data.on_long: window" in made.facts["said"][0]
    begins = made.inputs["begins"][1]
    said = answers(made.inputs, {0: (4, 4, 1.0), 1: (begins + 1, begins + 1, 1.0)})
    assert task.score(said, made.inputs)["exact_match"].value == 0.5


def test_long_and_inexact_answers_are_counted(home):
    _, made = encoded(home, rows(("my film", "the films felt", ["film"]), ("a", CONTEXT, ["the film felt warm and"])),
                      max_answer_length=3)  # fmt: skip

    assert (made.facts["answers_inexact"], made.facts["answers_too_long"]) == (1, 1)
    assert any("begin or end inside a token" in said for said in made.facts["said"])
    assert any("longer than task.max_answer_length 3" in said for said in made.facts["said"])


def test_the_best_part_of_all_windows_is_the_answer_with_its_place_in_the_text(home):
    given = rows(("my film", CONTEXT, ["felt brave"]))
    task, made = encoded(home, given)
    first, last = made.inputs["labels"][1]

    table = task.predictions(answers(made.inputs, {0: (5, 6, 1.0), 1: (first, last, 2.0)}), made.inputs, given)

    row = table[0]
    assert row["prediction"] == "felt brave" == CONTEXT[row["start"] : row["end"]]
    assert [each["text"] for each in row["best"]] == ["felt brave", "film felt"]
    assert row["score"] == pytest.approx(np.exp(2) / (np.exp(2) + np.exp(1) + np.exp(-5)))
    assert row["target"] == ["felt brave"]


def test_one_part_that_two_windows_share_is_one_answer(home):
    given = rows(("my film", CONTEXT, ["felt brave"]))
    _, made = encoded(home, given)
    shared = set(zip(made.inputs["starts"][0], made.inputs["ends"][0], strict=True)) & set(
        zip(made.inputs["starts"][1], made.inputs["ends"][1], strict=True)
    )
    assert len(shared) == 4
    place = min(shared)[0]
    tokens = [made.inputs["begins"][n] + made.inputs["starts"][n].index(place) for n in (0, 1)]

    found = by_row(answers(made.inputs, {n: (tokens[n], tokens[n], float(n)) for n in (0, 1)}), made.inputs, 5)

    assert [(part.start, part.score) for part in found.parts[0]] == [(place, 1.0)]


def test_no_answer_scores_as_in_the_window_that_most_denies_it(home):
    given = rows(("my film", CONTEXT, ["felt brave"]))
    task, made = encoded(home, given, can_be_none=True, threshold=0.0)
    said = answers(made.inputs, {1: (5, 5, 1.0)})
    said["none"] = np.array([3.0, 0.0])
    assert task.predictions(said, made.inputs, given)["prediction"][0] != ""

    said["none"] = np.array([3.0, 2.0])
    row = task.predictions(said, made.inputs, given)[0]
    assert (row["prediction"], row["start"], row["no_answer"]) == ("", None, 1.0)


def test_the_best_parts_are_those_of_every_pair_of_places():
    torch.manual_seed(0)
    start, end, allowed = torch.randn(3, 9), torch.randn(3, 9), torch.tensor([[0, 0, 1, 1, 1, 1, 1, 0, 0]] * 3)
    found = best_parts(start, end, allowed, 3, 40)

    for row in range(3):
        pairs = {(i, j): float(start[row, i] + end[row, j]) for i in range(2, 7) for j in range(i, min(i + 3, 7))}
        expected = sorted(pairs.items(), key=lambda each: -each[1])
        given = [((int(i), int(j)), float(s)) for i, j, s in
                 zip(found["start"][row], found["end"][row], found["score"][row], strict=True) if s > -1e8]  # fmt: skip
        assert [place for place, _ in given] == [place for place, _ in expected]
        assert [score for _, score in given] == pytest.approx([score for _, score in expected])
    assert torch.isfinite(found["score"]).all()


def test_the_summed_loss_over_its_weight_is_the_mean_that_transformers_computes(home):
    from transformers import AutoModelForQuestionAnswering

    model = AutoModelForQuestionAnswering.from_pretrained(home / "bert").eval()
    ids, labels = torch.randint(5, 20, (3, 7)), torch.tensor([[2, 3], [0, 0], [6, 6]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "context_mask": torch.ones_like(ids),
             "labels": labels}  # fmt: skip
    task = QuestionAnswering(can_be_none=True)
    total, _ = task.loss(model, batch)

    theirs = model(input_ids=ids, start_positions=labels[:, 0], end_positions=labels[:, 1]).loss
    torch.testing.assert_close(total / task.weight(batch), theirs)


def test_padding_does_not_change_the_loss():
    class Outputs:
        start_logits, end_logits = torch.zeros(1, 4), torch.zeros(1, 4)

    batch = {"labels": torch.tensor([[0, 1]]), "attention_mask": torch.tensor([[1, 1, 0, 0]])}

    torch.testing.assert_close(part_losses(Outputs, batch), torch.tensor([2 * np.log(2)], dtype=torch.float32))


def test_a_decoder_that_must_say_no_answer_is_refused(run, home, tmp_path):
    with pytest.raises(UserError, match="reads from left to right"):
        run("question-answering", model={"path": str(home / "gpt2")}, task={"max_length": 64})


def test_a_gpt2_learns_where_every_question_has_an_answer(run, home, tmp_path):
    from finetune.reuse import predict

    for split in ("train", "validation", "test"):
        kept = [
            line for line in (home / f"{split}-questions.jsonl").read_text().splitlines() if '"text": []' not in line
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(kept) + "\n")
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "validation", "test")}
    trained = run("question-answering", model={"path": str(home / "gpt2")}, task={"max_length": 64}, data=files,
                  evaluate={"baselines": True})  # fmt: skip

    scores = json.loads((trained / "scores.json").read_text())
    assert set(scores["baselines"]) == {"overlap"}
    assert {"exact_match", "answer_f1", "nll"} == set(scores["test"])
    (tmp_path / "new.jsonl").write_text(json.dumps({"question": "my film", "context": CONTEXT}) + "\n")
    row = predict(trained, tmp_path / "new.jsonl", tmp_path / "said.jsonl")[0]
    assert CONTEXT[row["start"] : row["end"]] == row["prediction"]
    assert "target" not in row


def test_a_tiny_bert_learns_and_the_threshold_of_validation_goes_into_the_recipe(run, tmp_path):
    import yaml

    from finetune.reuse import evaluate

    trained = run(
        "question-answering", evaluate={"baselines": True},
        train={"output_dir": str(tmp_path / "run"), "optim": "adamw_torch", "learning_rate": 1e-2,
               "num_train_epochs": 8, "eval_strategy": "epoch", "save_strategy": "epoch",
               "load_best_model_at_end": True},
    )  # fmt: skip

    scores = json.loads((trained / "scores.json").read_text())
    assert scores["test"]["answer_f1"]["value"] > 0.5
    assert set(scores["baselines"]) == {"overlap", "never"}
    threshold = yaml.safe_load((trained / "recipe.yaml").read_text())["task"]["threshold"]
    assert isinstance(threshold, float)
    assert evaluate(trained)["test"]["answer_f1"].value == pytest.approx(scores["test"]["answer_f1"]["value"])
    report = (trained / "report.html").read_text()
    assert "no answer to anything" in report
    assert "my film" in report


def test_an_adapter_lets_the_model_see_which_tokens_are_the_questions(home):
    from peft import LoraConfig
    from transformers import AutoModelForQuestionAnswering

    from finetune.adapters import attach

    model = AutoModelForQuestionAnswering.from_pretrained(home / "bert").eval()
    ids, sides = torch.tensor([[2, 5, 3, 6, 7, 3]]), torch.tensor([[0, 0, 0, 1, 1, 1]])
    expected = model(input_ids=ids, token_type_ids=sides).start_logits
    assert not torch.equal(expected, model(input_ids=ids).start_logits)

    attached = attach(model, LoraConfig(r=2), ["qa_outputs.weight", "qa_outputs.bias"]).eval()

    assert torch.equal(attached(input_ids=ids, token_type_ids=sides).start_logits, expected)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_learned_tokens_are_refused_where_places_are_answers(run, kind):
    with pytest.raises(UserError, match="which tokens are the question's"):
        run("question-answering", adapter={"peft_type": kind, "num_virtual_tokens": 4})


def test_rows_may_be_streamed(run, sections, tmp_path):
    data = {**sections("question-answering")["data"], "streaming": True}
    trained = run("question-answering", task={"can_be_none": True, "max_length": 32},
                  data=data, train={"output_dir": str(tmp_path / "run"), "max_steps": 3})  # fmt: skip

    assert "answer_f1" in json.loads((trained / "scores.json").read_text())["test"]
