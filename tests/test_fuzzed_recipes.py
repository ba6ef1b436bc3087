"""Recipes and foreign configurations at random: read, or refused in one line with exit code 2; never a traceback.

The same examples each time (derandomised); HYPOTHESIS_PROFILE=wild draws others, and ten times as many.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from foreign import load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import finetune
from finetune.cli import main
from finetune.errors import FinetuneError
from finetune.foreign.adapters import check_adapter
from finetune.loading import ModelOptions, load_tokenizer

WILD = os.environ.get("HYPOTHESIS_PROFILE") == "wild"
SCHEMA = json.loads((Path(finetune.__file__).parent / "schema.json").read_text())


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples * (10 if WILD else 1), derandomize=not WILD, deadline=None, database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip


ODD = st.sampled_from([
    "", " ", "\0", "../..", "/", "~", "[", "{", "!!python/object/apply:os.system [true]", "&a *a", "nan", ".inf",
    "yes", "null", "\ud7ff", "𝔸", "a" * 2000, "(a+)+$", "{{ x }}", "%s %d", "task.kind: x", "line\nline", "hf_x",
    "-1", "0x10", "1e999", "9" * 5000, "[" * 2000,
])  # fmt: skip
SCALARS = st.one_of(
    ODD, st.none(), st.booleans(), st.integers(-3, 70), st.sampled_from([2**31, 2**63, -(2**64), 10**400]),
    st.floats(allow_nan=True, allow_infinity=True), st.text(max_size=12),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD | st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def options(section: str) -> list[str]:
    """Return the names of a section's options, by the schema."""
    held = SCHEMA["properties"][section]
    kinds = [held, *held.get("oneOf", [])]
    names: set[str] = set()
    for kind in kinds:
        if "$ref" in kind:
            kind = SCHEMA["definitions"][kind["$ref"].rpartition("/")[2]]
        names |= set(kind.get("properties", {}))
    return sorted(names)


NAMES = {section: options(section) for section in SCHEMA["properties"]}
GOOD = {
    "task": {"kind": "text-classification", "text": "text", "label": "label"},
    "data": {"train": "train.csv", "validation": {"fraction": 0.1}},
    "model": {"path": "some/model"},
    "adapter": {"peft_type": "LORA", "r": 4},
    "train": {"output_dir": "runs/x", "learning_rate": 1e-4},
}
CHANGES = st.lists(
    st.sampled_from(sorted(NAMES)).flatmap(
        lambda section: st.tuples(st.just(section), st.sampled_from(NAMES[section]) | st.text(max_size=8), VALUES)
    ),
    min_size=1,
    max_size=3,
)


