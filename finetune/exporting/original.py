"""What is exported: a run with its adapter merged, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.agreement import on_device
from finetune.errors import UserError
from finetune.reloading import load_merged

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetune.recipe import Recipe
    from finetune.task import Batch, Processor

OWN = "finetune-"  # how the names of this project's own families begin


@dataclass(frozen=True)
class Original:
    """A run as it is exported: a whole model in fp32, in evaluation mode, on the CPU."""

    run: Path
    recipe: Recipe
    model: PreTrainedModel
    processor: Processor

    @classmethod
    def read(cls, run: Path, overrides: Mapping[str, Any] | None = None) -> Original:
        """Load a run; its adapter, if it has one, is merged into the base."""
        recipe, model, processor = load_merged(run, overrides)
        if recipe.model.quantize is not None:
            raise UserError(
                f"{run} was trained on a base in {recipe.model.quantize}, and on the whole one it answers otherwise: "
                "merge it first (finetune merge says by how much), and export that."
            )
        if getattr(model.config, "quantization_config", None) is not None:
            raise UserError(f"{run} is in fewer bits already; export the run that it came from (--int8 for ONNX in 8).")
        recipe = replace(recipe, adapter=None)
        return cls(run, recipe, model.to("cpu").float().eval(), processor)  # type: ignore[arg-type]  # decorated stub

    @property
    def kind(self) -> str:
        """The kind of the task."""
        return self.recipe.task.kind

    def batch(self, rows: int = 2) -> Batch:
        """Return the first reference rows as the model takes them, at least two, without labels."""
        batch, _ = next(artefact.reference_batches(self.run))
        given = {name: each for name, each in on_device(batch, self.model).items() if name != "labels"}
        return {
            name: each[:rows] if len(each) >= rows else each.repeat_interleave(rows, 0) for name, each in given.items()
        }

    def refuse_own_family(self, form: str) -> None:
        """Raise UserError for a family that only this package can read."""
        if self.model.config.model_type.startswith(OWN):
            raise UserError(
                f"--to {form}: no other program reads a {self.model.config.model_type}; try --to onnx, or publish the "
                "run as it is."
            )


def save_tokenizer(processor: Processor, folder: Path) -> None:
    """Write tokenizer.json, which the runner reads; UserError where the tokenizer has no such form."""
    backend = getattr(processor, "backend_tokenizer", None)
    if backend is None:
        raise UserError("--to onnx: this tokenizer has no fast form, which the runner needs.")
    backend.save(str(folder / "tokenizer.json"))
