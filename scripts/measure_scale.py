"""Measure what a training step costs here in time, memory and communication, and what loading its images costs.

    python scripts/measure_scale.py step --models vit-small-patch16-224 --batch 8
    torchrun --nproc_per_node=8 scripts/measure_scale.py step --batch 128 --precision bf16 --ways one ddp fsdp
    python scripts/measure_scale.py loading

Each measurement is a line of JSON, added to a file (`--output`); `scripts/plan_scale.py` makes tables of them. Steps
are launched as training is (python, torchrun, accelerate launch) and run on GPUs, or where there are none on the CPU.

In the way `one` every process has a copy of the model and none says a word to another. What `ddp` and `fsdp` take
longer than that, in the same launch, is communication that computing does not hide. What they send is counted in the
forward and backward pass; clipping adds a number for each parameter.
"""

import argparse
import ctypes
import gc
import io
import itertools
import json
import shlex
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from modeling_vit_scratch.system.machine import let_waiting_threads_sleep

let_waiting_threads_sleep()  # before torch is loaded

import numpy as np
import psutil
import torch
from accelerate import PartialState
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoImageProcessor

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.data.augmentation import random_mirror, random_resized_crop
from modeling_vit_scratch.data.sampling import TrainingImages
from modeling_vit_scratch.presets import preset_path

# What a process sends, and receives, for each byte that a collective of n processes is about, if they form a ring.
RING: dict[str, Callable[[int], float]] = {
    "allreduce_": lambda n: 2 * (n - 1) / n,
    "_allgather_base_": lambda n: (n - 1) / n,
    "_reduce_scatter_base_": lambda n: (n - 1) / n,
}


# --- A step ----------------------------------------------------------------------------------------------------------


def build(preset: str, checkpointing: bool = False) -> ViTScratchForImageClassification:
    """A preset's model with random weights, ready to train."""
    torch.manual_seed(0)
    model = ViTScratchForImageClassification(ViTScratchConfig.from_pretrained(preset_path(preset)))
    if checkpointing:
        model.activation_checkpointing_enable()
    return model.train()


def distribute(model: ViTScratchForImageClassification, way: str, precision: str, device: torch.device) -> nn.Module:
    """The model as accelerate distributes it: weights in fp32, and in bf16 what FSDP gathers and adds up."""
    if way == "fsdp":
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.bfloat16) if precision == "bf16" else MixedPrecisionPolicy()
        mesh = torch.distributed.init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        for module in (*model.vit.encoder, model):
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        return model
    return DistributedDataParallel(model.to(device)) if way == "ddp" else model.to(device)


def expected_payload(model: nn.Module, way: str, precision: str, processes: int) -> dict[str, int]:
    """Bytes that the collectives of a step are about, from the shapes of the parameters alone.

    FSDP2 shards the first dimension of each parameter, and fills it up to a multiple of the number of processes.
    """
    if way == "fsdp":
        rows = [(len(weight), weight[0].numel()) for weight in model.parameters()]
        padded = sum(-(-length // processes) * processes * row for length, row in rows)
        padded *= 2 if precision == "bf16" else 4
        return {"_allgather_base_": 2 * padded, "_reduce_scatter_base_": padded}  # gathered forward and backward
    return {"allreduce_": 4 * sum(weight.numel() for weight in model.parameters())} if way == "ddp" else {}


def sent(payload: dict[str, int], processes: int) -> float:
    """Bytes that a process sends in a ring, and receives as many, for what the collectives are about."""
    return sum(RING[name](processes) * size for name, size in payload.items())


class Traffic(TorchDispatchMode):
    """Watches collectives: `payload` has the bytes that those of each kind were about, `calls` how many they were."""

    def __init__(self):
        super().__init__()
        self.payload: dict[str, int] = defaultdict(int)
        self.calls: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), options: dict | None = None) -> Any:
        if DTensor in types:
            return NotImplemented  # it comes back as what DTensor makes of it
        if function.namespace == "c10d":
            name = function.name().removeprefix("c10d::")
            # Of two buffers, the shard of this process and the whole, the whole.
            tensors = arguments[0] if isinstance(arguments[0], list) else [max(arguments[:2], key=torch.numel)]
            self.payload[name] += sum(size(tensor) for tensor in tensors)
            self.calls[name] += 1
        return function(*arguments, **(options or {}))


