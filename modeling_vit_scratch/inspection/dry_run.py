# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The article's dry run, of any model: what goes into each layer and comes out, and what that costs.

Nothing here is computed from a configuration: shapes and times are those that hooks see on a forward pass,
multiply-adds are those of the operations that ran (torch's counter), memory is what autograd keeps of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..model.additions_vit_scratch import Pooler
from ..model.encoder_vit_scratch import HiddenState
from ..model.layers_vit_scratch import (
    AddClsToken,
    ClassificationHead,
    PatchEmbedding,
    PositionalEncoding,
    TransformerEncoderBlock,
    height_width,
)
from .layer_costs import TIMED_PASSES, kept_by, operations_of, seconds_of, shapes_of
from .model_loading import evaluating

# The article's steps. A step of another kind of layer has no number.
STEPS: dict[type[nn.Module], int] = {
    PatchEmbedding: 1,
    PositionalEncoding: 2,
    AddClsToken: 3,
    TransformerEncoderBlock: 4,
    ClassificationHead: 5,
}
HEAD, WHOLE = 5, "VisionTransformer"
CLASSIFIER = "ForImageClassification"  # in the names of their classes
REFUSED = "a dry run is of a model that takes images alone."
# What is added up of layers that are shown as one.
SUMMED = ("parameters", "multiply_adds", "activation_bytes", "seconds")
# For times, and one each for shapes, operations and memory.
PASSES = TIMED_PASSES + 3


@dataclass
class Layer:
    """A layer, or several that repeat, and what was measured.

    Args:
        name: the article's, or that of the class.
        path: the name of its module in the model; of the first, where it repeats.
        step: of the article, if it is one of its six.
        shape_in, shape_out: of the tensor that goes in and of the one that comes out.
        parameters: how many it has.
        multiply_adds: multiplications, each with an addition, of its matrix products and convolutions.
        activation_bytes: what training keeps of its operations for the backward pass, but for masks of dropout.
        seconds: of a forward pass.
        count: how many times it repeats; the numbers are those of all of them.
        parts: the layers in it.
    """

    name: str
    path: str
    step: int | None
    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]
    parameters: int
    multiply_adds: int
    activation_bytes: int
    seconds: float
    count: int = 1
    parts: list["Layer"] = field(default_factory=list)


@dataclass
class DryRun:
    """What a forward pass did.

    Args:
        model: the name of the model, for people.
        device: where it ran.
        dtype: of the weights.
        layers: in the order of the pass.
        whole: the model as one layer.
        in_use: the same of a pass as the model makes it when it is used or trained, where the last block computes
            only what the head reads.
        num_patches: of an image; 0 where nobody knows.
        num_classes: whose logits come out, if it is a classifier.
        merges: whether its blocks merge patches.
    """

    model: str
    device: str
    dtype: str
    layers: list[Layer]
    whole: Layer
    in_use: Layer
    num_patches: int
    num_classes: int | None
    merges: bool

    def share(self, layer: Layer) -> float:
        """The layer's share of the time of the whole."""
        return layer.seconds / self.whole.seconds


def dry_run(model: PreTrainedModel, pixel_values: Tensor, name: str = "") -> DryRun:
    """Run a model on images and see what each of its layers does.

    It runs in evaluation mode, and all tokens are computed, as in the article, where a classifier computes of its last
    block only what it reads. One pass counts; of further ones the one that takes the median time gives all times.

    Args:
        model: of this package, or one of transformers' own on images.
        pixel_values: (B, C, H, W), as the image processor makes them.
        name: of the model, for people.

    Raises:
        ValueError: if the model does not take such images.
    """
    with evaluating(model):
        return _dry_run(model, pixel_values, name)


def _dry_run(model: PreTrainedModel, pixel_values: Tensor, name: str) -> DryRun:
    if model.main_input_name != "pixel_values":
        raise ValueError(f"a model of type {model.config.model_type} takes more than images, or others: {REFUSED}")
    pixel_values = pixel_values.to(model.device, model.dtype)
    only_pooled = getattr(model, "_only_pooled", False)
    with tqdm(total=PASSES * (1 + only_pooled), unit="pass", leave=False, disable=None, delay=1) as bar:

        def run() -> None:
            model(pixel_values)
            bar.update()

        with _all_tokens(model):
            measured = _measured(model, run, dict(_outline(model)))
        in_use = _measured(model, run, {"": model})[""] if only_pooled else measured[""]
    whole, layers = measured.pop(""), _with_pooling(_nested(measured))
    if in_use.multiply_adds == whole.multiply_adds:
        in_use = whole  # the head reads all tokens
    if layers[-1].step == HEAD:
        whole.name, whole.step = WHOLE, HEAD + 1
    return DryRun(
        model=name,
        device=model.device.type,
        dtype=str(model.dtype).removeprefix("torch."),
        layers=layers,
        whole=whole,
        in_use=in_use,
        num_patches=_num_patches(model.config, whole.shape_in),
        num_classes=whole.shape_out[-1] if CLASSIFIER in type(model).__name__ else None,
        merges=any(getattr(model.base_model, "merging_schedule", ())),
    )


