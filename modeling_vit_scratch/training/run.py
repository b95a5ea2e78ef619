# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A run, whatever is learned in it: check everything, train with transformers' `Trainer`, write the checkpoint."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from datasets import DatasetDict
from transformers import PreTrainedModel, set_seed
from transformers.image_processing_utils import BaseImageProcessor

from ..data.augmentation import Variation
from ..data.sampling import TrainingImages
from ..data.streaming import ImageStream, StreamedImages
from ..evaluation.results import results_lines
from ..system.interruption import StopSignal
from ..text import show
from .finetuning import check_resumable
from .recipes import AnyArguments, recipe_of
from .report import clock, plan
from .run_card import FinishedRun
from .run_folder import (
    PICTURE,
    check_output_dir,
    check_same_optimizer,
    claimed_output_dir,
    draw_picture,
    no_output_dir,
    restore,
    resume_point,
    write_checkpoint,
)
from .run_images import ImagesOfRun, check_same_images, images_per_step, known_images, load_splits, remember
from .trainer import ViTTrainer
from .training_arguments import TrainingArguments
from .vetting import check_schedule, check_settings, settings_of_others


class Built(NamedTuple):
    """What is trained."""

    model: PreTrainedModel
    processor: BaseImageProcessor
    news: list[str]  # lines that say where the weights come from, and which of them are trained


class Job(ABC):
    """What is learned: in what one run differs from another.

    Args:
        arguments: all that its recipe says.
    """

    labelled: ClassVar[bool]

    def __init__(self, arguments: Any):
        self.arguments = arguments

    @abstractmethod
    def settle(self) -> None:
        """Refuse arguments that do not fit together, and fill in those that follow from others."""

    @abstractmethod
    def check_splits(self, splits: DatasetDict, checkpoint: str | None) -> None:
        """Refuse images that do not fit the arguments or the checkpoint from which the run goes on."""

    @abstractmethod
    def build_model(self, splits: DatasetDict) -> Built:
        """The model as it is before the first step."""

    @abstractmethod
    def build_trainer(self, built: Built, splits: DatasetDict, stop: StopSignal) -> tuple[ViTTrainer, list[str]]:
        """The `Trainer`, and a phrase for each way in which it varies images.

        It validates on the split `validation`, if there is one.
        """

    @abstractmethod
    def finish(self, trainer: ViTTrainer, built: Built, splits: DatasetDict, recipe: dict[str, Any], **more: Any):
        """Measure what was trained, and gather what there is to say of the run, a `FinishedRun`."""

    @abstractmethod
    def drawing(self, trainer: ViTTrainer, built: Built, run: FinishedRun) -> Callable[[Path], None] | None:
        """What draws the picture of the run; called in all processes, each of which may have a part of the weights."""

    @abstractmethod
    def next_command(self, output: str) -> str:
        """The line that says what can be done with the checkpoint now."""


def run(job: Job) -> dict[str, float]:
    """Train, measure, and write a self-contained checkpoint to the output folder.

    Returns:
        The final metrics, each named by its split.

    Raises:
        ValueError: if the arguments, the data or the output folder will not do, before anything is trained; or if
            training failed.
        Interrupted: if the process was asked to end; there is a checkpoint to go on from.
    """
    began = time.monotonic()
    training = job.arguments.training
    check_settings(training)
    job.settle()
    recipe = recipe_of(job.arguments)
    restore(training)
    checkpoint = resume_point(training, recipe)
    check_output_dir(training, recipe, checkpoint)
    images = load_splits(job.arguments.data, labelled=job.labelled, known=known_images(training))
    job.check_splits(images.splits, checkpoint)
    if checkpoint is not None:
        check_same_images(checkpoint, images.fingerprint, training)
        check_same_optimizer(checkpoint, recipe)
    set_seed(training.seed)
    built = job.build_model(images.splits)
    if checkpoint is not None:
        check_resumable(built.model, checkpoint)
        built.news[0] = f"resumed    {checkpoint}"
    stop = StopSignal()
    with settings_of_others(), no_output_dir(training):
        trainer, varied = job.build_trainer(built, images.splits, stop)
    check_schedule(trainer)
    trainer.add_callback(ImagesOfRun(images.fingerprint, images_per_step(training)))
    say(training, [*images.news, *built.news, *plan(trainer, images.splits, varied), ""])
    keep = checkpoint is not None or not training.overwrite_output_dir
    with claimed_output_dir(trainer, recipe, keep=keep):
        remember(training, images.known)
        with stop.listening():
            trainer.train(resume_from_checkpoint=checkpoint)
        more = {"seconds": time.monotonic() - began, "resumed": checkpoint is not None, "notes": images.notes}
        finished = job.finish(trainer, built, images.splits, recipe, **more)
        write_checkpoint(trainer, finished, sample=first_image(images.splits))
        draw = job.drawing(trainer, built, finished)
        trainer.end_workers()
        closing = [*draw_picture(trainer, draw), *_closing(finished, job, str(training.output_dir))]
    say(training, ["", *results_lines(finished.results, finished.metrics), "", *closing])
    if training.push_to_hub:
        say(training, trainer.push_to_hub())
    return finished.metrics


def _closing(finished: FinishedRun, job: Job, output: str) -> list[str]:
    picture = os.path.join(output, PICTURE)
    which = f"best {finished.chosen_by}" if finished.chosen_by else "the last one"
    return [
        f"trained    in {clock(finished.seconds)}; checkpoint {output} ({which})",
        *([f"picture    {picture}"] if os.path.exists(picture) else []),
        job.next_command(output),
    ]


def first_image(splits: DatasetDict) -> Any:
    """An image of the last split, of those that the model was least chosen by."""
    return next(iter(list(splits.values())[-1]))["image"]


def say(arguments: TrainingArguments, lines: list[str]) -> None:
    """Print lines, once however many processes there are."""
    if arguments.process_index == 0:
        show(lines)


# --- What the jobs share ---------------------------------------------------------------------------------------------


def training_images(
    train_split: Any, processor: BaseImageProcessor, steps: list[Variation], arguments: AnyArguments
) -> TrainingImages:
    """The images that are trained on, in memory's reach or streamed, varied by these steps.

    Raises:
        ValueError: if variants of an image are to be in a batch of a stream.
    """
    seed, strict = arguments.training.seed, arguments.data.strict_images
    repeats = arguments.augmentation.repeated_augmentation
    if not isinstance(train_split, ImageStream):
        return TrainingImages(train_split, processor, steps, seed, strict, repeats)
    if repeats > 1:
        raise ValueError("repeated_augmentation is not for images that are streamed: leave it out.")
    return StreamedImages(train_split, processor, steps, seed, strict)


def repeated_phrase(arguments: AnyArguments) -> list[str]:
    """What is said of several variants of an image in a batch, if there are."""
    repeated = arguments.augmentation.repeated_augmentation
    return [f"{repeated} variants of an image in a batch"] if repeated > 1 else []


def settle_validation(training: TrainingArguments, splits: DatasetDict) -> Any:
    """The validation split; without one nothing says which checkpoint is best, and a run ends with the last."""
    if "validation" not in splits:
        training.eval_strategy, training.load_best_model_at_end = "no", False
    return splits.get("validation")
