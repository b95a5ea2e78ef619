# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of timm's `VisionTransformer` (vit_*, deit*, flexivit_*), and of the research code that shares its names.

Those of timm have a `config.json` beside them; those of facebookresearch (DeiT, DINO, MAE, DINOv2) are files alone, and
the head count must be told.
"""

import math
from typing import Any

import torch

from ..model.layers_vit_scratch import Size, height_width
from .files import Source
from .lineage import VIT_FIELDS, Lineage, Reading, grid, square
from .tables import Rule, averaged_heads, positions, renames
from .timm_settings import (
    NOT_PLAIN_NAME,
    fields_of_arguments,
    fields_of_name,
    heads_of,
    labels_of,
    preprocessing_of,
    settings_of,
)

TABLE = {
    "patch_embed.proj.+": "patch_embedding.projection.+",
    "cls_token": "cls_token.cls_token",
    "norm_pre.+": "pre_norm.+",
    "blocks.*.norm1.+": "encoder.*.norm1.+",
    "blocks.*.attn.qkv.+": "encoder.*.attention.in_proj.+",
    "blocks.*.attn.proj.+": "encoder.*.attention.out_proj.+",
    "blocks.*.ls1.gamma": "encoder.*.scale1.gamma",
    "blocks.*.norm2.+": "encoder.*.norm2.+",
    "blocks.*.mlp.fc1.+": "encoder.*.ff.0.+",
    "blocks.*.mlp.fc2.+": "encoder.*.ff.2.+",
    "blocks.*.ls2.gamma": "encoder.*.scale2.gamma",
    "norm.+": "norm.+",
    "attn_pool.latent": "pooler.pool.query",
    "attn_pool.q.+": "pooler.pool.query_proj.+",
    "attn_pool.kv.+": "pooler.pool.key_value_proj.+",
    "attn_pool.proj.+": "pooler.pool.out_proj.+",
    "attn_pool.norm.+": "pooler.pool.norm.+",
    "attn_pool.mlp.fc1.+": "pooler.pool.ff.0.+",
    "attn_pool.mlp.fc2.+": "pooler.pool.ff.2.+",
    "fc_norm.+": "pooler.norm.+",
}
PRE_LOGITS = {"pre_logits.fc.+": "pooler.dense.+"}  # until timm 0.6
ONE_HEAD = {"head.+": "classification_head.fc.+"}
# facebookresearch's DINOv2 names its gated network so.
DINOV2_SWIGLU = {"blocks.*.mlp.w12.+": "encoder.*.ff.0.+", "blocks.*.mlp.w3.+": "encoder.*.ff.2.+"}
# Registers are named so by timm, by facebookresearch's DINOv2, and by DeiT, whose distillation token is one.
REGISTERS = ("reg_token", "register_tokens", "dist_token")
TWO_HEADS = averaged_heads("head", "head_dist")
IGNORED = {
    "mask_token": "it stands for masked patches in pre-training",
    "decoder_": "it belongs to the decoder of pre-training",
    "head.mlp.": "it belongs to the projection head of pre-training",
    "head.last_layer.": "it belongs to the projection head of pre-training",
}
POOLINGS = {"": "cls", "token": "cls", "avg": "mean", "map": "attention"}
LAYERSCALE_AT_FIRST = 1e-5


def read(source: Source, facts: dict[str, Any]) -> Reading:
    """Understand a checkpoint by its names and shapes, its `config.json`, and its architecture's name."""
    architecture = str(source.config.get("architecture", ""))
    if NOT_PLAIN_NAME.search(architecture):
        raise ValueError(f"{source.path} is timm's {architecture}, whose blocks are not those of a plain ViT.")
    if "pos_embed" not in source.shapes:
        raise ValueError(
            f"{source.path} has no learned positions (pos_embed); those with rotary ones (RoPE) have none."
        )
    if "blocks.0.norm1.bias" not in source.shapes:
        raise ValueError(f"{source.path} has norms without a bias (RMSNorm); a plain ViT has LayerNorm.")
    arguments = source.config.get("model_args") or {}
    settings = settings_of(source)
    fields = VIT_FIELDS | _fields_of_shapes(source) | fields_of_name(architecture)
    fields |= fields_of_arguments(arguments, swiglu=fields["use_swiglu_ffn"])
    names, notes = labels_of(source, settings)
    fields |= {"pooling": _pooling(source, arguments)} | names
    unknown: list[str] = []
    told = facts.get("num_attention_heads") or arguments.get("num_heads")
    heads = told or heads_of(architecture, None if arguments else fields["hidden_size"])
    if heads is None:
        unknown.append("num_attention_heads")
    else:
        fields["num_attention_heads"] = heads
    if not source.config:
        notes.append(
            "assumed LayerNorm's epsilon 1e-6, the exact GELU, a head that reads the [CLS] token (the mean of the "
            "patches, if fc_norm follows), and the preprocessing of ImageNet (the centre, 7/8 of the shorter side)"
        )
    size, assumed = _image_size(source, fields, facts.get("image_size") or arguments.get("img_size"), settings)
    notes += assumed
    if size is None:
        return Reading(fields, rules=(), unknown=(*unknown, "image_size"))
    whole, cut = _whole_patches(size, fields["patch_size"])
    covered = _covered(source, fields, whole)
    if covered not in _coverings(source, fields):
        raise ValueError(
            f"{source.path} has {source.shapes['pos_embed'][1]} positions; images of {whole} pixels need others."
        )
    fields |= {"image_size": whole, "use_cls_position": bool(fields["use_cls_token"] and covered)}
    # A model that fits its positions to each image may get others than those that it was made for.
    flexible = bool(arguments.get("dynamic_img_size")) or settings.get("fixed_input_size") is False
    fields["interpolate_pos_encoding"] = flexible
    prepared = (list(settings.get("input_size", ()))[-2:] or size) if flexible else size
    preprocessing, changed = preprocessing_of(settings, prepared, _whole_patches(prepared, fields["patch_size"])[0])
    return Reading(
        fields,
        rules=_rules(source, fields),
        ignored=IGNORED,
        unknown=tuple(unknown),
        notes=[*notes, *cut, *changed],
        preprocessing=preprocessing,
    )


