# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The joint video model computes what transformers' ViViT does, with its weights, both ways."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import VivitConfig, VivitForVideoClassification

from modeling_vit_scratch import ViViTScratchConfig, ViViTScratchForVideoClassification
from modeling_vit_scratch.checkpoints.tables import apply, unapply
from modeling_vit_scratch.checkpoints.vivit import RULES

SHARED = {
    "num_frames": 8,
    "tubelet_size": [2, 8, 8],
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "num_labels": 5,
}


@pytest.fixture(params=[32, [24, 32]], ids=["square", "not square"])
def both(request):
    """Transformers' model with random weights, and ours of its settings."""
    torch.manual_seed(0)
    theirs = VivitForVideoClassification(VivitConfig(image_size=request.param, **SHARED)).eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    ours = ViViTScratchForVideoClassification(
        ViViTScratchConfig(image_size=request.param, attention_variant="joint", hidden_act="gelu_fast", **SHARED)
    )
    height, width = (request.param, request.param) if isinstance(request.param, int) else request.param
    return theirs, ours.eval(), torch.randn(2, 8, 3, height, width)


def read(tensors: dict) -> dict:
    """Their tensors under our names; every one is used."""
    given = {name.removeprefix("vivit."): tensor for name, tensor in tensors.items()}
    state, used = apply(RULES, given)
    assert used == given.keys()
    return {name if name.startswith("classification_head") else f"vivit.{name}": value for name, value in state.items()}


@torch.no_grad()
def test_their_weights_give_their_results_from_memory_and_from_a_file(both, tmp_path):
    theirs, ours, pixel_values = both
    expected = theirs(pixel_values, output_hidden_states=True)
    theirs.save_pretrained(tmp_path)
    for tensors in (theirs.state_dict(), load_file(tmp_path / "model.safetensors")):
        ours.load_state_dict(read(tensors))
        found = ours(pixel_values, output_hidden_states=True)
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.hidden_states[1], expected.hidden_states[1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_our_weights_give_our_results_there(both):
    theirs, ours, pixel_values = both
    state = {name.removeprefix("vivit."): tensor for name, tensor in ours.state_dict().items()}
    written = unapply(RULES, state)
    named = {name if name.startswith("classifier") else f"vivit.{name}": tensor for name, tensor in written.items()}
    theirs.load_state_dict(named)
    torch.testing.assert_close(theirs(pixel_values).logits, ours(pixel_values).logits, atol=1e-5, rtol=1e-5)
