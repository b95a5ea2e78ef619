"""How much of the bare model's rate `vit-scratch predict` keeps, files and table included.

    python scripts/measure_predict.py [--models NAME …] [--images N] [--batch-size B] [--rounds R]

Both sides classify the same photographs in the same batches, round by round. The bare model has its inputs in memory,
ready; `predict` reads JPEG files, prepares them in the processes that the machine spares, and writes a table.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from data_loading import write_photographs
from modeling_vit_scratch.augmentation import pixel_values
from modeling_vit_scratch.images import read_image
from modeling_vit_scratch.prediction import Classifier, batches_of
from modeling_vit_scratch.prediction_table import predict_table
from modeling_vit_scratch.presets import preset_path
from timing import compare, ratios, with_range


def checkpoint_of(preset: str, folder: Path) -> str:
    """A checkpoint with random weights."""
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(AutoConfig.from_pretrained(preset_path(preset)))
    model.save_pretrained(folder / preset)
    AutoImageProcessor.from_pretrained(preset_path(preset)).save_pretrained(folder / preset)
    return str(folder / preset)


def measure(preset: str, num_images: int, batch_size: int, rounds: int) -> str:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "photographs").mkdir()
        files = write_photographs(folder / "photographs", num_images)
        checkpoint = checkpoint_of(preset, folder)
        classifier = Classifier(checkpoint)
        batches = [
            pixel_values(classifier.processor, [read_image(files[number]) for number in batch])
            for batch in batches_of(range(num_images), batch_size)
        ]

        def bare() -> list[tuple[list[float], list[int]]]:
            return [row for batch in batches for row in classifier._top(batch, 1)]

        def through_files() -> None:
            predict_table(checkpoint, files, str(folder / "table.jsonl"), batch_size=batch_size)

        through_files()
        rows = [line.split('"score": ')[1].rstrip("}\n") for line in (folder / "table.jsonl").open()]
        np.testing.assert_allclose([float(row) for row in rows], [scores[0] for scores, _ in bare()], atol=1e-6)
        device = classifier.model.device.type
        times = compare({"bare": bare, "predict": through_files}, rounds, device)
        rates = {name: num_images / statistics.median(values) for name, values in times.items()}
        ratio = with_range(*ratios(times["predict"], times["bare"]))
    return f"| {preset} | {rates['bare']:.1f} | {rates['predict']:.1f} | {ratio} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="How much of the bare model's rate `vit-scratch predict` keeps.")
    parser.add_argument("--models", nargs="+", default=["vit-tiny-patch16-224", "vit-small-patch16-224"])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print("| model | bare, images/s | predict, images/s | ratio (range) |\n|---|---|---|---|")
    for preset in arguments.models:
        print(measure(preset, arguments.images, arguments.batch_size, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
