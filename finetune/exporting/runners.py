"""run.py: the short script that goes with an ONNX export and needs neither torch nor transformers nor this package."""

from __future__ import annotations

from typing import Any

from finetune.exporting.original import Original

CLASSIFY = '''"""Classify texts: python run.py "{usage}" … Needs onnxruntime, tokenizers and numpy."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

LABELS, PAIRS = {labels!r}, {pairs!r}
here = Path(__file__).parent
tokenizer = Tokenizer.from_file(str(here / "tokenizer.json"))
tokenizer.encode_special_tokens = True  # what somebody typed is text
tokenizer.enable_truncation({max_length!r})
tokenizer.enable_padding(pad_id={pad_id!r}, pad_token={pad_token!r})
texts = list(zip(sys.argv[1::2], sys.argv[2::2], strict=True)) if PAIRS else sys.argv[1:]
encoded = tokenizer.encode_batch(texts)
columns = {{"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}}
session = onnxruntime.InferenceSession(str(here / {file!r}))
names = [each.name for each in session.get_inputs()]
inputs = {{name: np.array([getattr(each, columns[name]) for each in encoded], np.int64) for name in names}}
logits = session.run(["logits"], inputs)[0]
{answers}'''

SINGLE = """shares = np.exp(logits - logits.max(axis=1, keepdims=True))
shares /= shares.sum(axis=1, keepdims=True)
for text, row in zip(texts, shares):
    print(json.dumps({"text": text, "prediction": LABELS[row.argmax()], "probability": float(row.max())}))
"""
MULTI = """for text, row in zip(texts, 1 / (1 + np.exp(-logits))):
    print(json.dumps({"text": text, "prediction": [name for name, share in zip(LABELS, row) if share > 0.5]}))
"""
NUMBER = """for text, row in zip(texts, logits):
    print(json.dumps({"text": text, "prediction": float(row[0])}))
"""

CONTINUE = '''"""Continue a text: python run.py "{usage}" [tokens]. Needs onnxruntime, tokenizers and numpy."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

here = Path(__file__).parent
tokenizer = Tokenizer.from_file(str(here / "tokenizer.json"))
tokenizer.encode_special_tokens = True  # what somebody typed is text
prefill, decode = (onnxruntime.InferenceSession(str(here / name)) for name in {files!r})
START, END, LIMIT = {start!r}, {end!r}, {limit!r}
ids = tokenizer.encode(sys.argv[1]).ids
ids = ids if ids[:1] == [START] else [START, *ids]
wanted = min(int(sys.argv[2]) if len(sys.argv) > 2 else 40, LIMIT - len(ids))
session, new, past = prefill, ids, {{}}
for _ in range(wanted):  # the likeliest token each time; what was computed of the text so far is handed on
    places = np.arange(len(ids) - len(new), len(ids))[None]
    given = {{"input_ids": np.array([new]), "attention_mask": np.ones((1, len(ids)), np.int64), "position_ids": places}}
    names = [each.name for each in session.get_outputs()]
    out = dict(zip(names, session.run(None, {{**given, **past}})))
    past = {{"input." + name.removeprefix("output."): each for name, each in out.items() if "past" in name}}
    session, new = decode, [int(out["logits"][0, -1].argmax())]
    ids = ids + new
    if new == [END]:
        break
print(tokenizer.decode(ids))
'''

DRAW = '''"""Draw images.npy and a grid, images.p{letter}m: python run.py [count] [seed]. Needs onnxruntime, numpy."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

count, seed = (int(word) for word in [*sys.argv[1:3], *["64", "13"][len(sys.argv) - 1 :]])
latents = np.random.default_rng(seed).standard_normal((count, {latent_dim})).astype(np.float32)
given = {{"latents": latents, "condition": np.arange(count) % {classes}}} if {classes} else {{"latents": latents}}
session = onnxruntime.InferenceSession(str(Path(__file__).parent / {file!r}))
images = session.run(["images"], given)[0]
images = np.clip(np.rint((images - {low}) * {scale}), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
np.save("images.npy", images)
wide = int(np.ceil(count**0.5))
padded = np.concatenate((images, np.zeros((-count % wide, *images.shape[1:]), np.uint8)))
rows = padded.reshape(-1, wide, *images.shape[1:]).transpose(0, 2, 1, 3, 4)
rows = rows.reshape(-1, wide * images.shape[2], images.shape[3])
Path("images.p{letter}m").write_bytes(b"P{number} %d %d 255\\n" % (rows.shape[1], rows.shape[0]) + rows.tobytes())
'''

SEE = '''"""Classify images: python run.py images.npy (count, size, size, channels; uint8). Needs onnxruntime, numpy."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

LABELS = {labels!r}
pixels = np.load(sys.argv[1]).astype(np.float32).transpose(0, 3, 1, 2) / 255
mean, std = (np.array(each, np.float32)[:, None, None] for each in ({mean!r}, {std!r}))
session = onnxruntime.InferenceSession(str(Path(__file__).parent / {file!r}))
logits = session.run(["logits"], {{"pixel_values": (pixels - mean) / std}})[0]
shares = np.exp(logits - logits.max(axis=1, keepdims=True))
shares /= shares.sum(axis=1, keepdims=True)
for row in shares:
    print(json.dumps({{"prediction": LABELS[row.argmax()], "probability": float(row.max())}}))
'''


def script(original: Original, suffix: str) -> str:
    """Return run.py for the graphs of a run; `suffix` says which files: ".onnx" or ".int8.onnx"."""
    task: Any = original.recipe.task
    if original.kind == "text-classification":
        answers = {"single": SINGLE, "multi": MULTI, "regression": NUMBER}[task.problem]
        return CLASSIFY.format(
            usage="a text" if task.pair is None else 'a text" "its pair',
            labels=list(task.labels),
            pairs=task.pair is not None,
            max_length=task.max_length,
            pad_id=original.processor.pad_token_id,
            pad_token=original.processor.pad_token,
            file=f"model{suffix}",
            answers=answers,
        )
    if original.kind == "causal-lm":
        return _continue(original, suffix)
    if original.kind == "image-classification":
        from finetune.tasks.images import normalisation

        mean, std = normalisation(original.processor)
        return SEE.format(labels=list(task.labels), mean=list(mean), std=list(std), file=f"model{suffix}")
    return _draw(original, suffix)


def _continue(original: Original, suffix: str) -> str:
    from finetune.loading import context_length

    tokenizer = original.processor
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return CONTINUE.format(
        usage="a text",
        files=[f"{name}{suffix}" for name in ("prefill", "decode")],
        start=start,
        end=tokenizer.eos_token_id,
        limit=context_length(original.model.config) or 1 << 20,
    )


def _draw(original: Original, suffix: str) -> str:
    config: Any = original.model.config
    grey = config.num_channels == 1
    gan = original.kind == "image-gan"
    return DRAW.format(
        latent_dim=config.latent_dim if gan else config.sizes()[0],
        classes=config.num_classes,
        file=f"{'generator' if gan else 'decoder'}{suffix}",
        low=-1.0 if gan else 0.0,
        scale=127.5 if gan else 255.0,
        letter="g" if grey else "p",
        number=5 if grey else 6,
    )
