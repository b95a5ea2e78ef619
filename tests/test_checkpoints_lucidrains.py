"""vit-pytorch's state dicts: ViT and SimpleViT of every age, and what they do not say."""

import golden_cases
import pytest
import torch
import torch.nn.functional as F

from modeling_vit_scratch.checkpoints import convert_state_dict, read_checkpoint
from modeling_vit_scratch.model.layers_vit_scratch import height_width

HEADS = {"num_attention_heads": 2}
ATTENTION = "transformer.layers.0.0"


def weights(case: str) -> dict[str, torch.Tensor]:
    return torch.load(golden_cases.checkpoint("lucidrains", case), weights_only=True)


@pytest.fixture
def imported(tmp_path):
    """A function that saves a state dict and imports the file."""

    def save_and_import(tensors: dict[str, torch.Tensor], **told):
        torch.save(tensors, tmp_path / "model.pt")
        return read_checkpoint(tmp_path / "model.pt", config_overrides=told)

    return save_and_import


def same_weights(model, other) -> bool:
    states = model.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(map(torch.equal, *(state.values() for state in states)))


# --- The numbers of vit-pytorch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", golden_cases.cases("lucidrains"))
def test_hidden_states_and_logits_are_those_of_vit_pytorch(case):
    differences = golden_cases.differences("lucidrains", case)
    assert len(differences) >= 3
    assert {name: value for name, value in differences.items() if value > 1e-5} == {}


def test_a_simple_vit_of_before_1_4_normalises_after_pooling(imported):
    old = weights("simple")
    for name in ("weight", "bias"):
        old[f"linear_head.0.{name}"] = old.pop(f"transformer.norm.{name}")
        old[f"linear_head.1.{name}"] = old.pop(f"linear_head.{name}")
    model = imported(old, image_size=12, **HEADS).model
    found = golden_cases.outputs(model, golden_cases.IMAGES["trained"])
    norm, head = ((old[f"linear_head.{index}.weight"], old[f"linear_head.{index}.bias"]) for index in (0, 1))
    expected = F.linear(F.layer_norm(found["hidden_states"][-1].mean(dim=1), (8,), *norm), *head)
    torch.testing.assert_close(found["logits"], expected)


# --- What names and shapes tell --------------------------------------------------------------------------------------


def test_the_fields_of_a_vit():
    config = golden_cases.imported("lucidrains", "cls").model.config
    read = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "head_dim": 6,
        "intermediate_size": 12,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "image_size": [12, 12],
        "patch_size": [4, 4],
        "num_channels": 3,
        "use_dual_patch_norm": True,
        "qkv_bias": False,
        "out_proj_bias": True,
        "norm_first": True,
        "use_cls_token": True,
        "use_cls_position": True,
        "use_final_layer_norm": True,
        "use_pooled_layer_norm": False,
        "pooling": "cls",
        "num_labels": 5,
    }
    assert {name: getattr(config, name) for name in read} == read


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("mean", {"use_cls_token": False, "pooling": "mean"}),
        ("mean_1_16", {"use_cls_token": False, "pooling": "mean"}),
        ("mean_1_10", {"use_cls_token": True, "pooling": "mean_tokens"}),
        ("mean_1_2", {"use_dual_patch_norm": True, "use_final_layer_norm": False, "use_pooled_layer_norm": True}),
        ("cls_0_40", {"use_dual_patch_norm": False, "use_final_layer_norm": False, "use_pooled_layer_norm": True}),
        ("simple", {"position_embedding_type": "sincos2d", "out_proj_bias": False, "pooling": "mean"}),
    ],
)
def test_the_fields_in_which_other_variants_differ(case, fields):
    config = golden_cases.imported("lucidrains", case).model.config
    assert {name: getattr(config, name) for name in fields} == fields


def test_one_head_as_wide_as_the_model_has_no_projection_and_needs_not_be_told():
    model = golden_cases.imported("lucidrains", "one_head", config_overrides={}).model
    projection = model.vit.encoder[0].attention.out_proj
    assert (model.config.num_attention_heads, model.config.head_dim, projection.bias) == (1, None, None)
    torch.testing.assert_close(projection.weight, torch.eye(8), atol=0, rtol=0)


def test_a_cls_token_that_is_empty_is_left_out_with_its_reason():
    notes = golden_cases.imported("lucidrains", "mean").notes
    assert "ignored cls_token: it is empty, as there is no [CLS] token" in notes
    assert not any("ignored" in note for note in golden_cases.imported("lucidrains", "cls").notes)


# --- Heads -----------------------------------------------------------------------------------------------------------


def test_heads_that_cannot_be_64_wide_are_asked_for():
    with pytest.raises(ValueError, match=r"does not say num_attention_heads .*: .*'num_attention_heads=…'"):
        golden_cases.imported("lucidrains", "cls", config_overrides={})


def test_heads_are_assumed_to_be_64_wide_where_they_can_be(imported):
    wide = weights("mean")
    wide[f"{ATTENTION}.to_qkv.weight"] = torch.ones(3 * 128, 8)
    wide[f"{ATTENTION}.to_out.0.weight"] = torch.ones(8, 128)
    found = imported(wide)
    assert (found.model.config.num_attention_heads, found.model.config.head_dim) == (2, 64)
    assert "assumed 2 attention heads of width 64, vit-pytorch's default" in found.notes
    told = imported(wide, num_attention_heads=4)
    assert (told.model.config.num_attention_heads, told.model.config.head_dim) == (4, 32)
    assert not any("heads" in note for note in told.notes)


