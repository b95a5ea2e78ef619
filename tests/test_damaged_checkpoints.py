# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A checkpoint that is not whole is refused by the name of the file, with what to do."""

import json
import shutil

import pytest
import torch
from pictures import noise
from runs import refused

from modeling_vit_scratch import ViTScratchForImageClassification

NAME = "model.safetensors"
DAMAGE = {
    "cut": (lambda content: content[: len(content) // 2], "is cut short or damaged: copy or download it again"),
    "empty": (lambda content: b"", "is empty: copy or download it again"),
    "pointer": (
        lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "is the address of the weights, not the weights: git lfs pull fetches them",
    ),
    "noise": (lambda content: bytes(range(256)) * 4, "is cut short or damaged"),
}


@pytest.fixture
def checkpoint(digits_run, tmp_path):
    return shutil.copytree(digits_run[0], tmp_path / "checkpoint")


@pytest.fixture
def picture(tmp_path):
    noise(seed=1).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("damage", DAMAGE)
def test_weights_that_are_not_whole_are_named(damage, checkpoint, picture):
    change, sentence = DAMAGE[damage]
    (checkpoint / NAME).write_bytes(change((checkpoint / NAME).read_bytes()))
    assert f"{checkpoint / NAME} {sentence}" in refused("predict", checkpoint, picture)


def test_every_verb_says_so(checkpoint, picture, tmp_path):
    (checkpoint / NAME).write_bytes(b"")
    for command in (
        ("evaluate", checkpoint, "digits"),
        ("explain", checkpoint, picture, "--output", tmp_path / "explained"),
        ("dry-run", checkpoint),
        ("train", "digits", f"--model={checkpoint}", f"--output_dir={tmp_path / 'out'}"),
        ("export", checkpoint, tmp_path / "exported", "--format", "onnx"),
    ):
        assert f"{checkpoint / NAME} is empty" in refused(*command), command


def test_a_pickle_is_not_read(checkpoint, picture):
    torch.save({"weight": torch.ones(3)}, checkpoint / NAME)
    line = refused("predict", checkpoint, picture)
    assert f"{checkpoint / NAME} is a pickle and no safetensors file: vit-scratch import reads it" in line


def test_a_part_that_is_missing_or_cut_is_named(digits_run, checkpoint, picture):
    ViTScratchForImageClassification.from_pretrained(digits_run[0]).save_pretrained(checkpoint, max_shard_size="20KB")
    (checkpoint / NAME).unlink(missing_ok=True)
    index = checkpoint / f"{NAME}.index.json"
    part = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))[-1]
    whole = (checkpoint / part).read_bytes()
    (checkpoint / part).write_bytes(whole[:-9])
    assert f"{checkpoint / part} is cut short or damaged" in refused("predict", checkpoint, picture)
    (checkpoint / part).unlink()
    assert f"{checkpoint} lacks {part}, which {index.name} names" in refused("predict", checkpoint, picture)
    for damaged in ("{", '{"weight_map": {}}', '{"weight_map": {"a": 3}}'):
        index.write_text(damaged, encoding="utf-8")
        assert f"{index} is no index of weights, or damaged" in refused("predict", checkpoint, picture)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_settings_that_are_not_whole_are_named(name, checkpoint, picture):
    whole = (checkpoint / name).read_bytes()
    for content in (b"", whole[:-9], b"\xff\xfe", b"[]", b"version https://git-lfs.github.com/spec/v1\n"):
        (checkpoint / name).write_bytes(content)
        line = refused("predict", checkpoint, picture)
        assert f"{checkpoint / name} is not a valid JSON file: copy or download it again" in line


def test_weights_that_are_cut_are_no_import(checkpoint, tmp_path):
    (checkpoint / NAME).write_bytes((checkpoint / NAME).read_bytes()[:-9])
    sentence = f"{checkpoint / NAME} is not a whole safetensors file: copy or download it again"
    assert sentence in refused("import", checkpoint, tmp_path / "out")
    assert sentence in refused("export", checkpoint, tmp_path / "out", "--format", "timm")


def test_the_additions_of_lora_alone_are_no_model(checkpoint, picture):
    adapter = checkpoint / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    line = refused("predict", adapter, picture)
    assert f"{adapter} holds the additions of LoRA alone, and no model: name the checkpoint that the run ended" in line
    assert f"({checkpoint})" in line
