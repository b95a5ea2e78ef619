# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Folders that are written whole or not at all; what can be written, and what is no command's to replace or delete."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

# In the folder of a run: the run that another one overwrites, until that has made its first step.
SET_ASIDE = ".incomplete-before"


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


def check_not_an_input(output: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuse an output that is an input of the same command, or a folder that holds one, before any work is done.

    Files are compared by what they are, not by their names: links of both kinds and a file system that takes capitals
    for small letters are seen through.

    Args:
        output: a file or folder that the command replaces, if it is there.
        inputs: files and folders that the command reads; what does not exist is none.

    Raises:
        ValueError: with the name of the input.
    """
    ours = _status(output)
    if ours is None:
        return
    for name in inputs:
        found = _status(name)
        if found is not None and os.path.samestat(ours, found):
            raise ValueError(f"{name} is both read and the output: name another output.")
        if stat.S_ISDIR(ours.st_mode) and found is not None and _holds(ours, Path(name)):
            raise ValueError(f"{name} is read and lies in the output {output}: name another output.")


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path, which need not exist, or what it leads to, lies in a folder."""
    status = _status(folder)
    return status is not None and stat.S_ISDIR(status.st_mode) and _holds(status, path)


def _holds(folder: os.stat_result, path: Path) -> bool:
    parents = {*path.absolute().parents, *path.resolve().parents}
    return any((found := _status(parent)) is not None and os.path.samestat(folder, found) for parent in parents)


def _status(path: str | Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # a name with a null byte, or too long, is no file's
        return None


def delete(path: Path) -> None:
    """Delete a file, a folder with all that is in it, or a link but not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
