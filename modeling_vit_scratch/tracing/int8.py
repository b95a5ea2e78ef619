# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A classifier whose linear layers multiply 8-bit integers, on the CPU: ONNX Runtime's dynamic quantization.

The weights of the linear layers become integers with one scale per output channel, once; what they multiply becomes
integers with one scale per call, as it comes. All else, patch embedding and attention scores among it, stays fp32, so
nothing needs calibration data. Scales of activations that are fixed beforehand, from such data, were no faster and
rounded more (docs/deployment.md).
"""

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from .onnx_file import check_installed, logits_of, opened, write_onnx
from .program import quiet


def has_wide_products() -> bool:
    """Whether the processor adds products of 8 bits without overflow; without, ONNX Runtime wants 7-bit weights."""
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if known.get("architecture") in ("aarch64", "arm64"):
        return True
    return any(known.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def quantize(exact: Path, file: Path, *, seven_bits: bool, external_data: bool = False) -> None:
    """Write an ONNX file with the linear layers of another one in integers.

    Args:
        exact: the file in fp32.
        file: where to.
        seven_bits: give the weights 7 bits, whose products every processor can add.
        external_data: put the weights beside the file.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(
            exact,
            file,
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=seven_bits,
            use_external_data_format=external_data,
        )


class Int8Classifier(nn.Module):
    """A classifier in 8-bit integers, with the inputs and outputs that it has in torch: (B, C, H, W) -> (B, K).

    Args:
        model: the classifier; it is not needed any more then.
        example: images of the shape that it will get, at least two.

    Raises:
        ValueError: if ONNX Runtime is not installed.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, model: PreTrainedModel, example: Tensor):
        super().__init__()
        check_installed("precision int8")
        self.config = model.config
        self.image_shape = example.shape[1:]
        with tempfile.TemporaryDirectory() as folder:
            exact, file = Path(folder, "exact.onnx"), Path(folder, "int8.onnx")
            write_onnx(model, example, exact)
            quantize(exact, file, seven_bits=not has_wide_products())
            self.session = opened(file)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        """Classify images; with `labels` (B,) the output has the cross-entropy as its `loss`.

        Raises:
            ValueError: if the images are not of the size of the example.
        """
        if pixel_values.shape[1:] != self.image_shape:
            expected, got = ("x".join(map(str, shape)) for shape in (self.image_shape, pixel_values.shape[1:]))
            raise ValueError(
                f"in int8 the images must be {expected} (channels x height x width), got {got}: resize them, or use "
                "another precision."
            )
        result = logits_of(self.session, pixel_values)
        loss = None if labels is None else F.cross_entropy(result, labels.cpu())
        return ImageClassifierOutput(loss=loss, logits=result)
