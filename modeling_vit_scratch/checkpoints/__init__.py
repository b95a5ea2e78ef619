# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Foreign weights in and out: one file per lineage, one that recognises. Nothing here opens the network."""

from .importing import Imported, convert_state_dict, read_checkpoint
from .recognition import LINEAGES

__all__ = ["LINEAGES", "Imported", "convert_state_dict", "read_checkpoint"]
