# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The columns of a data set: which hold the images and the labels, and which classes the labels mean."""

import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, Value
from datasets import Image as ImageFeature

from .images import MOST_NAMED

IMAGE_COLUMN_NAMES = ("image", "img", "images", "pixel_values", "picture", "file")
LABEL_COLUMN_NAMES = ("label", "labels", "class", "fine_label", "category", "target", "cls")

AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)


def images_and_labels(
    splits: dict[str, Dataset], source: str, image_column_name: str | None, label_column_name: str | None
) -> DatasetDict:
    """Splits of any columns with only the columns `image`, undecoded, and `label`, with the classes of `train`.

    A validation or test split without any label is left out.

    Raises:
        ValueError: if a column is missing, cannot be told from others, or holds something else.
    """
    features = splits["train"].features
    image, label = image_column(features, image_column_name, source), label_column(features, label_column_name, source)
    class_names = _class_names(splits["train"], label)
    others = {split: dataset for split, dataset in splits.items() if split != "train"}
    return DatasetDict(
        {
            "train": _labelled(splits["train"], image, label, class_names, f"the train split of {source}"),
            **with_labels(others, image, label, class_names, source),
        }
    )


def with_labels(
    splits: dict[str, Dataset], image: str, label: str, class_names: list[str], source: str
) -> dict[str, Dataset]:
    """Those of some splits that have any label, with the columns `image`, undecoded, and `label` of these classes.

    Raises:
        ValueError: if a column or the label of a row is missing, or not among the classes.
    """
    return {
        split: _labelled(dataset, image, label, class_names, f"the {split} split of {source}")
        for split, dataset in splits.items()
        if _has_labels(dataset, label)
    }


def _labelled(dataset: Dataset, image: str, label: str, class_names: list[str], source: str) -> Dataset:
    return relabelled(undecoded(dataset, {image: "image", label: "label"}, source), class_names, source)


def only_images(splits: dict[str, Dataset], image: str, source: str) -> DatasetDict:
    """Splits of any columns with only one of them, as `image`, undecoded.

    Raises:
        ValueError: if a split lacks it.
    """
    return DatasetDict(
        {
            split: undecoded(dataset, {image: "image"}, f"the {split} split of {source}")
            for split, dataset in splits.items()
        }
    )


def undecoded(dataset: AnyDataset, new_names: dict[str, str], source: str) -> AnyDataset:
    """The columns that have new names, under these; `image`, the first of them, is not decoded.

    Raises:
        ValueError: if it is missing.
    """
    image = next(iter(new_names))
    if image not in dataset.features:
        raise ValueError(f"{source} lacks the column {image!r} of the train split.")
    dataset = dataset.cast_column(image, ImageFeature(decode=False))  # under a new name, streamed files lose theirs
    changed = {old: new for old, new in new_names.items() if old != new}
    return dataset.select_columns(list(new_names)).rename_columns(changed)


def image_column(features: Features, given: str | None, source: str) -> str:
    """The column of the images: the one given, else one with a usual name, else the only one that holds images.

    Raises:
        ValueError: if there is none, or it cannot be told from others.
    """
    return _column(features, given, IMAGE_COLUMN_NAMES, _is_image, "image", source)


def label_column(features: Features, given: str | None, source: str) -> str:
    """The column of the labels, likewise."""
    return _column(features, given, LABEL_COLUMN_NAMES, _is_label, "label", source)


def _column(
    features: Features, given: str | None, names: tuple[str, ...], fits: Callable[[Any], bool], kind: str, source: str
) -> str:
    # The names of a sample and of its shard (__key__, __url__) are of WebDataset, not of people.
    features = Features({name: feature for name, feature in features.items() if not name.startswith("__")})
    existing = ", ".join(f"{name} ({_type_name(feature)})" for name, feature in features.items())
    if given is not None:
        if given not in features:
            raise ValueError(f"{source} has no column {given!r}; its columns are {existing}.")
        if not fits(features[given]):
            raise ValueError(f"the column {given!r} of {source} holds no {kind}s; its columns are {existing}.")
        return given
    fitting = [name for name, feature in features.items() if fits(feature)]
    usual = [name for name in names if name in fitting]
    if usual or len(fitting) == 1:
        return (usual or fitting)[0]
    if not fitting:
        hidden = kind == "label" and "json" in features
        hint = "; labels inside of json are not read: write them as .cls files" if hidden else ""
        raise ValueError(f"{source} has no column that could hold the {kind}s; its columns are {existing}{hint}.")
    raise ValueError(
        f"{source} has several columns that could hold the {kind}s; its columns are {existing}. Name one with "
        f"--{kind}_column_name."
    )


def _is_image(feature: Any) -> bool:
    encoded = isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
    return encoded or isinstance(feature, ImageFeature) or (isinstance(feature, dict) and "bytes" in feature)


def _is_label(feature: Any) -> bool:
    return isinstance(feature, ClassLabel) or (
        isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "bool", "string", "large_string"))
    )


def _type_name(feature: Any) -> str:
    if isinstance(feature, dict):
        return "struct"
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__


def _class_names(dataset: Dataset, column: str) -> list[str]:
    """The class names of a label column: those it declares, or its distinct values in order."""
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        return list(dict.fromkeys(map(one_form, feature.names)))
    return list(
        dict.fromkeys(
            one_form(value) for value in sorted(value for value in dataset.unique(column) if value is not None)
        )
    )


def one_form(name: Any) -> str:
    """The name of a class in the one of its Unicode forms (NFC) in which all names are compared; macOS has another."""
    return unicodedata.normalize("NFC", str(name))


def _has_labels(dataset: Dataset, column: str) -> bool:
    """Whether any row has a label; those of a test split are often kept secret."""
    return column in dataset.features and any(name is not None for name in _class_of_rows(dataset, column))


def _class_of_rows(dataset: Dataset, column: str) -> list[str | None]:
    """The name of the class of each row, `None` where the label is missing (-1, in a `ClassLabel`)."""
    feature = dataset.features[column]
    values = dataset[column][:]  # the whole at once takes a hundredth of the time that row after row takes
    if isinstance(feature, ClassLabel):
        names = [one_form(name) for name in feature.names]
        return [None if value is None or value < 0 else names[value] for value in values]
    return [None if value is None else one_form(value) for value in values]


def relabelled(dataset: Dataset, class_names: list[str], source: str) -> Dataset:
    """The same images with labels that index `class_names`, matched by name.

    Raises:
        ValueError: if a label is missing or not among the names.
    """
    rows = _class_of_rows(dataset, "label")
    if None in rows:
        raise ValueError(f"{rows.count(None)} of the {len(rows)} rows of {source} have no label: fill or remove them.")
    index = {one_form(name): label for label, name in enumerate(class_names)}
    unknown = sorted({str(name) for name in rows} - index.keys())
    if unknown:
        raise ValueError(
            f"{source} has labels that are not among the {len(class_names)} classes {listed(class_names)}: "
            f"{listed(unknown)}."
        )
    if dataset.features["label"] == ClassLabel(names=class_names):
        return dataset
    labels = [index[str(name)] for name in rows]
    return dataset.remove_columns("label").add_column("label", labels, feature=ClassLabel(names=class_names))


def listed(names: Iterable[Any]) -> str:
    """The first few of many names."""
    names = [str(name) for name in names]
    return ", ".join(names[:MOST_NAMED]) + (", …" if len(names) > MOST_NAMED else "")
