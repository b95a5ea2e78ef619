# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The card of an exported file: what it is, how it is used without this package, how it was checked."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from .. import __version__
from ..card import metadata_of, named_labels
from ..hub import Checkpoint
from ..text import for_markdown

TEMPLATE = Path(__file__).with_name("model_card.md")
KINDS = {
    "onnx": "ONNX in fp32",
    "onnx-int8": "ONNX in 8-bit integers",
    "torch-export": "a program of torch.export",
}


@dataclass
class Facts:
    """What the card and the command say of an export, in sentences.

    Args:
        format: the export's.
        file: its name.
        checkpoint: what was exported.
        source: its name for others.
        what: kind and size of the model.
        input_shape, output_shape: of the file.
        exclusive: whether an image has one of the classes, and not several.
        images: which it takes.
        preprocessing: how they are prepared.
        checked: how far it is from torch.
        measured: what integers cost on images, if that was measured, and not as a sentence.
        left_out: a sentence for each of these images that could not be read.
    """

    format: str
    file: str
    checkpoint: Checkpoint
    source: str
    what: str
    input_shape: str
    output_shape: str
    exclusive: bool
    images: str
    preprocessing: str
    checked: str
    measured: str | None
    left_out: list[str]


def write_card(name: str, facts: Facts, label_names: list[str], folder: Path) -> None:
    """Render the template into the README.md of a folder that holds the exported file."""
    before = metadata_of(facts.checkpoint.place)
    is_onnx = facts.format != "torch-export"
    base_model = facts.checkpoint.hub_id or before.get("base_model")
    metadata = ModelCardData(
        model_name=name,
        library_name="onnx" if is_onnx else "pytorch",
        pipeline_tag="image-classification",
        tags=["vit-scratch", "vision-transformer", *(["onnx"] if is_onnx else [])],
        base_model=base_model,
        license=before.get("license"),
    )
    if base_model and facts.format == "onnx-int8":
        metadata["base_model_relation"] = "quantized"
    card = ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        **{name: value for name, value in vars(facts).items() if name != "source"},
        is_int8=facts.format == "onnx-int8",
        model_name=for_markdown(name),
        source=for_markdown(facts.source),
        kind=KINDS[facts.format],
        is_onnx=is_onnx,
        packages=f"{'ONNX Runtime' if is_onnx else 'torch'}, Pillow and NumPy alone",
        path=facts.file,
        image="photo.jpg",
        base_model=base_model if isinstance(base_model, str) else None,
        has_data_file=(folder / f"{facts.file}.data").exists(),
        labels=named_labels(dict(enumerate(label_names))),
        vit_scratch_version=__version__,
    )
    (folder / "README.md").write_text(f"{str(card).rstrip()}\n", encoding="utf-8")


def version_of(package: str) -> str:
    """A package with its version, for a sentence."""
    return f"{package} {importlib.metadata.version(package)}"
