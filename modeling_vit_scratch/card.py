# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The model card that every saved checkpoint carries: what cards of all origins share, and those of imports.

Nothing here loads pandas or scikit-learn, which an import of weights would have to hold in memory beside them.
"""

import glob
import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from PIL import Image
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor
from yaml import YAMLError

from . import __version__
from .hub import SHOWN, Checkpoint
from .layers_vit_scratch import height_width
from .presets import shipped_path
from .publishing_vit_scratch import CARD, LICENSE_TERMS
from .text import for_markdown


def write_import_card(
    name: str,
    source: Checkpoint,
    lineage: str,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    notes: list[str],
    license_terms: dict[str, str],
    path: Path,
) -> None:
    """Render `model_card.md` for an imported checkpoint into a README.md at `path`.

    Args:
        name: of the model.
        source: where it came from.
        lineage: what kind of checkpoint that is.
        model, processor: what was imported.
        notes: what was assumed, left out or made anew.
        license_terms: those of the source, as `license_of` gives them.
        path: the file.
    """
    classifies = hasattr(model, "classification_head")
    assert model.config.id2label is not None
    metadata = ModelCardData(
        model_name=name,
        base_model=base_model_of(source),
        library_name="transformers",
        pipeline_tag="image-classification" if classifies else "image-feature-extraction",
        tags=["vit-scratch", "vision-transformer"],
    )
    for term, value in license_terms.items():
        setattr(metadata, term, value)
    card = ModelCard.from_template(
        metadata,
        template_path=str(shipped_path("model_card.md")),
        **architecture(name, model, processor),
        origin=f"imported from {in_words(source)}, a checkpoint of {lineage}",
        vit_scratch_version=__version__,
        sample="photo.jpg",
        labels=named_labels(model.config.id2label) if classifies else [],
        classifies=classifies,
        notes=[for_markdown(note) for note in notes],
    )
    path.write_text(f"{str(card).rstrip()}\n", encoding="utf-8")


def in_words(source: Checkpoint) -> str:
    """What a card calls a checkpoint: its name for others, as Markdown, and of the Hub its commit."""
    return for_markdown(name_of(str(source))) + (f" (commit {source.commit[:SHOWN]})" if source.commit else "")


def base_model_of(source: Checkpoint) -> str | None:
    """The checkpoint on the Hub that a model was made of: itself, or what its card names; a preset has none."""
    named = source.hub_id or metadata_of(source.place).get("base_model")
    return named if isinstance(named, str) and not source.preset else None


def license_of(source: str | Path) -> dict[str, str]:
    """What the card of a checkpoint says of its license, by the Hub's names; nothing if there is no card."""
    metadata = metadata_of(source)
    return {name: metadata[name] for name in LICENSE_TERMS if isinstance(metadata.get(name), str)}


def metadata_of(source: str | Path) -> dict[str, Any]:
    """The header of the card of a checkpoint in a folder; nothing if it has none that can be read."""
    try:
        card = ModelCard.load(Path(source, CARD))
    except (OSError, ValueError, YAMLError):
        return {}  # the model is whole without it
    return card.data.to_dict()


def named_labels(id2label: dict[Any, str]) -> list[str]:
    """The labels in the order of the logits, unless they are the names that transformers makes up."""
    names = [label for _, label in sorted(id2label.items())]
    return [] if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else [for_markdown(name) for name in names]


def architecture(name: str, model: PreTrainedModel, processor: BaseImageProcessor) -> dict[str, Any]:
    """What the card says of a model, wherever it came from."""
    config = model.config
    height, width = height_width(config.image_size)
    return {
        "model_name": for_markdown(name),
        "num_hidden_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "num_parameters": f"{model.num_parameters():,}",
        "norm_first": config.norm_first,
        "image_height": height,
        "image_width": width,
        "preprocessing": describe(processor),
    }


def describe(processor: BaseImageProcessor) -> str:
    """What the processor does to an image, in words."""
    settings = processor.to_dict()
    words = []
    if settings.get("do_resize"):
        size = settings["size"]
        if "shortest_edge" in size:
            how = f"shorter side resized to {size['shortest_edge']} pixels"
        elif "height" not in size:
            how = "resized to " + ", ".join(f"{name} {pixels}" for name, pixels in size.items())
        else:
            how = f"resized to {size['height']}x{size['width']} pixels, whatever the aspect ratio"
        words.append(f"{how} ({Image.Resampling(int(settings['resample'])).name.lower()})")
    if settings.get("do_center_crop"):
        crop = settings["crop_size"]
        words.append(f"centre cropped to {crop['height']}x{crop['width']} pixels")
    if settings.get("do_normalize"):
        mean, deviation = settings["image_mean"], settings["image_std"]
        words.append(f"normalised with mean {list(mean)} and deviation {list(deviation)}")
    return ", ".join(words) or "as it is"


def name_of(value: str) -> str:
    """A setting as others may read it: of a path its last part, of a Hub id or anything else all."""
    path = Path(value).expanduser()
    if path.exists():
        return path.resolve().name
    is_place = path.is_absolute() or value.startswith(("~", ".")) or glob.has_magic(value)
    return path.name if is_place else value
