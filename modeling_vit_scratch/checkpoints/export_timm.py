# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Our weights as a checkpoint of timm: what `create_model("local-dir:FOLDER", pretrained=True)` loads."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers.image_processing_utils import BaseImageProcessor

from ..model.configuration_vit_scratch import ViTScratchConfig
from ..model.layers_vit_scratch import height_width
from .lineage import Exported, check_counterparts
from .processor_settings import size_of_images
from .tables import HEAD, Rule, positions, renames, unapply
from .timm import LAYERSCALE_AT_FIRST, ONE_HEAD, TABLE, TWO_HEADS, positions_with_registers
from .timm_settings import ACTIVATIONS

COMMON = {
    "norm_first": True,
    "use_dual_patch_norm": False,
    "head_dim": None,
    "pooler_output_size": None,
    "pooling": ("cls", "mean", "mean_tokens", "cls_distillation", "attention"),
    "layer_norm_eps": (1e-6, 1e-5),
    "position_embedding_type": ("learned", "sincos2d"),
}
POOLINGS = {"cls": "token", "mean": "avg", "mean_tokens": "avg", "attention": "map", "cls_distillation": "token"}
# Names of activations by which transformers knows those of timm.
TIMM_ACTIVATIONS = {ours: theirs for theirs, ours in ACTIVATIONS.items()} | {"gelu_new": "gelu_tanh"}
# Architectures for what no argument sets: the epsilon of LayerNorm, a gate, a second head.
PLAIN, EPS_1E5, SWIGLU, TWO_HEADED = (
    "vit_base_patch16_224",
    "vit_base_patch16_clip_224",
    "vit_giant_patch14_dinov2",
    "deit_base_distilled_patch16_224",
)
LOAD = 'timm.create_model("local-dir:FOLDER", pretrained=True)'


