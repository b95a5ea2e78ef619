# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What the metrics mean, worked out by hand, and what they refuse."""

import json
import socket
import tracemalloc

import evaluate
import numpy as np
import pytest
import sklearn.metrics
import torch

from modeling_vit_scratch.evaluation import metrics
from modeling_vit_scratch.evaluation.evaluate_metrics import (
    Accuracy,
    ConfusionMatrix,
    ExpectedCalibrationError,
    MacroF1,
    TopKAccuracy,
)
from modeling_vit_scratch.evaluation.metrics import ClassScores, Outcome, most_confused, outcome_of, top_classes

# Five images of four classes. Class 3 never occurs, and the predictions are 0, 0, 1, 2, 2.
LABELS = np.array([0, 0, 1, 1, 2])
PREDICTIONS = np.array([0, 0, 1, 2, 2])
NAMES = ["ant", "bee", "cat", "dog"]


def logits_of(probabilities):
    """Logits whose softmax is `probabilities`."""
    return np.log(np.asarray(probabilities))


def logits_that_predict(predictions, num_labels):
    return np.eye(num_labels)[predictions] * 3


LOGITS = logits_that_predict(PREDICTIONS, 4)


def random_split(num_images=211, num_labels=7):
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((num_images, num_labels)).astype(np.float32)
    return logits, generator.integers(0, num_labels, num_images)


def outcome(logits, labels, num_labels):
    """The outcome of a split as arrays, as it is after all batches."""
    return Outcome(*map(np.asarray, outcome_of(torch.as_tensor(logits), torch.as_tensor(labels), num_labels)))


def compute_metrics(logits, labels, num_labels):
    return metrics.compute_metrics(outcome(logits, labels, num_labels), np.asarray(labels), num_labels)


def confusion_matrix(logits, labels, num_labels):
    return metrics.confusion_matrix(outcome(logits, labels, num_labels), np.asarray(labels), num_labels)


def per_class_report(logits, labels, label_names):
    return metrics.per_class_report(outcome(logits, labels, len(label_names)), np.asarray(labels), label_names)


# Values


def test_the_metrics_of_a_split_by_hand():
    found = compute_metrics(LOGITS, LABELS, num_labels=4)
    confidence = np.exp(3) / (np.exp(3) + 3)
    assert set(found) == {"accuracy", "macro_f1", "expected_calibration_error"}
    assert found["accuracy"] == pytest.approx(4 / 5)
    # F1 of ant 1; of bee 2·1·(1/2)/(3/2) = 2/3, of cat likewise; dog occurs in neither labels nor predictions.
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    # All images are in one bin.
    assert found["expected_calibration_error"] == pytest.approx(abs(4 / 5 - confidence))


def test_the_metrics_are_plain_numbers_that_json_takes():
    found = compute_metrics(*random_split(), num_labels=7)
    assert json.loads(json.dumps(found)) == found
    assert {type(value) for value in found.values()} == {float}


def test_macro_f1_counts_a_class_that_is_only_predicted():
    # F1 of class 0: precision 1, recall 1/2. Class 1 has no image but a prediction: 0. Class 2 occurs nowhere.
    found = compute_metrics(logits_that_predict([0, 1], 3), np.array([0, 0]), num_labels=3)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_the_report_has_a_row_per_class_also_for_one_that_does_not_occur():
    assert per_class_report(LOGITS, LABELS, NAMES) == [
        ClassScores("ant", precision=1.0, recall=1.0, f1=1.0, support=2),
        ClassScores("bee", precision=1.0, recall=0.5, f1=pytest.approx(2 / 3), support=2),
        ClassScores("cat", precision=0.5, recall=1.0, f1=pytest.approx(2 / 3), support=1),
        ClassScores("dog", precision=0.0, recall=0.0, f1=0.0, support=0),
    ]


