# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What is seen inside a model, as pictures."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw
from torch import Tensor

from .inputs import readable_size

COLOURS = "inferno"
# How much of the colours there is where the map is lowest and highest; the rest is the image.
LEAST_OPACITY, MOST_OPACITY = 0.35, 0.75
# How bright the image is where the model does not see it.
UNSEEN = 0.35
# Pixels of the longer side of pictures of images.
LEAST_SIDE, MOST_SIDE = 384, 1024
# Positions whose similarity is shown, down and across at most.
MOST_POSITIONS = 8
# The gap between small pictures, as a share of their longer side; how many pixels that has at least; and the width of
# a figure in inches, in which its title has room.
GAP, LEAST_TILE, LEAST_WIDTH = 0.08, 32, 5.5
# And its longer side at most.
MOST_INCHES = 16
# Cosines from here on have colours at least.
MOST_ALIKE = 0.9
# Above the highest point of a plot, as a share.
MARGIN = 0.08
LINE = (255, 255, 255)


def on_image(
    image: Image.Image, seen: Image.Image, area: tuple[float, float, float, float] | None, heatmap: Tensor
) -> Image.Image:
    """A map of the model's input, laid over the image that was given.

    Args:
        image: RGB, as it was given.
        seen: the input as a picture; the map is laid over it where nobody knows which part of the image it is.
        area: that part, as `seen_area` gives it.
        heatmap: (rows, columns).
    """
    if area is None:
        return overlay(readable_size(seen, LEAST_SIDE, MOST_SIDE), heatmap.cpu())
    return overlay(readable_size(image, LEAST_SIDE, MOST_SIDE), heatmap.cpu(), area)


def overlay(
    image: Image.Image, heatmap: Tensor | np.ndarray, area: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
) -> Image.Image:
    """Lay a map over an image, which becomes grey, in colours from black over red to yellow, opaque where it is high.

    Args:
        image: RGB.
        heatmap: (rows, columns), any numbers: the lowest of them becomes black, the highest yellow, and numbers that
            are all the same black.
        area: (left, top, right, bottom) of the map as shares of the image's width and height; what lies outside is
            darkened.

    Returns:
        An image of the size of `image`.
    """
    values = np.asarray(heatmap, dtype=np.float64)
    values = ((values - values.min()) / (np.ptp(values) or 1.0)).astype(np.float32)
    left, right = (round(share * image.width) for share in area[::2])
    top, bottom = (round(share * image.height) for share in area[1::2])
    smooth = Image.fromarray(values).resize((max(right - left, 1), max(bottom - top, 1)), Image.Resampling.BICUBIC)
    strengths = Image.new("F", image.size, math.nan)
    strengths.paste(smooth, (left, top))
    strength = np.asarray(strengths).clip(0, 1)  # (height, width); bicubic interpolation overshoots
    colours = colormaps[COLOURS](strength)[..., :3]  # (height, width, 3)
    opacity = (LEAST_OPACITY + (MOST_OPACITY - LEAST_OPACITY) * strength)[..., None]
    pixels = np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255
    mixed = np.where(np.isnan(opacity), UNSEEN * pixels, (1 - opacity) * pixels + opacity * colours)
    return Image.fromarray((255 * mixed).round().astype(np.uint8))


