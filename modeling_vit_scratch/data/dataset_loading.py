# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Images from wherever they are: the embedded digits, folders, parquet files, WebDataset shards, Hub datasets.

Whatever the source, the result is a `DatasetDict` of `train`, `validation` and `test` (the latter two where there are
any) with two columns: `image`, the undecoded file, and `label`, a `ClassLabel`; or without labels the first alone.
"""

import difflib
import glob
import io
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from datasets import ClassLabel, Dataset, DatasetDict, Features, load_dataset
from datasets import Image as ImageFeature
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from PIL import Image

from ..hub.fetching import say_where_from
from .columns import image_column, images_and_labels, listed, one_form, only_images
from .image_files import images_in, is_hidden, is_image, is_missed, not_read, why_not_read
from .images import UNKNOWN_FORMAT
from .metadata import TABLES, find_tables, labelled
from .splits import SPLIT_NAMES, by_split, check_split_names, files_by_split, named_splits, parted

logger = logging.getLogger(__name__)

# Suffix of a file of many images -> what `datasets` calls its format.
FORMATS = {".parquet": "parquet", ".tar": "webdataset"}
DIGITS_TEST_IMAGES = 360
# Files that the folder of every run of ours holds, and no class folder does.
RUN = ("config.json", "recipe.yaml")


def load_images(
    source: str,
    *,
    config_name: str | None = None,
    image_column_name: str | None = None,
    label_column_name: str | None = None,
    least_classes: int = 2,
    unread: list[Path] | None = None,
) -> DatasetDict:
    """Load labelled images, with the splits that the source itself has.

    Args:
        source: "digits", a folder of class folders (or of `train`, `validation` and `test` folders of them), parquet
            files or WebDataset shards (a file, a folder or a glob pattern), or the id of a Hub dataset.
        config_name: configuration of a Hub dataset.
        image_column_name: column that holds the images; found by type and name if not given.
        label_column_name: column that holds the labels; likewise.
        least_classes: classes that there must be; a classifier needs two to learn, and can be scored on one.
        unread: a list that is given the files of a folder that are not read, which are also said.

    Returns:
        Splits named `train`, `validation`, `test` (one that is alone is called `train`), each with the columns `image`
        and `label`; all have the classes of `train`. A validation or test split without any label is left out.

    Raises:
        ValueError: if there is nothing to load, or it is not labelled images of enough classes.
    """
    if is_digits(source):
        names = filter(None, (config_name, image_column_name, label_column_name))
        for name in names:
            raise ValueError(f"{source} is one table without configurations and columns to name: leave {name!r} out.")
        return _digits()
    if is_image_folder(source):
        splits = _labelled_folders(Path(source).expanduser(), label_column_name, [] if unread is None else unread)
    else:
        tables = _tables(source, config_name)
        splits = images_and_labels(tables, source, image_column_name, label_column_name)
    class_names = splits["train"].features["label"].names
    if len(class_names) < least_classes:
        found = f"only the class {class_names[0]}" if class_names else "no labels"
        raise ValueError(f"{source} has {found}; a classifier needs two classes or more.")
    return splits


def load_unlabelled(
    source: str, *, config_name: str | None = None, image_column_name: str | None = None
) -> DatasetDict:
    """Load images whatever their labels, with the splits that the source itself has, but for a test split.

    Args:
        source: that of `load_images`; the images of a folder may lie at any depth.
        config_name, image_column_name: those of `load_images`.

    Returns:
        Splits named `train` and, where there is one, `validation`, each with the column `image`.

    Raises:
        ValueError: if there is nothing to load, or it is not images.
    """
    if is_digits(source):
        splits = DatasetDict({name: dataset.select_columns("image") for name, dataset in _digits().items()})
    elif is_image_folder(source):
        splits = _folders_of_images(Path(source).expanduser())
    else:
        tables = _tables(source, config_name)
        splits = only_images(tables, image_column(tables["train"].features, image_column_name, source), source)
    splits.pop("test", None)
    return splits


def is_digits(source: str) -> bool:
    """Whether a source is the digits that scikit-learn brings.

    Raises:
        ValueError: if a folder of that name could be meant as well; that of a run could not.
    """
    is_run = any(os.path.isfile(Path(source, name)) for name in RUN)
    if source == "digits" and Path(source).is_dir() and not is_run:
        raise ValueError(
            "digits is both scikit-learn's data set and a folder here: give ./digits for the folder, or rename that."
        )
    return source == "digits"


def is_unlabelled_folder(folder: Path) -> bool:
    """Whether a folder holds images and nothing else that could be classes or a table."""
    return folder.is_dir() and is_image_folder(str(folder)) and _holds_images(folder) and not _subfolders(folder)


# --- The sources -----------------------------------------------------------------------------------------------------


def _digits() -> DatasetDict:
    """Scikit-learn's 1,797 scans of handwritten digits, 8x8 pixels, a fifth of each class kept for testing."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # the scans have 17 grey levels
    rows = {
        "image": [{"bytes": _png(image), "path": f"digit-{index}.png"} for index, image in enumerate(pixels)],
        "label": digits.target,
    }
    scans = Dataset.from_dict(rows, features=_features([str(name) for name in digits.target_names]))
    train, test = parted(scans, DIGITS_TEST_IMAGES, seed=0)
    return DatasetDict({"train": train, "test": test})


