# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Videos: the frames of a file or of a folder of images, by number, to the bit those of decoding from the start.

    video = open_video("clip.mp4")
    clip = video.read(range(0, 64, 2))  # (32, height, width, 3)

Files of `VIDEO_SUFFIXES` are decoded by PyAV (`pip install "vit-scratch[video]"`), animations and folders of frames by
Pillow. What is read may come from anybody: no file makes this one run a program, or open another file.

What is damaged: a file that ends too early (cut off while it was copied, or shorter than it declares) is a video that
ends with its last whole frame. A frame that is there and cannot be decoded, or needs one that cannot, raises
`VideoError` when it is read; frames that do not need it are read. Codecs have no checksums: noise that decodes to a
picture is seen by nobody.

This file needs numpy, Pillow, and `decoding_vivit_scratch.py`.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from .decoding_vivit_scratch import RATE, VideoError, VideoFile

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv")
ANIMATION_SUFFIXES = (".gif", ".webp", ".apng")
# Of the images that are the frames of a folder.
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
# What browsers show a frame for that says no time, in milliseconds.
UNTIMED = 100

# Pillow's names of what is read. For others it would run a program (EPS).
ANIMATIONS = ("GIF", "WEBP", "PNG")
PICTURES = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "PPM")


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a file is named as a video or an animation is; a still GIF or WebP is a video of one frame."""
    name = Path(path).name.lower()
    return not name.startswith(".") and name.endswith((*VIDEO_SUFFIXES, *ANIMATION_SUFFIXES))


def frame_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The images that lie in a folder, in the order that their numbers say: frame2 before frame10."""
    names = (entry.name for entry in os.scandir(folder) if not entry.is_dir())
    frames = [name for name in names if not name.startswith(".") and name.lower().endswith(FRAME_SUFFIXES)]
    return [Path(folder, name) for name in sorted(frames, key=lambda name: (_natural(name), name))]


def _natural(name: str) -> list[str | int]:
    """Texts and numbers in turn, which compare as people count."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", name.lower()))]


class Frames(Protocol):
    """Where frames come from."""

    @property
    def num_frames(self) -> int: ...

    @property
    def timestamps(self) -> np.ndarray: ...

    def frames(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers and pixels of frames, in any order, given their numbers, rising: all of them or a VideoError."""
        ...


class Video:
    """The frames of a file or folder, which is open only while frames are read; made by `open_video`."""

    def __init__(self, path: Path, source: Frames):
        self.path = path
        self._source = source
        self._size: tuple[int, int] | None = None

    @property
    def num_frames(self) -> int:
        """Frames that there are, whatever the file declares."""
        return self._source.num_frames

    @property
    def timestamps(self) -> np.ndarray:
        """When each frame is shown: (num_frames,) float64, in seconds from the first frame on, rising."""
        return self._source.timestamps

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels, upright; the first is decoded for it."""
        if self._size is None:
            self.read([0])
        assert self._size is not None
        return self._size

    def read(self, indices: Sequence[int] | np.ndarray | range) -> np.ndarray:
        """Decode frames.

        Args:
            indices: numbers of frames from 0 on, in any order, repeats allowed.

        Returns:
            uint8 RGB, (len(indices), height, width, 3), upright; transparency is dropped.

        Raises:
            VideoError: if there are not so many frames, or if one of them cannot be decoded.
        """
        numbers = np.asarray(indices, dtype=np.int64 if len(indices) == 0 else None)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise VideoError(f"Frames of {self.path} are read by whole numbers, not by {numbers.tolist()!r}.")
        for number in numbers[(numbers < 0) | (numbers >= self.num_frames)]:
            raise VideoError(f"{self.path} has {self.num_frames} frames, numbered from 0: there is no frame {number}.")
        if not len(numbers):
            return np.empty((0, *self.size, 3), np.uint8)
        clip = None
        for number, pixels in self._source.frames(np.unique(numbers).tolist()):
            self._check_size(number, pixels.shape[:2])
            clip = np.empty((len(numbers), *pixels.shape), np.uint8) if clip is None else clip
            clip[numbers == number] = pixels
        assert clip is not None
        return clip

    def _check_size(self, number: int, size: tuple[int, ...]) -> None:
        if self._size is None:
            self._size = (size[0], size[1])
        if size != self._size:
            (height, width), (old_height, old_width) = size, self._size
            raise VideoError(
                f"{self.path} has frames of several sizes, {old_width}x{old_height} and, frame {number}, "
                f"{width}x{height}, where a video has one."
            )


def open_video(path: str | os.PathLike[str]) -> Video:
    """Find the frames of a video, without decoding them.

    Args:
        path: of a video file (`VIDEO_SUFFIXES`, by PyAV), of an animated GIF, WebP or PNG, or of a folder with an image
            for each frame (`FRAME_SUFFIXES`).

    Raises:
        VideoError: if it is missing, empty, not a video, without pictures or a whole frame, so large that it may be a
            decompression bomb, or if PyAV is needed and not installed.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return Video(path, _Folder(path))
        if not stat.S_ISREG(mode):
            raise VideoError(f"{path} is no regular file.")  # a pipe, say, from which reading may never end
        if path.stat().st_size == 0:
            raise VideoError(f"{path} is empty.")
    except FileNotFoundError as error:
        raise VideoError(f"{path} does not exist.") from error
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {error.strerror}.") from error
    is_for_pillow = path.name.lower().endswith((*ANIMATION_SUFFIXES, *FRAME_SUFFIXES))
    return Video(path, _Animation(path) if is_for_pillow else VideoFile(path))


