# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What clients of the page send. All of it is hostile until it is checked: a path may name any file, or none.

Gradio checks paths only where a client marks them as files, so each is checked here, where the file is opened.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from PIL import Image

from ..data.image_files import IMAGE_SUFFIXES
from ..data.images import BadImageError, read_image
from ..text import for_terminal

MOST_BYTES = 50_000_000  # of a file
# Of an image once it is decoded. Pillow refuses to decode more than 179 million.
MOST_PIXELS = 50_000_000
# The longer side by the shorter one: a processor that makes the shorter one 224 pixels long makes a sliver enormous.
MOST_ELONGATED = 100
# Of one request.
MOST_IMAGES = 1000
# Characters of a file's name; as many bytes as file systems have.
LONGEST_NAME = 255
# Held while an image is decoded, which takes several times the memory of its pixels: one at a time, whoever asks.
DECODING = Lock()


@contextmanager
def pixels_limited() -> Iterator[None]:
    """Have Pillow refuse images of more than `MOST_PIXELS`, those inside of icons and the like, too.

    Its limit is one of the process, which has nothing else to do while it serves.
    """
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # from there on it warns, and refuses from twice that on
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def names_url(data: Any) -> bool:
    """Whether a URL stands where the path of a file belongs, anywhere in the JSON of a request."""
    if isinstance(data, dict):
        path = data.get("path")
        return (isinstance(path, str) and "://" in path) or any(map(names_url, data.values()))
    return isinstance(data, list) and any(map(names_url, data))


def read_upload(upload: Any) -> tuple[str, Image.Image]:
    """Read an image that a client says it uploaded.

    Args:
        upload: what it sent: `{"path": …, "orig_name": …}`, or anything.

    Returns:
        The name that the file has for its user, and the image, RGB.

    Raises:
        ValueError: in one sentence, the same for a file that is not there and for one that is not the client's
            business.
    """
    given = upload if isinstance(upload, dict) else {}
    name = _shown_name(given.get("orig_name") or given.get("path"))
    content = _content(given.get("path"), name)
    try:
        with DECODING:
            image = read_image({"bytes": content, "path": name}, formats=_formats())
    except BadImageError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise ValueError(f"{name} has more than {MOST_PIXELS:,} pixels: upload a smaller image.") from error
        raise
    if max(image.size) > MOST_ELONGATED * min(image.size):
        size = f"{image.width:,} × {image.height:,} pixels"
        raise ValueError(f"{name} is {size}: one side may be {MOST_ELONGATED} times as long as the other at most.")
    return name, image


def _shown_name(name: Any) -> str:
    text = os.path.basename(name) if isinstance(name, str) else ""
    return for_terminal(text)[:LONGEST_NAME] or "the image"


def _content(path: Any, name: str) -> bytes:
    """The bytes of a file in the folder of uploads, links followed; no more of them than `MOST_BYTES`."""
    folder = os.path.realpath(os.environ["GRADIO_TEMP_DIR"])
    try:
        place = os.path.realpath(path)
        if not place.startswith(folder + os.sep):
            raise FileNotFoundError(path)
        # A link or a pipe that took the file's place meanwhile is not opened, or not waited for.
        descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise FileNotFoundError(path)
            if about.st_size > MOST_BYTES:
                raise BadImageError(f"{name} has more than {MOST_BYTES // 1_000_000} MB: upload a smaller file.")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(about.st_size)
        finally:
            os.close(descriptor)
    except BadImageError:
        raise
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is not among the files that were uploaded to this page: upload it again.") from error


@cache
def _formats() -> list[str]:
    """Pillow's names for the formats of `IMAGE_SUFFIXES`: others run programs, or have decoders that few have tried."""
    known = Image.registered_extensions()
    return sorted({known[suffix] for suffix in IMAGE_SUFFIXES if suffix in known})
