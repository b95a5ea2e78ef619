"""What faster costs: accuracy and speed of a checkpoint under token merging and int8, with a peer beside it.

    python scripts/measure_price.py outputs/cifar10 cifar10/test.parquet --output price
    python scripts/measure_price.py outputs/cifar10 cifar10/test.parquet --token-merging 0 4 8 --batch-size 8

Accuracy is that of every labelled image of DATA. Speed is that of one batch, without reading files, in interleaved
rounds in one process. The peer is transformers' own ViT with the same weights (`vit-scratch export`), whose logits are
asserted equal to ours first. Every setting is a flag of `vit-scratch predict`.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import AutoModelForImageClassification

from modeling_vit_scratch.data import load_images
from modeling_vit_scratch.porting import export_checkpoint
from modeling_vit_scratch.prediction import load_checkpoint, predict_dataset
from timing import compare, ratios

PEER = "transformers"


def settings(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    return [
        {"precision": precision, "token_merging": merged}
        for precision in arguments.precisions
        for merged in arguments.token_merging
    ]


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each setting, and one for the peer."""
    splits = load_images(arguments.data)
    dataset = splits["test"] if "test" in splits else splits["train"]
    rows, sides = [], {}
    for setting in tqdm(settings(arguments), unit="setting"):
        model, processor, _ = load_checkpoint(arguments.checkpoint, **setting)
        results = predict_dataset(model, processor, "test", dataset, 64)
        name = f"{setting['precision']}, merging {setting['token_merging']}"
        accuracy = float((results.logits.argmax(1) == results.labels).mean())
        rows.append({"setting": name, **setting, "accuracy": accuracy, "images": len(dataset)})
        pixel_values = torch.randn(arguments.batch_size, *example_shape(processor))
        sides[name] = step(model, pixel_values)
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder, "exported")
        export_checkpoint(arguments.checkpoint, exported, format=PEER)
        peer = AutoModelForImageClassification.from_pretrained(exported).eval()
    exact, _, _ = load_checkpoint(arguments.checkpoint)
    torch.testing.assert_close(step(peer, pixel_values)(), step(exact, pixel_values)(), rtol=1e-4, atol=1e-4)
    sides[PEER] = step(peer, pixel_values)
    # Equal logits, so equal accuracy.
    rows.append({**rows[0], "setting": PEER, "precision": "fp32", "token_merging": 0})
    for side in sides.values():
        side()
    times = compare(sides, arguments.rounds, "cpu")
    for row in rows:
        mine = times[row["setting"]]
        row["images_per_second"] = arguments.batch_size / statistics.median(mine)
        row["ratio"], row["ratio_range"] = ratios(mine, times[PEER])
    return rows


def example_shape(processor: Any) -> tuple[int, int, int]:
    size = processor.size
    return 3, size["height"], size["width"]


def step(model: torch.nn.Module, pixel_values: torch.Tensor):
    def call() -> torch.Tensor:
        with torch.inference_mode():
            return model(pixel_values).logits

    return call


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"| setting | images/s | beside {PEER} (range) | top-1 | change |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        low, high = row["ratio_range"]
        change = 100 * (row["accuracy"] - rows[0]["accuracy"])
        lines.append(
            f"| {row['setting']} | {row['images_per_second']:.1f} | {row['ratio']:.2f} ({low:.2f} to {high:.2f}) | "
            f"{row['accuracy']:.2%} | {change:+.2f} |"
        )
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Accuracy over speed: a line for each precision, and the peer."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    ours = [row for row in rows if row["setting"] != PEER]
    for precision in dict.fromkeys(row["precision"] for row in ours):
        line = [row for row in ours if row["precision"] == precision]
        axes.plot([r["images_per_second"] for r in line], [100 * r["accuracy"] for r in line], "o-", label=precision)
        for row in line:
            place = (row["images_per_second"], 100 * row["accuracy"])
            axes.annotate(f"r={row['token_merging']}", place, textcoords="offset points", xytext=(5, 5), fontsize=8)
    peer = rows[-1]
    axes.plot(peer["images_per_second"], 100 * peer["accuracy"], "k*", markersize=12, label=f"{PEER}, fp32")
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
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--token-merging", nargs="+", type=int, default=[0, 2, 4, 6, 8], metavar="R")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", metavar="NAME", help="write NAME.json and NAME.png, too")
    arguments = parser.parse_args()
    rows = measure(arguments)
    print(table(rows))
    if arguments.output:
        Path(f"{arguments.output}.json").write_text(json.dumps(rows, indent=1) + "\n")
        draw(rows, Path(f"{arguments.output}.png"))


if __name__ == "__main__":
    main()
