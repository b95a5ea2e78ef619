# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a run tells a person: lines while it trains, tables at the end, one picture."""

import re

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from matplotlib.figure import Figure
from pictures import encoded, noise, row
from PIL import Image
from transformers import TrainerControl, TrainerState

from modeling_vit_scratch.evaluation.metrics import Outcome, outcome_of
from modeling_vit_scratch.evaluation.results import SplitResults, results_lines
from modeling_vit_scratch.training import report
from modeling_vit_scratch.training.report import EpochReport, clock, split_line
from modeling_vit_scratch.training.run_pictures import draw_training
from modeling_vit_scratch.training.training_arguments import TrainingArguments

HISTORY = [
    {"epoch": 1.0, "loss": 2.0},
    {"epoch": 1.0, "eval_validation_loss": 1.5, "eval_validation_accuracy": 0.5},
    {"epoch": 2.0, "loss": 1.0},
    {"epoch": 2.0, "eval_validation_loss": 1.25, "eval_validation_accuracy": 0.75},
]


def results_of(label_names: list[str], labels: list[int], predicted: list[int], logit: float | list[float] = 3.0):
    """A split of distinct pictures in which each has `logit` for the class that is predicted and 0 for the others."""
    features = Features({"image": ImageFeature(decode=False), "label": ClassLabel(names=label_names)})
    images = [row(encoded(noise((9 + index, 8), seed=index))) for index in range(len(labels))]
    logits = torch.zeros(len(labels), len(label_names))
    logits[range(len(labels)), predicted] = torch.tensor(logit, dtype=torch.float32)
    dataset = Dataset.from_dict({"image": images, "label": labels}, features=features)
    outcome = Outcome(*map(np.asarray, outcome_of(logits, torch.tensor(labels), len(label_names))))
    return SplitResults("test", dataset, outcome, np.array(labels))


# Time


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (0.4, "0:00:00"),
        (59.6, "0:01:00"),
        (61, "0:01:01"),
        (3599.7, "1:00:00"),
        (36_061, "10:01:01"),
        (90_000, "25:00:00"),
    ],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


# Lines while it trains


@pytest.fixture
def timed_report(monkeypatch):
    """A report on 1,000 training images with a clock that the test sets: `now[0]` is the time in seconds."""
    now = [100.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    state = TrainerState(max_steps=40, num_train_epochs=4, epoch=0, global_step=0)
    return EpochReport(1000), state, now


def train_until(watch, state, now, *, step, epoch, at, arguments=None):
    now[0] = at
    state.global_step, state.epoch = step, epoch
    watch.on_step_end(arguments, state, TrainerControl())


def test_a_line_at_each_validation(timed_report, capsys):
    watch, state, now = timed_report
    arguments, control = TrainingArguments(), TrainerControl()
    watch.on_train_begin(arguments, state, control)
    train_until(watch, state, now, step=10, epoch=1.0, at=105.0)
    watch.on_log(arguments, state, control, logs={"loss": 2.5})
    now[0] = 110.0  # five seconds of validation, which are not time for training images but are left time
    metrics = {"eval_validation_loss": 2.25, "eval_validation_accuracy": 0.125}
    watch.on_evaluate(arguments, state, control, metrics=metrics)
    train_until(watch, state, now, step=20, epoch=2.0, at=112.0)
    watch.on_log(arguments, state, control, logs={"loss": 1.5})
    watch.on_evaluate(arguments, state, control, metrics=metrics)
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1/4  train loss 2.5000  validation loss 2.2500  validation accuracy 12.50%  200 images/s  "
        "0% waiting for images  0:00:30 left",
        "epoch 2/4  train loss 1.5000  validation loss 2.2500  validation accuracy 12.50%  500 images/s  "
        "0% waiting for images  0:00:12 left",
    ]


def test_a_line_at_each_log_where_nothing_is_validated(timed_report, capsys):
    watch, state, now = timed_report
    arguments, control = TrainingArguments(eval_strategy="no"), TrainerControl()
    watch.on_train_begin(arguments, state, control)
    train_until(watch, state, now, step=5, epoch=0.5, at=104.0)
    watch.on_log(arguments, state, control, logs={"loss": 2.5})
    line = "epoch 0.5/4  train loss 2.5000  125 images/s  0% waiting for images  0:00:28 left\n"
    assert capsys.readouterr().out == line


def waiting(watch, state, now, capsys, *, waited, of) -> str:
    """What a line says of the time that was spent waiting for images, in seconds of so many."""
    arguments, control = TrainingArguments(eval_strategy="no", dataloader_num_workers=3), TrainerControl()
    watch.waited += waited
    train_until(watch, state, now, step=state.global_step + 5, epoch=state.epoch + 0.5, at=now[0] + of)
    watch.on_log(arguments, state, control, logs={"loss": 2.5})
    return next(part for part in capsys.readouterr().out.split("  ") if "waiting" in part)


