# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Files of weights: opened by what they contain, one tensor at a time, and without running anything in them."""

import argparse
import json
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

# Where training code keeps the weights among other things, in the order of preference.
CONTAINERS = ("model_ema", "state_dict_ema", "model", "state_dict", "teacher", "model_state_dict", "encoder")
# What wrappers put in front of every name.
WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.")
WEIGHT_FILES = ("model.safetensors", "*.safetensors", "*.npz", "pytorch_model.bin", "*.pth", "*.pt", "*.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")  # of weights in several files
MAGIC_OF_ZIP, MAGIC_OF_PICKLE = b"PK\x03\x04", b"\x80"
# How files begin that are often taken for weights.
NO_WEIGHTS = {
    b"version https://git-lfs": "it is a Git LFS pointer, which stands for the real file: fetch that with git lfs pull",
    b"<": "it is a web page",
}
# What stands in front of the bytes in a file of torch before 1.6: two numbers, the system, the object.
LEGACY_PICKLES = 4


@dataclass
class Source:
    """A checkpoint as it was found.

    Args:
        path: the file or folder.
        tensors: the weights under their own names; those of a file are read when they are asked for.
        shapes: their shapes.
        config: the `config.json` beside them; empty if there is none.
        notes: what a user must know of how it was opened.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def count(self, prefix: str) -> int:
        """How many numbered parts, such as blocks, there are after a prefix."""
        numbers = {name[len(prefix) :].split(".")[0].split("/")[0] for name in self.shapes if name.startswith(prefix)}
        return len({number for number in numbers if number.isdigit()})


def source_of(tensors: Mapping[str, Any], path: str | Path = "the state dict") -> Source:
    """A `Source` of what a file of torch would hold: a state dict, or one among other things."""
    state, notes = _unwrapped(tensors, Path(path))
    return Source(Path(path), state, {name: tuple(tensor.shape) for name, tensor in state.items()}, notes=notes)


def open_source(path: str | Path) -> Source:
    """Open a file of weights, or a folder with one and its `config.json`.

    Raises:
        ValueError: if there is none, it is not whole, or it holds anything but tensors.
    """
    path = Path(path)
    config_file = (path if path.is_dir() else path.parent) / "config.json"
    config = read_json(config_file) if config_file.is_file() else {}
    files = _files_of(path)
    if len(files) == 1 and _kind_of(files[0]) == "npz":
        arrays = NpzTensors(files[0])
        return Source(path, arrays, arrays.shapes, config)
    source = source_of({name: tensor for file in files for name, tensor in _read(file).items()}, path)
    source.config = config
    return source


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ValueError: if it is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a whole JSON file: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(value).__name__}.")
    return value


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"there is no checkpoint {path}.")
    for index in INDEXES:
        if (path / index).is_file():
            return _parts_of(path / index)
    for suffix in WEIGHT_FILES:
        found = sorted(file for file in path.glob(suffix) if file.is_file())
        if len(found) > 1:
            raise ValueError(f"{path} holds {len(found)} files of weights, {found[0].name} and others: name one.")
        if found:
            return found
    raise ValueError(f"{path} holds no weights: looked for {', '.join(WEIGHT_FILES)}.")


def _parts_of(index: Path) -> list[Path]:
    """The files beside an index among which the weights are shared out."""
    weight_map = read_json(index).get("weight_map")
    names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    if not names:
        raise ValueError(f"{index} names no files of weights.")
    strange = [name for name in names if Path(name).name != name]
    if strange:
        raise ValueError(f"{index} names {strange[0]}, which is no file beside it.")
    lacking = [name for name in names if not (index.parent / name).is_file()]
    if lacking:
        raise ValueError(f"{index.parent} is not whole: {', '.join(lacking)} is missing.")
    return [index.parent / name for name in names]


def _kind_of(file: Path) -> str:
    """What a file is, by its first bytes."""
    try:
        with file.open("rb") as stream:
            start = stream.read(32)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}.") from error
    if not start:
        raise ValueError(f"{file} is empty.")
    names = _entries(file) if start.startswith(MAGIC_OF_ZIP) else []
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    if start[8:9] == b"{":  # after a length, whose first byte can be that of a pickle
        return "safetensors"
    if start.startswith(MAGIC_OF_PICKLE):
        return "torch"
    known = [what for beginning, what in NO_WEIGHTS.items() if start.lstrip().startswith(beginning)]
    what = known[0] if known else "it is neither safetensors, nor saved by torch, nor an .npz"
    raise ValueError(f"{file} is no file of weights: {what}.")


def _entries(file: Path) -> list[str]:
    """The names in a zip archive; its table of contents is at the end."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{file} is not whole: it begins like a zip archive and does not end like one.") from error


