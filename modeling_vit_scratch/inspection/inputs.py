# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a classifier gets of an image: the input as a picture, and the part of the image that it was cut from."""

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

# Pixels of the shorter and at most of the longer side of the picture by which `seen_area` asks the processor.
ASKED_SIDE, MOST_ASKED = 512, 8192
# Levels of 255 by which the answer may miss a straight line, for rounding and for filters.
TOLERANCE = 1.5
# Shares that are nearer to an edge of the image than that are at the edge: colours have but 255 levels.
AT_THE_EDGE = 0.005


def shown_input(processor: Any, pixels: Tensor) -> Image.Image:
    """The input of a model as a picture, the normalisation undone: (C, H, W) -> RGB of the same size."""
    values = pixels.float().cpu()
    if getattr(processor, "do_normalize", False):
        mean, deviation = (Tensor(list(item))[:, None, None] for item in (processor.image_mean, processor.image_std))
        values = values * deviation + mean
    factor = processor.rescale_factor if getattr(processor, "do_rescale", False) else 1.0
    levels = (values / factor).round().clamp(0, 255).byte()
    return Image.fromarray(levels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def seen_area(processor: Any, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Which part of an image of this size becomes the input, by asking the processor where pixels end up.

    A picture whose red grows to the right and whose green grows to the bottom goes through it, and the colours that
    come out are the places that they came from. So nothing needs to be known of settings and their meaning, which
    differ from processor to processor.

    Args:
        processor: of images.
        size: (width, height) in pixels.

    Returns:
        (left, top, right, bottom) as shares of width and height; None if it does more than to resize and crop, as to
        pad.
    """
    width, height = size
    if getattr(processor, "do_resize", False):  # shares do not depend on the size then, but it can be too small to tell
        scale = min(ASKED_SIDE / min(size), MOST_ASKED / max(size))
        width, height = (max(round(side * scale), 1) for side in size)
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[..., 0] = (255 * (np.arange(width) + 0.5) / width).round()
    picture[..., 1] = (255 * (np.arange(height) + 0.5) / height).round()[:, None]
    prepared = processor(Image.fromarray(picture), do_rescale=False, do_normalize=False, return_tensors="np")
    answer = np.asarray(prepared["pixel_values"][0], dtype=np.float64)  # (C, H, W)
    if answer.shape[0] != 3:
        return None
    horizontal, vertical = _ends(answer[0]), _ends(answer[1].T)
    if horizontal is None or vertical is None:
        return None
    return horizontal[0], vertical[0], horizontal[1], vertical[1]


def _ends(levels: np.ndarray) -> tuple[float, float] | None:
    """The shares at the first column's left and the last column's right edge, (rows, columns); None if not linear."""
    columns = np.arange(levels.shape[1])
    # Filters are cut off at the edges of a picture: what they make of the outer two columns is off the line.
    cut = min(2, (len(columns) - 1) // 3)
    inner = slice(cut, len(columns) - cut)
    slope, start = np.polyfit(columns[inner], levels[:, inner].mean(axis=0), 1) if len(columns) > 1 else (0.0, 0.0)
    if slope <= 0 or np.abs(levels[:, inner] - (slope * columns[inner] + start)).max() > TOLERANCE:
        return None
    first, last = (start - slope / 2) / 255, (start + slope * (len(columns) - 0.5)) / 255
    return _snapped(first), _snapped(last)


def _snapped(share: float) -> float:
    return float(round(share)) if abs(share - round(share)) < AT_THE_EDGE else float(share)


def readable_size(image: Image.Image, least: int, most: int) -> Image.Image:
    """The image with a longer side of `least` to `most` pixels; a small one is enlarged so that each pixel shows."""
    longer = max(image.size)
    if longer > most:
        return image.resize([max(round(side * most / longer), 1) for side in image.size], Image.Resampling.LANCZOS)
    factor = -(-least // longer)
    return image.resize([side * factor for side in image.size], Image.Resampling.NEAREST)