def test_much_time_spent_waiting_for_images_is_said_with_what_may_help(timed_report, capsys):
    watch, state, now = timed_report
    watch.on_train_begin(TrainingArguments(eval_strategy="no"), state, TrainerControl())
    hint = " (more --dataloader_num_workers than 3 may help)"
    assert waiting(watch, state, now, capsys, waited=1.0, of=10.0) == "10% waiting for images"
    assert waiting(watch, state, now, capsys, waited=1.1, of=10.0) == "11% waiting for images" + hint
    assert waiting(watch, state, now, capsys, waited=4.0, of=5.0) == "80% waiting for images"  # once is enough
    # Each line is about the time since the last one.
    assert waiting(watch, state, now, capsys, waited=0.0, of=10.0) == "0% waiting for images"


def test_what_is_not_known_yet_is_left_out(timed_report, capsys):
    # Validation before the first step, as of --eval_on_start, and before the first log.
    watch, state, now = timed_report
    arguments, control = TrainingArguments(), TrainerControl()
    watch.on_train_begin(arguments, state, control)
    metrics = {"eval_validation_loss": 2.25, "eval_validation_accuracy": 0.125}
    watch.on_evaluate(arguments, state, control, metrics=metrics)
    train_until(watch, state, now, step=4, epoch=1 / 3, at=104.0)
    watch.on_evaluate(arguments, state, control, metrics=metrics)
    assert capsys.readouterr().out.splitlines() == [
        "epoch 0/4  validation loss 2.2500  validation accuracy 12.50%",
        "epoch 0.33/4  validation loss 2.2500  validation accuracy 12.50%  83 images/s  0% waiting for images  "
        "0:00:36 left",
    ]


def test_only_one_process_prints(timed_report, capsys):
    watch, state, now = timed_report
    state.is_world_process_zero = False
    arguments, control = TrainingArguments(eval_strategy="no"), TrainerControl()
    watch.on_train_begin(arguments, state, control)
    train_until(watch, state, now, step=5, epoch=0.5, at=104.0)
    watch.on_log(arguments, state, control, logs={"loss": 2.5})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("loss", "text"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_a_loss_that_is_no_number_is_shown_as_it_is(timed_report, capsys, loss, text):
    # The trainer ends the run for it.
    watch, state, _ = timed_report
    arguments, control = TrainingArguments(eval_strategy="no"), TrainerControl()
    watch.on_train_begin(arguments, state, control)
    watch.on_log(arguments, state, control, logs={"loss": loss})
    assert capsys.readouterr().out == f"epoch 0/4  train loss {text}\n"


def test_an_image_that_cannot_be_read_is_named_once(timed_report, capsys):
    watch, _, _ = timed_report
    watch.name_unreadable([])
    watch.name_unreadable(["a.png is empty.", "b.png does not exist.", "a.png is empty."])
    watch.name_unreadable(["c.png is empty.", "b.png does not exist."])
    assert capsys.readouterr().out.splitlines() == [
        "left out   a.png is empty.",
        "left out   b.png does not exist.",
        "left out   c.png is empty.",
    ]


# Tables at the end


def test_results_are_a_row_per_class_and_a_line_per_metric():
    results = results_of(["cat", "hot dog"], labels=[0, 0, 1, 1], predicted=[0, 1, 1, 1])
    assert results_lines(results, {"validation_accuracy": 0.5, "test_accuracy": 0.75}) == [
        "test split, 4 images:",
        "class    precision  recall      f1  images",
        "cat        100.00%  50.00%  66.67%       2",
        "hot dog     66.67% 100.00%  80.00%       2",
        "",
        "validation_accuracy                      0.5000",
        "test_accuracy                            0.7500",
    ]


def test_there_may_be_no_results():
    assert results_lines(None, {}) == []


# The picture


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw a picture, and give its axes back by their titles, samples in order under "samples"."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *arguments, **options: figures.append(figure))

    def draw(results, history=HISTORY):
        draw_training(history, results, tmp_path / "training.png")
        (figure,) = figures
        top, bottom = figure.subfigs
        return {axes.get_title(): axes for axes in top.axes} | {"samples": bottom.axes}

    return draw


def test_the_picture_is_a_png_that_is_large_enough_to_read(tmp_path):
    draw_training(HISTORY, results_of(["cat", "dog"], [0, 1, 1], [0, 1, 0]), tmp_path / "training.png")
    with Image.open(tmp_path / "training.png") as picture:
        picture.load()
        assert (picture.format, picture.size) == ("PNG", (1500, 1000))
    assert len(np.unique(np.asarray(picture))) > 100


def test_curves_show_the_history(drawn):
    axes = drawn(results_of(["cat", "dog"], [0, 1, 1], [0, 1, 0]))
    train, validation = axes["loss"].lines
    assert (train.get_label(), train.get_xydata().tolist()) == ("train", [[1, 2], [2, 1]])
    assert (validation.get_label(), validation.get_xydata().tolist()) == ("validation", [[1, 1.5], [2, 1.25]])
    assert axes["validation accuracy"].lines[0].get_xydata().tolist() == [[1, 0.5], [2, 0.75]]


def test_the_matrix_counts_images_by_true_class_in_rows(drawn):
    axes = drawn(results_of(["cat", "dog"], labels=[0, 0, 0, 1, 1], predicted=[0, 1, 1, 1, 1]))["test images by class"]
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "1", (1, 0): "2", (1, 1): "2"}  # at (predicted, true)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_samples_are_the_surest_mistakes_and_then_the_first_images(drawn):
    results = results_of(["a", "b"], [0] * 20, [0, 1, 0, 0, 1] + [0] * 15, logit=[1, 1, 1, 1, 2] + [1] * 15)
    samples = drawn(results)["samples"]
    sizes = [axes.images[0].get_array().shape[1] for axes in samples]
    first_ones = [9 + index for index in (0, 2, 3, 5, 6, 7, 8, 9, 10, 11)]
    assert sizes == [9 + 4, 9 + 1, *first_ones]  # mistakes 4 and 1, each image once
    titles = [axes.get_title() for axes in samples]
    assert titles[:3] == ["b 88%\n(is a)", "b 73%\n(is a)", "a 73%"]
    assert [axes.title.get_color() for axes in samples[:3]] == ["crimson", "crimson", "darkgreen"]


