"""How much of the bare model's rate `vit-scratch predict` keeps, files and table included.

    python scripts/measure_predict.py [--models NAME …] [--images N] [--batch-size B] [--rounds R]
    python scripts/measure_predict.py --memory               # of 32 small and 32 large photographs

Both sides classify the same photographs in the same batches, round by round, each in a process of its own: the bare
model as Python runs it, with its inputs in memory, ready; `predict` as its command does, from JPEG files to a table.
"""

import argparse
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from modeling_vit_scratch.system.machine import let_waiting_threads_sleep

let_waiting_threads_sleep()  # before torch is loaded

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from data_loading import PHOTOGRAPH, write_photographs
from modeling_vit_scratch.data.images import read_image
from modeling_vit_scratch.data.model_input import pixel_values
from modeling_vit_scratch.prediction.classifier import Classifier, batches_of
from modeling_vit_scratch.prediction.table import predict_table
from modeling_vit_scratch.presets import preset_path
from modeling_vit_scratch.system.machine import keep_freed_memory
from timing import compare, ratios, with_range

CAMERA = (6000, 4000)


def checkpoint_of(preset: str, folder: Path) -> str:
    """A checkpoint with random weights."""
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(AutoConfig.from_pretrained(preset_path(preset)))
    model.save_pretrained(folder / preset)
    AutoImageProcessor.from_pretrained(preset_path(preset)).save_pretrained(folder / preset)
    return str(folder / preset)


class Bare:
    """The model on batches in memory."""

    def __init__(self, checkpoint: str, files: list[str], batch_size: int):
        self.classifier = Classifier(checkpoint)
        self.batches = [
            pixel_values(self.classifier.processor, [read_image(files[number]) for number in batch])
            for batch in batches_of(range(len(files)), batch_size)
        ]

    def __call__(self) -> list[float]:
        """The probability of the likeliest class of each image."""
        return [scores[0] for batch in self.batches for scores, _ in self.classifier._top(batch, 1)]


bare: Bare


def prepare_bare(*arguments: Any) -> None:
    global bare
    bare = Bare(*arguments)


def run_bare() -> list[float]:
    return bare()


def measure(preset: str, num_images: int, batch_size: int, rounds: int) -> str:
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "photographs").mkdir()
        files = write_photographs(folder / "photographs", num_images)
        checkpoint, table = checkpoint_of(preset, folder), folder / "table.jsonl"
        with (
            ProcessPoolExecutor(1, spawn, prepare_bare, (checkpoint, files, batch_size)) as one,
            ProcessPoolExecutor(1, spawn, keep_freed_memory) as other,
        ):

            def through_files() -> None:
                other.submit(predict_table, checkpoint, files, str(table), batch_size=batch_size).result()

            through_files()
            rows = [float(line.split('"score": ')[1].rstrip("}\n")) for line in table.open(encoding="utf-8")]
            np.testing.assert_allclose(rows, one.submit(run_bare).result(), atol=1e-6)
            times = compare({"bare": lambda: one.submit(run_bare).result(), "predict": through_files}, rounds, "cpu")
        rates = {name: num_images / statistics.median(values) for name, values in times.items()}
        ratio = with_range(*ratios(times["predict"], times["bare"]))
    return f"| {preset} | {rates['bare']:.1f} | {rates['predict']:.1f} | {ratio} |"


def predict_alone(checkpoint: str, folder: str) -> tuple[float, float]:
    """Predict the images of a folder in a process of its own: images a second, and its most memory in GB."""
    keep_freed_memory()
    began = time.perf_counter()
    written = predict_table(checkpoint, [folder], f"{folder}.jsonl")
    assert written is not None
    rate = written.predicted / (time.perf_counter() - began)
    return rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure_memory(preset: str, num_images: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        checkpoint = checkpoint_of(preset, Path(place))
        for name, size in {"small": PHOTOGRAPH, "large": CAMERA}.items():
            folder = Path(place, name)
            folder.mkdir()
            (small,) = write_photographs(folder, 1)
            Image.open(small).resize(size).save(small, quality=90)
            for number in range(1, num_images):
                shutil.copy(small, folder / f"{number}.jpg")
            with ProcessPoolExecutor(1, spawn) as one:
                rate, peak = one.submit(predict_alone, checkpoint, str(folder)).result()
            print(f"| {size[0]}x{size[1]} | {rate:.1f} | {peak:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="How much of the bare model's rate `vit-scratch predict` keeps.")
    parser.add_argument("--models", nargs="+", default=["vit-tiny-patch16-224", "vit-small-patch16-224"])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="measure the memory that 32 large photographs take")
    arguments = parser.parse_args()
    if arguments.memory:
        print("| photographs | images/s | peak, GB |\n|---|---|---|")
        measure_memory(arguments.models[0], 32)
        return
    print("| model | bare, images/s | predict, images/s | ratio (range) |\n|---|---|---|---|")
    for preset in arguments.models:
        print(measure(preset, arguments.images, arguments.batch_size, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
