# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A classifier as one graph, without its Python code: what ONNX and torch's own files are made of."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from transformers import PreTrainedModel

from ..model.configuration_vit_scratch import ViTScratchConfig
from ..model.layers_vit_scratch import height_width
from ..model.merging_vit_scratch import merging_schedule

# Patches down and across that an image has at least where its size is open: torch takes a size of 1 for a constant.
LEAST_PATCHES = 2


class _Logits(nn.Module):
    def __init__(self, model: nn.Module, any_size: bool):
        super().__init__()
        self.model = model
        self.options = {"interpolate_pos_encoding": True} if any_size else {}  # other libraries' models lack it

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values, **self.options).logits


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what torch's exporter and ONNX Runtime's quantization say of their own calls: users cannot mend it."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def why_fixed(model: PreTrainedModel) -> str | None:
    """Why a model can be exported for images of one size only, as a clause; None if it can be for any."""
    config = model.config
    if not isinstance(config, ViTScratchConfig):
        return f"models of type {config.model_type} are exported as they are; those of vit-scratch take any size"
    if any(merging_schedule(config.token_merging, config.num_hidden_layers)):
        return "how many patches token merging leaves is counted at the export"
    grid = [
        side // patch
        for side, patch in zip(height_width(config.image_size), height_width(config.patch_size), strict=True)
    ]
    if min(grid) < LEAST_PATCHES:
        return f"the model's images are {grid[0]}x{grid[1]} patches, and an open size starts at {LEAST_PATCHES}"
    return None


def program_of(model: PreTrainedModel, example: Tensor, *, any_size: bool = False) -> ExportedProgram:
    """Trace a classifier for batches of any size: `pixel_values` (B, C, H, W) to logits (B, K).

    Args:
        model: the classifier.
        example: images of the shape that it will get, at least two.
        any_size: leave height and width open, too, as multiples of the patch; `why_fixed` says for which models.
    """
    shape: dict[int, object] = {0: Dim("batch")}
    if any_size:
        height, width = height_width(model.config.patch_size)
        shape |= {2: height * Dim("rows", min=LEAST_PATCHES), 3: width * Dim("columns", min=LEAST_PATCHES)}
        # No number of patches that is equal to another one, and small: only the shape matters.
        example = example.new_zeros(2, example.shape[1], 3 * height, 5 * width)
    with torch.no_grad():
        return torch.export.export(_Logits(model.eval(), any_size), (example,), dynamic_shapes=(shape,), strict=False)


def without_traces(program: ExportedProgram) -> ExportedProgram:
    """The same program without the places in the source code that its nodes come from: paths of this machine."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program
