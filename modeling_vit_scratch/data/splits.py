# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The three splits of a data set, `train`, `validation` and `test`: found by their names, or drawn from `train`."""

import logging
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np
from datasets import Dataset, DatasetDict

from .columns import listed

# Other names of the three splits: of folders, in the names of files, in Hub datasets.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}

logger = logging.getLogger(__name__)

Found = TypeVar("Found")
Contents = dict[str, np.ndarray]


def by_split(found: Mapping[str, Found]) -> dict[str, Found]:
    """What was found under one of the names of each split, under our name of it."""
    return {
        split: next(found[name] for name in names if name in found)
        for split, names in SPLIT_NAMES.items()
        if not found.keys().isdisjoint(names)
    }


def check_split_names(names: Iterable[str], source: str) -> None:
    """Refuse two names of one split among those of a source.

    Raises:
        ValueError: with both.
    """
    known = set(names)
    for split, of_split in SPLIT_NAMES.items():
        twice = [name for name in of_split if name in known]
        if len(twice) > 1:
            raise ValueError(
                f"{source} has {' and '.join(twice)}, which are both names of the {split} split: rename one, or move "
                "it away."
            )


def files_by_split(files: Iterable[str], source: str) -> dict[str, list[str]]:
    """Split -> its files, if their names say so, such as `train-00000-of-00002.parquet`; else all are `train`.

    Raises:
        ValueError: if the names of some say so and of others not, or two names of a split are used.
    """
    found: dict[str, list[str]] = {}
    used = set()
    for file in files:
        words = re.split("[^a-z]+", PurePosixPath(file).stem.lower())
        split, word = next(iter(by_split({word: word for word in words}).items()), ("", ""))
        found.setdefault(split, []).append(file)
        used.add(word)
    check_split_names(used, source)
    if "" in found and len(found) > 1:
        raise ValueError(
            f"some files of {source} have the name of a split in their names, but {listed(found[''])} not: rename "
            "them, or give a pattern that leaves them out."
        )
    return {split or "train": files for split, files in found.items()}


def named_splits(loaded: Mapping[str, Found], source: str) -> dict[str, Found]:
    """Splits of a data set under our names, `train` if there is but one; others are left out.

    Raises:
        ValueError: if there are several, and none to train on.
    """
    splits = by_split({name.lower(): dataset for name, dataset in loaded.items()})
    check_split_names((name.lower() for name in loaded), source)
    if "train" in splits:
        others = [name for name in loaded if not by_split({name.lower(): name})]
        if others:
            logger.warning("%s has splits that are not used: %s.", source, listed(others))
        return splits
    if len(loaded) > 1:
        raise ValueError(f"{source} has no train split, only {listed(loaded)}.")
    return {"train": next(iter(loaded.values()))}


