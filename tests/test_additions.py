"""What other Vision Transformers add to the article's layers, each alone, against torch's own layers or by hand.

Sizes, all different: 3 images, 2 heads of width 7, tokens of width 14, 5 tokens of which 2 stand before the patches.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modeling_vit_scratch.model.additions_vit_scratch import (
    INTERPOLATIONS,
    AddRegisterTokens,
    AttentionPooling,
    LayerScale,
    PatchDropout,
    Pooler,
    SwiGLU,
    TokenPooling,
    resampling_weights,
)
from modeling_vit_scratch.model.layers_vit_scratch import (
    MultiHeadSelfAttention,
    PatchEmbedding,
    PositionalEncoding,
    TransformerEncoderBlock,
    eager_attention,
    fused_attention,
)

BATCH, HEADS, DIM, TOKENS, FF_DIM = 3, 2, 14, 5, 11


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(31)


def randomised(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module.eval()


def tokens() -> torch.Tensor:
    return torch.randn(BATCH, TOKENS, DIM)


# --- Patches and positions -------------------------------------------------------------------------------------------


def test_dual_patch_norm_normalises_the_pixels_of_each_patch_and_its_vector():
    layer = randomised(PatchEmbedding((4, 9), (2, 3), DIM, num_channels=2, dual_norm=True, layer_norm_eps=1e-3))
    images = torch.randn(BATCH, 2, 4, 9)
    patches = images.view(BATCH, 2, 2, 2, 3, 3).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # channels first
    pixels = F.layer_norm(patches, (12,), layer.pixel_norm.weight, layer.pixel_norm.bias, 1e-3)
    vectors = pixels @ layer.projection.weight.view(DIM, 12).T + layer.projection.bias
    expected = F.layer_norm(vectors, (DIM,), layer.norm.weight, layer.norm.bias, 1e-3)
    torch.testing.assert_close(layer(images), expected)


def test_patches_may_be_projected_without_a_bias():
    layer = PatchEmbedding(4, 2, DIM, bias=False)
    assert [name for name, _ in layer.named_parameters()] == ["projection.weight"]
    assert not layer(torch.zeros(1, 3, 4, 4)).any()


PEERS = {
    "bicubic_antialias": {"mode": "bicubic", "align_corners": False, "antialias": True},
    "bicubic": {"mode": "bicubic", "align_corners": False},
    "bicubic_align_corners": {"mode": "bicubic", "align_corners": True},
    "bilinear_align_corners": {"mode": "bilinear", "align_corners": True},
}


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("new", [(9, 11), (2, 3), (4, 12), (3, 5), (1, 1), (37, 2)])
@pytest.mark.parametrize("trained", [(3, 5), (1, 4), (8, 7)])
def test_positions_are_resampled_as_torch_interpolates(trained, new, interpolation):
    layer = PositionalEncoding(math.prod(trained), DIM, grid_size=trained, interpolation=interpolation)
    image = layer.positional_embedding.detach().view(1, *trained, DIM).permute(0, 3, 1, 2)
    expected = F.interpolate(image, size=new, **PEERS[interpolation]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(layer.resampled(new).detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_padded_image_gets_the_positions_that_it_would_get_alone(interpolation):
    together = resampling_weights(5, 7, torch.tensor([7, 3, 1]), interpolation)
    for row, extent in zip(together, (7, 3, 1), strict=True):
        alone = resampling_weights(5, extent, torch.tensor([extent]), interpolation)[0]
        torch.testing.assert_close(row[:extent], alone)
    torch.testing.assert_close(together.sum(-1), torch.ones(3, 7))


def test_an_unknown_interpolation_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"one of bicubic_antialias, .*, got 'nearest'"):
        PositionalEncoding(4, DIM, interpolation="nearest")


# --- Patch dropout ---------------------------------------------------------------------------------------------------


def numbered(batch: int, num_patches: int) -> torch.Tensor:
    """Patches of width 2 whose first number is their place, and whose second is that of their image."""
    places = torch.arange(num_patches).expand(batch, -1)
    return torch.stack((places, torch.arange(batch)[:, None].expand_as(places)), dim=-1).float()


@pytest.mark.parametrize(
    ("drop_prob", "num_patches", "num_kept"),
    [
        (0.0, 20, 20),
        (0.5, 20, 10),
        (0.25, 20, 15),
        (0.75, 196, 49),
        (0.5, 7, 4),  # 3.5
        (0.3, 7, 5),  # 4.9
        (0.9, 3, 1),  # 0.3
        (0.99, 1, 1),
    ],
)
def test_patch_dropout_keeps_the_same_number_of_patches_of_each_image(drop_prob, num_patches, num_kept):
    layer = PatchDropout(drop_prob)
    x, mask = layer(numbered(BATCH, num_patches))
    assert x.shape == (BATCH, num_kept, 2)
    assert mask is None
    assert layer.num_kept(num_patches) == num_kept
    assert layer.eval().num_kept(num_patches) == num_patches


def test_patches_that_are_kept_are_whole_in_order_and_of_their_image():
    x, _ = PatchDropout(0.4)(numbered(BATCH, 50))
    places, image = x.unbind(-1)
    assert (places.diff(dim=1) > 0).all()
    assert torch.equal(image, torch.arange(BATCH)[:, None].expand(BATCH, 30).float())


def test_each_image_loses_other_patches_and_each_patch_is_lost_as_often():
    layer = PatchDropout(0.75)
    x, _ = layer(numbered(4000, 8))
    kept = [tuple(row) for row in x[..., 0].int().tolist()]
    assert len(set(kept)) == 28  # all pairs of eight
    often = torch.bincount(x[..., 0].int().flatten(), minlength=8) / 4000
    torch.testing.assert_close(often, torch.full((8,), 0.25), atol=0.03, rtol=0)
    assert not torch.equal(layer(numbered(4000, 8))[0], x)  # another time


def test_an_image_among_larger_ones_keeps_a_share_of_its_own_patches():
    padding = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 1], [0, 7, 0, 0, 0, 0, 0, 0], [0] * 8, [1] * 8])
    for _ in range(20):
        x, mask = PatchDropout(0.5)(numbered(4, 8), padding)
        places = x[..., 0].long()
        assert (places.diff(dim=1) > 0).all()
        assert mask.dtype == padding.dtype
        assert mask.bool().sum(dim=1).tolist() == [2, 1, 0, 4]
        assert padding.gather(1, places)[mask.bool()].all()


def test_patch_dropout_leaves_the_seed_to_torch():
    layer = PatchDropout(0.5)
    torch.manual_seed(4)
    once = layer(numbered(BATCH, 20))[0]
    torch.manual_seed(4)
    assert torch.equal(layer(numbered(BATCH, 20))[0], once)


@pytest.mark.parametrize("layer", [PatchDropout(0.5).eval(), PatchDropout(0.0), PatchDropout()])
def test_patch_dropout_does_nothing_in_evaluation_or_at_0(layer):
    x, mask = numbered(BATCH, 5), torch.ones(BATCH, 5)
    state = torch.get_rng_state()
    same, same_mask = layer(x, mask)
    assert same is x
    assert same_mask is mask
    assert torch.equal(torch.get_rng_state(), state)


def test_patches_that_are_kept_receive_the_gradient():
    x = numbered(BATCH, 20).to(torch.bfloat16).requires_grad_()
    kept, _ = PatchDropout(0.5)(x)
    assert kept.dtype == torch.bfloat16
    kept.sum().backward()
    expected = torch.zeros(BATCH, 20, 2, dtype=torch.bfloat16)
    expected[torch.arange(BATCH)[:, None], kept[..., 0].long()] = 1
    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize("drop_prob", [-0.1, 1.0, 1.5, float("nan")])
def test_patch_dropout_must_leave_something(drop_prob):
    with pytest.raises(ValueError, match=rf"^drop_prob must be at least 0 and below 1, got {drop_prob}\.$"):
        PatchDropout(drop_prob)


def test_patch_dropout_shows_its_rate():
    assert str(PatchDropout(0.25)) == "PatchDropout(drop_prob=0.25)"


# --- Tokens and blocks -----------------------------------------------------------------------------------------------


def test_registers_stand_in_front_of_the_patches_the_same_for_each_image():
    layer = AddRegisterTokens(DIM, 2)
    patches = tokens()
    x = layer(patches)
    assert torch.equal(x[:, 2:], patches)
    assert torch.equal(x[:, :2], layer.register_tokens.expand(BATCH, 2, DIM))


def test_layer_scale_begins_at_its_value_and_scales_each_channel():
    layer = LayerScale(DIM, 0.25)
    x = tokens()
    assert torch.equal(layer(x), x / 4)
    with torch.no_grad():
        layer.gamma.copy_(torch.arange(DIM))
    assert torch.equal(layer(x)[..., 3], 3 * x[..., 3])


def test_swiglu_gates_the_second_half_by_the_first():
    x = torch.tensor([[1.0, -2.0, 3.0, 5.0]])
    gate = torch.tensor([[1 / (1 + math.exp(-1)), -2 / (1 + math.exp(2))]])
    torch.testing.assert_close(SwiGLU()(x), gate * torch.tensor([[3.0, 5.0]]))


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_scales_each_branch_before_it_is_added(norm_first):
    block = randomised(TransformerEncoderBlock(DIM, HEADS, FF_DIM, norm_first=norm_first, layer_scale=0.5))
    x = tokens()
    attended, _ = block.attention(block.norm1(x) if norm_first else x)
    middle = x + block.scale1.gamma * attended
    if not norm_first:
        middle = block.norm1(middle)
    expected = middle + block.scale2.gamma * block.ff(block.norm2(middle) if norm_first else middle)
    torch.testing.assert_close(block(x), expected if norm_first else block.norm2(expected))


def test_a_gated_feed_forward_network_has_a_first_layer_of_twice_the_width():
    block = TransformerEncoderBlock(DIM, HEADS, FF_DIM, activation=SwiGLU())
    assert block.ff[0].weight.shape == (2 * FF_DIM, DIM)
    assert block.ff[2].weight.shape == (DIM, FF_DIM)
    assert block(tokens()).shape == (BATCH, TOKENS, DIM)


@pytest.mark.parametrize("kernel", [eager_attention, fused_attention])
def test_heads_may_be_wider_or_narrower_than_their_share_of_the_tokens(kernel):
    attention = randomised(MultiHeadSelfAttention(DIM, 3, head_dim=4, out_bias=False))
    assert attention.in_proj.weight.shape == (36, DIM)
    assert attention.out_proj.bias is None
    x = tokens()
    query, key, value = attention.in_proj(x).view(BATCH, TOKENS, 3, 3, 4).permute(2, 0, 3, 1, 4)
    heads = F.softmax(query @ key.mT / 2, dim=-1) @ value  # the root of 4
    expected = heads.transpose(1, 2).flatten(2) @ attention.out_proj.weight.T
    torch.testing.assert_close(attention(x, kernel=kernel)[0], expected)


def test_what_is_off_has_no_parameters():
    names = [name for name, _ in TransformerEncoderBlock(DIM, HEADS, FF_DIM).named_parameters()]
    assert not [name for name in names if "scale" in name]
    assert not list(Pooler(TokenPooling(), DIM).parameters())


# --- Pooling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("cls", [100, -1]),
        ("mean", [4, 3]),
        ("mean_tokens", [27.75, 1.5]),
        ("cls_mean", [100, -1, 4, 3]),
        ("cls_distillation", [100, -1, 3, 1]),
    ],
)
def test_pooling_of_cls_a_register_and_two_patches(pooling, expected):
    x = torch.tensor([[[100.0, -1], [3, 1], [2, 5], [6, 1]]])
    assert TokenPooling(pooling, num_prefix_tokens=2)(x).tolist() == [expected]


def test_a_mean_of_all_tokens_leaves_out_padding_but_never_what_stands_in_front():
    x = torch.tensor([[[100.0, -1], [3, 1], [2, 5], [6, 1]]])
    patch_mask = torch.tensor([[1, 0]])
    assert TokenPooling("mean_tokens", num_prefix_tokens=2)(x, patch_mask).tolist() == [[35, pytest.approx(5 / 3)]]
    assert TokenPooling("cls_mean", num_prefix_tokens=2)(x, patch_mask).tolist() == [[100, -1, 2, 5]]


def attention_pooling() -> AttentionPooling:
    return randomised(AttentionPooling(DIM, HEADS, FF_DIM, num_prefix_tokens=2, layer_norm_eps=1e-3))


def test_attention_pooling_is_torch_multihead_attention_of_one_learned_query_over_the_patches():
    layer, x = attention_pooling(), tokens()
    peer = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat((layer.query_proj.weight, layer.key_value_proj.weight)))
        peer.in_proj_bias.copy_(torch.cat((layer.query_proj.bias, layer.key_value_proj.bias)))
        peer.out_proj.load_state_dict(layer.out_proj.state_dict())
    gathered = peer(layer.query.expand(BATCH, 1, DIM), x[:, 2:], x[:, 2:])[0][:, 0]
    expected = gathered + layer.ff(layer.norm(gathered))
    torch.testing.assert_close(layer(x), expected)


def test_attention_pooling_does_not_look_at_padding_or_registers():
    layer, x = attention_pooling(), tokens()
    mask = torch.tensor([[1, 1, 0]]).expand(BATCH, 3)
    changed = x.clone()
    changed[:, -1] = 7
    changed[:, :2] = -3
    torch.testing.assert_close(layer(changed, mask), layer(x, mask))
    torch.testing.assert_close(layer(x, mask), layer(x[:, :-1]))


def test_attention_pooling_wants_heads_that_divide_the_width():
    with pytest.raises(ValueError, match="embedding_dim 14 is not a multiple of num_heads 3"):
        AttentionPooling(DIM, 3, FF_DIM)


def test_the_pooler_normalises_then_projects_then_bends():
    pooler = randomised(Pooler(TokenPooling("cls_mean", 2), 2 * DIM, layer_norm_eps=1e-3, output_dim=9))
    x = tokens()
    pooled = torch.cat((x[:, 0], x[:, 2:].mean(dim=1)), dim=1)
    normalised = F.layer_norm(pooled, (2 * DIM,), pooler.norm.weight, pooler.norm.bias, 1e-3)
    torch.testing.assert_close(pooler(x), torch.tanh(F.linear(normalised, pooler.dense.weight, pooler.dense.bias)))
