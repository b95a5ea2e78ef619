# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What is seen inside a model, as pictures."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw
from torch import Tensor

from .attention import COLOURS, overlay
from .inputs import readable_size

# Pixels of the longer side of pictures of images.
LEAST_SIDE, MOST_SIDE = 384, 1024
# Positions whose similarity is shown, down and across at most.
MOST_POSITIONS = 8
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


def heatmaps(maps: Tensor, row_names: Sequence[str], column_names: Sequence[str], title: str) -> Figure:
    """Small maps in rows and columns, each in colours from its lowest to its highest number.

    Args:
        maps: (rows, columns, height, width) of any numbers.
        row_names, column_names: beside and above them.
        title: over all of them.
    """
    return _tiles(maps.cpu().numpy(), row_names, column_names, title, {"cmap": COLOURS})


def similarities(maps: Tensor, title: str) -> Figure:
    """How alike positions are, a map for each of at most 8 x 8 of them, at its place: (N, rows, columns) of cosines.

    Args:
        maps: for each position its similarity to all.
        title: over all of them.
    """
    rows, columns = maps.shape[1:]
    shown = [
        np.linspace(0, side - 1, min(side, MOST_POSITIONS)).round().astype(int).tolist() for side in (rows, columns)
    ]
    tiles = np.stack([[maps[row * columns + column].cpu().numpy() for column in shown[1]] for row in shown[0]])
    down, across = ([str(place + 1) for place in places] for places in shown)
    return _tiles(tiles, down, across, title, {"cmap": "viridis", "vmin": -1, "vmax": 1}, bar="cosine similarity")


def filters(components: Tensor, title: str) -> Figure:
    """Filters as small images, each stretched to the range that can be shown: (number, C, height, width).

    Args:
        components: of colours, or of any other channels, of which the mean is shown.
        title: over all of them.
    """
    number, channels = components.shape[:2]
    across = min(number, math.ceil(math.sqrt(2 * number)))
    down = -(-number // across)
    values = components.cpu().numpy()
    values = values.transpose(0, 2, 3, 1) if channels == 3 else values.mean(axis=1)
    lowest, highest = (bound(values.reshape(number, -1), axis=1) for bound in (np.min, np.max))
    shape = (number,) + (1,) * (values.ndim - 1)
    values = (values - lowest.reshape(shape)) / np.maximum(highest - lowest, 1e-12).reshape(shape)
    padding = np.full((down * across - number, *values.shape[1:]), np.nan)
    tiles = np.concatenate((values, padding)).reshape(down, across, *values.shape[1:])
    return _tiles(tiles, [""] * down, [""] * across, title, {"cmap": "gray"})


def _tiles(
    tiles: np.ndarray, row_names: Sequence[str], column_names: Sequence[str], title: str, options: Any, bar: str = ""
) -> Figure:
    rows, columns, height, width = tiles.shape[:4]
    side = min(1.1, 16 / max(rows, columns))
    figure = Figure(
        figsize=(max(columns * side, 3) + 1, max(rows * side * height / width, 1.5) + 1), layout="constrained"
    )
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False)
    drawn = None
    for row in range(rows):
        for column in range(columns):
            axis = axes[row, column]
            axis.set_xticks([])
            axis.set_yticks([])
            if np.isnan(tiles[row, column]).all():
                axis.axis("off")
                continue
            drawn = axis.imshow(tiles[row, column], **options)
            if row == 0:
                axis.set_title(column_names[column], fontsize=8)
            if column == 0:
                axis.set_ylabel(row_names[row], fontsize=8)
    if bar and drawn is not None:
        figure.colorbar(drawn, ax=axes, label=bar, shrink=0.8)
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
        axes.plot(range(1, blocks + 1), far[:, head].cpu(), "o", markersize=4)
    axes.plot(range(1, blocks + 1), far.mean(dim=1).cpu(), color="black", linewidth=1, label="mean of the heads")
    axes.set(xlabel="block", ylabel="mean attention distance, pixels", title=title, ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure
