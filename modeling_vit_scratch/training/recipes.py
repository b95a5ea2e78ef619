# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Recipes: YAML files whose keys are the fields of the classes of arguments.

The same names are flags of `vit-scratch train` and `vit-scratch pretrain`, and a flag wins over the recipe.
"""

import argparse
import dataclasses
import json
import os
import re
import textwrap
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ..overrides import RecipeLoader, closest_name
from ..presets import recipe_names, recipe_path
from .training_arguments import NOT_IN_PRETRAINING, Arguments, PretrainingArguments, TrainingArguments, given_values
from .vetting import settings_of_others

AnyArguments = Arguments | PretrainingArguments
# Verb -> what its recipes say.
KINDS: dict[str, type[AnyArguments]] = {"train": Arguments, "pretrain": PretrainingArguments}
# Besides optional numbers, what the word none switches off; others may be called so.
OFF_BY_NONE = ("activation_checkpointing_kwargs", "class_weights", "lr_scheduler_kwargs", "optim_args")
RECIPE_SUFFIXES = (".yaml", ".yml")
# Of a machine, a moment or an account, or secret: no part of the recipe that repeats a run.
NOT_IN_RECIPE = {
    "output_dir",
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "local_rank",
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
    "hub_revision",
    "hub_images",
    "hub_token",
}


def parse_recipe(recipe: str, flags: list[str], verb: str = "train") -> Any:
    """Read a recipe and the flags that win over it.

    Args:
        recipe: name of a shipped recipe, or path of a YAML file.
        flags: command-line flags, `["--num_train_epochs", "3", …]`.
        verb: what the recipe is for.

    Returns:
        The `Arguments` of `train`, the `PretrainingArguments` of `pretrain`.

    Raises:
        ValueError: if there is no such recipe, or a key, flag or value is not one of the arguments'.
    """
    path = Path(recipe) if recipe.endswith(RECIPE_SUFFIXES) else recipe_path(recipe)
    values = read_recipe(path, verb)
    parser = RecipeParser(verb)
    # Values pass through the same checks and conversions as flags.
    as_flags = [f"--{key}={value}" for key, value in values.items() if isinstance(value, str)]
    try:
        converted, _ = parser.parse_known_args(as_flags)
    except ValueError as error:
        raise ValueError(f"the recipe {path}: {error}") from error
    parser.set_defaults(output_dir=os.path.join("outputs", path.stem))
    parser.set_defaults(
        **{key: getattr(converted, key) if isinstance(value, str) else value for key, value in values.items()}
    )
    return parser.parse(flags)


def read_recipe(path: Path, verb: str = "train") -> dict[str, Any]:
    """The keys and values of a recipe file; every scalar as the text that stands in the file.

    YAML 1.1 would read `no` as false, where `eval_strategy` means the word: what a text means, its field says.

    Raises:
        ValueError: if it is no file or no YAML mapping, or if a key is not an argument, or its value a list, a mapping
            or nothing where the argument is none.
    """
    if not path.is_file():
        raise ValueError(f"there is no recipe {path}; the shipped recipes are {', '.join(recipe_names())}.")
    try:
        text = path.read_text(encoding="utf-8")
        values, texts = yaml.load(text, RecipeLoader), yaml.load(text, yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"the recipe {path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"the recipe {path} must hold lines 'key: value', got {type(values).__name__}.")
    kinds = argument_kinds(verb)
    for key, value in values.items():
        if key not in kinds:
            raise ValueError(f"the recipe {path} has the unknown key {key!r}{_hint(str(key), verb)}.")
        if key == "class_weights" and isinstance(value, dict):
            values[key] = json.dumps(value)
        elif value is not None and not isinstance(value, list | dict):
            values[key] = texts[key]
        elif type(value) not in kinds[key]:
            what = f"the value {value}, which must be a single one" if value else "no value; leave the line out"
            raise ValueError(f"the recipe {path} gives {key!r} {what}.")
    return values


def _hint(name: str, verb: str) -> str:
    """What may have been meant by an unknown name, in brackets."""
    for other in KINDS:
        if name in argument_kinds(other):
            return f" (a setting of vit-scratch {other})"
    return closest_name(name, argument_kinds(verb))


def argument_classes(verb: str) -> list[Any]:
    """The classes whose fields a recipe's keys are."""
    return list(KINDS[verb].__annotations__.values())


