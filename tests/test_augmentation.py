# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Variations of training images, worked out by hand; and that evaluation sees what pipelines see."""

import pickle
import random
from random import Random

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from pictures import encoded, noise, oriented, plain, row
from PIL import Image
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, default_data_collator
from transformers.image_utils import load_image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from modeling_vit_scratch.data.augmentation import random_affine, random_mirror, random_resized_crop, variations
from modeling_vit_scratch.data.image_arguments import AugmentationArguments
from modeling_vit_scratch.data.images import read_image
from modeling_vit_scratch.data.model_input import pixel_values, preprocessing
from modeling_vit_scratch.presets import preset_path

DRAWS = 2000


def dots(size: tuple[int, int], *places: tuple[int, int]) -> Image.Image:
    """A black grey picture of `size` (width, height) with white pixels at these places (x, y)."""
    picture = Image.new("L", size)
    for place in places:
        picture.putpixel(place, 255)
    return picture


def places(picture: Image.Image) -> list[tuple[int, int]]:
    """Where a picture is white, as (x, y) in the order of x; all else must be black, but for a rounding."""
    pixels = np.asarray(picture).astype(int)
    assert np.minimum(pixels, 255 - pixels).max() <= 1
    return sorted((int(x), int(y)) for y, x in np.argwhere(pixels > 127))


class Bound(Random):
    """A source of randomness of which every uniform draw is one of its bounds."""

    def __init__(self, side: int):
        super().__init__(0)
        self.side = side

    def uniform(self, low, high):
        return high if self.side > 0 else low


UPPER, LOWER = Bound(1), Bound(-1)


# --- Rotating, moving, scaling ---------------------------------------------------------------------------------------


def test_nothing_to_vary_leaves_the_image_as_it_is():
    picture = noise((8, 5))
    assert np.array_equal(random_affine(picture, Random(0), 0, 0, 0), picture)


@pytest.mark.parametrize(
    ("bound", "expected"), [(UPPER, (5, 3)), (LOWER, (1, 1))], ids=["right and down", "left and up"]
)
def test_a_move_is_a_share_of_the_width_and_of_the_height(bound, expected):
    assert places(random_affine(dots((8, 4), (3, 2)), bound, 0, 0.25, 0)) == [expected]  # by two columns and one row


def test_what_comes_into_view_is_black():
    moved = np.asarray(random_affine(plain(255, (8, 4), "L"), UPPER, 0, 0.25, 0))  # by two columns and one row
    assert moved[1:, 2:].min() == 255
    assert moved[0].max() == moved[:, :2].max() == 0


@pytest.mark.parametrize(
    ("bound", "expected"),
    [(UPPER, [(3, 0), (4, 2)]), (LOWER, [(0, 2), (1, 4)])],
    ids=["clockwise", "anticlockwise"],
)
def test_a_quarter_turn_is_about_the_centre(bound, expected):
    # The centre of 5x5 pixels is the pixel (2, 2): one dot is two above it, one two to the left and one above it.
    assert places(random_affine(dots((5, 5), (2, 0), (0, 1)), bound, 90, 0, 0)) == expected


def test_a_turn_of_an_even_number_of_pixels_is_about_the_corner_between_the_middle_ones():
    assert places(random_affine(dots((6, 4), (2, 1)), UPPER, 180, 0, 0)) == [(3, 2)]


def test_a_turn_keeps_angles_on_an_image_that_is_not_square():
    # Centre (4.5, 2.5): the pixel three to the right comes to lie three below, outside; one to the right, one below.
    assert places(random_affine(dots((9, 5), (5, 2)), UPPER, 90, 0, 0)) == [(4, 3)]
    assert places(random_affine(dots((9, 5), (7, 2)), UPPER, 90, 0, 0)) == []


def test_enlarging_is_about_the_centre():
    # By nearly 2: a square of four pixels in the middle of eight becomes one of nearly eight.
    picture = Image.new("L", (8, 8))
    picture.paste(255, (2, 2, 6, 6))
    enlarged = np.asarray(random_affine(picture, UPPER, 0, 0, 0.999))
    assert enlarged.min() > 100
    assert enlarged[1:-1, 1:-1].min() == 255


