# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Images of different sizes in one batch: computed without their padding, and with the results that each has alone."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_modeling import assert_same, images, tiny
from transformers.modeling_outputs import BaseModelOutputWithPooling

from modeling_vit_scratch import (
    ViTScratchBackbone,
    ViTScratchForImageClassification,
    ViTScratchForMaskedImageModeling,
    ViTScratchModel,
    pad_images,
)
from modeling_vit_scratch.model import packing_vit_scratch
from modeling_vit_scratch.model.packing_vit_scratch import PackedSequence, is_worth_packing

PATCH = (6, 7)  # of the tiny models: height and width in pixels
SIZES = [(24, 35), (12, 49), (30, 14), (6, 7), (12, 49), (24, 35)]


def mixed(sizes=SIZES):
    return [images(1, *size, seed=index)[0] for index, size in enumerate(sizes)]


@pytest.fixture
def packing(monkeypatch):
    """Whether batches as small as these are packed, and the shapes of the sequences that the blocks then get."""
    shapes = []

    def pack(self, x):
        packed = original(self, x)
        shapes.append(tuple(packed.shape))
        return packed

    original = PackedSequence.enter
    monkeypatch.setattr(PackedSequence, "enter", pack)
    monkeypatch.setattr(packing_vit_scratch, "LEAST_SAVED", 1)
    return shapes


# --- The batch -------------------------------------------------------------------------------------------------------


def test_images_are_padded_at_the_right_and_below():
    first, second = torch.ones(3, 12, 7), torch.full((3, 6, 14), 2.0)
    batch = pad_images([first, second], PATCH)
    assert batch["pixel_values"].shape == (2, 3, 12, 14)
    assert torch.equal(batch["pixel_values"][0], F.pad(first, (0, 7)))
    assert torch.equal(batch["pixel_values"][1], F.pad(second, (0, 0, 0, 6)))
    assert batch["patch_attention_mask"].tolist() == [[True, False, True, False], [True, True, False, False]]
    assert batch["interpolate_pos_encoding"] is True


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ([], "there are no images to pad"),
        (
            [(3, 12, 7), (3, 12, 8)],
            r"image 1 of 12x8 pixels \(height x width\) cannot be cut into patches of 6x7: resize",
        ),
        ([(3, 0, 7)], "image 0 of 0x7 pixels"),
        ([(3, 12, 7), (1, 12, 7)], r"\(channels, height, width\).* but image 1 has \(1, 12, 7\) and torch.float32"),
        ([(3, 12, 7), (12, 7)], r"image 1 has \(12, 7\)"),
    ],
)
def test_images_that_cannot_be_padded_are_named(shapes, sentence):
    with pytest.raises(ValueError, match=sentence):
        pad_images([torch.zeros(shape) for shape in shapes], PATCH)


def test_images_may_be_arrays_and_share_one_dtype():
    arrays = [np.ones((3, 12, 7), np.float32), np.ones((3, 6, 14), np.float32)]
    assert pad_images((array for array in arrays), list(PATCH))["pixel_values"].dtype == torch.float32
    with pytest.raises(ValueError, match=r"dtype torch.uint8, but image 1 has \(3, 6, 7\) and torch.float32"):
        pad_images([torch.ones(3, 6, 7, dtype=torch.uint8), torch.rand(3, 6, 7)], PATCH)
    with pytest.raises(ValueError, match="patch_size must be at least 1 pixel, got 0"):
        pad_images(arrays, 0)


