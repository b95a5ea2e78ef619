# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Which variants of which images a model is trained on, in which order, in which process.

All of it follows from the seed and from numbers that count: no state is kept in workers or generators. So a run that is
resumed in the middle of an epoch sees what it would have seen, whatever the number of workers, and several processes
together see what one would.

An epoch of N images asks for N *draws*. Draw number `d` is image `d % N` in its variant `d // N`: the image that is
decoded and the randomness that varies it.
"""

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import Sampler
from transformers import default_data_collator
from transformers.image_processing_utils import BaseImageProcessor

from .augmentation import Variation
from .images import BadImageError, read_image
from .model_input import pixel_values

# Where a batch says which of its images could not be read.
UNREADABLE = "unreadable"


class DrawSampler(Sampler[int]):
    """The draws of an epoch, in another random order each time.

    Args:
        num_images: N.
        seed: of the order.
        repeats: variants of an image that follow one another (repeated augmentation, Hoffer et al. 2020, arXiv
            1901.09335, section 3). An epoch remains N draws, of N / repeats images.
    """

    def __init__(self, num_images: int, seed: int, repeats: int = 1):
        self.num_images = num_images
        self.seed = seed
        self.repeats = repeats
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is of."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_images

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_images)
        for position in range(self.num_images):
            image = int(order[position // self.repeats])
            variant = self.epoch * self.repeats + position % self.repeats
            yield variant * self.num_images + image


class ProcessBatches(Sampler[list[int]]):
    """The share of one process in every batch of all processes.

    The processes together get the batches that one process with `num_processes` times the batch size would get, the
    last one of an epoch, which may be smaller, included. Unlike in accelerate's sampler no image is repeated to make
    the shares equal, but for a batch that has fewer images than there are processes.

    Args:
        sampler: the draws of an epoch, the same in every process.
        batch_size: of one process.
        num_processes, process_index: how many there are, and which this one is.
    """

    def __init__(self, sampler: DrawSampler, batch_size: int, num_processes: int = 1, process_index: int = 0):
        self.sampler = sampler
        self.batch_size = batch_size
        self.num_processes = num_processes
        self.process_index = process_index

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is of."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.sampler) // (self.batch_size * self.num_processes))

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for number, draw in enumerate(self.sampler, start=1):
            batch.append(draw)
            if len(batch) == self.batch_size * self.num_processes or number == len(self.sampler):
                yield batch[self.process_index :: self.num_processes] or batch[:1]
                batch = []


class TrainingImages(torch.utils.data.Dataset):
    """The variants of the images of a split: draw number -> `pixel_values` (C, H, W) and `label`, if there are labels.

    An image that cannot be read gives way to the next one that can, and the example says so under `unreadable`: a disk
    that fails in the third epoch must not end the run.

    Args:
        dataset: columns `image`, undecoded, and others, which are passed on.
        processor: what resizes and normalises.
        steps: what varies an image first, in order.
        seed: of the order and of the variants.
        strict: stop at an image that cannot be read.
        repeats: variants of an image that follow one another.
    """

    def __init__(
        self,
        dataset: Dataset,
        processor: BaseImageProcessor,
        steps: Sequence[Variation] = (),
        seed: int = 0,
        strict: bool = False,
        repeats: int = 1,
    ):
        self.dataset = dataset
        self.processor = processor
        self.steps = list(steps)
        self.seed = seed
        self.strict = strict
        self.repeats = repeats

    def batches(self, batch_size: int, num_processes: int = 1, process_index: int = 0) -> Sampler[list]:
        """What a process loads in an epoch: the arguments of `__getitems__`."""
        sampler = DrawSampler(len(self), self.seed, self.repeats)
        return ProcessBatches(sampler, batch_size, num_processes, process_index)

    def __len__(self) -> int:
        return self.dataset.num_rows

    def __getitem__(self, draw: int) -> dict[str, Any]:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: list[int]) -> list[dict[str, Any]]:
        return self.varied(draws, (self._readable(draw % len(self)) for draw in draws))

    def varied(self, draws: Sequence[int], rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Examples of rows whose images are decoded, each varied by the number of its draw.

        Rows that come from an iterator are taken one by one, so that large images are not in memory together.
        """
        others: list[dict[str, Any]] = []

        def images() -> Iterator[Image.Image]:
            for draw, row in zip(draws, rows, strict=True):
                others.append(row)
                yield self._varied(row.pop("image"), draw)

        prepared = pixel_values(self.processor, images())  # (B, C, H, W)
        return [{"pixel_values": image, **row} for image, row in zip(prepared, others, strict=True)]

    def _varied(self, image: Image.Image, draw: int) -> Image.Image:
        randomness = random.Random((self.seed << 64) + draw)
        for step in self.steps:
            image = step(image, randomness)
        return image

    def _readable(self, index: int) -> dict[str, Any]:
        """A row whose image is decoded: that of the index, or the next one that can be read."""
        unreadable: list[str] = []
        for offset in range(len(self)):
            row = self.dataset[(index + offset) % len(self)]
            try:
                return {**row, "image": read_image(row["image"]), UNREADABLE: unreadable}
            except BadImageError as error:
                if self.strict:
                    raise
                unreadable.append(str(error))
        raise BadImageError(f"none of the {len(self)} training images can be read any more. {unreadable[0]}")


def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of examples: `pixel_values` (B, C, H, W), `labels` (B,) or what else they have, and `unreadable`."""
    unreadable = [sentence for example in examples for sentence in example.pop(UNREADABLE)]
    return {**default_data_collator(examples), UNREADABLE: unreadable}


def leave_signals(worker: int) -> None:
    """Take a process that loads images out of reach of the signals to the group of the process that trains."""
    if hasattr(os, "setpgrp"):  # there are no groups on Windows
        os.setpgrp()
