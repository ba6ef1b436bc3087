"""Tags name spans: read as conlleval reads them, whatever the scheme, and written as IOB2."""

from __future__ import annotations

import random

import numpy as np
import pytest

from finetune.errors import UserError
from finetune.evaluation.metrics import load_metric
from finetune.evaluation.metrics.span_f1 import Span, spans_of
from finetune.evaluation.tagging import lookup_baseline, tagging_scores
from finetune.tasks.tag_schemes import iob2, labels_of, look, names_spans

SPANS = [Span("A", 0, 2), Span("A", 2, 3), Span("B", 3, 6), Span("A", 7, 8)]
WRITTEN = {  # the same spans of nine words in each scheme
    "IOB1": "I-A I-A B-A I-B I-B I-B O I-A O",
    "IOB2": "B-A I-A B-A B-B I-B I-B O B-A O",
    "IOBES": "B-A E-A S-A B-B I-B E-B O S-A O",
    "BILOU": "B-A L-A U-A B-B I-B L-B O U-A O",
    "BMES": "B-A E-A S-A B-B M-B E-B O S-A O",
}


def conlleval_chunks(tags: list[str]) -> set[tuple[str, int, int]]:
    """The chunks of conlleval.pl (Tjong Kim Sang 2000), its rules of start and end written out one by one."""
    pairs = [tuple(tag.split("-", 1)) if "-" in tag else ("O", "") for tag in tags] + [("O", "")]
    chunks, start, before, kind = set(), 0, "O", ""
    for place, (tag, name) in enumerate(pairs):
        ends = (
            (before == "B" and tag in ("B", "O", "S")) or (before == "I" and tag in ("B", "O", "S"))
            or before in ("E", "S") or (before not in ("O",) and name != kind)
        )  # fmt: skip
        if ends and before != "O":
            chunks.add((kind, start, place))
        starts = (
            tag in ("B", "S") or (before in ("E", "S") and tag in ("E", "I")) or (before == "O" and tag in ("E", "I"))
            or (tag != "O" and name != kind)
        )  # fmt: skip
        if starts and tag != "O":
            start = place
        before, kind = tag, name
    return chunks


@pytest.mark.parametrize("scheme", WRITTEN)
def test_the_same_spans_are_read_in_every_scheme(scheme):
    assert spans_of(WRITTEN[scheme].split()) == SPANS


@pytest.mark.parametrize("scheme", WRITTEN)
def test_every_scheme_becomes_iob2(scheme):
    assert iob2(WRITTEN[scheme].split(), None) == WRITTEN["IOB2"].split()


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOBES", "BILOU"])
def test_a_scheme_is_known_by_its_tags_and_breaks_no_rule_of_its_own(scheme):
    seen = look([("f:1", WRITTEN[scheme].split())])

    assert seen.scheme == scheme
    assert seen.broken(scheme) == (0, "")


def test_an_inside_that_continues_nothing_is_counted_with_its_place():
    seen = look([("f:1", WRITTEN["IOB2"].split()), ("f:9", ["O", "I-A", "O"])])

    assert seen.scheme == "IOB2"
    assert seen.broken("IOB2") == (1, 'f:9, word 2: "I-A"')


def test_a_span_that_nothing_ends_is_counted_in_iobes():
    assert look([("f:1", ["B-A", "I-A", "O", "S-B"])]).broken("IOBES") == (1, 'f:1, word 2: "I-A"')


def test_equal_tags_in_a_row_are_one_span_of_io():
    assert iob2(["A", "A", "B", "O", "A"], "IO") == ["B-A", "I-A", "B-B", "O", "B-A"]


def test_tags_without_prefixes_name_no_spans():
    assert not names_spans(["NOUN", "VERB"], None, "data.train")
    assert not names_spans(["O", "PER"], None, "data.train")
    assert names_spans(["O", "B-PER", "I-PER"], None, "data.train")
    with pytest.raises(UserError, match='"PLACE" has no prefix'):
        names_spans(["O", "B-PER", "PLACE"], None, "data.train")


