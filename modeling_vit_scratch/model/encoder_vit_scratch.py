# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Step 4 of the article in a model of transformers: the blocks that a configuration describes, one after another.

What runs through the blocks is a sequence: all tokens as they are, those of images of different sizes without the
padding (`PackedSequence`), or fewer from block to block (`MergedSequence`).

Shapes: B batch, T tokens, D hidden size.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .additions_vit_scratch import AttentionPooling, Pooler, SwiGLU, TokenPooling
from .configuration_vit_scratch import JOINING_POOLINGS, EncoderConfig
from .layers_vit_scratch import MultiHeadSelfAttention, TransformerEncoderBlock, eager_attention
from .merging_vit_scratch import MergedPatches, MergedSequence
from .packing_vit_scratch import PackedSequence, is_worth_packing


class ViTScratchLayer(TransformerEncoderBlock, GradientCheckpointingLayer):
    """The article's block, as transformers' activation checkpointing wants it: (B, T, D) -> (B, T, D)."""


class HiddenState(nn.Module):
    """What `output_hidden_states` records: one vector for each of the original tokens, (B, T, D).

    transformers records what it returns, and before that, at the first block, `before`, the tokens that the block got.
    """

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return after


class TokenSequence(Protocol):
    """Tokens (B, T, D) as blocks run over them."""

    def enter(self, x: Tensor) -> Tensor:
        """What the first block gets."""

    def run(self, block: nn.Module, x: Tensor, **kwargs: Any) -> Tensor:
        """What a block makes of that."""

    def run_last(self, block: nn.Module, x: Tensor, num_queries: int, **kwargs: Any) -> Tensor:
        """The first tokens alone, (B, num_queries, D), after the last block."""

    def leave(self, x: Tensor) -> Tensor:
        """One vector for each of the original tokens: (B, T, D)."""


class WholeSequence:
    """All tokens, those that are padding as well.

    Args:
        attention_mask: which tokens may be attended to, as the kernel takes it.
        kernel: what computes the attention.
    """

    def __init__(self, attention_mask: Any, kernel: Callable):
        self.attention_mask, self.kernel = attention_mask, kernel

    def enter(self, x: Tensor) -> Tensor:
        """The tokens."""
        return x

    def run(self, block: nn.Module, x: Tensor, **kwargs: Any) -> Tensor:
        """One block: (B, T, D) -> (B, T, D)."""
        return block(x, self.attention_mask, self.kernel, **kwargs)

    def run_last(self, block: nn.Module, x: Tensor, num_queries: int, **kwargs: Any) -> Tensor:
        """The last block, for the first tokens alone: (B, T, D) -> (B, num_queries, D)."""
        mask = None if self.attention_mask is None else self.attention_mask[:, :, :num_queries]
        return block(x, mask, self.kernel, num_queries=num_queries, **kwargs)

    def leave(self, x: Tensor) -> Tensor:
        """The tokens."""
        return x

    def has_rows(self) -> bool:
        """Whether the mask can be cut to the first tokens; one of a kernel's own kind cannot."""
        mask = self.attention_mask
        return mask is None or (isinstance(mask, Tensor) and mask.ndim == 4)


def build_blocks(
    config: EncoderConfig, num_layers: int, kind: type[nn.Module] = ViTScratchLayer, **more: Any
) -> nn.ModuleList:
    """The blocks of a configuration; stochastic depth grows from 0 at the first to `drop_path_rate` at the last.

    Args:
        config: what they are like.
        num_layers: how many.
        kind: their class.
        **more: what that takes besides the settings that all kinds have.
    """
    rates = [config.drop_path_rate * index / max(num_layers - 1, 1) for index in range(num_layers)]
    more = more or {"norm_first": config.norm_first}
    return nn.ModuleList(_block(config, kind, rate, more) for rate in rates)


def _block(config: EncoderConfig, kind: type[nn.Module], drop_path: float, more: dict[str, Any]) -> nn.Module:
    block = kind(
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        config.attention_probs_dropout_prob,
        activation=SwiGLU() if config.use_swiglu_ffn else ACT2FN[config.hidden_act],
        layer_norm_eps=config.layer_norm_eps,
        qkv_bias=config.qkv_bias,
        hidden_dropout=config.hidden_dropout_prob,
        drop_path=drop_path,
        head_dim=config.head_dim,
        out_proj_bias=config.out_proj_bias,
        layer_scale=config.layerscale_value,
        **more,
    )
    for module in block.modules():
        if isinstance(module, MultiHeadSelfAttention):
            module.config = config
    return block


def _kernel(config: EncoderConfig) -> Callable:
    return ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager_attention)


