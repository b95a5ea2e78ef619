# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Our weights as a checkpoint of transformers: ViT, DeiT, I-JEPA, or DINOv2 with or without registers."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.image_processing_utils import BaseImageProcessor

from ..model.configuration_vit_scratch import ViTScratchConfig
from ..model.layers_vit_scratch import height_width
from .huggingface import DINOV2_FIELDS, MASK_TOKEN, SHARED_FIELDS, rules_of
from .lineage import Exported, check_counterparts, grid
from .processor_settings import size_of_images
from .tables import HEAD, unapply

# What all of these models have in common.
COMMON = {
    "norm_first": True,
    "use_final_layer_norm": True,
    "use_pooled_layer_norm": False,
    "use_pre_layer_norm": False,
    "use_dual_patch_norm": False,
    "head_dim": None,
    "position_embedding_type": ("learned", "sincos2d"),
}
# The classes of each model type, without and with a head, and what the head reads.
CLASSES = {
    "vit": ("ViTModel", "ViTForImageClassification", "cls"),
    "deit": ("DeiTModel", "DeiTForImageClassification", ("cls", "cls_distillation")),
    "ijepa": ("IJepaModel", "IJepaForImageClassification", "mean"),
    "dinov2": ("Dinov2Model", "Dinov2ForImageClassification", ("cls", "mean", "cls_mean")),
    "dinov2_with_registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersForImageClassification",
        ("cls", "mean", "cls_mean"),
    ),
}
CLASSES_WITH_POOLER = ("ViTModel", "DeiTModel")
PARAMETERLESS_POOLINGS = ("cls", "mean", "mean_tokens", "cls_mean", "cls_distillation")
TWO_HEADS_CLASS = "DeiTForImageClassificationWithTeacher"


def write_transformers(
    config: ViTScratchConfig, state: dict[str, Tensor], image_processor: BaseImageProcessor, folder: Path
) -> Exported:
    """Write `config.json`, `model.safetensors` and `preprocessor_config.json`, as transformers itself does.

    Args:
        config: of our model.
        state: its tensors, filled.
        image_processor: its image processor.
        folder: an empty folder.

    Returns:
        What it became, and how it is loaded.

    Raises:
        ValueError: naming each setting that has no counterpart there.
    """
    has_head = f"{HEAD}fc.weight" in state
    model_type = model_type_of(config, has_head)
    body_class, head_class, pooling = CLASSES[model_type]
    check_counterparts(config, COMMON | _wanted(config, has_head, model_type, pooling), f"transformers' {model_type!r}")
    two_heads = has_head and config.pooling == "cls_distillation"
    name = TWO_HEADS_CLASS if two_heads else head_class if has_head else body_class
    # Two of the classes have a pooler unless they are told otherwise.
    without_pooler = name in CLASSES_WITH_POOLER and config.pooler_output_size is None
    options = {"add_pooling_layer": False} if without_pooler else {}
    peer = _empty(name, _fields(config, model_type, has_head), options)
    rules = rules_of(model_type, swiglu=config.use_swiglu_ffn, two_heads=two_heads)
    prefix = f"{peer.base_model_prefix}." if has_head else ""
    tensors = {
        theirs if "classifier" in theirs else prefix + theirs: tensor
        for theirs, tensor in unapply(rules, _completed(config, state, model_type)).items()
    }
    if prefix + MASK_TOKEN in peer.state_dict():
        tensors[prefix + MASK_TOKEN] = next(iter(tensors.values())).new_zeros(1, config.hidden_size)
    peer.load_state_dict(tensors, assign=True)
    peer.save_pretrained(folder)
    image_processor.save_pretrained(folder)
    told = "".join(f", {option}={value}" for option, value in options.items())
    load = f'{name}.from_pretrained("FOLDER"{told})'
    return Exported(
        became=f"transformers' {name}",
        load=load,
        code=[
            "from PIL import Image",
            f"from transformers import AutoImageProcessor, {name}",
            "",
            'processor = AutoImageProcessor.from_pretrained(".")',
            f"model = {load.replace('FOLDER', '.')}",
            'output = model(**processor(Image.open("photo.jpg"), return_tensors="pt"))',
        ],
        notes=_notes(config, image_processor, model_type),
    )


def _notes(config: ViTScratchConfig, image_processor: BaseImageProcessor, model_type: str) -> list[str]:
    """What to know of images of other sizes."""
    notes = []
    interpolation = "bicubic_antialias" if model_type == "dinov2_with_registers" else "bicubic"
    if (config.position_embedding_type, config.position_interpolation) != ("learned", interpolation):
        notes.append("to images of another size transformers fits the positions in its own way, not as here")
    trained = height_width(config.image_size)
    other_sizes = config.interpolate_pos_encoding or size_of_images(image_processor, config.num_channels) not in (
        None,
        trained,
    )
    if other_sizes and not model_type.startswith("dinov2"):  # which fits its positions unasked
        notes.append("its images may be of other sizes: pass interpolate_pos_encoding=True with them")
    return notes


