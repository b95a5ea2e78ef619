# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""ViViT's own checkpoints, of scenic: which of their tensors is which of ours.

The names are those of Google's image models (`google.py`), with one transformer more in a factorised encoder and two
attentions a block in factorised self-attention; kernels of convolutions have frames in front. Activations are flax's
`gelu`, the tanh approximation, and the epsilon of LayerNorm is 1e-6.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .google import heads_joined, inputs_last, layers, vectors_joined
from .tables import Rule, renames

ATTENTION, MLP = "MultiHeadDotProductAttention", "MlpBlock"
# Transformer of theirs -> how ours begin: the blocks, and what is beside them.
ENCODERS = {"Transformer": "", "SpatialTransformer": "", "TemporalTransformer": "temporal_"}


def frames_last(kernel: Tensor) -> Sequence[Tensor]:
    """The kernel of a convolution over frames, (frames, rows, columns, channels, outputs), or without frames."""
    kernel = kernel if kernel.ndim == 5 else kernel[None]
    return (kernel.permute(4, 3, 0, 1, 2).contiguous(),)


def _encoder(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Rules for the blocks of a transformer and the norm after them."""
    block, to = f"{theirs}/encoderblock_*", f"{ours}encoder.*"
    norms = {f"{theirs}/encoder_norm": f"{ours}norm"}
    norms |= {f"{block}/LayerNorm_{index}": f"{to}.norm{index + 1}" for index in range(2)}
    norms |= {f"{block}/LayerNorm_{kind}": f"{to}.norm_{kind}" for kind in ("space", "time")}
    norms |= {f"{block}/LayerNorm_mlp": f"{to}.norm_ff"}
    linears, projections = {}, {}
    for number, kind in (("_0", ""), ("_space", "_space"), ("_time", "_time")):
        attention = f"{block}/{ATTENTION}{number}"
        linears[f"{attention}/out"] = f"{to}.attention{kind}.out_proj"
        projections[tuple(f"{attention}/{name}" for name in ("query", "key", "value"))] = (
            f"{to}.attention{kind}.in_proj"
        )
    for mlp in (f"{MLP}_0", MLP):
        linears |= {f"{block}/{mlp}/Dense_0": f"{to}.ff.0", f"{block}/{mlp}/Dense_1": f"{to}.ff.2"}
    return (
        *layers(norms, "scale", vectors_joined),
        *layers(linears, "kernel", inputs_last),
        *layers(projections, "kernel", heads_joined),
    )


def _positions(theirs: str, ours: str, cls_token: str, has_cls: bool) -> Rule:
    name = f"{theirs}/posembed_input/pos_embedding"
    if not has_cls:
        return Rule((name,), (f"{ours}positional_encoding.positional_embedding",), lambda tensor: (tensor,))
    return Rule(
        (name,),
        (f"{cls_token}.cls_position", f"{ours}positional_encoding.positional_embedding"),
        lambda tensor: (tensor[:, :1], tensor[:, 1:]),
    )


def rules(names: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules for a checkpoint with these names."""
    has_cls = any(name.startswith("cls") for name in names)
    found = [theirs for theirs in ENCODERS if f"{theirs}/encoder_norm/scale" in names]
    of_encoders = [rule for theirs in found for rule in _encoder(theirs, ENCODERS[theirs])]
    of_positions = [_positions(theirs, ENCODERS[theirs], f"{ENCODERS[theirs]}cls_token", has_cls) for theirs in found]
    tokens = {
        "cls": "cls_token",
        "cls_SpatialTransformer": "cls_token",
        "cls_TemporalTransformer": "temporal_cls_token",
    }
    return (
        *of_encoders,
        *of_positions,
        *renames({theirs: f"{ours}.cls_token" for theirs, ours in tokens.items()}),
        *layers({"embedding": "tubelet_embedding.projection"}, "kernel", frames_last),
        *layers({"pre_logits": "pooler.dense", "output_projection": "classification_head.fc"}, "kernel", inputs_last),
    )
