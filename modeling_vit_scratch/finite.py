# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Weights and logits that are NaN or infinite: refused where they are loaded and computed, before anyone reads them."""

from collections.abc import Iterable

from torch import Tensor


def check_weights(weights: Iterable[tuple[str, Tensor]], whose: str) -> None:
    """Refuse weights that are not finite: nothing that is computed from them means anything.

    Args:
        weights: with their names.
        whose: the checkpoint, for people.

    Raises:
        ValueError: naming the first such weight.
    """
    # The extremes take no memory, unlike a truth value for each number.
    broken = [
        name
        for name, weight in weights
        if weight.is_floating_point() and weight.numel() and not all(bound.isfinite() for bound in weight.aminmax())
    ]
    if broken:
        more = f" and {len(broken) - 1} more of its weights hold" if len(broken) > 1 else " holds"
        raise ValueError(f"{whose} cannot be used: {broken[0]}{more} numbers that are NaN or infinite.")


def check_logits(logits: Tensor, whose: str) -> None:
    """Refuse logits (B, K) that are not finite, as of finite weights they are where a number of few bits overflows.

    Args:
        logits: of images.
        whose: the checkpoint, for people.

    Raises:
        ValueError: saying of how many images.
    """
    broken = int((~logits.isfinite()).any(dim=1).sum())
    if broken:
        raise ValueError(not_finite(broken, len(logits), whose))


def not_finite(broken: int, number: int, whose: str) -> str:
    """That of so many images so many have logits that are not finite, as a sentence."""
    return f"{whose} cannot be used: the logits of {broken:,} of {number:,} images are NaN or infinite."
