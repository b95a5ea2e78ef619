# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The main job: from images in classes to a checkpoint that anyone can load, with transformers' `Trainer`."""

import os
import shlex
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    set_seed,
)
from transformers.image_processing_utils import BaseImageProcessor

from ..data.augmentation import Variation, variations
from ..data.batch_augmentation import BatchAugmentation
from ..data.image_arguments import DataArguments
from ..data.model_input import normalisation, preprocessing
from ..data.sampling import TrainingImages
from ..data.streaming import ImageStream, StreamedImages
from ..evaluation.metrics import Outcome, compute_metrics, outcome_of
from ..evaluation.results import SplitResults, results_lines
from ..model.layers_vit_scratch import height_width
from ..system.interruption import StopSignal
from ..text import show
from .finetuning import check_finetuning, check_resumable, merge, prepare
from .losses import ClassificationLoss, class_weights
from .recipes import AnyArguments, recipe_of
from .report import EpochReport, clock, plan
from .run_card import FinishedRun
from .run_folder import (
    PICTURE,
    SAMPLE,
    check_output_dir,
    check_same_labels,
    check_same_optimizer,
    claimed_output_dir,
    draw_picture,
    no_output_dir,
    restore,
    resume_point,
    write_checkpoint,
)
from .run_images import ImagesOfRun, check_same_images, images_per_step, known_images, load_splits, remember
from .starting import build_model
from .trainer import ViTTrainer
from .training_arguments import Arguments, TrainingArguments
from .vetting import check_schedule, check_settings, settings_of_others


def train(arguments: Arguments) -> dict[str, float]:
    """Train, evaluate, and write a self-contained checkpoint to the output folder.

    The test split takes no part in any choice: it is evaluated once, at the end, with the best checkpoint.

    Returns:
        The final metrics, each named by its split: `validation_accuracy`, `test_accuracy`, ….

    Raises:
        ValueError: if the arguments, the data or the output folder will not do, before anything is trained; or if
            training failed.
        Interrupted: if the process was asked to end; there is a checkpoint to go on from.
    """
    began = time.monotonic()
    check_finetuning(arguments)
    training = arguments.training
    check_settings(training)
    settle_metric(arguments)
    recipe = recipe_of(arguments)
    restore(training)
    checkpoint = resume_point(training, recipe)
    check_output_dir(training, recipe, checkpoint)
    images = load_splits(arguments.data, known=known_images(training))
    splits, label_names = images.splits, images.splits["train"].features["label"].names
    if checkpoint is not None:
        check_same_labels(checkpoint, label_names)
        check_same_images(checkpoint, images.fingerprint, training)
        check_same_optimizer(checkpoint, recipe)
    check_metric(training, splits)
    set_seed(training.seed)
    model, processor, origin = build_model(arguments.model, label_names)
    adapted, tuned = prepare(model, arguments.model)
    if checkpoint is not None:
        check_resumable(model, checkpoint)
        origin = f"resumed    {checkpoint}"
    stop = StopSignal()
    with settings_of_others(), no_output_dir(training):
        trainer, varied = build_trainer(model, processor, splits, arguments, stop)
    check_schedule(trainer)
    trainer.add_callback(ImagesOfRun(images.fingerprint, images_per_step(training)))
    say(training, [*images.news, origin, *tuned, *plan(trainer, splits, varied), ""])
    keep = checkpoint is not None or not training.overwrite_output_dir
    with claimed_output_dir(trainer, recipe, keep=keep):
        remember(training, images.known)
        with stop.listening():
            trainer.train(resume_from_checkpoint=checkpoint)
        seconds = time.monotonic() - began
        adapter = merge(adapted) if adapted else {}
        more = {"model": model, "adapter": adapter, "seconds": seconds, "resumed": checkpoint is not None}
        more["notes"] = images.notes
        run = finished_run(trainer, processor, splits, recipe, **more)
        trainer.end_workers()
        write_checkpoint(trainer, run, sample=first_image(splits))
        closing = [*draw_picture(trainer, run), *_closing(run, str(training.output_dir))]
    say(training, ["", *results_lines(run.results, run.metrics), "", *closing])
    if training.push_to_hub:
        say(training, trainer.push_to_hub())
    return run.metrics


def first_image(splits: DatasetDict) -> Any:
    """An image of the last split, of those that the model was least chosen by."""
    return next(iter(list(splits.values())[-1]))["image"]


def say(arguments: TrainingArguments, lines: list[str]) -> None:
    """Print lines, once however many processes there are."""
    if arguments.process_index == 0:
        show(lines)


def _closing(run: FinishedRun, output: str) -> list[str]:
    picture, sample = os.path.join(output, PICTURE), os.path.join(output, SAMPLE)
    which = f"best {run.chosen_by}" if run.chosen_by else "the last one"
    return [
        f"trained    in {clock(run.seconds)}; checkpoint {output} ({which})",
        *([f"picture    {picture}"] if os.path.exists(picture) else []),
        f"predict    vit-scratch predict {shlex.quote(output)} {shlex.quote(sample)}",
    ]


# --- Before training -------------------------------------------------------------------------------------------------


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


