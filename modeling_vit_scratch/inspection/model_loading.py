# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The model and the images that the verbs of this package look into."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    AutoBackbone,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor

from ..data.images import read_image
from ..data.model_input import pixel_values
from ..finite import check_weights
from ..hub.checkpoint import load_configuration, load_model, load_processor, loading, set_token_merging
from ..hub.fetching import Checkpoint
from ..model import modeling_vit_scratch
from ..model.layers_vit_scratch import height_width

# By the ends of the names of their classes; any other is a body.
KINDS = {
    "ForImageClassification": AutoModelForImageClassification,
    "ForMaskedImageModeling": AutoModelForMaskedImageModeling,
    "Backbone": AutoBackbone,
}


def model_of(
    source: Checkpoint, *, token_merging: int | None = None, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, BaseImageProcessor | None]:
    """A model of the kind that was saved, on a GPU if there is one, and its image processor, if it has one.

    Args:
        source: that of `find_model`; a preset gets random weights.
        token_merging, trust_remote_code: those of `load_checkpoint`.

    Raises:
        ValueError: if there is none by that name, it cannot be loaded, or a weight is not finite.
    """
    config = load_configuration(source, trust_remote_code)
    set_token_merging(config, token_merging)
    if source.preset:
        with loading(source):
            loaded: Any = modeling_vit_scratch.ViTScratchForImageClassification(config)
    else:
        options = {"config": config, "dtype": torch.float32, "trust_remote_code": trust_remote_code}
        loaded = load_model(source, _class_of(config), **options)
        check_weights(loaded.named_parameters(), f"the checkpoint {source}")
    try:
        processor = load_processor(source, trust_remote_code)
    except ValueError:
        processor = None  # random images need none
    return loaded.to("cuda" if torch.cuda.is_available() else "cpu").eval(), processor


def _class_of(config: Any) -> Any:
    """The class of a model that was saved: one of transformers itself by its name, others by what they are for.

    The name stands in the files of the checkpoint, so it counts only if it is that of a model with this configuration.
    """
    architecture = str(next(iter(config.architectures or []), ""))
    for module in (modeling_vit_scratch, transformers):
        found = getattr(module, architecture, None)
        if isinstance(found, type) and issubclass(found, PreTrainedModel) and found.config_class is type(config):
            return found
    return next((kind for end, kind in KINDS.items() if architecture.endswith(end)), AutoModel)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, in which nothing is left to chance, and every module back afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def pixels_of(
    model: PreTrainedModel, processor: BaseImageProcessor | None, image: str | None = None, batch: int = 1
) -> Tensor:
    """A batch of an image, as the processor makes it, or of random images: (B, C, H, W).

    Raises:
        ValueError: if the image cannot be read, or there is no image processor for it.
    """
    if image is None:
        size = height_width(getattr(model.config, "image_size", 224))
        random = torch.Generator().manual_seed(0)
        return torch.randn(batch, getattr(model.config, "num_channels", 3), *size, generator=random)
    if processor is None:
        raise ValueError("the model has no image processor, so it is not known how images are prepared for it.")
    return pixel_values(processor, [read_image(image)]).repeat(batch, 1, 1, 1)
