# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The article's dry run, of any model: what goes into each layer and comes out, and what that costs.

Nothing here is computed from a configuration: shapes and times are those that hooks see on a forward pass,
multiply-adds are those of the operations that ran (torch's counter), memory is what autograd keeps of them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..additions_vit_scratch import Pooler
from ..layers_vit_scratch import (
    AddClsToken,
    ClassificationHead,
    PatchEmbedding,
    PositionalEncoding,
    TransformerEncoderBlock,
    height_width,
)
from ..modeling_vit_scratch import HiddenState
from .loading import evaluating

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
FLASH_ATTENTION_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
# Passes whose times are measured; those of the median one count, so that shares belong together.
TIMED_PASSES = 5
# And one each for shapes, operations and memory.
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
    shapes = _shapes(run, modules)
    modules = {path: modules[path] for path in shapes}
    operations, kept, seconds = (
        _operations(run, model),
        _kept(run, modules, model),
        _seconds(run, modules, model.device),
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


# --- What is measured ------------------------------------------------------------------------------------------------


@contextmanager
def _hooked(
    modules: dict[str, nn.Module],
    before: Callable[[str, tuple[Any, ...]], None],
    after: Callable[[str, tuple[Any, ...], Any], None],
) -> Iterator[None]:
    """Call one function with the name and the inputs of each module as it begins, another with the output, too."""
    with ExitStack() as hooks:
        for path, module in modules.items():

            def enter(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], path: str = path) -> None:
                before(path, (*given, *named.values()))

            def leave(
                module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any, path: str = path
            ) -> None:
                after(path, (*given, *named.values()), output)

            hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        yield


def _tensor(values: Any) -> Tensor | None:
    """The first tensor of what goes into a module or comes out of it, if there is one."""
    return next((tensor for tensor in _tensors(values) if tensor.ndim), None)  # a loss may come first


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list | dict):
        for item in values.values() if isinstance(values, dict) else values:
            yield from _tensors(item)


def _shapes(
    run: Callable[[], None], modules: dict[str, nn.Module]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """What goes into each module and comes out, in the order in which they begin; without those that do nothing."""
    taken: dict[str, tuple[int, ...]] = {}
    made: dict[str, tuple[int, ...]] = {}

    def before(path: str, inputs: tuple[Any, ...]) -> None:
        tensor = _tensor(inputs)
        if tensor is not None:
            taken.setdefault(path, tuple(tensor.shape))

    def after(path: str, inputs: tuple[Any, ...], output: Any) -> None:
        result = _tensor(output)
        if result is not None and not any(result is item for item in inputs):
            made[path] = tuple(result.shape)

    with torch.no_grad(), _hooked(modules, before, after):
        run()
    return {path: (taken[path], made[path]) for path in taken if path in made}


def _operations(run: Callable[[], None], model: nn.Module) -> dict[str, int]:
    """The multiply-adds of every module, by torch's counter of operations, which sees those that the model runs."""
    counter = FlopCounterMode(display=False, custom_mapping={FLASH_ATTENTION_ON_CPU: _attention_operations})
    with torch.no_grad(), _frozen(model), counter:
        run()
    root = type(model).__name__
    return {
        path.removeprefix(root).lstrip("."): sum(counts.values()) // 2
        for path, counts in counter.get_flop_counts().items()
        if path.startswith(root)
    }


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient; to one that is the input of a module, the counter would hang a hook for it."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _attention_operations(query: Any, key: Any, value: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
    """Two operations for each number in the products of queries with keys and of their probabilities with values."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def _kept(run: Callable[[], None], modules: dict[str, nn.Module], model: nn.Module) -> dict[str, int]:
    """The bytes that autograd keeps of what each module computes, each piece of memory once, where it is kept first."""
    inside: list[str] = []
    kept = dict.fromkeys(modules, 0)
    known = {item.untyped_storage().data_ptr() for item in (*model.parameters(), *model.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            for path in inside:
                kept[path] += storage.nbytes()
        return tensor

    with (
        torch.enable_grad(),
        _hooked(modules, lambda path, inputs: inside.append(path), lambda path, inputs, output: inside.remove(path)),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        run()
    return kept


def _seconds(run: Callable[[], None], modules: dict[str, nn.Module], device: torch.device) -> dict[str, float]:
    """The time of every module in the pass that is the median of several."""
    passes: list[dict[str, float]] = []

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def before(path: str, inputs: tuple[Any, ...]) -> None:
        passes[-1][path] = passes[-1].get(path, 0.0) - now()

    def after(path: str, inputs: tuple[Any, ...], output: Any) -> None:
        passes[-1][path] += now()

    with torch.no_grad(), _hooked(modules, before, after):
        for _ in range(TIMED_PASSES):
            passes.append({})
            run()
    return sorted(passes, key=lambda times: times[""])[TIMED_PASSES // 2]
