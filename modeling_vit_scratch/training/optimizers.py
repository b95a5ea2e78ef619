# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Who learns at which rate, and by which optimizer."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Muon, Optimizer

from .sharding import sharded_like, whole


def decay_by_layer(optimizer: Optimizer, model: Any, decay: float) -> None:
    """Split the groups of an optimizer by layer, and let each learn at `decay` times the rate of the next one.

    Layer-wise learning-rate decay (BEiT, Bao et al. 2021, arXiv 2106.08254, appendix H).

    Args:
        optimizer: of all parameters of the model.
        model: which declares its `layer_depths`.
        decay: above 0 and at most 1.
    """
    depths = model.layer_depths()
    deepest = max(depths.values())
    depth_of = {parameter: depths[name] for name, parameter in model.named_parameters()}
    groups = []
    for group in optimizer.param_groups:
        by_depth: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_depth.setdefault(depth_of[parameter], []).append(parameter)
        groups += [
            {**group, "params": parameters, "lr": group["lr"] * decay ** (deepest - depth)}
            for depth, parameters in sorted(by_depth.items())
        ]
    optimizer.param_groups[:] = groups


class _PiecewiseMuon(Muon):
    """Torch's Muon, on each of the matrices that a parameter is a stack of.

    What is orthogonal is a whole matrix: parameters that are sharded are gathered for it, one at a time.

    Args:
        pieces: matrices in each parameter, in order (a parameter that is sharded later is another object then).
    """

    def __init__(self, parameters: list[nn.Parameter], pieces: list[int], lr: float, weight_decay: float):
        self.pieces = pieces
        super().__init__(parameters, lr=lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure, no loss
        (group,) = groups = self.param_groups
        for parameter, pieces in zip(group["params"], self.pieces, strict=True):
            self.param_groups = [{**group, "params": [parameter], "pieces": pieces}]
            super().step()
            for tensor, gathered in self.gathered:
                if gathered is not tensor:
                    tensor.copy_(sharded_like(gathered, tensor))
        self.param_groups = groups

    def _init_group(self, group: Any, *lists: list[Tensor]) -> bool:
        tensors: tuple[list[Tensor], ...] = ([], [], [])  # the parameter, its gradient and its momentum, if it has them
        is_complex = super()._init_group(group, *tensors)
        self.gathered = [(tensor, whole(tensor)) for one in tensors for tensor in one]
        for matrices, (_, gathered) in zip(lists, self.gathered, strict=False):
            matrices.extend(gathered.chunk(group["pieces"]))  # views: what is done to them is done to the whole
        return is_complex


class MuonForBlocks(Optimizer):
    """Muon for the matrices of the blocks, and for everything else the optimizer that had them.

    A step of Muon is the nearest orthogonal matrix to the gradient's moving average, so that all directions of a matrix
    learn alike (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; on queries, keys and
    values apart from one another, as there).

    Args:
        others: an optimizer of all parameters of the model; the matrices of the blocks are taken out of it.
        model: which declares its `layer_depths` and `stacked_matrices`.
        learning_rate: of Muon, far above that of Adam: 0.02 is usual.
        weight_decay: of Muon.
    """

    def __init__(self, others: Optimizer, model: Any, learning_rate: float, weight_decay: float):
        depths = model.layer_depths()
        last = max(depths.values())
        matrices = {
            parameter: name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and parameter.ndim == 2 and 0 < depths[name] < last
        }
        for group in others.param_groups:
            group["params"] = [parameter for parameter in group["params"] if parameter not in matrices]
        stacked = model.stacked_matrices()
        pieces = [stacked.get(name, 1) for name in matrices.values()]
        self.parts = (_PiecewiseMuon(list(matrices), pieces, learning_rate, weight_decay), others)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on the groups and on the state of the whole."""
        start = 0
        for part in self.parts:
            part.param_groups = self.param_groups[start : start + len(part.param_groups)]
            start += len(part.param_groups)
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure, no loss
        """One step of both."""
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()
