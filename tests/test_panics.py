from __future__ import annotations

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from finetune import cli, endings


def give_up(arguments: list[str]) -> int:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a|a|aa)+$"), "isolated")
    return len(tokenizer.encode("a" * 60 + "!").ids)


def test_a_pattern_of_a_strangers_tokenizer_that_never_ends_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_run", give_up)

    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err.startswith("finetune: the tokenizer gave up on a text (Onig: Regex search error")


def test_an_exit_is_no_fault(monkeypatch):
    assert endings.ending(SystemExit(3)) is None
    monkeypatch.setattr(cli, "_run", lambda arguments: (_ for _ in ()).throw(SystemExit(3)))
    with pytest.raises(SystemExit):
        cli.main(["train"])
