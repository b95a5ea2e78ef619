# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""From a name to a file of `configuration/`: the presets (checkpoints without weights) and the recipes (runs).

A preset's folder is read like any checkpoint's: `AutoConfig.from_pretrained(preset_path("digits"))`, and
`AutoImageProcessor` likewise.
"""

import difflib
import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def shipped_path(relative: str) -> Path:
    """Where a file or folder that ships with the package lies, for example "configuration/models" or "model_card.md".

    A wheel holds it inside the package; a checkout, which an editable install points to, beside it.

    Raises:
        FileNotFoundError: if it lies in neither place.
    """
    # Inside first: beside an installed package lie the files of others.
    candidates = [PACKAGE / relative, PACKAGE.parent / relative]
    for path in candidates:
        if path.exists():
            return path
    raise FileNotFoundError(
        f"{relative} is missing from the installation: looked for {' and '.join(map(str, candidates))}."
    )


def preset_names() -> list[str]:
    """The presets in alphabetical order."""
    return sorted(_presets())


def preset_path(name: str) -> Path:
    """The folder of a preset, with its `config.json` and `preprocessor_config.json`.

    Raises:
        ValueError: if there is no such preset.
    """
    return _find(name, _presets(), "preset")


def recipe_names() -> list[str]:
    """The recipes in alphabetical order."""
    return sorted(_recipes())


def recipe_path(name: str) -> Path:
    """The YAML file of a recipe.

    Raises:
        ValueError: if there is no such recipe.
    """
    return _find(name, _recipes(), "recipe")


def _presets() -> dict[str, Path]:
    return {path.parent.name: path.parent for path in shipped_path("configuration/models").glob("*/config.json")}


def _recipes() -> dict[str, Path]:
    return {path.stem: path for path in shipped_path("configuration/recipes").glob("*.yaml")}


def _find(name: str, paths: dict[str, Path], kind: str) -> Path:
    if name in paths:
        return paths[name]
    closest = difflib.get_close_matches(name, paths, n=1)
    hint = f" (did you mean {closest[0]!r}?)" if closest else ""
    raise ValueError(f"there is no {kind} {name!r}{hint}; the {kind}s are {', '.join(sorted(paths))}.")


def is_preset(model: str) -> bool:
    """Whether a model's name means one with new weights; a name with a slash, or that is a file's, is a checkpoint."""
    return model in preset_names() or not ("/" in model or os.path.exists(model))
