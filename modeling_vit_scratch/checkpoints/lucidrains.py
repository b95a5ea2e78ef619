# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of lucidrains' vit-pytorch: state dicts of `ViT` and `SimpleViT`, of its releases 0.10 to 1.26.

A patch is flattened as (rows, columns, channels), and is normalised before and after its projection; attention has no
qkv bias, and its heads are 64 wide whatever the width of the model. Files do not say how they were divided.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..model.layers_vit_scratch import height_width
from .files import Source
from .lineage import VIT_FIELDS, Lineage, Reading, square
from .tables import Rule, renames

BLOCK = "transformer.layers.*"
TABLE = {
    f"{BLOCK}.0.norm.+": "encoder.*.norm1.+",
    f"{BLOCK}.0.to_qkv.weight": "encoder.*.attention.in_proj.weight",
    f"{BLOCK}.0.to_out.0.+": "encoder.*.attention.out_proj.+",
    f"{BLOCK}.1.net.0.+": "encoder.*.norm2.+",
    f"{BLOCK}.1.net.1.+": "encoder.*.ff.0.+",
    f"{BLOCK}.1.net.4.+": "encoder.*.ff.2.+",
    "transformer.norm.+": "norm.+",
    "mlp_head.+": "classification_head.fc.+",
    # SimpleViT has no dropout, which takes a number in the names.
    f"{BLOCK}.0.to_out.weight": "encoder.*.attention.out_proj.weight",
    f"{BLOCK}.1.net.3.+": "encoder.*.ff.2.+",
    "linear_head.+": "classification_head.fc.+",
}
# Before 1.4 the last LayerNorm came after pooling.
OLD_TABLE = {
    f"{BLOCK}.0.fn.to_qkv.weight": "encoder.*.attention.in_proj.weight",
    f"{BLOCK}.0.fn.to_out.0.+": "encoder.*.attention.out_proj.+",
    f"{BLOCK}.1.norm.+": "encoder.*.norm2.+",
    f"{BLOCK}.1.fn.net.0.+": "encoder.*.ff.0.+",
    f"{BLOCK}.1.fn.net.3.+": "encoder.*.ff.2.+",
    "mlp_head.0.+": "pooler.norm.+",
    "mlp_head.1.+": "classification_head.fc.+",
    "linear_head.0.+": "pooler.norm.+",
    "linear_head.1.+": "classification_head.fc.+",
}
# Today's name, and that of before 1.4.
QKV = (f"{BLOCK}.0.to_qkv.weight", f"{BLOCK}.0.fn.to_qkv.weight")
MLP = (f"{BLOCK}.1.net.1.weight", f"{BLOCK}.1.fn.net.0.weight")
POSITIONS = "positional_encoding.positional_embedding"
# Defaults of both classes.
HEAD_DIM, NUM_CHANNELS = 64, 3


def read(source: Source, facts: dict[str, Any]) -> Reading:
    """Understand a state dict by its names and shapes."""
    fields = _fields(source) | _pooling(source, facts)
    heads, notes = _heads(source, facts)
    patches, more_notes = _patches(source, facts)
    fields |= heads | patches
    if "pos_embedding" in source.shapes and patches:
        size = square(source.shapes["pos_embedding"][-2] - fields["use_cls_token"], fields["patch_size"])
        fields |= {} if size is None else {"image_size": size}
    return Reading(
        fields,
        rules=_rules(source, fields) if patches else (),
        ignored={} if fields["use_cls_token"] else {"cls_token": "it is empty, as there is no [CLS] token"},
        unknown=tuple(
            name for name in ("num_attention_heads", "patch_size", "image_size", "pooling") if name not in fields
        ),
        notes=notes + more_notes,
    )


def _fields(source: Source) -> dict[str, Any]:
    """What names and shapes tell of the blocks, the tokens and the norms."""
    shapes = source.shapes
    width = _of_first_block(source, QKV)[1]
    has_cls = math.prod(shapes.get("cls_token", (0,))) > 0
    return VIT_FIELDS | {
        "hidden_size": width,
        "num_hidden_layers": source.count("transformer.layers."),
        "intermediate_size": _of_first_block(source, MLP)[0],
        "layer_norm_eps": 1e-5,
        "qkv_bias": False,
        "out_proj_bias": any(name.endswith("to_out.0.bias") for name in shapes),
        "use_dual_patch_norm": _has_dual_norm(source),
        "position_embedding_type": "learned" if "pos_embedding" in shapes else "sincos2d",
        "use_cls_token": has_cls,
        "use_cls_position": has_cls,
        "use_final_layer_norm": "transformer.norm.weight" in shapes,
        "use_pooled_layer_norm": "mlp_head.0.weight" in shapes or "linear_head.0.weight" in shapes,
    }


def _of_first_block(source: Source, names: Sequence[str]) -> tuple[int, ...]:
    """The shape of a tensor, which has one of these names, in the first block."""
    first, second = (name.replace("*", "0") for name in names)
    return source.shapes[first] if first in source.shapes else source.shapes[second]


def _has_dual_norm(source: Source) -> bool:
    """Whether patches are normalised around their projection, which is the first layer otherwise (before 1.0)."""
    return len(source.shapes["to_patch_embedding.1.weight"]) == 1


