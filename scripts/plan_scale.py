"""Make tables of what `scripts/measure_scale.py` measured, and plan what ImageNet would cost on one and several GPUs.

    python scripts/plan_scale.py table docs/scale.jsonl
    python scripts/plan_scale.py plan --measured docs/scale.jsonl --precision fp32 --devices 1
    python scripts/plan_scale.py plan --peak_tflops 989 --efficiency 0.35 --workers 16 --price 3

A plan takes the computing time of a step from a measurement, or calculates it from the operations of the model, and
says which. What the devices send each other is calculated either way.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch

from measure_scale import build, expected_payload, sent

# Images and epochs: the recipe's two lengths (arXiv 2205.01580), AugReg's shorter one (2106.10270), ViT's (2010.11929).
RUNS = {"ImageNet-1k": (1_281_167, (90, 300)), "ImageNet-21k": (14_197_122, (30, 90))}


STEP = ["model", "way x processes", "precision", "batch"]
COST = [*STEP, "s per step", "images/s", "weights, gradients, AdamW, MB", "saved for backward, MB", "peak, MB"]
TALK = [*STEP, "collectives", "sent, MB", "formula, MB", "interface, MB", "not hidden"]
LOADING = ["model", "file, kB", "images/s of one worker"]
TIMES = ["model", "devices", "images each", "computing, ms", "talking, ms", "images/s", "workers to keep up"]


def read(file: Path) -> list[dict]:
    """The measurements of a file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


