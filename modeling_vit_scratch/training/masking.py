# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Which patches of an image are hidden from a model that learns to paint them.

As in SimMIM (Xie et al. 2021, arXiv 2111.09886), an image is divided into blocks of whole patches, and a fixed number
of them is hidden. Which ones follows from the seed and the number of the draw alone, like all that `sampling.py` draws.

Shapes: N patches.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Sampler

# SimMIM hides squares of 32 pixels in images of 192 (section 4.1.2, table 1).
USUAL_BLOCKS = 6


@dataclass(frozen=True)
class BlockMasks:
    """Draw number -> (N,), true where a patch is hidden.

    Args:
        grid_size: rows and columns of patches.
        block_size: rows and columns of patches of a block; they divide those of the grid.
        ratio: share of the blocks to hide, rounded up as in SimMIM's code; one at least stays visible.
        seed: of the choice.
    """

    grid_size: tuple[int, int]
    block_size: tuple[int, int]
    ratio: float
    seed: int

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return self.grid_size[0] // self.block_size[0], self.grid_size[1] // self.block_size[1]

    @property
    def num_hidden(self) -> int:
        """Blocks that are hidden in each image."""
        num_blocks = math.prod(self.blocks)
        # 0.7 * 10 is a little more than 7 in binary.
        return min(math.ceil(round(self.ratio * num_blocks, 6)), num_blocks - 1)

    def __call__(self, draw: int) -> Tensor:
        # A text is hashed whole, so masks have nothing to do with what else is drawn with this seed.
        randomness = random.Random(f"mask {self.seed} {draw}")
        hidden = torch.zeros(self.blocks, dtype=torch.bool)
        hidden.view(-1)[randomness.sample(range(hidden.numel()), self.num_hidden)] = True
        rows, columns = self.block_size
        return hidden.repeat_interleave(rows, 0).repeat_interleave(columns, 1).flatten()  # (N,)


def block_pixels(asked_for: int | None, image_size: tuple[int, int], patch_size: tuple[int, int]) -> int:
    """The side of a block in pixels: as asked for, or what comes closest to a sixth of the image's shorter side.

    Raises:
        ValueError: if blocks of this side are not made of whole patches, or do not divide the image into two or more.
    """
    allowed = [
        side
        for side in range(math.lcm(*patch_size), max(image_size) + 1, math.lcm(*patch_size))
        if not any(pixels % side for pixels in image_size) and math.prod(image_size) > side**2
    ]
    image, patch = (f"{height}x{width}" for height, width in (image_size, patch_size))
    if not allowed:
        raise ValueError(
            f"images of {image} pixels in patches of {patch} cannot be divided into squares of whole patches to hide: "
            "choose another --model."
        )
    if asked_for is None:
        return min(allowed, key=lambda side: abs(side - min(image_size) / USUAL_BLOCKS))
    if asked_for not in allowed:
        raise ValueError(
            f"mask_patch_size must be made of patches of {patch} pixels and divide images of {image}: one of "
            f"{', '.join(map(str, allowed))}, got {asked_for}."
        )
    return asked_for


class Images(Protocol):
    """Examples by their numbers: `TrainingImages`, or a `Dataset` with a transform."""

    def __len__(self) -> int: ...

    def __getitems__(self, numbers: list) -> Sequence[dict[str, Any]]: ...


class MaskedImages(torch.utils.data.Dataset):
    """Examples of images with `bool_masked_pos` (N,) added.

    Args:
        images: what examples come from.
        masks: number of an example -> its mask.
    """

    def __init__(self, images: Images, masks: Callable[[int], Tensor]):
        self.images = images
        self.masks = masks

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: list) -> list[dict[str, Any]]:
        examples = self.images.__getitems__(numbers)
        # What is streamed comes as pairs of a number and a row.
        only_numbers = [number[0] if isinstance(number, tuple) else number for number in numbers]
        return [
            {**example, "bool_masked_pos": self.masks(number)}
            for number, example in zip(only_numbers, examples, strict=True)
        ]

    def batches(self, batch_size: int, num_processes: int = 1, process_index: int = 0) -> Sampler[list]:
        """What a process loads in an epoch, of images that are trained on."""
        images: Any = self.images
        return images.batches(batch_size, num_processes, process_index)
