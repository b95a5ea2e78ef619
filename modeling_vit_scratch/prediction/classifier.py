# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Using a checkpoint: load it, and say what is on images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..data.images import BadImageError, pillow_silent
from ..data.model_input import check_same_size, pixel_values
from ..finite import check_logits
from ..hub.checkpoint import find_checkpoint, load_checkpoint
from ..system.machine import spare_cores
from ..tracing.int8 import Int8Classifier
from .reading import Batch, Prepared, Reader
from .sources import ImageSources


@dataclass
class Prediction:
    """The most likely labels of an image with their probabilities, most likely first."""

    file: str
    labels: list[str]
    scores: list[float]


def predict(
    checkpoint: str,
    images: list[str],
    *,
    top_k: int = 1,
    batch_size: int = 64,
    image_column_name: str | None = None,
    precision: str = "fp32",
    token_merging: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Iterator[Prediction | BadImageError]:
    """Say what is on images, in order.

    Args:
        checkpoint: a folder or a Hub id.
        images, image_column_name: those of `ImageSources`.
        top_k: labels per image, at most as many as there are.
        batch_size: images at a time.
        precision, token_merging, revision, trust_remote_code: those of `load_checkpoint`.

    Yields:
        A `Prediction` for each image, or the `BadImageError` of one that cannot be read; at the end one for each
        folder with files that are not read.

    Raises:
        ValueError: if there are no images, or the checkpoint will not do.
    """
    if top_k < 1 or batch_size < 1:
        raise ValueError(f"top_k and batch_size must be at least 1, got {top_k} and {batch_size}.")
    sources = ImageSources(images, image_column_name)
    classifier = Classifier(
        checkpoint,
        precision=precision,
        token_merging=token_merging,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    batches = batches_of(range(len(sources)), batch_size)
    bar = tqdm(total=len(sources), unit="image", leave=False, disable=None if len(batches) > 1 else True)
    with bar:
        for batch in classifier.predict(sources, batches, top_k):
            yield from batch
            bar.update(len(batch))
    for sentence in sources.not_read:
        yield BadImageError(f"{sentence}.")


def batches_of(numbers: range, batch_size: int) -> list[range]:
    """Numbers in order, so many at a time."""
    return [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]


class Classifier:
    """A checkpoint that says what is on images.

    Args:
        checkpoint: a folder or a Hub id; the attribute says which was meant, and where it is.
        device: where it computes; by default a GPU, if there is one.
        **options: those of `load_checkpoint`.

    Raises:
        ValueError: if the checkpoint will not do.
    """

    def __init__(
        self,
        checkpoint: str,
        device: torch.device | None = None,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ):
        self.checkpoint = find_checkpoint(checkpoint, revision, trust_remote_code=trust_remote_code)
        options["trust_remote_code"] = trust_remote_code
        self.model, self.processor, self.label_names = load_checkpoint(self.checkpoint, **options)
        self.reader = Reader(self.processor)
        if device is None:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if not isinstance(self.model, Int8Classifier):
            torch.nn.Module.to(self.model, device)

    def predict(
        self, sources: ImageSources, batches: Sequence[range], top_k: int
    ) -> Iterator[list[Prediction | BadImageError]]:
        """Say what is on the images with these numbers; threads read the next ones meanwhile.

        Args:
            sources: the images.
            batches: the numbers of those to predict, in order.
            top_k: labels per image, at most as many as there are.
        """
        # Pillow decodes and resizes side by side with other threads, and where the model computes on the same cores,
        # threads take less of its time than processes, which would have to be sent what they prepared.
        num_threads = spare_cores() + 1
        with ThreadPoolExecutor(num_threads) as pool:

            def begin(numbers: range) -> list[Future[list[tuple[int, Prepared]]]]:
                batch = Batch(self.reader, sources, numbers)
                return [pool.submit(batch.read) for _ in range(min(num_threads, len(numbers)))]

            first, *others = [*batches, range(0)]
            with pillow_silent():
                prepared = _in_order(begin(first))
            for batch, following in zip(batches, others, strict=True):
                with pillow_silent():
                    parts = begin(following)
                    results = self._predictions([sources.name(number) for number in batch], prepared, top_k)
                    prepared = _in_order(parts)
                yield results

    def _predictions(
        self, names: list[str], prepared: Sequence[Prepared], top_k: int
    ) -> list[Prediction | BadImageError]:
        """What is on the images of a batch, which may have been prepared in parts, under these names."""
        pixels = [part.pixels for part in prepared if part.pixels is not None]
        check_same_size(part.shape for part in pixels)
        rows = iter(self._top(torch.cat(pixels), min(top_k, len(self.label_names))) if pixels else [])
        problems = [problem for part in prepared for problem in part.problems]
        return [
            self._prediction(name, *next(rows)) if problem is None else problem
            for name, problem in zip(names, problems, strict=True)
        ]

    def most_likely(self, images: list[Image.Image], top_k: int) -> list[tuple[list[float], list[int]]]:
        """Probabilities and classes of the most likely classes of each image, RGB; at most as many as there are.

        Several threads may ask at once.
        """
        return self._top(pixel_values(self.processor, images), min(top_k, len(self.label_names)))

    @torch.inference_mode()
    def _top(self, pixels: Tensor, k: int) -> list[tuple[list[float], list[int]]]:
        """Probabilities and classes of the `k` most likely classes of each image of a batch (B, C, H, W)."""
        pixels = pixels.to(self.model.device, self.model.dtype, non_blocking=True)
        logits = self.model(pixels).logits
        check_logits(logits, f"the checkpoint {self.checkpoint}")
        scores, classes = probabilities(logits, self.model.config).topk(k)  # (B, k)
        return list(zip(scores.tolist(), classes.tolist(), strict=True))

    def _prediction(self, name: str, scores: list[float], classes: list[int]) -> Prediction:
        return Prediction(name, [self.label_names[index] for index in classes], scores)


def _in_order(parts: Sequence[Future[list[tuple[int, Prepared]]]]) -> list[Prepared]:
    """What threads have read, in the order of the images."""
    found = [item for part in parts for item in part.result()]
    return [prepared for _, prepared in sorted(found, key=itemgetter(0))]


def probabilities(logits: Tensor, config: Any) -> Tensor:
    """What a classifier's logits mean, as transformers' pipeline understands them: (B, K) -> (B, K).

    Args:
        logits: of images.
        config: of the model.
    """
    exclusive = classes_exclude_each_other(config, logits.shape[-1])
    return logits.float().softmax(-1) if exclusive else logits.float().sigmoid()


def classes_exclude_each_other(config: Any, num_labels: int) -> bool:
    """Whether an image has one of the classes, unless `problem_type` says that it may have several, or there is one."""
    return num_labels > 1 and config.problem_type != "multi_label_classification"
