# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Using a checkpoint: predictions are those of transformers' own classes, and no image is lost."""

import os
import shutil

import numpy as np
import pytest
import torch
from forks import python
from pictures import encoded, noise, oriented
from PIL import Image
from runs import refused, vit_scratch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, pipeline

from modeling_vit_scratch import ViTScratchModel
from modeling_vit_scratch.data.dataset_loading import load_images
from modeling_vit_scratch.data.images import BadImageError
from modeling_vit_scratch.evaluation.scoring import evaluate
from modeling_vit_scratch.prediction.classifier import Prediction, predict


@pytest.fixture(scope="module")
def checkpoint(digits_run):
    return str(digits_run[0])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Twenty digits of the test split as files, and a row of the labels."""
    folder = tmp_path_factory.mktemp("digits")
    rows = load_images("digits")["test"].select(range(20))
    for index, image in enumerate(rows["image"]):
        (folder / f"{index:02}.png").write_bytes(image["bytes"])
    return folder, rows["label"]


def named(result) -> list[str]:
    """The files of the lines that `predict` printed, in order."""
    return [line.split("\t")[0] for line in result.lines]


# The same as transformers


def test_predictions_are_those_of_the_auto_classes(checkpoint, digits):
    folder, _ = digits
    predictions = list(predict(checkpoint, [str(folder)], top_k=10))
    model = AutoModelForImageClassification.from_pretrained(checkpoint).eval()
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    files = sorted(folder.iterdir())
    with torch.no_grad():
        pixel_values = processor([Image.open(file).convert("RGB") for file in files], return_tensors="pt").pixel_values
        probabilities = model(pixel_values).logits.softmax(-1)
    assert [item.file for item in predictions] == [str(file) for file in files]
    for item, expected in zip(predictions, probabilities, strict=True):
        assert len(item.labels) == len(item.scores) == 10
        assert item.scores == sorted(item.scores, reverse=True)
        for label, score in zip(item.labels, item.scores, strict=True):
            assert score == pytest.approx(expected[model.config.label2id[label]].item(), abs=1e-6)


def test_predictions_are_those_of_the_pipeline(checkpoint, digits, tmp_path):
    files = [str(digits[0] / "00.png"), str(digits[0] / "01.png")]
    # Grey, with transparency, upside down: what pipelines do with them, too.
    noise((31, 17), "L", seed=1).save(tmp_path / "grey.png")
    noise((17, 31), "RGBA", seed=2).save(tmp_path / "transparent.png")
    noise((20, 30), seed=3).save(tmp_path / "turned.jpg", exif=oriented(6))
    files += [str(tmp_path / name) for name in ("grey.png", "transparent.png", "turned.jpg")]
    classify = pipeline("image-classification", model=checkpoint)
    for item, expected in zip(predict(checkpoint, files, top_k=3), classify(files, top_k=3), strict=True):
        assert item.labels == [entry["label"] for entry in expected]
        assert item.scores == pytest.approx([entry["score"] for entry in expected], abs=1e-6)


def of_kind(checkpoint: str, problem_type: str, folder) -> str:
    """The checkpoint with other words for what its logits mean."""
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    config = AutoConfig.from_pretrained(folder)
    config.problem_type = problem_type
    config.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_where_an_image_may_have_several_labels_each_has_its_own_probability(checkpoint, digits, tmp_path, precision):
    several, image = of_kind(checkpoint, "multi_label_classification", tmp_path / "several"), str(digits[0] / "00.png")
    (found,) = predict(several, [image], top_k=10, precision=precision)
    (expected,) = pipeline("image-classification", model=several)([image], top_k=10)
    assert found.labels[:3] == [entry["label"] for entry in expected[:3]]
    tolerance = 1e-6 if precision == "fp32" else 0.05
    assert found.scores == pytest.approx([entry["score"] for entry in expected], abs=tolerance)


def test_numbers_are_no_classes(checkpoint, digits, tmp_path):
    numbers = of_kind(checkpoint, "regression", tmp_path / "numbers")
    line = refused("predict", numbers, digits[0] / "00.png")
    assert line.endswith(f"the checkpoint {numbers} predicts numbers (problem_type regression), not classes.")


def test_it_finds_most_digits(checkpoint, digits):
    folder, labels = digits
    right = sum(
        item.labels == [str(label)] for item, label in zip(predict(checkpoint, [str(folder)]), labels, strict=True)
    )
    assert right >= 8


# Which images, in which order


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_files_and_folders_keep_their_order_and_their_duplicates(checkpoint, digits, tmp_path, batch_size):
    folder, _ = digits
    (tmp_path / "a folder" / "deep").mkdir(parents=True)
    for name in ("b.png", "a.jpg", "deep/c.png"):
        noise(seed=len(name)).save(tmp_path / "a folder" / name)
    (tmp_path / "a folder" / "notes.txt").write_text("no picture")
    one, two = str(folder / "07.png"), str(folder / "03.png")
    expected = [one, *(str(tmp_path / "a folder" / name) for name in ("a.jpg", "b.png", "deep/c.png")), two, one]
    given = [one, str(tmp_path / "a folder"), two, one]
    result = vit_scratch("predict", checkpoint, *given, f"--batch_size={batch_size}")
    assert (result.status, result.err) == (0, "")
    assert named(result) == expected
    assert result.lines[0] == result.lines[-1]


def test_the_size_of_a_batch_changes_nothing(checkpoint, digits):
    folder, _ = digits
    one, other = (list(predict(checkpoint, [str(folder)], top_k=10, batch_size=size)) for size in (1, 7))
    for item, expected in zip(one, other, strict=True):
        assert item.file == expected.file
        assert item.scores == pytest.approx(expected.scores, abs=1e-6)


def test_as_many_labels_as_wanted_or_as_there_are(checkpoint, digits):
    image = str(digits[0] / "00.png")
    for spelling, count, shown in (("--top-k", 3, 3), ("--top_k", 1, 1), ("--top-k", 99, 10)):
        (line,) = vit_scratch("predict", checkpoint, image, spelling, count).lines
        file, *labels = line.split("\t")
        assert file == image
        assert len(labels) == shown
        shares = [float(label.split()[-1].rstrip("%")) for label in labels]
        assert shares == sorted(shares, reverse=True)
        assert len({label.split()[0] for label in labels}) == shown


def test_a_name_of_several_lines_takes_one(checkpoint, digits, tmp_path):
    shutil.copy(digits[0] / "00.png", tmp_path / "süß\nand\tsour.png")
    result = vit_scratch("predict", checkpoint, tmp_path)
    assert named(result) == [f"{tmp_path}/süß\\nand\\tsour.png"]


def test_images_whose_sizes_do_not_go_together_are_predicted_one_at_a_time(checkpoint, digits, tmp_path):
    place = shutil.copytree(checkpoint, tmp_path / "any", ignore=shutil.ignore_patterns("checkpoint-*"))
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    processor.do_resize = False
    processor.save_pretrained(place)
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(9):  # more than a thread reads at a time
        noise((8, 8)).save(folder / f"{index}.png")
    assert vit_scratch("predict", place, folder).status == 0
    noise((12, 8)).save(folder / "9.png")
    line = refused("predict", place, folder)
    assert line.endswith(
        "the image processor makes images of several sizes (8x12 and 8x8 pixels), which do not go into one batch: "
        "let it resize them, or take them one at a time (--batch_size 1)."
    )


# Images that cannot be read


def test_bad_images_are_named_and_the_others_predicted(checkpoint, digits, tmp_path):
    good = str(digits[0] / "00.png")
    (tmp_path / "empty.png").write_bytes(b"")
    content = encoded(noise((40, 40)))
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    result = vit_scratch("predict", checkpoint, tmp_path / "empty.png", good, tmp_path / "cut.png", good)
    assert result.status == 1
    assert named(result) == [good, good]
    assert [line.split(": ")[:2] for line in result.err.splitlines()] == [["vit-scratch predict", "skipped"]] * 2
    first, second = result.err.splitlines()
    assert str(tmp_path / "empty.png") in first
    assert str(tmp_path / "cut.png") in second


def test_no_images_at_all_are_a_mistake(checkpoint, digits, tmp_path):
    (tmp_path / "empty").mkdir()
    assert f"the folder {tmp_path / 'empty'} holds no images." in refused("predict", checkpoint, tmp_path / "empty")
    missing = tmp_path / "missing.png"
    line = refused("predict", checkpoint, digits[0] / "00.png", missing)
    assert f"there is no image or folder {missing}." in line


def test_the_function_gives_bad_images_in_their_place(checkpoint, digits, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    good = str(digits[0] / "00.png")
    kinds = [type(item) for item in predict(checkpoint, [good, str(tmp_path / "bad.png"), good])]
    assert kinds == [Prediction, BadImageError, Prediction]


def test_who_reads_the_first_line_alone_gets_no_complaint(checkpoint, digits):
    program = """
