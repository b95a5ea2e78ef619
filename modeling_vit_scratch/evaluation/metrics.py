# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a classifier is scored by: metrics in the form of Hugging Face `evaluate`, which need no network.

`compute_metrics`, `per_class_report` and `confusion_matrix` score the logits of a whole split. The classes below them
are `evaluate` metrics: they take a split batch by batch (`add_batch`, then `compute`) and go where such metrics go, for
example into `evaluate.combine`. They keep classes and confidences only, so that a large split fits in memory.

Every image has one label here.

Shapes: B images, K classes.
"""

import inspect
from collections.abc import Sequence
from typing import NamedTuple

import evaluate
import numpy as np
import sklearn.metrics
from datasets import Features, Value
from datasets import Sequence as ListOf

TOP_K = 5
# Guo et al. 2017, arXiv 1706.04599: Table 1 is computed with this many bins.
CALIBRATION_BINS = 15


class ClassScores(NamedTuple):
    """How well one class is found; each score is from 0 to 1.

    Where nothing divides (no image of the class for recall, none predicted as it for precision), the score is 0.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


def compute_metrics(logits: np.ndarray, labels: np.ndarray, num_labels: int) -> dict[str, float]:
    """Score the logits of a split: (B, K) and (B,) -> numbers from 0 to 1 by name.

    Args:
        logits: finite numbers, before any softmax.
        labels: whole numbers from 0 to `num_labels` - 1.
        num_labels: K.

    Returns:
        `accuracy`; `macro_f1`, over the classes that occur (see `MacroF1`); `expected_calibration_error`; and with more
        than 5 classes `top5_accuracy`, which would be 1 whatever the model with 5 or fewer.

    Raises:
        ValueError: if there are no images, the shapes do not fit, a label is out of range or a logit is not finite.
    """
    logits, labels = _check(logits, labels, num_labels)
    classes = {"predictions": logits.argmax(axis=1), "references": labels}
    results = Accuracy().compute(**classes)
    if num_labels > TOP_K:
        results |= TopKAccuracy().compute(predictions=top_classes(logits, TOP_K), references=labels)
    results |= MacroF1().compute(**classes)
    results |= ExpectedCalibrationError().compute(confidences=top_confidence(logits), **classes)
    return {name: float(value) for name, value in results.items()}


def per_class_report(logits: np.ndarray, labels: np.ndarray, label_names: Sequence[str]) -> list[ClassScores]:
    """Score every class by itself: (B, K) and (B,) -> K rows in the order of `label_names`.

    Raises:
        ValueError: as of `compute_metrics`.
    """
    logits, labels = _check(logits, labels, len(label_names))
    columns = sklearn.metrics.precision_recall_fscore_support(
        labels, logits.argmax(axis=1), labels=range(len(label_names)), zero_division=0
    )
    return [
        ClassScores(name, float(precision), float(recall), float(f1), int(support))
        for name, precision, recall, f1, support in zip(label_names, *columns, strict=True)
    ]


