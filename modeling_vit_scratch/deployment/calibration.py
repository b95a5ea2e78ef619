# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What 8-bit integers cost on real images: how often the label stays, and how many labels are right."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..data.dataset_loading import is_unlabelled_folder, load_unlabelled
from ..data.images import pillow_silent
from ..evaluation.results import ALL
from ..evaluation.scoring import labelled_split
from ..hub.cards import name_of
from ..prediction.reading import Reader
from ..text import counted

BATCH = 16


@dataclass(frozen=True)
class Calibration:
    """The images to measure on: those of `evaluate`, or a folder of images without labels.

    Args:
        data, split, config_name, image_column_name, label_column_name: those of `evaluate`.
        images: how many at most, spread evenly over the split.
    """

    data: str
    split: str | None = None
    config_name: str | None = None
    image_column_name: str | None = None
    label_column_name: str | None = None
    images: int = 1000

    def load(self, label_names: list[str]) -> tuple[Dataset, str]:
        """The images, with the column `label` if they have labels, and what they are in words.

        Raises:
            ValueError: if the data or the split will not do, or has labels that are not among the names.
        """
        folder = Path(self.data).expanduser()
        if is_unlabelled_folder(folder):
            if self.split is not None:
                raise ValueError(f"{self.data} has no split {self.split!r}: it is a folder of images without labels.")
            dataset, shown = load_unlabelled(self.data)["train"], ALL
        else:
            dataset, _, shown = labelled_split(
                self.data,
                label_names,
                split=self.split,
                config_name=self.config_name,
                image_column_name=self.image_column_name,
                label_column_name=self.label_column_name,
            )
        total, taken = dataset.num_rows, min(self.images, dataset.num_rows)
        number = counted(taken, "image") if taken == total else f"{taken:,} of the {counted(total, 'image')}"
        where = f"of {name_of(self.data)}" if shown == ALL else f"of the {shown} split of {name_of(self.data)}"
        return dataset.select(np.arange(taken) * total // taken), f"{number} {where}"


@dataclass
class Measured:
    """What was found on how many images.

    Args:
        images: that could be read.
        where: what they are, in words.
        agreement: share of them whose most likely label stays.
        accuracies: of fp32 and of int8, if the images have labels.
        left_out: a sentence for each image that could not be read.
    """

    images: int
    where: str
    agreement: float
    accuracies: tuple[float, float] | None
    left_out: list[str]

    def __str__(self):
        text = f"the same label as fp32 for {self.agreement:.2%} of {self.where}"
        if self.left_out:
            text += f" ({self.images:,} of them could be read)"
        if self.accuracies is None:
            return f"{text}; they have no labels, so the accuracy is unknown"
        exact, rounded = self.accuracies
        return f"{text}; accuracy {exact:.2%} in fp32, {rounded:.2%} in int8 ({100 * (rounded - exact):+.2f} points)"


@torch.inference_mode()
def measure(
    model: PreTrainedModel,
    run: Callable[[Tensor], Tensor],
    processor: BaseImageProcessor,
    dataset: Dataset,
    where: str,
) -> Measured:
    """Compare the labels of a model with those of its export.

    The export gets each image alone, as in use: its scale per call depends on all images of the call.

    Args:
        model: the classifier in fp32.
        run: images (B, C, H, W) to logits (B, K), by the export.
        processor: the image processor of both.
        dataset: with the column `image`, and `label` if there are labels.
        where: the data, in words.

    Raises:
        ValueError: if no image can be read.
    """
    labels = np.asarray(dataset["label"][:]) if "label" in dataset.features else None
    rows: list[int] = []
    exact: list[Tensor] = []
    rounded: list[Tensor] = []
    left_out: list[str] = []
    reader = Reader(processor)
    starts = range(0, dataset.num_rows, BATCH)
    for start in tqdm(starts, desc="measuring int8", unit="batch", leave=False, disable=None):
        with pillow_silent():
            batch, problems = reader.read(dataset[start : start + BATCH]["image"])
        rows += [row for row, problem in enumerate(problems, start) if problem is None]
        left_out += [str(problem) for problem in problems if problem is not None]
        if batch is not None:
            exact.append(model(batch.to(model.dtype)).logits.argmax(1))
            rounded += [run(image).argmax(1) for image in batch.split(1)]
    if not rows:
        raise ValueError(f"none of {where} can be read.")
    before, after = torch.cat(exact).numpy(), torch.cat(rounded).numpy()
    accuracies = None
    if labels is not None:
        accuracies = float((before == labels[rows]).mean()), float((after == labels[rows]).mean())
    return Measured(len(rows), where, float((before == after).mean()), accuracies, left_out)
