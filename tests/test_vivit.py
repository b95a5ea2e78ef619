# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Video models: what users of transformers expect of them, and what a video model must do that an image model need not.

That they compute what the authors' code computes is in test_vivit_golden.py.
"""

import inspect
from typing import get_args

import pytest
import torch
from forks import python
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification
from transformers.utils.generic import TransformersKwargs

from modeling_vit_scratch import (
    TubeletEmbedding,
    ViTScratchConfig,
    ViTScratchForImageClassification,
    ViViTScratchConfig,
    ViViTScratchForVideoClassification,
    ViViTScratchModel,
)
from modeling_vit_scratch.model import modeling_vivit_scratch
from modeling_vit_scratch.model.configuration_vivit_scratch import WITHOUT_PREFIX
from modeling_vit_scratch.model.layers_vivit_scratch import evenly_spaced
from modeling_vit_scratch.model.publishing_vit_scratch import plain_card

VARIANTS = ("joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product")
SIZE = (8, 3, 24, 32)  # frames, channels, height, width
TIMES, PLACES = 4, 12


def tiny(variant: str, **fields) -> ViViTScratchConfig:
    pooled = {"use_cls_token": False, "use_cls_position": False, "pooling": "mean"} if variant in WITHOUT_PREFIX else {}
    small = {
        "num_frames": 8,
        "image_size": [24, 32],
        "tubelet_size": [2, 8, 8],
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_temporal_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "num_labels": 5,
        # Attention that a new model has at first is even, and would let mistakes pass.
        "initializer_range": 0.5,
    }
    return ViViTScratchConfig(attention_variant=variant, **(small | pooled | fields))


def classifier(variant: str, **fields) -> ViViTScratchForVideoClassification:
    torch.manual_seed(0)
    model = ViViTScratchForVideoClassification(tiny(variant, **fields))
    for name, weight in model.named_parameters():
        if "attention_time.out_proj" in name:
            torch.nn.init.normal_(weight, std=0.5)  # which begins at zero
    return model.eval()


def videos(*size: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, *(size or SIZE), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=VARIANTS)
def variant(request) -> str:
    return request.param


# --- As users of transformers expect ---------------------------------------------------------------------------------


def test_arguments_and_annotations_are_those_of_transformers(variant):
    parameters = inspect.signature(ViViTScratchForVideoClassification.forward).parameters
    assert list(parameters)[1:4] == ["pixel_values", "labels", "interpolate_pos_encoding"]
    assert get_args(parameters["kwargs"].annotation) == (TransformersKwargs,)


@torch.no_grad()
def test_the_kernels_agree(variant):
    model, pixel_values = classifier(variant), videos()
    logits = model(pixel_values).logits
    assert logits.shape == (2, 5)
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model(pixel_values).logits, logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_hidden_states_and_attention_maps_come_back_with_any_kernel(variant):
    model, pixel_values = classifier(variant), videos()
    outputs = model(pixel_values, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(outputs.logits, model(pixel_values).logits, atol=1e-5, rtol=1e-5)
    tokens = TIMES * PLACES
    maps = {
        "joint": [(2, 4, tokens + 1, tokens + 1)] * 2,
        "factorised_encoder": [(2 * TIMES, 4, PLACES + 1, PLACES + 1)] * 2 + [(2, 4, TIMES + 1, TIMES + 1)] * 3,
        "factorised_self_attention": [(2 * PLACES, 4, TIMES, TIMES), (2 * TIMES, 4, PLACES, PLACES)] * 2,
        "factorised_dot_product": [((2, PLACES, 2, TIMES, TIMES), (2, TIMES, 2, PLACES, PLACES))] * 2,
    }[variant]
    shapes = [
        tuple(found.shape) if torch.is_tensor(found) else tuple(tuple(half.shape) for half in found)
        for found in outputs.attentions
    ]
    assert shapes == maps
    for found in outputs.attentions:
        for part in [found] if torch.is_tensor(found) else found:
            torch.testing.assert_close(part.sum(-1), torch.ones_like(part.sum(-1)))
    assert len(outputs.hidden_states) == {"factorised_encoder": 3 + 3}.get(variant, 3)


@torch.no_grad()
def test_maps_that_would_fill_the_memory_are_averaged_over_the_heads(monkeypatch, caplog):
    model, pixel_values = classifier("joint"), videos()
    whole = model(pixel_values, output_attentions=True).attentions
    monkeypatch.setattr(modeling_vivit_scratch, "MOST_MAPS", 1000)
    averaged = model(pixel_values, output_attentions=True).attentions
    assert "they are averaged over the heads" in caplog.text
    for one, all_heads in zip(averaged, whole, strict=True):
        torch.testing.assert_close(one, all_heads.mean(dim=1, keepdim=True))


def test_saving_and_loading_is_exact_and_the_auto_classes_know_it(variant, tmp_path):
    model, pixel_values = classifier(variant, id2label={0: "up", 1: "down"}, num_labels=2), videos()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path)
    assert (type(loaded), loaded.config.label2id) == (type(model), {"up": 0, "down": 1})
    config = AutoConfig.from_pretrained(tmp_path)
    assert {**config.to_dict(), "_name_or_path": ""} == model.config.to_dict()
    body = AutoModel.from_pretrained(tmp_path)
    assert type(body) is ViViTScratchModel
    with torch.no_grad():
        assert torch.equal(loaded.eval()(pixel_values).logits, model(pixel_values).logits)
        assert torch.equal(body.eval()(pixel_values).pooler_output, model.vivit(pixel_values).pooler_output)


WITHOUT_THE_PACKAGE = """
import sys
sys.modules["modeling_vit_scratch"] = None
import torch
from transformers import AutoModelForVideoClassification
model = AutoModelForVideoClassification.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
with torch.no_grad():
    torch.save(model(torch.load(sys.argv[2])).logits, sys.argv[3])
