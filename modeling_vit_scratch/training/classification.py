# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The main job: from images in classes to a checkpoint that anyone can load, with transformers' `Trainer`."""

import os
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor
from transformers import EvalPrediction, Trainer
from transformers.image_processing_utils import BaseImageProcessor

from ..data.augmentation import variations
from ..data.batch_augmentation import BatchAugmentation
from ..data.image_arguments import DataArguments
from ..data.model_input import normalisation, preprocessing
from ..evaluation.metrics import Outcome, compute_metrics, outcome_of
from ..evaluation.results import SplitResults
from ..model.layers_vit_scratch import height_width
from ..system.interruption import StopSignal
from .finetuning import check_finetuning, merge, prepare
from .losses import ClassificationLoss, class_weights
from .report import EpochReport
from .run import Built, Job, repeated_phrase, run, settle_validation, training_images
from .run_card import FinishedRun
from .run_folder import SAMPLE, check_same_labels
from .run_pictures import draw_training
from .starting import build_model
from .trainer import ViTTrainer
from .training_arguments import Arguments, TrainingArguments


class Classification(Job):
    """The main job: which of some classes an image is of."""

    labelled = True

    def settle(self) -> None:
        """With class weights, which are there for the rare classes, choose by macro F1, unless a metric was named."""
        check_finetuning(self.arguments)
        training = self.arguments.training
        if self.arguments.data.class_weights is not None and "metric_for_best_model" not in training.given:
            training.metric_for_best_model = training.given["metric_for_best_model"] = "validation_macro_f1"

    def check_splits(self, splits: DatasetDict, checkpoint: str | None) -> None:
        """Refuse other labels than those of the checkpoint, and a metric that validation will not give."""
        if checkpoint is not None:
            check_same_labels(checkpoint, splits["train"].features["label"].names)
        check_metric(self.arguments.training, splits)

    def build_model(self, splits: DatasetDict) -> Built:
        """The classifier, with what LoRA adds to it."""
        model, processor, origin = build_model(self.arguments.model, splits["train"].features["label"].names)
        self.adapted, tuned = prepare(model, self.arguments.model)
        return Built(model, processor, [origin, *tuned])

    def build_trainer(self, built: Built, splits: DatasetDict, stop: StopSignal) -> tuple[ViTTrainer, list[str]]:
        """The `Trainer`, which augments batches as well, and a phrase for each way in which it varies images."""
        training, augmentation = self.arguments.training, self.arguments.augmentation
        image_size = height_width(built.model.config.image_size)
        vary = variations(augmentation, image_size)
        train_split, validation = splits["train"], settle_validation(training, splits)
        num_labels = len(train_split.features["label"].names)
        mean, std = normalisation(built.processor)
        on_batches = BatchAugmentation(
            augmentation,
            image_mean=mean,
            image_std=std,
            patch_size=height_width(built.model.config.patch_size),
            image_size=image_size,
            num_labels=num_labels,
        )
        loss = classification_loss(training, self.arguments.data, train_split)
        prepared = (
            {} if validation is None else {"validation": validation.with_transform(preprocessing(built.processor))}
        )
        trainer = ViTTrainer(
            model=built.model,
            args=training,
            train_dataset=training_images(train_split, built.processor, list(vary.values()), self.arguments),
            batch_augmentation=on_batches,
            report=EpochReport(train_split.num_rows),
            stop=stop,
            eval_dataset=prepared,
            processing_class=built.processor,
            compute_loss_func=loss,
            preprocess_logits_for_metrics=partial(kept_of, loss=loss, num_labels=num_labels),
            compute_metrics=partial(metrics_of, num_labels=num_labels),
        )
        return trainer, [*vary, *on_batches.phrases, *repeated_phrase(self.arguments)]

    def finish(
        self, trainer: ViTTrainer, built: Built, splits: DatasetDict, recipe: dict[str, Any], **more: Any
    ) -> FinishedRun:
        """Merge what LoRA added, and score every split but `train`."""
        adapter = merge(self.adapted) if self.adapted else {}
        names = splits["train"].features["label"].names
        results = {
            name: predict_split(trainer, name, splits[name], built.processor) for name in splits if name != "train"
        }
        metrics = {
            f"{name}_{metric}": value
            for name, result in results.items()
            for metric, value in compute_metrics(result.outcome, result.labels, len(names)).items()
        }
        final = results.get("test") or results.get("validation")
        more |= {"model": built.model, "adapter": adapter, "label_names": names, "results": final}
        return FinishedRun.of(trainer, splits, recipe, metrics, **more)

    def drawing(self, trainer: ViTTrainer, built: Built, run: FinishedRun) -> Callable[[Path], None] | None:
        """Learning curves, the confusion matrix and examples, if anything was scored."""
        return None if run.results is None else partial(draw_training, trainer.state.log_history, run.results)

    def next_command(self, output: str) -> str:
        """How to predict."""
        return f"predict    vit-scratch predict {shlex.quote(output)} {shlex.quote(os.path.join(output, SAMPLE))}"


def train(arguments: Arguments) -> dict[str, float]:
    """Train, evaluate, and write a self-contained checkpoint to the output folder.

    The test split takes no part in any choice: it is evaluated once, at the end, with the best checkpoint.

    Returns:
        The final metrics, each named by its split: `validation_accuracy`, `test_accuracy`, ….

    Raises:
        ValueError, Interrupted: as `run` does.
    """
    return run(Classification(arguments))


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


def predict_split(trainer: Trainer, name: str, dataset: Dataset, processor: BaseImageProcessor) -> SplitResults:
    """What the model makes of a split, gathered from all processes."""
    output = trainer.predict(dataset.with_transform(preprocessing(processor)), metric_key_prefix=name)
    *outcome, _ = output.predictions  # and the losses
    return SplitResults(name, dataset, Outcome(*outcome), np.asarray(output.label_ids))
