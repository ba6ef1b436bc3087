"""Answers are scored as SQuAD's scripts score them, and the threshold of no answer is the best there is."""

from __future__ import annotations

import re
import string
from collections import Counter

import numpy as np
import pytest

from finetune.evaluation.answering import answering_scores, best_threshold, overlap_answer
from finetune.evaluation.metrics import load_metric
from finetune.evaluation.metrics.answer_f1 import answer_f1, exact_match


def official_tokens(text: str) -> list[str]:
    """`normalize_answer` and `get_tokens` of SQuAD's scripts, written from their definition."""
    text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def official_f1(gold: str, said: str) -> float:
    """`compute_f1` of evaluate-v2.0.py (Rajpurkar et al. 2018), written from its definition."""
    golds, saids = official_tokens(gold), official_tokens(said)
    same = sum((Counter(golds) & Counter(saids)).values())
    if not golds or not saids:
        return int(golds == saids)
    if not same:
        return 0
    precision, recall = same / len(saids), same / len(golds)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(
    ("said", "meant"),
    [("the Cat!", ["cat"]), ("a black cat", ["cat", "black cats"]), ("dog", ["cat"]), ("", ["cat"]), ("", []),
     ("x", []), ("The", ["the"]), ("U.S.", ["US"]), ("an 8-bit  bus", ["8bit bus"]), ("over a sea", ["sea over sea"])],
)  # fmt: skip
def test_an_answers_scores_are_those_of_squads_script(said, meant):
    golds = [gold for gold in meant if official_tokens(gold)] or [""]

    assert answer_f1(said, meant) == pytest.approx(max(official_f1(gold, said) for gold in golds))
    assert exact_match(said, meant) == float(any(official_tokens(gold) == official_tokens(said) for gold in golds))


def test_exact_match_is_of_the_order_of_words_too():
    assert exact_match("sea over", ["over sea"]) == 0.0
    assert answer_f1("sea over", ["over sea"]) == 1.0


def test_the_metric_loads_by_its_name_and_means_over_rows():
    found = load_metric("answer_f1").compute(predictions=["a cat", "dog"], references=[["the cat"], []])

    assert found == {"exact_match": 0.5, "answer_f1": 0.5}


def test_scores_of_rows_with_and_without_an_answer_stand_apart():
    said, meant = ["cat", "", "", "dog"], [["cat"], ["cat"], [], []]

    scores = answering_scores(said, meant, 200)

    assert {name: score.value for name, score in scores.items()} == {
        "exact_match": 0.5, "answer_f1": 0.5, "answered_exact_match": 0.5, "answered_answer_f1": 0.5,
        "no_answer_accuracy": 0.5,
    }  # fmt: skip
    assert (scores["answer_f1"].n, scores["no_answer_accuracy"].n) == (4, 2)
    assert scores["answer_f1"].low is not None
    assert scores["answer_f1"].low < 0.5 < scores["answer_f1"].high


@pytest.mark.parametrize("seed", range(8))
def test_the_threshold_has_the_greatest_f1_of_all(seed):
    draw = np.random.default_rng(seed)
    meant = [[["cat"], ["cat"], []][draw.integers(3)] for _ in range(30)]
    said = [["cat", "a dog", "black cat"][draw.integers(3)] for _ in range(30)]
    gaps = draw.normal(size=30).round(1)

    def f1(threshold: float) -> float:
        return float(np.mean([answer_f1("" if gap > threshold else text, gold) for text, gold, gap in
                              zip(said, meant, gaps, strict=True)]))  # fmt: skip

    chosen = best_threshold(said, gaps, meant)
    assert f1(chosen) == pytest.approx(max(f1(each) for each in [*gaps, -10.0, 10.0]))


def test_the_rule_that_reads_nothing_names_what_the_question_does_not():
    text = "Paris is large. The tower of Paris was built by Gustave Eiffel in 1889. It is tall."

    assert overlap_answer("Who built the tower of Paris?", text) == "Gustave Eiffel"
    assert overlap_answer("What is tall?", "it is tall and grey") == "it is tall and grey"
