# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The verbs `train` and `pretrain`."""

from collections.abc import Callable
from typing import Any

from ..system.machine import keep_freed_memory
from .parsing import quiet, stoppable


def train(argv: list[str]) -> int:
    """Run `vit-scratch train`; the exit status."""
    return _by_recipe(argv, "train")


def pretrain(argv: list[str]) -> int:
    """Run `vit-scratch pretrain`; the exit status."""
    return _by_recipe(argv, "pretrain")


def _by_recipe(argv: list[str], verb: str) -> int:
    from ..presets import recipe_names, recipe_path

    if not argv or argv[0].startswith("-"):
        if not {"-h", "--help"} & set(argv):
            raise ValueError(f"name a recipe first: one of {', '.join(recipe_names())}, or a YAML file; then flags.")
        from ..training.recipes import RecipeParser

        RecipeParser(verb).print_help()
        return 0
    if not argv[0].endswith((".yaml", ".yml")):
        recipe_path(argv[0])  # a misspelt name is answered before the libraries are loaded
    quiet()
    from ..training.recipes import parse_recipe

    arguments = parse_recipe(argv[0], argv[1:], verb)
    if verb == "train":
        from ..training.classification import train

        run: Callable[[Any], Any] = train
    else:
        from ..training.pretraining import pretrain

        run = pretrain
    keep_freed_memory()
    with stoppable():
        run(arguments)
    return 0
