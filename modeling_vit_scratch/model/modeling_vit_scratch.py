# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The article's layers as transformers models: the base model and its tasks.

The mathematics is in `layers_vit_scratch.py`; here a configuration becomes layers, and their results become the output
classes that users of transformers know.

Shapes: B batch, C channels, H and W image height and width in pixels, N patches, T tokens (N, and those in front of the
patches: [CLS] and registers), D hidden size, P width of the pooled vector (D, unless the configuration says otherwise),
A attention heads, K labels.
"""

import copy
import math
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
    MaskedImageModelingOutput,
)
from transformers.utils.generic import TransformersKwargs, can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .additions_vit_scratch import (
    AddRegisterTokens,
    MaskPatches,
    PatchDropout,
)
from .configuration_vit_scratch import ViTScratchConfig
from .encoder_vit_scratch import HiddenState, build_blocks, build_pooler, encode, num_queries
from .layers_vit_scratch import (
    AddClsToken,
    ClassificationHead,
    PatchEmbedding,
    PositionalEncoding,
    height_width,
)
from .merging_vit_scratch import merging_schedule
from .packing_vit_scratch import read_masks
from .pretrained_vit_scratch import ViTScratchPreTrainedModel, classification_loss


class ViTScratchModel(ViTScratchPreTrainedModel):
    """The article's steps 1 to 4: images to tokens, (B, C, H, W) -> (B, T, D).

    Args:
        config: the architecture.
        add_pooling_layer: whether the output has `pooler_output`, (B, P): the token or mean that `config.pooling`
            names, as the classification head reads it.
        use_mask_token: whether patches can be masked by `bool_masked_pos`.
    """

    _auto_class = "AutoModel"

    def __init__(self, config: ViTScratchConfig, add_pooling_layer: bool = True, use_mask_token: bool = False):
        super().__init__(config)
        dim = config.hidden_size
        self.patch_embedding = PatchEmbedding(
            config.image_size,
            config.patch_size,
            dim,
            num_channels=config.num_channels,
            bias=config.patch_bias,
            dual_norm=config.use_dual_patch_norm,
            layer_norm_eps=config.layer_norm_eps,
        )
        self.mask_patches = MaskPatches(dim) if use_mask_token else None
        self.positional_encoding = PositionalEncoding(
            self.patch_embedding.num_patches,
            dim,
            encoding=config.position_embedding_type,
            grid_size=self.patch_embedding.grid_size,
            dropout=config.hidden_dropout_prob,
            interpolation=config.position_interpolation,
        )
        self.patch_dropout = PatchDropout(config.patch_dropout if add_pooling_layer else 0.0)
        registers = config.num_register_tokens
        self.register_tokens = AddRegisterTokens(dim, registers) if registers else None
        self.cls_token = AddClsToken(dim, position=config.use_cls_position) if config.use_cls_token else None
        self.pre_norm = self._layer_norm() if config.use_pre_layer_norm else nn.Identity()
        self.merging_schedule = merging_schedule(
            config.token_merging, config.num_hidden_layers, config.token_merging_schedule == "decreasing"
        )
        self.encoder = build_blocks(config, config.num_hidden_layers)
        self.hidden_state = HiddenState()
        self.norm = self._layer_norm() if config.use_final_layer_norm else nn.Identity()
        self.pooler = build_pooler(config, config.num_prefix_tokens) if add_pooling_layer else None
        self.post_init()

    def _layer_norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.config.hidden_size, eps=self.config.layer_norm_eps)

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        attention_mask: Tensor | None = None,
        patch_attention_mask: Tensor | None = None,
        only_pooled: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encode images.

        Args:
            pixel_values: (B, C, H, W), as the image processor makes them.
            bool_masked_pos: (B, N), true where a patch is replaced by the mask token.
            interpolate_pos_encoding: accept any height and width that the patch divides, and fit the positions to them;
                by default what the configuration says.
            attention_mask: (B, T), 0 where a token is not attended to, as in transformers; the tokens in front of the
                patches come first.
            patch_attention_mask: (B, N) or (B, rows, columns), 0 where a patch is padding (as of Idefics2, Laurençon et
                al. 2024, arXiv 2405.02246). With `interpolate_pos_encoding`, the patches of an image fill its top left
                corner and get the positions that the image would get alone.
            only_pooled: only `pooler_output` is asked for. Where that is the [CLS] token, the last block computes no
                other then, which saves most of it, and `last_hidden_state` is (B, 1, D).
            **kwargs: `output_attentions`, `output_hidden_states`, `return_dict`, as everywhere in transformers.

        Returns:
            `last_hidden_state` (B, T, D), `pooler_output` (B, P) or None, and where asked for `hidden_states`,
            the tokens before the first block and after each, (B, T, D), not yet through the final LayerNorm, and
            `attentions`, the probabilities of each block, (B, A, T, T).

        Raises:
            ValueError: if the shapes do not fit the configuration.
        """
        if interpolate_pos_encoding is None:
            interpolate_pos_encoding = self.config.interpolate_pos_encoding
        grid_size = self._check_inputs(pixel_values, bool_masked_pos, interpolate_pos_encoding)
        batch, num_prefix_tokens = pixel_values.shape[0], self.config.num_prefix_tokens
        masks = read_masks(attention_mask, patch_attention_mask, batch, grid_size, num_prefix_tokens)
        x = self.patch_embedding(pixel_values.to(self.patch_embedding.projection.weight.dtype))  # (B, N, D)
        if self.mask_patches is not None and bool_masked_pos is not None:
            x = self.mask_patches(x, bool_masked_pos)
        fitted = (grid_size, masks.extent) if interpolate_pos_encoding else (None, None)
        x = self.positional_encoding(x, *fitted)
        x, patch_mask = self.patch_dropout(x, masks.patches)  # N is smaller from here on, in training
        if self.register_tokens is not None:
            x = self.register_tokens(x)  # (B, R + N, D)
        if self.cls_token is not None:
            x = self.cls_token(x)  # (B, T, D)
        x = self.pre_norm(x)
        token_mask = None
        if masks.prefix is not None and patch_mask is not None:
            token_mask = torch.cat((masks.prefix, patch_mask), dim=1)  # (B, T)
        x = encode(
            self.encoder,
            x,
            self.config,
            token_mask=token_mask,
            merging_schedule=self.merging_schedule,
            num_queries=num_queries(self.config) if only_pooled else None,
            hidden_state=self.hidden_state,
            **kwargs,
        )
        x = self.norm(x)
        pooled = self.pooler(x, patch_mask) if self.pooler is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=pooled)

    def _check_inputs(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | None,
        interpolate_pos_encoding: bool,
    ) -> tuple[int, int]:
        """Refuse shapes that the configuration does not fit; the (rows, columns) of patches otherwise."""
        if pixel_values is None:
            raise ValueError("pixel_values is missing: pass images of shape (batch, channels, height, width).")
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"pixel_values must have the shape (batch, num_channels={self.config.num_channels}, height, width), "
                f"got {tuple(pixel_values.shape)}."
            )
        height, width = pixel_values.shape[2:]
        trained_height, trained_width = height_width(self.config.image_size)
        if not interpolate_pos_encoding and (height, width) != (trained_height, trained_width):
            raise ValueError(
                f"the images are {height}x{width} pixels (height x width) and the model is for "
                f"{trained_height}x{trained_width}: resize them, or pass interpolate_pos_encoding=True."
            )
        grid_size = self.patch_embedding.grid_of(height, width)
        expected = (pixel_values.shape[0], math.prod(grid_size))
        if bool_masked_pos is not None and tuple(bool_masked_pos.shape) != expected:
            raise ValueError(
                f"bool_masked_pos must have the shape (batch, patches) = {expected}, got "
                f"{tuple(bool_masked_pos.shape)}."
            )
        if bool_masked_pos is not None and self.mask_patches is None:
            raise ValueError("bool_masked_pos needs a mask token: build the model with use_mask_token=True.")
        return grid_size


