# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Whether what was exported computes what the checkpoint computes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..model.layers_vit_scratch import height_width
from ..tracing.program import LEAST_PATCHES

# Largest difference of a logit, as a share of the largest logit where that is above 1.
TOLERANCE = 1e-4


@dataclass
class Reference:
    """Images (B, C, H, W) and the logits (B, K) that the checkpoint gives them in torch."""

    images: Tensor
    logits: Tensor


def references(model: PreTrainedModel, example: Tensor, *, any_size: bool) -> list[Reference]:
    """Random images and their logits: one image, three, and where the size is open, two of each of three other sizes.

    Args:
        model: the classifier, in evaluation mode.
        example: images of the shape that the checkpoint's image processor makes.
        any_size: whether height and width are open.
    """
    random = torch.Generator().manual_seed(0)
    channels, height, width = example.shape[1:]
    shapes = [(1, channels, height, width), (3, channels, height, width)]
    if any_size:
        patch = height_width(model.config.patch_size)
        shapes += [(2, channels, *size) for size in _other_sizes((height, width), patch)]
    found = []
    for shape in shapes:
        images = torch.randn(shape, generator=random)
        # As in use: only other sizes than the model's own need to be asked for.
        options = {} if shape[2:] == (height, width) else {"interpolate_pos_encoding": True}
        with torch.inference_mode():
            found.append(Reference(images, model(images, **options).logits.float().clone()))
    return found


def _other_sizes(size: tuple[int, int], patch: tuple[int, int]) -> list[tuple[int, int]]:
    """Three sizes that are not square: a larger one, a smaller one, and one larger and smaller."""
    rows, columns = (side // length for side, length in zip(size, patch, strict=True))
    grids = (
        (rows + 3, columns + 2),
        (max(LEAST_PATCHES, rows - 2), max(LEAST_PATCHES, columns // 2)),
        (max(LEAST_PATCHES, rows // 2), columns + 3),
    )
    return [(down * patch[0], across * patch[1]) for down, across in grids]


def largest_difference(run: Callable[[Tensor], Tensor], expected: list[Reference], tolerance: float) -> float:
    """How far the logits of an export are from those of torch.

    Args:
        run: images to logits, by the export.
        expected: what the checkpoint computes.
        tolerance: what is allowed, as a share of the largest logit where that is above 1.

    Raises:
        ValueError: if they are further away, of another shape, or no numbers.
    """
    largest = 0.0
    for reference in expected:
        found = run(reference.images)
        same_shape = found.shape == reference.logits.shape
        difference = float((found - reference.logits).abs().max()) if same_shape else float("inf")
        allowed = tolerance * max(1.0, float(reference.logits.abs().max()))
        if not difference <= allowed:  # so that what is no number is refused, too
            height, width = reference.images.shape[2:]
            raise ValueError(
                f"what was exported does not compute what the checkpoint does, and was not written: on random images "
                f"of {height}x{width} pixels its logits are {difference:.2g} from torch's; {allowed:.2g} is allowed."
            )
        largest = max(largest, difference)
    return largest


def sizes_in_words(expected: list[Reference]) -> str:
    """The sizes of the images, each once: "8x8, 14x12 and 4x4"."""
    sizes = list(dict.fromkeys(f"{item.images.shape[2]}x{item.images.shape[3]}" for item in expected))
    return " and ".join(filter(None, (", ".join(sizes[:-1]), sizes[-1])))
