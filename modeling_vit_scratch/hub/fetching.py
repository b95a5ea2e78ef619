# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Which checkpoint is meant by a name, and how one on the Hub is fetched."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.distributed
from accelerate.utils import broadcast_object_list
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..model.publishing_vit_scratch import CARD, HUB_ID

# What to fetch of a repository: its configuration, its card (for the license) and its weights, and those in safetensors
# if there are such.
CONFIGURATIONS = ["config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors.index.json"]
SAFETENSORS = ["model.safetensors", "model-*-of-*.safetensors"]
OTHER_WEIGHTS = ["*.safetensors", "*.npz", "pytorch_model.bin", "*.pth", "*.pt"]
# What timm puts before the names of the Hub.
SCHEMES = ("hf-hub:", "hf_hub:")
SHOWN = 7  # digits of a commit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Which checkpoint is meant: settled once, so that all that is read of it is of one state.

    Args:
        name: the path, or a preset's name, as it was given; of the Hub, owner/name.
        place: its folder on this machine, or file; of the Hub, the folder of that commit in the cache.
        commit: of the Hub; None for what lies on this machine.
        preset: whether it has no weights.
    """

    name: str
    place: Path
    commit: str | None = None
    preset: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def hub_id(self) -> str | None:
        """By what name others get it, if it is on the Hub."""
        return None if self.commit is None else self.name


def is_hub_id(source: str) -> bool:
    """Whether a text can be the name of a repository on the Hub, and is nothing on this machine."""
    is_file_name = source.endswith(tuple(pattern.lstrip("*") for pattern in OTHER_WEIGHTS))
    return HUB_ID.fullmatch(source) is not None and not is_file_name and not os.path.exists(source)


def hub_id_of(source: str) -> str | None:
    """The name on the Hub that a source means, with or without a scheme; None if it means no such thing."""
    if source.startswith(SCHEMES):
        name = source.partition(":")[2]
        return name if HUB_ID.fullmatch(name) else None
    return source if is_hub_id(source) else None


def fetched(
    source: str,
    revision: str | None = None,
    *,
    weights: Sequence[list[str]] = (SAFETENSORS, OTHER_WEIGHTS),
    code: bool = False,
) -> Checkpoint:
    """A checkpoint on this machine: the file or folder itself, or what the Hub has by that name, in its cache.

    What comes from the Hub is logged, with its commit, before the weights are fetched.

    Args:
        source: a path, or a Hub id, with or without timm's "hf-hub:" before it.
        revision: a branch, tag or commit of the Hub's repository.
        weights: patterns of files; of several lists, the first of which there are any.
        code: whether to fetch the code, too.

    Raises:
        ValueError: if nothing is there by that name, or it cannot be fetched.
    """
    name = hub_id_of(source)
    if name is None:
        if not os.path.exists(source):
            raise ValueError(f"there is no file or folder {source}, and it is no name on the Hub (owner/model).")
        if revision is not None:
            raise ValueError(f"revision {revision} is of a model on the Hub, and {source} is on this machine.")
        return Checkpoint(source, Path(source))
    sought = "" if source.startswith(SCHEMES) else f"there is no folder {name}, and "
    commit, problem = _settled(name, revision)
    if problem:
        raise ValueError(f"{sought}{problem}.")
    say_where_from(source, name, commit)
    for patterns in weights:
        try:
            folder = _snapshot(name, commit, [*patterns, *(["*.py"] if code else [])])
        except Exception as error:  # the libraries below raise many kinds
            raise ValueError(f"{sought}{_reason(name, revision, error)}.") from error
        if any(path for pattern in patterns for path in folder.glob(pattern)):
            return Checkpoint(name, folder, commit)
    raise ValueError(f"{sought}the Hub's {name} holds no weights: {', '.join(weights[-1])}.")


def say_where_from(source: str, name: str, commit: str | None) -> None:
    """Log that something is from the Hub, once of all processes: who meant a folder of that name has to know.

    Args:
        source: as it was given.
        name: what the Hub has, in words.
        commit: its state, if that is known.
    """
    if os.environ.get("RANK", "0") == "0":
        why = "" if source.startswith(SCHEMES) else f"{source} is no folder here: "
        at = "" if commit is None else f" at commit {commit[:SHOWN]}"
        logger.warning(f"{why}using the Hub's {name}{at}")


def _settled(name: str, revision: str | None) -> tuple[str, str]:
    """The commit that a revision is now, or why there is none: one answer for processes that work together."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    found = ("", "")
    if not together or torch.distributed.get_rank() == 0:
        try:
            found = _snapshot(name, revision, []).name, ""
        except Exception as error:  # the libraries below raise many kinds
            found = "", _reason(name, revision, error)
    return broadcast_object_list([found])[0] if together else found


def files_of(checkpoint: str | Path) -> list[Path]:
    """The files of a checkpoint on this machine that loading it may read."""
    patterns = [*CONFIGURATIONS, "processor_config.json", *SAFETENSORS, "*.py"]
    return [file for pattern in patterns for file in Path(checkpoint).glob(pattern)]


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    """What the Hub has by these patterns, and the configuration and the card, in the cache."""
    return Path(snapshot_download(name, revision=revision, allow_patterns=[CARD, *CONFIGURATIONS, *patterns]))


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
