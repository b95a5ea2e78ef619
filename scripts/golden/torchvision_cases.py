"""torchvision: its VisionTransformer, with and without a representation layer, and the key names of older files."""

import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

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
    outputs_of,
    randomize,
    version,
    watch,
)

# What MLPBlock itself renames when it loads a file of its first version.
OLD_NAMES = {r"\.mlp\.0\.": ".mlp.linear_1.", r"\.mlp\.3\.": ".mlp.linear_2."}


def build(size: str, depth: int, representation_size: int | None) -> torch.nn.Module:
    """A tiny model for square images of a size."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=SIZES[size][0],
        patch_size=PATCH_SIZE,
        num_layers=depth,
        num_heads=NUM_HEADS,
        hidden_dim=WIDTH,
        mlp_dim=MLP_WIDTH,
        num_classes=NUM_CLASSES,
        representation_size=representation_size,
    ).eval()


def run(model: torch.nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    logits, (*blocks, norm, head) = watch(model, image, *model.encoder.layers, model.encoder.ln, model.heads.head)
    return outputs_of([blocks[0][0], *(output for _, output in blocks)], norm[1], head[0], logits)


def with_old_names(state: OrderedDict) -> OrderedDict:
    """The weights under the names of older files, which have no version either."""
    renamed = OrderedDict()
    for key, value in state.items():
        for pattern, name in OLD_NAMES.items():
            key = re.sub(pattern, name, key)
        renamed[key] = value
    return renamed


def cases(images: dict[str, np.ndarray]) -> Iterator[Case]:
    import torchvision
    from torchvision.models.vision_transformer import interpolate_embeddings

    variants = {"plain": (2, None, False), "representation": (1, 6, False), "old_names": (1, None, True)}
    for name, (depth, representation_size, old) in variants.items():
        model = randomize(build("trained", depth, representation_size), f"torchvision/{name}")
        state = with_old_names(model.state_dict()) if old else model.state_dict()
        loaded = build("trained", depth, representation_size)
        loaded.load_state_dict(OrderedDict(state))
        outputs, sizes = {"trained": run(loaded, images["trained"])}, {"trained": "forward"}
        larger = build("larger", depth, representation_size)
        larger.load_state_dict(interpolate_embeddings(SIZES["larger"][0], PATCH_SIZE, model.state_dict()))
        outputs["larger"] = run(larger, images["larger"])
        sizes["larger"] = "interpolate_embeddings into a model of this size"

        def save(folder: Path, state: OrderedDict = state) -> None:
            torch.save(state, folder / "model.pth")

        facts = {"num_attention_heads": NUM_HEADS}
        yield Case("torchvision", name, version(torchvision), save, outputs, sizes, facts)
