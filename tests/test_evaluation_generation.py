"""Scores of generated texts, held against sacreBLEU, against rouge-score's own numbers, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from finetune.evaluation.generation import generation_measure, generation_rivals, generation_scores
from finetune.evaluation.metrics.bleu import bleu, bleu_counts, bleu_of
from finetune.evaluation.metrics.chrf import chrf, chrf_counts, chrf_of
from finetune.evaluation.metrics.copying import copying, fragments
from finetune.evaluation.metrics.rouge import rouge
from finetune.evaluation.words import cut_for, words

SAID = ["The cat sat on the mat .", "A dog, it seems, barked at 3 men", "no", "", "the the the"]
MEANT = ["The cat was on the mat.", "A dog barked at three men.", "No!", "Silence.", "the end of the day"]
CHINESE = ["我喜欢吃苹果。", "他昨天去了北京", "你好"]
CHINESE_MEANT = ["我喜欢苹果。", "他昨天去北京了。", "你好吗"]
# rouge_score 0.1.2, RougeScorer(["rouge1", "rouge2", "rougeL"]).score(MEANT[i], SAID[i]), fmeasure
ROUGE = {
    "rouge1": [0.8333333333, 0.7142857143, 1.0, 0.0, 0.5],
    "rouge2": [0.6, 0.3333333333, 0.0, 0.0, 0.0],
    "rougeL": [0.8333333333, 0.7142857143, 1.0, 0, 0.5],
}


@pytest.mark.parametrize("cut", ["13a", "intl", "zh", "char"])
def test_bleu_is_that_of_sacrebleu_whatever_the_tokenizer(cut):
    for said, meant in ((SAID, MEANT), (CHINESE, CHINESE_MEANT)):
        expected = BLEU(tokenize=cut).corpus_score(said, [meant]).score
        assert bleu(said, meant, cut) == pytest.approx(expected)


def test_chrf_is_that_of_sacrebleu():
    for said, meant in ((SAID, MEANT), (CHINESE, CHINESE_MEANT), (SAID[:3], MEANT[:3]), (["x"], ["y"])):
        assert chrf(said, meant) == pytest.approx(CHRF().corpus_score(said, [meant]).score)


def test_a_text_weighted_k_times_counts_as_k_texts():
    times = np.array([[2, 1], [0, 1], [3, 1], [1, 1], [1, 1]])
    rows = np.repeat(np.arange(5), times[:, 0])
    said, meant = [SAID[row] for row in rows], [MEANT[row] for row in rows]

    assert bleu_of(bleu_counts(SAID, MEANT), times) == pytest.approx([bleu(said, meant), bleu(SAID, MEANT)])
    assert chrf_of(chrf_counts(SAID, MEANT), times) == pytest.approx([chrf(said, meant), chrf(SAID, MEANT)])
    weighted = generation_measure(SAID, MEANT, MEANT, "13a")(times)
    for column, (ours, theirs) in enumerate([(said, meant), (SAID, MEANT)]):
        repeated = generation_measure(ours, theirs, theirs, "13a")(np.ones((len(ours), 1)))
        # `commonest` is of one text, the same in every resample; which one it is changes with the rows.
        assert {name: each[column] for name, each in weighted.items() if name != "commonest"} == pytest.approx(
            {name: each[0] for name, each in repeated.items() if name != "commonest"}
        )


@pytest.mark.parametrize("name", ROUGE)
def test_rouge_is_that_of_rouge_score(name):
    assert rouge(SAID, MEANT)[name] / 100 == pytest.approx(np.array(ROUGE[name]))


def test_rouge_reads_chinese_a_character_at_a_time():
    found = rouge(["我喜欢苹果"], ["我喜欢吃苹果"], "zh")

    assert found["rouge1"] == pytest.approx(100 * 2 * 5 / 11)  # 5 of 5 and of 6 characters
    assert found["rouge2"] == pytest.approx(100 * 2 * 3 / 9)  # 3 of 4 and of 5 pairs
    assert rouge(["我喜欢"], ["他不去"], "zh")["rouge1"] == [0.0]


def test_chinese_between_spaces_alone_would_score_nothing_and_is_not_scored_so():
    assert bleu(CHINESE, CHINESE_MEANT, "13a") < 1
    assert bleu(CHINESE, CHINESE_MEANT, cut_for(CHINESE_MEANT)) > 30


@pytest.mark.parametrize(
    ("texts", "cut"),
    [(MEANT, "13a"), (CHINESE, "zh"), (["東京に行きました", "これは本です"], "char"), (["สวัสดีครับ"], "char"),
     (["Ελληνικά και русский"], "13a"), (["안녕하세요 여러분"], "13a"), ([], "13a"),
     (["the word 我 alone is not Chinese text"], "13a")],
)  # fmt: skip
def test_the_script_tells_how_texts_are_cut_into_words(texts, cut):
    assert cut_for(texts) == cut


def test_words_of_mixed_scripts_keep_spaced_words_whole():
    assert words("我有2本Python书, café_x") == ["我", "有", "2", "本", "python", "书", "café", "x"]
    assert words("café", "char") == ["c", "a", "f", "é"]


def test_fragments_are_taken_greedily_from_the_left():
    source = ["a", "b", "c", "d", "e", "a", "b", "x"]

    assert fragments(["b", "c", "q", "a", "b", "x", "a"], source) == [2, 3, 1]
    assert copying(["b c q a b x a"], ["a b c d e a b x"])["coverage"] == pytest.approx(6 / 7)
    assert copying(["b c q a b x a"], ["a b c d e a b x"])["density"] == pytest.approx((4 + 9 + 1) / 7)
    assert copying(["b c q"], ["b c"])["novel_bigrams"] == pytest.approx(0.5)
    assert np.isnan(copying([""], ["b c"])["coverage"]).all()


def test_scores_have_intervals_and_rivals_have_paired_gaps():
    scores = generation_scores(SAID, MEANT, MEANT, "13a", resamples=200)
    rivals = generation_rivals({"copy": MEANT, "same": SAID}, SAID, MEANT, "13a", resamples=200)

    assert set(scores) == {"bleu", "chrf", "length_ratio", "rouge1", "rouge2", "rougeL", "empty", "commonest", "copied",
                           "novel_bigrams"}  # fmt: skip
    assert scores["rougeL"].low < scores["rougeL"].value < scores["rougeL"].high
    assert scores["empty"].value == pytest.approx(0.2)
    assert scores["commonest"].value == pytest.approx(0.2)
    assert scores["commonest"].low < 0.2 < scores["commonest"].high  # all differ: a row drawn twice says nothing
    deaf = generation_scores(["yes", "yes", "no", "yes"], MEANT[:4], None, "13a", resamples=0)
    assert deaf["commonest"].value == pytest.approx(0.75)
    assert rivals["copy"]["rougeL_gap"].high < 0
    assert (rivals["same"]["bleu_gap"].low, rivals["same"]["bleu_gap"].high) == (0.0, 0.0)
