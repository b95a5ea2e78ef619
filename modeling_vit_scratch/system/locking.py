# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Keeping a second command out of what a first one is writing."""

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

if sys.platform != "win32":
    import fcntl


HOLDER = "process "


def _holder() -> str:
    return f"{HOLDER}{os.getpid()} on {socket.gethostname()}"


def _opened(path: Path) -> TextIO:
    """The file of a lock, opened to be written, made if it is missing.

    Raises:
        ValueError: if it is a link of either kind, no file, or holds what no lock does.
    """
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR):
            raise
        raise ValueError(_not_ours(path)) from error
    status = os.fstat(number)
    plain = stat.S_ISREG(status.st_mode) and status.st_nlink <= 1
    if not plain or os.pread(number, len(HOLDER), 0).decode("utf-8", "replace") not in ("", HOLDER):
        os.close(number)
        raise ValueError(_not_ours(path))
    return open(number, "r+", encoding="utf-8")


def _not_ours(path: Path) -> str:
    return f"{path} should be a lock file, but is something else: move it."


@contextmanager
def locked(path: Path, state: PartialState, what: str) -> Iterator[None]:
    """Hold a lock in process 0, which the system takes from a process that dies.

    It is a lock of POSIX records: those of `flock` would live on in the processes that load images. Where there are no
    locks, on Windows and some file systems, nothing is held.

    Args:
        path: the file of the lock, made and in the end deleted, in a folder that is there.
        state: the processes that work together.
        what: what the holder of the lock does and what to do about it: "is …: wait for it".

    Raises:
        ValueError: in all processes, if another command holds it, or the file is another's.
    """
    file, refusal = None, ""
    if sys.platform != "win32" and state.process_index == 0:
        try:
            file = _opened(path)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            print(_holder(), end="", file=file, flush=True)
        except BlockingIOError:
            refusal = f"{path.read_text(encoding='utf-8') or 'another process'} {what}"
        except ValueError as error:
            refusal = str(error)
        except OSError:
            if file is None:
                raise
            # a file system without locks
    (refusal,) = broadcast_object_list([refusal])
    if refusal:
        if file is not None:
            file.close()
        raise ValueError(refusal)
    try:
        yield
    finally:
        if file is not None:
            path.unlink(missing_ok=True)
            file.close()
