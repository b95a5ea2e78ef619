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
# Brands of what telephones write, which Pillow reads with a plugin; they stand in `ftyp`, the first box of a file.
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
# Formats of which Pillow knows the beginning, and reads nothing without a handler that someone brings.
WITHOUT_DECODER = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
# Tables of labels, and what systems leave in folders: no one misses them among the images.
NO_IMAGES = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "thumbs.db", "desktop.ini")
EPS = (b"%!PS", b"\xc5\xd0\xd3\xc6")
# Pictures that begin as a text does, and are not taken for one.
DRAWINGS = (*EPS, b"%PDF", b"<svg")
UNKNOWN_FORMAT = "of no known image format"
# As much of a file as says of which format it is.
BEGINNING = 32
# Bad images, classes or labels named in one message; a thousand help nobody.
MOST_NAMED = 5


def images_in(folder: Path, others: list[Path] | None = None) -> Iterator[Path]:
    """The image files of a folder and of the folders in it, in the order of their names.

    They are known by their suffix, and files with another one by their first bytes. What is hidden is left out. A link
    to a folder is followed where no images lie beside it, as class folders are, unless it leads in a circle.

    Args:
        folder: to look in.
        others: a list that is given what else lies there and is not read, but for texts, which no one takes for images.
    """
    return _images_below(folder, [] if others is None else others, (Path(os.path.realpath(folder)),))


def _images_below(folder: Path, others: list[Path], above: tuple[Path, ...]) -> Iterator[Path]:
    """Walk a folder, given where it and the folders that led to it really are."""
    closed: list[OSError] = []
    _, folders, files = next(os.walk(folder, onerror=closed.append), ("", [], []))
    if closed:
        others.append(folder)
    holds_images = False
    for path in (Path(folder, name) for name in sorted(files)):
        if is_image(path):
            holds_images = True
            yield path
        elif is_missed(path):
            others.append(path)
    for path in (Path(folder, name) for name in sorted(folders) if not is_hidden(name)):
        real = above[-1] / path.name
        if path.is_symlink():
            real = Path(os.path.realpath(path))
            if holds_images or any(place.is_relative_to(real) for place in above):
                others.append(path)
                continue
        yield from _images_below(path, others, (*above, real))


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its suffix or else by its first bytes."""
    if is_hidden(path.name) or path.name.lower() in NO_IMAGES:
        return False
    return path.suffix.lower() in IMAGE_SUFFIXES or _begins_as_image(path)


def is_missed(path: Path) -> bool:
    """Whether somebody may have wanted a file that is no image to be read as one."""
    return not (is_hidden(path.name) or path.name.lower() in NO_IMAGES or _is_text(path))


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
    return bool(beginning) and printable and path.suffix.lower() != ".svg" and not beginning.startswith(DRAWINGS)


def why_not_read(path: Path) -> str:
    """Why a file or folder that `images_in` left out is none of its images."""
    if path.is_dir():
        return "a link to a folder, not followed" if path.is_symlink() else "a folder that cannot be opened"
    if path.suffix.lower() == ".parquet":
        return "a parquet file, to be given by itself"
    beginning = _beginning(path)
    if beginning.startswith(EPS):
        return "EPS, a program, which is not run"
    if beginning.startswith(b"%PDF"):
        return "PDF, a document"
    if beginning.startswith(b"<svg") or (beginning and path.suffix.lower() == ".svg"):
        return "SVG, a drawing, which has no pixels"
    return _heic(beginning) or UNKNOWN_FORMAT


def _heic(beginning: bytes) -> str | None:
    """Why a file that begins as HEIC is not read; nothing of others."""
    if beginning[4:8] != b"ftyp" or beginning[8:12] not in HEIC_BRANDS:
        return None
    if "HEIF" in _formats():
        return "HEIC of a kind that pillow-heif does not read"
    return 'HEIC, which is read after pip install "vit-scratch[heif]"'


def not_read(others: list[Path], where: Path) -> str:
    """A sentence about the files of a folder that are not read: how many, and some of them, each with its reason."""
    named = [f"{path.relative_to(where)} ({why_not_read(path)})" for path in others[:MOST_NAMED]]
    more = ", …" if len(others) > MOST_NAMED else ""
    folders = sum(path.is_dir() for path in others)
    kinds = [f"{n:,} {kind}{'s' * (n > 1)}" for n, kind in ((len(others) - folders, "file"), (folders, "folder")) if n]
    return f"{' and '.join(kinds)} in {where} not read: {', '.join(named)}{more}"


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
        kind = None if formats else _heic(_beginning_of(image))
        raise BadImageError(f"{name} is {kind or 'empty, or of no known image format'}.") from error
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


def _beginning_of(image: Any) -> bytes:
    if isinstance(image, dict):
        if image["bytes"] is not None:
            return bytes(image["bytes"][:BEGINNING])
        image = image["path"]
    return _beginning(Path(image))


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
