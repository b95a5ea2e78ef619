# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints out of Python: a classifier as one file that needs neither this package nor transformers."""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from .. import __version__
from ..checkpoints.processor_settings import size_of_images
from ..hub.cards import describe, name_of
from ..hub.checkpoint import find_checkpoint, load_checkpoint
from ..hub.fetching import Checkpoint
from ..model.layers_vit_scratch import height_width
from ..prediction.classifier import classes_exclude_each_other
from ..system.folders import check_new_folder, new_folder
from ..tracing.int8 import quantize
from ..tracing.onnx_file import check_installed, is_large, label, logits_of, opened, write_onnx
from ..tracing.preparing import RGB, loader_settings
from ..tracing.program import LEAST_PATCHES, program_of, quiet, why_fixed, without_traces
from .calibration import Calibration, measure
from .checking import TOLERANCE, largest_difference, references, sizes_in_words
from .file_card import Facts, version_of, write_card

FORMATS = {"onnx": "model.onnx", "onnx-int8": "model.onnx", "torch-export": "model.pt2"}
# Rounding moves logits; by as much as the largest of them it does not, unless something is wrong.
ROUNDED_TOLERANCE = 1.0


class Subject:
    """What is exported, and what it computes: taken down before an export changes the model.

    Args:
        model, processor, label_names: what `load_checkpoint` returns.
        checkpoint: where that came from.

    Raises:
        ValueError: if it is no classifier of images in colour, or its images are prepared in a way that a file cannot
            say.
    """

    def __init__(
        self, model: PreTrainedModel, processor: BaseImageProcessor, label_names: list[str], checkpoint: Checkpoint
    ):
        channels = getattr(model.config, "num_channels", RGB)
        if channels != RGB:
            raise ValueError(f"{checkpoint} is for images of {channels} channels; only those in colour are exported.")
        if not label_names:
            raise ValueError(f"the checkpoint {checkpoint} has no labels, so it is no classifier.")
        self.model, self.processor, self.label_names = model, processor, label_names
        settings = loader_settings(processor)
        # As large as the model's images, where the processor leaves that to whoever makes them.
        self.size = size_of_images(processor) or height_width(getattr(model.config, "image_size", 224))
        self.example = torch.zeros(2, channels, *self.size)
        self.why_fixed = why_fixed(model)
        self.any_size = self.why_fixed is None
        self.patch_size = height_width(model.config.patch_size) if self.any_size else (1, 1)
        open_sides = [f"{length}*{name}" for length, name in zip(self.patch_size, ("rows", "columns"), strict=True)]
        self.image_shape: list[int | str] = [channels, *(open_sides if self.any_size else self.size)]
        self.metadata = {
            "id2label": json.dumps(dict(enumerate(label_names)), ensure_ascii=False, allow_nan=False),
            "preprocessor_config": json.dumps(settings, allow_nan=False),
            "source": name_of(str(checkpoint)),
            "vit_scratch_version": __version__,
        }
        self.expected = references(model, self.example, any_size=self.any_size)

    @property
    def images(self) -> str:
        """Which images the file takes, as a sentence."""
        prepared = "x".join(map(str, self.size))
        if self.why_fixed is not None:
            return f"Only {prepared} pixels (height x width), no other size: {self.why_fixed}."
        height, width = self.patch_size
        return (
            f"Any height that is a multiple of {height} and any width that is a multiple of {width}, from "
            f"{LEAST_PATCHES * height}x{LEAST_PATCHES * width} pixels (height x width) on; images are prepared at "
            f"{prepared}."
        )


