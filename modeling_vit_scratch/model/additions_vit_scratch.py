# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What other Vision Transformers add to the article's layers, in the order in which an image meets it.

Each is off by default and then costs nothing. This file needs nothing but torch.

Shapes: B batch, N patches, R registers, T tokens (N, and those in front of the patches), D embedding dimension, A
attention heads, F feed-forward dimension, P width of the pooled vector.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# How learned positions are fitted to another grid. Bicubic with antialiasing is timm's way, without transformers'; the
# corners of both grids are aligned by torchvision (bicubic) and by Google's JAX code (bilinear).
INTERPOLATIONS = ("bicubic_antialias", "bicubic", "bicubic_align_corners", "bilinear_align_corners")

# --- Patches and positions ------------------------------------------------------------------------------------------


class MaskPatches(nn.Module):
    """Replace the masked patches by one learned vector: (B, N, D), (B, N) -> (B, N, D).

    Not in the article: masked image modelling needs it (SimMIM, Xie et al. 2021, arXiv 2111.09886, section 3.1).
    """

    def __init__(self, embedding_dim: int):
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embedding_dim))

    def forward(self, x: Tensor, masked: Tensor) -> Tensor:
        return torch.where(masked.bool().unsqueeze(-1), self.mask_token.to(x.dtype), x)


def cubic_kernel(x: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution kernel at distances `x` (1981, "Cubic convolution interpolation", equation 4)."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def resampling_weights(trained: int, length: int, extent: Tensor, interpolation: str = "bicubic_antialias") -> Tensor:
    """Weights that stretch `trained` positions along one axis over `extent` new ones: (B,) -> (B, length, trained).

    What `torch.nn.functional.interpolate` computes, written as a matrix: `extent` may differ from image to image and be
    known only at run time, and the product runs in every dtype, compiles and exports. Rows from `extent` on belong to
    padding and repeat the last position.

    Args:
        trained: positions that there are.
        length: rows of the matrix.
        extent: new positions, for each image.
        interpolation: one of `INTERPOLATIONS`.
    """
    extent = extent.view(-1, 1, 1).float()
    index = torch.arange(length, device=extent.device).view(1, -1, 1)
    index = torch.minimum(index, extent - 1)  # (B, length, 1)
    if interpolation.endswith("align_corners"):
        centre = index * ((trained - 1) / (extent - 1).clamp(min=1))
    else:
        centre = (index + 0.5) * (trained / extent) - 0.5
    source = torch.arange(-2, trained + 2, device=extent.device)  # two more on each side, for the cubic kernel
    x = (source - centre).abs()  # (B, length, trained + 4)
    if interpolation == "bicubic_antialias":
        weights = cubic_kernel(x / (trained / extent).clamp(min=1.0), -0.5)[..., 2:-2]
        return weights / weights.sum(-1, keepdim=True)
    weights = (1 - x).clamp(min=0.0) if interpolation.startswith("bilinear") else cubic_kernel(x, -0.75)
    # Beyond the border its own position is repeated.
    before, after = weights[..., :2].sum(-1, keepdim=True), weights[..., -2:].sum(-1, keepdim=True)
    return weights[..., 2:-2] + F.pad(before, (0, trained - 1)) + F.pad(after, (trained - 1, 0))


class PatchDropout(nn.Module):
    """In training, leave out a random share of the patches of each image: (B, N, D) -> (B, N', D).

    Not in the article: a step costs that share less (Liu et al. 2022, arXiv 2208.07220; FLIP, Li et al. 2022, arXiv
    2212.00794). Patches keep the positions that were added to them, so the rest of the model does not notice.
    """

    def __init__(self, drop_prob: float = 0.0):
        super().__init__()
        if not 0 <= drop_prob < 1:
            raise ValueError(f"drop_prob must be at least 0 and below 1, got {drop_prob}.")
        self.drop_prob = drop_prob

    def forward(self, x: Tensor, patch_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Drop patches of `x`, and the same of `patch_mask` (B, N), by which an image keeps a share of its own patches.

        The result has room for as many as an image without padding keeps; what others do not need of it is padding.
        """
        if not self.training or self.drop_prob == 0.0:
            return x, patch_mask
        random = torch.rand(x.shape[:2], device=x.device)
        if patch_mask is not None:
            random = random + patch_mask.bool()  # those of the image first
        kept = random.topk(self.num_kept(x.shape[1])).indices  # (B, N')
        if patch_mask is not None:
            own = patch_mask.bool().sum(dim=1, keepdim=True)
            least = own.clamp(max=1)
            share = (own * (1 - self.drop_prob)).round().maximum(least)
            patch_mask = (torch.arange(kept.shape[1], device=x.device) < share).to(patch_mask.dtype)  # (B, N')
        kept, order = kept.sort()
        x = x.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[2]))
        return x, None if patch_mask is None else patch_mask.gather(1, order)

    def num_kept(self, num_patches: int) -> int:
        """N', of N patches."""
        return max(1, round(num_patches * (1 - self.drop_prob))) if self.training else num_patches

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"


# --- Tokens ----------------------------------------------------------------------------------------------------------


class AddRegisterTokens(nn.Module):
    """Put learned tokens without a position in front of the patches: (B, N, D) -> (B, N + R, D).

    Not in the article: registers give attention a place for what belongs to no patch (Darcet et al. 2023, arXiv
    2309.16588). The distillation token of DeiT (Touvron et al. 2020, arXiv 2012.12877) is one, too.

    Args:
        embedding_dim: D.
        num_registers: R.
    """

    def __init__(self, embedding_dim: int, num_registers: int):
        super().__init__()
        self.register_tokens = nn.Parameter(torch.randn(1, num_registers, embedding_dim))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.register_tokens.expand(x.shape[0], -1, -1), x), dim=1)