# --- Tables ----------------------------------------------------------------------------------------------------------


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = [head, ["---" if column == 0 else "---:" for column in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def megabytes(*sizes: float) -> str:
    return f"{sum(sizes) / 1e6:.1f}"


def spread(values: list[float], form: str = ".3g") -> str:
    """The median, with the range."""
    return f"{values[0]:{form}} ({values[1]:{form}} to {values[2]:{form}})"


def tables(lines: list[dict]) -> str:
    """The measurements as tables: time and memory of a step, what it communicates, and loading."""
    steps = [line for line in lines if line["kind"] == "step"]
    cost, talk, loading = [], [], []
    for line in steps:
        way = f"{line['way']} x {line['processes']}"
        start = [line["model"] + ", checkpointing" * line["checkpointing"], way, line["precision"], str(line["batch"])]
        sizes = line["bytes"]
        states = megabytes(sizes["parameters"], sizes["gradients"], sizes["optimizer"])
        speed = f"{line['batch'] / line['seconds'][0]:.3g}"
        memory = states, megabytes(sizes["saved"]), megabytes(sizes["peak"])
        cost.append([*start, spread(line["seconds"]), speed, *memory])
        if line["way"] != "one":
            both = [megabytes(sent(line[name], line["processes"])) for name in ("payload", "expected")]
            wire = "" if line["wire"] is None else megabytes(line["wire"])
            talk.append([*start, str(sum(line["calls"].values())), *both, wire, exposed(line, steps)])
    for line in lines:
        if line["kind"] == "loading":
            files = f"{line['file_bytes'] / 1e3:.0f}"
            loading.append([line["model"], files, spread(line["images_per_second"])])
    filled = [markdown(head, rows) for head, rows in ((COST, cost), (TALK, talk), (LOADING, loading)) if rows]
    return "\n\n".join(filled)


def exposed(line: dict, steps: list[dict]) -> str:
    """The share of a step that it takes longer than the same step beside as many copies that do not communicate."""
    same = ("model", "processes", "batch", "precision", "checkpointing", "device")
    for other in steps:
        if other["way"] == "one" and all(other[name] == line[name] for name in same):
            return f"{1 - other['seconds'][0] / line['seconds'][0]:.0%}"
    return ""


# --- Plans -----------------------------------------------------------------------------------------------------------


def seconds_per_image(preset: str, options: argparse.Namespace) -> float:
    """Seconds that one device computes for one image: measured, if there is a file of measurements, or calculated."""
    if options.measured:
        line = measured_step(preset, options)
        return line["seconds"][0] / line["batch"]
    with torch.device("meta"):
        model = build(preset)
        image = torch.empty(1, 3, model.config.image_size, model.config.image_size)
    return model.floating_point_ops({"pixel_values": image}) / (1e12 * options.peak_tflops * options.efficiency)


def measured_step(preset: str, options: argparse.Namespace) -> dict:
    """The measurement of a preset's step without communication.

    Raises:
        SystemExit: if there is none, or one of several devices.
    """
    wanted = {"kind": "step", "way": "one", "checkpointing": False, "model": preset, "precision": options.precision}
    wanted |= {"device": options.device} if options.device else {}
    found = [line for line in read(options.measured) if all(line.get(name) == value for name, value in wanted.items())]
    devices = sorted({line["device"] for line in found})
    if len(devices) != 1:
        raise SystemExit(
            f"{options.measured} has {options.precision} steps of {preset} in the way `one` on "
            f"{' and '.join(devices) or 'no device'}; a plan is made of those of one (--device)."
        )
    return found[0]


def plan_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What a step and whole runs would take, for each model and number of devices.

    The devices share the images of a step out among themselves and add up their gradients in a ring of DDP. Where it
    leads through several machines, their links set its pace.
    """
    rows = []
    for preset in options.models:
        with torch.device("meta"):
            payload = expected_payload(build(preset), "ddp", "fp32", 1)  # gradients are in fp32 in either precision
        for devices in options.devices:
            share = options.batch / devices
            compute = share * seconds_per_image(preset, options)
            bandwidth = options.bandwidth if devices <= options.devices_per_machine else options.machine_bandwidth
            talk = sent(payload, devices) / (1e9 * bandwidth)
            step = compute + (1 - options.hidden) * talk
            workers = share / step / options.images_per_worker
            if options.workers:
                step = max(step, share / (options.workers * options.images_per_worker))
            hours = {
                (data, epochs): epochs * math.ceil(images / options.batch) * step / 3600
                for data, (images, lengths) in RUNS.items()
                for epochs in lengths
            }
            row = {"model": preset, "devices": devices, "share": share, "compute": compute, "talk": talk, "step": step}
            rows.append({**row, "workers": workers, "hours": hours})
    return rows


def plan(options: argparse.Namespace) -> str:
    """The rows as a table, under a sentence that says whether they were measured or calculated, and from what."""
    if options.measured:
        device = measured_step(options.models[0], options)["device"]
        source = f"MEASURED: the computing, in {options.precision} on one device ({device}). Calculated: the rest"
    else:
        source = f"CALCULATED, not measured: {options.peak_tflops:g} TFLOPS of a device at {options.efficiency:.0%}"
    loading = f"{options.workers} loading workers per device" if options.workers else "loading keeps up"
    said = (
        f"{source}. {options.batch} images a step; {options.bandwidth:g} GB/s between devices, "
        f"{options.machine_bandwidth:g} between machines of {options.devices_per_machine}, {options.hidden:.0%} of "
        f"the communication hidden; {loading}, at {options.images_per_worker:g} images/s each."
    )
    content = "hours (device hours)" if options.price is None else "hours (device hours, price)"
    runs = [f"{data}, {epochs} epochs: {content}" for data, (_, lengths) in RUNS.items() for epochs in lengths]
    table = []
    for row in plan_rows(options):
        start = [row["model"], str(row["devices"]), f"{row['share']:g}"]
        times = [_round(1e3 * row["compute"]), _round(1e3 * row["talk"]), _round(options.batch / row["step"])]
        costs = []
        for hours in row["hours"].values():
            total = hours * row["devices"]
            price = "" if options.price is None else f", {options.price * total:,.0f}"
            costs.append(f"{_round(hours)} ({_round(total)}{price})")
        table.append([*start, *times, _round(row["workers"]), *costs])
    return f"{said}\n\n{markdown(TIMES + runs, table)}"


def _round(number: float) -> str:
    return f"{number:.2g}" if number < 10 else f"{number:,.0f}"


def draw(options: argparse.Namespace) -> None:
    """Draw the hours of the first run against the number of devices, beside what no communication would give."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    (data, (_, (epochs, *_))), *_ = RUNS.items()
    options.devices = [2**power for power in range(math.ceil(math.log2(max(options.devices))) + 1)]
    rows = plan_rows(options)
    for preset in options.models:
        hours = [row["hours"][data, epochs] for row in rows if row["model"] == preset]
        (line,) = axes.loglog(options.devices, hours, marker=".", label=preset)
        ideal = [hours[0] / devices for devices in options.devices]
        axes.loglog(options.devices, ideal, color=line.get_color(), linestyle=":")
    axes.set(xlabel="devices", ylabel="hours", title=f"{data}, {epochs} epochs (dotted: without communication)")
    axes.set_xticks(options.devices, list(map(str, options.devices)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(options.picture, dpi=90)


# --- The command -----------------------------------------------------------------------------------------------------


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    table = verbs.add_parser("table", help="print measurements as tables")
    table.add_argument("file", type=Path)
    planning = verbs.add_parser("plan", help="print what ImageNet would take on several devices")
    planning.add_argument("--models", nargs="+", default=["vit-small-patch16-224"], metavar="PRESET")
    planning.add_argument("--devices", type=int, nargs="+", default=[1, 8, 64], metavar="N")
    planning.add_argument("--batch", type=int, default=1024, help="images of a step, of all devices together")
    planning.add_argument("--measured", type=Path, metavar="FILE", help="take the computing time of a step from here")
    planning.add_argument("--precision", choices=("fp32", "bf16"), default="bf16", help="of the measured step")
    planning.add_argument("--device", metavar="NAME", help="of the measured step, if the file has several")
    planning.add_argument("--peak_tflops", type=float, help="of a device; calculate the computing time")
    planning.add_argument("--efficiency", type=float, help="share of the peak that is reached, 0 to 1")
    planning.add_argument("--bandwidth", type=float, default=300, help="GB/s that a device sends inside a machine")
    planning.add_argument("--machine_bandwidth", type=float, default=50, help="GB/s that a machine sends to another")
    planning.add_argument("--devices_per_machine", type=int, default=8)
    planning.add_argument("--hidden", type=float, default=0.0, help="share of the communication behind computing")
    planning.add_argument("--workers", type=int, help="that load images, per device; without it loading keeps up")
    planning.add_argument("--images_per_worker", type=float, default=100, help="images/s: see measure_scale.py loading")
    planning.add_argument("--price", type=float, help="of a device for an hour, in any currency")
    planning.add_argument("--picture", type=Path, help="draw hours against devices here")
    options = parser.parse_args(arguments)
    if options.verb == "plan" and bool(options.measured) == bool(options.peak_tflops and options.efficiency):
        parser.error("plan works from --measured FILE, or from --peak_tflops and --efficiency; give one of the two")
    return options


def main() -> None:
    """Parse the flags and print."""
    options = parse()
    if options.verb == "table":
        print(tables(read(options.file)))
    else:
        print(plan(options))
        if options.picture:
            draw(options)


if __name__ == "__main__":
    main()
