# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Who learns at which rate, and by which optimizer."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

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


class Muon(Optimizer):
    """Steps along the nearest orthogonal matrix to the gradient's moving average, all directions of a matrix alike.

    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", with its constants; steps and state
    are those of `torch.optim.Muon`. Weight decay is decoupled: a step multiplies weights by 1 - lr * weight_decay. Only
    a whole matrix can be made orthogonal: parameters that are sharded are gathered for it, one at a time.

    Args:
        parameters: (rows, columns), each one matrix or several of one shape, one below the other.
        pieces: how many matrices each is, in order (a parameter that is sharded later is another object then).
        lr: learning rate.
        weight_decay: share of `lr` by which a step shortens the weights.
    """

    def __init__(self, parameters: list[nn.Parameter], pieces: list[int], lr: float, weight_decay: float):
        self.pieces = pieces
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure, no loss
        """One step."""
        (group,) = self.param_groups
        for parameter, pieces in zip(group["params"], self.pieces, strict=True):
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter.grad)
            average = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
            ahead = whole(parameter.grad.lerp(average, group["momentum"]))  # Nesterov's look ahead
            matrices = ahead.chunk(pieces)
            rows, columns = matrices[0].shape
            direction = sharded_like(torch.cat([orthogonal(matrix) for matrix in matrices]), parameter)
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly the nearest orthogonal matrix, in bfloat16: (rows, columns) -> same, singular values about 0.5 to 1.5.

    Five steps of a Newton-Schulz iteration whose polynomial grows small singular values fast, with coefficients and
    precision of the article.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    x = x.T if matrix.shape[0] > matrix.shape[1] else x  # the smaller square
    x = x / x.norm().clamp(min=1e-7)  # no singular value above 1
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class MuonForBlocks(Optimizer):
    """Muon for the matrices of the blocks, and for everything else the optimizer that had them.

    Queries, keys and values are learned apart from one another, as in Muon's article.

    Args:
        others: an optimizer of all parameters of the model; the matrices of the blocks are taken out of it.
        model: which declares its `layer_depths` and `stacked_matrices`.
        learning_rate: of Muon, far above that of Adam: 0.02 is usual.
        weight_decay: of Muon. A step shortens weights by the share `learning_rate * weight_decay`, which is that many
            times more than Adam does with the same setting.
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
        self.parts = (Muon(list(matrices), pieces, learning_rate, weight_decay), others)
        # Schedulers ask for the rate that they are to scale.
        rate = {"lr": others.defaults["lr"]}
        super().__init__([group for part in self.parts for group in part.param_groups], rate)
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
