# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The layers, each alone and in the article's order.

Sizes, all different: 3 images in a batch, 2 heads of width 7, tokens of width 14, 5 tokens, feed-forward width 11.
"""

import ast
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling_vit_scratch.model import additions_vit_scratch, layers_vit_scratch
from modeling_vit_scratch.model.additions_vit_scratch import (
    MaskPatches,
    StochasticDepth,
    TokenPooling,
    resampling_weights,
)
from modeling_vit_scratch.model.layers_vit_scratch import (
    AddClsToken,
    ClassificationHead,
    MultiHeadSelfAttention,
    PatchEmbedding,
    PositionalEncoding,
    TransformerEncoderBlock,
    eager_attention,
    fused_attention,
    height_width,
)

BATCH, HEADS, HEAD_DIM, DIM, TOKENS, FF_DIM = 3, 2, 7, 14, 5, 11
KERNELS = [eager_attention, fused_attention]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(20)


def randomised(module: nn.Module, std: float = 0.5) -> nn.Module:
    """The module in evaluation mode with every parameter drawn anew, so that no weight is 1 and no bias is 0."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module.eval()


def tokens() -> Tensor:
    return torch.randn(BATCH, TOKENS, DIM)


class ArticleBlock(nn.Module):
    """The article's encoder block, which attends over patches once `batch_first` is given."""

    def __init__(self, embedding_dim: int, num_heads: int, ff_dim: int, dropout: float = 0.1):
        super().__init__()
        self.attention = nn.MultiheadAttention(embedding_dim, num_heads, dropout=dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.ff = nn.Sequential(nn.Linear(embedding_dim, ff_dim), nn.GELU(), nn.Linear(ff_dim, embedding_dim))
        self.norm2 = nn.LayerNorm(embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, x, x)[0])
        return self.norm2(x + self.ff(x))


