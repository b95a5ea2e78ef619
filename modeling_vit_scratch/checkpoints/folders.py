# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Folders that are written whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_new_folder(output: str | Path) -> None:
    """Refuse a folder that could not be written, before any work is done for it.

    Raises:
        ValueError: if it exists and is not empty, or its parent cannot be written.
    """
    output = Path(output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ValueError(f"{output} already exists: name a new folder.")
    existing = next(path for path in output.absolute().parents if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"{output} cannot be written: {error.strerror}.") from error


@contextmanager
def new_folder(output: str | Path) -> Iterator[Path]:
    """A folder to write into, which takes the name `output` when the block ends, and is gone if it fails.

    Raises:
        ValueError: as `check_new_folder`.
    """
    output = Path(output)
    check_new_folder(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=output.absolute().parent, prefix=f".{output.name}."))
    try:
        yield staging
        staging.chmod(0o777 & ~_umask())
        os.replace(staging, output)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
