# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Clips of moving digits: real files, whose class is a direction that no single frame tells."""

import os
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from draw_moving_digits import main as draw
from modeling_vit_scratch.data import moving_digits
from modeling_vit_scratch.data.moving_digits import CLIPS, DIRECTIONS, moving, scans_of_splits, write_moving_digits

FEW = {"train": 24, "validation": 3, "test": 5}
OPPOSITE = {"up": "down", "down": "up", "left": "right", "right": "left"}
SCANS = np.round(load_digits().images * 255 / 16).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A few clips."""
    folder = tmp_path_factory.mktemp("data") / "moving-digits"
    write_moving_digits(folder, FEW)
    return folder


def frames(file) -> np.ndarray:
    """(frames, height, width, 3), as Pillow reads them."""
    with Image.open(file) as clip:
        return np.stack([_frame(clip, index) for index in range(clip.n_frames)])


def _frame(clip: Image.Image, index: int) -> np.ndarray:
    clip.seek(index)
    return np.asarray(clip.convert("RGB"))


def contents(folder) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.webp")}


def scan_in(frame: np.ndarray) -> bytes:
    """The pixels of a frame whatever its place on the torus: the least of all its shifts."""
    shifts = (np.roll(frame, (down, right), (0, 1)).tobytes() for down in range(16) for right in range(16))
    return min(shifts)


# --- The files -------------------------------------------------------------------------------------------------------


def test_every_split_has_a_folder_for_every_direction_with_as_many_clips(folder):
    expected = {
        f"{split}/{direction}/{index:04}.webp"
        for split, clips in FEW.items()
        for direction in ("up", "down", "left", "right")
        for index in range(clips)
    }
    assert contents(folder).keys() == expected
    assert {path.name for path in folder.iterdir()} == set(FEW)


def test_a_clip_is_eight_grey_frames_of_16x16_pixels(folder):
    for file in folder.rglob("*.webp"):
        clip = frames(file)
        assert clip.shape == (8, 16, 16, 3)
        assert (clip == clip[..., :1]).all()


def test_the_frames_in_a_file_are_exact_and_can_be_read_in_any_order(tmp_path):
    for index, direction in enumerate(DIRECTIONS):
        clip = moving(SCANS[index], start=(13, 5), speed=3, direction=direction)
        moving_digits._save(clip, tmp_path / "clip.webp")
        assert (frames(tmp_path / "clip.webp") == clip[..., None]).all()
        with Image.open(tmp_path / "clip.webp") as file:
            for frame in (7, 2, 5, 0):
                assert (_frame(file, frame) == clip[frame, ..., None]).all()
                assert file.convert("RGBA").getextrema()[3] == (255, 255)  # nothing is transparent


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(folder, tmp_path):
    write_moving_digits(tmp_path / "same", FEW)
    write_moving_digits(tmp_path / "other", FEW, seed=1)
    first, same, other = (contents(path) for path in (folder, tmp_path / "same", tmp_path / "other"))
    assert same == first
    assert other.keys() == first.keys()
    assert sum(other[name] == first[name] for name in first) < 3


def test_more_clips_leave_those_of_fewer_as_they_are(folder, tmp_path):
    write_moving_digits(tmp_path / "more", {"train": 30, "validation": 4, "test": 5})
    assert contents(folder).items() <= contents(tmp_path / "more").items()


def test_a_folder_that_is_there_is_left_alone(folder):
    before = contents(folder)
    with pytest.raises(ValueError, match=r"moving-digits already exists: name a new folder\."):
        write_moving_digits(folder, FEW, seed=1)
    assert contents(folder) == before


def test_a_full_disk_leaves_nothing(monkeypatch, tmp_path):
    save, written = Image.Image.save, []

    def fill(image, file, *args, **options):
        if len(written) == 10:
            raise OSError(28, "No space left on device")
        written.append(file)
        save(image, file, *args, **options)

    monkeypatch.setattr(Image.Image, "save", fill)
    with pytest.raises(ValueError, match=r"clips cannot be written: .*No space left on device"):
        write_moving_digits(tmp_path / "clips", FEW)
    assert written
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("clips", [{}, {"train": 2}, {**FEW, "dev": 2}, {**FEW, "test": 0}, {**FEW, "train": -1}])
def test_every_split_needs_a_number_of_clips(clips, tmp_path):
    with pytest.raises(ValueError, match=r"clips is \{.*\}: give train, validation and test at least one each\."):
        write_moving_digits(tmp_path / "clips", clips)
    assert os.listdir(tmp_path) == []


# --- The scans -------------------------------------------------------------------------------------------------------


def test_every_scan_is_in_one_split_and_every_digit_in_each_in_proportion():
    splits = scans_of_splits(seed=0)
    assert list(splits) == list(CLIPS) == ["train", "validation", "test"]
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(1797))
    digits = load_digits().target
    whole = np.bincount(digits) / 1797
    for scans in splits.values():
        assert np.abs(np.bincount(digits[scans]) / len(scans) - whole).max() < 0.01


def test_another_seed_splits_the_scans_otherwise():
    first, second = (set(scans_of_splits(seed)["test"].tolist()) for seed in (0, 1))
    assert len(first & second) < len(first) / 2


def test_no_scan_of_the_test_clips_is_seen_in_training(folder):
    shown = {split: {scan_in(frames(file)[0, ..., 0]) for file in (folder / split).rglob("*.webp")} for split in FEW}
    assert shown["train"].isdisjoint(shown["test"] | shown["validation"])
    assert shown["test"].isdisjoint(shown["validation"])
    assert {split: len(scans) for split, scans in shown.items()} == FEW  # as long as there are enough


# --- What a clip says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("speed", [1, 2, 3])
def test_each_frame_is_the_one_before_shifted_and_what_leaves_comes_back_on_the_other_side(direction, speed):
    clip = moving(SCANS[0], start=(3, 14), speed=speed, direction=direction)
    shift, axis = {"up": (-1, 0), "down": (1, 0), "left": (-1, 1), "right": (1, 1)}[direction]
    for before, after in pairwise(clip):
        assert (after == np.roll(before, shift * speed, axis)).all()
    first = np.roll(clip[0], (-3, -14), (0, 1))
    assert (first[:8, :8] == SCANS[0]).all()
    assert not first[8:].any()
    assert not first[:, 8:].any()


def test_the_clips_in_a_folder_move_in_the_direction_that_it_is_named_after(folder):
    for file in folder.rglob("*.webp"):
        clip = frames(file)[..., 0]
        fits = [
            direction
            for direction, step in DIRECTIONS.items()
            for speed in (1, 2, 3)
            if all(
                (after == np.roll(before, np.multiply(step, speed), (0, 1))).all() for before, after in pairwise(clip)
            )
        ]
        assert fits == [file.parent.name]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_clip_played_backwards_is_a_clip_of_the_opposite_direction(direction):
    for speed in (1, 2, 3):
        clip = moving(SCANS[7], start=(4, 9), speed=speed, direction=direction)
        row, column = np.add((4, 9), np.multiply(DIRECTIONS[direction], 7 * speed)) % 16
        other = moving(SCANS[7], start=(row, column), speed=speed, direction=OPPOSITE[direction])
        assert (clip[::-1] == other).all()


def test_the_first_frames_are_the_same_in_all_classes(folder):
    """So the accuracy of any model that sees the first frame alone is that of chance, to the last clip."""
    for split, clips in FEW.items():
        for index in range(clips):
            first, *others = (frames(folder / split / direction / f"{index:04}.webp")[0] for direction in DIRECTIONS)
            assert all((other == first).all() for other in others)


def test_every_frame_shows_every_class_alike():
    """A digit begins at every place equally often, so it is at every place equally often in each later frame."""
    starts = [(row, column) for row in range(16) for column in range(16)]
    for time in range(8):
        shown = [
            sorted(moving(SCANS[3], start, 3, direction)[time].tobytes() for start in starts)
            for direction in DIRECTIONS
        ]
        assert shown[0] == shown[1] == shown[2] == shown[3]


def test_the_mean_images_of_the_classes_are_alike():
    """In every frame; as alike as the means of as many random clips are."""
    scans = scans_of_splits(seed=0)["train"]
    drawn = list(moving_digits._draws(scans, 1000, np.random.default_rng(0)))
    clips = np.stack([[moving(SCANS[scan], *rest, direction) for scan, *rest in drawn] for direction in DIRECTIONS])
    means = clips.mean(axis=1)
    standard_error = clips.std() / np.sqrt(1000)
    assert means.shape == (4, 8, 16, 16)
    assert np.abs(means - means.mean()).max() < 5 * standard_error


def test_starts_and_speeds_take_all_their_values():
    drawn = moving_digits._draws(np.arange(5), 2000, np.random.default_rng(0))
    scans, starts, speeds = zip(*drawn, strict=True)
    assert np.bincount(scans).tolist() == [400] * 5
    assert len(set(starts)) == 256
    assert np.bincount(speeds).min(where=np.arange(4) > 0, initial=2000) > 600
    assert set(speeds) == {1, 2, 3}


# --- The picture -----------------------------------------------------------------------------------------------------


def test_the_picture_is_small(tmp_path):
    draw(["--output", str(tmp_path / "picture.png")])
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > picture.height > 200
    assert (tmp_path / "picture.png").stat().st_size < 100_000
