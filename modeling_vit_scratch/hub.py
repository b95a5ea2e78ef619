# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The Hub: checkpoints that are fetched by their names."""

import os
import re
from pathlib import Path

from huggingface_hub import snapshot_download

# What to fetch of a repository: its configuration and its weights, and those in safetensors if there are such.
CONFIGURATIONS = ["config.json", "preprocessor_config.json", "model.safetensors.index.json"]
SAFETENSORS = ["model.safetensors", "model-*-of-*.safetensors"]
OTHER_WEIGHTS = ["*.safetensors", "*.npz", "pytorch_model.bin", "*.pth", "*.pt"]


def is_hub_id(source: str) -> bool:
    """Whether a text can be the name of a repository on the Hub, and is nothing on this machine."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) is not None and not os.path.exists(source)


def fetched(source: str, revision: str | None = None) -> Path:
    """A checkpoint on this machine: the file or folder itself, or what the Hub has by that name, in its cache.

    Args:
        source: a path, or a Hub id, with or without timm's "hf-hub:" before it.
        revision: a branch, tag or commit of the Hub's repository.

    Raises:
        ValueError: if nothing is there by that name, or it cannot be fetched.
    """
    name = re.sub(r"^hf[-_]hub:", "", source)
    if not is_hub_id(name):
        if not os.path.exists(source):
            raise ValueError(f"there is no file or folder {source}, and it is no name on the Hub (owner/model).")
        return Path(source)
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=CONFIGURATIONS + SAFETENSORS)
        if not any(Path(folder).glob("*.safetensors")):
            folder = snapshot_download(name, revision=revision, allow_patterns=CONFIGURATIONS + OTHER_WEIGHTS)
    except Exception as error:  # the libraries below raise many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"there is no folder {name}, and the Hub's {name} cannot be fetched: {reason}") from error
    return Path(folder)
