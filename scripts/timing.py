"""Timing several sides in one process, round by round, so that what else the machine does meets them all."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile


def seconds(step: Callable[[], Any], device: str) -> float:
    """The time of one call, to the end of what it started on the device."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak_memory(step: Callable[[], Any], device: str) -> int:
    """The most that tensors made in a step take at the same time, in bytes."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    # The events of the allocator, each with the bytes that it gave or took back, in the order of time.
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    taken = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return int(taken.max(initial=0))


def compare(sides: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each side in every round. Who goes first alternates, as each finds the caches as another left them."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(rounds):
        for name in list(sides) if index % 2 else reversed(sides):
            times[name].append(seconds(sides[name], device))
    return times


def ratios(mine: list[float], theirs: list[float]) -> tuple[float, tuple[float, float]]:
    """How many times as fast mine is, by seconds of the same rounds: the median, and the range."""
    values = [other / own for own, other in zip(mine, theirs, strict=True)]
    return statistics.median(values), (min(values), max(values))


def beside(times: dict[str, list[float]], peer: str, number: int) -> dict[str, Any]:
    """What a row of every table says of "ours" and a peer, from seconds for a number of images."""
    ratio, spread = ratios(times["ours"], times[peer])
    sides = {"ours": times["ours"], "peer": times[peer]}
    speeds = {side: number / statistics.median(seconds) for side, seconds in sides.items()}
    return {"peer": peer, "images_per_second": speeds, "ratio": ratio, "ratio_range": spread}


def with_range(ratio: float, spread: tuple[float, float]) -> str:
    """A ratio as tables show it."""
    return f"{ratio:.2f} ({spread[0]:.2f} to {spread[1]:.2f})"
