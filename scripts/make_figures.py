"""The pictures of the walkthrough, from the checkpoint of the quickstart.

python scripts/make_figures.py [CHECKPOINT] [--output FOLDER]
"""

import argparse
from pathlib import Path

import torch

from modeling_vit_scratch.data.dataset_loading import load_images
from modeling_vit_scratch.data.images import read_image
from modeling_vit_scratch.hub.checkpoint import load_checkpoint
from modeling_vit_scratch.inspection.embeddings import patch_filters, position_similarity
from modeling_vit_scratch.inspection.explaining import explain
from modeling_vit_scratch.inspection.overlays import distances, filters, heatmaps, on_image, patch_grid, similarities

# Of the test split.
ROW = 5
DPI = 100


def make_figures(checkpoint: str, folder: Path) -> list[Path]:
    """Draw them all; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    model, processor, _ = load_checkpoint(checkpoint)
    image = read_image(load_images("digits")["test"][ROW]["image"])
    found = explain(model, processor, image)
    blocks, heads = (range(1, number + 1) for number in found.attention.shape[:2])
    rows, columns = [f"block {number}" for number in blocks], [f"head {number}" for number in heads]
    alike = position_similarity(model)
    assert alike is not None  # the article's positions are learned
    figures = {
        "filters": filters(patch_filters(model), "What the patch embedding looks for"),
        "positions": similarities(alike, "How alike the positions are"),
        "attention": heatmaps(found.attention, rows, columns, "Attention of [CLS] to the patches"),
        "distance": distances(found.distance, "How far the heads look"),
    }
    pictures = {
        "patches": patch_grid(found.seen, model.vit.patch_embedding.patch_size),
        "rollout": on_image(image, found.seen, found.area, found.rollout),
        "relevance": on_image(image, found.seen, found.area, found.relevance),
    }
    files = {name: folder / f"walkthrough-{name}.png" for name in (*figures, *pictures)}
    for name, figure in figures.items():
        figure.savefig(files[name], dpi=DPI)
    for name, picture in pictures.items():
        picture.save(files[name])
    return list(files.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/walkthrough.md.")
    parser.add_argument("checkpoint", nargs="?", default="outputs/digits")
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    print(*make_figures(arguments.checkpoint, arguments.output), sep="\n")


if __name__ == "__main__":
    main()
