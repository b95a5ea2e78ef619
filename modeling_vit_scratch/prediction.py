# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Using a checkpoint: load it, and say what is on images."""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor

from .arguments import spare_cores
from .augmentation import check_same_size, pixel_values
from .deployment.int8 import Int8Classifier
from .finetuning import check_merged
from .hub import check_revision
from .image_sources import ImageSources
from .images import BadImageError, decoded, pillow_silent
from .layers_vit_scratch import height_width

# Images that a thread reads and prepares at a time.
READ_TOGETHER = 8
PRECISIONS = ("fp32", "bf16", "int8")


def load_checkpoint(
    checkpoint: str,
    *,
    precision: str = "fp32",
    token_merging: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel | Int8Classifier, BaseImageProcessor, list[str]]:
    """A classifier ready for use, its image processor, and its labels in the order of the logits.

    Args:
        checkpoint: a folder or a Hub id.
        precision: one of `PRECISIONS`; "int8" runs on the CPU.
        token_merging: patches that each block merges away, instead of what the checkpoint says.
        revision: a branch, tag or commit of a Hub id.
        trust_remote_code: run code that comes with it; not needed for checkpoints of this package.

    Raises:
        ValueError: if the settings will not do, or it is no whole checkpoint. Weights are read from safetensors only,
            never from a pickle.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    check_checkpoint(checkpoint, revision)
    options: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    with loading(checkpoint):
        config = AutoConfig.from_pretrained(checkpoint, **options)
        processor = AutoImageProcessor.from_pretrained(checkpoint, **options)
    set_token_merging(config, token_merging)
    with loading(checkpoint):
        model, report = AutoModelForImageClassification.from_pretrained(
            checkpoint,
            config=config,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise ValueError(
            f"the checkpoint {checkpoint} is no image classifier, or not whole: {len(lacking)} weights are missing, "
            f"among them {lacking[0]}. If it was pre-trained only: vit-scratch train finetune --model {checkpoint}."
        )
    label_names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    model.eval()
    if precision == "int8":
        # As large as the model's images, where the processor leaves that to whoever makes them.
        height, width = height_width(getattr(config, "image_size", 224))
        example = processor([Image.new("RGB", (width, height))] * 2, return_tensors="pt")["pixel_values"]
        return Int8Classifier(model, example), processor, label_names
    return model, processor, label_names


def set_token_merging(config: Any, token_merging: int | None) -> None:
    """Let the blocks of a model merge so many patches each, if that is asked for.

    Raises:
        ValueError: if it is no model that can.
    """
    if token_merging is None:
        return
    if not hasattr(config, "token_merging"):
        raise ValueError(f"a model of type {config.model_type} cannot merge tokens.")
    config.token_merging, config.token_merging_schedule = token_merging, "constant"


def check_checkpoint(checkpoint: str, revision: str | None = None) -> None:
    """Refuse at once what is neither a folder nor the name of a model on the Hub, which alone has revisions.

    Raises:
        ValueError: naming it.
    """
    could_be_hub_id = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", checkpoint) and not os.path.exists(checkpoint)
    if not os.path.isdir(checkpoint) and not could_be_hub_id:
        raise ValueError(f"there is no checkpoint folder {checkpoint}.")
    check_revision(checkpoint, revision)
    unfinished = sorted(Path(checkpoint).glob("checkpoint-*")) if os.path.isdir(checkpoint) else []
    if unfinished and not os.path.exists(os.path.join(checkpoint, "config.json")):
        raise ValueError(
            f"{checkpoint} holds a run that did not end: go on with the same command, or name one of its "
            f"checkpoints, such as {unfinished[-1]}."
        )
    check_merged(checkpoint)


@contextmanager
def loading(checkpoint: str) -> Iterator[None]:
    """Turn the many kinds of errors that libraries raise over what they cannot load into one sentence.

    Raises:
        ValueError: naming the checkpoint, and what the library said.
    """
    try:
        yield
    except Exception as error:
        what = f"the checkpoint {checkpoint}"
        if not os.path.isdir(checkpoint):
            what = f"there is no folder {checkpoint}, and the Hub's {checkpoint}"
        message = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{what} cannot be loaded: {message}") from error


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
        A `Prediction` for each image, or the `BadImageError` of one that cannot be read.

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


def batches_of(numbers: range, batch_size: int) -> list[range]:
    """Numbers in order, so many at a time."""
    return [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]


class Classifier:
    """A checkpoint that says what is on images.

    Args:
        checkpoint: a folder or a Hub id.
        device: where it computes; by default a GPU, if there is one.
        **options: those of `load_checkpoint`.

    Raises:
        ValueError: if the checkpoint will not do.
    """

    def __init__(self, checkpoint: str, device: torch.device | None = None, **options: Any):
        self.model, self.processor, self.label_names = load_checkpoint(checkpoint, **options)
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
        with ThreadPoolExecutor(spare_cores() + 1) as pool:

            def begin(numbers: range) -> list[Future[Prepared]]:
                images = [sources[number] for number in numbers]
                starts = range(0, len(images), READ_TOGETHER)
                return [pool.submit(self._prepared, images[start : start + READ_TOGETHER]) for start in starts]

            first, *others = [*batches, range(0)]
            with pillow_silent():
                prepared = [part.result() for part in begin(first)]
            for batch, following in zip(batches, others, strict=True):
                with pillow_silent():
                    parts = begin(following)
                    results = self._predictions([sources.name(number) for number in batch], prepared, top_k)
                    prepared = [part.result() for part in parts]
                yield results

    def predict_batch(self, images: Sequence[Any], top_k: int) -> list[Prediction | BadImageError]:
        """Say what is on images that are in memory together; several threads may ask at once.

        Args:
            images: what `read_image` takes, paths or rows `{"bytes": …, "path": …}`, whose paths are the files of the
                results.
            top_k: labels per image, at most as many as there are.
        """
        names = [image["path"] if isinstance(image, dict) else image for image in images]
        with pillow_silent():
            return self._predictions(names, [self._prepared(images)], top_k)

    def _prepared(self, images: Sequence[Any]) -> "Prepared":
        """Read images and make them the input of the model."""
        readable: list[Image.Image] = []
        problems: list[BadImageError | None] = []
        for image in images:
            try:
                readable.append(decoded(image))
                problems.append(None)
            except BadImageError as error:
                problems.append(error)
        return Prepared(pixel_values(self.processor, readable) if readable else None, problems)

    def _predictions(
        self, names: list[str], prepared: Sequence["Prepared"], top_k: int
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
        """Probabilities and classes of the most likely classes of each image, RGB; at most as many as there are."""
        return self._top(pixel_values(self.processor, images), min(top_k, len(self.label_names)))

    @torch.inference_mode()
    def _top(self, pixels: Tensor, k: int) -> list[tuple[list[float], list[int]]]:
        """Probabilities and classes of the `k` most likely classes of each image of a batch (B, C, H, W)."""
        pixels = pixels.to(self.model.device, self.model.dtype, non_blocking=True)
        scores, classes = self.model(pixels).logits.float().softmax(-1).topk(k)  # (B, k)
        return list(zip(scores.tolist(), classes.tolist(), strict=True))

    def _prediction(self, name: str, scores: list[float], classes: list[int]) -> Prediction:
        return Prediction(name, [self.label_names[index] for index in classes], scores)


class Prepared(NamedTuple):
    """Images that were read: (B, C, H, W) of those that can be, or None; for each, what is wrong with it, or None."""

    pixels: Tensor | None
    problems: list[BadImageError | None]
