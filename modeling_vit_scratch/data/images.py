# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Image files: which they are, what their pixels are, and why one cannot be read.

Everything that looks at an image (training, evaluation, prediction) gets its pixels from `read_image`.
"""

import importlib.util
import io
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

# The suffixes of what people keep photographs, scans and drawings in; Pillow reads all of them.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp"),
    *(".dib", ".jp2", ".j2k", ".ico", ".tga", ".ppm", ".pgm", ".pbm", ".pnm"),
)
# What telephones write, which Pillow reads with a plugin; the brands are those of `ftyp`, the first box of a file.
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
# Formats of which Pillow knows the beginning, and reads nothing without a handler that someone brings.
WITHOUT_DECODER = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
# Tables of labels, and what systems leave in folders: no one misses them among the images.
NO_IMAGES = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "thumbs.db", "desktop.ini")
EPS = (b"%!PS", b"\xc5\xd0\xd3\xc6")
UNKNOWN_FORMAT = "of no known image format"
# As much of a file as says of which format it is.
BEGINNING = 32
# Bad images, classes or labels named in one message; a thousand help nobody.
MOST_NAMED = 5


def images_in(folder: Path, others: list[Path] | None = None) -> Iterator[Path]:
    """The image files of a folder and of the folders in it, in the order of their names.

    They are known by their suffix, and files with another one by their first bytes. What is hidden is left out, and
    links to folders are not followed: they may lead in a circle, or into the folder of another class.

    Args:
        folder: to look in.
        others: a list that is given the other files, but for texts and tables, which no one takes for images.
    """
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(files):
            path = Path(parent, name)
            if is_hidden(name) or name.lower() in NO_IMAGES:
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES or _begins_as_image(path):
                yield path
            elif others is not None and path.suffix.lower() != ".parquet" and not _is_text(path):
                others.append(path)


def _begins_as_image(path: Path) -> bool:
    """Whether the first bytes of a file are those of a format that is read."""
    beginning = _beginning(path)
    for name in _formats() if len(beginning) == BEGINNING else ():
        accepts = Image.OPEN[name][1]
        # Some accept a file to say, in a text, that they cannot read it.
        if accepts is not None and name not in WITHOUT_DECODER and accepts(beginning) is True:
            return True
    return False


def _beginning(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""  # a pipe, say, from which reading may never end
        with path.open("rb") as file:
            return file.read(BEGINNING)
    except OSError:
        return b""


def _is_text(path: Path) -> bool:
    """Whether a file begins as a text, and not as one that describes a picture."""
    beginning = _beginning(path)
    printable = not beginning.translate(None, bytes(range(32, 256)) + b"\t\n\r")
    return bool(beginning) and printable and not beginning.startswith(EPS)


def why_not_read(path: Path) -> str:
    """Why a file that `images_in` left out is none of its images."""
    beginning = _beginning(path)
    if beginning[4:8] == b"ftyp" and beginning[8:12] in HEIC_BRANDS:
        return 'HEIC, which is read after pip install "vit-scratch[heif]"'
    if beginning.startswith(EPS):
        return "EPS, a program, which is not run"
    return UNKNOWN_FORMAT


def not_read(others: list[Path], where: Path) -> str:
    """A sentence about the files of a folder that are not read: how many, and some of them, each with its reason."""
    named = [f"{path.relative_to(where)} ({why_not_read(path)})" for path in others[:MOST_NAMED]]
    more = ", …" if len(others) > MOST_NAMED else ""
    return f"{len(others):,} file{'s' * (len(others) > 1)} in {where} not read: {', '.join(named)}{more}"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that systems leave behind, not people."""
    return name.startswith((".", "__MACOSX", "@eaDir"))


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
            else Image.open(_image_file(image, name), formats=formats or _formats()) as picture
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
        raise BadImageError(f"{name} is empty, or of no known image format.") from error
    except Image.DecompressionBombError as error:
        raise BadImageError(f"{name} is refused, it may be a decompression bomb: {error}") from error
    except Exception as error:  # Pillow's decoders raise many kinds
        reason = getattr(error, "strerror", None) or f"it is corrupt or truncated ({error})"
        raise BadImageError(f"{name} cannot be read: {reason}.") from error
    raise BadImageError(f"{name} has 32-bit values, whose range is unknown: convert it to 8 or 16 bits.")


@cache
def _formats() -> list[str]:
    """Pillow's names of the formats that it decodes itself: for EPS it runs Ghostscript, on programs that files are."""
    Image.init()
    if importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
    return [name for name in Image.ID if name != "EPS"]


def _image_name(image: Any) -> str:
    if isinstance(image, Image.Image):
        image = getattr(image, "filename", None)
    elif isinstance(image, dict):
        image = image["path"]
    return str(image or "the image")


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
