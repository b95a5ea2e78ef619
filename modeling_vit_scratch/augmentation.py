# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""From a row of a dataset to what the model takes: decode, vary (in training only), preprocess.

The variations work on PIL images and need no torchvision. They draw from Python's `random`, which the trainer and its
data-loading workers seed.
"""

import math
import random
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageOps
from transformers.image_processing_utils import BaseImageProcessor

from .arguments import DataArguments
from .data import read_image

Variation = Callable[[Image.Image], Image.Image]


def random_resized_crop(image: Image.Image, least_area: float, size: tuple[int, int]) -> Image.Image:
    """Cut out a random rectangle and resize it (Szegedy et al. 2015, arXiv 1409.4842, section 6).

    Args:
        image: what to cut from.
        least_area: least share of the area to keep; the share is uniform up to 1, the aspect ratio log-uniform between
            3/4 and 4/3 times that of `image`.
        size: (height, width) of the result in pixels.
    """
    share = random.uniform(least_area, 1.0)
    stretch = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    width = min(image.width, image.width * math.sqrt(share * stretch))
    height = min(image.height, image.height * math.sqrt(share / stretch))
    left = random.uniform(0, image.width - width)
    top = random.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    return image.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)


def random_affine(image: Image.Image, rotation: float, translation: float, scaling: float) -> Image.Image:
    """Rotate about the centre, scale and move, each by a uniform random amount; what comes into view is black.

    Args:
        image: what to vary.
        rotation: most degrees to either side.
        translation: largest move, as a share of the width and of the height.
        scaling: largest enlargement and reduction, as a share.
    """
    angle = math.radians(random.uniform(-rotation, rotation))
    zoom = 1 + random.uniform(-scaling, scaling)
    move_x = random.uniform(-translation, translation) * image.width
    move_y = random.uniform(-translation, translation) * image.height
    # Pillow asks where each output pixel comes from: undo the move, then turn and zoom back about the centre.
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    centre_x, centre_y = image.width / 2, image.height / 2
    from_x, from_y = centre_x + move_x, centre_y + move_y
    matrix = (cos, sin, centre_x - cos * from_x - sin * from_y, -sin, cos, centre_y + sin * from_x - cos * from_y)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)


def variations(arguments: DataArguments, size: tuple[int, int]) -> dict[str, Variation]:
    """The variations that the arguments ask for, in the order they apply, each under a phrase that describes it."""
    result: dict[str, Variation] = {}
    crop, flip = arguments.random_resized_crop, arguments.horizontal_flip
    affine = (arguments.rotation, arguments.translation, arguments.scaling)
    if crop is not None:
        result[f"random crops of at least {crop:.0%} of the area"] = lambda image: random_resized_crop(
            image, crop, size
        )
    if flip:
        result[f"mirrored with probability {flip:g}"] = lambda image: (
            ImageOps.mirror(image) if random.random() < flip else image
        )
    if any(affine):
        phrase = "rotated by up to {:g} degrees, moved by up to {:.0%}, scaled by up to {:.0%}".format(*affine)
        result[phrase] = lambda image: random_affine(image, *affine)
    return result


def preprocessing(processor: BaseImageProcessor, vary: dict[str, Variation] | None = None) -> Callable[[dict], dict]:
    """A transform for `Dataset.with_transform`: rows of `image` and `label` to rows of `pixel_values` and `label`."""
    steps = list((vary or {}).values())

    def transform(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        images = [read_image(image) for image in rows["image"]]
        for step in steps:
            images = [step(image) for image in images]
        pixel_values = processor(images, return_tensors="pt")["pixel_values"]  # (B, C, H, W)
        return {"pixel_values": list(pixel_values), "label": rows["label"]}

    return transform


def describe(processor: BaseImageProcessor) -> str:
    """What the processor does to an image, in words."""
    settings = processor.to_dict()
    words = []
    if settings.get("do_resize"):
        size = settings["size"]
        resample = Image.Resampling(int(settings["resample"])).name.lower()
        if "shortest_edge" in size:
            words.append(f"shorter side resized to {size['shortest_edge']} pixels ({resample})")
        else:
            words.append(f"resized to {size['height']}x{size['width']} pixels, whatever the aspect ratio ({resample})")
    if settings.get("do_center_crop"):
        crop = settings["crop_size"]
        words.append(f"centre cropped to {crop['height']}x{crop['width']} pixels")
    if settings.get("do_normalize"):
        mean, deviation = settings["image_mean"], settings["image_std"]
        words.append(f"normalised with mean {list(mean)} and deviation {list(deviation)}")
    return ", ".join(words) or "as it is"
