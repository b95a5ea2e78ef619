# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Augmentation of a whole batch, where the batch is: on the device, normalised, in the training step only.

Everything is drawn from torch's global generators, so a training state that restores them repeats it. The arithmetic on
pixels is kornia's, which is imported when a setting asks for it and not before.

Shapes: B batch, C channels, H W image, K labels.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Beta

from .image_arguments import AugmentationArguments

Operation = Callable[[Tensor], Tensor]

# The settings whose operations know colours, and so take images in RGB only.
RGB_SETTINGS = ("rand_augment_num_ops", "color_jitter")
# Magnitudes of RandAugment count up to here.
GREATEST_MAGNITUDE = 30
# The share of the training over which images grow; the rest of it sees them in full.
GROWTH_SHARE = 2 / 3


def phrases(arguments: AugmentationArguments) -> list[str]:
    """What is done to a batch, in a phrase each; none where nothing is asked for."""
    num_ops = arguments.rand_augment_num_ops
    operations = "1 operation" if num_ops == 1 else f"{num_ops} operations"
    asked_for = {
        f"images grow from {arguments.progressive_image_size} pixels": arguments.progressive_image_size,
        f"RandAugment of {operations} at magnitude {arguments.rand_augment_magnitude}": num_ops,
        f"colours changed by up to {100 * arguments.color_jitter:g}%": arguments.color_jitter,
        f"erased with probability {arguments.random_erasing:g}": arguments.random_erasing,
        f"mixup {arguments.mixup_alpha:g}": arguments.mixup_alpha,
        f"CutMix {arguments.cutmix_alpha:g}": arguments.cutmix_alpha,
    }
    return [phrase for phrase, amount in asked_for.items() if amount]


