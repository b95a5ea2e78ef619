# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The picture of a training run: learning curves, confusion matrix, sample predictions."""

import warnings
from pathlib import Path

import numpy as np

from ..data.images import read_image
from ..evaluation.metrics import confusion_matrix, most_confused
from ..evaluation.results import SplitResults
from ..text import for_terminal
from .report import MOST_CLASSES_LISTED

SAMPLES_SHOWN = 12
LONGEST_DRAWN = 20  # characters of a class name
# Beyond, a cell of the matrix is no larger than a pixel or two, and the matrix takes gigabytes.
MOST_CLASSES_IN_MATRIX = 100
PAIRS_SHOWN = 15  # of more classes


def draw_training(history: list[dict], results: SplitResults, path: Path) -> None:
    """Draw one picture of a run, a PNG: learning curves, confusion matrix or most confused pairs, sample predictions.

    Args:
        history: `trainer.state.log_history`.
        results: the split that the matrix and the samples are of.
        path: where to write it.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False}), warnings.catch_warnings():  # a dollar in a class name is no formula
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # it draws a box
        figure = Figure(figsize=(15, 10), layout="constrained")
        grid = figure.add_gridspec(2, 1)
        top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
        losses, accuracies, matrix = top.subplots(1, 3)
        draw_losses(losses, history)
        _draw_curve(accuracies, history, "eval_validation_accuracy", "validation")
        accuracies.set(title="validation accuracy", xlabel="epoch")
        _draw_confusion(matrix, results)
        _draw_samples(bottom, results)
        figure.savefig(path, dpi=100)


def draw_losses(axes, history: list[dict]) -> None:
    """Draw the losses of a run, in training and in validation."""
    _draw_curve(axes, history, "loss", "train")
    _draw_curve(axes, history, "eval_validation_loss", "validation")
    axes.set(title="loss", xlabel="epoch")
    axes.legend()


def _draw_curve(axes, history: list[dict], key: str, label: str) -> None:
    points = [(entry["epoch"], entry[key]) for entry in history if key in entry]
    axes.plot([epoch for epoch, _ in points], [value for _, value in points], marker=".", label=label)
    axes.grid(alpha=0.3)


def _draw_confusion(axes, results: SplitResults) -> None:
    label_names = results.label_names
    axes.set_title(f"{results.name} images by class")
    if len(label_names) > MOST_CLASSES_IN_MATRIX:
        _draw_most_confused(axes, results)
        return
    counts = confusion_matrix(results.outcome, results.labels, len(label_names))  # (K, K)
    axes.imshow(np.log1p(counts), cmap="Blues")
    axes.set(xlabel="predicted", ylabel="true")
    if len(label_names) <= MOST_CLASSES_LISTED:
        short = [_short(name) for name in label_names]
        axes.set_xticks(range(len(short)), short, rotation=90 if max(map(len, short)) > 2 else 0)
        axes.set_yticks(range(len(short)), short)
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                shade = "white" if counts[row, column] > counts.max() / 4 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade, fontsize=8)


def _draw_most_confused(axes, results: SplitResults) -> None:
    """The mistakes that are made most often, as bars, most at the top."""
    pairs = most_confused(results.outcome, results.labels, PAIRS_SHOWN)
    if not pairs:
        axes.text(0.5, 0.5, "no mistakes", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    names = [" → ".join(_short(results.label_names[index]) for index in pair[:2]) for pair in pairs]
    axes.barh(range(len(pairs)), [images for *_, images in pairs])
    axes.set_yticks(range(len(pairs)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="images", ylabel="true → predicted")


def _draw_samples(figure, results: SplitResults) -> None:
    """The mistakes that the model is surest of, then the other images from the first on."""
    label_names = results.label_names
    predicted, confidence = results.outcome.predictions, results.outcome.confidences
    order = np.lexsort((np.arange(len(predicted)), -confidence * (predicted != results.labels)))[:SAMPLES_SHOWN]
    half = SAMPLES_SHOWN // 2
    order = np.concatenate(
        [order[:half], np.setdiff1d(np.arange(len(predicted)), order[:half])[: SAMPLES_SHOWN - half]]
    )
    figure.suptitle(f"{results.name} images: the surest mistakes, if any, then the first ones")
    places = figure.subplots(2, SAMPLES_SHOWN // 2).flat
    for axes, index in zip(places, order, strict=False):  # a small split leaves places empty
        axes.imshow(read_image(results.dataset[int(index)]["image"]))
        right = predicted[index] == results.labels[index]
        title = f"{_short(label_names[predicted[index]])} {confidence[index]:.0%}"
        if not right:
            title += f"\n(is {_short(label_names[results.labels[index]])})"
        axes.set_title(title, color="darkgreen" if right else "crimson", fontsize=9)
    for axes in figure.axes:
        axes.set_axis_off()


def _short(name: str) -> str:
    """A class name that fits above a small image; names tend to differ at one of their ends."""
    name = for_terminal(name)
    return name if len(name) <= LONGEST_DRAWN else f"{name[: LONGEST_DRAWN - 8]}…{name[-7:]}"
