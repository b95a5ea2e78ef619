# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What timm's `config.json` says, and what only the name of an architecture in it implies."""

import math
import re
from typing import Any

from PIL import Image

from ..model.layers_vit_scratch import Size, height_width
from .files import Source
from .lineage import VIT_FIELDS, labels
from .processor_settings import IMAGENET_MEAN, IMAGENET_STD, resize_and_crop

# What only the name of an architecture tells, in timm 1.0.31.
CLIP_NAME = re.compile(r"_clip_")
QUICK_GELU_NAME = re.compile(r"_quickgelu")
TANH_GELU_NAME = re.compile(r"(base_patch32|giantopt_patch16|so400m_patch16)_siglip|large_patch16_siglip(_gap)?_512")
NOT_PLAIN_NAME = re.compile(r"_rpn_|^test_vit3|^vit_pe_|^beit|^eva\d|^aimv2|relpos|_rope|^samvit|^naflexvit")
# Width and heads, by a part of the name; the first that fits counts.
SIZES_BY_NAME = (
    (r"^test_vit2?$", 64, 2),
    (r"^vit_base_patch16_gap_224", 768, 16),
    (r"_base_patch\d+_plus_", 896, 14),
    (r"_giant_.*(dinov2|tipsv2|radio)", 1536, 24),
    (r"_tiny(_|$)", 192, 3),
    (r"_(wee|xsmall)(_|$)", 256, 4),
    (r"_little(_|$)", 320, 5),
    (r"_small(_|$)", 384, 6),
    (r"_mediumd?(_|$)", 512, 8),
    (r"_betwixt(_|$)", 640, 10),
    (r"_base(_|$)", 768, 12),
    (r"_so150m2(_|$)", 832, 13),
    (r"_so150m(_|$)", 896, 14),
    (r"_(large|intern300m)(_|$)", 1024, 16),
    (r"_so400m(_|$)", 1152, 16),
    (r"_huge(_|$)", 1280, 16),
    (r"_giant(_|$)", 1408, 16),
    (r"_giantopt(_|$)", 1536, 16),
    (r"_gigantic(_|$)", 1664, 16),
)
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
NORMS = ("layernorm", "layernormfp32")
# What timm takes where a configuration says nothing.
IMAGENET_SETTINGS = {
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
}


def settings_of(source: Source) -> dict[str, Any]:
    """What a configuration says beside the model, whether in a part of its own or, as long ago, at its root."""
    found = {**source.config, **(source.config.get("pretrained_cfg") or {})}
    return IMAGENET_SETTINGS | {name: value for name, value in found.items() if value is not None}


def fields_of_name(architecture: str) -> dict[str, Any]:
    """What only the name of an architecture tells."""
    fields: dict[str, Any] = {}
    if CLIP_NAME.search(architecture):
        fields["layer_norm_eps"] = 1e-5
    if QUICK_GELU_NAME.search(architecture):
        fields["hidden_act"] = "quick_gelu"
    elif TANH_GELU_NAME.search(architecture):
        fields["hidden_act"] = "gelu_pytorch_tanh"
    return fields


def heads_of(architecture: str, width: int | None) -> int | None:
    """The heads of an architecture, where they were not changed.

    Args:
        architecture: its name.
        width: of the model, if nothing else tells what was changed: another than usual means other heads, maybe.
    """
    for name, usual, heads in SIZES_BY_NAME:
        if re.search(name, architecture):
            return heads if width in (None, usual) else None
    return None


def fields_of_arguments(arguments: dict[str, Any], *, swiglu: bool) -> dict[str, Any]:
    """What the arguments tell that the model was made with; one that is empty stands for timm's own default."""
    fields: dict[str, Any] = {}
    if "act_layer" in arguments:
        name = str(arguments["act_layer"] or "gelu").lower()
        if name not in ACTIVATIONS or (swiglu and ACTIVATIONS[name] != "silu"):
            known = "silu, as its networks are gated" if swiglu else ", ".join(ACTIVATIONS)
            raise ValueError(f"timm's act_layer {name!r} is none of those that vit-scratch has here: {known}.")
        fields["hidden_act"] = ACTIVATIONS[name]
    if "norm_layer" in arguments:
        if str(arguments["norm_layer"] or NORMS[0]).lower().replace("_", "") not in NORMS:
            raise ValueError(f"timm's norm_layer {arguments['norm_layer']!r} is not LayerNorm.")
        fields["layer_norm_eps"] = VIT_FIELDS["layer_norm_eps"]
    return fields


def labels_of(source: Source, settings: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The names of the classes, if they are those of this head; timm may leave some out."""
    names = settings.get("label_names") or settings.get("labels")
    if not names or "head.weight" not in source.shapes:
        return {}, []
    given = labels(names)["id2label"]
    count = source.shapes["head.weight"][0]
    if max(given) >= count:
        return {}, [f"ignored the names of {len(given)} classes, as the head has {count}"]
    # A description says in words what a name such as n02123045 codes.
    descriptions = settings.get("label_descriptions") or {}
    named = {index: descriptions.get(name, name) for index, name in given.items()}
    return {"id2label": {index: named.get(index, f"LABEL_{index}") for index in range(count)}}, []


def preprocessing_of(settings: dict[str, Any], prepared: Size, whole: Size) -> tuple[dict[str, Any], list[str]]:
    """The evaluation transform of timm: resized so that the crop is `crop_pct` of it; and how ours differs.

    Args:
        settings: of the configuration.
        prepared: what timm cuts out.
        whole: the whole patches of it, which are cut out here.
    """
    notes = []
    size = height_width(prepared)
    share, mode = settings["crop_pct"], settings["crop_mode"]
    height, width = (math.floor(side / share) for side in size)
    resized: int | tuple[int, int] = (height, width)
    if mode == "center" and size[0] == size[1]:
        resized = height
    elif mode != "squash":
        notes.append(f"timm keeps the proportions of images (crop_mode {mode!r}), which are not kept here")
    interpolation = str(settings["interpolation"])
    arguments = resize_and_crop(
        height_width(whole),
        resized=resized,
        resample=interpolation if interpolation.upper() in Image.Resampling.__members__ else "bicubic",
        mean=settings["mean"],
        std=settings["std"],
    )
    return arguments, notes
