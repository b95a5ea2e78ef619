# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Text that comes from elsewhere (names of files and classes, messages of libraries), made safe for where it is shown.

Whatever a person sees of it, in a terminal, a model card, a table or the name of a file, goes through one of these.
"""

import re


def for_terminal(text: str) -> str:
    """Text on one line of a terminal; what would break or steer it, and bytes that are no text, as escapes."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def for_markdown(text: str) -> str:
    """Text as Markdown that shows it as it is, on one line, in a table, too."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(text.split()))


def for_table(text: str) -> str:
    """Text as JSON and parquet can hold it: bytes that are no UTF-8 are written as `\\udcff` is."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
