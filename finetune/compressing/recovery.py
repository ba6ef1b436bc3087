"""Training after pruning: by the run's own recipe and trainer, from the pruned weights, perhaps under the original."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.compressing.saving import Whole
from finetune.reloading import holds_adapter, load_run

if TYPE_CHECKING:
    from finetune.recipe import Recipe

OF_A_WHOLE_MODEL = 1 / 20  # of an adapter's learning rate: whole models take about so much of it
OF_THE_BASE = ("revision", "config", "gguf_file", "sha256", "tokenizer")  # say nothing of the pruned weights


@dataclass
class Recovery:
    """How a pruned model is trained.

    Args:
        run: the original.
        epochs: of each round.
        overrides: of the recipe, as given; the teacher is added.
        distill: learn from the original's answers too.
    """

    run: Path
    epochs: float
    overrides: dict[str, Any]
    distill: bool = False

    def __post_init__(self) -> None:
        if self.distill:
            self.overrides.setdefault("task.distill.teacher", str(self.run))

    def after(self, whole: Whole, aside: Path) -> Whole:
        """Train a pruned model and return it; what is written in `aside` on the way is gone afterwards."""
        from finetune.run import train

        start, folder = aside / "start", aside / "run"
        whole.model.save_pretrained(start)
        whole.processor.save_pretrained(start)
        recipe = self._recipe(whole.recipe, start, folder)
        train(recipe, ready=hold_zeros)
        _, model, processor = load_run(folder)
        for each in (start, folder):
            shutil.rmtree(each)
        return replace(whole, model=model, processor=processor)

    def _recipe(self, recipe: Recipe, start: Path, folder: Path) -> Recipe:
        from finetune.recipe import Recipe as Made

        values = recipe.to_dict()
        values["model"] = {name: each for name, each in (values.get("model") or {}).items() if name not in OF_THE_BASE}
        values["model"]["path"] = str(start)
        values["train"] |= {"output_dir": str(folder), "num_train_epochs": self.epochs}
        if "train.max_steps" not in self.overrides:
            values["train"].pop("max_steps", None)
        if "train.learning_rate" not in self.overrides and holds_adapter(self.run):
            values["train"]["learning_rate"] = OF_A_WHOLE_MODEL * recipe.train.learning_rate
        if not any(name.startswith("task.distill") for name in self.overrides):
            values["task"].pop("distill", None)  # the teacher of the original
        values["evaluate"] = {**values.get("evaluate", {}), "baselines": False, "resamples": 0, "reload": "same"}
        values.pop("publish", None)
        return Made.from_dict(values)


def hold_zeros(model: Any) -> None:
    """Keep weights that are zero at zero while their layer is trained: they are given no gradient."""
    from torch import nn

    for module in model.modules():
        weight: Any = getattr(module, "weight", None)
        linear = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        if linear and not bool((weight != 0).all()):
            weight.register_hook(lambda gradient, weight=weight: gradient * (weight != 0))
