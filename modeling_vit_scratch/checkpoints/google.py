# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of Google's JAX code, `.npz` files: vision_transformer (ViT, AugReg, SAM-trained) and big_vision.

A kernel has its inputs in front and its outputs last; those of attention are split into heads, (D, A, D / A), so that
shapes tell the head count. `nn.gelu` of flax is the tanh approximation, and the epsilon of its LayerNorm is 1e-6.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..model.layers_vit_scratch import Size, height_width
from .files import Source
from .lineage import VIT_FIELDS, Lineage, Reading, grid, square
from .processor_settings import resize_and_crop
from .tables import Rule, positions, renames

BLOCK, POOL = "Transformer/encoderblock_*", "MAPHead_0"
ATTENTION = "MultiHeadDotProductAttention_0"

PARAMETERS = {
    "cls": "cls_token.cls_token",
    f"{POOL}/probe": "pooler.pool.query",
}
NORMS = {
    f"{BLOCK}/LayerNorm_0": "encoder.*.norm1",
    f"{BLOCK}/LayerNorm_1": "encoder.*.norm2",
    "Transformer/encoder_norm": "norm",
    f"{POOL}/LayerNorm_0": "pooler.pool.norm",
}
LINEARS = {
    f"{BLOCK}/{ATTENTION}/out": "encoder.*.attention.out_proj",
    f"{BLOCK}/MlpBlock_0/Dense_0": "encoder.*.ff.0",
    f"{BLOCK}/MlpBlock_0/Dense_1": "encoder.*.ff.2",
    f"{POOL}/{ATTENTION}/out": "pooler.pool.out_proj",
    f"{POOL}/MlpBlock_0/Dense_0": "pooler.pool.ff.0",
    f"{POOL}/MlpBlock_0/Dense_1": "pooler.pool.ff.2",
    "pre_logits": "pooler.dense",
    "head": "classification_head.fc",
}
PROJECTIONS = {
    (f"{BLOCK}/{ATTENTION}/query", f"{BLOCK}/{ATTENTION}/key", f"{BLOCK}/{ATTENTION}/value"): (
        "encoder.*.attention.in_proj"
    ),
    (f"{POOL}/{ATTENTION}/query",): "pooler.pool.query_proj",
    (f"{POOL}/{ATTENTION}/key", f"{POOL}/{ATTENTION}/value"): "pooler.pool.key_value_proj",
}
CONVOLUTION = {"embedding": "patch_embedding.projection"}
# At the root those of big_vision, which are the patches' alone, unless the file is older than 2022; then [CLS] has one.
POSITIONS = ("pos_embedding", "Transformer/pos_embedding", "Transformer/posembed_input/pos_embedding")

# Where the parameters are: alone, of a training run (the last as of flax's old optimisers), and there of images.
PREFIXES = ("", "params/", "opt/target/", "img/", "params/img/", "opt/target/img/")
# A tensor by which a file is known to spell names of the tables in another way, and how.
SPELLINGS = {
    # Before flax's linen, layers were numbered whatever their class: the files that vision_transformer released.
    f"{BLOCK}/LayerNorm_2/scale": {
        f"{BLOCK}/LayerNorm_1": f"{BLOCK}/LayerNorm_2",
        f"{BLOCK}/{ATTENTION}": f"{BLOCK}/MultiHeadDotProductAttention_1",
        f"{BLOCK}/MlpBlock_0": f"{BLOCK}/MlpBlock_3",
    },
    # An early head for attention pooling was no module of its own.
    "probe": {f"{POOL}/": ""},
    # Scanned blocks are stacked: one array for all of them.
    "Transformer/encoderblock/LayerNorm_0/scale": {BLOCK: "Transformer/encoderblock"},
}
IGNORED = {
    r"(params/|opt/target/)?txt/.*": "it belongs to the text tower",
    r"(params/|opt/target/)?[tb]": "it scales the similarities of images and texts",
    r"opt/(?!target/).*": "it is the state of the optimiser",
    r"chrono/.*": "it is the clock of the training run",
}


def inputs_last(kernel: Tensor) -> Sequence[Tensor]:
    """The kernel of a linear layer, (inputs, outputs), or (A, D / A, D) where heads are its inputs."""
    return (kernel.flatten(0, -2).T.contiguous(),)


def heads_joined(*kernels: Tensor) -> Sequence[Tensor]:
    """Kernels of projections to heads, each (D, A, D / A), one below the other."""
    return (torch.cat([kernel.flatten(1).T for kernel in kernels]).contiguous(),)


def channels_first(kernel: Tensor) -> Sequence[Tensor]:
    """The kernel of a convolution, (rows, columns, channels, outputs)."""
    return (kernel.permute(3, 2, 0, 1).contiguous(),)


def vectors_joined(*tensors: Tensor) -> Sequence[Tensor]:
    """Biases and the like one after the other, without an axis of heads; a copy, which holds on to no larger array."""
    return (torch.cat([tensor.flatten() for tensor in tensors]),)


def layers(names: Mapping[Any, str], kernel: str, read: Callable[..., Sequence[Tensor]]) -> tuple[Rule, ...]:
    """Rules for the weights and biases of layers, each of ours from one or more of theirs."""
    rules = []
    for theirs, ours in names.items():
        theirs = (theirs,) if isinstance(theirs, str) else theirs
        rules.append(Rule(tuple(f"{name}/{kernel}" for name in theirs), (f"{ours}.weight",), read))
        rules.append(Rule(tuple(f"{name}/bias" for name in theirs), (f"{ours}.bias",), vectors_joined))
    return tuple(rules)


