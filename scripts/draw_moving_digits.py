"""The picture of the moving digits: the frames of one clip of each class.

python scripts/draw_moving_digits.py [--output FILE]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from modeling_vit_scratch.data.moving_digits import DIRECTIONS, FRAMES, moving

# Which scan, from which row and column, and how many pixels it moves from frame to frame.
SCAN, START, SPEED = 4, (4, 4), 2
# Inches of a frame, and dots in each.
TILE, DPI = 0.6, 100


def strip(scan: np.ndarray) -> Figure:
    """A scan (8, 8) that moves: a row for each direction, a column for each frame."""
    figure = Figure((TILE * (FRAMES + 1), TILE * (len(DIRECTIONS) + 0.5)), layout="compressed")
    for row, direction in zip(figure.subplots(len(DIRECTIONS), FRAMES), DIRECTIONS, strict=True):
        row[0].set_ylabel(direction, rotation="horizontal", ha="right", va="center")
        for number, (axes, frame) in enumerate(zip(row, moving(scan, START, SPEED, direction), strict=True)):
            axes.imshow(frame, cmap="gray")
            axes.set_xticks([])
            axes.set_yticks([])
            if direction == next(iter(DIRECTIONS)):
                axes.set_title(f"frame {number}", fontsize=7)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the picture of the moving digits.")
    parser.add_argument("--output", type=Path, default=Path("docs/images/moving-digits.png"))
    output = parser.parse_args(arguments).output
    strip(load_digits().images[SCAN]).savefig(output, dpi=DPI)
    print(output)


if __name__ == "__main__":
    main()
