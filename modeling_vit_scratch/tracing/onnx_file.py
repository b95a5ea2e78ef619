# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Classifiers as ONNX files: written, labelled, opened in ONNX Runtime."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .program import program_of, quiet

NEEDED = ("onnx", "onnxruntime", "onnxscript")
OPSET = 20
# Bytes of weights in the ONNX file itself. Protobuf ends at 2 GiB, and torch takes them out from 1.6 GB on by itself.
MOST_INSIDE = 1_500_000_000


def check_installed(what: str) -> None:
    """Refuse what needs ONNX where its packages are missing.

    Raises:
        ValueError: with what to install.
    """
    if lacking := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ValueError(f"{what} needs {', '.join(lacking)}: pip install 'vit-scratch[onnx]'.")


def is_large(model: PreTrainedModel) -> bool:
    """Whether the weights, in fp32, go into a file of their own, `model.onnx.data`."""
    return 4 * model.num_parameters() > MOST_INSIDE


def write_onnx(model: PreTrainedModel, example: Tensor, file: Path, *, any_size: bool = False) -> None:
    """Write a classifier as ONNX, for batches of any size: `pixel_values` (B, C, H, W) to `logits` (B, K).

    Args:
        model: the classifier; in fp32 and with attention spelled out from here on.
        example, any_size: those of `program_of`.
        file: where to; the weights of a large model lie beside it, in a file with `.data` after the name.
    """
    model.float()
    # The exporter guards sdpa against rows without a number, which ours never have; that takes 7 % of the time in int8.
    model.set_attn_implementation("eager")
    with quiet(), torch.no_grad():
        written = torch.onnx.export(
            program_of(model, example, any_size=any_size),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["pixel_values"],
            output_names=["logits"],
        )
    assert written is not None  # the older exporter alone returns none
    written.save(file, external_data=is_large(model))


def label(file: Path, metadata: dict[str, str], image_shape: Sequence[int | str]) -> None:
    """Put facts into an ONNX file for its readers, and take out what is not theirs: paths in the exporter's notes.

    Args:
        file: the file.
        metadata: name -> text.
        image_shape: channels, height and width of the input, with names for what is open.
    """
    import onnx

    model = onnx.load(file, load_external_data=False)
    del model.graph.value_info[:]  # the exporter's names of open sizes; readers find the shapes themselves
    for item in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del item.metadata_props[:]
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], image_shape, strict=True):
        if isinstance(size, str):
            dimension.dim_param = size
    onnx.helper.set_model_props(model, metadata)
    model.producer_name, model.producer_version = "vit-scratch", metadata["vit_scratch_version"]
    onnx.save(model, file)


def opened(file: Path) -> Any:
    """A session of ONNX Runtime on the CPU, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def logits_of(session: Any, pixel_values: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, K)."""
    (logits,) = session.run(None, {"pixel_values": pixel_values.float().cpu().numpy()})
    return torch.from_numpy(logits)
