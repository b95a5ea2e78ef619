# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Video models: ViViT (Arnab et al. 2021, arXiv 2103.15691), of the layers of the image models.

Shapes: B batch, F frames, C channels, H and W height and width in pixels, Nt steps in time, S places in space, T
tokens, D hidden size, P width of the pooled vector, A attention heads, K labels.
"""

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.utils.generic import TransformersKwargs, can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .additions_vit_scratch import AddRegisterTokens, PatchDropout
from .configuration_vivit_scratch import ViViTScratchConfig
from .encoder_vit_scratch import HiddenState, build_blocks, build_pool, build_pooler, encode, num_queries
from .inflation_vivit_scratch import config_of_image_model, inflate
from .layers_vit_scratch import AddClsToken, ClassificationHead, PositionalEncoding, height_width
from .layers_vivit_scratch import (
    IN_TIME,
    FactorisedDotProduct,
    FactorisedSelfAttentionBlock,
    SpaceTimePositions,
    TubeletEmbedding,
)
from .merging_vit_scratch import merging_schedule
from .pretrained_vit_scratch import ViTScratchPreTrainedModel, classification_loss

logger = logging.getLogger(__name__)

# Attention maps of a clip that are more than this, in bytes, are averaged over the heads: those of ViViT-B/16x2 with
# joint attention are 5.7 GB.
MOST_MAPS = 2**30


class ViViTScratchLayer(FactorisedSelfAttentionBlock, GradientCheckpointingLayer):
    """ViViT's block of model 3, as transformers' activation checkpointing wants it: (B, Nt, S, D) -> same."""


class ViViTScratchPreTrainedModel(ViTScratchPreTrainedModel):
    """What the video models share."""

    config: ViViTScratchConfig
    config_class = ViViTScratchConfig
    base_model_prefix = "vivit"
    input_modalities = ["video"]
    _no_split_modules = ["ViTScratchLayer", "ViViTScratchLayer"]
    _input_embed_layer = "tubelet_embedding"
    _keys_to_ignore_on_load_unexpected = set()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FactorisedSelfAttentionBlock):  # its layers had theirs before
            for weight in module.attention_time.out_proj.parameters():
                init.zeros_(weight)

    def layer_depths(self) -> dict[str, int]:
        """Depth of every parameter, as in image models; the temporal encoder goes on where the spatial one ends."""
        body: Any = self.base_model
        prefix = "" if body is self else f"{self.base_model_prefix}."
        spatial = len(body.encoder)
        temporal = 0 if body.temporal_encoder is None else len(body.temporal_encoder)
        begins = {"encoder": 1, "temporal_encoder": spatial + 1}
        before = dict.fromkeys(
            ("tubelet_embedding", "positional_encoding", "register_tokens", "cls_token", "pre_norm"), 0
        )
        before |= dict.fromkeys(("temporal_positional_encoding", "temporal_cls_token"), spatial)
        if temporal:
            before["norm"] = spatial
        depths = {}
        for name, _ in self.named_parameters():
            part, _, rest = name.removeprefix(prefix).partition(".")
            depths[name] = (
                begins[part] + int(rest.split(".")[0]) if part in begins else before.get(part, spatial + temporal + 1)
            )
        return depths

    def floating_point_ops(self, inputs: dict[str, Tensor], exclude_embeddings: bool = False) -> int:
        """Operations of a training step on a batch, forward and twice that backward, without the head.

        Args:
            inputs: with `pixel_values` (B, F, C, H, W).
            exclude_embeddings: leave out the projection of the tubelets.
        """
        body: Any = self.base_model
        batch, frames, _, height, width = inputs["pixel_values"].shape
        times, rows, columns = body.tubelet_embedding.grid_of(frames, height, width)
        places, prefix = rows * columns, self.config.num_prefix_tokens
        weights = body.tubelet_embedding.projection.weight.numel()
        operations = 0 if exclude_embeddings else 2 * times * places * weights
        variant = self.config.attention_variant
        tokens = times * places + prefix
        if variant == "factorised_encoder":
            operations += times * _operations(body.encoder, places + prefix, [places + prefix])
            in_time = times + int(self.config.use_cls_token)
            operations += _operations(body.temporal_encoder, in_time, [in_time])
        else:
            spans = {
                "joint": [tokens],
                "factorised_self_attention": [places, times],
                "factorised_dot_product": [(places + times) / 2],
            }
            operations += _operations(body.encoder, tokens, spans[variant])
        return int(3 * batch * operations)


def _operations(blocks: Any, tokens: int, spans: list[float]) -> float:
    """Operations of blocks on some tokens, each of which attends to so many, in each of its attentions."""
    weights = sum(
        module.weight.numel() for block in blocks for module in block.modules() if isinstance(module, nn.Linear)
    )
    widths = (
        sum(
            module.out_features
            for block in blocks
            for name, module in block.named_modules()
            if name.endswith("in_proj")
        )
        / 3
    )
    return 2 * tokens * weights + 4 * tokens * widths * sum(spans) / max(len(spans), 1)


class ViViTScratchModel(ViViTScratchPreTrainedModel):
    """Videos to tokens: (B, F, C, H, W) -> (B, T, D), by one of ViViT's four models.

    Args:
        config: the architecture.
        add_pooling_layer: whether the output has `pooler_output`, (B, P).
    """

    _auto_class = "AutoModel"

    def __init__(self, config: ViViTScratchConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        dim = config.hidden_size
        self.tubelet_embedding = TubeletEmbedding(
            config.num_frames,
            config.image_size,
            cast(tuple[int, int, int], tuple(config.tubelet_size)),
            dim,
            num_channels=config.num_channels,
            bias=config.patch_bias,
            sampled_frames=config.sampled_frames,
        )
        self.is_factorised_encoder = config.attention_variant == "factorised_encoder"
        self.positional_encoding = self._positions()
        self.patch_dropout = PatchDropout(config.patch_dropout if add_pooling_layer else 0.0)
        registers = config.num_register_tokens
        self.register_tokens = AddRegisterTokens(dim, registers) if registers else None
        self.cls_token = AddClsToken(dim, position=config.use_cls_position) if config.use_cls_token else None
        self.pre_norm = self._layer_norm() if config.use_pre_layer_norm else nn.Identity()
        self.merging_schedule = merging_schedule(
            config.token_merging, config.num_hidden_layers, config.token_merging_schedule == "decreasing"
        )
        if config.attention_variant == "factorised_self_attention":
            order = {"attention_order": config.attention_order}
            self.encoder = build_blocks(config, config.num_hidden_layers, ViViTScratchLayer, **order)
        else:
            self.encoder = build_blocks(config, config.num_hidden_layers)
        self.hidden_state = HiddenState()
        self.norm = self._layer_norm() if config.use_final_layer_norm else nn.Identity()
        self.temporal_encoder: nn.ModuleList | None = None
        if self.is_factorised_encoder:
            self.pool_in_space = build_pool(config, config.num_prefix_tokens)
            self._build_temporal_encoder()
        self.pooler = build_pooler(config, self._prefix_of_pooled()) if add_pooling_layer else None
        self.post_init()

    def _layer_norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.config.hidden_size, eps=self.config.layer_norm_eps)

    def _positions(self) -> PositionalEncoding:
        config, grid_size = self.config, self.tubelet_embedding.grid_size
        options: dict[str, Any] = {
            "encoding": config.position_embedding_type,
            "dropout": config.hidden_dropout_prob,
            "interpolation": config.position_interpolation,
        }
        if not self.is_factorised_encoder:
            return SpaceTimePositions(grid_size, config.hidden_size, **options)
        return PositionalEncoding(math.prod(grid_size[1:]), config.hidden_size, grid_size=grid_size[1:], **options)

    def _build_temporal_encoder(self) -> None:
        config, times = self.config, self.tubelet_embedding.grid_size[0]
        learned = "none" if config.position_embedding_type == "none" else "learned"
        self.temporal_positional_encoding = PositionalEncoding(
            times,
            config.hidden_size,
            encoding=learned,
            grid_size=(times, 1),
            dropout=config.hidden_dropout_prob,
            interpolation=IN_TIME,
        )
        self.temporal_cls_token = (
            AddClsToken(config.hidden_size, position=config.use_cls_position) if config.use_cls_token else None
        )
        self.temporal_encoder = build_blocks(config, config.num_temporal_layers)
        self.temporal_norm = self._layer_norm() if config.use_final_layer_norm else nn.Identity()

    def _prefix_of_pooled(self) -> int:
        """Tokens in front of those that the pooler may average: the temporal encoder has no registers."""
        return int(self.config.use_cls_token) if self.is_factorised_encoder else self.config.num_prefix_tokens

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool | None = None,
        only_pooled: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encode videos.

        Args:
            pixel_values: (B, F, C, H, W), as the processor makes them.
            interpolate_pos_encoding: accept any number of frames, height and width that the tubelet divides, and fit
                the positions to them; by default what the configuration says.
            only_pooled: only `pooler_output` is asked for. Where that is the [CLS] token, the last block computes no
                other then, and `last_hidden_state` is (B, 1, D).
            **kwargs: `output_attentions`, `output_hidden_states`, `return_dict`, as everywhere in transformers.

        Returns:
            `last_hidden_state` (B, T, D): T is Nt S and [CLS], or of a factorised encoder the Nt steps and [CLS];
            `pooler_output` (B, P) or None; where asked for `hidden_states`, the tokens before the first block and after
            each, and `attentions`, the probabilities of each block. Of a factorised encoder those of the spatial blocks
            come first, (B Nt, …), then those of the temporal blocks, (B, …). With factorised self-attention there are
            two a block, in the order in which they are computed, (B Nt, A, S, S) and (B S, A, Nt, Nt); with the
            factorised dot product each is a pair, of the heads over time and those over space. If all maps would take
            more than 1 GiB, they are averaged over the heads, (B, 1, T, T), which is said.

        Raises:
            ValueError: if the shapes do not fit the configuration.
        """
        if interpolate_pos_encoding is None:
            interpolate_pos_encoding = self.config.interpolate_pos_encoding
        grid_size = self._check_inputs(pixel_values, interpolate_pos_encoding)
        fitted = grid_size if interpolate_pos_encoding else None
        x = self.tubelet_embedding(pixel_values.to(self.tubelet_embedding.projection.weight.dtype))  # (B, Nt, S, D)
        run = partial(encode, config=self.config, hidden_state=self.hidden_state, **kwargs)
        queries = num_queries(self.config) if only_pooled else None
        if self.is_factorised_encoder:
            x = self._in_space(x, fitted, run)  # (B, Nt, D)
            x = self._in_time(x, fitted, run, queries)  # (B, T, D)
        else:
            x = self._in_both(
                x, fitted, run, queries, bool(kwargs.get("output_attentions", self.config.output_attentions))
            )
        pooled = self.pooler(x) if self.pooler is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=pooled)

    def _check_inputs(self, pixel_values: Tensor, interpolate_pos_encoding: bool) -> tuple[int, int, int]:
        """Refuse shapes that the configuration does not fit; the (steps, rows, columns) of tubelets otherwise."""
        channels = self.config.num_channels
        if pixel_values is None:
            raise ValueError("pixel_values is missing: pass videos of shape (batch, frames, channels, height, width).")
        if pixel_values.ndim != 5 or pixel_values.shape[2] != channels:
            raise ValueError(
                f"pixel_values must have the shape (batch, frames, num_channels={channels}, height, width), got "
                f"{tuple(pixel_values.shape)}."
            )
        frames, height, width = pixel_values.shape[1], *pixel_values.shape[3:]
        trained = (self.config.num_frames, *height_width(self.config.image_size))
        if not interpolate_pos_encoding and (frames, height, width) != trained:
            raise ValueError(
                f"the videos are {frames} frames of {height}x{width} pixels (height x width) and the model is for "
                f"{trained[0]} of {trained[1]}x{trained[2]}: sample and resize them, or pass "
                "interpolate_pos_encoding=True."
            )
        return self.tubelet_embedding.grid_of(frames, height, width)

    def _with_prefix(self, x: Tensor) -> Tensor:
        if self.register_tokens is not None:
            x = self.register_tokens(x)
        if self.cls_token is not None:
            x = self.cls_token(x)
        return self.pre_norm(x)

    def _in_space(self, x: Tensor, grid_size: tuple[int, int, int] | None, run: Callable[..., Tensor]) -> Tensor:
        """The spatial encoder of model 2: each step by itself, as an image, (B, Nt, S, D) -> (B, Nt, D)."""
        batch = x.shape[:2]
        x = self.positional_encoding(x.flatten(0, 1), None if grid_size is None else grid_size[1:])  # (B Nt, S, D)
        x, _ = self.patch_dropout(x)
        # What the temporal encoder reads of an image is one vector.
        x = run(
            self.encoder,
            self._with_prefix(x),
            merging_schedule=self.merging_schedule,
            num_queries=num_queries(self.config),
        )
        return self.pool_in_space(self.norm(x)).unflatten(0, batch)

    def _in_time(
        self, x: Tensor, grid_size: tuple[int, int, int] | None, run: Callable[..., Tensor], queries: int | None
    ) -> Tensor:
        """The temporal encoder of model 2: (B, Nt, D) -> (B, T, D)."""
        x = self.temporal_positional_encoding(x, None if grid_size is None else (grid_size[0], 1))
        if self.temporal_cls_token is not None:
            x = self.temporal_cls_token(x)
        return self.temporal_norm(run(self.temporal_encoder, x, num_queries=queries))

    def _in_both(
        self,
        x: Tensor,
        grid_size: tuple[int, int, int] | None,
        run: Callable[..., Tensor],
        queries: int | None,
        maps_wanted: bool,
    ) -> Tensor:
        """Models 1, 3 and 4: (B, Nt, S, D) -> (B, T, D)."""
        shape = x.shape[1:3]
        x = self.positional_encoding(x.flatten(1, 2), grid_size)  # (B, Nt S, D)
        if self.config.attention_variant == "factorised_self_attention":
            x = run(self.encoder, self.pre_norm(x).unflatten(1, shape), in_parts=lambda kernel: kernel)
            return self.norm(x.flatten(1, 2))
        if self.config.attention_variant == "factorised_dot_product":
            halves = partial(FactorisedDotProduct, num_time_steps=shape[0])
            return self.norm(run(self.encoder, self.pre_norm(x), in_parts=lambda kernel: halves(kernel).attend))
        x, _ = self.patch_dropout(x)
        x = self._with_prefix(x)
        average = maps_wanted and self._maps_are_many(x)
        x = run(
            self.encoder,
            x,
            merging_schedule=self.merging_schedule,
            num_queries=queries,
            average_maps=average,
        )
        return self.norm(x)

    def _maps_are_many(self, x: Tensor) -> bool:
        size = 4 * x.shape[1] ** 2 * self.config.num_attention_heads * self.config.num_hidden_layers
        if size <= MOST_MAPS:
            return False
        logger.warning("the attention maps of a clip would take %.1f GB: they are averaged over the heads.", size / 1e9)
        return True


