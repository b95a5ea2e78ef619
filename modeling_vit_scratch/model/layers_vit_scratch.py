# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The article's Vision Transformer, layer by layer and in the article's order.

    PatchEmbedding -> PositionalEncoding -> AddClsToken -> TransformerEncoderBlock x depth -> ClassificationHead

Every class takes the article's arguments; whatever goes beyond the article is keyword-only and its default is the
article's. Layers that the article does not have are in `additions_vit_scratch.py`. Both need nothing but torch.

Shapes: B batch, C channels, H and W image height and width in pixels, N patches, T tokens (N, and one more with the
[CLS] token), D embedding dimension, A attention heads, F feed-forward dimension, K classes.

Sources: the article "Understanding Vision Transformers"; Dosovitskiy et al. 2020 (arXiv 2010.11929), "ViT" below.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .additions_vit_scratch import INTERPOLATIONS, LayerScale, StochasticDepth, SwiGLU, TokenPooling, resampling_weights

# (attention module, query, key, value, mask, dropout=, scaling=) -> (output (B, T, A, D/A), probabilities or None)
AttentionKernel = Callable[..., tuple[Tensor, Tensor | None]]
Size = int | tuple[int, int] | list[int]


def height_width(size: Size) -> tuple[int, int]:
    """An `image_size` or `patch_size`, one number for a square or `[height, width]`, as `(height, width)` in pixels."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


# --- Step 1 ----------------------------------------------------------------------------------------------------------


class PatchEmbedding(nn.Module):
    """Cut the image into patches, row by row, and project each to a vector: (B, C, H, W) -> (B, N, D).

    A convolution whose kernel and stride are the patch size is that cut and projection in one (ViT, section 3.1,
    equation 1).

    Args:
        image_size, patch_size: pixels, one number or (height, width).
        embedding_dim: D.
        num_channels: C.
        bias: whether the projection has a bias.
        dual_norm: LayerNorm on the pixels of a patch and again on its vector (Dual PatchNorm, Kumar et al. 2023, arXiv
            2302.01327).
        layer_norm_eps: added to the variance in these two.

    Raises:
        ValueError: if the image has another number of channels, or a side that is not a multiple of the patch (the
            convolution alone would crop such an image silently).
    """

    def __init__(
        self,
        image_size: Size,
        patch_size: Size,
        embedding_dim: int,
        *,
        num_channels: int = 3,
        bias: bool = True,
        dual_norm: bool = False,
        layer_norm_eps: float = 1e-5,
    ):
        super().__init__()
        self.patch_size = height_width(patch_size)
        self.num_channels = num_channels
        self.grid_size = self.grid_of(*height_width(image_size))
        self.num_patches = math.prod(self.grid_size)
        self.projection = nn.Conv2d(
            num_channels, embedding_dim, kernel_size=self.patch_size, stride=self.patch_size, bias=bias
        )
        self.flatten = nn.Flatten(2)
        self.dual_norm = dual_norm
        if dual_norm:
            self.pixel_norm = nn.LayerNorm(num_channels * math.prod(self.patch_size), eps=layer_norm_eps)
            self.norm = nn.LayerNorm(embedding_dim, eps=layer_norm_eps)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """The number of patches down and across an image of `height` x `width` pixels."""
        patch_height, patch_width = self.patch_size
        if height % patch_height or width % patch_width:
            raise ValueError(
                f"an image of {height}x{width} pixels (height x width) cannot be cut into patches of "
                f"{patch_height}x{patch_width}: resize or pad it to a multiple of the patch size."
            )
        return height // patch_height, width // patch_width

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.num_channels:
            raise ValueError(
                f"expected images of shape (batch, {self.num_channels}, height, width), got {tuple(x.shape)}."
            )
        self.grid_of(x.shape[2], x.shape[3])
        if self.dual_norm:
            return self._between_norms(x)
        x = self.projection(x)  # (B, D, H / patch height, W / patch width)
        x = self.flatten(x)  # (B, D, N)
        # Autocast rounds what a projection gives. The sum of the branches that begins here has the weights' precision.
        return x.transpose(1, 2).to(self.projection.weight.dtype)  # (B, N, D)

    def _between_norms(self, x: Tensor) -> Tensor:
        x = F.unfold(x, self.patch_size, stride=self.patch_size).transpose(1, 2)  # (B, N, C * patch height * width)
        x = F.linear(self.pixel_norm(x), self.projection.weight.flatten(1), self.projection.bias)  # (B, N, D)
        return self.norm(x)


# --- Step 2 ----------------------------------------------------------------------------------------------------------


class PositionalEncoding(nn.Module):
    """Add a learned vector to each patch, one per place in the image: (B, N, D) -> (B, N, D).

    The article adds positions before the [CLS] token exists, so [CLS] has none. `encoding="sincos2d"` adds fixed
    sines and cosines instead (Chen et al. 2021, MoCo v3, arXiv 2104.02057, section 4; the order is sin x, cos x,
    sin y, cos y) and has no parameter; `encoding="none"` adds nothing.

    Args:
        num_patches: patches the learned positions are for, row by row.
        embedding_dim: D; `sincos2d` needs a multiple of 4.
        encoding: "learned" (the article's), "sincos2d" or "none".
        grid_size: (rows, columns) of the patches; needed for "sincos2d" and to fit learned positions to another size.
            By default the patches form a square, if they can.
        dropout: probability of zeroing an element of the sum (ViT, appendix B.1; none in the article).
        interpolation: how learned positions are fitted to another grid, one of `INTERPOLATIONS`.
    """

    def __init__(
        self,
        num_patches: int,
        embedding_dim: int,
        *,
        encoding: str = "learned",
        grid_size: tuple[int, ...] | None = None,
        dropout: float = 0.0,
        interpolation: str = "bicubic_antialias",
    ):
        super().__init__()
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}.")
        if encoding not in ("learned", "sincos2d", "none"):
            raise ValueError(f"encoding must be 'learned', 'sincos2d' or 'none', got {encoding!r}.")
        if encoding == "sincos2d" and embedding_dim % 4:
            raise ValueError(f"sincos2d positions need an embedding_dim that is a multiple of 4, got {embedding_dim}.")
        side = math.isqrt(num_patches)
        self.grid_size: tuple[int, ...] = grid_size or (
            (side, side) if side * side == num_patches else (1, num_patches)
        )
        if math.prod(self.grid_size) != num_patches:
            raise ValueError(f"grid_size {self.grid_size} does not hold {num_patches} patches.")
        self.encoding = encoding
        self.interpolation = interpolation
        self.embedding_dim = embedding_dim
        if encoding == "learned":
            self.positional_embedding = nn.Parameter(torch.randn(1, num_patches, embedding_dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, grid_size: tuple[int, ...] | None = None, extent: Tensor | None = None) -> Tensor:
        """Add the positions.

        Args:
            x: (B, N, D), patches row by row.
            grid_size: rows and columns of `x`; by default those the layer was built for.
            extent: (B, 2), rows and columns that each image covers from the top left corner, the rest of the grid being
                padding; by default all. Each image gets the positions that it would get alone.
        """
        if self.encoding == "none":
            return self.dropout(x)
        fitted = grid_size is not None or extent is not None  # decided without the sizes, which an export leaves open
        grid_size = grid_size or self.grid_size
        if x.shape[1:] != (math.prod(grid_size), self.embedding_dim):
            raise ValueError(
                f"{x.shape[1]} patches of width {x.shape[2]} do not fill a grid of "
                f"{'x'.join(map(str, grid_size))} (rows x columns) of width {self.embedding_dim}."
            )
        if self.encoding == "sincos2d":
            return self.dropout(x + self.sincos2d(grid_size, x))
        if not fitted:
            return self.dropout(x + self.positional_embedding)
        return self.dropout(x + self.resampled(grid_size, extent).to(x.dtype))

    def resampled(self, grid_size: tuple[int, ...], extent: Tensor | None = None) -> Tensor:
        """The learned positions on another grid, by `resampling_weights`: -> (1 or B, N, D)."""
        positions = self.positional_embedding.float().view(*self.grid_size, -1)
        if extent is None:
            extent = torch.tensor([grid_size], device=positions.device)
        # (B, rows, trained rows) and (B, columns, trained columns)
        rows = resampling_weights(self.grid_size[0], grid_size[0], extent[:, 0], self.interpolation)
        columns = resampling_weights(self.grid_size[1], grid_size[1], extent[:, 1], self.interpolation)
        kind = positions.device.type
        # Autocast would round the positions; only where it is on, because exported graphs would keep the switch.
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            return torch.einsum("brh,bcw,hwd->brcd", rows, columns, positions).flatten(1, 2)

    def sincos2d(self, grid_size: tuple[int, ...], like: Tensor) -> Tensor:
        """The fixed positions of a grid of any size, in the dtype and on the device of `like`: -> (1, N, D)."""
        rows, columns = grid_size
        quarter = self.embedding_dim // 4
        frequency = 10_000.0 ** -(torch.arange(quarter, device=like.device) / max(quarter - 1, 1))
        y = torch.outer(torch.arange(rows, device=like.device), frequency)  # (rows, D / 4)
        x = torch.outer(torch.arange(columns, device=like.device), frequency)  # (columns, D / 4)
        y = torch.cat((y.sin(), y.cos()), dim=1)[:, None].expand(-1, columns, -1)
        x = torch.cat((x.sin(), x.cos()), dim=1)[None].expand(rows, -1, -1)
        return torch.cat((x, y), dim=2).flatten(0, 1)[None].to(like.dtype)  # (1, N, D)


# --- Step 3 ----------------------------------------------------------------------------------------------------------


class AddClsToken(nn.Module):
    """Put a learned [CLS] token in front of the patches: (B, N, D) -> (B, N + 1, D).

    Args:
        embedding_dim: D.
        position: give [CLS] a learned position of its own, as ViT does (section 3.1, equation 1); not in the article.
    """

    def __init__(self, embedding_dim: int, *, position: bool = False):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, embedding_dim))
        if position:
            self.cls_position = nn.Parameter(torch.randn(1, 1, embedding_dim))

    def forward(self, x: Tensor) -> Tensor:
        token = self.cls_token + self.cls_position if hasattr(self, "cls_position") else self.cls_token
        return torch.cat((token.expand(x.shape[0], -1, -1), x), dim=1)


# --- Step 4 ----------------------------------------------------------------------------------------------------------


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Attention spelled out, softmax(QK^T / sqrt(D / A)) V (ViT, appendix A, equations 6 and 7).

    Args:
        module: the attention layer; only `module.training` is read.
        query, key, value: (B, A, T, D / A).
        attention_mask: broadcastable to (B, A, T, T); boolean (True may be attended to) or added to the scores.
        dropout: probability of dropping an attention probability, in training.
        scaling: factor of the scores.
        **kwargs: what transformers' attention interface passes to other kernels; not used.

    Returns:
        The output (B, T, A, D / A) and the attention probabilities (B, A, T, T), summing to one over the last axis.
    """
    scores = query @ key.transpose(2, 3) * scaling  # (B, A, T, T)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    probabilities = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    probabilities = F.dropout(probabilities, p=dropout, training=module.training)
    return (probabilities @ value).transpose(1, 2), probabilities  # (B, T, A, D / A), (B, A, T, T)


def fused_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float,
    **kwargs,
) -> tuple[Tensor, None]:
    """`eager_attention` in one fused torch kernel that never stores the probabilities: the default of the layers."""
    dropout = dropout if module.training else 0.0
    output = F.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return output.transpose(1, 2), None  # (B, T, A, D / A)


