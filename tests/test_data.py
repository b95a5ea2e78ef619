# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Labelled images from every source, and one sentence for each that will not do."""

import os
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from datasets import load_dataset as load_dataset_for_real
from datasets.exceptions import DatasetNotFoundError
from pictures import class_folders, encoded, noise, plain, row
from sklearn.datasets import load_digits

from modeling_vit_scratch.data import dataset_loading as data
from modeling_vit_scratch.data.dataset_loading import load_images
from modeling_vit_scratch.data.images import read_image
from modeling_vit_scratch.data.splits import classes_without_images, with_splits

FILES = [encoded(plain(index, mode="L")) for index in range(12)]


def sentence(source: Path | str, **options) -> str:
    """What is said of a source that will not do."""
    with pytest.raises(ValueError, match=r"\S") as error:
        load_images(str(source), **options)
    return str(error.value)


def files(dataset: Dataset) -> list[str]:
    return [Path(image["path"]).name for image in dataset["image"][:]]


def rows_of(dataset: Dataset) -> list[tuple]:
    """The rows as something that sets can hold."""
    return [(item["image"]["bytes"], item["image"]["path"], item["label"]) for item in dataset]


def sizes(splits: DatasetDict) -> dict[str, int]:
    return {name: dataset.num_rows for name, dataset in splits.items()}


# --- The digits ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> DatasetDict:
    return load_images("digits")


def test_the_digits_are_split_in_1437_and_360(digits):
    assert sizes(digits) == {"train": 1437, "test": 360}
    for dataset in digits.values():
        assert dataset.features == Features(
            {"image": ImageFeature(decode=False), "label": ClassLabel(names=list("0123456789"))}
        )


def test_the_digits_are_all_of_scikit_learns_each_once_with_its_own_label(digits):
    original = load_digits()
    seen = []
    for dataset in digits.values():
        for item in dataset:
            index = int(item["image"]["path"].removeprefix("digit-").removesuffix(".png"))
            pixels = np.asarray(read_image(item["image"]))
            expected = np.round(original.images[index] * 255 / 16)  # 0 to 16 become 0 to 255
            assert (pixels == expected[..., None]).all()
            assert item["label"] == original.target[index]
            seen.append(index)
    assert sorted(seen) == list(range(1797))


def test_the_test_digits_have_every_class_in_proportion(digits):
    counts = np.bincount(digits["test"]["label"][:])
    assert counts.min() >= 34
    assert counts.max() <= 38


def test_the_digits_are_the_same_every_time(digits):
    again = load_images("digits")
    for name in digits:
        assert again[name][:] == digits[name][:]


# --- Folders ---------------------------------------------------------------------------------------------------------


def test_class_folders_give_sorted_classes_and_images_in_place(tmp_path):
    class_folders(tmp_path, dog=2, cat=1)
    splits = load_images(str(tmp_path))
    assert list(splits) == ["train"]
    train = splits["train"]
    assert train.features["label"].names == ["cat", "dog"]
    assert train["label"][:] == [0, 1, 1]
    paths = [str(tmp_path / name) for name in ("cat/000.png", "dog/000.png", "dog/001.png")]
    assert train["image"][:] == [row(None, path) for path in paths]


