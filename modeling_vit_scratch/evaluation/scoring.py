# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Scoring a checkpoint on labelled images."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, Trainer, TrainingArguments, default_data_collator
from transformers.image_processing_utils import BaseImageProcessor
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..data.checking import check_images
from ..data.columns import relabelled
from ..data.dataset_loading import load_images
from ..data.model_input import preprocessing
from ..finite import not_finite
from ..hub.checkpoint import load_checkpoint
from ..system.machine import OneGpu
from ..tracing.int8 import Int8Classifier
from .metrics import Outcome, outcome_of
from .results import ALL, SplitResults


def evaluate(
    checkpoint: str,
    data: str,
    *,
    split: str | None = None,
    config_name: str | None = None,
    image_column_name: str | None = None,
    label_column_name: str | None = None,
    batch_size: int = 64,
    strict_images: bool = False,
    precision: str = "fp32",
    token_merging: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> SplitResults:
    """Predict a split of labelled images.

    Args:
        checkpoint: a folder or a Hub id.
        data, config_name, image_column_name, label_column_name: those of `load_images`.
        split: which split; by default `test` if there is one, else `validation`, else all images.
        batch_size: images at a time.
        strict_images: stop at images that cannot be read, instead of leaving them out.
        precision, token_merging, revision, trust_remote_code: those of `load_checkpoint`.

    Returns:
        The outcome and the labels, which `compute_metrics` and `per_class_report` score.

    Raises:
        ValueError: if the checkpoint, the data or the split will not do, or the data has labels that the checkpoint
            does not know, or logits are not finite.
    """
    model, processor, label_names = load_checkpoint(
        checkpoint,
        precision=precision,
        token_merging=token_merging,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    unread: list[Path] = []
    dataset, name, shown = labelled_split(
        data,
        label_names,
        unread=unread,
        split=split,
        config_name=config_name,
        image_column_name=image_column_name,
        label_column_name=label_column_name,
    )
    checked = check_images(DatasetDict({name: dataset}), strict=strict_images)
    results = predict_dataset(model, processor, shown, checked.splits[name], batch_size)
    if results.outcome.broken:
        raise ValueError(not_finite(results.outcome.broken, len(results.labels), f"the checkpoint {checkpoint}"))
    results.left_out, results.unread = checked.left_out, len(unread)
    return results


def labelled_split(
    data: str,
    label_names: list[str],
    *,
    split: str | None = None,
    config_name: str | None = None,
    image_column_name: str | None = None,
    label_column_name: str | None = None,
    unread: list[Path] | None = None,
) -> tuple[Dataset, str, str]:
    """Labelled images to score a checkpoint on.

    Args:
        data, config_name, image_column_name, label_column_name, unread: those of `load_images`.
        label_names: the classes of the checkpoint, which the labels will index.
        split: which split; by default `test` if there is one, else `validation`, else all images.

    Returns:
        The images, the name of their split, and its name for people.

    Raises:
        ValueError: if the data or the split will not do, or has labels that the checkpoint does not know.
    """
    splits = load_images(
        data,
        config_name=config_name,
        image_column_name=image_column_name,
        label_column_name=label_column_name,
        least_classes=1,
        unread=unread,
    )
    name = split or next(name for name in ("test", "validation", "train") if name in splits)
    if name not in splits:
        raise ValueError(f"{data} has no split {name!r}; it has {', '.join(splits)}.")
    # Images that are in no split were not trained on for all we know: do not call them "train".
    shown = ALL if split is None and list(splits) == ["train"] else name
    where = data if shown == ALL else f"the {name} split of {data}"
    return relabelled(splits[name], label_names, where), name, shown


class _Arguments(OneGpu, TrainingArguments):
    """Transformers', for one GPU."""


def predict_dataset(
    model: PreTrainedModel | Int8Classifier,
    processor: BaseImageProcessor,
    name: str,
    dataset: Dataset,
    batch_size: int,
) -> SplitResults:
    """The outcome of a dataset with the columns `image` and `label`, on the device and processes at hand."""
    num_labels = dataset.features["label"].num_classes

    def kept_of(logits: torch.Tensor, labels: torch.Tensor) -> Any:
        return tuple(outcome_of(logits, labels, num_labels))  # transformers takes no named ones

    with tempfile.TemporaryDirectory() as folder:
        arguments = _Arguments(
            folder,
            per_device_eval_batch_size=batch_size,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            report_to="none",
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            data_collator=partial(_collate, dtype=model.dtype),
            preprocess_logits_for_metrics=kept_of,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        images = dataset.with_transform(preprocessing(processor))
        # What the checkpoint's configuration may have the model return besides, a thousand times as large.
        others = ["hidden_states", "attentions"]
        output = trainer.predict(images, ignore_keys=others, metric_key_prefix=name)
    return SplitResults(name, dataset, Outcome(*output.predictions), np.asarray(output.label_ids))


def _collate(examples: list[dict[str, Any]], dtype: torch.dtype) -> dict[str, Any]:
    batch = default_data_collator(examples)
    return {**batch, "pixel_values": batch["pixel_values"].to(dtype)}
