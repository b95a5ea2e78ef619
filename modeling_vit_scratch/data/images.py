# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Images: what their pixels are, and why one cannot be read.

Everything that looks at an image (training, evaluation, prediction) gets its pixels from `read_image`.
"""

import importlib.util
import io
import logging
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

logger = logging.getLogger(__name__)
# Brands of what telephones write, which Pillow reads with a plugin; they stand in `ftyp`, the first box of a file.
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
UNKNOWN_FORMAT = "of no known image format"
# As much of a file as says of which format it is.
BEGINNING = 32
# Bad images, classes or labels named in one message; a thousand help nobody.
MOST_NAMED = 5


class BadImageError(ValueError):
    """An image that cannot be read; its text is one sentence that names the image."""


def read_image(image: Any, formats: list[str] | None = None) -> Image.Image:
    """Decode one image to 8-bit RGB, upright; the first frame of an animation.

    The pixels are those of transformers' pipelines (EXIF rotation applied, transparency dropped, Pillow's own
    conversion to RGB), but for 16-bit grey values: these are scaled to 8 bits, where Pillow cuts them off at 255.

    Args:
        image: a path, a PIL image, or a row of an undecoded image column, `{"bytes": …, "path": …}`.
        formats: Pillow's names of those that may be read; by default all that it decodes itself.

    Raises:
        BadImageError: if it is missing, empty, corrupt, truncated, of 32-bit values (whose range is unknown), or so
            large that it may be a decompression bomb.
    """
    with pillow_silent():
        return decoded(image, formats)


@contextmanager
def pillow_silent() -> Iterator[None]:
    """No warnings of Pillow's, about odd metadata for the most part: an image is readable or it is not.

    The filters of warnings are not each thread's own: who reads in several threads sets them once, around these.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # they name no image, and what is bad raises anyway
        yield


def decoded(
    image: Any, formats: list[str] | None = None, *, admit: Callable[[int], object] | None = None
) -> Image.Image:
    """What `read_image` does, for threads whose caller has silenced Pillow around all of them.

    Args:
        image, formats: what `read_image` takes.
        admit: is told how many pixels a file has before they are decoded, and may have them wait.
    """
    name = _image_name(image)
    try:
        given = isinstance(image, Image.Image)
        with (
            nullcontext(image)
            if given
            else Image.open(_image_file(image, name), formats=formats or formats_read()) as picture
        ):
            if admit is not None and not given:
                admit(picture.width * picture.height)
            # Pillow has read the values of a 16-bit PGM as 32-bit ones.
            is_16_bit = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM")
            if given:
                picture = ImageOps.exif_transpose(picture)
            else:
                ImageOps.exif_transpose(picture, in_place=True)  # without a copy
                picture.load()
        if is_16_bit:
            picture = Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))  # 65,535 becomes 255
        if picture.mode not in ("I", "F"):
            return picture.convert("RGB")
    except BadImageError:
        raise
    except FileNotFoundError as error:
        raise BadImageError(f"{name} does not exist.") from error
    except UnidentifiedImageError as error:
        kind = None if formats else what_heic_needs(_beginning_of(image))
        raise BadImageError(f"{name} is {kind or 'empty, or of no known image format'}.") from error
    except Image.DecompressionBombError as error:
        raise BadImageError(f"{name} is refused, it may be a decompression bomb: {error}") from error
    except Exception as error:  # Pillow's decoders raise many kinds
        reason = getattr(error, "strerror", None) or f"it is corrupt or truncated ({error})"
        raise BadImageError(f"{name} cannot be read: {reason}.") from error
    raise BadImageError(f"{name} has 32-bit values, whose range is unknown: convert it to 8 or 16 bits.")


@cache
def formats_read() -> list[str]:
    """Pillow's names of the formats that it decodes itself: for EPS it runs Ghostscript, on programs that files are."""
    Image.init()
    if importlib.util.find_spec("pillow_heif") is not None:
        try:
            import pillow_heif

            pillow_heif.register_heif_opener()
        except Exception as error:  # its library may be missing, or another version's
            logger.warning("pillow-heif is installed and cannot be used (%s): HEIC is not read.", error)
    return [name for name in Image.ID if name != "EPS"]


def beginning_of_file(path: Path) -> bytes:
    """The first bytes of a file, by which its format is known; none of what is no regular file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""  # a pipe, say, from which reading may never end
        with path.open("rb") as file:
            return file.read(BEGINNING)
    except OSError:
        return b""


def what_heic_needs(beginning: bytes) -> str | None:
    """Why a file that begins as HEIC is not read; nothing of others."""
    if beginning[4:8] != b"ftyp" or beginning[8:12] not in HEIC_BRANDS:
        return None
    if "HEIF" in formats_read():
        return "HEIC of a kind that pillow-heif does not read"
    return 'HEIC, which is read after pip install "vit-scratch[heif]"'


def _image_name(image: Any) -> str:
    if isinstance(image, Image.Image):
        image = getattr(image, "filename", None)
    elif isinstance(image, dict):
        image = image["path"]
    return str(image or "the image")


def _beginning_of(image: Any) -> bytes:
    if isinstance(image, dict):
        if image["bytes"] is not None:
            return bytes(image["bytes"][:BEGINNING])
        image = image["path"]
    return beginning_of_file(Path(image))


def _image_file(image: Any, name: str) -> Any:
    if isinstance(image, dict):
        image = image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"])
    if image is None:
        raise BadImageError(f"{name} is missing: the row holds none.")
    if not isinstance(image, io.BytesIO) and os.path.exists(image):
        kind = os.stat(image).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise BadImageError(f"{name} is no regular file.")  # a pipe, say, from which reading may never end
    return image
