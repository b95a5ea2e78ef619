# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Attention rollout, by hand and in other ways; where it lies on an image; what a model sees of one."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from pictures import noise, plain
from PIL import Image
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.inspection.attention import NoAttentionMapError, attention_map, attention_rollout
from modeling_vit_scratch.inspection.inputs import readable_size, seen_area, shown_input
from modeling_vit_scratch.inspection.overlays import overlay
from modeling_vit_scratch.model.merging_vit_scratch import MergedPatches

# 11 rows and 7 columns of patches.
SIZES = {
    "image_size": [22, 35],
    "patch_size": [2, 5],
    "embedding_dim": 12,
    "depth": 3,
    "num_heads": 3,
    "ff_dim": 16,
    "num_classes": 3,
}
PATCHES = 77


def model_of(seed: int = 0, **settings) -> ViTScratchForImageClassification:
    torch.manual_seed(seed)
    model = ViTScratchForImageClassification(ViTScratchConfig(**SIZES | settings)).eval()
    for block in model.vit.encoder:  # sharp attention, or every map would be nearly the same everywhere
        block.attention.in_proj.weight.data *= 4
    return model


def images(number: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, 3, 22, 35, generator=torch.Generator().manual_seed(seed))


def whole_product(attentions) -> torch.Tensor:
    """The matrix of the paper: (B, T, T), the share of each token of the image in each at the end."""
    eye = torch.eye(attentions[0].shape[-1])
    product = eye
    for probabilities in attentions:
        product = (0.5 * probabilities.mean(dim=1) + 0.5 * eye) @ product
    return product


# Rollout


def test_one_block_of_two_tokens_is_half_attention_and_half_skip_connection():
    attention = torch.tensor([[[[0.6, 0.4], [0.2, 0.8]]]])
    assert attention_rollout([attention], torch.tensor([[1.0, 0.0]])).tolist() == [pytest.approx([0.8, 0.2])]
    assert attention_rollout([attention], torch.tensor([[0.5, 0.5]])).tolist() == [pytest.approx([0.45, 0.55])]


def test_two_blocks_are_followed_from_the_last_to_the_first():
    first = torch.tensor([[[[0.6, 0.4], [0.2, 0.8]]]])
    last = torch.tensor([[[[0.5, 0.5], [0.0, 1.0]]]])
    # Before the last block 0.75 and 0.25, so 0.375 + (0.45 + 0.05) / 2 of the first token.
    rollout = attention_rollout([first, last], torch.tensor([[1.0, 0.0]]))
    assert rollout.tolist() == [pytest.approx([0.625, 0.375])]


def test_heads_count_alike():
    heads = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[0.2, 0.8], [0.0, 1.0]]]])
    assert attention_rollout([heads], torch.tensor([[1.0, 0.0]])).tolist() == [pytest.approx([0.8, 0.2])]


def test_it_is_a_row_of_the_product_of_all_blocks():
    generator = torch.Generator().manual_seed(0)
    attentions = [torch.rand(2, 3, 5, 5, generator=generator).softmax(-1) for _ in range(4)]
    for token in range(5):
        reading = torch.eye(5)[token].expand(2, -1)
        torch.testing.assert_close(attention_rollout(attentions, reading), whole_product(attentions)[:, token])


def test_half_precision_is_added_up_in_single_precision():
    attention = torch.full((1, 1, 4, 4), 0.25, dtype=torch.bfloat16)
    assert attention_rollout([attention], torch.full((1, 4), 0.25)).dtype == torch.float32


# Maps of our models


