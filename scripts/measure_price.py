"""What faster costs: accuracy and speed of a checkpoint under token merging and int8, with peers beside it.

    python scripts/measure_price.py outputs/cifar10 cifar10/test.parquet --output price
    python scripts/measure_price.py outputs/cifar10 cifar10/test.parquet --token-merging 0 4 8 --batch-size 8

Accuracy is that of `vit-scratch evaluate CHECKPOINT DATA`. Speed is that of one batch, without reading files, in
interleaved rounds in one process. The peers are transformers' own ViT and, where it is installed, timm's with the same
weights (`vit-scratch export`), whose logits are asserted equal to ours first. Every setting is a flag of `vit-scratch
predict`.
"""

import argparse
import importlib.util
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from modeling_vit_scratch.system.machine import let_waiting_threads_sleep

let_waiting_threads_sleep()  # before torch is loaded

import torch
from tqdm.auto import tqdm
from transformers import AutoModelForImageClassification

from modeling_vit_scratch.commands.parsing import count, positive
from modeling_vit_scratch.evaluation.scoring import evaluate
from modeling_vit_scratch.hub.checkpoint import PRECISIONS, load_checkpoint
from modeling_vit_scratch.porting import export_checkpoint
from timing import compare, ratios, with_range

PEERS = ["transformers", *(["timm"] if importlib.util.find_spec("timm") else [])]


def settings(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The exact model first, beside which the others stand."""
    pairs = [(precision, merged) for precision in arguments.precisions for merged in arguments.token_merging]
    pairs = list(dict.fromkeys([("fp32", 0), *pairs]))
    return [{"precision": precision, "token_merging": merged} for precision, merged in pairs]


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each setting, and one for each peer."""
    exact, processor, _ = load_checkpoint(arguments.checkpoint)
    pixel_values = torch.randn(arguments.batch_size, *example_shape(processor))
    peers = {name: step(exported(arguments.checkpoint, name), pixel_values) for name in PEERS}
    for peer in peers.values():
        torch.testing.assert_close(peer(), step(exact, pixel_values)(), rtol=1e-4, atol=1e-4)
    rows, sides = [], {}
    for setting in tqdm(settings(arguments), unit="setting"):
        results = evaluate(arguments.checkpoint, arguments.data, **setting)
        name = f"{setting['precision']}, merging {setting['token_merging']}"
        accuracy = float((results.outcome.predictions == results.labels).mean())
        rows.append({"setting": name, **setting, "accuracy": accuracy, "images": len(results.labels)})
        model, _, _ = load_checkpoint(arguments.checkpoint, **setting)
        sides[name] = step(model, pixel_values)
    # Equal logits, so equal accuracy.
    rows += [{**rows[0], "setting": name} for name in peers]
    sides |= peers
    for side in sides.values():
        side()
    times = compare(sides, arguments.rounds, "cpu")
    for row in rows:
        mine = times[row["setting"]]
        row["images_per_second"] = arguments.batch_size / statistics.median(mine)
        row["beside"] = {peer: ratios(mine, times[peer]) for peer in PEERS}
    return rows


def exported(checkpoint: str, peer: str) -> torch.nn.Module:
    """The model of another library with the checkpoint's weights."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "exported")
        export_checkpoint(checkpoint, output, format=peer)
        if peer == "timm":
            import timm

            return timm.create_model(f"local-dir:{output}", pretrained=True).eval()
        return AutoModelForImageClassification.from_pretrained(output).eval()


def example_shape(processor: Any) -> tuple[int, int, int]:
    size = processor.size
    return 3, size["height"], size["width"]


def step(model: torch.nn.Module, pixel_values: torch.Tensor):
    def call() -> torch.Tensor:
        with torch.inference_mode():
            output = model(pixel_values)
            return output if isinstance(output, torch.Tensor) else output.logits

    return call


def table(rows: list[dict[str, Any]]) -> str:
    beside = " | ".join(f"beside {peer} (range)" for peer in PEERS)
    lines = [f"| setting | images/s | {beside} | top-1 | change |", "|---|---:|" + "---:|" * (len(PEERS) + 2)]
    for row in rows:
        speeds = " | ".join(with_range(*ratio) for ratio in row["beside"].values())
        change = 100 * (row["accuracy"] - rows[0]["accuracy"])
        lines.append(
            f"| {row['setting']} | {row['images_per_second']:.1f} | {speeds} | {row['accuracy']:.2%} | {change:+.2f} |"
        )
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Accuracy over speed: a line for each precision, and the peers."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    ours = [row for row in rows if row["setting"] not in PEERS]
    for precision in dict.fromkeys(row["precision"] for row in ours):
        line = [row for row in ours if row["precision"] == precision]
        axes.plot([r["images_per_second"] for r in line], [100 * r["accuracy"] for r in line], "o-", label=precision)
        for row in line:
            place = (row["images_per_second"], 100 * row["accuracy"])
            axes.annotate(f"r={row['token_merging']}", place, textcoords="offset points", xytext=(5, 5), fontsize=8)
    for marker, row in zip("*P", rows[len(ours) :], strict=False):
        place = (row["images_per_second"], 100 * row["accuracy"])
        axes.plot(*place, f"k{marker}", markersize=11, label=f"{row['setting']}, fp32", alpha=0.7)
    axes.set_xlabel("images per second")
    axes.set_ylabel("top-1 accuracy, %")
    axes.legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder, of an architecture that transformers' ViT has, too")
    parser.add_argument("data", help="labelled images, as for `vit-scratch evaluate`")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"], choices=PRECISIONS)
    parser.add_argument("--token-merging", nargs="+", type=count, default=[0, 4, 8, 12, 16], metavar="R")
    parser.add_argument("--batch-size", type=positive, default=64)
    parser.add_argument("--rounds", type=positive, default=11)
    parser.add_argument("--output", metavar="NAME", help="write NAME.json and NAME.png, too")
    arguments = parser.parse_args()
    if arguments.output and not Path(arguments.output).parent.is_dir():
        parser.error(f"--output {arguments.output}: there is no folder {Path(arguments.output).parent}.")
    try:
        rows = measure(arguments)
    except ValueError as error:
        parser.error(str(error))
    print(table(rows))
    if arguments.output:
        Path(f"{arguments.output}.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
        draw(rows, Path(f"{arguments.output}.png"))


if __name__ == "__main__":
    main()
