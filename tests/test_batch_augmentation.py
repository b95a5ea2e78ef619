# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Augmentation of batches, worked out by hand on plain images and compared with Pillow on noise."""

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from runs import Run

from modeling_vit_scratch.data.batch_augmentation import (
    BatchAugmentation,
    cutmix,
    mixup,
    phrases,
    rand_augment,
    rand_augment_operations,
    size_at,
)
from modeling_vit_scratch.data.image_arguments import AugmentationArguments

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.125)
EVERYTHING = {
    "progressive_image_size": 6,
    "rand_augment_num_ops": 2,
    "color_jitter": 0.3,
    "random_erasing": 0.5,
    "mixup_alpha": 0.8,
    "cutmix_alpha": 1.0,
}


def augmentation(mean=MEAN, std=STD, **settings) -> BatchAugmentation:
    """For images of 8x12 in patches of 2x3, and 5 labels."""
    return BatchAugmentation(
        AugmentationArguments(**settings),
        image_mean=mean,
        image_std=std,
        patch_size=(2, 3),
        image_size=(8, 12),
        num_labels=5,
    )


def plain(*values: float, size: tuple[int, int] = (8, 12)) -> torch.Tensor:
    """A batch of plain images, one of each value: (B, 3, H, W)."""
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, *size).clone()


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def levels(pixel_values: torch.Tensor) -> torch.Tensor:
    return pixel_values * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


