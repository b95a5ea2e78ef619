# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a process makes of the machine that it runs on: the cores to load images with, its GPU, and memory."""

import ctypes
import os
import sys

# More processes that load images than this rarely help one that trains.
MOST_WORKERS = 8
# Of glibc's mallopt(3): from how many free bytes at its end on memory is given back, and from how many on a piece is
# mapped on its own, which gives it back as soon as it is free.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
TRIMMED_FROM, MAPPED_FROM = 2**31 - 1, 2**30
# Threads of OpenMP that wait for each other sleep after a short spin. OMP_WAIT_POLICY is the standard, GOMP_SPINCOUNT
# (turns of a loop) of GNU's runtime, which torch has on Linux, KMP_BLOCKTIME (milliseconds) of Intel's and LLVM's.
PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}


def let_waiting_threads_sleep() -> None:
    """Have threads that wait for each other leave their cores to other programs. To be called before torch is loaded.

    As a rule they spin, which is the fastest on a machine with nothing else to do. Where other programs compute, they
    spin in the way of the very thread that they wait for, and a small model takes four times as long
    (docs/performance.md). Does nothing if the user's environment says how they wait.
    """
    if not PATIENT_THREADS.keys() & os.environ.keys():
        os.environ.update(PATIENT_THREADS)


def keep_freed_memory() -> None:
    """Keep what one batch frees for the next one, on the CPU, instead of giving it back to the system in between.

    Getting it again costs a page fault for every 4 kB, a tenth of the time of a small model (docs/performance.md). The
    process stays as large as it was at its largest. It is a setting of glibc; elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, TRIMMED_FROM)
        mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)


def own_cores() -> int:
    """Cores for each process of a job, of those that it may run on: in a container they are not all that there are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def spare_cores() -> int:
    """Processes to load images with: the cores that the training processes leave, eight for each of them at most."""
    return min(MOST_WORKERS, own_cores() - 1)


class OneGpu:
    """`TrainingArguments` of a process that keeps to one GPU, the first that it sees.

    With several, and no launcher, transformers' would run the model on all of them in threads (`nn.DataParallel`), and
    its `Trainer` would multiply a loss that is divided by the images of the step by the number of GPUs.
    """

    @property
    def n_gpu(self) -> int:
        """GPUs of this process; 0 on the CPU."""
        return min(1, super().n_gpu)  # type: ignore[misc]  # of what it is mixed into


def idle_gpus(kind: str = "cuda") -> str:
    """What to tell a person who has more GPUs than this process uses, if nothing launched it; empty otherwise."""
    import torch  # not before it is needed: the commands begin here

    number = torch.cuda.device_count()
    if kind != "cuda" or number < 2 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return ""
    return (
        f"1 of {number} is used; torchrun --nproc_per_node={number} -m modeling_vit_scratch …, or accelerate launch, "
        "starts a process for each"
    )
