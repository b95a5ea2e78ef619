# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Columns of every kind become `image` and `label`, or one sentence says which columns there are."""

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from pictures import encoded, noise, plain, row

from modeling_vit_scratch.data.columns import images_and_labels, label_column, relabelled
from modeling_vit_scratch.data.images import read_image

FILES = [encoded(plain(index, mode="L")) for index in range(6)]
PETS = ClassLabel(names=["cat", "dog", "eel"])


def table(features: dict | None = None, **columns: list) -> Dataset:
    """A dataset of these columns, with their types where they do not say it themselves."""
    return Dataset.from_dict(columns, features=None if features is None else Features(features))


def labels(values: list, feature=None) -> Dataset:
    """A dataset with images and these labels."""
    files = [FILES[index % len(FILES)] for index in range(len(values))]
    if feature is None:
        return table(image=files, label=values)
    return table({"image": Value("binary"), "label": feature}, image=files, label=values)


def loaded(train: Dataset, *, image: str | None = None, label: str | None = None, **others: Dataset):
    return images_and_labels({"train": train, **others}, "pets", image, label)


def sentence(train: Dataset, **options) -> str:
    with pytest.raises(ValueError, match="pets") as error:
        loaded(train, **options)
    return str(error.value)


# --- Images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feature", "rows"),
    [
        (ImageFeature(), [row(content) for content in FILES]),
        (ImageFeature(decode=False), [row(content, "a.png") for content in FILES]),
        (Value("binary"), FILES),
        (Value("large_binary"), FILES),
        ({"bytes": Value("binary"), "path": Value("string")}, [row(content) for content in FILES]),
        ({"path": Value("string"), "bytes": Value("binary")}, [row(content) for content in FILES]),
        ({"bytes": Value("binary")}, [{"bytes": content} for content in FILES]),
    ],
    ids=["Image", "Image, undecoded", "binary", "large binary", "struct", "struct, turned round", "struct of bytes"],
)
def test_every_way_to_store_images_gives_the_undecoded_files(feature, rows):
    dataset = table({"image": feature, "label": Value("int64")}, image=rows, label=[0, 1, 0, 1, 0, 1])
    train = loaded(dataset)["train"]
    assert train.features["image"] == ImageFeature(decode=False)
    assert [item["image"]["bytes"] for item in train] == FILES
    assert [read_image(item["image"]).getpixel((0, 0))[0] for item in train] == [0, 1, 2, 3, 4, 5]


def test_images_that_are_files_stay_where_they_are(tmp_path):
    for index in range(2):
        noise(seed=index).save(tmp_path / f"{index}.png")
    paths = [str(tmp_path / f"{index}.png") for index in range(2)]
    train = loaded(table({"image": ImageFeature(), "label": PETS}, image=paths, label=[0, 1]))["train"]
    assert train["image"][:] == [{"bytes": None, "path": path} for path in paths]


def test_only_the_two_columns_remain_and_the_rest_of_the_row_stays_together():
    dataset = table(number=[5, 6, 7], img=FILES[:3], coarse=["a", "b", "c"], fine_label=["y", "x", "y"])
    train = loaded(dataset)["train"]
    assert train.column_names == ["image", "label"]
    assert train.features["label"].names == ["x", "y"]
    assert [(item["image"]["bytes"], item["label"]) for item in train] == list(zip(FILES[:3], [1, 0, 1], strict=True))


def test_columns_are_found_by_their_usual_names_first():
    dataset = table(mask=FILES[:2], image=FILES[2:4], other=[7, 7], label=[0, 1])
    train = loaded(dataset)["train"]
    assert train["image"][0]["bytes"] == FILES[2]
    assert train.features["label"].names == ["0", "1"]


def test_columns_without_a_usual_name_are_found_by_their_type():
    train = loaded(table(scan=FILES[:2], score=[0.5, 0.7], species=["finch", "crow"]))["train"]
    assert train["image"][0]["bytes"] == FILES[0]
    assert train.features["label"].names == ["crow", "finch"]


def test_columns_can_be_named():
    dataset = table(image=FILES[:2], mask=FILES[2:4], label=[0, 1], colour=["red", "blue"])
    train = loaded(dataset, image="mask", label="colour")["train"]
    assert train["image"][0]["bytes"] == FILES[2]
    assert train.features["label"].names == ["blue", "red"]


