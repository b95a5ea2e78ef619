# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Each layer learns at its own rate, and the matrices of the blocks by Muon, if that is asked for."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.training.finetuning import prepare
from modeling_vit_scratch.training.optimizers import Muon, MuonForBlocks, decay_by_layer, orthogonal
from modeling_vit_scratch.training.trainer import ViTTrainer
from modeling_vit_scratch.training.training_arguments import ModelArguments

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


# Weight decay


def test_weight_decay_reaches_the_matrices_and_nothing_else():
    model = small(layerscale_value=0.1, num_register_tokens=1)
    spared = {"positional_embedding", "cls_token", "register_tokens", "gamma", "bias"}
    decayed = ViTTrainer.get_decay_parameter_names(None, model)
    assert {name.rpartition(".")[2] for name, _ in model.named_parameters() if name not in decayed} - {
        "weight"
    } == spared
    assert {name.rpartition(".")[2] for name in decayed} == {"weight"}
    assert all(model.get_parameter(name).ndim > 1 for name in decayed)


def test_weight_decay_reaches_the_additions_of_lora():
    model = small()
    prepare(model, ModelArguments(finetuning="lora"))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    decayed = trained & set(ViTTrainer.get_decay_parameter_names(None, model))
    assert {name for name in trained if name.endswith(("lora_A.default.weight", "lora_B.default.weight"))} < decayed
    assert {name.rpartition(".")[2] for name in trained - decayed} == {"bias"}


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
    muon = torch.optim.Muon([piece for pieces in matrices.values() for piece in pieces], lr=0.02, weight_decay=0.05)
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
        torch.testing.assert_close(weight, weights[name], atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (15, 15)])
def test_a_direction_of_muon_is_nearly_orthogonal(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    direction = orthogonal(1e-3 * matrix)
    assert (direction.shape, direction.dtype) == (shape, torch.bfloat16)
    assert all(0.4 < value < 1.4 for value in torch.linalg.svdvals(direction.float()))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    likeness = (direction.float() * (left @ right)).sum() / min(shape)
    assert likeness > 0.7
    assert torch.equal(orthogonal(torch.zeros(shape)), torch.zeros(shape, dtype=torch.bfloat16))


def test_a_state_of_torchs_muon_goes_on_in_ours():
    # As in a checkpoint of a version that had torch's.
    parameter, other = (nn.Parameter(torch.arange(12.0).view(4, 3)) for _ in range(2))
    theirs, ours = torch.optim.Muon([parameter], lr=0.1, weight_decay=0.5), Muon([other], [1], 0.3, 0.0)
    for step in range(4):
        if step == 2:
            other.data.copy_(parameter.data)
            ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
        for weight, optimizer in ((parameter, theirs), (other, ours)):
            weight.grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            optimizer.step()
    torch.testing.assert_close(other, parameter, atol=1e-6, rtol=0)


def test_a_matrix_without_a_gradient_stays_as_it_is(model):
    optimizer = MuonForBlocks(adamw(model), model, 0.02, 0.05)
    still = model.vit.encoder[0].ff[0].weight
    still.register_post_accumulate_grad_hook(lambda weight: setattr(weight, "grad", None))
    before = still.detach().clone()
    learn(model, optimizer, steps=2)
    assert torch.equal(still, before)


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
