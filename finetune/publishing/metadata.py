"""The YAML at the top of a card: made, and held against the Hub's schema, by the Hub's own client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.publishing.bases import Base
from finetune.publishing.options import PublishOptions

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from finetune.recipe import Recipe

HUB_METRICS = {"macro_f1": "f1", "micro_f1": "f1", "mcc": "matthews_correlation", "pearson": "pearsonr"}
CONFIDENCE = 0.95


def front_matter(
    recipe: Recipe, name: str, base: Base | None, publish: PublishOptions, family: str | None, held: dict[str, Any]
) -> str:
    """Return the metadata as YAML, scores with their intervals in `model-index` among them."""
    from huggingface_hub import ModelCardData

    usage, adapter = held["usage"], recipe.adapter is not None and held["adapter"] != "head"
    datasets = list(publish.datasets or ())
    relation: dict[str, Any] = {}
    if base is not None and base.id is not None:
        kind = "adapter" if adapter else "quantized" if held["quantized"] else "finetune"
        relation = {"base_model": base.id, "base_model_relation": kind}
    data = ModelCardData(
        datasets=datasets or None,
        eval_results=_results(recipe, datasets, held) or None,
        language=publish.languages or None,
        library_name="peft" if adapter else "transformers",
        license=publish.license,
        license_name=publish.license_name,
        model_name=name,
        pipeline_tag=usage.pipeline,
        tags=[each for each in ("finetune", recipe.task.kind, family) if each],
        **relation,
        **_emissions(held["energy"]),
    )
    return data.to_yaml() + "\n"


def _emissions(energy: dict[str, float] | None) -> dict[str, Any]:
    if energy is None:
        return {}
    return {
        "co2_eq_emissions": {"emissions": 1000 * energy["kg"], "source": "codecarbon", "training_type": "fine-tuning"}
    }


def _results(recipe: Recipe, datasets: list[str], held: dict[str, Any]) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    name = datasets[0] if datasets else "held-out rows"
    found = []
    for row in held["rows"]:
        score = row["score"]
        spread = (
            {"low": score["low"], "high": score["high"], "confidence": CONFIDENCE} if score["low"] is not None else {}
        )
        found.append(
            EvalResult(
                task_type=held["usage"].pipeline or recipe.task.kind,
                dataset_type=datasets[0] if datasets else "private",
                dataset_name=name,
                dataset_split=held["split"],
                metric_type=HUB_METRICS.get(row["name"], row["name"]),
                metric_name=row["name"],
                metric_value=score["value"],
                metric_args={**spread, "n": score["n"]},
            )
        )
    return found
