# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Where training starts: the weights of a checkpoint, and a head that is new."""

import pytest
import torch
from runs import weights
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification, ViTScratchModel
from modeling_vit_scratch.checkpoints.importing import read_checkpoint
from modeling_vit_scratch.training.starting import build_model
from modeling_vit_scratch.training.training_arguments import ModelArguments

SIZES = {"image_size": 8, "patch_size": 4, "hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 20}
HEAD = "classification_head.fc.weight"


@pytest.fixture(params=["article", "truncated_normal", "mimetic"])
def checkpoint(request, tmp_path):
    """A classifier for three labels, each way that weights begin."""
    config = ViTScratchConfig(**SIZES, num_hidden_layers=1, initialization=request.param, num_labels=3)
    ViTScratchForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def bodies(monkeypatch):
    """The bodies that are built, in order."""
    built = []
    constructor = ViTScratchModel.__init__

    def counting(self, *arguments, **options):
        built.append(self)
        constructor(self, *arguments, **options)

    monkeypatch.setattr(ViTScratchModel, "__init__", counting)
    return built


def fine_tuned(checkpoint, num_labels, seed=0):
    torch.manual_seed(seed)
    return build_model(ModelArguments(model=str(checkpoint)), [f"kind {index}" for index in range(num_labels)])[0]


@pytest.mark.parametrize("num_labels", [3, 5])
def test_a_new_head_leaves_the_body_as_it_is_and_builds_no_second_one(checkpoint, bodies, num_labels):
    model = fine_tuned(checkpoint, num_labels)
    assert bodies == [model.vit]
    old, new = weights(checkpoint), model.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old if name.startswith("vit."))
    assert new[HEAD].shape == (num_labels, 12)
    assert not torch.equal(new[HEAD][:3], old[HEAD])
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("num_labels", [3, 5])
def test_a_new_head_follows_from_the_seed(checkpoint, num_labels):
    first, again, other = (fine_tuned(checkpoint, num_labels, seed).state_dict()[HEAD] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("checkpoint", ["article", "truncated_normal"], indirect=True)
def test_a_new_head_begins_as_that_of_a_new_model_does(checkpoint):
    model = fine_tuned(checkpoint, num_labels=1000)
    new = ViTScratchForImageClassification(model.config)
    for name, weight in model.classification_head.state_dict().items():
        expected = new.classification_head.state_dict()[name]
        assert weight.std().item() == pytest.approx(expected.std().item(), rel=0.1)
        assert weight.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.3)


def test_an_import_with_a_new_head_builds_one_body(checkpoint, bodies):
    model = read_checkpoint(checkpoint, num_labels=5).model
    assert bodies == [model.vit]
