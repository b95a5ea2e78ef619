# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""How a source prepares images, as an image processor of transformers."""

from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoImageProcessor
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

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
        "do_convert_rgb": True,
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
    try:
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the library raises many kinds
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise ValueError(f"{folder}/preprocessor_config.json makes no image processor: {reason}.") from error


def image_processor(
    preprocessing: BaseImageProcessor | dict[str, Any] | None, size: tuple[int, int], *, fit: bool = False
) -> tuple[BaseImageProcessor, list[str]]:
    """The image processor of a source, and a note if it had to be assumed.

    Args:
        preprocessing: the source's own, or the arguments of one; None if it has none.
        size: of the model's images, (height, width) in pixels.
        fit: whether to make the source's own make images of this size.
    """
    notes = []
    if preprocessing is None:
        preprocessing = resize_and_crop(size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        notes.append(
            "assumed that images are resized without a crop (bicubic) and normalised with mean and deviation 0.5"
        )
    processor = ViTImageProcessorPil(**preprocessing) if isinstance(preprocessing, dict) else preprocessing
    if fit:
        _fit(processor, size)
    return processor, notes


def size_of_images(processor: Any) -> tuple[int, int] | None:
    """The (height, width) in pixels of the images that a processor makes; None if it leaves their size alone.

    Raises:
        ValueError: if it cuts or resizes them to no one size.
    """
    settings = processor.to_dict()
    if not settings.get("do_center_crop") and not settings.get("do_resize"):
        return None
    size = settings.get("crop_size") if settings.get("do_center_crop") else settings.get("size")
    known = isinstance(size, dict) and ({"height", "width"} <= size.keys() or size.keys() == {"shortest_edge"})
    if not known or min(_height_width(size)) < 1:
        raise ValueError(f"the image processor of the source makes images of no fixed size, got {size}.")
    return _height_width(size)


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