def is_image_folder(source: str) -> bool:
    """Whether a source is a local folder whose images are files of their own."""
    path = Path(source).expanduser()
    return path.is_dir() and not files_of_many_images(path)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # Not compressed, so that no version of zlib changes the file: its content says in which split it is.
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _features(class_names: list[str]) -> Features:
    return Features({"image": ImageFeature(decode=False), "label": ClassLabel(names=class_names)})


def _labelled_folders(root: Path, label_column_name: str | None, unread: list[Path]) -> DatasetDict:
    """A folder of images with tables of labels, or of class folders; or of split folders of these."""
    tables = find_tables(root, label_column_name)
    if not tables:
        return _class_folders(root, unread)
    subfolders = _by_name(root)
    folders = by_split(subfolders)
    are_splits = "train" in folders
    if are_splits:
        check_split_names(subfolders, str(root))
    else:
        folders = {"train": root}
    found = labelled({folder: _images(folder, unread) for folder in folders.values()}, tables)
    if not found[folders["train"]]:
        raise ValueError(f"none of the images in {folders['train']} has a row in a table of labels.")
    folders = {split: folder for split, folder in folders.items() if found[folder]}
    if are_splits:
        _say_beside_splits(root, folders, unread)
    logger.warning(
        "the labels of the images in %s are those of %s.", root, listed(each.path for each in tables.values())
    )
    names = {label for _, label in found[folders["train"]]}
    numbers = all(label.lstrip("-").isdecimal() for label in names)
    class_names = sorted(names, key=int if numbers else str)
    label_of = {name: label for label, name in enumerate(class_names)}
    splits = {}
    for split, folder in folders.items():
        unknown = sorted({label for _, label in found[folder]} - names)
        if unknown:
            raise ValueError(f"the {split} split of {root} has labels that train lacks: {listed(unknown)}.")
        labels = np.asarray([label_of[label] for _, label in found[folder]])
        splits[split] = _in_place(root, [image for image, _ in found[folder]], _features(class_names), label=labels)
    return DatasetDict(splits)


def _by_name(root: Path) -> dict[str, Path]:
    """The folders in a folder by their names in small letters, by which splits are known.

    Raises:
        ValueError: if two are names of a split, in large letters and in small ones.
    """
    found: dict[str, Path] = {}
    for path in _subfolders(root):
        other = found.setdefault(path.name.lower(), path)
        if other != path and by_split({path.name.lower(): path}):
            raise ValueError(f"{root} has {other.name} and {path.name}, which name the same split: rename one.")
    return found


def _images(folder: Path, unread: list[Path]) -> list[Path]:
    """The images of a folder; says which other files are there."""
    others: list[Path] = []
    files = list(images_in(folder, others))
    if others and files:
        logger.warning("%s.", not_read(others, folder))
        unread += others
    return files


def _class_folders(root: Path, unread: list[Path]) -> DatasetDict:
    """A folder of class folders, or of split folders of them, read in place."""
    found = {split: _classes(folder, unread) for split, folder in _split_folders(root, unread).items()}
    label_of = {name: label for label, name in enumerate(found["train"])}
    empty = [name for name, files in found["train"].items() if not files]
    if empty:
        raise ValueError(
            f"{root} has class folders without images that are read: {listed(empty)}; fill them or delete them."
        )
    splits = {}
    for split, classes in found.items():
        unknown = [name for name in classes if name not in label_of]
        if unknown:
            raise ValueError(f"the {split} split of {root} has class folders that train lacks: {listed(unknown)}.")
        files = [file for images in classes.values() for file in images]
        labels = np.repeat([label_of[name] for name in classes], [len(images) for images in classes.values()])
        splits[split] = _in_place(root, files, _features(list(label_of)), label=labels)
    return DatasetDict(splits)


