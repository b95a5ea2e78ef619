# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What an exported file says of how images are prepared, for readers without transformers."""

from typing import Any

from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import BaseImageProcessor

RGB = 3
BILINEAR = 2  # transformers' default


def loader_settings(processor: BaseImageProcessor) -> dict[str, Any]:
    """The settings of an image processor as its `preprocessor_config.json` names them, with all of them spelled out.

    Steps that are off have values that change nothing, so that a reader may take them all.

    Raises:
        ValueError: if the processor does more than to resize, crop, rescale and normalise.
    """
    settings = processor.to_dict()
    size = {name: pixels for name, pixels in (settings.get("size") or {}).items() if pixels}
    known_size = size.keys() in ({"height", "width"}, {"shortest_edge"})
    if not _is_plain(processor) or settings.get("do_pad") or (settings.get("do_resize") and not known_size):
        raise ValueError(
            f"the image processor of the checkpoint, {type(processor).__name__} with size {size}, does more than "
            "resize to a size, crop, rescale and normalise, which is what an exported file can say of it."
        )
    normalizes, rescales = bool(settings.get("do_normalize")), bool(settings.get("do_rescale"))
    crop = settings.get("crop_size") or {}
    return {
        "image_processor_type": settings["image_processor_type"],
        "do_resize": bool(settings.get("do_resize")),
        "size": size,
        "resample": BILINEAR if settings.get("resample") is None else int(settings["resample"]),
        "do_center_crop": bool(settings.get("do_center_crop")),
        "crop_size": {name: pixels for name, pixels in crop.items() if pixels},
        "do_rescale": rescales,
        "rescale_factor": settings["rescale_factor"] if rescales else 1.0,
        "do_normalize": normalizes,
        "image_mean": _of_channels(settings["image_mean"] if normalizes else 0.0),
        "image_std": _of_channels(settings["image_std"] if normalizes else 1.0),
    }


def _of_channels(value: Any) -> list[float]:
    return [float(value)] * RGB if isinstance(value, int | float) else [float(number) for number in value]


def _is_plain(processor: BaseImageProcessor) -> bool:
    """Whether a processor's steps are transformers' common ones, in their order."""
    kind: Any = type(processor)
    return any(
        issubclass(kind, backend) and kind._preprocess is backend._preprocess and kind.resize is backend.resize
        for backend in (PilBackend, TorchvisionBackend)
    )