class SavedForBackward:
    """Watches, under its `hooks`, what a forward pass keeps for the backward pass beside the parameters; `bytes`."""

    def __init__(self):
        self.storages: dict[int, int] = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor if tensor._base is None else tensor._base, nn.Parameter):
            storage = tensor.untyped_storage()  # the graph keeps it, so that no other comes to its place
            self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.storages.values())


def size(tensor: Tensor) -> int:
    """Bytes of a tensor; of a sharded one, those of this process."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes


def peak_memory(device: torch.device, reset: bool = False) -> int:
    """The most bytes that were in use at a time since the last reset: allocated on a GPU, resident of this process."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:  # Linux's way
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def prepare_step(
    state: PartialState, preset: str, way: str, precision: str, options: argparse.Namespace
) -> tuple[dict[str, Any], Callable[[], float]]:
    """One model in one way: what can be counted of its step, and the step, which returns its seconds.

    A step is forward and backward pass, clipping and AdamW, on images that are in memory.
    """
    device, processes = state.device, state.num_processes
    gc.collect()
    before = peak_memory(device, reset=True)
    model = build(preset, options.activation_checkpointing)
    expected = expected_payload(model, way, precision, processes)
    parallel = distribute(model, way, precision, device)
    optimizer = torch.optim.AdamW(parallel.parameters(), lr=1e-4, fused=True)
    images = torch.randn(options.batch, 3, model.config.image_size, model.config.image_size, device=device)
    labels = torch.randint(model.config.num_labels, (options.batch,), device=device)
    autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bf16" and way != "fsdp")

    def learn() -> None:
        with autocast():
            loss = parallel(pixel_values=images, labels=labels).loss
        loss.backward()

    def update() -> None:
        nn.utils.clip_grad_norm_(parallel.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def step() -> float:
        wait_for_all(state)
        began = time.perf_counter()
        learn()
        update()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    for _ in range(2):  # the first makes the optimizer's state, in the second DDP agrees on its buckets
        step()
    with Traffic() as traffic, (saved := SavedForBackward()).hooks:
        learn()
    gradients = sum(size(weight.grad) for weight in parallel.parameters())
    update()
    line = {
        "kind": "step",
        "model": preset,
        "way": way,
        "processes": processes,
        "batch": options.batch,
        "precision": precision,
        "checkpointing": options.activation_checkpointing,
        "bytes": {
            "parameters": sum(map(size, parallel.parameters())),
            "gradients": gradients,
            "optimizer": sum(size(tensor) for slots in optimizer.state.values() for tensor in slots.values()),
            "saved": saved.bytes,
            "peak": peak_memory(device) - before,
        },
        "calls": dict(traffic.calls),
        "payload": dict(traffic.payload),
        "expected": expected,
    }
    return line, step


def wait_for_all(state: PartialState) -> None:
    """Wait for the other processes, and for what the GPU still has to do."""
    state.wait_for_everyone()
    if state.device.type == "cuda":
        torch.cuda.synchronize()


def measure_steps(state: PartialState, preset: str, precision: str, options: argparse.Namespace) -> list[dict]:
    """Measure a model in all ways, in interleaved rounds, so that what else the machine does meets them all."""
    prepared = [prepare_step(state, preset, way, precision, options) for way in options.ways]
    seconds: list[list[float]] = [[] for _ in prepared]
    wire = [0] * len(prepared)
    for _ in range(options.rounds):
        for index, (_, step) in enumerate(prepared):
            wait_for_all(state)
            before = psutil.net_io_counters().bytes_sent
            seconds[index].append(step())
            wait_for_all(state)
            wire[index] += psutil.net_io_counters().bytes_sent - before
    # What NCCL sends between the GPUs of a machine, or past the kernel, no interface counts.
    counted = state.device.type == "cpu" and state.num_processes > 1
    return [
        {
            **line,
            "seconds": [statistics.median(times), min(times), max(times)],
            "rounds": options.rounds,
            "wire": round(total / options.rounds / state.num_processes) if counted else None,
            **machine(state.device),
        }
        for (line, _), times, total in zip(prepared, seconds, wire, strict=True)
    ]


def machine(device: torch.device) -> dict:
    """What a figure depends on beside the flags."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    command = " ".join(["scripts/measure_scale.py", *map(shlex.quote, sys.argv[1:])])
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__, "command": command}


# --- Loading ---------------------------------------------------------------------------------------------------------


def photograph(generator: np.random.Generator) -> bytes:
    """A JPEG of an ImageNet photograph's size, 500 x 375 pixels and about 110 kB, with structure of every scale."""
    image = np.zeros((375, 500, 3))
    for scale in (1, 2, 4, 8, 16, 32, 64, 128):
        noise = generator.normal(size=(375 // scale + 2, 500 // scale + 2, 3))
        channels = [
            Pillow.fromarray(noise[..., channel]).resize((500, 375), Pillow.Resampling.BICUBIC) for channel in range(3)
        ]
        image += 8 * scale**0.5 * np.stack(channels, axis=-1)
    file = io.BytesIO()
    Pillow.fromarray((128 + image).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def measure_loading(preset: str, options: argparse.Namespace) -> dict:
    """Measure how many images a second one worker decodes, crops, mirrors and normalises, from files in memory."""
    generator = np.random.default_rng(0)
    files = [photograph(generator) for _ in range(options.images)]
    rows = {"image": [{"bytes": file, "path": None} for file in files], "labels": [0] * len(files)}
    dataset = Dataset.from_dict(rows, Features(image=Image(decode=False), labels=Value("int64")))
    processor = AutoImageProcessor.from_pretrained(preset_path(preset))
    side = ViTScratchConfig.from_pretrained(preset_path(preset)).image_size
    crop = partial(random_resized_crop, least_area=0.05, size=(side, side))
    images = TrainingImages(dataset, processor, [crop, partial(random_mirror, probability=0.5)])
    torch.set_num_threads(1)  # as in a worker
    speeds = []
    for round_ in range(options.rounds + 1):
        began = time.perf_counter()
        images.__getitems__([round_ * len(files) + index for index in range(len(files))])
        speeds.append(len(files) / (time.perf_counter() - began))
    speeds = speeds[1:]  # the first imports what it needs
    return {
        "kind": "loading",
        "model": preset,
        "images": len(files),
        "rounds": options.rounds,
        "file_bytes": round(statistics.mean(map(len, files))),
        "images_per_second": [statistics.median(speeds), min(speeds), max(speeds)],
        **machine(torch.device("cpu")),
    }


# --- The command -----------------------------------------------------------------------------------------------------


def write(lines: list[dict], file: Path) -> None:
    """Add measurements to a file, and print them."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    print(text, end="", flush=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(text)


def main() -> None:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    step = verbs.add_parser("step", help="measure time, memory and communication of a training step")
    step.add_argument("--batch", type=int, default=8, help="images of one process")
    step.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32"])
    step.add_argument("--ways", nargs="+", choices=("one", "ddp", "fsdp"), default=["one"])
    step.add_argument("--activation_checkpointing", action="store_true", help="keep only what goes from block to block")
    loading = verbs.add_parser("loading", help="measure how many images a second one worker prepares")
    loading.add_argument("--images", type=int, default=64, help="different photographs")
    for verb in (step, loading):
        verb.add_argument("--models", nargs="+", default=["vit-small-patch16-224"], metavar="PRESET")
        verb.add_argument("--rounds", type=int, default=10)
        verb.add_argument("--output", type=Path, default=Path("outputs/scale.jsonl"))
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    if options.verb == "loading":
        for preset in options.models:
            write([measure_loading(preset, options)], options.output)
        return
    state = PartialState(cpu=not torch.cuda.is_available())
    if state.num_processes == 1 and options.ways != ["one"]:
        parser.error("ddp and fsdp want several processes: torchrun --nproc_per_node=2 scripts/measure_scale.py …")
    for preset, precision in itertools.product(options.models, options.precision):
        lines = measure_steps(state, preset, precision, options)
        if state.is_main_process:
            write(lines, options.output)
    state.destroy_process_group()


if __name__ == "__main__":
    main()