def test_reading_a_folder_writes_nothing_into_it(tmp_path):
    class_folders(tmp_path, dog=1, cat=1)
    before = sorted(tmp_path.rglob("*"))
    load_images(str(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_names_may_have_spaces_and_letters_of_any_alphabet(tmp_path):
    for name in ("größe 1/a b.JPG", "größe 1/ü.png", "日本/[1] 50%.WebP", "日本/..png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(FILES[0])
    train = load_images(str(tmp_path))["train"]
    assert train.features["label"].names == ["größe 1", "日本"]
    assert files(train) == ["a b.JPG", "ü.png", "[1] 50%.WebP"]


def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path):
    class_folders(tmp_path, cat=1, dog=1)
    for name in (".ipynb_checkpoints/1.png", "__MACOSX/1.png", "cat/.1.png", "cat/Thumbs.db", "dog/.DS_Store", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"a note of what is here" if name == "a.txt" else FILES[0])
    train = load_images(str(tmp_path))["train"]
    assert train.features["label"].names == ["cat", "dog"]
    assert files(train) == ["000.png", "000.png"]


def test_class_folders_and_images_may_be_links(tmp_path):
    class_folders(tmp_path / "store", animals=2, cars=2)
    root = class_folders(tmp_path / "set", dog=0)
    (root / "cat").symlink_to(tmp_path / "store" / "animals")
    (root / "dog" / "rex.png").symlink_to(tmp_path / "store" / "cars" / "000.png")
    train = load_images(str(root))["train"]
    assert train.features["label"].names == ["cat", "dog"]
    assert files(train) == ["000.png", "001.png", "rex.png"]


def test_a_folder_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    class_folders(tmp_path / "pets", cat=1, dog=1)
    assert sizes(load_images("~/pets")) == {"train": 2}


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train",), ["train"]),
        (("train", "test"), ["train", "test"]),
        (("Train", "VAL", "Test"), ["train", "validation", "test"]),
        (("training", "validation", "testing"), ["train", "validation", "test"]),
        (("train", "valid", "eval"), ["train", "validation", "test"]),
        (("train", "dev"), ["train", "validation"]),
    ],
)
def test_split_folders_under_their_usual_names(names, splits, tmp_path):
    for count, name in enumerate(names, start=1):
        class_folders(tmp_path / name, cat=count, dog=count)
    loaded = load_images(str(tmp_path))
    assert list(loaded) == splits
    assert list(sizes(loaded).values()) == [2 * count for count in range(1, len(names) + 1)]


def test_a_split_may_lack_images_of_a_class(tmp_path):
    class_folders(tmp_path / "train", cat=1, dog=1, eel=1)
    class_folders(tmp_path / "val", eel=2, cat=0)
    validation = load_images(str(tmp_path))["validation"]
    assert validation.features["label"].names == ["cat", "dog", "eel"]
    assert validation["label"][:] == [2, 2]


def test_many_class_folders_are_not_compared_each_with_each(tmp_path, monkeypatch):
    class Name(str):
        compared = 0

        def __eq__(self, other):
            Name.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    classes = {Name(f"class {number:03}"): [tmp_path / f"{number}.png"] for number in range(200)}
    monkeypatch.setattr(data, "_classes", lambda *given: classes)
    assert load_images(str(tmp_path))["train"]["label"][:] == list(range(200))
    assert Name.compared < 1000  # each with each: 20,000


def test_a_test_folder_of_images_without_classes_is_left_out(tmp_path):
    class_folders(tmp_path / "train", cat=1, dog=1)
    (tmp_path / "test").mkdir()
    noise().save(tmp_path / "test" / "1.png")
    assert list(load_images(str(tmp_path))) == ["train"]


def test_a_train_is_a_vehicle_beside_other_vehicles(tmp_path):
    class_folders(tmp_path, bus=1, train=2)
    train = load_images(str(tmp_path))["train"]
    assert train.features["label"].names == ["bus", "train"]
    assert train["label"][:] == [0, 1, 1]


def folder(root: Path, *names: str) -> Path:
    """A folder with these files and, where a name ends in "/", empty folders."""
    root.mkdir()
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).mkdir() if name.endswith("/") else noise().save(root / name)
    return root