def _in_place(root: Path, files: list[Path], features: Features, **columns: np.ndarray) -> Dataset:
    """A column `image` of files that are read where they lie, and others."""
    rows = {"image": [{"bytes": None, "path": str(file)} for file in files], **columns}
    try:
        return Dataset.from_dict(rows, features=features)
    except UnicodeEncodeError as error:
        raise ValueError(f"{root} has files whose names are not Unicode, such as {error.object!r}.") from error


def _folders_of_images(root: Path) -> DatasetDict:
    """A folder of images at any depth, or of nothing but split folders of them."""
    subfolders = _by_name(root)
    folders = by_split(subfolders)
    if "train" not in folders or not _are_splits(subfolders) or _holds_images(root):
        folders = {"train": root}
    else:
        check_split_names(subfolders, str(root))
    splits = {}
    for split, folder in folders.items():
        files = _images(folder, [])
        if not files:
            raise ValueError(f"{folder} holds no images{_files_hint(folder)}.")
        splits[split] = _in_place(root, files, Features({"image": ImageFeature(decode=False)}))
    return DatasetDict(splits)


def _are_splits(names: Iterable[str]) -> bool:
    """Whether all names are of splits."""
    return all(by_split({name: name}) for name in names)


def _split_folders(root: Path, unread: list[Path]) -> dict[str, Path]:
    """Split -> its folder of class folders; all is `train` if that has no folder of its own."""
    subfolders = _by_name(root)
    folders = by_split(subfolders)
    others = subfolders.keys() - {name for names in SPLIT_NAMES.values() for name in names}
    # Beside a "bus", a "train" that has no class folders is a vehicle.
    if "train" not in folders or (others and not _subfolders(folders["train"])):
        return {"train": root}
    check_split_names(subfolders, str(root))
    # Images in no class folder have no labels: a test split whose labels are kept secret is left out.
    secret = {split for split, path in folders.items() if _holds_images(path) and not _subfolders(path)}
    folders = {split: path for split, path in folders.items() if split == "train" or split not in secret}
    _say_beside_splits(root, folders, unread)
    return folders


def _classes(folder: Path, unread: list[Path]) -> dict[str, list[Path]]:
    """Class -> its images, from the class folders in a folder; refuses layouts that would give wrong labels."""
    subfolders = _subfolders(folder)
    own_images = _holds_images(folder)
    if not subfolders:
        what = "images but no class folders" if own_images else "no images"
        raise ValueError(f"{folder} holds {what}: put the images of each class into a folder named after the class.")
    if own_images:
        raise ValueError(f"{folder} holds images beside its class folders: move them into the folder of their class.")
    run = next((path for path in subfolders if all(os.path.isfile(path / name) for name in RUN)), None)
    if run is not None:
        raise ValueError(f"{run} holds a run of vit-scratch, not the images of a class: move it out of {folder}.")
    classes: dict[str, list[Path]] = {}
    not_images: list[Path] = []
    for path in subfolders:
        images = list(images_in(path, not_images))
        if one_form(path.name) in classes:
            raise ValueError(
                f"{folder} has two folders {one_form(path.name)}, which differ in the Unicode form of their names: put "
                "their images into one."
            )
        classes[one_form(path.name)] = images
        if images and images[0].parent != path:
            raise ValueError(
                f"{path} holds folders of images instead of images, one level too deep for a class folder: "
                f"give {path} itself, or flatten it ({listed(sub.name for sub in _subfolders(path))})."
            )
    if not any(classes.values()):
        raise ValueError(f"{folder} holds no images{_files_hint(folder)}.")
    not_images += _beside_folders(folder)
    if not_images:
        logger.warning("%s.", not_read(sorted(not_images), folder))
        unread += not_images
    return classes


def _beside_folders(folder: Path) -> list[Path]:
    """The files in a folder itself that are no images, and may be missed among them."""
    return [path for path in folder.iterdir() if not path.is_dir() and not is_image(path) and is_missed(path)]


def _say_beside_splits(root: Path, splits: Mapping[str, Path], unread: list[Path]) -> None:
    """Say which folders and files lie beside those of the splits, and are in none of them."""
    unused = [path for path in _subfolders(root) if path not in splits.values()]
    if unused:
        names = [path.name + " (no labels)" * bool(by_split({path.name.lower(): path})) for path in unused]
        logger.warning("%s has folders that are not used: %s.", root, listed(names))
    beside = _beside_folders(root)
    if beside:
        logger.warning("%s.", not_read(sorted(beside), root))
        unread += beside
    images = sorted(path.name for path in root.iterdir() if path.is_file() and is_image(path))
    if images:
        logger.warning("%s has images beside the folders of its splits, which are not used: %s.", root, listed(images))


