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
