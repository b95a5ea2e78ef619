# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Foreign weights in: recognise, map, check that nothing is lost, and fit to another size or other labels."""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers.image_processing_utils import BaseImageProcessor

from ..finite import check_weights
from ..model.configuration_vit_scratch import ViTScratchConfig
from ..model.initialization_vit_scratch import renew
from ..model.layers_vit_scratch import height_width
from ..model.modeling_vit_scratch import ViTScratchForImageClassification, ViTScratchModel, ViTScratchPreTrainedModel
from .facts import check_known, check_num_labels, check_size, checked_facts, contradicted
from .files import Source, open_source, source_of
from .fitting import POSITIONS, accept_images_of, drop_head, resample
from .lineage import Reading
from .processor_settings import RGB, image_processor
from .recognition import recognise
from .tables import HEAD, apply, of_classifier

HEAD_WEIGHT = f"{HEAD}fc.weight"


@dataclass
class Imported:
    """A checkpoint of another library as a model of this one.

    Args:
        model: `ViTScratchForImageClassification`, or `ViTScratchModel` if the source has no head.
        image_processor: prepares images as the source's were.
        format: the lineage.
        notes: what a user must know of it, a line each: what was assumed, ignored, resampled or made anew.
    """

    model: ViTScratchPreTrainedModel
    image_processor: BaseImageProcessor
    format: str
    notes: list[str] = field(default_factory=list)

    @property
    def has_head(self) -> bool:
        """Whether the model is a classifier."""
        return isinstance(self.model, ViTScratchForImageClassification)


def read_checkpoint(
    source: str | Path,
    *,
    format: str | None = None,
    image_size: int | tuple[int, int] | list[int] | None = None,
    num_labels: int | None = None,
    config_overrides: dict[str, Any] | None = None,
) -> Imported:
    """Load anyone's ViT weights into our model, with the same hidden states and logits.

    Args:
        source: a file (safetensors, torch's `.pth`, or `.npz`), or a folder with one and its configuration.
        format: the lineage, instead of recognising it: one of `LINEAGES`.
        image_size: pixels, one number or (height, width); learned positions are resampled to its grid.
        num_labels: a new, random head for so many labels.
        config_overrides: fields of `ViTScratchConfig` that the source does not tell, or tells wrongly.

    Returns:
        The model in evaluation mode, its image processor, and notes.

    Raises:
        ValueError: one sentence that says why it cannot be loaded.
    """
    facts = checked_facts(config_overrides or {})
    if image_size is not None:
        check_size("image_size", image_size)
    if num_labels is not None:
        check_num_labels(num_labels)
    opened = open_source(source)
    lineage = recognise(opened, format)
    with understanding(opened):
        reading = lineage.read(opened, facts)
        # The one way to say it does for the other.
        if image_size is not None and "image_size" in {*reading.unknown} - facts.keys():
            facts["image_size"] = image_size if isinstance(image_size, int) else list(image_size)
            reading = lineage.read(opened, facts)
        check_known(opened, reading, facts)
        state, notes = map_tensors(opened, reading)
        config = build_config(opened, reading, facts, state)
    notes = [
        *opened.notes,
        *contradicted(reading, facts),
        *assumed_size(opened, reading, facts),
        *notes,
        *same_dtype(opened, state),
    ]
    if image_size is not None:
        notes += resample(config, state, height_width(image_size))
    if num_labels is not None:
        notes += drop_head(config, state, num_labels)
    size = height_width(config.image_size)
    processor, assumed = image_processor(
        reading.preprocessing, size, fit=image_size is not None, num_channels=config.num_channels
    )
    notes += accept_images_of(processor, config)
    if config.num_channels != RGB:
        notes.append(
            f"the model takes images of {config.num_channels} channels; train, evaluate and predict prepare RGB"
        )
    check_weights(state.items(), f"the checkpoint {opened.path}")
    classifier = HEAD_WEIGHT in state or num_labels is not None
    model, renewed = fill(opened, config, state, classifier=classifier)
    return Imported(model, processor, lineage.name, [*reading.notes, *assumed, *notes, *renewed])


@contextmanager
def understanding(source: Source) -> Iterator[None]:
    """Say which source it is that lacks something, or whose configuration holds what none holds.

    Raises:
        ValueError: naming it.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{source.path} is not whole: {error.args[0]} is missing.") from error
    except (IndexError, ValueError) as error:
        if isinstance(error, ValueError) and "unpack" not in str(error):
            raise error if str(error).startswith(str(source.path)) else ValueError(f"{source.path}: {error}") from error
        raise ValueError(f"{source.path} has a tensor of another number of axes than it should have.") from error
    except (TypeError, AttributeError, ZeroDivisionError) as error:
        if not source.config:
            raise
        raise ValueError(f"the config.json of {source.path} cannot be understood: {error}.") from error


def convert_state_dict(
    state_dict: Mapping[str, Tensor],
    *,
    format: str | None = None,
    config: dict[str, Any] | None = None,
    config_overrides: dict[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Only map the names: a foreign state dict to one of `ViTScratchForImageClassification`, or of `ViTScratchModel`.

    Args:
        state_dict: tensors under the names of any lineage but transformers', whose models transformers loads itself.
        format: the lineage, instead of recognising it.
        config: what stands in the `config.json` beside the weights, if anything.
        config_overrides: fields of `ViTScratchConfig` that decide which tensor is which and stand nowhere, such as the
            image size where patches form no square.

    Raises:
        ValueError: if the names are of no lineage, or not whole, or such a field is needed.
    """
    source = source_of(state_dict)
    source.config = dict(config or {})
    facts = checked_facts(config_overrides or {})
    lineage = recognise(source, format)
    if lineage.name == "transformers":
        raise ValueError(
            f"{source.path} is of transformers, which loads its models itself: read_checkpoint takes a folder."
        )
    with understanding(source):
        reading = lineage.read(source, facts)
        if not reading.rules:
            check_known(source, reading, facts)
        state, _ = map_tensors(source, reading)
    return of_classifier(state) if HEAD_WEIGHT in state else state