def test_the_digits_have_no_columns_to_name():
    with pytest.raises(ValueError, match=r"without configurations and columns to name: leave 'kind' out"):
        load_images("digits", label_column_name="kind")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "{} holds no images: put the images of each class into a folder named after the class."),
        (["1.png"], "{} holds images but no class folders: put the images of each class into a folder named after"),
        (["train/1.png", "test/1.png"], "{}/train holds images but no class folders: put the images of each class"),
        (["cat/1.png"], "{} has only the class cat; a classifier needs two classes or more."),
        (
            ["cat/1.png", "dog/", "eel/"],
            "{} has class folders without images that are read: dog, eel; fill them or delete them.",
        ),
        (["cat/", "dog/"], "{} holds no images."),
        (["cat/1.png", "dog/1.png", "2.png"], "{} holds images beside its class folders: move them into the folder"),
        (
            ["pets/cat/1.png", "pets/dog/1.png"],
            "{0}/pets holds folders of images instead of images, one level too deep for a class folder: "
            "give {0}/pets itself, or flatten it (cat, dog).",
        ),
        (
            ["train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/newt/1.png"],
            "the validation split of {} has class folders that train lacks: newt.",
        ),
        (
            ["train/cat/1.png", "train/dog/1.png", "test/"],
            "{}/test holds no images: put the images of each class into a folder",
        ),
        (["train/cat/1.png", "train/dog/1.png", "test/cat/"], "{}/test holds no images."),
    ],
    ids=[
        *("empty", "no class folders", "no class folders in train", "one class", "an empty class folder"),
        *("only empty class folders", "images beside class folders", "one level too deep", "an unknown class"),
        *("an empty test folder", "a test folder of an empty class"),
    ],
)
def test_a_folder_of_another_layout_is_refused(names, said, tmp_path):
    root = folder(tmp_path / "pets", *names)
    before = sorted(tmp_path.rglob("*"))
    assert sentence(root).startswith(said.format(root))
    assert sorted(tmp_path.rglob("*")) == before


def test_file_names_that_are_not_unicode_are_named(tmp_path):
    class_folders(tmp_path, cat=1, dog=1)
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/cat/caf\xe9.png"))).touch()
    except OSError:
        pytest.skip("this file system has no such names")
    assert "has files whose names are not Unicode" in sentence(tmp_path)
    assert "caf" in sentence(tmp_path)


def test_a_copy_of_a_hub_dataset_says_where_its_parquet_files_are(tmp_path):
    write_parquet(tmp_path / "pets" / "data" / "train-0.parquet")
    root = tmp_path / "pets"
    assert sentence(root) == f"{root} holds no images, but parquet files: give {root / 'data'}."


# --- Parquet ---------------------------------------------------------------------------------------------------------


