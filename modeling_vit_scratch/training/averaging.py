# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The exponential moving average of the weights (Polyak and Juditsky 1992): what is evaluated and saved."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .sharding import reshard, sharded_like, whole


class WeightAverage:
    """A moving average of the trained parameters of a model.

    The decay grows to its full value, `min(decay, (1 + steps) / (10 + steps))`, so that the random weights of the start
    are soon forgotten (the default of TensorFlow's `ExponentialMovingAverage` with `num_updates`).

    Args:
        model: whose weights are averaged, from now on.
        decay: share of the average that a step keeps.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = model
        self.decay = decay
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the weights after so many steps."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        get_ema_multi_avg_fn(decay)(list(self.average.values()), list(self.weights.values()), steps)

    @torch.no_grad()
    def swap(self) -> None:
        """Put the average into the model, and the weights that are trained in its place; and back."""
        reshard(self.model)
        for name, weight in self.weights.items():
            trained = weight.detach().clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(trained)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in the model, for a while."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state_dict(self) -> dict[str, Tensor]:
        """The average by name, whole in each process; while it is in the model, the weights that are trained."""
        return {name: whole(average) for name, average in self.average.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        for name, average in self.average.items():
            average.copy_(sharded_like(state[name], average))
