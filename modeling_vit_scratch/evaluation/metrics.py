# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a classifier is scored by: metrics in the form of Hugging Face `evaluate`, which need no network.

`outcome_of` takes from the logits of a batch what the scores need, three numbers an image, so that no logits of a large
split are kept; `compute_metrics`, `per_class_report`, `confusion_matrix` and `most_confused` score the outcome of a
whole split. The classes below them are `evaluate` metrics: they take a split batch by batch (`add_batch`, then
`compute`) and go where such metrics go, for example into `evaluate.combine`.

Every image has one label here.

Shapes: B images, K classes.
"""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import evaluate
import numpy as np
import sklearn.metrics
import torch
from datasets import Features, Value
from datasets import Sequence as ListOf
from torch import Tensor

from ..text import counted

TOP_K = 5
# Guo et al. 2017, arXiv 1706.04599: Table 1 is computed with this many bins.
CALIBRATION_BINS = 15
# Logits that are looked at together: what is computed of them takes a few times their memory.
LOGITS_TOGETHER = 2**22


class ClassScores(NamedTuple):
    """How well one class is found; each score is from 0 to 1.

    Where nothing divides (no image of the class for recall, none predicted as it for precision), the score is 0.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class Outcome(NamedTuple):
    """What a model made of images, without its logits: arrays (B,), or tensors before they are gathered.

    Args:
        predictions: the class of the highest logit.
        ranks: how many classes come before the label, 0 for a hit. Of equal logits the lower class comes first, as in
            `argmax`: top-k accuracy is then never below accuracy, not even where all logits are equal, as those of a
            head that starts at zero are (in scikit-learn's it is).
        confidences: the highest probability after a softmax, above 0 and at most 1; NaN where a logit is not finite.
    """

    predictions: Any
    ranks: Any
    confidences: Any

    @property
    def broken(self) -> int:
        """Of how many images a logit is not finite."""
        return int(np.isnan(self.confidences).sum())


def outcome_of(logits: Tensor, labels: Tensor, num_labels: int) -> Outcome:
    """What the scores need of logits, on their device: (B, K) and (B,) -> tensors (B,).

    Args:
        logits: before any softmax.
        labels: whole numbers from 0 to `num_labels` - 1.
        num_labels: K.

    Raises:
        ValueError: if the shapes do not fit, or a label is no whole number or out of range.
    """
    _check(logits, labels, num_labels)
    rows = max(1, LOGITS_TOGETHER // num_labels)
    parts = map(_outcome_of, logits.split(rows), labels.to(logits.device).split(rows))
    return Outcome(*map(torch.cat, zip(*parts, strict=True)))


def _outcome_of(logits: Tensor, labels: Tensor) -> Outcome:
    logits = logits.float() if logits.element_size() < 4 else logits
    lowest, highest = torch.aminmax(logits, dim=1, keepdim=True)  # (B, 1)
    finite = (lowest.isfinite() & highest.isfinite()).squeeze(1)
    of_label = logits.gather(1, labels[:, None])  # (B, 1)
    lower = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]  # (B, K)
    ranks = ((logits > of_label) | ((logits == of_label) & lower)).sum(dim=1)
    # exp(highest) / sum(exp), both divided by exp(highest), so that nothing overflows.
    exact = torch.float32 if logits.device.type == "mps" else torch.float64
    confidences = 1 / (logits - highest).to(exact).exp().sum(dim=1)
    return Outcome(logits.argmax(dim=1), ranks, confidences.masked_fill(~finite, torch.nan))


