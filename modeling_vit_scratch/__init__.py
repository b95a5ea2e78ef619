# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""vit-scratch: the article's Vision Transformer, layer by layer, as a Hugging Face model.

Importing it makes the Auto classes of transformers know `model_type: vit_scratch`.
"""

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from transformers.utils import is_torchvision_available

from .configuration_vit_scratch import ViTScratchConfig
from .layers_vit_scratch import (
    AddClsToken,
    ClassificationHead,
    MultiHeadSelfAttention,
    PatchEmbedding,
    PositionalEncoding,
    TransformerEncoderBlock,
)
from .modeling_vit_scratch import (
    ViTScratchBackbone,
    ViTScratchForImageClassification,
    ViTScratchForMaskedImageModeling,
    ViTScratchModel,
    ViTScratchPreTrainedModel,
)
from .packing_vit_scratch import pad_images

__version__ = "0.1.0"

__all__ = [
    "AddClsToken",
    "ClassificationHead",
    "MultiHeadSelfAttention",
    "PatchEmbedding",
    "PositionalEncoding",
    "TransformerEncoderBlock",
    "ViTScratchBackbone",
    "ViTScratchConfig",
    "ViTScratchForImageClassification",
    "ViTScratchForMaskedImageModeling",
    "ViTScratchModel",
    "ViTScratchPreTrainedModel",
    "pad_images",
]


def _image_processors() -> dict[str, type]:
    """Transformers' own ViT image processors, by backend; torchvision's only where torchvision is."""
    if not is_torchvision_available():
        return {"pil": ViTImageProcessorPil}
    from transformers.models.vit.image_processing_vit import ViTImageProcessor

    return {"pil": ViTImageProcessorPil, "torchvision": ViTImageProcessor}


AutoConfig.register("vit_scratch", ViTScratchConfig, exist_ok=True)
AutoModel.register(ViTScratchConfig, ViTScratchModel, exist_ok=True)
AutoModelForImageClassification.register(ViTScratchConfig, ViTScratchForImageClassification, exist_ok=True)
AutoModelForMaskedImageModeling.register(ViTScratchConfig, ViTScratchForMaskedImageModeling, exist_ok=True)
AutoBackbone.register(ViTScratchConfig, ViTScratchBackbone, exist_ok=True)
AutoImageProcessor.register(ViTScratchConfig, image_processor_classes=_image_processors(), exist_ok=True)
