# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Our weights out: which of our settings another library has, and the tensors that it expects."""

from pathlib import Path

import torch
from torch import Tensor
from transformers.image_processing_utils import BaseImageProcessor

from ..model.configuration_vit_scratch import ViTScratchConfig
from ..model.layers_vit_scratch import PositionalEncoding
from ..model.modeling_vit_scratch import ViTScratchPreTrainedModel
from .export_timm import write_timm
from .export_transformers import write_transformers
from .lineage import Exported, grid
from .tables import of_body

WRITERS = {"transformers": write_transformers, "timm": write_timm}


def export_model(
    model: ViTScratchPreTrainedModel, image_processor: BaseImageProcessor, folder: Path, *, format: str
) -> Exported:
    """Write a model as a checkpoint of another library, with the same logits.

    Args:
        model: `ViTScratchForImageClassification` or `ViTScratchModel`.
        image_processor: its image processor.
        folder: an empty folder.
        format: one of `WRITERS`.

    Returns:
        What it became, and how it is loaded.

    Raises:
        ValueError: naming each setting that has no counterpart there.
    """
    if format not in WRITERS:
        raise ValueError(f"there is no export to {format!r}; there is one to {', '.join(WRITERS)}.")
    return WRITERS[format](model.config, filled(model), image_processor, folder)


def filled(model: ViTScratchPreTrainedModel) -> dict[str, Tensor]:
    """The tensors of a model under the names of `ViTScratchModel`, with zeros for every bias that it does without.

    A bias of zero changes nothing, and others have one always. Fixed positions are written out.
    """
    config: ViTScratchConfig = model.config
    state = of_body(model.state_dict())
    if config.position_embedding_type == "sincos2d":
        rows, columns = grid(config.image_size, config.patch_size)
        encoding = PositionalEncoding(
            rows * columns, config.hidden_size, encoding="sincos2d", grid_size=(rows, columns)
        )
        like = state["patch_embedding.projection.weight"]
        state["positional_encoding.positional_embedding"] = encoding.sincos2d((rows, columns), like).contiguous()
    needed = ["patch_embedding.projection"] * (not config.use_pre_layer_norm)
    needed += [f"encoder.{index}.attention.out_proj" for index in range(config.num_hidden_layers)]
    for name in needed:
        weight = state[f"{name}.weight"]
        state.setdefault(f"{name}.bias", torch.zeros(weight.shape[0], dtype=weight.dtype))
    return state