import os, sys
from modeling_vit_scratch.cli import main
read, write = os.pipe()
os.close(read)  # as `head` does when it has read enough
os.dup2(write, 1)
sys.exit(main(sys.argv[1:]))
"""
    result = python(program, "predict", checkpoint, digits[0])
    assert (result.status, result.err) == (141, "")


def test_a_number_of_images_at_a_time_is_at_least_one(checkpoint, digits):
    with pytest.raises(ValueError, match="top_k and batch_size must be at least 1, got 1 and 0"):
        list(predict(checkpoint, [str(digits[0])], batch_size=0))


def test_a_body_without_a_head_is_no_classifier(checkpoint, digits, tmp_path):
    ViTScratchModel.from_pretrained(checkpoint).save_pretrained(tmp_path)
    shutil.copy(os.path.join(checkpoint, "preprocessor_config.json"), tmp_path)
    line = refused("predict", tmp_path, digits[0])
    assert "is no image classifier, or not whole: it lacks classification_head.fc.bias and 1 more." in line


def test_half_precision_checkpoints_can_be_used(checkpoint, digits, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "half", ignore=shutil.ignore_patterns("checkpoint-*"))
    AutoModelForImageClassification.from_pretrained(checkpoint).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    exact = next(predict(checkpoint, [str(digits[0])], top_k=10))
    rough = next(predict(str(tmp_path / "half"), [str(digits[0])], top_k=10))
    scores = dict(zip(rough.labels, rough.scores, strict=True))
    assert [scores[label] for label in exact.labels] == pytest.approx(exact.scores, abs=0.02)
    assert evaluate(str(tmp_path / "half"), "digits").outcome.confidences.dtype == np.float64
