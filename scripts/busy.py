"""Training steps on a quiet and on a busy machine, by how the threads of OpenMP wait for each other."""

import multiprocessing
import os
import signal
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F

from modeling_vit_scratch import ViTScratchForImageClassification
from modeling_vit_scratch.system.machine import PATIENT_THREADS
from peers import preset_config
from timing import with_range

# What OpenMP's runtimes read when torch is loaded, and how each side sets it.
SETTINGS = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY", "KMP_BLOCKTIME")
SIDES = {"ours": PATIENT_THREADS, "spinning": {}, "one thread": {"OMP_NUM_THREADS": "1"}}


# The threads are set when torch is loaded, which a fork of this process would have done already.
START = "spawn"
SECONDS = 3.0  # of each side in each round


class Rate(NamedTuple):
    """What one side did in one round."""

    images_per_second: float
    processor_seconds: float  # of a step


class Training:
    """Steps on random images, in a process of their own, as the environment sets its threads."""

    def __init__(self, preset: str, batch: int):
        torch.manual_seed(0)
        config = preset_config(preset)
        self.model = ViTScratchForImageClassification(config).train()
        self.images = torch.randn(batch, config.num_channels, config.image_size, config.image_size)
        self.labels = torch.randint(config.num_labels, (batch,))

    def step(self) -> torch.Tensor:
        """The gradient of the head."""
        self.model.zero_grad(set_to_none=True)
        F.cross_entropy(self.model(self.images).logits, self.labels).backward()
        return [layer for layer in self.model.modules() if isinstance(layer, torch.nn.Linear)][-1].weight.grad

    def steps(self, seconds: float) -> Rate:
        """As many steps as there is time for, at least one."""
        began, processor, number = time.perf_counter(), time.process_time(), 0
        while not number or time.perf_counter() - began < seconds:
            self.step()
            number += 1
        rate = number * len(self.images) / (time.perf_counter() - began)
        return Rate(rate, (time.process_time() - processor) / number)


training: Training


def prepare(*arguments: Any) -> list[list[float]]:
    """Make the model of this process; the gradient of its first step."""
    global training
    training = Training(*arguments)
    return training.step().tolist()


def run(seconds: float) -> Rate:
    return training.steps(seconds)


def compute() -> None:
    """Another program: one core, for ever."""
    while True:
        sum(range(1000))


def benchmark_busy(preset: str, batch: int, rounds: int, competing: int) -> list[dict[str, Any]]:
    """Rows of the table: each side while the others stand still, with and without other programs, round by round."""
    processes = multiprocessing.get_context(START)
    rates: dict[tuple[str, bool], list[Rate]] = {(name, busy): [] for name in SIDES for busy in (False, True)}
    with ExitStack() as stack:
        sides, gradients = {}, []
        for name, setting in SIDES.items():
            sides[name] = stack.enter_context(ProcessPoolExecutor(1, processes))
            inherited = {key: value for key, value in os.environ.items() if key not in SETTINGS}
            with mock.patch.dict(os.environ, inherited | setting, clear=True):
                gradients.append(torch.tensor(sides[name].submit(prepare, preset, batch).result()))
        for gradient in gradients[1:]:
            torch.testing.assert_close(gradient, gradients[0], rtol=1e-3, atol=1e-5)
        others = [processes.Process(target=compute, daemon=True) for _ in range(competing)]
        for other in others:
            other.start()
            stack.callback(other.kill)
        for index in range(rounds):
            for busy in (False, True):
                for other in others:
                    os.kill(other.pid or 0, signal.SIGCONT if busy else signal.SIGSTOP)
                for name in list(SIDES) if index % 2 else reversed(SIDES):
                    rates[name, busy].append(sides[name].submit(run, SECONDS).result())
    about = {"mode": "busy", "model": preset, "batch": batch, "competing": competing}
    return [about | _row(name, busy, rates) for busy in (False, True) for name in SIDES]


def _row(name: str, busy: bool, rates: dict[tuple[str, bool], list[Rate]]) -> dict[str, Any]:
    """Beside torch's own way on the quiet machine, round by round."""
    mine = [rate.images_per_second for rate in rates[name, busy]]
    shares = [own / quiet.images_per_second for own, quiet in zip(mine, rates["spinning", False], strict=True)]
    return {
        "label": f"{name}, {'busy' if busy else 'quiet'}",
        "side": name,
        "busy": busy,
        "peer": "spinning, quiet",
        "images_per_second": statistics.median(mine),
        "processor_seconds": statistics.median(rate.processor_seconds for rate in rates[name, busy]),
        "ratio": statistics.median(shares),
        "ratio_range": (min(shares), max(shares)),
    }


HEADER = (
    "| model | batch | threads | other programs | images/s | processor seconds a step | "
    "beside spinning on a quiet machine (range) |\n|---|---:|---|---:|---:|---:|---|"
)


def table_row(row: dict[str, Any]) -> str:
    return (
        f"| {row['model']} | {row['batch']} | {row['side']} | {row['competing'] if row['busy'] else 0} | "
        f"{row['images_per_second']:.1f} | {row['processor_seconds']:.2f} | "
        f"{with_range(row['ratio'], row['ratio_range'])} |"
    )
