# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Using a checkpoint: load it, and say what is on images."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor

from .arguments import spare_cores
from .augmentation import pixel_values
from .deployment.int8 import Int8Classifier
from .finetuning import check_merged
from .image_sources import ImageSources
from .images import BadImageError, read_image
from .layers_vit_scratch import height_width
from .sampling import leave_signals

# Fewer batches are done before processes that read images for them would have started.
WORTH_WORKERS = 8
PRECISIONS = ("fp32", "bf16", "int8")


def load_checkpoint(
    checkpoint: str,
    *,
    precision: str = "fp32",
    token_merging: int | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel | Int8Classifier, BaseImageProcessor, list[str]]:
    """A classifier ready for use, its image processor, and its labels in the order of the logits.

    Args:
        checkpoint: a folder or a Hub id.
        precision: one of `PRECISIONS`; "int8" runs on the CPU.
        token_merging: patches that each block merges away, instead of what the checkpoint says.
        trust_remote_code: run code that comes with it; not needed for checkpoints of this package.

    Raises:
        ValueError: if the settings will not do, or it is no whole checkpoint. Weights are read from safetensors only,
            never from a pickle.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    check_checkpoint(checkpoint)
    options = {"trust_remote_code": trust_remote_code}
    with loading(checkpoint):
        config = AutoConfig.from_pretrained(checkpoint, **options)
        processor = AutoImageProcessor.from_pretrained(checkpoint, **options)
    if token_merging is not None:
        if not hasattr(config, "token_merging"):
            raise ValueError(f"a model of type {config.model_type} cannot merge tokens.")
        config.token_merging, config.token_merging_schedule = token_merging, "constant"
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


def check_checkpoint(checkpoint: str) -> None:
    """Refuse at once what is neither a folder nor the name of a model on the Hub.

    Raises:
        ValueError: naming it.
    """
    could_be_hub_id = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", checkpoint) and not os.path.exists(checkpoint)
    if not os.path.isdir(checkpoint) and not could_be_hub_id:
        raise ValueError(f"there is no checkpoint folder {checkpoint}.")
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
    trust_remote_code: bool = False,
) -> Iterator[Prediction | BadImageError]:
    """Say what is on images, in order.

    Args:
        checkpoint: a folder or a Hub id.
        images, image_column_name: those of `ImageSources`.
        top_k: labels per image, at most as many as there are.
        batch_size: images at a time.
        precision, token_merging: those of `load_checkpoint`.
        trust_remote_code: run code that comes with the checkpoint.

    Yields:
        A `Prediction` for each image, or the `BadImageError` of one that cannot be read.

    Raises:
        ValueError: if there are no images, or the checkpoint will not do.
    """
    if top_k < 1 or batch_size < 1:
        raise ValueError(f"top_k and batch_size must be at least 1, got {top_k} and {batch_size}.")
    sources = ImageSources(images, image_column_name)
    classifier = Classifier(
        checkpoint, precision=precision, token_merging=token_merging, trust_remote_code=trust_remote_code
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
        """Say what is on the images with these numbers; other processes read the next ones meanwhile.

        Args:
            sources: the images.
            batches: the numbers of those to predict, in order.
            top_k: labels per image, at most as many as there are.
        """
        loader = DataLoader(
            PreparedImages(sources, self.processor),
            batch_sampler=batches,  # type: ignore[arg-type]  # any sequence of sequences of numbers does
            collate_fn=_as_it_is,
            worker_init_fn=leave_signals,
            num_workers=spare_cores() if len(batches) >= WORTH_WORKERS else 0,
            pin_memory=self.model.device.type == "cuda",
        )
        for batch, (pixels, bad) in zip(batches, loader, strict=True):
            rows = iter([] if pixels is None else self._top(pixels, min(top_k, len(self.label_names))))
            yield [
                BadImageError(bad[number]) if number in bad else self._prediction(sources.name(number), *next(rows))
                for number in batch
            ]

    def predict_batch(self, images: Sequence[Any], top_k: int) -> list[Prediction | BadImageError]:
        """Say what is on images that are in memory together; several threads may ask at once.

        Args:
            images: what `read_image` takes, paths or rows `{"bytes": …, "path": …}`, whose paths are the files of the
                results.
            top_k: labels per image, at most as many as there are.
        """
        results: list[Any] = []
        for image in images:
            try:
                results.append(read_image(image))
            except BadImageError as error:
                results.append(error)
        readable = [image for image in results if not isinstance(image, BadImageError)]
        rows = iter(self.most_likely(readable, top_k) if readable else [])
        return [
            result
            if isinstance(result, BadImageError)
            else self._prediction(image["path"] if isinstance(image, dict) else image, *next(rows))
            for image, result in zip(images, results, strict=True)
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


class PreparedImages(torch.utils.data.Dataset):
    """Numbers of images -> those that can be read as a batch (B, C, H, W), or None; and what is wrong with others."""

    def __init__(self, sources: ImageSources, processor: BaseImageProcessor):
        self.sources = sources
        self.processor = processor

    def __getitems__(self, numbers: Sequence[int]) -> tuple[Tensor | None, dict[int, str]]:
        readable, bad = [], {}
        for number in numbers:
            try:
                readable.append(read_image(self.sources[number]))
            except BadImageError as error:
                bad[number] = str(error)
        return (pixel_values(self.processor, readable) if readable else None), bad


def _as_it_is(batch: Any) -> Any:
    return batch
