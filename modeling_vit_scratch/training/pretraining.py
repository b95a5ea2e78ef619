# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Pre-training on images without labels: a model learns to paint the patches that are hidden from it.

SimMIM (Xie et al. 2021, arXiv 2111.09886), with transformers' `Trainer`. What comes out knows no classes; training goes
on from it with labelled images, far fewer than it would take from scratch.
"""

import dataclasses
import math
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import DatasetDict
from torch import Tensor
from transformers import AutoModelForMaskedImageModeling, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..data.augmentation import variations
from ..data.model_input import normalisation, preprocessing
from ..model.layers_vit_scratch import height_width
from ..system.interruption import StopSignal
from .masking import BlockMasks, MaskedImages, block_pixels
from .report import EpochReport
from .run import Built, Job, repeated_phrase, run, settle_validation, training_images
from .run_card import FinishedRun
from .run_pictures import draw_losses
from .starting import load_weights, starting_point
from .trainer import ViTTrainer
from .training_arguments import NOT_IN_PRETRAINING, ModelArguments, PretrainingArguments, given_values

METRIC = "validation_loss"
# Images in the picture.
IMAGES_SHOWN = 8


class Pretraining(Job):
    """Masked image modelling: what is in the places that are hidden."""

    labelled = False

    def settle(self) -> None:
        """Refuse what pre-training cannot do, and have the model's loss taken as that of validation."""
        settle(self.arguments)

    def check_splits(self, splits: DatasetDict, checkpoint: str | None) -> None:
        """Any images do."""

    def build_model(self, splits: DatasetDict) -> Built:
        """The model with its decoder."""
        model, processor, origin = build_model(self.arguments.model)
        return Built(model, processor, [origin])

    def build_trainer(self, built: Built, splits: DatasetDict, stop: StopSignal) -> tuple[ViTTrainer, list[str]]:
        """The `Trainer`, and a phrase for each thing done to images; validation has the same masks each time."""
        _, data, augmentation, masking, training = self.arguments
        config, processor = built.model.config, built.processor
        image_size, patch_size = height_width(config.image_size), height_width(config.patch_size)
        vary = variations(augmentation, image_size)
        side = block_pixels(masking.mask_patch_size, image_size, patch_size)
        masks = BlockMasks(
            grid_size=(image_size[0] // patch_size[0], image_size[1] // patch_size[1]),
            block_size=(side // patch_size[0], side // patch_size[1]),
            ratio=masking.mask_ratio,
            seed=training.seed,
        )
        images = training_images(splits["train"], processor, list(vary.values()), self.arguments)
        validation, eval_dataset = settle_validation(training, splits), {}
        if validation is not None:
            fixed = dataclasses.replace(masks, seed=data.split_seed)
            eval_dataset["validation"] = MaskedImages(validation.with_transform(preprocessing(processor)), fixed)
        trainer = ViTTrainer(
            model=built.model,
            args=training,
            train_dataset=MaskedImages(images, masks),
            batch_augmentation=None,
            report=EpochReport(splits["train"].num_rows),
            stop=stop,
            eval_dataset=eval_dataset,
            processing_class=processor,
        )
        hidden = f"{masks.num_hidden} of {math.prod(masks.blocks)} squares of {side}x{side} pixels hidden"
        return trainer, [*vary, *repeated_phrase(self.arguments), hidden]

    def finish(
        self, trainer: ViTTrainer, built: Built, splits: DatasetDict, recipe: dict[str, Any], **more: Any
    ) -> FinishedRun:
        """The loss on the validation split."""
        return FinishedRun.of(trainer, splits, recipe, validation_metrics(trainer), **more)

    def drawing(self, trainer: ViTTrainer, built: Built, run: FinishedRun) -> Callable[[Path], None]:
        """Losses, and a few images as the model saw and painted them."""
        return partial(draw_pretraining, trainer.state.log_history, paint(trainer, built.processor))

    def next_command(self, output: str) -> str:
        """How to fine-tune."""
        return f"fine-tune  vit-scratch train finetune --model {shlex.quote(output)} --data LABELLED"


def pretrain(arguments: PretrainingArguments) -> dict[str, float]:
    """Pre-train, and write a self-contained checkpoint to the output folder.

    Returns:
        `validation_loss`, if there are images to validate on.

    Raises:
        ValueError, Interrupted: as `run` does.
    """
    return run(Pretraining(arguments))


# --- Before training -------------------------------------------------------------------------------------------------


def settle(arguments: PretrainingArguments) -> None:
    """Refuse what pre-training cannot do, and have the model's loss taken as that of validation.

    Raises:
        ValueError: with the argument, and why.
    """
    training = arguments.training
    given = training.given | given_values(arguments.model) | given_values(arguments.data)
    given |= given_values(arguments.augmentation)
    for name, reason in NOT_IN_PRETRAINING.items():
        if name in given:
            raise ValueError(f"{name} {reason}: leave it out.")
    if training.metric_for_best_model != METRIC:
        raise ValueError(f"metric_for_best_model must be {METRIC}, got {training.metric_for_best_model!r}.")
    training.label_names = ["bool_masked_pos"]  # transformers asks for a loss where there is what it calls labels


def build_model(arguments: ModelArguments) -> tuple[PreTrainedModel, BaseImageProcessor, str]:
    """The model, its image processor, and a line that says where the weights come from.

    Raises:
        ValueError: if there is no such preset or checkpoint, it is of another architecture, or the overrides do not
            fit.
    """
    start = starting_point(arguments)
    config = start.config
    config.num_labels = 2  # transformers' default, of which a configuration says nothing: there are no classes
    if config.encoder_stride is not None and height_width(config.encoder_stride) != height_width(config.patch_size):
        raise ValueError(
            f"the encoder_stride {config.encoder_stride} of {arguments.model} is not its patch_size "
            f"{config.patch_size}, so it cannot be pre-trained: set it with --config_overrides."
        )
    if start.source.preset:
        model = AutoModelForMaskedImageModeling.from_config(config, **start.options)
        return model, start.processor, f"new        {arguments.model}, with random weights"
    model, whole = load_weights(start, AutoModelForMaskedImageModeling)
    return model, start.processor, f"loaded     {start.source}{'' if whole else ', with a new decoder'}"


# --- After training --------------------------------------------------------------------------------------------------


def validation_metrics(trainer: ViTTrainer) -> dict[str, float]:
    """The loss of what was trained, on the validation split, if there is one."""
    if not trainer.eval_dataset:
        return {}
    measured = trainer.evaluation_loop(
        trainer.get_eval_dataloader("validation"),
        description="validation",
        prediction_loss_only=True,
        metric_key_prefix="validation",
    ).metrics
    return {METRIC: cast(dict, measured)[METRIC]}


@torch.no_grad()
def paint(trainer: ViTTrainer, processor: BaseImageProcessor) -> list[tuple[np.ndarray, ...]]:
    """A few images (H, W, C) to validate or else to train on; what the model saw of each; and with what it painted."""
    validation: Any = trainer.eval_dataset
    images = validation.get("validation", trainer.train_dataset)
    shown = range(min(IMAGES_SHOWN, len(images))) if validation else next(iter(images.batches(IMAGES_SHOWN)))
    model: Any = trainer.model
    model.eval()
    examples = images.__getitems__(list(shown))
    pixel_values, masks = (
        torch.stack([example[name] for example in examples]).to(trainer.args.device)
        for name in ("pixel_values", "bool_masked_pos")
    )
    painted = model(pixel_values, bool_masked_pos=masks).reconstruction  # (B, C, H, W)
    height, width = height_width(model.config.patch_size)
    grid_size = pixel_values.shape[2] // height, pixel_values.shape[3] // width
    hidden = masks.unflatten(1, grid_size).unsqueeze(1)  # (B, 1, rows, columns)
    hidden = hidden.repeat_interleave(height, 2).repeat_interleave(width, 3)  # (B, 1, H, W)
    mean, std = (torch.tensor(values, device=painted.device)[:, None, None] for values in normalisation(processor))

    def visible(pixels: Tensor) -> np.ndarray:
        return (pixels * std + mean).clamp(0, 1).movedim(1, -1).float().cpu().numpy()  # (B, H, W, C)

    image, painted = visible(pixel_values), visible(painted)
    covered = hidden.movedim(1, -1).cpu().numpy()
    return list(zip(image, np.where(covered, 0.5, image), np.where(covered, painted, image), strict=True))


def draw_pretraining(history: list[dict], pictures: list[tuple[np.ndarray, ...]], path: Path) -> None:
    """Draw one picture of a run, a PNG: losses; and images, what the model saw of them, what it painted.

    Args:
        history: `trainer.state.log_history`.
        pictures: those of `paint`.
        path: where to write it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 * IMAGES_SHOWN, 8.5), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 5))
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    draw_losses(top.subplots(), history)
    bottom.suptitle("images, what the model saw of them, and what it painted in the hidden places")
    places = bottom.subplots(3, IMAGES_SHOWN, squeeze=False)
    for column, rows in zip(places.T, pictures, strict=False):
        for axes, image in zip(column, rows, strict=True):
            axes.imshow(image if image.shape[2] == 3 else image[:, :, 0], cmap="gray", vmin=0, vmax=1)
    for axes in places.flat:
        axes.set_axis_off()
    figure.savefig(path, dpi=100)
