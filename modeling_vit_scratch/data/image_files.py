# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Which files of a folder are images, and why another one is not read."""

import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from .images import BEGINNING, MOST_NAMED, UNKNOWN_FORMAT, beginning_of_file, formats_read, what_heic_needs

# The suffixes of what people keep photographs, scans and drawings in; Pillow reads all of them.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp"),
    *(".dib", ".jp2", ".j2k", ".ico", ".tga", ".ppm", ".pgm", ".pbm", ".pnm"),
)
# Formats of which Pillow knows the beginning, and reads nothing without a handler that someone brings.
WITHOUT_DECODER = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
# Tables of labels, and what systems leave in folders: no one misses them among the images.
NO_IMAGES = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "thumbs.db", "desktop.ini")
EPS = (b"%!PS", b"\xc5\xd0\xd3\xc6")
TEXTS = (".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".html", ".log")
# What holds many files.
PACKED = {
    ".parquet": "a parquet file, to be given by itself",
    ".tar": "a tar file, to be given by itself",
    **dict.fromkeys((".zip", ".7z", ".rar", ".gz", ".tgz"), "an archive, to be unpacked"),
}
# Pictures that begin as a text does, and are not taken for one.
DRAWINGS = (*EPS, b"%PDF", b"<svg")


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
    beginning = beginning_of_file(path)
    for name in formats_read() if len(beginning) == BEGINNING else ():
        accepts = Image.OPEN[name][1]
        # Some accept a file to say, in a text, that they cannot read it.
        if accepts is not None and name not in WITHOUT_DECODER and accepts(beginning) is True:
            return True
    return False


def _is_text(path: Path) -> bool:
    """Whether a file begins as a text, and not as one that describes a picture, or is an empty one by its name."""
    beginning = beginning_of_file(path)
    if not beginning and path.suffix.lower() in TEXTS and path.is_file():
        return True
    printable = not beginning.translate(None, bytes(range(32, 256)) + b"\t\n\r")
    return bool(beginning) and printable and path.suffix.lower() != ".svg" and not beginning.startswith(DRAWINGS)


def why_not_read(path: Path) -> str:
    """Why a file or folder that `images_in` left out is none of its images."""
    if path.is_dir():
        return "a link to a folder, not followed" if path.is_symlink() else "a folder that cannot be opened"
    if path.suffix.lower() in PACKED:
        return PACKED[path.suffix.lower()]
    if path.is_symlink() and not path.exists():
        return "a link to something that does not exist"
    beginning = beginning_of_file(path)
    if beginning.startswith(EPS):
        return "EPS, a program, which is not run"
    if beginning.startswith(b"%PDF"):
        return "PDF, a document"
    if beginning.startswith(b"<svg") or (beginning and path.suffix.lower() == ".svg"):
        return "SVG, a drawing, which has no pixels"
    return what_heic_needs(beginning) or UNKNOWN_FORMAT


def not_read(others: list[Path], where: Path) -> str:
    """A sentence about the files of a folder that are not read: how many, and some of them, each with its reason."""
    reasons: dict[str, list[str]] = {}
    for path in others[:MOST_NAMED]:
        reasons.setdefault(why_not_read(path), []).append(str(path.relative_to(where)))
    named = [f"{', '.join(names)} ({reason})" for reason, names in reasons.items()]
    more = ", …" if len(others) > MOST_NAMED else ""
    folders = sum(path.is_dir() for path in others)
    kinds = [f"{n:,} {kind}{'s' * (n > 1)}" for n, kind in ((len(others) - folders, "file"), (folders, "folder")) if n]
    return f"{' and '.join(kinds)} in {where} not read: {', '.join(named)}{more}"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that systems leave behind, not people."""
    return name.startswith((".", "__MACOSX", "@eaDir"))
