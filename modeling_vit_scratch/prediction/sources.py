# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The images that names on a command line mean: files, folders, patterns and parquet files, one after another.

What parquet files need is imported for these alone: it would take a tenth of the time of a prediction.
"""

import glob
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.image_files import images_in, not_read, why_not_read

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile, RowGroupMetaData

# Rows of a parquet file that are in memory at once, fewer where they have so many bytes by their mean size in the file.
# That is less than they have in memory if many are alike, so that they are few in any case.
ROWS_TOGETHER, BYTES_TOGETHER = 16, 2**25


class BrokenFileError(ValueError):
    """A file of many images of which none can be read; its text is one sentence that names it."""


class ImageFiles:
    """Files, by their paths."""

    def __init__(self, paths: list[str]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> str:
        return self.paths[row]

    def name(self, row: int) -> str:
        """What an image is called in a table."""
        return self.paths[row]

    def files(self) -> list[str]:
        """The files that are read."""
        return self.paths

    def identity(self) -> str:
        """What says whether other images are meant."""
        return "\n".join(self.paths)


class ParquetImages:
    """The images of a parquet file, undecoded; read in the order of its rows, it never has many of them in memory.

    Args:
        path: the file.
        column: which column holds the images; found by type and name if not given.

    Raises:
        BrokenFileError: if it is no parquet file that can be read, has no rows, or no column that holds images.
        ValueError: if the column that was named holds none.
    """

    def __init__(self, path: str, column: str | None = None):
        import pyarrow as pa
        import pyarrow.parquet as pq
        from datasets import Features

        from ..data.columns import image_column

        self.path = path
        try:
            file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise BrokenFileError(
                f"{path} is no parquet file that can be read: {' '.join(str(error).split()).rstrip('.')}."
            ) from error
        try:
            self.column = image_column(Features.from_arrow_schema(file.schema_arrow), column, path)
        except ValueError as error:
            if column is not None:
                raise
            raise BrokenFileError(str(error)) from error
        if not file.metadata.num_rows:
            raise BrokenFileError(f"{path} holds no rows.")
        groups = (file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups))
        self.group_starts = [0, *accumulate(groups)]
        self.rows: list[Any] = []
        self.first, self.group = 0, -1

    def __len__(self) -> int:
        return self.group_starts[-1]

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not self.first <= row < self.first + len(self.rows):
            self._read_to(row)
        value = self.rows[row - self.first]
        image = value if isinstance(value, dict) else {"bytes": value}
        # One that lies in a file of its own has only the path of it.
        elsewhere = image.get("path") if image["bytes"] is None else None
        content = image["bytes"] if elsewhere else image["bytes"] or b""  # a row without an image is an empty one
        return {"bytes": content, "path": elsewhere or self.name(row)}

    def _read_to(self, row: int) -> None:
        group = bisect_right(self.group_starts, row) - 1
        if group != self.group or row < self.first:
            import pyarrow.parquet as pq

            # Mapped rather than read, a group of any size takes no memory of its own.
            file = pq.ParquetFile(self.path, memory_map=True)
            rows = self._rows_together(file.metadata.row_group(group))
            self.batches = file.iter_batches(rows, row_groups=[group], columns=[self.column])
            self.group, self.first, self.rows = group, self.group_starts[group], []
        while row >= self.first + len(self.rows):
            self.first += len(self.rows)
            self.rows = []  # before the next ones come
            self.rows = next(self.batches).column(0).to_pylist()

    def _rows_together(self, group: "RowGroupMetaData") -> int:
        """How many rows of a group to read at once, by their mean size."""
        columns = [group.column(index) for index in range(group.num_columns)]
        own = (column for column in columns if column.path_in_schema.split(".")[0] == self.column)
        size = sum(column.total_uncompressed_size for column in own) // max(group.num_rows, 1)
        return min(max(BYTES_TOGETHER // max(size, 1), 1), ROWS_TOGETHER)

    def name(self, row: int) -> str:
        """What an image is called in a table: the file and the number of its row, from 0 on."""
        return f"{self.path}#{row}"

    def files(self) -> list[str]:
        """The files that are read: this one, and those in which images lie of which it holds only the paths."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            columns = [file.schema.column(index).path for index in range(len(file.schema))]
            content, place = f"{self.column}.bytes", f"{self.column}.path"
            if content not in columns or place not in columns or not self._may_lack(file, columns.index(content)):
                return [self.path]
            paths = file.read([place]).column(self.column).combine_chunks().field("path")
        return [self.path, *(path for path in paths.unique().to_pylist() if path)]

    @staticmethod
    def _may_lack(file: "ParquetFile", column: int) -> bool:
        """Whether a column may have rows without a value."""
        groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
        found = [group.column(column).statistics for group in groups]
        return any(item is None or not item.has_null_count or item.null_count for item in found)

    def identity(self) -> str:
        """What says whether other images are meant."""
        return f"{self.path} {self.column} {len(self)}"


