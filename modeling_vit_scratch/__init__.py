# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""vit-scratch: the article's Vision Transformer, layer by layer, as a Hugging Face model.

Importing it makes the Auto classes of transformers know `model_type: vit_scratch` and `vivit_scratch`. It imports
neither torch nor transformers itself: the names below are imported when they are used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .registration import register

if TYPE_CHECKING:
    from .model.configuration_vit_scratch import ViTScratchConfig
    from .model.configuration_vivit_scratch import ViViTScratchConfig
    from .model.image_processing_vivit_scratch import ViViTScratchImageProcessor
    from .model.layers_vit_scratch import (
        AddClsToken,
        ClassificationHead,
        MultiHeadSelfAttention,
        PatchEmbedding,
        PositionalEncoding,
        TransformerEncoderBlock,
    )
    from .model.layers_vivit_scratch import TubeletEmbedding
    from .model.modeling_vit_scratch import (
        ViTScratchBackbone,
        ViTScratchForImageClassification,
        ViTScratchForMaskedImageModeling,
        ViTScratchModel,
        ViTScratchPreTrainedModel,
    )
    from .model.modeling_vivit_scratch import (
        ViViTScratchForVideoClassification,
        ViViTScratchModel,
        ViViTScratchPreTrainedModel,
    )
    from .model.packing_vit_scratch import pad_images

__version__ = "0.1.0"

__all__ = [
    "AddClsToken",
    "ClassificationHead",
    "MultiHeadSelfAttention",
    "PatchEmbedding",
    "PositionalEncoding",
    "TransformerEncoderBlock",
    "TubeletEmbedding",
    "ViTScratchBackbone",
    "ViTScratchConfig",
    "ViTScratchForImageClassification",
    "ViTScratchForMaskedImageModeling",
    "ViTScratchModel",
    "ViTScratchPreTrainedModel",
    "ViViTScratchConfig",
    "ViViTScratchForVideoClassification",
    "ViViTScratchImageProcessor",
    "ViViTScratchModel",
    "ViViTScratchPreTrainedModel",
    "pad_images",
]

# A name is in the first of these that has it.
_MODULES = (
    *("configuration_vit_scratch", "configuration_vivit_scratch", "layers_vit_scratch", "layers_vivit_scratch"),
    *("packing_vit_scratch", "image_processing_vivit_scratch", "modeling_vit_scratch", "modeling_vivit_scratch"),
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in (importlib.import_module(f".model.{module}", __name__) for module in _MODULES):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register()
