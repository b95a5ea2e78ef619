# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The scores of `metrics.py` in the form of Hugging Face `evaluate`, which need no network.

They take a split batch by batch (`add_batch`, then `compute`) and go where such metrics go, for example into
`evaluate.combine`.

Shapes: B images, K classes.
"""

import inspect

import evaluate
import numpy as np
from datasets import Features, Value
from datasets import Sequence as ListOf

from .metrics import CALIBRATION_BINS, accuracy, count_pairs, expected_calibration_error, macro_f1


class InMemoryMetric(evaluate.Metric):
    """What the metrics here share: they keep their batches in memory and leave nothing on the disk.

    A subclass names the columns of a batch and computes from all batches, as lists. In a distributed run every process
    computes from the gathered predictions, as `Trainer` does.

    Raises:
        ValueError: by `compute`, if there was no image to score.
    """

    columns: dict[str, Value | ListOf]
    source = ""

    def __init__(self):
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        description = inspect.cleandoc(type(self).__doc__ or "")
        return evaluate.MetricInfo(description=description, citation=self.source, features=Features(self.columns))

    def _build_data_dir(self) -> str:
        # The base class makes a folder in the user's cache even if it then keeps everything in memory.
        return ""

    def _finalize(self) -> None:
        if len(self) == 0:
            raise ValueError(f"{self.name} needs at least one image, got none.")
        super()._finalize()


class Accuracy(InMemoryMetric):
    """The share of images whose predicted class is the label: `predictions` (B,), `references` (B,) -> `accuracy`."""

    columns = {"predictions": Value("int64"), "references": Value("int64")}

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": accuracy(np.asarray(predictions), np.asarray(references))}


class TopKAccuracy(InMemoryMetric):
    """The share of images whose label is among the k most likely classes.

    `predictions` (B, k), as `top_classes` makes them, `references` (B,) -> for k = 5 `top5_accuracy`. With k classes or
    fewer in all it is 1 whatever the model.
    """

    columns = {"predictions": ListOf(Value("int64")), "references": Value("int64")}

    def _compute(self, predictions: list[list[int]], references: list[int]) -> dict[str, float]:
        hits = np.asarray(predictions) == np.asarray(references)[:, None]  # (B, k)
        return {f"top{hits.shape[1]}_accuracy": float(hits.any(axis=1).mean())}


class MacroF1(InMemoryMetric):
    """The mean of the classes' F1, each class counted alike: `predictions` (B,), `references` (B,) -> `macro_f1`."""

    columns = {"predictions": Value("int64"), "references": Value("int64")}

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"macro_f1": macro_f1(np.asarray(predictions), np.asarray(references))}


class ConfusionMatrix(InMemoryMetric):
    """Images by label (row) and prediction (column): `predictions` (B,), `references` (B,) -> `confusion_matrix`.

    `compute` takes `num_labels`, K, and gives an array (K, K) of whole numbers.
    """

    columns = {"predictions": Value("int64"), "references": Value("int64")}

    def _compute(self, predictions: list[int], references: list[int], num_labels: int) -> dict[str, np.ndarray]:
        counts = count_pairs(np.asarray(predictions), np.asarray(references), num_labels)
        return {"confusion_matrix": counts}


class ExpectedCalibrationError(InMemoryMetric):
    """How far confidence is from accuracy, 0 for a model that is right as often as it says it is.

    `predictions` (B,), `references` (B,), `confidences` (B,) -> `expected_calibration_error`; `compute` takes another
    `num_bins` than the 15 of Guo et al. 2017, Table 1.
    """

    columns = {"predictions": Value("int64"), "references": Value("int64"), "confidences": Value("float64")}
    source = "Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599"

    def _compute(
        self, predictions: list[int], references: list[int], confidences: list[float], num_bins: int = CALIBRATION_BINS
    ) -> dict[str, float]:
        classes = np.asarray(predictions), np.asarray(references)
        return {"expected_calibration_error": expected_calibration_error(*classes, np.asarray(confidences), num_bins)}