def test_labels_hold_both_prefixes_of_every_kind():
    assert labels_of(["PER", "LOC"]) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


@pytest.mark.parametrize("seed", range(20))
def test_spans_of_any_tags_are_those_of_conlleval(seed):
    chooser = random.Random(seed)
    known = ["O", "O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("X", "Y-Z"))]
    for _ in range(50):
        tags = chooser.choices(known, k=chooser.randint(0, 12))
        assert set(spans_of(tags)) == conlleval_chunks(tags), tags


def rows_of(seed: int, count: int = 40) -> tuple[list[list[str]], list[list[str]]]:
    chooser = random.Random(seed)
    known = ["O", "O", "O", "B-X", "I-X", "B-Y", "I-Y"]
    meant = [chooser.choices(known, k=chooser.randint(1, 9)) for _ in range(count)]
    return [[tag if chooser.random() < 0.7 else chooser.choice(known) for tag in tags] for tags in meant], meant


@pytest.mark.parametrize("seed", range(5))
def test_span_scores_are_those_of_sets_of_chunks(seed):
    said, meant = rows_of(seed)
    ours = {(row, *chunk) for row, tags in enumerate(said) for chunk in conlleval_chunks(tags)}
    theirs = {(row, *chunk) for row, tags in enumerate(meant) for chunk in conlleval_chunks(tags)}
    precision, recall = len(ours & theirs) / len(ours), len(ours & theirs) / len(theirs)

    scores = tagging_scores(said, meant, ("X", "Y"), True, 0)

    assert scores["span_precision"].value == pytest.approx(precision)
    assert scores["span_recall"].value == pytest.approx(recall)
    assert scores["span_f1"].value == pytest.approx(2 * precision * recall / (precision + recall))
    of_x = [{chunk for chunk in side if chunk[1] == "X"} for side in (ours, theirs)]
    assert scores["f1/X"].value == pytest.approx(2 * len(of_x[0] & of_x[1]) / (len(of_x[0]) + len(of_x[1])))
    assert scores["f1/X"].n == len(of_x[1])
    assert load_metric("span_f1").compute(predictions=said, references=meant)["span_f1"] == pytest.approx(
        scores["span_f1"].value
    )


def test_intervals_are_of_whole_rows_and_hold_the_value():
    said, meant = rows_of(3, 80)

    score = tagging_scores(said, meant, ("X", "Y"), True, 300)["span_f1"]

    assert score.low is not None
    assert score.low < score.value < score.high
    assert score.n == 80


def test_words_have_accuracy_and_f1_where_tags_name_no_spans():
    from sklearn.metrics import f1_score

    said, meant = [["N", "V", "N"], ["V"]], [["N", "N", "N"], ["V"]]

    scores = tagging_scores(said, meant, ("N", "V"), False, 0)

    flat = [[tag for row in side for tag in row] for side in (meant, said)]
    assert scores["accuracy"].value == 0.75
    assert scores["macro_f1"].value == pytest.approx(f1_score(*flat, average="macro"))


def test_a_word_without_an_answer_is_missed_and_said_for_nothing():
    scores = tagging_scores([["N", None]], [["N", "N"]], ("N", "V"), False, 0)

    assert (scores["recall/N"].value, scores["precision/N"].value) == (0.5, 1.0)


def test_the_lookup_says_each_words_most_frequent_tag_and_its_gap_is_paired():
    words, tags = [["Rome", "is", "Rome"], ["Rome", "is"]], [["B-X", "O", "O"], ["B-X", "O"]]
    test = ([["Rome", "was", "is"]], [["B-X", "O", "O"]])

    scores = lookup_baseline((words, tags), test, [["O", "O", "O"]], ("X",), True, 0)

    assert scores["span_f1"].value == 1.0
    assert scores["span_f1_gap"].value == -1.0
    assert np.isclose(scores["accuracy"].value, 1.0)