def write_timm(
    config: ViTScratchConfig, state: dict[str, Tensor], image_processor: BaseImageProcessor, folder: Path
) -> Exported:
    """Write `config.json` and `model.safetensors`, as timm itself does.

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
    assert config.id2label is not None
    check_counterparts(config, COMMON | _wanted(config, has_head), "timm")
    architecture = architecture_of(config)
    arguments = _arguments(config, architecture, state[f"{HEAD}fc.weight"].shape[0] if has_head else 0)
    trained = height_width(config.image_size)
    prepared = size_of_images(image_processor, config.num_channels) or trained
    if config.interpolate_pos_encoding or prepared != trained:
        arguments["dynamic_img_size"] = True  # positions are fitted to each image
    if not arguments["no_embed_class"]:
        zeros = state["patch_embedding.projection.weight"].new_zeros(1, 1, config.hidden_size)
        state = {"cls_token.cls_position": zeros, **state}
    written = {
        "architecture": architecture,
        "num_classes": arguments["num_classes"],
        "num_features": config.hidden_size,
        "global_pool": arguments["global_pool"],
        **({"label_names": [label for _, label in sorted(config.id2label.items())]} if has_head else {}),
        "model_args": arguments,
        "pretrained_cfg": _pretrained_settings(config, image_processor, prepared, arguments),
    }
    rules = _rules(config, covered=not arguments["no_embed_class"])
    save_file(unapply(rules, state), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(written, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return Exported(
        became=f"timm's {architecture}, with its arguments changed",
        load=LOAD,
        code=_code(config.num_channels),
        notes=(
            []
            if (config.position_embedding_type, config.position_interpolation) == ("learned", "bicubic_antialias")
            else ["to images of another size timm fits the positions in its own way, not as here"]
        ),
    )


def _code(num_channels: int) -> list[str]:
    mode = "L" if num_channels == 1 else "RGB"
    return [
        "import timm",
        "from PIL import Image",
        "",
        f"model = {LOAD.replace('FOLDER', '.')}.eval()",
        "prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        f'output = model(prepare(Image.open("photo.jpg").convert("{mode}"))[None])',
    ]


def architecture_of(config: ViTScratchConfig) -> str:
    """The architecture of timm whose fixed parts are those of a configuration."""
    if config.pooling == "cls_distillation":
        return TWO_HEADED
    if config.use_swiglu_ffn:
        return SWIGLU
    return EPS_1E5 if config.layer_norm_eps == 1e-5 else PLAIN


def _wanted(config: ViTScratchConfig, has_head: bool) -> dict[str, Any]:
    """What depends on other settings."""
    wanted: dict[str, Any] = {}
    if config.use_pre_layer_norm:
        wanted["patch_bias"] = False  # timm has no bias there in front of a LayerNorm
    if config.use_final_layer_norm:
        wanted["use_pooled_layer_norm"] = False
    if config.use_swiglu_ffn:
        wanted |= {"layer_norm_eps": 1e-6, "pooling": ("cls", "mean", "mean_tokens")}
    else:
        wanted["hidden_act"] = tuple(TIMM_ACTIVATIONS)
    if config.pooling == "cls_distillation":
        wanted |= {"num_register_tokens": 1, "use_pooled_layer_norm": False, "layer_norm_eps": 1e-6}
        if not has_head:
            wanted["pooling"] = "cls"
    return wanted


def _arguments(config: ViTScratchConfig, architecture: str, num_classes: int) -> dict[str, Any]:
    """The arguments of `create_model`."""
    gated = 2 if config.use_swiglu_ffn else 1
    arguments: dict[str, Any] = {
        "img_size": list(height_width(config.image_size)),
        "patch_size": list(height_width(config.patch_size)),
        "in_chans": config.num_channels,
        "num_classes": num_classes,
        "global_pool": POOLINGS[config.pooling],
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": mlp_ratio(gated * config.intermediate_size, config.hidden_size),
        "qkv_bias": config.qkv_bias,
        # Of no consequence once the weights are loaded, but 0 would mean none.
        "init_values": None if config.layerscale_value is None else config.layerscale_value or LAYERSCALE_AT_FIRST,
        "class_token": config.use_cls_token,
        # Of the architecture with two heads, the positions cover both tokens always.
        "no_embed_class": not config.use_cls_position and architecture != TWO_HEADED,
        "pre_norm": config.use_pre_layer_norm,
        "final_norm": config.use_final_layer_norm or config.use_pooled_layer_norm,
        "fc_norm": config.use_pooled_layer_norm,
    }
    if architecture != TWO_HEADED:
        arguments["reg_tokens"] = config.num_register_tokens
    if architecture != SWIGLU:
        arguments["act_layer"] = TIMM_ACTIVATIONS[config.hidden_act]
    if config.pooling == "mean_tokens":
        arguments["pool_include_prefix"] = True
    return arguments


def mlp_ratio(width: int, hidden_size: int) -> float:
    """A ratio from which timm, which cuts off what follows the point, gets exactly this width."""
    ratio = width / hidden_size
    return ratio if int(hidden_size * ratio) == width else (width + 0.5) / hidden_size


def _rules(config: ViTScratchConfig, *, covered: bool) -> tuple[Rule, ...]:
    """The table; where positions cover [CLS], they cover the registers, too."""
    registers = "dist_token" if config.pooling == "cls_distillation" else "reg_token"
    rules = (*renames(TABLE), *(TWO_HEADS if config.pooling == "cls_distillation" else renames(ONE_HEAD)))
    if config.num_register_tokens and covered:
        return (*rules, positions_with_registers(registers, has_cls=True))
    named = {registers: "register_tokens.register_tokens"} if config.num_register_tokens else {}
    return (*rules, *renames(named), positions("pos_embed", int(covered)))


def _pretrained_settings(
    config: ViTScratchConfig,
    image_processor: BaseImageProcessor,
    prepared: tuple[int, int],
    arguments: dict[str, Any],
) -> dict[str, Any]:
    """How images are prepared, in timm's words."""
    settings = image_processor.to_dict()
    height, width = prepared
    size = settings["size"]
    cropped = before = [height, width]
    if settings.get("do_center_crop") and "height" in size:
        before = [size["height"], size["width"]]
    elif settings.get("do_center_crop"):
        cropped, before = [min(height, width)], [size["shortest_edge"]]
    # The scale of the pixels on which the mean is taken off; on timm's it is 1.
    scale = 255 * settings["rescale_factor"] if settings.get("do_rescale", True) else 255
    normalized = settings.get("do_normalize", True)
    mean, std = (
        (settings["image_mean"], settings["image_std"])
        if normalized
        else ([0.0] * config.num_channels, [1.0] * config.num_channels)
    )
    return {
        "input_size": [config.num_channels, height, width],
        "fixed_input_size": "dynamic_img_size" not in arguments,
        "interpolation": Image.Resampling(int(settings["resample"])).name.lower(),
        "crop_pct": crop_share(cropped, before),
        "crop_mode": "center" if "shortest_edge" in size else "squash",
        "mean": [value / scale for value in mean],
        "std": [value / scale for value in std],
        "num_classes": arguments["num_classes"],
        "first_conv": "patch_embed.proj",
        "classifier": ["head", "head_dist"] if config.pooling == "cls_distillation" else "head",
    }


def crop_share(cropped: Sequence[int], before: Sequence[int]) -> float:
    """A share from which timm, which cuts off what follows the point, gets the size before the crop exactly."""
    pairs = list(zip(cropped, before, strict=True))
    most = min(side / whole for side, whole in pairs)
    if all(math.floor(side / most) == whole for side, whole in pairs):
        return most
    return (most + max(side / (whole + 1) for side, whole in pairs)) / 2
