# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Loading a checkpoint for use, and the sentences that say why one cannot be."""

import json
import os
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
from transformers.utils import (
    CONFIG_NAME,
    IMAGE_PROCESSOR_NAME,
    PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
)

from ..finite import check_weights
from ..model.layers_vit_scratch import height_width
from ..presets import is_preset, preset_names, preset_path
from ..system.folders import SET_ASIDE
from ..tracing.int8 import Int8Classifier
from .fetching import SAFETENSORS, Checkpoint, fetched, hub_id_of

COPY_AGAIN = "copy or download it again"
PRECISIONS = ("fp32", "bf16", "int8")
# Either may hold an image processor.
PROCESSOR_FILES = (IMAGE_PROCESSOR_NAME, PROCESSOR_NAME)


def load_checkpoint(
    checkpoint: str | Checkpoint,
    *,
    precision: str = "fp32",
    token_merging: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel | Int8Classifier, BaseImageProcessor, list[str]]:
    """A classifier ready for use, its image processor, and its labels in the order of the logits.

    Args:
        checkpoint: a folder or a Hub id, or what `find_checkpoint` made of that.
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
    found = find_checkpoint(checkpoint, revision, trust_remote_code=trust_remote_code)
    config = load_configuration(found, trust_remote_code)
    processor = load_processor(found, trust_remote_code)
    set_token_merging(config, token_merging)
    model, report = load_model(
        found,
        AutoModelForImageClassification,
        config=config,
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        output_loading_info=True,
        trust_remote_code=trust_remote_code,
    )
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise ValueError(
            f"the checkpoint {checkpoint} is no image classifier, or not whole: it lacks {lacking[0]}"
            f"{f' and {len(lacking) - 1} more' if len(lacking) > 1 else ''}. If it was pre-trained only: "
            f"vit-scratch train finetune --model {checkpoint}."
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


def load_configuration(checkpoint: Checkpoint, trust_remote_code: bool = False) -> Any:
    """The configuration of a checkpoint or a preset.

    Raises:
        ValueError: if it cannot be loaded.
    """
    with loading(checkpoint):
        _check_json(checkpoint.place / CONFIG_NAME)
        return AutoConfig.from_pretrained(str(checkpoint.place), trust_remote_code=trust_remote_code)


def load_processor(checkpoint: Checkpoint, trust_remote_code: bool = False) -> BaseImageProcessor:
    """The image processor of a checkpoint or a preset.

    Raises:
        ValueError: if it has none, or that cannot be loaded.
    """
    with loading(checkpoint):
        has_one = any((checkpoint.place / name).is_file() for name in PROCESSOR_FILES)
        if checkpoint.commit is None and not has_one:
            raise ValueError(
                f"it has no image processor ({IMAGE_PROCESSOR_NAME}), so it is not known how images are prepared for "
                "the model; save one there with its save_pretrained."
            )
        for name in PROCESSOR_FILES:
            _check_json(checkpoint.place / name)
        return AutoImageProcessor.from_pretrained(str(checkpoint.place), trust_remote_code=trust_remote_code)


def load_model(checkpoint: Checkpoint, auto_class: Any, **options: Any) -> Any:
    """The model of a checkpoint, whose weights are read from safetensors alone.

    Args:
        checkpoint: with weights.
        auto_class: one of transformers', for the job of the model; or the class of a model.
        **options: those of its `from_pretrained`.

    Returns:
        What `from_pretrained` does.

    Raises:
        ValueError: if it cannot be loaded.
    """
    with loading(checkpoint):
        loaded = auto_class.from_pretrained(str(checkpoint.place), use_safetensors=True, **options)
    if checkpoint.commit is not None:
        # What is made of it names the Hub, and no cache of this machine.
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.name_or_path = model.config.name_or_path = checkpoint.name
        model.config._commit_hash = checkpoint.commit
    return loaded


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


def find_checkpoint(
    checkpoint: str | Checkpoint, revision: str | None = None, *, trust_remote_code: bool = False
) -> Checkpoint:
    """Settle which checkpoint is meant, and fetch it if it is on the Hub, which alone has revisions.

    Args:
        checkpoint: a folder or a Hub id; what was settled before stays.
        revision: a branch, tag or commit of a Hub id.
        trust_remote_code: fetch its code, too.

    Raises:
        ValueError: if it is neither, has no weights, or is not finished.
    """
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    if hub_id_of(checkpoint) is None and not os.path.isdir(checkpoint):
        if checkpoint in preset_names():
            raise ValueError(f"{checkpoint} is a preset, which has no weights: name a folder or a Hub id.")
        raise ValueError(f"there is no checkpoint folder {checkpoint or '(its name is empty)'}.")
    found = fetched(checkpoint, revision, weights=[SAFETENSORS], code=trust_remote_code)
    check_finished(found)
    return found


def find_model(model: str, revision: str | None = None, *, trust_remote_code: bool = False) -> Checkpoint:
    """Settle which preset or checkpoint is meant: as `find_checkpoint` does, but that a preset will do.

    Raises:
        ValueError: if there is none by that name, or it is not finished.
    """
    if not is_preset(model):
        return find_checkpoint(model, revision, trust_remote_code=trust_remote_code)
    if revision is not None:
        raise ValueError(f"revision {revision} is of a model on the Hub, and {model} is a preset.")
    return Checkpoint(model, preset_path(model), preset=True)


def check_finished(checkpoint: Checkpoint) -> None:
    """Refuse what the middle of a run left.

    Raises:
        ValueError: with the way out.
    """
    if (checkpoint.place / SET_ASIDE).is_dir() and not (checkpoint.place / "config.json").exists():
        raise ValueError(
            f"{checkpoint} is being overwritten, or a killed start has left it so: the run that was there is in "
            f"{checkpoint.place / SET_ASIDE}."
        )
    unfinished = sorted(checkpoint.place.glob("checkpoint-*"))
    if unfinished and not (checkpoint.place / "config.json").exists():
        raise ValueError(
            f"{checkpoint} holds a run that did not end: go on with the same command, or name one of its "
            f"checkpoints, such as {unfinished[-1]}."
        )
    _check_files(checkpoint)
    _check_merged(checkpoint)


def _check_files(checkpoint: Checkpoint) -> None:
    """Refuse weights that are not whole, by the name of their file.

    Raises:
        ValueError: with what is wrong and what to do.
    """
    place = checkpoint.place
    adapter = place / "adapter_config.json"
    if adapter.is_file() and not (place / "config.json").exists():
        merged = f" ({place.parent})" if (place.parent / "config.json").is_file() else ""
        raise ValueError(
            f"{checkpoint} holds the additions of LoRA alone, and no model: name the checkpoint that the run ended "
            f"with{merged}, in which they are merged."
        )
    files = {SAFE_WEIGHTS_NAME} & {path.name for path in place.iterdir()}
    index = place / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file() and not files:
        try:
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if not files or not all(isinstance(name, str) for name in files):
                raise ValueError("no names of files")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{index} is no index of weights, or damaged: {COPY_AGAIN}.") from error
        lacking = sorted(name for name in files if not (place / name).is_file())
        if lacking:
            raise ValueError(f"{checkpoint} lacks {lacking[0]}, which {index.name} names: {COPY_AGAIN}.")
    for name in sorted(files):
        try:
            with safe_open(place / name, framework="pt"):
                pass
        except Exception as error:  # of a type of the library's own
            raise ValueError(f"{place / name} {_damage(place / name)}.") from error


def _check_json(path: Path) -> None:
    """Refuse settings that are not whole, by the name of their file; libraries do not always name it.

    Raises:
        ValueError: with what to do.
    """
    if not path.is_file():
        return
    try:
        whole = isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except ValueError:
        whole = False
    if not whole:
        raise ValueError(f"{path} is not a valid JSON file: {COPY_AGAIN}.")


def _damage(path: Path) -> str:
    """What is wrong with a file of weights that cannot be opened, and what to do."""
    with path.open("rb") as file:
        beginning = file.read(64)
    if not beginning:
        return f"is empty: {COPY_AGAIN}"
    if beginning.startswith(b"version https://git-lfs"):
        return "is the address of the weights, not the weights: git lfs pull fetches them"
    if beginning.startswith((b"PK\x03\x04", b"\x80")):
        return "is a pickle and no safetensors file: vit-scratch import reads it"
    return f"is cut short or damaged: {COPY_AGAIN}"


@contextmanager
def loading(checkpoint: Checkpoint) -> Iterator[None]:
    """Turn the many kinds of errors that libraries raise over what they cannot load into one sentence.

    Raises:
        ValueError: naming the checkpoint, and what the library said.
    """
    try:
        yield
    except Exception as error:
        what, message = f"the checkpoint {checkpoint}", " ".join(str(error).split())
        if checkpoint.commit is not None:
            what, message = f"the Hub's {checkpoint}", message.replace(str(checkpoint.place), str(checkpoint))
        raise ValueError(f"{what} cannot be loaded: {message or type(error).__name__}") from error


def _check_merged(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint from the middle of a run with LoRA: its adapters are not merged yet."""
    path = checkpoint.place / SAFE_WEIGHTS_NAME
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
