# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a video needs beyond the article's layers, in the order of ViViT (Arnab et al. 2021, arXiv 2103.15691).

    TubeletEmbedding -> SpaceTimePositions -> AddClsToken -> blocks -> ClassificationHead

This file needs nothing but torch.

Shapes: B batch, F frames, C channels, H and W height and width in pixels, Nt steps in time, S places in space (rows x
columns), D embedding dimension, A attention heads.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .additions_vit_scratch import LayerScale, StochasticDepth, SwiGLU, resampling_weights
from .layers_vit_scratch import (
    AttentionKernel,
    MultiHeadSelfAttention,
    PositionalEncoding,
    Size,
    fused_attention,
    height_width,
)

# Positions in time are stretched linearly, the first and the last staying where they are.
IN_TIME = "bilinear_align_corners"


class TubeletEmbedding(nn.Module):
    """Cut the video into tubelets and project each to a vector: (B, F, C, H, W) -> (B, Nt, S, D).

    A tubelet is a patch that lasts some frames; a convolution in three dimensions whose kernel and stride are its size
    cuts and projects in one (ViViT, section 3.2). With tubelets of one frame, a video of one frame is an image.

    Args:
        num_frames: F that positions are for.
        image_size: pixels, one number or (height, width).
        tubelet_size: (frames, height, width).
        embedding_dim: D.
        num_channels: C.
        bias: whether the projection has a bias.
        sampled_frames: take that many frames, evenly spaced, and leave the others out (uniform frame sampling).
    """

    def __init__(
        self,
        num_frames: int,
        image_size: Size,
        tubelet_size: tuple[int, int, int],
        embedding_dim: int,
        *,
        num_channels: int = 3,
        bias: bool = True,
        sampled_frames: int | None = None,
    ):
        super().__init__()
        self.tubelet_size = tubelet_size
        self.num_channels = num_channels
        self.sampled_frames = sampled_frames
        self.grid_size = self.grid_of(num_frames, *height_width(image_size))
        self.projection = nn.Conv3d(
            num_channels, embedding_dim, kernel_size=self.tubelet_size, stride=self.tubelet_size, bias=bias
        )

    def grid_of(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The steps in time, and the rows and columns of places, of a video.

        Raises:
            ValueError: if frames or pixels would be left over.
        """
        for what, given, size in zip(
            ("frames", "rows", "columns"), (frames, height, width), self.tubelet_size, strict=True
        ):
            if given % size or given < size:
                raise ValueError(
                    f"a video of {frames} frames of {height}x{width} pixels (height x width) cannot be cut into "
                    f"tubelets of {'x'.join(map(str, self.tubelet_size))} (frames x height x width): it has {given} "
                    f"{what}, which is not a multiple of {size}."
                )
        times = frames // self.tubelet_size[0] if self.sampled_frames is None else min(self.sampled_frames, frames)
        return times, height // self.tubelet_size[1], width // self.tubelet_size[2]

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 5 or x.shape[2] != self.num_channels:
            raise ValueError(
                f"expected videos of shape (batch, frames, {self.num_channels}, height, width), got {tuple(x.shape)}."
            )
        self.grid_of(x.shape[1], x.shape[3], x.shape[4])
        if self.sampled_frames is not None:
            x = x[:, evenly_spaced(x.shape[1], self.sampled_frames)]
        x = self.projection(x.transpose(1, 2))  # (B, D, Nt, rows, columns)
        return x.flatten(3).permute(0, 2, 3, 1).to(self.projection.weight.dtype)  # (B, Nt, S, D)


def evenly_spaced(frames: int, number: int) -> list[int]:
    """Which of the frames uniform frame sampling takes; all, if there are no more than that."""
    if number >= frames:
        return list(range(frames))
    return [round(step * frames / (number + 1)) for step in range(1, number + 1)]


class SpaceTimePositions(PositionalEncoding):
    """Add a learned vector to each tubelet, one per place in time and space: (B, Nt S, D) -> (B, Nt S, D).

    Args:
        grid_size: (steps in time, rows, columns) that the positions are for.
        embedding_dim: D.
        encoding: "learned" or "none".
        dropout: probability of zeroing an element of the sum.
        interpolation: how positions are fitted to other rows and columns, one of `INTERPOLATIONS`; to other steps in
            time they are fitted linearly.
    """

    def __init__(
        self,
        grid_size: tuple[int, int, int],
        embedding_dim: int,
        *,
        encoding: str = "learned",
        dropout: float = 0.0,
        interpolation: str = IN_TIME,
    ):
        super().__init__(
            math.prod(grid_size),
            embedding_dim,
            encoding=encoding,
            grid_size=grid_size,
            dropout=dropout,
            interpolation=interpolation,
        )

    def resampled(self, grid_size: tuple[int, ...], extent: Tensor | None = None) -> Tensor:
        """The learned positions on another grid: -> (1, Nt S, D)."""
        positions = self.positional_embedding.float().view(*self.grid_size, -1)
        ways = (IN_TIME, self.interpolation, self.interpolation)
        weights = [
            resampling_weights(trained, length, torch.tensor([length], device=positions.device), way)[0]
            for trained, length, way in zip(self.grid_size, grid_size, ways, strict=True)
        ]
        kind = positions.device.type
        # Autocast would round the positions; only where it is on, because exported graphs would keep the switch.
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            return torch.einsum("at,br,cw,trwd->abcd", *weights, positions).flatten(0, 2)[None]


class FactorisedSelfAttentionBlock(nn.Module):
    """Attention over space, attention over time, then one feed-forward network: (B, Nt, S, D) -> (B, Nt, S, D).

    ViViT, model 3 (section 3.3). Each attends to the tokens of its own step or place alone, with a skip connection and
    LayerNorm before it. The attention over time begins with an output of zero, so that a new block does what one of an
    image model does; with queries, keys and values at zero as well, as in the paper, it could never learn.

    Args:
        attention_order: "time_space" or "space_time".
        embedding_dim, num_heads, ff_dim, dropout, activation, layer_norm_eps, qkv_bias, hidden_dropout, drop_path,
            head_dim, out_proj_bias, layer_scale: those of `TransformerEncoderBlock`.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        ff_dim: int,
        dropout: float = 0.0,
        *,
        attention_order: str = "time_space",
        activation: nn.Module | None = None,
        layer_norm_eps: float = 1e-6,
        qkv_bias: bool = True,
        hidden_dropout: float = 0.0,
        drop_path: float = 0.0,
        head_dim: int | None = None,
        out_proj_bias: bool = True,
        layer_scale: float | None = None,
    ):
        super().__init__()
        self.order = attention_order.split("_")

        def attention() -> MultiHeadSelfAttention:
            return MultiHeadSelfAttention(
                embedding_dim, num_heads, dropout, bias=qkv_bias, head_dim=head_dim, out_bias=out_proj_bias
            )

        def scale() -> nn.Module:
            return nn.Identity() if layer_scale is None else LayerScale(embedding_dim, layer_scale)

        self.norm_space = nn.LayerNorm(embedding_dim, eps=layer_norm_eps)
        self.attention_space = attention()
        self.norm_time = nn.LayerNorm(embedding_dim, eps=layer_norm_eps)
        self.attention_time = attention()
        self.norm_ff = nn.LayerNorm(embedding_dim, eps=layer_norm_eps)
        first_dim = 2 * ff_dim if isinstance(activation, SwiGLU) else ff_dim
        self.ff = nn.Sequential(
            nn.Linear(embedding_dim, first_dim), activation or nn.GELU(), nn.Linear(ff_dim, embedding_dim)
        )
        self.hidden_dropout = nn.Dropout(hidden_dropout)
        self.scale_space, self.scale_time, self.scale_ff = scale(), scale(), scale()
        self.drop_path = StochasticDepth(drop_path)

    def forward(
        self, x: Tensor, attention_mask: None = None, kernel: AttentionKernel = fused_attention, **kwargs: Any
    ) -> Tensor:
        """Run the block.

        Args:
            x: (B, Nt, S, D).
            attention_mask: None; a video has no padding.
            kernel, **kwargs: those of `MultiHeadSelfAttention`.
        """
        for axis in self.order:
            attend = self._over_space if axis == "space" else self._over_time
            x = x + self.drop_path(attend(x, kernel, **kwargs))
        return x + self.drop_path(self.scale_ff(self.hidden_dropout(self.ff(self.norm_ff(x)))))

    def _over_space(self, x: Tensor, kernel: AttentionKernel, **kwargs: Any) -> Tensor:
        tokens = self.norm_space(x).flatten(0, 1)  # (B Nt, S, D)
        attended, _ = self.attention_space(tokens, None, kernel, **kwargs)
        return self.scale_space(self.hidden_dropout(attended)).view_as(x)

    def _over_time(self, x: Tensor, kernel: AttentionKernel, **kwargs: Any) -> Tensor:
        tokens = self.norm_time(x).transpose(1, 2)  # (B, S, Nt, D)
        attended, _ = self.attention_time(tokens.flatten(0, 1), None, kernel, **kwargs)
        return self.scale_time(self.hidden_dropout(attended)).view(tokens.shape).transpose(1, 2)


