"""Time our models beside other libraries' with the same weights, in one process and in interleaved rounds.

    python scripts/benchmark.py --output benchmark               # every peer that is installed: table, JSON and picture
    python scripts/benchmark.py --models vit-base-patch16-224 --batch-sizes 8 --peers transformers --rounds 5
    python scripts/benchmark.py --token-merging 13               # ours merges tokens; the peers cannot
    python scripts/benchmark.py --modes inference --int8         # ours in 8-bit integers (memory is torch's alone then)
    python scripts/benchmark.py --device cuda --bf16 --compile   # on a GPU; `--compile reduce-overhead`: CUDA graphs
    python scripts/benchmark.py --modes mixed-sizes --batch-sizes 8        # padded images beside what others do
    python scripts/benchmark.py --modes data-loading             # photographs from their files to a batch
    python scripts/benchmark.py --modes busy --models vit-micro-patch4-32 --batch-sizes 64    # beside other programs
    python scripts/benchmark.py --modes startup                  # fresh processes: help, building, predicting a picture
    python scripts/benchmark.py --modes memory                   # of predicting a thousand and 100,000 images
    python scripts/benchmark.py --modes weights                  # memory and time of importing the weights of a ViT-L
    python scripts/benchmark.py --modes time-to-accuracy --data CIFAR10    # hours: scripts/compare_training.py, in full

The outputs of both sides are asserted equal before anything is timed. Each round times one side, the other, and a plain
matrix product, so that what else the machine does meets all three. The ratio of speeds is taken round by round; its
median and range are printed. "Share" is the share of the rate of that matrix product that a side reaches, counting the
operations that a whole ViT needs for both, so that operations saved show as a higher share. Memory is the most that
tensors of a step take at once, beside the weights and the images.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from modeling_vit_scratch.system.machine import let_waiting_threads_sleep, own_cores

# Or the profiler says when it starts and stops.
os.environ.setdefault("KINETO_LOG_LEVEL", "5")
if __name__ == "__main__":  # the processes of the mode "busy" import this, too, and have settings of their own
    let_waiting_threads_sleep()  # before torch is loaded

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, ViTConfig, ViTForImageClassification

import busy
import data_loading
import mixed_sizes
from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.commands.parsing import count, positive
from modeling_vit_scratch.presets import preset_names, preset_path
from modeling_vit_scratch.tracing.int8 import Int8Classifier
from peers import PEERS, Logits, build_pair, installed_peers
from timing import beside, compare, peak_memory, ratios, with_range

# Fields of the configuration that make less work, each a flag.
FASTER = ("token_merging", "patch_dropout")
# The least share of the largest side that the sides of images of different sizes have.
SMALLEST_SIDES = (0.5, 0.9)
PRESETS = ["vit-tiny-patch16-224", "vit-small-patch16-224", "vit-base-patch16-224"]
# That of the first layer of the feed-forward networks of a ViT-B on 8 images, the product that ViTs spend most time in.
PRODUCT = (8 * 197, 768, 3072)
# What `vit-scratch predict` does at the least: of sys.argv a checkpoint of transformers' ViT, and a picture.
PREDICTION = """
import sys
import torch
from PIL import Image
from transformers import ViTForImageClassification, ViTImageProcessorPil

processor = ViTImageProcessorPil.from_pretrained(sys.argv[1])
model = ViTForImageClassification.from_pretrained(sys.argv[1])
with torch.inference_mode():
    logits = model(**processor(Image.open(sys.argv[2]).convert("RGB"), return_tensors="pt")).logits
score, label = logits[0].softmax(-1).max(-1)
print(sys.argv[2], model.config.id2label[int(label)], float(score))
"""
VIT_L = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "num_labels": 1000,
}


def inference(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """One forward pass: the logits."""
    with torch.inference_mode():
        return model(images)


def train_step(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Forward and backward pass: the gradient of the head."""
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(images).float(), labels).backward()
    head = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    return head.weight.grad


STEPS = {"inference": inference, "train-step": train_step}


def faster(
    model: ViTScratchForImageClassification, images: Tensor, mode: str, arguments: argparse.Namespace
) -> nn.Module:
    """Our side as the flags want it, of the same weights."""
    if fields := {name: getattr(arguments, name) for name in FASTER if getattr(arguments, name)}:
        other = ViTScratchForImageClassification(ViTScratchConfig.from_dict({**model.config.to_dict(), **fields}))
        other.load_state_dict(model.state_dict())
        model = other.to(images.device).train(mode == "train-step")
    # At least two images show the exporter which axis is the batch.
    return Int8Classifier(model, images.repeat(2, 1, 1, 1)) if arguments.int8 else model


