# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Using a checkpoint: score it on labelled images, or say what is on others."""

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, DatasetDict
from PIL import Image
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
    Trainer,
    default_data_collator,
)
from transformers import TrainingArguments as HfTrainingArguments
from transformers.image_processing_utils import BaseImageProcessor
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from .augmentation import pixel_values, preprocessing
from .columns import relabelled
from .data import load_images
from .deployment.int8 import Int8Classifier
from .finetuning import check_merged
from .images import BadImageError, images_in, read_image, without_bad_images
from .layers_vit_scratch import height_width
from .report import ALL, SplitResults

# Images whose predictions are in memory at once while a table is written.
WRITTEN_TOGETHER = 1024
PRECISIONS = ("fp32", "bf16", "int8")


def load_checkpoint(
    checkpoint: str,
    *,
    precision: str = "fp32",
    token_merging: int | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel | Int8Classifier, BaseImageProcessor, list[str]]:
    """A classifier ready for use, its image processor, and its labels in the order of the logits.

    Args:
        checkpoint: a folder or a Hub id.
        precision: one of `PRECISIONS`; "int8" runs on the CPU.
        token_merging: patches that each block merges away, instead of what the checkpoint says.
        trust_remote_code: run code that comes with it; not needed for checkpoints of this package.

    Raises:
        ValueError: if the settings will not do, or it is no whole checkpoint. Weights are read from safetensors only,
            never from a pickle.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    check_checkpoint(checkpoint)
    options = {"trust_remote_code": trust_remote_code}
    with loading(checkpoint):
        config = AutoConfig.from_pretrained(checkpoint, **options)
        processor = AutoImageProcessor.from_pretrained(checkpoint, **options)
    if token_merging is not None:
        if not hasattr(config, "token_merging"):
            raise ValueError(f"a model of type {config.model_type} cannot merge tokens.")
        config.token_merging, config.token_merging_schedule = token_merging, "constant"
    with loading(checkpoint):
        model, report = AutoModelForImageClassification.from_pretrained(
            checkpoint,
            config=config,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise ValueError(
            f"the checkpoint {checkpoint} is no image classifier, or not whole: {len(lacking)} weights are missing, "
            f"among them {lacking[0]}. If it was pre-trained only: vit-scratch train finetune --model {checkpoint}."
        )
    label_names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    model.eval()
    if precision == "int8":
        # As large as the model's images, where the processor leaves that to whoever makes them.
        height, width = height_width(getattr(config, "image_size", 224))
        example = processor([Image.new("RGB", (width, height))] * 2, return_tensors="pt")["pixel_values"]
        return Int8Classifier(model, example), processor, label_names
    return model, processor, label_names


def check_checkpoint(checkpoint: str) -> None:
    """Refuse at once what is neither a folder nor the name of a model on the Hub.

    Raises:
        ValueError: naming it.
    """
    could_be_hub_id = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", checkpoint) and not os.path.exists(checkpoint)
    if not os.path.isdir(checkpoint) and not could_be_hub_id:
        raise ValueError(f"there is no checkpoint folder {checkpoint}.")
    unfinished = sorted(Path(checkpoint).glob("checkpoint-*")) if os.path.isdir(checkpoint) else []
    if unfinished and not os.path.exists(os.path.join(checkpoint, "config.json")):
        raise ValueError(
            f"{checkpoint} holds a run that did not end: go on with the same command, or name one of its "
            f"checkpoints, such as {unfinished[-1]}."
        )
    check_merged(checkpoint)


@contextmanager
def loading(checkpoint: str) -> Iterator[None]:
    """Turn the many kinds of errors that libraries raise over what they cannot load into one sentence.

    Raises:
        ValueError: naming the checkpoint, and what the library said.
    """
    try:
        yield
    except Exception as error:
        what = f"the checkpoint {checkpoint}"
        if not os.path.isdir(checkpoint):
            what = f"there is no folder {checkpoint}, and the Hub's {checkpoint}"
        message = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{what} cannot be loaded: {message}") from error


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
    trust_remote_code: bool = False,
) -> SplitResults:
    """Predict a split of labelled images.

    Args:
        checkpoint: a folder or a Hub id.
        data, config_name, image_column_name, label_column_name: those of `load_images`.
        split: which split; by default `test` if there is one, else `validation`, else all images.
        batch_size: images at a time.
        strict_images: stop at images that cannot be read, instead of leaving them out.
        precision, token_merging: those of `load_checkpoint`.
        trust_remote_code: run code that comes with the checkpoint.

    Returns:
        The logits and labels, which `compute_metrics` and `per_class_report` score.

    Raises:
        ValueError: if the checkpoint, the data or the split will not do, or the data has labels that the checkpoint
            does not know.
    """
    model, processor, label_names = load_checkpoint(
        checkpoint, precision=precision, token_merging=token_merging, trust_remote_code=trust_remote_code
    )
    dataset, name, shown = labelled_split(
        data,
        label_names,
        split=split,
        config_name=config_name,
        image_column_name=image_column_name,
        label_column_name=label_column_name,
    )
    readable, left_out = without_bad_images(DatasetDict({name: dataset}), strict=strict_images)
    results = predict_dataset(model, processor, shown, readable[name], batch_size)
    results.left_out = left_out
    return results


def labelled_split(
    data: str,
    label_names: list[str],
    *,
    split: str | None = None,
    config_name: str | None = None,
    image_column_name: str | None = None,
    label_column_name: str | None = None,
) -> tuple[Dataset, str, str]:
    """Labelled images to score a checkpoint on.

    Args:
        data, config_name, image_column_name, label_column_name: those of `load_images`.
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
    )
    name = split or next(name for name in ("test", "validation", "train") if name in splits)
    if name not in splits:
        raise ValueError(f"{data} has no split {name!r}; it has {', '.join(splits)}.")
    # Images that are in no split were not trained on for all we know: do not call them "train".
    shown = ALL if split is None and list(splits) == ["train"] else name
    return relabelled(splits[name], label_names, f"the {name} split of {data}"), name, shown


