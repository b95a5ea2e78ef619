# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Small pictures and image files for the tests."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # the EXIF tag


def noise(size: tuple[int, int] = (7, 5), mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture in which no two places look the same; `size` is (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def plain(colour: int | tuple[int, ...], size: tuple[int, int] = (7, 5), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def encoded(picture: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def row(content: bytes | None, path: str | Path | None = None) -> dict:
    """One image as an undecoded image column holds it."""
    return {"bytes": content, "path": None if path is None else str(path)}


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def class_folders(root: Path, **counts: int) -> Path:
    """A folder of class folders: `class_folders(root, cat=2, dog=3)`. Each image has its own colours."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            noise(seed=index).save(root / name / f"{index:03}.png")
    return root