class FactorisedDotProduct:
    """Attention of which half of the heads look over time and the others over space (ViViT, model 4, section 3.3).

    It is a kernel for `MultiHeadSelfAttention`: the first half of the heads attends to the tokens of the same place,
    the second to those of the same step, as in scenic's weights.

    Args:
        kernel: what computes the attention.
        num_time_steps: Nt of the sequence.
    """

    def __init__(self, kernel: Callable, num_time_steps: int):
        self.kernel, self.num_time_steps = kernel, num_time_steps

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, **kwargs: Any
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """3 x (B, A, Nt S, D / A) -> (B, Nt S, A, D / A), and the probabilities of both halves, if the kernel has them.

        These are (B, S, A / 2, Nt, Nt) over time and (B, Nt, A / 2, S, S) over space.
        """
        batch, heads, tokens, width = query.shape
        if heads % 2:
            raise ValueError(f"factorised_dot_product needs an even number of heads, got {heads}.")
        grid = (self.num_time_steps, tokens // self.num_time_steps)
        # (B, Nt, S, A / 2, D / A) each
        parts = [x.transpose(1, 2).unflatten(1, grid).chunk(2, dim=3) for x in (query, key, value)]
        over_time = [x[0].permute(0, 2, 3, 1, 4).flatten(0, 1) for x in parts]  # (B S, A / 2, Nt, D / A)
        over_space = [x[1].transpose(2, 3).flatten(0, 1) for x in parts]  # (B Nt, A / 2, S, D / A)
        in_time, maps_in_time = self.kernel(module, *over_time, None, **kwargs)  # (B S, Nt, A / 2, D / A)
        in_space, maps_in_space = self.kernel(module, *over_space, None, **kwargs)  # (B Nt, S, A / 2, D / A)
        joined = torch.cat(
            (in_time.unflatten(0, (batch, grid[1])).transpose(1, 2), in_space.unflatten(0, (batch, grid[0]))), dim=3
        )  # (B, Nt, S, A, D / A)
        maps = None
        if maps_in_time is not None:
            maps = maps_in_time.unflatten(0, (batch, grid[1])), maps_in_space.unflatten(0, (batch, grid[0]))
        return joined.reshape(batch, tokens, heads, width), maps
