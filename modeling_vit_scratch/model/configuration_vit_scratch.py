# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The configuration of a vit-scratch model: every architectural choice, with the article's as default."""

import dataclasses
import logging
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneConfigMixin

logger = logging.getLogger(__name__)

# Poolings that put two vectors side by side.
JOINING_POOLINGS = ("cls_mean", "cls_distillation")

# Keys that transformers itself puts into a config and that are not fields of the class.
TRANSFORMERS_KEYS = {
    "attn_implementation",
    "custom_pipelines",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "quantization_config",
    "tie_last_hidden_states",
    "torch_dtype",
    "use_cache",
}


@strict
class EncoderConfig(PreTrainedConfig):
    """What the configurations of image and video models have in common: tokens, blocks, pooling and initialisation.

    The settings are those of `ViTScratchConfig`.

    Raises:
        ValueError: if the values cannot make a model, or a name is unknown.
    """

    attribute_map = {
        "embedding_dim": "hidden_size",
        "depth": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "ff_dim": "intermediate_size",
        "num_classes": "num_labels",
    }
    # Tensor parallelism, of the attention: the rows of the fused projection are not heads, so its output is gathered.
    # Rules cannot tell the layers of `ff` apart: transformers reads every number in a name as a wildcard.
    base_model_tp_plan = {
        "encoder.*.attention.in_proj": "colwise_gather_output",
        "encoder.*.attention.out_proj": "rowwise_split_input",
    }
    base_model_fsdp_plan = {"encoder.*": "free_full_weight", "norm": "keep_full_weight"}
    _auto_class = "AutoConfig"
    # What a saved folder offers to the Auto classes where this package is not installed.
    code_map: ClassVar[dict[str, str]] = {}

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    head_dim: int | None = None
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    use_swiglu_ffn: bool = False
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.1
    drop_path_rate: float | int = 0.0
    patch_dropout: float | int = 0.0
    token_merging: int | list[int] | tuple[int, ...] = 0
    token_merging_schedule: Literal["constant", "decreasing"] = "constant"
    layer_norm_eps: float = 1e-5
    image_size: int | list[int] | tuple[int, int] = 224
    num_channels: int = 3
    patch_bias: bool = True
    qkv_bias: bool = True
    out_proj_bias: bool = True
    layerscale_value: float | int | None = None
    norm_first: bool = False
    position_embedding_type: Literal["learned", "sincos2d", "none"] = "learned"
    position_interpolation: Literal[
        "bicubic_antialias", "bicubic", "bicubic_align_corners", "bilinear_align_corners"
    ] = "bicubic_antialias"
    interpolate_pos_encoding: bool = False
    use_cls_token: bool = True
    use_cls_position: bool = False
    num_register_tokens: int = 0
    use_pre_layer_norm: bool = False
    use_final_layer_norm: bool = False
    pooling: Literal["cls", "mean", "mean_tokens", "cls_mean", "cls_distillation", "attention"] = "cls"
    use_pooled_layer_norm: bool = False
    pooler_output_size: int | None = None
    initialization: Literal["article", "truncated_normal", "mimetic"] = "article"
    initializer_range: float = 0.02

    def __new__(cls, *args, **kwargs):
        # Before the fields have their defaults, from which one that was asked for could not be told.
        for alias, name in cls.attribute_map.items():
            if alias in kwargs and name in kwargs and kwargs[alias] != kwargs[name]:
                raise ValueError(
                    f"{alias}={kwargs[alias]} and {name}={kwargs[name]} are one setting: give one of them."
                )
        return super().__new__(cls)

    def __post_init__(self, auto_map=None, **kwargs):
        if auto_map is not None:
            self.auto_map = auto_map  # where the Auto classes look for the code of the model
        self._refuse_unknown(kwargs)
        for alias, name in self.attribute_map.items():
            if alias in kwargs and name in self.field_defaults():
                setattr(self, name, kwargs.pop(alias))
        if "num_classes" in kwargs:
            kwargs["num_labels"] = kwargs.pop("num_classes")
        if "num_labels" in kwargs and (not isinstance(kwargs["num_labels"], int) or kwargs["num_labels"] < 0):
            raise ValueError(f"num_labels must be a whole number, 0 or more, got {kwargs['num_labels']!r}.")
        self._validate_names(kwargs.get("num_labels"))
        super().__post_init__(**kwargs)
        if self.id2label is not None and self.label2id is None:
            self.label2id = _indices(self.id2label)
        self.validate_architecture()

    @classmethod
    def field_defaults(cls) -> dict[str, Any]:
        """The fields of a configuration, transformers' own included, with their defaults."""
        return {field.name: field.default for field in dataclasses.fields(cls)}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs) -> Any:
        """As of every transformers config; another `num_labels` than the saved one has none of the saved names."""
        number = kwargs.get("num_labels", kwargs.get("num_classes"))
        if number is not None and kwargs.get("id2label") is not None and len(kwargs["id2label"]) != number:
            raise ValueError(_disagreement(number, kwargs["id2label"]))
        if kwargs.get("id2label") is not None and kwargs.get("label2id") is None:
            kwargs["label2id"] = _indices(kwargs["id2label"])  # those that were saved are of other names
        names = config_dict.get("id2label")
        if number is not None and names is not None and len(names) != number:
            logger.warning("num_labels=%s: the %s names of the saved labels are not its.", number, len(names))
            config_dict = {key: value for key, value in config_dict.items() if key not in ("id2label", "label2id")}
        return super().from_dict(config_dict, **kwargs)

    def _validate_names(self, num_labels: int | None) -> None:
        if None not in (self.id2label, num_labels) and len(self.id2label or ()) != num_labels:
            raise ValueError(_disagreement(num_labels, self.id2label))

    def _refuse_unknown(self, kwargs: dict) -> None:
        unknown = sorted(key for key in kwargs if not self._is_known(key))
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no field {', '.join(map(repr, unknown))}; its fields are "
                f"{', '.join(sorted(self.field_defaults()))} and the aliases {', '.join(sorted(self.attribute_map))}."
            )

    def _is_known(self, key: str) -> bool:
        return key.startswith("_") or key in self.attribute_map or key in TRANSFORMERS_KEYS

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens in front of the patches: [CLS] and the registers."""
        return int(self.use_cls_token) + self.num_register_tokens

    @property
    def pooled_size(self) -> int:
        """Width of the vector that the classification head reads."""
        return self.pooler_output_size or self.hidden_size * (2 if self.pooling in JOINING_POOLINGS else 1)

    @property
    def output_attentions(self) -> bool | None:
        """Whether the models return attention maps; unlike in transformers' own ViT, any attention kernel will do."""
        return self._output_attentions

    @output_attentions.setter
    def output_attentions(self, value: bool) -> None:
        self._output_attentions = value

    def validate_output_attentions(self) -> None:
        """Accept attention maps with every kernel (transformers' base class allows eager only)."""

    def validate_architecture(self) -> None:
        """Check that the values together make a model.

        Runs when the configuration is built, when it is saved, and when a model is built from it, since
        `from_pretrained(..., field=value)` sets fields after the first check.

        Raises:
            ValueError: one sentence that names the fields and their values.
        """
        self._validate_counts()
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "patch_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}.")
        for name in ("layer_norm_eps", "initializer_range"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is unknown; transformers knows {', '.join(ACT2FN)}.")
        self.check_sizes()
        self.check_tokens()
        self._validate_merging()

    def _validate_counts(self) -> None:
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "num_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("head_dim", "pooler_output_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, or None, got {getattr(self, name)}.")
        if self.layerscale_value is not None and not abs(self.layerscale_value) < float("inf"):
            raise ValueError(f"layerscale_value must be a finite number, or None, got {self.layerscale_value}.")
        if self.num_register_tokens < 0:
            raise ValueError(f"num_register_tokens must be at least 0, got {self.num_register_tokens}.")
        if (self.head_dim is None or self.pooling == "attention") and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}."
            )

    def check_sizes(self) -> None:
        """Check the sizes in pixels."""
        height_and_width("image_size", self.image_size)

    def check_tokens(self) -> None:
        """Check the tokens in front of the patches, and who reads them."""
        for name, value in (("position_embedding_type", "sincos2d"), ("initialization", "mimetic")):
            if getattr(self, name) == value and self.hidden_size % 4:
                raise ValueError(
                    f"{name} {value!r} needs a hidden_size that is a multiple of 4, got {self.hidden_size}."
                )
        if self.pooling.startswith("cls") and not self.use_cls_token:
            raise ValueError(
                f"pooling {self.pooling!r} needs use_cls_token=True; without a [CLS] token use pooling='mean'."
            )
        if self.pooling == "cls_distillation" and not self.num_register_tokens:
            raise ValueError("pooling 'cls_distillation' needs num_register_tokens=1, the distillation token; got 0.")
        if self.use_cls_position and not (self.use_cls_token and self.position_embedding_type == "learned"):
            raise ValueError(
                "use_cls_position=True needs use_cls_token=True and position_embedding_type='learned', got "
                f"use_cls_token={self.use_cls_token} and position_embedding_type={self.position_embedding_type!r}."
            )

    def _validate_merging(self) -> None:
        merging = self.token_merging
        if isinstance(merging, int):
            if merging < 0:
                raise ValueError(f"token_merging must be patches per block, 0 or more, got {merging}.")
        elif len(merging) != self.num_hidden_layers or min(merging) < 0:
            raise ValueError(
                f"token_merging must be one number or one for each of the {self.num_hidden_layers} blocks, 0 or more, "
                f"got {list(merging)}."
            )
        elif self.token_merging_schedule != "constant":
            raise ValueError(
                f"token_merging_schedule {self.token_merging_schedule!r} needs one number as token_merging, got "
                f"{list(merging)}, which is a schedule itself."
            )

    def to_dict(self) -> dict:
        """As of every transformers config, with the `auto_map` of all the classes that a saved folder serves.

        The map is written anew: the one that was loaded may point to another repository. Attributes that are no fields,
        which trainers and other tools leave on a configuration, are not written: they would be refused when loaded.
        """
        fields = {*self.field_defaults(), "out_features", "out_indices"}
        written = {key: value for key, value in super().to_dict().items() if key in fields or self._is_known(key)}
        written.pop("use_cache", None)
        return {**written, "auto_map": dict(self.code_map)}


