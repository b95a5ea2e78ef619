# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Token merging: join patches that look alike to the attention, so that every block has fewer of them (ToMe).

Bolya et al. 2022, "Token Merging: Your ViT But Faster" (arXiv 2210.09461), "ToMe" below. Each block joins pairs of
patches between its attention and its feed-forward network; [CLS] and registers stay as they are. It has no parameters,
so that every checkpoint can be loaded with it, and it works in training, too.

This file needs nothing but torch.

Shapes: B batch, N patches of the image, M and M' tokens made of patches before and after a block's merging, P tokens in
front of them ([CLS] and registers), T tokens in all (P + M), D width, A attention heads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# These add a mask of numbers to the scores; others, as FlashAttention, take none, or one of their own kind.
KERNELS_WITH_ADDED_MASK = ("eager", "sdpa")
# FlashAttention wants heads whose width is a multiple of this.
HEAD_MULTIPLE = 8


def merging_schedule(token_merging: int | Sequence[int], num_blocks: int, decreasing: bool = False) -> list[int]:
    """How many patches each block merges away.

    Args:
        token_merging: patches per block, or a list with the number of each block.
        num_blocks: blocks.
        decreasing: from twice as many in the first block to none in the last (ToMe, section 4.1 and figure 2), as many
            in all, which costs a little less accuracy per saved operation late, and saves more early.
    """
    if not isinstance(token_merging, int):
        return list(token_merging)
    if not decreasing or num_blocks == 1:
        return [token_merging] * num_blocks
    # The differences of a rounded running sum, so that the rounding loses no patch.
    ends = [
        round(token_merging * index * (2 * num_blocks - 1 - index) / (num_blocks - 1))
        for index in range(num_blocks + 1)
    ]
    return [end - begin for begin, end in pairwise(ends)]


@dataclass(frozen=True)
class MergedPatches:
    """Which patches of the images stand in which token.

    Args:
        num_prefix_tokens: P.
        sizes: (B, M), the number of patches in each token; 0 for padding.
        token_of: (B, N), the token that each patch is in, counted without the P in front.
        token_mask: (B, P + N), 1, or 0 where an original token is padding.
        padded: whether there may be padding.
    """

    num_prefix_tokens: int
    sizes: Tensor
    token_of: Tensor
    token_mask: Tensor
    padded: bool

    @classmethod
    def none_yet(cls, x: Tensor, num_prefix_tokens: int, token_mask: Tensor | None) -> "MergedPatches":
        """The patches of `x` (B, P + N, D), each a token, but for those that are padding in `token_mask` (B, P + N)."""
        mask = torch.ones(x.shape[:2], device=x.device) if token_mask is None else token_mask.float()
        sizes = mask[:, num_prefix_tokens:]
        token_of = torch.arange(sizes.shape[1], device=x.device).expand_as(sizes)
        return cls(num_prefix_tokens, sizes, token_of, mask, padded=token_mask is not None)

    def padding_last(self) -> Tensor:
        """The places of the tokens in another order, those that are padding behind all others: (B, M)."""
        num_tokens = self.sizes.shape[1]
        place = torch.arange(num_tokens, device=self.sizes.device)
        # All of them, from the first: ONNX has no stable sort.
        return (num_tokens * (self.sizes > 0) - place).topk(num_tokens).indices

    def reordered(self, order: Tensor) -> "MergedPatches":
        """The same tokens in another order, (B, M)."""
        place = torch.arange(order.shape[1], device=order.device).expand_as(order)
        new_place = torch.zeros_like(order).scatter(1, order, place)
        token_of = new_place.gather(1, self.token_of)
        return replace(self, sizes=self.sizes.gather(1, order), token_of=token_of)

    def index(self) -> Tensor:
        """The place in the sequence of what each original token became: (B, P + N)."""
        prefix = torch.arange(self.num_prefix_tokens, device=self.token_of.device)
        return torch.cat((prefix.expand(self.token_of.shape[0], -1), self.token_of + self.num_prefix_tokens), dim=1)

    def unmerge(self, x: Tensor) -> Tensor:
        """Give each patch the vector of the token that it is in: (B, P + M, D) -> (B, P + N, D)."""
        return x.gather(1, self.index().unsqueeze(-1).expand(-1, -1, x.shape[2]))

    def unmerge_attention(self, probabilities: Tensor) -> Tensor:
        """Attention of the original tokens to each other: (B, A, P + M, P + M) -> (B, A, P + N, P + N).

        A patch attends as its token does, and what its token gets, the patches in it share equally; so rows still sum
        to one.
        """
        index = self.index()[:, None]  # (B, 1, P + N)
        sizes = F.pad(self.sizes, (self.num_prefix_tokens, 0), value=1.0).clamp(min=1.0)  # (B, P + M)
        x = probabilities / sizes.to(probabilities.dtype)[:, None, None]
        x = x.gather(2, index.unsqueeze(-1).expand(-1, x.shape[1], -1, x.shape[3]))  # (B, A, P + N, P + M)
        x = x.gather(3, index.unsqueeze(2).expand(-1, x.shape[1], x.shape[2], -1))  # (B, A, P + N, P + N)
        return x * self.token_mask.to(x.dtype)[:, None, None]

    def log_sizes(self, dtype: torch.dtype) -> Tensor:
        """What proportional attention adds to the scores of each token (ToMe, equation 1): (B, P + M)."""
        sizes = torch.cat((self.token_mask[:, : self.num_prefix_tokens], self.sizes), dim=1)
        return sizes.log().to(dtype).clamp(min=torch.finfo(dtype).min)


