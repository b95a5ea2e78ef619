# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A split with what a model made of it, and the tables that say how well it did."""

from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset

from ..text import counted, for_terminal
from .metrics import Outcome, per_class_report

ALL = "all"  # in place of a split's name: images that no split divides


@dataclass
class SplitResults:
    """A split with what the model made of it.

    Args:
        name: of the split.
        dataset: its images.
        outcome: of the images, without their logits, which for a large split would not fit in memory.
        labels: (B,).
        left_out: a sentence for each image that could not be read.
        unread: files that lie among the images and are none that is read.
    """

    name: str
    dataset: Dataset
    outcome: Outcome
    labels: np.ndarray
    left_out: list[str] = field(default_factory=list)
    unread: int = 0

    @property
    def label_names(self) -> list[str]:
        """The K classes in the order of the logits."""
        return self.dataset.features["label"].names


def results_lines(results: SplitResults | None, metrics: dict[str, float]) -> list[str]:
    """A table of the classes and the metrics of all splits, for a terminal."""
    lines = []
    if results is not None:
        rows = per_class_report(results.outcome, results.labels, [for_terminal(name) for name in results.label_names])
        width = max(len("class"), *(len(row.label) for row in rows))
        which = "all" if results.name == ALL else f"{results.name} split,"
        lines += [f"{which} {counted(results.dataset.num_rows, 'image')}:"]
        lines += [f"{'class':<{width}}  precision  recall      f1  images"]
        lines += [
            f"{row.label:<{width}}  {row.precision:>9.2%} {row.recall:>7.2%} {row.f1:>7.2%} {row.support:>7,}"
            for row in rows
        ]
        lines += [""]
    return lines + [f"{name:<40} {value:.4f}" for name, value in metrics.items()]
