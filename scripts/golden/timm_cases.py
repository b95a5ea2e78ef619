"""timm: one case for each family of architectures, shrunk by arguments of `create_model`, saved for the Hub."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from golden.common import (
    MLP_WIDTH,
    NUM_CLASSES,
    NUM_HEADS,
    PATCH_SIZE,
    SIZES,
    WIDTH,
    Case,
    importing_from,
    outputs_of,
    randomize,
    version,
    watch,
)

TINY = {
    "img_size": SIZES["trained"][0],
    "patch_size": PATCH_SIZE,
    "embed_dim": WIDTH,
    "depth": 1,
    "num_heads": NUM_HEADS,
    "mlp_ratio": MLP_WIDTH / WIDTH,
    "num_classes": NUM_CLASSES,
}
# The folder of each case: the architecture, and what its family has that others have not.
ARCHITECTURES = {
    "plain": ("vit_base_patch16_224", {"depth": 2}),
    "mean_fc_norm": ("vit_base_patch16_224", {"global_pool": "avg"}),
    "no_qkv_bias": ("vit_base_patch16_224_miil", {}),
    "gap": ("vit_medium_patch16_gap_256", {}),
    "registers_gap": ("vit_mediumd_patch16_reg4_gap_256", {}),
    "registers_with_positions": ("vit_so150m_patch16_reg4_gap_256", {}),
    "registers_map": ("vit_so150m_patch16_reg4_map_256", {}),
    "clip": ("vit_base_patch32_clip_224", {}),
    "clip_quickgelu": ("vit_base_patch32_clip_quickgelu_224", {}),
    "deit3": ("deit3_small_patch16_224", {}),
    "deit_distilled": ("deit_tiny_distilled_patch16_224", {}),
    "siglip": ("vit_base_patch16_siglip_224", {}),
    "siglip_tanh": ("vit_so400m_patch16_siglip_256", {}),
    "siglip_gap": ("vit_base_patch16_siglip_gap_224", {}),
    "dinov2_swiglu": ("vit_giant_patch14_dinov2", {"num_classes": 0}),
    "dinov2_registers": ("vit_small_patch14_reg4_dinov2", {"num_classes": 0}),
    "flexivit": ("flexivit_small", {}),
}
LABELS = {
    "label_names": ["apple", "pear", "plum", "quince", "medlar"],
    "label_descriptions": {"apple": "a pome", "pear": "a pome", "plum": "a drupe"},
}


def run(model: torch.nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """One forward pass; the last hidden state comes after `norm`, which does nothing where `fc_norm` follows."""
    logits, (*blocks, norm, head) = watch(model, image, *model.blocks, model.norm, model.head)
    states = [blocks[0][0], *(output for _, output in blocks)]
    # Two heads read two tokens, so there is no one vector that they read.
    pooled = None if hasattr(model, "head_dist") else head[0]
    return outputs_of(states, norm[1], pooled, logits if model.num_classes else None)


def make(
    timm: ModuleType, name: str, architecture: str, changes: dict, images: dict[str, np.ndarray], facts: dict
) -> Case:
    """A case, made by the given release of timm."""
    arguments = {**TINY, **changes}
    model = randomize(timm.create_model(architecture, **arguments), f"timm/{name}")
    outputs, sizes = {"trained": run(model, images["trained"])}, {"trained": "forward"}
    resizing = timm.create_model(architecture, **arguments, dynamic_img_size=True).eval()
    resizing.load_state_dict(model.state_dict())
    for size in ("larger", "wide"):
        outputs[size], sizes[size] = run(resizing, images[size]), "the same weights with dynamic_img_size=True"

    def save(folder: Path) -> None:
        labels = LABELS if name == "plain" else {}
        timm.models.save_for_hf(model, folder, model_config=dict(labels), safe_serialization=True)

    return Case("timm", name, version(timm), save, outputs, sizes, facts)


def cases(images: dict[str, np.ndarray]) -> Iterator[Case]:
    """The cases of the release that is installed."""
    import timm

    for name, (architecture, changes) in ARCHITECTURES.items():
        yield make(timm, name, architecture, changes, images, facts={})


def cases_of_old_release(images: dict[str, np.ndarray], folder: Path) -> Iterator[Case]:
    """An export of a release that wrote no `model_args`: neither heads nor image size are those of the architecture."""
    with importing_from(folder, "timm") as timm:
        facts = {"num_attention_heads": NUM_HEADS, "image_size": SIZES["trained"][0]}
        yield make(timm, "old_export", "vit_base_patch16_224", {}, images, facts)
