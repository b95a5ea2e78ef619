# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Images and labels from wherever they are: the embedded digits, folders, parquet files, Hub datasets.

Whatever the source, the result is a `DatasetDict` of `train`, `validation` and `test` (the latter where there is one)
with two columns: `image`, the undecoded file, and `label`, a `ClassLabel`. Images are decoded by `read_image` alone, so
that training, evaluation and prediction see the same pixels.
"""

import glob
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset
from datasets import Image as ImageFeature
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

# Other names of the three splits, as folders or in Hub datasets.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
IMAGE_COLUMN_NAMES = ("image", "img", "images", "pixel_values", "picture", "file")
LABEL_COLUMN_NAMES = ("label", "labels", "class", "fine_label", "category", "target")
DIGITS_TEST_SHARE = 0.2
# Bad images named in one message; a thousand lines help nobody.
MOST_NAMED = 5


def load_images(
    source: str,
    *,
    config_name: str | None = None,
    image_column_name: str | None = None,
    label_column_name: str | None = None,
) -> DatasetDict:
    """Load labelled images, with the splits that the source itself has.

    Args:
        source: "digits", a folder of class folders (or of `train`, `validation` and `test` folders of them), parquet
            files (a file, a folder or a glob pattern), or the id of a Hub dataset.
        config_name: configuration of a Hub dataset.
        image_column_name: column that holds the images; found by type and name if not given.
        label_column_name: column that holds the labels; likewise.

    Returns:
        Splits named `train`, `validation`, `test` (one that is alone is called `train`), each with the columns `image`
        and `label`; all have the classes of `train`.

    Raises:
        ValueError: if there is nothing to load, or it is not labelled images of two classes or more.
    """
    path = Path(source).expanduser()
    if source == "digits":
        return _digits()
    if path.is_dir() and not any(path.glob("*.parquet")):
        return _class_folders(path)
    if path.is_dir() or path.is_file() or glob.glob(str(path)):
        splits = _parquet(path)
    elif path.is_absolute() or source.startswith((".", "~")) or len(path.parts) > 2 or glob.has_magic(source):
        raise ValueError(f"there is no folder or file {source}.")
    else:
        splits = _hub_dataset(source, config_name)
    return _normalised(splits, source, image_column_name, label_column_name)


# --- The sources -----------------------------------------------------------------------------------------------------


def _digits() -> DatasetDict:
    """Scikit-learn's 1,797 scans of handwritten digits, 8x8 pixels, a fifth of each class kept for testing."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # the scans have 17 grey levels
    features = _features([str(name) for name in digits.target_names])
    rows = {
        "image": [{"bytes": _png(image), "path": f"digit-{index}.png"} for index, image in enumerate(pixels)],
        "label": digits.target,
    }
    splits = Dataset.from_dict(rows, features=features).train_test_split(
        DIGITS_TEST_SHARE, stratify_by_column="label", seed=0
    )
    return DatasetDict(splits)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _class_folders(root: Path) -> DatasetDict:
    """A folder of class folders, or of split folders of them, read in place."""
    folders = {path.name.lower(): path for path in _subfolders(root)}
    splits = {split: folders[name] for split, names in SPLIT_NAMES.items() for name in names[::-1] if name in folders}
    if "train" not in splits:
        splits = {"train": root}
    class_names = _class_names(splits["train"])
    datasets = {}
    for split, folder in splits.items():
        unknown = sorted(set(_class_names(folder)) - set(class_names)) if split != "train" else []
        if unknown:
            raise ValueError(f"{folder} has class folders that {splits['train']} lacks: {', '.join(unknown)}.")
        files = [(str(file), label) for label, name in enumerate(class_names) for file in images_in(folder / name)]
        rows = {"image": [{"bytes": None, "path": file} for file, _ in files], "label": [label for _, label in files]}
        datasets[split] = Dataset.from_dict(rows, features=_features(class_names))
    return DatasetDict(datasets)


