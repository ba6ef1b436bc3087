"""What is written on the way is there whole, or not at all: a kill may come between any two bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune import artefact
from finetune.evaluation.pictures import steps
from finetune.recording import write_samples
from finetune.task import Picture

PICTURE = Picture(np.zeros((8, 8), np.uint8), "a picture")


@pytest.fixture
def killed(monkeypatch):
    """Every file is cut short in its middle."""
    save, write = Image.Image.save, Path.write_text

    def half_saved(image, path, **options):
        save(image, path, **options)
        Path(path).write_bytes(Path(path).read_bytes()[:40])
        raise KeyboardInterrupt

    def half_written(path, text, **options):
        write(path, text[: len(text) // 2], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", half_saved)
    monkeypatch.setattr(Path, "write_text", half_written)


@pytest.mark.parametrize("found", [PICTURE, ["one text", "another"]], ids=["picture", "texts"])
def test_samples_that_are_cut_short_do_not_have_their_name(tmp_path, killed, found):
    with pytest.raises(KeyboardInterrupt):
        write_samples(tmp_path, "before", found)

    assert not list((tmp_path / artefact.SAMPLES).glob("before.*"))  # so the run that goes on writes them


def test_a_picture_of_a_step_that_is_cut_short_breaks_no_report(tmp_path, killed):
    with pytest.raises(KeyboardInterrupt):
        artefact.write_picture(PICTURE, tmp_path / "step-000004.png")

    assert steps(tmp_path) == []