def as_article(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names as the article's: `nn.MultiheadAttention` keeps its projection as bare parameters."""
    return {key.replace("in_proj.", "in_proj_"): value for key, value in state_dict.items()}


# --- The article's dry run -------------------------------------------------------------------------------------------


def test_the_dry_run_of_the_article_has_its_shapes():
    shapes = []
    x = torch.randn(1, 3, 224, 224)
    for layer in (
        PatchEmbedding(224, 16, 768),
        PositionalEncoding(196, 768),
        AddClsToken(768),
        TransformerEncoderBlock(768, 12, 3072),
        ClassificationHead(768, 2),
    ):
        with torch.no_grad():
            x = layer.eval()(x)
        shapes.append(tuple(x.shape))
    assert shapes == [(1, 196, 768), (1, 196, 768), (1, 197, 768), (1, 197, 768), (1, 2)]


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (PatchEmbedding(6, 3, DIM), ["projection.weight", "projection.bias"]),
        (PositionalEncoding(4, DIM), ["positional_embedding"]),
        (AddClsToken(DIM), ["cls_token"]),
        (
            TransformerEncoderBlock(DIM, HEADS, FF_DIM),
            [
                "attention.in_proj.weight",
                "attention.in_proj.bias",
                "attention.out_proj.weight",
                "attention.out_proj.bias",
                "norm1.weight",
                "norm1.bias",
                "ff.0.weight",
                "ff.0.bias",
                "ff.2.weight",
                "ff.2.bias",
                "norm2.weight",
                "norm2.bias",
            ],
        ),
        (ClassificationHead(DIM, 2), ["fc.weight", "fc.bias"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_weights_have_the_names_of_the_article(layer, names):
    assert list(layer.state_dict()) == names


def test_the_attributes_have_the_names_of_the_article():
    embedding, block = PatchEmbedding(6, 3, DIM), TransformerEncoderBlock(DIM, HEADS, FF_DIM)
    assert isinstance(embedding.projection, nn.Conv2d)
    assert isinstance(embedding.flatten, nn.Flatten)
    assert embedding.num_patches == 4
    assert isinstance(block.norm1, nn.LayerNorm)
    assert isinstance(block.norm2, nn.LayerNorm)
    assert [type(layer) for layer in block.ff] == [nn.Linear, nn.GELU, nn.Linear]
    assert block.norm1.eps == block.norm2.eps == 1e-5


def test_the_layers_in_a_row_classify_each_image_by_itself():
    model = nn.Sequential(
        PatchEmbedding((6, 10), (2, 5), DIM),
        PositionalEncoding(6, DIM),
        AddClsToken(DIM),
        TransformerEncoderBlock(DIM, HEADS, FF_DIM),
        TransformerEncoderBlock(DIM, HEADS, FF_DIM),
        ClassificationHead(DIM, 4),
    ).eval()
    images = torch.randn(BATCH, 3, 6, 10)
    alone = torch.cat([model(image[None]) for image in images])
    assert alone.std(dim=0).min() > 0.01  # the images differ, so a leak from one to another would show
    torch.testing.assert_close(model(images), alone)


def test_every_parameter_of_every_layer_receives_a_gradient():
    embedding, mask = PatchEmbedding((6, 10), (2, 5), DIM), MaskPatches(DIM)
    positions, cls_token = PositionalEncoding(6, DIM, grid_size=(3, 2)), AddClsToken(DIM, position=True)
    block, head = TransformerEncoderBlock(DIM, HEADS, FF_DIM), ClassificationHead(DIM, 4)
    x = mask(embedding(torch.randn(BATCH, 3, 6, 10)), torch.arange(18).view(BATCH, 6) % 4 == 0)
    head(block(cls_token(positions(x)))).square().sum().backward()
    for layer in (embedding, mask, positions, cls_token, block, head):
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
    assert positions.positional_embedding.grad.any(dim=2).all()  # each place of its own


@pytest.mark.parametrize(
    ("module", "siblings"), [(layers_vit_scratch, {"additions_vit_scratch"}), (additions_vit_scratch, set())]
)
def test_the_layers_need_nothing_but_torch(module, siblings):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported - sys.stdlib_module_names == {"torch", *siblings}


# --- Step 1: patches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "expected"), [(7, (7, 7)), ((5, 3), (5, 3)), ([5, 3], (5, 3))])
def test_one_number_is_a_square_and_two_are_height_and_width(size, expected):
    assert height_width(size) == expected


def test_a_patch_is_its_pixels_times_the_flattened_kernel_row_by_row():
    layer = randomised(PatchEmbedding((6, 10), (2, 5), DIM, num_channels=4))
    images = torch.randn(BATCH, 4, 6, 10)
    kernel = layer.projection.weight.flatten(1)  # (14, 4 x 2 x 5)
    rows = []
    for top in (0, 2, 4):
        for left in (0, 5):
            pixels = images[:, :, top : top + 2, left : left + 5].flatten(1)
            rows.append(pixels @ kernel.T + layer.projection.bias)
    assert layer.grid_size == (3, 2)
    assert layer.num_patches == 6
    torch.testing.assert_close(layer(images), torch.stack(rows, dim=1))


def test_patches_are_cut_from_an_image_of_another_size():
    assert PatchEmbedding((6, 10), (2, 5), DIM)(torch.randn(1, 3, 8, 15)).shape == (1, 12, DIM)


@pytest.mark.parametrize(
    ("shape", "given"),
    [((1, 4, 6, 10), r"\(1, 4, 6, 10\)"), ((3, 6, 10), r"\(3, 6, 10\)"), ((1, 1, 3, 6, 10), r"\(1, 1, 3, 6, 10\)")],
    ids=["wrong channels", "no batch", "video"],
)
def test_a_tensor_that_is_not_a_batch_of_images_with_the_right_channels_is_refused(shape, given):
    with pytest.raises(ValueError, match=rf"\(batch, 3, height, width\), got {given}"):
        PatchEmbedding((6, 10), (2, 5), DIM)(torch.zeros(shape))


@pytest.mark.parametrize(("height", "width"), [(7, 10), (6, 11)])
def test_an_image_that_the_patch_does_not_divide_is_refused(height, width):
    with pytest.raises(ValueError, match=f"{height}x{width} pixels.*patches of 2x5"):
        PatchEmbedding((6, 10), (2, 5), DIM)(torch.zeros(1, 3, height, width))
    with pytest.raises(ValueError, match=f"{height}x{width} pixels.*patches of 2x5"):
        PatchEmbedding((height, width), (2, 5), DIM)


def test_the_projection_starts_as_a_torch_convolution():
    torch.manual_seed(1)
    ours = PatchEmbedding((6, 10), (2, 5), DIM).projection
    torch.manual_seed(1)
    peer = nn.Conv2d(3, DIM, kernel_size=(2, 5), stride=(2, 5))
    assert torch.equal(ours.weight, peer.weight)
    assert torch.equal(ours.bias, peer.bias)


def test_masked_patches_become_the_mask_token_and_the_others_stay():
    layer = MaskPatches(DIM)
    assert not layer.mask_token.any()
    randomised(layer)
    x = tokens()
    masked = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]])
    expected = x.clone()
    expected[0, 0] = expected[1, 1] = expected[1, 4] = layer.mask_token[0, 0].detach()
    assert torch.equal(layer(x, masked), expected)
    assert torch.equal(layer(x, masked.bool()), expected)
    assert layer(x.bfloat16(), masked).dtype == torch.bfloat16


