# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of transformers: ViT, DINO (a ViT), DeiT, ViTMAE, ViTMSN, I-JEPA, DINOv2 with and without registers.

Transformers loads them itself, whatever names their files have; the tables are of the names that its models have in
memory. The way back serves the export.
"""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from .files import Source
from .lineage import VIT_FIELDS, Lineage, Reading
from .processor_settings import saved_processor
from .tables import Rule, averaged_heads, in_halves, in_thirds, joined, positions, renames

TABLE = {
    "embeddings.cls_token": "cls_token.cls_token",
    "embeddings.patch_embeddings.projection.+": "patch_embedding.projection.+",
    "layers.*.layernorm_before.+": "encoder.*.norm1.+",
    "layers.*.attention.o_proj.+": "encoder.*.attention.out_proj.+",
    "layers.*.layernorm_after.+": "encoder.*.norm2.+",
    "layers.*.mlp.fc1.+": "encoder.*.ff.0.+",
    "layers.*.mlp.fc2.+": "encoder.*.ff.2.+",
    "layernorm.+": "norm.+",
    "pooler.dense.+": "pooler.dense.+",
}
DINOV2_TABLE = {
    "embeddings.cls_token": "cls_token.cls_token",
    "embeddings.register_tokens": "register_tokens.register_tokens",
    "embeddings.patch_embeddings.projection.+": "patch_embedding.projection.+",
    "encoder.layer.*.norm1.+": "encoder.*.norm1.+",
    "encoder.layer.*.attention.o_proj.+": "encoder.*.attention.out_proj.+",
    "encoder.layer.*.layer_scale1.lambda1": "encoder.*.scale1.gamma",
    "encoder.layer.*.norm2.+": "encoder.*.norm2.+",
    "encoder.layer.*.layer_scale2.lambda1": "encoder.*.scale2.gamma",
    "layernorm.+": "norm.+",
}
DINOV2_MLP = {"encoder.layer.*.mlp.fc1.+": "encoder.*.ff.0.+", "encoder.layer.*.mlp.fc2.+": "encoder.*.ff.2.+"}
DINOV2_SWIGLU = (
    Rule(
        ("encoder.layer.*.mlp.gate_proj.+", "encoder.layer.*.mlp.up_proj.+"), ("encoder.*.ff.0.+",), joined, in_halves
    ),
    *renames({"encoder.layer.*.mlp.down_proj.+": "encoder.*.ff.2.+"}),
)
# DeiT's distillation token is a register; its position is added to it.
DISTILLATION_TOKEN = Rule(
    ("embeddings.position_embeddings", "embeddings.distillation_token"),
    ("cls_token.cls_position", "register_tokens.register_tokens", "positional_encoding.positional_embedding"),
    lambda position, token: (position[:, :1], token + position[:, 1:2], position[:, 2:]),
    lambda of_cls, token, of_patches: (torch.cat((of_cls, torch.zeros_like(token), of_patches), dim=1), token),
)
TWO_HEADS = averaged_heads("cls_classifier", "distillation_classifier")
ONE_HEAD = {"classifier.+": "classification_head.fc.+"}
# Fields of the same name and meaning in their configurations and ours.
SHARED_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "layer_norm_eps",
    "image_size",
    "patch_size",
    "num_channels",
    "qkv_bias",
)
HEADS = ("classifier.weight", "cls_classifier.weight")
DINOV2_FIELDS = ("layerscale_value", "drop_path_rate", "use_swiglu_ffn")
MASK_TOKEN = "embeddings.mask_token"
# Parts that a checkpoint may have beside the model that it is loaded as.
UNUSED = {
    "decoder.": "it belongs to the decoder of pre-training",
    MASK_TOKEN: "it stands for masked patches in pre-training",
    "pooler.": "the classifier does not read it",
}
MODEL_TYPES = ("vit", "deit", "vit_mae", "vit_msn", "ijepa", "dinov2", "dinov2_with_registers")


def rules_of(model_type: str, *, swiglu: bool = False, two_heads: bool = False) -> tuple[Rule, ...]:
    """The table of a model type.

    Args:
        model_type: one of `MODEL_TYPES`.
        swiglu: whether its feed-forward networks are gated (DINOv2).
        two_heads: whether it has a head on the distillation token, too (DeiT).
    """
    dinov2 = model_type.startswith("dinov2")
    layer = "encoder.layer.*" if dinov2 else "layers.*"
    projections = tuple(f"{layer}.attention.{name}_proj.+" for name in "qkv")
    rules = (
        Rule(projections, ("encoder.*.attention.in_proj.+",), joined, in_thirds),
        *renames(DINOV2_TABLE if dinov2 else TABLE),
        *(TWO_HEADS if two_heads else renames(ONE_HEAD)),
    )
    if dinov2:
        rules += DINOV2_SWIGLU if swiglu else renames(DINOV2_MLP)
    if model_type == "deit":
        return (*rules, DISTILLATION_TOKEN)
    return (*rules, positions("embeddings.position_embeddings", 0 if model_type == "ijepa" else 1))


def read(source: Source, facts: dict[str, Any]) -> Reading:
    """Load the model with transformers, and understand it."""
    model_type = source.config.get("model_type")
    if not model_type:
        raise ValueError(
            f"{source.path} has the names of transformers, but no config.json of transformers beside it: name a folder "
            "with both."
        )
    if model_type not in MODEL_TYPES:
        raise ValueError(
            f"{source.path} is a model of transformers' type {model_type!r}, which is no plain ViT that vit-scratch "
            f"knows; it knows {', '.join(MODEL_TYPES)}."
        )
    folder = source.path if source.path.is_dir() else source.path.parent
    processor = saved_processor(folder)  # the quickest to fail
    peer, ignored = load(folder)
    tensors = {name.removeprefix(f"{peer.base_model_prefix}."): tensor for name, tensor in peer.state_dict().items()}
    if MASK_TOKEN in tensors:
        ignored[MASK_TOKEN] = UNUSED[MASK_TOKEN]
    return Reading(
        fields=fields_of(peer.config, tensors),
        rules=rules_of(
            model_type,
            swiglu=getattr(peer.config, "use_swiglu_ffn", False),
            two_heads="cls_classifier.weight" in tensors,
        ),
        ignored=ignored,
        preprocessing=processor,
        tensors=tensors,
    )


def load(folder: Any) -> tuple[PreTrainedModel, dict[str, str]]:
    """The model of a folder, and the tensors of its files that transformers had no use for, with the reason.

    Raises:
        ValueError: if transformers cannot load it, or weights are missing.
    """
    options: dict[str, Any] = {"trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **options)
        named = (config.architectures or [""])[0]
        classifier = "ForImageClassification" in named and hasattr(transformers, named)
        model_class = getattr(transformers, named) if classifier else transformers.AutoModel
        options |= {"dtype": "auto", "output_loading_info": True, "ignore_mismatched_sizes": True}
        peer, report = model_class.from_pretrained(folder, config=config, **options)
    except Exception as error:  # the library raises many kinds
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise ValueError(f"transformers cannot load {folder}: {type(error).__name__}, {reason}.") from error
    # Transformers adds a pooler whether there is one in the file or not.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ValueError(f"{folder} is not whole: it lacks {len(missing)} of its tensors, among them {missing[0]}.")
    for name, found, expected in report["mismatched_keys"]:
        raise ValueError(
            f"the weights in {folder} are not those of the model in its config.json: {name} is {tuple(found)} instead "
            f"of {tuple(expected)}."
        )
    if report["missing_keys"]:
        peer.pooler = None
    return peer, _unused(folder, type(peer).__name__, sorted(report["unexpected_keys"]))


def _unused(folder: Any, model: str, names: list[str]) -> dict[str, str]:
    """Why each tensor that transformers had no use for is left out.

    Raises:
        ValueError: if there is one that should have been used.
    """
    reasons = {}
    for name in names:
        part = next((part for part in UNUSED if f".{part}" in f".{name}"), None)
        if part is None:
            raise ValueError(
                f"{folder} is no plain ViT: {len(names)} of its tensors have no place in {model}, among them {name}."
            )
        reasons[name] = UNUSED[part]
    return reasons


def fields_of(config: PreTrainedConfig, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Our fields from a configuration of transformers and the shapes of its model.

    Raises:
        ValueError: if the pooler's activation is not that of ours.
    """
    model_type = config.model_type
    dinov2 = model_type.startswith("dinov2")
    shared = SHARED_FIELDS + (DINOV2_FIELDS if dinov2 else ("intermediate_size",))
    fields = {**VIT_FIELDS, "position_interpolation": "bicubic", **{name: getattr(config, name) for name in shared}}
    if dinov2:
        fields["interpolate_pos_encoding"] = True
        second = "mlp.down_proj" if config.use_swiglu_ffn else "mlp.fc2"
        fields["intermediate_size"] = tensors[f"encoder.layer.0.{second}.weight"].shape[1]
    if "pooler.dense.weight" in tensors:
        if config.pooler_act != "tanh":
            raise ValueError(f"the pooler's activation is {config.pooler_act!r}; vit-scratch has tanh there.")
        fields["pooler_output_size"] = tensors["pooler.dense.weight"].shape[0]
    return fields | _tokens(config) | _head(config, tensors)


def _tokens(config: PreTrainedConfig) -> dict[str, Any]:
    """What stands in front of the patches."""
    if config.model_type == "ijepa":
        return {"use_cls_token": False, "use_cls_position": False, "pooling": "mean"}
    if config.model_type == "deit":
        return {"num_register_tokens": 1}
    if config.model_type == "dinov2_with_registers":
        return {"num_register_tokens": config.num_register_tokens, "position_interpolation": "bicubic_antialias"}
    return {}


def _head(config: PreTrainedConfig, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the classifier reads, and its labels."""
    heads = [name for name in HEADS if name in tensors]
    if not heads:
        return {}
    fields = {"id2label": config.id2label, "problem_type": config.problem_type}
    if heads[0] == "cls_classifier.weight":
        return fields | {"pooling": "cls_distillation"}
    return fields | ({"pooling": "cls_mean"} if config.model_type.startswith("dinov2") else {})


LINEAGE = Lineage("transformers", ("embeddings.patch_embeddings.projection.weight",), read)
