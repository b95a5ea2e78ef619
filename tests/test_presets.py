# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The presets are read by the Auto classes, are the models they are named after, and ship in every install."""

import contextlib
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from modeling_vit_scratch import ViTScratchConfig, __version__, presets
from modeling_vit_scratch.presets import preset_names, preset_path, recipe_names, recipe_path, shipped_path

ROOT = Path(__file__).resolve().parents[1]
VIT_NAMES = [name for name in preset_names() if name.startswith("vit-")]
# Written to every config.json, as the article passes them, even where they are the default.
ARTICLES_ARGUMENTS = {
    "image_size",
    "patch_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "num_hidden_layers",
}


def model_of(name, device="meta"):
    config = AutoConfig.from_pretrained(preset_path(name))
    with torch.device(device):
        return AutoModelForImageClassification.from_config(config).eval()


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


# Names


def test_the_names_are_the_folders():
    assert preset_names() == [
        "article",
        "digits",
        "vit-base-patch16-224",
        "vit-base-patch32-224",
        "vit-huge-patch14-224",
        "vit-large-patch16-224",
        "vit-micro-patch4-32",
        "vit-small-patch16-224",
        "vit-tiny-patch16-224",
        "vit-tiny-patch4-32",
    ]
    assert all((preset_path(name).name, preset_path(name).is_dir()) == (name, True) for name in preset_names())
    folders = {path.name for path in (ROOT / "configuration" / "models").iterdir() if path.is_dir()}
    assert folders == set(preset_names())


def test_an_unknown_name_is_answered_with_the_closest_and_all():
    with pytest.raises(
        ValueError, match=r"no preset 'vit-tiny-16-224' \(did you mean 'vit-tiny-patch16-224'\?\)"
    ) as error:
        preset_path("vit-tiny-16-224")
    assert all(name in str(error.value) for name in preset_names())


def test_a_name_that_resembles_none_is_answered_without_a_guess():
    with pytest.raises(ValueError, match="there is no preset 'resnet'; the presets are article, digits, "):
        preset_path("resnet")


@pytest.mark.parametrize("name", ["../models/digits", "README.md", ""])
def test_a_path_is_no_name(name):
    with pytest.raises(ValueError, match="there is no preset"):
        preset_path(name)


def test_recipes_are_found_by_the_name_of_their_file(monkeypatch, tmp_path):
    folder = tmp_path / "configuration" / "recipes"
    folder.mkdir(parents=True)
    for file in ("slow.yaml", "fast.yaml", "README.md"):
        (folder / file).touch()
    monkeypatch.setattr(presets, "PACKAGE", tmp_path / "package")
    assert recipe_names() == ["fast", "slow"]
    assert recipe_path("slow") == folder / "slow.yaml"
    with pytest.raises(ValueError, match=r"no recipe 'fasst' \(did you mean 'fast'\?\); the recipes are fast, slow."):
        recipe_path("fasst")


def test_a_file_that_is_not_shipped_is_an_incomplete_installation():
    with pytest.raises(FileNotFoundError, match="configuration/nothing is missing from the installation"):
        shipped_path("configuration/nothing")


# Configurations


@pytest.mark.parametrize("name", preset_names())
def test_a_config_file_holds_what_differs_from_the_defaults(name):
    values = json.loads((preset_path(name) / "config.json").read_text())
    assert values.pop("model_type") == "vit_scratch"
    assert values.pop("architectures") == ["ViTScratchForImageClassification"]
    assert len({"num_labels", "id2label"} & values.keys()) == 1
    assert values.keys() >= ARTICLES_ARGUMENTS
    assert not {"transformers_version", "auto_map"} & values.keys()
    defaults = ViTScratchConfig().to_dict()
    assert [key for key in values.keys() - ARTICLES_ARGUMENTS if values[key] == defaults.get(key)] == []


def test_the_articles_preset_is_the_default_configuration_with_its_labels():
    config = AutoConfig.from_pretrained(preset_path("article"))
    expected = ViTScratchConfig(id2label={0: "Dog", 1: "Cat"}, architectures=["ViTScratchForImageClassification"])
    assert type(config) is ViTScratchConfig
    assert config.to_diff_dict() == expected.to_diff_dict()
    assert config.label2id == {"Dog": 0, "Cat": 1}


@pytest.mark.parametrize("name", VIT_NAMES)
def test_the_vit_presets_have_the_original_settings(name):
    config = AutoConfig.from_pretrained(preset_path(name))
    assert (config.norm_first, config.use_cls_position, config.use_final_layer_norm) == (True, True, True)
    assert (config.initialization, config.layer_norm_eps) == ("truncated_normal", 1e-6)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.0, 0.0)
    patch_size, image_size = map(int, re.fullmatch(r"vit-\w+-patch(\d+)-(\d+)", name).groups())
    assert (config.patch_size, config.image_size) == (patch_size, image_size)


# Models


