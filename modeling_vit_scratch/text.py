# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Text that comes from elsewhere (names of files and classes, messages of libraries), made safe for where it is shown.

Whatever a person sees of it, in a terminal, a model card, a table or the name of a file, goes through one of these.
"""

import io
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TextIO

# Bytes of a file name that are left to a number in front and a suffix, of the 255 that file systems take.
MOST_BYTES = 200
# What a spreadsheet takes for the beginning of a formula, or skips on the way to one.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def for_terminal(text: str) -> str:
    """Text on one line of a terminal; what would break or steer it, and bytes that are no text, as escapes."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def escape_unshowable(stream: TextIO) -> None:
    """Have a stream write what its encoding lacks as escapes, where it would fail in the middle of a line."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        with suppress(OSError):  # its file was replaced by another kind of file, and it cannot seek
            stream.reconfigure(errors="backslashreplace")


def show(lines: Iterable[str], file: TextIO | None = None) -> None:
    """Print lines, each by `for_terminal`, to the standard output or another stream."""
    file = file or sys.stdout
    escape_unshowable(file)
    print(*map(for_terminal, lines), sep="\n", file=file, flush=True)


def for_markdown(text: str) -> str:
    """Text as Markdown that shows it as it is, on one line, in a table, too: no markup, formula, emoji or mention."""
    line = for_terminal(" ".join(text.split()))
    line = re.sub(r"([\\`*_{}\[\]<>#|~&$^@]|:(?=[\w+/-]))", r"\\\1", line)
    return re.sub(r"^(?:([-+=])|(\d+)([.)])(?=\s|$))", r"\2\\\1\3", line)  # a list, or a line below a heading


def for_code(text: str) -> str:
    """Text as a span of code in Markdown."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " * (len(fence) > 1)
    return f"{fence}{space}{for_terminal(text)}{space}{fence}"


def for_table(text: str) -> str:
    """Text as JSON and parquet can hold it: bytes that are no UTF-8 are written as `\\udcff` is."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def for_csv(text: str) -> str:
    """Text as a cell that no spreadsheet computes: an apostrophe stands before what would begin a formula.

    A text that is a number, such as the label "-1", stays as it is: there is nothing to compute. A carriage return, for
    many readers the end of a row, is written as `\\r`.
    """
    is_number = re.fullmatch(r"[+-]?\d+(\.\d+)?", text, re.ASCII)
    safe = f"'{text}" if text.startswith(FORMULA) and not is_number else text
    return for_table(safe.replace("\r", "\\r"))


def for_file_name(text: str) -> str:
    """Text as part of a file name behind a number, at most `MOST_BYTES` long: no separators, nothing hidden or odd."""
    known = text.encode(sys.getfilesystemencoding(), "backslashreplace").decode(sys.getfilesystemencoding())
    name = re.sub(r'[<>:"/\\|?*]', "_", for_terminal(known).strip().lstrip("."))
    return name.encode("utf-8")[:MOST_BYTES].decode("utf-8", "ignore").rstrip(" .") or "_"


def counted(number: int, what: str) -> str:
    """A number and what it is of, in the plural unless it is one: "1 image", "1,200 classes"."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"
