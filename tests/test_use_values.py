"""Values that a user types, and what becomes of them."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from finetune.cli import main
from finetune.recipe import Recipe
from finetune.recipe_reading import Written, typed_value


@pytest.mark.parametrize("sign", ["|", ">", "#", "-", ":", "?", "!", "&", ";", ",", " ", "a #b"])
def test_a_sign_that_yaml_reads_as_its_own_is_text_on_the_command_line(sign: str):
    assert typed_value(sign) == sign


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("null", None),
        ("", None),
        (" 3 ", 3),
        ("'|'", "|"),
        ("[a, b]", ["a", "b"]),
        ("a: b", {"a": "b"}),
    ],
)
def test_what_is_yaml_as_a_whole_is_read_as_such(text: str, value: Any):
    assert typed_value(text) == value


def test_the_separator_of_labels_may_be_given_on_the_command_line(sections: Any, write_recipe: Any):
    recipe = Recipe.read(write_recipe(sections("text-classification")), {"task.label_separator": Written("|")})
    assert recipe.task.label_separator == "|"  # type: ignore[attr-defined]


def test_an_empty_separator_is_refused(sections: Any, write_recipe: Any, capsys: pytest.CaptureFixture[str]):
    made = write_recipe(sections("text-classification", task={"label_separator": ""}))
    assert main(["check", str(made)]) == 2
    assert "task.label_separator is empty" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"])
def test_learned_tokens_want_their_number(
    sections: Any, write_recipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
):
    made = write_recipe(sections("text-classification"))
    assert main(["train", str(made), "--adapter.peft_type", kind]) == 2
    said = capsys.readouterr().err
    assert "adapter.num_virtual_tokens is missing" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_read(
    sections: Any, write_recipe: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    trackers = "transformers.integrations.integration_utils.get_available_reporting_integrations"
    monkeypatch.setattr(trackers, lambda: ["tensorboard"])
    made = write_recipe(sections("text-classification"))
    assert main(["check", str(made), "--train.report_to", "wandb"]) == 2
    assert "train.report_to: wandb is not installed" in capsys.readouterr().err
    assert main(["check", str(made), "--train.report_to", "tensorboard"]) == 0


def test_an_output_folder_that_cannot_be_written_is_found_before_the_data(
    sections: Any, write_recipe: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def denied(**_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("finetune.opening.TemporaryDirectory", denied)
    made = sections("text-classification", data={"train": "none.csv"})
    assert main(["train", str(write_recipe(made))]) == 4
    assert "train.output_dir: nothing can be written into" in capsys.readouterr().err
