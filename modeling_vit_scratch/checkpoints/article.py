# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of the article's own `VisionTransformer`: state dicts, whose names are ours but for one."""

from typing import Any

from .files import Source
from .lineage import Lineage, Reading, square
from .tables import renames

# `nn.MultiheadAttention` keeps its projection to queries, keys and values as two bare tensors.
TABLE = {
    "patch_embedding.projection.+": "patch_embedding.projection.+",
    "positional_encoding.positional_embedding": "positional_encoding.positional_embedding",
    "cls_token.cls_token": "cls_token.cls_token",
    "encoder.*.attention.in_proj_+": "encoder.*.attention.in_proj.+",
    "encoder.*.attention.out_proj.+": "encoder.*.attention.out_proj.+",
    "encoder.*.norm1.+": "encoder.*.norm1.+",
    "encoder.*.ff.0.+": "encoder.*.ff.0.+",
    "encoder.*.ff.2.+": "encoder.*.ff.2.+",
    "encoder.*.norm2.+": "encoder.*.norm2.+",
    "classification_head.fc.+": "classification_head.fc.+",
}


def read(source: Source, facts: dict[str, Any]) -> Reading:
    """Understand a state dict by its names and shapes; what they do not tell is the article's, and so our default."""
    width, channels, *patch = source.shapes["patch_embedding.projection.weight"]
    count = source.shapes["positional_encoding.positional_embedding"][1]
    fields = {
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch,
        "num_hidden_layers": source.count("encoder."),
        "intermediate_size": source.shapes["encoder.0.ff.0.weight"][0],
    }
    unknown = ["num_attention_heads"]
    size = square(count, patch)
    if size is None:
        unknown.append("image_size")
    else:
        fields["image_size"] = size
    notes = [
        "assumed that each token attends to those of its own image, as the article says and batch_first=True does; its "
        "code as printed attends to the other images of the batch"
    ]
    return Reading(fields, renames(TABLE), unknown=tuple(unknown), notes=notes)


LINEAGE = Lineage("article", ("patch_embedding.projection.weight", "encoder.*.attention.in_proj_weight"), read)
