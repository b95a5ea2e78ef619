# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What every lineage of checkpoints tells the import and the export, and the facts that several of them share."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers.image_processing_utils import BaseImageProcessor

from ..model.configuration_vit_scratch import ViTScratchConfig
from ..model.layers_vit_scratch import Size, height_width
from .files import Source
from .tables import Rule

# The original ViT, which most lineages are but for what they say themselves.
VIT_FIELDS: dict[str, Any] = {
    "norm_first": True,
    "use_cls_position": True,
    "use_final_layer_norm": True,
    "layer_norm_eps": 1e-6,
    "attention_probs_dropout_prob": 0.0,
    "initialization": "truncated_normal",
}


EPSILON_HINT = (
    "Where a difference in the sixth digit does not matter, --config_overrides layer_norm_eps=1e-6 exports it so."
)


@dataclass
class Exported:
    """A checkpoint of ours as one of another library.

    Args:
        became: the class or architecture there.
        load: Python that loads it, with "FOLDER" for its place.
        code: Python that loads it from the current folder and uses it, lines.
        notes: what to know.
    """

    became: str
    load: str
    code: list[str]
    notes: list[str]

    @property
    def lines(self) -> list[str]:
        """All but the code, for a person."""
        return [
            f"became     {self.became}",
            f"load       {self.load}",
            *(f"note       {note}" for note in self.notes),
        ]


@dataclass
class Reading:
    """A source as its lineage understands it.

    Args:
        fields: fields of `ViTScratchConfig`, and `id2label` where the source has names.
        rules: which tensors are which.
        ignored: names of tensors that are left out, or their beginnings up to a `.`, `/` or `_`, with the reason.
        unknown: fields that the source does not tell, and that the user must.
        notes: what was assumed, a phrase each.
        preprocessing: the source's own image processor, or arguments of `ViTImageProcessor`; None if it tells nothing.
        tensors: the weights, where they are not those of the source as they stand.
    """

    fields: dict[str, Any]
    rules: Sequence[Rule]
    ignored: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    preprocessing: BaseImageProcessor | dict[str, Any] | None = None
    tensors: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Lineage:
    """A family of checkpoints that share their names.

    Args:
        name: what `--format` takes.
        signature: names of tensors that all of them have, as in a table.
        read: understands a source, given the fields that the user told.
    """

    name: str
    signature: tuple[str, ...]
    read: Callable[[Source, dict[str, Any]], Reading]


def square(count: int, patch_size: Sequence[int]) -> list[int] | None:
    """The image that `count` patches cover if it is a square of patches, [height, width] in pixels; else None."""
    side = math.isqrt(count)
    return [side * patch_size[0], side * patch_size[1]] if side * side == count else None


def grid(image_size: Size, patch_size: Size) -> tuple[int, int]:
    """Rows and columns of whole patches."""
    (height, width), (patch_height, patch_width) = height_width(image_size), height_width(patch_size)
    return height // patch_height, width // patch_width


def labels(names: Sequence[str] | Mapping[Any, str]) -> dict[str, Any]:
    """The fields of a configuration that names of classes give."""
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
    return {"id2label": {int(index): str(name) for index, name in pairs}}


def check_counterparts(config: ViTScratchConfig, wanted: Mapping[str, Any], library: str) -> None:
    """Refuse to export what another library cannot express.

    Args:
        config: of the model to export.
        wanted: fields, each with the only value, or a tuple of the values, that the library has.
        library: its name.

    Raises:
        ValueError: naming every field that has another value.
    """
    wrong, has = [], []
    for name, values in wanted.items():
        allowed = values if isinstance(values, tuple) else (values,)
        if getattr(config, name) not in allowed:
            wrong.append(f"{name}={getattr(config, name)!r}")
            has.append(f"{name}={' or '.join(repr(value) for value in allowed)}")
    if wrong:
        raise ValueError(
            f"this model cannot be exported: {library} has no counterpart for {', '.join(wrong)}; it always computes "
            f"{', '.join(has)}."
            + (f" {EPSILON_HINT}" if [item.partition("=")[0] for item in wrong] == ["layer_norm_eps"] else "")
        )