class ViViTScratchForVideoClassification(ViViTScratchPreTrainedModel):
    """Videos to logits: (B, F, C, H, W) -> (B, K)."""

    _auto_class = "AutoModelForVideoClassification"
    _only_pooled = True

    def __init__(self, config: ViViTScratchConfig):
        super().__init__(config)
        self.num_labels = config.num_labels or 0
        self.vivit = ViViTScratchModel(config)
        self.classification_head = ClassificationHead(config.pooled_size, self.num_labels, pool=nn.Identity())
        self.post_init()

    @classmethod
    def from_image_model(
        cls,
        model: PreTrainedModel,
        *,
        inflation: str = "central",
        positions: str = "tile",
        **settings: Any,
    ) -> "ViViTScratchForVideoClassification":
        """A video model that begins with what an image model has learned (ViViT, section 3.4).

        Args:
            model: an image model of ours, with or without a head, which is not changed. Its head stays behind.
            inflation: "central" puts the filters of the patches at the middle frame of the tubelet, so that a new model
                sees that frame as the image model does; "average" spreads them evenly over its frames.
            positions: "tile" repeats those of the image for each step in time, fitted to another size as the image
                model does where `settings` give one; a factorised encoder needs nothing of it in space.
            **settings: fields of `ViViTScratchConfig` that an image model does not have, such as `num_frames`, or that
                are to be others.

        Raises:
            ValueError: if the image model has parts that a video model does not have.
        """
        config = config_of_image_model(model.config, settings)
        video = cls(config)
        inflate(video.vivit, model.base_model, inflation, positions)
        return cast(Any, video).to(model.dtype)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        """Classify videos.

        Args:
            pixel_values, interpolate_pos_encoding, **kwargs: those of `ViViTScratchModel`.
            labels: those of `ViTScratchForImageClassification`.
            num_items_in_batch: of `**kwargs`, the labels of the training step that these are a part of.

        Returns:
            `logits` (B, K), `loss` (a scalar) if there are labels, `hidden_states` and `attentions` where asked for.
        """
        num_items = kwargs.pop("num_items_in_batch", None)
        outputs = self.vivit(
            pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            only_pooled=self._only_pooled,
            return_dict=True,
            **kwargs,
        )
        logits = self.classification_head(outputs.pooler_output)  # (B, K)
        loss = None if labels is None else classification_loss(self, labels, logits, num_items)  # a scalar
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = ["ViViTScratchForVideoClassification", "ViViTScratchModel", "ViViTScratchPreTrainedModel"]