def write_parquet(path: Path, labels=(3, 10), images=None, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = FILES[: len(labels)] if images is None else images
    pq.write_table(pa.table({"image": images, "label": list(labels), **columns}), path)
    return path


def test_a_parquet_file(tmp_path):
    path = write_parquet(tmp_path / "pets.parquet", labels=[10, 3, 7], images=FILES[3:6])
    splits = load_images(str(path))
    assert list(splits) == ["train"]
    assert splits["train"].features["label"].names == ["3", "7", "10"]
    assert rows_of(splits["train"]) == [(FILES[3], None, 2), (FILES[4], None, 0), (FILES[5], None, 1)]


def test_a_parquet_file_of_datasets_keeps_its_class_names(tmp_path):
    features = Features({"img": ImageFeature(), "label": ClassLabel(names=["dog", "cat"])})
    path = tmp_path / "pets.parquet"
    rows = {"img": [row(content, "a.png") for content in FILES[:3]], "label": [0, 1, 0]}
    Dataset.from_dict(rows, features=features).to_parquet(str(path))
    train = load_images(str(path))["train"]
    assert train.features["label"].names == ["dog", "cat"]
    assert rows_of(train) == [(FILES[0], "a.png", 0), (FILES[1], "a.png", 1), (FILES[2], "a.png", 0)]


def test_a_parquet_file_of_a_data_frame_with_structs(tmp_path):
    path = write_parquet(tmp_path / "pets.parquet", images=[row(FILES[0]), row(FILES[1], "b.png")])
    assert rows_of(load_images(str(path))["train"]) == [(FILES[0], None, 0), (FILES[1], "b.png", 1)]


def test_a_parquet_file_of_categories(tmp_path):
    labels = pa.array(["dog", "cat", "dog"]).dictionary_encode()
    path = write_parquet(tmp_path / "pets.parquet", labels=labels.to_pylist())
    pq.write_table(pa.table({"image": FILES[:3], "label": labels}), path)
    train = load_images(str(path))["train"]
    assert train.features["label"].names == ["cat", "dog"]
    assert train["label"][:] == [1, 0, 1]


def test_a_folder_of_parquet_files_whose_names_tell_their_splits(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", labels=[3, 10])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", labels=[7], images=[FILES[5]])
    write_parquet(tmp_path / "pets_val.parquet", labels=[10], images=[FILES[6]])
    write_parquet(tmp_path / "Test.parquet", labels=[10, 7, 7], images=FILES[7:10])
    (tmp_path / "README.md").write_text("# Pets")
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    splits = load_images(str(tmp_path))
    assert list(splits) == ["train", "validation", "test"]
    assert rows_of(splits["train"]) == [(FILES[0], None, 0), (FILES[1], None, 2), (FILES[5], None, 1)]
    assert rows_of(splits["validation"]) == [(FILES[6], None, 2)]
    assert splits["test"]["label"][:] == [2, 1, 1]


def test_a_folder_of_parquet_files_with_other_names_is_one_split(tmp_path):
    write_parquet(tmp_path / "trainer-a.parquet", labels=[1, 2])  # a trainer is no train
    write_parquet(tmp_path / "trainer-b.parquet", labels=[2, 3])
    assert sizes(load_images(str(tmp_path))) == {"train": 4}


def test_a_pattern_picks_parquet_files(tmp_path):
    for name, labels in (("a-1", [1, 2]), ("a-2", [1]), ("b-1", [7])):
        write_parquet(tmp_path / f"{name}.parquet", labels=labels)
    train = load_images(str(tmp_path / "a-*.parquet"))["train"]
    assert train["label"][:] == [0, 1, 0]
    assert train.features["label"].names == ["1", "2"]


def test_a_pattern_keeps_splits_apart(tmp_path):
    write_parquet(tmp_path / "train.parquet", labels=[1, 2, 1])
    write_parquet(tmp_path / "test.parquet", labels=[1, 2])
    assert sizes(load_images(str(tmp_path / "*.parquet"))) == {"train": 3, "test": 2}


def test_names_that_look_like_patterns(tmp_path):
    path = write_parquet(tmp_path / "set [1]" / "pets [ab]*.parquet")
    assert sizes(load_images(str(path))) == {"train": 2}
    assert sizes(load_images(str(path.parent))) == {"train": 2}


def test_a_file_that_has_changed_is_read_again(tmp_path):
    path = write_parquet(tmp_path / "pets.parquet", labels=[1, 2])
    load_images(str(path))
    write_parquet(path, labels=[5, 6, 7])
    os.utime(path, (0, 0))
    assert load_images(str(path))["train"].features["label"].names == ["5", "6", "7"]


def test_reading_parquet_writes_nothing_beside_it(tmp_path):
    write_parquet(tmp_path / "train.parquet")
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    sentence(tmp_path)
    load_images(str(tmp_path / "train.parquet"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["test.parquet", "train.parquet"]


def test_a_test_file_without_labels_is_left_out(tmp_path):
    write_parquet(tmp_path / "train.parquet")
    pq.write_table(pa.table({"image": FILES[:3]}), tmp_path / "test.parquet")
    assert sizes(load_images(str(tmp_path))) == {"train": 2}


def test_columns_by_name(tmp_path):
    path = write_parquet(tmp_path / "pets.parquet", mask=FILES[4:6], colour=["red", "blue"])
    train = load_images(str(path), image_column_name="mask", label_column_name="colour")["train"]
    assert rows_of(train) == [(FILES[4], None, 1), (FILES[5], None, 0)]
    said = sentence(path, image_column_name="photo")
    assert said == (
        f"{path} has no column 'photo'; its columns are image (binary), label (int64), mask (binary), colour (string)."
    )


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet", None], ids=["empty", "begun", "text", "truncated"])
def test_a_broken_parquet_file_is_named(content, tmp_path):
    good = write_parquet(tmp_path / "train-0.parquet")
    broken = tmp_path / "train-1.parquet"
    broken.write_bytes(good.read_bytes()[:-20] if content is None else content)
    expected = f"{broken} is no parquet file, or a broken one: give parquet files or a folder of class folders."
    assert sentence(broken) == sentence(tmp_path) == sentence(tmp_path / "*.parquet") == expected


def test_a_parquet_file_that_is_damaged_inside(tmp_path):
    path = write_parquet(tmp_path / "pets.parquet")
    content = bytearray(path.read_bytes())
    content[8:60] = b"x" * 52
    path.write_bytes(content)
    assert sentence(path).startswith(f"{path} could not be read as parquet: ")


def test_parquet_files_of_different_types(tmp_path):
    write_parquet(tmp_path / "a.parquet", labels=[1, 2])
    write_parquet(tmp_path / "b.parquet", labels=["one", "two"])
    assert sentence(tmp_path).startswith(f"{tmp_path} could not be read as parquet: ")


def test_a_parquet_file_without_rows(tmp_path):
    path = tmp_path / "none.parquet"
    pq.write_table(pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), path)
    assert sentence(path) == f"{path} holds no rows."


def test_a_parquet_file_of_one_class(tmp_path):
    path = write_parquet(tmp_path / "pets.parquet", labels=["cat", "cat"])
    assert sentence(path) == f"{path} has only the class cat; a classifier needs two classes or more."


def test_a_file_beside_splits_whose_name_tells_none(tmp_path):
    for name in ("train", "test", "holdout"):
        write_parquet(tmp_path / f"{name}.parquet")
    said = sentence(tmp_path)
    assert said.startswith(f"some files of {tmp_path} have the name of a split in their names, but ")
    assert f"{tmp_path}/holdout.parquet not" in said


def test_parquet_files_of_two_splits_without_train(tmp_path):
    write_parquet(tmp_path / "validation.parquet")
    write_parquet(tmp_path / "test.parquet")
    assert sentence(tmp_path) == f"{tmp_path} has no train split, only test, validation."


def test_a_lone_file_is_train_whatever_its_name(tmp_path):
    assert sizes(load_images(str(write_parquet(tmp_path / "test.parquet")))) == {"train": 2}


def test_an_image_is_no_data_set(tmp_path):
    noise().save(tmp_path / "1.png")
    assert sentence(tmp_path / "1.png").startswith(f"{tmp_path}/1.png is no parquet file, or a broken one: give ")


def test_a_pattern_that_matches_nothing(tmp_path):
    assert sentence(tmp_path / "*.parquet") == f"no file matches {tmp_path}/*.parquet."


# --- The Hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on which `someone/pets` is a folder of parquet files, read by datasets itself."""
    repository = tmp_path / "repository"

    def load_dataset(name: str, config_name: str | None = None):
        assert name == "someone/pets"
        return load_dataset_for_real(str(repository), config_name)

    monkeypatch.setattr(data, "load_dataset", load_dataset)
    return repository


def test_a_hub_dataset(hub):
    features = Features({"img": ImageFeature(), "id": Value("int64"), "label": ClassLabel(names=["dog", "cat"])})
    for split, labels in (("train", [0, 1, 1]), ("valid", [1]), ("test", [-1, -1])):
        rows = {"img": [row(content) for content in FILES[: len(labels)]], "id": labels, "label": labels}
        path = hub / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_dict(rows, features=features).to_parquet(str(path))
    splits = load_images("someone/pets")
    assert list(splits) == ["train", "validation"]  # the labels of test are secret
    assert rows_of(splits["train"]) == [(FILES[0], None, 0), (FILES[1], None, 1), (FILES[2], None, 1)]
    assert splits["validation"].features["label"].names == ["dog", "cat"]


def test_a_configuration_of_a_hub_dataset(hub):
    write_parquet(hub / "small" / "train.parquet", labels=["a", "b"])
    write_parquet(hub / "large" / "train.parquet", labels=["a", "b", "c"])
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*\n" for name in ("small", "large"))
    (hub / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert sizes(load_images("someone/pets", config_name="large")) == {"train": 3}
    said = sentence("someone/pets")
    assert "the Hub dataset someone/pets could not be loaded: " in said
    assert "Config name is missing" in said


def test_a_hub_dataset_of_one_split_is_train(hub):
    write_parquet(hub / "test.parquet")
    assert sizes(load_images("someone/pets")) == {"train": 2}


def test_splits_of_a_hub_dataset_may_have_other_names(monkeypatch):
    loaded = {name: Dataset.from_dict({"image": FILES[:2], "label": [0, 1]}) for name in ("Train", "dev", "extra")}
    monkeypatch.setattr(data, "load_dataset", lambda *_: DatasetDict(loaded))
    assert list(load_images("someone/pets")) == ["train", "validation"]


def test_data_from_the_hub_says_so_with_its_commit(monkeypatch, caplog):
    pets = Dataset.from_dict({"image": FILES[:2], "label": [0, 1]})
    pets.info.download_checksums = {f"hf://datasets/someone/pets@{'0123abcd' * 5}/train.parquet": {}}
    monkeypatch.setattr(data, "load_dataset", lambda *_: DatasetDict({"train": pets}))
    load_images("someone/pets")
    said = "someone/pets is no folder here: using the Hub's dataset someone/pets at commit 0123abc"
    assert caplog.messages == [said]


def test_the_hub_cannot_be_reached():
    for name in "someone/pets", "nothere":
        assert sentence(name) == f"there is no folder or file {name}, and the Hub cannot be reached."


def test_the_hub_has_no_such_dataset(monkeypatch):
    def load_dataset(name, config_name):
        raise DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub or cannot be accessed.")

    monkeypatch.setattr(data, "load_dataset", load_dataset)
    assert sentence("pets") == (
        "there is no folder or file pets, and the Hub dataset pets could not be loaded: "
        "Dataset 'pets' doesn't exist on the Hub or cannot be accessed."
    )


def test_a_misspelt_folder_that_might_be_a_hub_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "data" / "flowers", rose=1, iris=1)
    assert sentence("data/flovers").startswith(
        "there is no folder or file data/flovers (did you mean data/flowers?), and the Hub cannot be reached."
    )
    assert sentence("date").startswith("there is no folder or file date (did you mean data?), and the Hub")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("./flovers", " (did you mean flowers?)"),
        ("flovers/", " (did you mean flowers?)"),
        ("my flowers", " (did you mean flowers?)"),
        ("../data/flovers", " (did you mean ../data/flowers?)"),
        ("../data/stones", ""),
        ("a/b/flovers", ""),
        ("flovers.parquet", ""),
    ],
)
def test_what_can_only_be_a_path_is_not_looked_for_on_the_hub(name, hint, tmp_path, monkeypatch):
    (tmp_path / "data" / "flowers").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "data")
    monkeypatch.setattr(data, "load_dataset", lambda *_: pytest.fail("looked on the Hub"))
    assert sentence(name) == f"there is no folder or file {name}{hint}."


