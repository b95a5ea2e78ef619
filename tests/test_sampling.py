# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Which variants of which images are trained on: the order, the shares of processes, and what workers load."""

import os
import pickle
import random
from itertools import product
from multiprocessing.context import BaseContext

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from pictures import encoded, noise, plain, row
from runs import FORKS
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from modeling_vit_scratch.data.augmentation import variations
from modeling_vit_scratch.data.image_arguments import AugmentationArguments
from modeling_vit_scratch.data.images import BadImageError
from modeling_vit_scratch.data.model_input import preprocessing
from modeling_vit_scratch.data.sampling import DrawSampler, ProcessBatches, TrainingImages, collate, leave_signals
from modeling_vit_scratch.presets import preset_path

# --- The order -------------------------------------------------------------------------------------------------------


def draws(num_images: int, *, seed: int = 0, epoch: int = 0, repeats: int = 1) -> list[int]:
    sampler = DrawSampler(num_images, seed, repeats)
    sampler.set_epoch(epoch)
    return list(sampler)


def images_and_variants(numbers: list[int], num_images: int) -> list[tuple[int, int]]:
    return [(number % num_images, number // num_images) for number in numbers]


@pytest.mark.parametrize("num_images", [1, 2, 7, 100])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_is_every_image_once_in_the_variant_of_the_epoch(num_images, epoch):
    pairs = images_and_variants(draws(num_images, epoch=epoch), num_images)
    assert sorted(pairs) == [(image, epoch) for image in range(num_images)]
    assert len(DrawSampler(num_images, seed=0)) == num_images


def test_the_order_is_another_one_in_each_epoch_and_for_each_seed():
    orders = {
        tuple(image for image, _ in images_and_variants(draws(50, seed=seed, epoch=epoch), 50))
        for seed, epoch in product(range(4), range(4))
    }
    assert len(orders) == 16  # seed 1 in epoch 0 is not seed 0 in epoch 1 either
    assert tuple(range(50)) not in orders


def test_the_order_follows_from_seed_and_epoch_alone():
    expected = draws(50, seed=3, epoch=2)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    sampler = DrawSampler(50, seed=3)
    for epoch in (0, 1, 2):
        sampler.set_epoch(epoch)
        _, second = next(iter(sampler)), list(sampler)  # one that was begun and left has no effect
    assert second == list(sampler) == expected


def test_every_image_comes_first_equally_often():
    first = [draws(4, seed=seed)[0] for seed in range(800)]
    assert [first.count(image) for image in range(4)] == pytest.approx([200] * 4, abs=50)


def test_variants_of_an_image_follow_one_another_where_they_are_repeated():
    # An epoch of 7 draws: 3 variants each of two images, and the first of a third.
    pairs = images_and_variants(draws(7, epoch=2, repeats=3), 7)
    images = [image for image, _ in pairs]
    assert images == [*[images[0]] * 3, *[images[3]] * 3, images[6]]
    assert len(set(images)) == 3
    assert [variant for _, variant in pairs] == [6, 7, 8, 6, 7, 8, 6]  # those of epochs 0 and 1 are 0 to 5
    assert len(DrawSampler(7, seed=0, repeats=3)) == 7


@pytest.mark.parametrize("repeats", [1, 2, 3, 10])
def test_no_draw_comes_twice_in_a_run(repeats):
    run = [number for epoch in range(60) for number in draws(7, epoch=epoch, repeats=repeats)]
    assert len(set(run)) == len(run) == 420
    assert {number % 7 for number in run} == set(range(7))


# --- The shares of processes -----------------------------------------------------------------------------------------


def shares(num_images: int, batch_size: int, num_processes: int, epoch: int = 1) -> list[list[list[int]]]:
    """The batches of each process."""
    result = []
    for index in range(num_processes):
        batches = ProcessBatches(DrawSampler(num_images, seed=5), batch_size, num_processes, index)
        batches.set_epoch(epoch)
        result.append(list(batches))
        assert len(batches) == len(result[-1])
    return result


@pytest.mark.parametrize("num_images", [1, 2, 3, 5, 12, 13, 14, 15, 24, 25])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_processes_together_get_the_batches_of_one(num_processes, batch_size, num_images):
    of_one = shares(num_images, batch_size * num_processes, 1)[0]
    of_each = shares(num_images, batch_size, num_processes)
    assert [draw for batch in of_one for draw in batch] == draws(num_images, seed=5, epoch=1)
    for whole, *parts in zip(of_one, *of_each, strict=True):  # all take the same number of steps
        sizes = [len(part) for part in parts]
        assert max(sizes) <= batch_size
        assert min(sizes) >= max(1, max(sizes) - 1)
        together = sorted(draw for part in parts for draw in part)
        if len(whole) >= num_processes:
            assert together == sorted(whole)
        else:  # a process without an image would have nothing to do in the step
            assert set(together) == set(whole)
            assert sizes == [1] * num_processes


def test_shares_of_five_images_for_two_processes_in_batches_of_two():
    (first, second), order = shares(5, batch_size=2, num_processes=2), draws(5, seed=5, epoch=1)
    assert first == [[order[0], order[2]], [order[4]]]
    assert second == [[order[1], order[3]], [order[4]]]  # the last image for both


def test_each_epoch_has_batches_of_its_own():
    assert shares(12, 2, 2, epoch=0) != shares(12, 2, 2, epoch=1)


# --- Images ----------------------------------------------------------------------------------------------------------

VARY = AugmentationArguments(random_resized_crop=0.5, horizontal_flip=0.5, rotation=30, translation=0.2)
BLUE = (0, 0, 255)


def dataset_of(images: list[dict]) -> Dataset:
    """Undecoded images that are in turn of the labels 0, 1 and 2."""
    features = Features({"image": ImageFeature(decode=False), "label": ClassLabel(names=["a", "b", "c"])})
    labels = [index % 3 for index in range(len(images))]
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


def pictures(count: int) -> list[dict]:
    return [row(encoded(noise((9 + index, 8), seed=index)), f"{index}.png") for index in range(count)]


def training_images(images: list[dict], vary=VARY, **options) -> TrainingImages:
    processor = AutoImageProcessor.from_pretrained(preset_path("digits"))
    return TrainingImages(dataset_of(images), processor, list(variations(vary, (8, 8)).values()), **options)


def pixels(examples: list[dict]) -> torch.Tensor:
    return torch.stack([example["pixel_values"] for example in examples])


def test_an_example_is_an_image_of_the_models_size_with_its_label():
    examples = training_images(pictures(4))
    assert len(examples) == 4
    assert examples[2]["pixel_values"].shape == (3, 8, 8)
    assert examples[2]["pixel_values"].dtype == torch.float32
    assert [examples[draw]["label"] for draw in range(8)] == [0, 1, 2, 0] * 2
    assert [example["unreadable"] for example in examples.__getitems__([0, 5])] == [[], []]


def test_a_draw_is_the_same_alone_in_any_batch_and_in_any_order():
    examples = training_images(pictures(5), seed=7)
    together = pixels(examples.__getitems__(list(range(15))))
    assert torch.equal(pixels([examples[draw] for draw in reversed(range(15))]).flip(0), together)
    order = [11, 3, 8, 3, 0]
    assert torch.equal(pixels(examples.__getitems__(order)), together[order])
    assert torch.equal(pixels([training_images(pictures(5), seed=7)[9]]), together[9:10])


def test_no_two_draws_are_varied_alike():
    # 16 times the same picture, in 3 variants each.
    same = [row(encoded(noise((8, 8))))] * 16
    variants = {
        example["pixel_values"].numpy().tobytes()
        for seed in (0, 1)
        for example in training_images(same, seed=seed).__getitems__(list(range(48)))
    }
    assert len(variants) == 2 * 48


def drawn_number(picture, source: random.Random):
    """A variation that paints the first number of its source of randomness."""
    return plain(tuple(int(source.random() * 2**24).to_bytes(3)), (2, 2))


def test_seed_and_draw_together_decide_on_the_randomness():
    processor = ViTImageProcessorPil(size={"height": 2, "width": 2}, do_normalize=False, do_rescale=False)
    numbers = [
        tuple(example["pixel_values"][:, 0, 0].tolist())
        for seed in range(4)
        for example in TrainingImages(dataset_of(pictures(2)), processor, [drawn_number], seed).__getitems__([0, 1, 2])
    ]
    assert len(set(numbers)) == 12


def test_without_variations_training_sees_what_evaluation_sees():
    examples = training_images(pictures(6), AugmentationArguments())
    evaluated = examples.dataset.with_transform(preprocessing(examples.processor))[:]
    for first_draw in (0, 6, 60):
        trained = examples.__getitems__(list(range(first_draw, first_draw + 6)))
        assert torch.equal(pixels(trained), torch.stack(evaluated["pixel_values"]))
        assert [example["label"] for example in trained] == evaluated["label"]


def test_variations_apply_one_after_the_other_before_the_processor():
    processor = ViTImageProcessorPil(size={"height": 4, "width": 4}, do_normalize=False, do_rescale=False)
    numbers = []

    def to_green(picture, source):
        assert picture.getpixel((0, 0)) == (255, 0, 0)
        numbers.append(source.random())
        return plain((0, 255, 0), (5, 5))

    def to_blue(picture, source):
        assert picture.size == (5, 5)
        numbers.append(source.random())
        return plain(BLUE, (6, 6))

    red = row(encoded(plain((255, 0, 0), (9, 9))))
    example = TrainingImages(dataset_of([red]), processor, [to_green, to_blue])[0]
    assert torch.equal(example["pixel_values"].long(), torch.tensor(BLUE)[:, None, None].expand(3, 4, 4))
    assert numbers[0] != numbers[1]  # the second goes on where the first left off


def test_randomness_elsewhere_is_neither_used_nor_touched():
    examples = training_images(pictures(4))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    expected = pixels(examples.__getitems__([5, 6]))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    assert torch.equal(pixels(examples.__getitems__([5, 6])), expected)


def test_a_copy_in_another_process_would_give_the_same():
    examples = training_images(pictures(4), seed=3, strict=True)
    copy = pickle.loads(pickle.dumps(examples))
    assert torch.equal(pixels(copy.__getitems__([7, 1])), pixels(examples.__getitems__([7, 1])))
    assert copy.strict


# --- Images that cannot be read --------------------------------------------------------------------------------------


def plain_images(*colours: int | None) -> TrainingImages:
    """Images whose red pixel value tells them apart; None is a file that is no image."""
    images = [
        row(b"" if colour is None else encoded(plain((colour, 0, 0), (4, 4))), f"{index}.png")
        for index, colour in enumerate(colours)
    ]
    processor = ViTImageProcessorPil(size={"height": 4, "width": 4}, do_normalize=False, do_rescale=False)
    return TrainingImages(dataset_of(images), processor)


def seen(example: dict) -> tuple[int, int, list[str]]:
    return int(example["pixel_values"][0, 0, 0]), example["label"], example["unreadable"]


EMPTY = "{} is empty, or of no known image format."


@pytest.mark.parametrize(
    ("colours", "draw", "expected"),
    [
        ((10, None, 30, 40), 1, (30, 2, ["1.png"])),
        ((10, None, 30, 40), 4 * 3 + 1, (30, 2, ["1.png"])),  # in another epoch
        ((10, None, None, 40), 1, (40, 0, ["1.png", "2.png"])),
        ((10, 20, 30, None), 3, (10, 0, ["3.png"])),  # after the last comes the first
        ((None, 20, None, None), 2, (20, 1, ["2.png", "3.png", "0.png"])),
    ],
)
def test_an_unreadable_image_gives_way_to_the_next_and_is_named(colours, draw, expected):
    colour, label, names = expected
    assert seen(plain_images(*colours)[draw]) == (colour, label, [EMPTY.format(name) for name in names])


def test_the_other_images_of_a_batch_are_as_they_were():
    examples = plain_images(10, None, 30, 40).__getitems__([3, 1, 0])
    assert [seen(example) for example in examples] == [(40, 0, []), (30, 2, [EMPTY.format("1.png")]), (10, 0, [])]


def test_the_image_that_stands_in_is_varied_as_the_draw_says():
    images = pictures(4)
    together = [*images[:1], row(b""), *images[2:]]
    examples = training_images(together).__getitems__([1, 2, 5, 6])
    assert len({example["pixel_values"].numpy().tobytes() for example in examples}) == 4


def test_a_file_that_is_lost_while_it_trains_does_not_end_the_run(tmp_path):
    for index in range(3):
        plain((10 * index, 0, 0), (4, 4)).save(tmp_path / f"{index}.png")
    examples = plain_images(0, 0, 0)
    examples.dataset = dataset_of([row(None, tmp_path / f"{index}.png") for index in range(3)])
    assert seen(examples[1]) == (10, 1, [])
    (tmp_path / "1.png").rename(tmp_path / "elsewhere.png")
    assert seen(examples[4]) == (20, 2, [f"{tmp_path}/1.png does not exist."])
    (tmp_path / "elsewhere.png").rename(tmp_path / "1.png")
    assert seen(examples[7]) == (10, 1, [])


def test_a_strict_run_stops_at_an_unreadable_image():
    examples = plain_images(10, None, 30)
    examples.strict = True
    assert seen(examples[0]) == (10, 0, [])
    with pytest.raises(BadImageError, match=r"^1\.png is empty"):
        examples[1]


def test_if_no_image_can_be_read_there_is_nothing_to_go_on_with():
    message = r"^none of the 3 training images can be read any more\. 1\.png is empty, or of no known image format\.$"
    with pytest.raises(ValueError, match=message):
        plain_images(None, None, None)[4]


# --- Batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_stacked_and_says_what_could_not_be_read():
    examples = [
        {"pixel_values": torch.full((3, 4, 5), float(index)), "label": label, "unreadable": unreadable}
        for index, (label, unreadable) in enumerate([(2, []), (0, ["a is bad.", "b is bad."]), (1, ["c is bad."])])
    ]
    batch = collate(examples)
    assert set(batch) == {"pixel_values", "labels", "unreadable"}
    assert batch["pixel_values"].shape == (3, 3, 4, 5)
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [0.0, 1.0, 2.0]
    assert (batch["labels"].tolist(), batch["labels"].dtype) == ([2, 0, 1], torch.int64)
    assert batch["unreadable"] == ["a is bad.", "b is bad.", "c is bad."]


def loaded(num_workers: int, start: str | BaseContext | None = None) -> list[list[dict]]:
    """The batches of two epochs as a run loads them; the third of seven images cannot be read."""
    images = pictures(7)
    images[2] = row(b"", "2.png")
    batches = ProcessBatches(DrawSampler(7, seed=3), batch_size=2)
    loader = DataLoader(
        training_images(images, seed=3),
        batch_sampler=batches,
        collate_fn=collate,
        worker_init_fn=leave_signals,
        num_workers=num_workers,
        multiprocessing_context=start,
        persistent_workers=num_workers > 0,
    )
    epochs = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        epochs.append(list(loader))
    return epochs


# What a forkserver starts gets its images as what is spawned does, pickled, and has imported the libraries already.
@pytest.mark.parametrize(
    ("num_workers", "start"), [(1, "fork"), (2, "fork"), (1, FORKS)], ids=["1 fork", "2 forks", "forkserver"]
)
def test_workers_load_what_the_process_itself_would(num_workers, start):
    expected, found = loaded(num_workers=0), loaded(num_workers, start)
    assert [len(batch["labels"]) for batch in expected[0]] == [2, 2, 2, 1]
    for expected_epoch, epoch in zip(expected, found, strict=True):
        for expected_batch, batch in zip(expected_epoch, epoch, strict=True):
            assert torch.equal(batch["pixel_values"], expected_batch["pixel_values"])
            assert torch.equal(batch["labels"], expected_batch["labels"])
            assert batch["unreadable"] == expected_batch["unreadable"]
        assert [sentence for batch in epoch for sentence in batch["unreadable"]] == [EMPTY.format("2.png")]


class Groups(torch.utils.data.Dataset):
    """Which process loads, and the group whose signals it gets."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return os.getpid(), os.getpgrp()


def test_workers_are_out_of_reach_of_the_signals_to_the_group_that_trains():
    loader = DataLoader(Groups(), num_workers=1, collate_fn=list, worker_init_fn=leave_signals)
    ((process, group),) = next(iter(loader))
    assert process != os.getpid()
    assert group == process != os.getpgrp()
