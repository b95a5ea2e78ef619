# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a training recipe may say: transformers' `TrainingArguments`, and our few for the model and the data."""

import dataclasses
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import transformers
import yaml

from .configuration_vit_scratch import ViTScratchConfig, field_defaults

# Fields of the configuration that the data decides.
LABEL_FIELDS = {"id2label", "label2id", "num_classes", "num_labels"}
# Switches of `TrainingArguments` that this job cannot do with.
MUST_BE_OFF = {
    "remove_unused_columns": "would drop the image column",
    "dataloader_drop_last": "would leave out images of validation and test, too",
    "prediction_loss_only": "would leave no predictions to score",
    "batch_eval_metrics": "is for metrics that add up by batches, ours need a whole split",
    "push_to_hub": "would publish before there is a checkpoint to publish; upload the folder when it is finished",
}


@dataclass
class ModelArguments:
    """Which model to train, and from where."""

    _argument_group_name = "model"

    model: str = field(
        default="vit-tiny-patch16-224",
        metadata={
            "help": "A preset's name (trained from scratch), or a checkpoint: a folder or a Hub id (fine-tuned)."
        },
    )
    config_overrides: str = field(
        default="",
        metadata={"help": "Fields of the preset's configuration to change, such as 'depth=4,hidden_size=96'."},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention kernel: eager, sdpa, flash_attention_2 or flex_attention."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that comes with the checkpoint. Only for authors you trust."}
    )

    def __post_init__(self):
        parse_overrides(self.config_overrides)


@dataclass
class DataArguments:
    """Which images to train on, how they are split and varied."""

    _argument_group_name = "data"

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

    Validate, log and save after every epoch, keep the best and the last checkpoint, end with the best, keep the image
    column, and never hide a loss that is not a number.
    """

    _argument_group_name = "training, as in transformers' TrainingArguments"

    output_dir: str | None = field(
        default=None, metadata={"help": "Where the checkpoint goes; by default outputs/<name of the recipe>."}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Delete the run that the output folder holds, and start anew."}
    )
    eval_strategy: Literal["no", "epoch", "steps"] = field(default="epoch", metadata={"help": "When to validate."})
    save_strategy: Literal["no", "epoch", "steps", "best"] | None = field(  # type: ignore[assignment]  # None: see below
        default=None, metadata={"help": "When to save; by default when it validates."}
    )
    logging_strategy: Literal["no", "epoch", "steps"] | None = field(  # type: ignore[assignment]  # likewise
        default=None, metadata={"help": "When to log the training loss; by default when it validates."}
    )
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the best checkpoint."})
    metric_for_best_model: str | None = field(
        default="validation_accuracy", metadata={"help": "Metric that says which checkpoint is best."}
    )
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints to keep besides the best."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay false: the image column is not an argument of the model."}
    )
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses that are not finite."})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Look for parameters without a gradient; a classifier has none."}
    )

    def __post_init__(self):
        for name, reason in MUST_BE_OFF.items():
            if getattr(self, name):
                raise ValueError(f"{name}=True {reason}; leave it false.")
        if self.num_train_epochs <= 0 and self.max_steps <= 0:
            raise ValueError(f"num_train_epochs must be above 0, got {self.num_train_epochs}.")
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        self.given = given_values(self)  # before anything below, or in transformers, derives one value from others
        # Unless told so, accelerate does not let processes on CPUs work together, and transformers allows no bf16.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        # Without worker processes there are none to keep; torch refuses.
        self.dataloader_persistent_workers = self.dataloader_persistent_workers and self.dataloader_num_workers > 0
        by_steps = self.eval_strategy == "steps"
        steps = self.eval_steps or self.logging_steps
        if self.save_strategy is None:
            self.save_strategy, self.save_steps = ("steps", steps) if by_steps else ("epoch", self.save_steps)
        if self.logging_strategy is None:
            self.logging_strategy, self.logging_steps = ("steps", steps) if by_steps else ("epoch", self.logging_steps)
        if self.eval_strategy == "no":
            self.load_best_model_at_end = False  # nothing says which is best
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = not self.metric_for_best_model.endswith(("loss", "error"))
        super().__post_init__()


def given_values(arguments: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    values = {}
    for item in dataclasses.fields(arguments):
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        value = getattr(arguments, item.name, default)
        if item.init and value != default:
            values[item.name] = value
    return values


ARGUMENT_CLASSES: list[Any] = [ModelArguments, DataArguments, TrainingArguments]


class RecipeLoader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as in YAML 1.2 and everywhere else."""


RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_overrides(text: str) -> dict[str, Any]:
    """Fields of the configuration from a text such as "depth=4,image_size=[32,48]".

    Raises:
        ValueError: if it is of another form, or there is no such field.
    """
    fields = sorted({*field_defaults(), *ViTScratchConfig.attribute_map} - LABEL_FIELDS)
    overrides = {}
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\]?)+", text):  # commas inside brackets do not separate
        name, equals, value = item.strip().partition("=")
        if not equals:
            raise ValueError(f"config_overrides must be name=value,name=value,…, got {text!r}.")
        if name in LABEL_FIELDS:
            raise ValueError(f"config_overrides cannot set {name}: the labels are those of the data.")
        if name not in fields:
            raise ValueError(f"config_overrides has the unknown field {name!r}{closest_name(name, fields)}.")
        try:
            overrides[name] = yaml.load(value, RecipeLoader)
        except yaml.YAMLError as error:
            raise ValueError(f"config_overrides has a value for {name} that is not whole: {value!r}.") from error
    return overrides


def closest_name(name: str, known: Iterable[str]) -> str:
    """What may have been meant by an unknown name, in brackets."""
    if name in {*field_defaults(), *ViTScratchConfig.attribute_map}:
        return f" (a field of the model: set it with config_overrides, as '{name}=…')"
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
