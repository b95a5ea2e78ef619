"""What an engineer may expect of the models: the numbers of transformers' ViT, and all that its users do with it."""

import copy
import inspect
import math
import re
from typing import Unpack

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoBackbone, AutoModel, AutoModelForImageClassification, AutoModelForMaskedImageModeling
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask
from transformers.modeling_utils import AttentionInterface
from transformers.utils.generic import TransformersKwargs, find_labels

from modeling_vit_scratch import (
    ViTScratchBackbone,
    ViTScratchConfig,
    ViTScratchForImageClassification,
    ViTScratchForMaskedImageModeling,
    ViTScratchModel,
)
from modeling_vit_scratch.model.additions_vit_scratch import TokenPooling
from modeling_vit_scratch.model.layers_vit_scratch import eager_attention

# 2 images of 3 channels, 4 x 5 patches of 6 x 7 pixels, width 48, 6 heads of 8, 3 blocks, 9 labels: no two axes alike.
TINY = {
    "image_size": [24, 35],
    "patch_size": [6, 7],
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 56,
    "num_labels": 9,
}
VIT = {"norm_first": True, "use_cls_position": True, "use_final_layer_norm": True}
NO_CLS = {"use_cls_token": False, "pooling": "mean"}
TASKS = [ViTScratchModel, ViTScratchForImageClassification, ViTScratchForMaskedImageModeling, ViTScratchBackbone]
SWITCHES = [
    {},
    VIT,
    NO_CLS,
    {"pooling": "mean"},
    {"qkv_bias": False},
    {"position_embedding_type": "sincos2d"},
    {"position_embedding_type": "none"},
    {"use_final_layer_norm": True, "hidden_act": "relu"},
    {"initialization": "truncated_normal", "norm_first": True},
    {"patch_bias": False, "use_dual_patch_norm": True},
    {"num_register_tokens": 2, "pooling": "cls_mean", "position_interpolation": "bicubic"},
    {"num_register_tokens": 1, "pooling": "cls_distillation", "use_pooled_layer_norm": True},
    {**NO_CLS, "num_register_tokens": 3, "pooling": "attention"},
    {"layerscale_value": 0.1, "use_swiglu_ffn": True, **VIT},
    {"head_dim": 5, "out_proj_bias": False, "use_pre_layer_norm": True},
    {"pooling": "mean_tokens", "pooler_output_size": 13, "initialization": "truncated_normal"},
]


def tiny(task=ViTScratchForImageClassification, **fields):
    torch.manual_seed(0)
    return task(ViTScratchConfig(**{**TINY, **fields})).eval()


def images(batch=2, height=24, width=35, channels=3, seed=1):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def padding_mask():
    """The first image covers 2 of the 4 rows of patches, the second 3 of the 5 columns."""
    mask = torch.ones(2, 4, 5, dtype=torch.bool)
    mask[0, 2:] = False
    mask[1, :, 3:] = False
    return mask.flatten(1)


def masked_patches():
    return torch.arange(40).view(2, 20) % 3 == 0


def tensors(outputs):
    """Every tensor of a model's output, in order."""
    flat = []
    for value in outputs.values() if isinstance(outputs, dict) else outputs:
        flat += tensors(value) if isinstance(value, (tuple, list)) else [value]
    return flat


def assert_same(outputs, expected, atol=1e-5):
    outputs, expected = tensors(outputs), tensors(expected)
    assert len(outputs) == len(expected) > 0
    for output, reference in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, reference, atol=atol, rtol=0)


# --- The transformers ViT is the reference ---------------------------------------------------------------------------

THEIR_NAMES = {
    r"embeddings\.cls_token": "cls_token.cls_token",
    r"embeddings\.mask_token": "mask_patches.mask_token",
    r"embeddings\.patch_embeddings": "patch_embedding",
    r"vit\.layernorm": "vit.norm",
    r"layers\.": "encoder.",
    r"o_proj": "out_proj",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"mlp\.fc1": "ff.0",
    r"mlp\.fc2": "ff.2",
    r"classifier": "classification_head.fc",
}


def our_names(their_state):
    """The state dict of a transformers ViT under our names."""
    ours = {}
    for name, value in their_state.items():
        if name.endswith("position_embeddings"):
            ours["vit.cls_token.cls_position"] = value[:, :1]
            ours["vit.positional_encoding.positional_embedding"] = value[:, 1:]
        elif ".q_proj." in name:
            rows = [their_state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            name = re.sub(r"layers\.(\d+)\.attention\.q_proj", r"encoder.\1.attention.in_proj", name)
            ours[name] = torch.cat(rows)
        elif ".k_proj." not in name and ".v_proj." not in name:
            for theirs, renamed in THEIR_NAMES.items():
                name = re.sub(theirs, renamed, name)
            ours[name] = value
    return ours


def peers(their_task, our_task, image_size, **fields):
    """A transformers ViT with random weights, biases and norms included, and ours with the same."""
    fields = {**TINY, "image_size": image_size, "patch_size": 6, "layer_norm_eps": 1e-6, **fields}
    torch.manual_seed(2)
    theirs = their_task(transformers.ViTConfig(**fields, encoder_stride=6, attn_implementation="eager")).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.15)
    dropout = {"attention_probs_dropout_prob": 0.0, **VIT}
    ours = our_task(ViTScratchConfig(**{**dropout, **fields}, attn_implementation="eager")).eval()
    ours.load_state_dict(our_names(theirs.state_dict()), strict=True)
    return theirs, ours


