# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Tables of predictions as files: lines of JSON, CSV or parquet, written as the predictions come."""

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..system.folders import check_file, check_not_an_input
from ..text import for_csv, for_table
from .classifier import Prediction

# Predictions that are in memory at once.
WRITTEN_TOGETHER = 1024


def _write_lines(tables: Iterator[pd.DataFrame], path: str) -> None:
    # Pandas would round the scores.
    with open(path, "w", encoding="utf-8") as file:
        for table in tables:
            file.writelines(
                json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in table.to_dict("records")
            )


def _write_csv(tables: Iterator[pd.DataFrame], path: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        for number, table in enumerate(tables):
            shown = table.assign(file=table["file"].map(for_csv), label=table["label"].map(for_csv))
            shown.to_csv(file, index=False, header=number == 0)


def _write_parquet(tables: Iterator[pd.DataFrame], path: str) -> None:
    schema = pa.schema({"file": pa.string(), "rank": pa.int64(), "label": pa.string(), "score": pa.float64()})
    with pq.ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))


# The list of the images that could not be read, beside the table: the end of its name, and its columns.
BAD_LIST = ".skipped.csv"
BAD_LIST_COLUMNS = ("file", "reason")

COLUMNS = ("file", "rank", "label", "score")
# Characters of a row that are read to tell a table from other files.
LONGEST_ROW = 2**20

OUTPUT_WRITERS = {".jsonl": _write_lines, ".csv": _write_csv, ".parquet": _write_parquet}


def check_output(path: str) -> None:
    """Refuse an output file that could not be written, before any work is done for it.

    Raises:
        ValueError: if its suffix names no format, it is a folder, or its folder is missing or not writable.
    """
    if Path(path).suffix not in OUTPUT_WRITERS:
        raise ValueError(f"--output {path} must end in one of {', '.join(OUTPUT_WRITERS)}.")
    check_file(path)
    check_bad_list(os.path.realpath(path))


def check_replaceable(path: str) -> None:
    """Refuse to replace what is not a table of predictions.

    Raises:
        ValueError: naming it.
    """
    if os.path.exists(path) and os.path.getsize(path) and not _is_table(path, Path(path).suffix):
        raise ValueError(f"{path} is not a table of predictions: move it, or name another --output.")


def _is_table(path: str, suffix: str) -> bool:
    """Whether a file looks like what `write_predictions` writes."""
    try:
        if suffix == ".parquet":
            return pq.read_schema(path).names == list(COLUMNS)
        with open(path, encoding="utf-8") as file:
            line = file.readline(LONGEST_ROW)
        return line.rstrip("\n") == ",".join(COLUMNS) if suffix == ".csv" else json.loads(line).keys() == set(COLUMNS)
    except (OSError, ValueError, AttributeError, pa.ArrowException):
        return False


def check_bad_list(path: str) -> None:
    """Refuse a file that lies where the list of bad images of a table goes and is no such list.

    Raises:
        ValueError: naming it.
    """
    place = f"{path}{BAD_LIST}"
    if not os.path.lexists(place):
        return
    header = ",".join(BAD_LIST_COLUMNS).encode()
    ours = os.path.isfile(place) and not os.path.islink(place)
    if ours:
        with open(place, "rb") as file:
            ours = file.readline(len(header) + 2).rstrip(b"\r\n") == header
    if not ours:
        raise ValueError(
            f"{place} is where images that cannot be read are listed, and holds something else: move it, or name "
            "another --output."
        )


def check_inputs_stay(path: str, inputs: list[str]) -> None:
    """Refuse a table that is a file which is read, or whose list of bad images is.

    Raises:
        ValueError: with both names.
    """
    check_not_an_input(path, inputs)
    check_not_an_input(f"{os.path.realpath(path)}{BAD_LIST}", inputs)


def write_bad_list(bad: list[tuple[str, str]], path: str) -> str | None:
    """Write the list of the bad images of a table, or delete that of a table which this one has replaced.

    Returns:
        The file, if there are any.

    Raises:
        ValueError: if there is another file in its place.
    """
    check_bad_list(path)
    place = f"{path}{BAD_LIST}"
    if not bad:
        Path(place).unlink(missing_ok=True)
        return None
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        incomplete = os.path.join(folder, "incomplete")
        with open(incomplete, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([BAD_LIST_COLUMNS, *(map(for_csv, row) for row in bad)])
        os.replace(incomplete, place)
    return place


def write_predictions(predictions: Iterable[Prediction], path: str, suffix: str | None = None) -> int:
    """Write a table with a row per image and rank (columns file, rank, label, score), whole or not at all.

    It is written as the predictions come, so that any number of them takes no more memory than a few.

    Args:
        predictions: in order.
        path: the file.
        suffix: one of `OUTPUT_WRITERS`, if it is not that of the path.

    Returns:
        How many images there were.
    """
    number = 0

    def table(items: list[Prediction]) -> pd.DataFrame:
        rows = [
            {"file": for_table(item.file), "rank": rank, "label": for_table(label), "score": score}
            for item in items
            for rank, (label, score) in enumerate(zip(item.labels, item.scores, strict=True), start=1)
        ]
        return pd.DataFrame(rows, columns=COLUMNS)

    def tables() -> Iterator[pd.DataFrame]:
        nonlocal number
        yield table([])  # the columns, also if there are no rows
        remaining = iter(predictions)
        while items := list(islice(remaining, WRITTEN_TOGETHER)):
            number += len(items)
            yield table(items)

    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        incomplete = os.path.join(folder, "incomplete")
        OUTPUT_WRITERS[suffix or Path(path).suffix](tables(), incomplete)
        os.replace(incomplete, path)
    return number