# --- Splits ----------------------------------------------------------------------------------------------------------


def labelled(*counts: int) -> DatasetDict:
    """A train split with so many images of each class, each image named after its row."""
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = np.random.default_rng(1).permutation(labels)
    features = Features(
        {"image": ImageFeature(decode=False), "label": ClassLabel(names=[f"class {k}" for k in range(len(counts))])}
    )
    rows = {"image": [row(None, f"{index}.png") for index in range(len(labels))], "label": labels}
    return DatasetDict({"train": Dataset.from_dict(rows, features=features)})


def counts(dataset: Dataset) -> list[int]:
    return np.bincount(dataset["label"][:], minlength=dataset.features["label"].num_classes).tolist()


def contents_of(splits: DatasetDict) -> dict[str, np.ndarray]:
    """A digest of each image, which its name stands for here."""
    return {
        name: np.array([crc32(file.encode()) << 32 | crc32(file[::-1].encode()) for file in files(dataset)], np.uint64)
        for name, dataset in splits.items()
    }


def split(splits: DatasetDict, validation: float = 0.0, test: float = 0.0, seed: int = 0) -> DatasetDict:
    shares = {"validation_share": validation, "test_share": test}
    result, contents = with_splits(splits, contents_of(splits), **shares, seed=seed)
    drawn = {name: result[name] for name in result if name not in splits}  # the others may hold the same names
    assert {name: contents[name].tolist() for name in drawn} == {
        name: digests.tolist() for name, digests in contents_of(DatasetDict(drawn)).items()
    }
    return result