@pytest.mark.parametrize("fields", [{}, {"qkv_bias": False}, {"hidden_act": "quick_gelu"}, {"layer_norm_eps": 1e-2}])
def test_the_classifier_computes_what_transformers_vit_does(fields):
    theirs, ours = peers(
        transformers.ViTForImageClassification, ViTScratchForImageClassification, image_size=[24, 30], **fields
    )
    wanted = {"labels": torch.tensor([8, 3]), "output_hidden_states": True, "output_attentions": True}
    theirs_in, ours_in = (images(width=30).requires_grad_() for _ in range(2))
    expected, outputs = theirs(theirs_in, **wanted), ours(ours_in, **wanted)
    assert list(outputs) == list(expected) == ["loss", "logits", "hidden_states", "attentions"]
    assert_same(outputs, expected)
    expected.loss.backward()
    outputs.loss.backward()
    torch.testing.assert_close(ours_in.grad, theirs_in.grad, atol=1e-5, rtol=0)
    gradients = our_names({name: p.grad for name, p in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_base_model_computes_what_transformers_vit_does():
    theirs, ours = peers(transformers.ViTForImageClassification, ViTScratchForImageClassification, image_size=[24, 30])
    wanted = {"output_hidden_states": True, "output_attentions": True}
    expected, outputs = theirs.vit(images(width=30), **wanted), ours.vit(images(width=30), **wanted)
    assert list(expected) == ["last_hidden_state", "hidden_states", "attentions"]
    assert torch.equal(outputs.pooler_output, outputs.last_hidden_state[:, 0])  # what the head reads
    assert [name for name in outputs if name != "pooler_output"] == list(expected)
    assert_same({name: outputs[name] for name in expected}, expected)


def token_masks():
    """Of [CLS] and 20 patches: padding on the right, on the left with [CLS], and here and there."""
    right, left, mixed = (torch.ones(2, 21) for _ in range(3))
    right[0, 15:], left[1, :4], mixed[:, 1::3] = 0, 0, 0
    return {"right": right, "left": left, "mixed": mixed}


@pytest.mark.parametrize("side", token_masks())
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_an_attention_mask_is_that_of_transformers_vit(side, kernel):
    sides = peers(transformers.ViTForImageClassification, ViTScratchForImageClassification, image_size=[24, 30])
    for model in sides:
        model.set_attn_implementation(kernel)
    theirs, ours = (model(images(width=30), attention_mask=token_masks()[side]).logits for model in sides)
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(sides[1](images(width=30)).logits, theirs, atol=1e-3)


def test_a_mask_of_patches_is_one_of_the_tokens_behind_cls():
    model, patches = tiny(), padding_mask()
    expected = model(images(), attention_mask=F.pad(patches, (1, 0), value=True)).logits
    for mask in (patches, patches.unflatten(1, (4, 5)), patches.long()):
        torch.testing.assert_close(model(images(), patch_attention_mask=mask).logits, expected)
    both = model(images(), attention_mask=token_masks()["mixed"], patch_attention_mask=patches).logits
    one = model(images(), attention_mask=token_masks()["mixed"] * F.pad(patches, (1, 0), value=True)).logits
    torch.testing.assert_close(both, one)


@pytest.mark.parametrize("task", TASKS)
def test_a_mask_of_patches_by_its_old_name_still_does_and_says_so(task):
    model = tiny(task)
    expected = model(images(), patch_attention_mask=padding_mask())
    with pytest.warns(FutureWarning, match="attention_mask has one number for each patch: that is the patch_attention"):
        assert_same(model(images(), attention_mask=padding_mask()), expected)


def test_where_each_token_is_a_patch_the_two_masks_are_one():
    # With fitted positions, too: each image gets those that it would get alone.
    model = tiny(**NO_CLS)
    alone = model(images(1, 12, 35), interpolate_pos_encoding=True).logits
    batch, mask = 100 * images(1), torch.zeros(1, 4, 5)
    batch[:, :, :12], mask[:, :2] = images(1, 12, 35), 1
    for name in ("attention_mask", "patch_attention_mask"):
        logits = model(batch, interpolate_pos_encoding=True, **{name: mask.flatten(1)}).logits
        torch.testing.assert_close(logits, alone, atol=1e-5, rtol=0)


def test_a_mask_by_its_old_name_does_not_replace_the_one_by_its_new_name():
    with pytest.raises(ValueError, match=r"attention_mask .* \(2, 21\), got \(2, 20\)"):
        tiny()(images(), attention_mask=torch.ones(2, 20), patch_attention_mask=padding_mask())


@pytest.mark.parametrize("fields", [{}, NO_CLS, {"token_merging": 2}, {"num_register_tokens": 2}], ids=str)
def test_what_is_not_attended_to_changes_nothing_but_itself(fields):
    model, inputs = tiny(**fields), images().requires_grad_()
    prefix = model.config.num_prefix_tokens
    mask = torch.ones(2, prefix + 20)
    mask[0, prefix + 3], mask[1, prefix:] = 0, torch.arange(20) % 2
    (gradient,) = torch.autograd.grad(model(inputs, attention_mask=mask).logits.sum(), inputs)
    cells = F.unfold(gradient, (6, 7), stride=(6, 7)).abs().sum(dim=1)  # (2, 20)
    assert torch.equal(cells > 0, mask[:, prefix:] > 0)


@pytest.mark.parametrize("fields", SWITCHES, ids=str)
@pytest.mark.parametrize("task", TASKS)
def test_a_batch_may_be_empty(task, fields):
    model = tiny(task, **fields)
    outputs = model(images()[:0], output_hidden_states=True, output_attentions=True)
    first = next(iter(outputs.values()))
    assert (first[0] if isinstance(first, tuple) else first).shape[0] == 0
    if task is ViTScratchForImageClassification:
        assert model(images()[:0]).logits.shape == (0, 9)
        assert model.train()(images()[:0], labels=torch.zeros(0, dtype=torch.long)).logits.shape == (0, 9)


@pytest.mark.parametrize(
    "fields", [{"token_merging": 3}, {"patch_dropout": 0.5}, {"drop_path_rate": 0.2}, {"pooling": "attention"}], ids=str
)
def test_an_empty_batch_may_be_padded_merged_and_trained_on(fields):
    for mode in (False, True):
        model = tiny(**fields).train(mode)
        for masks in ({}, {"patch_attention_mask": padding_mask()[:0]}, {"attention_mask": torch.ones(0, 21)}):
            assert model(images()[:0], interpolate_pos_encoding=True, **masks).logits.shape == (0, 9)


def test_masked_image_modeling_computes_what_transformers_vit_does():
    theirs, ours = peers(transformers.ViTForMaskedImageModeling, ViTScratchForMaskedImageModeling, image_size=24)
    masked = torch.arange(32).view(2, 16) % 3 == 0
    theirs_in, ours_in = (images(width=24).requires_grad_() for _ in range(2))
    expected, outputs = theirs(theirs_in, masked), ours(ours_in, masked)
    assert list(outputs) == list(expected) == ["loss", "reconstruction"]
    assert_same(outputs, expected)
    expected.loss.backward()
    outputs.loss.backward()
    torch.testing.assert_close(ours_in.grad, theirs_in.grad, atol=1e-5, rtol=0)
    assert_same(ours(images(width=24)), theirs(images(width=24)))


OUR_OWN = ("only_pooled", "patch_attention_mask")


def test_arguments_have_the_order_and_names_of_transformers_vit():
    tasks = [
        (transformers.ViTModel, ViTScratchModel),
        (transformers.ViTForImageClassification, ViTScratchForImageClassification),
        (transformers.ViTForMaskedImageModeling, ViTScratchForMaskedImageModeling),
    ]
    for theirs, ours in tasks:
        names = [name for name in inspect.signature(ours.forward).parameters if name not in OUR_OWN]
        assert names == list(inspect.signature(theirs.forward).parameters)
        assert inspect.signature(ours.forward).parameters["kwargs"].annotation == Unpack[TransformersKwargs]


# --- Attention kernels -----------------------------------------------------------------------------------------------


@pytest.fixture
def kernel_calls():
    """A kernel registered with transformers as users do, `recorded`; the fixture lists what it was called with."""
    calls = []

    def recorded(module, query, key, value, attention_mask, **kwargs):
        calls.append({"module": module, "query": query, "mask": attention_mask, **kwargs})
        mask = None if attention_mask is None else attention_mask[:, None, None].bool()
        return eager_attention(module, query, key, value, mask, **kwargs)[0], None

    AttentionInterface.register("recorded", recorded)
    AttentionMaskInterface.register("recorded", flash_attention_mask)
    yield calls
    del AttentionInterface._global_mapping["recorded"], AttentionMaskInterface._global_mapping["recorded"]


def test_the_default_kernel_is_sdpa():
    assert tiny().config._attn_implementation == "sdpa"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mask", [None, padding_mask()], ids=["unmasked", "masked"])
def test_eager_and_sdpa_agree(task, mask):
    model = tiny(task)
    expected = model(images(), patch_attention_mask=mask)
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"
    assert_same(model(images(), patch_attention_mask=mask), expected)


@pytest.mark.parametrize("mask", [None, padding_mask()], ids=["unmasked", "masked"])
def test_a_registered_kernel_is_called_as_flash_attention_is(kernel_calls, mask):
    model = tiny()
    expected = model(images(), patch_attention_mask=mask).logits
    model.set_attn_implementation("recorded")
    torch.testing.assert_close(model(images(), patch_attention_mask=mask).logits, expected)
    assert len(kernel_calls) == 3
    for call in kernel_calls:
        # The classifier reads [CLS] of the last block alone; a mask of this kind cannot be cut to it.
        only_cls = mask is None and call is kernel_calls[-1]
        assert call["query"].shape == (2, 6, 1 if only_cls else 21, 8)
        assert call["scaling"] == 8**-0.5
        assert call["dropout"] == 0.0
        assert not call.get("is_causal", call["module"].is_causal)
        assert call["module"].config is model.config
        if mask is None:
            assert call["mask"] is None
        else:  # one entry per token, [CLS] included
            assert torch.equal(call["mask"], F.pad(mask, (1, 0), value=True))
    model.train()(images())
    assert kernel_calls[-1]["dropout"] == 0.1


def test_further_keywords_reach_the_kernel_as_in_transformers_vit(kernel_calls):
    theirs, ours = peers(transformers.ViTForImageClassification, ViTScratchForImageClassification, image_size=24)
    kernel_calls.clear()
    for model in (theirs, ours):
        model.set_attn_implementation("recorded")
        model(images(width=24), window=5)
    assert [call.get("window") for call in kernel_calls] == [5] * 6


def test_the_kernel_can_be_chosen_when_loading(tmp_path, kernel_calls):
    tiny().save_pretrained(tmp_path)
    model = AutoModelForImageClassification.from_pretrained(tmp_path, attn_implementation="recorded")
    model(images())
    assert len(kernel_calls) == 3
    assert AutoModel.from_config(model.config, attn_implementation="eager").config._attn_implementation == "eager"


@pytest.mark.parametrize("kernel", ["eager", "sdpa", "flex_attention", "recorded"])
@pytest.mark.parametrize("task", TASKS)
def test_attention_maps_come_back_whatever_the_kernel(task, kernel, kernel_calls):
    model = tiny(task, attn_implementation="eager")
    expected = model(images(), patch_attention_mask=padding_mask(), output_attentions=True).attentions
    model.set_attn_implementation(kernel)
    maps = model(images(), patch_attention_mask=padding_mask(), output_attentions=True).attentions
    assert len(maps) == 3
    assert_same(maps, expected)
    assert maps[0].shape == (2, 6, 21, 21)
    torch.testing.assert_close(maps[1].sum(-1), torch.ones(2, 6, 21))
    assert (maps[2][0, :, :, 11:] == 0).all()  # rows 2 and 3 of the first image are padding
    assert (maps[2][0, :, :, :11] > 0).all()
    assert model.config._attn_implementation == kernel
    assert not kernel_calls


@pytest.mark.parametrize("task", TASKS)
def test_attention_maps_can_be_asked_for_in_the_configuration_and_when_loading(task, tmp_path):
    model = tiny(task, output_attentions=True)
    expected = model(images()).attentions
    assert len(expected) == 3
    assert "attentions" not in model(images(), output_attentions=False)
    model.save_pretrained(tmp_path)
    assert_same(task.from_pretrained(tmp_path, output_attentions=True)(images()).attentions, expected)


# --- The last block --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("mask", [None, padding_mask()], ids=["unmasked", "masked"])
@pytest.mark.parametrize(
    "fields",
    [{}, VIT, {"pooling": "cls_distillation", "num_register_tokens": 1}, {"pooling": "cls_mean"}, NO_CLS],
    ids=str,
)
def test_the_classifier_computes_no_token_of_the_last_block_that_it_does_not_read(fields, mask, kernel):
    model = tiny(**fields, attn_implementation=kernel).eval()
    shapes = []
    model.vit.encoder[-1].ff.register_forward_hook(lambda module, args, output: shapes.append(output.shape[1]))
    logits = model(images(), patch_attention_mask=mask).logits
    # All tokens are computed where hidden states or attentions are asked for.
    whole = model(images(), patch_attention_mask=mask, output_hidden_states=True).logits
    maps = model(images(), patch_attention_mask=mask, output_attentions=True)
    torch.testing.assert_close(logits, whole)
    torch.testing.assert_close(logits, maps.logits, rtol=1e-4, atol=1e-5)
    tokens = 20 + model.config.num_prefix_tokens
    read = {"cls": 1, "cls_distillation": 2}.get(model.config.pooling, tokens)
    assert shapes == [read, tokens, tokens]
    assert maps.attentions[-1].shape[2] == tokens


def test_the_gradients_do_not_depend_on_whether_the_last_block_is_whole():
    model, labels = tiny(**VIT, attention_probs_dropout_prob=0.0).train(), torch.tensor([0, 8])
    gradients = []
    for whole in (False, True):
        model.zero_grad()
        model(images(), labels=labels, output_hidden_states=whole).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


# --- Outputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_hidden_states_are_one_more_than_the_blocks(task):
    model = tiny(task, **VIT)
    outputs = model(images(), output_hidden_states=True)
    assert [state.shape for state in outputs.hidden_states] == [(2, 21, 48)] * 4
    from_config = tiny(task, **VIT, output_hidden_states=True)
    assert_same(from_config(images()).hidden_states, outputs.hidden_states)
    assert "hidden_states" not in model(images())
    some = model(images(), output_hidden_states=[0, -1]).hidden_states
    assert some[1] is some[2] is None
    assert_same((some[0], some[3]), (outputs.hidden_states[0], outputs.hidden_states[3]))


def test_the_last_hidden_state_is_the_normalised_last_of_the_hidden_states():
    model = tiny(ViTScratchModel, **VIT)
    outputs = model(images(), output_hidden_states=True)
    normalised = F.layer_norm(outputs.hidden_states[-1], (48,), eps=1e-5)
    torch.testing.assert_close(outputs.last_hidden_state, normalised)


@pytest.mark.parametrize("where", ["call", "config"])
@pytest.mark.parametrize("task", TASKS)
def test_return_dict_false_gives_the_same_as_a_tuple(task, where):
    expected = tiny(task)(images(), output_attentions=True, output_hidden_states=True)
    wanted = {"return_dict": False}
    model = tiny(task, **(wanted if where == "config" else {}))
    call = wanted if where == "call" else {}
    outputs = model(images(), output_attentions=True, output_hidden_states=True, **call)
    assert isinstance(outputs, tuple)
    assert len(outputs) == len(expected.to_tuple())
    assert_same(outputs, expected)


@pytest.mark.parametrize("fields", [{}, {"pooling": "mean"}, NO_CLS])
def test_the_pooler_output_is_the_token_or_the_mean_that_the_head_reads(fields):
    model = tiny(ViTScratchModel, **fields)
    outputs = model(images())
    tokens = outputs.last_hidden_state
    expected = tokens[:, 0] if not fields else tokens[:, -20:].mean(dim=1)
    torch.testing.assert_close(outputs.pooler_output, expected)
    padded = model(images(), patch_attention_mask=padding_mask())
    if fields:  # the mean is over the patches of the image, not those of the padding
        expected = torch.stack([t[-20:][m].mean(dim=0) for t, m in zip(padded[0], padding_mask(), strict=True)])
        torch.testing.assert_close(padded.pooler_output, expected)
    without = ViTScratchModel(model.config, add_pooling_layer=False)
    assert without(images()).pooler_output is None


def test_an_image_does_not_know_its_neighbours_in_the_batch():
    for fields in SWITCHES:
        model = tiny(**fields)
        together = model(images(batch=4)).logits
        alone = torch.cat([model(image[None]).logits for image in images(batch=4)])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0, msg=f"{fields}")


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "dropout", ["attention_probs_dropout_prob", "hidden_dropout_prob", "drop_path_rate", "patch_dropout", None]
)
def test_dropout_acts_in_training_only(dropout, kernel):
    rates = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0, "drop_path_rate": 0.0}
    model = tiny(**{**rates, **({dropout: 0.5} if dropout else {})}, attn_implementation=kernel)
    x = images(batch=8)
    assert torch.equal(model(x).logits, model(x).logits)
    model.train()
    assert torch.equal(model(x).logits, model(x).logits) == (dropout is None)


