# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Fields of the configuration that a person changes on a command line or in a recipe, as text."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

import yaml

from .model.configuration_vit_scratch import ViTScratchConfig

# Fields of the configuration that the data decides.
LABEL_FIELDS = {"id2label", "label2id", "num_classes", "num_labels"}


class RecipeLoader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as in YAML 1.2 and everywhere else."""


RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_overrides(text: str) -> dict[str, Any]:
    """Fields of the configuration from a text such as "depth=4,image_size=[32,48]".

    Raises:
        ValueError: if it is of another form, or there is no such field.
    """
    fields = sorted({*ViTScratchConfig.field_defaults(), *ViTScratchConfig.attribute_map} - LABEL_FIELDS)
    overrides = {}
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\]?)+", text):  # commas inside brackets do not separate
        name, equals, value = item.strip().partition("=")
        if not equals:
            raise ValueError(f"config_overrides must be name=value,name=value,…, got {text!r}.")
        if name in LABEL_FIELDS:
            raise ValueError(f"config_overrides cannot set {name}: the labels are those of the data.")
        if name not in fields:
            raise ValueError(f"config_overrides has the unknown field {name!r}{closest_name(name, fields)}.")
        try:
            overrides[name] = yaml.load(value, RecipeLoader)
        except yaml.YAMLError as error:
            raise ValueError(f"config_overrides has a value for {name} that is not whole: {value!r}.") from error
    return overrides


def closest_name(name: str, known: Iterable[str]) -> str:
    """What may have been meant by an unknown name, in brackets."""
    if name in {*ViTScratchConfig.field_defaults(), *ViTScratchConfig.attribute_map}:
        return f" (a field of the model: set it with config_overrides, as '{name}=…')"
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