# --- Step 2: positions -----------------------------------------------------------------------------------------------


def test_positions_are_unit_normal_and_added_to_each_patch():
    torch.manual_seed(2)
    layer = PositionalEncoding(TOKENS, DIM)
    torch.manual_seed(2)
    drawn = torch.randn(1, TOKENS, DIM)
    x = tokens()
    assert torch.equal(layer.positional_embedding, drawn)
    assert torch.equal(layer(x), x + drawn)


@pytest.mark.parametrize(("num_patches", "grid_size"), [(9, (3, 3)), (6, (1, 6))])
def test_patches_form_a_square_if_they_can_and_else_a_row(num_patches, grid_size):
    assert PositionalEncoding(num_patches, DIM).grid_size == grid_size


@pytest.mark.parametrize(
    ("trained", "new"),
    [
        ((3, 5), (7, 11)),  # both sides grow
        ((7, 11), (3, 5)),  # both sides shrink
        ((3, 7), (5, 2)),  # one grows, one shrinks
        ((5, 3), (3, 5)),  # as many patches as before, in another shape
        ((1, 6), (4, 13)),
        ((3, 5), (1, 1)),
    ],
)
def test_positions_on_another_grid_are_antialiased_bicubic_interpolation(trained, new):
    layer = PositionalEncoding(math.prod(trained), DIM, grid_size=trained)
    image = layer.positional_embedding.detach().view(1, *trained, DIM).permute(0, 3, 1, 2)
    peer = F.interpolate(image, size=new, mode="bicubic", antialias=True, align_corners=False)
    peer = peer.flatten(2).transpose(1, 2)
    torch.testing.assert_close(layer.resampled(new).detach(), peer, rtol=1e-4, atol=1e-5)
    x = torch.randn(BATCH, math.prod(new), DIM)
    torch.testing.assert_close(layer(x, new).detach(), x + peer, rtol=1e-4, atol=1e-5)


def test_positions_on_the_trained_grid_stay():
    layer = PositionalEncoding(15, DIM, grid_size=(3, 5))
    torch.testing.assert_close(layer.resampled((3, 5)), layer.positional_embedding)
    x = torch.randn(BATCH, 15, DIM)
    assert torch.equal(layer(x, (3, 5)), x + layer.positional_embedding)


def test_every_resampled_position_is_a_weighted_mean_of_the_trained_ones():
    weights = resampling_weights(5, 7, torch.tensor([7, 3, 1]))
    assert weights.shape == (3, 7, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 7))


def test_a_padded_image_gets_the_positions_that_it_would_get_alone():
    layer = PositionalEncoding(15, DIM, grid_size=(3, 5))
    extents = [(2, 7), (4, 3), (3, 5), (1, 1)]  # rows and columns of each image in a grid of 4 x 7
    x = torch.randn(len(extents), 28, DIM)
    together = layer(x, (4, 7), torch.tensor(extents)).view(-1, 4, 7, DIM)
    for image, positioned, (rows, columns) in zip(x.view(-1, 4, 7, DIM), together, extents, strict=True):
        alone = layer(image[:rows, :columns].reshape(1, -1, DIM), (rows, columns))
        torch.testing.assert_close(positioned[:rows, :columns].reshape(1, -1, DIM), alone)
    assert together.isfinite().all()


def test_resampled_positions_learn():
    layer = PositionalEncoding(15, DIM, grid_size=(3, 5))
    layer(torch.randn(BATCH, 28, DIM), (4, 7)).square().sum().backward()
    assert layer.positional_embedding.grad.any(dim=2).all()