def test_without_an_image_column_the_columns_are_named():
    dataset = table(text=["a", "b"], label=[0, 1])
    assert sentence(dataset) == (
        "pets has no column that could hold the images; its columns are text (string), label (int64)."
    )


def test_without_a_label_column_the_columns_are_named():
    dataset = table(image=[row(content) for content in FILES[:2]], score=[0.1, 0.2], boxes=[[1], [2]])
    assert sentence(dataset) == (
        "pets has no column that could hold the labels; its columns are image (struct), score (float64), boxes (List)."
    )


def test_two_image_columns_that_are_alike_must_be_told_apart():
    dataset = table(before=FILES[:2], after=FILES[2:4], label=[0, 1])
    assert sentence(dataset) == (
        "pets has several columns that could hold the images; its columns are before (binary), after (binary), "
        "label (int64). Name one with --image_column_name."
    )


def test_two_label_columns_that_are_alike_must_be_told_apart():
    assert "Name one with --label_column_name." in sentence(table(image=FILES[:2], breed=[0, 1], age=[3, 4]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"image": "photo"}, "pets has no column 'photo'; its columns are image (binary), label (int64)."),
        ({"label": "breed"}, "pets has no column 'breed'; its columns are image (binary), label (int64)."),
        ({"image": "label"}, "the column 'label' of pets holds no images; its columns are"),
        ({"label": "image"}, "the column 'image' of pets holds no labels; its columns are"),
    ],
)
def test_a_named_column_must_exist_and_fit(options, expected):
    assert sentence(labels([0, 1]), **options).startswith(expected)


# --- Labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "feature", "names", "expected"),
    [
        ([2, 0, 1], PETS, ["cat", "dog", "eel"], [2, 0, 1]),
        ([2, 0, 2], PETS, ["cat", "dog", "eel"], [2, 0, 2]),  # declared, though no image of a dog is there
        ([10, 3, 7, 3], None, ["3", "7", "10"], [2, 0, 1, 0]),  # by their value, not as text
        ([0, -5, 3], Value("int16"), ["-5", "0", "3"], [1, 0, 2]),
        ([200, 3], Value("uint8"), ["3", "200"], [1, 0]),
        ([True, False, True], None, ["False", "True"], [1, 0, 1]),
        (["dog", "cat", "dog"], None, ["cat", "dog"], [1, 0, 1]),
        (["dog", "Kätzchen"], Value("large_string"), ["Kätzchen", "dog"], [1, 0]),
    ],
    ids=["ClassLabel", "ClassLabel with a gap", "integers", "negative", "unsigned", "booleans", "text", "large text"],
)
def test_labels_of_every_type(values, feature, names, expected):
    train = loaded(labels(values, feature))["train"]
    assert train.features["label"] == ClassLabel(names=names)
    assert train["label"][:] == expected


@pytest.mark.parametrize(
    ("values", "feature", "kind"),
    [([0.0, 1.0], None, "float64"), ([[0, 2], [1]], List(Value("int64")), "List"), ([None, None], None, "null")],
    ids=["float", "several labels", "nothing"],
)
def test_what_cannot_be_a_class_is_no_label(values, feature, kind):
    said = sentence(labels(values, feature))
    assert said == f"pets has no column that could hold the labels; its columns are image (binary), label ({kind})."


@pytest.mark.parametrize(
    ("values", "feature"),
    [([0, None, 1], PETS), ([0, -1, 1], PETS), (["cat", None, "dog"], None), ([3, None, 4], None)],
    ids=["ClassLabel", "ClassLabel of -1", "text", "integers"],
)
def test_missing_labels_are_counted(values, feature):
    expected = "1 of the 3 rows of the train split of pets have no label: fill or remove them."
    assert sentence(labels(values, feature)) == expected


def test_a_train_split_without_any_label_is_refused():
    expected = "2 of the 2 rows of the train split of pets have no label: fill or remove them."
    assert sentence(labels([-1, -1], PETS)) == sentence(labels([None, None], Value("string"))) == expected


