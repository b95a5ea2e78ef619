# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The language of the lineages' tables: which of their tensors is which of ours, both ways.

In a name, `*` stands for the number of a block and a final `+` for `weight` and `bias`:
`"blocks.*.norm1.+": "encoder.*.norm1.+"` renames two tensors per block. Ours are the names of `ViTScratchModel`, and
`classification_head.fc.+` beside them.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HEAD = "classification_head."
BODY = "vit."


@dataclass(frozen=True)
class Rule:
    """Tensors of theirs that become tensors of ours.

    Args:
        theirs, ours: names of one or more tensors; if the first of `theirs` is there, all must be.
        read: their tensors in order -> ours in order.
        write: the way back; None where there is none.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    read: Callable[..., Sequence[Tensor]]
    write: Callable[..., Sequence[Tensor]] | None = None


def same(*tensors: Tensor) -> Sequence[Tensor]:
    """The tensors as they are."""
    return tensors


def joined(*tensors: Tensor) -> Sequence[Tensor]:
    """Rows one below the other, as the three projections of `in_proj`."""
    return (torch.cat(tensors),)


def in_thirds(tensor: Tensor) -> Sequence[Tensor]:
    """The way back from `joined` of three."""
    return tensor.chunk(3)


def in_halves(tensor: Tensor) -> Sequence[Tensor]:
    """The way back from `joined` of two."""
    return tensor.chunk(2)


def renames(names: dict[str, str]) -> tuple[Rule, ...]:
    """A rule for each name that changes without its tensor."""
    return tuple(Rule((theirs,), (ours,), same, same) for theirs, ours in names.items())


def positions(theirs: str, num_prefix: int) -> Rule:
    """Positions of [CLS] and the patches in one tensor (1, 1 + N, D), or with `num_prefix=0` of the patches alone."""
    if num_prefix == 0:
        return Rule((theirs,), ("positional_encoding.positional_embedding",), same, same)
    return Rule(
        (theirs,),
        ("cls_token.cls_position", "positional_encoding.positional_embedding"),
        lambda tensor: (tensor[:, :1], tensor[:, 1:]),
        lambda of_cls, of_patches: (torch.cat((of_cls, of_patches), dim=1),),
    )


def averaged_heads(one: str, other: str) -> tuple[Rule, ...]:
    """Heads on two tokens whose logits are averaged: one head on both tokens."""
    return (
        Rule(
            (f"{one}.weight", f"{other}.weight"),
            ("classification_head.fc.weight",),
            lambda *weights: (torch.cat(weights, dim=1) / 2,),
            lambda both: (2 * both).chunk(2, dim=1),
        ),
        Rule(
            (f"{one}.bias", f"{other}.bias"),
            ("classification_head.fc.bias",),
            lambda *biases: ((biases[0] + biases[1]) / 2,),
            lambda both: (both, both.clone()),
        ),
    )


def apply(rules: Iterable[Rule], tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """Our tensors from theirs, and the names of theirs that were used.

    Raises:
        ValueError: if a tensor that belongs to another is missing, or two claim one place.
    """
    state: dict[str, Tensor] = {}
    used: set[str] = set()
    for rule in rules:
        pattern = pattern_of(rule.theirs[0])
        for name in [name for name in tensors if pattern.fullmatch(name)]:
            wildcards = _wildcards(pattern, name)
            theirs = [_filled(part, wildcards) for part in rule.theirs]
            lacking = [part for part in theirs if part not in tensors]
            if lacking:
                raise ValueError(f"{lacking[0]} is missing beside {name}.")
            ours = [_filled(part, wildcards) for part in rule.ours]
            if not state.keys().isdisjoint(ours):
                raise ValueError(f"{name} is there beside another tensor of the same meaning.")
            state.update(zip(ours, rule.read(*(tensors[part] for part in theirs)), strict=True))
            used.update(theirs)
    return state, used


def unapply(rules: Iterable[Rule], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors from ours.

    Raises:
        ValueError: if there is one that no rule leads back.
    """
    tensors: dict[str, Tensor] = {}
    used: set[str] = set()
    for rule in rules:
        pattern = pattern_of(rule.ours[0])
        for name in [name for name in state if rule.write is not None and pattern.fullmatch(name)]:
            wildcards = _wildcards(pattern, name)
            ours = [_filled(part, wildcards) for part in rule.ours]
            if not set(ours) <= state.keys():
                continue
            assert rule.write is not None
            theirs = [_filled(part, wildcards) for part in rule.theirs]
            tensors.update(zip(theirs, rule.write(*(state[part] for part in ours)), strict=True))
            used.update(ours)
    left = sorted(state.keys() - used)
    if left:
        raise ValueError(f"{left[0]} has no counterpart.")
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def pattern_of(name: str) -> re.Pattern[str]:
    """A name of a table as a regular expression, with a group for each wildcard."""
    expression = re.escape(name).replace(r"\*", r"(\d+)")
    return re.compile(re.sub(r"\\\+$", "(weight|bias)", expression))


def _wildcards(pattern: re.Pattern[str], name: str) -> tuple[str, ...]:
    match = pattern.fullmatch(name)
    assert match is not None
    return match.groups()


def _filled(name: str, wildcards: Sequence[str]) -> str:
    for value in wildcards:
        name = re.sub(r"\*|\+$", value, name, count=1)
    return name


def of_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of `ViTScratchForImageClassification`, whose body has a prefix."""
    return {name if name.startswith(HEAD) else BODY + name: tensor for name, tensor in state.items()}


def of_body(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back from `of_classifier`; names of `ViTScratchModel` stay as they are."""
    return {name.removeprefix(BODY): tensor for name, tensor in state.items()}
