# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a model has learned of patches and places before it sees an image (ViT, Dosovitskiy et al. 2020, figure 7).

Shapes: C channels, N patches, D width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel


@torch.no_grad()
def patch_filters(model: PreTrainedModel, number: int = 28) -> Tensor:
    """The principal components of the filters of the patch embedding: -> (number, C, patch height, patch width).

    Each of the D filters is a point; the components are the directions in which they differ most, the first one most of
    all. At most as many as there are filters or pixels.

    Args:
        model: of this package.
        number: how many.
    """
    filters = body_of(model).patch_embedding.projection.weight.float()  # (D, C, patch height, patch width)
    flat = filters.flatten(1)
    _, _, components = torch.linalg.svd(flat - flat.mean(dim=0), full_matrices=False)  # (min(D, pixels), pixels)
    return components[:number].unflatten(1, filters.shape[1:])


@torch.no_grad()
def position_similarity(model: PreTrainedModel) -> Tensor | None:
    """How alike the positions of the patches are, as cosines: -> (N, rows, columns); None if the model has none.

    Args:
        model: of this package.
    """
    encoding = body_of(model).positional_encoding
    if encoding.encoding == "none":
        return None
    if encoding.encoding == "learned":
        positions = encoding.positional_embedding[0].float()
    else:
        like = body_of(model).patch_embedding.projection.weight.float()
        positions = encoding.sincos2d(encoding.grid_size, like)[0]
    positions = F.normalize(positions, dim=1)  # (N, D)
    return (positions @ positions.T).clamp(-1, 1).unflatten(1, encoding.grid_size)


def body_of(model: PreTrainedModel) -> Any:
    """The model without its head."""
    return model.base_model