RULES = (
    *renames(PARAMETERS),
    *layers(NORMS, "scale", vectors_joined),
    *layers(LINEARS, "kernel", inputs_last),
    *layers(PROJECTIONS, "kernel", heads_joined),
    *layers(CONVOLUTION, "kernel", channels_first),
)


def unstacked(rule: Rule, depth: int) -> Rule:
    """The rule for all blocks at once, of which each array has an axis in front."""

    def read(*stacks: Tensor) -> list[Tensor]:
        return [rule.read(*(stack[index] for stack in stacks))[0] for index in range(depth)]

    return Rule(rule.theirs, tuple(rule.ours[0].replace("*", str(index)) for index in range(depth)), read)


class Archive:
    """A source by the names of the tables, which it may spell in another way."""

    def __init__(self, source: Source):
        found = [prefix for prefix in PREFIXES if f"{prefix}embedding/kernel" in source.shapes]
        if not found:
            raise ValueError(f"{source.path} has embedding/kernel in none of the places {', '.join(PREFIXES[1:])}.")
        self.source, self.prefix = source, found[0]
        signs = [sign for sign in SPELLINGS if self.prefix + sign.replace("*", "0") in source.shapes]
        self.changes = [change for sign in signs for change in SPELLINGS[sign].items()]

    def spelled(self, name: str) -> str:
        """A name of the tables as it is spelled here."""
        for today, here in self.changes:
            name = name.replace(today, here)
        return self.prefix + name

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return self.spelled(name) in self.source.shapes

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; of the first block for all. Stacked blocks have one more axis, in front."""
        return self.source.shapes[self.spelled(name).replace("*", "0")]

    def rules(self) -> list[Rule]:
        """The rules for the names that are here."""
        rules = [replace(rule, theirs=tuple(self.spelled(name) for name in rule.theirs)) for rule in RULES]
        if self.spelled(BLOCK).endswith("*"):
            return rules
        return [unstacked(rule, self.depth()) if "*" in rule.ours[0] else rule for rule in rules]

    def depth(self) -> int:
        """How many blocks there are."""
        block = self.spelled(BLOCK)
        return self.source.count(block[:-1]) if block.endswith("*") else self.shape(f"{BLOCK}/LayerNorm_0/scale")[0]


def read(source: Source, facts: dict[str, Any]) -> Reading:
    """Understand an archive by its names and shapes."""
    archive = Archive(source)
    if len(archive.shape("embedding/kernel")) != 4:
        raise ValueError(f"{source.path} is no plain ViT: its patches are not projected by a convolution.")
    fields = _fields(archive)
    notes, rules, size = [], archive.rules(), facts.get("image_size")
    where = next((name for name in POSITIONS if archive.has(name)), None)
    if where is None:
        fields["position_embedding_type"] = "sincos2d"
        notes.append("assumed the fixed positions sincos2d, as none are saved")
    else:
        count, patch = archive.shape(where)[1], fields["patch_size"]
        num_prefix = int(fields["use_cls_token"] and _is_cls_among(where, count, patch, size))
        size = size or square(count - num_prefix, patch)
        fields["use_cls_position"] = bool(num_prefix)
        rules.append(positions(archive.spelled(where), num_prefix))
    if size is not None:
        fields["image_size"] = size
    if fields["pooling"] == "mean":
        notes.append("assumed that the head reads the mean of the patches, as there is no [CLS] token")
    if "pooler_output_size" in fields:
        notes.append("assumed tanh after pre_logits, which big_vision did not have at first")
    notes.append(
        "assumed that images are resized without a crop (bilinear) and scaled to -1 … 1, as vision_transformer and "
        "SigLIP do; big_vision's models of ImageNet alone cut 224 pixels out of 256"
    )
    return Reading(
        fields,
        rules,
        ignored={name: why for what, why in IGNORED.items() for name in source.shapes if re.fullmatch(what, name)},
        unknown=("image_size",) if size is None else (),
        notes=notes,
        preprocessing=None if size is None else _preprocessing(size),
    )


def _fields(archive: Archive) -> dict[str, Any]:
    """What names and shapes tell of all but the positions."""
    *patch, channels, width = archive.shape("embedding/kernel")
    heads, head_dim = archive.shape(f"{BLOCK}/{ATTENTION}/query/kernel")[-2:]
    has_cls = archive.has("cls")
    fields = VIT_FIELDS | {
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch,
        "num_hidden_layers": archive.depth(),
        "num_attention_heads": heads,
        "head_dim": None if heads * head_dim == width else head_dim,
        "intermediate_size": archive.shape(f"{BLOCK}/MlpBlock_0/Dense_0/kernel")[-1],
        "hidden_act": "gelu_pytorch_tanh",
        "position_interpolation": "bilinear_align_corners",
        "use_cls_token": has_cls,
        "use_cls_position": False,
        "pooling": "cls" if has_cls else "mean",
    }
    if archive.has(f"{POOL}/probe"):
        fields["pooling"] = "attention"
    if archive.has("pre_logits/kernel"):
        fields["pooler_output_size"] = archive.shape("pre_logits/kernel")[-1]
    return fields


def _is_cls_among(where: str, count: int, patch_size: list[int], image_size: Size | None) -> bool:
    """Whether the first of the positions is that of [CLS]."""
    if image_size is not None:
        rows, columns = grid(image_size, patch_size)
        return count == rows * columns + 1
    # At the root only those of before 2022 are, and big_vision itself knows them by the square that the others form.
    return where.startswith("Transformer/") or square(count - 1, patch_size) is not None


def _preprocessing(size: Size) -> dict[str, Any]:
    return resize_and_crop(height_width(size), resample="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


LINEAGE = Lineage("google", ("embedding/kernel", "Transformer/encoder_norm/scale"), read)
