# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The model card that every folder of weights carries: what cards of all origins share, those of imports and exports.

Nothing here loads pandas or scikit-learn, which an import of weights would have to hold in memory beside them.
"""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from PIL import Image
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from .. import __version__
from ..model.layers_vit_scratch import height_width
from ..model.publishing_vit_scratch import CARD, terms_in
from ..presets import shipped_path
from ..text import for_markdown
from .fetching import SHOWN, Checkpoint


def write_import_card(
    name: str,
    source: Checkpoint,
    lineage: str,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    notes: list[str],
    terms: dict[str, Any],
    path: Path,
) -> None:
    """Write the card of an imported checkpoint.

    Args:
        name: of the model.
        source: where it came from.
        lineage: what kind of checkpoint that is.
        model, processor: what was imported.
        notes: what was assumed, left out or made anew.
        terms: those of the source, as `inherited` gives them.
        path: the file.
    """
    origin = f"imported from {in_words(source)}, a checkpoint of {lineage}"
    _write(header(name, classifies=classifies(model), terms=terms), model, processor, notes, path, origin=origin)


def write_export_card(
    name: str,
    source: Checkpoint,
    library: str,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    exported: Any,
    terms: dict[str, Any],
    path: Path,
) -> None:
    """Write the card of a checkpoint of ours that was exported to another library.

    Args:
        name: of the model.
        source: what was exported.
        library: the other one, by the Hub's name for it.
        model, processor: what was exported.
        exported: what it became there, an `Exported`.
        terms: those of the source, as `inherited` gives them.
        path: the file.
    """
    _write(
        header(name, classifies=classifies(model), terms=terms, library=library),
        model,
        processor,
        exported.notes,
        path,
        origin=f"exported to {library} from {in_words(source)}",
        library=library,
        became=exported.became,
        code=exported.code,
    )


def _write(
    metadata: ModelCardData,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    notes: list[str],
    path: Path,
    **values: Any,
) -> None:
    """Write the card of weights that were converted."""
    assert metadata.model_name is not None
    assert model.config.id2label is not None
    render(
        metadata,
        path,
        **architecture(metadata.model_name, model, processor),
        sample="photo.jpg",
        labels=named_labels(model.config.id2label) if classifies(model) else [],
        classifies=classifies(model),
        notes=[for_markdown(note) for note in notes],
        **values,
    )


def header(
    name: str,
    *,
    classifies: bool,
    terms: dict[str, Any],
    library: str = "transformers",
    tags: Sequence[str] = (),
    **more: Any,
) -> ModelCardData:
    """What the Hub lists, filters and draws of a model.

    Args:
        name: of the model.
        classifies: whether it knows classes.
        terms: those of the weights that it was made of, as `inherited` gives them.
        library: which loads it, by the Hub's name.
        tags: besides those of all our models.
        **more: further fields of the Hub's.
    """
    return ModelCardData(
        model_name=name,
        library_name=library,
        pipeline_tag="image-classification" if classifies else "image-feature-extraction",
        tags=["vit-scratch", "vision-transformer", *tags],
        **terms,
        **more,
    )


def render(metadata: ModelCardData, path: Path, template: Path | None = None, /, **values: Any) -> None:
    """Write a card: by default by `model_card.md`, the template of every folder of weights."""
    card = ModelCard.from_template(
        metadata,
        template_path=str(template or shipped_path("model_card.md")),
        vit_scratch_version=__version__,
        **values,
    )
    path.write_text(f"{str(card).rstrip()}\n", encoding="utf-8")


def in_words(source: Checkpoint) -> str:
    """What a card calls a checkpoint: its name for others, as Markdown, and of the Hub its commit."""
    return for_markdown(name_of(str(source))) + (f" (commit {source.commit[:SHOWN]})" if source.commit else "")


def inherited(source: Checkpoint) -> dict[str, Any]:
    """What the card of weights takes over from that of the checkpoint they were made of, by the Hub's names.

    Returns:
        The license, with its name and link, and the checkpoint on the Hub that the weights are of, which the card of a
        folder may name; what is not known is left out, and a preset has none of it.
    """
    return {} if source.preset else terms_in(source.place / CARD, source.hub_id, source.commit or None)


def classifies(model: PreTrainedModel) -> bool:
    """Whether a model of ours has a head."""
    return hasattr(model, "classification_head")


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
