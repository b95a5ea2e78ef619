# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a classifier is scored by.

`outcome_of` takes from the logits of a batch what the scores need, three numbers an image, so that no logits of a large
split are kept; `compute_metrics`, `per_class_report`, `confusion_matrix` and `most_confused` score the outcome of a
whole split. The single scores are functions of arrays; `evaluate_metrics.py` has them in the form of Hugging Face
`evaluate`.

Every image has one label here.

Shapes: B images, K classes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import sklearn.metrics
import torch
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
        `accuracy`; `macro_f1`, over the classes that occur; `expected_calibration_error`; and with more than 5 classes
        `top5_accuracy`, which would be 1 whatever the model with 5 or fewer.

    Raises:
        ValueError: if there are no images, or a logit was not finite.
    """
    _check_outcome(outcome)
    results = {"accuracy": accuracy(outcome.predictions, labels)}
    if num_labels > TOP_K:
        results[f"top{TOP_K}_accuracy"] = float((outcome.ranks < TOP_K).mean())
    results["macro_f1"] = macro_f1(outcome.predictions, labels)
    results["expected_calibration_error"] = expected_calibration_error(outcome.predictions, labels, outcome.confidences)
    return results


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose predicted class is the label: (B,), (B,) -> from 0 to 1."""
    return float(sklearn.metrics.accuracy_score(labels, predictions))


def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """The mean of the classes' F1, each class counted alike: (B,), (B,) -> from 0 to 1.

    The mean is over the classes that occur in labels or predictions, as in scikit-learn: a class that occurs in neither
    has no F1. Scores of two splits therefore compare only if the same classes occur in both.
    """
    return float(sklearn.metrics.f1_score(labels, predictions, average="macro", zero_division=0))


def count_pairs(predictions: np.ndarray, labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Images by label (row) and prediction (column): (B,), (B,) -> (K, K).

    Raises:
        ValueError: if a class is out of range, which scikit-learn would leave out, so that the counts did not add up.
    """
    check_range("predictions", np.asarray(predictions), num_labels)
    check_range("references", np.asarray(labels), num_labels)
    return sklearn.metrics.confusion_matrix(labels, predictions, labels=range(num_labels))


def expected_calibration_error(
    predictions: np.ndarray, labels: np.ndarray, confidences: np.ndarray, num_bins: int = CALIBRATION_BINS
) -> float:
    """How far confidence is from accuracy: 3 x (B,) -> 0 for a model that is right as often as it says it is.

    The images are sorted by the probability of the predicted class into bins of equal width, ((m - 1) / M, m / M] for
    m = 1 … M = 15, and the gaps between mean confidence and accuracy of the bins are averaged, weighted by their images
    (Guo et al. 2017, arXiv 1706.04599, section 2, equations 2 and 3; 15 bins as in its Table 1).

    Raises:
        ValueError: if a confidence is no probability.
    """
    correct, confidence = np.equal(predictions, labels), np.asarray(confidences)
    outside = confidence[~((confidence >= 0) & (confidence <= 1))]  # NaN is outside, too
    if len(outside):
        raise ValueError(f"confidences must be probabilities from 0 to 1, got {outside[0]}.")
    inner_edges = np.arange(1, num_bins) / num_bins
    bins = np.digitize(confidence, inner_edges, right=True)
    # A bin's weight times its gap, (size / B) * |accuracy - confidence|, is |sum of the differences| / B.
    differences = np.bincount(bins, weights=correct - confidence)  # (bins,)
    return float(np.abs(differences).sum() / len(confidence))


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
    return count_pairs(outcome.predictions, labels, num_labels)


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
    check_range("labels", labels.cpu().numpy(), num_labels)


def _check_outcome(outcome: Outcome) -> None:
    """Refuse what means nothing."""
    if len(outcome.predictions) == 0:
        raise ValueError("metrics need at least one image, got none.")
    if outcome.broken:
        raise ValueError(
            f"the logits of {outcome.broken} of {counted(len(outcome.predictions), 'image')} are NaN or infinite."
        )


def check_range(name: str, classes: np.ndarray, num_labels: int) -> None:
    """Refuse classes that are not from 0 to `num_labels` - 1."""
    outside = classes[(classes < 0) | (classes >= num_labels)]
    if len(outside):
        raise ValueError(
            f"{name} must be from 0 to {num_labels - 1} for {num_labels} classes; {len(outside)} of {len(classes)} are "
            f"not, the first is {outside[0]}."
        )