# --- Blocks ----------------------------------------------------------------------------------------------------------


class StochasticDepth(nn.Module):
    """In training, skip a residual branch for a random share of the images: same shape (Huang et al. 2016, 1603.09382).

    The branch of the images that keep it is divided by the share kept, so that its expectation is unchanged.
    """

    def __init__(self, drop_prob: float = 0.0):
        super().__init__()
        if not 0 <= drop_prob < 1:
            raise ValueError(f"drop_prob must be at least 0 and below 1, got {drop_prob}.")
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x
        keep = torch.rand(x.shape[0], *(1,) * (x.ndim - 1), device=x.device) >= self.drop_prob
        return x * keep / (1.0 - self.drop_prob)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"


class LayerScale(nn.Module):
    """Multiply each channel of a residual branch by a learned factor: same shape.

    CaiT, Touvron et al. 2021 (arXiv 2103.17239, section 2).

    Args:
        embedding_dim: D.
        value: the factors at first.
    """

    def __init__(self, embedding_dim: int, value: float):
        super().__init__()
        self.value = value
        self.gamma = nn.Parameter(torch.full((embedding_dim,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class SwiGLU(nn.Module):
    """Gate one half of the channels by the other, silu(first half) * second half: (…, 2 F) -> (…, F).

    Shazeer 2020 (arXiv 2002.05202, equation 5).
    """

    def forward(self, x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value


# --- Pooling ---------------------------------------------------------------------------------------------------------

POOLINGS = ("cls", "mean", "mean_tokens", "cls_mean", "cls_distillation")


class TokenPooling(nn.Module):
    """One vector for the image, without parameters: (B, T, D) -> (B, D), or (B, 2 D) where it joins two.

    "cls" takes token 0, as the article does; "mean" averages the patches (Beyer et al. 2022, arXiv 2205.01580), and
    "mean_tokens" all tokens; "cls_mean" joins the first two (DINOv2, Oquab et al. 2023, arXiv 2304.07193, section A.3);
    "cls_distillation" joins tokens 0 and 1, for heads on both (DeiT, Touvron et al. 2020, arXiv 2012.12877).

    Args:
        pooling: one of `POOLINGS`.
        num_prefix_tokens: tokens in front of the patches, left out of the mean: 1 with a [CLS] token, more with
            registers.
    """

    def __init__(self, pooling: str = "cls", num_prefix_tokens: int = 1):
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}.")
        self.pooling = pooling
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, x: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """Pool; `patch_mask` (B, N) is false where a patch is padding."""
        if self.pooling == "cls":
            return x[:, 0]
        if self.pooling == "cls_distillation":
            return x[:, :2].flatten(1)
        if self.pooling == "mean_tokens":
            if patch_mask is not None:
                patch_mask = F.pad(patch_mask.bool(), (self.num_prefix_tokens, 0), value=True)  # (B, T)
            return self._mean(x, patch_mask)
        mean = self._mean(x[:, self.num_prefix_tokens :], patch_mask)
        return torch.cat((x[:, 0], mean), dim=1) if self.pooling == "cls_mean" else mean

    @staticmethod
    def _mean(x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return x.mean(dim=1)
        weights = mask.bool().unsqueeze(-1)  # (B, N, 1)
        total = (x * weights).sum(dim=1, dtype=torch.float32)  # float16 ends at 65,504
        return (total / weights.sum(dim=1).clamp(min=1)).to(x.dtype)


class AttentionPooling(nn.Module):
    """One vector for the image, gathered from the patches by a learned query: (B, T, D) -> (B, D).

    Multihead attention pooling, MAP (Zhai et al. 2021, arXiv 2106.04560, section 3.5, after Lee et al. 2018, arXiv
    1810.00825): the query attends to all patches, then a feed-forward network with a skip connection.

    Args:
        embedding_dim: D.
        num_heads: A; must divide D.
        ff_dim: F.
        num_prefix_tokens: tokens in front of the patches, which it does not look at.
        activation: the activation of the feed-forward network; by default the exact GELU.
        layer_norm_eps: added to the variance in the LayerNorm before the feed-forward network.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        ff_dim: int,
        *,
        num_prefix_tokens: int = 0,
        activation: nn.Module | None = None,
        layer_norm_eps: float = 1e-5,
    ):
        super().__init__()
        if embedding_dim % num_heads:
            raise ValueError(f"embedding_dim {embedding_dim} is not a multiple of num_heads {num_heads}.")
        self.num_heads = num_heads
        self.num_prefix_tokens = num_prefix_tokens
        self.query = nn.Parameter(torch.randn(1, 1, embedding_dim))
        self.query_proj = nn.Linear(embedding_dim, embedding_dim)
        self.key_value_proj = nn.Linear(embedding_dim, 2 * embedding_dim)
        self.out_proj = nn.Linear(embedding_dim, embedding_dim)
        self.norm = nn.LayerNorm(embedding_dim, eps=layer_norm_eps)
        self.ff = nn.Sequential(
            nn.Linear(embedding_dim, ff_dim), activation or nn.GELU(), nn.Linear(ff_dim, embedding_dim)
        )

    def forward(self, x: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """Pool; `patch_mask` (B, N) is false where a patch is padding."""
        x = x[:, self.num_prefix_tokens :]  # (B, N, D)
        query = self.query_proj(self.query).expand(x.shape[0], -1, -1)  # (B, 1, D)
        key, value = self.key_value_proj(x).chunk(2, dim=-1)  # 2 x (B, N, D)
        heads = (self.num_heads, query.shape[2] // self.num_heads)
        query, key, value = (y.unflatten(2, heads).transpose(1, 2) for y in (query, key, value))
        mask = None if patch_mask is None else patch_mask.bool()[:, None, None]  # (B, 1, 1, N)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)  # (B, A, 1, D / A)
        x = self.out_proj(x.transpose(1, 2).flatten(1))  # (B, D)
        return x + self.ff(self.norm(x))


class Pooler(nn.Module):
    """From the tokens to the vector that stands for the image: (B, T, D) -> (B, P).

    Without the two settings it is its `pool`, and for the article the [CLS] token.

    Args:
        pool: `TokenPooling` or `AttentionPooling`.
        pooled_dim: the width of what `pool` returns.
        layer_norm_eps: if given, LayerNorm on the pooled vector.
        output_dim: if given, a linear layer to this width and tanh, the paper's representation layer (ViT, section
            3.1: the head has one hidden layer in pre-training).
    """

    def __init__(
        self,
        pool: nn.Module,
        pooled_dim: int,
        *,
        layer_norm_eps: float | None = None,
        output_dim: int | None = None,
    ):
        super().__init__()
        self.pool = pool
        self.norm = nn.Identity() if layer_norm_eps is None else nn.LayerNorm(pooled_dim, eps=layer_norm_eps)
        self.dense = nn.Identity() if output_dim is None else nn.Linear(pooled_dim, output_dim)
        self.activation = nn.Identity() if output_dim is None else nn.Tanh()

    def forward(self, x: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """Pool; `patch_mask` (B, N) is false where a patch is padding."""
        return self.activation(self.dense(self.norm(self.pool(x, patch_mask))))
