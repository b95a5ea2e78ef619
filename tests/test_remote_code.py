# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A saved folder carries the code of the model, for those who do not have this package.

The users without the package are Python processes in which importing it fails, whether it is installed or not.
"""

import ast
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from forks import python
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
    pipeline,
)
from transformers.dynamic_module_utils import get_relative_imports
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import modeling_vit_scratch
from modeling_vit_scratch import (
    ViTScratchBackbone,
    ViTScratchConfig,
    ViTScratchForImageClassification,
    ViTScratchForMaskedImageModeling,
    ViTScratchModel,
)

PACKAGE = Path(modeling_vit_scratch.__file__).parent
TRAVELLERS = sorted(PACKAGE.glob("model/*_vit_scratch.py"))
CODE = {
    "additions_vit_scratch.py",
    "configuration_vit_scratch.py",
    "initialization_vit_scratch.py",
    "layers_vit_scratch.py",
    "encoder_vit_scratch.py",
    "merging_vit_scratch.py",
    "modeling_vit_scratch.py",
    "packing_vit_scratch.py",
    "pretrained_vit_scratch.py",
    "publishing_vit_scratch.py",
}
CLASSES = {
    "AutoModel": ViTScratchModel,
    "AutoModelForImageClassification": ViTScratchForImageClassification,
    "AutoModelForMaskedImageModeling": ViTScratchForMaskedImageModeling,
    "AutoBackbone": ViTScratchBackbone,
}
AUTO_MAP = {
    "AutoConfig": "configuration_vit_scratch.ViTScratchConfig",
    **{auto_class: f"modeling_vit_scratch.{model_class.__name__}" for auto_class, model_class in CLASSES.items()},
}


# --- What the travelling files may import ----------------------------------------------------------------------------


def refused_imports(source: str) -> list[str]:
    """The imports of a file, wherever they stand in it, that a saved folder could not fulfil."""
    third_party = {"torch", "transformers", "huggingface_hub"}
    refused = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            allowed = all(name.split(".")[0] in third_party | sys.stdlib_module_names for name in names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            allowed = node.module.split(".")[0] in third_party | sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            sibling = node.module or ""
            allowed = node.level == 1 and sibling.isidentifier() and sibling.endswith("_vit_scratch")
        else:
            continue
        if not allowed:
            refused.append(ast.unparse(node))
    return refused


def relative_imports(source: str) -> set[str]:
    return {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.level}


def test_the_travelling_files_are_those_that_a_folder_holds():
    assert {path.name for path in TRAVELLERS} == CODE


@pytest.mark.parametrize("path", TRAVELLERS, ids=lambda path: path.name)
def test_a_travelling_file_imports_its_siblings_and_what_every_user_of_transformers_has(path):
    source = path.read_text(encoding="utf-8")
    assert refused_imports(source) == []
    assert {f"{name}.py" for name in relative_imports(source)} <= CODE


@pytest.mark.parametrize("path", TRAVELLERS, ids=lambda path: path.name)
def test_transformers_finds_the_siblings_of_a_travelling_file(path):
    # It looks with a regular expression, so a line of a docstring that reads like an import would break saving.
    assert set(get_relative_imports(path)) == relative_imports(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "statement",
    [
        "import numpy",
        "import os, numpy.linalg",
        "from PIL import Image",
        "from modeling_vit_scratch.model.layers_vit_scratch import AddClsToken",
        "import modeling_vit_scratch",
        "from . import layers_vit_scratch",
        "from .layers import AddClsToken",
        "from .checkpoints.timm_vit_scratch import read",
        "from .. import layers_vit_scratch",
        "from ..package.layers_vit_scratch import AddClsToken",
    ],
)
@pytest.mark.parametrize(
    "place", ["{}", "def function():\n    {}", "if TYPE_CHECKING:\n    {}", "try:\n    {}\nfinally: 0"]
)
def test_an_import_that_would_not_travel_is_noticed_wherever_it_stands(statement, place):
    assert refused_imports(place.format(statement)) == [statement]


def test_the_imports_that_travel_are_let_through():
    assert not refused_imports(
        "import math, torch.nn\nfrom .layers_vit_scratch import AddClsToken\nfrom torch import nn"
    )


# --- Folders, and users without the package --------------------------------------------------------------------------

NOT_INSTALLED = """
import importlib.abc, json, os, sys, warnings

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_vit_scratch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
    pipeline,
)

