# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The video models give what the authors' code gives: cases of scenic, with its weights under its names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.checkpoints.google import RULES
from modeling_vit_scratch.checkpoints.lineage import VIT_FIELDS
from modeling_vit_scratch.checkpoints.scenic import rules
from modeling_vit_scratch.checkpoints.tables import apply, of_classifier, positions
from modeling_vit_scratch.model.configuration_vivit_scratch import ViViTScratchConfig
from modeling_vit_scratch.model.layers_vivit_scratch import SpaceTimePositions
from modeling_vit_scratch.model.modeling_vivit_scratch import ViViTScratchForVideoClassification

GOLDEN = Path(__file__).parent / "golden" / "vivit"
VARIANTS = {
    "spacetime": "joint",
    "factorized_encoder": "factorised_encoder",
    "factorized_self_attention_block": "factorised_self_attention",
    "factorized_dot_product_attention": "factorised_dot_product",
}
CASES = ["joint_token", "factorised_encoder_token", "factorised_attention_time_space", "factorised_dot_product"]


def config_of(case: dict) -> ViViTScratchConfig:
    has_cls = case["classifier"] == "token"
    return ViViTScratchConfig(
        num_frames=case["frames"],
        image_size=[case["height"], case["width"]],
        tubelet_size=[case["tubelet"], *case["patch"]],
        sampled_frames=case["sampled_frames"],
        hidden_size=case["hidden"],
        num_hidden_layers=case["layers"],
        num_temporal_layers=case["temporal_layers"] or 1,
        num_attention_heads=case["heads"],
        intermediate_size=case["mlp"],
        num_labels=case["classes"],
        attention_variant=VARIANTS[case["attention"]],
        attention_order=case.get("order", "time_space"),
        use_cls_token=has_cls,
        use_cls_position=has_cls,
        pooling="cls" if has_cls else "mean",
    )