@pytest.mark.parametrize("token_merging", [0, 9], ids=["", "merging"])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_where_all_attend_to_all_alike_the_map_is_known(kernel, token_merging):
    model = model_of(token_merging=token_merging)
    model.set_attn_implementation(kernel)
    for block in model.vit.encoder:
        block.attention.in_proj.weight.data.zero_()
    # Each block halves the distance to 1 / tokens, and [CLS] starts with nothing of the patches.
    expected = (1 - 0.5**3) / (PATCHES + 1)
    torch.testing.assert_close(attention_map(model, images()), torch.full((2, 11, 7), expected))


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({}, {0: 1}),
        ({"num_register_tokens": 2}, {0: 1}),
        ({"num_register_tokens": 1, "pooling": "cls_distillation"}, {0: 0.5, 1: 0.5}),
        ({"pooling": "mean"}, dict.fromkeys(range(1, 78), 1 / 77)),
        ({"pooling": "mean", "use_cls_token": False}, dict.fromkeys(range(77), 1 / 77)),
        ({"pooling": "mean_tokens"}, dict.fromkeys(range(78), 1 / 78)),
        ({"pooling": "cls_mean"}, {0: 0.5} | dict.fromkeys(range(1, 78), 0.5 / 77)),
        ({"norm_first": True, "use_final_layer_norm": True, "layerscale_value": 0.1, "use_swiglu_ffn": True}, {0: 1}),
    ],
)
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_map_starts_from_what_the_head_reads(settings, shares, kernel):
    model = model_of(**settings)
    model.set_attn_implementation(kernel)
    prefix = model.config.num_prefix_tokens
    with torch.no_grad():
        product = whole_product(model(images(), output_attentions=True).attentions)
    expected = sum(share * product[:, token] for token, share in shares.items())[:, prefix:]
    result = attention_map(model, images())
    assert result.shape == (2, 11, 7)
    torch.testing.assert_close(result.flatten(1), expected)
    assert result.std() > 0.001  # patches do differ
    if prefix == 0:
        torch.testing.assert_close(result.sum(dim=(1, 2)), torch.ones(2))


@pytest.mark.parametrize("use_cls_token", [True, False])
def test_with_attention_pooling_it_starts_from_what_the_pooling_attends_to(use_cls_token):
    model = model_of(pooling="attention", use_cls_token=use_cls_token)
    with torch.no_grad():
        outputs = model.vit(images(), output_attentions=True)
        pool, prefix = model.vit.pooler.pool, int(use_cls_token)
        width = 4  # of a head
        patches = outputs.last_hidden_state[:, prefix:]
        query, keys = pool.query_proj(pool.query)[0, 0], pool.key_value_proj(patches)[..., :12]
        heads = [slice(width * head, width * (head + 1)) for head in range(3)]
        shares = sum((keys[..., head] @ query[head] / width**0.5).softmax(-1) for head in heads) / 3  # (B, N)
        product = whole_product(outputs.attentions)[:, prefix:, prefix:]
    expected = torch.einsum("bn,bnm->bm", shares, product)
    torch.testing.assert_close(attention_map(model, images()).flatten(1), expected)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("token_merging", [5, [30, 20, 7]], ids=["some", "many"])
def test_with_merging_it_is_the_map_of_the_merged_tokens(pooling, token_merging, monkeypatch):
    model = model_of(pooling=pooling, token_merging=token_merging, num_register_tokens=1)
    result = attention_map(model, images())
    # As the merged model has it: attention between its tokens, and which patches these were.
    merged = []
    monkeypatch.setattr(MergedPatches, "unmerge_attention", lambda self, maps: merged.append(self) or maps)
    with torch.no_grad():
        attentions = model.vit(images(), output_attentions=True).attentions
    assert attentions[-1].shape[-1] < attentions[0].shape[-1]
    for image in range(2):
        content = torch.eye(PATCHES + 2)  # what is in each token of each token at first
        for maps, patches in zip(attentions, merged, strict=True):
            # The mean of what stood for its patches before is what a token stands for.
            of = torch.nn.functional.one_hot(patches.index()[image]).float()  # (P + N, P + M)
            content = (of / of.sum(dim=0)).T @ content
            mixing = 0.5 * maps[image].mean(dim=0) + 0.5 * torch.eye(len(content))
            content = of @ mixing @ content  # each patch has what its token has
        expected = content[0] if pooling == "cls" else content[2:].mean(dim=0)
        torch.testing.assert_close(result[image].flatten(), expected[2:])