def model_type_of(config: ViTScratchConfig, has_head: bool) -> str:
    """The model of transformers that comes closest to a configuration; what is pooled is of a head only."""
    dinov2 = config.layerscale_value is not None or config.use_swiglu_ffn
    pooling = config.pooling if has_head else "cls"
    if not config.use_cls_token:
        return "ijepa"
    if config.num_register_tokens == 1 and not dinov2 and pooling in ("cls", "cls_distillation"):
        return "deit"
    if config.num_register_tokens:
        return "dinov2_with_registers"
    return "dinov2" if dinov2 or pooling in ("mean", "cls_mean") else "vit"


def _wanted(config: ViTScratchConfig, has_head: bool, model_type: str, pooling: Any) -> dict[str, Any]:
    """What the closest model has to offer where it differs from the others."""
    wanted: dict[str, Any] = {"pooling": pooling if has_head else PARAMETERLESS_POOLINGS}
    if has_head or CLASSES[model_type][0] not in CLASSES_WITH_POOLER:
        wanted["pooler_output_size"] = None
    elif config.pooler_output_size is not None:
        wanted["pooling"] = "cls"
    if model_type == "ijepa":
        wanted["num_register_tokens"] = 0
    if model_type.startswith("dinov2"):
        wanted["intermediate_size"] = tuple(_dinov2_widths(config))
        rows, columns = grid(config.image_size, config.patch_size)
        height, width = height_width(config.image_size)
        if rows != columns and height != width:
            wanted["image_size"] = "a square"  # it would read the positions of any other as if they were of one
    else:
        wanted |= {"layerscale_value": None, "use_swiglu_ffn": False}
    return wanted


def _dinov2_widths(config: ViTScratchConfig) -> list[int]:
    """The widths of feed-forward networks that DINOv2's whole number `mlp_ratio` can give, from 1 to 8."""
    widths = [config.hidden_size * ratio for ratio in range(1, 9)]
    return [(int(width * 2 / 3) + 7) // 8 * 8 for width in widths] if config.use_swiglu_ffn else widths


def _fields(config: ViTScratchConfig, model_type: str, has_head: bool) -> dict[str, Any]:
    fields = {name: getattr(config, name) for name in SHARED_FIELDS}
    if model_type.startswith("dinov2"):
        fields |= {name: getattr(config, name) for name in DINOV2_FIELDS}
        fields["layerscale_value"] = config.layerscale_value or 1.0
        fields["mlp_ratio"] = 1 + _dinov2_widths(config).index(config.intermediate_size)
    else:
        fields["intermediate_size"] = config.intermediate_size
    if model_type == "dinov2":
        fields["use_mask_token"] = False
    if model_type == "dinov2_with_registers":
        fields["num_register_tokens"] = config.num_register_tokens
    if config.pooler_output_size is not None:
        fields["pooler_output_size"] = config.pooler_output_size
    if has_head:
        fields |= {"id2label": config.id2label, "label2id": config.label2id, "problem_type": config.problem_type}
    return fields


def _empty(name: str, fields: dict[str, Any], options: dict[str, Any]) -> transformers.PreTrainedModel:
    """A model of transformers without memory for its weights."""
    model_class = getattr(transformers, name)
    with torch.device("meta"):
        return model_class(model_class.config_class(**fields), **options)


def _completed(config: ViTScratchConfig, state: dict[str, Tensor], model_type: str) -> dict[str, Tensor]:
    """The tensors that the other has always, where ours does without: positions of zero and factors of one.

    DINOv2's head reads [CLS] and the mean; one that reads a single of them has weights of zero for the other.
    """
    state = dict(state)
    like = state["patch_embedding.projection.weight"]
    if config.use_cls_token:
        state.setdefault("cls_token.cls_position", like.new_zeros(1, 1, config.hidden_size))
    if model_type.startswith("dinov2"):
        for index in range(config.num_hidden_layers):
            for scale in ("scale1", "scale2"):
                state.setdefault(f"encoder.{index}.{scale}.gamma", like.new_ones(config.hidden_size))
        head = state.get(f"{HEAD}fc.weight")
        if head is not None and config.pooling != "cls_mean":
            zeros = torch.zeros_like(head)
            halves = (head, zeros) if config.pooling == "cls" else (zeros, head)
            state[f"{HEAD}fc.weight"] = torch.cat(halves, dim=1)
    return state