def state_of(tensors: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Weights of scenic under our names; every one of them is used."""
    given = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    state, used = apply(rules(given), given)
    assert used == given.keys()
    return {name if name.startswith("classification_head") else f"vivit.{name}": value for name, value in state.items()}


def read(name: str) -> tuple[dict, dict, dict]:
    folder = GOLDEN / name
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    return case, dict(np.load(folder / "source.npz")), dict(np.load(folder / "reference.npz"))


def pixels_of(video: np.ndarray) -> torch.Tensor:
    """(B, F, H, W, C) of bytes as the models take it, (B, F, C, H, W) from -1 to 1."""
    return torch.from_numpy(video).permute(0, 1, 4, 2, 3).float() / 127.5 - 1


@pytest.fixture(scope="module", params=CASES)
def golden(request):
    case, source, reference = read(request.param)
    model = ViViTScratchForVideoClassification(config_of(case)).eval()
    model.load_state_dict(state_of(source))
    return case, model, reference


@torch.no_grad()
def test_logits_and_hidden_states_are_the_authors(golden):
    _, model, reference = golden
    pixel_values = pixels_of(reference["video"])
    body = model.vivit(pixel_values)
    np.testing.assert_allclose(model(pixel_values).logits, reference["logits"], atol=1e-5)
    np.testing.assert_allclose(body.pooler_output, reference["prelogits"], atol=1e-5)
    if "last_hidden_state" in reference:
        np.testing.assert_allclose(body.last_hidden_state, reference["last_hidden_state"], atol=1e-5)


@torch.no_grad()
def test_the_order_of_the_frames_matters_as_much_as_to_the_authors(golden):
    case, model, reference = golden
    pixel_values = pixels_of(reference["video"])
    difference = (model(pixel_values).logits - model(pixel_values.flip(1)).logits).abs().max()
    assert float(difference) == pytest.approx(case["sensitivity"]["frames_reversed"], abs=1e-3)


# --- From an image model ---------------------------------------------------------------------------------------------

INFLATED = ["inflate_encoder_central_tile", "inflate_joint_average_resize_tile"]


def under(prefix: str, tensors: dict) -> dict:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def image_model_of(case: dict, tensors: dict) -> ViTScratchForImageClassification:
    given = {
        name.replace("output_projection", "head"): torch.from_numpy(np.array(value)) for name, value in tensors.items()
    }
    state, used = apply((*RULES, positions("Transformer/posembed_input/pos_embedding", 1)), given)
    assert used == given.keys()
    config = ViTScratchConfig(
        **VIT_FIELDS,
        image_size=case["image_hw"],
        patch_size=case["patch"],
        hidden_size=case["hidden"],
        num_hidden_layers=case["layers"],
        num_attention_heads=case["heads"],
        intermediate_size=case["mlp"],
        hidden_act="gelu_pytorch_tanh",
        position_interpolation="bilinear_align_corners",
        num_labels=len(tensors["output_projection/bias"]),
    )
    model = ViTScratchForImageClassification(config)
    model.load_state_dict(of_classifier(state))
    return model.eval()


def inflated(name: str) -> tuple:
    """A case, the image model, the video model that it became, and the arrays of both sides."""
    case, source, reference = read(name)
    image = image_model_of(case, under("image/", source))
    wanted = config_of(case)
    video = ViViTScratchForVideoClassification.from_image_model(
        image,
        inflation=case["inflation"].split("_")[0],
        num_frames=case["frames"],
        image_size=[case["height"], case["width"]],
        tubelet_size=[case["tubelet"], *case["patch"]],
        attention_variant=wanted.attention_variant,
        num_temporal_layers=wanted.num_temporal_layers,
        num_labels=case["classes"],
    )
    return case, image, video.eval(), source, reference


@pytest.mark.parametrize("name", INFLATED)
def test_a_video_model_begins_as_the_authors_with_what_an_image_model_has_learned(name):
    _, _, video, source, reference = inflated(name)
    theirs = state_of(under("before/", source) | under("after/", reference))
    left_alone = state_of(under("before/", source)).keys()  # by the authors; the image has nothing for most of it
    state = video.state_dict()
    for key in theirs.keys() - left_alone:
        np.testing.assert_allclose(state[key], theirs[key], atol=1e-6, err_msg=key)
    video.load_state_dict(theirs)
    with torch.no_grad():
        np.testing.assert_allclose(video(pixels_of(reference["video"])).logits, reference["logits"], atol=1e-5)


@torch.no_grad()
def test_of_a_still_clip_the_spatial_encoder_makes_what_the_image_model_makes_of_the_frame():
    case, image, video, _, _ = inflated("inflate_encoder_central_tile")
    frame = torch.rand(2, 3, case["height"], case["width"]) * 2 - 1
    seen = []
    video.vivit.pool_in_space.register_forward_hook(lambda module, given, pooled: seen.append(pooled))
    video(frame[:, None].expand(-1, case["frames"], -1, -1, -1))
    times = case["frames"] // case["tubelet"]
    # As many images at once, of which the head reads as much: the products are then the same to the bit.
    expected = image.vit(frame.repeat_interleave(times, dim=0), only_pooled=True).pooler_output  # (B Nt, D)
    assert torch.equal(seen[0], expected)


@torch.no_grad()
def test_positions_are_stretched_as_the_authors_do():
    _, source, reference = read("positions")
    temporal, grid = (torch.from_numpy(source[name]) for name in ("temporal_4", "grid_9"))
    for name, given, trained, asked in (
        ("temporal_6", temporal, (4, 1, 1), (6, 1, 1)),
        ("temporal_3", temporal, (4, 1, 1), (3, 1, 1)),
        ("grid_16", grid, (1, 3, 3), (1, 4, 4)),
        ("grid_4", grid, (1, 3, 3), (1, 2, 2)),
    ):
        layer = SpaceTimePositions(trained, given.shape[1])
        layer.positional_embedding.copy_(given[None])
        np.testing.assert_allclose(layer.resampled(asked), reference[name], atol=1e-6, err_msg=name)
