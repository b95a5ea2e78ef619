# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints on the Hub: what is meant by a name, and how it is fetched."""

import os
import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .publishing_vit_scratch import CARD

# What to fetch of a repository: its configuration, its card (for the license) and its weights, and those in safetensors
# if there are such.
CONFIGURATIONS = ["config.json", "preprocessor_config.json", "model.safetensors.index.json"]
SAFETENSORS = ["model.safetensors", "model-*-of-*.safetensors"]
OTHER_WEIGHTS = ["*.safetensors", "*.npz", "pytorch_model.bin", "*.pth", "*.pt"]


def is_hub_id(source: str) -> bool:
    """Whether a text can be the name of a repository on the Hub, and is nothing on this machine."""
    is_file_name = source.endswith(tuple(pattern.lstrip("*") for pattern in OTHER_WEIGHTS))
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) is not None and not is_file_name and not os.path.exists(source)


def without_scheme(source: str) -> str:
    """A source without the "hf-hub:" that timm puts before the names of the Hub."""
    return re.sub(r"^hf[-_]hub:", "", source)


def fetched(source: str, revision: str | None = None) -> Path:
    """A checkpoint on this machine: the file or folder itself, or what the Hub has by that name, in its cache.

    Args:
        source: a path, or a Hub id, with or without timm's "hf-hub:" before it.
        revision: a branch, tag or commit of the Hub's repository.

    Raises:
        ValueError: if nothing is there by that name, or it cannot be fetched.
    """
    name = without_scheme(source)
    if not is_hub_id(name):
        if not os.path.exists(source):
            raise ValueError(f"there is no file or folder {source}, and it is no name on the Hub (owner/model).")
        check_revision(source, revision)
        return Path(source)
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=[CARD, *CONFIGURATIONS, *SAFETENSORS])
        if not any(Path(folder).glob("*.safetensors")):
            folder = snapshot_download(name, revision=revision, allow_patterns=[CARD, *CONFIGURATIONS, *OTHER_WEIGHTS])
    except Exception as error:  # the libraries below raise many kinds
        raise ValueError(f"there is no folder {name}, and {_reason(name, revision, error)}.") from error
    if not any(path for pattern in OTHER_WEIGHTS for path in Path(folder).glob(pattern)):
        raise ValueError(
            f"there is no folder {name}, and the Hub's {name} holds no weights: {', '.join(OTHER_WEIGHTS)}."
        )
    return Path(folder)


def files_of(checkpoint: str | Path) -> list[Path]:
    """The files of a checkpoint on this machine that loading it may read."""
    patterns = [*CONFIGURATIONS, "processor_config.json", *SAFETENSORS, "*.py"]
    return [file for pattern in patterns for file in Path(checkpoint).glob(pattern)]


def check_revision(source: str, revision: str | None) -> None:
    """Refuse a revision of what lies on this machine.

    Raises:
        ValueError: naming it.
    """
    if revision is not None and os.path.exists(source):
        raise ValueError(f"revision {revision} is of a model on the Hub, and {source} is on this machine.")


def _reason(name: str, revision: str | None, error: Exception) -> str:
    """Why the Hub's model could not be fetched, as a clause."""
    if isinstance(error, GatedRepoError):
        return f"the Hub's {name} is gated: ask for access on its page, then log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return f"the Hub's {name} is not found: it does not exist, or it is private (`hf auth login`)"
    if isinstance(error, RevisionNotFoundError):
        return f"the Hub's {name} has no revision {revision}"
    if isinstance(error, LocalEntryNotFoundError):
        return f"the Hub cannot be reached to fetch {name}"
    message = " ".join(str(error).split()).split(". ")[0].rstrip(".")
    return f"the Hub's {name} cannot be fetched: {message or type(error).__name__}"