def test_an_image_has_its_map_whatever_else_is_in_the_batch():
    model = model_of()
    together = attention_map(model, images(3))
    for index in range(3):
        torch.testing.assert_close(attention_map(model, images(3)[index : index + 1])[0], together[index])


def test_one_patch_has_a_map_of_one_number():
    model = model_of(image_size=[2, 5])
    assert attention_map(model, images()[:, :, :2, :5]).shape == (2, 1, 1)


def test_asking_changes_nothing_in_the_model():
    model = model_of()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    settings, kernel = model.config.to_dict(), model.config._attn_implementation
    attention_map(model, images())
    assert (model.config.to_dict(), model.config._attn_implementation) == (settings, kernel)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert model(images()).attentions is None


def test_several_threads_get_the_maps_of_their_own_images():
    model = model_of()
    batches = [images(1, seed) for seed in range(12)]
    alone = [attention_map(model, batch) for batch in batches]
    with ThreadPoolExecutor(max_workers=4) as pool:
        together = list(pool.map(lambda batch: attention_map(model, batch), batches))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other)


# Maps of other models


def vit(**settings) -> ViTForImageClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 16}
    config = ViTConfig(**sizes, image_size=14, patch_size=2, initializer_range=0.5, **settings)
    return ViTForImageClassification(config).eval()


def test_the_vit_of_transformers_has_a_map_with_the_eager_kernel():
    model, batch = vit(attn_implementation="eager"), torch.randn(2, 3, 14, 14)
    with torch.no_grad():
        expected = whole_product(model(batch, output_attentions=True).attentions)[:, 0, 1:]
    torch.testing.assert_close(attention_map(model, batch), expected.unflatten(1, (7, 7)))


def test_attention_that_is_not_returned_is_said_to_be_missing():
    with pytest.raises(NoAttentionMapError, match="of type vit: it does not return its attention"):
        attention_map(vit(attn_implementation="sdpa"), torch.randn(1, 3, 14, 14))


def test_attention_within_windows_has_no_map():
    config = SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=2)
    config._attn_implementation = "eager"
    with pytest.raises(NoAttentionMapError, match="of type swin: its patches do not all attend to one another"):
        attention_map(SwinForImageClassification(config).eval(), torch.randn(1, 3, 16, 16))


def test_a_model_without_attention_has_no_map():
    config = ConvNextConfig(hidden_sizes=[4, 4, 4, 4], depths=[1, 1, 1, 1])
    with pytest.raises(NoAttentionMapError, match="it has no patches that attend to one another"):
        attention_map(ConvNextForImageClassification(config).eval(), torch.randn(1, 3, 32, 32))
    with pytest.raises(NoAttentionMapError, match="of a model in this precision"):
        attention_map(torch.nn.Identity(), torch.randn(1, 3, 32, 32))


# The picture


def brightest(picture: Image.Image) -> tuple[int, int]:
    """Row and column of the brightest place."""
    brightness = np.asarray(picture, dtype=float).sum(axis=2)
    return tuple(int(index) for index in np.unravel_index(brightness.argmax(), brightness.shape))


