# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The check of all images: which cannot be read, which are the same, and which need not be decoded again."""

import os
import tracemalloc
import warnings

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from pictures import encoded, noise, plain, row

from modeling_vit_scratch.data import checking
from modeling_vit_scratch.data.checking import NO_IMAGES, KnownImages, check_images, duplicates, examine
from modeling_vit_scratch.data.images import read_image

PALETTE = noise(mode="RGB").quantize(16)
KINDS = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM")


def undecoded(rows: list[dict | None]) -> Dataset:
    features = Features({"image": ImageFeature(decode=False), "label": ClassLabel(names=["even", "odd"])})
    return Dataset.from_dict({"image": rows, "label": [index % 2 for index in range(len(rows))]}, features=features)


def bad_images(dataset: Dataset) -> dict[int, str]:
    return examine(dataset, "checking").bad


def test_bad_images_are_found_wherever_they_are(tmp_path):
    good = encoded(noise())
    rows = [row(good) for _ in range(600)]
    for index in (0, 255, 256, 599):
        rows[index] = row(good[:-30], f"{index}.png")
    rows[300], rows[301] = row(b""), None
    rows[302] = row(None, tmp_path / "gone.png")
    bad = bad_images(undecoded(rows))
    assert list(bad) == [0, 255, 256, 300, 301, 302, 599]
    assert bad[255].startswith("row 255: 255.png cannot be read: ")
    assert bad[300] == "row 300: the image is empty, or of no known image format."
    assert bad[301] == "row 301: the image is missing: the row holds none."
    assert bad[302] == f"{tmp_path / 'gone.png'} does not exist."


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_every_truncated_image_is_found(file_format):
    content = encoded(noise((40, 30)), file_format)
    rows = [row(content[:-cut]) for cut in range(40, len(content) - 1, 97)]
    rows.append(row(content))
    assert list(bad_images(undecoded(rows))) == list(range(len(rows) - 1))


def test_rows_are_those_of_the_dataset_given():
    rows = [row(encoded(noise())), row(b"a"), row(encoded(noise())), row(b"b")]
    assert list(bad_images(undecoded(rows).select([3, 2, 1]))) == [0, 2]


def test_decoding_shows_no_warnings_and_leaves_the_filters_alone():
    filters = list(warnings.filters)
    content = encoded(PALETTE, transparency=bytes(range(0, 160, 10)))
    assert bad_images(undecoded([row(content)] * 50)) == {}
    assert warnings.filters == filters


def test_only_a_few_images_are_in_memory_at_once(monkeypatch):
    monkeypatch.setattr(checking, "CHECKED_TOGETHER", 4)
    content = encoded(noise((150, 150)))  # noise does not compress: 68 kB
    dataset = undecoded([row(content)] * 100)
    tracemalloc.start()
    examine(dataset, "checking")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 25 * len(content)


def test_each_image_is_decoded_once(monkeypatch):
    decoded = []
    decode = checking.decoded
    monkeypatch.setattr(checking, "decoded", lambda image: decoded.append(image["path"]) or decode(image))
    rows = [row(b"bad" if index % 7 == 0 else encoded(noise()), str(index)) for index in range(40)]
    bad_images(undecoded(rows))
    assert sorted(decoded, key=int) == [str(index) for index in range(40)]


def test_bad_images_stop_a_strict_run_with_the_names_of_the_first():
    rows = [row(encoded(noise())), *(row(b"", f"{index}.png") for index in range(1, 9))]
    good = undecoded([row(encoded(noise()))])
    with pytest.raises(ValueError, match=r"8 of the 9 images of the test split cannot be read; repair or del") as error:
        check_images(DatasetDict({"train": good, "test": undecoded(rows)}), strict=True)
    assert "or leave out --strict_images." in str(error.value)
    assert "row 5: 5.png is empty" in str(error.value)
    assert "row 6" not in str(error.value)


