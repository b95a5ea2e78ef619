# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a source does not say of its model and its user must: nothing of it is guessed in silence."""

from typing import Any

from huggingface_hub.errors import StrictDataclassFieldValidationError

from ..model.configuration_vit_scratch import ViTScratchConfig
from .files import Source
from .lineage import Reading

# What some sources do not tell.
FACTS = {
    "num_attention_heads": "a whole number",
    "image_size": "pixels, H or [H,W]",
    "patch_size": "pixels, H or [H,W]",
    "pooling": "cls or mean_tokens",
}


def checked_facts(overrides: dict[str, Any]) -> dict[str, Any]:
    """What the user tells of a source, under the names of the fields.

    Raises:
        ValueError: if there is no such field, or its value is of another type.
    """
    if not isinstance(overrides, dict):
        raise ValueError(f"config_overrides must be a dictionary of fields, got {overrides!r}.")
    facts = {}
    for name, value in overrides.items():
        name = ViTScratchConfig.attribute_map.get(name, name)
        if name not in ViTScratchConfig.field_defaults():
            raise ValueError(f"config_overrides has the unknown field {name!r}.")
        if name in ("image_size", "patch_size"):
            check_size(name, value)
        try:
            ViTScratchConfig(**{name: value})
        except StrictDataclassFieldValidationError as error:
            raise ValueError(f"config_overrides has {name}={value!r}: {error.__cause__}.") from error
        except ValueError:
            pass  # it does not go with the defaults; with the rest of the source it may
        facts[name] = value
    return facts


def check_size(name: str, value: Any) -> None:
    """Refuse what is no size.

    Raises:
        ValueError: naming it.
    """
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, (list, tuple)) or len(sides) != 2 or not all(isinstance(s, int) and s > 0 for s in sides):
        raise ValueError(f"{name} must be pixels, one number or [height, width], got {value!r}.")


def check_num_labels(num_labels: Any) -> None:
    """Refuse what is no number of labels.

    Raises:
        ValueError: naming it.
    """
    if isinstance(num_labels, bool) or not isinstance(num_labels, int) or num_labels < 1:
        raise ValueError(f"num_labels must be a whole number from 1 on, got {num_labels!r}.")


def contradicted(reading: Reading, facts: dict[str, Any]) -> list[str]:
    """A note for each fact of the user that the source tells otherwise."""
    return [
        f"took {name}={value} as told, where the source has {reading.fields[name]}"
        for name, value in facts.items()
        if name in reading.fields and reading.fields[name] != value
    ]


def check_known(source: Source, reading: Reading, facts: dict[str, Any]) -> None:
    """Ask the user for what the source does not tell.

    Raises:
        ValueError: with the option that tells it.
    """
    lacking = [name for name in reading.unknown if name not in facts]
    if lacking:
        raise ValueError(
            f"{source.path} does not say {' and '.join(f'{name} ({FACTS[name]})' for name in lacking)}: add "
            f"--config_overrides '{','.join(f'{name}=…' for name in lacking)}' (in Python: config_overrides)."
        )
