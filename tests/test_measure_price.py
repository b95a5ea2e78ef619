# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What faster costs: the accuracies are those of `evaluate`, and the peer has the weights of the checkpoint."""

import json
from pathlib import Path

import torch
from PIL import Image
from runs import Run
from transformers import AutoImageProcessor

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.evaluation.metrics import compute_metrics
from modeling_vit_scratch.evaluation.scoring import evaluate
from modeling_vit_scratch.presets import preset_path

SCRIPT = Path(__file__).parent.parent / "scripts/measure_price.py"
# What transformers' ViT has, too.
ORIGINAL = {"norm_first": True, "use_cls_position": True, "use_final_layer_norm": True}


def test_each_setting_has_its_accuracy_and_its_speed(tmp_path):
    # The labels of the digits, in another order.
    names = dict(enumerate("9876543210"))
    torch.manual_seed(0)
    fields = {"id2label": names, "label2id": {name: index for index, name in names.items()}, **ORIGINAL}
    config = ViTScratchConfig.from_pretrained(preset_path("digits"), **fields)
    checkpoint = str(tmp_path / "checkpoint")
    ViTScratchForImageClassification(config).save_pretrained(checkpoint)
    AutoImageProcessor.from_pretrained(preset_path("digits")).save_pretrained(checkpoint)
    flags = ["--precisions", "fp32", "bf16", "--token-merging", "0", "3", "--batch-size", "2", "--rounds", "2"]
    arguments = [checkpoint, "digits", *flags, "--output", tmp_path / "price"]
    result = Run(arguments, tmp_path, script=SCRIPT).end()
    assert result.status == 0, result.err
    rows = json.loads((tmp_path / "price.json").read_text())
    settings = [("fp32", 0), ("fp32", 3), ("bf16", 0), ("bf16", 3)]
    assert [(row["precision"], row["token_merging"]) for row in rows[:4]] == settings
    assert rows[4]["setting"] == "transformers"
    assert rows[4]["beside"]["transformers"] == [1.0, [1.0, 1.0]]
    for row, (precision, merged) in zip(rows[:4], settings, strict=True):
        results = evaluate(checkpoint, "digits", precision=precision, token_merging=merged)
        assert row["accuracy"] == compute_metrics(results.outcome, results.labels, 10)["accuracy"]
        assert f"| {row['setting']} | {row['images_per_second']:.1f} | " in result.out
    with Image.open(tmp_path / "price.png") as picture:
        assert picture.width > 500


def test_a_checkpoint_that_the_peer_cannot_load_is_refused_before_anything_is_measured(tmp_path, digits_run):
    output = tmp_path / "output"
    output.mkdir()
    result = Run([digits_run[0], "digits", "--output", output / "price"], tmp_path, script=SCRIPT).end()
    assert result.status == 2
    assert "measure_price.py: error: " in result.err
    assert not list(output.iterdir())
