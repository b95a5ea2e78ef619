"""Checkpoints of torchvision: files without a word beside the tensors, which compute here what they compute there."""

import golden_cases
import numpy as np
import pytest
import torch
from golden_cases import IMAGES, ROOT
from pictures import noise
from PIL import Image
from safetensors.torch import load_file

from modeling_vit_scratch import ViTScratchModel
from modeling_vit_scratch.checkpoints import convert_state_dict, read_checkpoint

CASES = golden_cases.cases("torchvision")
HEADS = {"num_attention_heads": 2}  # of all golden cases
PREPROCESSING = (
    "assumed the preprocessing of the ImageNet weights: the shorter side resized to 256 for images of 224 pixels "
    "(bilinear), else to that of the images (bicubic), and the centre cut out"
)


def golden_tensors(case: str) -> dict[str, torch.Tensor]:
    return dict(torch.load(ROOT / "torchvision" / case / "model.pth", weights_only=True))


@pytest.fixture
def imported(tmp_path):
    """A function that saves a state dict as torchvision's files are, and imports it."""

    def save_and_import(tensors: dict[str, torch.Tensor], **options):
        torch.save(tensors, tmp_path / "model.pth")
        return read_checkpoint(tmp_path / "model.pth", **options)

    return save_and_import


def tensors_of(width: int, grid: tuple[int, int], patch_size: int) -> dict[str, torch.Tensor]:
    """A model of one block with zeros for weights."""
    block = "encoder.layers.encoder_layer_0"
    shapes = {
        "class_token": (1, 1, width),
        "conv_proj.weight": (width, 3, patch_size, patch_size),
        "encoder.pos_embedding": (1, 1 + grid[0] * grid[1], width),
        f"{block}.self_attention.in_proj_weight": (3 * width, width),
        f"{block}.self_attention.out_proj.weight": (width, width),
        f"{block}.mlp.0.weight": (4, width),
        f"{block}.mlp.3.weight": (width, 4),
        "heads.head.weight": (5, width),
    }
    biases = {
        name.removesuffix("weight") + "bias": (shape[0],) for name, shape in shapes.items() if name.endswith("weight")
    }
    norms = {
        f"{norm}.{what}": (width,)
        for norm in (f"{block}.ln_1", f"{block}.ln_2", "encoder.ln")
        for what in ("weight", "bias")
    }
    return {name: torch.zeros(shape) for name, shape in (shapes | biases | norms).items()}


# --- The numbers of torchvision --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_hidden_states_and_logits_are_those_of_torchvision_at_every_size(case):
    differences = golden_cases.differences("torchvision", case)
    assert {"trained.hidden_states", "trained.last_hidden_state", "trained.pooled", "trained.logits"} <= set(
        differences
    )
    assert {name: value for name, value in differences.items() if value > 1e-5} == {}


@pytest.mark.parametrize("case", CASES)
def test_positions_are_fitted_as_interpolate_embeddings_does(case):
    fitted = golden_cases.imported("torchvision", case, image_size=20)
    assert "resampled the positions from 3x3 to 5x5 patches (bicubic_align_corners)" in fitted.notes
    expected = load_file(ROOT / "torchvision" / case / "expected.safetensors")
    with torch.no_grad():
        logits = fitted.model(IMAGES["larger"]).logits
    assert golden_cases.relative(logits, expected["larger.logits"]) < 1e-5


def test_the_fields():
    config = golden_cases.imported("torchvision", "plain").model.config
    read = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": [12, 12],
        "patch_size": [4, 4],
        "num_channels": 3,
        "norm_first": True,
        "position_interpolation": "bicubic_align_corners",
        "use_cls_token": True,
        "use_cls_position": True,
        "use_final_layer_norm": True,
        "pooling": "cls",
        "pooler_output_size": None,
        "num_labels": 5,
        "attention_probs_dropout_prob": 0.0,
    }
    assert {name: getattr(config, name) for name in read} == read


def test_a_representation_layer_is_followed_by_tanh():
    tensors = golden_tensors("representation")
    assert tensors["heads.pre_logits.weight"].shape == (6, 8)
    model = golden_cases.imported("torchvision", "representation").model
    assert model.config.pooler_output_size == 6
    outputs = golden_cases.outputs(model, IMAGES["trained"])
    cls = outputs["last_hidden_state"][:, 0]
    by_hand = torch.tanh(cls @ tensors["heads.pre_logits.weight"].T + tensors["heads.pre_logits.bias"])
    torch.testing.assert_close(outputs["pooled"], by_hand)


def test_the_names_of_older_files_are_the_same_model(imported):
    new = golden_tensors("plain")
    old = {name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): new[name] for name in new}
    assert "encoder.layers.encoder_layer_1.mlp.linear_2.bias" in old
    states = [imported(tensors, config_overrides=HEADS).model.state_dict() for tensors in (new, old)]
    assert all(map(torch.equal, *(state.values() for state in states)))


