# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The shards of a stream: which files they are, and how many images each of them holds."""

import glob
import re
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import fsspec
import pyarrow.parquet
from datasets import IterableDataset, load_dataset, load_dataset_builder
from fsspec.core import url_to_fs
from tqdm.auto import tqdm

from ..hub.fetching import say_where_from
from .columns import listed
from .dataset_loading import FORMATS, commit_in, could_be_hub_dataset, files_of_many_images, reason_of, why_not
from .splits import files_by_split, named_splits

# Shards that are counted at once: it is mostly waiting.
COUNTED_TOGETHER = 16


class Shards(NamedTuple):
    """The files of a source that is streamed, and its train split, unread."""

    format: str  # of `FORMATS`' values
    files: Mapping[str, list[str]]  # split -> paths or URLs
    train: IterableDataset


def find_shards(source: str, config_name: str | None = None) -> Shards:
    """The shards that a source means, of all its splits.

    Args:
        source: that of `stream_images`.
        config_name: configuration of a Hub dataset.

    Raises:
        ValueError: if there are none, or they are of no kind that can be streamed.
    """
    if could_be_hub_dataset(source) and not Path(source).expanduser().exists():
        return _hub_shards(source, config_name)
    return _found_shards(source)


def _hub_shards(name: str, config_name: str | None) -> Shards:
    try:
        builder = load_dataset_builder(name, config_name)
        files = {str(split): list(map(str, found)) for split, found in (builder.config.data_files or {}).items()}
        if not files:
            raise ValueError(f"{name} does not say which files it is made of: it cannot be streamed.")
        originals = named_splits({split: split for split in files}, name)
        splits = {split: files[original] for split, original in originals.items()}
        format = _format([file for found in splits.values() for file in found], name)
        train = builder.as_streaming_dataset(split=originals["train"])
        say_where_from(name, f"dataset {name}", commit_in(str(builder.base_path)))
        return Shards(format, splits, train)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"there is no folder or file {name}, and {why_not(name, error)}") from error


def _found_shards(source: str) -> Shards:
    """Shards on a disk or behind URLs, in splits if their names say so, such as `train-00000.tar`."""
    files = [file for pattern in _without_braces(source) for file in _matching(pattern)]
    if not files:
        raise ValueError(f"no file matches {source}.")
    format = _format(files, source)
    splits = named_splits(files_by_split(files, source), source)
    try:
        train = load_dataset(format, data_files=literally(splits["train"]), streaming=True, split="train")
    except Exception as error:
        first = splits["train"][0]
        raise ValueError(f"{first} could not be read as {format}: {reason_of(error).rstrip('.')}.") from error
    return Shards(format, splits, train)


def literally(files: list[str]) -> list[str]:
    """Paths in which `datasets` sees no patterns."""
    return [file if "://" in file else glob.escape(file) for file in files]


def _without_braces(pattern: str) -> list[str]:
    """WebDataset's `shard-{000..127}.tar`, number by number."""
    parts = re.split(r"\{(\d+\.\.\d+)\}", pattern)
    choices = [
        [part] if index % 2 == 0 else [str(n).zfill(len(part.split("..")[0])) for n in range(*_bounds(part))]
        for index, part in enumerate(parts)
    ]
    return ["".join(chosen) for chosen in product(*choices)]


def _bounds(numbers: str) -> tuple[int, int]:
    first, last = map(int, numbers.split(".."))
    return first, last + 1


def _matching(pattern: str) -> list[str]:
    filesystem, path = url_to_fs(pattern if "://" in pattern else str(Path(pattern).expanduser()))
    is_local = "://" not in pattern
    if is_local and Path(path).is_dir():
        found = files_of_many_images(Path(path))
        if not found:
            raise ValueError(
                f"{pattern} holds no parquet files and no WebDataset shards (.tar): leave out --streaming, images in "
                "folders are read as they are needed anyway."
            )
        return found
    if glob.has_magic(path):
        matched = sorted(filesystem.glob(path))
        return matched if is_local else [filesystem.unstrip_protocol(file) for file in matched]
    if is_local and not Path(path).is_file():
        raise ValueError(f"there is no folder or file {pattern}.")
    return [path if is_local else pattern]


def _format(files: list[str], source: str) -> str:
    suffixes = {PurePosixPath(file.partition("?")[0]).suffix for file in files}
    if len(suffixes) == 1 and suffixes <= FORMATS.keys():
        return FORMATS[suffixes.pop()]
    raise ValueError(
        f"{source} cannot be streamed: it takes parquet files or WebDataset shards (.tar), of one kind, not files "
        f"with the suffixes {listed(sorted(suffixes)) or 'none'}."
    )


def count_images(shards: Shards, label: str | None) -> list[tuple[int, set]]:
    """Images of each train shard, and the labels of a column in it, if one is given."""
    count = _count_parquet if shards.format == "parquet" else _count_tar
    feature = None if label is None else shards.train.features[label]
    files = shards.files["train"]

    def of_shard(file: str) -> tuple[int, set]:
        try:
            with fsspec.open(file, "rb") as opened:
                return count(opened, label, getattr(feature, "dtype", "string"))
        except Exception as error:
            raise ValueError(f"{file} could not be read as {shards.format}: {reason_of(error).rstrip('.')}.") from error

    with ThreadPoolExecutor(COUNTED_TOGETHER) as pool:
        counting = tqdm(
            pool.map(of_shard, files), total=len(files), desc="counting images", unit="shard", leave=False, disable=None
        )
        return list(counting)


def _count_parquet(file: BinaryIO, label: str | None, dtype: str) -> tuple[int, set]:
    """From the footer, and the column of the labels."""
    parquet = pyarrow.parquet.ParquetFile(file)
    labels = [] if label is None else parquet.read(columns=[label])[label].unique().to_pylist()
    return parquet.metadata.num_rows, set(labels) - {None}


def _count_tar(file: BinaryIO, label: str | None, dtype: str) -> tuple[int, set]:
    """From the headers: the files that belong together follow one another, and differ behind their first dot."""
    keys, labels, last = 0, set(), None
    with tarfile.open(fileobj=file) as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stem, dot, field = name.partition(".")
            if not member.isfile() or not stem or not dot or name.startswith("__"):
                continue
            if (folder, stem) != last:
                keys, last = keys + 1, (folder, stem)
            if field == label:
                text = archive.extractfile(member).read().decode()  # type: ignore[union-attr]  # it is a file
                labels.add(int(text) if "int" in dtype else text)
    return keys, labels
