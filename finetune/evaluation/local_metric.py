"""The thin `evaluate.Metric` around a metric's numpy function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np

CLASS = datasets.Value("int64")  # the number of a class, or a count
NUMBER = datasets.Value("float64")
LABEL_SET = datasets.List(datasets.Value("int64"))  # 0 or 1 for each label
CLASS_SCORES = datasets.List(datasets.Value("float64"))  # a logit or a probability for each class
VECTOR = datasets.List(datasets.Value("float64"))  # the pixels or the features of one row


class LocalMetric(evaluate.Metric, ABC):
    """A metric whose module lies in this package: no network, no cache file, no lock.

    A concrete one says which features it takes (a tuple of alternatives, tried in order) and computes its values.
    """

    features_taken: ClassVar[tuple[tuple[Any, Any], ...]]  # (predictions, references)

    def __init__(self, *args: Any, keep_in_memory: bool = True, num_process: int = 1, **options: Any) -> None:
        # `evaluate.load` passes keep_in_memory=False, which writes an arrow file and a lock below HF_HOME.
        super().__init__(*args, keep_in_memory=num_process == 1, num_process=num_process, **options)

    @abstractmethod
    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        """Return values by name, NaN where a value is undefined."""

    def _info(self) -> evaluate.MetricInfo:
        features = [
            datasets.Features({"predictions": predictions, "references": references})
            for predictions, references in self.features_taken
        ]
        text = self.__doc__ or ""
        return evaluate.MetricInfo(description=text, citation="", inputs_description=text, features=features)

    def _compute(self, predictions: list, references: list, **options: Any) -> dict[str, Any]:
        values = self.values(np.asarray(predictions), np.asarray(references), **options)
        return {name: _plain(value) for name, value in values.items() if np.all(np.isfinite(value))}


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist()