# --- The same answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "attention", "cls_mean"])
@pytest.mark.parametrize("encoding", ["learned", "sincos2d"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_are_those_of_each_image_alone(packing, attention, encoding, pooling, norm_first):
    fields = {"position_embedding_type": encoding, "pooling": pooling, "norm_first": norm_first}
    model = tiny(ViTScratchForImageClassification, **fields)
    model.set_attn_implementation(attention)
    alone = [model(image[None], interpolate_pos_encoding=True).logits for image in mixed()]
    together = model(**pad_images(mixed(), PATCH)).logits
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    tokens = [height * width // (6 * 7) + 1 for height, width in SIZES]
    assert packing == [(1, sum(tokens), 48)]


@pytest.mark.parametrize("num_register_tokens", [0, 2])
@pytest.mark.parametrize("use_cls_token", [True, False])
def test_all_that_the_base_model_returns_is_that_of_each_image_alone(packing, use_cls_token, num_register_tokens):
    fields = {"use_cls_token": use_cls_token, "num_register_tokens": num_register_tokens, "pooling": "mean"}
    model = tiny(ViTScratchModel, **fields)
    batch = pad_images(mixed(), PATCH)
    together = model(**batch, output_hidden_states=True)
    assert len(packing) == 1
    prefix = num_register_tokens + use_cls_token
    rows = F.pad(batch["patch_attention_mask"], (prefix, 0), value=True)
    for index, image in enumerate(mixed()):
        alone = model(image[None], interpolate_pos_encoding=True, output_hidden_states=True)
        mine = BaseModelOutputWithPooling(
            last_hidden_state=together.last_hidden_state[index, rows[index]][None],
            pooler_output=together.pooler_output[[index]],
            hidden_states=tuple(state[index, rows[index]][None] for state in together.hidden_states),
        )
        assert_same(mine, alone)


def test_maps_of_attention_are_between_the_tokens_of_the_padded_batch(packing):
    model, batch = tiny(ViTScratchModel), pad_images(mixed(), PATCH)
    maps = model(**batch, output_attentions=True).attentions
    assert not packing
    assert maps[0].shape == (6, 6, 36, 36)
    torch.testing.assert_close(model(**batch).last_hidden_state[:, 0], model(**batch, output_attentions=True)[0][:, 0])


def test_images_are_painted_and_mapped_as_they_are_alone(packing):
    batch = pad_images(mixed(), PATCH)
    painted = tiny(ViTScratchForMaskedImageModeling)(**batch).reconstruction
    mapped = tiny(ViTScratchBackbone)(
        batch["pixel_values"], patch_attention_mask=batch["patch_attention_mask"]
    ).feature_maps[0]
    assert len(packing) == 2
    for index, image in enumerate(mixed()):
        height, width = image.shape[1:]
        alone = tiny(ViTScratchForMaskedImageModeling)(image[None], interpolate_pos_encoding=True).reconstruction[0]
        torch.testing.assert_close(painted[index, :, :height, :width], alone, atol=1e-5, rtol=0)
        alone = tiny(ViTScratchBackbone)(image[None]).feature_maps[0][0]
        torch.testing.assert_close(mapped[index, :, : height // 6, : width // 7], alone, atol=1e-5, rtol=0)


def test_patches_may_be_missing_anywhere(packing):
    mask = torch.rand(3, 20, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[1] = False
    model = tiny(pooling="attention")
    packed = model(images(3), patch_attention_mask=mask).logits
    assert len(packing) == 1
    packing_vit_scratch.LEAST_SAVED = 10**9
    torch.testing.assert_close(packed, model(images(3), patch_attention_mask=mask).logits, atol=1e-5, rtol=0)
    assert len(packing) == 1


@pytest.mark.parametrize("checkpointed", [False, True], ids=["", "checkpointed"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_gradients_are_those_of_each_image_alone(packing, pooling, checkpointed):
    model = tiny(pooling=pooling, attention_probs_dropout_prob=0.0).train()
    if checkpointed:
        model.activation_checkpointing_enable()
    labels = torch.arange(6)
    model(**pad_images(mixed(), PATCH), labels=labels).loss.backward()
    together = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    assert packing
    model.zero_grad()
    for image, label in zip(mixed(), labels, strict=True):
        (model(image[None], interpolate_pos_encoding=True, labels=label[None]).loss / 6).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_an_image_without_a_token_stays_without_one(packing):
    model = tiny(use_cls_token=False, pooling="mean")
    mask = torch.zeros(3, 20, dtype=torch.bool)
    mask[0, :7] = True
    for _ in range(2):  # with one image that has patches, and with none
        packed = model(images(3), patch_attention_mask=mask).logits
        packing_vit_scratch.LEAST_SAVED = 10**9
        torch.testing.assert_close(
            packed[:1], model(images(3), patch_attention_mask=mask).logits[:1], atol=1e-5, rtol=0
        )
        assert packed.isfinite().all()
        packing_vit_scratch.LEAST_SAVED = 1
        mask[:] = False
    assert len(packing) == 1


def test_patch_dropout_and_stochastic_depth_are_each_image_own(packing):
    batch = pad_images([*([images(1, 6, 7)[0]] * 16), images(1)[0]], PATCH)
    fields = {"pooling": "mean", "attention_probs_dropout_prob": 0.0}
    dropping = tiny(patch_dropout=0.5, use_cls_token=False, **fields).train()
    logits = dropping(**batch).logits
    assert len(packing) == 1
    torch.testing.assert_close(logits[:16], logits[:1].expand(16, -1), atol=1e-5, rtol=0)  # their only patch stays
    skipping = tiny(drop_path_rate=0.5, **fields).train()
    logits = skipping(**batch).logits[:16]
    assert len({tuple(row) for row in logits.round(decimals=4).tolist()}) > 1
    assert len(packing) == 1
    skipping.eval()(**batch)
    assert len(packing) == 2


def test_a_compiled_or_exported_model_keeps_the_padding(packing):
    model, batch = tiny(), pad_images(mixed(), PATCH)
    expected = model(**batch).logits
    others = {**batch, "patch_attention_mask": batch["patch_attention_mask"].roll(1, dims=0)}  # the same graph does
    expected_of_others = model(**others).logits
    assert len(packing) == 2
    compiled = torch.compile(copy.deepcopy(model), backend="eager", fullgraph=True)
    for same in (compiled, torch.export.export(model, (), batch).module()):
        torch.testing.assert_close(same(**batch).logits, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(same(**others).logits, expected_of_others, atol=1e-5, rtol=0)
    assert len(packing) == 2


# --- When it pays ----------------------------------------------------------------------------------------------------


def test_only_as_much_padding_as_pays_is_left_out():
    mask = torch.ones(8, 200, dtype=torch.bool)
    assert not is_worth_packing(mask, 768, 1)
    mask[0, 199:] = False
    assert is_worth_packing(mask, 768, 1)  # one token of 768
    assert not is_worth_packing(mask, 192, 1)  # and one of 192
    mask[:, 150:] = False
    assert is_worth_packing(mask, 192, 1)
    assert not is_worth_packing(mask.to("meta"), 192, 1)
    mask[0, 0] = False
    assert not is_worth_packing(mask, 768, 1)  # [CLS] is read, whether or not it is attended to


def test_a_batch_without_padding_is_as_it_was(packing):
    model = tiny()
    ones = torch.ones(2, 20)
    assert_same(model(images(), patch_attention_mask=ones), model(images()), atol=0)
    assert not packing
