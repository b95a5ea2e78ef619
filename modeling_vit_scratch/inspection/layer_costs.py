# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What the modules of a model do in a pass, by hooks: shapes, multiply-adds, memory and time."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

FLASH_ATTENTION_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
# Passes whose times are measured; those of the median one count, so that shares belong together.
TIMED_PASSES = 5


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


def shapes_of(
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


def operations_of(run: Callable[[], None], model: nn.Module) -> dict[str, int]:
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


def kept_by(run: Callable[[], None], modules: dict[str, nn.Module], model: nn.Module) -> dict[str, int]:
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


def seconds_of(run: Callable[[], None], modules: dict[str, nn.Module], device: torch.device) -> dict[str, float]:
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
