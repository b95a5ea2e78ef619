# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Scoring a checkpoint on labelled images: the logits are those of transformers' own classes, the labels the data's."""

import os
import shutil

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from pictures import encoded, noise
from runs import classes_of_pictures, named_numbers, refused, vit_scratch
from transformers import AutoModelForImageClassification

from modeling_vit_scratch.data.images import read_image
from modeling_vit_scratch.evaluation.metrics import outcome_of
from modeling_vit_scratch.evaluation.scoring import evaluate
from modeling_vit_scratch.hub.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def checkpoint(digits_run):
    return str(digits_run[0])


@pytest.fixture(scope="module")
def classifier(checkpoint, tmp_path_factory):
    """The checkpoint's weights under the labels cat, dog and hot dog."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    labels = {"id2label": {0: "cat", 1: "dog", 2: "hot dog"}, "label2id": {"cat": 0, "dog": 1, "hot dog": 2}}
    model = AutoModelForImageClassification.from_pretrained(checkpoint, ignore_mismatched_sizes=True, **labels)
    model.save_pretrained(folder)
    shutil.copy(os.path.join(checkpoint, "preprocessor_config.json"), folder)
    return str(folder)


def test_evaluation_gives_what_the_auto_classes_do(classifier, tmp_path):
    data = classes_of_pictures(tmp_path / "data", images=5)
    results = evaluate(classifier, str(data), batch_size=4)
    model, processor, names = load_checkpoint(classifier)
    assert names == results.label_names == ["cat", "dog", "hot dog"]
    pixel_values = processor([read_image(row["image"]) for row in results.dataset], return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = model(pixel_values).logits
    for found, of_them in zip(results.outcome, outcome_of(expected, torch.tensor(results.labels), 3), strict=True):
        np.testing.assert_allclose(found, of_them, atol=1e-6)
    assert [column.shape for column in results.outcome] == [(15,)] * 3  # no logits
    assert results.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert results.name == "all"


def test_the_labels_of_the_data_are_matched_by_name(classifier, tmp_path):
    # Some of the labels only, in another order.
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["hot dog", "cat"])})
    images = [{"bytes": encoded(noise(seed=seed)), "path": None} for seed in range(3)]
    Dataset.from_dict({"image": images, "label": [0, 1, 1]}, features=features).to_parquet(tmp_path / "data.parquet")
    assert evaluate(classifier, str(tmp_path / "data.parquet")).labels.tolist() == [2, 0, 0]


def test_labels_that_the_checkpoint_does_not_know_are_named(classifier, tmp_path):
    data = classes_of_pictures(tmp_path / "data", images=2)
    (data / "cat").rename(data / "lion")
    line = refused("evaluate", classifier, data)
    assert "labels that are not among the 3 classes cat, dog, hot dog: lion." in line


def test_a_split_that_does_not_exist_is_answered_with_those_that_do(checkpoint):
    line = refused("evaluate", checkpoint, "digits", "--split", "validation")
    assert line == "vit-scratch evaluate: digits has no split 'validation'; it has train, test."


@pytest.mark.parametrize("splits", [("train", "validation", "test"), ("train", "validation")])
def test_by_default_it_evaluates_the_last_split_that_there_is(classifier, tmp_path, splits):
    for split in splits:
        classes_of_pictures(tmp_path / split, images=2)
    result = vit_scratch("evaluate", classifier, tmp_path)
    assert result.lines[0] == f"{splits[-1]} split, 6 images:"
    metrics = ("accuracy", "macro_f1", "expected_calibration_error")
    assert set(named_numbers(result)) == {f"{splits[-1]}_{metric}" for metric in metrics}


def test_a_classifier_can_be_scored_on_images_of_one_class(classifier, tmp_path):
    data = classes_of_pictures(tmp_path / "data", images=4)
    for name in ("cat", "dog"):
        shutil.rmtree(data / name)
    result = vit_scratch("evaluate", classifier, data)
    assert (result.status, result.lines[0]) == (0, "all 4 images:"), result.err


def test_images_in_no_split_are_not_called_those_of_training(classifier, tmp_path):
    result = vit_scratch("evaluate", classifier, classes_of_pictures(tmp_path / "data", images=2))
    assert result.lines[0] == "all 6 images:"
    assert {"all_accuracy", "all_macro_f1", "all_expected_calibration_error"} <= {
        line.split(" ")[0] for line in result.lines
    }


def test_a_split_can_be_named(classifier, tmp_path):
    for split, images in (("train", 2), ("test", 3)):
        classes_of_pictures(tmp_path / "data" / split, images=images)
    result = vit_scratch("evaluate", classifier, tmp_path / "data", "--split", "train")
    assert result.lines[0] == "train split, 6 images:"


def test_bad_images_are_left_out_of_an_evaluation_by_name_unless_it_is_strict(classifier, tmp_path):
    data = classes_of_pictures(tmp_path / "data", images=3)
    (data / "dog" / "001.png").write_bytes(b"")
    result = vit_scratch("evaluate", classifier, data)
    assert (result.status, result.lines[0]) == (1, "all 8 images:")  # as of predict
    assert f"left out: {data}/dog/001.png is empty" in result.err
    line = refused("evaluate", classifier, data, "--strict_images")
    assert f"{data}/dog/001.png is empty" in line
    assert "or leave out --strict_images" in line


def test_columns_of_other_names_can_be_given(classifier, tmp_path):
    features = Features({"first": ImageFeature(), "second": ImageFeature(), "kind": Value("string")})
    images = [{"bytes": encoded(noise(seed=seed)), "path": None} for seed in range(2)]
    rows = {"first": images, "second": images[::-1], "kind": ["cat", "dog"]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data.parquet")
    assert "--image_column_name" in refused("evaluate", classifier, tmp_path / "data.parquet")
    flags = ("--image_column_name=second", "--label_column_name=kind")
    assert vit_scratch("evaluate", classifier, tmp_path / "data.parquet", *flags).status == 0


# Checkpoints