def argument_kinds(verb: str = "train") -> dict[str, tuple[type, ...]]:
    """Every key that a recipe may have, with the types that its argument allows."""
    kinds = {}
    for cls in argument_classes(verb):
        hints = typing.get_type_hints(cls)
        for name in (item.name for item in dataclasses.fields(cls) if item.init):
            allowed = typing.get_args(hints[name]) or (hints[name],)
            kinds[name] = tuple(typing.get_origin(kind) or kind for kind in (hints[name], *allowed))
    return kinds


class RecipeParser(HfArgumentParser):
    """Transformers' parser for the flags of a recipe; a mistake is a `ValueError`, not the end of the process."""

    def __init__(self, verb: str = "train"):
        self.verb = verb
        super().__init__(
            argument_classes(verb),
            prog=f"vit-scratch {verb}",
            usage=f"vit-scratch {verb} RECIPE [--flag value …]",
            description=f"{verb.capitalize()} a model by a recipe: a YAML file whose keys are the flags below without "
            f"dashes, or one that ships with the package ({', '.join(recipe_names())}). A flag wins over the recipe.",
            formatter_class=_FlagHelp,
            allow_abbrev=False,
        )
        if verb == "pretrain":
            for action in self._actions:
                if action.dest in NOT_IN_PRETRAINING:
                    action.help = argparse.SUPPRESS
        kinds = argument_kinds(verb)
        for action in self._actions:
            is_number = type(None) in kinds.get(action.dest, ()) and action.type in (int, float)
            if is_number or action.dest in OFF_BY_NONE:
                action.type = _or_none(action.type)
        self.untouched = self.parse_args([])

    def error(self, message: str):
        """Raise instead of exiting, so that every user error takes one way to the terminal."""
        raise ValueError(re.sub(r"(--\w+)/--[\w-]+", r"\1", message).rstrip(".") + ".")

    def parse(self, flags: list[str]) -> Any:
        """The classes of arguments; an unknown flag is refused, with the closest that exists."""
        namespace, remaining = self.parse_known_args(flags)
        if remaining:
            name = remaining[0].partition("=")[0].removeprefix("--").replace("-", "_")
            what = "unknown flag" if remaining[0].startswith("-") else "a flag is expected in place of"
            self.error(f"{what} {remaining[0]}{_hint(name, self.verb)}; see vit-scratch {self.verb} --help")
        # Only what was given: some defaults of the parser are not those of the classes.
        given = {name: value for name, value in vars(namespace).items() if value != getattr(self.untouched, name)}
        with settings_of_others():
            return KINDS[self.verb](
                *(
                    cls(**{item.name: given[item.name] for item in dataclasses.fields(cls) if item.name in given})
                    for cls in argument_classes(self.verb)
                )
            )


def _or_none(kind: Any) -> Callable[[str], Any]:
    """What a flag's text means, where the word none takes away what a recipe gives."""

    def convert(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    convert.__name__ = getattr(kind, "__name__", "number")  # argparse says of what an invalid value is
    return convert


class _FlagHelp(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows one spelling of each flag, and breaks no name."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        flag = max(action.option_strings, key=len)
        return f"{flag} {self._format_args(action, action.dest.upper())}".strip()

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # The names of recipes have hyphens, and are to be found whole.
        return textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False)


def recipe_of(arguments: AnyArguments) -> dict[str, Any]:
    """The settings of a run that were given, and its model and data: a recipe that repeats it."""
    recipe: dict[str, Any] = {"model": arguments.model.model, "data": arguments.data.data}
    if isinstance(arguments, PretrainingArguments):
        recipe["mask_ratio"] = arguments.masking.mask_ratio  # tells the recipes of the two verbs apart
    for group in arguments:
        recipe |= group.given if isinstance(group, TrainingArguments) else given_values(group)
    recipe = {name: value for name, value in recipe.items() if name not in NOT_IN_RECIPE}
    return json.loads(json.dumps(recipe, default=lambda value: getattr(value, "value", str(value))))
