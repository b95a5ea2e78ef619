# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Keeping a second command out of what a first one is writing."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

if sys.platform != "win32":
    import fcntl


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
        ValueError: in all processes, if another command holds it.
    """
    file, holder = None, ""
    if sys.platform != "win32" and state.process_index == 0:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            print(f"process {os.getpid()} on {socket.gethostname()}", end="", file=file, flush=True)
        except BlockingIOError:
            holder = path.read_text(encoding="utf-8") or "another process"
        except OSError:
            pass  # a file system without locks
    (holder,) = broadcast_object_list([holder])
    if holder:
        if file is not None:
            file.close()
        raise ValueError(f"{holder} {what}")
    try:
        yield
    finally:
        if file is not None:
            path.unlink(missing_ok=True)
            file.close()
