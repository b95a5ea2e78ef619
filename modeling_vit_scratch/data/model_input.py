# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What makes an image the input of a model, bit for bit as transformers' image processors do, and faster.

All of it can be pickled, as workers that are spawned rather than forked ask for.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import SizeDict

from .images import read_image

# Pixels of images that are decoded before they are resized, unless one image has more.
PIXELS_TOGETHER = 2**21


def preprocessing(processor: BaseImageProcessor) -> Callable[[dict[str, list]], dict[str, list]]:
    """A transform for `Dataset.with_transform`: rows of `image` to rows of `pixel_values`, others as they are."""
    return partial(_preprocess, processor=processor)


def _preprocess(rows: dict[str, list[Any]], processor: BaseImageProcessor) -> dict[str, list[Any]]:
    prepared = pixel_values(processor, map(read_image, rows["image"]))  # (B, C, H, W)
    return {"pixel_values": list(prepared)} | {name: rows[name] for name in rows if name != "image"}


def pixel_values(processor: Any, images: Iterable[Image.Image]) -> Tensor:
    """What the processor makes of RGB images, bit for bit: the input of a model, (B, C, H, W).

    Args:
        processor: the model's.
        images: one or more; those that come from an iterator are taken a few at a time, so that large ones are not in
            memory together.

    Raises:
        ValueError: if the processor is not for RGB, or does not make images of one size.
    """
    return joined(parts_of_pixel_values(processor, images))


def parts_of_pixel_values(processor: Any, images: Iterable[Image.Image]) -> list[Tensor]:
    """What `pixel_values` joins, a tensor for each few images that were in memory together; none of no images."""
    parts: list[Tensor] = []
    for together in _few_at_a_time(images):
        parts.append(_pixel_values(processor, together))
        together.clear()
    return parts


def joined(parts: Sequence[Tensor]) -> Tensor:
    """One batch of several, whose images must be of one size."""
    check_same_size(part.shape for part in parts)
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


def _few_at_a_time(images: Iterable[Image.Image]) -> Iterator[list[Image.Image]]:
    together: list[Image.Image] = []
    for image in images:
        together.append(image)
        del image  # or it would live until the next one is decoded
        if sum(picture.width * picture.height for picture in together) > PIXELS_TOGETHER:
            yield together
            together = []
    if together:
        yield together


def _pixel_values(processor: Any, images: list[Image.Image]) -> Tensor:
    """Those of images that are in memory together.

    After resizing, a pixel has 256 possible values, so those of transformers' processors for Pillow are rescaled and
    normalised once, and looked up; other processors do all of it themselves.
    """
    means = getattr(processor, "image_mean", None)
    if getattr(processor, "do_normalize", False) and isinstance(means, list | tuple) and len(means) != len("RGB"):
        raise ValueError(f"the image processor makes images of {len(means)} channels, and images are read in RGB.")
    resized = _resized(processor, images) if _rescales_and_normalises_last(processor) else []
    check_same_size(image.shape for image in resized)
    if not resized:
        return processor(images, return_tensors="pt")["pixel_values"]
    result = np.empty((len(resized), *resized[0].shape), dtype=np.float32)
    channels = result.shape[1]
    values = np.broadcast_to(np.arange(256, dtype=np.uint8), (channels, 1, 256))
    values = processor.normalize(
        processor.rescale(values, processor.rescale_factor), processor.image_mean, processor.image_std
    )[:, 0]  # (C, 256)
    for image, row in zip(resized, result, strict=True):
        for channel in range(channels):
            # Every index is in range; the default mode would check that, in a copy.
            np.take(values[channel], image[channel], out=row[channel], mode="clip")
    return torch.from_numpy(result)


def check_same_size(shapes: Iterable[Sequence[int]]) -> None:
    """Refuse images whose heights and widths, the last two of each shape, are not the same.

    Raises:
        ValueError: with two of their sizes.
    """
    sizes = sorted({"x".join(map(str, shape[-2:])) for shape in shapes})
    if len(sizes) > 1:
        raise ValueError(
            f"the image processor makes images of several sizes ({sizes[0]} and {sizes[1]} pixels), which do not go "
            "into one batch: let it resize them, or take them one at a time (--batch_size 1)."
        )


def _resized(processor: Any, images: list[Image.Image]) -> list[np.ndarray]:
    """Each (C, its height, its width), 8 bits."""
    size: Any = SizeDict(**processor.size) if isinstance(processor.size, dict) else processor.size
    to_a_size = processor.do_resize and size.height and size.width and not processor.do_center_crop
    if to_a_size and isinstance(processor.resample, int):  # Pillow's names of its filters are numbers
        # As the processor does, but for its conversions from Pillow to NumPy, back, and again.
        resized = (image.resize((size.width, size.height), processor.resample) for image in images)
        return [np.moveaxis(np.asarray(image), -1, 0) for image in resized]
    return processor(images, do_rescale=False, do_normalize=False)["pixel_values"]


def _rescales_and_normalises_last(processor: Any) -> bool:
    kind = type(processor)
    return (
        issubclass(kind, PilBackend)
        and kind._preprocess is PilBackend._preprocess
        and kind.resize is PilBackend.resize
        and processor.do_rescale
        and processor.do_normalize
        and processor.image_mean is not None
        and processor.image_std is not None
        and not processor.do_pad
    )


def normalisation(processor: Any) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel that an image processor turns into 0 and 1."""
    if processor.do_normalize:
        return list(processor.image_mean), list(processor.image_std)
    return [0.0] * 3, [1.0] * 3
