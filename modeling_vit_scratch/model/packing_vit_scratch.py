# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Images of different sizes in one batch: padded to one size, and computed without the padding.

Everything in a block but its attention treats each token by itself, so the tokens of all images can stand one after the
other in a single sequence, without those that are padding (Patch n' Pack, Dehghani et al. 2023, arXiv 2307.06304). Only
the attention takes the sequence apart again: images with as many tokens as one another attend together, as a batch that
needs no mask.

This file needs nothing but torch.

Shapes: B batch, C channels, H and W the largest image height and width in pixels, N patches of H x W, T tokens of a
padded image, L tokens of all images without padding, D width, A attention heads.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .layers_vit_scratch import Size, height_width

# A block without n tokens of width D saves about 24 n D^2 operations, and calls the attention once for each length of
# the images. A call pays if n D^2 is at least this (`scripts/benchmark.py --modes mixed-sizes`).
LEAST_SAVED = 250_000


def pad_images(images: Iterable[Tensor], patch_size: Size) -> dict[str, Tensor | bool]:
    """A batch of images of different sizes: what the models take as `model(**pad_images(images, 16))`.

    Args:
        images: each (C, its height, its width), of one dtype, with sides that are multiples of the patch.
        patch_size: pixels, one number or (height, width); `config.patch_size`.

    Returns:
        `pixel_values` (B, C, H, W), each image in the top left corner and zeros around it; `patch_attention_mask`
        (B, N), true where a patch is the image's; and `interpolate_pos_encoding`, so that each image gets its own
        positions.

    Raises:
        ValueError: if there are no images, or one cannot be cut into patches, or has other channels or another dtype
            than the first.
    """
    height, width = (int(side) for side in height_width(patch_size))
    if height < 1 or width < 1:
        raise ValueError(f"patch_size must be at least 1 pixel, got {patch_size}.")
    images = [torch.as_tensor(image) for image in images]
    if not images:
        raise ValueError("there are no images to pad.")
    for index, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != images[0].shape[0] or image.dtype != images[0].dtype:
            raise ValueError(
                f"every image must have the shape (channels, height, width), with as many channels as the first and of "
                f"its dtype {images[0].dtype}, but image {index} has {tuple(image.shape)} and {image.dtype}."
            )
        if 0 in image.shape or image.shape[1] % height or image.shape[2] % width:
            raise ValueError(
                f"image {index} of {image.shape[1]}x{image.shape[2]} pixels (height x width) cannot be cut into "
                f"patches of {height}x{width}: resize it to a multiple of the patch size."
            )
    rows = max(image.shape[1] for image in images) // height
    columns = max(image.shape[2] for image in images) // width
    pixel_values = images[0].new_zeros(len(images), images[0].shape[0], rows * height, columns * width)
    mask = torch.zeros(len(images), rows, columns, dtype=torch.bool, device=pixel_values.device)
    for index, image in enumerate(images):
        pixel_values[index, :, : image.shape[1], : image.shape[2]] = image
        mask[index, : image.shape[1] // height, : image.shape[2] // width] = True
    return {"pixel_values": pixel_values, "patch_attention_mask": mask.flatten(1), "interpolate_pos_encoding": True}


class TokenMasks(NamedTuple):
    """What others may attend to: true, or false where a token is padding. All None where nothing is.

    Args:
        prefix: (B, P), the tokens in front of the patches.
        patches: (B, N).
        extent: (B, 2), rows and columns of patches that each image covers, if the masks say so.
    """

    prefix: Tensor | None = None
    patches: Tensor | None = None
    extent: Tensor | None = None


def read_masks(
    attention_mask: Tensor | None,
    patch_attention_mask: Tensor | None,
    batch: int,
    grid_size: tuple[int, int],
    num_prefix_tokens: int,
) -> TokenMasks:
    """The masks that `ViTScratchModel` takes: of tokens (B, P + N), of patches (B, N) or (B, rows, columns), or both.

    Raises:
        ValueError: if one has another shape.
    """
    rows, columns = grid_size
    num_patches = rows * columns
    num_tokens = num_prefix_tokens + num_patches
    of_patches = attention_mask is not None and tuple(attention_mask.shape) == (batch, num_patches)
    if of_patches and patch_attention_mask is None:
        if num_prefix_tokens:  # else each token is a patch, and the two masks are one
            warnings.warn(
                "attention_mask has one number for each patch: that is the patch_attention_mask now, and will be "
                "refused in the next release.",
                FutureWarning,
                stacklevel=2,
            )
        attention_mask, patch_attention_mask = None, attention_mask
    prefix = patches = extent = None
    if patch_attention_mask is not None:
        if tuple(patch_attention_mask.shape) not in ((batch, num_patches), (batch, rows, columns)):
            raise ValueError(
                f"patch_attention_mask must have the shape (batch, patches) = {(batch, num_patches)} or (batch, rows, "
                f"columns) = {(batch, rows, columns)}, got {tuple(patch_attention_mask.shape)}."
            )
        patches = patch_attention_mask.flatten(1).bool()
        prefix = patches.new_ones(batch, num_prefix_tokens)
        extent = patch_extent(patches, grid_size)
    if attention_mask is not None:
        if tuple(attention_mask.shape) != (batch, num_tokens):
            raise ValueError(
                f"attention_mask must have the shape (batch, tokens) = {(batch, num_tokens)}, got "
                f"{tuple(attention_mask.shape)}; for one number a patch there is patch_attention_mask."
            )
        tokens = attention_mask.bool()
        prefix = tokens[:, :num_prefix_tokens]
        patches = tokens[:, num_prefix_tokens:] if patches is None else tokens[:, num_prefix_tokens:] & patches
    return TokenMasks(prefix, patches, extent)


def patch_extent(patch_mask: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """Rows and columns of patches that each image covers: (B, N) -> (B, 2)."""
    mask = patch_mask.unflatten(1, grid_size)  # (B, rows, columns)
    return torch.stack((mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)), dim=1).clamp(min=1)


def is_worth_packing(mask: Tensor, width: int, num_prefix_tokens: int) -> bool:
    """Whether tokens (B, T) of a width D are faster without the padding, which is false in `mask`.

    The tokens in front of the patches are read whether or not others may attend to them, so they cannot be left out.

    Only on the CPU, where that was measured; and compiled and exported models keep the padding, as how much of it there
    is, is known only at run time.
    """
    if mask.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    lengths = mask.sum(dim=1)
    if not lengths.any() or not mask[:, :num_prefix_tokens].all():
        return False
    left_out = mask.numel() - int(lengths.sum())
    return left_out * width**2 >= LEAST_SAVED * lengths.unique().numel()


class PackedSequence:
    """The tokens of a padded batch one after the other without the padding, those of the shortest image first.

    Args:
        mask: (B, T), false where a token is padding.
        whole: the sequence with padding, in which the last block is run where only few tokens are asked for.
    """

    def __init__(self, mask: Tensor, whole: Any):
        self.whole = whole
        self.shape = mask.shape
        lengths, order = mask.sum(dim=1).sort(stable=True)
        place = torch.arange(mask.numel(), device=mask.device).view_as(mask)
        self.index = place[order][mask[order]]  # (L,)
        # (length, number of images) of each group; of images that are padding altogether there is nothing
        groups = torch.stack(lengths[lengths > 0].unique_consecutive(return_counts=True), dim=1)
        self.groups = [pair.tolist() for pair in groups]

    def enter(self, x: Tensor) -> Tensor:
        """Leave the padding out: (B, T, D) -> (1, L, D)."""
        return x.flatten(0, 1)[self.index].unsqueeze(0)

    def run(self, block: Callable[..., Tensor], x: Tensor, **kwargs: Any) -> Tensor:
        """One block: (1, L, D) -> (1, L, D)."""
        return block(x, None, self.attend, **kwargs)

    def run_last(self, block: Callable[..., Tensor], x: Tensor, num_queries: int, **kwargs: Any) -> Tensor:
        """The last block, for the first tokens of each image alone: (1, L, D) -> (B, num_queries, D)."""
        return self.whole.run_last(block, self.leave(x), num_queries, **kwargs)

    def leave(self, x: Tensor) -> Tensor:
        """Put zeros where the padding was: (1, L, D) -> (B, T, D)."""
        padded = x.new_zeros(self.shape.numel(), x.shape[2]).index_copy(0, self.index, x[0])
        return padded.unflatten(0, self.shape)

    def attend(
        self, module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, **kwargs
    ) -> tuple[Tensor, None]:
        """Attention within each image: 3 x (1, A, L, D / A) -> (1, L, A, D / A)."""
        outputs = []
        sizes = [length * count for length, count in self.groups]
        parts = (x[0].split(sizes, dim=1) for x in (query, key, value))
        for (length, count), *group in zip(self.groups, *parts, strict=True):
            # (count, A, length, D / A) each
            q, k, v = (x.unflatten(1, (count, length)).transpose(0, 1) for x in group)
            output, _ = self.whole.kernel(module, q, k, v, None, **kwargs)  # (count, length, A, D / A)
            outputs.append(output.flatten(0, 1))
        return torch.cat(outputs).unsqueeze(0), None