@pytest.mark.parametrize("name", preset_names())
def test_a_row_of_the_table_in_the_readme_is_the_model(name):
    lines = shipped_path("configuration/models/README.md").read_text().splitlines()
    (row,) = (line.split("|")[2:9] for line in lines if line.startswith(f"| `{name}` |"))
    model = model_of(name)
    config = model.config
    assert [int(number.replace(",", "")) for number in row] == [
        config.image_size,
        config.patch_size,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_labels,
        num_parameters(model),
    ]


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("vit-tiny-patch16-224", 5.7),
        ("vit-small-patch16-224", 22.1),
        ("vit-base-patch16-224", 86.6),
        ("vit-large-patch16-224", 304.3),
        ("vit-huge-patch14-224", 632.0),
    ],
)
def test_the_published_sizes(name, millions):
    assert num_parameters(model_of(name)) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("name", VIT_NAMES)
def test_a_vit_preset_has_as_many_parameters_as_transformers_vit(name):
    model = model_of(name)
    dimensions = {field: getattr(model.config, field) for field in (*ARTICLES_ARGUMENTS, "num_labels")}
    with torch.device("meta"):
        peer = ViTForImageClassification(ViTConfig(**dimensions))
    assert num_parameters(model) == num_parameters(peer)


@pytest.mark.parametrize("name", ["digits", "vit-tiny-patch4-32", "vit-tiny-patch16-224"])
def test_the_small_presets_run(name):
    torch.manual_seed(0)
    model = model_of(name, device="cpu")
    side = model.config.image_size
    with torch.no_grad():
        first, second = model(torch.randn(2, 3, side, side)).logits
    assert first.shape == (model.config.num_labels,)
    assert torch.isfinite(first).all()
    assert not torch.allclose(first, second)


# Image processors


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", preset_names())
def test_the_processor_makes_what_the_model_takes(name, mode):
    model = model_of(name)
    channels = 3 if mode == "RGB" else 1
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, channels), dtype=np.uint8).squeeze()
    pixel_values = AutoImageProcessor.from_pretrained(preset_path(name))(Image.fromarray(noise), return_tensors="pt")[
        "pixel_values"
    ]
    side = model.config.image_size
    assert pixel_values.shape == (1, 3, side, side)
    assert torch.equal(pixel_values[:, 0], pixel_values[:, 2]) == (mode == "L")
    assert model(pixel_values.to("meta")).logits.shape == (1, model.config.num_labels)


@pytest.mark.parametrize("name", preset_names())
def test_the_processor_resizes_bicubically_and_scales_to_plus_minus_one(name):
    side = AutoConfig.from_pretrained(preset_path(name)).image_size
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8))
    by_hand = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)).transpose(2, 0, 1) / 255 * 2 - 1
    pixel_values = AutoImageProcessor.from_pretrained(preset_path(name))(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(pixel_values, by_hand, atol=2 / 255)  # a backend may round one level apart


# Installations


def build(hook, folder):
    """Build as pip does, by a hook of the build backend; the names in the wheel and the folder it is unpacked to."""
    backend = importlib.import_module("hatchling.build")
    with contextlib.chdir(ROOT):
        wheel = folder / getattr(backend, hook)(str(folder))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site-packages")
        return archive.namelist(), folder / "site-packages"


def test_a_wheel_holds_the_presets_inside_the_package(tmp_path):
    names, site_packages = build("build_wheel", tmp_path)
    assert {name.split("/")[0] for name in names} == {"modeling_vit_scratch", f"vit_scratch-{__version__}.dist-info"}
    assert "modeling_vit_scratch/model_card.md" in names
    for name in preset_names():
        for file in ("config.json", "preprocessor_config.json"):
            shipped = site_packages / "modeling_vit_scratch" / "configuration" / "models" / name / file
            assert shipped.read_bytes() == (preset_path(name) / file).read_bytes()


def presets_of(package):
    """The module `presets` of another copy of the package, without importing that copy as a whole."""
    spec = importlib.util.spec_from_file_location("presets_of_an_installation", package / "presets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_installed_wheel_finds_its_own_presets_and_not_those_beside_it(tmp_path):
    _, site_packages = build("build_wheel", tmp_path)
    stranger = site_packages / "configuration" / "models" / "stranger"
    stranger.mkdir(parents=True)
    (stranger / "config.json").touch()
    package = site_packages / "modeling_vit_scratch"
    installed = presets_of(package)
    assert installed.preset_names() == preset_names()
    assert installed.preset_path("digits") == package / "configuration" / "models" / "digits"
    assert installed.recipe_names() == recipe_names()


def test_an_editable_install_is_the_checkout_with_its_presets(tmp_path):
    # Whatever data the wheel of an editable install copies into a folder `modeling_vit_scratch`, it must not hide ours.
    _, site_packages = build("build_editable", tmp_path)
    look = "import importlib.util, site, sys; site.addsitedir(sys.argv[1]); "
    look += "print(importlib.util.find_spec('modeling_vit_scratch').origin)"
    command = [sys.executable, "-I", "-S", "-c", look, str(site_packages)]  # without this environment's own packages
    origin = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert origin == str(ROOT / "modeling_vit_scratch" / "__init__.py")
    installed = presets_of(Path(origin).parent)
    assert installed.preset_path("digits") == ROOT / "configuration" / "models" / "digits"
