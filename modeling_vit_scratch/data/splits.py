# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The three splits of a data set, `train`, `validation` and `test`: found by their names, or drawn from `train`."""

import re
from collections.abc import Iterable, Mapping
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

Found = TypeVar("Found")


def by_split(found: Mapping[str, Found]) -> dict[str, Found]:
    """What was found under one of the names of each split, under our name of it."""
    return {
        split: next(found[name] for name in names if name in found)
        for split, names in SPLIT_NAMES.items()
        if not found.keys().isdisjoint(names)
    }


def files_by_split(files: Iterable[str], source: str) -> dict[str, list[str]]:
    """Split -> its files, if their names say so, such as `train-00000-of-00002.parquet`; else all are `train`.

    Raises:
        ValueError: if the names of some say so and of others not.
    """
    found: dict[str, list[str]] = {}
    for file in files:
        words = dict.fromkeys(re.split("[^a-z]+", PurePosixPath(file).stem.lower()))
        found.setdefault(next(iter(by_split(words)), ""), []).append(file)
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
    if "train" in splits:
        return splits
    if len(loaded) > 1:
        raise ValueError(f"{source} has no train split, only {listed(loaded)}.")
    return {"train": next(iter(loaded.values()))}


def with_splits(splits: DatasetDict, *, validation_share: float, test_share: float, seed: int) -> DatasetDict:
    """Add the splits that the source lacks, taken from `train` with the share of every class preserved.

    Args:
        splits: what `load_images` or `load_unlabelled` returned.
        validation_share: share of `train` for a `validation` split, if there is none; 0 for none.
        test_share: share of `train` for a `test` split, if there is none; 0 for none.
        seed: of the choice; the same seed gives the same images.

    Raises:
        ValueError: if a share gives no image, or leaves a class without an image to train on.
    """
    result = dict(splits)
    for name, share in (("test", test_share), ("validation", validation_share)):
        if name in splits or share == 0:
            continue
        size = round(share * splits["train"].num_rows)
        most = result["train"].num_rows - len(np.unique(_labels(result["train"])))
        if not 0 < size <= most:
            raise ValueError(
                f"a share of {share} of {splits['train'].num_rows} images for the {name} split is {size}, but it must "
                f"be at least 1, and at most {most} to leave one of each class to train on: give another share, or "
                "more images."
            )
        result["train"], result[name] = parted(result["train"], size, seed)
    return DatasetDict({name: result[name] for name in SPLIT_NAMES if name in result})


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
