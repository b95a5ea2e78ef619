# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What all models have in common: what they declare to transformers, its optimizers and `Trainer`, and publishing.

Shapes: B batch, C channels, H and W image height and width in pixels.
"""

import math
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import CommitInfo
from torch import Tensor, nn
from transformers import PreTrainedModel

from .additions_vit_scratch import SwiGLU
from .configuration_vit_scratch import EncoderConfig, ViTScratchConfig
from .encoder_vit_scratch import HiddenState, num_queries
from .initialization_vit_scratch import initialize
from .layers_vit_scratch import MultiHeadSelfAttention, TransformerEncoderBlock
from .publishing_vit_scratch import publish, write_complete

# Modules of the base model that come before the first block.
FIRST_LAYERS = (
    "patch_embedding",
    "mask_patches",
    "positional_encoding",
    "register_tokens",
    "cls_token",
    "pre_norm",
)


class ViTScratchPreTrainedModel(PreTrainedModel):
    """What the models share: initialisation, loading and saving, and what they declare to transformers."""

    config: Any
    config_class: Any = ViTScratchConfig
    base_model_prefix = "vit"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["ViTScratchLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": HiddenState,
        "attentions": MultiHeadSelfAttention,
    }
    _input_embed_layer = "patch_embedding"
    # Whether the model reads nothing of the base model's but `pooler_output`.
    _only_pooled = False
    # What only masked image modelling has; of a checkpoint of it, other models take the body.
    _keys_to_ignore_on_load_unexpected: set[str] = {r"^decoder\.", r"mask_patches\."}

    def __init__(self, config: EncoderConfig, *inputs, **kwargs):
        config.validate_architecture()
        super().__init__(config, *inputs, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        initialize(module, self.config)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # For code that it does not ship, transformers leaves out modules without parameters of their own, and so
        # `MultiHeadSelfAttention`. The functions of `init` spare what was loaded, so nothing needs to be left out.
        super()._initialize_weights(module, is_custom_code=False)

    def push_to_hub(  # type: ignore[override]  # transformers' says that it returns a text, and returns this
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str = "50GB",
        tags: list[str] | None = None,
        images: bool = False,
    ) -> CommitInfo:
        """Publish the model with what belongs to it: the arguments are those of transformers, and `images`.

        Image processor and card are those of the checkpoint that the model was loaded from. If the weights have changed
        since then, the card claims nothing. Its pictures that show images of the data are left out unless `images` asks
        for them.
        """
        with tempfile.TemporaryDirectory() as folder:
            write_complete(self, repo_id, Path(folder), max_shard_size, tags)
            return publish(
                Path(folder),
                repo_id,
                private=private,
                revision=revision,
                create_pr=create_pr,
                token=token,
                images=images,
                commit_message=commit_message,
                commit_description=commit_description,
            ).commit

    def layer_depths(self) -> dict[str, int]:
        """Depth of every parameter, for layer-wise learning rates (BEiT, Bao et al. 2021, arXiv 2106.08254, table 9).

        0 before the blocks, 1 in the first, …, and one more than the last block's for what comes after them.
        """
        last = len(cast(nn.ModuleList, self.base_model.encoder)) + 1  # a backbone may have fewer than the configuration
        body = "" if self.base_model is self else f"{self.base_model_prefix}."
        first = tuple(f"{body}{name}." for name in FIRST_LAYERS)
        depths = {}
        for name, _ in self.named_parameters():
            block = name.removeprefix(f"{body}encoder.") if name.startswith(f"{body}encoder.") else None
            depths[name] = int(block.split(".")[0]) + 1 if block else 0 if name.startswith(first) else last
        return depths

    def stacked_matrices(self) -> dict[str, int]:
        """The parameters that are several matrices one below the other, and how many, for optimizers of matrices."""
        stacked = {}
        for name, module in self.named_modules():
            if isinstance(module, MultiHeadSelfAttention):
                stacked[f"{name}.in_proj.weight"] = 3  # queries, keys, values
            elif isinstance(module, TransformerEncoderBlock) and isinstance(module.ff[1], SwiGLU):
                stacked[f"{name}.ff.0.weight"] = 2  # gates, values
        return stacked

    def no_weight_decay(self) -> set[str]:
        """The parameters that weight decay is to leave alone: all but the weights of linear layers and convolutions.

        Those are biases, norms, factors of `LayerScale`, positions, tokens, and the query of attention pooling. timm
        asks a model by this name; transformers' `Trainer` asks none, and decays some of them.
        """
        decayed = {
            f"{name}.weight"
            for name, module in self.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d)
        }
        return {name for name, _ in self.named_parameters()} - decayed

    def floating_point_ops(self, inputs: dict[str, Tensor], exclude_embeddings: bool = False) -> int:
        """Operations of a training step on a batch, for `Trainer`'s `total_flos`.

        Those of the patches' projection and of the blocks, an addition and a multiplication each, forward and twice
        that backward (Kaplan et al. 2020, arXiv 2001.08361, section 2.1); the head is left out.

        Args:
            inputs: with `pixel_values` (B, C, H, W).
            exclude_embeddings: leave out the projection of the patches.
        """
        vit: Any = self.base_model
        pixel_values = inputs["pixel_values"]
        num_patches = math.prod(vit.patch_embedding.grid_of(*pixel_values.shape[2:]))
        operations = 0 if exclude_embeddings else 2 * num_patches * vit.patch_embedding.projection.weight.numel()
        num_tokens = vit.patch_dropout.num_kept(num_patches) + self.config.num_prefix_tokens
        for block, num_merged in zip(vit.encoder, vit.merging_schedule, strict=False):
            # The scores, and the values that they weigh: T x T products of the width of all heads, each.
            width = block.attention.out_proj.in_features
            queries: Any = num_tokens
            if block is vit.encoder[-1] and self._only_pooled and num_queries(self.config) is not None:
                num_merged, queries = 0, num_queries(self.config)
            operations += 2 * num_tokens * block.attention.in_proj.weight.numel() + 4 * queries * num_tokens * width
            operations += 2 * queries * block.attention.out_proj.weight.numel()
            patches = num_tokens - self.config.num_prefix_tokens
            num_merged = min(num_merged, patches // 2)
            num_tokens -= num_merged
            operations += 2 * (queries - num_merged) * (block.ff[0].weight.numel() + block.ff[2].weight.numel())
        return 3 * pixel_values.shape[0] * operations


def classification_loss(
    model: PreTrainedModel, labels: Tensor, logits: Tensor, num_items: Tensor | int | None
) -> Tensor:
    """The loss that `config.problem_type` says, divided by the labels of the whole step if their number is given."""
    if num_items is None:
        return model.loss_function(labels, logits, model.config)
    loss = model.loss_function(labels, logits, model.config, num_items_in_batch=num_items)
    if model.config.problem_type == "single_label_classification":
        return loss
    return loss * labels.numel() / num_items  # transformers counts the labels of a step for classes alone