def _say_beside_tables(folder: Path) -> None:
    """Say which images lie beside parquet files or shards, which are read instead."""
    unused = [path.name for path in _subfolders(folder) if next(images_in(path), None) is not None]
    if len(unused) > 1:
        raise ValueError(
            f"{folder} holds folders of images ({listed(unused)}) and files of many: move one kind away, or give a "
            "pattern of the files."
        )
    unused += sorted(path.name for path in folder.iterdir() if path.is_file() and is_image(path))
    if unused:
        logger.warning("%s has images beside its files of many, which are not used: %s.", folder, listed(unused))


def _files_hint(folder: Path) -> str:
    for suffix, what in ((".parquet", "parquet files"), (".tar", "WebDataset shards")):
        for file in folder.rglob(f"*{suffix}"):
            return f", but {what}: give {file.parent}"
    others: list[Path] = []
    if not list(images_in(folder, others)) and any(why_not_read(path) != UNKNOWN_FORMAT for path in others):
        return f": {not_read(others, folder)}"
    return ""


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def _holds_images(folder: Path) -> bool:
    """Whether images lie in a folder itself."""
    first = next(images_in(folder), None)
    return first is not None and first.parent == folder


def _tables(source: str, config_name: str | None) -> dict[str, Dataset]:
    """Splits of files of many images or of a Hub dataset, with the columns that they have."""
    path = Path(source).expanduser()
    is_local = path.exists() or glob.has_magic(source)
    return named_splits(_files(path) if is_local else _hub_dataset(source, config_name), source)


def files_of_many_images(folder: Path) -> list[str]:
    """The parquet files of a folder, or its WebDataset shards.

    Raises:
        ValueError: if it has both.
    """
    found = [sorted(str(file) for file in folder.glob(f"*{suffix}") if file.name not in TABLES) for suffix in FORMATS]
    if all(found):
        patterns = " or ".join(str(folder / f"*{suffix}") for suffix in FORMATS)
        raise ValueError(f"{folder} holds parquet files and WebDataset shards: give one kind of them, {patterns}.")
    return next((files for files in found if files), [])


def _files(path: Path) -> dict[str, Dataset]:
    """Files of many images, in splits if their names say so."""
    if path.exists():
        files = files_of_many_images(path) if path.is_dir() else [str(path)]
        if path.is_dir():
            _say_beside_tables(path)
    else:
        files = sorted(glob.glob(str(path)))
    if not files:
        raise ValueError(f"no file matches {path}.")
    format = FORMATS.get(Path(files[0]).suffix, "parquet")
    if format == "parquet":
        for file in files:
            _check_parquet(Path(file))
    splits = files_by_split(files, str(path))
    try:
        return {
            split: load_dataset(format, data_files=[glob.escape(file) for file in files], split="train")
            for split, files in splits.items()
        }
    except Exception as error:
        raise ValueError(f"{path} could not be read as {format}: {reason_of(error).rstrip('.')}.") from error


def _check_parquet(file: Path) -> None:
    try:
        rows = pyarrow.parquet.read_metadata(file).num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{file} is no parquet file, or a broken one: give parquet files or a folder of class folders."
        ) from error
    if not rows:
        raise ValueError(f"{file} holds no rows.")


def _hub_dataset(name: str, config_name: str | None) -> dict[str, Dataset]:
    path = Path(name).expanduser()
    neighbours = [path.name for path in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, neighbours, n=1, cutoff=0.75)
    nothing = f"there is no folder or file {name}" + (f" (did you mean {path.parent / close[0]}?)" if close else "")
    if "://" in name:
        raise ValueError(f"{name} is a URL, which only training with --streaming true reads: download it first.")
    if not could_be_hub_dataset(name):
        raise ValueError(f"{nothing}.")
    try:
        splits = load_dataset(name, config_name)
    except Exception as error:
        raise ValueError(f"{nothing}, and {why_not(name, error)}") from error
    files = " ".join(url for dataset in splits.values() for url in dataset.info.download_checksums or {})
    say_where_from(name, f"dataset {name}", commit_in(files))
    return splits


def commit_in(files: str) -> str | None:
    """The commit of the Hub's files, which is a part of their addresses."""
    found = re.search(r"@([0-9a-f]{40})\b", files)
    return found[1] if found else None


def could_be_hub_dataset(name: str) -> bool:
    """Whether a name could be that of a dataset on the Hub."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not name.endswith(tuple(FORMATS))


def why_not(name: str, error: BaseException) -> str:
    """Why a Hub dataset could not be loaded, as the end of a sentence."""
    if isinstance(error, ConnectionError):
        return "the Hub cannot be reached."
    return f"the Hub dataset {name} could not be loaded: {reason_of(error).rstrip('.')}."


def reason_of(error: BaseException) -> str:
    """The first line of the error at the bottom of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
