"""Images of different sizes in one batch: as our models compute them, padded, and all resized to the largest."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from modeling_vit_scratch import ViTScratchForImageClassification, pad_images
from modeling_vit_scratch.model import encoder_vit_scratch
from peers import preset_config
from timing import beside, compare, with_range


def mixed_images(image_size: int, patch_size: int, batch: int, smallest: float) -> list[Tensor]:
    """Random images, each side any number of patches from a share of the largest to the whole of it."""
    generator = torch.Generator().manual_seed(0)
    most = image_size // patch_size
    sides = torch.randint(max(1, round(smallest * most)), most + 1, (batch, 2), generator=generator)
    sides[0] = most  # or nothing would have to be padded to the size that all are resized to
    return [torch.randn(3, *size, generator=generator) for size in (sides * patch_size).tolist()]


def benchmark_mixed_sizes(preset: str, batch: int, smallest: float, rounds: int) -> list[dict[str, Any]]:
    """Rows of the table: the same images three ways, the logits of ours asserted equal to those of each alone."""
    torch.manual_seed(0)
    model = ViTScratchForImageClassification(preset_config(preset)).eval()
    config = model.config
    images = mixed_images(config.image_size, config.patch_size, batch, smallest)
    padded = pad_images(images, config.patch_size)
    resized = torch.randn(batch, 3, config.image_size, config.image_size)

    def ours() -> Tensor:
        with torch.inference_mode():
            return model(**padded).logits

    def all_padded() -> Tensor:
        with mock.patch.object(encoder_vit_scratch, "is_worth_packing", return_value=False):
            return ours()

    def all_resized() -> Tensor:
        with torch.inference_mode():
            return model(resized).logits

    with torch.inference_mode():
        alone = torch.cat([model(image[None], interpolate_pos_encoding=True).logits for image in images])
    torch.testing.assert_close(ours(), alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(all_padded(), alone, rtol=0, atol=1e-5)
    sides: dict[str, Callable[[], Any]] = {"ours": ours, "padding all": all_padded, "resizing all": all_resized}
    for side in sides.values():
        side()
    times = compare(sides, rounds, "cpu")
    about = {
        "label": f"{preset}, sides of {smallest:.0%} to 100%, batch {batch}",
        "mode": "mixed-sizes",
        "model": preset,
        "batch": batch,
        "smallest": smallest,
        "share_of_patches": padded["patch_attention_mask"].float().mean().item(),
    }
    return [{**about, **beside(times, other, batch)} for other in list(sides)[1:]]


HEADER = (
    "| model | batch | sides | patches of images | beside | ours, images/s | theirs, images/s | ratio (range) |\n"
    "|---|---|---|---|---|---|---|---|"
)


def table_row(row: dict[str, Any]) -> str:
    speeds, ratio = row["images_per_second"], with_range(row["ratio"], row["ratio_range"])
    return (
        f"| {row['model']} | {row['batch']} | {row['smallest']:.0%} to 100% | {row['share_of_patches']:.0%} | "
        f"{row['peer']} | {speeds['ours']:.1f} | {speeds['peer']:.1f} | {ratio} |"
    )
