"""Other libraries' Vision Transformers of a preset's size, each with the same weights in a model of ours.

Ours comes from the peer's own weights through `vit-scratch import`'s importer, so what is compared is what a user gets.
A library that is not installed has no peer; transformers and torch's own encoder are always there.
"""

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.porting import import_checkpoint
from modeling_vit_scratch.presets import preset_path

# What makes a preset the original ViT, in which all peers agree.
ORIGINAL_VIT = {
    "norm_first": True,
    "use_cls_position": True,
    "use_final_layer_norm": True,
    "attention_probs_dropout_prob": 0.0,
    "hidden_dropout_prob": 0.0,
    "layer_norm_eps": 1e-6,
}
Pair = tuple[ViTScratchForImageClassification, nn.Module]


def preset_config(preset: str) -> ViTScratchConfig:
    return ViTScratchConfig.from_pretrained(preset_path(preset), **ORIGINAL_VIT)


class Logits(nn.Module):
    """A model of transformers' kind that returns its logits alone, as the models of the other libraries do."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values).logits


def with_transformers(config: ViTScratchConfig) -> Pair:
    """The `ViTForImageClassification` of transformers, under its default attention kernel (sdpa), as ours is."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size", "patch_size")
    fields = {name: getattr(config, name) for name in (*names, "num_labels", "layer_norm_eps", "num_channels")}
    peer = ViTForImageClassification(ViTConfig(**fields))
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        return import_checkpoint(folder).model, Logits(peer)


def with_timm(config: ViTScratchConfig) -> Pair:
    """The `VisionTransformer` of timm."""
    from timm.models.vision_transformer import VisionTransformer

    peer = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=config.num_labels,
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        mlp_ratio=config.intermediate_size / config.hidden_size,
    )
    return imported(peer, config, "timm"), peer


def with_torchvision(config: ViTScratchConfig) -> Pair:
    """The `VisionTransformer` of torchvision."""
    from torchvision.models import VisionTransformer

    peer = VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        hidden_dim=config.hidden_size,
        mlp_dim=config.intermediate_size,
        num_classes=config.num_labels,
    )
    nn.init.trunc_normal_(peer.heads.head.weight, std=0.02)  # torchvision's own is zero, and so would the logits be
    return imported(peer, config, "torchvision"), peer


def with_vit_pytorch(config: ViTScratchConfig) -> Pair:
    """The `ViT` of lucidrains' vit-pytorch."""
    from vit_pytorch import ViT

    peer = ViT(
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=config.num_labels,
        dim=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        dim_head=config.hidden_size // config.num_attention_heads,
        mlp_dim=config.intermediate_size,
    )
    return imported(peer, config, "lucidrains"), peer


def imported(peer: nn.Module, config: ViTScratchConfig, format: str) -> ViTScratchForImageClassification:
    """Ours, with the weights of a peer."""
    told = {"num_attention_heads": config.num_attention_heads, "image_size": config.image_size, "pooling": "cls"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "weights.pth")
        torch.save(peer.state_dict(), file)
        return import_checkpoint(file, format=format, config_overrides={**told, "patch_size": config.patch_size}).model


class TorchEncoder(nn.Module):
    """Our model, with PyTorch's own `nn.TransformerEncoder` in the place of our blocks."""

    def __init__(self, model: ViTScratchForImageClassification):
        super().__init__()
        config, vit = model.config, model.vit
        self.patch_embedding, self.positional_encoding, self.cls_token = (
            vit.patch_embedding,
            vit.positional_encoding,
            vit.cls_token,
        )
        layer = nn.TransformerEncoderLayer(
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=config.layer_norm_eps,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, config.num_hidden_layers, enable_nested_tensor=False)
        for ours, theirs in zip(vit.encoder, self.encoder.layers, strict=True):
            theirs.self_attn.in_proj_weight.data.copy_(ours.attention.in_proj.weight)
            theirs.self_attn.in_proj_bias.data.copy_(ours.attention.in_proj.bias)
            for mine, other in (
                (ours.attention.out_proj, theirs.self_attn.out_proj),
                (ours.norm1, theirs.norm1),
                (ours.norm2, theirs.norm2),
                (ours.ff[0], theirs.linear1),
                (ours.ff[2], theirs.linear2),
            ):
                other.load_state_dict(mine.state_dict())
        self.norm, self.head = vit.norm, model.classification_head

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.cls_token(self.positional_encoding(self.patch_embedding(pixel_values)))
        return self.head(self.norm(self.encoder(x))[:, 0])


def with_torch(config: ViTScratchConfig) -> Pair:
    """PyTorch's `nn.TransformerEncoder`."""
    ours = ViTScratchForImageClassification(config)
    return ours, TorchEncoder(ours)


# Library -> what makes the pair.
PEERS: dict[str, Callable[[ViTScratchConfig], Pair]] = {
    "transformers": with_transformers,
    "torch": with_torch,
    "timm": with_timm,
    "torchvision": with_torchvision,
    "vit_pytorch": with_vit_pytorch,
}


def installed_peers() -> list[str]:
    return [name for name in PEERS if importlib.util.find_spec(name)]


def build_pair(peer: str, preset: str) -> Pair:
    """Our model and a peer of a preset's size with equal random weights."""
    torch.manual_seed(0)
    return PEERS[peer](preset_config(preset))
