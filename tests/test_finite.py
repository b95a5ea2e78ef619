# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Weights and logits that are NaN or infinite: each verb refuses them in one sentence, and writes nothing."""

import ast
import math
import shutil
from pathlib import Path

import pytest
import torch
from runs import CHECKPOINT, classes_of_pictures, contents, refused, weights
from safetensors.torch import save_file

import modeling_vit_scratch
from modeling_vit_scratch.data.images import read_image
from modeling_vit_scratch.finite import check_weights
from modeling_vit_scratch.hub.checkpoint import load_checkpoint
from modeling_vit_scratch.inspection.explaining import explain
from modeling_vit_scratch.prediction.classifier import Classifier

HEAD = "classification_head.fc.bias"
PACKAGE = Path(modeling_vit_scratch.__file__).parent


@pytest.fixture(params=[math.nan, math.inf], ids=str)
def broken(request, digits_run, tmp_path):
    """The small run's checkpoint with one number in its head that is none, and one of its images."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for name in (*CHECKPOINT, "sample.png"):
        shutil.copyfile(digits_run[0] / name, folder / name)
    state = weights(folder)
    state[HEAD][3] = request.param
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "CHECKPOINT", "IMAGE"),
        *(("predict", "CHECKPOINT", "IMAGE", "--output", f"NEW.{kind}") for kind in ("jsonl", "csv", "parquet")),
        ("predict", "CHECKPOINT", "IMAGE", "--precision", "bf16"),
        ("evaluate", "CHECKPOINT", "digits"),
        ("explain", "CHECKPOINT", "IMAGE", "--output", "NEW"),
        ("dry-run", "CHECKPOINT", "--output", "NEW.txt"),
        ("import", "CHECKPOINT", "NEW"),
        ("push", "CHECKPOINT", "owner/name"),
        ("demo", "CHECKPOINT", "--space", "NEW"),
        *(
            ("export", "CHECKPOINT", "NEW", "--format", kind)
            for kind in ("transformers", "timm", "onnx", "onnx-int8", "torch-export")
        ),
    ],
    ids=" ".join,
)
def test_each_verb_names_the_weight_and_writes_nothing(broken, tmp_path, command):
    places = {"CHECKPOINT": broken, "IMAGE": broken / "sample.png"}
    before = contents(tmp_path)
    line = refused(*(places.get(word, word.replace("NEW", str(tmp_path / "new"))) for word in command))
    what = f"the checkpoint {broken} cannot be used: {HEAD} holds numbers that are NaN or infinite."
    assert line == f"vit-scratch {command[0]}: {what}"
    assert contents(tmp_path) == before


def test_training_starts_from_no_body_that_is_not_finite(digits_run, broken, tmp_path):
    data = classes_of_pictures(tmp_path / "data", images=4)
    state = weights(digits_run[0])
    name = next(name for name in state if name.startswith("vit.encoder"))
    state[name].view(-1)[0] = math.nan
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    flags = (f"--data={data}", f"--model={broken}", f"--output_dir={tmp_path / 'run'}", "--report_to=none")
    line = refused("train", "finetune", *flags)
    assert f"the checkpoint {broken} cannot be used: {name} holds numbers" in line
    assert not (tmp_path / "run").exists()


def test_several_such_weights_are_counted():
    broken = [(name, torch.tensor([math.nan])) for name in "ab"]
    with pytest.raises(ValueError, match=r"^x cannot be used: a and 1 more of its weights hold numbers"):
        check_weights([("fine", torch.ones(2)), ("none", torch.ones(0)), ("whole", torch.ones(2).int()), *broken], "x")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_largest_numbers_are_numbers(dtype):
    check_weights([("large", torch.full((3,), torch.finfo(dtype).max, dtype=dtype))], "x")


@pytest.fixture
def overflowing(monkeypatch, digits_run):
    """Weights that are finite, and logits that are not, as of bits that do not suffice."""
    head = type(load_checkpoint(str(digits_run[0]))[0].classification_head)
    forward = head.forward
    monkeypatch.setattr(head, "forward", lambda self, x: forward(self, x) / torch.zeros(()))


def test_logits_that_overflow_are_refused_where_they_are_computed(overflowing, digits_run, tmp_path):
    folder, image = digits_run[0], digits_run[0] / "sample.png"
    table = tmp_path / "table.jsonl"
    sentence = f"the checkpoint {folder} cannot be used: the logits of 1 of 1 images are NaN or infinite."
    assert refused("predict", folder, image) == f"vit-scratch predict: {sentence}"
    assert refused("predict", folder, image, "--output", table) == f"vit-scratch predict: {sentence}"
    line = refused("evaluate", folder, "digits")
    assert line.startswith(f"vit-scratch evaluate: the checkpoint {folder} cannot be used: the logits of ")
    line = refused("explain", folder, image, "--output", tmp_path / "out")
    assert "the logits of 1 of 1 images are NaN or infinite." in line
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="NaN or infinite"):
        Classifier(str(folder)).most_likely([read_image(str(image))], 1)  # as the page does
    model, processor, _ = load_checkpoint(str(folder))
    with pytest.raises(ValueError, match="NaN or infinite"):
        explain(model, processor, str(image))


def test_no_json_is_written_with_a_number_that_json_does_not_have():
    # A recipe becomes YAML, which has them; it passes through JSON to become plain values.
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "json.dumps" and file.name != "recipes.py":
                assert any(item.arg == "allow_nan" for item in node.keywords), f"{file.name}, line {node.lineno}"
