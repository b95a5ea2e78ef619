# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Importing the package is quick, and makes it known to the Auto classes, whichever of the two is imported first."""

import pickle
import subprocess
import sys

import forks
import pytest
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

import modeling_vit_scratch
from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification, registration
from modeling_vit_scratch.presets import preset_path

PACKAGE_FIRST = """
import sys
import modeling_vit_scratch
heavy = {"torch", "transformers", "huggingface_hub", "numpy"} & sys.modules.keys()
assert not heavy, heavy
import transformers.modeling_layers  # the model needs it, and it imports the Auto classes
assert "modeling_vit_scratch.model.modeling_vit_scratch" not in sys.modules
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
config = AutoConfig.from_pretrained(sys.argv[1])
processor, model = AutoImageProcessor.from_pretrained(sys.argv[1]), AutoModelForImageClassification.from_config(config)
from modeling_vit_scratch import ViTScratchForImageClassification
assert type(model) is ViTScratchForImageClassification
print(type(processor).__name__, AutoModelForImageClassification._model_mapping[type(config)].__name__)
"""


def test_the_auto_classes_know_a_package_that_was_imported_before_them():
    command = [sys.executable, "-c", PACKAGE_FIRST, preset_path("vit-micro-patch4-32")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ViTImageProcessorPil", "ViTScratchForImageClassification"]


AUTO_CLASSES_FIRST = """
import sys
assert "transformers.models.auto.modeling_auto" in sys.modules
import modeling_vit_scratch
assert "modeling_vit_scratch.model.modeling_vit_scratch" not in sys.modules
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
config = AutoConfig.from_pretrained(sys.argv[1])
model = AutoModelForImageClassification.from_config(config)
print(type(AutoImageProcessor.from_pretrained(sys.argv[1])).__name__, type(model).__name__)
"""


def test_the_auto_classes_know_a_package_that_is_imported_after_them():
    done = forks.python(AUTO_CLASSES_FIRST, preset_path("vit-micro-patch4-32"))
    assert done.status == 0, done.err
    assert done.out.split() == ["ViTImageProcessorPil", "ViTScratchForImageClassification"]


def test_the_package_has_its_public_names_and_no_others():
    names: dict[str, object] = {}
    exec("from modeling_vit_scratch import *", names)
    assert set(modeling_vit_scratch.__all__) == names.keys() - {"__builtins__"}
    assert set(modeling_vit_scratch.__all__) <= set(dir(modeling_vit_scratch))
    with pytest.raises(AttributeError, match=r"^module 'modeling_vit_scratch' has no attribute 'ViTScratch'$"):
        _ = modeling_vit_scratch.ViTScratch
    with pytest.raises(ImportError, match="cannot import name 'torch'"):
        exec("from modeling_vit_scratch import torch")


@pytest.fixture
def stand_in() -> registration.StandIn:
    return registration.StandIn(registration.IMAGES, "ViTScratchForImageClassification", ViTScratchConfig)


def test_what_stands_in_for_a_model_does_as_the_model(stand_in):
    AutoModelForImageClassification.register(ViTScratchConfig, stand_in, exist_ok=True)
    small = AutoConfig.for_model("vit_scratch", num_hidden_layers=1, hidden_size=8, num_attention_heads=2)
    try:
        assert type(AutoModelForImageClassification.from_config(small)) is ViTScratchForImageClassification
    finally:
        registration._register_models()
    assert AutoModel._model_mapping[ViTScratchConfig] is modeling_vit_scratch.ViTScratchModel


def test_what_stands_in_for_a_model_goes_to_other_processes(stand_in):
    again = pickle.loads(pickle.dumps(stand_in))
    assert (again.__name__, again.config_class) == ("ViTScratchForImageClassification", ViTScratchConfig)
