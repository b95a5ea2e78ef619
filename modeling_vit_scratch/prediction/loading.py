# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Loading a checkpoint for use, and the sentences that say why one cannot be."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, SAFE_WEIGHTS_NAME

from ..finite import check_weights
from ..hub import check_revision
from ..layers_vit_scratch import height_width
from ..tracing.int8 import Int8Classifier

PRECISIONS = ("fp32", "bf16", "int8")
# Either may hold an image processor.
PROCESSOR_FILES = (IMAGE_PROCESSOR_NAME, PROCESSOR_NAME)


def load_checkpoint(
    checkpoint: str,
    *,
    precision: str = "fp32",
    token_merging: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel | Int8Classifier, BaseImageProcessor, list[str]]:
    """A classifier ready for use, its image processor, and its labels in the order of the logits.

    Args:
        checkpoint: a folder or a Hub id.
        precision: one of `PRECISIONS`; "int8" runs on the CPU.
        token_merging: patches that each block merges away, instead of what the checkpoint says.
        revision: a branch, tag or commit of a Hub id.
        trust_remote_code: run code that comes with it; not needed for checkpoints of this package.

    Raises:
        ValueError: if the settings will not do, it is no whole checkpoint, or a weight is not finite. Weights are read
            from safetensors only, never from a pickle.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    check_checkpoint(checkpoint, revision)
    options: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    with loading(checkpoint):
        config = AutoConfig.from_pretrained(checkpoint, **options)
    processor = load_processor(checkpoint, **options)
    set_token_merging(config, token_merging)
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
    check_weights(model.named_parameters(), f"the checkpoint {checkpoint}")
    if model.config.problem_type == "regression":
        raise ValueError(f"the checkpoint {checkpoint} predicts numbers (problem_type regression), not classes.")
    label_names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    model.eval()
    if precision == "int8":
        # As large as the model's images, where the processor leaves that to whoever makes them.
        height, width = height_width(getattr(config, "image_size", 224))
        example = processor([Image.new("RGB", (width, height))] * 2, return_tensors="pt")["pixel_values"]
        return Int8Classifier(model, example), processor, label_names
    return model, processor, label_names


def load_processor(checkpoint: str, **options: Any) -> BaseImageProcessor:
    """The image processor of a checkpoint.

    Args:
        checkpoint: a folder or a Hub id.
        **options: those of `AutoImageProcessor.from_pretrained`.

    Raises:
        ValueError: if it has none, or that cannot be loaded.
    """
    with loading(checkpoint):
        if os.path.isdir(checkpoint) and not any(Path(checkpoint, name).is_file() for name in PROCESSOR_FILES):
            raise ValueError(
                f"it has no image processor ({IMAGE_PROCESSOR_NAME}), so it is not known how images are prepared for "
                "the model; save one there with its save_pretrained."
            )
        return AutoImageProcessor.from_pretrained(checkpoint, **options)


def set_token_merging(config: Any, token_merging: int | None) -> None:
    """Let the blocks of a model merge so many patches each, if that is asked for.

    Raises:
        ValueError: if it is no model that can.
    """
    if token_merging is None:
        return
    if not hasattr(config, "token_merging"):
        raise ValueError(f"a model of type {config.model_type} cannot merge tokens.")
    config.token_merging, config.token_merging_schedule = token_merging, "constant"


def check_checkpoint(checkpoint: str, revision: str | None = None) -> None:
    """Refuse at once what is neither a folder nor the name of a model on the Hub, which alone has revisions.

    Raises:
        ValueError: naming it.
    """
    could_be_hub_id = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", checkpoint) and not os.path.exists(checkpoint)
    if not os.path.isdir(checkpoint) and not could_be_hub_id:
        raise ValueError(f"there is no checkpoint folder {checkpoint}.")
    check_revision(checkpoint, revision)
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


def check_merged(checkpoint: str) -> None:
    """Refuse a checkpoint from the middle of a run with LoRA: its adapters are not merged yet.

    Args:
        checkpoint: a folder, or anything else, which is let through.

    Raises:
        ValueError: with the way out.
    """
    path = Path(checkpoint) / SAFE_WEIGHTS_NAME
    if not path.is_file():
        return
    try:
        with safe_open(path, framework="pt") as file:
            unmerged = any(".lora_A." in name for name in file.keys())  # noqa: SIM118  # no mapping
    except Exception:  # a broken file; who loads it says so
        return
    if unmerged:
        raise ValueError(
            f"{checkpoint} is from the middle of a run with LoRA, whose additions are merged into the weights at its "
            "end: give the command of that run again to go on, and use the checkpoint that it ends with."
        )
