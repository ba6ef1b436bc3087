"""Tiny models, tokenizers and rows, made here: the tests need no network and no weights of anybody's."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from pathlib import Path
from typing import Any

GOOD = ["good", "fine", "warm", "bright", "kind", "brave", "sweet", "clever"]
BAD = ["bad", "cold", "dull", "cruel", "sour", "weak", "bitter", "slow"]
FILLER = ["the", "film", "a", "story", "its", "actors", "this", "scene", "my", "evening", "was", "felt", "music"]
LABELS = ("negative", "positive")
TAGS = ("O", "B-BLAME", "I-BLAME", "B-PRAISE", "I-PRAISE")


def sentences(count: int, seed: int) -> list[dict[str, str]]:
    """Return rows of text and label that a tiny model can learn; two calls with other seeds share no text."""
    chooser = random.Random(seed)
    rows = []
    for number in range(count):
        label, words = (("positive", GOOD), ("negative", BAD))[number % 2]
        text = chooser.choices(FILLER, k=chooser.randint(3, 9)) + chooser.choices(words, k=chooser.randint(2, 4))
        chooser.shuffle(text)
        rows.append({"text": " ".join([f"n{seed}x{number}", *text]), "label": label})
    return rows


def tagged(count: int, seed: int) -> list[dict[str, list[str]]]:
    """Return rows of words with tags in IOB2 that a tiny model can learn; some have two words, some meet."""
    chooser = random.Random(seed)
    rows = []
    for number in range(count):
        words, tags, before = [f"n{seed}x{number}"], ["O"], ""
        for kind, known in chooser.sample([("PRAISE", GOOD), ("BLAME", BAD)] * 2, k=chooser.randint(1, 3)):
            filler = chooser.choices(FILLER, k=chooser.randint(int(kind == before), 3))
            span = [chooser.choice(known[:5]), *chooser.choices(known[5:], k=chooser.randint(0, 1))]
            words += filler + span
            tags += ["O"] * len(filler) + [f"B-{kind}"] + [f"I-{kind}"] * (len(span) - 1)
            before = kind
        rows.append({"tokens": words, "ner_tags": tags})
    return rows


def questions(count: int, seed: int) -> list[dict[str, Any]]:
    """Return rows of question, context and answers that a tiny model can learn; one in eight has no answer."""
    chooser = random.Random(seed)
    rows = []
    for number in range(count):
        asked, known, others = [("my film", GOOD, BAD), ("its story", BAD, GOOD)][number % 2]
        answer = " ".join([chooser.choice(known[:5]), *chooser.choices(known[5:], k=chooser.randint(0, 1))])
        before, after = (" ".join(chooser.choices(FILLER, k=chooser.randint(1, 7))) for _ in range(2))
        missing = number % 8 == 7
        context = f"n{seed}x{number} {before} {chooser.choice(others) if missing else answer} {after}"
        found = {} if missing else {answer: context.index(f" {answer} ") + 1}
        rows.append({"question": asked, "context": context,
                     "answers": {"text": list(found), "answer_start": list(found.values())}})  # fmt: skip
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_images(path: Path, count: int, seed: int) -> Path:
    """Write grey images of 8 x 8 pixels as NPZ: class 0 is bright above, class 1 below; no two are alike."""
    import numpy as np

    random_numbers = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = random_numbers.integers(0, 80, (count, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 160
    np.savez_compressed(path, image=images.astype(np.uint8), label=labels)
    return path


def save_encoder(folder: Path, family: str = "bert", seed: int = 0) -> Path:
    """Save a randomly initialised encoder of two layers with a word-piece-like tokenizer of its own."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({*GOOD, *BAD, *FILLER})
    vocabulary = {name: number for number, name in enumerate([*special, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, pad_token_id=0, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_teacher(
    folder: Path, encoder: Path, kind: str = "SequenceClassification", labels: tuple[str, ...] = LABELS
) -> Path:
    """Save a classifier of the tiny labels on a tiny encoder; its head is random, and large enough to be of a mind."""
    import torch
    import transformers

    torch.manual_seed(1)
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(encoder, id2label=dict(enumerate(labels)))
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return folder


def save_decoder(
    folder: Path, family: str = "gpt2", dropout: float = 0.0, positions: int = 64, width: int = 32, layers: int = 2
) -> Path:
    """Save a randomly initialised decoder with a byte-level tokenizer; width and layers are those of GPT-2."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from finetune.loading import train_tokenizer

    tokenizer = train_tokenizer(iter(()), vocab_size=257)
    sizes: dict[str, Any] = {
        "gpt2": {"n_embd": width, "n_layer": layers, "n_head": 2, "n_positions": positions,
                 "resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout},
        "opt": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64,
                "max_position_embeddings": 64, "word_embed_proj_dim": 32, "dropout": dropout},
        "llama": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
                  "max_position_embeddings": 64},
    }[family]  # fmt: skip
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **sizes,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_seq2seq(folder: Path, family: str = "bart") -> Path:
    """Save a randomly initialised encoder-decoder of one layer each, with a byte-level tokenizer of its own."""
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    from finetune.tasks.seq2seq_loading import byte_pairs

    tokenizer = byte_pairs(iter(()), vocab_size=258)
    sizes: dict[str, Any] = {
        "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0},
    }.get(family, {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 96,
        "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "forced_eos_token_id": None,
    })  # fmt: skip
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, decoder_start_token_id=tokenizer.eos_token_id, **sizes,
        **({"decoder_vocab_size": len(tokenizer)} if family == "marian" else {}),
    )  # fmt: skip
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SGD = {
    "optim": "sgd", "learning_rate": 0.05, "lr_scheduler_type": "constant", "max_grad_norm": 1e6, "bf16": False,
    "per_device_train_batch_size": 16, "num_train_epochs": 1, "eval_strategy": "no", "save_strategy": "no",
    "logging_steps": 1, "load_best_model_at_end": False,
}  # fmt: skip
SEQ2SEQ = {"kind": "seq2seq", "source": "text", "target": "label", "max_source_length": 80, "max_target_length": 12}
CHAT = {"kind": "chat", "template": "plain", "block_size": 150, "max_new_tokens": 8, "prompts": ["a good film"]}
EVALUATE = {"resamples": 100, "reload": "same", "baselines": False, "reference_rows": 4}

# One tiny recipe a task: every test that runs over all tasks takes it from here. "model" is a folder of the fixture
# `home`, or the options of a model from scratch; "rows" is "{}.jsonl" unless given, with the split's name filled in;
# "adapters" says with which of ADAPTERS it can be trained, "distill" by which teacher, a folder of `home` too; "data",
# "train" and "evaluate" are put over the defaults.
TASKS: dict[str, dict[str, Any]] = {
    "text-classification": {
        "task": {"kind": "text-classification", "max_length": 32},
        "model": "bert",
        "adapters": ("whole", "lora", "distilled", "regularised"),
        "distill": {"teacher": "teacher"},
    },
    "token-classification": {
        "task": {"kind": "token-classification", "max_length": 16},
        "model": "bert",
        "rows": "{}-tags.jsonl",
        "data": {"on_long": "window"},
        "adapters": ("whole", "lora", "distilled"),
        "distill": {"teacher": "teacher-tags"},
    },
    "question-answering": {
        "task": {"kind": "question-answering", "max_length": 16, "stride": 4, "max_answer_length": 4},
        "model": "bert",
        "rows": "{}-questions.jsonl",
        "data": {"on_long": "window"},
    },
    "image-classification": {
        "task": {"kind": "image-classification", "flip": True},
        "model": {"config": {"model_type": "finetune-image-classifier", "channels": [4, 8], "hidden": 8}},
        "rows": "{}.npz",
        "adapters": ("whole",),
    },
    "image-gan": {
        "task": {"kind": "image-gan", "flip": True, "diffaugment": ["translation"], "r1_gamma": 0.1},
        "model": {"config": {"model_type": "finetune-gan", "preset": "mlp", "hidden_sizes": [16], "latent_dim": 4}},
        "rows": "{}.npz",
        "adapters": ("whole",),
    },
    "causal-lm": {
        "task": {"kind": "causal-lm", "block_size": 32, "sample_tokens": 5, "pack": False},
        "model": "gpt2",
        "adapters": ("whole", "lora", "distilled"),
        "distill": {"teacher": "gpt2-wide", "hidden": {"weight": 0.5}},
    },
    "seq2seq": {
        "task": SEQ2SEQ,
        "model": "bart",
    },
    "chat": {
        "task": CHAT,
        "data": {"columns": {"prompt": "text", "completion": "label"}},
        "model": "gpt2-long",
    },
    "masked-lm": {
        "task": {"kind": "masked-lm", "block_size": 32, "pack": False, "prompts": ["the film was [MASK]"]},
        "model": "bert",
        "adapters": ("whole", "lora", "paired"),
    },
    "text-vae": {
        "task": {"kind": "text-vae", "max_length": 48, "vocab_size": 300, "sample_tokens": 6, "free_bits": 0.5},
        "model": {
            "config": {"model_type": "finetune-text-vae", "latent_dim": 4, "embedding_size": 16, "hidden_size": 16}
        },
        "adapters": ("whole",),
    },
    "image-vae": {
        "task": {"kind": "image-vae", "binarize": "dynamic", "kl_warmup": 0.5, "free_bits": 0.2, "flip": True},
        "model": {"config": {"model_type": "finetune-vae", "latent_dim": 3, "hidden_sizes": [16]}},
        "rows": "{}.npz",
        "adapters": ("whole",),
        "train": {"learning_rate": 0.002},
        "evaluate": {"importance_samples": 5, "generated": 20},
    },
}
ADAPTERS: dict[str, dict[str, Any] | None] = {
    "whole": None,
    "lora": {"peft_type": "LORA", "r": 4},
    "distilled": None,  # every weight, held against a teacher too
    "regularised": None,  # every weight, with the options of REGULARISED
    "paired": None,  # every weight, with the next-sentence objective, on documents
}
REGULARISED = {"adversarial": "freelb", "adversarial_steps": 2, "layer_decay": 0.8}
CELLS = [(kind, adapter) for kind, given in TASKS.items() for adapter in given.get("adapters", ("whole", "lora"))]


def sections(home: Path, output_dir: Path, kind: str, adapter: str) -> dict[str, Any]:
    """Return the sections of a tiny recipe, with paths into the folder of the fixture `home`."""
    given = deepcopy(TASKS[kind])
    model, rows = given["model"], given.get("rows", "{}.jsonl")
    made: dict[str, Any] = {
        "task": given["task"],
        "data": {
            **{name: str(home / rows.format(name)) for name in ("train", "validation", "test")},
            "cache_dir": str(home / "cache"), "leakage": "off", "duplicates": "off", **given.get("data", {}),
        },
        "model": {"path": str(home / model)} if isinstance(model, str) else model,
        "train": {"output_dir": str(output_dir), **SGD, **given.get("train", {})},
        "evaluate": {**EVALUATE, **given.get("evaluate", {})},
    }  # fmt: skip
    if adapter == "distilled":
        made["task"]["distill"] = {"temperature": 3.0, "alpha": 0.7, **given["distill"]}
        made["task"]["distill"]["teacher"] = str(home / given["distill"]["teacher"])
    if adapter == "paired":
        made["task"]["next_sentence"] = True
        made["data"] |= {name: str(home / f"{name}-documents.jsonl") for name in ("train", "validation", "test")}
    if adapter == "regularised":
        made["train"] |= REGULARISED
        made["task"]["label_smoothing"] = 0.1
    if ADAPTERS[adapter] is not None:
        made["adapter"] = dict(ADAPTERS[adapter] or {})
    return made