def _class_names(folder: Path) -> list[str]:
    """The class folders in a folder, sorted; refuses layouts that would give wrong labels."""
    classes = _subfolders(folder)
    own_images = any(True for _ in images_in(folder, recursive=False))
    if not classes:
        what = "images but no class folders" if own_images else "no images"
        raise ValueError(f"{folder} holds {what}: put the images of each class into a folder named after the class.")
    if own_images:
        raise ValueError(f"{folder} holds images beside its class folders: move them into the folder of their class.")
    for path in classes:
        inside = _subfolders(path)
        if any(True for _ in images_in(path, recursive=False)):
            continue
        if any(True for _ in images_in(path)):
            raise ValueError(
                f"{path} holds folders of images instead of images, one level too deep for a class folder: "
                f"give {path} itself, or flatten it ({', '.join(sub.name for sub in inside[:MOST_NAMED])})."
            )
        raise ValueError(f"the class folder {path} holds no images: fill it or delete it.")
    if len(classes) == 1:
        raise ValueError(f"{folder} has one class folder, {classes[0].name}; a classifier needs at least two.")
    return [path.name for path in classes]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def images_in(folder: Path, *, recursive: bool = True) -> Iterator[Path]:
    """The image files of a folder, sorted, by their suffix; hidden files are left out."""
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    suffixes -= {".pdf", ".mpg", ".mpeg"}
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*") if recursive else folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file():
            yield path