def with_splits(
    splits: DatasetDict, contents: Contents, *, validation_share: float, test_share: float, seed: int
) -> tuple[DatasetDict, Contents]:
    """Add the splits that the source lacks, drawn from `train`.

    Each image draws a number that follows from its content and the seed alone, and the number says which split it is
    in: so more data, or less, never moves another image from one split to another, nor are copies of an image in two of
    them. A class gives its share on average, not to the image. There are two exceptions: a class of which all images
    would be taken keeps one to train on, and a split that would get none gets the one nearest to it.

    Args:
        splits: what `load_images` or `load_unlabelled` returned, all of them readable.
        contents: split -> (N,), a digest of the content of each image.
        validation_share: share of `train` for a `validation` split, if there is none; 0 for none.
        test_share: share of `train` for a `test` split, if there is none; 0 for none.
        seed: of the choice; the same seed gives the same images.

    Returns:
        The splits and their digests.

    Raises:
        ValueError: if a share is less than an image, or leaves a class without one to train on.
    """
    train, of_train = splits["train"], contents["train"]
    wanted = {"test": test_share, "validation": validation_share}
    wanted = {name: share for name, share in wanted.items() if share and name not in splits}
    numbers = _numbers(of_train, seed)
    distances = {"test": numbers, "validation": 1 - numbers}  # from the ends at which the splits are
    kept = _one_of_each_class(train, np.abs(numbers - (wanted.get("test", 0) + 1 - wanted.get("validation", 0)) / 2))
    left, most = np.ones(len(numbers), dtype=bool), len(numbers) - len(kept)
    result, digests = dict(splits), dict(contents)
    for name, share in wanted.items():
        spare = np.setdiff1d(np.flatnonzero(left), kept)
        size = round(share * len(numbers))
        if most <= 0 or not len(spare):
            raise ValueError(_none_to_spare(name, len(numbers), len(kept)))
        if not 0 < size <= most:
            raise ValueError(
                f"a share of {share} of {len(numbers):,} images for the {name} split is {size:,}, but it must be at "
                f"least 1, and at most {min(most, len(spare)):,} to leave one of each class to train on: give another "
                "share, or more images."
            )
        rows = spare[np.argsort(distances[name][spare], kind="stable")]
        rows = rows[: max(1, np.count_nonzero(distances[name][rows] < share))]
        left[rows], most = False, most - size
        result[name], digests[name] = train.select(rows), of_train[rows]
    if wanted:
        rows = np.flatnonzero(left)
        result["train"], digests["train"] = train.select(rows), of_train[rows]
    return DatasetDict({name: result[name] for name in SPLIT_NAMES if name in result}), digests


def _none_to_spare(split: str, images: int, classes: int) -> str:
    verb, flag = ("validate", "train_val_split") if split == "validation" else ("test", "train_test_split")
    what = f"{classes:,} classes with one image each leave" if classes > 1 else "one image leaves"
    if images > classes:
        what = "the test split and an image of each class to train on leave"
    return f"{what} none to {verb} on: add images, a {split} folder, or --{flag} 0."


def _numbers(contents: np.ndarray, seed: int) -> np.ndarray:
    """A number from 0 to 1 for each digest."""
    key = str(seed).encode()
    drawn = [blake2b(content.tobytes(), digest_size=8, key=key).digest() for content in contents.astype("<u8")]
    return np.frombuffer(b"".join(drawn), "<u8") / 2.0**64


def _one_of_each_class(dataset: Dataset, distances: np.ndarray) -> np.ndarray:
    """The row of each class with the smallest of some distances (N,)."""
    labels = _labels(dataset)
    rows = np.argsort(distances, kind="stable")
    return rows[np.unique(labels[rows], return_index=True)[1]]


def classes_without_images(splits: Mapping[str, Dataset]) -> dict[str, str]:
    """Split that is not trained on -> which classes none of its images shows, if there are such."""
    found = {}
    for split, dataset in splits.items():
        if split != "train" and "label" in dataset.features:
            names = dataset.features["label"].names
            absent = [names[label] for label in np.setdiff1d(np.arange(len(names)), _labels(dataset))]
            if absent:
                of_whom = "them" if len(absent) > 1 else "it"
                found[split] = f"has no image of {listed(absent)}: its scores say nothing about {of_whom}"
    return found


def parted(dataset: Dataset, size: int, seed: int) -> tuple[Dataset, Dataset]:
    """What is left of a dataset, and `size` random images of it, every class in proportion.

    The first part keeps an image of every class, however rare.
    """
    labels, random = _labels(dataset), np.random.default_rng(seed)
    rows = random.permutation(len(labels))
    rows = rows[np.argsort(labels[rows], kind="stable")]  # class after class, in random order within each
    _, first_of_class = np.unique(labels[rows], return_index=True)
    spare = np.delete(rows, first_of_class)
    taken = spare[np.arange(size) * len(spare) // size]  # evenly spaced, so that each class gives its share
    return dataset.select(np.setdiff1d(rows, taken)), dataset.select(random.permutation(taken))


def _labels(dataset: Dataset) -> np.ndarray:
    """The label of each row; without labels all are alike."""
    has_labels = "label" in dataset.features
    return np.asarray(dataset["label"][:]) if has_labels else np.zeros(dataset.num_rows, dtype=int)
