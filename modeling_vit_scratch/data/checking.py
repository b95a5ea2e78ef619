# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The check of all images before hours are spent on training: which can be read, and which have the same content.

Each image is decoded once, by one of the processes that work together, and told from others by a digest of its file.
What was found readable can be kept: the next check only asks for the sizes and times of the files, and does not decode
content that it knows.
"""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch.distributed
from accelerate.utils import gather_object
from datasets import Dataset, DatasetDict
from tqdm.auto import tqdm

from ..system.machine import own_cores
from ..text import counted
from .columns import listed
from .images import MOST_NAMED, BadImageError, decoded, pillow_silent

# Images whose files are in memory at once while they are checked.
CHECKED_TOGETHER = 256
# Of a digest: among a hundred million images one of four thousand checks would take two for the same.
DIGEST_BYTES = 8


class KnownImages:
    """Images that could be read, by what tells a file from others and by their content; both are 64-bit digests.

    Args:
        keys: (M,), of the path, size and time of each file; of an image without a file of its own, its content's.
        contents: (M,), of what is in the files.
    """

    def __init__(self, keys: np.ndarray, contents: np.ndarray):
        order = np.argsort(keys, kind="stable")
        self.keys, self.contents = keys[order], contents[order]
        self.sorted_contents = np.sort(contents)

    @classmethod
    def read(cls, path: Path) -> "KnownImages":
        """Those that a file names; none if there is no such file, or a broken one."""
        try:
            table = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return NO_IMAGES
        usable = isinstance(table, np.ndarray) and table.dtype == np.uint64 and table.ndim == 2 and len(table) == 2
        return cls(*table) if usable else NO_IMAGES

    def write(self, path: Path) -> None:
        """Write a file of 16 bytes an image."""
        with path.open("wb") as file:
            np.save(file, np.stack((self.keys, self.contents)), allow_pickle=False)

    def content_of(self, key: int) -> int | None:
        """The digest of the content of a file, if it is known."""
        place = _place(self.keys, key)
        return None if place is None else int(self.contents[place])

    def __contains__(self, content: int) -> bool:
        return _place(self.sorted_contents, content) is not None


def _place(numbers: np.ndarray, number: int) -> int | None:
    place = int(np.searchsorted(numbers, np.uint64(number)))
    return place if place < len(numbers) and numbers[place] == number else None


NO_IMAGES = KnownImages(np.empty(0, np.uint64), np.empty(0, np.uint64))


class CheckedImages(NamedTuple):
    """The images that can be read."""

    splits: DatasetDict
    contents: dict[str, np.ndarray]  # split -> (N,), a digest of the content of each image
    left_out: list[str]  # a sentence for each image that cannot be read
    known: KnownImages  # for the next check


def check_images(splits: DatasetDict, *, strict: bool, known: KnownImages = NO_IMAGES) -> CheckedImages:
    """Check that every image can be read; processes that work together share them out.

    Args:
        splits: the images.
        strict: refuse bad images instead of leaving them out.
        known: those that need not be decoded.

    Raises:
        ValueError: if images are bad and that is not to be, or none of a split can be read; it names the first ones.
    """
    result, contents, keys, left_out = {}, {}, [], []
    for name, dataset in splits.items():
        found = examine(dataset, f"checking the images of {name}", known)
        bad = found.bad
        if bad and strict:
            raise ValueError(
                f"{len(bad):,} of the {counted(dataset.num_rows, 'image')} of the {name} split cannot be read; repair "
                f"or delete them, or leave out --strict_images. {' '.join(list(bad.values())[:MOST_NAMED])}"
                + (" …" if len(bad) > MOST_NAMED else "")
            )
        if len(bad) == dataset.num_rows:
            reason = next(iter(bad.values()), "")
            raise ValueError(
                f"none of the {counted(dataset.num_rows, 'image')} of the {name} split can be read: {reason}"
            )
        left_out += list(bad.values())
        good = np.delete(np.arange(dataset.num_rows), list(bad))
        result[name] = dataset.select(good) if bad else dataset
        keys.append(found.keys[good])
        contents[name] = found.contents[good]
    seen = KnownImages(np.concatenate(keys), np.concatenate(list(contents.values()))) if keys else NO_IMAGES
    return CheckedImages(DatasetDict(result), contents, left_out, seen)


class Examined(NamedTuple):
    """What was found of N images: `KnownImages`' digests (N,), and row -> what is wrong with it."""

    keys: np.ndarray
    contents: np.ndarray
    bad: dict[int, str]