def _num_prefix(fields: dict[str, Any]) -> int:
    return fields["use_cls_token"] + fields["num_register_tokens"]


def _covered(source: Source, fields: dict[str, Any], size: Size) -> int:
    """How many positions are left for the tokens in front of the patches."""
    return source.shapes["pos_embed"][1] - math.prod(grid(size, fields["patch_size"]))


def _coverings(source: Source, fields: dict[str, Any]) -> set[int]:
    """How many that can be: none or all of these tokens, and in DINOv2's own files [CLS] alone."""
    return {1} if "register_tokens" in source.shapes else {0, _num_prefix(fields)}


def _image_size(
    source: Source, fields: dict[str, Any], told: Size | None, settings: dict[str, Any]
) -> tuple[Size | None, list[str]]:
    """The size that was told, or the usual one if the positions fit it, or else the only square that they fit."""
    if told is not None:
        return told, []
    coverings = _coverings(source, fields)
    usual = list(settings.get("input_size", ()))[-2:]
    if usual and _covered(source, fields, usual) in coverings:
        return usual, []
    count = source.shapes["pos_embed"][1]
    patch_size = fields["patch_size"]
    squares = [square(count - covered, patch_size) for covered in coverings if covered < count]
    found = [size for size in squares if size is not None and size[0] == size[1]]
    if len(found) != 1:
        return None, []
    # Of a file alone that is said of any lineage.
    notes = [f"assumed square images, {found[0][0]}x{found[0][1]} pixels for {count} positions"]
    return found[0], notes if source.config else []


def _whole_patches(size: Size, patch_size: Size) -> tuple[Size, list[str]]:
    """An image size without the rest that timm's convolution leaves out (384 pixels, patches of 14: 378)."""
    height, width = height_width(size)
    rows, columns = grid(size, patch_size)
    whole = [rows * height_width(patch_size)[0], columns * height_width(patch_size)[1]]
    if whole == [height, width]:
        return size, []
    return whole, [f"of images of {height}x{width} pixels timm ignores the edge: they are cut to {whole[0]}x{whole[1]}"]


