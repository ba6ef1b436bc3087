"""The units that a model can lose and still be described by its configuration: feed-forward units, attention heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Form:
    """How one family writes a block that widens, and narrows again."""

    inward: tuple[str, ...]  # layers whose outputs are the units
    outward: str  # the layer whose inputs they are
    option: str  # of the configuration: how many units each block has
    halves: int = 1  # 2: one layer holds gate and value, one below the other


FEED_FORWARD = (
    Form(("intermediate.dense",), "output.dense", "intermediate_size"),  # BERT, RoBERTa, ELECTRA, DeBERTa
    Form(("ffn.lin1",), "ffn.lin2", "hidden_dim"),  # DistilBERT
    Form(("mlp.c_fc",), "mlp.c_proj", "n_inner"),  # GPT-2
    Form(("fc1",), "fc2", "ffn_dim"),  # OPT
    Form(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj", "intermediate_size"),  # Llama, Mistral, Qwen
    Form(("mlp.Wi",), "mlp.Wo", "intermediate_size", halves=2),  # ModernBERT
)
HEADS = Form(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.o_proj", "num_key_value_heads")


@dataclass(frozen=True)
class Block:
    """The layers around the units of one block, and how many places in each belong to one unit."""

    name: str
    inward: tuple[Any, ...]
    outward: Any
    units: int
    widths: tuple[int, ...]  # outputs of each inward layer that belong to a unit
    halves: int = 1

    @property
    def width(self) -> int:
        """Return how many inputs of the outward layer belong to a unit."""
        return _inputs(self.outward) // self.units


def feed_forward_blocks(model: PreTrainedModel) -> tuple[Form, list[Block]]:
    """Return how the model writes its feed-forward blocks, and each of them; UserError where no known form fits."""
    for form in FEED_FORWARD:
        blocks = [
            Block(name, inward, outward, _inputs(outward), (1,) * len(inward), form.halves)
            for name, inward, outward in _matches(model, form)
        ]
        if blocks:
            if len({each.units for each in blocks}) > 1:
                raise UserError(f"--feed_forward: the blocks of {type(model).__name__} are not of one size.")
            return form, blocks
    raise UserError(f"--feed_forward: no feed-forward blocks of a known form in {type(model).__name__}.")


def head_blocks(model: PreTrainedModel) -> list[Block]:
    """Return the attention of each layer, a unit being a key-value head with the query heads that read it.

    Raises:
        UserError: the configuration ties the size of a head to the hidden size (BERT, GPT-2 …): a model with fewer
            heads could not be described, and transformers 5 has no other way to load one.
    """
    config = model.config
    groups: Any = getattr(config, "num_key_value_heads", None)
    width: Any = getattr(config, "head_dim", None)
    found = list(_matches(model, HEADS)) if groups and width else []
    if not found:
        raise UserError(
            f"--heads: {type(model).__name__} ties the size of a head to the hidden size, so that fewer heads have no "
            "configuration; leave it out, or prune a Llama-like model."
        )
    shared = config.num_attention_heads // groups
    return [Block(name, inward, outward, groups, (shared * width, width, width)) for name, inward, outward in found]


def _matches(model: PreTrainedModel, form: Form) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    for name, module in model.named_modules():
        try:
            inward = tuple(module.get_submodule(each) for each in form.inward)
            outward = module.get_submodule(form.outward)
        except AttributeError:
            continue
        yield name, inward, outward


def magnitude(block: Block) -> Tensor:
    """Return for each unit the norm of the weights that lead into it times the norm of those that lead out of it.

    Shape (units,). A bound of what the unit can add, up to its inputs; both factors vanish with it.
    """
    inward = sum(_rows(layer).square().sum(1).view(block.halves, block.units, -1).sum((0, 2)) for layer in block.inward)
    outward = _rows(block.outward).square().sum(0).view(block.units, -1).sum(1)
    return (inward * outward).sqrt()


def taylor(blocks: list[Block], losses: Callable[[Any], Tensor], batches: Iterable[Any]) -> dict[str, Tensor]:
    """Return for each unit how much the loss would change without it, to first order, summed over rows.

    |Σ over tokens of activation x gradient|: Molchanov et al. 2017 (arXiv:1611.06440), equation 8; of heads as Michel
    et al. 2019 (arXiv:1905.10650).

    Args:
        blocks: of one model, whose weights take gradients.
        losses: from a batch to its summed loss.
        batches: of training rows.

    Returns:
        {name of the block: shape (units,)}.
    """
    import torch

    seen: dict[str, Tensor] = {}
    total = {each.name: torch.zeros(each.units) for each in blocks}

    def watch(block: Block) -> Any:
        def keep(module: Any, given: tuple[Tensor, ...]) -> None:
            given[0].retain_grad()
            seen[block.name] = given[0]

        return block.outward.register_forward_pre_hook(keep)

    hooks = [watch(each) for each in blocks]
    try:
        for batch in batches:
            losses(batch).backward()
            for block in blocks:
                activation: Any = seen.pop(block.name)
                change = (activation.detach() * activation.grad).flatten(1, -2).sum(1)
                total[block.name] += change.unflatten(-1, (block.units, -1)).sum(-1).abs().sum(0).cpu()
            for block in blocks:
                for layer in (*block.inward, block.outward):
                    layer.zero_grad()
    finally:
        for hook in hooks:
            hook.remove()
    return total


def cut(block: Block, keep: Tensor) -> None:
    """Leave only the units with these numbers in a block, smaller layers in the place of the old."""
    import torch

    for layer, width in zip(block.inward, block.widths, strict=True):
        places = _places(keep, width)
        _narrow(layer, torch.cat([places + half * block.units * width for half in range(block.halves)]), outputs=True)
    _narrow(block.outward, _places(keep, block.width), outputs=False)


def _places(units: Tensor, width: int) -> Tensor:
    import torch

    return (units[:, None] * width + torch.arange(width)).flatten()


def _narrow(layer: Any, places: Tensor, outputs: bool) -> None:
    from torch import nn

    transposed = type(layer).__name__ == "Conv1D"
    weight = layer.weight.detach()
    layer.weight = nn.Parameter(weight.index_select(int(outputs == transposed), places.to(weight.device)).clone())
    if outputs and layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[places].clone())
    size = ("nf" if outputs else "nx") if transposed else ("out_features" if outputs else "in_features")
    setattr(layer, size, len(places))


def _rows(layer: Any) -> Tensor:
    """Return the weight as (outputs, inputs)."""
    weight: Tensor = layer.weight.detach()
    return weight.t() if type(layer).__name__ == "Conv1D" else weight


def _inputs(layer: Any) -> int:
    return int(_rows(layer).shape[1])
