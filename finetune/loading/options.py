"""What a recipe says about the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class ModelOptions:
    """Where a model comes from. `path` names weights; `config` instead describes a model to train from scratch."""

    path: str | None = None  # Hub id, folder, package://NAME/FOLDER, a .gguf file, or the folder of a finished run
    revision: str | None = None  # of a Hub id: a commit, tag or branch
    config: dict[str, Any] | None = None  # from scratch: model_type and the options of its configuration class
    gguf_file: str | None = None  # the file's name inside `path`; its weights are dequantised
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the weights in memory, whatever the file holds
    attn_implementation: str | None = None  # eager, sdpa, flash_attention_2 …; None: the library's choice
    trust_remote_code: bool = False  # runs Python code that comes with the weights
    tokenizer: str | None = None  # another source for the tokenizer than `path`
    # The frozen base in 4 or 8 bits by bitsandbytes, for an adapter to be trained on (QLoRA: nf4); None: as it is.
    quantize: Literal["nf4", "fp4", "int8"] | None = None
    layers: int | None = None  # so many of its layers, at equal distances from the first to the last, and no others
    sha256: str | None = None  # expected digest of model.safetensors (or of the GGUF file), checked before use
