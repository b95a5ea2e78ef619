# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a source does not say of its model and its user must: nothing of it is guessed in silence."""

from typing import Any

from huggingface_hub.errors import StrictDataclassFieldValidationError

from ..configuration_vit_scratch import ViTScratchConfig, field_defaults
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
    facts = {}
    for name, value in overrides.items():
        name = ViTScratchConfig.attribute_map.get(name, name)
        if name not in field_defaults():
            raise ValueError(f"config_overrides has the unknown field {name!r}.")
        if name in ("image_size", "patch_size"):
            sides = [value, value] if isinstance(value, int) else value
            if not isinstance(sides, (list, tuple)) or len(sides) != 2 or not all(isinstance(s, int) for s in sides):
                raise ValueError(f"{name} must be pixels, one number or [height, width], got {value!r}.")
        try:
            ViTScratchConfig(**{name: value})
        except StrictDataclassFieldValidationError as error:
            raise ValueError(f"config_overrides has {name}={value!r}: {error.__cause__}.") from error
        except ValueError:
            pass  # it does not go with the defaults; with the rest of the source it may
        facts[name] = value
    return facts


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
