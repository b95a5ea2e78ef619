# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The main job: from images in classes to a checkpoint that anyone can load, with transformers' `Trainer`."""

import os
import shlex
import time
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    set_seed,
)
from transformers.image_processing_utils import BaseImageProcessor

from ..data.arguments import DataArguments
from ..data.augmentation import Variation, variations
from ..data.batch_augmentation import BatchAugmentation
from ..data.images import without_bad_images
from ..data.loading import load_images
from ..data.preprocessing import normalisation, preprocessing
from ..data.sampling import TrainingImages
from ..data.splits import with_splits
from ..data.streaming import ImageStream, StreamedImages, stream_images
from ..evaluation.metrics import compute_metrics
from ..evaluation.results import SplitResults, results_lines
from ..interruption import StopSignal
from ..layers_vit_scratch import height_width
from .arguments import Arguments, TrainingArguments
from .card import FinishedRun
from .finetuning import check_finetuning, check_resumable, merge, prepare
from .losses import ClassificationLoss, class_weights
from .recipes import AnyArguments, recipe_of
from .report import EpochReport, clock, plan
from .run_folder import (
    PICTURE,
    SAMPLE,
    check_output_dir,
    check_same_labels,
    claimed_output_dir,
    resume_point,
    write_checkpoint,
)
from .starting import build_model
from .trainer import ViTTrainer


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
    recipe = recipe_of(arguments)
    checkpoint = resume_point(training, recipe)
    check_output_dir(training, recipe, checkpoint)
    splits, news = load_splits(arguments.data)
    label_names = splits["train"].features["label"].names
    if checkpoint is not None:
        check_same_labels(checkpoint, label_names)
    check_metric(training, splits)
    set_seed(training.seed)
    model, processor, origin = build_model(arguments.model, label_names)
    adapted, tuned = prepare(model, arguments.model)
    if checkpoint is not None:
        check_resumable(model, checkpoint)
        origin = f"resumed    {checkpoint}"
    stop = StopSignal()
    trainer, varied = build_trainer(model, processor, splits, arguments, stop)
    say(training, [*news, origin, *tuned, *plan(trainer, splits, varied), ""])
    keep = checkpoint is not None or not training.overwrite_output_dir
    with claimed_output_dir(training, recipe, keep=keep):
        with stop.listening():
            trainer.train(resume_from_checkpoint=checkpoint)
        seconds = time.monotonic() - began
        adapter = merge(adapted) if adapted else {}
        more = {"model": model, "adapter": adapter, "seconds": seconds, "resumed": checkpoint is not None}
        run = finished_run(trainer, processor, splits, recipe, **more)
        trainer.end_workers()
        write_checkpoint(trainer, run, sample=first_image(splits))
    say(training, ["", *results_lines(run.results, run.metrics), "", *_closing(run, str(training.output_dir))])
    if training.push_to_hub:
        say(training, trainer.push_to_hub())
    return run.metrics


def first_image(splits: DatasetDict) -> Any:
    """An image of the last split, of those that the model was least chosen by."""
    return next(iter(list(splits.values())[-1]))["image"]


def say(arguments: TrainingArguments, lines: list[str]) -> None:
    """Print lines, once however many processes there are."""
    if arguments.process_index == 0:
        print(*lines, sep="\n", flush=True)


def _closing(run: FinishedRun, output: str) -> list[str]:
    picture, sample = os.path.join(output, PICTURE), os.path.join(output, SAMPLE)
    which = f"best {run.chosen_by}" if run.chosen_by else "the last one"
    return [
        f"trained    in {clock(run.seconds)}; checkpoint {output} ({which})",
        *([f"picture    {picture}"] if os.path.exists(picture) else []),
        f"predict    vit-scratch predict {shlex.quote(output)} {shlex.quote(sample)}",
    ]


# --- Before training -------------------------------------------------------------------------------------------------


def load_splits(data: DataArguments) -> tuple[DatasetDict, list[str]]:
    """The splits that the arguments ask for, every image checked, and a line for each image that was left out."""
    where: dict[str, Any] = {
        "config_name": data.data_config_name,
        "image_column_name": data.image_column_name,
        "label_column_name": data.label_column_name,
    }
    if data.streaming:
        return with_stream(*stream_images(data.data, **where, buffer_size=data.shuffle_buffer_size), data)
    splits = load_images(data.data, **where)
    splits = with_splits(
        splits, validation_share=data.train_val_split, test_share=data.train_test_split, seed=data.split_seed
    )
    splits, left_out = without_bad_images(splits, strict=data.strict_images)
    return splits, [f"left out   {sentence}" for sentence in left_out]


def with_stream(stream: ImageStream, others: DatasetDict, data: DataArguments) -> tuple[DatasetDict, list[str]]:
    """What `load_splits` returns, of a train split that is streamed: its images are checked when they come."""
    others, left_out = without_bad_images(others, strict=data.strict_images)
    news = [f"left out   {sentence}" for sentence in left_out]
    if "validation" not in others:
        news.append("validation none: a stream is not divided, and the data has no validation split")
    if data.train_test_split and "test" not in others:
        news.append("test       none: a stream is not divided, and the data has no test split")
    splits: Any = {"train": stream, **others}
    return splits, news


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


def check_metric(arguments: TrainingArguments, splits: DatasetDict) -> None:
    """Refuse a `metric_for_best_model` that validation will not give.

    Raises:
        ValueError: with the names that there are.
    """
    num_labels = len(splits["train"].features["label"].names)
    metrics = ["loss", *compute_metrics(np.zeros((1, num_labels)), np.zeros(1, dtype=int), num_labels)]
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

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        return compute_metrics(np.asarray(prediction.predictions), np.asarray(prediction.label_ids), len(label_names))

    trainer = ViTTrainer(
        model=model,
        args=training,
        train_dataset=training_images(train_split, processor, list(vary.values()), arguments),
        batch_augmentation=on_batches,
        report=EpochReport(train_split.num_rows),
        stop=stop,
        eval_dataset={} if validation is None else {"validation": validation.with_transform(preprocessing(processor))},
        processing_class=processor,
        compute_loss_func=classification_loss(training, arguments.data, train_split),
        compute_metrics=metrics,
    )
    repeated = augmentation.repeated_augmentation
    more = [f"{repeated} variants of an image in a batch"] if repeated > 1 else []
    return trainer, [*vary, *on_batches.phrases, *more]


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
        for metric, value in compute_metrics(result.logits, result.labels, len(label_names)).items()
    }
    final = results.get("test") or results.get("validation")
    return FinishedRun.of(trainer, splits, recipe, metrics, label_names=label_names, results=final, **more)


def predict_split(trainer: Trainer, name: str, dataset: Dataset, processor: BaseImageProcessor) -> SplitResults:
    """The logits of a split, gathered from all processes."""
    output = trainer.predict(dataset.with_transform(preprocessing(processor)), metric_key_prefix=name)
    return SplitResults(name, dataset, np.asarray(output.predictions), np.asarray(output.label_ids))