class TokenMerging:
    """The merging of one block: its attention, which sees how alike the patches are, and then the merging itself.

    Args:
        kernel: the attention kernel of the model.
        kernel_name: by which transformers knows it.
        patches: what the tokens that the block gets are made of; `patches` becomes what those that it returns are.
        num_merged: patches that the block merges away; at most half of them are.
        unmerge_attention: return attention probabilities between the original tokens, (B, A, P + N, P + N).
    """

    def __init__(
        self,
        kernel: Callable,
        kernel_name: str | None,
        patches: MergedPatches,
        num_merged: int,
        unmerge_attention: bool = False,
    ):
        self.kernel = kernel
        self.unmerge_attention = unmerge_attention
        self.adds_mask = kernel_name is None or kernel_name in KERNELS_WITH_ADDED_MASK
        self.before = self.patches = patches
        self.num_merged = min(num_merged, patches.sizes.shape[1] // 2)

    def attend(
        self, module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, **kwargs
    ) -> tuple[Tensor, Tensor | None]:
        """Attention in proportion to the sizes, by the kernel that the model has (ToMe, equation 1)."""
        # The mean over heads of the keys says what a patch is (ToMe, section 3).
        self.metric = key.detach().mean(dim=1)[:, self.before.num_prefix_tokens :]  # (B, M, D / A)
        bias = self.before.log_sizes(query.dtype)  # (B, T)
        if self.adds_mask:
            mask = bias[:, None, None].expand(-1, 1, query.shape[2], -1)  # (B, 1, T, T)
            output, probabilities = self.kernel(module, query, key, value, mask, **kwargs)
        else:
            query, key, value = self._with_bias_channel(query, key, value, bias, kwargs["scaling"])
            output, probabilities = self.kernel(module, query, key, value, None, **kwargs)
            output = output[..., :-HEAD_MULTIPLE]
        if self.unmerge_attention and probabilities is not None:
            probabilities = self.before.unmerge_attention(probabilities)
        return output, probabilities

    @staticmethod
    def _with_bias_channel(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float):
        """Queries and keys whose product has the bias in it, for kernels that add no mask."""
        bias = bias.clamp(min=-1e4)[:, None, :, None].expand(-1, key.shape[1], -1, -1)  # (B, A, T, 1)
        query, key = (
            torch.cat(pair, dim=-1) for pair in ((query, torch.ones_like(query[..., :1])), (key, bias / scaling))
        )
        rest = (0, HEAD_MULTIPLE - 1)
        return F.pad(query, rest), F.pad(key, rest), F.pad(value, (0, HEAD_MULTIPLE))

    def merge(self, x: Tensor) -> Tensor:
        """Merge the pairs that are most alike: (B, P + M, D) -> (B, P + M', D)."""
        prefix, patches = x.tensor_split([self.before.num_prefix_tokens], dim=1)
        before, metric = self.before, self.metric
        if before.padded:
            # So that the patches of an image stand and pair as they do alone.
            order = before.padding_last()
            before, metric, patches = before.reordered(order), _rows(metric, order), _rows(patches, order)
        kept, merged, partner = bipartite_soft_matching(
            metric, self.num_merged, before.sizes if before.padded else None
        )
        from_a, into_b = patches[:, ::2], patches[:, 1::2]  # (B, M_a, D), (B, M_b, D)
        sizes_a, sizes_b = before.sizes[:, ::2], before.sizes[:, 1::2]
        # (B, M_b, r): 1 where the r-th patch that is merged goes into a token of b
        goes = (partner[:, None] == torch.arange(into_b.shape[1], device=x.device)[:, None]).float()
        sizes_merged = sizes_a.gather(1, merged)  # (B, r)
        sizes_sum = sizes_b + (goes * sizes_merged[:, None]).sum(dim=2)  # (B, M_b)
        share = sizes_sum.clamp(min=1.0)
        into_b = into_b * (sizes_b / share).to(x.dtype).unsqueeze(-1) + (
            goes * sizes_merged[:, None] / share.unsqueeze(-1)
        ).to(x.dtype) @ _rows(from_a, merged)
        self.patches = replace(
            before,
            sizes=torch.cat((sizes_a.gather(1, kept), sizes_sum), dim=1),
            token_of=_moved(before.token_of, kept, merged, partner, sizes_b.shape[1]),
        )
        return torch.cat((prefix, _rows(from_a, kept), into_b), dim=1)


class MergedSequence:
    """Tokens of which each block makes fewer.

    Args:
        patches: what the tokens are made of before the first block. Their sizes take the place of a mask: padding has
            size 0.
        schedule: patches that each block merges away.
        kernel, kernel_name, unmerge_attention: those of `TokenMerging`.
    """

    def __init__(
        self,
        patches: MergedPatches,
        schedule: Sequence[int],
        kernel: Callable,
        kernel_name: str | None,
        unmerge_attention: bool,
    ):
        self.patches = patches
        self.schedule = iter(schedule)  # a backbone may have fewer blocks
        self.kernel, self.kernel_name = kernel, kernel_name
        self.unmerge_attention = unmerge_attention

    def enter(self, x: Tensor) -> Tensor:
        """The tokens of the patches."""
        return x

    def run(self, block: Callable[..., Tensor], x: Tensor, **kwargs: Any) -> Tensor:
        """One block, which merges: (B, T, D) -> (B, fewer, D)."""
        return self._run(block, x, next(self.schedule), **kwargs)

    def run_last(self, block: Callable[..., Tensor], x: Tensor, num_queries: int, **kwargs: Any) -> Tensor:
        """The last block, for the first tokens alone, which merge with nothing: (B, T, D) -> (B, num_queries, D)."""
        return self._run(block, x, 0, num_queries=num_queries, **kwargs)

    def _run(self, block: Callable[..., Tensor], x: Tensor, num_merged: int, **kwargs: Any) -> Tensor:
        merging = TokenMerging(self.kernel, self.kernel_name, self.patches, num_merged, self.unmerge_attention)
        x = block(x, None, merging.attend, merge=merging.merge if merging.num_merged else None, **kwargs)
        self.patches = merging.patches
        return x

    def leave(self, x: Tensor) -> Tensor:
        """Give each patch the vector of the token that it is in: (B, P + M, D) -> (B, P + N, D)."""
        return self.patches.unmerge(x)


def _moved(token_of: Tensor, kept: Tensor, merged: Tensor, partner: Tensor, num_b: int) -> Tensor:
    """The token that each patch of the image is in, after the merging: (B, N)."""
    num_kept = kept.shape[1]
    place = torch.arange(num_kept, device=kept.device).expand_as(kept)
    old = torch.cat((kept, merged), dim=1)  # (B, M_a)
    of_a = torch.zeros_like(old).scatter(1, old, torch.cat((place, num_kept + partner), dim=1))
    of_b = (num_kept + torch.arange(num_b, device=kept.device)).expand(kept.shape[0], -1)
    # Even tokens are a's, odd ones b's.
    return torch.cat((of_a, of_b), dim=1).gather(1, token_of // 2 + token_of % 2 * of_a.shape[1])


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows of each image: (B, M, D), (B, K) -> (B, K, D)."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))


def bipartite_soft_matching(
    metric: Tensor, num_merged: int, sizes: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Which tokens of the even places (a) are merged, and into which of the odd places (b) (ToMe, section 3).

    Each token of a has one partner, the token of b that is most like it by the cosine of their metrics; the
    `num_merged` pairs that are most alike are merged.

    Args:
        metric: (B, M, any width).
        num_merged: r, at most M / 2.
        sizes: (B, M), where some tokens are padding, which has size 0 and stands behind all others. Of an image of m
            other tokens, the r pairs, but at most m / 2, are merged that would be without the padding, and as much of
            the padding as makes r; that adds nothing to the tokens that it goes into.

    Returns:
        Places in a: of those that are kept, in their order, (B, M_a - r), and of those that are merged, (B, r); and the
        places in b of the partners of the latter, (B, r).
    """
    metric = F.normalize(metric.float(), dim=-1)
    likeness = metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)  # (B, M_a, M_b)
    if sizes is not None:
        likeness = likeness.masked_fill(sizes[:, None, 1::2] == 0, -2.0)
    best, partner = likeness.max(dim=2)  # (B, M_a)
    if sizes is not None:
        best = _before_padding(best, sizes, num_merged)
    # All of them, from the most alike: ONNX has no stable sort.
    order = best.topk(best.shape[1]).indices
    merged, kept = order.tensor_split([num_merged], dim=1)
    return kept.sort(dim=1).values, merged, partner.gather(1, merged)


def _before_padding(best: Tensor, sizes: Tensor, num_merged: int) -> Tensor:
    """Scores by which the pairs come first that an image merges alone, then padding, then all others: (B, M_a)."""
    is_padding = sizes[:, ::2] == 0
    order = best.masked_fill(is_padding, -3.0).topk(best.shape[1]).indices
    place = torch.arange(best.shape[1], device=best.device).expand_as(order)
    rank = torch.zeros_like(order).scatter(1, order, place)  # 0 for the pair that is most alike
    merges_alone = rank < ((sizes > 0).sum(dim=1, keepdim=True) // 2).clamp(max=num_merged)
    group = torch.where(is_padding, 1, torch.where(merges_alone, 2, 0))
    return group * best.shape[1] - rank