def test_every_class_gives_about_its_share():
    splits = split(labelled(1000, 400, 200), validation=0.1, test=0.25)
    assert list(splits) == ["train", "validation", "test"]
    for name, share in (("validation", 0.1), ("test", 0.25)):
        for got, count in zip(counts(splits[name]), (1000, 400, 200), strict=True):
            assert abs(got - share * count) < 3 * (share * (1 - share) * count) ** 0.5


def test_asking_for_a_test_split_moves_no_image_of_the_validation_split():
    alone = split(labelled(50, 50), validation=0.2)
    both = split(labelled(50, 50), validation=0.2, test=0.5)
    assert rows_of(alone["validation"]) == rows_of(both["validation"])


@pytest.mark.parametrize("more", [1, 60])
def test_more_data_never_moves_an_image_from_one_split_to_another(more):
    whole = labelled(60 + more, 30, 10)["train"]
    added = np.random.default_rng(0).choice(whole.num_rows, more, replace=False)
    fewer = whole.select(np.setdiff1d(np.arange(whole.num_rows), added))
    before, after = (split(DatasetDict({"train": data}), validation=0.2, test=0.2) for data in (fewer, whole))
    for name in before:
        assert set(rows_of(before[name])) <= set(rows_of(after[name]))
        # Nor are those that were there in another order.
        assert [item for item in rows_of(after[name]) if item in rows_of(before[name])] == rows_of(before[name])