def _projects_attention(source: Source) -> bool:
    """Whether the attention's output is projected, which that of one head as wide as the model is not."""
    return any(".to_out." in name for name in source.shapes)


def _pooling(source: Source, facts: dict[str, Any]) -> dict[str, Any]:
    """What the head reads, where the tokens tell it."""
    shape = source.shapes.get("cls_token", (0,))
    if math.prod(shape) == 0:
        return {"pooling": "mean"}
    if len(shape) == 2:  # since 1.17, which has no [CLS] token but where the head reads it
        return {"pooling": "cls"}
    if facts.get("pooling") == "mean":
        raise ValueError(f"{source.path} has a [CLS] token, which vit-pytorch's mean includes: pooling=mean_tokens.")
    return {}


def _heads(source: Source, facts: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """How the attention is divided, and notes; nothing if it must be told."""
    rows, width = _of_first_block(source, QKV)
    together, notes = rows // 3, []
    if facts.get("num_attention_heads"):
        heads = facts["num_attention_heads"]
    elif facts.get("head_dim"):
        heads = together // facts["head_dim"]
    elif not _projects_attention(source):
        heads = 1
    elif together % HEAD_DIM == 0:
        heads = together // HEAD_DIM
        notes.append(f"assumed {heads} attention heads of width {HEAD_DIM}, vit-pytorch's default")
    else:
        return {}, []
    return {"num_attention_heads": heads, "head_dim": None if together == width else together // heads}, notes


def _patches(source: Source, facts: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """How the pixels of a patch are arranged, and notes; nothing if it must be told."""
    layer = 2 if _has_dual_norm(source) else 1
    values, notes = source.shapes[f"to_patch_embedding.{layer}.weight"][1], []
    if facts.get("patch_size"):
        patch = list(height_width(facts["patch_size"]))
        channels = facts.get("num_channels", values // math.prod(patch))
    else:
        channels = facts.get("num_channels") or NUM_CHANNELS
        side = math.isqrt(values // channels)
        patch = [side, side]
        if channels * side * side != values:
            return {}, []
        notes.append(f"assumed square patches of {side} pixels and {channels} channels")
    if channels * math.prod(patch) != values:
        raise ValueError(
            f"{source.path} has patches of {values} values, which are not {channels} channels of "
            f"{patch[0]}x{patch[1]} pixels: correct patch_size or num_channels."
        )
    return {"patch_size": patch, "num_channels": channels}, notes


def _rules(source: Source, fields: dict[str, Any]) -> tuple[Rule, ...]:
    rules = renames(TABLE | OLD_TABLE) + _patch_rules(fields) + _position_rules(has_cls=fields["use_cls_token"])
    if _projects_attention(source):
        return rules
    # Ours has a projection always; this one leaves everything as it is.
    return (*rules, *(Rule((name,), ("encoder.*.attention.out_proj.weight",), identity) for name in QKV))


def identity(qkv: Tensor) -> Sequence[Tensor]:
    """The projection (D, D) that changes nothing, beside a `to_qkv` of one head as wide as the model, (3 D, D)."""
    return (torch.eye(qkv.shape[1], dtype=qkv.dtype),)


def _patch_rules(fields: dict[str, Any]) -> tuple[Rule, ...]:
    (height, width), channels = fields["patch_size"], fields["num_channels"]

    def channels_first(tensor: Tensor) -> Sequence[Tensor]:
        return (tensor.unflatten(-1, (height, width, channels)).movedim(-1, -3).contiguous(),)

    def channels_first_flat(tensor: Tensor) -> Sequence[Tensor]:
        return (channels_first(tensor)[0].flatten(),)

    if not fields["use_dual_patch_norm"]:
        return (
            Rule(("to_patch_embedding.1.weight",), ("patch_embedding.projection.weight",), channels_first),
            *renames({"to_patch_embedding.1.bias": "patch_embedding.projection.bias"}),
        )
    return (
        Rule(("to_patch_embedding.1.+",), ("patch_embedding.pixel_norm.+",), channels_first_flat),
        Rule(("to_patch_embedding.2.weight",), ("patch_embedding.projection.weight",), channels_first),
        *renames({"to_patch_embedding.2.bias": "patch_embedding.projection.bias"}),
        *renames({"to_patch_embedding.3.+": "patch_embedding.norm.+"}),
    )


def _position_rules(*, has_cls: bool) -> tuple[Rule, ...]:
    """Tokens and positions, which have lost their first axis, that of the batch, in 1.17."""

    def batched(tensor: Tensor) -> Tensor:
        return tensor.reshape(1, -1, tensor.shape[-1])

    if not has_cls:
        return (Rule(("pos_embedding",), (POSITIONS,), lambda tensor: (batched(tensor),)),)
    return (
        Rule(("cls_token",), ("cls_token.cls_token",), lambda tensor: (batched(tensor),)),
        Rule(
            ("pos_embedding",),
            ("cls_token.cls_position", POSITIONS),
            lambda tensor: (batched(tensor)[:, :1], batched(tensor)[:, 1:]),
        ),
    )


LINEAGE = Lineage("lucidrains", ("to_patch_embedding.1.weight", f"{BLOCK}.0.norm.weight"), read)
