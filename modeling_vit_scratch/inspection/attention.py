# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Where a classifier's attention goes: attention rollout, and how far the heads look.

Rollout follows the attention from what the head reads back through the blocks to the patches (Abnar and Zuidema 2020,
"Quantifying Attention Flow in Transformers", arXiv 2005.00928, section 3). It says which patches were mixed into the
result, not whether they spoke for it or against.

Shapes: B batch, C channels, H and W image height and width in pixels, N patches, T tokens (N, and those in front of the
patches), D width, A attention heads.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from ..model.additions_vit_scratch import AttentionPooling
from ..model.layers_vit_scratch import height_width
from .model_loading import evaluating


class NoAttentionMapError(ValueError):
    """A model of which no attention map can be made; its text is one sentence that says why."""


def attention_rollout(attentions: Sequence[Tensor], reading: Tensor) -> Tensor:
    """How much of each token there is in what the head reads.

    A block mixes the tokens by the mean of its heads, half and half with the tokens as they came, for the skip
    connection. The product of these matrices is never made: only the rows that are read are followed.

    Args:
        attentions: the probabilities of each block, (B, A, T, T), rows summing to one.
        reading: (B, T), the shares in which the head reads the tokens.

    Returns:
        (B, T); it sums to what `reading` sums to.
    """
    for probabilities in reversed(attentions):
        mixing = probabilities.float().mean(dim=1)  # (B, T, T)
        reading = 0.5 * reading + 0.5 * (reading.unsqueeze(1) @ mixing).squeeze(1)
    return reading


@torch.no_grad()
def attention_map(model: Any, pixel_values: Tensor, **options: Any) -> Tensor:
    """The rollout on the patches of the images: (B, C, H, W) -> (B, rows, columns).

    What it starts from is what the head reads: the [CLS] token, the mean of the patches or of all tokens, joined
    tokens in equal parts, or for attention pooling the patches in the shares in which the pooling itself attends to
    them. Tokens in front of the patches are left out at the end, so the sum is at most 1.

    With token merging it is the map of the merged model, exactly: a merged token is the mean of its patches, and our
    models share the attention that it gets equally among them.

    Of transformers' other models the first token is taken for [CLS] if there is one in front of the patches; they have
    maps with the attention kernel "eager" alone.

    Args:
        model: a classifier; neither its weights nor its settings are changed.
        pixel_values: as the image processor makes them.
        **options: of the forward pass, such as `interpolate_pos_encoding`.

    Raises:
        NoAttentionMapError: if the model has no attention of all tokens to all others, or does not return it.
    """
    if not isinstance(model, PreTrainedModel):
        raise NoAttentionMapError("There is no attention map of a model in this precision.")
    kind = f"There is no attention map of a model of type {model.config.model_type}"
    if not all(hasattr(model.config, name) for name in ("patch_size", "num_attention_heads")):
        raise NoAttentionMapError(f"{kind}: it has no patches that attend to one another.")
    with evaluating(model):
        outputs = model.base_model(pixel_values, output_attentions=True, return_dict=True, **options)
    attentions: Sequence[Any] = outputs.attentions or (None,)
    if any(probabilities is None for probabilities in attentions):
        raise NoAttentionMapError(f"{kind}: it does not return its attention.")
    rows, columns = (
        pixels // patch
        for pixels, patch in zip(pixel_values.shape[2:], height_width(model.config.patch_size), strict=True)
    )
    tokens = attentions[0].shape[-1]
    num_prefix_tokens = tokens - rows * columns
    shape = [len(pixel_values), tokens, tokens]
    square = all(item.ndim == 4 and [len(item), *item.shape[2:]] == shape for item in attentions)
    if not square or num_prefix_tokens < 0:
        raise NoAttentionMapError(f"{kind}: its patches do not all attend to one another.")
    reading = reading_of(model, outputs.last_hidden_state, rows * columns)  # (B, T)
    return attention_rollout(attentions, reading)[:, num_prefix_tokens:].unflatten(1, (rows, columns))


def reading_of(model: PreTrainedModel, last_hidden_state: Tensor, num_patches: int) -> Tensor:
    """The shares in which the head reads the tokens that the model returns: (B, T, D) -> (B, T)."""
    batch, tokens, _ = last_hidden_state.shape
    num_prefix_tokens = tokens - num_patches
    unit = torch.eye(tokens, device=last_hidden_state.device)[None]  # (1, T, T): a vector for each token
    if model.config.model_type != "vit_scratch":
        return (unit[:, 0] if num_prefix_tokens else unit.mean(dim=1)).expand(batch, -1)
    body: Any = model.base_model
    pool = body.pooler.pool
    if isinstance(pool, AttentionPooling):
        patches = last_hidden_state[:, num_prefix_tokens:]
        return F.pad(_gathering(pool, patches), (num_prefix_tokens, 0))
    # What the pooling makes of unit vectors are the shares, of each of the vectors that it joins: (1, T) or (1, 2 T).
    return pool(unit).unflatten(1, (-1, tokens)).mean(dim=1).expand(batch, -1)


def _gathering(pool: AttentionPooling, patches: Tensor) -> Tensor:
    """How the query of `AttentionPooling` attends to the patches, as the mean of its heads: (B, N, D) -> (B, N)."""
    query = pool.query_proj(pool.query).unflatten(2, (pool.num_heads, -1)).transpose(1, 2)  # (1, A, 1, D / A)
    key = pool.key_value_proj(patches).chunk(2, dim=-1)[0]  # (B, N, D)
    key = key.unflatten(2, (pool.num_heads, -1)).transpose(1, 2)  # (B, A, N, D / A)
    scores = query @ key.transpose(2, 3) * key.shape[-1] ** -0.5  # (B, A, 1, N)
    return scores.float().softmax(dim=-1).mean(dim=1).squeeze(1)


def attention_distance(attentions: Sequence[Tensor], grid_size: tuple[int, int], patch_size: Any) -> Tensor:
    """How far the patches look, in pixels, by block and head (ViT, Dosovitskiy et al. 2020, figure 7 and appendix D.7).

    The distance between the centres of two patches, as the mean over all pairs, weighted with the attention of the one
    to the other. What goes to tokens in front of the patches does not count.

    Args:
        attentions: the probabilities of each block, (B, A, T, T).
        grid_size: rows and columns of the patches, the last of the tokens.
        patch_size: pixels, one number or (height, width).

    Returns:
        (blocks, A), the mean over the images.
    """
    (rows, columns), (height, width) = grid_size, height_width(patch_size)
    device = attentions[0].device
    place = torch.cartesian_prod(
        torch.arange(rows, device=device) * height, torch.arange(columns, device=device) * width
    )
    distances = torch.cdist(place.float(), place.float())  # (N, N)
    far = []
    for probabilities in attentions:
        of_patches = probabilities[..., -len(place) :, -len(place) :].float()  # (B, A, N, N)
        weights = of_patches / of_patches.sum(dim=-1, keepdim=True).clamp(min=1e-12)
        far.append((weights * distances).sum(dim=-1).mean(dim=(0, 2)))  # (A,)
    return torch.stack(far)
