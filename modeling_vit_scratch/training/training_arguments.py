# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a training recipe may say: transformers' `TrainingArguments`, and our few; those of images are in `data`."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import transformers
from transformers.integrations import is_tensorboard_available

from ..data.image_arguments import AugmentationArguments, DataArguments, check_range
from ..overrides import parse_overrides
from ..system.machine import OneGpu, spare_cores
from .vetting import check_values

# Switches of `TrainingArguments` that this job cannot do with.
MUST_BE_OFF = {
    "remove_unused_columns": "would drop the image column",
    "dataloader_drop_last": "would leave out images of validation and test, too",
    "prediction_loss_only": "would leave no predictions to score",
    "bf16_full_eval": "would round the weights themselves, and the checkpoint would be saved rounded",
    "fp16_full_eval": "would round the weights themselves, and the checkpoint would be saved rounded",
    "batch_eval_metrics": "is for metrics that add up by batches, ours need a whole split",
    "eval_use_gather_object": "would gather what a model makes of images in pieces, and metrics are of the whole",
    "auto_find_batch_size": "would make smaller batches in the middle of a run, and a run goes on by its steps",
}
MUST_BE_ON = {
    "average_tokens_across_devices": "would weigh an image by the process that gets it",
    "eval_do_concat_batches": "would leave a split in pieces, and metrics are of the whole",
    "dataloader_in_order": "would leave the order of the images to chance, and a resumed run repeats it",
}
# What pre-training on images without labels has no use for, and why.
NOT_IN_PRETRAINING = {
    **dict.fromkeys(
        ("label_column_name", "class_weights", "mixup_alpha", "cutmix_alpha", "label_smoothing_factor"),
        "needs labels, and pre-training does without",
    ),
    **dict.fromkeys(
        ("rand_augment_num_ops", "rand_augment_magnitude", "color_jitter", "random_erasing", "progressive_image_size"),
        "is for classifiers; pre-training varies images by crops, mirroring, rotation, translation and scaling",
    ),
    **dict.fromkeys(
        ("finetuning", "lora_rank", "lora_alpha"), "is for fine-tuning, and pre-training trains all of a model"
    ),
    "patch_dropout": "leaves patches out, and pre-training has every patch painted",
    "train_test_split": "is for a test at the end, and pre-training has none",
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
    drop_path_rate: float | None = field(
        default=None, metadata={"help": "Stochastic depth: rate of the last block, rising from 0 at the first."}
    )
    patch_dropout: float | None = field(
        default=None,
        metadata={"help": "Share of the patches to leave out in training, at random; a step costs that share less."},
    )
    finetuning: Literal["full", "linear_probe", "lora"] = field(
        default="full",
        metadata={
            "help": "What of a checkpoint is trained: all of it, the head alone, or the head and low-rank additions "
            "to the blocks (LoRA, with PEFT)."
        },
    )
    lora_rank: int = field(default=8, metadata={"help": "Rank of LoRA's additions."})
    lora_alpha: float = field(default=16.0, metadata={"help": "LoRA's additions count alpha / rank times."})
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention kernel: eager, sdpa, flash_attention_2 or flex_attention."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that comes with the checkpoint. Only for authors you trust."}
    )

    def __post_init__(self):
        parse_overrides(self.config_overrides)
        check_range(self, ("drop_path_rate", "patch_dropout"), "at least 0 and below 1")
        check_range(self, ("lora_rank",), "at least 1")
        check_range(self, ("lora_alpha",), "above 0")


@dataclass
class MaskingArguments:
    """What pre-training hides from the model (SimMIM, Xie et al. 2021, arXiv 2111.09886)."""

    _argument_group_name = "masking"

    mask_ratio: float = field(default=0.6, metadata={"help": "Share of an image to hide."})
    mask_patch_size: int | None = field(
        default=None,
        metadata={
            "help": "Pixels of the sides of the squares that are hidden, a multiple of the model's patch size; by "
            "default about a sixth of the image's side."
        },
    )

    def __post_init__(self):
        check_range(self, ("mask_patch_size",), "at least 1")
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must be above 0 and below 1, got {self.mask_ratio}.")