def _parquet(path: Path) -> DatasetDict:
    """Parquet files; a file whose name begins with the name of a split belongs to it, others to `train`."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [Path(name) for name in sorted(glob.glob(str(path)))]
    data_files: dict[str, list[str]] = {}
    for file in files:
        matching = (split for split, names in SPLIT_NAMES.items() if file.name.lower().startswith(names))
        data_files.setdefault(next(matching, "train") if len(files) > 1 else "train", []).append(str(file))
    try:
        return load_dataset("parquet", data_files=data_files)
    except Exception as error:
        raise ValueError(f"{path} could not be read as parquet: {_first_line(error)}") from error


def _hub_dataset(name: str, config_name: str | None) -> DatasetDict:
    try:
        return load_dataset(name, config_name)
    except Exception as error:
        raise ValueError(
            f"there is no folder {name}, and the Hub dataset {name} could not be loaded: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


# --- Columns and labels ----------------------------------------------------------------------------------------------


def _features(class_names: list[str]) -> Features:
    return Features({"image": ImageFeature(decode=False), "label": ClassLabel(names=class_names)})


def _normalised(
    splits: DatasetDict, source: str, image_column_name: str | None, label_column_name: str | None
) -> DatasetDict:
    """The splits under our names, with the columns `image` and `label`."""
    splits = DatasetDict(
        {split: splits[name] for split, names in SPLIT_NAMES.items() for name in names[::-1] if name in splits}
        or {"train": next(iter(splits.values()))}
    )
    if "train" not in splits:
        splits = DatasetDict({"train": next(iter(splits.values()))})
    features = splits["train"].features
    image = _column(features, image_column_name, IMAGE_COLUMN_NAMES, _is_image, "image", source)
    label = _column(features, label_column_name, LABEL_COLUMN_NAMES, _is_label, "label", source)
    class_names = _label_names(splits["train"], label, source)
    result = {}
    for split, dataset in splits.items():
        dataset = dataset.select_columns([image, label]).rename_columns({image: "image", label: "label"})
        dataset = dataset.cast_column("image", ImageFeature(decode=False))
        result[split] = relabelled(dataset, class_names, f"the {split} split of {source}")
    return DatasetDict(result)


def _is_image(feature: Any) -> bool:
    struct = isinstance(feature, dict) and {"bytes", "path"} <= feature.keys()
    return isinstance(feature, ImageFeature) or struct


def _is_label(feature: Any) -> bool:
    return isinstance(feature, ClassLabel) or (
        isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "bool", "string", "large_string"))
    )


def _column(features: Features, given: str | None, names: tuple[str, ...], fits, kind: str, source: str) -> str:
    """The column of a kind: the one given, else one with a usual name, else the only one that fits."""
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
    raise ValueError(
        f"{source} has {'several' if fitting else 'no'} columns that could hold the {kind}s; its columns are "
        f"{existing}. Name one with --{kind}_column_name."
    )


def _type_name(feature: Any) -> str:
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__


def _label_names(dataset: Dataset, column: str, source: str) -> list[str]:
    """The class names of a label column: those it declares, or its distinct values in order."""
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        names = list(feature.names)
    else:
        values = dataset.unique(column)
        if None in values:
            raise ValueError(f"the column {column!r} of {source} has rows without a label: fill or remove them.")
        names = [str(value) for value in sorted(values)]
    if len(names) < 2:
        raise ValueError(f"{source} has one class, {', '.join(names)}; a classifier needs at least two.")
    return names


def relabelled(dataset: Dataset, class_names: list[str], source: str) -> Dataset:
    """The same images with labels that index `class_names`, matched by name.

    Raises:
        ValueError: if a label is missing or not among the names.
    """
    feature = dataset.features["label"]
    if isinstance(feature, ClassLabel) and list(feature.names) == list(class_names):
        if any(label is None or label < 0 for label in dataset["label"]):
            raise ValueError(f"{source} has rows without a label: choose another split, or remove them.")
        return dataset
    values = dataset["label"]
    if isinstance(feature, ClassLabel):
        values = [None if value is None or value < 0 else feature.names[value] for value in values]
    if any(value is None for value in values):
        raise ValueError(f"{source} has rows without a label: choose another split, or remove them.")
    index = {name: label for label, name in enumerate(class_names)}
    unknown = sorted({str(value) for value in values} - index.keys())
    if unknown:
        raise ValueError(
            f"{source} has labels that are not among the {len(class_names)} classes "
            f"{', '.join(class_names[:MOST_NAMED])}{' …' if len(class_names) > MOST_NAMED else ''}: "
            f"{', '.join(unknown[:MOST_NAMED])}{' …' if len(unknown) > MOST_NAMED else ''}."
        )
    labels = [index[str(value)] for value in values]
    dataset = dataset.remove_columns("label").add_column("label", labels)
    return dataset.cast_column("label", ClassLabel(names=list(class_names)))


def with_splits(splits: DatasetDict, *, validation_share: float, test_share: float, seed: int) -> DatasetDict:
    """Add the splits that the source lacks, taken from `train` with the share of every class preserved.

    Args:
        splits: what `load_images` returned.
        validation_share: share of `train` for a `validation` split, if there is none; 0 for none.
        test_share: share of `train` for a `test` split, if there is none; 0 for none.
        seed: of the choice; the same seed gives the same images.

    Raises:
        ValueError: if a share leaves one of the two parts without an image.
    """
    splits = DatasetDict(splits)
    for name, share in (("test", test_share), ("validation", validation_share)):
        if name in splits or share == 0:
            continue
        train = splits["train"]
        size = round(share * train.num_rows)
        if not 0 < size < train.num_rows:
            raise ValueError(
                f"a share of {share} for the {name} split of {train.num_rows} images gives {size}: give other shares, "
                "or more images."
            )
        counts = np.bincount(train["label"], minlength=train.features["label"].num_classes)
        # A stratified choice needs two images of each class that occurs, and a place for each in both parts.
        stratify = counts[counts > 0].min() > 1 and min(size, train.num_rows - size) >= (counts > 0).sum()
        parts = train.train_test_split(size, seed=seed, stratify_by_column="label" if stratify else None)
        splits["train"], splits[name] = parts["train"], parts["test"]
    return DatasetDict({name: splits[name] for name in SPLIT_NAMES if name in splits})


# --- Reading images --------------------------------------------------------------------------------------------------


class BadImageError(ValueError):
    """An image that cannot be read; its text is one sentence that names the image."""


def read_image(image: Any) -> Image.Image:
    """Decode one image to 8-bit RGB, upright.

    EXIF rotation is applied, as by transformers' pipelines; 16-bit grey values are scaled to 8 bits (a plain conversion
    would cut them off at 255); other modes (grey, palette, CMYK, alpha) go through Pillow's own conversion, as in
    transformers' processors.

    Args:
        image: a path, a PIL image, or a row of an undecoded image column, `{"bytes": …, "path": …}`.

    Raises:
        BadImageError: if it is missing, empty, corrupt, truncated, of 32-bit values whose range is unknown, or so large
            that it may be a decompression bomb.
    """
    name = _image_name(image)
    try:
        picture = image if isinstance(image, Image.Image) else Image.open(_image_file(image))
        picture.load()
    except FileNotFoundError as error:
        raise BadImageError(f"there is no image {name}.") from error
    except UnidentifiedImageError as error:
        raise BadImageError(f"{name} is not an image that can be read (is it empty, or of another format?).") from error
    except Image.DecompressionBombError as error:
        raise BadImageError(f"{name} is refused, it may be a decompression bomb: {error}") from error
    except Exception as error:  # Pillow's decoders raise many kinds
        raise BadImageError(f"{name} cannot be decoded, it is corrupt or truncated: {error}.") from error
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        picture = _eight_bit(picture, name)
    return picture.convert("RGB")


def _image_name(image: Any) -> str:
    if isinstance(image, dict):
        image = image.get("path") or "an image without a name"
    return getattr(image, "filename", "") or "an image" if isinstance(image, Image.Image) else str(image)


def _image_file(image: Any) -> Any:
    if not isinstance(image, dict):
        return image
    return image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"])


def _eight_bit(picture: Image.Image, name: str) -> Image.Image:
    """Grey values of more than 8 bits as 8-bit ones."""
    values = np.asarray(picture, dtype=np.float64)
    if picture.mode.startswith("I;16"):
        values = values / 257  # 65,535 becomes 255
    elif values.min() < 0 or values.max() > 255:
        raise BadImageError(
            f"{name} has {picture.mode} pixels from {values.min():g} to {values.max():g}, of no known range: convert "
            "it to 8 or 16 bits."
        )
    return Image.fromarray(values.round().astype(np.uint8))


def find_bad_images(dataset: Dataset, description: str) -> dict[int, str]:
    """Decode every image of a dataset once, with a progress bar: row -> what is wrong with it."""

    def problem(index: int) -> str | None:
        try:
            read_image(dataset[index]["image"])
        except BadImageError as error:
            return f"row {index}: {error}" if dataset[index]["image"]["bytes"] is not None else str(error)
        return None

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        rows = range(dataset.num_rows)
        results = tqdm(pool.map(problem, rows), total=len(rows), desc=description, leave=False, disable=None)
        return {row: found for row, found in zip(rows, results, strict=True) if found is not None}


def without_bad_images(splits: DatasetDict, *, skip: bool) -> tuple[DatasetDict, list[str]]:
    """Check that every image can be read, before hours are spent on training.

    Args:
        splits: the images.
        skip: leave bad images out instead of refusing.

    Returns:
        The readable images, and one sentence for each that was left out.

    Raises:
        ValueError: if images are bad and not to be skipped, or none of a split can be read; it names the first ones.
    """
    result, left_out = {}, []
    for name, dataset in splits.items():
        bad = find_bad_images(dataset, f"checking the images of {name}")
        if bad and not skip:
            raise ValueError(
                f"{len(bad)} of the {dataset.num_rows} images of the {name} split cannot be read; repair or delete "
                f"them, or pass --skip_bad_images. {' '.join(list(bad.values())[:MOST_NAMED])}"
            )
        if len(bad) == dataset.num_rows:
            raise ValueError(f"none of the {dataset.num_rows} images of the {name} split can be read.")
        left_out += list(bad.values())
        result[name] = dataset.select([row for row in range(dataset.num_rows) if row not in bad]) if bad else dataset
    return DatasetDict(result), left_out