"""


def test_a_saved_folder_is_self_contained(tmp_path):
    model, pixel_values = classifier("factorised_self_attention"), videos()
    model.save_pretrained(tmp_path / "video")
    code = {path.name for path in (tmp_path / "video").glob("*.py")}
    assert {"modeling_vivit_scratch.py", "layers_vivit_scratch.py", "encoder_vit_scratch.py"} <= code
    assert "modeling_vit_scratch.py" not in code  # the image models stay at home
    torch.save(pixel_values, tmp_path / "pixels.pt")
    environment = {"HF_HOME": str(tmp_path / "home")}
    places = [tmp_path / "video", tmp_path / "pixels.pt", tmp_path / "logits.pt"]
    done = python(WITHOUT_THE_PACKAGE, *places, environment=environment, cwd=tmp_path)
    assert done.status == 0, done
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "logits.pt"), model(pixel_values).logits)


def test_the_card_says_how_a_video_is_classified():
    config = tiny("joint")
    config.architectures = ["ViViTScratchForVideoClassification"]
    card = plain_card("ada/clips", config, 1000, "nothing was measured")
    assert "pipeline_tag: video-classification" in card
    assert "for video classification" in card
    assert 'model = AutoModelForVideoClassification.from_pretrained(".", trust_remote_code=True)' in card
    assert 'logits = model(**processor("clip.mp4", return_tensors="pt")).logits' in card
    assert "Image.open" not in card


def test_image_checkpoints_carry_nothing_of_videos(tmp_path):
    ViTScratchForImageClassification(ViTScratchConfig(hidden_size=24, num_hidden_layers=1)).save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*vivit*"))


def test_every_parameter_learns_with_activation_checkpointing_as_without(variant):
    gradients = []
    for checkpointing in (False, True):
        model = classifier(variant).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        model(videos(), labels=torch.tensor([1, 2])).loss.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient)


def test_the_operations_are_those_that_torch_counts(variant):
    model = classifier(variant)
    model.set_attn_implementation("eager")  # which torch counts on every machine
    # Of the last block, a head that reads one token computes no others.
    model._only_pooled = False
    model.config.pooling = model.config.pooling.replace("cls", "mean")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(videos())
    head = 2 * 2 * model.classification_head.fc.weight.numel()
    assert model.floating_point_ops({"pixel_values": videos()}) == pytest.approx(
        3 * (counter.get_total_flops() - head), rel=1e-6
    )


def test_every_parameter_has_a_depth(variant):
    model = classifier(variant)
    depths, blocks = model.layer_depths(), 5 if variant == "factorised_encoder" else 2
    assert depths.keys() == dict(model.named_parameters()).keys()
    assert depths["vivit.tubelet_embedding.projection.weight"] == 0
    assert depths["vivit.encoder.1.ff.0.weight"] == 2
    assert depths["classification_head.fc.weight"] == blocks + 1
    if variant == "factorised_encoder":
        assert depths["vivit.temporal_encoder.0.ff.0.weight"] == 3


# --- What is a video's own -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_any_number_of_frames_and_any_size_is_taken_where_it_is_asked_for(variant):
    model = classifier(variant)
    assert model(videos(6, 3, 40, 16), interpolate_pos_encoding=True).logits.shape == (2, 5)
    with pytest.raises(ValueError, match=r"the videos are 6 frames of 24x32 pixels .* is for 8 of 24x32"):
        model(videos(6, 3, 24, 32))
    own = videos()
    assert torch.equal(model(own, interpolate_pos_encoding=True).logits, model(own).logits)


@pytest.mark.parametrize(
    ("size", "left"),
    [((7, 3, 24, 32), "7 frames"), ((8, 3, 25, 32), "25 rows"), ((8, 3, 24, 33), "33 columns")],
    ids=str,
)
def test_frames_and_pixels_that_would_be_left_over_are_refused(variant, size, left):
    with pytest.raises(ValueError, match=f"it has {left}, which is not a multiple of"):
        classifier(variant)(videos(*size), interpolate_pos_encoding=True)


def test_what_is_no_video_is_refused_with_its_shape(variant):
    with pytest.raises(ValueError, match=r"must have the shape \(batch, frames, num_channels=3, height, width\), got"):
        classifier(variant)(torch.zeros(2, 3, 24, 32))


def image_model(**fields) -> ViTScratchForImageClassification:
    torch.manual_seed(2)
    vit = {
        "norm_first": True,
        "use_final_layer_norm": True,
        "hidden_act": "gelu_pytorch_tanh",
        "initializer_range": 0.5,
    }
    config = ViTScratchConfig(
        image_size=[24, 32],
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        initialization="truncated_normal",
        attention_probs_dropout_prob=0.0,
        **(vit | fields),
    )
    return ViTScratchForImageClassification(config).eval()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("joint", {"use_cls_position": True}),
        ("factorised_self_attention", {"use_cls_token": False, "pooling": "mean"}),
    ],
    ids=["joint", "factorised_self_attention"],
)
@torch.no_grad()
def test_a_video_of_one_frame_is_an_image(name, fields):
    image = image_model(**fields)
    video = ViViTScratchForVideoClassification.from_image_model(
        image, num_frames=1, tubelet_size=[1, 8, 8], attention_variant=name
    ).eval()
    frame = videos(3, 24, 32)
    expected = image.vit(frame).pooler_output
    torch.testing.assert_close(video.vivit(frame[:, None]).pooler_output, expected, atol=1e-5, rtol=1e-5)


def test_factorised_self_attention_begins_with_space_alone_and_learns_time():
    torch.manual_seed(0)
    model = ViViTScratchForVideoClassification(tiny("factorised_self_attention")).eval()
    pixel_values, body = videos(), model.vivit
    with torch.no_grad():
        # Without positions, the steps do not know of each other: in another order they have the same mean.
        body.positional_encoding.positional_embedding.zero_()
        swapped = pixel_values[:, [4, 5, 6, 7, 0, 1, 2, 3]]
        torch.testing.assert_close(body(swapped).pooler_output, body(pixel_values).pooler_output)
        alone = body(pixel_values[:, :2], interpolate_pos_encoding=True).last_hidden_state
        torch.testing.assert_close(body(pixel_values).last_hidden_state[:, :PLACES], alone)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(pixel_values, labels=torch.tensor([1, 2])).loss.backward()
        optimizer.step()
    for block in body.encoder:
        for name, weight in block.attention_time.named_parameters():
            assert weight.grad.abs().max() > 0, name


@torch.no_grad()
def test_a_factorised_encoder_merges_and_drops_patches_as_an_image_model_does():
    model = classifier("factorised_encoder", token_merging=2, patch_dropout=0.5)
    assert model(videos()).logits.shape == (2, 5)
    torch.manual_seed(0)
    seen = []
    model.vivit.encoder[0].register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    model.train()(videos())
    assert seen == [PLACES // 2 + 1]


@torch.no_grad()
def test_frames_that_are_sampled_are_all_that_is_seen():
    assert evenly_spaced(8, 3) == [2, 4, 6]
    assert evenly_spaced(2, 3) == [0, 1]
    model = classifier("joint", sampled_frames=3, tubelet_size=[1, 8, 8])
    pixel_values = videos()
    other = pixel_values.clone()
    other[:, [0, 1, 3, 5, 7]] = 0
    assert torch.equal(model(other).logits, model(pixel_values).logits)
    other[:, 4] = 0
    assert not torch.equal(model(other).logits, model(pixel_values).logits)


def test_the_embedding_of_one_frame_is_that_of_an_image():
    layer = TubeletEmbedding(1, 24, (1, 8, 8), 16)
    assert layer(videos(1, 3, 24, 24)).shape == (2, 1, 9, 16)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"num_frames": 7},
            r"num_frames 7 is not a multiple of that of tubelet_size \[2, 8, 8\]: 1 would be left over",
        ),
        ({"image_size": 20}, "height 20 is not a multiple"),
        ({"tubelet_size": [2, 8]}, r"tubelet_size must be \[frames, height, width\]"),
        ({"sampled_frames": 2}, "sampled_frames must be at least 1, with tubelets of 1 frame"),
        ({"num_temporal_layers": 0}, "num_temporal_layers must be at least 1"),
        ({"pooling": "cls_mean"}, "gives two vectors, and a factorised_encoder goes on with one"),
        ({"patch_size": 16}, "has no field 'patch_size'"),
    ],
    ids=str,
)
def test_what_makes_no_model_is_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny("factorised_encoder", **fields)


@pytest.mark.parametrize("name", WITHOUT_PREFIX)
def test_where_every_token_has_its_place_there_is_none_for_cls(name):
    with pytest.raises(ValueError, match="has a place in time and space for every token: it needs use_cls_token=False"):
        ViViTScratchConfig(attention_variant=name)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"inflation": "last"}, "inflation must be one of central, average, got 'last'"),
        ({"hidden_size": 48}, "leave the settings of the blocks as they are"),
    ],
    ids=str,
)
def test_an_image_model_that_does_not_fit_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        ViViTScratchForVideoClassification.from_image_model(image_model(), num_frames=8, **settings)