def on_device(model: nn.Module, arguments: argparse.Namespace) -> nn.Module:
    """A side as the flags want it: where, in which precision, compiled or not."""
    model = model.to(arguments.device)
    if arguments.compile:
        model.compile(mode=arguments.compile)
    return model


def benchmark_pair(peer: str, preset: str, mode: str, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """A row of the table: both sides on the same images."""
    device = arguments.device
    ours, theirs = build_pair(peer, preset)
    config = ours.config
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, config.image_size, config.image_size, generator=generator).to(device)
    labels = torch.randint(config.num_labels, (batch,), generator=generator).to(device)
    models = {"ours": Logits(ours), "peer": theirs}
    step = STEPS[mode]
    for model in models.values():
        model.to(device).train(mode == "train-step")
    results = [step(model, images, labels) for model in models.values()]
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)
    operations = whole_operations(ours, images) * (1 if mode == "inference" else 3)
    models["ours"] = Logits(faster(ours, images, mode, arguments))
    models = {name: on_device(model, arguments) for name, model in models.items()}

    def run(name: str) -> Callable[[], Any]:
        def call() -> None:
            with torch.autocast(device, torch.bfloat16, enabled=arguments.bf16):
                step(models[name], images, labels)

        return call

    left, right = torch.randn(PRODUCT[:2], device=device), torch.randn(PRODUCT[1:], device=device)

    def product() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=arguments.bf16):
            torch.matmul(left, right)

    sides = {"ours": run("ours"), "peer": run("peer"), "product": product}
    memory = {}
    for name in ("ours", "peer"):
        sides[name]()  # what is made once, compiled code among it, is neither timed nor counted
        models[name].zero_grad()  # the gradients of a step are its own
        memory[name] = peak_memory(sides[name], device)
    times = compare(sides, arguments.rounds, device)
    rate = 2 * np.prod(PRODUCT) / statistics.median(times["product"])
    row = {
        "label": f"{preset}{setting_text(arguments)}, {mode}, batch {batch}",
        "model": preset,
        "mode": mode,
        "batch": batch,
        **{name: getattr(arguments, name) for name in FASTER},
        "int8": arguments.int8,
        **beside(times, "peer", batch),
        "peer": peer,
        "share": {name: operations / statistics.median(times[name]) / rate for name in memory},
        "product_operations_per_second": rate,
        "peak_memory": memory,
    }
    if mode == "train-step" and not arguments.compile:
        models["ours"].model.activation_checkpointing_enable()
        models["ours"].zero_grad()
        row["peak_memory"]["ours, checkpointed"] = peak_memory(sides["ours"], device)
    return row


def whole_operations(model: ViTScratchForImageClassification, images: Tensor) -> float:
    """Operations of a forward pass that computes every token of every block."""
    was_training = model.training
    operations = model.eval().vit.floating_point_ops({"pixel_values": images}) / 3
    model.train(was_training)
    return operations


HEADER = (
    "| model | mode | batch | peer | ours, images/s | peer, images/s | ratio (range) | share, ours and peer "
    "| memory, ours and peer |\n|---|---|---|---|---|---|---|---|---|"
)


def setting_text(setting: argparse.Namespace) -> str:
    """What our side does that the peer does not, behind the name of a model."""
    text = f" merging {setting.token_merging}" if setting.token_merging else ""
    text += f" patch dropout {setting.patch_dropout:g}" if setting.patch_dropout else ""
    return text + (" int8" if setting.int8 else "")


def table_row(row: dict[str, Any]) -> str:
    speeds, shares, memory = row["images_per_second"], row["share"], row["peak_memory"]
    setting = setting_text(argparse.Namespace(**row))
    checkpointed = memory.get("ours, checkpointed")
    return (
        f"| {row['model']}{setting} | {row['mode']} | {row['batch']} | {row['peer']} | {speeds['ours']:.1f} | "
        f"{speeds['peer']:.1f} | {with_range(row['ratio'], row['ratio_range'])} | "
        f"{shares['ours']:.0%}, {shares['peer']:.0%} | {memory['ours'] / 1e6:.0f}, {memory['peer'] / 1e6:.0f} MB"
        + (f"; checkpointed {checkpointed / 1e6:.0f} MB |" if checkpointed else " |")
    )


def describe_machine(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "rounds": arguments.rounds,
        "precision": "bf16 autocast" if arguments.bf16 else "fp32",
        "compiled": arguments.compile,
    }


