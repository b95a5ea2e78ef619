# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Explanations: the published rules, on any of our models, and maps that mean something."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from pictures import noise
from PIL import Image
from runs import contents, refused, vit_scratch
from transformers import AutoImageProcessor, AutoModel, ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.data.dataset_loading import load_images
from modeling_vit_scratch.data.images import read_image
from modeling_vit_scratch.data.model_input import pixel_values
from modeling_vit_scratch.hub.checkpoint import load_checkpoint
from modeling_vit_scratch.inspection import explaining
from modeling_vit_scratch.inspection.attention import attention_distance, attention_map
from modeling_vit_scratch.inspection.embeddings import patch_filters, position_similarity
from modeling_vit_scratch.inspection.explaining import explain
from modeling_vit_scratch.inspection.overlays import heatmaps, patch_grid
from modeling_vit_scratch.inspection.relevance import (
    Occlusion,
    most_important,
    occluded,
    occlusion,
    recorded_attention,
    relevance_map,
)

SMALL = {"image_size": [24, 32], "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
SMALL |= {"intermediate_size": 48, "num_labels": 5}


def small(**settings) -> ViTScratchForImageClassification:
    torch.manual_seed(0)
    return ViTScratchForImageClassification(ViTScratchConfig(**SMALL | settings)).eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# Relevance


def test_relevance_follows_the_rule_of_the_paper():
    model, pixels = small(), images(2, 3, 24, 32)
    model.set_attn_implementation("eager")
    outputs = model(pixels, output_attentions=True)
    score = outputs.logits[0, 3] + outputs.logits[1, 1]
    gradients = torch.autograd.grad(score, outputs.attentions)
    relevance = torch.eye(13).expand(2, -1, -1)
    for probabilities, gradient in zip(outputs.attentions, gradients, strict=True):
        mixing = (probabilities * gradient).clamp(min=0).mean(dim=1)  # equation 5
        relevance = relevance + mixing @ relevance  # equation 6
    expected = relevance[:, 0, 1:].unflatten(1, (3, 4)).detach()  # the row of [CLS]
    result = relevance_map(model, pixels, [3, 1])
    torch.testing.assert_close(result, expected)
    assert (result > 0).any()


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("token_merging", [0, 2])
def test_the_kernel_changes_nothing(kernel, token_merging):
    model, pixels = small(token_merging=token_merging), images(1, 3, 24, 32)
    expected = relevance_map(model, pixels)
    model.set_attn_implementation(kernel)
    torch.testing.assert_close(relevance_map(model, pixels), expected)
    assert model.config._attn_implementation == kernel


def test_the_most_likely_class_is_explained_unless_another_is_asked_for():
    model, pixels = small(), images(2, 3, 24, 32)
    likely = model(pixels).logits.argmax(1).tolist()
    assert torch.equal(relevance_map(model, pixels), relevance_map(model, pixels, likely))
    assert not torch.allclose(relevance_map(model, pixels), relevance_map(model, pixels, [(k + 1) % 5 for k in likely]))


def test_there_is_one_class_for_each_image():
    with pytest.raises(ValueError, match=r"classes must be one for each of the 2 images, got \[3\]"):
        relevance_map(small(), images(2, 3, 24, 32), [3])


@pytest.mark.parametrize(
    ("important", "random", "spread", "verdict"),
    [
        (0.5, 0.9, 0.1, "more"),
        (0.95, 0.7, 0.1, "less"),
        (0.85, 0.9, 0.1, "as much"),
        (0.9, 0.90000007, 0.0, "as much"),
    ],
    ids=["more", "less", "within the spread", "rounding"],
)
def test_a_map_means_something_if_it_differs_more_than_chance_does(important, random, spread, verdict):
    assert Occlusion(3, 0.9, important, random, spread).verdict == verdict


def test_the_spread_is_that_of_the_draws():
    model, pixels = small(), images(1, 3, 24, 32)
    found = occlusion(model, pixels, torch.rand(1, 3, 4), 0, share=0.25, draws=50)
    assert 0 < found.spread < 0.1
    whole = occlusion(model, pixels, torch.rand(1, 3, 4), 0, share=1.0)  # all patches, whichever are drawn
    assert whole.spread == pytest.approx(0, abs=1e-6)
    assert whole.verdict == "as much"


def test_what_is_frozen_is_explained_and_stays_frozen():
    model, pixels = small(), images(2, 3, 24, 32)
    expected = relevance_map(model, pixels)
    model.requires_grad_(False)
    torch.testing.assert_close(relevance_map(model, pixels), expected)
    with torch.inference_mode():
        torch.testing.assert_close(relevance_map(model, images(2, 3, 24, 32)), expected)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not pixels.requires_grad


KINDS = pytest.mark.parametrize(
    "settings",
    [
        {"pooling": "mean", "use_cls_token": False},
        {"pooling": "attention", "norm_first": True, "use_final_layer_norm": True},
        {"num_register_tokens": 2, "position_embedding_type": "sincos2d"},
        {"token_merging": [2, 1, 3]},
        {"position_embedding_type": "none", "use_swiglu_ffn": True},
    ],
    ids=["mean", "attention pooling", "registers", "merging", "no positions"],
)


@KINDS
def test_every_kind_of_model_is_explained_at_any_size(settings):
    model = small(**settings)
    for size in ((24, 32), (40, 16)):
        options = {} if size == (24, 32) else {"interpolate_pos_encoding": True}
        pixels = images(2, 3, *size)
        result = relevance_map(model, pixels, **options)
        assert result.shape == (2, size[0] // 8, size[1] // 8)
        assert torch.isfinite(result).all()
        assert (result >= 0).all()
        # An image is explained as it is alone.
        torch.testing.assert_close(relevance_map(model, pixels[1:], **options), result[1:])


def test_the_attention_that_is_recorded_is_that_of_the_original_tokens():
    model, pixels = small(token_merging=2), images(2, 3, 24, 32)
    expected = model(pixels, output_attentions=True)
    with torch.no_grad(), recorded_attention(model) as records:
        logits = model(pixels, output_hidden_states=True).logits
    torch.testing.assert_close(logits, expected.logits)
    assert [record.probabilities.shape[-1] for record in records] == [13, 11, 9]
    for record, attention in zip(records, expected.attentions, strict=True):
        torch.testing.assert_close(record.of_patches(record.probabilities), attention)


def test_an_explanation_leaves_the_model_as_it_was():
    model, pixels = small(), images(1, 3, 24, 32)
    before = model(pixels, output_hidden_states=True).logits
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    relevance_map(model, pixels)
    with pytest.raises(ValueError, match="the images are 8x8 pixels"):
        relevance_map(model, images(1, 3, 8, 8))
    assert [len(module._forward_pre_hooks) for module in model.modules()] == hooks
    assert all(item.grad is None for item in model.parameters())
    assert torch.equal(model(pixels, output_hidden_states=True).logits, before)


def test_a_model_in_training_is_explained_as_it_answers():
    model = small(hidden_dropout_prob=0.5)
    processor = ViTImageProcessorPil(size={"height": 24, "width": 32})
    expected = explain(model, processor, noise((32, 24)))
    model.train()
    model.vit.encoder[0].eval()
    found = explain(model, processor, noise((32, 24)))
    assert found.probability == expected.probability
    assert torch.equal(relevance_map(model, images(1, 3, 24, 32)), relevance_map(model.eval(), images(1, 3, 24, 32)))
    model.train()
    model.vit.encoder[0].eval()
    explain(model, processor, noise((32, 24)))
    assert [module.training for module in (model, model.vit.encoder[0], model.vit.encoder[1])] == [True, False, True]


def test_a_class_or_a_label_that_is_none_is_refused():
    model, pixels = small(), images(2, 3, 24, 32)
    with pytest.raises(ValueError, match=r"classes must be from 0 to 4, got \[3, 99\]"):
        relevance_map(model, pixels, [3, 99])
    processor = ViTImageProcessorPil(size={"height": 24, "width": 32})
    with pytest.raises(ValueError, match="label must be the name of a class, such as 'LABEL_0', got 3"):
        explain(model, processor, noise((32, 24)), label=3)


def test_what_cannot_be_explained_is_refused_with_what_would_help():
    theirs = ViTForImageClassification(ViTConfig(num_hidden_layers=1, hidden_size=12, num_attention_heads=3))
    with pytest.raises(ValueError, match="this one is of type vit: `vit-scratch import` makes it one"):
        relevance_map(theirs, images(1, 3, 224, 224))
    with pytest.raises(ValueError, match="ViTScratchModel is no classifier"):
        relevance_map(AutoModel.from_config(ViTScratchConfig(**SMALL)), images(1, 3, 24, 32))


# The maps mean something


@pytest.mark.parametrize("token_merging", [None, 2])
def test_hiding_what_is_important_costs_more_than_hiding_as_much_at_random(digits_run, token_merging):
    model, processor, _ = load_checkpoint(str(digits_run[0]), token_merging=token_merging)
    found = {"relevance": [], "rollout": [], "random": []}
    for image in load_images("digits")["test"].select(range(60))["image"]:
        pixels = pixel_values(processor, [read_image(image)])
        index = int(model(pixels).logits.argmax())
        for name, importance in (
            ("relevance", relevance_map(model, pixels)),
            ("rollout", attention_map(model, pixels)),
        ):
            result = occlusion(model, pixels, importance, index, share=0.25)
            found[name].append(result.whole - result.important)
        found["random"].append(result.whole - result.random)
    lost = {name: np.mean(values) for name, values in found.items()}
    assert lost["random"] > 0
    assert lost["relevance"] > 1.3 * lost["random"], lost
    assert lost["rollout"] > lost["random"], lost


def test_hidden_patches_are_grey_and_all_else_is_as_it_was():
    pixels = images(2, 3, 24, 32)
    patches = torch.zeros(2, 3, 4, dtype=torch.bool)
    patches[0, 1, 2] = patches[1, 0, 0] = True
    result = occluded(pixels, patches, 8)
    assert torch.equal(result[0, :, 8:16, 16:24], pixels[0].mean(dim=(1, 2), keepdim=True).expand(3, 8, 8))
    changed = (result != pixels).any(dim=1)
    assert changed[0].sum() <= 64
    assert not changed[0, :8].any()
    assert changed[1, :8, :8].all()


def test_the_most_important_patches_are_as_many_as_asked_for():
    importance = torch.tensor([[[0.1, 0.9], [0.5, 0.2]]])
    assert most_important(importance, 2).tolist() == [[[False, True], [True, False]]]
    assert most_important(torch.zeros(1, 2, 2), 3).sum() == 3


# Distances, positions, filters


def test_the_distance_is_that_of_the_attention_in_pixels():
    itself, neighbour = torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 5, 5)
    for patch in range(4):
        itself[..., 1 + patch, 1 + patch] = 1
        neighbour[..., 1 + patch, 1 + (patch ^ 1)] = 0.25  # the one beside it, in a grid of 2 x 2
        neighbour[..., 1 + patch, 0] = 0.75  # [CLS], which is nowhere
    uniform = torch.full((1, 1, 5, 5), 0.2)
    result = attention_distance([itself, neighbour, uniform], (2, 2), (8, 6))
    mean = (0 + 6 + 8 + 10) / 4
    torch.testing.assert_close(result, torch.tensor([[0.0], [6.0], [mean]]))


def test_positions_are_alike_as_their_vectors_are():
    model = small()
    vectors = model.vit.positional_encoding.positional_embedding[0]
    result = position_similarity(model)
    assert result.shape == (12, 3, 4)
    expected = torch.nn.functional.cosine_similarity(vectors[7], vectors[2], dim=0)
    torch.testing.assert_close(result[7, 0, 2], expected.detach())
    torch.testing.assert_close(result.flatten(1).diagonal(), torch.ones(12))
    fixed = position_similarity(small(position_embedding_type="sincos2d"))
    assert fixed[0, 0, 1] > fixed[0, 2, 3]  # what is near is alike
    assert position_similarity(small(position_embedding_type="none")) is None


def test_filters_are_the_directions_in_which_the_embedding_varies():
    model = small()
    planted = torch.nn.functional.normalize(images(3 * 64), dim=0)
    with torch.no_grad():
        weight = model.vit.patch_embedding.projection.weight
        weight.copy_((torch.linspace(-1, 1, 24)[:, None] * planted).view_as(weight) + 0.3)
    first = patch_filters(model, 5)
    assert first.shape == (5, 3, 8, 8)
    assert abs(float(first[0].flatten() @ planted)) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(first.flatten(1) @ first.flatten(1).T, torch.eye(5), atol=1e-4, rtol=0)
    assert len(patch_filters(model, 99)) == 24


def test_the_grid_has_a_line_between_all_patches():
    grid = np.asarray(patch_grid(Image.new("RGB", (32, 24)), (8, 8)))
    assert grid.shape == (288, 384, 3)
    white = (grid == 255).all(axis=2)
    assert white.all(axis=1).nonzero()[0].tolist() == [96, 192]
    assert white.all(axis=0).nonzero()[0].tolist() == [96, 192, 288]


# In one call, and as a folder


def test_all_of_it_in_one_call(digits_run):
    model, processor, names = load_checkpoint(str(digits_run[0]))
    found = explain(model, processor, noise((20, 30)))
    blocks, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    assert found.attention.shape == (blocks, heads, 4, 4)
    assert (found.attention.sum(dim=(2, 3)) <= 1 + 1e-5).all()
    assert found.rollout.shape == found.relevance.shape == (4, 4)
    assert found.distance.shape == (blocks, heads)
    assert (found.seen.size, found.area) == ((8, 8), (0, 0, 1, 1))
    assert found.label == names[found.class_index]
    assert found.occlusion.whole == pytest.approx(found.probability, abs=1e-6)
    other = explain(model, processor, noise((20, 30)), label="7", image_size=(12, 16))
    assert (other.label, other.relevance.shape, other.seen.size) == ("7", (6, 8), (16, 12))


@KINDS
def test_every_kind_of_model_in_one_call(settings):
    model, processor = small(**settings), ViTImageProcessorPil(size={"height": 24, "width": 32})
    found = explain(model, processor, noise((20, 30)))
    assert found.attention.shape == (3, 3, 3, 4)
    assert found.rollout.shape == found.relevance.shape == (3, 4)
    other = explain(model, processor, noise((20, 30)), image_size=16)
    assert other.relevance.shape == (2, 2)


def test_classes_that_do_not_exclude_one_another_have_probabilities_of_their_own():
    model, processor = small(), ViTImageProcessorPil(size={"height": 24, "width": 32})
    model.config.problem_type = "multi_label_classification"
    found = explain(model, processor, noise((20, 30)))
    logits = model(pixel_values(processor, [noise((20, 30))])).logits[0]
    assert found.probability == pytest.approx(logits.max().sigmoid().item(), abs=1e-6)
    assert found.occlusion.whole == pytest.approx(found.probability, abs=1e-6)
    model.config.problem_type = "regression"
    with pytest.raises(ValueError, match="predicts numbers"):
        explain(model, processor, noise((20, 30)))


def test_a_model_of_one_patch_and_one_without_classes(tmp_path):
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
    one = small(image_size=8)
    one.save_pretrained(tmp_path / "one")
    processor.save_pretrained(tmp_path / "one")
    noise((9, 8)).save(tmp_path / "image.png")
    result = vit_scratch("explain", tmp_path / "one", tmp_path / "image.png", "--out", tmp_path / "out")
    assert result.status == 0, result.err
    assert "with the 1 most relevant of 1 patch hidden" in result.out
    assert "as much as others" in result.out
    with pytest.raises(ValueError, match="the model has no classes"):
        explain(small(image_size=8, num_labels=0), processor, noise((9, 8)))


def test_half_precision_and_training_mode_are_no_hindrance():
    model, processor = small().bfloat16(), ViTImageProcessorPil(size={"height": 24, "width": 32})
    found = explain(model, processor, noise((20, 30)))
    assert {found.attention.dtype, found.relevance.dtype, found.rollout.dtype} == {torch.float32}
    trained, pixels = small(patch_dropout=0.5), images(1, 3, 24, 32)
    expected = attention_map(trained, pixels)
    assert torch.equal(attention_map(trained.train(), pixels), expected)
    assert trained.training


def test_maps_have_the_proportions_of_the_patches():
    figure = heatmaps(torch.rand(2, 3, 4, 4), ["1", "2"], ["1", "2", "3"], "title", (4, 8))
    height, width = figure.axes[0].images[0].get_array().shape[:2]
    assert 2.9 < width / height < 3.1  # 3 maps of 4 x 8 pixels a patch side by side, 2 one below the other
    tall = heatmaps(torch.rand(6, 3, 32, 1), [""] * 6, [""] * 3, "title")
    assert max(tall.get_size_inches()) <= 17


def test_a_model_of_other_images_than_rgb_is_refused():
    processor = ViTImageProcessorPil(size={"height": 24, "width": 32}, image_mean=[0.5], image_std=[0.5])
    with pytest.raises(ValueError, match="makes images of 1 channels, and images are read in RGB"):
        explain(small(num_channels=1), processor, noise((20, 30)))


class Pictures(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.files: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.files.append(unquote(dict(attributes)["src"]))


def test_the_folder_has_pictures_numbers_and_a_page_of_all(digits_run, tmp_path):
    noise((20, 30)).save(tmp_path / "a <b> & 50%.png")
    noise((9, 8)).save(tmp_path / "two.png")
    command = ("explain", digits_run[0], tmp_path / "a <b> & 50%.png", tmp_path / "two.png", "--out", tmp_path / "out")
    result = vit_scratch(*command)
    assert (result.status, result.err) == (0, "")
    *said, written = result.lines
    assert written == f"written    {tmp_path / 'out'}: open index.html in a browser"
    pattern = (
        r": \d: \d+\.\d\d%; with the 3 most relevant of 16 patches hidden (\d+\.\d\d)%, with as many random ones "
        r"(\d+\.\d\d)%: what the map calls relevant matters (more than|less than|as much as) others"
    )
    for line in said:
        found = re.search(pattern, line)
        assert found, line
        assert found[3] == "as much as" or (float(found[1]) < float(found[2])) == (found[3] == "more than")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    pictures = Pictures(page).files
    assert len(pictures) == 2 * 5 + 2
    for name in pictures:
        with Image.open(tmp_path / "out" / name) as image:
            assert min(image.size) > 100
    assert "a &lt;b&gt; &amp; 50%.png" in page
    assert not re.search(r"https?://|<script|<link", page)
    one, two = json.loads((tmp_path / "out" / "explanation.json").read_text(encoding="utf-8"))
    assert (one["file"], two["file"]) == (str(tmp_path / "a <b> & 50%.png"), str(tmp_path / "two.png"))
    assert np.asarray(one["relevance"]).shape == (4, 4)
    before = contents(tmp_path / "out")
    assert "already exists: name a new folder." in refused(*command)
    assert contents(tmp_path / "out") == before


def test_a_file_name_that_is_no_unicode_is_written_as_python_spells_it(digits_run, tmp_path):
    place = os.fsencode(tmp_path) + b"/\xff.png"
    noise((9, 8)).save(tmp_path / "image.png")
    os.rename(tmp_path / "image.png", place)
    result = vit_scratch("explain", digits_run[0], os.fsdecode(place), "--out", tmp_path / "out")
    assert (result.status, result.err) == (0, "")
    (found,) = json.loads((tmp_path / "out" / "explanation.json").read_text(encoding="utf-8"))
    assert found["file"] == f"{tmp_path}/\\udcff.png"
    for name in Pictures((tmp_path / "out" / "index.html").read_text(encoding="utf-8")).files:
        assert (tmp_path / "out" / name).is_file()


def test_a_bad_image_is_named_and_the_others_explained(digits_run, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    noise((9, 8)).save(tmp_path / "good.png")
    result = vit_scratch("explain", digits_run[0], tmp_path, "--out", tmp_path / "out")
    assert result.status == 1
    assert result.err.startswith("vit-scratch explain: skipped: ")
    assert len(json.loads((tmp_path / "out" / "explanation.json").read_text())) == 1
    line = refused_after_warning("explain", digits_run[0], tmp_path / "bad.png", "--out", tmp_path / "none")
    assert "can be read." in line
    assert not (tmp_path / "none").exists()


def test_one_image_that_fails_does_not_lose_the_others(digits_run, tmp_path, monkeypatch):
    names = ["a" * 251 + ".png", "large.png", "日" * 83 + ".png"]
    for index, name in enumerate(names):
        noise((9, 8 + index)).save(tmp_path / name)
    draw = explaining._draw

    def failing(explanation, image, patch_size, place):
        draw(explanation, image, patch_size, place)
        if "large" in place.name:
            raise ValueError("no room for it")

    monkeypatch.setattr(explaining, "_draw", failing)
    result = vit_scratch("explain", digits_run[0], *(tmp_path / name for name in names), "--out", tmp_path / "out")
    assert result.status == 1
    assert result.err == f"vit-scratch explain: skipped: {tmp_path}/large.png: no room for it\n"
    found = json.loads((tmp_path / "out" / "explanation.json").read_text(encoding="utf-8"))
    assert [Path(item["file"]).name for item in found] == [names[0], names[2]]
    folders = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert folders == [item["folder"] for item in found]
    for name in Pictures((tmp_path / "out" / "index.html").read_text(encoding="utf-8")).files:
        assert (tmp_path / "out" / name).is_file()


def refused_after_warning(*arguments: object) -> str:
    result = vit_scratch(*arguments)
    assert result.status == 2
    return result.err.splitlines()[-1]


def test_an_imported_checkpoint_is_explained_with_merging_and_at_another_size(tmp_path):
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 16}
    ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(tmp_path / "theirs")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "theirs")
    assert vit_scratch("import", tmp_path / "theirs", tmp_path / "ours").status == 0
    noise((50, 30)).save(tmp_path / "image.png")
    flags = ("--token-merging=3", "--image-size=48,80", "--label=LABEL_1", "--out", tmp_path / "out")
    result = vit_scratch("explain", tmp_path / "ours", tmp_path / "image.png", *flags)
    assert result.status == 0, result.err
    (found,) = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert np.asarray(found["relevance"]).shape == (6, 10)
    assert found["label"] == "LABEL_1"
    line = refused("explain", tmp_path / "theirs", tmp_path / "image.png", "--out", tmp_path / "no")
    assert "of type vit: `vit-scratch import` makes it one." in line


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--label=77"], "the model has no label '77' (did you mean '7'?)."),
        (["--image-size=7"], "7x7 pixels (height x width) cannot be cut into patches of 2x2"),
        (["--image-size=100000"], "the attention of images of 100000x100000 pixels takes "),
        ([], "the following arguments are required: --output/--out"),
    ],
    ids=["label", "size", "too large", "no folder"],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(digits_run, tmp_path, flags, sentence):
    shutil.copy(digits_run[0] / "sample.png", tmp_path)
    out = ["--out", tmp_path / "out"] if flags else []
    assert sentence in refused("explain", digits_run[0], tmp_path / "sample.png", *flags, *out)
    assert not (tmp_path / "out").exists()


def test_a_preset_has_nothing_to_explain(tmp_path):
    noise((9, 9)).save(tmp_path / "image.png")
    line = refused("explain", "digits", tmp_path / "image.png", "--out", tmp_path / "out")
    assert line.endswith("digits is a preset, which has no weights: name a folder or a Hub id.")


def test_a_preset_of_the_processor_is_left_alone(digits_run):
    model, processor, _ = load_checkpoint(str(digits_run[0]))
    before = processor.to_dict()
    explain(model, processor, noise((9, 9)), image_size=(16, 16))
    assert processor.to_dict() == before == AutoImageProcessor.from_pretrained(digits_run[0]).to_dict()
