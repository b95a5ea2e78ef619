# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The card of an exported file: what it is, how it is used without this package, how it was checked."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from ..hub.cards import header, inherited, named_labels, render
from ..hub.fetching import Checkpoint
from ..model.publishing_vit_scratch import CARD, copy_license
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
    """Render the template into the README.md of a folder that holds the exported file, and its license."""
    is_onnx = facts.format != "torch-export"
    terms = inherited(facts.checkpoint)
    base_model = terms.get("base_model")
    relation = {"base_model_relation": "quantized"} if base_model and facts.format == "onnx-int8" else {}
    render(
        header(
            name,
            classifies=True,
            terms=terms,
            library="onnx" if is_onnx else "pytorch",
            tags=["onnx"] if is_onnx else [],
            **relation,
        ),
        folder / CARD,
        TEMPLATE,
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
    )
    copy_license(facts.checkpoint.place, terms, folder)


def version_of(package: str) -> str:
    """A package with its version, for a sentence."""
    return f"{package} {importlib.metadata.version(package)}"