def test_every_split_has_the_classes_of_train():
    train = labels(["dog", "cat", "eel"])
    splits = loaded(train, validation=labels(["eel", "dog"]), test=labels([1, 0], ClassLabel(names=["cat", "eel"])))
    assert {split: dataset.features["label"] for split, dataset in splits.items()} == {
        "train": PETS,
        "validation": PETS,
        "test": PETS,
    }
    assert splits["validation"]["label"][:] == [2, 1]
    assert splits["test"]["label"][:] == [2, 0]  # by name: eel was 1 of two, and is 2 of three


def test_classes_that_train_lacks_are_named():
    said = sentence(labels(["dog", "cat"]), test=labels(["dog", "newt", "emu"]))
    assert said == "the test split of pets has labels that are not among the 2 classes cat, dog: emu, newt."


@pytest.mark.parametrize(
    ("values", "feature"),
    [([-1, -1], PETS), ([None, None], PETS), ([None, None], Value("string"))],
    ids=["-1", "none", "no text"],
)
def test_a_test_split_whose_labels_are_kept_secret_is_left_out(values, feature):
    secret = labels(values, feature)
    splits = loaded(labels([0, 1], PETS), validation=labels([1, 0], PETS), test=secret)
    assert list(splits) == ["train", "validation"]


def test_a_test_split_without_a_label_column_is_left_out():
    assert list(loaded(labels([0, 1]), test=table(image=FILES[:2]))) == ["train"]


def test_a_test_split_with_some_labels_missing_is_refused():
    said = sentence(labels([0, 1], PETS), test=labels([0, -1, -1], PETS))
    assert said == "2 of the 3 rows of the test split of pets have no label: fill or remove them."


def test_a_test_split_without_the_image_column_is_refused():
    said = sentence(labels([0, 1]), test=table(picture=FILES[:2], label=[0, 1]))
    assert said == "the test split of pets lacks the column 'image' of the train split."


# --- Labels of a checkpoint ------------------------------------------------------------------------------------------


def test_labels_are_matched_to_those_of_a_checkpoint_by_name():
    dataset = loaded(labels([0, 1, 2, 0], PETS))["train"]
    result = relabelled(dataset, ["eel", "emu", "dog", "cat"], "pets")
    assert result["label"][:] == [3, 2, 0, 3]
    assert result.features["label"].names == ["eel", "emu", "dog", "cat"]
    assert [item["image"]["bytes"] for item in result] == FILES[:4]
    assert dataset["label"][:] == [0, 1, 2, 0]


def test_a_selection_of_rows_is_relabelled_in_its_order():
    dataset = loaded(labels([0, 1, 2, 0], PETS))["train"].select([2, 1, 3])
    result = relabelled(dataset, ["dog", "eel", "cat"], "pets")
    assert result["label"][:] == [1, 0, 2]
    assert [item["image"]["bytes"] for item in result] == [FILES[2], FILES[1], FILES[3]]


def test_labels_that_are_right_already_are_not_copied():
    dataset = loaded(labels([0, 1, 2], PETS))["train"]
    assert relabelled(dataset, ["cat", "dog", "eel"], "pets") is dataset


def test_labels_that_a_checkpoint_does_not_know_are_named():
    dataset = loaded(labels([0, 1, 2], PETS))["train"]
    with pytest.raises(ValueError, match=r"^pets has labels that are not among the 2 classes LABEL_0, dog: cat, eel"):
        relabelled(dataset, ["LABEL_0", "dog"], "pets")


def test_a_message_names_five_classes_at_most():
    dataset = loaded(labels(list(range(10))))["train"]
    with pytest.raises(ValueError, match=r"the 1000 classes a0, a1, a2, a3, a4, …: 0, 1, 2, 3, 4, …\.$"):
        relabelled(dataset, [f"a{index}" for index in range(1000)], "pets")


def test_labels_inside_of_a_json_are_not_offered():
    names = {"__key__": Value("string"), "__url__": Value("string"), "json": {"label": Value("int64")}}
    with pytest.raises(
        ValueError, match=r"its columns are json \(struct\); labels inside of json are not read"
    ) as error:
        label_column(Features(names), None, "shards")
    assert "__key__" not in str(error.value)
    assert label_column(Features({**names, "cls": Value("int64")}), None, "shards") == "cls"
    with pytest.raises(ValueError, match="has no column '__key__'"):
        label_column(Features(names), "__key__", "shards")