def benchmark_models(arguments: argparse.Namespace, modes: list[str]) -> Iterator[dict[str, Any]]:
    """Print the rows of a table, and yield them."""
    print(HEADER, flush=True)
    for preset in arguments.models:
        for mode in modes:
            for batch in arguments.batch_sizes:
                for peer in arguments.peers:
                    row = benchmark_pair(peer, preset, mode, batch, arguments)
                    print(table_row(row), flush=True)
                    yield row


def benchmark_mixed_sizes(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Print the rows of a table, and yield them."""
    print(mixed_sizes.HEADER, flush=True)
    for preset in arguments.models:
        for batch in arguments.batch_sizes:
            for smallest in SMALLEST_SIDES:
                for row in mixed_sizes.benchmark_mixed_sizes(preset, batch, smallest, arguments.rounds):
                    print(mixed_sizes.table_row(row), flush=True)
                    yield row


def benchmark_data_loading(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Print the rows of a table, and yield them."""
    print(data_loading.HEADER, flush=True)
    for row in data_loading.benchmark_data_loading(arguments.rounds):
        print(data_loading.table_row(row), flush=True)
        yield row


def benchmark_busy(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Print the rows of a table, and yield them."""
    print(busy.HEADER, flush=True)
    for preset in arguments.models:
        for batch in arguments.batch_sizes:
            for row in busy.benchmark_busy(preset, batch, arguments.rounds, competing=own_cores()):
                print(busy.table_row(row), flush=True)
                yield row


def write(output: str, machine: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The rows as `output`.json, and their ratios as `output`.png."""
    Path(f"{output}.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", "utf-8")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.24 * len(rows)), layout="constrained")
    peers = list(dict.fromkeys(row["peer"] for row in rows))
    labels = [row["label"] for row in rows]
    for place, row in enumerate(rows):
        low, high = row["ratio_range"]
        colour = f"C{peers.index(row['peer'])}"
        axes.plot([low, high], [place, place], color=colour, linewidth=2, alpha=0.5)
        axes.plot(row["ratio"], place, "o", color=colour)
    for index, peer in enumerate(peers):
        axes.plot([], [], "o-", color=f"C{index}", label=peer)
    axes.axvline(1.0, color="black", linewidth=1)
    # A label where it differs from the row above.
    shown = [label if place == 0 or label != labels[place - 1] else "" for place, label in enumerate(labels)]
    axes.set_yticks(range(len(rows)), shown)
    axes.invert_yaxis()
    axes.set_xlabel("speed of ours / speed of the peer: median of the rounds, and range")
    axes.legend()
    figure.savefig(f"{output}.png", dpi=120)
    plt.close(figure)


def benchmark_startup(rounds: int) -> None:
    """Print the times of fresh processes: help, importing and building the small preset, and predicting a picture."""
    with tempfile.TemporaryDirectory() as folder:
        programs = _programs(Path(folder))
        sides = {
            name: partial(subprocess.run, [sys.executable, *program], check=True, capture_output=True)
            for name, (program, _) in programs.items()
        }
        times = compare(sides, rounds, "cpu")
    for name, (_, peer) in programs.items():
        low, middle, high = min(times[name]), statistics.median(times[name]), max(times[name])
        beside_it = f"  {with_range(*ratios(times[peer], times[name]))} of {peer}" if peer else ""
        print(f"{name:<24} {middle:.2f} s ({low:.2f} to {high:.2f}){beside_it}")