class BatchAugmentation:
    """All that the arguments ask for, in the order of `phrases`; false where they ask for nothing.

    Args:
        arguments: what to do, and how strongly.
        image_mean, image_std: of each channel, by which the image processor has normalised.
        patch_size, image_size: (height, width) of the model in pixels.
        num_labels: K, the length of the shares that mixup and CutMix make of labels.

    Raises:
        ValueError: for settings that need RGB in a model without, or images that begin larger than they end or smaller
            than a patch.
    """

    def __init__(
        self,
        arguments: AugmentationArguments,
        *,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        patch_size: tuple[int, int],
        image_size: tuple[int, int],
        num_labels: int,
    ):
        _check_channels(arguments, len(image_mean))
        _check_sizes(arguments.progressive_image_size, image_size, patch_size)
        self.phrases = phrases(arguments)
        self.mean = torch.tensor(image_mean, dtype=torch.float32)[:, None, None]  # (C, 1, 1)
        self.std = torch.tensor(image_std, dtype=torch.float32)[:, None, None]  # (C, 1, 1)
        self.patch_size, self.image_size, self.num_labels = patch_size, image_size, num_labels
        self.start = arguments.progressive_image_size
        self.num_ops = arguments.rand_augment_num_ops
        operations = rand_augment_operations(arguments.rand_augment_magnitude) if self.num_ops else {}
        self.operations = list(operations.values())
        self.jitter = _color_jitter(arguments.color_jitter) if arguments.color_jitter else None
        self.erase = _random_erasing(arguments.random_erasing) if arguments.random_erasing else None
        alphas = {mixup: arguments.mixup_alpha, cutmix: arguments.cutmix_alpha}
        self.mixes = [(mix, Beta(alpha, alpha)) for mix, alpha in alphas.items() if alpha]

    def __bool__(self) -> bool:
        return bool(self.phrases)

    @torch.no_grad()
    def __call__(self, pixel_values: Tensor, labels: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """Augment, in float32: (B, C, H, W) and (B,) -> (B, C, H', W') and (B,), or (B, K) shares once mixed.

        Args:
            pixel_values: as the image processor makes them; they are left as they are.
            labels: indices of classes.
            progress: the share of the training that is done, from 0 to 1.
        """
        with torch.autocast(pixel_values.device.type, enabled=False):
            images = pixel_values.float()
            if self.start is not None:
                images = resized(images, size_at(progress, self.start, self.image_size, self.patch_size))
            if self.num_ops or self.jitter:
                images = self._vary_levels(images)
            if self.erase:
                images = self.erase(images)
            if self.mixes:
                images, labels = self._mix(images, labels)
            return images.to(pixel_values.dtype), labels

    def _vary_levels(self, images: Tensor) -> Tensor:
        """RandAugment and colour jitter want the 256 levels from 0 to 1 that the image processor started from."""
        mean, std = self.mean.to(images.device), self.std.to(images.device)
        # Rounded, because kornia truncates: a level that normalising made a hair smaller would become the one below.
        images = (images * (255 * std)).add_(255 * mean).round_().clamp_(0, 255).div_(255)
        images = rand_augment(images, self.operations, self.num_ops)
        if self.jitter:
            images = self.jitter(images)
        return (images - mean).div_(std)

    def _mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        which = int(torch.randint(len(self.mixes), ()))
        mix, share = self.mixes[which]
        return mix(images, F.one_hot(labels, self.num_labels).float(), float(share.sample()))


def _check_channels(arguments: AugmentationArguments, num_channels: int) -> None:
    in_rgb = [name for name in RGB_SETTINGS if getattr(arguments, name)]
    if in_rgb and num_channels != 3:
        verb = "need" if len(in_rgb) > 1 else "needs"
        raise ValueError(
            f"{' and '.join(in_rgb)} {verb} images of 3 channels (RGB); those of this model have {num_channels}."
        )


def _check_sizes(start: int | None, image_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
    if start is None:
        return
    image, patch = ("{}x{}".format(*size) for size in (image_size, patch_size))
    if start > min(image_size):
        raise ValueError(f"progressive_image_size {start} is larger than the {image} pixels at which training ends.")
    sides = [start * side / min(image_size) for side in image_size]
    if any(side < of_patch for side, of_patch in zip(sides, patch_size, strict=True)):
        raise ValueError(f"progressive_image_size {start} is smaller than a patch of {patch} pixels.")


# --- Images that grow ------------------------------------------------------------------------------------------------


def size_at(progress: float, start: int, image_size: tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the images at this progress: whole patches, in the proportions of `image_size`.

    The shorter side grows evenly from `start` pixels until `GROWTH_SHARE` of the training is done.
    """
    shorter = min(image_size)
    grown = min(1.0, progress / GROWTH_SHARE)
    zoom = (start + (shorter - start) * grown) / shorter
    height, width = (round(side * zoom / patch) * patch for side, patch in zip(image_size, patch_size, strict=True))
    return height, width


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images of this (height, width): (B, C, H, W) -> (B, C, *size)."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)


# --- RandAugment -----------------------------------------------------------------------------------------------------


def rand_augment(images: Tensor, operations: Sequence[Operation], num_ops: int) -> Tensor:
    """To each image `num_ops` operations, drawn for it alone and evenly (Cubuk et al. 2019, arXiv 1909.13719).

    Args:
        images: (B, C, H, W) from 0 to 1; they are overwritten.
        operations: each takes a part of the batch, and returns it in the same shape.
        num_ops: how many an image gets, one after the other; the same one may come again.
    """
    for _ in range(num_ops):
        drawn = torch.randint(len(operations), (len(images),))  # on the CPU: who got what is known without waiting
        for number, operation in enumerate(operations):
            chosen = (drawn == number).nonzero()[:, 0].to(images.device)
            if len(chosen):
                images[chosen] = operation(images[chosen])
    return images


def rand_augment_operations(magnitude: int) -> dict[str, Operation]:
    """The 14 operations of the article, in its ranges, which are those of AutoAugment (arXiv 1805.09501, table 6).

    An operation that may go either way draws that for each image. What comes into view is black. A greater magnitude
    changes more: solarizing begins at the brightest, and factors count from 1, the image as it is.

    Args:
        magnitude: up to `GREATEST_MAGNITUDE`, which is the end of each range.
    """
    from kornia import enhance
    from kornia.enhance.adjust import adjust_contrast_with_mean_subtraction, adjust_saturation_with_gray_subtraction
    from kornia.geometry import transform

    strength = magnitude / GREATEST_MAGNITUDE
    factor, degrees, shear = 0.9 * strength, 30.0 * strength, 0.3 * strength
    shift = 150 / 331 * strength  # in the article, 150 pixels of images of 331
    return {
        "identity": lambda images: images,
        "auto-contrast": _auto_contrast,
        "equalize": enhance.equalize,
        "rotate": lambda images: transform.rotate(images, _either_way(degrees, images)),
        "solarize": lambda images: enhance.solarize(images, 1 - strength),
        "color": lambda images: adjust_saturation_with_gray_subtraction(images, 1 + _either_way(factor, images)),
        "posterize": lambda images: enhance.posterize(images, 8 - round(4 * strength)),
        "contrast": lambda images: adjust_contrast_with_mean_subtraction(images, 1 + _either_way(factor, images)),
        "brightness": lambda images: enhance.adjust_brightness_accumulative(images, 1 + _either_way(factor, images)),
        "sharpness": lambda images: enhance.sharpness(images, 1 + _either_way(factor, images)),
        "shear-x": lambda images: transform.shear(images, _x(_either_way(shear, images))),
        "shear-y": lambda images: transform.shear(images, _y(_either_way(shear, images))),
        "translate-x": lambda images: transform.translate(images, _x(_either_way(shift * images.shape[-1], images))),
        "translate-y": lambda images: transform.translate(images, _y(_either_way(shift * images.shape[-2], images))),
    }


def _auto_contrast(images: Tensor) -> Tensor:
    from kornia.enhance import normalize_min_max

    one_level = images.amin((-2, -1), keepdim=True) == images.amax((-2, -1), keepdim=True)
    return torch.where(one_level, images, normalize_min_max(images))  # kornia would make these black


def _either_way(amount: float, images: Tensor) -> Tensor:
    """Plus or minus this amount for each image: (B,)."""
    return (amount * (2.0 * torch.randint(2, (len(images),)) - 1)).to(images.device)


def _x(amounts: Tensor) -> Tensor:
    return F.pad(amounts[:, None], (0, 1))  # (B, 2): an amount and 0


def _y(amounts: Tensor) -> Tensor:
    return F.pad(amounts[:, None], (1, 0))  # (B, 2): 0 and an amount


# --- Colours, erasing ------------------------------------------------------------------------------------------------


def _color_jitter(amount: float) -> Operation:
    """Factors of brightness, contrast and saturation, each image's own, in an order that the batch shares."""
    from kornia.augmentation import ColorJitter

    return ColorJitter(brightness=amount, contrast=amount, saturation=amount)


def _random_erasing(probability: float) -> Operation:
    """Overwrite a rectangle of an image with noise (Zhong et al. 2017, arXiv 1708.04896)."""
    from kornia.augmentation import RandomErasing

    rectangles = RandomErasing(p=probability)

    def erase(images: Tensor) -> Tensor:
        kept = rectangles(torch.ones_like(images[:, :1]))  # (B, 1, H, W): 1, and 0 in the rectangle
        return torch.where(kept == 1, images, torch.randn_like(images))

    return erase


# --- Pairs of images -------------------------------------------------------------------------------------------------


def mixup(images: Tensor, shares: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Blend each image with another one, and their labels alike (Zhang et al. 2017, arXiv 1710.09412).

    Args:
        images: (B, C, H, W).
        shares: (B, K) of the labels.
        share: what an image keeps of itself; the whole batch alike.
    """
    others = torch.randperm(len(images)).to(images.device)
    return images[others].lerp_(images, share), share * shares + (1 - share) * shares[others]


def cutmix(images: Tensor, shares: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of another image, at the same place in the whole batch (Yun et al. 2019, arXiv 1905.04899).

    The centre of the rectangle lies anywhere, so that it may be cut off at the edges: labels count the pixels that are
    there.

    Args:
        images: (B, C, H, W).
        shares: (B, K) of the labels.
        share: what an image keeps of its area, before the rectangle is cut off.
    """
    height, width = images.shape[-2:]
    others = torch.randperm(len(images)).to(images.device)
    (top, bottom), (left, right) = (_cut(side, math.sqrt(1 - share)) for side in (height, width))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[others, :, top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, kept * shares + (1 - kept) * shares[others]


def _cut(side: int, share: float) -> tuple[int, int]:
    """Where a cut of this share of a side of so many pixels begins and ends, its centre being anywhere."""
    length = round(side * share)
    begin = int(torch.randint(side, ())) - length // 2
    return max(0, begin), min(side, begin + length)