def test_shrinking_is_about_the_centre():
    shrunk = np.asarray(random_affine(plain(255, (8, 8), "L"), LOWER, 0, 0, 0.5))
    assert shrunk[2:6, 2:6].min() == 255
    assert shrunk.astype(int).sum() == 16 * 255


def test_a_point_is_turned_and_enlarged_about_the_centre_and_then_moved():
    picture = dots((41, 41), (30, 20))  # ten to the right of the centre (20, 20)
    varied = np.asarray(random_affine(picture, UPPER, 90, 0.1, 0.5)).astype(float)
    y, x = np.mgrid[:41, :41]
    centroid = (varied * x).sum() / varied.sum(), (varied * y).sum() / varied.sum()
    # A quarter turn clockwise puts it ten below, the zoom fifteen below, the move 4.1 to the right and 4.1 down.
    assert centroid == pytest.approx((20 + 4.1, 20 + 15 + 4.1), abs=0.1)


def test_the_amounts_are_uniform_to_either_side(monkeypatch):
    drawn: list[tuple[float, ...]] = []
    source = Random(0)
    monkeypatch.setattr(source, "uniform", lambda low, high: drawn.append((low, high)) or (low + high) / 2)
    random_affine(noise(), source, 12, 0.08, 0.1)
    assert drawn == [(-12, 12), (-0.1, 0.1), (-0.08, 0.08), (-0.08, 0.08)]


# --- Random crops ----------------------------------------------------------------------------------------------------