def compute_metrics(outcome: Outcome, labels: np.ndarray, num_labels: int) -> dict[str, float]:
    """Score the outcome of a split: numbers from 0 to 1 by name.

    Args:
        outcome: of the images.
        labels: (B,).
        num_labels: K.

    Returns:
        `accuracy`; `macro_f1`, over the classes that occur (see `MacroF1`); `expected_calibration_error`; and with more
        than 5 classes `top5_accuracy`, which would be 1 whatever the model with 5 or fewer.

    Raises:
        ValueError: if there are no images, or a logit was not finite.
    """
    _check_outcome(outcome)
    classes = {"predictions": outcome.predictions, "references": labels}
    results = Accuracy().compute(**classes)
    if num_labels > TOP_K:
        results[f"top{TOP_K}_accuracy"] = (outcome.ranks < TOP_K).mean()
    results |= MacroF1().compute(**classes)
    results |= ExpectedCalibrationError().compute(confidences=outcome.confidences, **classes)
    return {name: float(value) for name, value in results.items()}


def per_class_report(outcome: Outcome, labels: np.ndarray, label_names: Sequence[str]) -> list[ClassScores]:
    """Score every class by itself: K rows in the order of `label_names`.

    Raises:
        ValueError: as of `compute_metrics`.
    """
    _check_outcome(outcome)
    columns = sklearn.metrics.precision_recall_fscore_support(
        labels, outcome.predictions, labels=range(len(label_names)), zero_division=0
    )
    return [
        ClassScores(name, float(precision), float(recall), float(f1), int(support))
        for name, precision, recall, f1, support in zip(label_names, *columns, strict=True)
    ]


def confusion_matrix(outcome: Outcome, labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Count images by label (row) and prediction (column): (K, K) whole numbers.

    Raises:
        ValueError: as of `compute_metrics`.
    """
    _check_outcome(outcome)
    results = ConfusionMatrix().compute(predictions=outcome.predictions, references=labels, num_labels=num_labels)
    return results["confusion_matrix"]


def most_confused(outcome: Outcome, labels: np.ndarray, number: int) -> list[tuple[int, int, int]]:
    """The mistakes that are made most often, those first: at most so many of (label, prediction, images).

    It takes memory for the mistakes alone, where a matrix would take it for all pairs of classes.

    Raises:
        ValueError: as of `compute_metrics`.
    """
    _check_outcome(outcome)
    wrong = outcome.predictions != labels
    pairs, counts = np.unique(np.stack((labels[wrong], outcome.predictions[wrong])), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:number]
    return [(int(label), int(predicted), int(counts[at])) for at in order for label, predicted in [pairs[:, at]]]


def top_classes(logits: np.ndarray, k: int) -> np.ndarray:
    """The k classes with the highest logits, highest first, of equal ones the lower class: (B, K) -> (B, k)."""
    remaining, classes = np.array(logits, dtype=float), []
    for _ in range(min(k, remaining.shape[1])):  # a sort of all classes takes many times as long
        classes.append(remaining.argmax(axis=1))
        np.put_along_axis(remaining, classes[-1][:, None], -np.inf, axis=1)
    return np.stack(classes, axis=1)


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


def _check(logits: Tensor, labels: Tensor, num_labels: int) -> None:
    """Refuse what cannot be scored."""
    if logits.ndim != 2 or logits.shape[1] != num_labels or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits must have the shape (images, num_labels={num_labels}) and labels (images,), got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}."
        )
    if labels.is_floating_point():
        dtype = str(labels.dtype).removeprefix("torch.")
        raise ValueError(f"labels must be whole numbers, one class per image, got {dtype}.")
    _check_range("labels", labels.cpu().numpy(), num_labels)


def _check_outcome(outcome: Outcome) -> None:
    """Refuse what means nothing."""
    if len(outcome.predictions) == 0:
        raise ValueError("metrics need at least one image, got none.")
    if outcome.broken:
        raise ValueError(
            f"the logits of {outcome.broken} of {counted(len(outcome.predictions), 'image')} are NaN or infinite."
        )


def _check_range(name: str, classes: np.ndarray, num_labels: int) -> None:
    outside = classes[(classes < 0) | (classes >= num_labels)]
    if len(outside):
        raise ValueError(
            f"{name} must be from 0 to {num_labels - 1} for {num_labels} classes; {len(outside)} of {len(classes)} are "
            f"not, the first is {outside[0]}."
        )
