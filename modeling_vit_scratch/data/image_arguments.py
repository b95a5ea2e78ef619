# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a training recipe may say of images: where they are, how they are split, and how they are varied."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

RANGES: dict[str, Callable[[float], bool]] = {
    "at least 0 and below 1": lambda value: 0 <= value < 1,
    "between 0 and 1": lambda value: 0 <= value <= 1,
    "above 0 and at most 1": lambda value: 0 < value <= 1,
    "above 0": lambda value: 0 < value < float("inf"),
    "0 or more": lambda value: 0 <= value < float("inf"),
    "at least 1": lambda value: 1 <= value < float("inf"),
    "between 0 and 4294967295": lambda value: 0 <= value < 2**32,
}


def check_range(arguments: Any, names: Iterable[str], allowed: str) -> None:
    """Refuse a number outside a range; none given is none to refuse.

    Args:
        arguments: whose fields the numbers are.
        names: of the fields.
        allowed: one of `RANGES`.

    Raises:
        ValueError: with the field and its value.
    """
    for name in names:
        value = getattr(arguments, name)
        if value is not None and not RANGES[allowed](value):
            raise ValueError(f"{name} must be {allowed}, got {value}.")


@dataclass
class DataArguments:
    """Which images to train on, and how they are split."""

    _argument_group_name = "data"

    data: str = field(
        default="digits",
        metadata={
            "help": "'digits' (scikit-learn's handwritten digits, no download), a folder of class folders, parquet "
            "files or WebDataset shards (a file, a folder or a pattern), or the id of a Hub dataset."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read the train split while training, for what a disk would not hold: parquet files or WebDataset "
            "shards, also behind URLs ('https://…/train-{000..127}.tar'), or a Hub dataset of them."
        },
    )
    shuffle_buffer_size: int = field(
        default=1000, metadata={"help": "With --streaming: images in memory among which the next one is drawn."}
    )
    data_config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub dataset."})
    image_column_name: str | None = field(default=None, metadata={"help": "Column of the images; found by itself."})
    label_column_name: str | None = field(default=None, metadata={"help": "Column of the labels; found by itself."})
    train_val_split: float = field(
        default=0.15,
        metadata={
            "help": "Share of the train split to validate on, if the data has no validation split. The content of an "
            "image says whether it is set aside, so that more data moves no other image."
        },
    )
    train_test_split: float = field(
        default=0.0, metadata={"help": "Share of the train split to test on at the end, if the data has no test split."}
    )
    split_seed: int = field(
        default=0, metadata={"help": "Seed of these two splits; independent of --seed, so that seeds share them."}
    )
    class_weights: str | None = field(
        default=None,
        metadata={
            "help": "Weights of the classes in the loss: 'auto' (so that each class counts alike, however many images "
            "it has in the train split), or 'cat=1,dog=2.5', where a class with a comma stands in quotation marks, "
            "'\"cat, black\"=2,dog=1', or JSON, '{\"cat, black\": 2}'. The best checkpoint is then chosen by macro F1 "
            "by default."
        },
    )
    strict_images: bool = field(
        default=False, metadata={"help": "Stop at images that cannot be read, instead of leaving them out by name."}
    )

    def __post_init__(self):
        check_range(self, ("train_val_split", "train_test_split"), "at least 0 and below 1")
        check_range(self, ("shuffle_buffer_size",), "at least 1")
        if self.streaming and self.class_weights == "auto":
            raise ValueError(
                "class_weights auto counts the labels of all images, which a stream does not have at hand: give the "
                "weights, as in 'cat=1,dog=2.5'."
            )
        if self.train_val_split + self.train_test_split >= 1:
            raise ValueError(
                f"train_val_split {self.train_val_split} and train_test_split {self.train_test_split} leave no image "
                "to train on."
            )


@dataclass
class AugmentationArguments:
    """How training images are varied; images that are evaluated never are.

    The first five vary an image on its own, before it is normalised; the others a whole batch, on its device.
    """

    _argument_group_name = "augmentation"

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
    rand_augment_num_ops: int = field(
        default=0, metadata={"help": "RandAugment: operations on each image, such as 2; 0 for none."}
    )
    rand_augment_magnitude: int = field(
        default=9, metadata={"help": "RandAugment: strength of the operations, from 1 to 29."}
    )
    color_jitter: float = field(
        default=0.0,
        metadata={"help": "Change brightness, contrast and saturation by up to this share, such as 0.3."},
    )
    random_erasing: float = field(
        default=0.0, metadata={"help": "Probability of overwriting a random rectangle of an image with noise."}
    )
    mixup_alpha: float = field(
        default=0.0, metadata={"help": "Mixup: blend pairs of images by a share from Beta(alpha, alpha); 0 for none."}
    )
    cutmix_alpha: float = field(
        default=0.0,
        metadata={
            "help": "CutMix: paste a rectangle of another image, its share from Beta(alpha, alpha); 0 for none. With "
            "mixup, a batch gets one or the other."
        },
    )
    repeated_augmentation: int = field(
        default=1, metadata={"help": "Variants of an image in a batch; an epoch then sees that share of the images."}
    )
    progressive_image_size: int | None = field(
        default=None,
        metadata={
            "help": "Pixels at which training begins, of the shorter side; the size grows to that of the model over "
            "the first two thirds."
        },
    )

    def __post_init__(self):
        check_range(self, ("translation", "scaling"), "at least 0 and below 1")
        check_range(self, ("horizontal_flip", "color_jitter", "random_erasing"), "between 0 and 1")
        check_range(self, ("rotation", "rand_augment_num_ops", "mixup_alpha", "cutmix_alpha"), "0 or more")
        check_range(self, ("random_resized_crop",), "above 0 and at most 1")
        check_range(self, ("repeated_augmentation", "progressive_image_size"), "at least 1")
        if not 1 <= self.rand_augment_magnitude <= 29:
            raise ValueError(f"rand_augment_magnitude must be from 1 to 29, got {self.rand_augment_magnitude}.")
