# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a training recipe may say: `TrainingArguments`, and our few arguments for the model and the data.

A recipe is a YAML file whose keys are the fields of these three classes; the same names are flags of
`vit-scratch train`, and a flag wins over the recipe.
"""

import dataclasses
import difflib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from transformers import HfArgumentParser

from .presets import recipe_names, recipe_path

RECIPE_SUFFIXES = (".yaml", ".yml")


@dataclass
class ModelArguments:
    """Which model to train, and from where."""

    model: str = field(
        default="vit-tiny-patch16-224",
        metadata={
            "help": "A preset's name (trained from scratch), or a checkpoint: a folder or a Hub id (fine-tuned)."
        },
    )
    config_overrides: str = field(
        default="",
        metadata={"help": "Fields of the configuration to change, such as 'num_hidden_layers=4,hidden_size=96'."},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention kernel: eager, sdpa, flash_attention_2 or flex_attention."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that comes with the checkpoint. Only for authors you trust."}
    )


@dataclass
class DataArguments:
    """Which images to train on, how they are split and varied."""

    data: str = field(
        default="digits",
        metadata={
            "help": "'digits' (scikit-learn's handwritten digits, no download), a folder of class folders, parquet "
            "files (a file, a folder or a pattern), or the id of a Hub dataset."
        },
    )
    data_config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub dataset."})
    image_column_name: str | None = field(default=None, metadata={"help": "Column of the images; found by itself."})
    label_column_name: str | None = field(default=None, metadata={"help": "Column of the labels; found by itself."})
    train_val_split: float = field(
        default=0.15, metadata={"help": "Share of the train split to validate on, if the data has no validation split."}
    )
    train_test_split: float = field(
        default=0.0, metadata={"help": "Share of the train split to test on at the end, if the data has no test split."}
    )
    split_seed: int = field(
        default=0, metadata={"help": "Seed of these two splits; independent of --seed, so that seeds share them."}
    )
    skip_bad_images: bool = field(
        default=False, metadata={"help": "Leave out images that cannot be read, instead of stopping with their names."}
    )
    random_resized_crop: float | None = field(
        default=None,
        metadata={"help": "Train on random crops of at least this share of the image's area, such as 0.08 or 0.5."},
    )
    horizontal_flip: float = field(default=0.0, metadata={"help": "Probability of mirroring a training image."})
    rotation: float = field(default=0.0, metadata={"help": "Rotate training images by up to this many degrees."})
    translation: float = field(
        default=0.0, metadata={"help": "Move training images by up to this share of their width and height."}
    )
    scaling: float = field(
        default=0.0, metadata={"help": "Enlarge or shrink training images by up to this share, such as 0.1."}
    )

    def __post_init__(self):
        for name in ("train_val_split", "train_test_split", "translation", "scaling"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}.")
        if self.train_val_split + self.train_test_split >= 1:
            raise ValueError(
                f"train_val_split {self.train_val_split} and train_test_split {self.train_test_split} leave no image "
                "to train on."
            )
        if not 0 <= self.horizontal_flip <= 1:
            raise ValueError(f"horizontal_flip must be between 0 and 1, got {self.horizontal_flip}.")
        if self.rotation < 0:
            raise ValueError(f"rotation must be 0 degrees or more, got {self.rotation}.")
        if self.random_resized_crop is not None and not 0 < self.random_resized_crop <= 1:
            raise ValueError(f"random_resized_crop must be above 0 and at most 1, got {self.random_resized_crop}.")


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """Transformers' `TrainingArguments` with the defaults that image classification wants.

    Validate and save after every epoch, keep the best and the last checkpoint, end with the best, keep the image
    column, and never hide a loss that is not a number.
    """

    output_dir: str | None = field(
        default=None, metadata={"help": "Where the checkpoint goes; by default outputs/<name of the recipe>."}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Delete the run that the output folder holds, and start anew."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to validate: no, epoch or steps."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save: no, epoch, steps or best."})
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log the training loss."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the best checkpoint."})
    metric_for_best_model: str | None = field(
        default="validation_accuracy", metadata={"help": "Metric that says which checkpoint is best."}
    )
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints to keep besides the best."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay false: the image column is not an argument of the model."}
    )
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses that are not finite."})

    def __post_init__(self):
        # Pinning memory helps copies to a GPU only, and warns where there is none.
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns=True would drop the image column; leave it false.")
        super().__post_init__()


ARGUMENT_CLASSES: list[Any] = [ModelArguments, DataArguments, TrainingArguments]


def parse_recipe(recipe: str, flags: list[str]) -> tuple[ModelArguments, DataArguments, TrainingArguments]:
    """Read a recipe and the flags that win over it.

    Args:
        recipe: name of a shipped recipe, or path of a YAML file.
        flags: command-line flags, `["--num_train_epochs", "3", …]`.

    Raises:
        ValueError: if there is no such recipe, or a key, flag or value is not one of the arguments'.
    """
    path = Path(recipe) if recipe.endswith(RECIPE_SUFFIXES) else recipe_path(recipe)
    values = read_recipe(path)
    values.setdefault("output_dir", os.path.join("outputs", path.stem))
    parser = RecipeParser(ARGUMENT_CLASSES, prog="vit-scratch train RECIPE")
    parser.set_defaults(**values)
    return parser.parse(flags)


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe file.

    Raises:
        ValueError: if it is no file, no YAML mapping, or has a key that is not an argument.
    """
    if not path.is_file():
        raise ValueError(f"there is no recipe {path}; the shipped recipes are {', '.join(recipe_names())}.")
    try:
        text = path.read_text(encoding="utf-8")
        values, strings = yaml.safe_load(text), yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"the recipe {path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"the recipe {path} must hold lines 'key: value', got {type(values).__name__}.")
    known = argument_names()
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ValueError(f"the recipe {path} has the unknown key {key!r}{hint}")
    return {key: _as_flag(value, strings[key]) for key, value in values.items()}


def _as_flag(value: Any, string: Any) -> Any:
    """A value as it would stand on the command line, so that the parser of the flags checks and converts it.

    YAML reads `no` as false and `1e-3` as a string; as flags they are what their fields say.
    """
    if isinstance(value, dict):
        return json.dumps(value)
    return value if value is None or isinstance(value, list) else string


def argument_names() -> list[str]:
    """Every key that a recipe may have."""
    return [item.name for cls in ARGUMENT_CLASSES for item in dataclasses.fields(cls) if item.init]


class RecipeParser(HfArgumentParser):
    """Transformers' parser, but a mistake is a `ValueError` rather than the end of the process."""

    def error(self, message: str):
        """Raise instead of exiting, so that every user error takes one way to the terminal."""
        raise ValueError(f"{message}; 'vit-scratch train --help' lists the flags.")

    def parse(self, flags: list[str]) -> tuple[ModelArguments, DataArguments, TrainingArguments]:
        """The three classes of arguments; an unknown flag is refused, with the closest that exists."""
        *outputs, remaining = self.parse_args_into_dataclasses(
            flags, return_remaining_strings=True, look_for_args_file=False
        )
        if remaining:
            flags = [option.removeprefix("--") for option in self._option_string_actions]
            close = difflib.get_close_matches(remaining[0].removeprefix("--"), flags, n=1)
            self.error(f"unknown flag {remaining[0]}" + (f", did you mean --{close[0]}?" if close else ""))
        model, data, training = outputs
        return model, data, training
