"""lucidrains: vit-pytorch's ViT and SimpleViT, as they are today and as they were in four older releases."""

import importlib.metadata
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
    importing_from,
    outputs_of,
    randomize,
    watch,
)

HEADS = {"num_attention_heads": NUM_HEADS}
# What is asked of each older release. Its mean is that of all tokens, [CLS] included, until [CLS] was left out.
OLD_RELEASES = {
    "0.40.2": {"cls_0_40": ("cls", {**HEADS, "pooling": "cls"})},
    "1.2.9": {"mean_1_2": ("mean", {**HEADS, "pooling": "mean_tokens"})},
    "1.10.1": {"mean_1_10": ("mean", {**HEADS, "pooling": "mean_tokens"})},
    "1.16.0": {"mean_1_16": ("mean", HEADS)},
}


def arguments(size: str, depth: int, **changes) -> dict:
    """Those of a tiny model; its heads are wider than WIDTH / NUM_HEADS."""
    return {
        "image_size": SIZES[size],
        "patch_size": PATCH_SIZE,
        "num_classes": NUM_CLASSES,
        "dim": WIDTH,
        "depth": depth,
        "heads": NUM_HEADS,
        "mlp_dim": MLP_WIDTH,
        "dim_head": 6,
        **changes,
    }


def run(model: torch.nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """One forward pass. A block is no module, but its last sum is that of what went in and out of its second half."""
    transformer = model.transformer
    head = model.mlp_head if hasattr(model, "mlp_head") else model.linear_head
    halves = [half for block in transformer.layers for half in block]
    # Until there was a LayerNorm after the blocks, one opened the head.
    classifier = head[-1] if isinstance(head, torch.nn.Sequential) else head
    logits, (*seen, whole, pooled) = watch(model, image, *halves, transformer, classifier)
    states = [seen[0][0], *(after + before for before, after in seen[1::2])]
    return outputs_of(states, whole[1] if hasattr(transformer, "norm") else None, pooled[0], logits)


def make(
    release: str, name: str, model: torch.nn.Module, outputs: dict[str, dict[str, np.ndarray]], facts: dict
) -> Case:
    def save(folder: Path) -> None:
        torch.save(model.state_dict(), folder / "model.pth")

    elsewhere = "the same weights in a model of this size"
    sizes = {size: "forward" if size == "trained" or len(outputs) == 1 else elsewhere for size in outputs}
    return Case("lucidrains", name, f"vit-pytorch {release}", save, outputs, sizes, facts)


def cases(images: dict[str, np.ndarray]) -> Iterator[Case]:
    """The cases of the release that is installed."""
    from vit_pytorch import SimpleViT, ViT

    release = importlib.metadata.version("vit-pytorch")
    wide = {**HEADS, "image_size": list(SIZES["wide"])}
    variants = {
        "cls": ("trained", {"depth": 2}, HEADS),
        "mean": ("trained", {"depth": 1, "pool": "mean"}, HEADS),
        "one_head": ("trained", {"depth": 1, "heads": 1, "dim_head": WIDTH}, {"num_attention_heads": 1}),
        "wide": ("wide", {"depth": 1}, wide),
    }
    for name, (size, changes, facts) in variants.items():
        model = randomize(ViT(**arguments(size, **changes)), f"lucidrains/{name}")
        yield make(release, name, model, {size: run(model, images[size])}, facts)

    models = {size: SimpleViT(**arguments(size, depth=1)).eval() for size in SIZES}
    randomize(models["trained"], "lucidrains/simple")
    for model in models.values():
        model.load_state_dict(models["trained"].state_dict())
    outputs = {size: run(model, images[size]) for size, model in models.items()}
    facts = {**HEADS, "image_size": SIZES["trained"][0]}
    yield make(release, "simple", models["trained"], outputs, facts)


def cases_of_old_release(images: dict[str, np.ndarray], folder: Path) -> Iterator[Case]:
    """The cases of an older release, which pip installed into a folder of its own."""
    (distribution,) = importlib.metadata.distributions(name="vit-pytorch", path=[str(folder)])
    if distribution.version not in OLD_RELEASES:
        raise ValueError(f"{folder} holds vit-pytorch {distribution.version}; wanted: {', '.join(OLD_RELEASES)}.")
    with importing_from(folder, "vit_pytorch") as vit_pytorch:
        for name, (pool, facts) in OLD_RELEASES[distribution.version].items():
            model = vit_pytorch.ViT(**arguments("trained", depth=1, pool=pool))
            randomize(model, f"lucidrains/{name}")
            yield make(distribution.version, name, model, {"trained": run(model, images["trained"])}, facts)