def coordinates(width: int, height: int) -> Image.Image:
    """A picture of which each pixel says where it is: red is its place along the width, green along the height."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray(np.stack([255 * x, 255 * y, 0 * x], axis=2).round().astype(np.uint8))


def cut(picture: Image.Image, source: Random, least_area: float) -> tuple[float, float, float, float]:
    """What part a crop shows, as shares of width and height: left, top, right, bottom."""
    shown = np.asarray(random_resized_crop(picture, source, least_area, (64, 64)), dtype=float) / 255
    # From the centres of the pixels near the edges, where resizing has no other side to mix in, to the edges.
    x, y = shown[32, :, 0], shown[:, 32, 1]
    step_x, step_y = (x[48] - x[16]) / 32, (y[48] - y[16]) / 32
    return x[16] - 16.5 * step_x, y[16] - 16.5 * step_y, x[48] + 15.5 * step_x, y[48] + 15.5 * step_y


@pytest.mark.parametrize("size", [(300, 300), (400, 200), (150, 300)])
def test_area_and_aspect_of_a_crop_are_within_their_bounds(size):
    picture, source = coordinates(*size), Random(0)
    boxes = np.array([cut(picture, source, 0.3) for _ in range(DRAWS // 10)])
    left, top, right, bottom = boxes.T
    areas, stretches = (right - left) * (bottom - top), (right - left) / (bottom - top)
    assert boxes.min() > -0.02
    assert boxes.max() < 1.02
    assert 0.27 < areas.min() < 0.35
    assert 0.95 < areas.max() < 1.03
    assert 0.72 < stretches.min() < 0.8  # relative to the image's own aspect ratio
    assert 1.25 < stretches.max() < 1.37


@pytest.fixture
def crop_box(monkeypatch):
    """The (left, top, width, height) of the crop that would be resized, exactly."""
    boxes = []

    def resize(self, size, resample, box, reducing_gap):
        boxes.append((box[0], box[1], box[2] - box[0], box[3] - box[1]))
        return self

    def draw(picture: Image.Image, source: Random, least_area: float):
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "resize", resize)
            random_resized_crop(picture, source, least_area, (8, 8))
        return boxes.pop()

    return draw


def test_the_share_of_the_area_is_uniform_and_the_crop_lies_anywhere(crop_box):
    source = Random(0)
    boxes = np.array([crop_box(plain(0, (200, 100)), source, 0.2) for _ in range(DRAWS)]) / [200, 100, 200, 100]
    left, top, width, height = boxes.T
    areas = width * height
    assert areas.min() == pytest.approx(0.2, abs=0.005)
    assert areas.max() == pytest.approx(1.0, abs=0.005)
    assert areas.mean() == pytest.approx(0.6, abs=0.02)
    assert (width / height).min() >= 3 / 4 - 1e-9
    assert (width / height).max() <= 4 / 3 + 1e-9
    assert np.log(width / height).mean() == pytest.approx(0, abs=0.02)
    assert (left + width).max() <= 1 + 1e-9
    assert (top + height).max() <= 1 + 1e-9
    assert left.min() >= 0
    assert top.min() >= 0
    assert left.mean() == pytest.approx((1 - width).mean() / 2, abs=0.01)
    assert top.mean() == pytest.approx((1 - height).mean() / 2, abs=0.01)


@pytest.mark.parametrize("size", [(40, 40), (50, 30), (17, 60)])
def test_a_share_of_1_is_the_whole_image_whatever_its_shape(size):
    picture, source = noise(size), Random(0)
    for _ in range(10):
        whole = random_resized_crop(picture, source, 1.0, (20, 24))
        assert whole.size == (24, 20)
        assert np.array_equal(whole, picture.resize((24, 20), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("least_area", [0.08, 0.5, 0.75, 0.999, 1.0])
def test_a_crop_never_leaves_the_image(least_area):
    for seed in range(300):
        source = Random(seed)
        for size in ((1, 1), (7, 5), (3, 11)):
            cropped = random_resized_crop(plain((200, 100, 50), size), source, least_area, (4, 6))
            assert cropped.getextrema() == ((200, 200), (100, 100), (50, 50))


def test_a_crop_has_the_size_in_the_order_of_the_model():
    crop = random_resized_crop(noise((9, 9)), Random(0), 0.5, (10, 30))
    assert crop.size == (30, 10)  # height, width -> width, height


def test_a_crop_of_a_large_photograph_takes_a_shortcut_that_nobody_sees(monkeypatch):
    picture = noise((40, 30)).resize((1600, 1200), Image.Resampling.BICUBIC)
    quick = np.asarray(random_resized_crop(picture, Random(3), 0.5, (32, 32)), dtype=int)
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, size, how, box, reducing_gap: resize(self, size, how, box))
    thorough = np.asarray(random_resized_crop(picture, Random(3), 0.5, (32, 32)), dtype=int)
    assert np.abs(quick - thorough).mean() < 2.5  # of 255
    assert not np.array_equal(quick, thorough)


# --- Mirroring -------------------------------------------------------------------------------------------------------


def test_mirroring_swaps_left_and_right():
    assert places(random_mirror(dots((5, 3), (0, 1), (3, 2)), Random(0), 1.0)) == [(1, 2), (4, 1)]
    assert places(random_mirror(dots((5, 3), (0, 1)), Random(0), 0.0)) == [(0, 1)]


def test_mirroring_has_its_probability():
    picture, source = dots((2, 1), (0, 0)), Random(0)
    mirrored = sum(places(random_mirror(picture, source, 0.3)) == [(1, 0)] for _ in range(DRAWS))
    assert mirrored / DRAWS == pytest.approx(0.3, abs=0.03)


# --- From the arguments ----------------------------------------------------------------------------------------------


def test_the_variations_come_in_order_each_with_a_phrase():
    arguments = AugmentationArguments(
        random_resized_crop=0.08, horizontal_flip=0.5, rotation=12, translation=0.075, scaling=0.1
    )
    assert list(variations(arguments, (8, 8))) == [
        "random crops of at least 8% of the area",
        "mirrored with probability 0.5",
        "rotated by up to 12 degrees, moved by up to 7.5%, scaled by up to 10%",
    ]


@pytest.mark.parametrize(
    ("options", "phrases"),
    [
        ({}, []),
        ({"rotation": 7.5}, ["rotated by up to 7.5 degrees"]),
        ({"translation": 0.07}, ["moved by up to 7%"]),
        ({"scaling": 0.2, "horizontal_flip": 1.0}, ["mirrored with probability 1", "scaled by up to 20%"]),
        ({"random_resized_crop": 1.0}, ["random crops of at least 100% of the area"]),
    ],
)
def test_only_what_is_asked_for_is_varied(options, phrases):
    assert list(variations(AugmentationArguments(**options), (8, 8))) == phrases


def test_each_variation_does_what_its_phrase_says():
    crop, flip, affine = variations(
        AugmentationArguments(random_resized_crop=0.5, horizontal_flip=1.0, rotation=90), (6, 9)
    ).values()
    assert crop(noise((20, 20)), UPPER).size == (9, 6)
    assert places(flip(dots((5, 5), (0, 1)), UPPER)) == [(4, 1)]
    assert places(affine(dots((5, 5), (2, 0)), UPPER)) == [(4, 2)]
    (affine,) = variations(AugmentationArguments(translation=0.2), (6, 9)).values()
    assert places(affine(dots((5, 5), (2, 0)), UPPER)) == [(3, 1)]
    (affine,) = variations(AugmentationArguments(scaling=0.5), (6, 9)).values()
    assert np.asarray(affine(dots((9, 9), (4, 4)), UPPER)).astype(int).sum() > 2 * 255


EVERY_VARIATION = {
    "random_resized_crop": 0.5,
    "horizontal_flip": 0.5,
    "rotation": 30,
    "translation": 0.2,
    "scaling": 0.1,
}


def varied(steps, seed: int) -> list[bytes]:
    """What each variation alone makes of a picture."""
    return [step(noise((20, 20)), Random(seed)).tobytes() for step in steps]


def test_a_variant_follows_from_the_source_of_randomness_alone():
    steps = list(variations(AugmentationArguments(**EVERY_VARIATION), (8, 8)).values())
    random.seed(0)
    state = random.getstate()
    once = varied(steps, seed=5)
    assert random.getstate() == state
    random.seed(1)
    assert varied(steps, seed=5) == once
    crop, _, affine = zip(once, varied(steps, seed=6), strict=True)
    assert crop[0] != crop[1]
    assert affine[0] != affine[1]


def test_workers_that_are_spawned_can_be_given_the_variations():
    steps = list(variations(AugmentationArguments(**EVERY_VARIATION), (8, 8)).values())
    assert varied(pickle.loads(pickle.dumps(steps)), seed=5) == varied(steps, seed=5)


# --- Preprocessing ---------------------------------------------------------------------------------------------------


def processor_of(preset: str):
    return AutoImageProcessor.from_pretrained(preset_path(preset))


def dataset_of(contents: list[bytes]) -> Dataset:
    features = Features({"image": ImageFeature(decode=False), "label": ClassLabel(names=["a", "b"])})
    rows = {"image": [row(content) for content in contents], "label": [index % 2 for index in range(len(contents))]}
    return Dataset.from_dict(rows, features=features)


FILES = {
    "wide.jpg": encoded(noise((50, 37)), "JPEG"),
    "turned.jpg": encoded(noise((30, 20)), "JPEG", exif=oriented(6)),
    "grey.png": encoded(noise((20, 33), "L")),
    "palette.png": encoded(noise((20, 33)).quantize(16)),
    "alpha.png": encoded(noise((12, 12), "RGBA")),
    "square.webp": encoded(noise((24, 24)), "WEBP"),
}


@pytest.mark.parametrize("preset", ["digits", "vit-tiny-patch4-32", "article"])
def test_evaluation_sees_what_prediction_and_transformers_pipelines_see(preset, tmp_path):
    processor = processor_of(preset)
    evaluated = dataset_of(list(FILES.values())).with_transform(preprocessing(processor))
    for index, (name, content) in enumerate(FILES.items()):
        path = tmp_path / name
        path.write_bytes(content)
        of_prediction = processor(read_image(path), return_tensors="pt")["pixel_values"][0]
        of_pipeline = processor(load_image(str(path)), return_tensors="pt")["pixel_values"][0]
        of_evaluation = evaluated[index]["pixel_values"]
        assert torch.equal(of_evaluation, of_prediction)
        assert torch.equal(of_evaluation, of_pipeline)


PROCESSORS = {
    "as saved": {},
    "another filter": {"resample": Image.Resampling.BOX},
    "not square": {"size": {"height": 20, "width": 33}},
    "cut from the middle": {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 24},
    "not resized": {"do_resize": False},
    "not normalised": {"do_normalize": False},
    "not rescaled": {"do_rescale": False},
    "another factor": {"rescale_factor": 1 / 127.5},
    "one mean for all channels": {"image_mean": 0.3, "image_std": 0.7},
    "padded": {"do_pad": True, "pad_size": {"height": 40, "width": 40}},
}


@pytest.mark.parametrize("settings", PROCESSORS.values(), ids=PROCESSORS)
def test_the_input_of_a_model_is_what_its_processor_makes_bit_for_bit(settings):
    mean_and_deviation = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    processor = ViTImageProcessorPil(**{"size": {"height": 32, "width": 32}, **mean_and_deviation, **settings})
    resized = processor.do_resize
    images = [noise(size) for size in ([(50, 37), (30, 61), (32, 32), (5, 7)] if resized else [(32, 32), (32, 32)])]
    expected = processor(images, return_tensors="pt")["pixel_values"]
    result = pixel_values(processor, images)
    assert result.dtype == expected.dtype
    assert torch.equal(result, expected)


def test_a_processor_refuses_what_it_refuses_itself():
    processor = ViTImageProcessorPil(do_normalize=True)
    processor.image_mean = None
    messages = []
    for prepare in (pixel_values, lambda processor, images: processor(images, return_tensors="pt")):
        with pytest.raises(ValueError, match="mean") as error:
            prepare(processor, [noise((50, 37)), noise((30, 20))])
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_images_of_several_sizes_are_refused_with_two_of_them():
    with pytest.raises(
        ValueError, match=r"images of several sizes \(20x30 and 37x50 pixels\), which do not go into one"
    ):
        pixel_values(ViTImageProcessorPil(do_resize=False), [noise((50, 37)), noise((30, 20))])


def test_a_processor_with_steps_of_its_own_takes_them():
    class Inverted(ViTImageProcessorPil):
        def _preprocess(self, images, **kwargs):
            return super()._preprocess([255 - image for image in images], **kwargs)

    class Halved(ViTImageProcessorPil):
        def normalize(self, image, mean, std, **kwargs):
            return image / 2

    for kind in (Inverted, Halved):
        processor, image = kind(), noise((50, 37))
        expected = processor(image, return_tensors="pt")["pixel_values"]
        assert torch.equal(pixel_values(processor, [image]), expected)
        assert not torch.equal(pixel_values(ViTImageProcessorPil(), [image]), expected)


def test_a_batch_is_ready_for_the_model():
    processor = processor_of("digits")
    loader = DataLoader(
        dataset_of(list(FILES.values())).with_transform(preprocessing(processor)),
        batch_size=4,
        collate_fn=default_data_collator,
    )
    first, second = loader
    assert first["pixel_values"].shape == (4, 3, 8, 8)
    assert first["pixel_values"].dtype == torch.float32
    assert first["labels"].tolist() == [0, 1, 0, 1]
    assert second["pixel_values"].shape == (2, 3, 8, 8)


def test_images_that_are_evaluated_are_never_varied():
    dataset = dataset_of(list(FILES.values())).with_transform(preprocessing(processor_of("digits")))
    first = torch.stack(dataset[:]["pixel_values"])
    assert torch.equal(torch.stack(dataset[:]["pixel_values"]), first)
    one_by_one = torch.stack([dataset[index]["pixel_values"] for index in reversed(range(6))])
    assert torch.equal(one_by_one.flip(0), first)
    assert dataset[:]["label"] == [0, 1, 0, 1, 0, 1]


def test_workers_that_are_spawned_can_be_given_the_dataset():
    dataset = dataset_of(list(FILES.values())).with_transform(preprocessing(processor_of("digits")))
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0]["pixel_values"], dataset[0]["pixel_values"])
