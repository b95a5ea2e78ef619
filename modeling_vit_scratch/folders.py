# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Folders that are written whole or not at all, and whether a file or folder can be written."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


def check_new_folder(output: str | Path) -> None:
    """Refuse a folder that could not be written, before any work is done for it.

    Raises:
        ValueError: if it exists and is not an empty folder that can be replaced, or its parent cannot be written.
    """
    output = Path(output)
    if os.path.lexists(output) and not _is_replaceable(output):
        raise ValueError(f"{output} already exists: name a new folder.")
    try:
        with tempfile.TemporaryFile(dir=_nearest_parent(output)):
            pass
    except OSError as error:
        raise ValueError(f"{output} cannot be written: {error.strerror}.") from error


def check_file(output: str | Path) -> None:
    """Refuse a file, new or to be replaced, that could not be written, before any work is done for it.

    Raises:
        ValueError: if it is a folder, or its folder is missing or not writable.
    """
    if os.path.isdir(output):
        raise ValueError(f"--output {output} is a folder: name a file.")
    try:
        with tempfile.TemporaryFile(dir=Path(output).resolve().parent):
            pass
    except OSError as error:
        raise ValueError(f"--output {output} cannot be written: {error.strerror}.") from error


@contextmanager
def new_folder(output: str | Path) -> Iterator[Path]:
    """A folder to write into, which takes the name `output` when the block ends, and is gone if it fails.

    Raises:
        ValueError: as `check_new_folder`.
    """
    output = Path(output)
    check_new_folder(output)
    staging = Path(tempfile.mkdtemp(dir=_nearest_parent(output), prefix=f".{output.name}."))
    try:
        yield staging
        open_to_others(staging)
        output.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging, output)
    except (SafetensorError, OSError) as error:  # a full disk, among others
        raise ValueError(f"{output} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def open_to_others(folder: str | Path) -> None:
    """Give a folder and all in it the modes that new ones get here: safetensors leaves its files to their owner alone.

    What that is a new folder tells: the umask could only be asked for by changing it, for all threads.
    """
    probe = Path(tempfile.mkdtemp(dir=folder)) / "probe"
    probe.mkdir()
    mode = probe.stat().st_mode & 0o777
    probe.rmdir()
    probe.parent.rmdir()
    for path in (Path(folder), *Path(folder).rglob("*")):
        if not path.is_symlink():
            path.chmod(mode if path.is_dir() else mode & 0o666)


def _is_replaceable(path: Path) -> bool:
    """Whether a path is an empty folder, and neither the one that the process stands in nor a place of a disk."""
    if path.is_symlink() or not path.is_dir() or any(path.iterdir()):
        return False
    return not (path.samefile(os.curdir) or path.is_mount())


def _nearest_parent(path: Path) -> Path:
    """The last of the folders above a path that exists."""
    return next(parent for parent in path.absolute().parents if parent.exists())
