# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Our own checkpoints: imported to fit them to another image size or other labels."""

from typing import Any

from ..model.configuration_vit_scratch import ViTScratchConfig
from .files import Source
from .lineage import Lineage, Reading
from .processor_settings import saved_processor
from .tables import BODY, renames

IGNORED = {
    "vit.mask_patches.": "it stands for masked patches in pre-training",
    "decoder.": "it belongs to the decoder of pre-training",
}
# What a configuration file says beside the fields.
NO_FIELDS = ("auto_map", "transformers_version")


def read(source: Source, facts: dict[str, Any]) -> Reading:
    """Take everything as it is."""
    if source.config.get("model_type") != ViTScratchConfig.model_type:
        raise ValueError(f"{source.path} has our names, but no config.json of ours beside it: name its folder.")
    folder = source.path if source.path.is_dir() else source.path.parent
    return Reading(
        fields={name: value for name, value in source.config.items() if name not in NO_FIELDS},
        rules=renames({name: name.removeprefix(BODY) for name in source.shapes if not name.startswith(tuple(IGNORED))}),
        ignored=IGNORED,
        preprocessing=saved_processor(folder),
    )


LINEAGE = Lineage("vit-scratch", ("patch_embedding.projection.weight", "encoder.*.attention.in_proj.weight"), read)
