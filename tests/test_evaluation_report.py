"""The report: one file, from the run folder alone, that says what is true and shows users' text as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from datasets import Dataset

from finetune import artefact
from finetune.evaluation.baselines import text_baselines, unigram_baseline
from finetune.evaluation.classification import classification_scores
from finetune.evaluation.findings import Predictions, confusions
from finetune.evaluation.language import language_scores
from finetune.evaluation.report import write_report
from finetune.evaluation.wording import lead, reading
from finetune.tasks.labels import prediction_table

NASTY = "</td><script>alert(1)</script> & <b>\"$x_1$\" '{{ 7*7 }}'"
VOID = {"meta", "br", "link", "img", "input"}


class Page(HTMLParser):
    """Checks that every element is closed, and keeps text and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.attributes, self.elements = [], "", [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("task: {kind: text-classification}\nmodel: {path: some/model}\n")
    artefact.write_json(
        folder / "history.json",
        [
            {"step": step, "loss": 1 / step, "learning_rate": 0.1 / step, "eval_nll": 0.5, "eval_macro_f1": 0.6}
            for step in (1, 2, 3)
        ],
    )
    verdict = {"same": True, "max_difference": 1e-6, "rows": 32, "process": "fresh"}
    artefact.write_json(folder / "reload.json", verdict)
    return folder


def classified(run, labels, n=200, problem="single"):
    draw = np.random.default_rng(0)
    texts = {
        name: [f"{NASTY} row {place} of {name} {draw.integers(5)}" for place in range(n)] for name in ("train", "test")
    }
    if problem == "single":
        targets = {name: np.arange(n) % len(labels) for name in texts}
        answers = draw.normal(size=(n, len(labels))) + 2 * np.eye(len(labels))[targets["test"]]
        named = [labels[number] for number in targets["test"]]
    elif problem == "multi":
        targets = {name: draw.integers(0, 2, (n, len(labels))) for name in texts}
        answers = draw.normal(size=(n, len(labels))) + 2 * targets["test"] - 1
        named = [[name for name, on in zip(labels, row, strict=True) if on] for row in targets["test"]]
    else:
        targets = {name: draw.normal(size=n) for name in texts}
        answers = (targets["test"] + draw.normal(size=n))[:, None]
        named = [float(value) for value in targets["test"]]
    scores = classification_scores(answers, targets["test"], labels, problem, 100)
    artefact.write_scores(run, {"test": scores}, text_baselines(texts, targets, labels, problem, answers, 100))
    if labels:
        artefact.write_json(run / "labels.json", labels)
    table = {"row_id": [f"test.csv:{place + 2}" for place in range(n)], "text": texts["test"], "target": named}
    prediction_table(table, answers, labels, problem).to_parquet(run / "predictions.parquet")
    return scores


def page_of(run):
    return write_report(run).read_text(encoding="utf-8")


@pytest.mark.parametrize("problem", ["single", "multi", "regression"])
def test_users_text_is_shown_as_text_and_nothing_is_fetched(run, problem):
    classified(run, [] if problem == "regression" else ["good", NASTY, "$a$ <i>"], problem=problem)
    text = page_of(run)
    page = Page(text)

    assert "script" not in page.elements
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert not {"src", "href", "onload"} & {name for name, _ in page.attributes}
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "nan" not in re.findall(r"\w+", page.text.lower())


def test_the_page_shows_scores_rivals_verdict_and_the_lines_of_mistakes(run):
    scores = classified(run, ["bad", "good"])
    page = Page(page_of(run))

    assert f"accuracy is {scores['accuracy'].value:.3f}" in page.text
    assert "majority class" in page.text
    assert "TF-IDF" in page.text
    assert "reloads as trained" in page.text
    assert re.search(r"test\.csv:\d+", page.text)
    assert page.elements.count("svg") == 6  # loss, validation score, learning rate, confusions, calibration, length


def test_seventy_seven_classes_have_a_table_of_their_commonest_confusions(run):
    labels = [f"class {number}" for number in range(77)]
    classified(run, labels, n=770)
    matrix = Predictions.read(run / "predictions.parquet").matrix(labels)
    found = confusions(matrix, labels)

    assert len(found) == 20
    assert [one["count"] for one in found] == sorted((one["count"] for one in found), reverse=True)
    assert all(one["target"] != one["prediction"] for one in found)
    assert len(page_of(run)) < 1_000_000


def test_a_class_without_test_rows_is_said_to_have_no_scores(run):
    classified(run, ["bad", "good"])
    artefact.write_json(run / "labels.json", ["bad", "good", "absent"])

    assert "A class without test rows has no scores" in Page(page_of(run)).text


def test_a_language_model_shows_its_loss_and_its_samples_before_and_after(run):
    nll, tokens = np.array([5.0, 9.0, 4.0] * 10), np.array([4, 6, 3] * 10)
    ids = [np.arange(count) for count in tokens]
    artefact.write_scores(
        run,
        {"test": language_scores(nll, tokens, tokens * 3, 100)},
        {"unigram": unigram_baseline(ids, ids, tokens * 3, nll, 100)},
    )
    table = {"row_id": [f"test.txt:{place}" for place in range(30)], "tokens": tokens, "nll": nll}
    Dataset.from_dict(table).to_parquet(run / "predictions.parquet")
    (run / "samples").mkdir()
    for name in ("after", "before"):
        (run / "samples" / f"{name}.txt").write_text(f"{name} one {NASTY}\n\n---\n\n{name} two\n")
    text = Page(page_of(run)).text

    assert "perplexity" in text
    assert "bits per byte" in text
    assert text.index("before two") < text.index("after one")


def test_a_run_without_test_rows_says_that_its_scores_flatter(run):
    scores = {"validation": classification_scores(np.eye(4), np.arange(4), list("abcd"), "single", 0)}
    artefact.write_scores(run, scores, {})

    assert "so they flatter" in Page(page_of(run)).text


def test_a_bare_run_still_has_a_report(run):
    for file in run.iterdir():
        if file.name != "recipe.yaml":
            file.unlink()

    assert "some/model" in Page(page_of(run)).text


def test_small_facts_of_the_environment_keep_their_digits(run):
    facts = {"privacy": {"delta": 1e-05, "sample_rate": 0.05333333, "epsilon": 2.5}, "wall_time_s": 12345.6}
    artefact.write_json(run / "environment.json", facts)

    shown = re.sub(r"\s*<[^>]+>\s*", "|", write_report(run).read_text(encoding="utf-8"))

    for said in ("delta||1e-05|", "sample rate||0.05333|", "epsilon||2.500|", "wall time s||12,346|"):
        assert said in shown


def test_the_same_run_gives_the_same_bytes(run):
    classified(run, ["bad", "good"])

    assert page_of(run) == page_of(run)


def test_a_gap_is_read_by_its_interval_and_by_which_way_is_better():
    above, below, around = ({"value": 0, "low": low, "high": high} for low, high in ((1, 2), (-2, -1), (-1, 1)))

    assert [reading("accuracy", gap) for gap in (above, below, around)] == ["better", "worse", "no clear difference"]
    assert [reading("nll", gap) for gap in (above, below, around)] == ["worse", "better", "no clear difference"]


def test_the_first_sentence_names_the_strongest_rival():
    def score(value):
        return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 50}

    rivals = {
        "majority": {"accuracy": score(0.5), "accuracy_gap": score(0.3)},
        "tfidf": {"accuracy": score(0.7), "accuracy_gap": score(0.1)},
    }
    told = lead({"accuracy": score(0.8)}, "test", rivals)
    assert told == (
        "On 50 test rows, accuracy is 0.800 (0.790 to 0.810). "
        "That is +0.100 (0.090 to 0.110) against TF-IDF + linear model: better with 95 % confidence."
    )


def test_calibration_bins_hold_every_row_and_a_sure_and_right_model_has_no_error():
    columns = {"target": ["a"] * 10, "prediction": ["a"] * 10, "score": [1.0] * 10, "p/a": [1.0] * 10}
    bins, error = Predictions(columns).reliability()

    assert (sum(each["share"] for each in bins), error) == (1.0, 0.0)
