# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Each layer learns at its own rate, and the matrices of the blocks by Muon, if that is asked for."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Muon

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.training.optimizers import MuonForBlocks, decay_by_layer

RATE = 0.01


def small(**changed):
    torch.manual_seed(0)
    return ViTScratchForImageClassification(
        ViTScratchConfig(
            image_size=8,
            patch_size=4,
            hidden_size=12,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=20,
            num_labels=5,
            attention_probs_dropout_prob=0.0,
            **changed,
        )
    )


@pytest.fixture
def model():
    return small()


def learn(model, optimizer, steps: int = 1, seed: int = 0) -> None:
    for step in range(steps):
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed + step))
        optimizer.zero_grad()
        model(images, labels=torch.arange(4)).loss.backward()
        optimizer.step()


def adamw(model) -> AdamW:
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim < 2]
    return AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=RATE)


# Layer by layer


def test_each_layer_learns_at_a_share_of_the_rate_of_the_next(model):
    optimizer = adamw(model)
    decay_by_layer(optimizer, model, 0.5)
    rates = {weight: group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    assert rates[model.classification_head.fc.weight] == RATE
    assert rates[model.vit.encoder[1].attention.in_proj.weight] == RATE / 2
    assert rates[model.vit.encoder[0].norm1.bias] == RATE / 4
    assert rates[model.vit.patch_embedding.projection.weight] == RATE / 8
    assert rates[model.vit.cls_token.cls_token] == RATE / 8


def test_every_parameter_stays_and_keeps_its_weight_decay(model):
    optimizer = adamw(model)
    before = {weight: group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    decay_by_layer(optimizer, model, 0.5)
    after = {weight: group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert after == before
    assert len(before) == len(list(model.parameters()))


# Muon


def test_muon_has_the_matrices_of_the_blocks_and_the_other_optimizer_the_rest(model):
    optimizer = MuonForBlocks(adamw(model), model, 0.02, 0.05)
    muon, others = optimizer.parts
    assert isinstance(muon, Muon)
    assert isinstance(others, AdamW)
    names = {weight: name for name, weight in model.named_parameters()}
    by_muon = {names[weight] for group in muon.param_groups for weight in group["params"]}
    assert by_muon == {
        f"vit.encoder.{index}.{layer}.weight"
        for index in (0, 1)
        for layer in ("attention.in_proj", "attention.out_proj", "ff.0", "ff.2")
    }
    by_others = {names[weight] for group in others.param_groups for weight in group["params"]}
    assert by_others == set(names.values()) - by_muon
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (0.02, 0.05),
        (RATE, 0.1),
        (RATE, 0.0),
    ]


@pytest.mark.parametrize("changed", [{}, {"use_swiglu_ffn": True}], ids=["article", "swiglu"])
def test_a_step_is_a_step_of_each(changed):
    model = small(**changed)
    apart = copy.deepcopy(model)
    weights = dict(apart.named_parameters())
    # Queries, keys and values are learned apart, and so are the gates and values of SwiGLU.
    stacks = {"attention.in_proj.weight": 3} | ({"ff.0.weight": 2} if changed else {})
    matrices = {}
    for name, weight in weights.items():
        if ".encoder." in name and weight.ndim == 2:
            number = next((number for end, number in stacks.items() if name.endswith(end)), 1)
            matrices[name] = [nn.Parameter(piece) for piece in weight.detach().chunk(number)]  # in the same memory
    assert sum(len(pieces) for pieces in matrices.values()) == (14 if changed else 12)
    rest = [weight for name, weight in weights.items() if name not in matrices]
    muon = Muon([piece for pieces in matrices.values() for piece in pieces], lr=0.02, weight_decay=0.05)
    others = AdamW(rest, lr=RATE, weight_decay=0.0)
    optimizer = MuonForBlocks(AdamW(model.parameters(), lr=RATE, weight_decay=0.0), model, 0.02, 0.05)
    for step in range(3):
        learn(model, optimizer, seed=step)
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        apart.zero_grad()
        apart(images, labels=torch.arange(4)).loss.backward()
        for name, pieces in matrices.items():
            for piece, gradient in zip(pieces, weights[name].grad.chunk(len(pieces)), strict=True):
                piece.grad = gradient
        muon.step()
        others.step()
    for name, weight in model.named_parameters():
        assert torch.equal(weight, weights[name]), name


def test_weights_that_are_frozen_are_left_out(model):
    frozen = model.vit.encoder[0].ff[0].weight.requires_grad_(False)
    optimizer = MuonForBlocks(adamw(model), model, 0.02, 0.0)
    assert not any(weight is frozen for group in optimizer.parts[0].param_groups for weight in group["params"])


def test_a_schedule_moves_the_rates_of_both(model):
    optimizer = MuonForBlocks(adamw(model), model, 0.02, 0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    learn(model, optimizer)
    schedule.step()
    assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == [0.01, RATE / 2, RATE / 2]


def test_its_state_goes_on_from_a_file(model, tmp_path):
    optimizer = MuonForBlocks(adamw(model), model, 0.02, 0.05)
    learn(model, optimizer, steps=2)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    resumed = copy.deepcopy(model)
    other = MuonForBlocks(adamw(resumed), resumed, 0.02, 0.05)
    other.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    learn(model, optimizer, steps=2, seed=7)
    learn(resumed, other, steps=2, seed=7)
    for one, two in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
