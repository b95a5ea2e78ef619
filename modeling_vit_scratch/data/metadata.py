# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Folders of images whose labels are in tables, `metadata.csv`, `.jsonl` or `.parquet`, as Hugging Face has them.

The layout is that of `load_dataset("imagefolder")`: a column `file_name` has the paths, from the folder of the table
on. Of several tables the one nearest to an image counts, in its folder or one above.
"""

import csv
import json
import logging
import os
import posixpath
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..text import counted
from .columns import LABEL_COLUMN_NAMES, listed, one_form
from .image_files import is_hidden

logger = logging.getLogger(__name__)
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMN = "file_name"


class LabelTable(NamedTuple):
    """The labels of files."""

    path: Path
    labels: dict[str, str]  # path of a file from the folder of the table on, in one Unicode form -> its label


def find_tables(root: Path, label_column_name: str | None = None) -> dict[Path, LabelTable]:
    """The tables of labels in a folder and those in it, by the folder that each lies in; says which are not used.

    Raises:
        ValueError: if a folder has several, or one cannot be read, or does not say which label a file has.
    """
    tables = {}
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not is_hidden(name)]
        names = [name for name in TABLES if name in files]
        if len(names) > 1:
            raise ValueError(f"{parent} has {' and '.join(names)}: keep one of them.")
        table = _table(Path(parent, names[0]), label_column_name) if names else None
        if table is not None:
            tables[Path(parent)] = table
    return tables


def _table(path: Path, label_column_name: str | None) -> LabelTable | None:
    rows = _read(path)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    of_files = [name for name in columns if name == FILE_COLUMN or name.endswith(f"_{FILE_COLUMN}")]
    of_labels = [name for name in LABEL_COLUMN_NAMES if name in columns]
    if label_column_name is not None:
        if label_column_name not in columns:
            raise ValueError(f"{path} has no column {label_column_name!r}; its columns are {listed(columns)}.")
        of_labels = [label_column_name]
    if not rows:
        logger.warning("%s is not used: it has no rows.", path)
        return None
    if len(of_files) != 1 or not of_labels:
        lacks = f"one column of {FILE_COLUMN}s" if len(of_files) != 1 else "a column of labels (--label_column_name)"
        logger.warning("%s is not used: it lacks %s; its columns are %s.", path, lacks, listed(columns))
        return None
    labels: dict[str, str] = {}
    for row in rows:
        name, value = str(row.get(of_files[0]) or ""), row.get(of_labels[0])
        if not name:
            raise ValueError(f"{path} has a row without a {of_files[0]}: fill it in, or take the row out.")
        if value is None or value == "":
            raise ValueError(f"{path} has no label for {name}: fill it in, or take the row out.")
        if not isinstance(value, str | int):
            raise ValueError(f"{path} has the label {value!r} for {name}, which is neither a text nor a whole number.")
        label = one_form(value)
        if labels.setdefault(_key(name, path), label) != label:
            raise ValueError(f"{path} has two labels for {name}, {labels[_key(name, path)]} and {label}: keep one.")
    return LabelTable(path, labels)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path).to_pylist()
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                return list(csv.DictReader(file, restkey="", restval=""))
            return [_object(line, number) for number, line in enumerate(file, start=1) if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8: save it so.") from error
    except Exception as error:  # the readers raise many kinds
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split()).rstrip('.')}.") from error


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError) as error:
        raise ValueError(f"line {number} is no JSON object") from error


def _key(name: str, table: Path) -> str:
    """A path in a table as it is compared with others."""
    key = posixpath.normpath(name.replace("\\", "/"))
    if key.startswith(("/", "..")) or "://" in name or re.match("[A-Za-z]:", key):
        raise ValueError(f"{table} names {name}, which does not lie in the folder of the table.")
    return unicodedata.normalize("NFC", key)


def labelled(files: Mapping[Path, list[Path]], tables: Mapping[Path, LabelTable]) -> dict[Path, list[tuple[Path, str]]]:
    """The images of some folders that have a row in a table, with their labels; says how many have none.

    Folders that are named as labels are say the same thing as the tables, or one of the two is wrong.

    Args:
        files: folder of a split -> its images.
        tables: those that `find_tables` found.

    Returns:
        The same folders; none of the images of one that has no labels.

    Raises:
        ValueError: if an image has no table and others in its folder have, a table has a row for a file that is not
            there, or a folder has the name of another label than an image in it.
    """
    used: dict[Path, set[str]] = {table.path: set() for table in tables.values()}
    found: dict[Path, list[tuple[Path, str]]] = {}
    for root, images in files.items():
        found[root], without, outside = [], [], []
        for image in images:
            table = _nearest(image, tables)
            if table is None:
                outside.append(image)
                continue
            key = unicodedata.normalize("NFC", image.relative_to(table.path.parent).as_posix())
            if key in table.labels:
                used[table.path].add(key)
                found[root].append((image, table.labels[key]))
            else:
                without.append(image.relative_to(root))
        if found[root] and outside:
            raise ValueError(
                f"{outside[0]} has no table of labels beside it or above, and other images have one: add it to that, "
                "or move the tables away to have the folders decide."
            )
        if found[root] and without:
            logger.warning(
                "left out %s in %s without a label: %s.", counted(len(without), "image"), root, listed(without)
            )
        _check_folders(root, found[root], tables)
    for table in tables.values():
        _check_rows(table, sorted(table.labels.keys() - used[table.path]))
    return found


def _nearest(image: Path, tables: Mapping[Path, LabelTable]) -> LabelTable | None:
    return next((tables[parent] for parent in image.parents if parent in tables), None)


def _check_folders(root: Path, found: list[tuple[Path, str]], tables: Mapping[Path, LabelTable]) -> None:
    folders = {one_form(image.parent.name) for image, _ in found if image.parent != root}
    if folders.isdisjoint(label for _, label in found):
        return  # they are no classes
    for image, label in found:
        folder = one_form(image.parent.name)
        table = _nearest(image, tables)
        if image.parent != root and folder != label and table is not None:
            raise ValueError(
                f"{image} lies in the folder {folder}, and {table.path} says that it is {label}: correct the table, or "
                "move it away to have the folders decide."
            )


def _check_rows(table: LabelTable, unused: list[str]) -> None:
    missing = [name for name in unused if not (table.path.parent / name).exists()]
    if missing:
        raise ValueError(f"{table.path} has rows for files that are not there: {listed(missing)}.")
    if unused:
        logger.warning("%s has labels of %s not read: %s.", table.path, counted(len(unused), "file"), listed(unused))
