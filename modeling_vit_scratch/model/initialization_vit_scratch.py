# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""How the weights of a new model begin: as the article's, as the original ViT's, or so that they imitate trained ones.

Shapes: D hidden size, A attention heads.
"""

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .additions_vit_scratch import AddRegisterTokens, AttentionPooling, LayerScale, MaskPatches
from .configuration_vit_scratch import EncoderConfig
from .layers_vit_scratch import AddClsToken, MultiHeadSelfAttention, PositionalEncoding

# How far from 0 the positions of `initialization="mimetic"` lie: one of ours, the article's sinusoids have amplitude 1.
MIMETIC_POSITIONS = 0.3


def initialize(module: nn.Module, config: EncoderConfig) -> None:
    """Initialise one module, as `config.initialization` says; weights that were loaded are left alone."""
    if isinstance(module, nn.LayerNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, MaskPatches):
        init.zeros_(module.mask_token)
    elif isinstance(module, LayerScale):
        init.constant_(module.gamma, module.value)
    elif config.initialization == "article":
        _as_the_article(module)
    else:
        _truncated_normal(module, config.initializer_range)
        if config.initialization == "mimetic":
            _as_pretrained(module)


def renew(module: nn.Module, config: EncoderConfig) -> None:
    """Give a part of a model new random weights, in place of any that were loaded; the rest of the model is not read.

    Device and type of the weights stay; weights on the meta device are made on the CPU.
    """
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            # A weight of its own: transformers marks those that were loaded, and then leaves them alone.
            device = "cpu" if weight.is_meta else weight.device
            setattr(part, name, nn.Parameter(torch.empty_like(weight, device=device)))
    with torch.no_grad():
        module.apply(lambda part: initialize(part, config))


def _as_the_article(module: nn.Module) -> None:
    if isinstance(module, MultiHeadSelfAttention):
        # Runs after its two linear layers had theirs, so this stands.
        init.xavier_uniform_(module.in_proj.weight)
        for projection in (module.in_proj, module.out_proj):
            if projection.bias is not None:
                init.zeros_(projection.bias)
    elif isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
        # torch's own default for both, spelled in the functions that respect loaded weights.
        init.kaiming_uniform_(module.weight, a=math.sqrt(5))
        if module.bias is not None:
            bound = 1 / math.sqrt(module.weight[0].numel())
            init.uniform_(module.bias, -bound, bound)
    else:
        for parameter in _positions_and_tokens(module):
            init.normal_(parameter)


def _truncated_normal(module: nn.Module, std: float) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
        init.trunc_normal_(module.weight, std=std)
        if module.bias is not None:
            init.zeros_(module.bias)
    else:
        for parameter in _positions_and_tokens(module):
            init.trunc_normal_(parameter, std=std)


def _as_pretrained(module: nn.Module) -> None:
    """What pretrained ViTs look like: patches attend to themselves and their neighbours (arXiv 2305.09828)."""
    if isinstance(module, PositionalEncoding) and module.encoding == "learned":
        positions = MIMETIC_POSITIONS * module.sincos2d(module.grid_size, module.positional_embedding)
        init.copy_(module.positional_embedding, positions)
    if isinstance(module, MultiHeadSelfAttention) and not is_loaded(module.in_proj.weight):
        query, key, value, output = mimetic_attention(module)
        init.copy_(module.in_proj.weight, torch.cat((query, key, value)))
        init.copy_(module.out_proj.weight, output)


def _positions_and_tokens(module: nn.Module) -> list[nn.Parameter]:
    kinds = (PositionalEncoding, AddClsToken, AddRegisterTokens, AttentionPooling)
    return list(module.parameters(recurse=False)) if isinstance(module, kinds) else []


def is_loaded(weight: Tensor) -> bool:
    """Whether a weight is not to be initialised: it came from a checkpoint, or there is nothing in it yet."""
    return getattr(weight, "_is_hf_initialized", False) or weight.is_meta


def mimetic_attention(attention: MultiHeadSelfAttention) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of queries, keys and values (A * D / A, D), and of the output (D, A * D / A), that imitate trained ones.

    In each head, what makes a query and a key is together nearly 0.7 Z + 0.7 I, and over all heads what makes a value
    and the output nearly 0.4 Z - 0.4 I, with Z of independent normal numbers of variance 1 / D (Trockman and Kolter
    2023, arXiv 2305.09828, section 4 and algorithm 1); "nearly" as far as the rank of the product allows.
    """
    width, inner = attention.in_proj.in_features, attention.out_proj.in_features

    def factors(noise: float, identity: float, rank: int) -> tuple[Tensor, Tensor]:
        product = noise * torch.randn(width, width) / math.sqrt(width) + identity * torch.eye(width)
        left, values, right = torch.linalg.svd(product)
        root = values[:rank].sqrt()
        return left[:, :rank] * root, root[:, None] * right[:rank]  # (D, rank), (rank, D)

    queries_keys = [factors(0.7, 0.7, attention.head_dim) for _ in range(attention.num_heads)]
    query = torch.cat([left.T for left, _ in queries_keys])
    key = torch.cat([right for _, right in queries_keys])
    left, right = factors(0.4, -0.4, min(inner, width))
    value, output = torch.zeros(inner, width), torch.zeros(width, inner)  # heads wider than D in all: the rest stays 0
    value[: left.shape[1]], output[:, : right.shape[0]] = left.T, right.T
    return query, key, value, output
