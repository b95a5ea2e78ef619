"""Photographs from their files to a batch, in one process: ours, and what scripts for the other libraries do.

One side's pixels are asserted equal to the other's where nothing is random. In training, both cut out random rectangles
of at least 8 % of the area and mirror half of them (Szegedy et al. 2015, arXiv 1409.4842, section 6).
"""

import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from torch import Tensor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from modeling_vit_scratch.data.augmentation import random_mirror, random_resized_crop
from modeling_vit_scratch.data.sampling import TrainingImages, collate
from timing import beside, compare, with_range

SIZE = 224
PHOTOGRAPH = (500, 375)  # width and height of an ordinary image of ImageNet
MEAN = STD = (0.5, 0.5, 0.5)
Loading = Callable[[], Tensor]


def write_photographs(folder: Path, number: int) -> list[str]:
    """JPEG files that are as large as photographs of their size are: smooth noise, with some detail."""
    random = np.random.default_rng(0)
    files = []
    for index in range(number):
        smooth = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(PHOTOGRAPH)
        detail = random.normal(0, 8, (PHOTOGRAPH[1], PHOTOGRAPH[0], 1))
        image = Image.fromarray((np.asarray(smooth) + detail).clip(0, 255).astype(np.uint8))
        files.append(str(folder / f"{index}.jpg"))
        image.save(files[-1], quality=90)
    return files


def image_processor() -> ViTImageProcessorPil:
    size = {"height": SIZE, "width": SIZE}
    return ViTImageProcessorPil(size=size, image_mean=list(MEAN), image_std=list(STD))


def with_ours(files: list[str], training: bool) -> Loading:
    """What `vit-scratch train` does: `TrainingImages`, with its loader's collate function."""
    steps = [
        partial(random_resized_crop, least_area=0.08, size=(SIZE, SIZE)),
        partial(random_mirror, probability=0.5),
    ]
    dataset = Dataset.from_dict({"image": files}).cast_column("image", ImageFeature(decode=False))
    images = TrainingImages(dataset, image_processor(), steps if training else ())
    return lambda: collate(images.__getitems__(list(range(len(files)))))["pixel_values"]


def with_transformers(files: list[str]) -> Loading:
    """The image processor of transformers' ViT on opened files, as its documentation shows; it varies nothing."""
    processor = image_processor()
    return lambda: processor([Image.open(file).convert("RGB") for file in files], return_tensors="pt")["pixel_values"]


def with_torchvision(files: list[str], training: bool) -> Loading:
    """The transforms of torchvision on opened files, as in the example scripts of transformers."""
    from torchvision import transforms

    bicubic = transforms.InterpolationMode.BICUBIC  # as ours; its default is bilinear
    varied = [transforms.RandomResizedCrop(SIZE, interpolation=bicubic), transforms.RandomHorizontalFlip()]
    steps = varied if training else [transforms.Resize((SIZE, SIZE))]
    transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    return lambda: torch.stack([transform(Image.open(file).convert("RGB")) for file in files])


def with_timm(files: list[str]) -> Loading:
    """The transform of timm for training, with nothing but the crop and the mirror."""
    from timm.data.transforms_factory import create_transform

    transform = create_transform(SIZE, is_training=True, color_jitter=None, interpolation="bicubic", mean=MEAN, std=STD)
    return lambda: torch.stack([transform(Image.open(file).convert("RGB")) for file in files])


def benchmark_data_loading(rounds: int, number: int = 64) -> list[dict[str, Any]]:
    """Rows of the table: what loads the same photographs for training, and for evaluation."""
    installed = [name for name in ("torchvision", "timm") if importlib.util.find_spec(name)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = write_photographs(Path(folder), number)
        evaluation = {"ours": with_ours(files, False), "transformers": with_transformers(files)}
        training = {"ours": with_ours(files, True)}
        if "torchvision" in installed:
            evaluation["torchvision"] = with_torchvision(files, False)
            training["torchvision"] = with_torchvision(files, True)
        if "timm" in installed and "torchvision" in installed:
            training["timm"] = with_timm(files)
        expected = evaluation["ours"]()
        for side in evaluation.values():
            torch.testing.assert_close(side(), expected, rtol=0, atol=4 / 255)  # of a range of 2; rounding twice
        for purpose, sides in (("evaluation", evaluation), ("training", training)):
            times = compare(dict(sides), rounds, "cpu")
            about = {"label": f"loading for {purpose}", "mode": "data-loading", "purpose": purpose}
            rows += [{**about, **beside(times, name, number)} for name in list(sides)[1:]]
    return rows


HEADER = "| for | peer | ours, images/s | peer, images/s | ratio (range) |\n|---|---|---|---|---|"


def table_row(row: dict[str, Any]) -> str:
    speeds, ratio = row["images_per_second"], with_range(row["ratio"], row["ratio_range"])
    return f"| {row['purpose']} | {row['peer']} | {speeds['ours']:.1f} | {speeds['peer']:.1f} | {ratio} |"