warnings.simplefilter("error")
trust = {"trust_remote_code": True}
"""

# Arguments: a folder with a canary, the file that the canary writes, where to write the report.
TRY_WITHOUT_TRUST = """
folder, canary, report = sys.argv[1:]
attempts = {
    "AutoConfig": AutoConfig.from_pretrained,
    "AutoModel": AutoModel.from_pretrained,
    "AutoModelForImageClassification": AutoModelForImageClassification.from_pretrained,
    "AutoModelForMaskedImageModeling": AutoModelForMaskedImageModeling.from_pretrained,
    "pipeline": lambda folder, **kwargs: pipeline("image-classification", model=folder, **kwargs),
}
refusals = {}
for name, attempt in attempts.items():
    for untrusted in ({}, {"trust_remote_code": False}):
        try:
            attempt(folder, **untrusted)
            refusals[f"{name} {untrusted}"] = "loaded"
        except ValueError as error:
            refusals[f"{name} {untrusted}"] = str(error)
ran_untrusted = os.path.exists(canary)
AutoModelForImageClassification.from_pretrained(folder, **trust)
ran_trusted = sorted(set(open(canary).read().split()))
with open(report, "w") as file:
    json.dump({"refusals": refusals, "ran_untrusted": ran_untrusted, "ran_trusted": ran_trusted}, file)
"""

# Arguments: the folders, the inputs, where to write the results and where to save the models again.
LOAD_RUN_AND_SAVE = """
folders, inputs, results, again = sys.argv[1:]
given = load_file(f"{inputs}/given.safetensors")
images, masked = given["images"], given["masked"]

models = {
    auto.__name__: auto.from_pretrained(f"{folders}/{auto.__name__}-tiny.v1", **trust)
    for auto in (AutoModel, AutoModelForImageClassification, AutoModelForMaskedImageModeling)
}
# `AutoBackbone.from_pretrained` asks the Hub whether the folder is one of its repositories.
backbone = f"{folders}/AutoBackbone-tiny.v1"
backbone_class = type(AutoBackbone.from_config(AutoConfig.from_pretrained(backbone, **trust), **trust))
models["AutoBackbone"] = backbone_class.from_pretrained(backbone)
for name, model in models.items():
    assert not model.training
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    assert type(model.config).__module__.startswith("transformers_modules."), type(model.config)

classifier = f"{folders}/AutoModelForImageClassification-tiny.v1"
encoder = AutoModel.from_pretrained(classifier, **trust)  # of a classifier, without its head
classify = pipeline("image-classification", model=classifier, **trust)
scores = classify(Image.open(f"{inputs}/picture.png"), function_to_apply="none")
with torch.no_grad():
    stem, stage2 = models["AutoBackbone"](images).feature_maps
    outputs = {
        "tokens": models["AutoModel"](images).last_hidden_state,
        "classifier's tokens": encoder(images).last_hidden_state,
        "logits": models["AutoModelForImageClassification"](images).logits,
        "reconstruction": models["AutoModelForMaskedImageModeling"](images, masked).reconstruction,
        "stem": stem,
        "stage2": stage2,
        "scores": torch.tensor([score["score"] for score in sorted(scores, key=lambda score: score["label"])]),
    }
save_file({name: output.contiguous() for name, output in outputs.items()}, results)
for name, model in models.items():
    model.save_pretrained(f"{again}/{name}-tiny.v1")
AutoImageProcessor.from_pretrained(classifier).save_pretrained(f"{again}/AutoModelForImageClassification-tiny.v1")
"""


def without_the_package(script: str, arguments: list[Path], work: Path) -> None:
    """Run a script in a process where this package cannot be imported, with empty caches and no network."""
    work.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HOME": str(work / "hf"), "HF_MODULES_CACHE": str(work / "modules"), "HF_HUB_OFFLINE": "1"}
    # Transformers asks whether it may trust the code, and nobody answers.
    done = python(NOT_INSTALLED + script, *arguments, environment=environment, cwd=work)
    assert done.status == 0, done.out + done.err


@pytest.fixture(scope="module")
def models() -> dict:
    """One model of each class."""
    torch.manual_seed(30)
    sizes = {"embedding_dim": 12, "depth": 2, "num_heads": 3, "ff_dim": 19, "image_size": [14, 21], "patch_size": 7}
    models = {}
    for auto_class, model_class in CLASSES.items():
        stages = ["stem", "stage2"] if auto_class == "AutoBackbone" else None
        config = ViTScratchConfig(**sizes, id2label={0: "dog", 1: "cat", 2: "eel", 3: "owl"}, out_features=stages)
        models[auto_class] = model_class(config).eval()
    return models


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A batch of images, masks for their patches, and a picture that the image processor has to resize."""
    folder = tmp_path_factory.mktemp("inputs")
    images = torch.rand(3, 3, 14, 21, generator=torch.Generator().manual_seed(31))
    masked = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 1]])
    save_file({"images": images, "masked": masked}, folder / "given.safetensors")
    picture = Image.new("RGB", (19, 23))
    picture.putdata([(x * y % 256, 11 * x % 256, 7 * y % 256) for y in range(23) for x in range(19)])
    picture.save(folder / "picture.png")
    return folder


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory) -> Path:
    """A folder saved from each class, with names that are no Python modules."""
    folders = tmp_path_factory.mktemp("saved")
    for auto_class, model in models.items():
        model.save_pretrained(folders / f"{auto_class}-tiny.v1")
    processor = ViTImageProcessorPil(size={"height": 14, "width": 21})
    processor.save_pretrained(folders / "AutoModelForImageClassification-tiny.v1")
    return folders


