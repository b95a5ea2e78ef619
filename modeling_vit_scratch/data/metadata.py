# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Folders of images whose labels are in a table, `metadata.csv`, `.jsonl` or `.parquet`, as Hugging Face has them.

The layout is that of `load_dataset("imagefolder")`: a column `file_name` has the paths, from the folder of the table
on; the table lies in the folder of the data, or in that of each split.
"""

import json
import logging
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from datasets import Features

from ..text import counted
from .columns import label_column, listed, one_form

if TYPE_CHECKING:
    from pandas import DataFrame

logger = logging.getLogger(__name__)
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMN = "file_name"


class LabelTable(NamedTuple):
    """The labels of files."""

    path: Path
    labels: dict[str, str]  # path of a file from the folder of the table on, in one Unicode form -> its label
    numbers: bool  # whether the labels are whole numbers

    def label(self, file: Path) -> str | None:
        """The label of a file, if it has one."""
        return self.labels.get(self.key(file.relative_to(self.path.parent).as_posix()))

    @staticmethod
    def key(name: str) -> str:
        """A path as it is compared with others."""
        return unicodedata.normalize("NFC", name.removeprefix("./"))


def find_table(folder: Path, label_column_name: str | None = None) -> LabelTable | None:
    """The table of labels in a folder; None if there is none, or it has no labels.

    Raises:
        ValueError: if there are several, or it cannot be read, or does not say which label a file has.
    """
    found = [folder / name for name in TABLES if (folder / name).is_file()]
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"{folder} has {' and '.join(path.name for path in found)}: keep one of them.")
    (path,) = found
    table = _read(path)
    if FILE_COLUMN not in table:
        raise ValueError(f"{path} has no column {FILE_COLUMN!r}; its columns are {listed(table)}.")
    rest = table.drop(columns=FILE_COLUMN)
    try:
        column = label_column(_features(rest), label_column_name, str(path))
    except ValueError:
        if label_column_name is not None or len(rest.columns):
            raise
        return None
    return _labels(path, table, column)


def _labels(path: Path, table: "DataFrame", column: str) -> LabelTable:
    labels: dict[str, str] = {}
    numbers = True
    for name, value in zip(table[FILE_COLUMN], table[column], strict=True):
        key = LabelTable.key(str(name))
        if value is None or value != value or value == "":
            raise ValueError(f"{path} has no label for {name}: fill it in, or take the row out.")
        label = one_form(value)
        if labels.setdefault(key, label) != label:
            raise ValueError(f"{path} has two labels for {name}, {labels[key]} and {label}: keep one of them.")
        numbers = numbers and label.lstrip("-").isdecimal()
    missing = [name for name in labels if not _is_there(path.parent / name)]
    if missing:
        raise ValueError(f"{path} names {counted(len(missing), 'file')} not found: {listed(missing)}.")
    return LabelTable(path, labels, numbers)


def _is_there(path: Path) -> bool:
    """Whether a file is there, under this name or the same one in another Unicode form."""
    if path.exists():
        return True
    if not path.parent.is_dir():
        return not path.parent.name.isascii()  # which may have another form as well
    wanted = unicodedata.normalize("NFC", path.name)
    return any(unicodedata.normalize("NFC", other.name) == wanted for other in path.parent.iterdir())


def _read(path: Path) -> "DataFrame":
    import pandas as pd

    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        if path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").splitlines()
            return pd.DataFrame([json.loads(line) for line in lines if line.strip()])
        return pd.read_parquet(path)
    except Exception as error:  # pandas raises many kinds
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split()).rstrip('.')}.") from error


def _features(table: "DataFrame") -> Features:
    import pyarrow as pa

    try:
        return Features.from_arrow_schema(pa.Schema.from_pandas(table, preserve_index=False))
    except pa.ArrowException:  # a column of different kinds of things
        return Features()


def labels_of(files: list[Path], root: Path, table: LabelTable) -> tuple[list[Path], list[str]]:
    """The files that have a label in a table, and these labels.

    Folders that are named as the labels are say the same thing, or one of the two is wrong.

    Raises:
        ValueError: if no file has a label, or a folder has the name of another label than a file in it.
    """
    found = [(file, label) for file in files if (label := table.label(file)) is not None]
    if not found:
        raise ValueError(f"{table.path} has a label for none of the {len(files):,} images in {root}.")
    if len(found) < len(files):
        known = {file for file, _ in found}
        others = [str(file.relative_to(root)) for file in files if file not in known]
        counted = f"{len(others):,} image{'s' * (len(others) > 1)}"
        logger.warning("left out %s in %s without a row in %s: %s.", counted, root, table.path, listed(others))
    names = {label for _, label in found}
    for file, label in found:
        folder = one_form(file.parent.name)
        if file.parent != root and folder in names and folder != label:
            raise ValueError(
                f"{file} lies in the folder {folder}, and {table.path} says that it is {label}: correct the table, or "
                "move it away to have the folders alone decide."
            )
    return [file for file, _ in found], [label for _, label in found]
