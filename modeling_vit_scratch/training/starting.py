# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Where training starts: from the random weights of a preset, or from those of a checkpoint."""

from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForImageClassification, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..data.columns import one_form
from ..finite import check_weights
from ..hub.checkpoint import find_model, load_configuration, load_model, load_processor, loading
from ..hub.fetching import Checkpoint
from ..model.configuration_vit_scratch import ViTScratchConfig
from ..model.initialization_vit_scratch import renew
from ..model.layers_vit_scratch import height_width
from ..overrides import parse_overrides
from ..text import counted
from .training_arguments import ModelArguments

# Parts of the body that a checkpoint of another job lacks: only classifiers pool, only pre-training masks.
OF_ONE_JOB = ("pooler.", "mask_patches.")


class Start(NamedTuple):
    """Where a model begins."""

    source: Checkpoint
    config: ViTScratchConfig
    processor: BaseImageProcessor
    options: dict[str, Any]  # of loading


def starting_point(arguments: ModelArguments) -> Start:
    """The configuration and the image processor that the arguments name, with what they override.

    Raises:
        ValueError: if there is no such preset or checkpoint, it is of another architecture, or the overrides do not
            fit.
    """
    trusted = arguments.trust_remote_code
    source = find_model(arguments.model, trust_remote_code=trusted)
    config, processor = load_configuration(source, trusted), load_processor(source, trusted)
    if config.model_type != ViTScratchConfig.model_type:
        raise ValueError(
            f"{source} is a model of the type {config.model_type!r}; vit-scratch trains its own, "
            f"{ViTScratchConfig.model_type!r}: load the weights of a ViT with `vit-scratch import` first (evaluate and "
            "predict take any image classifier)."
        )
    overrides = parse_overrides(arguments.config_overrides)
    for name in ("drop_path_rate", "patch_dropout"):
        if getattr(arguments, name) is not None:
            overrides[name] = getattr(arguments, name)
    _override(config, processor, overrides)
    options: dict[str, Any] = {"trust_remote_code": trusted}
    if arguments.attn_implementation:
        options["attn_implementation"] = arguments.attn_implementation
    return Start(source, config, processor, options)


def build_model(arguments: ModelArguments, label_names: list[str]) -> tuple[PreTrainedModel, BaseImageProcessor, str]:
    """The model, its image processor, and a line that says where the weights come from.

    A preset gives a model with new weights; anything else is a checkpoint, whose head is kept if its labels are the
    same and replaced if not.

    Raises:
        ValueError: if there is no such preset or checkpoint, it is of another architecture, or the overrides do not
            fit.
    """
    start = starting_point(arguments)
    config, processor = start.config, start.processor
    old_names = [label for _, label in sorted((config.id2label or {}).items())]
    config.id2label = dict(enumerate(label_names))
    config.label2id = {label: index for index, label in enumerate(label_names)}
    if start.source.preset:
        with loading(start.source):
            model = AutoModelForImageClassification.from_config(config, **start.options)
        return model, processor, f"new        {arguments.model}, with random weights"
    model, whole = load_weights(start, AutoModelForImageClassification)
    if whole and [one_form(name) for name in old_names] == [one_form(name) for name in label_names]:
        return model, processor, f"loaded     {start.source}, its head kept: the labels are the same"
    _renew_head(model, config)  # where the sizes match, the old head was loaded
    return (
        model,
        processor,
        f"loaded     {start.source}, with a new head for the {counted(len(label_names), 'class')} of the data",
    )


def _override(config: ViTScratchConfig, processor: Any, overrides: dict[str, Any]) -> None:
    """Change fields of a configuration, and the size that the processor makes images with that of the model."""
    old_size = height_width(config.image_size)
    try:
        for name, value in overrides.items():
            setattr(config, name, value)
        config.validate()
    except StrictDataclassError as error:
        raise ValueError(f"config_overrides make no model: {error.__cause__}") from error
    height, width = height_width(config.image_size)
    if (height, width) != old_size:
        processor.size = {"height": height, "width": width}


def load_weights(start: Start, auto_class: Any) -> tuple[PreTrainedModel, bool]:
    """A checkpoint's weights in the model that its configuration describes, and whether all of them were there.

    Args:
        start: with the checkpoint.
        auto_class: one of transformers', for the job of the model.

    Raises:
        ValueError: if weights of the body are missing, of another size, or not finite.
    """
    model, report = load_model(
        start.source,
        auto_class,
        config=start.config,
        dtype=torch.float32,  # mixed precision keeps its own copies
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **start.options,
    )
    # With FSDP one process makes the new weights, and the others, which get them later, were given no memory for them.
    without_memory = {name: weight for name, weight in model.state_dict().items() if weight.is_meta}
    replacements = {name: torch.zeros_like(weight, device="cpu") for name, weight in without_memory.items()}
    model.load_state_dict(replacements, strict=False, assign=True)
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    body = f"{model.base_model_prefix}."
    wrong = sorted(key for key in absent if key.startswith(body) and not key.removeprefix(body).startswith(OF_ONE_JOB))
    if wrong:
        raise ValueError(
            f"the weights of {start.source} do not fit the configuration: {len(wrong)} are missing or of another size, "
            f"among them {wrong[0]}; do not override fields that change the body of a checkpoint (`vit-scratch import "
            "--image-size` fits one to another image size)."
        )
    check_weights(model.base_model.named_parameters(body.rstrip(".")), f"the checkpoint {start.source}")
    return model, not absent


def _renew_head(model: PreTrainedModel, config: ViTScratchConfig) -> None:
    """Give new random weights to all that stands outside the body."""
    for name, part in model.named_children():
        if name != model.base_model_prefix:
            renew(part, config)