def _fields_of_shapes(source: Source) -> dict[str, Any]:
    """What names and shapes of tensors tell."""
    shapes = source.shapes
    width, channels, *patch = shapes["patch_embed.proj.weight"]
    registers = shapes.get("reg_token", shapes.get("register_tokens", (1, 0)))[1]
    second = shapes.get("blocks.0.mlp.fc2.weight") or shapes["blocks.0.mlp.w3.weight"]
    first = shapes.get("blocks.0.mlp.fc1.weight") or shapes["blocks.0.mlp.w12.weight"]
    fields: dict[str, Any] = {
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch,
        "patch_bias": "patch_embed.proj.bias" in shapes,
        "num_hidden_layers": source.count("blocks."),
        "intermediate_size": second[1],
        "use_swiglu_ffn": first[0] == 2 * second[1],
        "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
        "out_proj_bias": "blocks.0.attn.proj.bias" in shapes,
        "use_cls_token": "cls_token" in shapes,
        "num_register_tokens": registers + ("dist_token" in shapes),
        "use_pre_layer_norm": "norm_pre.weight" in shapes,
        "use_final_layer_norm": "norm.weight" in shapes,
        "use_pooled_layer_norm": "fc_norm.weight" in shapes,
    }
    if "blocks.0.ls1.gamma" in shapes:
        fields["layerscale_value"] = LAYERSCALE_AT_FIRST
    if "pre_logits.fc.weight" in shapes:
        fields["pooler_output_size"] = shapes["pre_logits.fc.weight"][0]
    return fields


def _pooling(source: Source, arguments: dict[str, Any]) -> str:
    """What the head reads, or would."""
    shapes = source.shapes
    if "head_dist.weight" in shapes:
        return "cls_distillation"
    # Where nothing tells: a norm behind the pooling comes with a mean, as in MAE's own files.
    usual = "avg" if "fc_norm.weight" in shapes else "token"
    pool = (
        "map" if "attn_pool.latent" in shapes else arguments.get("global_pool", source.config.get("global_pool", usual))
    )
    if pool not in POOLINGS:
        raise ValueError(
            f"timm's global_pool {pool!r} is none of those that vit-scratch knows: {', '.join(filter(None, POOLINGS))}."
        )
    # Features of a model without a [CLS] token or a head are left unpooled.
    pooling = "mean" if POOLINGS[pool] == "cls" and "cls_token" not in shapes else POOLINGS[pool]
    if not arguments.get("pool_include_prefix") or _num_prefix(_fields_of_shapes(source)) == 0:
        return pooling
    if pooling == "attention":
        raise ValueError("timm's pool_include_prefix with attention pooling has no counterpart in vit-scratch.")
    return "mean_tokens" if pooling == "mean" else pooling


def _rules(source: Source, fields: dict[str, Any]) -> tuple[Rule, ...]:
    rules = renames(TABLE | DINOV2_SWIGLU | PRE_LOGITS)
    rules += TWO_HEADS if "head_dist.weight" in source.shapes else renames(ONE_HEAD)
    covered = _covered(source, fields, fields["image_size"])
    registers = next((name for name in REGISTERS if name in source.shapes), None)
    if registers is None or covered in (0, int(fields["use_cls_token"])):
        named = {} if registers is None else {registers: "register_tokens.register_tokens"}
        return (*rules, *renames(named), positions("pos_embed", covered))
    return (*rules, positions_with_registers(registers, has_cls=fields["use_cls_token"]))


def positions_with_registers(registers: str, *, has_cls: bool) -> Rule:
    """Positions that cover the registers, too: those are added to the registers, which have none of their own."""
    if not has_cls:
        return Rule(
            ("pos_embed", registers),
            ("register_tokens.register_tokens", "positional_encoding.positional_embedding"),
            lambda position, token: (token + position[:, : token.shape[1]], position[:, token.shape[1] :]),
        )
    return Rule(
        ("pos_embed", registers),
        ("cls_token.cls_position", "register_tokens.register_tokens", "positional_encoding.positional_embedding"),
        lambda position, token: (
            position[:, :1],
            token + position[:, 1 : 1 + token.shape[1]],
            position[:, 1 + token.shape[1] :],
        ),
        lambda of_cls, token, of_patches: (torch.cat((of_cls, torch.zeros_like(token), of_patches), dim=1), token),
    )


LINEAGE = Lineage("timm", ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight"), read)