@strict
class ViTScratchConfig(BackboneConfigMixin, EncoderConfig):
    """Configuration of the Vision Transformer of the article, and of its way to the original ViT.

    Without arguments it is the article's: `ViTScratchConfig(image_size=224, patch_size=16, embedding_dim=768,
    num_heads=12, ff_dim=3072, num_classes=2, depth=12)`. The article's names `embedding_dim`, `depth`, `num_heads`,
    `ff_dim` and `num_classes` are aliases of transformers' `hidden_size`, `num_hidden_layers`, `num_attention_heads`,
    `intermediate_size` and `num_labels`. The original ViT (Dosovitskiy et al. 2020, arXiv 2010.11929) is
    `norm_first=True, use_cls_position=True, use_final_layer_norm=True, initialization="truncated_normal",
    layer_norm_eps=1e-6`.

    Args:
        hidden_size: width of every token.
        num_hidden_layers: encoder blocks.
        num_attention_heads: attention heads; must divide `hidden_size`, unless `head_dim` is given.
        head_dim: width of a head; by default `hidden_size / num_attention_heads`.
        intermediate_size: width of the feed-forward network.
        hidden_act: its activation, a name that transformers knows; "gelu" is the exact one.
        use_swiglu_ffn: a gate (SwiGLU) instead of `hidden_act`; the network's first layer is twice as wide then.
        hidden_dropout_prob: dropout after the positions and on the output of each residual branch.
        attention_probs_dropout_prob: dropout on the attention probabilities.
        drop_path_rate: stochastic depth, the rate of the last block; it rises linearly from 0 at the first.
        patch_dropout: share of the patches that is left out in training, at random, where a vector of the whole image
            is asked for (backbones and masked image modelling keep all).
        token_merging: patches that each block merges away (ToMe), one number or one per block, in training, too; 0 for
            none. Every checkpoint can be loaded with another: `from_pretrained(…, token_merging=8)`.
        token_merging_schedule: "constant", or "decreasing" from twice `token_merging` in the first block to none in
            the last.
        layer_norm_eps: added to the variance in every LayerNorm.
        image_size: pixels, one number or `[height, width]`; each a multiple of the patch's.
        patch_size: pixels, one number or `[height, width]`.
        num_channels: channels of the image.
        patch_bias: whether the projection of the patches has a bias.
        use_dual_patch_norm: LayerNorm on the pixels of each patch, and on the vector that it becomes.
        qkv_bias: whether the projection to queries, keys and values has a bias.
        out_proj_bias: whether the projection of the attention's output has a bias.
        layerscale_value: factor of each residual branch's channels at first, learned (LayerScale); None for no factors.
        norm_first: LayerNorm before each branch (pre-norm, ViT) instead of after each sum (post-norm, the article).
        position_embedding_type: "learned", "sincos2d" (fixed) or "none".
        position_interpolation: how learned positions are fitted to images of another size: "bicubic_antialias"
            (timm's way), "bicubic" (transformers'), "bicubic_align_corners" (torchvision's) or
            "bilinear_align_corners" (that of Google's JAX code).
        interpolate_pos_encoding: whether images of any size are accepted and positions fitted to them, unless a call
            says otherwise (DINOv2's way).
        use_cls_token: whether a [CLS] token is put in front of the patches.
        use_cls_position: whether [CLS] has a learned position too (ViT); the article's has none.
        num_register_tokens: learned tokens between [CLS] and the patches, without positions; the distillation token of
            DeiT is one.
        use_pre_layer_norm: LayerNorm before the first block (CLIP).
        use_final_layer_norm: LayerNorm after the last block; pre-norm needs one.
        pooling: what the classification head reads: "cls" (the [CLS] token), "mean" (the mean of the patches),
            "mean_tokens" (of all tokens), "cls_mean" (both, side by side: DINOv2), "cls_distillation" (tokens 0 and 1,
            side by side: DeiT) or "attention" (what a learned query gathers: SigLIP).
        use_pooled_layer_norm: LayerNorm on what was pooled.
        pooler_output_size: width of a linear layer with tanh after that (ViT's representation layer); None for none.
        initialization: "article" (torch's defaults; positions and tokens unit-normal), "truncated_normal" (weights,
            positions and tokens with deviation `initializer_range`, biases 0: transformers' ViT) or "mimetic" (so, too,
            but attention and positions as in pretrained ViTs: for training from scratch on few images).
        initializer_range: deviation of "truncated_normal".
        encoder_stride: pixels per token that the decoder of masked image modelling paints; by default `patch_size`.
        out_features, out_indices: stages that a backbone returns ("stem", "stage1", … or 0, 1, …), as of every
            transformers backbone; by default the last.
        apply_layernorm: whether a backbone applies the final LayerNorm to the feature maps.
        reshape_hidden_states: whether a backbone's feature maps are (batch, hidden, rows, columns) or keep the shape
            (batch, tokens, hidden).
        **kwargs: the aliases above and transformers' own (`num_labels`, `id2label`, `label2id`, `problem_type`, …).

    Raises:
        ValueError: if the values cannot make a model, or a name is unknown.
    """

    model_type = "vit_scratch"
    code_map: ClassVar[dict[str, str]] = {
        "AutoConfig": "configuration_vit_scratch.ViTScratchConfig",
        "AutoModel": "modeling_vit_scratch.ViTScratchModel",
        "AutoModelForImageClassification": "modeling_vit_scratch.ViTScratchForImageClassification",
        "AutoModelForMaskedImageModeling": "modeling_vit_scratch.ViTScratchForMaskedImageModeling",
        "AutoBackbone": "modeling_vit_scratch.ViTScratchBackbone",
    }

    patch_size: int | list[int] | tuple[int, int] = 16
    use_dual_patch_norm: bool = False
    encoder_stride: int | list[int] | tuple[int, int] | None = None
    apply_layernorm: bool = True
    reshape_hidden_states: bool = True

    def __post_init__(self, out_features=None, out_indices=None, **kwargs):
        self._out_features, self._out_indices = None, None
        super().__post_init__(**kwargs)
        self.set_output_features_output_indices(out_features, out_indices)
        self.verify_out_features_out_indices()

    @property
    def stage_names(self) -> list[str]:
        """Names of the stages of a backbone: the embeddings ("stem"), then one per block."""
        return ["stem", *(f"stage{index}" for index in range(1, self.num_hidden_layers + 1))]

    def set_output_features_output_indices(self, out_features: list | None, out_indices: list | None) -> None:
        """Choose the stages that a backbone returns, by name or number; with neither, the last, whichever that is."""
        if out_features is None and out_indices is None:
            self._out_features, self._out_indices = None, None
        else:
            super().set_output_features_output_indices(out_features, out_indices)

    @property
    def out_features(self) -> list[str]:
        """Names of the stages that a backbone returns; the last one unless others are chosen."""
        return [self.stage_names[-1]] if self._out_features is None else self._out_features

    @out_features.setter
    def out_features(self, value: list[str] | None) -> None:
        self.set_output_features_output_indices(value, None)

    @property
    def out_indices(self) -> list[int]:
        """Numbers of these stages, as they were given: from 0, the embeddings; or from -1, the last block."""
        return [self.num_hidden_layers] if self._out_indices is None else self._out_indices

    @out_indices.setter
    def out_indices(self, value: list[int] | tuple[int, ...] | None) -> None:
        self.set_output_features_output_indices(None, value if value is None else list(value))

    def validate_architecture(self) -> None:
        """Check that the values together make a model, and that the stages of a backbone are there."""
        super().validate_architecture()
        self.verify_out_features_out_indices()

    def check_sizes(self) -> None:
        """Check the sizes of images and patches."""
        image, patch = height_and_width("image_size", self.image_size), height_and_width("patch_size", self.patch_size)
        if self.encoder_stride is not None:
            height_and_width("encoder_stride", self.encoder_stride)
        for side, pixels, of_patch in zip(("height", "width"), image, patch, strict=True):
            if pixels % of_patch:
                raise ValueError(
                    f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}: the {side} "
                    f"{pixels} leaves {pixels % of_patch} pixels over after patches of {of_patch}."
                )


def _indices(id2label: dict) -> dict[str, int]:
    return {str(label): int(index) for index, label in id2label.items()}


def _disagreement(num_labels: int | None, id2label: dict | None) -> str:
    return f"num_labels={num_labels} and id2label, which has {len(id2label or ())} names, do not agree: leave one out."


def height_and_width(name: str, value: int | list[int] | tuple[int, ...]) -> list[int]:
    """A size in pixels, one number or `[height, width]`, as both.

    Raises:
        ValueError: with the name of the setting, if it is neither.
    """
    size = [value, value] if isinstance(value, int) else list(value)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"{name} must be pixels, one number or [height, width], got {value}.")
    return size


__all__ = ["EncoderConfig", "ViTScratchConfig"]
