# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What ends a training run before its time, a signal or a loss that is no number, and how processes agree on it."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from torch import Tensor

STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds within which a signal is the same one: a launcher passes on the Ctrl+C that its processes get anyway.
SAME_SIGNAL = 2.0


class Interrupted(KeyboardInterrupt):
    """A process that was asked to end by a signal, as Ctrl+C asks it.

    Args:
        signal: its number.
        message: what there is to know; nothing if nothing was saved on the way.
    """

    def __init__(self, signal: int, message: str = ""):
        super().__init__(message)
        self.signal = signal

    def __str__(self) -> str:
        return str(self.args[0])


class StopSignal:
    """Whether this process was asked to end; Ctrl+C for the second time ends it at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.when = 0.0

    @contextmanager
    def listening(self) -> Iterator["StopSignal"]:
        """Note signals instead of dying of them; in another thread than the main one, which gets none, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in STOPPING_SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: object) -> None:
        if self.received is None:
            self.received, self.when = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self.when > SAME_SIGNAL:
            raise KeyboardInterrupt


class Vote:
    """What the processes have to know of one another after each step: whether any wants to stop, or has failed.

    It is asked for one step late, so that no process waits for its device or for the others.
    """

    def __init__(self) -> None:
        self.pending: tuple[Tensor, Any] | None = None
        self.step = 0

    def cast(self, step: int, loss: Tensor, stop: int | None) -> None:
        """Say how this process stands after a step."""
        flags = torch.stack((~loss.isfinite().all(), torch.tensor(stop is not None, device=loss.device))).int()
        work = None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            work = torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, async_op=True)
        self.pending, self.step = (flags, work), step

    def result(self) -> tuple[bool, bool]:
        """Whether a loss of any process was not finite, and whether any was asked to stop, at the last vote."""
        if self.pending is None:
            return False, False
        flags, work = self.pending
        if work is not None:
            work.wait()
        failed, stop = flags.tolist()
        return bool(failed), bool(stop)
