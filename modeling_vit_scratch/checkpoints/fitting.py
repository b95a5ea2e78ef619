# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Fitting what was read to other images or other labels than those of the source, before a model is made of it."""

import math

import torch
from torch import Tensor
from transformers.image_processing_utils import BaseImageProcessor

from ..model.configuration_vit_scratch import ViTScratchConfig
from ..model.layers_vit_scratch import PositionalEncoding, height_width
from .processor_settings import size_of_images
from .tables import HEAD

# Attention needs memory for the square of this.
MOST_PATCHES = 1_000_000
POSITIONS = "positional_encoding.positional_embedding"


def resample(config: ViTScratchConfig, state: dict[str, Tensor], size: tuple[int, int]) -> list[str]:
    """Fit a configuration and its learned positions to images of another size, in place.

    Raises:
        ValueError: if the patches do not divide it.
    """
    patch = height_width(config.patch_size)
    old_grid, new_grid = (
        [side // p for side, p in zip(s, patch, strict=True)] for s in (height_width(config.image_size), size)
    )
    config.image_size = list(size) if size[0] != size[1] else size[0]
    config.validate_architecture()
    if old_grid == new_grid or POSITIONS not in state:
        return []
    positions = state[POSITIONS]
    if math.prod(new_grid) > MOST_PATCHES:
        raise ValueError(
            f"image_size {size[0]}x{size[1]} has {math.prod(new_grid):,} patches, more than a ViT can attend to."
        )
    encoding = PositionalEncoding(
        math.prod(old_grid),
        config.hidden_size,
        grid_size=(old_grid[0], old_grid[1]),
        interpolation=config.position_interpolation,
    )
    encoding.positional_embedding = torch.nn.Parameter(positions, requires_grad=False)
    state[POSITIONS] = encoding.resampled((new_grid[0], new_grid[1])).to(positions.dtype)
    return [
        f"resampled the positions from {old_grid[0]}x{old_grid[1]} to {new_grid[0]}x{new_grid[1]} patches "
        f"({config.position_interpolation})"
    ]


def accept_images_of(processor: BaseImageProcessor, config: ViTScratchConfig) -> list[str]:
    """Let a model take the images that its source's image processor makes, in place, with a note if they differ."""
    made, trained = size_of_images(processor, config.num_channels), height_width(config.image_size)
    if made is None or made == trained:
        return []
    config.interpolate_pos_encoding = True
    return [
        f"the source prepares images of {made[0]}x{made[1]} pixels and has positions for {trained[0]}x{trained[1]}, "
        f"which are fitted to each image (--image-size {made[0]},{made[1]} does it once; --image-size "
        f"{trained[0]},{trained[1]} prepares images of that size)"
    ]


def drop_head(config: ViTScratchConfig, state: dict[str, Tensor], num_labels: int) -> list[str]:
    """Leave out the head, and the hidden layer of a head of pre-training, for one of other labels, in place."""
    dropped = [name for name in state if name.startswith((HEAD, "pooler.dense."))]
    for name in dropped:
        del state[name]
    config.pooler_output_size = None
    config.num_labels = num_labels
    config.problem_type = None
    return [f"ignored the old head ({', '.join(dropped)}): its labels are replaced"] if dropped else []