def export_classifier(
    checkpoint: str,
    output: str | Path,
    *,
    format: str,
    token_merging: int | None = None,
    revision: str | None = None,
    calibration: Calibration | None = None,
) -> list[str]:
    """Write a classifier as one file, with its labels and how images are prepared, and a card.

    The file takes batches of any size, and images of any height and width that the patch divides, where the model can
    fit its positions to them.

    Args:
        checkpoint: a folder or a Hub id.
        output: a new folder, written whole or not at all.
        format: one of `FORMATS`.
        token_merging: patches that each block merges away, instead of what the checkpoint says.
        revision: branch, tag or commit of a Hub id.
        calibration: images on which 8-bit integers are compared with fp32.

    Returns:
        What was written and how far it is from the checkpoint, a line each.

    Raises:
        ValueError: if the checkpoint is no classifier of images in colour, packages are missing, the file would not
            compute what the checkpoint does, or `output` cannot be written.
    """
    check_new_folder(output)
    if format != "torch-export":
        check_installed(f"--format {format}")
    source = find_checkpoint(checkpoint, revision)
    model, processor, label_names = load_checkpoint(source, token_merging=token_merging)
    assert isinstance(model, PreTrainedModel)
    subject = Subject(model, processor, label_names, source)
    images = calibration.load(label_names) if calibration is not None else None
    with new_folder(output) as folder:
        file = folder / FORMATS[format]
        checked = WRITERS[format](subject, file)
        measured = measure(model, runner(file), processor, *images) if images is not None else None
        facts = Facts(
            format=format,
            file=file.name,
            checkpoint=source,
            source=name_of(str(source)),
            what=f"an image classifier of type {model.config.model_type} with {model.num_parameters():,} parameters",
            input_shape=" x ".join(map(str, ("batch", *subject.image_shape))),
            output_shape=f"batch x {len(label_names)}",
            exclusive=classes_exclude_each_other(model.config, len(label_names)),
            images=subject.images,
            preprocessing=describe(processor),
            checked=checked,
            measured=None if measured is None else str(measured),
            left_out=measured.left_out if measured is not None else [],
        )
        write_card(Path(output).resolve().name, facts, label_names, folder)
        sizes = [f"{path.name} ({_size(path)})" for path in sorted(folder.glob("model*"))]
    return [
        *export_lines(facts),
        f"written    {output}: {', '.join(sizes)} and README.md, with the Python that uses it",
    ]


def export_lines(facts: Facts) -> list[str]:
    """What was exported, for a person."""
    lines = [
        f"read       {facts.checkpoint}, {facts.what}",
        f"images     {_clause(facts.images)}",
        f"prepared   {facts.preprocessing}",
        f"checked    {_clause(facts.checked)}",
    ]
    if facts.measured is not None:
        lines.append(f"int8       {facts.measured}")
    elif facts.format == "onnx-int8":
        lines.append("note       what the integers cost on images was not measured: --calibrate DATA does that")
    return [*lines, *(f"left out   {sentence}" for sentence in facts.left_out)]


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"


def _clause(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:].removesuffix(".")


# --- The formats -----------------------------------------------------------------------------------------------------


def _write_program(subject: Subject, file: Path) -> str:
    with quiet():
        program = without_traces(program_of(subject.model, subject.example, any_size=subject.any_size))
        torch.export.save(program, file, extra_files=dict(subject.metadata))
    return _checked(subject, file, version_of("torch"))


def _write_exact(subject: Subject, file: Path) -> str:
    write_onnx(subject.model, subject.example, file, any_size=subject.any_size)
    label(file, subject.metadata, subject.image_shape)
    return _checked(subject, file, version_of("onnxruntime"))


def _write_int8(subject: Subject, file: Path) -> str:
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        exact = Path(folder, file.name)
        sentence = _write_exact(subject, exact)
        # It will run on other processors than this one: with 7 bits it computes the same on all of them.
        quantize(exact, file, seven_bits=True, external_data=is_large(subject.model))
    label(file, subject.metadata, subject.image_shape)
    rounded = largest_difference(runner(file), subject.expected, ROUNDED_TOLERANCE)
    return f"In fp32, {_clause(sentence)}; in integers they are up to {rounded:.2g} away."


WRITERS: dict[str, Callable[[Subject, Path], str]] = {
    "onnx": _write_exact,
    "onnx-int8": _write_int8,
    "torch-export": _write_program,
}


def _checked(subject: Subject, file: Path, where: str) -> str:
    """How far a file is from the checkpoint, as a sentence.

    Raises:
        ValueError: if that is too far.
    """
    difference = largest_difference(runner(file), subject.expected, TOLERANCE)
    distance = f"within {difference:.1e} of" if difference else "equal to"
    return (
        f"The logits in {where} are {distance} those of the checkpoint in torch, on random images of "
        f"{sizes_in_words(subject.expected)} pixels."
    )


def runner(file: Path) -> Callable[[Tensor], Tensor]:
    """What computes the logits (B, K) of images (B, C, H, W) from an exported file alone."""
    if file.suffix == ".onnx":
        return partial(logits_of, opened(file))
    with quiet():
        module = torch.export.load(file).module()
    return torch.inference_mode()(module)
