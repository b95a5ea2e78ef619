"""The article: its VisionTransformer, with the `batch_first=True` that its prose means."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

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


class PatchEmbedding(nn.Module):
    """Patches to vectors."""

    def __init__(self, patch_size: int, embedding_dim: int):
        super().__init__()
        self.projection = nn.Conv2d(3, embedding_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x):
        return self.projection(x).flatten(2).transpose(1, 2)


class PositionalEncoding(nn.Module):
    """A learned vector for each patch."""

    def __init__(self, num_patches: int, embedding_dim: int):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(1, num_patches, embedding_dim))

    def forward(self, x):
        return x + self.positional_embedding


class AddClsToken(nn.Module):
    """A learned vector before the patches."""

    def __init__(self, embedding_dim: int):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, embedding_dim))

    def forward(self, x):
        return torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)


class TransformerEncoderBlock(nn.Module):
    """Attention and feed-forward network, each with LayerNorm after the sum."""

    def __init__(self, embedding_dim: int, num_heads: int, ff_dim: int, dropout: float = 0.1):
        super().__init__()
        self.attention = nn.MultiheadAttention(embedding_dim, num_heads, dropout=dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.ff = nn.Sequential(nn.Linear(embedding_dim, ff_dim), nn.GELU(), nn.Linear(ff_dim, embedding_dim))
        self.norm2 = nn.LayerNorm(embedding_dim)

    def forward(self, x):
        attended, _ = self.attention(x, x, x)
        x = self.norm1(x + attended)
        return self.norm2(x + self.ff(x))


class ClassificationHead(nn.Module):
    """The classes, from the first token."""

    def __init__(self, embedding_dim: int, num_classes: int):
        super().__init__()
        self.fc = nn.Linear(embedding_dim, num_classes)

    def forward(self, x):
        return self.fc(x[:, 0])


class VisionTransformer(nn.Module):
    """All of it, for images of `rows` and `columns` of patches."""

    def __init__(self, rows: int, columns: int, depth: int):
        super().__init__()
        self.patch_embedding = PatchEmbedding(PATCH_SIZE, WIDTH)
        self.positional_encoding = PositionalEncoding(rows * columns, WIDTH)
        self.cls_token = AddClsToken(WIDTH)
        self.encoder = nn.Sequential(*(TransformerEncoderBlock(WIDTH, NUM_HEADS, MLP_WIDTH) for _ in range(depth)))
        self.classification_head = ClassificationHead(WIDTH, NUM_CLASSES)

    def forward(self, x):
        x = self.cls_token(self.positional_encoding(self.patch_embedding(x)))
        return self.classification_head(self.encoder(x))


def cases(images: dict[str, np.ndarray]) -> Iterator[Case]:
    for name, size, depth in (("plain", "trained", 2), ("wide", "wide", 1)):
        height, width = SIZES[size]
        model = VisionTransformer(height // PATCH_SIZE, width // PATCH_SIZE, depth)
        randomize(model, f"article/{name}")
        logits, (*blocks, head) = watch(model, images[size], *model.encoder, model.classification_head.fc)
        outputs = outputs_of([blocks[0][0], *(output for _, output in blocks)], None, head[0], logits)
        facts = {"num_attention_heads": NUM_HEADS}
        if size == "wide":
            facts["image_size"] = [height, width]

        def save(folder: Path, model: nn.Module = model) -> None:
            torch.save(model.state_dict(), folder / "model.pth")

        peer = f"the article's VisionTransformer, {version(torch)}"
        yield Case("article", name, peer, save, {size: outputs}, {size: "forward"}, facts)
