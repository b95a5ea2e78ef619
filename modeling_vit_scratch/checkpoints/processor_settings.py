# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""How a source prepares images, as an image processor of transformers."""

import warnings
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoImageProcessor
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from .files import read_json

RGB = 3
PICTURE_MODES = {1: "L", RGB: "RGB"}  # of Pillow, by channels
# Width and height of the pictures that a processor is tried on.
TRIAL_SIZES = ((61, 43), (37, 53))
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resize_and_crop(
    size: tuple[int, int],
    *,
    resized: int | tuple[int, int] | None = None,
    resample: str = "bicubic",
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> dict[str, Any]:
    """Arguments of `ViTImageProcessor` for images of `size`, (height, width) in pixels.

    Args:
        size: what the model gets.
        resized: what the image is resized to before its centre is cut out: the shorter side, or (height, width); by
            default it is resized to `size` and nothing is cut.
        resample: the filter, as Pillow names it.
        mean, std: of the channels, after scaling to 0 … 1.
    """
    arguments: dict[str, Any] = {
        "do_convert_rgb": len(mean) == RGB,
        "resample": Image.Resampling[resample.upper()],
        "image_mean": list(mean),
        "image_std": list(std),
    }
    if resized is None or resized == size:
        return {**arguments, "size": {"height": size[0], "width": size[1]}}
    if isinstance(resized, int):
        arguments["size"] = {"shortest_edge": resized}
    else:
        arguments["size"] = {"height": resized[0], "width": resized[1]}
    return {**arguments, "do_center_crop": True, "crop_size": {"height": size[0], "width": size[1]}}


def saved_processor(folder: Path) -> BaseImageProcessor | None:
    """The image processor that is saved in a folder; None if there is none. Code beside it does not run.

    Raises:
        ValueError: if it cannot be made.
    """
    if not (folder / "preprocessor_config.json").is_file():
        return None
    read_json(folder / "preprocessor_config.json")
    try:
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the library raises many kinds
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise ValueError(f"{folder}/preprocessor_config.json makes no image processor: {reason}.") from error
    # Where a class of its own comes with it, the one of transformers was taken; nobody is to look for that code later.
    processor.__dict__.pop("auto_map", None)
    return processor


def image_processor(
    preprocessing: BaseImageProcessor | dict[str, Any] | None,
    size: tuple[int, int],
    *,
    fit: bool = False,
    num_channels: int = RGB,
) -> tuple[BaseImageProcessor, list[str]]:
    """The image processor of a source, and a note if it had to be assumed.

    Args:
        preprocessing: the source's own, or the arguments of one; None if it has none.
        size: of the model's images, (height, width) in pixels.
        num_channels: of the model's images.
        fit: whether to make the source's own make images of this size.
    """
    notes = []
    if preprocessing is None:
        preprocessing = resize_and_crop(size, mean=(0.5,) * num_channels, std=(0.5,) * num_channels)
        notes.append(
            "assumed that images are resized without a crop (bicubic) and normalised with mean and deviation 0.5"
        )
    processor = ViTImageProcessorPil(**preprocessing) if isinstance(preprocessing, dict) else preprocessing
    if fit:
        _fit(processor, size)
    return processor, notes


def size_of_images(processor: Any, num_channels: int = RGB) -> tuple[int, int] | None:
    """The (height, width) in pixels of the images that a processor makes, by trying.

    Returns:
        The size; None if it leaves images as large as they are, or no picture has so many channels.

    Raises:
        ValueError: if it cannot prepare a picture, makes numbers of it that are not finite, or images of no one size.
    """
    if num_channels not in PICTURE_MODES:
        return None
    pictures = [Image.new(PICTURE_MODES[num_channels], size) for size in TRIAL_SIZES]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers that are not finite, which are found below
            prepared = [processor(picture, return_tensors="pt")["pixel_values"] for picture in pictures]
    except Exception as error:  # whatever its settings break
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise ValueError(f"the image processor of the source cannot prepare a picture: {reason}.") from error
    if not all(pixel_values.isfinite().all() for pixel_values in prepared):
        raise ValueError(
            "the image processor of the source makes numbers that are not finite: see its mean and deviation."
        )
    wide, tall = (tuple(pixel_values.shape[-2:]) for pixel_values in prepared)
    if (wide, tall) == tuple((height, width) for width, height in TRIAL_SIZES):
        return None
    if wide != tall:
        raise ValueError(f"the image processor of the source makes images of no fixed size, here of {wide} and {tall}.")
    return wide


def _fit(processor: Any, size: tuple[int, int]) -> None:
    """Make a processor's images of another size; what is cut off stays the same share."""
    settings = processor.to_dict()
    if not settings.get("do_center_crop"):
        if _height_width(settings["size"]) != size:
            processor.size = {"height": size[0], "width": size[1]}
        return
    ratios = [new / old for new, old in zip(size, _height_width(settings["crop_size"]), strict=True)]
    if ratios == [1, 1]:
        return
    if "shortest_edge" in settings["size"]:
        processor.size = {"shortest_edge": round(settings["size"]["shortest_edge"] * max(ratios))}
    else:
        height, width = _height_width(settings["size"])
        processor.size = {"height": round(height * ratios[0]), "width": round(width * ratios[1])}
    processor.crop_size = {"height": size[0], "width": size[1]}


def _height_width(size: dict[str, int]) -> tuple[int, int]:
    return (size["height"], size["width"]) if "height" in size else (size["shortest_edge"], size["shortest_edge"])