def test_their_width_says_as_much_as_their_number():
    by_number = golden_cases.imported("lucidrains", "cls").model
    by_width = golden_cases.imported("lucidrains", "cls", config_overrides={"head_dim": 6}).model
    assert by_width.config.num_attention_heads == 2
    assert same_weights(by_number, by_width)


def test_a_number_of_heads_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"in_proj\.weight is \(36, 8\) and must be \(30, 8\); correct the fields"):
        golden_cases.imported("lucidrains", "cls", config_overrides={"num_attention_heads": 5})


# --- Pooling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["cls_0_40", "mean_1_2", "mean_1_10"])
def test_whether_an_old_file_with_a_cls_token_reads_it_is_asked(case):
    with pytest.raises(ValueError, match=r"does not say pooling .*: "):
        golden_cases.imported("lucidrains", case, config_overrides=HEADS)


def test_the_mean_of_an_old_file_is_that_of_all_tokens():
    with pytest.raises(ValueError, match=r"which vit-pytorch's mean includes: pooling=mean_tokens\."):
        golden_cases.imported("lucidrains", "mean_1_10", config_overrides={**HEADS, "pooling": "mean"})


# --- Patches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["mean", "cls_0_40"])
@pytest.mark.parametrize(("patch", "channels"), [((4, 4), 3), ((2, 8), 3), ((8, 2), 3), ((2, 4), 6), ((1, 3), 16)])
def test_pixels_are_put_in_the_order_of_a_convolution(case, patch, channels, imported):
    theirs = weights(case)
    told = {**golden_cases.facts("lucidrains", case), "patch_size": list(patch), "num_channels": channels}
    model = imported(theirs, **told).model
    height, width = model.config.image_size
    images = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(0))
    # (B, C, rows, p1, columns, p2) -> (B, rows * columns, p1 * p2 * C), as vit-pytorch does
    pixels = images.unflatten(3, (-1, patch[1])).unflatten(2, (-1, patch[0]))
    pixels = pixels.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    first, second, third = (
        [theirs.get(f"to_patch_embedding.{index}.{name}") for name in ("weight", "bias")] for index in (1, 2, 3)
    )
    if case == "cls_0_40":
        expected = F.linear(pixels, *first)
    else:
        expected = F.layer_norm(F.linear(F.layer_norm(pixels, (48,), *first), *second), (8,), *third)
    torch.testing.assert_close(model.vit.patch_embedding(images), expected)


def test_patches_are_assumed_to_be_square_and_of_three_channels():
    assert "assumed square patches of 4 pixels and 3 channels" in golden_cases.imported("lucidrains", "cls").notes


@pytest.mark.parametrize(
    ("told", "patch", "channels"),
    [({"num_channels": 12}, [2, 2], 12), ({"patch_size": 2}, [2, 2], 12), ({"patch_size": [2, 8]}, [2, 8], 3)],
)
def test_one_of_patch_and_channels_tells_the_other(told, patch, channels):
    config = golden_cases.imported("lucidrains", "mean", config_overrides={**HEADS, **told}).model.config
    assert (list(height_width(config.patch_size)), config.num_channels) == (patch, channels)


def test_a_patch_that_is_no_square_of_three_channels_is_asked_for(imported):
    odd = weights("mean")
    odd["to_patch_embedding.2.weight"] = torch.ones(8, 50)
    for name in ("weight", "bias"):
        odd[f"to_patch_embedding.1.{name}"] = torch.ones(50)
    with pytest.raises(ValueError, match="does not say patch_size"):
        imported(odd, **HEADS, image_size=15)
    assert imported(odd, **HEADS, patch_size=5).model.config.num_channels == 2


def test_patch_and_channels_that_do_not_fit_are_refused():
    told = {**HEADS, "patch_size": 4, "num_channels": 1}
    with pytest.raises(ValueError, match="has patches of 48 values, which are not 1 channels of 4x4 pixels"):
        golden_cases.imported("lucidrains", "mean", config_overrides=told)


# --- Sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["simple", "wide"])
def test_an_image_size_that_cannot_be_read_is_asked_for(case):
    with pytest.raises(ValueError, match=r"does not say image_size .*: "):
        golden_cases.imported("lucidrains", case, config_overrides=HEADS)


# --- Names -----------------------------------------------------------------------------------------------------------


def test_the_names_alone_are_converted_without_being_told_anything():
    model = golden_cases.imported("lucidrains", "cls").model
    assert model.load_state_dict(convert_state_dict(weights("cls")), strict=True)


@pytest.mark.parametrize(
    "name", ["register_tokens", f"{ATTENTION}.temperature", f"{ATTENTION}.reattn_weights", "distill_mlp.0.weight"]
)
def test_other_models_of_vit_pytorch_are_refused(name, imported):
    with pytest.raises(ValueError, match=rf"(no plain ViT|no place in the model).*{name}"):
        imported({**weights("cls"), name: torch.ones(1)}, **HEADS)


def test_a_state_dict_that_is_not_whole_is_refused(imported):
    lacking = weights("cls")
    del lacking["transformer.layers.1.1.net.4.bias"]
    with pytest.raises(ValueError, match=r"not whole: it has nothing for 1 tensors, such as vit\.encoder\.1\.ff\.2"):
        imported(lacking, **HEADS)
