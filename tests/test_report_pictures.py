"""The report of a generator: its pictures are in the page, its alarms on top, its facts in a table."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from finetune import artefact
from finetune.evaluation.grids import grid
from finetune.evaluation.pictures import SHOWN_STEPS, steps
from finetune.evaluation.report import write_report
from finetune.evaluation.wording import lead
from finetune.task import Picture, Score

NAMES = ("after", "before", "interpolation", "latent_plane", "nearest", "reconstructions")
NASTY = '"><script>alert(1)</script>'


def picture(value, caption="what it is"):
    return Picture(grid(np.full((4, 8, 8, 1), value, dtype=np.uint8), 2), caption)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "digits-gan"
    (folder / "samples").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("task: {kind: image-gan}\nmodel: {config: {model_type: finetune-gan}}\n")
    for number, name in enumerate(NAMES):
        artefact.write_picture(picture(10 * number, f"caption of {name} {NASTY}"), folder / "samples" / f"{name}.png")
    for step in range(100, 2100, 100):
        artefact.write_picture(picture(step % 256), folder / "samples" / f"step-{step:06}.png")
    history = [
        {"step": step, "loss": 1.0, "d_loss": 0.7, "d_accuracy_real": 0.6, "d_accuracy_fake": 0.5, "eval_fcd": 3.0}
        for step in (1, 2, 3)
    ]
    artefact.write_json(folder / "history.json", history)
    facts = {
        "alarms": ["the generator copies."],
        "extractor": "lenet@0123456789ab",
        "kl_per_dimension": [0.1, 0.0, 2.5, 1.0],
        "reconstructions": [{"text": "a dog ran.", "again": f"a cat ran {NASTY}"}],
        "generated": 2000,
        "intervals": "by hand",
        "samples_per_second": 1234.5,
        "classes_seen": {"generated": {"a": 0.25, "b": 0.75}, "held_out": {"a": 0.375, "b": 0.625}},
        "left_out": ["this", "that"],
    }
    artefact.write_json(folder / "examination.json", facts)
    own = {"fcd": Score(4.15, 3.9, 4.4, 2000), "coverage": Score(0.88, 0.85, 0.9, 360)}
    baselines = {name: {"fcd": Score(value, None, None, 2000)} for name, value in (("real", 1.64), ("noise", 198.0))}
    artefact.write_scores(folder, {"test": own}, baselines)
    return folder


@pytest.fixture
def page(run):
    return write_report(run).read_text(encoding="utf-8")


def test_every_picture_is_in_the_page_as_it_lies_in_the_folder(run, page):
    inside = [base64.b64decode(each) for each in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]

    assert len(inside) == len(NAMES) + SHOWN_STEPS
    for name in (*NAMES, "step-000100", "step-002000"):
        assert (run / "samples" / f"{name}.png").read_bytes() in inside
    assert Image.open(io.BytesIO(inside[0])).size == (17, 17)
    assert "script" not in re.findall(r"<(\w+)", page)
    assert "image-rendering: pixelated" in page
    assert "img-src data:" in page


def test_the_page_shows_samples_then_the_course_of_training_then_the_examination(page):
    places = [
        page.index(each)
        for each in (
            "Beware",
            "Samples of the trained",
            "Before training",
            "step 100<",
            "step 2,000",
            "Reconstructions",
            "Latent plane",
            "Interpolation",
            "Beside the nearest",
            "lenet@0123456789ab",
        )
    ]

    assert places == sorted(places)
    assert "the generator copies." in page
    assert "1,234" in page or "1,235" in page
    assert "95 % intervals: by hand." in page


def test_latent_dimensions_are_bars_when_they_are_many_and_numbers_when_they_are_few(run, page):
    assert "KL, nats of each latent dimension" in page
    facts = artefact.read_json(run / "examination.json")
    artefact.write_json(run / "examination.json", {**facts, "kl_per_dimension": [0.5, 2.0]})

    assert "0.500, 2.000" in write_report(run).read_text(encoding="utf-8")


def test_texts_stand_beside_what_becomes_of_them(page):
    assert '<td class="text">a dog ran.</td><td class="text">a cat ran &#34;' in page


def test_a_picture_that_is_enlarged_keeps_its_pixels_and_a_large_one_is_smoothed(run):
    large = Picture(np.zeros((20, 900, 3), dtype=np.uint8), "wide")
    artefact.write_picture(large, run / "samples" / "latent_plane.png")
    page = write_report(run).read_text(encoding="utf-8")

    assert len(re.findall(r'<img class="sharp" ', page)) == len(NAMES) - 1 + SHOWN_STEPS
    assert re.findall(r'<img src="[^"]+" width="(\d+)"', page) == ["900"]


def test_both_players_are_in_one_plot(page):
    assert "loss by step: generator, discriminator" in page
    assert "by step: real, generated" in page
    assert page.count("<svg") == 4  # the distance on validation rows and the latent dimensions, too


def test_a_relativistic_discriminator_is_drawn_by_its_pairs_and_a_critic_by_its_gap(run):
    for key, said in (("d_accuracy_pairs", "accuracy by step: pairs"), ("critic_gap", "real minus generated by step")):
        artefact.write_json(run / "history.json", [{"step": step, "d_loss": 0.7, key: 0.5} for step in (1, 2)])

        assert said in write_report(run).read_text(encoding="utf-8")


def test_a_rate_that_never_changes_is_not_drawn(run):
    for rates, drawn in (((0.1, 0.1), False), ((0.1, 0.0), True)):
        history = [{"step": step, "learning_rate": rate} for step, rate in enumerate(rates)]
        artefact.write_json(run / "history.json", history)

        assert ("learning rate by step" in write_report(run).read_text(encoding="utf-8")) is drawn


def test_each_class_has_its_share_of_generated_and_of_held_out_images(page):
    table = page[page.index("Which classes it draws") : page.index("How it was examined")]

    assert re.findall(r">([\d.]+) %<", table) == ["25.0", "37.5", "75.0", "62.5"]
    assert re.findall(r"width:([\d.]+)%", table) == ["33.3", "100.0"]
    assert "classes seen" not in page


def test_the_first_sentence_sets_a_distance_beside_that_of_real_images(page):
    told = (
        "FCD (Fréchet classifier distance) of 2,000 generated images against the test ones is 4.150 (3.900 to 4.400). "
        "As many real training images have 1.640."
    )

    assert told in page
    assert page.index("uniform noise") > page.index("All scores")  # too far off for the scale of the bars


def test_a_distance_without_a_floor_is_told_alone():
    own = {"swd": {"value": 0.1, "low": None, "high": None, "n": 50}}

    assert lead(own, "test", {}) == (
        "sliced Wasserstein distance of 50 generated images against the test ones is 0.100."
    )


def test_few_steps_are_all_shown_and_none_is_no_strip(run, tmp_path):
    for path in sorted((run / "samples").glob("step-*.png"))[3:]:
        path.unlink()

    assert [each["title"] for each in steps(run / "samples")] == ["step 100", "step 200", "step 300"]
    assert steps(tmp_path / "nowhere") == []
