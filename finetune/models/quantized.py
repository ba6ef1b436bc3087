"""Linear layers and embeddings in 8 or 4 bits, and the quantizer that makes transformers load them.

Plain tensors in the model's own safetensors file, named in config.json's `quantization_config`; once `finetune.models`
is imported, `from_pretrained` reads such a folder as any other. Without it transformers stops: the sizes do not fit.
(torchao 0.18 was tried first: on a CPU its int8 MiniLM answers one text in twice the time of fp32 and keeps 65 % of
the bytes, for it passes over embeddings; it passes over GPT-2's Conv1D too, in silence.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

METHOD = "finetune"  # quant_method in config.json
BITS = {"int8-dynamic": 8, "int8-weight": 8, "int4-weight": 4}
GROUP = 32  # neighbouring weights that share a scale in 4 bits
TINY = 1e-12


class QuantizedWeight(nn.Module):
    """A matrix of shape (rows, columns) in 8 or 4 bits.

    8 bits: symmetric, a scale for each row. 4 bits: as ggml's Q4_0, 32 neighbours share one fp16 scale, which takes
    their largest value to -8; two weights a byte, the first of them in the low half.
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, rows: int, columns: int, bits: int) -> None:
        super().__init__()
        self.rows, self.columns, self.bits = rows, columns, bits
        groups = -(-columns // GROUP)
        count, dtype = (rows * columns, torch.int8) if bits == 8 else (rows * groups * GROUP // 2, torch.uint8)
        scale = torch.ones(rows) if bits == 8 else torch.ones(rows, groups, dtype=torch.float16)
        self.register_buffer("weight", torch.zeros(count, dtype=dtype))  # flat: plain transformers refuses the size
        self.register_buffer("weight_scale", scale)

    def store(self, values: Tensor) -> None:
        """Take over a float matrix, rounded."""
        weight, scale = (_in_8_bits if self.bits == 8 else _in_4_bits)(values.detach().float())
        self.weight, self.weight_scale = weight.flatten(), scale

    @property
    def lines(self) -> Tensor:
        """Return the stored numbers row by row."""
        return self.weight.view(self.rows, -1)

    def values(self, lines: Tensor, scale: Tensor) -> Tensor:
        """Return stored rows as fp32, shape (..., columns)."""
        if self.bits == 8:
            return lines.float() * scale[..., None]
        pairs = torch.stack((lines & 15, lines >> 4), dim=-1).flatten(-2).to(torch.int8) - 8
        groups = pairs.float().unflatten(-1, (-1, GROUP)) * scale.float()[..., None]
        return groups.flatten(-2)[..., : self.columns]

    def extra_repr(self) -> str:
        """Return what print(model) shows."""
        return f"{self.rows}, {self.columns}, bits={self.bits}"


class QuantizedLinear(QuantizedWeight):
    """x Wᵀ + b. With `dynamic`, x is rounded to 8 bits too, each token by its own scale: integers are multiplied.

    A scale a token, and not one a batch: what a text is answered does not depend on the texts beside it. The sums are
    exact, so every machine rounds alike.
    """

    def __init__(self, rows: int, columns: int, bits: int, bias: bool, dynamic: bool) -> None:
        super().__init__(rows, columns, bits)
        self.in_features, self.out_features, self.dynamic = columns, rows, dynamic
        self.bias = nn.Parameter(torch.zeros(rows)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return shape (..., rows) in the dtype of x."""
        given = x.reshape(-1, self.columns).float()
        if not self.dynamic:
            result = F.linear(given, self.values(self.lines, self.weight_scale))
        else:
            scale = (given.abs().amax(dim=1, keepdim=True) / 127).clamp_min(TINY)
            result = _integer_product((given / scale).round_(), self.lines) * scale * self.weight_scale
        if self.bias is not None:
            result = result + self.bias
        return result.view(*x.shape[:-1], self.rows).to(x.dtype)


class QuantizedEmbedding(QuantizedWeight):
    """A table of vectors, one a token."""

    def __init__(self, rows: int, columns: int, bits: int, padding_idx: int | None = None) -> None:
        super().__init__(rows, columns, bits)
        self.num_embeddings, self.embedding_dim, self.padding_idx = rows, columns, padding_idx

    def forward(self, ids: Tensor) -> Tensor:
        """Return shape (*ids.shape, columns), fp32."""
        return self.values(self.lines[ids], self.weight_scale[ids])


def quantizable(module: nn.Module) -> bool:
    """Say whether there is a module of fewer bits for this one; subclasses may do other things with their weight."""
    return type(module) in (nn.Linear, Conv1D, nn.Embedding)


def replace_modules(model: nn.Module, names: Iterable[str], method: str, filled: bool) -> None:
    """Put modules of fewer bits in the place of those named; `filled` with their weights, else to be loaded."""
    for name in names:
        parent, _, last = name.rpartition(".")
        old: Any = model.get_submodule(name)
        device = next(old.parameters()).device
        with device:
            new = _like(old, method)
        if filled:
            new.store(old.weight.t() if isinstance(old, Conv1D) else old.weight)
            if getattr(old, "bias", None) is not None:
                new.bias = old.bias
        setattr(model.get_submodule(parent), last, new.train(old.training))


def share_tied(model: Any) -> None:
    """Give a head that reads its vectors from the embedding the same stored numbers."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if model.config.tie_word_embeddings and isinstance(head, QuantizedWeight):
        head.weight, head.weight_scale = embedding.weight, embedding.weight_scale


def weight_count(model: nn.Module) -> int:
    """Return how many weights a model has, however many bits each takes; tied ones count once."""
    rounded = (each for each in model.modules() if isinstance(each, QuantizedWeight))
    stored = {each.weight.data_ptr(): each.rows * each.columns for each in rounded}
    return sum(stored.values()) + sum(each.numel() for each in model.parameters())


def in_fewer_bits(config: Any) -> bool:
    """Say whether a configuration is that of a model rounded here, and not of one that bitsandbytes holds."""
    said = getattr(config, "quantization_config", None) or {}
    return (said.get("quant_method") if isinstance(said, dict) else getattr(said, "quant_method", None)) == METHOD


def is_quantized(module: nn.Module) -> bool:
    """Say whether a module holds its weight in fewer bits."""
    return isinstance(module, QuantizedWeight)


@register_quantization_config(METHOD)
class QuantizationConfig(QuantizationConfigMixin):
    """What config.json says: the method, and the name of every module in fewer bits."""

    def __init__(self, method: str = "int8-dynamic", modules: Iterable[str] = (), **_: Any) -> None:
        if method not in BITS:
            raise ValueError(f"quantization_config.method is {method}; known: {', '.join(BITS)}")
        self.quant_method: Any = METHOD  # of transformers' own enumeration, were it one of theirs
        self.method, self.modules = method, list(modules)


@register_quantizer(METHOD)
class Quantizer(HfQuantizer):
    """Makes room for the stored numbers before transformers loads them."""

    quantization_config: Any

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        replace_modules(model, self.quantization_config.modules, self.quantization_config.method, filled=False)
        table = model.get_output_embeddings()
        if model.config.tie_word_embeddings and isinstance(table, QuantizedWeight):
            head = next(name for name, each in model.named_modules() if each is table)
            model._keys_to_ignore_on_load_missing = [rf"^{head}\.weight"]  # `share_tied` brings them
            model.all_tied_weights_keys = {
                name: source for name, source in model.all_tied_weights_keys.items() if name != f"{head}.weight"
            }

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> None:
        share_tied(model)
        model.is_quantized = False  # transformers.Trainer would refuse even to evaluate it

    def is_serializable(self) -> bool:
        """Say that it can be saved."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Say that rounded weights take no gradient."""
        return False


def _like(old: Any, method: str) -> Any:
    bits = BITS[method]
    if isinstance(old, nn.Embedding):
        return QuantizedEmbedding(old.num_embeddings, old.embedding_dim, bits, old.padding_idx)
    rows, columns = old.weight.shape if isinstance(old, nn.Linear) else old.weight.t().shape
    return QuantizedLinear(rows, columns, bits, old.bias is not None, method == "int8-dynamic")


def _in_8_bits(values: Tensor) -> tuple[Tensor, Tensor]:
    scale = (values.abs().amax(dim=1) / 127).clamp_min(TINY)
    return (values / scale[:, None]).round().to(torch.int8), scale


def _in_4_bits(values: Tensor) -> tuple[Tensor, Tensor]:
    groups = F.pad(values, (0, -values.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    largest = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
    scale = (largest / -8).to(torch.float16)
    inverse = torch.where(scale == 0, 0.0, 1 / scale.float())
    pairs = ((groups * inverse).round() + 8).clamp(0, 15).to(torch.uint8).flatten(1).unflatten(1, (-1, 2))
    return pairs[..., 0] | (pairs[..., 1] << 4), scale[..., 0]


def _integer_product(given: Tensor, lines: Tensor) -> Tensor:
    """Return given linesᵀ of whole numbers within ±127, exact: in integers on a CPU, in fp64 elsewhere."""
    if given.device.type == "cpu":
        return torch._int_mm(given.to(torch.int8), lines.t()).float()
    return (given.double() @ lines.double().t()).float()