def picture(seed: int = 0, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """A smooth picture of `size` (width, height) that uses about the levels 20 to 220, differently in each channel."""
    noise = np.random.default_rng(seed).integers(20, 220, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def batch(image: Image.Image, size: int = 1) -> torch.Tensor:
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    return (pixels.float() / 255).expand(size, -1, -1, -1).clone()


LABELS = torch.tensor([3, 0, 4, 1, 2, 2])


# --- What is asked for -----------------------------------------------------------------------------------------------


def test_each_setting_has_its_phrase_in_the_order_in_which_it_applies():
    assert phrases(AugmentationArguments(**EVERYTHING)) == [
        "images grow from 6 pixels",
        "RandAugment of 2 operations at magnitude 9",
        "colours changed by up to 30%",
        "erased with probability 0.5",
        "mixup 0.8",
        "CutMix 1",
    ]
    one = AugmentationArguments(rand_augment_num_ops=1, rand_augment_magnitude=15, color_jitter=0.07)
    assert phrases(one) == ["RandAugment of 1 operation at magnitude 15", "colours changed by up to 7%"]


@pytest.mark.parametrize("setting", EVERYTHING)
def test_each_setting_alone_is_something(setting):
    alone = augmentation(**{setting: EVERYTHING[setting]})
    assert alone
    assert len(alone.phrases) == 1


def test_nothing_asked_for_changes_nothing_and_draws_nothing():
    nothing = augmentation(horizontal_flip=0.5, rotation=10)  # which vary images on their own
    assert not nothing
    assert nothing.phrases == []
    images, state = torch.randn(6, 3, 8, 12), torch.get_rng_state()
    augmented, labels = nothing(images, LABELS, 0.0)
    assert augmented is images
    assert labels is LABELS
    assert torch.equal(torch.get_rng_state(), state)


def test_kornia_is_imported_by_what_needs_it_and_when_it_is_asked_for(tmp_path):
    program = """
import sys
for name in [name for name in sys.modules if name.startswith("modeling_vit_scratch")]:
    del sys.modules[name]  # as if nothing had been imported
for name in ["kornia", *(name for name in sys.modules if name.startswith("kornia."))]:
    sys.modules[name] = None  # which makes importing it an error
import torch
from modeling_vit_scratch.data.image_arguments import AugmentationArguments
from modeling_vit_scratch.data.batch_augmentation import BatchAugmentation

for names in ((), ("mixup_alpha", "cutmix_alpha", "progressive_image_size"),
              ("rand_augment_num_ops",), ("color_jitter",), ("random_erasing",)):
    try:
        augmentation = BatchAugmentation(AugmentationArguments(**dict.fromkeys(names, 1)), image_mean=(0, 0, 0),
                                         image_std=(1, 1, 1), patch_size=(1, 1), image_size=(4, 4), num_labels=3)
    except ImportError:
        print("kornia")
    else:
        augmentation(torch.zeros(2, 3, 4, 4), torch.tensor([0, 2]), 0.0)
        print("none")
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    result = Run([], tmp_path, script=script).end()
    assert result.status == 0, result.err
    assert result.out.split() == ["none", "none", "kornia", "kornia", "kornia"]


def test_settings_that_need_colours_are_refused_for_other_images():
    with pytest.raises(ValueError, match=r"^rand_augment_num_ops needs images of 3 channels \(RGB\); .* have 1\.$"):
        augmentation(mean=[0.5], std=[0.5], rand_augment_num_ops=1)
    with pytest.raises(ValueError, match=r"^rand_augment_num_ops and color_jitter need .* have 4\.$"):
        augmentation(mean=[0.5] * 4, std=[0.5] * 4, rand_augment_num_ops=1, color_jitter=0.1)
    grey = {name: EVERYTHING[name] for name in EVERYTHING if name not in ("rand_augment_num_ops", "color_jitter")}
    images, labels = augmentation(mean=[0.5], std=[0.5], **grey)(torch.randn(6, 1, 8, 12), LABELS, 0.0)
    assert images.shape == (6, 1, 6, 9)
    assert labels.shape == (6, 5)


# --- All of it together ----------------------------------------------------------------------------------------------


def augmented(seed: int, images: torch.Tensor, **settings):
    augment = augmentation(**settings)
    torch.manual_seed(seed)
    return augment(images, LABELS, 0.1)


def test_a_seed_of_torch_repeats_everything_and_no_other_generator_is_used():
    images = torch.randn(6, 3, 8, 12)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = [augmented(seed, images, **EVERYTHING) for seed in range(10)]
    random.random()
    again = [augmented(seed, images, **EVERYTHING) for seed in range(10)]
    random.setstate(before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    for (images_1, labels_1), (images_2, labels_2) in zip(first, again, strict=True):
        assert torch.equal(images_1, images_2)
        assert torch.equal(labels_1, labels_2)
    assert len({images.numpy().tobytes() for images, _ in first}) == 10


@pytest.mark.parametrize("setting", [*EVERYTHING, None])
def test_the_batch_that_was_loaded_is_left_as_it_was(setting):
    images = torch.randn(6, 3, 8, 12)
    copy, labels = images.clone(), LABELS.clone()
    settings = {setting: EVERYTHING[setting]} if setting else EVERYTHING
    for seed in range(5):
        result, _ = augmented(seed, images, **settings)
        assert result is not images
    assert torch.equal(images, copy)
    assert torch.equal(labels, LABELS)


@pytest.mark.parametrize("setting", [*EVERYTHING, None])
def test_autocast_changes_no_pixel(setting):
    settings = {setting: EVERYTHING[setting]} if setting else EVERYTHING
    images = normalised(batch(picture(size=(12, 8)), 6))
    for seed in range(5):
        expected, _ = augmented(seed, images, **settings)
        with torch.autocast("cpu", torch.bfloat16):
            result, _ = augmented(seed, images, **settings)
        assert result.dtype == torch.float32
        assert torch.equal(result, expected)


def test_images_keep_their_precision_but_are_augmented_in_full():
    images = normalised(batch(picture(size=(12, 8)), 6)).bfloat16()
    expected, shares = augmented(0, images.float(), **EVERYTHING)
    result, same_shares = augmented(0, images, **EVERYTHING)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, expected.bfloat16())
    assert torch.equal(same_shares, shares)


def test_no_gradient_is_recorded():
    images, shares = augmented(0, torch.randn(6, 3, 8, 12, requires_grad=True), **EVERYTHING)
    assert not images.requires_grad
    assert not shares.requires_grad


def test_a_batch_of_one_image_is_a_batch():
    augment = augmentation(**EVERYTHING)
    for _ in range(20):
        images, shares = augment(torch.randn(1, 3, 8, 12), torch.tensor([4]), 0.9)
        assert images.shape == (1, 3, 8, 12)
        assert shares.tolist() == [[0, 0, 0, 0, 1]]


# --- Images that grow ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "side"),
    # From 16 to 48 over the first two thirds: 16 + 48 * progress, to the nearest multiple of 4.
    [(0.0, 16), (0.04, 16), (0.05, 20), (0.25, 28), (1 / 3, 32), (0.62, 44), (0.63, 48), (2 / 3, 48), (0.99, 48)],
)
def test_images_grow_evenly_in_whole_patches_until_two_thirds(progress, side):
    assert size_at(progress, 16, (48, 48), (4, 4)) == (side, side)


@pytest.mark.parametrize(("progress", "size"), [(0.0, (6, 9)), (0.3, (6, 9)), (0.4, (8, 12)), (1.0, (8, 12))])
def test_other_shapes_keep_their_proportions(progress, size):
    # The shorter side is 6 + 2 * 1.5 * progress, in patches of 2; the other one 1.5 times that, in patches of 3.
    assert size_at(progress, 6, (8, 12), (2, 3)) == size
    assert size_at(progress, 6, (12, 8), (3, 2)) == size[::-1]
    images, labels = augmentation(progressive_image_size=6)(torch.randn(6, 3, 8, 12), LABELS, progress)
    assert images.shape == (6, 3, *size)
    assert labels is LABELS


def test_a_smaller_image_is_what_pillow_makes_of_it():
    image = picture(size=(12, 8))
    small, _ = augmentation(progressive_image_size=4)(batch(image), LABELS[:1], 0.0)
    peer = image.resize((6, 4), Image.Resampling.BILINEAR)
    assert (small - batch(peer)).abs().max() * 255 <= 1.1


def test_full_size_is_the_image_itself():
    images = torch.randn(6, 3, 8, 12)
    assert torch.equal(augmentation(progressive_image_size=6)(images, LABELS, 0.7)[0], images)
    assert torch.equal(augmentation(progressive_image_size=8)(images, LABELS, 0.0)[0], images)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (9, "progressive_image_size 9 is larger than the 8x12 pixels at which training ends."),
        (1, "progressive_image_size 1 is smaller than a patch of 2x3 pixels."),
    ],
)
def test_sizes_that_cannot_be_are_refused(start, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        augmentation(progressive_image_size=start)


def test_either_side_may_be_too_small_for_a_patch():
    settings = {"image_mean": MEAN, "image_std": STD, "num_labels": 2}
    for start, accepted in ((7, False), (8, True)):  # of 16x32 pixels, that is 14 or 16 wide
        arguments = AugmentationArguments(progressive_image_size=start)
        if accepted:
            BatchAugmentation(arguments, patch_size=(2, 16), image_size=(16, 32), **settings)
        else:
            with pytest.raises(ValueError, match="smaller than a patch of 2x16"):
                BatchAugmentation(arguments, patch_size=(2, 16), image_size=(16, 32), **settings)


# --- RandAugment: who gets what --------------------------------------------------------------------------------------


def test_each_image_gets_operations_of_its_own_one_after_the_other():
    torch.manual_seed(0)
    start = torch.arange(8000.0)[:, None, None, None].expand(-1, 3, 2, 2)
    result = rand_augment(start.clone(), [lambda images: images * 3, lambda images: images + 7], 2)
    start, result = start[:, 0, 0, 0], result[:, 0, 0, 0]
    possible = torch.stack([start * 9, start * 3 + 7, (start + 7) * 3, start + 14])  # each by its own value
    counts = (result == possible).sum(1)
    assert counts.sum() == 8000
    for count in counts.tolist():
        assert count == pytest.approx(2000, abs=160)  # 4 standard deviations


def test_operations_are_drawn_evenly_and_see_no_empty_batch():
    torch.manual_seed(0)
    counts = torch.zeros(14)

    def counting(number: int):
        def operation(images):
            assert len(images)
            counts[number] += len(images)
            return images

        return operation

    for size in [1, 3] * 10 + [7000] * 2:
        rand_augment(torch.zeros(size, 3, 1, 1), [counting(number) for number in range(14)], 3)
    assert counts.sum() == 3 * (4 * 10 + 14000)
    assert (counts - counts.mean()).abs().max() < 4 * 3000**0.5


def test_no_operation_leaves_the_images_as_they_are():
    images = torch.rand(4, 3, 2, 2)
    assert torch.equal(rand_augment(images.clone(), [torch.zeros_like], 0), images)


def test_operations_see_levels_from_0_to_1_and_the_model_normalised_ones():
    augment = augmentation(rand_augment_num_ops=1)

    def negative(images):
        assert torch.equal(images, plain(0, 51 / 255, 1))
        return 1 - images

    augment.operations = [negative]
    # A level may have become a hair smaller or larger on its way, as interpolation overshoots.
    pixel_values, _ = augment(normalised(plain(-0.02, 0.2 - 1e-6, 1.01)), LABELS[:3], 0.0)
    assert torch.allclose(pixel_values, normalised(plain(1.0, 0.8, 0.0)), atol=1e-6)


def test_the_magnitude_is_that_of_the_arguments():
    augment = augmentation(rand_augment_num_ops=1, rand_augment_magnitude=15)
    assert len(augment.operations) == 14
    solarized = augment.operations[list(rand_augment_operations(15)).index("solarize")](plain(0.48, 0.52))
    assert solarized[:, 0, 0, 0].tolist() == pytest.approx([0.48, 0.48])


# --- RandAugment: what each operation does ---------------------------------------------------------------------------


def operation(name: str, magnitude: int):
    return rand_augment_operations(magnitude)[name]


MOVES = ["rotate", "shear-x", "shear-y", "translate-x", "translate-y"]
ENHANCEMENTS = ["color", "contrast", "brightness", "sharpness"]


def test_the_operations_are_those_of_the_article():
    others = ["identity", "auto-contrast", "equalize", "solarize", "posterize"]
    assert sorted(rand_augment_operations(9)) == sorted([*others, *ENHANCEMENTS, *MOVES])


@pytest.mark.parametrize(
    ("name", "magnitude", "peer"),
    [
        ("identity", 9, lambda image: image),
        ("auto-contrast", 9, ImageOps.autocontrast),
        ("equalize", 9, ImageOps.equalize),
        ("solarize", 9, lambda image: ImageOps.solarize(image, 179)),  # 70% of 255 is 178.5
        ("solarize", 20, lambda image: ImageOps.solarize(image, 85)),  # a third
        ("posterize", 3, lambda image: image),  # 8 - 0.4
        ("posterize", 9, lambda image: ImageOps.posterize(image, 7)),  # 8 - 1.2
        ("posterize", 29, lambda image: ImageOps.posterize(image, 4)),  # 8 - 3.87
    ],
)
def test_an_operation_is_pillows(name, magnitude, peer):
    image = picture()
    result = operation(name, magnitude)(batch(image, 2))
    assert (result - batch(peer(image), 2)).abs().max() * 255 <= 1.01  # Pillow's truncates auto-contrast


def test_auto_contrast_leaves_a_channel_of_one_level_alone():
    images = plain(0.2, 0.6, size=(2, 2))
    images[1, 2, 0, 0] = 0.5
    result = operation("auto-contrast", 9)(images)
    assert torch.equal(result[0], images[0])
    assert torch.equal(result[1, :2], images[1, :2])
    assert result[1, 2].flatten().tolist() == pytest.approx([0, 1, 1, 1], abs=1e-4)


@pytest.mark.parametrize(("magnitude", "change"), [(10, 0.3), (20, 0.6)])
@pytest.mark.parametrize("name", ENHANCEMENTS)
def test_an_enhancement_goes_either_way_for_each_image(name, magnitude, change):
    torch.manual_seed(0)
    enhance = getattr(ImageEnhance, name.capitalize())
    image = picture()
    results = operation(name, magnitude)(batch(image, 400))
    weaker, stronger = (
        (results - batch(enhance(image).enhance(1 + way * change))).abs().amax((1, 2, 3)) * 255 < 1.2 for way in (-1, 1)
    )
    assert torch.equal(weaker, ~stronger)
    assert stronger.sum() == pytest.approx(200, abs=40)


def dot(x: int, y: int, size: tuple[int, int], copies: int = 400) -> torch.Tensor:
    """Black images of `size` (width, height) with a white pixel."""
    images = torch.zeros(copies, 3, size[1], size[0])
    images[:, :, y, x] = 1
    return images


def places(images: torch.Tensor) -> dict[tuple[int, int], int]:
    """In how many images the dot is at which place (x, y)."""
    width = images.shape[-1]
    assert images.sum((2, 3)).sub(1).abs().max() < 1e-3
    assert images.amax((2, 3)).sub(1).abs().max() < 1e-3
    flat = images.flatten(2).argmax(2)
    assert (flat == flat[:, :1]).all()
    return {(place % width, place // width): int((flat[:, 0] == place).sum()) for place in flat[:, 0].unique().tolist()}


@pytest.mark.parametrize(
    ("name", "magnitude", "size", "at", "to"),
    [
        ("translate-x", 1, (331, 5), (20, 3), {(15, 3), (25, 3)}),  # of 150 pixels a thirtieth
        ("translate-x", 2, (331, 5), (20, 3), {(10, 3), (30, 3)}),
        ("translate-y", 1, (5, 331), (3, 20), {(3, 15), (3, 25)}),
        ("shear-x", 10, (30, 25), (9, 20), {(7, 20), (11, 20)}),  # by a tenth of the row
        ("shear-x", 20, (30, 25), (9, 20), {(5, 20), (13, 20)}),
        ("shear-y", 10, (25, 30), (20, 9), {(20, 7), (20, 11)}),
    ],
)
def test_a_dot_moves_either_way_for_each_image(name, magnitude, size, at, to):
    torch.manual_seed(0)
    found = places(operation(name, magnitude)(dot(*at, size)))
    assert set(found) == to
    assert min(found.values()) == pytest.approx(200, abs=40)


@pytest.mark.parametrize("degrees", [10, 25])
def test_a_turn_goes_either_way_for_each_image(degrees):
    torch.manual_seed(0)
    image = picture()
    results = operation("rotate", degrees)(batch(image, 400))
    inside = (slice(None), slice(None), slice(10, -10), slice(10, -10))
    ways = torch.stack(
        [
            (results - batch(image.rotate(way * degrees, Image.Resampling.BILINEAR)))[inside].abs().amax((1, 2, 3))
            for way in (-1, 1)
        ]
    )
    assert (ways.amin(0) * 255).max() < 2
    assert (ways.amax(0) * 255).min() > 10
    assert (ways.argmin(0) == 0).sum() == pytest.approx(200, abs=40)


@pytest.mark.parametrize("name", MOVES)
def test_what_comes_into_view_is_black(name):
    result = operation(name, 29)(plain(1.0, 1.0, 1.0, 1.0, size=(32, 40)))
    assert result.amin((1, 2, 3)).abs().max() == 0
    assert result.amax((1, 2, 3)).sub(1).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["solarize", "posterize", *ENHANCEMENTS, *MOVES])
def test_a_greater_magnitude_changes_more(name):
    torch.manual_seed(0)
    images = torch.cat([batch(picture(seed), 40) for seed in range(4)])
    changes = [
        float((operation(name, magnitude)(images) - images).abs().mean()) for magnitude in (1, 5, 10, 15, 22, 29)
    ]
    assert changes == sorted(changes)
    assert changes[-1] > 5 * changes[0]


# --- Colours ---------------------------------------------------------------------------------------------------------


def jittered(image: torch.Tensor, amount: float = 0.3) -> torch.Tensor:
    """2000 times the same image of levels (3, H, W), each changed by up to this amount, in batches of 50."""
    torch.manual_seed(0)
    augment = augmentation(color_jitter=amount)
    images = normalised(image).expand(50, -1, -1, -1)
    return torch.cat([levels(augment(images, LABELS, 0.0)[0]) for _ in range(40)])


def is_uniform(values: torch.Tensor, low: float, high: float) -> bool:
    room = 0.02 * (high - low)
    return (
        low - 1e-3 <= values.min() <= low + room
        and high - room <= values.max() <= high + 1e-3
        and abs(values.mean() - (low + high) / 2) < room
    )


def test_brightness_is_changed_for_each_image():
    grey = jittered(plain(0.4)[0])  # on which contrast and saturation do nothing
    assert (grey.amax((1, 2, 3)) - grey.amin((1, 2, 3))).max() < 1e-5
    assert is_uniform(grey[:, 0, 0, 0] / 0.4, 0.7, 1.3)
    assert grey[:, 0, 0, 0].unique().numel() > 1990


def test_contrast_is_changed_for_each_image():
    grey = plain(0.4)[0]
    grey[:, :4] = 0.6  # so that the mean is 0.5
    result = jittered(grey)
    # Levels are rounded to 102 and 153 of 255 first, exactly 0.4 and 0.6.
    contrast = (result[:, 0, 0, 0] - result[:, 0, 7, 0]) / result[:, 0].mean((1, 2)) / 0.4
    assert is_uniform(contrast, 0.7, 1.3)


def test_saturation_is_changed_for_each_image():
    red = torch.tensor([0.6, 0.4, 0.4])[:, None, None].expand(3, 8, 12)
    result = jittered(red)[:, :, 0, 0]
    # Contrast and saturation both stretch the difference of the channels; only together they do so by 0.49 to 1.69.
    grey = result @ torch.tensor([0.299, 0.587, 0.114])
    stretch = (result[:, 0] - result[:, 1]) / grey / (0.2 / 0.4598)
    assert 0.49 - 1e-3 < stretch.min() < 0.55
    assert 1.55 < stretch.max() < 1.69 + 1e-3
    assert torch.allclose(result[:, 1], result[:, 2], atol=1e-5)  # the hue stays


# --- Erasing ---------------------------------------------------------------------------------------------------------


def test_rectangles_of_some_images_become_noise():
    torch.manual_seed(0)
    images = torch.full((400, 3, 20, 30), 9.0)
    augment = augmentation(random_erasing=0.25)
    result = torch.cat([augment(images, LABELS, 0.0)[0] for _ in range(5)])
    erased = result != 9
    assert torch.equal(erased[:, 0], erased[:, 1])
    assert torch.equal(erased[:, 0], erased[:, 2])
    chosen = erased[:, 0].flatten(1).any(1)
    assert chosen.float().mean() == pytest.approx(0.25, abs=0.04)
    areas = []
    for mask in erased[chosen, 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
        assert rows.diff().sum() <= 2  # in one piece
        assert columns.diff().sum() <= 2
        areas.append(float(mask.float().mean()))
    assert 0.01 < min(areas) < 0.04
    assert 0.30 < max(areas) < 0.36
    noise = result[erased]
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert noise.unique().numel() > 0.9 * noise.numel()


# --- Mixup -----------------------------------------------------------------------------------------------------------


VALUES = torch.tensor([0.0, 1.0, 10.0, 100.0, 1000.0, 2000.0])


def test_mixup_blends_pairs_and_their_labels_alike():
    torch.manual_seed(0)
    images, shares = mixup(plain(*VALUES), torch.eye(6), 0.7)
    assert torch.allclose(shares.diagonal()[shares.diagonal() < 1], torch.tensor(0.7))
    assert torch.allclose(shares.sum(1), torch.ones(6))
    assert torch.allclose(shares.sum(0), torch.ones(6))  # each image goes to one other
    assert torch.allclose(images, plain(*(shares @ VALUES).tolist()), rtol=1e-5)


def test_pairs_are_drawn():
    torch.manual_seed(0)
    partners = torch.stack([mixup(plain(*VALUES), torch.eye(6), 0.0)[1].argmax(1) for _ in range(1200)])
    for image in range(6):
        assert (partners[:, image].bincount(minlength=6) - 200).abs().max() < 60


@pytest.mark.parametrize("alpha", [0.2, 2.0])
def test_the_share_of_mixup_is_drawn_from_a_beta_distribution_for_each_batch(alpha):
    torch.manual_seed(0)
    augment = augmentation(mixup_alpha=alpha)
    images, labels = plain(0.0, 1.0, 0.0, 0.0, 0.0, size=(1, 1)), torch.tensor([0, 1, 2, 3, 4])
    shares = torch.stack([augment(images, labels, 0.0)[1] for _ in range(3000)])
    own = shares.diagonal(dim1=1, dim2=2)
    other = own != 1  # unless an image was paired with itself
    kept = own.amin(1)[other.any(1)]
    assert torch.allclose(own[other], kept[:, None].expand(-1, 5)[other[other.any(1)]])
    assert kept.mean() == pytest.approx(0.5, abs=0.03)
    assert kept.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)  # 0.179 and 0.05


def test_labels_become_shares_of_all_labels():
    torch.manual_seed(0)
    labels = torch.tensor([3, 0, 1, 1, 2, 2])  # the last label, 4, is not in this batch
    _, shares = augmentation(mixup_alpha=1.0)(plain(*VALUES), labels, 0.0)
    assert shares.shape == (6, 5)
    assert shares.dtype == torch.float32
    assert torch.allclose(shares.sum(1), torch.ones(6))
    assert (shares[torch.arange(6), labels] > 0).all()
    assert (shares > 0).sum(1).max() == 2


# --- CutMix ----------------------------------------------------------------------------------------------------------


def test_cutmix_pastes_one_rectangle_and_counts_its_pixels():
    torch.manual_seed(0)
    augment = augmentation(cutmix_alpha=1.0)
    values = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    areas = set()
    for _ in range(200):
        images, shares = augment(plain(*values.tolist()), torch.arange(5), 0.0)
        counted = torch.stack([(images == value).float().mean((1, 2, 3)) for value in values], dim=1)
        assert torch.allclose(shares, counted, atol=1e-6)
        pasted = (images != values[:, None, None, None]).any(1)
        moved = pasted.flatten(1).any(1)
        assert (pasted[moved] == pasted.any(0)).all()  # at the same place in all
        rows, columns = pasted.any(0).any(1), pasted.any(0).any(0)
        assert torch.equal(pasted.any(0), rows[:, None] & columns)
        assert rows.diff().sum() <= 2
        assert columns.diff().sum() <= 2
        areas.add(int(pasted.any(0).sum()))
    assert len(areas) > 30


def test_the_rectangle_of_cutmix_lies_anywhere_and_is_cut_off():
    torch.manual_seed(0)
    rows, columns = {}, {}
    for _ in range(2400):
        images, shares = cutmix(plain(0.0, 1.0), torch.eye(2), 0.75)  # a quarter of the area: half of each side
        pasted = images[0, 0] == 1
        if pasted.any():
            assert shares[0, 1] == pytest.approx(float(pasted.float().mean()), abs=1e-7)
            for found, side in ((rows, pasted.any(1)), (columns, pasted.any(0))):
                place = tuple(side.nonzero()[:, 0].tolist())
                found[place] = found.get(place, 0) + 1
    of_8 = [(0, 2), (0, 3), (0, 4), (1, 5), (2, 6), (3, 7), (4, 8), (5, 8)]
    assert set(rows) == {tuple(range(*ends)) for ends in of_8}
    of_12 = [(0, 3), (0, 4), (0, 5), (0, 6), (1, 7), (2, 8), (3, 9), (4, 10), (5, 11), (6, 12), (7, 12), (8, 12)]
    assert set(columns) == {tuple(range(*ends)) for ends in of_12}
    total = sum(rows.values())
    assert total == pytest.approx(1200, abs=100)
    assert max(rows.values()) - min(rows.values()) < 0.5 * total / 8
    assert max(columns.values()) - min(columns.values()) < 0.7 * total / 12


@pytest.mark.parametrize(("share", "pasted"), [(1.0, 0.0), (0.0, None)])
def test_a_share_of_1_keeps_the_image_and_of_0_pastes_all_that_fits(share, pasted):
    torch.manual_seed(0)
    found = []
    for _ in range(300):
        _, shares = cutmix(plain(0.0, 1.0), torch.eye(2), share)
        found.append(float(shares[0, 1]))
    assert max(found) == (1.0 if pasted is None else pasted)


@pytest.mark.parametrize("alpha", [0.3, 3.0])
def test_the_share_of_cutmix_is_drawn_from_a_beta_distribution(alpha, monkeypatch):
    import modeling_vit_scratch.data.batch_augmentation as module

    kept = []
    monkeypatch.setattr(module, "cutmix", lambda images, shares, share: (images, kept.append(share) or shares))
    torch.manual_seed(0)
    augment = augmentation(cutmix_alpha=alpha)
    for _ in range(3000):
        augment(plain(0.0, 1.0), torch.tensor([0, 1]), 0.0)
    assert np.mean(kept) == pytest.approx(0.5, abs=0.03)
    assert np.var(kept) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_of_mixup_and_cutmix_a_batch_gets_one():
    torch.manual_seed(0)
    augment = augmentation(mixup_alpha=1.0, cutmix_alpha=1.0)
    images, labels = plain(0.0, 1.0, 2.0, 4.0, 8.0), torch.arange(5)
    blended = 0
    for _ in range(400):
        mixed, shares = augment(images, labels, 0.0)
        assert torch.allclose(shares.sum(1), torch.ones(5))
        plains = mixed.flatten(1).amax(1) == mixed.flatten(1).amin(1)
        among = torch.isin(mixed, images).flatten(1).all(1)
        assert plains.all() or among.all()
        blended += not bool(among.all())
    assert blended == pytest.approx(200, abs=40)