def test_bad_images_are_left_out_by_name():
    rows = [row(encoded(plain(index))) for index in range(6)]
    rows[1] = rows[4] = row(b"")
    whole = undecoded([row(encoded(noise()))] * 2)
    checked = check_images(DatasetDict({"train": undecoded(rows), "test": whole}), strict=False)
    splits = checked.splits
    assert checked.left_out == [f"row {index}: the image is empty, or of no known image format." for index in (1, 4)]
    assert splits["train"]["label"][:] == [0, 0, 1, 1]
    assert [read_image(item["image"]).getpixel((0, 0))[0] for item in splits["train"]] == [0, 2, 3, 5]
    assert splits["test"].num_rows == 2


@pytest.mark.parametrize("strict", [True, False])
def test_good_images_are_all_kept(strict):
    splits = DatasetDict({"train": undecoded([row(encoded(noise(), kind)) for kind in KINDS])})
    checked = check_images(splits, strict=strict)
    assert checked.splits["train"] is splits["train"]
    assert checked.left_out == []


def test_a_split_of_which_nothing_can_be_read_is_refused():
    with pytest.raises(ValueError, match="none of the 2 images of the train split can be read"):
        check_images(DatasetDict({"train": undecoded([row(b""), row(b"x")])}), strict=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_what_is_no_file_is_bad_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    rows = [row(None, tmp_path / "pipe.png"), row(None, tmp_path), None]
    assert list(bad_images(undecoded(rows)).values()) == [
        f"{tmp_path}/pipe.png is no regular file.",
        f"{tmp_path} cannot be read: Is a directory.",
        "row 2: the image is missing: the row holds none.",
    ]


# --- What need not be decoded again ----------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the images that are decoded."""
    names = []
    decode = checking.decoded
    monkeypatch.setattr(checking, "decoded", lambda image: names.append(image["path"]) or decode(image))
    return names


@pytest.fixture
def folder(tmp_path):
    """Six images, of which the fifth cannot be read."""
    (tmp_path / "images").mkdir()
    for index in range(6):
        noise(seed=index).save(tmp_path / "images" / f"{index}.png")
    (tmp_path / "images" / "4.png").write_bytes(b"no image")
    return tmp_path / "images"


def in_place(folder) -> DatasetDict:
    return DatasetDict({"train": undecoded([row(None, path) for path in sorted(folder.iterdir())])})


def checked_again(folder, known: KnownImages, memory) -> checking.CheckedImages:
    """Check what lies in a folder, with what was remembered in a file."""
    known.write(memory)
    return check_images(in_place(folder), strict=False, known=KnownImages.read(memory))


def test_files_that_were_readable_are_only_asked_for_their_size_and_time(folder, tmp_path, decoded):
    first = check_images(in_place(folder), strict=False)
    assert len(decoded) == 6
    decoded.clear()
    status = os.stat(folder / "1.png")
    (folder / "1.png").write_bytes(b"x" * status.st_size)  # which nobody sees who does not read it
    os.utime(folder / "1.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    again = checked_again(folder, first.known, tmp_path / "memory")
    assert decoded == [f"{folder}/4.png"]
    assert again.left_out[0].startswith(f"{folder}/4.png ")
    assert again.contents["train"].tolist() == first.contents["train"].tolist()
    assert len(set(first.contents["train"])) == 5


def test_a_file_that_changed_is_looked_at_again(folder, tmp_path, decoded):
    first = check_images(in_place(folder), strict=False)
    size = os.path.getsize(folder / "1.png")
    (folder / "1.png").write_bytes(b"x" * size)
    noise(seed=9).save(folder / "2.png")
    decoded.clear()
    again = checked_again(folder, first.known, tmp_path / "memory")
    assert sorted(name[-5:] for name in decoded) == ["1.png", "2.png", "4.png"]
    assert len(again.left_out) == 2
    assert len(set(again.contents["train"]) - set(first.contents["train"])) == 1


def test_content_that_is_known_is_not_decoded_wherever_it_lies(folder, tmp_path, decoded):
    first = check_images(in_place(folder), strict=False)
    moved = folder.rename(tmp_path / "moved")
    decoded.clear()
    again = checked_again(moved, first.known, tmp_path / "memory")
    assert decoded == [f"{moved}/4.png"]
    assert again.contents["train"].tolist() == first.contents["train"].tolist()
    # Nor are rows that hold their images, as those of parquet files do.
    rows = undecoded([row(path.read_bytes()) for path in sorted(moved.iterdir())])
    again = check_images(DatasetDict({"train": rows}), strict=False, known=again.known)
    assert len(decoded) == 2
    assert again.contents["train"].tolist() == first.contents["train"].tolist()


@pytest.mark.parametrize("content", [None, b"", b"no array", "pickle", "floats", "truncated"])
def test_a_memory_that_is_broken_is_none(tmp_path, content):
    path = tmp_path / "memory.npy"
    if content == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    elif content == "floats":
        np.save(path, np.zeros((2, 3)))
    elif content == "truncated":
        KnownImages(*np.zeros((2, 3), np.uint64)).write(path)
        os.truncate(path, os.path.getsize(path) - 8)
    elif content is not None:
        path.write_bytes(content)
    assert KnownImages.read(path) is NO_IMAGES


# --- Several processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 7])
def test_processes_share_the_images_out(monkeypatch, decoded, images):
    rows = [row(b"bad" if index % 3 == 1 else encoded(noise(seed=index)), str(index)) for index in range(images)]
    alone = examine(undecoded(rows), "checking")
    decoded.clear()
    parts = []

    def gather(part):
        parts.extend(part)
        return parts

    monkeypatch.setattr(checking.torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(checking.torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(checking, "gather_object", gather)
    monkeypatch.setattr(checking, "_joined", lambda parts, num_rows, joined=checking._joined: parts and joined)
    for rank in range(2):
        monkeypatch.setattr(checking.torch.distributed, "get_rank", lambda rank=rank: rank)
        joined = examine(undecoded(rows), "checking")
    together = joined(parts, images)
    assert sorted(decoded, key=int) == [str(index) for index in range(images)]
    assert together.bad == alone.bad
    assert list(together.bad) == sorted(together.bad)
    for one, other in zip(together[:2], alone[:2], strict=True):
        assert one.tolist() == other.tolist()


def test_each_process_takes_the_cores_that_are_its_own(monkeypatch):
    threads = []
    pool = checking.ThreadPoolExecutor
    monkeypatch.setattr(checking, "ThreadPoolExecutor", lambda count: threads.append(count) or pool(count))
    monkeypatch.setattr(os, "cpu_count", lambda: 1000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    for processes in ("1", "2", "8"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert bad_images(undecoded([row(encoded(noise()))])) == {}
    assert threads == [6, 3, 1]


# --- Duplicates ------------------------------------------------------------------------------------------------------


def test_images_that_are_in_two_splits_are_counted_and_named(folder):
    files = sorted(folder.glob("[0-3].png"))
    train, test = (undecoded([row(None, path) for path in part]) for part in (files[:3], files[1:]))
    validation = undecoded([row(path.read_bytes()) for path in files[2:]])
    checked = check_images(DatasetDict({"train": train, "validation": validation, "test": test}), strict=True)
    assert duplicates(checked.splits, checked.contents) == {
        "1 image of validation is in train, too": "row 0",
        "2 images of test are in train, too": f"{folder}/1.png, {folder}/2.png",
        "2 images of test are in validation, too": f"{folder}/2.png, {folder}/3.png",
        "3 images are in two classes": f"{folder}/1.png and {folder}/1.png, {folder}/2.png and {folder}/2.png, "
        f"row 1 of validation and {folder}/3.png",
    }
    assert duplicates(DatasetDict({"train": train}), {"train": checked.contents["train"]}) == {}


def test_images_that_are_in_two_classes_are_counted_and_named_once():
    images = [row(encoded(plain(brightness)), f"{index}.png") for index, brightness in enumerate([1, 2, 2, 1, 1, 3, 3])]
    images[6] = images[5]  # even, and odd
    images.append(images[4])
    splits = DatasetDict({"train": undecoded(images)})
    checked = check_images(splits, strict=True)
    assert duplicates(splits, checked.contents) == {
        "3 images are in two classes": "0.png and 3.png, 1.png and 2.png, 5.png and 5.png"
    }
    unlabelled = DatasetDict({"train": splits["train"].select_columns("image")})
    assert duplicates(unlabelled, checked.contents) == {}
