"""`finetune prune`: feed-forward units and heads taken out, or the smallest weights set to zero; with recovery."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from finetune.compressing import structure
from finetune.compressing.recovery import Recovery
from finetune.compressing.saving import Whole, open_whole
from finetune.deriving import derive, fingerprint
from finetune.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

IMPORTANCE = ("taylor", "magnitude")
TAYLOR_ROWS, TAYLOR_BATCH = 512, 16


@dataclass(frozen=True)
class Wish:
    """What is to go: shares from 0 to 1, of each layer's units, or of all weights of linear layers together."""

    feed_forward: float = 0.0
    heads: float = 0.0
    zeros: float = 0.0

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0 <= share < 1:
                raise UserError(f"--{name} is {share}; it is the share that goes and must lie between 0 and 1.")
        if self.zeros and (self.feed_forward or self.heads):
            raise UserError("--zeros sets weights to zero, --feed_forward and --heads take units out: give one kind.")
        if not (self.zeros or self.feed_forward or self.heads):
            raise UserError("nothing is to go: say --feed_forward 0.4, --heads 0.25 or --zeros 0.5.")


def prune(
    run: Path,
    output: Path | None = None,
    feed_forward: float = 0.0,
    heads: float = 0.0,
    zeros: float = 0.0,
    importance: str = "taylor",
    rounds: int = 1,
    recover: float = 0.0,
    distill: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run with a smaller model, scored beside the run that it comes from.

    Args:
        run: with or without an adapter, which is merged into its base first.
        output: the new run's folder.
        feed_forward: share of the feed-forward units of each layer that go; the layers become smaller.
        heads: share of the attention heads of each layer that go, where a configuration can say so (Llama-like).
        zeros: share of all weights of linear layers that become zero, the smallest; nothing becomes smaller.
        importance: what makes a unit stay: "taylor", its first-order effect on the loss of training rows, or
            "magnitude" of its weights.
        rounds: in how many steps, each of which takes the same share of what is left, and is followed by recovery.
        recover: epochs of training after each round, by the run's own recipe (`--train.…` changes it).
        distill: recover under the original run's answers too (`--task.distill.…` changes how).
        overrides: of the recipe.

    Raises:
        UserError: what was given does not fit; nothing is written.
        CheckFailed: what was saved does not come back in a fresh process.
    """
    wish = Wish(feed_forward, heads, zeros)
    if importance not in IMPORTANCE:
        hint = did_you_mean(importance, IMPORTANCE)
        raise UserError(f"--importance: {importance} is not known; known: {', '.join(IMPORTANCE)}.{hint}")
    if rounds < 1 or recover < 0 or ((distill or rounds > 1) and not recover):
        raise UserError("--rounds is 1 or more and --recover epochs above 0; --distill and more rounds need --recover.")
    recovery = Recovery(run, recover, dict(overrides or {}), distill)
    whole = open_whole(run, output, recovery.overrides, "prune")
    assert output is not None  # `open_whole` has asked
    before = sum(each.numel() for each in whole.model.parameters())
    shape = _shape(whole.model, wish)
    steps = _steps(shape, wish, rounds)
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.absolute().parent, prefix=f".{output.name}.") as aside:
        for step in steps:
            step.take(whole, importance)
            if recover:
                whole = recovery.after(whole, Path(aside))
    after = sum(each.numel() for each in whole.model.parameters())
    facts: dict[str, Any] = {**steps[-1].facts(shape), "importance": "magnitude" if zeros else importance}
    facts |= {"rounds": rounds, "recovery": f"{recover:g} epochs each", "distilled": distill}
    facts |= {"weights": f"{after:,} of {before:,} ({after / before:.1%})"}
    print(", ".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    origin = {"made_by": "prune", "of": [fingerprint(run)], **facts}
    return derive(run, output, (whole.recipe, whole.model.requires_grad_(False), whole.processor), origin)


@dataclass(frozen=True)
class Step:
    """Where a round brings a model to."""

    units: int | None = None  # left in each feed-forward block
    heads: int | None = None  # left in each layer: key-value heads, with the query heads that read them
    zeros: float | None = None  # share of all weights of linear layers

    def take(self, whole: Whole, importance: str) -> None:
        """Bring a model there."""
        config = whole.model.config
        if self.zeros is not None:
            zero_smallest(whole.model, self.zeros)
        if self.units is not None:
            form, blocks = structure.feed_forward_blocks(whole.model)
            _keep(whole, blocks, self.units, importance)
            setattr(config, form.option, self.units)
        if self.heads is not None:
            blocks = structure.head_blocks(whole.model)
            shared = config.num_attention_heads // blocks[0].units
            _keep(whole, blocks, self.heads, importance)
            config.num_key_value_heads, config.num_attention_heads = self.heads, self.heads * shared

    def facts(self, before: Step) -> dict[str, str]:
        """Say what is left of what a model had."""
        told = {}
        if self.zeros is not None:
            told["zeros"] = f"{self.zeros:.1%} of the weights of linear layers, the smallest"
        if self.units is not None:
            told["feed-forward units"] = f"{self.units} of {before.units} a layer"
        if self.heads is not None:
            told["key-value heads"] = f"{self.heads} of {before.heads} a layer, with the query heads that read them"
        return told


def _shape(model: Any, wish: Wish) -> Step:
    """Return what a model has of what is to go; UserError where it cannot lose it."""
    return Step(
        units=structure.feed_forward_blocks(model)[1][0].units if wish.feed_forward else None,
        heads=structure.head_blocks(model)[0].units if wish.heads else None,
        zeros=0.0 if wish.zeros else None,
    )


def _steps(shape: Step, wish: Wish, rounds: int) -> list[Step]:
    """Return where each round goes."""

    def left(share: float, number: int) -> float:
        return float((1 - share) ** (number / rounds))

    return [
        Step(
            units=shape.units and max(1, round(shape.units * left(wish.feed_forward, number))),
            heads=shape.heads and max(1, round(shape.heads * left(wish.heads, number))),
            zeros=None if shape.zeros is None else 1 - left(wish.zeros, number),
        )
        for number in range(1, rounds + 1)
    ]


def _keep(whole: Whole, blocks: list[structure.Block], count: int, importance: str) -> None:
    """Leave the most important units in each block, in their order."""
    if importance == "magnitude":
        scores = {block.name: structure.magnitude(block) for block in blocks}
    else:
        task = whole.recipe.task
        whole.model.requires_grad_(True).to(whole.recipe.train.device)  # type: ignore[arg-type]  # a decorated stub
        scores = structure.taylor(blocks, lambda batch: task.loss(whole.model, batch)[0], _training_batches(whole))
        whole.model.zero_grad()
    for block in blocks:
        structure.cut(block, scores[block.name].topk(count).indices.sort().values)


def _training_batches(whole: Whole) -> Iterator[dict[str, Tensor]]:
    """Yield batches of training rows, the same for one seed."""
    from finetune.rewriting import load_rows
    from finetune.training.batching import CARRIED

    recipe = whole.recipe
    rows = load_rows(recipe, ("train",)).rows.get("train")
    if rows is None:
        raise UserError("--importance taylor needs rows to learn from, and data.train is a stream; use magnitude.")
    chosen = rows.shuffle(seed=recipe.train.seed).select(range(min(TAYLOR_ROWS, len(rows))))
    inputs = recipe.task.encode(chosen, whole.processor, recipe.data.on_long).inputs
    collate = recipe.task.collator(whole.processor)
    for start in range(0, len(inputs), TAYLOR_BATCH):
        batch = collate([inputs[place] for place in range(start, min(start + TAYLOR_BATCH, len(inputs)))])
        yield {name: each.to(recipe.train.device) for name, each in batch.items() if name not in CARRIED}


def zero_smallest(model: Any, share: float) -> int:
    """Set the smallest of all weights of the encoder's or decoder's linear layers to zero; return how many are."""
    import torch

    from finetune.compressing.quantize import chosen_modules

    weights = [model.get_submodule(name).weight.data for name in chosen_modules(model, embeddings=False)]
    if not weights:
        raise UserError(f"--zeros: {type(model).__name__} has no linear layers of a known kind.")
    sizes = torch.cat([each.abs().flatten() for each in weights])
    gone = torch.zeros(len(sizes), dtype=torch.bool, device=sizes.device)
    gone[sizes.argsort(stable=True)[: round(share * len(sizes))]] = True
    for weight, places in zip(weights, gone.split([each.numel() for each in weights]), strict=True):
        weight[places.view_as(weight)] = 0
    return int(gone.sum())