def test_copies_of_an_image_are_in_one_split():
    train = labelled(40, 40)["train"]
    splits = split(DatasetDict({"train": train.select([*range(80), *range(80)])}), validation=0.3, test=0.3)
    parts = [set(rows_of(dataset)) for dataset in splits.values()]
    assert sum(map(len, parts)) == 80


def test_the_parts_are_disjoint_and_complete():
    whole = labelled(31, 7, 12)
    parts = [rows_of(dataset) for dataset in split(whole, validation=0.15, test=0.2).values()]
    together = [item for part in parts for item in part]
    assert len(together) == 50
    assert set(together) == set(rows_of(whole["train"]))


def test_the_seed_decides_and_the_same_seed_gives_the_same_images():
    first, again = (split(labelled(40, 40), validation=0.25, test=0.25, seed=5) for _ in range(2))
    other = split(labelled(40, 40), validation=0.25, test=0.25, seed=-6)
    for name in first:
        assert rows_of(first[name]) == rows_of(again[name])
        assert set(rows_of(first[name])) != set(rows_of(other[name]))


def test_the_choice_is_random_within_a_class_and_the_part_is_mixed():
    held_out = split(labelled(200, 200), validation=0.25)["validation"]
    rows = [int(Path(name).stem) for name in files(held_out)]
    assert 150 < np.mean(rows) < 250  # of 0 to 399
    assert rows != sorted(rows)
    labels = held_out["label"][:]
    assert labels != sorted(labels)