class ViTScratchForImageClassification(ViTScratchPreTrainedModel):
    """The article's `VisionTransformer`, steps 1 to 6: images to logits, (B, C, H, W) -> (B, K)."""

    _auto_class = "AutoModelForImageClassification"
    _only_pooled = True

    def __init__(self, config: ViTScratchConfig):
        super().__init__(config)
        self.num_labels = config.num_labels or 0
        self.vit = ViTScratchModel(config)
        # The base model has pooled already, so that `AutoModel` has the same vector of the same checkpoint.
        self.classification_head = ClassificationHead(config.pooled_size, self.num_labels, pool=nn.Identity())
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        attention_mask: Tensor | None = None,
        patch_attention_mask: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        """Classify images.

        Args:
            pixel_values, interpolate_pos_encoding, attention_mask, patch_attention_mask, **kwargs: those of
                `ViTScratchModel`.
            labels: (B,) class indices; (B, K) of 0 and 1 for several labels an image; (B,) or (B, K) numbers for
                regression. `config.problem_type` says which; unset, it follows from `num_labels` and the dtype.
            num_items_in_batch: of `**kwargs`, the labels of the training step that these are a part of (B numbers, or
                B x K); the losses of the parts add up to that of the step. `Trainer` gives it. By default these labels.

        Returns:
            `logits` (B, K), `loss` (a scalar) if there are labels, `hidden_states` and `attentions` where asked for.
        """
        num_items = kwargs.pop("num_items_in_batch", None)
        outputs = self.vit(
            pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            attention_mask=attention_mask,
            patch_attention_mask=patch_attention_mask,
            only_pooled=self._only_pooled,
            return_dict=True,
            **kwargs,
        )
        logits = self.classification_head(outputs.pooler_output)  # (B, K)
        loss = None if labels is None else classification_loss(self, labels, logits, num_items)  # a scalar
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class PixelDecoder(nn.Sequential):
    """Paint each token's patch of the image: (B, D, rows, columns) -> (B, C, H, W) (SimMIM, section 3.1)."""

    def __init__(self, hidden_size: int, stride: tuple[int, int], num_channels: int):
        super().__init__(nn.Conv2d(hidden_size, num_channels * math.prod(stride), kernel_size=1))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        x = x.unflatten(1, (x.shape[1] // math.prod(self.stride), *self.stride))
        # (B, C, stride height, stride width, rows, columns)
        return x.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)  # (B, C, H, W)


class ViTScratchForMaskedImageModeling(ViTScratchPreTrainedModel):
    """Paint masked patches from the others (SimMIM, Xie et al. 2021, arXiv 2111.09886): (B, C, H, W) -> same."""

    _auto_class = "AutoModelForMaskedImageModeling"

    def __init__(self, config: ViTScratchConfig):
        super().__init__(config)
        self.vit = ViTScratchModel(config, add_pooling_layer=False, use_mask_token=True)
        stride = height_width(config.patch_size if config.encoder_stride is None else config.encoder_stride)
        self.decoder = PixelDecoder(config.hidden_size, stride, config.num_channels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        attention_mask: Tensor | None = None,
        patch_attention_mask: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedImageModelingOutput:
        """Reconstruct images.

        Args:
            pixel_values, interpolate_pos_encoding, attention_mask, patch_attention_mask, **kwargs: those of
                `ViTScratchModel`.
            bool_masked_pos: (B, N), true where a patch is hidden from the model; the loss is over these.
            num_items_in_batch: of `**kwargs`, the number of images of the training step that these are a part of.

        Returns:
            `reconstruction` (B, C, H, W), and with `bool_masked_pos` the `loss`: the mean absolute difference of
            reconstruction and image over the pixels of the masked patches (SimMIM, equation 1). With
            `num_items_in_batch` it is the sum of this mean of each image, divided by that number, so that the losses of
            the parts of a step add up to the mean of its images.

        Raises:
            ValueError: if there is a mask and the decoder's stride is not the patch size.
        """
        num_items = kwargs.pop("num_items_in_batch", None)
        patch_size = self.vit.patch_embedding.patch_size
        if bool_masked_pos is not None and self.decoder.stride != patch_size:
            raise ValueError(
                "with bool_masked_pos, encoder_stride must equal patch_size, so that the reconstruction is as large as "
                f"the image; got encoder_stride {self.decoder.stride} and patch_size {patch_size}."
            )
        outputs = self.vit(
            pixel_values,
            bool_masked_pos=bool_masked_pos,
            interpolate_pos_encoding=interpolate_pos_encoding,
            attention_mask=attention_mask,
            patch_attention_mask=patch_attention_mask,
            return_dict=True,
            **kwargs,
        )
        grid_size = self.vit.patch_embedding.grid_of(*pixel_values.shape[2:])
        patches = outputs.last_hidden_state[:, self.config.num_prefix_tokens :]  # (B, N, D)
        reconstruction = self.decoder(patches.transpose(1, 2).unflatten(2, grid_size))  # (B, C, H, W)
        loss = None
        if bool_masked_pos is not None:
            hidden = bool_masked_pos.bool().unflatten(1, grid_size).unsqueeze(1)  # (B, 1, rows, columns)
            hidden = hidden.repeat_interleave(patch_size[0], 2).repeat_interleave(patch_size[1], 3)  # (B, 1, H, W)
            loss = reconstruction_loss(reconstruction, pixel_values, hidden, num_items)
        return MaskedImageModelingOutput(
            loss=loss,
            reconstruction=reconstruction,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def reconstruction_loss(painted: Tensor, images: Tensor, hidden: Tensor, num_items: Tensor | int | None) -> Tensor:
    """The loss of `ViTScratchForMaskedImageModeling`, in float32, because sums may be more than float16 holds.

    Args:
        painted, images: (B, C, H, W).
        hidden: (B, 1, H, W), true where the model saw nothing.
        num_items: images of the training step, or None.
    """
    difference = F.l1_loss(images, painted, reduction="none") * hidden  # (B, C, H, W)
    totals = difference.sum(dim=(1, 2, 3), dtype=torch.float32)  # (B,)
    counts = images.shape[1] * hidden.sum(dim=(1, 2, 3))  # (B,)
    if num_items is None:
        return totals.sum() / counts.sum().clamp(min=1)
    return (totals / counts.clamp(min=1)).sum() / num_items


class ViTScratchBackbone(BackboneMixin, ViTScratchModel):
    """Feature maps for detection and segmentation: (B, C, H, W) -> one (B, D, rows, columns) per stage asked for.

    `config.out_features` or `out_indices` names the stages: "stem", the tokens before the first block, or "stageN",
    those after block N. Blocks after the last stage asked for are not built, so that every parameter is used. Any size
    that the patch divides is accepted, as detection needs.
    """

    _auto_class = "AutoBackbone"

    def __init__(self, config: ViTScratchConfig):
        config = copy.deepcopy(config)  # the caller's may serve other models, whose last stage is another
        config.set_output_features_output_indices(config.out_features, config.out_indices)
        super().__init__(config, add_pooling_layer=False)
        self.num_features = [config.hidden_size] * len(self.stage_names)
        depth = max(self._stage_indices())
        del self.encoder[depth:]
        unused = {rf"encoder\.{index}\." for index in range(depth, config.num_hidden_layers)}
        if not config.apply_layernorm:
            self.norm = nn.Identity()
            unused.add(r"norm\.(weight|bias)")
        unused |= {*self._keys_to_ignore_on_load_unexpected, r"classification_head\.", r"pooler\."}
        self._keys_to_ignore_on_load_unexpected = unused

    def _stage_indices(self) -> list[int]:
        return [self.stage_names.index(name) for name in self.out_features]

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        patch_attention_mask: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BackboneOutput:
        """Compute the feature maps.

        Args:
            pixel_values: (B, C, H, W).
            attention_mask, patch_attention_mask: (B, T) and (B, N), 0 where a token or patch is padding; the latter
                gives each image its own positions, as in `ViTScratchModel` with `interpolate_pos_encoding`.
            **kwargs: `output_attentions`, `output_hidden_states`, `return_dict`.

        Returns:
            `feature_maps`, a tuple of (B, D, rows, columns), or of (B, T, D) with `config.reshape_hidden_states=False`.
        """
        outputs = ViTScratchModel.forward(
            self,
            pixel_values,
            interpolate_pos_encoding=True,
            attention_mask=attention_mask,
            patch_attention_mask=patch_attention_mask,
            return_dict=True,
            **kwargs,
        )
        grid_size = self.patch_embedding.grid_of(*pixel_values.shape[2:])
        feature_maps = []
        for index in self._stage_indices():
            # Without a block, for the stem alone, nothing recorded the tokens; they are the (normalised) output.
            tokens = self.norm(outputs.hidden_states[index]) if self.encoder else outputs.last_hidden_state
            if self.config.reshape_hidden_states:
                patches = tokens[:, self.config.num_prefix_tokens :].transpose(1, 2)  # (B, D, N)
                tokens = patches.unflatten(2, grid_size).contiguous()  # (B, D, rows, columns)
            feature_maps.append(tokens)
        return BackboneOutput(
            feature_maps=tuple(feature_maps), hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = [
    "ViTScratchBackbone",
    "ViTScratchForImageClassification",
    "ViTScratchForMaskedImageModeling",
    "ViTScratchModel",
    "ViTScratchPreTrainedModel",
]
