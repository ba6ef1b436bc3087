"""Teachers that would be asked something else than they were taught: each refused in one line, before any step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import yaml

from finetune.errors import UserError


def as_run(folder: Path, source: Path, **task: object) -> str:
    """Copy a model's folder and say in it, as a run does, what it was taught."""
    shutil.copytree(source, folder)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"task": task}))
    return str(folder)


def other_config(folder: Path, source: Path, **options: object) -> str:
    shutil.copytree(source, folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **options}))
    return str(folder)


def padded(folder: Path, source: Path) -> str:
    """Save a model of language with more rows in its vocabulary than its tokenizer has."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source)
    model.resize_token_embeddings(300)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return str(folder)


def templated(folder: Path, source: Path) -> str:
    shutil.copytree(source, folder)
    (folder / "chat_template.jinja").write_text("{% for turn in messages %}{{ turn.content }}{% endfor %}")
    return str(folder)


CASES = {
    "token-classification, a classifier of texts": (
        "token-classification",
        lambda t, h: str(h / "teacher"),
        {},
        "has 2 labels, and this task has 5",
    ),
    "token-classification, other tags": (
        "token-classification",
        lambda t, h: other_config(t / "x", h / "teacher-tags", id2label={str(n): f"L{n}" for n in range(5)}),
        {},
        "label 0 is 'L0'",
    ),
    "token-classification, no head": ("token-classification", lambda t, h: str(h / "bert"), {}, "has 2 labels"),
    "question-answering, no head": (
        "question-answering",
        lambda t, h: str(h / "bert"),
        {},
        "has no trained head of this task",
    ),
    "question-answering, a run of tags": (
        "question-answering",
        lambda t, h: as_run(t / "x", h / "bert", kind="token-classification"),
        {},
        "task.kind of",
    ),
    "masked-lm, no mask": ("masked-lm", lambda t, h: str(h / "gpt2"), {}, "no mask token"),
    "causal-lm, another tokenizer": (
        "causal-lm",
        lambda t, h: str(h / "bert"),
        {},
        "has another tokenizer: the two differ in",
    ),
    "causal-lm, too short": (
        "causal-lm",
        lambda t, h: str(h / "gpt2"),
        {"block_size": 100},
        "reads 64 tokens, and task.block_size is 100",
    ),
    "causal-lm, more tokens": (
        "causal-lm",
        lambda t, h: padded(t / "x", h / "gpt2"),
        {},
        "knows 300 tokens, and the student 257",
    ),
    "chat, a run of a language model": (
        "chat",
        lambda t, h: as_run(t / "x", h / "gpt2-long", kind="causal-lm"),
        {},
        "'causal-lm', and 'chat' here",
    ),
    "chat, another template": (
        "chat",
        lambda t, h: templated(t / "x", h / "gpt2-long"),
        {},
        "another chat template; set task.template",
    ),
    "chat, no room to answer": ("chat", lambda t, h: str(h / "gpt2"), {}, "reads 64 tokens"),
    "seq2seq, another prefix": (
        "seq2seq",
        lambda t, h: as_run(t / "x", h / "bart", kind="seq2seq", prefix="say: "),
        {},
        "task.prefix of",
    ),
    "seq2seq, too short": (
        "seq2seq",
        lambda t, h: other_config(t / "x", h / "bart", max_position_embeddings=40),
        {},
        "80 is more than the 40 positions",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_teacher_of_something_else_is_refused_in_one_line(run, home, tmp_path, name) -> None:
    kind, make, task, words = CASES[name]
    options = {"task": {**tiny.TASKS[kind]["task"], **task, "distill": {"teacher": make(tmp_path, home)}}}
    model = {"model": {"path": str(home / "gpt2-long")}} if task else {}

    with pytest.raises(UserError) as caught:
        run(kind, **options, **model)
    assert "\n" not in str(caught.value)
    assert "task.distill.teacher" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "distill", "model", "words"),
    [
        ("causal-lm", {"hidden": {"weight": 0}}, {}, "task.distill.hidden.weight is 0"),
        ("causal-lm", {"hidden": {"wieght": 1}}, {}, "wieght"),
        ("causal-lm", {"hidden": {}}, {"config": {"model_type": "finetune-rnn-lm"}, "path": None}, "is recurrent"),
        ("image-vae", {}, {}, "distill"),
        ("text-vae", {}, {}, "distill"),
    ],
)
def test_what_cannot_be_learned_from_a_teacher_is_refused_in_one_line(run, home, kind, distill, model, words) -> None:
    given = {**tiny.TASKS[kind]["task"], "distill": {"teacher": str(home / "gpt2"), **distill}}
    scratch = {**model, "tokenizer": str(home / "gpt2")} if model else {}

    with pytest.raises(UserError) as caught:
        run(kind, task=given, model=scratch)
    assert "\n" not in str(caught.value)
    assert words in str(caught.value)


def test_an_image_classifier_shows_no_hidden_states_of_tokens(run, tmp_path) -> None:
    teacher = run("image-classification", train={"output_dir": str(tmp_path / "teacher")})

    with pytest.raises(UserError, match="shows no hidden states"):
        run("image-classification", task={"distill": {"teacher": str(teacher), "hidden": {"weight": 1.0}}})
