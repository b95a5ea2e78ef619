# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The configuration of a video model: ViViT (Arnab et al. 2021, arXiv 2103.15691), its base model by default."""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict

from .configuration_vit_scratch import JOINING_POOLINGS, EncoderConfig, height_and_width

# Variants in which every token keeps its place in time and space, so that there is none for [CLS] or registers.
WITHOUT_PREFIX = ("factorised_self_attention", "factorised_dot_product")


@strict
class ViViTScratchConfig(EncoderConfig):
    """Configuration of a Video Vision Transformer, "ViViT" in what follows.

    Without arguments it is ViViT-B/16x2 with the factorised encoder, for 32 frames of 224x224 pixels. The settings that
    `ViTScratchConfig` has as well are explained there.

    Args:
        num_frames: frames of a clip; a multiple of the tubelet's, unless `sampled_frames` is given.
        tubelet_size: frames, height and width of a tubelet, which becomes one token (ViViT, section 3.2).
        sampled_frames: that many frames of a clip, evenly spaced, become tokens, each patch of them one (uniform frame
            sampling, ViViT, section 3.2); the tubelet must have one frame then. None for all frames.
        attention_variant: "joint" (all tokens attend to each other; model 1), "factorised_encoder" (a spatial encoder
            for each step in time, and a temporal one over the steps; model 2), "factorised_self_attention" (each block
            attends over space and over time, one after the other; model 3) or "factorised_dot_product" (half of the
            heads attend over time, the others over space; model 4).
        num_temporal_layers: blocks of the temporal encoder of a "factorised_encoder".
        attention_order: of "factorised_self_attention", "time_space" (scenic's blocks) or "space_time" (the paper's).

    Raises:
        ValueError: if the values cannot make a model, or a name is unknown.
    """

    model_type = "vivit_scratch"
    code_map: ClassVar[dict[str, str]] = {
        "AutoConfig": "configuration_vivit_scratch.ViViTScratchConfig",
        "AutoModel": "modeling_vivit_scratch.ViViTScratchModel",
        "AutoModelForVideoClassification": "modeling_vivit_scratch.ViViTScratchForVideoClassification",
    }

    num_frames: int = 32
    tubelet_size: list[int] | tuple[int, ...] = (2, 16, 16)
    sampled_frames: int | None = None
    attention_variant: Literal["joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"] = (
        "factorised_encoder"
    )
    num_temporal_layers: int = 4
    attention_order: Literal["time_space", "space_time"] = "time_space"

    hidden_act: str = "gelu_pytorch_tanh"
    attention_probs_dropout_prob: float | int = 0.0
    layer_norm_eps: float = 1e-6
    norm_first: bool = True
    position_interpolation: Literal[
        "bicubic_antialias", "bicubic", "bicubic_align_corners", "bilinear_align_corners"
    ] = "bilinear_align_corners"
    use_cls_position: bool = True
    use_final_layer_norm: bool = True
    initialization: Literal["article", "truncated_normal", "mimetic"] = "truncated_normal"

    @property
    def num_time_steps(self) -> int:
        """Places in time that the tokens of a clip of `num_frames` have."""
        if self.sampled_frames is not None:
            return min(self.sampled_frames, self.num_frames)
        return self.num_frames // self.tubelet_size[0]

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a tubelet, in pixels."""
        return self.tubelet_size[1], self.tubelet_size[2]

    def check_sizes(self) -> None:
        """Check the sizes of clips and tubelets."""
        tubelet = list(self.tubelet_size)
        if len(tubelet) != 3 or min(tubelet) < 1:
            raise ValueError(f"tubelet_size must be [frames, height, width], each 1 or more, got {tubelet}.")
        for name in ("num_frames", "num_temporal_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.sampled_frames is not None and (self.sampled_frames < 1 or tubelet[0] != 1):
            raise ValueError(
                f"sampled_frames must be at least 1, with tubelets of 1 frame, got {self.sampled_frames} and "
                f"tubelet_size {tubelet}."
            )
        size = [self.num_frames, *height_and_width("image_size", self.image_size)]
        for what, pixels, of_tubelet in zip(("num_frames", "height", "width"), size, tubelet, strict=True):
            if pixels % of_tubelet:
                raise ValueError(
                    f"{what} {pixels} is not a multiple of that of tubelet_size {tubelet}: {pixels % of_tubelet} would "
                    "be left over."
                )

    def check_tokens(self) -> None:
        """Check what the variant of the attention can do with tokens."""
        super().check_tokens()
        if self.position_embedding_type == "sincos2d" and self.attention_variant != "factorised_encoder":
            raise ValueError(
                f"position_embedding_type 'sincos2d' has no time: use 'learned' with {self.attention_variant!r}."
            )
        if self.attention_variant == "factorised_encoder" and self.pooling in JOINING_POOLINGS:
            raise ValueError(
                f"pooling {self.pooling!r} gives two vectors, and a factorised_encoder goes on with one: use 'cls', "
                "'mean' or 'attention'."
            )
        if self.initialization == "mimetic" and self.attention_variant != "factorised_encoder":
            raise ValueError(f"initialization 'mimetic' is for encoders of space, got {self.attention_variant!r}.")
        if self.attention_variant not in WITHOUT_PREFIX:
            return
        if self.num_prefix_tokens or self.pooling not in ("mean", "mean_tokens"):
            raise ValueError(
                f"attention_variant {self.attention_variant!r} has a place in time and space for every token: it needs "
                "use_cls_token=False, use_cls_position=False, num_register_tokens=0 and pooling='mean'."
            )
        if not self.norm_first and self.attention_variant == "factorised_self_attention":
            raise ValueError("attention_variant 'factorised_self_attention' needs norm_first=True.")
        if self.patch_dropout or self.token_merging:
            raise ValueError(
                f"patch_dropout and token_merging are for encoders of space, which {self.attention_variant!r} has not."
            )


__all__ = ["ViViTScratchConfig"]