class MultiHeadSelfAttention(nn.Module):
    """Let every token of an image attend to every other: (B, T, D) -> (B, T, D) and the probabilities (B, A, T, T).

    One projection makes queries, keys and values. The article calls `nn.MultiheadAttention` without `batch_first` on a
    batch-first tensor, which taken literally attends across the images of a batch; this is what its prose says.
    The rows of `in_proj` are ordered as in `nn.MultiheadAttention`: all queries, all keys, all values.

    Args:
        embedding_dim: D.
        num_heads: A; must divide D, unless `head_dim` is given.
        dropout: probability of dropping an attention probability in training.
        bias: whether `in_proj` has a bias.
        head_dim: width of a head; by default D / A.
        out_bias: whether `out_proj` has a bias.
    """

    # Read by the attention kernels of transformers.
    is_causal = False
    config: object = None

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        *,
        bias: bool = True,
        head_dim: int | None = None,
        out_bias: bool = True,
    ):
        super().__init__()
        if head_dim is None and embedding_dim % num_heads:
            raise ValueError(f"embedding_dim {embedding_dim} is not a multiple of num_heads {num_heads}.")
        self.num_heads = num_heads
        self.head_dim = head_dim or embedding_dim // num_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = dropout
        self.in_proj = nn.Linear(embedding_dim, 3 * num_heads * self.head_dim, bias=bias)
        self.out_proj = nn.Linear(num_heads * self.head_dim, embedding_dim, bias=out_bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as `nn.MultiheadAttention` does, and so as the article."""
        nn.init.xavier_uniform_(self.in_proj.weight)
        if self.in_proj.bias is not None:
            nn.init.zeros_(self.in_proj.bias)
        self.out_proj.reset_parameters()
        if self.out_proj.bias is not None:
            nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        kernel: AttentionKernel = fused_attention,
        *,
        num_queries: int | None = None,
        **kwargs,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            x: (B, T, D).
            attention_mask: which tokens may be attended to, as `kernel` takes it.
            kernel: what computes the attention.
            num_queries: that many tokens from the front attend, and come back; by default all do.
            **kwargs: go to the kernel.

        Returns:
            The tokens and the attention probabilities, or None if the kernel has none.
        """
        batch, tokens, _ = x.shape
        qkv = self.in_proj(x).view(batch, tokens, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # 3 x (B, A, T, D / A)
        query = query[:, :, :num_queries]
        dropout = self.dropout if self.training else 0.0
        output, probabilities = kernel(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.out_proj(output.flatten(2)), probabilities  # (B, T, D)


class TransformerEncoderBlock(nn.Module):
    """Self-attention, then a feed-forward network, each with a skip connection and LayerNorm: (B, T, D) -> (B, T, D).

    The article normalises after each sum (post-norm, as Vaswani et al. 2017); `norm_first=True` normalises the input of
    each branch instead (pre-norm; ViT, section 3.1, equations 2 and 3).

    Args:
        embedding_dim: D.
        num_heads: A; must divide D, unless `head_dim` is given.
        ff_dim: F, the width between the two linear layers of the feed-forward network.
        dropout: probability of dropping an attention probability in training; it acts nowhere else.
        norm_first: pre-norm instead of the article's post-norm.
        activation: the activation of the feed-forward network; by default the exact GELU.
        layer_norm_eps: added to the variance in the LayerNorms.
        qkv_bias: whether the projection to queries, keys and values has a bias.
        hidden_dropout: probability of zeroing an element of either branch's output in training.
        drop_path: probability of skipping a branch in training (stochastic depth).
        head_dim: width of an attention head; by default D / A.
        out_proj_bias: whether the projection of the attention's output has a bias.
        layer_scale: factor of each branch's channels at first (`LayerScale`); none by default.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        ff_dim: int,
        dropout: float = 0.1,
        *,
        norm_first: bool = False,
        activation: nn.Module | None = None,
        layer_norm_eps: float = 1e-5,
        qkv_bias: bool = True,
        hidden_dropout: float = 0.0,
        drop_path: float = 0.0,
        head_dim: int | None = None,
        out_proj_bias: bool = True,
        layer_scale: float | None = None,
    ):
        super().__init__()
        self.norm_first = norm_first
        self.attention = MultiHeadSelfAttention(
            embedding_dim, num_heads, dropout, bias=qkv_bias, head_dim=head_dim, out_bias=out_proj_bias
        )
        self.norm1 = nn.LayerNorm(embedding_dim, eps=layer_norm_eps)
        # SwiGLU halves the width that it gets.
        first_dim = 2 * ff_dim if isinstance(activation, SwiGLU) else ff_dim
        self.ff = nn.Sequential(
            nn.Linear(embedding_dim, first_dim), activation or nn.GELU(), nn.Linear(ff_dim, embedding_dim)
        )
        self.norm2 = nn.LayerNorm(embedding_dim, eps=layer_norm_eps)
        self.hidden_dropout = nn.Dropout(hidden_dropout)
        self.scale1 = nn.Identity() if layer_scale is None else LayerScale(embedding_dim, layer_scale)
        self.scale2 = nn.Identity() if layer_scale is None else LayerScale(embedding_dim, layer_scale)
        self.drop_path = StochasticDepth(drop_path)

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        kernel: AttentionKernel = fused_attention,
        *,
        num_queries: int | None = None,
        merge: Callable[[Tensor], Tensor] | None = None,
        **kwargs,
    ) -> Tensor:
        """Run the block.

        Args:
            x: (B, T, D).
            attention_mask, kernel, **kwargs: those of `MultiHeadSelfAttention`.
            num_queries: the first tokens, of which alone the result is asked for; by default all.
            merge: what makes fewer tokens of those between attention and feed-forward network (`TokenMerging.merge`).
        """
        attended, _ = self.attention(
            self.norm1(x) if self.norm_first else x, attention_mask, kernel, num_queries=num_queries, **kwargs
        )
        x = x[:, :num_queries] + self.drop_path(self.scale1(self.hidden_dropout(attended)))
        if not self.norm_first:
            x = self.norm1(x)
        if merge is not None:
            x = merge(x)
        x = x + self.drop_path(self.scale2(self.hidden_dropout(self.ff(self.norm2(x) if self.norm_first else x))))
        return x if self.norm_first else self.norm2(x)


# --- Step 5 ----------------------------------------------------------------------------------------------------------


class ClassificationHead(nn.Module):
    """Map the [CLS] token to one logit per class: (B, T, D) -> (B, K).

    The article says "class probabilities"; they are logits until a softmax. With `num_classes=0` the pooled token
    itself comes back, (B, D).

    Args:
        embedding_dim: D.
        num_classes: K.
        pool: what makes one vector of the tokens; by default it takes the [CLS] token.
    """

    def __init__(self, embedding_dim: int, num_classes: int, *, pool: nn.Module | None = None):
        super().__init__()
        self.pool = pool or TokenPooling()
        self.fc = nn.Linear(embedding_dim, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(x))