def patch_grid(image: Image.Image, patch_size: tuple[int, int]) -> Image.Image:
    """The input of a model with lines between its patches.

    Args:
        image: RGB, as the model sees it.
        patch_size: (height, width) in pixels.
    """
    shown = readable_size(image, LEAST_SIDE, MOST_SIDE)
    draw = ImageDraw.Draw(shown)
    height, width = (length * shown.height / image.height for length in patch_size)
    for row in range(1, image.height // patch_size[0]):
        draw.line([(0, row * height), (shown.width, row * height)], fill=LINE)
    for column in range(1, image.width // patch_size[1]):
        draw.line([(column * width, 0), (column * width, shown.height)], fill=LINE)
    return shown


def heatmaps(
    maps: Tensor,
    row_names: Sequence[str],
    column_names: Sequence[str],
    title: str,
    patch_size: tuple[int, int] = (1, 1),
) -> Figure:
    """Small maps in rows and columns, each in colours from its lowest to its highest number.

    Args:
        maps: (rows, columns, height, width) of any numbers.
        row_names, column_names: beside and above them.
        title: over all of them.
        patch_size: (height, width), for the proportions of a cell.
    """
    return _tiles(colormaps[COLOURS](_stretched(maps.cpu().numpy())), row_names, column_names, title, patch_size)


def similarities(maps: Tensor, title: str, patch_size: tuple[int, int] = (1, 1)) -> Figure:
    """How alike positions are, a map for each of at most 8 x 8 of them, at its place: (N, rows, columns) of cosines.

    Args:
        maps: for each position its similarity to all.
        title: over all of them.
        patch_size: (height, width), for the proportions of a cell.
    """
    rows, columns = maps.shape[1:]
    shown = [
        np.linspace(0, side - 1, min(side, MOST_POSITIONS)).round().astype(int).tolist() for side in (rows, columns)
    ]
    tiles = np.stack([[maps[row * columns + column].cpu().numpy() for column in shown[1]] for row in shown[0]])
    down = [f"row {place + 1}" for place in shown[0]]
    across = [f"column {place + 1}" for place in shown[1]]
    scale = ScalarMappable(Normalize(min(float(tiles.min()), MOST_ALIKE), 1), "viridis")
    figure = _tiles(scale.to_rgba(tiles.reshape(-1)).reshape(*tiles.shape, 4), down, across, title, patch_size)
    figure.colorbar(scale, ax=figure.axes, label="cosine similarity", shrink=0.8)
    return figure


def filters(components: Tensor, title: str) -> Figure:
    """Filters as small images, each stretched to the range that can be shown: (number, C, height, width).

    Args:
        components: of colours, or of any other channels, of which the mean is shown.
        title: over all of them.
    """
    number, channels = components.shape[:2]
    across = min(number, math.ceil(math.sqrt(2 * number)))
    down = -(-number // across)
    values = components if channels == len("RGB") else components.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    colours = _stretched(values.cpu().numpy(), sides=3).transpose(0, 2, 3, 1)  # (number, height, width, 3)
    opaque = np.concatenate((colours, np.ones_like(colours[..., :1])), axis=-1)
    padding = np.zeros((down * across - number, *opaque.shape[1:]))
    tiles = np.concatenate((opaque, padding)).reshape(down, across, *opaque.shape[1:])
    return _tiles(tiles, [""] * down, [""] * across, title)


def _stretched(values: np.ndarray, sides: int = 2) -> np.ndarray:
    """Numbers from 0 to 1, from the lowest to the highest over the last sides of an array."""
    axes = tuple(range(-sides, 0))
    lowest, highest = values.min(axis=axes, keepdims=True), values.max(axis=axes, keepdims=True)
    return (values - lowest) / np.maximum(highest - lowest, 1e-12)


def _tiles(
    tiles: np.ndarray,
    row_names: Sequence[str],
    column_names: Sequence[str],
    title: str,
    cell: tuple[int, int] = (1, 1),
) -> Figure:
    """Small pictures (rows, columns, height, width, 4) as one: axes for each of them would take seconds."""
    rows, columns, height, width = tiles.shape[:4]
    down, across = (side // math.gcd(*cell) for side in cell)
    scale = -(-LEAST_TILE // max(down * height, across * width))  # so that a gap may be thinner than a cell
    down, across = scale * down, scale * across
    height, width = down * height, across * width
    gap = max(1, round(GAP * max(height, width)))
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4))
    for row, column in np.ndindex(rows, columns):
        top, left = row * (height + gap), column * (width + gap)
        tile = tiles[row, column].repeat(down, axis=0).repeat(across, axis=1)
        canvas[top : top + height, left : left + width] = tile
    inches = min(1.1 * columns / canvas.shape[1], *(MOST_INCHES / side for side in canvas.shape[:2]))
    size = (max(canvas.shape[1] * inches, LEAST_WIDTH - 1) + 1, max(canvas.shape[0] * inches, 1.5) + 1)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest")
    axes.xaxis.tick_top()
    axes.set_xticks([column * (width + gap) + width / 2 for column in range(columns)], column_names, fontsize=8)
    axes.set_yticks([row * (height + gap) + height / 2 for row in range(rows)], row_names, fontsize=8)
    axes.tick_params(length=0)
    axes.set_frame_on(False)
    return figure


def distances(far: Tensor, title: str) -> Figure:
    """How far each head looks, by the depth of its block: (blocks, A) in pixels.

    Args:
        far: `attention_distance`.
        title: over it.
    """
    blocks, heads = far.shape
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for head in range(heads):
        label = "a head" if head == 0 else None
        axes.plot(range(1, blocks + 1), far[:, head].cpu(), "o", markersize=4, color="tab:blue", alpha=0.6, label=label)
    axes.plot(range(1, blocks + 1), far.mean(dim=1).cpu(), color="black", linewidth=1, label="mean of the heads")
    top = float(far.max()) * (1 + MARGIN)
    axes.set(xlabel="block", ylabel="mean attention distance, pixels", title=title, ylim=(0, top or None))
    axes.set_xlim(0.5, blocks + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend()
    return figure