def _programs(folder: Path) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """What Python is to run, each with the one that it is compared to."""
    preset = preset_path("vit-small-patch16-224")
    small = ViTScratchConfig.from_pretrained(preset)
    fields = {name: getattr(small, name) for name in ("hidden_size", "num_attention_heads", "intermediate_size")}
    fields["num_labels"] = 1000
    models = {
        "ours": ViTScratchForImageClassification(small),
        "theirs": ViTForImageClassification(ViTConfig(**fields)),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        AutoImageProcessor.from_pretrained(preset).save_pretrained(folder / name)
    (picture,) = data_loading.write_photographs(folder, 1)
    verb, build = ("-m", "modeling_vit_scratch"), "import {0} as m; m.{1}ForImageClassification(m.{1}Config(**{2}))"
    return {
        "help of predict": ((*verb, "predict", "--help"), None),
        "help of train": ((*verb, "train", "--help"), "import TrainingArguments"),
        "import TrainingArguments": (("-c", "from transformers import TrainingArguments"), None),
        "build our ViT-S": (("-c", build.format("modeling_vit_scratch", "ViTScratch", fields)), "build their ViT-S"),
        "build their ViT-S": (("-c", build.format("transformers", "ViT", fields)), None),
        "predict a picture": ((*verb, "predict", str(folder / "ours"), picture), "a script that does"),
        "a script that does": (("-c", PREDICTION, str(folder / "theirs"), picture), None),
    }


def benchmark_weights() -> None:
    """Print what an import of random ViT-L weights takes, of transformers' folder and of Google's `.npz`."""
    baseline = _peak("import modeling_vit_scratch.porting")[0]
    with tempfile.TemporaryDirectory() as folder:
        sources = {"transformers": Path(folder, "theirs"), "google": Path(folder, "L_16.npz")}
        config = ViTConfig(**VIT_L)
        ViTForImageClassification(config).save_pretrained(sources["transformers"])
        _save_as_google(sources["transformers"], sources["google"])
        for name, source in sources.items():
            size = sum(path.stat().st_size for path in (source.iterdir() if source.is_dir() else [source]))
            output = Path(folder, f"ours-{name}")
            program = f"from modeling_vit_scratch.cli import main; main(['import', {str(source)!r}, {str(output)!r}])"
            peak, seconds = _peak(program)
            print(
                f"import weights  {name:<12} {size / 1e9:.2f} GB in {seconds:.0f} s; peak {peak / 1e9:.2f} GB, "
                f"{(peak - baseline) / size:.2f} x the file above the {baseline / 1e9:.2f} GB of the libraries"
            )


def benchmark_memory() -> None:
    """Print what predicting a few and many images takes, of a small random model."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "checkpoint")
        torch.manual_seed(0)
        config = ViTScratchConfig.from_pretrained(preset_path("digits"), num_labels=10)
        ViTScratchForImageClassification(config).save_pretrained(checkpoint)
        AutoImageProcessor.from_pretrained(preset_path("digits")).save_pretrained(checkpoint)
        images, one = Path(folder, "images"), Path(folder, "image.png")
        images.mkdir()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(one)
        there = 0
        for number in (1_000, 10_000, 100_000):
            for index in range(there, number):
                os.symlink(one, images / f"{index:06}.png")
            there = number
            command = ["predict", str(checkpoint), str(images), "--output", str(Path(folder, "table.jsonl"))]
            peak, seconds = _peak(f"from modeling_vit_scratch.cli import main; main({command!r})")
            print(f"predict {number:>7,} images in {seconds:.0f} s; peak {peak / 1e6:.0f} MB", flush=True)


def _peak(program: str) -> tuple[int, float]:
    """The largest resident size of a fresh process that runs a program, in bytes, and its seconds."""
    report = "; import resource, sys; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    began = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", program + report], check=True, capture_output=True, text=True)
    return int(result.stderr.split()[-1]) * 1024, time.perf_counter() - began


def _save_as_google(folder: Path, file: Path) -> None:
    """The weights of a transformers ViT as vision_transformer writes them."""
    model = ViTForImageClassification.from_pretrained(folder)
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    arrays = {}

    def linear(theirs: str, layer: torch.nn.Linear, shape: tuple[int, ...] = (), bias: tuple[int, ...] = ()) -> None:
        arrays[f"{theirs}/kernel"] = layer.weight.detach().numpy().T.reshape(shape or (layer.in_features, -1))
        arrays[f"{theirs}/bias"] = layer.bias.detach().numpy().reshape(bias or -1)

    def norm(theirs: str, layer: torch.nn.LayerNorm) -> None:
        arrays[f"{theirs}/scale"], arrays[f"{theirs}/bias"] = (p.detach().numpy() for p in (layer.weight, layer.bias))

    embeddings = model.vit.embeddings
    projection = embeddings.patch_embeddings.projection
    arrays["embedding/kernel"] = projection.weight.detach().numpy().transpose(2, 3, 1, 0)
    arrays["embedding/bias"] = projection.bias.detach().numpy()
    arrays["cls"] = embeddings.cls_token.detach().numpy()
    arrays["Transformer/posembed_input/pos_embedding"] = embeddings.position_embeddings.detach().numpy()
    for index, layer in enumerate(model.vit.layers):
        block = f"Transformer/encoderblock_{index}"
        norm(f"{block}/LayerNorm_0", layer.layernorm_before)
        norm(f"{block}/LayerNorm_2", layer.layernorm_after)
        for name in ("query", "key", "value"):
            projection = getattr(layer.attention, f"{name[0]}_proj")
            linear(f"{block}/MultiHeadDotProductAttention_1/{name}", projection, (width, heads, -1), (heads, -1))
        linear(f"{block}/MultiHeadDotProductAttention_1/out", layer.attention.o_proj, (heads, -1, width))
        linear(f"{block}/MlpBlock_3/Dense_0", layer.mlp.fc1)
        linear(f"{block}/MlpBlock_3/Dense_1", layer.mlp.fc2)
    norm("Transformer/encoder_norm", model.vit.layernorm)
    linear("head", model.classifier)
    np.savez(file, **arrays)


def benchmark_time_to_accuracy(data: str) -> None:
    """All of `scripts/compare_training.py`, which goes on where it was interrupted."""
    for step in (["time", "--data", data], ["train", "--data", data], ["draw"]):
        subprocess.run([sys.executable, Path(__file__).with_name("compare_training.py"), *step], check=True)


TABLES = {"mixed-sizes": benchmark_mixed_sizes, "data-loading": benchmark_data_loading, "busy": benchmark_busy}


def what_does_not_go_together(arguments: argparse.Namespace) -> str | None:
    """A sentence about flags that would be ignored or cannot be followed, if there are any."""
    modes = set(arguments.modes)
    of_steps = {
        "--token-merging": arguments.token_merging,
        "--patch-dropout": arguments.patch_dropout,
        "--int8": arguments.int8,
        "--device cuda": arguments.device == "cuda",
        "--bf16": arguments.bf16,
        "--compile": arguments.compile,
    }
    if modes - set(STEPS) and any(of_steps.values()):
        flag = next(flag for flag, given in of_steps.items() if given)
        return f"{flag} is for the modes {' and '.join(STEPS)}."
    if arguments.patch_dropout and "inference" in modes:
        return "--patch-dropout is for --modes train-step: nothing is left out in inference."
    if arguments.int8 and (modes != {"inference"} or arguments.device != "cpu" or arguments.bf16 or arguments.compile):
        return "--int8 is for --modes inference on the CPU, by itself or with --token-merging."
    if arguments.device == "cuda" and not torch.cuda.is_available():
        return "--device cuda: torch finds no GPU."
    if "time-to-accuracy" in modes and not arguments.data:
        return "--modes time-to-accuracy wants --data."
    if arguments.output and not modes & {*STEPS, *TABLES}:
        return f"--output is for the modes {', '.join([*STEPS, *TABLES])}."
    if arguments.output and not Path(arguments.output).parent.is_dir():
        return f"--output {arguments.output}: there is no folder {Path(arguments.output).parent}."
    return None


def share(text: str) -> float:
    if not 0 <= float(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text!r}")
    return float(text)


def main() -> None:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--modes",
        nargs="+",
        default=["inference", "train-step"],
        choices=[*STEPS, *TABLES, "startup", "weights", "memory", "time-to-accuracy"],
    )
    parser.add_argument("--models", nargs="+", default=PRESETS, choices=preset_names(), metavar="PRESET")
    parser.add_argument("--batch-sizes", nargs="+", type=positive, default=[1, 8, 64], metavar="B")
    parser.add_argument("--peers", nargs="+", default=installed_peers(), choices=list(PEERS))
    parser.add_argument("--rounds", type=positive, default=11)
    parser.add_argument(
        "--token-merging", type=count, default=0, metavar="R", help="patches that each of our blocks merges"
    )
    parser.add_argument(
        "--patch-dropout", type=share, default=0.0, metavar="P", help="share of the patches that training leaves out"
    )
    parser.add_argument("--int8", action="store_true", help="ours in 8-bit integers, with ONNX Runtime")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument(
        "--compile",
        nargs="?",
        const="default",
        choices=["default", "reduce-overhead", "max-autotune"],
        help="torch.compile both sides; reduce-overhead makes CUDA graphs",
    )
    parser.add_argument("--data", metavar="CIFAR10", help="that of scripts/compare_training.py, for time-to-accuracy")
    parser.add_argument("--output", metavar="NAME", help="write NAME.json and NAME.png, too")
    arguments = parser.parse_args()
    if problem := what_does_not_go_together(arguments):
        parser.error(problem)
    if "startup" in arguments.modes:
        benchmark_startup(arguments.rounds)
    if "weights" in arguments.modes:
        benchmark_weights()
    if "memory" in arguments.modes:
        benchmark_memory()
    if "time-to-accuracy" in arguments.modes:
        benchmark_time_to_accuracy(arguments.data)
    steps = [mode for mode in arguments.modes if mode in STEPS]
    tables = [benchmark_models(arguments, steps)] if steps else []
    tables += [table(arguments) for mode, table in TABLES.items() if mode in arguments.modes]
    if not tables:
        return
    machine = describe_machine(arguments)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    rows = []
    for row in itertools.chain.from_iterable(tables):
        rows.append(row)
        if arguments.output:
            write(arguments.output, machine, rows)


if __name__ == "__main__":
    main()
