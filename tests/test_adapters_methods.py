"""Every method of PEFT: it learns and comes back, or it is refused in one line before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune.adapters import HeadOnly, attach, load_adapter
from finetune.adapters.methods import EMBEDDED_PROMPTS, NEED_MORE, NORMS, OWN_TARGETS, PREFIXES, WITH_CONV1D
from finetune.errors import UserError
from finetune.loading import ModelOptions, load_config, load_pretrained, load_tokenizer, set_padding

METHODS = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
LINEAR = sorted(set(METHODS) - EMBEDDED_PROMPTS - PREFIXES - OWN_TARGETS - NORMS - set(NEED_MORE))
OPTIONS: dict[str, dict[str, Any]] = {  # what a method cannot do without, or sizes that fit a tiny model
    "ADALORA": {"total_step": 10},
    "ADAPTION_PROMPT": {"adapter_len": 3, "adapter_layers": 1},
    "C3A": {"block_size": 8},
    "CARTRIDGE": {"num_virtual_tokens": 3},
    "MISS": {"r": 4},
    "PREFIX_TUNING": {"num_virtual_tokens": 3},
    "PROMPT_TUNING": {"num_virtual_tokens": 3},
    "P_TUNING": {"num_virtual_tokens": 3, "encoder_hidden_size": 8},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"token_indices": [5, 6]},
    "VBLORA": {"num_vectors": 4, "vector_length": 2, "topk": 2},
    "WAVEFT": {"n_frequency": 20},
}


def method(kind: str) -> Any:
    return METHODS[kind](**OPTIONS.get(kind, {}))


def base(home: Path, family: str, auto_class: Any = AutoModelForSequenceClassification) -> tuple[Any, list[str]]:
    torch.manual_seed(0)
    options = ModelOptions(path=str(home / family))
    changes = {"num_labels": 3} if auto_class is AutoModelForSequenceClassification else {}
    model, new = load_pretrained(options, auto_class, load_config(options, **changes))
    set_padding(model, load_tokenizer(options))
    return model, new


def learn(attached: Any, labels: torch.Tensor | None) -> torch.Tensor:
    """Take two steps and return the answers after them."""
    ids = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    optimizer = torch.optim.SGD([each for each in attached.parameters() if each.requires_grad], lr=0.1)
    attached.train()
    for _ in range(2):
        optimizer.zero_grad()
        attached(**inputs, labels=ids if labels is None else labels).loss.backward()
        optimizer.step()
    return attached.eval()(**inputs).logits


def answers(attached: Any) -> torch.Tensor:
    ids = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    return attached.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize("kind", [*LINEAR, *sorted(NORMS | PREFIXES | EMBEDDED_PROMPTS)])
def test_a_method_learns_on_an_encoder_with_its_head_and_comes_back(home: Path, tmp_path: Path, kind: str):
    model, new = base(home, "bert")
    attached = attach(model, method(kind), new)
    head = attached.get_base_model().classifier.modules_to_save["default"]
    fresh, first = head.weight.detach().clone(), answers(attached)
    learned = learn(attached, torch.tensor([0, 1, 2, 0]))
    assert not torch.equal(head.weight, fresh)
    assert not torch.equal(learned, first)
    attached.save_pretrained(tmp_path)
    assert torch.equal(answers(load_adapter(base(home, "bert")[0], tmp_path)), learned)


@pytest.mark.parametrize("kind", sorted(WITH_CONV1D | NORMS | OWN_TARGETS | PREFIXES | EMBEDDED_PROMPTS))
def test_a_method_learns_on_gpt2_and_comes_back(home: Path, tmp_path: Path, kind: str):
    model, new = base(home, "gpt2", AutoModelForCausalLM)
    attached = attach(model, method(kind), new)
    first = answers(attached)
    learned = learn(attached, None)
    assert learned.shape[:2] == (4, 9)  # a logit for every token given, none for learned ones
    assert not torch.equal(learned, first)
    attached.save_pretrained(tmp_path)
    assert torch.equal(answers(load_adapter(base(home, "gpt2", AutoModelForCausalLM)[0], tmp_path)), learned)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("kind", sorted(set(LINEAR) - WITH_CONV1D))
def test_a_method_without_conv1d_is_refused_on_gpt2_as_peft_would(home: Path, kind: str):
    model, new = base(home, "gpt2")
    with pytest.raises(UserError, match="LORA, ADALORA, IA3, VERA and LN_TUNING can") as error:
        attach(model, method(kind), new)
    assert "\n" not in str(error.value)
    config = method(kind)
    config.target_modules = {"c_attn"}
    try:
        adapted = get_peft_model(base(home, "gpt2", AutoModelForCausalLM)[0], config)
    except (ValueError, TypeError, NotImplementedError):
        return
    assert not any(each.requires_grad for each in adapted.parameters())  # accepted, and nothing would be learned


@pytest.mark.parametrize("kind", sorted(NEED_MORE))
def test_a_method_that_needs_more_than_a_recipe_can_give_is_refused(home: Path, kind: str):
    options: dict[str, dict[str, Any]] = {
        "CPT": {"task_type": "CAUSAL_LM", "cpt_token_ids": [3], "cpt_mask": [1], "cpt_tokens_type_mask": [1]},
        "MULTITASK_PROMPT_TUNING": {"num_virtual_tokens": 3},
    }
    (model, new), adapter = base(home, "gpt2", AutoModelForCausalLM), METHODS[kind](**options.get(kind, {}))
    with pytest.raises(UserError, match="try LORA"):
        attach(model, adapter, new)


@pytest.mark.parametrize("kind", ["TRAINABLE_TOKENS", "ADAPTION_PROMPT"])
def test_a_method_that_would_leave_the_head_random_is_refused(home: Path, kind: str):
    model, new = base(home, "gpt2")
    with pytest.raises(UserError, match="score would stay random"):
        attach(model, method(kind), new)


def test_learned_tokens_beside_lora_keep_the_head(home: Path, tmp_path: Path):
    model, new = base(home, "bert")
    attached = attach(model, LoraConfig(r=2, trainable_token_indices=[5, 6]), new)
    learned = learn(attached, torch.tensor([0, 1, 2, 0]))
    attached.save_pretrained(tmp_path)
    assert torch.equal(answers(load_adapter(base(home, "bert")[0], tmp_path)), learned)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("kind", sorted(EMBEDDED_PROMPTS))
def test_embedded_prompts_are_refused_where_the_padding_would_be_classified(home: Path, kind: str):
    model, new = base(home, "gpt2")
    with pytest.raises(UserError, match="PREFIX_TUNING"):
        attach(model, method(kind), new)
    raw = get_peft_model(model, METHODS[kind](**OPTIONS[kind], task_type=TaskType.SEQ_CLS)).eval()
    ids, mask = torch.full((1, 9), 7), torch.tensor([[1] * 6 + [0] * 3])
    padded = raw(input_ids=ids, attention_mask=mask).logits
    alone = raw(input_ids=ids[:, :6], attention_mask=mask[:, :6]).logits
    assert not torch.allclose(padded, alone, atol=1e-3)  # when PEFT mends this, the refusal can go


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["quary"], "Did you mean query?"),
        (["attention.self.qury"], "Did you mean"),
        ([], "adapter.target_modules is empty"),
        ("*broken", "no regular expression"),
        (r".*nothing.*", "matches no module"),
    ],
)
def test_unknown_target_modules_are_refused_with_the_nearest(home: Path, targets: Any, said: str):
    model, new = base(home, "bert")
    with pytest.raises(UserError) as error:
        attach(model, LoraConfig(target_modules=targets), new)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_ones_own_targets_are_kept_and_the_recipe_is_not_changed(home: Path):
    adapter = LoraConfig(target_modules=["query"], modules_to_save=["bert.pooler"])
    model, new = base(home, "bert")
    attached = attach(model, adapter, new)
    assert {name.rsplit(".", 1)[-1] for name, each in attached.named_modules() if hasattr(each, "lora_A")} == {"query"}
    assert (adapter.target_modules, adapter.modules_to_save, adapter.task_type) == ({"query"}, ["bert.pooler"], None)
    trained = [name for name, each in attached.named_parameters() if each.requires_grad and "lora_" not in name]
    heads = {name.split(".modules_to_save")[0].removeprefix("base_model.model.") for name in trained}
    assert heads == {"bert.pooler", "classifier"}


@pytest.mark.parametrize(("family", "transposed"), [("gpt2", True), ("bert", False), ("llama", False)])
@pytest.mark.parametrize("auto", [None, "auto", "all-linear"])
def test_the_orientation_of_weights_follows_the_layers(
    home: Path, family: str, transposed: bool, auto: str | None, recwarn: Any
):
    model, new = base(home, family)
    attached = attach(model, LoraConfig(target_modules=auto, r=2), new)
    assert attached.active_peft_config.fan_in_fan_out is transposed
    assert not [each for each in recwarn if "fan_in_fan_out" in str(each.message)]


def test_the_task_type_is_set_and_a_wrong_one_refused(home: Path):
    for auto_class, task in ((AutoModelForSequenceClassification, "SEQ_CLS"), (AutoModelForCausalLM, "CAUSAL_LM")):
        model, new = base(home, "gpt2", auto_class)
        assert attach(model, LoraConfig(), new).active_peft_config.task_type == task
    with pytest.raises(UserError, match=r"adapter\.task_type"):
        attach(base(home, "gpt2")[0], LoraConfig(task_type="CAUSAL_LM"), [])


def test_the_saved_adapter_says_its_base_and_revision(home: Path, tmp_path: Path):
    model, new = base(home, "bert")
    model.config._commit_hash = "0123abc"
    attach(model, LoraConfig(), new).save_pretrained(tmp_path)
    said = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (said["base_model_name_or_path"], said["revision"]) == (str(home / "bert"), "0123abc")


def test_head_only_trains_the_new_parameters_alone(home: Path, capsys: pytest.CaptureFixture[str]):
    model, new = base(home, "bert")
    assert attach(model, HeadOnly(), new) is model
    assert {name for name, each in model.named_parameters() if each.requires_grad} == set(new)
    assert "99 of" in capsys.readouterr().out
    with pytest.raises(UserError, match="every weight here comes from the checkpoint"):
        attach(model, HeadOnly(), [])


def test_an_adapter_on_a_model_from_scratch_is_refused():
    options = ModelOptions(config={"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2})
    model, new = load_pretrained(options, AutoModelForCausalLM, load_config(options))
    with pytest.raises(UserError, match="from scratch"):
        attach(model, LoraConfig(), new)


@pytest.fixture
def saved(home: Path, tmp_path: Path) -> Path:
    model, new = base(home, "bert")
    attach(model, LoraConfig(r=2), new).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def lose_the_head(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name: each for name, each in load_file(file).items() if "classifier" not in name}, file)


def cut(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:900])


def pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def rank(folder: Path) -> None:
    said = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**said, "r": 3}))


def garble(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")


@pytest.mark.parametrize("damage", [lose_the_head, cut, pickle, rank, garble, shutil.rmtree])
def test_an_adapter_that_does_not_fit_is_refused_in_one_line(home: Path, saved: Path, damage: Any):
    damage(saved)
    with pytest.raises(UserError) as error:
        load_adapter(base(home, "bert")[0], saved)
    assert str(saved) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_adapter_of_another_family_is_refused(home: Path, saved: Path):
    with pytest.raises(UserError):
        load_adapter(base(home, "gpt2")[0], saved)


def test_an_adapter_on_the_embedding_comes_back(home: Path, tmp_path: Path):
    model, new = base(home, "gpt2", AutoModelForCausalLM)
    attached = attach(model, LoraConfig(r=2, target_modules=["wte", "c_attn"], init_lora_weights=False), new)
    attached.save_pretrained(tmp_path)
    again = load_adapter(base(home, "gpt2", AutoModelForCausalLM)[0], tmp_path)
    assert torch.equal(answers(again), answers(attached))


def test_learned_prompts_keep_texts_apart_from_their_padding(home: Path):
    attached = attach(base(home, "gpt2", AutoModelForCausalLM)[0], PromptTuningConfig(num_virtual_tokens=3), []).eval()
    ids, mask = torch.full((1, 9), 7), torch.tensor([[1] * 6 + [0] * 3])
    padded = attached(input_ids=ids, attention_mask=mask).logits[:, :6]
    assert torch.allclose(padded, attached(input_ids=ids[:, :6]).logits, atol=1e-6)
