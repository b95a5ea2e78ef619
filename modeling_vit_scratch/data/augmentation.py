# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What varies an image on its own in training.

The variations work on PIL images and need no torchvision. Each takes the source of its randomness, so that a variant of
an image can be repeated. All of it can be pickled, as workers that are spawned rather than forked ask for.
"""

import math
from collections.abc import Callable
from functools import partial
from random import Random

from PIL import Image, ImageOps

from .image_arguments import AugmentationArguments

Variation = Callable[[Image.Image, Random], Image.Image]


def random_resized_crop(image: Image.Image, random: Random, least_area: float, size: tuple[int, int]) -> Image.Image:
    """Cut out a random rectangle and resize it (Szegedy et al. 2015, arXiv 1409.4842, section 6).

    Args:
        image: what to cut from.
        random: the source of randomness.
        least_area: least share of the area to keep; the share is uniform up to 1, the aspect ratio log-uniform between
            3/4 and 4/3 times that of `image`, as far as such a rectangle fits.
        size: (height, width) of the result in pixels.
    """
    share = random.uniform(least_area, 1.0)
    widest = math.log(min(4 / 3, 1 / share))
    stretch = math.exp(random.uniform(-widest, widest))
    width = image.width * min(1.0, math.sqrt(share * stretch))
    height = image.height * min(1.0, math.sqrt(share / stretch))
    left = random.uniform(0, image.width - width)
    top = random.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    # The gap lets a photograph of a camera be shrunk by whole pixels first, in a fifth of the time.
    return image.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)


def random_mirror(image: Image.Image, random: Random, probability: float) -> Image.Image:
    """Swap left and right, with this probability."""
    return ImageOps.mirror(image) if random.random() < probability else image


def random_affine(
    image: Image.Image, random: Random, rotation: float, translation: float, scaling: float
) -> Image.Image:
    """Rotate about the centre, scale and move, each by a uniform random amount; what comes into view is black.

    Args:
        image: what to vary.
        random: the source of randomness.
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


def variations(arguments: AugmentationArguments, size: tuple[int, int]) -> dict[str, Variation]:
    """The variations that the arguments ask for, in the order they apply, each under a phrase that describes it.

    Args:
        arguments: which variations, and how strong.
        size: (height, width) of random crops, in pixels.
    """
    result: dict[str, Variation] = {}
    crop, flip = arguments.random_resized_crop, arguments.horizontal_flip
    if crop is not None:
        phrase = f"random crops of at least {_percent(crop)} of the area"
        result[phrase] = partial(random_resized_crop, least_area=crop, size=size)
    if flip:
        result[f"mirrored with probability {flip:g}"] = partial(random_mirror, probability=flip)
    affine = {
        f"rotated by up to {arguments.rotation:g} degrees": arguments.rotation,
        f"moved by up to {_percent(arguments.translation)}": arguments.translation,
        f"scaled by up to {_percent(arguments.scaling)}": arguments.scaling,
    }
    if any(affine.values()):
        rotation, translation, scaling = affine.values()
        phrase = ", ".join(phrase for phrase, amount in affine.items() if amount)
        result[phrase] = partial(random_affine, rotation=rotation, translation=translation, scaling=scaling)
    return result


def _percent(share: float) -> str:
    return f"{100 * share:g}%"