def test_a_model_without_a_head_is_a_base_model(imported):
    body = {name: tensor for name, tensor in golden_tensors("plain").items() if not name.startswith("heads.")}
    model = imported(body, config_overrides=HEADS).model
    assert isinstance(model, ViTScratchModel)
    expected = load_file(ROOT / "torchvision" / "plain" / "expected.safetensors")
    outputs = golden_cases.outputs(model, IMAGES["trained"])
    assert golden_cases.relative(outputs["pooled"], expected["trained.pooled"]) < 1e-5


def test_other_labels_need_another_head_and_no_representation_layer():
    found = golden_cases.imported("torchvision", "representation", num_labels=3)
    assert found.model.config.pooler_output_size is None
    assert found.model(IMAGES["trained"]).logits.shape == (1, 3)


def test_the_names_alone_are_converted_too():
    model = golden_cases.imported("torchvision", "plain").model
    assert model.load_state_dict(convert_state_dict(golden_tensors("plain")), strict=True)


# --- What a file does not say ----------------------------------------------------------------------------------------


def test_heads_are_asked_for(imported):
    with pytest.raises(
        ValueError, match=r"does not say num_attention_heads.*: add --config.overrides 'num_attention_h"
    ):
        imported(golden_tensors("plain"))


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (1024, 16), (1280, 16)])
def test_heads_of_the_released_widths_are_assumed_aloud_unless_they_are_told(width, heads, imported):
    tensors = tensors_of(width, (2, 2), 2)
    found = imported(tensors)
    note = f"assumed {heads} attention heads, as all torchvision's models of width {width} have"
    assert found.model.config.num_attention_heads == heads
    assert note in found.notes
    told = imported(tensors, config_overrides={"num_attention_heads": 4})
    assert told.model.config.num_attention_heads == 4
    assert note not in told.notes


# vit_b_16 and vit_b_32 as they were trained, and the sizes for which SWAG's weights were fine-tuned.
@pytest.mark.parametrize(("patch_size", "image_size"), [(16, 224), (32, 224), (16, 384), (16, 512), (14, 518)])
def test_the_image_size_is_the_square_that_the_positions_form(patch_size, image_size, imported):
    side = image_size // patch_size
    found = imported(tensors_of(8, (side, side), patch_size), config_overrides=HEADS)
    assert found.model.config.image_size == [image_size, image_size]
    assert f"assumed images of {image_size}x{image_size} pixels, as the positions form a square" in found.notes


def test_an_image_that_is_no_square_must_be_told(imported):
    tensors = tensors_of(8, (3, 5), 4)
    with pytest.raises(ValueError, match=r"does not say image_size.*: add --config.overrides 'image_size=…'"):
        imported(tensors, config_overrides=HEADS)
    found = imported(tensors, config_overrides={**HEADS, "image_size": [12, 20]})
    assert found.model.config.image_size == [12, 20]
    assert found.model(IMAGES["wide"]).logits.shape == (1, 5)
    assert (found.image_processor.size["height"], found.image_processor.size["width"]) == (12, 20)


@pytest.mark.parametrize(
    ("image_size", "resized", "resample"),
    [(224, (256, 341), Image.Resampling.BILINEAR), (384, (384, 512), Image.Resampling.BICUBIC)],
)
def test_images_are_prepared_as_for_the_released_weights(image_size, resized, resample, imported):
    side = image_size // 32
    found = imported(tensors_of(8, (side, side), 32), config_overrides=HEADS)
    assert PREPROCESSING in found.notes
    picture = noise((60, 45)).resize((600, 450), Image.Resampling.BICUBIC)
    pixels = found.image_processor(picture, return_tensors="np")["pixel_values"][0]
    expected = np.asarray(picture.resize(resized[::-1], resample), dtype=np.float32)
    top, left = (round((side - image_size) / 2) for side in resized)
    expected = expected[top : top + image_size, left : left + image_size]
    expected = (expected / 255 - (0.485, 0.456, 0.406)) / np.array((0.229, 0.224, 0.225))
    assert np.abs(pixels - expected.transpose(2, 0, 1)).max() <= 1.01 / 255 / 0.224


# --- What is refused -------------------------------------------------------------------------------------------------


def test_a_tensor_that_no_table_knows_is_refused(imported):
    strange = golden_tensors("plain") | {"encoder.layers.encoder_layer_0.adapter": torch.ones(1)}
    with pytest.raises(
        ValueError, match=r"have no place in the model, among them encoder\.layers\.encoder_layer_0\.ad"
    ):
        imported(strange, config_overrides=HEADS)


def test_a_file_that_is_not_whole_is_refused(imported):
    tensors = golden_tensors("plain")
    del tensors["encoder.layers.encoder_layer_1.mlp.3.weight"]
    with pytest.raises(ValueError, match=r"nothing for 1 tensors, such as vit\.encoder\.1\.ff\.2\.weight"):
        imported(tensors, config_overrides=HEADS)