def outcome(recipe: Path, *words: str) -> tuple[int, str]:
    """Return exit code and errors of reading a recipe."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["train", str(recipe), *words, "--print_config"])
    return code, err.getvalue()


def check(code: int, said: str) -> None:
    lines = [line for line in said.splitlines() if line.startswith("finetune")]
    assert code in (0, 2), said
    assert len(lines) == (code == 2), said
    assert "Traceback" not in said


def test_the_schema_names_what_is_mutated():
    assert all(len(names) > 2 for names in NAMES.values()), NAMES
    assert len(NAMES["train"]) > 60


@bounded(220)
@given(changes=CHANGES)
def test_a_recipe_with_random_options_is_read_or_refused_in_one_line(tmp_path, changes):
    made: dict[str, Any] = json.loads(json.dumps(GOOD))
    for section, name, value in changes:
        made.setdefault(section, {})[name] = value
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(made, allow_unicode=True), encoding="utf-8", errors="replace")

    check(*outcome(path))
    assert set(tmp_path.iterdir()) == {path}


@bounded(60)
@given(section=st.sampled_from(sorted(GOOD)), value=VALUES)
def test_a_section_of_another_type_is_refused_in_one_line(tmp_path, section, value):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**GOOD, section: value}, allow_unicode=True), encoding="utf-8", errors="replace")

    check(*outcome(path))


TEXT = yaml.safe_dump(GOOD)


def test_anchors_within_anchors_are_refused_before_they_are_written_out(tmp_path):
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)
    ]
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(laughs), encoding="utf-8")

    code, said = outcome(path)

    assert code == 2
    assert "more than 20,000 values" in said


@bounded(150)
@given(data=st.data())
def test_a_damaged_recipe_is_read_or_refused_in_one_line(tmp_path, data):
    whole = TEXT.encode()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(start + 30, len(whole))))
    path = tmp_path / "recipe.yaml"
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=8) | ODD.map(lambda x: x.encode())) + whole[end:])

    check(*outcome(path))


@bounded(80)
@given(section=st.sampled_from(sorted(NAMES)), data=st.data())
def test_a_random_override_is_read_or_refused_in_one_line(tmp_path, section, data):
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXT, encoding="utf-8")
    name, value = data.draw(st.sampled_from(NAMES[section])), data.draw(ODD | st.text(max_size=10))

    check(*outcome(path, f"--{section}.{name}={value}"))


# ---- foreign configurations

HUGE = st.sampled_from(
    [0, -1, 1, 7, 10**6, 10**9, 2**40, 1.5, True, None, "", "x", "../x", "/x", [], {}, [10**9], {"a": 1}]
)


def passes_or_says(call: Callable[[], Any]) -> None:
    """Call, and let pass what is refused in one line; anything else that is raised fails the test."""
    said = ""
    try:
        call()
    except FinetuneError as error:
        said = str(error)
    assert "\n" not in said


CONFIG = [
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "max_position_embeddings", "type_vocab_size", "model_type", "architectures", "pad_token_id", "id2label",
    "num_labels", "attn_implementation", "auto_map", "quantization_config", "dtype", "is_decoder",
    "layer_norm_eps", "initializer_range", "problem_type", "tie_word_embeddings", "chunk_size_feed_forward",
    "text_config", "per_layer_config", "output_attentions", "label2id", "transformers_version", "_name_or_path",
]  # fmt: skip


@bounded(90)
@given(changes=st.dictionaries(st.sampled_from(CONFIG), HUGE, min_size=1, max_size=2))
def test_a_random_config_is_read_or_refused_in_one_line(bert, home, changes):
    held = json.loads((home / "bert" / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**held, **changes}))

    passes_or_says(lambda: load(bert))


TOKENIZER = [
    "tokenizer_class", "model_max_length", "pad_token", "cls_token", "added_tokens_decoder", "chat_template",
    "extra_special_tokens", "auto_map", "padding_side", "truncation_side", "clean_up_tokenization_spaces",
    "model_input_names", "vocab_file", "tokenizer_file", "split_special_tokens", "backend", "name_or_path",
]  # fmt: skip


@bounded(80)
@given(changes=st.dictionaries(st.sampled_from(TOKENIZER), HUGE, min_size=1, max_size=2))
def test_a_random_tokenizer_config_is_read_or_refused_in_one_line(bert, home, changes):
    held = json.loads((home / "bert" / "tokenizer_config.json").read_text())
    (bert / "tokenizer_config.json").write_text(json.dumps({**held, **changes}))

    passes_or_says(lambda: load_tokenizer(ModelOptions(path=str(bert))))


LORA = [
    "r", "lora_alpha", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "modules_to_save",
    "layers_to_transform", "layers_pattern", "layer_replication", "bias", "peft_type", "task_type",
    "auto_mapping", "megatron_config", "loftq_config", "init_lora_weights", "trainable_token_indices",
    "use_dora", "fan_in_fan_out",
]  # fmt: skip


@bounded(150)
@given(changes=st.dictionaries(st.sampled_from(LORA), HUGE, min_size=1, max_size=3))
def test_a_random_adapter_config_is_passed_or_refused_in_one_line(tmp_path, changes):
    held = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps({**held, **changes}))

    passes_or_says(lambda: check_adapter(tmp_path, "here"))
