"""What others say is shown without tokens, however it is cut."""

from __future__ import annotations

import huggingface_hub
import pytest

from finetune.endings import ending
from finetune.errors import UserError
from finetune.publishing.scrubbing import in_short, without_secrets

TOKEN = "hf_" + "aB3" * 12


@pytest.mark.parametrize("before", range(260, 300))
def test_no_part_of_a_token_is_shown_where_a_message_is_cut(before):
    error = ConnectionError("x" * before + f" {TOKEN} and more " + "y" * 300)

    code, line = ending(error)

    assert code == 4
    assert "hf_" not in line


def test_a_line_is_as_long_as_it_may_be_and_says_where_it_is_cut():
    assert in_short("a\n b  c", 5) == "a b c"
    assert in_short("abcdef", 5) == "abcd…"


def test_the_token_in_use_is_hidden_whatever_its_form(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "private-endpoint-7")
    assert without_secrets("401 for private-endpoint-7!") == "401 for [a token]!"

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "the")  # no secret: a word of any text
    assert without_secrets("all the rows") == "all the rows"

    def refused():
        raise PermissionError("token")

    monkeypatch.setattr(huggingface_hub, "get_token", refused)
    assert without_secrets("all the rows") == "all the rows"


def test_what_the_hub_refuses_of_a_card_is_said_without_tokens(monkeypatch, sections, write_recipe, tmp_path):
    from finetune import publication
    from finetune.publishing.card import Place
    from finetune.recipe import Recipe

    def refuse(*given):
        raise ValueError("x" * 380 + f" {TOKEN}")

    monkeypatch.setattr(publication, "patiently", refuse)
    recipe = Recipe.read(write_recipe(sections("text-classification", "whole")))

    with pytest.raises(UserError) as raised:
        publication._card(tmp_path, recipe, Place("jane/made"))

    assert "hf_" not in str(raised.value)
