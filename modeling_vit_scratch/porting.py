# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Weights of other libraries in, ours out: from a name or a folder to a folder."""

import shlex
from pathlib import Path
from typing import Any

from .checkpoints.importing import Imported, read_checkpoint
from .checkpoints.lineage_export import export_model
from .hub.cards import inherited, write_export_card, write_import_card
from .hub.fetching import fetched
from .model.layers_vit_scratch import Size, height_width
from .model.publishing_vit_scratch import CARD, copy_license
from .system.folders import check_new_folder, new_folder


def import_checkpoint(
    source: str | Path,
    output: str | Path | None = None,
    *,
    format: str | None = None,
    image_size: Size | None = None,
    num_labels: int | None = None,
    config_overrides: dict[str, Any] | None = None,
    revision: str | None = None,
) -> Imported:
    """Load anyone's ViT weights into our model, with the same hidden states and logits.

    Args:
        source: a file (safetensors, torch's `.pth`, Google's `.npz`), a folder, or a Hub id.
        output: if given, a new folder for a self-contained checkpoint, written whole or not at all.
        format: the lineage, one of `checkpoints.LINEAGES`, instead of recognising it.
        image_size: pixels, one number or (height, width); learned positions are resampled to its grid.
        num_labels: a new, random head for so many labels.
        config_overrides: fields of `ViTScratchConfig` that the source does not tell, or tells wrongly.
        revision: branch, tag or commit of a Hub id.

    Returns:
        The model in evaluation mode, its image processor, and notes of what was assumed, left out or made anew.

    Raises:
        ValueError: one sentence that says why it cannot be loaded, or `output` not be written.
    """
    if output is not None:
        check_new_folder(output)
    found = fetched(str(source), revision)
    imported = read_checkpoint(
        found.place,
        format=format,
        image_size=image_size,
        num_labels=num_labels,
        config_overrides=config_overrides,
    )
    if output is not None:
        with new_folder(output) as folder:
            terms = inherited(found)
            imported.model.save_pretrained(folder)
            imported.image_processor.save_pretrained(folder)
            write_import_card(
                Path(output).resolve().name,
                found,
                imported.format,
                imported.model,
                imported.image_processor,
                imported.notes,
                terms,
                folder / CARD,
            )
            copy_license(found.place, terms, folder)
    return imported


def import_lines(imported: Imported, source: str, output: str) -> list[str]:
    """What was imported, for a person."""
    config = imported.model.config
    height, width = height_width(config.image_size)
    count = config.num_labels
    head = f"{count} label{'s' if count != 1 else ''}" if imported.has_head else "no head"
    return [
        f"read       {source}, a checkpoint of {imported.format}: {imported.model.num_parameters():,} parameters, "
        f"images of {height}x{width} pixels, {head}",
        *(f"note       {note}" for note in imported.notes),
        f"written    {output}",
        f"fine-tune  vit-scratch train finetune --model {shlex.quote(output)} --data FOLDER",
    ]


def export_checkpoint(
    checkpoint: str | Path,
    output: str | Path,
    *,
    format: str,
    config_overrides: dict[str, Any] | None = None,
    revision: str | None = None,
) -> list[str]:
    """Write one of our checkpoints as a folder that another library loads itself, with the same logits.

    Args:
        checkpoint: a folder or a Hub id, of a checkpoint of ours.
        output: a new folder, written whole or not at all.
        format: "transformers" or "timm".
        config_overrides: fields of the configuration to change, as far as the weights allow.
        revision: branch, tag or commit of a Hub id.

    Returns:
        What to know: the class or architecture that it became, and how it is loaded.

    Raises:
        ValueError: if a setting has no counterpart there, with its name; or `output` cannot be written.
    """
    check_new_folder(output)
    found = fetched(str(checkpoint), revision)
    imported = read_checkpoint(found.place, format="vit-scratch", config_overrides=config_overrides)
    with new_folder(output) as folder:
        terms = inherited(found)
        exported = export_model(imported.model, imported.image_processor, folder, format=format)
        write_export_card(
            Path(output).resolve().name,
            found,
            format,
            imported.model,
            imported.image_processor,
            exported,
            terms,
            folder / CARD,
        )
        copy_license(found.place, terms, folder)
    return [*(line.replace("FOLDER", str(output)) for line in exported.lines), f"written    {output}"]