def test_the_highest_number_is_brightest_in_the_middle_of_its_patch():
    for row, column in ((0, 0), (2, 1), (4, 2)):
        heatmap = np.zeros((5, 3))
        heatmap[row, column] = 0.01
        picture = overlay(plain((90, 90, 90), (60, 50)), heatmap)
        assert (picture.size, picture.mode) == ((60, 50), "RGB")
        y, x = brightest(picture)
        assert (y // 10, x // 20) == (row, column)


def test_only_the_order_and_the_distances_of_the_numbers_matter():
    heatmap = np.random.default_rng(0).random((3, 5))
    image = noise((50, 30))
    one, other = (np.asarray(overlay(image, item), dtype=int) for item in (heatmap, 1e-4 * heatmap + 7.0))
    assert np.abs(one - other).max() <= 1
    assert overlay(image, torch.from_numpy(heatmap)).tobytes() == overlay(image, heatmap).tobytes()


def test_a_map_that_is_the_same_everywhere_shows_no_place():
    picture = np.asarray(overlay(plain((200, 100, 0), (8, 9)), np.full((2, 2), 0.3)))
    assert (picture == picture[0, 0]).all()


def test_the_map_lies_on_its_area_and_the_rest_is_darkened():
    heatmap = np.array([[0.0, 1.0], [0.0, 0.0]])
    picture = overlay(plain((200, 200, 200), (100, 60)), heatmap, (0.2, 0.0, 0.8, 1.0))
    pixels = np.asarray(picture)
    assert (pixels[:, :20] == 70).all()
    assert (pixels[:, 80:] == 70).all()
    y, x = brightest(picture)
    assert y < 30
    assert 50 < x < 80


def test_an_area_beyond_the_image_is_cut_off():
    picture = overlay(plain((200, 200, 200), (40, 40)), np.eye(2), (-0.5, -0.5, 1.5, 1.5))
    pixels = np.asarray(picture).sum(axis=2)
    assert pixels[0, 0] > pixels[0, -1] + 50  # the first patch ends in the middle, with the image's edge within it


def test_small_pictures_are_enlarged_by_whole_pixels_and_large_ones_reduced():
    small = noise((5, 3))
    enlarged = readable_size(small, 384, 1024)
    assert enlarged.size == (385, 231)
    assert enlarged.resize((5, 3), Image.Resampling.NEAREST).tobytes() == small.tobytes()
    assert readable_size(noise((2000, 7)), 384, 1024).size == (1024, 4)
    assert readable_size(noise((500, 400)), 384, 1024).size == (500, 400)


# What the model sees


def test_the_input_is_shown_as_it_was_before_it_was_normalised():
    picture = noise((35, 22))
    for settings in ({}, {"do_normalize": False}, {"do_normalize": False, "do_rescale": False}):
        mean, deviation = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
        processor = ViTImageProcessorPil(do_resize=False, image_mean=mean, image_std=deviation, **settings)
        [pixels] = processor(picture, return_tensors="pt")["pixel_values"]
        shown = shown_input(processor, pixels)
        assert shown.tobytes() == picture.tobytes()


CROP = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}


@pytest.mark.parametrize(
    ("settings", "size", "expected"),
    [
        ({}, (640, 480), (0, 0, 1, 1)),
        ({"size": {"height": 7, "width": 13}}, (3, 1000), (0, 0, 1, 1)),
        ({"do_resize": False}, (31, 17), (0, 0, 1, 1)),
        # Resized to 341 x 256, of which the middle 224 x 224.
        (CROP, (640, 480), (58.5 / 341, 16 / 256, 282.5 / 341, 240 / 256)),
        (CROP, (480, 640), (16 / 256, 58.5 / 341, 240 / 256, 282.5 / 341)),
        (CROP, (4, 4), (16 / 256, 16 / 256, 240 / 256, 240 / 256)),
        (
            {"do_resize": False, "do_center_crop": True, "crop_size": {"height": 10, "width": 20}},
            (40, 40),
            (0.25, 0.375, 0.75, 0.625),
        ),
    ],
)
def test_the_area_that_a_processor_takes_is_found(settings, size, expected):
    assert seen_area(ViTImageProcessorPil(**settings), size) == pytest.approx(expected, abs=0.006)


def test_of_a_processor_that_does_more_than_resize_and_crop_there_is_no_area():
    class Mirrored(ViTImageProcessorPil):
        def __call__(self, image, **options):
            return super().__call__(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), **options)

    assert seen_area(Mirrored(), (40, 30)) is None
    # Padded with black, since the crop is larger than the image.
    padded = ViTImageProcessorPil(do_resize=False, do_center_crop=True, crop_size={"height": 50, "width": 50})
    assert seen_area(padded, (40, 30)) is None