def confusion_matrix(logits: np.ndarray, labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Count images by label (row) and prediction (column): (B, K) and (B,) -> (K, K) whole numbers.

    Raises:
        ValueError: as of `compute_metrics`.
    """
    logits, labels = _check(logits, labels, num_labels)
    results = ConfusionMatrix().compute(predictions=logits.argmax(axis=1), references=labels, num_labels=num_labels)
    return results["confusion_matrix"]


def top_classes(logits: np.ndarray, k: int) -> np.ndarray:
    """The `k` classes with the highest logits, highest first: (B, K) -> (B, k).

    Of equal logits the lower class comes first, as in `argmax`: top-k accuracy is then never below accuracy, not even
    where all logits are equal, as those of a head that starts at zero are (in scikit-learn's it is).
    """
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def top_confidence(logits: np.ndarray) -> np.ndarray:
    """The highest probability after a softmax: (B, K) -> (B,), above 0 and at most 1."""
    # exp(highest) / sum(exp), both divided by exp(highest), so that nothing overflows.
    relative = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)  # (B, K)
    return 1 / relative.sum(axis=1)


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
        return {"accuracy": sklearn.metrics.accuracy_score(references, predictions)}


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
    """The mean of the classes' F1, each class counted alike: `predictions` (B,), `references` (B,) -> `macro_f1`.

    The mean is over the classes that occur in labels or predictions, as in scikit-learn: a class that occurs in neither
    has no F1. Scores of two splits therefore compare only if the same classes occur in both.
    """

    columns = {"predictions": Value("int64"), "references": Value("int64")}

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"macro_f1": sklearn.metrics.f1_score(references, predictions, average="macro", zero_division=0)}


class ConfusionMatrix(InMemoryMetric):
    """Images by label (row) and prediction (column): `predictions` (B,), `references` (B,) -> `confusion_matrix`.

    `compute` takes `num_labels`, K, and gives an array (K, K) of whole numbers.
    """

    columns = {"predictions": Value("int64"), "references": Value("int64")}

    def _compute(self, predictions: list[int], references: list[int], num_labels: int) -> dict[str, np.ndarray]:
        # scikit-learn leaves out what is not in `labels`, so the counts would not add up.
        _check_range("predictions", np.asarray(predictions), num_labels)
        _check_range("references", np.asarray(references), num_labels)
        matrix = sklearn.metrics.confusion_matrix(references, predictions, labels=range(num_labels))
        return {"confusion_matrix": matrix}


class ExpectedCalibrationError(InMemoryMetric):
    """How far confidence is from accuracy, 0 for a model that is right as often as it says it is.

    `predictions` (B,), `references` (B,), `confidences` (B,) -> `expected_calibration_error`: the images are sorted by
    the probability of the predicted class into bins of equal width, ((m - 1) / M, m / M] for m = 1 … M = 15, and the
    gaps between mean confidence and accuracy of the bins are averaged, weighted by their images (Guo et al. 2017, arXiv
    1706.04599, section 2, equations 2 and 3; 15 bins as in its Table 1). `compute` takes another `num_bins`.
    """

    columns = {"predictions": Value("int64"), "references": Value("int64"), "confidences": Value("float64")}
    source = "Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599"

    def _compute(
        self, predictions: list[int], references: list[int], confidences: list[float], num_bins: int = CALIBRATION_BINS
    ) -> dict[str, float]:
        correct, confidence = np.equal(predictions, references), np.asarray(confidences)
        outside = confidence[~((confidence >= 0) & (confidence <= 1))]  # NaN is outside, too
        if len(outside):
            raise ValueError(f"confidences must be probabilities from 0 to 1, got {outside[0]}.")
        inner_edges = np.arange(1, num_bins) / num_bins
        bins = np.digitize(confidence, inner_edges, right=True)
        # A bin's weight times its gap, (size / B) * |accuracy - confidence|, is |sum of the differences| / B.
        differences = np.bincount(bins, weights=correct - confidence)  # (bins,)
        return {"expected_calibration_error": float(np.abs(differences).sum() / len(confidence))}


def _check(logits: np.ndarray, labels: np.ndarray, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Refuse what cannot be scored; logits and labels as arrays otherwise."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or logits.shape[1] != num_labels or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits must have the shape (images, num_labels={num_labels}) and labels (images,), got {logits.shape} "
            f"and {labels.shape}."
        )
    if len(labels) == 0:
        raise ValueError("metrics need at least one image, got none.")
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise ValueError(f"the logits of {broken} of {len(logits)} images are NaN or infinite.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers, one class per image, got {labels.dtype}.")
    _check_range("labels", labels, num_labels)
    return logits, labels


def _check_range(name: str, classes: np.ndarray, num_labels: int) -> None:
    outside = classes[(classes < 0) | (classes >= num_labels)]
    if len(outside):
        raise ValueError(
            f"{name} must be from 0 to {num_labels - 1} for {num_labels} classes; {len(outside)} of {len(classes)} are "
            f"not, the first is {outside[0]}."
        )