def test_dropout_acts_after_the_positions_and_on_both_branches_of_every_block():
    model = tiny(hidden_dropout_prob=0.3, drop_path_rate=0.2)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.3] * 4
    assert [block.drop_path.drop_prob for block in model.vit.encoder] == pytest.approx([0.0, 0.1, 0.2])
    assert tiny(drop_path_rate=0.2, num_hidden_layers=1).train()(images()).logits.isfinite().all()


# --- Patch dropout ---------------------------------------------------------------------------------------------------

NO_OTHER_DROPOUT = {"attention_probs_dropout_prob": 0.0}


def kept_patches(model, x, tokens):
    """Which patches of the images are among the tokens before the first block: (B, N), true where they are."""
    prefix = model.config.num_prefix_tokens
    with torch.no_grad():
        every = copy.deepcopy(model).eval()(x, output_hidden_states=True).hidden_states[0][:, prefix:]
    distances = torch.cdist(tokens[:, prefix:], every, compute_mode="donot_use_mm_for_euclid_dist")  # (B, N', N)
    assert distances.min(dim=2).values.max() < 1e-4  # each is one of them, its position included
    places = distances.argmin(dim=2)
    assert (places.diff(dim=1) > 0).all()
    return torch.zeros(every.shape[:2], dtype=torch.bool).scatter(1, places, True)


def test_in_training_a_classifier_sees_a_share_of_the_patches():
    model = tiny(patch_dropout=0.5, num_register_tokens=2).train()
    outputs = model(images(), output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in outputs.hidden_states] == [(2, 13, 48)] * 4  # 10 of 20 patches, and 3 in front
    assert outputs.attentions[0].shape == (2, 6, 13, 13)
    kept = kept_patches(model, images(), outputs.hidden_states[0])
    assert kept.sum(dim=1).tolist() == [10, 10]
    assert not torch.equal(kept[0], kept[1])


@pytest.mark.parametrize("mask", [None, padding_mask()], ids=["unmasked", "masked"])
@pytest.mark.parametrize("fields", SWITCHES, ids=str)
def test_patches_that_are_dropped_are_as_if_they_were_masked(fields, mask):
    model = tiny(patch_dropout=0.3, **NO_OTHER_DROPOUT, **fields).train()
    masks = []
    model.vit.patch_dropout.register_forward_hook(lambda module, arguments, result: masks.append(result[1]))
    torch.manual_seed(3)
    outputs = model(images(), patch_attention_mask=mask, labels=torch.tensor([1, 8]), output_hidden_states=True)
    kept = kept_patches(model, images(), outputs.hidden_states[0])
    assert kept.sum(dim=1).tolist() == [14, 14]
    if mask is not None:
        kept[kept.clone()] = masks[0].flatten()
        assert kept.sum(dim=1).tolist() == [7, 8]  # of 10 and of 12
        assert mask[kept].all()
    expected = copy.deepcopy(model).eval()(images(), patch_attention_mask=kept).logits
    torch.testing.assert_close(outputs.logits, expected, atol=1e-5, rtol=0)
    assert_every_parameter_learns(model, outputs.loss)


@pytest.mark.parametrize("pooling", ["cls", "mean", "attention"])
def test_an_image_of_which_only_padding_is_left_does_not_spoil_the_gradients(pooling):
    model = tiny(pooling=pooling, patch_dropout=0.9).train()
    mask = torch.zeros(2, 20)
    mask[:, 0] = 1  # one patch that is an image; two of twenty are kept
    for seed in range(5):
        torch.manual_seed(seed)
        model(images(), patch_attention_mask=mask, labels=torch.tensor([1, 8])).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("task", TASKS)
def test_patch_dropout_changes_no_evaluation_and_no_name(task):
    model, expected = tiny(task, patch_dropout=0.5), tiny(task)
    assert list(model.state_dict()) == list(expected.state_dict())
    assert_same(model(images()), expected(images()), atol=0)


@pytest.mark.parametrize("task", [ViTScratchForMaskedImageModeling, ViTScratchBackbone])
def test_whoever_needs_every_patch_keeps_them_in_training(task):
    model, expected = (tiny(task, **NO_OTHER_DROPOUT, **fields).train() for fields in ({"patch_dropout": 0.5}, {}))
    assert_same(model(images(), output_hidden_states=True), expected(images(), output_hidden_states=True), atol=0)


def test_the_base_model_drops_patches_if_it_pools():
    config = ViTScratchConfig(**TINY, patch_dropout=0.5)
    assert ViTScratchModel(config).train()(images()).last_hidden_state.shape == (2, 11, 48)
    whole = ViTScratchModel(config, add_pooling_layer=False).train()
    assert whole(images()).last_hidden_state.shape == (2, 21, 48)


def test_a_share_of_the_patches_of_an_image_of_another_size():
    model = tiny(patch_dropout=0.5).train()
    outputs = model(images(height=48), interpolate_pos_encoding=True, output_hidden_states=True)
    assert outputs.hidden_states[0].shape == (2, 21, 48)  # 20 of 8 x 5


# --- Sizes and padding -----------------------------------------------------------------------------------------------