def _averaging(kernel: Callable) -> Callable:
    def averaged(*given: Any, **named: Any) -> tuple[Tensor, Tensor | None]:
        output, maps = kernel(*given, **named)
        return output, None if maps is None else maps.mean(dim=1, keepdim=True)

    return averaged


def encode(
    blocks: nn.ModuleList,
    x: Tensor,
    config: EncoderConfig,
    *,
    token_mask: Tensor | None = None,
    merging_schedule: Sequence[int] = (),
    num_queries: int | None = None,
    hidden_state: HiddenState,
    in_parts: Callable[[Callable], Callable] | None = None,
    average_maps: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Run all blocks: (B, T, D) -> (B, T, D).

    Args:
        blocks: those of `build_blocks`.
        x: the tokens.
        config: of the model, which also says which kernel there is and what is to be recorded.
        token_mask: (B, T), false where a token is padding.
        merging_schedule: patches that each block merges away.
        num_queries: the first tokens, if the others are not asked for; the last block then computes these alone where
            nothing is recorded and the kernel allows it: (B, T, D) -> (B, num_queries, D).
        hidden_state: is called with the tokens before and after each block if they are to be recorded.
        in_parts: makes of the kernel one whose tokens attend to a part of the others, without a mask.
        average_maps: average the attention maps over the heads, (B, 1, T, T), where they are asked for.
        **kwargs: go to the blocks; `output_attentions` and `output_hidden_states` take the place of the
            configuration's.
    """
    maps_wanted = bool(kwargs.get("output_attentions", config.output_attentions))
    recorded = bool(kwargs.get("output_hidden_states", config.output_hidden_states))
    if recorded or maps_wanted:
        num_queries = None
    if maps_wanted or x.shape[0] == 0:
        # Of all kernels only the eager one has the maps, and takes a batch without images.
        config = copy.copy(config)
        config._attn_implementation = "eager"
    kernel = _averaging(_kernel(config)) if average_maps else _kernel(config)
    sequence: TokenSequence
    if in_parts is not None:
        sequence = WholeSequence(None, in_parts(kernel))
    elif any(merging_schedule):
        patches = MergedPatches.none_yet(x, config.num_prefix_tokens, token_mask)
        sequence = MergedSequence(patches, merging_schedule, kernel, config._attn_implementation, maps_wanted)
    else:
        # Stochastic depth skips a branch for whole images, which a packed sequence does not have.
        may_pack = not maps_wanted and not (blocks.training and config.drop_path_rate > 0)
        sequence = whole = WholeSequence(
            create_bidirectional_mask(config=config, inputs_embeds=x, attention_mask=token_mask), kernel
        )
        if not whole.has_rows():
            num_queries = None
        if may_pack and token_mask is not None and is_worth_packing(token_mask, x.shape[2], config.num_prefix_tokens):
            sequence = PackedSequence(token_mask, whole)
    x = sequence.enter(x)
    before = sequence.leave(x) if recorded else x
    for block in list(blocks)[: None if num_queries is None else -1]:
        x = sequence.run(block, x, **kwargs)
        if recorded:
            after = sequence.leave(x)
            hidden_state(before, after)
            before = after
    return sequence.leave(x) if num_queries is None else sequence.run_last(blocks[-1], x, num_queries, **kwargs)


# --- After the blocks ------------------------------------------------------------------------------------------------


def num_queries(config: EncoderConfig) -> int | None:
    """How many tokens, from the front, the last block must compute for the pooler; None for all."""
    return {"cls": 1, "cls_distillation": 2}.get(config.pooling)


def build_pool(config: EncoderConfig, num_prefix_tokens: int) -> nn.Module:
    """What makes one vector of the tokens: (B, T, D) -> (B, D), or (B, 2 D) where it joins two."""
    if config.pooling != "attention":
        return TokenPooling(config.pooling, num_prefix_tokens)
    return AttentionPooling(
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        num_prefix_tokens=num_prefix_tokens,
        activation=ACT2FN[config.hidden_act],
        layer_norm_eps=config.layer_norm_eps,
    )


def build_pooler(config: EncoderConfig, num_prefix_tokens: int) -> Pooler:
    """The same with what may follow it, to the vector that the classification head reads: (B, T, D) -> (B, P)."""
    return Pooler(
        build_pool(config, num_prefix_tokens),
        config.hidden_size * (2 if config.pooling in JOINING_POOLINGS else 1),
        layer_norm_eps=config.layer_norm_eps if config.use_pooled_layer_norm else None,
        output_dim=config.pooler_output_size,
    )