def test_the_confusion_matrix_has_labels_in_rows_and_predictions_in_columns():
    matrix = confusion_matrix(LOGITS, LABELS, num_labels=4)
    assert matrix.tolist() == [[2, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_one_image_is_enough():
    logits, labels = logits_of([[0.2, 0.7, 0.1]]), np.array([1])
    found = compute_metrics(logits, labels, num_labels=3)
    assert found == {"accuracy": 1.0, "macro_f1": 1.0, "expected_calibration_error": pytest.approx(0.3)}
    assert confusion_matrix(logits, labels, 3).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert [row.support for row in per_class_report(logits, labels, NAMES[:3])] == [0, 1, 0]


@pytest.mark.parametrize("together", [1, 100, 10**9])
def test_the_outcome_is_the_same_however_many_logits_are_looked_at_together(monkeypatch, together):
    logits, labels = random_split()
    monkeypatch.setattr(metrics, "LOGITS_TOGETHER", together)
    found = outcome(logits, labels, 7)
    order = np.argsort(-logits, axis=1, kind="stable")
    assert found.predictions.tolist() == order[:, 0].tolist()
    assert found.ranks.tolist() == np.argmax(order == labels[:, None], axis=1).tolist()
    np.testing.assert_allclose(found.confidences, torch.from_numpy(logits).double().softmax(1).amax(1), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_any_precision_are_scored(dtype):
    logits = torch.tensor([[0, 2, 2], [1, 0, 0]], dtype=dtype)
    found = outcome_of(logits, torch.tensor([2, 0]), 3)
    assert [column.tolist() for column in found[:2]] == [[1, 0], [1, 0]]
    torch.testing.assert_close(found.confidences, logits.double().softmax(1).amax(1))


def test_the_most_confused_pairs_are_those_of_the_matrix_without_it():
    logits, labels = random_split()
    matrix = confusion_matrix(logits, labels, 7)
    np.fill_diagonal(matrix, 0)
    pairs = most_confused(outcome(logits, labels, 7), labels, 50)
    assert len(pairs) == np.count_nonzero(matrix)
    assert all(matrix[label, predicted] == images for label, predicted, images in pairs)
    assert [images for *_, images in pairs] == sorted(matrix[matrix > 0], reverse=True)
    assert most_confused(outcome(logits, labels, 7), labels, 3) == pairs[:3]
    assert most_confused(outcome(np.eye(3), np.arange(3), 3), np.arange(3), 3) == []


def test_no_scores_take_memory_for_all_pairs_of_many_classes():
    # A matrix of 20,000 classes would take 3.2 GB.
    labels = np.arange(0, 20_000, 100)
    found = Outcome(np.roll(labels, 1), np.full(200, 7), np.full(200, 0.5))
    tracemalloc.start()
    metrics.compute_metrics(found, labels, 20_000)
    most_confused(found, labels, 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


# Top-5


def test_top_five_by_hand():
    logits = np.array([[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]] * 4)
    assert compute_metrics(logits, np.array([0, 4, 5, 6]), num_labels=7)["top5_accuracy"] == 2 / 4


def test_top_five_is_left_out_where_any_model_would_have_it():
    logits, labels = random_split()
    assert "top5_accuracy" not in compute_metrics(logits[:, :5], labels % 5, num_labels=5)
    assert 0 < compute_metrics(logits[:, :6], labels % 6, num_labels=6)["top5_accuracy"] < 1


def test_top_five_is_scikit_learns_where_no_logits_are_equal():
    logits, labels = random_split()
    expected = sklearn.metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(7))
    assert compute_metrics(logits, labels, num_labels=7)["top5_accuracy"] == pytest.approx(expected)


def test_equal_logits_rank_by_class_so_that_top_five_is_never_below_accuracy():
    logits, labels = np.zeros((3, 8), dtype=np.float32), np.array([0, 4, 5])
    assert top_classes(logits, 5).tolist() == [[0, 1, 2, 3, 4]] * 3
    found = compute_metrics(logits, labels, num_labels=8)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["top5_accuracy"] == pytest.approx(2 / 3)


# Calibration


def test_calibration_error_by_hand():
    # Of the 15 bins 0.61 and 0.65 are in (9/15, 10/15], 0.69 in (10/15, 11/15], 0.95 in (14/15, 1].
    logits = logits_of([[0.61, 0.39], [0.65, 0.35], [0.69, 0.31], [0.05, 0.95]])
    labels = np.array([0, 1, 0, 0])
    expected = 2 / 4 * abs(1 / 2 - (0.61 + 0.65) / 2) + 1 / 4 * (1 - 0.69) + 1 / 4 * 0.95
    error = compute_metrics(logits, labels, num_labels=2)["expected_calibration_error"]
    assert error == pytest.approx(expected)


def test_a_confidence_on_the_edge_belongs_to_the_bin_below():
    # 3/15 = 0.2 closes the bin (2/15, 3/15]: together with 0.19 it makes one gap, not two.
    metric = ExpectedCalibrationError()
    results = metric.compute(predictions=[0, 0], references=[1, 0], confidences=[0.2, 0.19])
    assert results["expected_calibration_error"] == pytest.approx(abs((0 - 0.2) + (1 - 0.19)) / 2)


def test_a_model_that_is_right_as_often_as_it_says_has_no_calibration_error():
    results = ExpectedCalibrationError().compute(
        predictions=[1, 1, 1, 1, 0], references=[1, 1, 1, 0, 0], confidences=[0.75, 0.75, 0.75, 0.75, 1.0]
    )
    assert results["expected_calibration_error"] == pytest.approx(0)


@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_calibration_error_is_the_papers_sum_over_bins(num_bins):
    generator = np.random.default_rng(1)
    confidences = generator.uniform(0, 1, 307)
    predictions, references = generator.integers(0, 2, (2, 307))
    expected = 0.0
    for m in range(1, num_bins + 1):
        members = (confidences > (m - 1) / num_bins) & (confidences <= m / num_bins)
        if members.any():
            accuracy = (predictions[members] == references[members]).mean()
            expected += members.sum() / 307 * abs(accuracy - confidences[members].mean())
    results = ExpectedCalibrationError().compute(
        predictions=predictions, references=references, confidences=confidences, num_bins=num_bins
    )
    assert results["expected_calibration_error"] == pytest.approx(expected)


def test_confidence_is_the_highest_softmax_and_does_not_overflow():
    logits, _ = random_split()
    expected = torch.from_numpy(logits).double().softmax(dim=1).amax(dim=1)
    labels = np.zeros(len(logits), dtype=int)
    np.testing.assert_allclose(outcome(logits, labels, 7).confidences, expected, rtol=1e-6)
    extreme = np.array([[1e4, 0.0], [-1e4, -1e4]], dtype=np.float32)
    assert outcome(extreme, labels[:2], 2).confidences.tolist() == [1.0, 0.5]


@pytest.mark.parametrize("confidence", [-0.1, 1.5, float("nan")])
def test_a_confidence_that_is_no_probability_is_refused(confidence):
    with pytest.raises(ValueError, match="confidences must be probabilities from 0 to 1, got"):
        ExpectedCalibrationError().compute(predictions=[0], references=[0], confidences=[confidence])


# As metrics of `evaluate`


def columns_of(metric, logits):
    """The predictions of `logits` in the form that `metric` takes."""
    if isinstance(metric, TopKAccuracy):
        return {"predictions": top_classes(logits, 5)}
    if isinstance(metric, ExpectedCalibrationError):
        confidences = outcome(logits, np.zeros(len(logits), dtype=int), 7).confidences
        return {"predictions": logits.argmax(axis=1), "confidences": confidences}
    return {"predictions": logits.argmax(axis=1)}


@pytest.mark.parametrize("metric_class", [Accuracy, TopKAccuracy, MacroF1, ConfusionMatrix, ExpectedCalibrationError])
def test_batches_add_up_to_the_split(metric_class):
    logits, labels = random_split()
    options = {"num_labels": 7} if metric_class is ConfusionMatrix else {}
    whole = metric_class().compute(references=labels, **columns_of(metric_class(), logits), **options)
    metric = metric_class()
    for _ in range(2):  # a metric starts anew after `compute`
        for start in range(0, 211, 50):
            batch = slice(start, start + 50)
            metric.add_batch(references=labels[batch], **columns_of(metric, logits[batch]))
        results = metric.compute(**options)
        assert results.keys() == whole.keys()
        for name in whole:
            np.testing.assert_array_equal(results[name], whole[name])


def test_images_can_be_added_one_by_one_and_metrics_combined():
    metric = evaluate.combine([Accuracy(), MacroF1()])
    for prediction, label in zip(PREDICTIONS, LABELS, strict=True):
        metric.add(predictions=prediction, references=label)
    assert metric.compute() == {"accuracy": 0.8, "macro_f1": pytest.approx(7 / 9)}


def test_top_k_is_named_by_the_columns_it_is_given():
    results = TopKAccuracy().compute(predictions=[[4, 1], [2, 0]], references=[1, 1])
    assert results == {"top2_accuracy": 0.5}


def test_computing_needs_no_network_and_leaves_nothing_on_the_disk_or_in_numpys_random_state(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(socket, "socket", None)
    monkeypatch.chdir(tmp_path)
    before = np.random.get_state()[1:3]
    logits, labels = random_split()
    compute_metrics(logits, labels, num_labels=7)
    confusion_matrix(logits, labels, num_labels=7)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_equal(np.random.get_state()[1:3], before)


def test_a_metric_says_what_it_is_and_where_it_is_from():
    metric = ExpectedCalibrationError()
    assert metric.name == "expected_calibration_error"
    assert metric.description.startswith("How far confidence is from accuracy")
    assert "1706.04599" in metric.citation


@pytest.mark.parametrize("metric_class", [Accuracy, TopKAccuracy, MacroF1, ConfusionMatrix, ExpectedCalibrationError])
def test_a_metric_without_images_is_refused(metric_class):
    with pytest.raises(ValueError, match="needs at least one image, got none"):
        metric_class().compute()


def test_the_confusion_matrix_drops_no_image():
    with pytest.raises(
        ValueError, match="predictions must be from 0 to 1 for 2 classes; 1 of 3 are not, the first is 2"
    ):
        ConfusionMatrix().compute(predictions=[0, 2, 1], references=[0, 1, 1], num_labels=2)


# What is refused


@pytest.mark.parametrize("score", [compute_metrics, confusion_matrix, per_class_report])
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 4)), np.zeros(0, dtype=int), "metrics need at least one image, got none."),
        (np.zeros((2, 3)), np.zeros(2, dtype=int), r"\(images, num_labels=4\) and labels \(images,\), got \(2, 3\)"),
        (np.zeros((2, 4)), np.zeros(3, dtype=int), r"got \(2, 4\) and \(3,\)"),
        (np.zeros(4), np.zeros(1, dtype=int), r"got \(4,\) and \(1,\)"),
        (np.zeros((2, 4)), np.zeros((2, 4)), r"got \(2, 4\) and \(2, 4\)"),
        (
            np.array([[0, 0, 0, np.nan], [0, 0, 0, 0], [np.nan, 0, np.inf, 0]]),
            LABELS[:3],
            "of 2 of 3 images are NaN or",
        ),
        (np.array([[0, np.inf, 0, 0]]), LABELS[:1], "the logits of 1 of 1 image are NaN or infinite."),
        (np.zeros((3, 4)), np.array([0, 4, 5]), "from 0 to 3 for 4 classes; 2 of 3 are not, the first is 4."),
        (np.zeros((3, 4)), np.array([0, -100, 3]), "labels must be from 0 to 3 .* the first is -100."),
        (np.zeros((1, 4)), np.array([1.0]), "labels must be whole numbers, one class per image, got float64."),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_sentence(score, logits, labels, message):
    with pytest.raises(ValueError, match=message) as error:
        score(logits, labels, NAMES if score is per_class_report else 4)
    assert "\n" not in str(error.value)
