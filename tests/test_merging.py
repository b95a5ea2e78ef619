"""Token merging: what is merged into what, that nothing else changes, and that every model can do it."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from test_modeling_compile import SIDE_EFFECT_OF_TRANSFORMERS, TORCH_DEPRECATIONS
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageClassification
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask
from transformers.modeling_utils import AttentionInterface

from modeling_vit_scratch import (
    ViTScratchBackbone,
    ViTScratchConfig,
    ViTScratchForImageClassification,
    ViTScratchForMaskedImageModeling,
    ViTScratchModel,
    pad_images,
)
from modeling_vit_scratch.model.layers_vit_scratch import eager_attention
from modeling_vit_scratch.model.merging_vit_scratch import (
    MergedPatches,
    TokenMerging,
    bipartite_soft_matching,
    merging_schedule,
)

# 4 x 5 patches of 6 x 7 pixels, width 48, 6 heads of 8, 3 blocks, 9 labels: no two axes alike.
TINY = {
    "image_size": [24, 35],
    "patch_size": [6, 7],
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 56,
    "num_labels": 9,
    "attention_probs_dropout_prob": 0.0,
}
VIT = {"norm_first": True, "use_cls_position": True, "use_final_layer_norm": True}
ARCHITECTURES = [
    {},
    VIT,
    {"use_cls_token": False, "pooling": "mean"},
    {**VIT, "num_register_tokens": 2, "pooling": "cls_mean"},
    {"pooling": "attention", "layerscale_value": 0.5, "use_swiglu_ffn": True},
]
MERGINGS = [4, [3, 0, 5], 100]


def tiny(task=ViTScratchForImageClassification, **fields):
    torch.manual_seed(0)
    return task(ViTScratchConfig(**{**TINY, **fields})).eval()


def images(batch=2):
    return torch.randn(batch, 3, 24, 35, generator=torch.Generator().manual_seed(1))


def images_of_one_patch(batch=2):
    """Images whose patches are all the same, so that without positions no merging changes anything."""
    patch = torch.randn(batch, 3, 6, 7, generator=torch.Generator().manual_seed(2))
    return patch.repeat(1, 1, 4, 5)


def padding_mask():
    mask = torch.ones(2, 4, 5, dtype=torch.bool)
    mask[0, 2:] = False
    mask[1, :, 3:] = False
    return mask.flatten(1)


@pytest.fixture
def without_mask():
    """A kernel that, as FlashAttention, adds no mask to the scores: registered with transformers as users do."""

    def kernel(module, query, key, value, attention_mask, **kwargs):
        assert attention_mask is None
        assert query.shape[-1] % 8 == 0
        return eager_attention(module, query, key, value, None, **kwargs)[0], None

    AttentionInterface.register("without_mask", kernel)
    AttentionMaskInterface.register("without_mask", flash_attention_mask)
    yield "without_mask"
    del AttentionInterface._global_mapping["without_mask"], AttentionMaskInterface._global_mapping["without_mask"]


# --- What is merged --------------------------------------------------------------------------------------------------


def test_the_schedules():
    assert merging_schedule(3, 4) == [3, 3, 3, 3]
    assert merging_schedule([5, 0, 2], 3) == [5, 0, 2]
    assert merging_schedule(3, 4, decreasing=True) == [6, 4, 2, 0]
    assert merging_schedule(8, 12, decreasing=True) == [16, 15, 13, 11, 10, 9, 7, 6, 5, 3, 1, 0]
    assert merging_schedule(3, 1, decreasing=True) == [3]
    for depth in range(1, 30):
        schedule = merging_schedule(7, depth, decreasing=True)
        assert sum(schedule) == 7 * depth
        assert all(max(0, b - a) <= 1 for a, b in pairwise(schedule))


def test_the_tokens_that_are_most_alike_are_matched():
    angle = torch.tensor([[0.0, 90.0, 50.0, 30.0, 88.0]]).deg2rad()  # a: 0, 50, 88 degrees; b: 90, 30
    metric = torch.stack((angle.cos(), angle.sin()), dim=-1) * torch.tensor([1.0, 9.0, 2.0, 0.5, 3.0])[:, None]
    kept, merged, partner = bipartite_soft_matching(metric, 2, torch.ones(1, 5))
    assert merged.tolist() == [[2, 1]]  # 88 to 90, then 50 to 30
    assert partner.tolist() == [[0, 1]]
    assert kept.tolist() == [[0]]


def test_padding_is_merged_after_what_the_image_merges_alone():
    metric = torch.eye(8)[None]
    metric[0, 2] = metric[0, 3]  # the second token of a and of b are the same, the first ones alike
    metric[0, 0, 1] = 0.5
    sizes = torch.tensor([[1.0, 2, 1, 1, 1, 0, 0, 0]])
    for num_merged, merged in ((1, [1]), (2, [1, 0]), (3, [1, 0, 3]), (4, [1, 0, 3, 2])):
        kept, result, partner = bipartite_soft_matching(metric, num_merged, sizes)
        assert result[0].tolist() == merged
        assert sorted(kept[0].tolist() + merged) == [0, 1, 2, 3]
        assert partner[0, 0] == 1
    assert bipartite_soft_matching(metric[:, :5], 2)[1].tolist() == [[1, 0]]


@pytest.mark.parametrize("token_merging", [1, 2, 4, 9, [3, 0, 2]], ids=str)
@pytest.mark.parametrize("fields", [{}, {"pooling": "mean", "use_cls_token": False}, {"pooling": "attention"}], ids=str)
def test_padded_images_of_different_sizes_have_the_logits_that_they_have_alone(fields, token_merging):
    model = tiny(token_merging=token_merging, **fields)
    sizes = [(24, 35), (12, 49), (30, 14), (6, 7), (18, 21)]
    mixed = [torch.randn(3, *size, generator=torch.Generator().manual_seed(4)) for size in sizes]
    alone = [model(image[None], interpolate_pos_encoding=True).logits for image in mixed]
    batch = pad_images(mixed, model.config.patch_size)
    torch.testing.assert_close(model(**batch).logits, torch.cat(alone), atol=1e-5, rtol=0)
    # Neither what is in the padding nor which number says that a patch is none matters.
    cells = batch["patch_attention_mask"].view(5, 1, 5, 7).repeat_interleave(6, dim=2).repeat_interleave(7, dim=3)
    batch["pixel_values"] = batch["pixel_values"] + 100 * torch.randn(5, 3, 30, 49) * ~cells
    batch["patch_attention_mask"] = 255 * batch["patch_attention_mask"].long()
    torch.testing.assert_close(model(**batch).logits, torch.cat(alone), atol=1e-5, rtol=0)


def test_merging_ends_where_one_patch_is_left():
    for num_patches in (1, 2, 3):
        model = tiny(ViTScratchModel, token_merging=100, interpolate_pos_encoding=True)
        outputs = model(torch.randn(1, 3, 6, 7 * num_patches), output_hidden_states=True, output_attentions=True)
        assert outputs.last_hidden_state.shape == (1, 1 + num_patches, 48)
        assert [maps.shape[-1] for maps in outputs.attentions] == [1 + num_patches] * 3


def test_merging_works_in_double_and_half_precision():
    expected = tiny(token_merging=3)(images(), patch_attention_mask=padding_mask()).logits
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float16, 0.02), (torch.bfloat16, 0.1)):
        logits = tiny(token_merging=3).to(dtype)(images().to(dtype), patch_attention_mask=padding_mask()).logits
        assert logits.dtype == dtype
        torch.testing.assert_close(logits.float(), expected, atol=tolerance, rtol=0)


def test_a_token_is_the_mean_of_the_patches_in_it():
    """Two merges by hand: 5 patches, then 3 tokens, [CLS] in front."""
    x = torch.tensor([[100.0], [1.0], [2.0], [3.0], [4.0], [5.0]])[None]  # (1, 1 + 5, 1)
    patches = MergedPatches.none_yet(x, 1, None)

    def merge(x, patches, angles):
        radians = torch.tensor([0.0, *angles]).deg2rad()
        key = torch.stack((radians.cos(), radians.sin()), dim=-1)[None, None]  # one head
        merging = TokenMerging(eager_attention, "eager", patches, 2)
        merging.attend(torch.nn.Module().eval(), key, key, key, None, scaling=1.0)
        return merging.merge(x), merging.patches

    # a: patches 0, 2, 4; b: 1, 3. 4 goes to 1 and 2 to 3; 0 is left.
    x, patches = merge(x, patches, [0, 90, 40, 30, 88])
    assert x.flatten().tolist() == [100, 1, 3.5, 3.5]
    assert patches.sizes.tolist() == [[1, 2, 2]]
    assert patches.token_of.tolist() == [[0, 1, 2, 2, 1]]
    # Of three tokens only one can go: token 2 (patches 2 and 3) to token 1 (patches 1 and 4).
    x[0, 3] = 8.0
    x, patches = merge(x, patches, [0, 70, 75])
    assert x.flatten().tolist() == [100, 1, 5.75]
    assert patches.sizes.tolist() == [[1, 4]]
    assert patches.token_of.tolist() == [[0, 1, 1, 1, 1]]
    assert patches.unmerge(x).flatten().tolist() == [100, 1, 5.75, 5.75, 5.75, 5.75]


@pytest.mark.parametrize("masked", [False, True])
def test_every_patch_stays_in_one_token_however_often_they_are_merged(masked):
    torch.manual_seed(3)
    x = torch.randn(2, 2 + 20, 7)
    mask = padding_mask() if masked else None
    original, patches = x, MergedPatches.none_yet(x, 2, mask if mask is None else F.pad(mask, (2, 0), value=True))
    weights = patches.sizes
    for num_merged in (5, 3, 4, 9):
        merging = TokenMerging(eager_attention, "eager", patches, num_merged)
        key = torch.randn(2, 3, x.shape[1], 7)
        merging.attend(torch.nn.Module().eval(), key, key, key, None, scaling=1.0)
        x, patches = merging.merge(x), merging.patches
        assert torch.equal(x[:, :2], original[:, :2])
        for image in range(2):
            for token in range(x.shape[1] - 2):
                inside = patches.token_of[image] == token
                assert patches.sizes[image, token] == weights[image, inside].sum()
                if patches.sizes[image, token] > 0:
                    mean = (original[image, 2:][inside] * weights[image, inside, None]).sum(0) / weights[
                        image, inside
                    ].sum()
                    torch.testing.assert_close(x[image, 2 + token], mean)
    assert x.shape[1] == 2 + 4  # 20 - 5 - 3 - 4, and of the last 8 half


# --- Merging what is equal changes nothing ---------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
@pytest.mark.parametrize("kernel", ["eager", "sdpa", "without_mask"])
@pytest.mark.parametrize("merging", MERGINGS, ids=str)
@pytest.mark.parametrize("fields", ARCHITECTURES, ids=str)
def test_attention_is_in_proportion_to_the_sizes(fields, merging, kernel, masked, without_mask):
    fields = {**fields, "position_embedding_type": "none", "use_cls_position": False}
    kwargs = {"patch_attention_mask": padding_mask() if masked else None}
    expected = tiny(**fields)(images_of_one_patch(), **kwargs)
    merged = tiny(**fields, token_merging=merging, attn_implementation=kernel)(images_of_one_patch(), **kwargs)
    torch.testing.assert_close(merged.logits, expected.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("merging", MERGINGS, ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
def test_attention_maps_and_hidden_states_are_of_the_original_patches(masked, merging):
    fields = {**VIT, "position_embedding_type": "none", "use_cls_position": False}
    asked = {"output_attentions": True, "output_hidden_states": True}
    mask = padding_mask() if masked else None
    expected = tiny(ViTScratchModel, **fields)(images_of_one_patch(), patch_attention_mask=mask, **asked)
    outputs = tiny(ViTScratchModel, **fields, token_merging=merging)(
        images_of_one_patch(), patch_attention_mask=mask, **asked
    )
    real = torch.ones(2, 21, dtype=torch.bool) if mask is None else torch.nn.functional.pad(mask, (1, 0), value=True)
    for name in ("hidden_states", "attentions"):
        assert len(outputs[name]) == len(expected[name])
        for ours, theirs in zip(outputs[name], expected[name], strict=True):
            assert ours.shape == theirs.shape
            rows = (lambda x: x[real]) if name == "hidden_states" else (lambda x: x.transpose(1, 2)[real])
            torch.testing.assert_close(rows(ours), rows(theirs), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.last_hidden_state[real], expected.last_hidden_state[real], rtol=1e-4, atol=1e-5)


# --- In every model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["eager", "sdpa", "without_mask"])
@pytest.mark.parametrize("fields", ARCHITECTURES, ids=str)
def test_every_kernel_and_every_way_through_the_model_gives_the_same(fields, kernel, without_mask):
    expected = tiny(**fields, token_merging=4)(images()).logits
    model = tiny(**fields, token_merging=4, attn_implementation=kernel)
    for asked in ({}, {"output_hidden_states": True}, {"output_attentions": True}):
        torch.testing.assert_close(model(images(), **asked).logits, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected, tiny(**fields)(images()).logits, atol=1e-4)


def test_attention_maps_sum_to_one_and_leave_padding_out():
    outputs = tiny(token_merging=4)(images(), patch_attention_mask=padding_mask(), output_attentions=True)
    assert [maps.shape for maps in outputs.attentions] == [(2, 6, 21, 21)] * 3
    for maps in outputs.attentions:
        torch.testing.assert_close(maps.sum(-1), torch.ones(2, 6, 21))
        assert maps[0, :, :, 11:].max() == 0


@pytest.mark.parametrize("task", [ViTScratchBackbone, ViTScratchForMaskedImageModeling, ViTScratchModel])
def test_every_model_returns_what_it_returns_without_merging(task):
    fields = {**VIT, "out_indices": [0, 2]} if task is ViTScratchBackbone else VIT
    merged, plain = (tiny(task, **fields, token_merging=r)(images()) for r in (4, 0))
    assert merged.keys() == plain.keys()
    for name, value in plain.items():
        pairs = zip(value, merged[name], strict=True) if isinstance(value, tuple) else [(value, merged[name])]
        assert all(ours.shape == theirs.shape for ours, theirs in pairs)


def test_a_checkpoint_is_loaded_with_merging_and_keeps_it(tmp_path):
    plain = tiny()
    plain.save_pretrained(tmp_path / "plain")
    merging = AutoModelForImageClassification.from_pretrained(tmp_path / "plain", token_merging=4)
    torch.testing.assert_close(merging(images()).logits, tiny(token_merging=4)(images()).logits)
    merging.save_pretrained(tmp_path / "merging")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "merging")
    assert again.config.token_merging == 4
    torch.testing.assert_close(again(images()).logits, merging(images()).logits)
    without = AutoModelForImageClassification.from_pretrained(tmp_path / "merging", token_merging=0)
    torch.testing.assert_close(without(images()).logits, plain(images()).logits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token_merging": -1}, "token_merging must be patches per block, 0 or more, got -1"),
        ({"token_merging": [1, 2]}, r"one for each of the 3 blocks, 0 or more, got \[1, 2\]"),
        ({"token_merging": [1, -2, 3]}, r"one for each of the 3 blocks, 0 or more, got \[1, -2, 3\]"),
        ({"token_merging": [1, 2, 3], "token_merging_schedule": "decreasing"}, "needs one number as token_merging"),
    ],
    ids=str,
)
def test_settings_that_make_no_schedule_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ViTScratchConfig(**{**TINY, **fields})


# --- Training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", ARCHITECTURES, ids=str)
def test_every_parameter_learns_and_checkpointing_changes_nothing(fields):
    model = tiny(**fields, token_merging=4, patch_dropout=0.2).train()
    gradients = []
    for _ in range(2):
        torch.manual_seed(5)
        model.zero_grad()
        model(images(), labels=torch.tensor([0, 8])).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        model.activation_checkpointing_enable()
    torch.testing.assert_close(*gradients)
    assert all(gradient.abs().max() > 0 for gradient in gradients[0].values())


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("fields", [{}, {"use_cls_token": False, "pooling": "mean"}], ids=str)
def test_the_operations_are_those_that_torch_counts(fields, kernel):
    # The likeness of the patches and the merging itself, which torch counts, are under a hundredth of a real model's.
    fields = {
        **fields,
        "hidden_size": 480,
        "intermediate_size": 960,
        "num_labels": 0,
        "position_embedding_type": "none",
    }
    for merging in MERGINGS:
        model = tiny(**fields, token_merging=merging, attn_implementation=kernel)
        counter = FlopCounterMode(display=False)
        with counter, sdpa_kernel(SDPBackend.MATH):
            model(images().requires_grad_()).logits.sum().backward()
        counted = counter.get_total_flops()
        assert model.floating_point_ops({"pixel_values": images()}) == pytest.approx(counted, rel=0.01)
        assert counted < 0.97 * tiny(**fields).floating_point_ops({"pixel_values": images()})


# --- Compilers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{}, {"output_attentions": True, "patch_attention_mask": padding_mask()}], ids=str)
def test_it_compiles_to_one_graph(asked):
    torch.compiler.reset()
    model = tiny(token_merging=4)
    expected = model(images(), **asked)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(images(), **asked)
    torch.testing.assert_close(compiled.logits, expected.logits)
    if "output_attentions" in asked:
        torch.testing.assert_close(compiled.attentions, expected.attentions)


@SIDE_EFFECT_OF_TRANSFORMERS
def test_it_exports_for_batches_of_any_size():
    model = tiny(token_merging=4)
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: batch},), strict=True)
    for size in (1, 2, 5):
        torch.testing.assert_close(program.module()(images(size)).logits, model(images(size)).logits)


def test_flex_attention_agrees_with_sdpa():
    model = tiny(ViTScratchModel, token_merging=4)
    # FlexAttention has no backward on the CPU, and compiling it takes seconds.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        masks = (None, padding_mask())
        expected = [model(images(), patch_attention_mask=mask).pooler_output for mask in masks]
        model.set_attn_implementation("flex_attention")
        for mask, pooled in zip(masks, expected, strict=True):
            torch.testing.assert_close(
                model(images(), patch_attention_mask=mask).pooler_output, pooled, atol=1e-5, rtol=1e-5
            )


for mark in TORCH_DEPRECATIONS:
    test_flex_attention_agrees_with_sdpa = mark(test_flex_attention_agrees_with_sdpa)