@dataclass
class TrainingArguments(OneGpu, transformers.TrainingArguments):
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
        default=None,
        metadata={
            "help": "Metric that says which checkpoint is best; by default validation_accuracy, or with class_weights "
            "validation_macro_f1."
        },
    )
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints to keep besides the best."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay false: the image column is not an argument of the model."}
    )
    muon_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Train the matrices of the blocks with Muon at this learning rate, such as 0.02, and the rest with "
            "--optim; from scratch it takes fewer steps. Weight decay goes with the rate: a step shortens a matrix by "
            "muon_learning_rate x weight_decay, and the rest by learning_rate x weight_decay, 20 times less at 1e-3."
        },
    )
    layer_decay: float = field(
        default=1.0,
        metadata={
            "help": "Layer-wise learning-rate decay: each block learns at this share of the rate of the one after it, "
            "such as 0.75; for fine-tuning."
        },
    )
    ema_decay: float = field(
        default=0.0,
        metadata={
            "help": "Keep an exponential moving average of the weights with this decay, such as 0.999; it is what is "
            "evaluated and saved. 0 for none."
        },
    )
    dataloader_num_workers: int | None = field(  # type: ignore[assignment]  # None: see below
        default=None, metadata={"help": "Processes that load images; by default what the machine has to spare."}
    )
    dataloader_persistent_workers: bool = field(default=True, metadata={"help": "Keep them from epoch to epoch."})
    report_to: None | str | list[str] = field(  # noqa: RUF036  # in another order transformers' parser fails
        default=None,
        metadata={"help": "Where to log: tensorboard, wandb, …, or none; by default TensorBoard, if it is installed."},
    )
    hub_strategy: str = field(
        default="end",
        metadata={"help": "When --push_to_hub publishes: at the end, when there is a card with what was measured."},
    )
    hub_images: bool = field(
        default=False,
        metadata={"help": "With --push_to_hub, publish the pictures that show images of the data, too."},
    )
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses that are not finite."})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Look for parameters without a gradient; a classifier has none."}
    )

    def __post_init__(self):
        for name, reason in MUST_BE_OFF.items():
            if getattr(self, name):
                raise ValueError(f"{name}=True {reason}; leave it false.")
        for name, reason in MUST_BE_ON.items():
            if not getattr(self, name):
                raise ValueError(f"{name}=False {reason}; leave it true.")
        if self.train_sampling_strategy != "random":
            raise ValueError(
                f"train_sampling_strategy must be random, got {self.train_sampling_strategy}: images have no length."
            )
        self._check_numbers()
        check_values(self)
        if self.muon_learning_rate is not None and self.layer_decay < 1:
            raise ValueError("layer_decay and muon_learning_rate exclude each other: give one of them.")
        self.given = given_values(self)  # before anything below, or in transformers, derives one value from others
        if self.metric_for_best_model is None:
            self.metric_for_best_model = "validation_accuracy"
        # Unless told so, accelerate does not let processes on CPUs work together, and transformers allows no bf16.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.report_to is None:
            self.report_to = "tensorboard" if is_tensorboard_available() else "none"
        self._settle_workers()
        self._settle_strategies()
        super().__post_init__()

    def _check_numbers(self) -> None:
        if self.max_steps == 0:
            raise ValueError("max_steps must be 1 or more, or -1 for num_train_epochs, got 0.")
        if self.max_steps < 0:
            check_range(self, ("num_train_epochs",), "above 0")
        if self.hub_strategy != "end":
            raise ValueError(
                f"hub_strategy must be end, got {self.hub_strategy}: only the last checkpoint has a card, and no state "
                "of training is published."
            )
        batches = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
        check_range(self, (*batches, "eval_accumulation_steps", "dataloader_prefetch_factor"), "at least 1")
        check_range(self, ("layer_decay",), "above 0 and at most 1")
        check_range(self, ("ema_decay", "adam_beta1", "adam_beta2"), "at least 0 and below 1")
        check_range(self, ("muon_learning_rate",), "above 0")
        check_range(self, ("learning_rate", "weight_decay", "max_grad_norm", "eval_delay"), "0 or more")
        check_range(self, ("adam_epsilon", "warmup_steps", "neftune_noise_alpha"), "0 or more")
        check_range(self, ("label_smoothing_factor",), "between 0 and 1")
        check_range(self, ("eval_steps", "logging_steps", "save_steps"), "above 0")
        check_range(self, ("dataloader_num_workers",), "0 or more")
        check_range(self, ("seed",), "between 0 and 4294967295")

    def _settle_workers(self) -> None:
        if self.dataloader_num_workers is None:
            self.dataloader_num_workers = spare_cores()
        # Without worker processes there are none to keep; torch refuses.
        self.dataloader_persistent_workers = self.dataloader_persistent_workers and self.dataloader_num_workers > 0

    def _settle_strategies(self) -> None:
        by_steps = self.eval_strategy == "steps"
        steps = self.eval_steps or self.logging_steps
        if self.save_strategy is None:
            self.save_strategy, self.save_steps = ("steps", steps) if by_steps else ("epoch", self.save_steps)
        if self.logging_strategy is None:
            self.logging_strategy, self.logging_steps = ("steps", steps) if by_steps else ("epoch", self.logging_steps)
        if self.eval_strategy == "no":
            self.load_best_model_at_end = False  # nothing says which is best
        if self.load_best_model_at_end and self.save_strategy not in (self.eval_strategy, "best"):
            raise ValueError(
                f"save_strategy {self.save_strategy} and eval_strategy {self.eval_strategy} must be the same to end "
                "with the best checkpoint: give both alike, or --load_best_model_at_end false."
            )
        if self.greater_is_better is None:
            self.greater_is_better = not str(self.metric_for_best_model).endswith(("loss", "error"))


@dataclass
class UnlabelledTrainingArguments(TrainingArguments):
    """`TrainingArguments` where there are no labels to score by."""

    metric_for_best_model: str | None = field(
        default="validation_loss", metadata={"help": "Metric that says which checkpoint is best; there is no other."}
    )


def given_values(arguments: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    values = {}
    for item in dataclasses.fields(arguments):
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        value = getattr(arguments, item.name, default)
        if item.init and value != default:
            values[item.name] = value
    return values


class Arguments(NamedTuple):
    """All that a recipe of `vit-scratch train` says."""

    model: ModelArguments
    data: DataArguments
    augmentation: AugmentationArguments
    training: TrainingArguments


class PretrainingArguments(NamedTuple):
    """All that a recipe of `vit-scratch pretrain` says."""

    model: ModelArguments
    data: DataArguments
    augmentation: AugmentationArguments
    masking: MaskingArguments
    training: UnlabelledTrainingArguments