def _num_patches(config: Any, images: tuple[int, ...]) -> int:
    """Of an image of a batch (B, C, H, W), if a model cuts it into patches of one size."""
    patch_size = getattr(config, "patch_size", None)
    if not isinstance(patch_size, int | list | tuple):
        return 0
    height, width = height_width(patch_size)
    return (images[2] // height) * (images[3] // width)


@contextmanager
def _all_tokens(model: Any) -> Iterator[None]:
    """Let the last block of a classifier of ours compute all tokens, and not those alone that its head reads."""
    if not getattr(model, "_only_pooled", False):
        yield
        return
    model._only_pooled = False
    try:
        yield
    finally:
        del model._only_pooled  # the class says it again


def _measured(model: PreTrainedModel, run: Callable[[], None], modules: dict[str, nn.Module]) -> dict[str, Layer]:
    """Those of some modules that do anything in a pass, with what they do."""
    shapes = shapes_of(run, modules)
    modules = {path: modules[path] for path in shapes}
    operations, kept, seconds = (
        operations_of(run, model),
        kept_by(run, modules, model),
        seconds_of(run, modules, model.device),
    )
    return {
        path: Layer(
            name=_name(module),
            path=path,
            step=_step(module),
            shape_in=shapes[path][0],
            shape_out=shapes[path][1],
            parameters=sum(item.numel() for item in module.parameters()),
            multiply_adds=operations.get(path, 0),
            activation_bytes=kept[path],
            seconds=seconds[path],
        )
        for path, module in modules.items()
    }


# --- Which layers ----------------------------------------------------------------------------------------------------


def _outline(module: nn.Module, path: str = "", in_list: bool = False) -> Iterator[tuple[str, nn.Module]]:
    """The modules that are shown, by their names: all but those in which blocks stand, and what is in a block."""
    holds_blocks = any(isinstance(item, nn.ModuleList) for item in module.modules())
    if not path or not holds_blocks:
        yield path, module
    for name, child in module.named_children():
        if isinstance(child, HiddenState):
            continue  # it only tells what the tokens are between the blocks
        if holds_blocks:
            yield from _outline(child, f"{path}.{name}".lstrip("."), isinstance(module, nn.ModuleList))
        elif in_list or not path:
            yield f"{path}.{name}".lstrip("."), child


def _step(module: nn.Module) -> int | None:
    return next((step for kind, step in STEPS.items() if isinstance(module, kind)), None)


def _name(module: nn.Module) -> str:
    """The article's name of a layer, or that of its class; of several in a row, all their names."""
    if type(module) is nn.Sequential:
        return ", ".join(map(_name, module))
    return next((kind for kind in STEPS if isinstance(module, kind)), type(module)).__name__


def _nested(measured: dict[str, Layer]) -> list[Layer]:
    """The layers that are in no other one, with those that are as their parts."""
    layers: list[Layer] = []
    for path, layer in measured.items():
        parent = path
        while "." in parent and (parent := parent.rpartition(".")[0]) not in measured:
            pass
        (measured[parent].parts if parent in measured and parent != path else layers).append(layer)
    return layers


def _with_pooling(layers: list[Layer]) -> list[Layer]:
    """The pooling and the head as one layer, which in the article they are."""
    if len(layers) < 2 or layers[-1].step != HEAD or layers[-2].name != Pooler.__name__:
        return layers
    *rest, pooling, head = layers
    both = _sum([pooling, head], replace(head, shape_in=pooling.shape_in, parts=[pooling, replace(head, step=None)]))
    both.parts[1].name = nn.Linear.__name__
    return [*rest, both]


def _sum(layers: Sequence[Layer], like: Layer) -> Layer:
    sums = {name: sum(getattr(layer, name) for layer in layers) for name in SUMMED}
    return replace(like, **sums)


def folded(layers: Sequence[Layer]) -> list[Layer]:
    """Layers that follow each other and are alike as one, whose numbers are those of all of them."""
    result = []
    for _, group in groupby(layers, key=_kind):
        alike = list(group)
        parts = [_sum(same, same[0]) for same in zip(*(layer.parts for layer in alike), strict=True)]
        result.append(replace(_sum(alike, alike[0]), count=len(alike), parts=parts))
    return result


def _kind(layer: Layer) -> tuple[Any, ...]:
    """What is the same of layers that repeat."""
    return layer.name, layer.shape_in, layer.shape_out, layer.parameters, layer.multiply_adds, len(layer.parts)