def examine(dataset: Dataset, description: str, known: KnownImages = NO_IMAGES) -> Examined:
    """Look at every image of a dataset once, with a progress bar."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, processes = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)
    rows = range(rank, dataset.num_rows, processes)
    share = dataset.select_columns("image").select(rows) if together else dataset.select_columns("image")
    part = Examined(np.zeros(len(rows), np.uint64), np.zeros(len(rows), np.uint64), {})
    bar = tqdm(total=len(rows), desc=description, unit="image", leave=False, disable=None if rank == 0 else True)
    with pillow_silent(), ThreadPoolExecutor(own_cores()) as pool, bar:
        starts = range(0, len(rows), CHECKED_TOGETHER)
        for start, batch in zip(starts, share.iter(CHECKED_TOGETHER), strict=True):
            images = batch["image"]
            found = pool.map(partial(_examined, known=known), images)
            for place, (image, seen) in enumerate(zip(images, found, strict=True), start):
                if isinstance(seen, str):
                    part.bad[rows[place]] = seen if _is_in_place(image) else f"row {rows[place]}: {seen}"
                else:
                    part.keys[place], part.contents[place] = seen
            bar.update(len(images))
    return _joined(gather_object([part]), dataset.num_rows) if together else part


def _joined(parts: list[Examined], num_rows: int) -> Examined:
    whole = Examined(np.zeros(num_rows, np.uint64), np.zeros(num_rows, np.uint64), {})
    for rank, part in enumerate(parts):
        whole.keys[rank :: len(parts)], whole.contents[rank :: len(parts)] = part.keys, part.contents
        whole.bad.update(part.bad)
    return whole._replace(bad=dict(sorted(whole.bad.items())))


def _examined(image: Any, known: KnownImages) -> tuple[int, int] | str:
    """The key of an image and the digest of its content, or what is wrong with it."""
    try:
        key = _file_key(image) if _is_in_place(image) else None
        content = None if key is None else known.content_of(key)
        if content is None:
            image = _with_content(image)
            content = _digest(image["bytes"])
            if content not in known:
                decoded(image)
        return content if key is None else key, content
    except BadImageError as error:
        return str(error)


def _is_in_place(image: Any) -> bool:
    """Whether an image is a file that is read where it lies."""
    return image is not None and image["bytes"] is None and image["path"] is not None


def _file_key(image: Any) -> int | None:
    """What tells a file from others and from what it was; nothing if it is no regular one."""
    try:
        status = os.stat(image["path"])
    except OSError:
        return None
    name = f"{image['path']}\0{status.st_size}\0{status.st_mtime_ns}"
    return _digest(name.encode()) if stat.S_ISREG(status.st_mode) else None


def _with_content(image: Any) -> dict[str, Any]:
    """An image with the bytes of its file; what keeps them from being read, `decoded` says."""
    if image is not None and image["bytes"] is not None:
        return image
    try:
        if _is_in_place(image) and os.path.isfile(image["path"]):
            return {**image, "bytes": Path(image["path"]).read_bytes()}
    except OSError:
        pass
    decoded(image)
    raise BadImageError(f"{image['path']} changed while it was checked.")


def _digest(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=DIGEST_BYTES).digest(), "little")


def duplicates(splits: DatasetDict, contents: dict[str, np.ndarray]) -> dict[str, str]:
    """Which images have the same content, byte for byte, and are in two splits or two classes.

    Returns:
        How many, in words -> the names of the first ones.
    """
    found = {}
    for one, other in combinations(contents, 2):
        rows = np.flatnonzero(np.isin(contents[other], contents[one]))
        if len(rows):
            some = f"{_images_are(len(rows), f' of {other}')} in {one}, too"
            found[some] = listed(_name(splits[other], row) for row in rows[: MOST_NAMED + 1])
    pairs = _in_two_classes(splits, contents)
    if len(pairs):
        parts = {name: splits[name] for name in contents}
        names = [" and ".join(_name_through(parts, image) for image in pair) for pair in pairs[: MOST_NAMED + 1]]
        found[f"{_images_are(len(pairs))} in two classes"] = listed(names)
    return found


def _in_two_classes(splits: DatasetDict, contents: dict[str, np.ndarray]) -> np.ndarray:
    """For each content that has several labels, two images with different ones, in the order of the first: (K, 2).

    They are counted through all splits, one after another.
    """
    if not contents or any("label" not in splits[name].features for name in contents):
        return np.empty((0, 2), dtype=int)
    labels = np.concatenate([splits[name]["label"][:] for name in contents])
    content = np.concatenate(list(contents.values()))
    order = np.lexsort((labels, content))  # stable: the first image of each label comes first
    content, labels = content[order], labels[order]
    differ = np.flatnonzero((content[1:] == content[:-1]) & (labels[1:] != labels[:-1]))
    differ = differ[np.unique(content[differ], return_index=True)[1]]
    first_of_label = np.searchsorted(content, content[differ])
    pairs = np.sort(np.stack((order[first_of_label], order[differ + 1]), axis=1), axis=1)
    return pairs[np.argsort(pairs[:, 0])]


def _images_are(count: int, where: str = "") -> str:
    return f"{count:,} image{'s' * (count > 1)}{where} {'are' if count > 1 else 'is'}"


def _name(dataset: Dataset, row: int) -> str:
    return dataset[int(row)]["image"]["path"] or f"row {row}"


def _name_through(splits: dict[str, Dataset], image: int) -> str:
    """The name of an image that is counted through all splits, one after another."""
    (name, dataset), *others = splits.items()
    if image >= dataset.num_rows:
        return _name_through(dict(others), image - dataset.num_rows)
    path = dataset[int(image)]["image"]["path"]
    return path or f"row {image} of {name}"
