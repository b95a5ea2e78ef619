# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""From an image model to a video model that begins with what it has learned (ViViT, section 3.4).

Shapes: Nt steps in time, S places in space, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .configuration_vit_scratch import EncoderConfig, height_and_width
from .configuration_vivit_scratch import WITHOUT_PREFIX, ViViTScratchConfig

INFLATIONS = ("central", "average")
# Fields of an image model that say nothing of a video model's.
LEFT_BEHIND = ("patch_size", "encoder_stride", "apply_layernorm", "reshape_hidden_states", "use_dual_patch_norm")


def config_of_image_model(config: Any, settings: dict[str, Any]) -> ViViTScratchConfig:
    """The configuration of a video model like an image model, with `settings` of its own."""
    if config.use_dual_patch_norm:
        raise ValueError("an image model with use_dual_patch_norm=True makes no video model: its patches have norms.")
    shared = EncoderConfig.field_defaults().keys() - {"id2label", "label2id", "architectures", "dtype"}
    fields = {name: getattr(config, name) for name in shared if name not in LEFT_BEHIND and hasattr(config, name)}
    patch = height_and_width("patch_size", config.patch_size)
    fields |= {"tubelet_size": [2, *patch], **settings}
    if fields.get("attention_variant") in WITHOUT_PREFIX:
        fields |= {"use_cls_token": False, "use_cls_position": False, "num_register_tokens": 0}
        fields |= {"pooling": settings.get("pooling", "mean")}
    return ViViTScratchConfig(**fields)


@torch.no_grad()
def inflate(video: nn.Module, image: nn.Module, inflation: str, positions: str) -> None:
    """Give a video model the weights of an image model, in place.

    Args:
        video: a `ViViTScratchModel`.
        image: a `ViTScratchModel`.
        inflation, positions: those of `from_image_model`.

    Raises:
        ValueError: if there is no such way, or a weight has another shape.
    """
    if inflation not in INFLATIONS:
        raise ValueError(f"inflation must be one of {', '.join(INFLATIONS)}, got {inflation!r}.")
    if positions != "tile":
        raise ValueError(f"positions must be 'tile', got {positions!r}.")
    given, wanted = dict(image.state_dict()), video.state_dict()
    state: dict[str, Tensor] = {}
    bias = given.pop("patch_embedding.projection.bias", None)
    if bias is not None:
        state["tubelet_embedding.projection.bias"] = bias
    frames = wanted["tubelet_embedding.projection.weight"].shape[2]
    state["tubelet_embedding.projection.weight"] = _inflated(
        given.pop("patch_embedding.projection.weight"), frames, inflation
    )
    place = "positional_encoding.positional_embedding"
    if place in wanted and place in given:
        state[place] = _positions(video, image)
    given.pop(place, None)
    block = "attention_space" if "encoder.0.attention_space.in_proj.weight" in wanted else "attention"
    for name, weight in given.items():
        name = _renamed(name, block)
        if name in wanted:
            state[name] = weight
    for name, weight in state.items():
        if weight.shape != wanted[name].shape:
            raise ValueError(
                f"{name} is {tuple(weight.shape)} in the image model and must be {tuple(wanted[name].shape)} in the "
                "video model: leave the settings of the blocks as they are."
            )
    video.load_state_dict(state, strict=False)


def _inflated(kernel: Tensor, frames: int, inflation: str) -> Tensor:
    """Filters (D, C, height, width) over some frames, (D, C, frames, height, width)."""
    if inflation == "average":
        return (kernel / frames).unsqueeze(2).repeat(1, 1, frames, 1, 1)
    inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
    inflated[:, :, frames // 2] = kernel
    return inflated


def _positions(video: Any, image: Any) -> Tensor:
    """Those of the image for each step, fitted to the places of the video: (1, S, D), or (1, Nt S, D)."""
    times, *places = video.tubelet_embedding.grid_size
    encoding = image.positional_encoding
    of_places = encoding.positional_embedding
    if tuple(places) != tuple(encoding.grid_size):
        of_places = encoding.resampled(tuple(places)).to(of_places.dtype)
    return of_places if video.temporal_encoder is not None else of_places.repeat(1, times, 1)


def _renamed(name: str, attention: str) -> str:
    """A weight of the image's blocks in those of model 3, which have an attention and a norm more."""
    if attention == "attention" or not name.startswith("encoder."):
        return name
    names = {"attention.": "attention_space.", "norm1.": "norm_space.", "norm2.": "norm_ff."}
    names |= {"scale1.": "scale_space.", "scale2.": "scale_ff."}
    begin, number, rest = name.split(".", 2)
    new = next((there + rest.removeprefix(here) for here, there in names.items() if rest.startswith(here)), rest)
    return f"{begin}.{number}.{new}"


__all__ = ["config_of_image_model", "inflate"]
