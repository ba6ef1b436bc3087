"""The metrics: one file each, loadable by `evaluate.load(path of the file)` with no network."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from finetune.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from finetune.evaluation.local_metric import LocalMetric

METRICS: dict[str, str] = {
    "accuracy": "finetune.evaluation.metrics.accuracy:Accuracy",
    "active_units": "finetune.evaluation.metrics.active_units:ActiveUnits",
    "answer_f1": "finetune.evaluation.metrics.answer_f1:AnswerF1",
    "auroc": "finetune.evaluation.metrics.auroc:Auroc",
    "average_precision": "finetune.evaluation.metrics.average_precision:AveragePrecision",
    "bits_per_byte": "finetune.evaluation.metrics.bits_per_byte:BitsPerByte",
    "bleu": "finetune.evaluation.metrics.bleu:Bleu",
    "c2st": "finetune.evaluation.metrics.c2st:C2st",
    "chrf": "finetune.evaluation.metrics.chrf:Chrf",
    "confusion_matrix": "finetune.evaluation.metrics.confusion_matrix:ConfusionMatrix",
    "copying": "finetune.evaluation.metrics.copying:Copying",
    "cs": "finetune.evaluation.metrics.cs:Cs",
    "f1": "finetune.evaluation.metrics.f1:F1",
    "fcd": "finetune.evaluation.metrics.fcd:Fcd",
    "hamming_loss": "finetune.evaluation.metrics.hamming_loss:HammingLoss",
    "kcd": "finetune.evaluation.metrics.kcd:Kcd",
    "log_loss": "finetune.evaluation.metrics.log_loss:LogLoss",
    "mae": "finetune.evaluation.metrics.mae:Mae",
    "mcc": "finetune.evaluation.metrics.mcc:Mcc",
    "memorisation": "finetune.evaluation.metrics.memorisation:Memorisation",
    "mse": "finetune.evaluation.metrics.mse:Mse",
    "nelbo": "finetune.evaluation.metrics.nelbo:Nelbo",
    "nll": "finetune.evaluation.metrics.nll:Nll",
    "pearson": "finetune.evaluation.metrics.pearson:Pearson",
    "perplexity": "finetune.evaluation.metrics.perplexity:Perplexity",
    "prdc": "finetune.evaluation.metrics.prdc:Prdc",
    "rouge": "finetune.evaluation.metrics.rouge:Rouge",
    "span_f1": "finetune.evaluation.metrics.span_f1:SpanF1",
    "spearman": "finetune.evaluation.metrics.spearman:Spearman",
    "subset_accuracy": "finetune.evaluation.metrics.subset_accuracy:SubsetAccuracy",
    "swd": "finetune.evaluation.metrics.swd:Swd",
}


def load_metric(name: str) -> LocalMetric:
    """Return the metric called `name`. Raises UserError, with the nearest known name, for another one."""
    if name not in METRICS:
        raise UserError(f"{name} is not a metric.{did_you_mean(name, METRICS)} Known: {', '.join(METRICS)}.")
    module, _, kind = METRICS[name].partition(":")
    return getattr(import_module(module), kind)()