@pytest.mark.parametrize("encoding", ["learned", "sincos2d", "none"])
def test_positions_keep_the_dtype_of_the_patches(encoding):
    layer = PositionalEncoding(15, 12, grid_size=(3, 5), encoding=encoding).bfloat16()
    assert layer(torch.randn(BATCH, 15, 12, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer(torch.randn(BATCH, 28, 12, dtype=torch.bfloat16), (4, 7)).dtype == torch.bfloat16


def test_sincos2d_is_sin_x_cos_x_sin_y_cos_y():
    layer = PositionalEncoding(6, 8, encoding="sincos2d", grid_size=(2, 3))
    expected = []
    for y in range(2):
        for x in range(3):
            row = [math.sin(x), math.sin(x / 10_000), math.cos(x), math.cos(x / 10_000)]
            row += [math.sin(y), math.sin(y / 10_000), math.cos(y), math.cos(y / 10_000)]
            expected.append(row)
    torch.testing.assert_close(layer(torch.zeros(1, 6, 8)), torch.tensor([expected]))
    patches = torch.randn(BATCH, 6, 8)
    torch.testing.assert_close(layer(patches), patches + torch.tensor([expected]))


def test_sincos2d_frequencies_fall_geometrically_from_1_to_1_over_10000():
    layer = PositionalEncoding(2, 12, encoding="sincos2d", grid_size=(1, 2))
    second = layer(torch.zeros(1, 2, 12))[0, 1]  # y = 0, x = 1
    expected = [math.sin(1), math.sin(0.01), math.sin(1e-4), math.cos(1), math.cos(0.01), math.cos(1e-4)]
    torch.testing.assert_close(second, torch.tensor([*expected, 0, 0, 0, 1, 1, 1]))


def test_sincos2d_fits_any_grid_and_learns_nothing():
    layer = PositionalEncoding(6, 8, encoding="sincos2d", grid_size=(2, 3))
    assert not list(layer.parameters())
    assert not layer.state_dict()
    larger = layer(torch.zeros(1, 20, 8), (4, 5)).view(4, 5, 8)
    torch.testing.assert_close(larger[:2, :3].reshape(1, 6, 8), layer(torch.zeros(1, 6, 8)))
    extent = torch.tensor([[3, 2]])  # absolute positions do not depend on what is padding
    assert torch.equal(layer(torch.zeros(1, 20, 8), (4, 5), extent)[0], larger.flatten(0, 1))


def test_without_positions_patches_pass_unchanged():
    layer = PositionalEncoding(TOKENS, DIM, encoding="none")
    x = tokens()
    assert not list(layer.parameters())
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("encoding", ["learned", "sincos2d", "none"])
def test_dropout_after_the_positions_acts_in_training_only(encoding):
    layer = PositionalEncoding(TOKENS, 12, encoding=encoding, dropout=0.5)
    x = torch.randn(BATCH, TOKENS, 12)
    positioned, dropped = layer.eval()(x), layer.train()(x)
    kept = dropped != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(dropped[kept], 2 * positioned[kept])


def test_an_unknown_encoding_is_refused():
    with pytest.raises(ValueError, match=r"'learned', 'sincos2d' or 'none', got 'rotary'"):
        PositionalEncoding(TOKENS, DIM, encoding="rotary")


def test_sincos2d_in_a_width_that_four_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 4, got 14"):
        PositionalEncoding(TOKENS, 14, encoding="sincos2d")


def test_a_grid_that_does_not_hold_the_patches_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) does not hold 5 patches"):
        PositionalEncoding(5, DIM, grid_size=(2, 3))


@pytest.mark.parametrize("encoding", ["learned", "sincos2d"])
@pytest.mark.parametrize("num_patches", [1, 14])
def test_patches_that_do_not_fill_the_grid_are_refused(num_patches, encoding):
    layer = PositionalEncoding(15, 12, grid_size=(3, 5), encoding=encoding)
    with pytest.raises(ValueError, match=rf"{num_patches} patches"):  # one patch would broadcast to all fifteen places
        layer(torch.zeros(BATCH, num_patches, 12))


# --- Step 3: the [CLS] token -----------------------------------------------------------------------------------------


def test_the_cls_token_is_unit_normal_and_stands_in_front():
    torch.manual_seed(3)
    layer = AddClsToken(DIM)
    torch.manual_seed(3)
    drawn = torch.randn(1, 1, DIM)
    x = tokens()
    out = layer(x)
    assert torch.equal(layer.cls_token, drawn)
    assert torch.equal(out[:, 0], drawn[:, 0].expand(BATCH, -1))
    assert torch.equal(out[:, 1:], x)


def test_the_cls_token_may_have_a_position():
    layer = AddClsToken(DIM, position=True)
    x = tokens()
    out = layer(x)
    assert list(layer.state_dict()) == ["cls_token", "cls_position"]
    assert torch.equal(out[:, :1], (layer.cls_token + layer.cls_position).expand(BATCH, 1, DIM))
    assert torch.equal(out[:, 1:], x)


# --- Step 4: attention -----------------------------------------------------------------------------------------------


def test_attention_by_hand():
    # Two tokens, 0 and s with s^2 = sqrt(2) ln 3, and identity projections in two dimensions: the second token's scores
    # are 0 for the first token and s^2 / sqrt(2) = ln 3 for itself, so it attends with 1/4 and 3/4.
    attention = MultiHeadSelfAttention(2, 1).eval()
    with torch.no_grad():
        attention.in_proj.weight.copy_(torch.eye(2).repeat(3, 1))
        attention.out_proj.weight.copy_(torch.eye(2))
    s = math.sqrt(math.sqrt(2) * math.log(3))
    output, probabilities = attention(torch.tensor([[[0.0, 0.0], [s, 0.0]]]), kernel=eager_attention)
    torch.testing.assert_close(probabilities, torch.tensor([[[[1 / 2, 1 / 2], [1 / 4, 3 / 4]]]]))
    torch.testing.assert_close(output, torch.tensor([[[s / 2, 0], [s * 3 / 4, 0]]]))


@pytest.mark.parametrize("kernel", KERNELS)
def test_attention_is_that_of_torch(kernel):
    ours = randomised(MultiHeadSelfAttention(DIM, HEADS))
    peer = nn.MultiheadAttention(DIM, HEADS, batch_first=True).eval()
    peer.load_state_dict(as_article(ours.state_dict()))
    x = tokens()
    output, probabilities = ours(x, kernel=kernel)
    peer_output, peer_probabilities = peer(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(output, peer_output)
    if kernel is eager_attention:
        torch.testing.assert_close(probabilities, peer_probabilities)
        assert probabilities.shape == (BATCH, HEADS, TOKENS, TOKENS)
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(BATCH, HEADS, TOKENS))
    else:
        assert probabilities is None


def additive(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape).masked_fill(~mask, -math.inf)


PADDING = torch.tensor([[1, 1, 1, 1, 0], [1, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool().view(BATCH, 1, 1, TOKENS)
MASKS = {
    "none": None,
    "padding": PADDING,
    "padding, added": additive(PADDING),
    "a token sees itself and those before it": torch.ones(TOKENS, TOKENS).tril().bool(),
    "per head": torch.ones(BATCH, HEADS, TOKENS, TOKENS).triu(-1).bool(),
    "a bias, added": torch.linspace(-1, 1, HEADS * TOKENS * TOKENS).view(1, HEADS, TOKENS, TOKENS),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_eager_and_fused_attention_agree(mask):
    attention = randomised(MultiHeadSelfAttention(DIM, HEADS))
    x = tokens()
    torch.testing.assert_close(attention(x, mask, eager_attention)[0], attention(x, mask, fused_attention)[0])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mask", [PADDING, additive(PADDING)], ids=["boolean", "added"])
def test_a_masked_token_has_no_influence(kernel, mask):
    block = randomised(TransformerEncoderBlock(DIM, HEADS, FF_DIM))
    x = tokens()
    other = torch.where(PADDING.view(BATCH, TOKENS, 1), x, 9 * torch.randn_like(x))
    keep = PADDING.view(BATCH, TOKENS)
    assert not torch.allclose(block(x, None, kernel)[keep], block(other, None, kernel)[keep], atol=1e-3)
    torch.testing.assert_close(block(x, mask, kernel)[keep], block(other, mask, kernel)[keep])


def test_attention_dropout_drops_probabilities_in_training_only():
    attention = MultiHeadSelfAttention(DIM, HEADS, dropout=0.5)
    x = tokens()
    probabilities = attention.eval()(x, kernel=eager_attention)[1]
    dropped = attention.train()(x, kernel=eager_attention)[1]
    kept = dropped != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(dropped[kept], 2 * probabilities[kept])


def test_fused_attention_drops_in_training_only():
    attention, x = MultiHeadSelfAttention(DIM, HEADS, dropout=0.5), tokens()
    assert torch.equal(attention.eval()(x)[0], attention(x)[0])
    assert not torch.allclose(attention.train()(x)[0], attention(x)[0], atol=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_does_not_drop_outside_training_whatever_it_is_told(kernel):
    query = torch.randn(BATCH, HEADS, TOKENS, HEAD_DIM)
    module = nn.Identity().eval()
    dropping = kernel(module, query, query, query, None, dropout=0.5, scaling=0.3)[0]
    assert torch.equal(dropping, kernel(module, query, query, query, None, dropout=0.0, scaling=0.3)[0])


def test_dropout_of_the_block_acts_nowhere_but_on_the_probabilities():
    block = TransformerEncoderBlock(DIM, HEADS, FF_DIM, 0.5)
    rates = []

    def without_dropout(*args, dropout, **kwargs):
        rates.append(dropout)
        return eager_attention(*args, **kwargs)

    x = tokens()
    trained = block.train()(x, None, without_dropout)
    assert torch.equal(trained, block.eval()(x, None, without_dropout))
    assert rates == [0.5, 0.0]
    assert TransformerEncoderBlock(DIM, HEADS, FF_DIM).attention.dropout == 0.1


def test_a_kernel_is_told_what_the_block_was_told():
    def kernel(module, query, key, value, attention_mask, *, extra, **kwargs):
        assert extra == "for the kernel"
        assert query.shape == key.shape == value.shape == (BATCH, HEADS, TOKENS, HEAD_DIM)
        return fused_attention(module, query, key, value, attention_mask, **kwargs)

    block = TransformerEncoderBlock(DIM, HEADS, FF_DIM).eval()
    x = tokens()
    assert torch.equal(block(x, None, kernel, extra="for the kernel"), block(x))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="14 is not a multiple of num_heads 3"):
        MultiHeadSelfAttention(14, 3)


def test_the_projection_to_queries_keys_and_values_may_have_no_bias():
    names = list(TransformerEncoderBlock(DIM, HEADS, FF_DIM, qkv_bias=False).attention.state_dict())
    assert names == ["in_proj.weight", "out_proj.weight", "out_proj.bias"]


def test_attention_starts_as_that_of_torch():
    ours, peer = MultiHeadSelfAttention(DIM, HEADS), nn.MultiheadAttention(DIM, HEADS)
    limit = math.sqrt(6 / (DIM + 3 * DIM))  # Xavier: over the fused projection, not over each third of it
    assert 0.9 * limit < ours.in_proj.weight.abs().max() <= limit
    assert ours.out_proj.weight.abs().max() <= 1 / math.sqrt(DIM)
    torch.manual_seed(4)
    ours.reset_parameters()
    torch.manual_seed(4)
    nn.init.xavier_uniform_(peer.in_proj_weight)
    peer.out_proj.reset_parameters()
    assert torch.equal(ours.in_proj.weight, peer.in_proj_weight)
    assert torch.equal(ours.out_proj.weight, peer.out_proj.weight)
    assert not ours.in_proj.bias.any()
    assert not ours.out_proj.bias.any()


# --- Step 4: the block -----------------------------------------------------------------------------------------------


def normalised(x: Tensor, norm: nn.LayerNorm, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * norm.weight + norm.bias


def fed_forward(x: Tensor, ff: nn.Sequential) -> Tensor:
    x = x @ ff[0].weight.T + ff[0].bias
    x = x * (1 + torch.erf(x / math.sqrt(2))) / 2  # the exact GELU
    return x @ ff[2].weight.T + ff[2].bias


def test_the_block_normalises_after_each_sum_as_the_article_does():
    block = randomised(TransformerEncoderBlock(DIM, HEADS, FF_DIM))
    x = tokens()
    middle = normalised(x + block.attention(x)[0], block.norm1, 1e-5)
    expected = normalised(middle + fed_forward(middle, block.ff), block.norm2, 1e-5)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_a_pre_norm_block_normalises_the_input_of_each_branch():
    block = randomised(TransformerEncoderBlock(DIM, HEADS, FF_DIM, norm_first=True, layer_norm_eps=0.3))
    x = tokens()
    middle = x + block.attention(normalised(x, block.norm1, 0.3))[0]
    expected = middle + fed_forward(normalised(middle, block.norm2, 0.3), block.ff)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_block_of_the_article_with_the_same_weights_gives_the_same_output(kernel):
    ours, article = randomised(TransformerEncoderBlock(DIM, HEADS, FF_DIM)), ArticleBlock(DIM, HEADS, FF_DIM).eval()
    article.load_state_dict(as_article(ours.state_dict()))
    x = tokens()
    torch.testing.assert_close(ours(x, None, kernel), article(x))


def test_the_activation_is_the_one_given():
    block = randomised(TransformerEncoderBlock(DIM, HEADS, FF_DIM, activation=nn.ReLU()))
    x = tokens()
    expected = torch.relu(x @ block.ff[0].weight.T + block.ff[0].bias) @ block.ff[2].weight.T + block.ff[2].bias
    torch.testing.assert_close(block.ff(x), expected)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("rate", ["hidden_dropout", "drop_path"])
def test_dropping_both_branches_leaves_the_skip_connections(rate, norm_first):
    almost_one = {rate: 1 - 1e-9}
    block = randomised(TransformerEncoderBlock(DIM, HEADS, FF_DIM, norm_first=norm_first, **almost_one))
    x = tokens()
    expected = x if norm_first else block.norm2(block.norm1(x))
    assert not torch.allclose(block(x), expected, atol=1e-3)
    torch.testing.assert_close(block.train()(x), expected)


def test_stochastic_depth_drops_whole_images_and_keeps_the_expectation():
    images = 10_000
    out = StochasticDepth(0.25).train()(torch.ones(images, 2, 3))
    assert torch.equal(out, out[:, :1, :1].expand_as(out))  # a whole image or nothing of it
    torch.testing.assert_close(out.unique(), torch.tensor([0, 4 / 3]))
    standard_error = math.sqrt(0.25 / 0.75 / images)
    assert abs(out[:, 0, 0].mean() - 1) < 4 * standard_error


@pytest.mark.parametrize(("rate", "training"), [(0.25, False), (0.0, True)])
def test_stochastic_depth_is_the_identity_in_evaluation_and_at_rate_zero(rate, training):
    x = tokens()
    assert StochasticDepth(rate).train(training)(x) is x


@pytest.mark.parametrize("rate", [1.0, -0.1, 1.5])
def test_a_stochastic_depth_that_keeps_nothing_or_is_no_probability_is_refused(rate):
    with pytest.raises(ValueError, match=str(rate)):  # at rate one, what is kept would be 0 / 0
        StochasticDepth(rate)


# --- Step 5: the head ------------------------------------------------------------------------------------------------

# Two images of [CLS] and three patches, of width 2.
POOLED = torch.tensor([[[100, -1], [1, 3], [2, 5], [6, 1]], [[200, -2], [4, 0], [8, 2], [0, 7]]], dtype=torch.float)


def test_cls_pooling_takes_the_first_token():
    assert TokenPooling()(POOLED).tolist() == [[100, -1], [200, -2]]


def test_mean_pooling_leaves_out_the_cls_token():
    assert TokenPooling("mean")(POOLED).tolist() == [[3, 3], [4, 3]]


def test_mean_pooling_without_a_cls_token_takes_every_token():
    assert TokenPooling("mean", num_prefix_tokens=0)(POOLED[:, 1:]).tolist() == [[3, 3], [4, 3]]


def test_mean_pooling_leaves_out_padding():
    patch_mask = torch.tensor([[1, 0, 1], [1, 1, 0]])
    assert TokenPooling("mean")(POOLED, patch_mask).tolist() == [[3.5, 2], [6, 1]]
    assert TokenPooling("mean")(POOLED, patch_mask.bool()).tolist() == [[3.5, 2], [6, 1]]
    assert TokenPooling("cls")(POOLED, patch_mask).tolist() == [[100, -1], [200, -2]]


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match=r"pooling must be one of cls, mean, .*, got 'max'"):
        TokenPooling("max")


def test_the_head_is_a_linear_layer_on_the_cls_token():
    head = randomised(ClassificationHead(2, 3))
    torch.testing.assert_close(head(POOLED), POOLED[:, 0] @ head.fc.weight.T + head.fc.bias)


def test_the_head_may_read_the_mean_of_the_patches():
    head = randomised(ClassificationHead(2, 3, pool=TokenPooling("mean")))
    means = torch.tensor([[3.0, 3], [4, 3]])
    torch.testing.assert_close(head(POOLED), means @ head.fc.weight.T + head.fc.bias)


def test_a_head_without_classes_returns_the_pooled_token():
    head = ClassificationHead(2, 0)
    assert not list(head.parameters())
    assert torch.equal(head(POOLED), POOLED[:, 0])
