# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Moving digits: a synthetic set of clips that needs no download, whose classes no single frame tells apart.

Scikit-learn's scans of handwritten digits move over a torus, a square whose opposite sides are joined; the class of a
clip is the direction. After Moving MNIST (Srivastava et al. 2015, arXiv 1502.04681), whose digits bounce.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ..system.folders import new_folder

# Split -> clips of each class.
CLIPS = {"train": 256, "validation": 50, "test": 100}
# Direction -> where a digit is after a frame at speed 1: rows further down, columns further right.
DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
FRAMES = 8
SIDE = 16
SPEEDS = (1, 2, 3)
MILLISECONDS_PER_FRAME = 100
# Where the scans of a digit that are for training end, and those for validation; the rest is for testing.
ENDS = (0.7, 0.85)


def write_moving_digits(folder: str | Path, clips: Mapping[str, int] = CLIPS, seed: int = 0) -> None:
    """Write clips as lossless animated WebP files, `folder/SPLIT/DIRECTION/NNNN.webp`; whole or not at all.

    A clip has 8 frames of 16x16 pixels, grey as RGB. Clips of one split and number have the scan, the start and the
    speed in common, so that their first frames are equal. No scan is in two splits.

    Args:
        folder: new, or empty.
        clips: how many there are of each class in `train`, `validation` and `test`; more than there are scans in the
            split show scans again, from other places. Fewer of them are the first ones of more.
        seed: says which scans are in which split, where clips start and how fast they are. With the same version of
            Pillow, the same seed gives the same bytes.

    Raises:
        ValueError: if a split has no clips, or the folder exists and is not empty, or cannot be written.
    """
    if clips.keys() != CLIPS.keys() or min(clips.values()) < 1:
        raise ValueError(f"clips is {dict(clips)}: give train, validation and test at least one each.")
    pixels, _ = _scans()
    with new_folder(folder) as root:
        for number, (split, indices) in enumerate(scans_of_splits(seed).items()):
            for direction in DIRECTIONS:
                (root / split / direction).mkdir(parents=True)
            random = np.random.default_rng([seed, number])
            for clip, (index, start, speed) in enumerate(_draws(indices, clips[split], random)):
                for direction in DIRECTIONS:
                    frames = moving(pixels[index], start, speed, direction)
                    _save(frames, root / split / direction / f"{clip:04}.webp")


def moving(scan: np.ndarray, start: tuple[int, int], speed: int, direction: str) -> np.ndarray:
    """The frames of a scan that moves over the torus.

    Args:
        scan: grey, (height, width), no larger than the frames.
        start: row and column of its upper left corner in the first frame.
        speed: pixels per frame.
        direction: one of `DIRECTIONS`.

    Returns:
        (8, 16, 16), in the dtype of the scan.
    """
    height, width = scan.shape
    canvas = np.pad(scan, ((0, SIDE - height), (0, SIDE - width)))
    corners = np.asarray(start) + speed * np.outer(np.arange(FRAMES), DIRECTIONS[direction])
    return np.stack([np.roll(canvas, corner, axis=(0, 1)) for corner in corners])


def scans_of_splits(seed: int) -> dict[str, np.ndarray]:
    """Split -> the indices of its scans among scikit-learn's 1,797, in random order, every digit in proportion."""
    _, digits = _scans()
    random = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {split: [] for split in CLIPS}
    for digit in np.unique(digits):
        scans = random.permutation(np.flatnonzero(digits == digit))
        ends = np.round(np.multiply(ENDS, len(scans))).astype(int)
        for split, part in zip(CLIPS, np.split(scans, ends), strict=True):
            found[split].append(part)
    return {split: random.permutation(np.concatenate(parts)) for split, parts in found.items()}


def _scans() -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's scans (1797, 8, 8) in 8 bits, and which digits they are (1797)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target  # the scans have 17 grey levels


def _draws(scans: np.ndarray, clips: int, random: np.random.Generator) -> Iterator[tuple[int, tuple[int, int], int]]:
    """What the clips of a split show: which scan, from which row and column, how fast."""
    rows = random.integers((0, 0, SPEEDS[0]), (SIDE, SIDE, SPEEDS[-1] + 1), (clips, 3))
    for scan, (row, column, speed) in zip(np.resize(scans, clips), rows, strict=True):
        yield int(scan), (int(row), int(column)), int(speed)


def _save(frames: np.ndarray, file: Path) -> None:
    """Write grey frames (frames, height, width) as an animation that loops."""
    first, *others = (Image.fromarray(frame).convert("RGB") for frame in frames)
    timing = {"duration": MILLISECONDS_PER_FRAME, "loop": 0}
    first.save(file, "WEBP", save_all=True, append_images=others, lossless=True, method=0, **timing)
