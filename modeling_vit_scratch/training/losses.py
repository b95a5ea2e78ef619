# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a classifier is trained to make small, and the weights that make up for rare classes."""

import csv
import json
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import ModelOutput

from ..data.columns import listed, one_form


class ClassificationLoss:
    """Cross-entropy of logits (B, K) with labels (B,), or with the shares of the classes (B, K): a scalar.

    In training it is the sum over the images divided by those of the whole step, so that neither the number of
    processes nor gradient accumulation changes it. The sum of the weights does not divide it: it would differ from step
    to step, and weights in inverse proportion to the numbers of images are 1 on the average image anyway.

    Args:
        label_smoothing: share of the target that is spread over all classes (Szegedy et al. 2015, arXiv 1512.00567,
            section 7).
        class_weights: (K,). An image weighs as much as its class, or its shares of classes; the smoothing of its target
            does not change that. (Torch's own weights do: each part of the target weighs as its class, and then a rare
            class gets more from the smoothing of all other images than from its own.)
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: Tensor | None = None):
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights

    def __call__(self, outputs: ModelOutput, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            outputs: with `logits`.
            labels: classes or shares.
            num_items_in_batch: images of the step; those of the batch if not given.
        """
        logits = outputs["logits"].float()
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)  # (B,)
        if self.class_weights is not None:
            weights = self.class_weights.to(logits.device)
            losses = losses * (weights[labels] if labels.ndim == 1 else labels @ weights)
        return losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)


def class_weights(setting: str, label_names: list[str], labels: np.ndarray) -> Tensor:
    """The weight of each class in the loss: (K,).

    Args:
        setting: "auto" for weights in inverse proportion to the number of images of each class, 1 on the average image
            (a class without images, which only the validation split can have, weighs 1, too); or "cat=1,dog=2.5", where
            a class that is not named has the weight 1, and one with a comma stands in quotation marks, as in CSV; or an
            object of JSON, {"cat": 1}.
        label_names: the K classes.
        labels: (N,) of the train split.

    Raises:
        ValueError: if a name or a weight will not do.
    """
    if setting == "auto":
        counts = np.bincount(labels, minlength=len(label_names))  # (K,)
        seen = counts > 0
        weights = np.ones(len(label_names))
        weights[seen] = len(labels) / (seen.sum() * counts[seen])
        return torch.from_numpy(weights).float()
    named = dict.fromkeys(map(one_form, label_names), 1.0)
    given: set[str] = set()
    for item, name, value in _weights_given(setting):
        name = one_form(name)
        if name not in named:
            raise ValueError(
                f"class_weights must be 'auto' or class=weight,…, with classes of the data ({listed(label_names)}); "
                f"got {item!r}."
            )
        if name in given:
            raise ValueError(f"class_weights has two weights for {name!r}: keep one of them.")
        given.add(name)
        try:
            named[name] = float("" if isinstance(value, bool) else value)
        except (TypeError, ValueError):
            raise ValueError(f"class_weights has no number for {name!r}: {value!r}.") from None
    if not all(0 <= weight < float("inf") for weight in named.values()) or not any(named.values()):
        raise ValueError(f"class_weights must be 0 or more, and not all 0, got {setting!r}.")
    return torch.tensor([named[one_form(name)] for name in label_names])


def _weights_given(setting: str) -> list[tuple[str, str, Any]]:
    """What a setting says: the text of each item, the class and its weight."""
    try:
        pairs = json.loads(setting, object_pairs_hook=list)  # a dictionary would drop a class that is named twice
        if setting.lstrip().startswith("{"):
            return [(name, name, value) for name, value in pairs]
    except ValueError:
        pass  # no JSON
    try:
        *items, end = next(csv.reader([f"{setting},end"], skipinitialspace=True))
    except csv.Error:
        items, end = [], ""
    if end != "end":  # it lies in quotation marks that are not closed, or there is a new line
        items = [setting]
    parts = [(item.strip(), item.rpartition("=")) for item in items]
    return [(item, name.strip(), value) for item, (name, _, value) in parts]