def positions(model, x, **kwargs):
    """The positions that the patches of `x` get: what a blank image's patches are before the first block."""
    nn.init.zeros_(model.patch_embedding.projection.weight)
    nn.init.zeros_(model.patch_embedding.projection.bias)
    tokens = model(x, interpolate_pos_encoding=True, output_hidden_states=True, **kwargs).hidden_states[0]
    return tokens[:, 1:].unflatten(1, (x.shape[2] // 6, x.shape[3] // 7))


@pytest.mark.parametrize("image_size", [[24, 35], [24, 28]], ids=["trained on 4x5", "trained on 4x4"])
@pytest.mark.parametrize("size", [(54, 77), (12, 14), (18, 84), (24, 70), (6, 7)])
def test_positions_are_fitted_to_images_of_another_size(image_size, size):
    model = tiny(ViTScratchModel, image_size=image_size)
    grid = (4, image_size[1] // 7)
    trained = model.positional_encoding.positional_embedding.unflatten(1, grid).permute(0, 3, 1, 2)
    new_grid = (size[0] // 6, size[1] // 7)
    expected = F.interpolate(trained, new_grid, mode="bicubic", antialias=True).permute(0, 2, 3, 1)
    fitted = positions(model, images(1, *size))
    assert fitted.shape == (1, *new_grid, 48)
    torch.testing.assert_close(fitted, expected, atol=1e-5, rtol=1e-5)


def test_positions_are_untouched_at_the_trained_size():
    model = tiny()
    assert torch.equal(model(images(), interpolate_pos_encoding=True).logits, model(images()).logits)


def test_fixed_positions_of_a_larger_image_begin_with_those_of_a_smaller_one():
    model = tiny(ViTScratchModel, position_embedding_type="sincos2d")
    torch.testing.assert_close(positions(model, images(1, 54, 77))[:, :4, :5], positions(model, images(1)))
    assert (positions(tiny(ViTScratchModel, position_embedding_type="none"), images(1, 54, 77)) == 0).all()


@pytest.mark.parametrize("encoding", ["learned", "sincos2d", "none"])
def test_another_size_is_refused_unless_asked_for(encoding):
    model = tiny(position_embedding_type=encoding)
    with pytest.raises(ValueError, match=r"36x28 pixels.*24x35.*interpolate_pos_encoding"):
        model(images(height=36, width=28))
    assert model(images(height=36, width=28), interpolate_pos_encoding=True).logits.shape == (2, 9)
    with pytest.raises(ValueError, match=r"25x35 pixels.*6x7"):
        model(images(height=25), interpolate_pos_encoding=True)


@pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("encoding", ["learned", "sincos2d", "none"])
def test_padded_images_of_different_sizes_give_the_logits_they_give_alone(encoding, pooling, norm_first):
    model = tiny(position_embedding_type=encoding, pooling=pooling, norm_first=norm_first)
    sizes = [(24, 35), (12, 49), (30, 14), (6, 7)]
    batch, mask = 100 * images(4, 30, 49), torch.zeros(4, 5, 7)  # what is in the padding must not matter
    alone = []
    for index, (height, width) in enumerate(sizes):
        image = images(1, height, width, seed=index)
        batch[index, :, :height, :width] = image[0]
        mask[index, : height // 6, : width // 7] = 1
        alone.append(model(image, interpolate_pos_encoding=True).logits)
    together = model(batch, interpolate_pos_encoding=True, patch_attention_mask=mask.flatten(1)).logits
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_padded_images_are_painted_and_mapped_as_they_are_alone():
    image, batch, mask = images(1, 12, 21), 100 * images(1), torch.zeros(1, 4, 5)
    batch[..., :12, :21] = image
    mask[:, :2, :3] = 1
    painter, backbone = tiny(ViTScratchForMaskedImageModeling), tiny(ViTScratchBackbone)
    alone = painter(image, interpolate_pos_encoding=True).reconstruction
    padded = painter(batch, interpolate_pos_encoding=True, patch_attention_mask=mask.flatten(1)).reconstruction
    torch.testing.assert_close(padded[..., :12, :21], alone, atol=1e-5, rtol=0)
    padded = backbone(batch, patch_attention_mask=mask.flatten(1)).feature_maps[0]
    torch.testing.assert_close(padded[..., :2, :3], backbone(image).feature_maps[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_mask_may_have_any_dtype_and_any_value_but_zero_means_a_patch(pooling):
    model = tiny(pooling=pooling)
    expected = model(images(), patch_attention_mask=padding_mask()).logits
    assert not torch.allclose(expected, model(images()).logits, atol=1e-3)
    for dtype in (torch.int64, torch.uint8, torch.float32, torch.bfloat16):
        assert torch.equal(model(images(), patch_attention_mask=padding_mask().to(dtype)).logits, expected)
    numbered = padding_mask() * torch.arange(1, 21)
    torch.testing.assert_close(model(images(), patch_attention_mask=numbered).logits, expected)


@pytest.mark.parametrize("interpolate", [None, True])
@pytest.mark.parametrize("task", TASKS)
def test_a_mask_of_ones_is_no_mask(task, interpolate):
    model = tiny(task, pooling="mean")
    fitted = {} if task is ViTScratchBackbone else {"interpolate_pos_encoding": interpolate}
    ones = torch.ones(2, 20)
    assert_same(model(images(), patch_attention_mask=ones, **fitted), model(images(), **fitted))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_image_that_is_all_padding_does_not_spoil_the_gradients_of_the_others(pooling):
    model = tiny(pooling=pooling)
    mask = torch.tensor([[1] * 20, [0] * 20])
    logits = model(images(), patch_attention_mask=mask, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(logits[:1], model(images()[:1]).logits)
    logits[0].square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("task", TASKS)
def test_inputs_that_do_not_fit_are_refused_with_their_shapes(task):
    model = tiny(task)
    with pytest.raises(ValueError, match="pixel_values is missing"):
        model(None)
    with pytest.raises(ValueError, match=r"num_channels=3.*\(2, 4, 24, 35\)"):
        model(images(channels=4))
    with pytest.raises(ValueError, match=r"\(3, 24, 35\)"):
        model(images()[0])
    with pytest.raises(ValueError, match=r"patch_attention_mask .* \(2, 20\) .* \(2, 4, 5\), got \(2, 21\)"):
        model(images(), patch_attention_mask=torch.ones(2, 21))
    with pytest.raises(ValueError, match=r"patch_attention_mask .* \(2, 20\) .*, got \(1, 20\)"):
        model(images(), patch_attention_mask=torch.ones(1, 20))


def test_masked_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"bool_masked_pos .* \(2, 20\), got \(2, 4, 5\)"):
        tiny(ViTScratchForMaskedImageModeling)(images(), masked_patches().view(2, 4, 5))
    with pytest.raises(ValueError, match="bool_masked_pos needs a mask token"):
        tiny(ViTScratchModel)(images(), bool_masked_pos=masked_patches())
    with pytest.raises(ValueError, match=r"encoder_stride \(6, 6\) and patch_size \(6, 7\)"):
        tiny(ViTScratchForMaskedImageModeling, encoder_stride=6)(images(), masked_patches())


# --- Masked image modelling ------------------------------------------------------------------------------------------


def test_a_masked_patch_is_not_seen():
    model = tiny(ViTScratchForMaskedImageModeling)
    masked = torch.zeros(2, 20, dtype=torch.bool)
    masked[:, 7] = True  # row 1, column 2: pixels 6 to 11 and 14 to 20
    changed = images()
    changed[:, :, 6:12, 14:21] = 5.0
    expected = model(images(), masked).reconstruction
    assert torch.equal(model(changed, masked).reconstruction, expected)
    assert not torch.equal(model(changed).reconstruction, expected)
    assert expected.shape == (2, 3, 24, 35)


def test_the_reconstruction_loss_is_over_the_masked_pixels():
    model = tiny(ViTScratchForMaskedImageModeling)
    nn.init.zeros_(model.decoder[0].weight)
    nn.init.constant_(model.decoder[0].bias, 0.5)
    x = torch.zeros(2, 3, 24, 35)
    x[0, :, 6:12, 14:21] = 4.0  # off by 3.5 in one of the two masked patches, by 0.5 in the other
    masked = torch.zeros(2, 20, dtype=torch.int64)
    masked[0, 7] = masked[1, 0] = 1
    assert model(x, masked).loss.item() == pytest.approx(2.0, abs=1e-5)
    assert model(x).loss is None


def test_a_coarser_decoder_paints_a_smaller_image():
    model = tiny(ViTScratchForMaskedImageModeling, encoder_stride=[2, 3])
    assert model(images()).reconstruction.shape == (2, 3, 8, 15)


# --- Losses ----------------------------------------------------------------------------------------------------------


def with_logits(values, **fields):
    """A classifier whose logits are `values` for every image."""
    model = tiny(**{"num_labels": len(values), **fields})
    nn.init.zeros_(model.classification_head.fc.weight)
    model.classification_head.fc.bias.data = torch.tensor(values)
    return model


def test_one_label_an_image_is_cross_entropy():
    model = with_logits([0.0, math.log(2), math.log(5)])  # probabilities 1/8, 2/8, 5/8
    loss = model(images(), labels=torch.tensor([2, 0])).loss
    assert loss.item() == pytest.approx((math.log(8 / 5) + math.log(8)) / 2)
    assert model.config.problem_type == "single_label_classification"
    accumulated = model(images(), labels=torch.tensor([2, 0]), num_items_in_batch=torch.tensor(10)).loss
    assert accumulated.item() == pytest.approx((math.log(8 / 5) + math.log(8)) / 10)


def test_several_labels_an_image_are_binary_cross_entropy():
    model = with_logits([0.0, math.log(3), -math.log(3)])  # probabilities 1/2, 3/4, 1/4
    loss = model(images(), labels=torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])).loss
    expected = (2 * math.log(2) + 2 * math.log(4 / 3) + 2 * math.log(4)) / 6
    assert loss.item() == pytest.approx(expected)
    assert model.config.problem_type == "multi_label_classification"


def test_one_output_is_regression():
    loss = with_logits([1.5])(images(), labels=torch.tensor([1.0, 3.0])).loss
    assert loss.item() == pytest.approx((0.25 + 2.25) / 2)
    model = with_logits([1.0, 2.0], problem_type="regression")
    loss = model(images(), labels=torch.tensor([[0.0, 2.0], [3.0, 2.0]])).loss
    assert loss.item() == pytest.approx((1 + 0 + 4 + 0) / 4)


def test_without_labels_the_classifier_returns_the_pooled_token(tmp_path):
    model = tiny(num_labels=0)
    torch.testing.assert_close(model(images()).logits, model.vit(images()).last_hidden_state[:, 0])
    assert model(images()).loss is None
    model.save_pretrained(tmp_path)
    assert torch.equal(
        AutoModelForImageClassification.from_pretrained(tmp_path)(images()).logits, model(images()).logits
    )


LABELS = {
    "single_label_classification": torch.tensor([1, 8, 0, 3, 5]),
    "multi_label_classification": torch.eye(9)[:5],
    "regression": torch.tensor([0.5, 1.0, -1.0, 2.0, 0.0]),
    "regression of two numbers": torch.arange(10.0).view(5, 2),
}


@pytest.fixture
def plain_step(tmp_path):
    """Let transformers' `Trainer` take one step of length 1 down the gradient: plain_step(model, examples, 2, 3)."""

    def plain_step(model, examples, batch_size, accumulated):
        arguments = transformers.TrainingArguments(
            tmp_path,
            max_steps=1,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulated,
            optim="sgd",
            learning_rate=1.0,
            lr_scheduler_type="constant",
            max_grad_norm=0,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
            save_strategy="no",
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        transformers.Trainer(model, arguments, train_dataset=examples).train()

    return plain_step


@pytest.mark.parametrize("problem", LABELS)
def test_trainer_accumulates_the_gradient_of_all_images_whatever_their_labels(problem, plain_step):
    labels = LABELS[problem]
    num_labels = {"regression": 1, "regression of two numbers": 2}.get(problem, 9)
    examples = [{"pixel_values": x, "labels": y} for x, y in zip(images(5), labels, strict=True)]
    model = tiny(num_labels=num_labels, problem_type=problem.split(" ")[0], attention_probs_dropout_prob=0.0)
    whole = copy.deepcopy(model)
    plain_step(model, examples, 2, 3)  # batches of 2, 2 and 1
    whole(images(5), labels=labels).loss.backward()
    for name, parameter in whole.named_parameters():
        step = parameter - model.get_parameter(name)
        torch.testing.assert_close(step, parameter.grad, atol=1e-6, rtol=1e-5, msg=name)


def test_trainer_accumulates_classes_as_with_transformers_vit(plain_step):
    tasks = transformers.ViTForImageClassification, ViTScratchForImageClassification
    theirs, ours = peers(*tasks, image_size=[24, 30], num_labels=9)
    labels = LABELS["single_label_classification"]
    examples = [{"pixel_values": x, "labels": y} for x, y in zip(images(5, width=30), labels, strict=True)]
    for model in (theirs, ours):
        plain_step(model, examples, 2, 3)
    expected = our_names(theirs.state_dict())
    for name, parameter in ours.state_dict().items():
        torch.testing.assert_close(parameter, expected[name], atol=1e-5, rtol=0, msg=name)


def test_the_losses_of_the_parts_of_a_step_add_up_to_the_mean_of_its_masked_images():
    model = tiny(ViTScratchForMaskedImageModeling)
    masked = torch.arange(60).view(3, 20) % 7 < torch.tensor([[1], [3], [5]])  # more in each image
    x = images(3)
    alone = [model(x[index : index + 1], masked[index : index + 1]).loss for index in range(3)]
    parts = [model(x[part], masked[part], num_items_in_batch=torch.tensor(3)).loss for part in (slice(2), slice(2, 3))]
    torch.testing.assert_close(sum(parts), sum(alone) / 3)
    masked[0] = False  # an image that is seen whole has nothing to be painted
    torch.testing.assert_close(model(x, masked, num_items_in_batch=3).loss, (alone[1] + alone[2]) / 3)


@pytest.mark.parametrize(("number", "labelled"), [(4, False), (5, True)])
def test_trainer_accumulates_the_gradient_of_all_masked_images(number, labelled, plain_step):
    # Where there are no labels, which it counts, it takes batches for equally large: 2 and 2, not 2, 2 and 1.
    examples = [
        {"pixel_values": image, "bool_masked_pos": torch.arange(20) % 4 == index % 4}
        | ({"labels": index} if labelled else {})
        for index, image in enumerate(images(number))
    ]
    models = [tiny(ViTScratchForMaskedImageModeling, attention_probs_dropout_prob=0.0) for _ in range(2)]
    for model, batch_size, accumulated in zip(models, (number, 2), (1, -(-number // 2)), strict=True):
        plain_step(model, examples, batch_size, accumulated)
    for name, parameter in models[0].named_parameters():
        torch.testing.assert_close(models[1].get_parameter(name), parameter, atol=1e-6, rtol=0, msg=name)


# --- Training --------------------------------------------------------------------------------------------------------


def assert_every_parameter_learns(model, loss):
    loss.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


@pytest.mark.parametrize("fields", SWITCHES, ids=str)
def test_every_parameter_of_a_classifier_receives_a_gradient(fields):
    model = tiny(**fields).train()
    assert_every_parameter_learns(model, model(images(), labels=torch.tensor([1, 8])).loss)


@pytest.mark.parametrize("fields", SWITCHES, ids=str)
def test_every_parameter_of_a_painter_receives_a_gradient(fields):
    model = tiny(ViTScratchForMaskedImageModeling, **fields).train()
    assert_every_parameter_learns(model, model(images(), masked_patches()).loss)


@pytest.mark.parametrize("out_indices", [[3], [1, 2], [0, 1]])
@pytest.mark.parametrize("fields", [*SWITCHES, {**VIT, "apply_layernorm": False}], ids=str)
def test_every_parameter_of_a_backbone_receives_a_gradient(fields, out_indices):
    model = tiny(ViTScratchBackbone, out_indices=out_indices, **fields).train()
    maps = model(images()).feature_maps
    # Not their plain sum, which LayerNorm makes constant.
    assert_every_parameter_learns(model, sum((images(*m.shape[:1], *m.shape[2:], 48) * m).sum() for m in maps))


def test_positions_learn_from_images_of_another_size():
    model = tiny()
    model(images(height=48), interpolate_pos_encoding=True, labels=torch.tensor([1, 8])).loss.backward()
    assert (model.vit.positional_encoding.positional_embedding.grad.abs().sum(-1) > 0).all()


def training_step(model, **kwargs):
    model.zero_grad()
    torch.manual_seed(3)
    outputs = model(images(), labels=torch.tensor([1, 8]), output_hidden_states=True, **kwargs)
    (outputs.loss + sum(state.square().mean() for state in outputs.hidden_states)).backward()
    return [outputs.loss, *outputs.hidden_states, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_activation_checkpointing_changes_no_gradient(kernel):
    dropout = {"hidden_dropout_prob": 0.2, "drop_path_rate": 0.3, "patch_dropout": 0.25}
    model = tiny(attn_implementation=kernel, **dropout).train()
    wanted = {"interpolate_pos_encoding": True, "patch_attention_mask": padding_mask(), "output_attentions": True}
    expected = training_step(model, **wanted)
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing
    assert_same(training_step(model, **wanted), expected, atol=0)
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing


def test_reentrant_activation_checkpointing_changes_no_gradient():
    model = tiny().train()
    gradients = []
    for _ in range(2):
        torch.manual_seed(3)
        model.zero_grad()
        model(images(), labels=torch.tensor([1, 8])).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        model.activation_checkpointing_enable({"use_reentrant": True})
    assert_same(gradients[1], gradients[0])


@pytest.mark.parametrize(("every", "calls"), [(1, 6), (2, 5), (3, 4)])
def test_activation_checkpointing_recomputes_every_nth_block(every, calls, kernel_calls):
    model = tiny(attn_implementation="recorded").train()
    model.activation_checkpointing_enable(every_n_layers=every)
    model(images(), labels=torch.tensor([1, 8])).loss.backward()
    assert len(kernel_calls) == calls


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fields", [{}, VIT, {"position_embedding_type": "sincos2d", "pooling": "mean"}], ids=str)
def test_mixed_precision_stays_close_and_trains(fields, dtype):
    model = tiny(**fields)
    kwargs = {"interpolate_pos_encoding": True, "patch_attention_mask": padding_mask(), "labels": torch.tensor([1, 8])}
    expected = model(images(), **kwargs).logits
    with torch.autocast("cpu", dtype):
        outputs = model(images(), **kwargs)
    torch.testing.assert_close(outputs.logits.float(), expected, atol=0.05, rtol=0.05)
    assert_every_parameter_learns(model, outputs.loss)


@pytest.mark.parametrize("fields", [{}, NO_CLS, {**NO_CLS, "num_register_tokens": 2, "norm_first": True}], ids=str)
@pytest.mark.parametrize("positions", ["learned", "sincos2d", "none"])
def test_mixed_precision_rounds_the_branches_and_not_what_they_are_added_to(fields, positions):
    model = tiny(ViTScratchModel, **{**fields, "position_embedding_type": positions})
    for size in ({}, {"height": 30, "width": 42}):
        kwargs = {"output_hidden_states": True, "interpolate_pos_encoding": bool(size)}
        exact = model(images(**size), **kwargs).hidden_states[0]
        with torch.autocast("cpu", torch.bfloat16):
            states = model(images(**size), **kwargs).hidden_states
            projected = model.patch_embedding(images(**size))
        assert {state.dtype for state in states} == {torch.float32}
        # In front of the blocks, nothing but the projection of the patches was rounded.
        rounded = projected - model.patch_embedding(images(**size))
        torch.testing.assert_close((states[0] - exact)[:, -rounded.shape[1] :], rounded, atol=1e-6, rtol=0)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("fields", [VIT, {"position_embedding_type": "sincos2d", "pooling": "mean"}], ids=str)
def test_a_model_loaded_in_bfloat16_takes_ordinary_images(task, fields, tmp_path):
    model = tiny(task, **fields)
    model.save_pretrained(tmp_path)
    half = task.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    fitted = {} if task is ViTScratchBackbone else {"interpolate_pos_encoding": True}
    masked = {"bool_masked_pos": masked_patches()} if task is ViTScratchForMaskedImageModeling else {}
    kwargs = {"patch_attention_mask": padding_mask(), **fitted, **masked}
    for output, expected in zip(tensors(half(images(), **kwargs)), tensors(model(images(), **kwargs)), strict=True):
        assert output.dtype == torch.bfloat16 or output.ndim == 0  # the loss has the images' precision
        torch.testing.assert_close(output.float(), expected, atol=0.15, rtol=0.05)


def test_the_mean_of_an_image_that_does_not_fill_its_batch_does_not_overflow_in_half_precision():
    tokens = torch.full((2, 21, 48), 10_000.0)  # of ten, the sum is more than float16 can hold
    for pooling in ("mean", "mean_tokens", "cls_mean"):
        pooled = TokenPooling(pooling)(tokens.half(), padding_mask())
        assert pooled.dtype == torch.float16
        assert torch.equal(pooled.float(), torch.full_like(pooled.float(), 10_000.0))


def test_the_reconstruction_loss_does_not_overflow_in_half_precision():
    model = tiny(ViTScratchForMaskedImageModeling)
    loud = 100 * images()  # sums to more than float16 can hold
    expected = model(loud, masked_patches()).loss
    torch.testing.assert_close(model.half()(loud, masked_patches()).loss.float(), expected, atol=0, rtol=0.01)
    quiet = model(loud.half(), masked_patches()).loss  # images in half precision, too
    torch.testing.assert_close(quiet.float(), expected, atol=0, rtol=0.01)


# --- Initialisation, saving and loading ------------------------------------------------------------------------------


def assert_initialised(name, parameter, initialization):
    """Compare a parameter's statistics with the distribution that its configuration promises."""
    values, article = parameter.detach(), initialization == "article"
    if "norm" in name or "mask_token" in name or (name.endswith(".bias") and (not article or "attention" in name)):
        assert (values == (1.0 if "norm" in name and name.endswith(".weight") else 0.0)).all(), name
        return
    if not article:
        std = 0.02
    elif name.endswith(("positional_embedding", ".cls_token", ".cls_position")):
        std = 1.0
    else:
        inputs = 3 * 6 * 7 if "projection" in name else 56 if "ff.2" in name else 48
        bound = math.sqrt(6 / (48 + 3 * 48)) if name.endswith("in_proj.weight") else 1 / math.sqrt(inputs)
        assert 0.7 * bound < values.abs().max() <= bound, name
        std = bound / math.sqrt(3)
    assert values.mean().item() == pytest.approx(0, abs=5 * std / math.sqrt(values.numel())), name
    assert values.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * values.numel())), name


@pytest.mark.parametrize("initialization", ["article", "truncated_normal"])
@pytest.mark.parametrize("task", [ViTScratchForImageClassification, ViTScratchForMaskedImageModeling])
def test_what_a_checkpoint_lacks_is_initialised_and_what_it_has_is_kept(task, initialization, tmp_path):
    model = tiny(task, **VIT, initialization=initialization)
    for name, parameter in model.named_parameters():
        assert_initialised(name, parameter, initialization)
    model.save_pretrained(tmp_path)
    # One whole block, one norm, the positions, and of each layer of another block the bias only.
    kept = re.compile(r"encoder\.1\.|vit\.norm|positional_embedding|encoder\.2\..*bias")
    state = {name: torch.full_like(p, 7.0) for name, p in model.state_dict().items() if kept.search(name)}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, report = task.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == set(model.state_dict()) - set(state)
    for name, parameter in loaded.named_parameters():
        if name in state:
            assert (parameter == 7.0).all(), name
        else:
            assert_initialised(name, parameter, initialization)


def test_mimetic_attention_looks_like_that_of_a_pretrained_model():
    model = tiny(**VIT, initialization="mimetic", hidden_size=48, num_attention_heads=2)
    for block in model.vit.encoder:
        attention = block.attention
        query, key, value = attention.in_proj.weight.detach().chunk(3)  # (48, 48) each
        for head in range(2):  # tokens that are alike attend to each other
            rows = slice(24 * head, 24 * (head + 1))
            product = query[rows].T @ key[rows]  # of rank 24: half of 0.7 Z + 0.7 I, the larger half
            assert 0.25 < product.diagonal().mean() < 0.75
            assert torch.linalg.matrix_rank(product) == 24
            assert (product - torch.diag(product.diagonal())).mean().abs() < 0.02
        through = value.T @ attention.out_proj.weight.detach().T  # 0.4 Z - 0.4 I: and take away what they have
        assert through.diagonal().mean().item() == pytest.approx(-0.4, abs=0.05)
        rest = through + 0.4 * torch.eye(48)
        assert rest.std().item() == pytest.approx(0.4 / math.sqrt(48), rel=0.1)
        assert attention.in_proj.bias.abs().max() == attention.out_proj.bias.abs().max() == 0


def test_mimetic_positions_are_the_sinusoids_on_a_smaller_scale_and_the_rest_is_truncated_normal():
    model = tiny(**VIT, initialization="mimetic")
    positions = model.vit.positional_encoding
    sinusoids = positions.sincos2d(positions.grid_size, positions.positional_embedding)
    assert torch.allclose(positions.positional_embedding, 0.3 * sinusoids)
    for name, parameter in model.named_parameters():
        if "positional_embedding" not in name and "in_proj.weight" not in name and "out_proj.weight" not in name:
            assert_initialised(name, parameter, "truncated_normal")


def test_mimetic_attention_that_was_loaded_is_kept_and_wide_or_narrow_heads_will_do(tmp_path):
    model = tiny(**VIT, initialization="mimetic", head_dim=30)
    assert tiny(**VIT, initialization="mimetic", head_dim=4)(images()).logits.isfinite().all()
    with torch.no_grad():
        model.vit.encoder[0].attention.in_proj.weight.fill_(7.0)
    model.save_pretrained(tmp_path)
    loaded = ViTScratchForImageClassification.from_pretrained(tmp_path)
    assert_same(loaded.state_dict(), model.state_dict(), atol=0)


@pytest.mark.parametrize("initialization", ["article", "truncated_normal"])
def test_a_pretrained_model_gets_a_new_head(initialization, tmp_path):
    model = tiny(initialization=initialization)
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError):
        ViTScratchForImageClassification.from_pretrained(tmp_path, num_labels=4)
    loaded = ViTScratchForImageClassification.from_pretrained(tmp_path, num_labels=4, ignore_mismatched_sizes=True)
    assert loaded(images()).logits.shape == (2, 4)
    assert loaded.config.num_labels == loaded.num_labels == len(loaded.config.id2label) == 4
    assert_initialised("fc.weight", loaded.classification_head.fc.weight, initialization)
    assert_same(loaded.vit.state_dict(), model.vit.state_dict(), atol=0)
    regression = ViTScratchForImageClassification.from_pretrained(tmp_path, num_labels=1, ignore_mismatched_sizes=True)
    assert regression(images(), labels=torch.tensor([0.5, 2.0])).loss.isfinite()


def test_one_checkpoint_serves_every_task(tmp_path):
    model = tiny(**VIT)
    model.save_pretrained(tmp_path)
    base, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert_same(base.state_dict(), model.vit.state_dict(), atol=0)
    backbone, report = ViTScratchBackbone.from_pretrained(tmp_path, out_indices=[1, 3], output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert_same(backbone.state_dict(), model.vit.state_dict(), atol=0)
    _, report = AutoModelForMaskedImageModeling.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == {"vit.mask_patches.mask_token", "decoder.0.weight", "decoder.0.bias"}
    base.save_pretrained(tmp_path / "base")
    _, report = AutoModelForImageClassification.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert set(report["missing_keys"]) == {"classification_head.fc.weight", "classification_head.fc.bias"}


def test_the_base_model_can_be_loaded_without_pooler_and_with_a_mask_token(tmp_path):
    painter = tiny(ViTScratchForMaskedImageModeling)
    nn.init.normal_(painter.vit.mask_patches.mask_token)
    painter.save_pretrained(tmp_path)
    base = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False, use_mask_token=True)
    outputs = base(images(), bool_masked_pos=masked_patches())
    assert outputs.pooler_output is None
    assert_same(outputs, painter.vit(images(), bool_masked_pos=masked_patches()))


@pytest.mark.parametrize("shard", ["5GB", "100KB"])
@pytest.mark.parametrize("task", TASKS)
def test_saving_and_loading_is_exact_and_safetensors_only(task, shard, tmp_path):
    model = tiny(task, **VIT)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    weights = sorted(tmp_path.glob("*.safetensors"))
    assert len(weights) == (1 if shard == "5GB" else 3)
    assert not list(tmp_path.glob("*.bin"))
    stored = {name: value for file in weights for name, value in load_file(file).items()}
    assert stored.keys() == model.state_dict().keys()
    loaded = task.from_pretrained(tmp_path)
    assert not loaded.training
    assert_same(loaded.state_dict(), model.state_dict(), atol=0)
    assert_same(loaded(images()), model(images()), atol=0)


@pytest.mark.parametrize("task", TASKS)
def test_a_model_is_built_on_the_meta_device(task):
    for fields in SWITCHES:
        with torch.device("meta"):
            model = task(ViTScratchConfig(**{**TINY, **fields}))
        assert all(parameter.is_meta for parameter in model.parameters())
        assert not list(model.buffers())


@pytest.mark.parametrize(
    "device_map",
    [
        {"device_map": {"": "cpu"}},
        {"device_map": "auto"},
        {"device_map": "auto", "max_memory": {"cpu": 200_000}},
        {"device_map": {"": "disk"}},
    ],
    ids=str,
)
def test_a_device_map_places_blocks_and_changes_no_result(device_map, tmp_path):
    model = tiny(**VIT)
    model.save_pretrained(tmp_path / "model")
    loaded = AutoModelForImageClassification.from_pretrained(
        tmp_path / "model", **device_map, offload_folder=tmp_path / "offload"
    )
    for kwargs in ({}, {"interpolate_pos_encoding": True, "patch_attention_mask": padding_mask()}):
        with torch.no_grad():
            assert torch.equal(loaded(images(), **kwargs).logits, model(images(), **kwargs).logits)
    if "max_memory" in device_map:
        placed = loaded.hf_device_map
        assert set(placed.values()) == {"cpu", "disk"}
        assert not [name for name in placed if re.search(r"encoder\.\d+\.", name)]  # no block is split


BLOCK = [
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
]
ARTICLE = [
    "patch_embedding.projection.weight",
    "patch_embedding.projection.bias",
    "positional_encoding.positional_embedding",
    "cls_token.cls_token",
    *(f"encoder.0.{name}" for name in BLOCK),
]
HEAD = ["classification_head.fc.weight", "classification_head.fc.bias"]
DECODER = ["vit.mask_patches.mask_token", "decoder.0.weight", "decoder.0.bias"]
FINAL_NORM = ["norm.weight", "norm.bias"]
PATCH_NORMS = [f"patch_embedding.{norm}.{name}" for norm in ("pixel_norm", "norm") for name in ("weight", "bias")]
ATTENTION_POOLING = [
    "pooler.pool.query",
    *(
        f"pooler.pool.{layer}.{name}"
        for layer in ("query_proj", "key_value_proj", "out_proj", "norm", "ff.0", "ff.2")
        for name in ("weight", "bias")
    ),
]


@pytest.mark.parametrize(
    ("task", "fields", "names"),
    [
        (ViTScratchModel, {}, ARTICLE),
        (ViTScratchBackbone, {}, ARTICLE),
        (ViTScratchForImageClassification, {}, [*(f"vit.{name}" for name in ARTICLE), *HEAD]),
        (ViTScratchForMaskedImageModeling, {}, [*(f"vit.{name}" for name in ARTICLE), *DECODER]),
        (ViTScratchModel, VIT, [*ARTICLE, *FINAL_NORM, "cls_token.cls_position"]),
        (ViTScratchBackbone, VIT, [*ARTICLE, *FINAL_NORM, "cls_token.cls_position"]),
        (ViTScratchBackbone, {**VIT, "apply_layernorm": False}, [*ARTICLE, "cls_token.cls_position"]),
        (ViTScratchModel, NO_CLS, [name for name in ARTICLE if "cls" not in name]),
        (ViTScratchModel, {"qkv_bias": False}, [name for name in ARTICLE if "in_proj.bias" not in name]),
        (ViTScratchModel, {"position_embedding_type": "none"}, [name for name in ARTICLE if "positional" not in name]),
        (ViTScratchModel, {"patch_bias": False}, [name for name in ARTICLE if "projection.bias" not in name]),
        (ViTScratchModel, {"out_proj_bias": False}, [name for name in ARTICLE if "out_proj.bias" not in name]),
        (ViTScratchModel, {"use_dual_patch_norm": True}, [*ARTICLE, *PATCH_NORMS]),
        (ViTScratchModel, {"num_register_tokens": 2}, [*ARTICLE, "register_tokens.register_tokens"]),
        (ViTScratchModel, {"layerscale_value": 0.1}, [*ARTICLE, "encoder.0.scale1.gamma", "encoder.0.scale2.gamma"]),
        (ViTScratchModel, {"use_swiglu_ffn": True, "head_dim": 5}, ARTICLE),
        (ViTScratchModel, {"use_pre_layer_norm": True}, [*ARTICLE, "pre_norm.weight", "pre_norm.bias"]),
        (ViTScratchModel, {"use_pooled_layer_norm": True}, [*ARTICLE, "pooler.norm.weight", "pooler.norm.bias"]),
        (ViTScratchModel, {"pooler_output_size": 5}, [*ARTICLE, "pooler.dense.weight", "pooler.dense.bias"]),
        (ViTScratchModel, {"pooling": "attention"}, [*ARTICLE, *ATTENTION_POOLING]),
        (
            ViTScratchForImageClassification,
            {"pooling": "attention"},
            [*(f"vit.{name}" for name in [*ARTICLE, *ATTENTION_POOLING]), *HEAD],
        ),
        (ViTScratchBackbone, {"pooling": "attention"}, ARTICLE),
    ],
)
def test_the_names_in_a_checkpoint_are_public(task, fields, names):
    assert sorted(tiny(task, num_hidden_layers=1, **fields).state_dict()) == sorted(names)


# --- Depths of the layers --------------------------------------------------------------------------------------------


def test_the_depths_of_a_classifier():
    assert tiny(num_hidden_layers=2, **VIT).layer_depths() == {
        "vit.patch_embedding.projection.weight": 0,
        "vit.patch_embedding.projection.bias": 0,
        "vit.positional_encoding.positional_embedding": 0,
        "vit.cls_token.cls_token": 0,
        "vit.cls_token.cls_position": 0,
        **{f"vit.encoder.0.{name}": 1 for name in BLOCK},
        **{f"vit.encoder.1.{name}": 2 for name in BLOCK},
        "vit.norm.weight": 3,
        "vit.norm.bias": 3,
        "classification_head.fc.weight": 3,
        "classification_head.fc.bias": 3,
    }


def test_the_depths_of_a_base_model_with_all_that_there_is():
    fields = {
        "num_hidden_layers": 2,
        "use_dual_patch_norm": True,
        "num_register_tokens": 1,
        "use_pre_layer_norm": True,
        "layerscale_value": 0.1,
        "pooling": "attention",
        "use_pooled_layer_norm": True,
        "pooler_output_size": 5,
        **VIT,
    }
    torch.manual_seed(0)
    model = ViTScratchModel(ViTScratchConfig(**{**TINY, **fields}), use_mask_token=True)
    block = [*BLOCK, "scale1.gamma", "scale2.gamma"]
    first = ["mask_patches.mask_token", "register_tokens.register_tokens", "cls_token.cls_position"]
    pre_norm = ["pre_norm.weight", "pre_norm.bias"]
    pooler = [*ATTENTION_POOLING, *(f"pooler.{name}" for name in ("norm.weight", "norm.bias"))]
    assert model.layer_depths() == {
        **dict.fromkeys((*ARTICLE[:4], *PATCH_NORMS, *first, *pre_norm), 0),
        **{f"encoder.0.{name}": 1 for name in block},
        **{f"encoder.1.{name}": 2 for name in block},
        **dict.fromkeys((*FINAL_NORM, *pooler, "pooler.dense.weight", "pooler.dense.bias"), 3),
    }


def test_the_depths_of_a_painter():
    depths = tiny(ViTScratchForMaskedImageModeling, num_hidden_layers=2).layer_depths()
    assert depths["vit.mask_patches.mask_token"] == 0
    assert depths["vit.encoder.1.norm2.bias"] == 2
    assert depths["decoder.0.weight"] == depths["decoder.0.bias"] == 3


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("fields", SWITCHES, ids=str)
def test_every_parameter_has_a_depth(task, fields):
    model = tiny(task, **fields)
    depths = model.layer_depths()
    assert list(depths) == [name for name, _ in model.named_parameters()]
    blocks = {depth for name, depth in depths.items() if "encoder." in name}
    assert blocks == {1, 2, 3}
    assert {depth for name, depth in depths.items() if "encoder." not in name} <= {0, 4}


def test_weight_decay_is_for_the_matrices_of_layers():
    fields = {"num_hidden_layers": 1, "use_dual_patch_norm": True, "num_register_tokens": 1, "layerscale_value": 0.1}
    fields |= {"use_pre_layer_norm": True, "pooling": "attention", "use_pooled_layer_norm": True, **VIT}
    torch.manual_seed(0)
    model = ViTScratchModel(ViTScratchConfig(**{**TINY, **fields, "pooler_output_size": 5}), use_mask_token=True)
    names = {name for name, _ in model.named_parameters()}
    assert names - model.no_weight_decay() == {
        "patch_embedding.projection.weight",
        *(f"encoder.0.{name}.weight" for name in ("attention.in_proj", "attention.out_proj", "ff.0", "ff.2")),
        *(f"pooler.pool.{name}.weight" for name in ("query_proj", "key_value_proj", "out_proj", "ff.0", "ff.2")),
        "pooler.dense.weight",
    }
    assert model.no_weight_decay() < names
    painter = tiny(ViTScratchForMaskedImageModeling)
    assert {"decoder.0.weight", "vit.mask_patches.mask_token"} - painter.no_weight_decay() == {"decoder.0.weight"}


# --- Operations ------------------------------------------------------------------------------------------------------


def counted_operations(model, x, **inputs):
    """What torch counts of a step, forward and backward."""
    model.zero_grad()
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(x, interpolate_pos_encoding=True, **inputs).logits.sum().backward()
    return counter.get_total_flops()


def test_the_operations_of_a_step_by_hand():
    # 20 patches of 126 pixel values, 21 tokens of 48; a block has 48 x 144, 48 x 48, 48 x 56 and 56 x 48 weights.
    patches = 2 * 20 * 126 * 48
    block = 2 * 21 * (6912 + 2304 + 2688 + 2688) + 2 * 2 * 21 * 21 * 48
    # Of the last block the classifier needs queries, keys and values of all tokens, and the rest of [CLS] alone.
    last = 2 * 21 * 6912 + 2 * (2304 + 2688 + 2688) + 2 * 2 * 21 * 48
    model = tiny()
    assert model.floating_point_ops({"pixel_values": images(5)}) == 3 * 5 * (patches + 2 * block + last)
    assert model.floating_point_ops({"pixel_values": images(5)}, exclude_embeddings=True) == 3 * 5 * (2 * block + last)
    assert model.vit.floating_point_ops({"pixel_values": images(1)}) == 3 * (patches + 3 * block)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"use_swiglu_ffn": True},
        {"head_dim": 5},
        {**NO_CLS, "num_register_tokens": 3},
        {"patch_dropout": 0.5},
        {"pooling": "cls_distillation", "num_register_tokens": 1},
    ],
    ids=str,
)
def test_the_operations_are_those_that_torch_counts(fields, kernel):
    # Without head and positions, which are not counted; with a gradient of the pixels, which is, though none is needed.
    model = tiny(num_labels=0, position_embedding_type="none", attn_implementation=kernel, **fields).train()
    for x in (images(), images(3, height=36, width=70)):
        counted = counted_operations(model, x.requires_grad_())
        assert model.floating_point_ops({"pixel_values": x}) == counted


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_operations_are_nearly_those_that_torch_counts_in_training(kernel):
    model = tiny(image_size=[8, 25], patch_size=[2, 5], attn_implementation=kernel).train()
    x = images(height=8, width=25)
    assert model.floating_point_ops({"pixel_values": x}) == pytest.approx(counted_operations(model, x), rel=0.02)


def test_patch_dropout_makes_a_step_cheaper_but_no_evaluation():
    inputs = {"pixel_values": images()}
    model, whole = tiny(patch_dropout=0.5), tiny().floating_point_ops(inputs)
    assert model.eval().floating_point_ops(inputs) == whole
    block = 2 * 11 * 14592 + 2 * 2 * 11 * 11 * 48  # 10 patches and [CLS]
    last = 2 * 11 * 6912 + 2 * 7680 + 2 * 2 * 11 * 48
    assert model.train().floating_point_ops(inputs) == 3 * 2 * (2 * 20 * 126 * 48 + 2 * block + last) < 0.6 * whole


# --- Backbone --------------------------------------------------------------------------------------------------------


def test_feature_maps_are_the_normalised_hidden_states_as_images():
    base = tiny(ViTScratchModel, **VIT)
    backbone = tiny(ViTScratchBackbone, **VIT, out_features=["stem", "stage2", "stage3"])
    backbone.load_state_dict(base.state_dict())
    hidden_states = base(images(), output_hidden_states=True).hidden_states
    maps = backbone(images()).feature_maps
    assert [m.shape for m in maps] == [(2, 48, 4, 5)] * 3
    for feature_map, index in zip(maps, (0, 2, 3), strict=True):
        expected = base.norm(hidden_states[index])[:, 1:].unflatten(1, (4, 5)).permute(0, 3, 1, 2)
        torch.testing.assert_close(feature_map, expected)
    tokens = ViTScratchBackbone(ViTScratchConfig(**TINY, **VIT, reshape_hidden_states=False)).eval()
    tokens.load_state_dict(base.state_dict())
    torch.testing.assert_close(tokens(images()).feature_maps[0], base(images()).last_hidden_state)
    raw = ViTScratchBackbone(ViTScratchConfig(**TINY, **VIT, reshape_hidden_states=False, apply_layernorm=False)).eval()
    raw.load_state_dict(base.state_dict(), strict=False)
    torch.testing.assert_close(raw(images()).feature_maps[0], hidden_states[3])


def test_a_backbone_says_what_it_returns_and_builds_no_more():
    backbone = AutoBackbone.from_config(ViTScratchConfig(**TINY, out_indices=[0, -2]))
    assert backbone.stage_names == ["stem", "stage1", "stage2", "stage3"]
    assert backbone.out_features == ["stem", "stage2"]
    assert backbone.channels == [48, 48]
    assert backbone.num_features == [48, 48, 48, 48]
    assert len(backbone.encoder) == 2
    assert backbone(images(), output_hidden_states=True, output_attentions=True).attentions[1].shape == (2, 6, 21, 21)
    assert AutoBackbone.from_config(ViTScratchConfig(**TINY)).out_features == ["stage3"]


def test_a_backbone_of_the_stem_alone_has_no_block():
    backbone = tiny(ViTScratchBackbone, out_features=["stem"])
    assert len(backbone.encoder) == 0
    expected = tiny(ViTScratchModel)(images(), output_hidden_states=True).hidden_states[0]
    stem = backbone(images()).feature_maps[0]
    torch.testing.assert_close(stem, expected[:, 1:].unflatten(1, (4, 5)).permute(0, 3, 1, 2))


@pytest.mark.parametrize("fields", [{}, NO_CLS])
def test_a_backbone_takes_images_of_any_size(fields):
    backbone = tiny(ViTScratchBackbone, **fields)
    assert backbone(images(height=54, width=14)).feature_maps[0].shape == (2, 48, 9, 2)
    with pytest.raises(ValueError, match=r"54x15 pixels.*6x7"):
        backbone(images(height=54, width=15))


def test_a_backbone_keeps_its_stages_through_saving_and_loading(tmp_path):
    backbone = tiny(ViTScratchBackbone, **VIT, out_features=["stage1", "stage2"])
    backbone.save_pretrained(tmp_path)
    loaded, report = ViTScratchBackbone.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert loaded.out_features == ["stage1", "stage2"]
    assert_same(loaded(images()), backbone(images()), atol=0)


def test_transformers_segmentation_head_runs_on_the_backbone(tmp_path):
    config = transformers.UperNetConfig(
        backbone_config=ViTScratchConfig(**{**TINY, "num_hidden_layers": 4}, out_indices=[1, 2, 3, 4]),
        hidden_size=16,
        auxiliary_channels=8,
        auxiliary_in_channels=48,
        pool_scales=[1, 2],
        num_labels=7,
    )
    torch.manual_seed(0)
    model = transformers.UperNetForSemanticSegmentation(config).eval()
    outputs = model(images(height=30), labels=torch.zeros(2, 30, 35, dtype=torch.long), output_attentions=True)
    assert outputs.logits.shape == (2, 7, 30, 35)
    assert len(outputs.attentions) == 4
    assert_every_parameter_learns(model, outputs.loss)
    model.save_pretrained(tmp_path)
    loaded = transformers.UperNetForSemanticSegmentation.from_pretrained(tmp_path)
    assert_same(loaded(images()), model(images()), atol=0)


def test_transformers_captioning_model_reads_the_encoder():
    decoder = transformers.BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=16,
        is_decoder=True,
        add_cross_attention=True,
    )
    encoder = tiny(ViTScratchModel)
    model = transformers.VisionEncoderDecoderModel(
        encoder=encoder, decoder=transformers.BertLMHeadModel(decoder)
    ).eval()
    outputs = model(images(), decoder_input_ids=torch.tensor([[1, 2, 3], [3, 4, 5]]), output_attentions=True)
    assert outputs.logits.shape == (2, 3, 50)
    torch.testing.assert_close(outputs.encoder_last_hidden_state, encoder(images()).last_hidden_state)


# --- What transformers reads off a model -----------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_transformers_finds_what_it_looks_for(task):
    model = tiny(task, **VIT)
    assert model.get_input_embeddings().projection.weight.shape == (48, 3, 6, 7)
    assert model.num_parameters() == sum(parameter.numel() for parameter in model.parameters())
    assert model.main_input_name == "pixel_values"
    assert model.all_tied_weights_keys == {}  # set by `post_init`, which loading needs
    assert model.supports_gradient_checkpointing
    assert find_labels(task) == (["labels"] if task is ViTScratchForImageClassification else [])
    assert {str(key) for key in model.can_record_outputs} == {"hidden_states", "attentions"}
    clone = copy.deepcopy(model)
    assert_same(clone(images()), model(images()), atol=0)


def test_new_input_embeddings_are_used():
    model = tiny()
    replacement = copy.deepcopy(model.get_input_embeddings())
    nn.init.zeros_(replacement.projection.weight)
    expected = model(torch.zeros(2, 3, 24, 35)).logits
    model.set_input_embeddings(replacement)
    torch.testing.assert_close(model(images()).logits, expected)


@pytest.mark.parametrize("task", TASKS)
def test_the_parallel_plans_name_modules_of_the_model(task):
    model = tiny(task, **VIT)
    names = {re.sub(r"\.\d+(?=\.|$)", ".*", name) for name, _ in model.named_modules()}
    assert model.tp_plan
    assert set(model.tp_plan) <= names
    assert model.fsdp_plan
    assert set(model.fsdp_plan) <= names


def test_accelerate_wraps_the_blocks_for_fsdp():
    from accelerate.utils import FullyShardedDataParallelPlugin

    model = tiny()
    plugin = FullyShardedDataParallelPlugin(auto_wrap_policy="transformer_based_wrap")
    plugin.set_auto_wrap_policy(model)
    assert plugin.auto_wrap_policy.keywords["transformer_layer_cls"] == {type(model.vit.encoder[0])}
