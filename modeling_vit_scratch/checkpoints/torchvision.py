# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of torchvision's `VisionTransformer` (vit_b_16 to vit_h_14, SWAG's too): `.pth` files without a word."""

from typing import Any

from ..model.layers_vit_scratch import height_width
from .files import Source
from .lineage import VIT_FIELDS, Lineage, Reading, square
from .processor_settings import resize_and_crop
from .tables import positions, renames

BLOCK = "encoder.layers.encoder_layer_*"
TABLE = {
    "class_token": "cls_token.cls_token",
    "conv_proj.+": "patch_embedding.projection.+",
    f"{BLOCK}.ln_1.+": "encoder.*.norm1.+",
    f"{BLOCK}.self_attention.in_proj_+": "encoder.*.attention.in_proj.+",
    f"{BLOCK}.self_attention.out_proj.+": "encoder.*.attention.out_proj.+",
    f"{BLOCK}.ln_2.+": "encoder.*.norm2.+",
    f"{BLOCK}.mlp.0.+": "encoder.*.ff.0.+",
    f"{BLOCK}.mlp.3.+": "encoder.*.ff.2.+",
    "encoder.ln.+": "norm.+",
    "heads.pre_logits.+": "pooler.dense.+",
    "heads.head.+": "classification_head.fc.+",
}
# Before torchvision 0.12.
OLD_TABLE = {
    f"{BLOCK}.mlp.linear_1.+": "encoder.*.ff.0.+",
    f"{BLOCK}.mlp.linear_2.+": "encoder.*.ff.2.+",
}
# Every released model has heads of these widths.
HEADS_BY_WIDTH = {768: 12, 1024: 16, 1280: 16}
# In pixels, before the centre is cut out. SWAG's models were fine-tuned on larger images, cut from no larger ones.
SHORTER_SIDE_FOR_224 = 256


def read(source: Source, facts: dict[str, Any]) -> Reading:
    """Understand a state dict by its names and shapes."""
    width, channels, *patch = source.shapes["conv_proj.weight"]
    num_patches = source.shapes["encoder.pos_embedding"][1] - 1
    block = "encoder.layers.encoder_layer_0"
    first = source.shapes.get(f"{block}.mlp.0.weight") or source.shapes[f"{block}.mlp.linear_1.weight"]
    fields = VIT_FIELDS | {
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch,
        "num_hidden_layers": source.count("encoder.layers.encoder_layer_"),
        "intermediate_size": first[0],
        "position_interpolation": "bicubic_align_corners",
    }
    if "heads.pre_logits.weight" in source.shapes:
        fields["pooler_output_size"] = source.shapes["heads.pre_logits.weight"][0]
    notes = []
    unknown = []
    if "num_attention_heads" in facts:
        fields["num_attention_heads"] = facts["num_attention_heads"]
    elif width in HEADS_BY_WIDTH:
        fields["num_attention_heads"] = HEADS_BY_WIDTH[width]
        notes.append(
            f"assumed {HEADS_BY_WIDTH[width]} attention heads, as all torchvision's models of width {width} have"
        )
    else:
        unknown.append("num_attention_heads")
    size = facts.get("image_size") or square(num_patches, patch)
    if size is None:
        unknown.append("image_size")
    else:
        fields["image_size"] = size
    notes.append(
        "assumed the preprocessing of the ImageNet weights: the shorter side resized to 256 for images of 224 pixels "
        "(bilinear), else to that of the images (bicubic), and the centre cut out"
    )
    return Reading(
        fields,
        rules=(*renames(TABLE | OLD_TABLE), positions("encoder.pos_embedding", 1)),
        unknown=tuple(unknown),
        notes=notes,
        preprocessing=None if size is None else _preprocessing(height_width(size)),
    )


def _preprocessing(size: tuple[int, int]) -> dict[str, Any]:
    if size == (224, 224):
        return resize_and_crop(size, resized=SHORTER_SIDE_FOR_224, resample="bilinear")
    return resize_and_crop(size, resized=size[0] if size[0] == size[1] else None)


LINEAGE = Lineage("torchvision", ("class_token", "conv_proj.weight", "encoder.pos_embedding"), read)