@pytest.mark.parametrize("count", [1, 3, 12, 13])
def test_a_split_of_any_size_will_do(drawn, count):
    samples = drawn(results_of(["a", "b"], [0] * count, [0] * count))["samples"]
    assert sum(bool(axes.images) for axes in samples) == min(count, 12)


def test_many_classes_are_drawn_without_their_names(drawn):
    names = [f"class {index}" for index in range(40)]
    axes = drawn(results_of(names, list(range(40)), list(range(40))))["test images by class"]
    assert axes.images[0].get_array().shape == (40, 40)
    assert not axes.texts
    assert not any("class" in label.get_text() for label in axes.get_xticklabels())


def test_of_more_classes_than_a_matrix_can_show_the_most_confused_pairs_are_drawn(drawn):
    names = [f"class {index}" for index in range(120)]
    predicted = [0, 7, 7, 3, 5, *range(5, 120)]
    axes = drawn(results_of(names, list(range(120)), predicted))["test images by class"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "class 1 → class 7",
        "class 2 → class 7",
        "class 4 → class 5",
    ]
    assert [bar.get_width() for bar in axes.patches] == [1, 1, 1]
    assert not axes.images


def test_many_classes_without_a_mistake_have_a_picture_too(drawn):
    names = [f"class {index}" for index in range(120)]
    axes = drawn(results_of(names, list(range(120)), list(range(120))))["test images by class"]
    assert [text.get_text() for text in axes.texts] == ["no mistakes"]


def test_control_characters_of_names_are_drawn_as_escapes(drawn):
    axes = drawn(results_of(["a\x1b\n", "b"], [0, 1], [0, 1]))["test images by class"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a\\x1b\\n", "b"]


def test_long_names_are_cut_so_that_they_still_differ(drawn):
    names = [f"a species of bird with a long name, number {index}" for index in range(3)]
    axes = drawn(results_of(names, [0, 1, 2], [0, 1, 2]))
    labels = [label.get_text() for label in axes["test images by class"].get_xticklabels()]
    assert labels == [f"a species of…umber {index}" for index in range(3)]
    assert all(len(re.sub(r" \d+%$", "", axes.get_title())) <= 20 for axes in axes["samples"])


def test_odd_names_are_no_formulas_and_no_reason_to_warn(tmp_path):
    names = ["$5 bill", "$x_1^$", "日本 \\alpha", "100%"]
    draw_training(HISTORY, results_of(names, [0, 1, 2, 3], [0, 1, 2, 3]), tmp_path / "training.png")
    assert (tmp_path / "training.png").stat().st_size > 10_000


def test_a_run_without_validation_has_a_picture_too(drawn):
    axes = drawn(results_of(["a", "b"], [0, 1], [0, 1]), history=HISTORY[:1])
    assert axes["loss"].lines[0].get_xydata().tolist() == [[1, 2]]
    assert axes["loss"].lines[0].get_marker() == "."  # a line of one point would be invisible


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ([*range(2000)], "train      2,000 images: 2,000 classes of 1 image each"),
        ([*range(13)] * 2, "train      26 images: 13 classes of 2 images each"),
        ([*range(13), 0, 0], "train      15 images: 13 classes of 1 to 3 images each"),
        ([0, 0, 1], "train      3 images: 0 2, 1 1"),
    ],
)
def test_many_classes_are_counted_and_not_listed(labels, line):
    features = Features({"label": ClassLabel(names=[str(label) for label in sorted(set(labels))])})
    dataset = Dataset.from_dict({"label": labels}, features=features)
    assert split_line("train", dataset, None) == line
