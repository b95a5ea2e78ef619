# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A classifier whose blocks multiply 8-bit integers, on the CPU: ONNX Runtime's dynamic quantization.

The weights of the blocks' linear layers become integers with one scale per output channel, once; what they multiply
becomes integers with one scale per call, as it comes. All else, attention scores and head among it, stays fp32, so
nothing needs calibration data.
"""

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

NEEDED = ("onnx", "onnxruntime", "onnxscript")
OPSET = 20


class _Logits(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values).logits


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what torch's exporter and ONNX Runtime's quantization say of their own calls: users cannot mend it."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def write_onnx(model: PreTrainedModel, example: Tensor, file: Path) -> None:
    """Write a classifier as ONNX, for batches of any size: `pixel_values` (B, C, H, W) to `logits` (B, K).

    Args:
        model: the classifier; in fp32 and with attention spelled out from here on.
        example: images of the shape that the file will take, at least two.
        file: where to.
    """
    batch = torch.export.Dim("batch")
    model.float()
    # The exporter guards sdpa against rows without a number, which ours never have; that takes 7 % of the time in int8.
    model.set_attn_implementation("eager")
    with torch.no_grad():
        program = torch.onnx.export(
            _Logits(model.eval()),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
        )
    assert program is not None  # the older exporter alone returns none
    program.save(file, external_data=False)


def has_wide_products() -> bool:
    """Whether the processor adds products of 8 bits without overflow; without, ONNX Runtime wants 7-bit weights."""
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if known.get("architecture") in ("aarch64", "arm64"):
        return True
    return any(known.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


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
        if lacking := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
            raise ValueError(f"precision int8 needs {', '.join(lacking)}: pip install 'vit-scratch[onnx]'.")
        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic

        self.image_shape = example.shape[1:]
        with tempfile.TemporaryDirectory() as folder:
            exact, file = Path(folder, "exact.onnx"), Path(folder, "int8.onnx")
            with quiet():
                write_onnx(model, example, exact)
                quantize_dynamic(
                    exact,
                    file,
                    op_types_to_quantize=["MatMul"],
                    weight_type=QuantType.QInt8,
                    per_channel=True,
                    reduce_range=not has_wide_products(),
                )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

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
        (logits,) = self.session.run(None, {"pixel_values": pixel_values.float().cpu().numpy()})
        result = torch.from_numpy(logits)
        loss = None if labels is None else F.cross_entropy(result, labels.cpu())
        return ImageClassifierOutput(loss=loss, logits=result)