def _sentence(error: Exception) -> str:
    """The first sentence of what a library says, on one line."""
    return (" ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__) + "."


def _read(file: Path) -> Mapping[str, Any]:
    return _read_safetensors(file) if _kind_of(file) == "safetensors" else _read_torch(file)


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no dict
    except Exception as error:
        raise ValueError(f"{file} is not a whole safetensors file: copy or download it again.") from error


def _read_torch(file: Path) -> Mapping[str, Any]:
    try:
        # Training code keeps its arguments beside the weights, in a class that holds values and runs nothing.
        allowed = torch.serialization.safe_globals([argparse.Namespace])
        with warnings.catch_warnings(), allowed, file.open("rb") as stream:
            warnings.simplefilter("ignore")  # what is wrong is said once, below
            value = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{file} cannot be read: {_reason(error, whole=not _is_cut(file))}") from error
    if not isinstance(value, Mapping):
        raise ValueError(f"{file} must hold a state dict, got {type(value).__name__}.")
    return value


def _reason(error: Exception, *, whole: bool) -> str:
    """Why torch did not read a file; its own words, where it thinks of code, advise to run that."""
    message = " ".join(str(error).split())
    if "weights_only" not in message:
        return f"it is not whole: {_sentence(error)}"
    if not whole:
        return "it is not whole."
    named = re.search(r"GLOBAL (\S+)", message)
    what = f" ({named[1]})" if named else ""
    return f"it holds Python objects other than tensors{what}, which could run code, so it is not opened."


def _is_cut(file: Path) -> bool:
    """Whether a pickle ends in the middle; it is looked through without running anything."""
    if zipfile.is_zipfile(file):
        return False
    with file.open("rb") as stream:
        try:
            for _ in range(LEGACY_PICKLES):
                if stream.peek(1):
                    for _ in pickletools.genops(stream):
                        pass
        except ValueError:
            return True
    return False


def _unwrapped(value: Mapping[Any, Any], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict inside what training code saves, without the prefixes of wrappers; and a note of a choice."""
    containers = [container for container in CONTAINERS if _tensors_in(value.get(container))]
    tensors = _tensors_in(value.get(containers[0]) if containers else value)
    if not tensors:
        raise ValueError(f"{path} holds no tensors.")
    notes = []
    if len(containers) > 1:
        notes.append(f"took {containers[0]!r} of the {' and '.join(map(repr, containers))} in the file")
    # DINO's file has its projection head beside the backbone.
    while wrapper := next((item for item in WRAPPERS if _share_with(item, tensors) > 0.5), None):
        bare = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
        if len(bare) < len(tensors):
            twice = next(name for name in tensors if wrapper + name in tensors)
            raise ValueError(f"{path} holds two tensors for one, {twice} and {wrapper}{twice}.")
        tensors = bare
    return tensors, notes


def _tensors_in(value: Any) -> dict[str, Tensor]:
    if not isinstance(value, Mapping):
        return {}
    return {name: item for name, item in value.items() if isinstance(name, str) and isinstance(item, Tensor)}


def _share_with(prefix: str, tensors: Mapping[str, Tensor]) -> float:
    return sum(name.startswith(prefix) for name in tensors) / len(tensors)


class NpzTensors(Mapping[str, Tensor]):
    """The arrays of an `.npz` file, each read when it is asked for; nothing pickled in it is touched."""

    def __init__(self, file: Path):
        self.file = file
        self.shapes: dict[str, tuple[int, ...]] = {}
        try:
            with zipfile.ZipFile(file) as archive:
                headers = {entry.removesuffix(".npy"): _header(archive, entry) for entry in archive.namelist()}
        except Exception as error:
            raise ValueError(f"{file} is not a whole .npz file: {_sentence(error)}") from error
        for name, (shape, dtype) in headers.items():
            if dtype.hasobject:
                raise ValueError(f"{file} holds an array of Python objects, {name}, which could run code.")
            self.shapes[name] = shape

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.shapes:
            raise KeyError(name)
        try:
            with np.load(self.file, allow_pickle=False) as archive:
                array = archive[name]
            if array.dtype == np.dtype("V2"):  # numpy has no name for the bfloat16 of JAX
                return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
            return torch.from_numpy(array)
        except Exception as error:
            raise ValueError(f"{self.file} holds {name}, which cannot be read: {_sentence(error)}") from error

    def __contains__(self, name: object) -> bool:
        return name in self.shapes  # the default reads the array

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def _header(archive: zipfile.ZipFile, entry: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, without its values."""
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    return shape, dtype
