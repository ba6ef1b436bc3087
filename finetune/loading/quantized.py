"""A base whose weights bitsandbytes holds in 4 or 8 bits, for an adapter to be trained on (QLoRA, arXiv:2305.14314)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.loading.options import ModelOptions

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def quantization(options: ModelOptions, auto_class: Any, config: PreTrainedConfig) -> dict[str, Any]:
    """Return what makes transformers quantise the linear layers of the body as it reads them; {} for a whole base.

    Heads and poolers stay whole: the checkpoint may not bring them, and then they are trained.

    Raises:
        UserError: the extra is not installed, or the source has no plain weights.
    """
    if options.quantize is None:
        return {}
    if options.config is not None or options.gguf_file is not None:
        raise UserError("model.quantize: only saved weights in safetensors are quantised; leave it out here.")
    if find_spec("bitsandbytes") is None:
        raise UserError('model.quantize needs bitsandbytes: pip install "finetune[qlora]"')
    import torch
    from transformers import BitsAndBytesConfig

    whole = _outside_the_body(auto_class, config)
    if options.quantize == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=whole)}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=options.quantize,
            bnb_4bit_compute_dtype=getattr(torch, options.dtype),
            bnb_4bit_use_double_quant=True,
            llm_int8_skip_modules=whole,
        )
    }


def settle(model: PreTrainedModel, new: list[str]) -> None:
    """Keep a quantised base as it was read, whatever it is asked; refuse one whose new parameters were quantised.

    On CPUs with AVX512-BF16, bitsandbytes would rewrite its 4-bit weights at the first answer in evaluation mode, with
    scales rounded to bfloat16, and training would go on with those.

    Raises:
        UserError: a parameter that has to be trained was quantised.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
    known = dict(model.named_parameters())
    for name in new:
        if not known[name].is_floating_point():
            raise UserError(
                f"model.quantize: {name} is new and would be trained, and was quantised; leave quantize out."
            )


def _outside_the_body(auto_class: Any, config: PreTrainedConfig) -> list[str]:
    """Return the names of the modules that stay whole: all beside the body, and poolers."""
    import torch

    with torch.device("meta"):
        model = auto_class.from_config(config)
    beside = [name for name, _ in model.named_children() if name != model.base_model_prefix]
    return [*beside, *(name for name, _ in model.named_modules() if name.rpartition(".")[2] == "pooler")]
