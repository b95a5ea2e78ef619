# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The video models give what the authors' code gives: cases of scenic, with its weights under its names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_vit_scratch.checkpoints.scenic import rules
from modeling_vit_scratch.checkpoints.tables import apply
from modeling_vit_scratch.model.configuration_vivit_scratch import ViViTScratchConfig
from modeling_vit_scratch.model.modeling_vivit_scratch import ViViTScratchForVideoClassification

GOLDEN = Path(__file__).parent / "golden" / "vivit"
VARIANTS = {
    "spacetime": "joint",
    "factorized_encoder": "factorised_encoder",
    "factorized_self_attention_block": "factorised_self_attention",
    "factorized_dot_product_attention": "factorised_dot_product",
}
CASES = [
    path.parent.name for path in sorted(GOLDEN.glob("*/case.json")) if not path.parent.name.startswith(("infl", "pos"))
]


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