class ImageSources:
    """All images that some names mean, numbered in order.

    Args:
        names: image files; folders, whose images are all taken, or else their parquet files; parquet files; patterns
            of any of these.
        image_column_name: column of the images in parquet files; found by type and name if not given.

    Raises:
        ValueError: if nothing is there by one of the names, or no image is in it.
    """

    def __init__(self, names: Sequence[str], image_column_name: str | None = None):
        self.sources: list[ImageFiles | ParquetImages] = []
        self.not_read: list[str] = []  # sentences about what lies there and is no image
        self.unread: list[tuple[str, str]] = []  # the same by file, with a sentence for each
        for path in self._files(names):
            if path.endswith(".parquet"):
                try:
                    self.sources.append(ParquetImages(path, image_column_name))
                except BrokenFileError as error:
                    self._leave_out(str(error).rstrip("."), [(path, str(error))])
            elif self.sources and isinstance(self.sources[-1], ImageFiles):
                self.sources[-1].paths.append(path)
            else:
                self.sources.append(ImageFiles([path]))
        self.starts = [0, *accumulate(len(source) for source in self.sources)]
        if not len(self):
            reasons = f": {'; '.join(self.not_read)}" if self.not_read else ""
            raise ValueError(f"there are no images in {', '.join(names)}{reasons}.")

    def _files(self, names: Sequence[str]) -> Iterator[str]:
        for name in names:
            matches = [name] if name and Path(name).exists() else sorted(glob.glob(name, recursive=True))
            if not matches:
                raise ValueError(
                    f"there is no image or folder{' like' if glob.has_magic(name) else ''} {name or repr('')}."
                )
            for match in matches:
                yield from self._inside(Path(match)) if Path(match).is_dir() else [match]

    def _inside(self, folder: Path) -> Iterator[str]:
        others: list[Path] = []
        files = list(images_in(folder, others)) or sorted(folder.rglob("*.parquet"))
        yield from map(str, files)
        read = set(files)
        others = [path for path in others if path not in read]
        if others:
            self._leave_out(
                not_read(others, folder), [(str(path), f"{path} is {why_not_read(path)}.") for path in others]
            )
        elif not files:
            self._leave_out(f"the folder {folder} holds no images", [(str(folder), f"{folder} holds no images.")])

    def _leave_out(self, sentence: str, files: list[tuple[str, str]]) -> None:
        self.not_read.append(sentence)
        self.unread += files

    def __len__(self) -> int:
        return self.starts[-1]

    def _place(self, number: int) -> tuple[ImageFiles | ParquetImages, int]:
        index = bisect_right(self.starts, number) - 1
        return self.sources[index], number - self.starts[index]

    def __getitem__(self, number: int) -> Any:
        """An image, as `read_image` takes it."""
        source, row = self._place(number)
        return source[row]

    def name(self, number: int) -> str:
        """What an image is called in a table."""
        source, row = self._place(number)
        return source.name(row)

    def files(self) -> list[str]:
        """The files that are read, in order."""
        return [file for source in self.sources for file in source.files()]

    def identity(self) -> str:
        """What says whether other images are meant, by their names; what is in the files says `file_states`."""
        return "\n".join(source.identity() for source in self.sources)


def file_states(files: Sequence[str]) -> list[str]:
    """Size and time of each file, which say whether it was changed; an empty text for one that is not there."""
    states = []
    for file in files:
        try:
            status = os.stat(file)
            states.append(f"{status.st_size} {status.st_mtime_ns}")
        except OSError:
            states.append("")
    return states