@pytest.fixture(scope="module")
def expected(models, folders, inputs) -> dict[str, torch.Tensor]:
    """What the models give here, where the package is."""
    given = load_file(inputs / "given.safetensors")
    images, masked = given["images"], given["masked"]
    classify = pipeline("image-classification", model=str(folders / "AutoModelForImageClassification-tiny.v1"))
    scores = classify(Image.open(inputs / "picture.png"), function_to_apply="none")
    with torch.no_grad():
        stem, stage2 = models["AutoBackbone"](images).feature_maps
        return {
            "tokens": models["AutoModel"](images).last_hidden_state,
            "classifier's tokens": models["AutoModelForImageClassification"].vit(images).last_hidden_state,
            "logits": models["AutoModelForImageClassification"](images).logits,
            "reconstruction": models["AutoModelForMaskedImageModeling"](images, masked).reconstruction,
            "stem": stem,
            "stage2": stage2,
            "scores": torch.tensor([score["score"] for score in sorted(scores, key=lambda score: score["label"])]),
        }


def with_canary(folder: Path, copy: Path) -> Path:
    """Copy a folder so that each file of its code leaves its name in `canary.txt` when it runs."""
    shutil.copytree(folder, copy)
    canary = copy / "canary.txt"
    for name in CODE:
        with (copy / name).open("a", encoding="utf-8") as file:
            file.write(f"\nwith open({str(canary)!r}, 'a') as canary:\n    canary.write('{name} ')\n")
    return canary


def assert_self_contained(folders: Path) -> None:
    for auto_class, model_class in CLASSES.items():
        folder = folders / f"{auto_class}-tiny.v1"
        files = CODE | {"config.json", "model.safetensors"}
        if auto_class == "AutoModelForImageClassification":
            files |= {"preprocessor_config.json"}
        assert {path.name for path in folder.iterdir()} == files
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert config["auto_map"] == AUTO_MAP
        assert config["architectures"] == [model_class.__name__]
        for name in CODE:
            assert (folder / name).read_bytes() == (PACKAGE / "model" / name).read_bytes()


def test_a_saved_folder_is_self_contained_whichever_class_was_saved(folders):
    assert_self_contained(folders)


def test_the_code_of_a_folder_does_not_run_unless_it_is_trusted(folders, tmp_path):
    canary = with_canary(folders / "AutoModelForImageClassification-tiny.v1", tmp_path / "canary")
    report_file = tmp_path / "report.json"
    without_the_package(TRY_WITHOUT_TRUST, [tmp_path / "canary", canary, report_file], tmp_path / "work")
    report = json.loads(report_file.read_text(encoding="utf-8"))
    assert len(report["refusals"]) == 10
    for attempt, message in report["refusals"].items():
        assert "Please pass the argument `trust_remote_code=True`" in message, attempt
    assert not report["ran_untrusted"]
    assert set(report["ran_trusted"]) == CODE  # so the canary would have told


def test_trusted_code_gives_the_same_results_and_what_it_saves_does_too(folders, inputs, expected, tmp_path):
    again, once_more = tmp_path / "again", tmp_path / "once more"
    for source, target in ((folders, again), (again, once_more)):
        results = tmp_path / f"{target.name}.safetensors"
        without_the_package(LOAD_RUN_AND_SAVE, [source, inputs, results, target], tmp_path / f"work {target.name}")
        outputs = load_file(results)
        assert outputs.keys() == expected.keys()
        for name, output in outputs.items():
            torch.testing.assert_close(output, expected[name], msg=lambda message, name=name: f"{name}: {message}")
        assert_self_contained(target)
    assert not torch.allclose(expected["tokens"], expected["classifier's tokens"], atol=0.1)  # the models do differ


@pytest.mark.parametrize("trust", [{}, {"trust_remote_code": True}], ids=["no trust", "trust"])
def test_with_the_package_its_own_code_runs_and_that_of_the_folder_does_not(trust, folders, tmp_path):
    canary = with_canary(folders / "AutoModelForImageClassification-tiny.v1", tmp_path / "canary")
    assert type(AutoConfig.from_pretrained(tmp_path / "canary", **trust)) is ViTScratchConfig
    for auto in (AutoModel, AutoModelForImageClassification, AutoModelForMaskedImageModeling):
        assert type(auto.from_pretrained(tmp_path / "canary", **trust)) is CLASSES[auto.__name__]
    config = AutoConfig.from_pretrained(tmp_path / "canary", **trust)
    assert type(AutoBackbone.from_config(config, **trust)) is ViTScratchBackbone
    assert not canary.exists()
