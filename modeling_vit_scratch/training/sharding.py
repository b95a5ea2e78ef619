# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Weights that are spread over processes (FSDP2, `torch.distributed.fsdp.fully_shard`): each has a part of every one.

Such a weight is a `DTensor`. Most of torch does not mind; what has to be minded is here.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, StateDictType
from torch.distributed.tensor import DTensor, Replicate

# What transformers' checkpoints of sharded training have that others have not.
SHARDED_CHECKPOINT = "pytorch_model_fsdp.bin"


def check_plugin(plugin: Any) -> None:
    """Refuse ways of sharding that end without a checkpoint that anyone can load.

    Args:
        plugin: accelerate's settings, or None without sharding.

    Raises:
        ValueError: with the setting to change.
    """
    if plugin is None:
        return
    if plugin.fsdp_version != 2:
        raise ValueError(f"fsdp_version must be 2, got {plugin.fsdp_version}: FSDP1 does not keep weights apart.")
    if plugin.state_dict_type is not StateDictType.FULL_STATE_DICT:
        raise ValueError(
            f"fsdp_state_dict_type must be FULL_STATE_DICT, got {plugin.state_dict_type.name}: checkpoints are to "
            "be loaded anywhere."
        )


def check_checkpoint(checkpoint: str | None, sharded: bool) -> None:
    """Refuse to go on from a checkpoint of a run of the other kind: it has another state of the optimizer.

    Args:
        checkpoint: where training begins, or None at its beginning.
        sharded: whether this run is.

    Raises:
        ValueError: with the way out.
    """
    if checkpoint is None:
        return
    was_sharded = (Path(checkpoint) / SHARDED_CHECKPOINT).is_file()
    if was_sharded != sharded:
        raise ValueError(
            f"{checkpoint} is of a run {'with' if was_sharded else 'without'} FSDP, and this one is "
            f"{'with' if sharded else 'without'} it: launch it as that one was launched."
        )


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process has; all of it if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered from the processes if it is sharded: all of them have to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, the same in all processes, sharded as another one of its shape is, if that is."""
    if not isinstance(other, DTensor):
        return tensor
    mesh = other.device_mesh
    replicated = DTensor.from_local(tensor.to(mesh.device_type), mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(placements=other.placements)


def reshard(model: nn.Module) -> None:
    """Let go of weights that were left gathered, as some are after an evaluation: changes of shards pass them by."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def keep_origin(model: nn.Module) -> None:
    """Let each class that FSDP2 derived from one of ours say where that is from: its code is saved with the weights."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            type(module).__module__ = type(module).__bases__[-1].__module__