@pytest.mark.parametrize("classes", [(1, 30, 2), (30, 1, 2), (2, 30, 1), (1, 1, 1, 9)])
def test_a_class_of_one_image_is_trained_on(classes):
    for seed in range(10):
        splits = split(labelled(*classes), validation=0.3, test=0.3, seed=seed)
        assert min(counts(splits["train"])) >= 1


def test_a_split_is_never_empty():
    sizes_of = {split(labelled(2, 2), validation=0.2, seed=seed)["validation"].num_rows for seed in range(10)}
    assert min(sizes_of) == 1
    assert max(sizes_of) > 1


def test_a_class_that_is_declared_and_has_no_image():
    held_out = counts(split(labelled(200, 0, 200), validation=0.2)["validation"])
    assert held_out[1] == 0
    assert held_out[0] > 20 < held_out[2]


def test_a_share_of_0_adds_nothing():
    whole = labelled(4, 4)
    assert split(whole)["train"] is whole["train"]
    assert list(split(whole)) == ["train"]


def test_splits_that_are_there_stay_as_they_are():
    given = DatasetDict({**labelled(20, 20), "validation": labelled(2, 2)["train"], "test": labelled(3, 3)["train"]})
    result = split(given, validation=0.5, test=0.5)
    assert all(result[name] is given[name] for name in given)
    result = split(DatasetDict({"train": given["train"], "test": given["test"]}), validation=0.5, test=0.5)
    assert result["test"] is given["test"]
    assert result["train"].num_rows + result["validation"].num_rows == 40
    assert 10 < result["validation"].num_rows < 30  # a half of train, from which nobody took a test split
    assert list(given) == ["train", "validation", "test"]
    assert given["train"].num_rows == 40


@pytest.mark.parametrize(("classes", "share", "size", "most"), [((2, 1), 0.1, "0", "1"), ((3, 3), 0.9, "5", "4")])
def test_too_few_images_for_a_share(classes, share, size, most):
    with pytest.raises(ValueError, match="give another share, or more images") as error:
        split(labelled(*classes), validation=share)
    assert str(error.value).startswith(
        f"a share of {share} of {sum(classes)} images for the validation split is {size}, but it must be at least 1, "
        f"and at most {most} to leave one of each class to train on"
    )


def test_one_image_of_each_class_leaves_none_to_set_aside():
    with pytest.raises(ValueError, match="none to validate on") as error:
        split(labelled(*[1] * 2000), validation=0.1)
    assert str(error.value) == (
        "2,000 classes with one image each leave none to validate on: add images, a validation folder, or "
        "--train_val_split 0."
    )
    with pytest.raises(
        ValueError, match=r"^2 classes with one image each leave none to test on: .* --train_test_split 0"
    ):
        split(labelled(1, 1), validation=0.5, test=0.5)
    with pytest.raises(ValueError, match=r"^one image leaves none to validate on: "):
        split(DatasetDict({"train": labelled(1)["train"].select_columns("image")}), validation=0.5)
    with pytest.raises(
        ValueError, match=r"^the test split and an image of each class to train on leave none to valida"
    ):
        split(labelled(2, 1), validation=0.4, test=0.4)


def test_a_class_that_a_split_shows_no_image_of_is_named():
    splits = split(labelled(60, 1, 60), validation=0.2)
    assert classes_without_images(splits) == {"validation": "has no image of class 1: its scores say nothing about it"}
    given = DatasetDict({**labelled(3, 3, 3), "test": labelled(3)["train"].cast(labelled(3, 3, 3)["train"].features)})
    sentence = "has no image of class 1, class 2: its scores say nothing about them"
    assert classes_without_images(given) == {"test": sentence}
    assert classes_without_images(split(labelled(60, 60), validation=0.2)) == {}


def test_two_shares_may_ask_for_more_than_there_is():
    with pytest.raises(ValueError, match=r"for the validation split is 4, .* at most 2 to leave"):
        split(labelled(3, 3), validation=0.6, test=0.35)