def settle_metric(arguments: Arguments) -> None:
    """With class weights, which are there for the rare classes, choose by macro F1, unless another metric was named."""
    training = arguments.training
    if arguments.data.class_weights is not None and "metric_for_best_model" not in training.given:
        training.metric_for_best_model = training.given["metric_for_best_model"] = "validation_macro_f1"


def check_metric(arguments: TrainingArguments, splits: DatasetDict) -> None:
    """Refuse a `metric_for_best_model` that validation will not give.

    Raises:
        ValueError: with the names that there are.
    """
    num_labels = len(splits["train"].features["label"].names)
    one = np.zeros(1, dtype=int)
    metrics = ["loss", *compute_metrics(Outcome(one, one, np.ones(1)), one, num_labels)]
    names = [f"validation_{metric}" for metric in metrics]
    if str(arguments.metric_for_best_model).removeprefix("eval_") not in names:
        raise ValueError(
            f"metric_for_best_model must be one of {', '.join(names)}, got {arguments.metric_for_best_model!r}."
        )


def build_trainer(
    model: PreTrainedModel, processor: BaseImageProcessor, splits: DatasetDict, arguments: Arguments, stop: StopSignal
) -> tuple[ViTTrainer, list[str]]:
    """The `Trainer` of the main job, and a phrase for each way in which it varies images.

    It validates on the split `validation`, if there is one.
    """
    training, augmentation = arguments.training, arguments.augmentation
    image_size = height_width(model.config.image_size)
    vary = variations(augmentation, image_size)
    train_split, validation = splits["train"], splits.get("validation")
    label_names = train_split.features["label"].names
    mean, std = normalisation(processor)
    on_batches = BatchAugmentation(
        augmentation,
        image_mean=mean,
        image_std=std,
        patch_size=height_width(model.config.patch_size),
        image_size=image_size,
        num_labels=len(label_names),
    )
    if validation is None:
        # Without it nothing says which checkpoint is best: end with the last.
        training.eval_strategy, training.load_best_model_at_end = "no", False

    loss = classification_loss(training, arguments.data, train_split)

    trainer = ViTTrainer(
        model=model,
        args=training,
        train_dataset=training_images(train_split, processor, list(vary.values()), arguments),
        batch_augmentation=on_batches,
        report=EpochReport(train_split.num_rows),
        stop=stop,
        eval_dataset={} if validation is None else {"validation": validation.with_transform(preprocessing(processor))},
        processing_class=processor,
        compute_loss_func=loss,
        preprocess_logits_for_metrics=partial(kept_of, loss=loss, num_labels=len(label_names)),
        compute_metrics=partial(metrics_of, num_labels=len(label_names)),
    )
    repeated = augmentation.repeated_augmentation
    more = [f"{repeated} variants of an image in a batch"] if repeated > 1 else []
    return trainer, [*vary, *on_batches.phrases, *more]


def kept_of(logits: Tensor, labels: Tensor, *, loss: Callable[..., Tensor], num_labels: int) -> Any:
    """What validation keeps of the logits of a batch: its outcome, and the loss of each image, (B,) all of them."""
    losses = torch.vmap(lambda image, label: loss({"logits": image[None]}, label[None]))(logits, labels)
    return *outcome_of(logits, labels, num_labels), losses


def metrics_of(prediction: EvalPrediction, *, num_labels: int) -> dict[str, float]:
    """The metrics of what validation kept."""
    *outcome, _ = prediction.predictions  # and the losses
    return compute_metrics(Outcome(*outcome), np.asarray(prediction.label_ids), num_labels)


def classification_loss(training: TrainingArguments, data: DataArguments, train_split: Dataset) -> ClassificationLoss:
    """The loss with the smoothing and the class weights that the arguments ask for."""
    weights = None
    if data.class_weights is not None:
        # Of the labels of a stream, of which "auto" was refused, nobody asks.
        labels = np.asarray(train_split["label"][:] if data.class_weights == "auto" else [], dtype=int)
        weights = class_weights(data.class_weights, train_split.features["label"].names, labels)
    return ClassificationLoss(training.label_smoothing_factor, weights)


# --- After training --------------------------------------------------------------------------------------------------


def finished_run(
    trainer: Trainer, processor: BaseImageProcessor, splits: DatasetDict, recipe: dict[str, Any], **more: Any
) -> FinishedRun:
    """Measure what was trained, on every split but `train`, and gather what there is to say of the run."""
    label_names = splits["train"].features["label"].names
    results = {name: predict_split(trainer, name, splits[name], processor) for name in splits if name != "train"}
    metrics = {
        f"{name}_{metric}": value
        for name, result in results.items()
        for metric, value in compute_metrics(result.outcome, result.labels, len(label_names)).items()
    }
    final = results.get("test") or results.get("validation")
    return FinishedRun.of(trainer, splits, recipe, metrics, label_names=label_names, results=final, **more)


def predict_split(trainer: Trainer, name: str, dataset: Dataset, processor: BaseImageProcessor) -> SplitResults:
    """What the model makes of a split, gathered from all processes."""
    output = trainer.predict(dataset.with_transform(preprocessing(processor)), metric_key_prefix=name)
    *outcome, _ = output.predictions  # and the losses
    return SplitResults(name, dataset, Outcome(*outcome), np.asarray(output.label_ids))