def predict_dataset(
    model: PreTrainedModel | Int8Classifier,
    processor: BaseImageProcessor,
    name: str,
    dataset: Dataset,
    batch_size: int,
) -> SplitResults:
    """The logits of a dataset with the columns `image` and `label`, on the device and processes at hand."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = HfTrainingArguments(
            folder,
            per_device_eval_batch_size=batch_size,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            report_to="none",
        )
        trainer = Trainer(model=model, args=arguments, data_collator=partial(_collate, dtype=model.dtype))
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        images = dataset.with_transform(preprocessing(processor))
        # What the checkpoint's configuration may have the model return besides, a thousand times as large.
        others = ["hidden_states", "attentions"]
        output = trainer.predict(images, ignore_keys=others, metric_key_prefix=name)
    return SplitResults(name, dataset, np.asarray(output.predictions), np.asarray(output.label_ids))


def _collate(examples: list[dict[str, Any]], dtype: torch.dtype) -> dict[str, Any]:
    batch = default_data_collator(examples)
    return {**batch, "pixel_values": batch["pixel_values"].to(dtype)}


@dataclass
class Prediction:
    """The most likely labels of an image with their probabilities, most likely first."""

    file: str
    labels: list[str]
    scores: list[float]


def predict(
    checkpoint: str,
    images: list[str],
    *,
    top_k: int = 1,
    batch_size: int = 64,
    precision: str = "fp32",
    token_merging: int | None = None,
    trust_remote_code: bool = False,
) -> Iterator[Prediction | BadImageError]:
    """Say what is on images, in order.

    Args:
        checkpoint: a folder or a Hub id.
        images: files, and folders whose images are all taken.
        top_k: labels per image, at most as many as there are.
        batch_size: images at a time.
        precision, token_merging: those of `load_checkpoint`.
        trust_remote_code: run code that comes with the checkpoint.

    Yields:
        A `Prediction` for each image, or the `BadImageError` of one that cannot be read.

    Raises:
        ValueError: if there are no images, or the checkpoint will not do.
    """
    if top_k < 1 or batch_size < 1:
        raise ValueError(f"top_k and batch_size must be at least 1, got {top_k} and {batch_size}.")
    files = list(image_files(images))
    model, processor, label_names = load_checkpoint(
        checkpoint, precision=precision, token_merging=token_merging, trust_remote_code=trust_remote_code
    )
    if torch.cuda.is_available() and precision != "int8":
        torch.nn.Module.to(model, "cuda")
    starts = range(0, len(files), batch_size)
    for start in tqdm(starts, unit="batch", leave=False, disable=None if len(starts) > 1 else True):
        batch = [_read(file) for file in files[start : start + batch_size]]
        readable = [image for image in batch if not isinstance(image, BadImageError)]
        rows = iter(_top(model, processor, readable, min(top_k, len(label_names))) if readable else [])
        for file, image in zip(files[start : start + batch_size], batch, strict=True):
            if isinstance(image, BadImageError):
                yield image
                continue
            scores, classes = next(rows)
            yield Prediction(file, [label_names[index] for index in classes], scores)


def image_files(images: list[str]) -> Iterator[str]:
    """The files meant by files and folders.

    Raises:
        ValueError: if a folder holds no image, or nothing is there by that name.
    """
    for name in images:
        path = Path(name)
        if path.is_dir():
            inside = [str(file) for file in images_in(path)]
            if not inside:
                raise ValueError(f"the folder {name} holds no images.")
            yield from inside
        elif path.exists():
            yield name
        else:
            raise ValueError(f"there is no image or folder {name}.")


def _read(file: str):
    try:
        return read_image(file)
    except BadImageError as error:
        return error


@torch.inference_mode()
def _top(
    model: PreTrainedModel | Int8Classifier, processor: BaseImageProcessor, images: list, k: int
) -> list[tuple[list, list]]:
    """Probabilities and classes of the `k` most likely classes of each image."""
    batch = pixel_values(processor, images).to(model.device, model.dtype)  # (B, C, H, W)
    scores, classes = model(batch).logits.float().softmax(-1).topk(k)  # (B, k)
    return list(zip(scores.tolist(), classes.tolist(), strict=True))


def _write_lines(tables: Iterator[pd.DataFrame], path: str) -> None:
    # Pandas would round the scores.
    with open(path, "w", encoding="utf-8") as file:
        for table in tables:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_dict("records"))


def _write_csv(tables: Iterator[pd.DataFrame], path: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        for number, table in enumerate(tables):
            table.to_csv(file, index=False, header=number == 0)


def _write_parquet(tables: Iterator[pd.DataFrame], path: str) -> None:
    schema = pa.schema({"file": pa.string(), "rank": pa.int64(), "label": pa.string(), "score": pa.float64()})
    with pq.ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))


OUTPUT_WRITERS = {".jsonl": _write_lines, ".csv": _write_csv, ".parquet": _write_parquet}


def check_output(path: str) -> None:
    """Refuse an output file that could not be written, before any work is done for it.

    Raises:
        ValueError: if its suffix names no format, it is a folder, or its folder is missing or not writable.
    """
    if Path(path).suffix not in OUTPUT_WRITERS:
        raise ValueError(f"--output {path} must end in one of {', '.join(OUTPUT_WRITERS)}.")
    if os.path.isdir(path):
        raise ValueError(f"--output {path} is a folder: name a file.")
    try:
        with tempfile.TemporaryFile(dir=Path(path).resolve().parent):
            pass
    except OSError as error:
        raise ValueError(f"--output {path} cannot be written: {error.strerror}.") from error


def printable(name: str) -> str:
    """A file name whose bytes are no UTF-8, with these written as `\\udcff` is; any other as it is."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def write_predictions(predictions: Iterable[Prediction], path: str) -> int:
    """Write a table with a row per image and rank (columns file, rank, label, score), whole or not at all.

    It is written as the predictions come, so that any number of them takes no more memory than a few.

    Returns:
        How many images there were.
    """
    path = os.path.realpath(path)  # a link stays one
    number = 0

    def table(items: list[Prediction]) -> pd.DataFrame:
        rows = [
            {"file": printable(item.file), "rank": rank, "label": label, "score": score}
            for item in items
            for rank, (label, score) in enumerate(zip(item.labels, item.scores, strict=True), start=1)
        ]
        return pd.DataFrame(rows, columns=["file", "rank", "label", "score"])

    def tables() -> Iterator[pd.DataFrame]:
        nonlocal number
        yield table([])  # the columns, also if there are no rows
        remaining = iter(predictions)
        while items := list(islice(remaining, WRITTEN_TOGETHER)):
            number += len(items)
            yield table(items)

    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        incomplete = os.path.join(folder, "incomplete")
        OUTPUT_WRITERS[Path(path).suffix](tables(), incomplete)
        os.replace(incomplete, path)
    return number