def map_tensors(source: Source, reading: Reading) -> tuple[dict[str, Tensor], list[str]]:
    """Our tensors, and a note for all that the table leaves out.

    Raises:
        ValueError: if there is a tensor that is neither used nor known to be of no use.
    """
    tensors = source.tensors if reading.tensors is None else reading.tensors
    state, used = apply(reading.rules, tensors)
    notes: dict[str, list[str]] = {}
    strange = []
    for name in [name for name in tensors if name not in used]:
        reason = next((why for what, why in reading.ignored.items() if _is_meant(name, what)), None)
        if reason is None:
            strange.append(name)
        else:
            notes.setdefault(reason, []).append(name)
    # What was not even loaded is named, too.
    for name, reason in reading.ignored.items() if reading.tensors is not None else ():
        if name not in tensors:
            notes.setdefault(reason, []).append(name)
    if strange:
        raise ValueError(
            f"{source.path} is no plain ViT: {len(strange)} of its tensors have no place in the model, among them "
            f"{', '.join(strange[:3])}."
        )
    return state, [f"ignored {_listed(names)}: {reason}" for reason, names in notes.items()]


def assumed_size(source: Source, reading: Reading, facts: dict[str, Any]) -> list[str]:
    """A note if the image size is a guess: a square, because the positions are of as many patches as a square has."""
    if source.config or "image_size" in facts or "image_size" not in reading.fields:
        return []
    height, width = height_width(reading.fields["image_size"])
    return [f"assumed images of {height}x{width} pixels, as the positions form a square"]


def same_dtype(source: Source, state: dict[str, Tensor]) -> list[str]:
    """Give all tensors the dtype of the most precise of them, in place, with a note.

    Raises:
        ValueError: if there are whole numbers.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{source.path} has quantised weights, which are not read: {name} is of {tensor.dtype}.")
    dtypes = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    if len(dtypes) < 2:
        return []
    widest = functools.reduce(torch.promote_types, dtypes)
    state.update({name: tensor.to(widest) for name, tensor in state.items()})
    return [f"converted all weights to {widest}, as they were of {len(dtypes)} kinds of numbers"]


def _is_meant(name: str, what: str) -> bool:
    """Whether a tensor is meant by an entry of `Reading.ignored`: a name, or the beginning of names."""
    return name == what or (what.endswith(("_", ".", "/")) and name.startswith(what))


def _listed(names: list[str]) -> str:
    """All names, or what they begin with and how many there are."""
    first, last = min(names), max(names)  # what these two share, all share
    length = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    start = first[: max(first.rfind(separator, 0, length) for separator in "./_") + 1]
    return f"{start}* ({len(names)} tensors)" if start and len(names) > 2 else ", ".join(names)


def build_config(
    source: Source, reading: Reading, facts: dict[str, Any], state: Mapping[str, Tensor]
) -> ViTScratchConfig:
    """The configuration that a source and its user describe.

    Raises:
        ValueError: if the fields make no model.
    """
    try:
        fields = {**reading.fields, **facts}
        if HEAD_WEIGHT in state and "id2label" not in fields:
            fields["num_labels"] = state[HEAD_WEIGHT].shape[0]
        names = fields.get("id2label")
        if names is not None and sorted(map(int, names)) != list(range(len(names))):
            raise ValueError(
                f"id2label must number its labels from 0 to {len(names) - 1}, got {', '.join(map(str, names))}."
            )
        config = ViTScratchConfig(**fields)
    except (ValueError, StrictDataclassError) as error:
        raise ValueError(f"{source.path} makes no model: {str(error.__cause__ or error).rstrip('.')}.") from error
    return config


def fill(
    source: Source, config: ViTScratchConfig, state: dict[str, Tensor], *, classifier: bool
) -> tuple[ViTScratchPreTrainedModel, list[str]]:
    """A model that takes these tensors over, without a copy; a head that is missing is made anew.

    Raises:
        ValueError: if tensors are missing or of another shape.
    """
    with torch.device("meta"):
        model = ViTScratchForImageClassification(config) if classifier else ViTScratchModel(config)
    named = of_classifier(state) if classifier else state
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    new = sorted(name for name in expected if name.startswith(HEAD) and HEAD_WEIGHT not in named)
    missing = sorted(expected.keys() - named.keys() - set(new))
    if missing:
        raise ValueError(
            f"{source.path} is not whole: it has nothing for {len(missing)} tensors, such as {missing[0]}."
        )
    surplus = sorted(named.keys() - expected.keys())
    if surplus:
        raise ValueError(f"{source.path} has {surplus[0]}, which the model that it describes does not have.")
    for name, tensor in named.items():
        if tuple(tensor.shape) != expected[name]:
            raise ValueError(
                f"{source.path} does not fit what it describes: {name} is {tuple(tensor.shape)} and must be "
                f"{expected[name]}; "
                + (
                    "--image-size (in Python: image_size) fits positions to another size."
                    if name.endswith(POSITIONS)
                    else "correct the fields with --config_overrides (in Python: config_overrides)."
                )
            )
    model.load_state_dict({name: tensor.contiguous() for name, tensor in named.items()}, assign=True, strict=not new)
    if new and isinstance(model, ViTScratchForImageClassification):
        renew(model.classification_head.to(next(iter(state.values())).dtype), config)
    return model.eval(), [f"new random head for {config.num_labels} labels"] if new else []