class _Animation:
    """A GIF, WebP or PNG with any number of frames, by Pillow."""

    def __init__(self, path: Path):
        self.path = path
        with self._opened() as image:
            self.num_frames = getattr(image, "n_frames", 1)

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        with _pillow(self.path), Image.open(self.path, formats=(*ANIMATIONS, *PICTURES)) as image:
            yield image

    @cached_property
    def timestamps(self) -> np.ndarray:
        ends = [0.0]
        with self._opened() as image:
            for number in range(self.num_frames - 1):
                image.seek(number)
                image.load()  # WebP says it only now
                ends.append(ends[-1] + (image.info.get("duration") or UNTIMED))
        return np.array(ends) / 1000

    def frames(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        with self._opened() as image:
            for number in wanted:
                image.seek(number)
                yield number, _pixels(image, self.path)


class _Folder:
    """A folder with an image for each frame, by Pillow."""

    def __init__(self, path: Path):
        self.files = frame_files(path)
        if not self.files:
            raise VideoError(f"{path} holds no frames, which are images ({', '.join(FRAME_SUFFIXES)}).")
        self.num_frames = len(self.files)

    @property
    def timestamps(self) -> np.ndarray:
        return np.arange(self.num_frames) / RATE  # a folder does not say

    def frames(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for number in wanted:
            path = self.files[number]
            with _pillow(path), Image.open(path, formats=PICTURES) as image:
                yield number, _pixels(image, path)


def _pixels(image: Image.Image, path: Path) -> np.ndarray:
    """Upright RGB of the frame that an image is at, (height, width, 3)."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise VideoError(f"{path} has values of more than 8 bits, whose range is unknown: convert it to 8 bits.")
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@contextmanager
def _pillow(path: Path) -> Iterator[None]:
    """Errors of Pillow's as ours."""
    Image.init()  # or some of its formats are not known yet
    try:
        yield
    except VideoError:
        raise
    except Image.UnidentifiedImageError as error:
        raise VideoError(f"{path} is empty, or of no format that is read.") from error
    except Image.DecompressionBombError as error:
        raise VideoError(f"{path} is refused, it may be a decompression bomb: {error}") from error
    except Exception as error:  # its decoders raise many kinds
        reason = getattr(error, "strerror", None) or f"it is damaged or cut off ({error})"
        raise VideoError(f"{path} cannot be read: {reason}.") from error
