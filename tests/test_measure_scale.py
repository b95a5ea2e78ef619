# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What docs/scale.md says was measured as it says, and agrees with what can be worked out by hand."""

import itertools
import json
import re
import shlex
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import Run, free_port, joining
from torch import nn

import measure_scale
import plan_scale
from modeling_vit_scratch.presets import preset_names

ROOT = Path(__file__).resolve().parents[1]
DIGITS = 4 * 302_986  # bytes of the preset's parameters in fp32
STATES = 4 * 12 + 6  # its parameters, for each of which AdamW counts steps: of a block, and of the rest
PAGE = (ROOT / "docs" / "scale.md").read_text("utf-8")
MEASURED = plan_scale.read(ROOT / "docs" / "scale.jsonl")
ONE_THREAD = "import os, torch; torch.set_num_threads(1)"


def measured(output, *flags, processes=1):
    """What the script writes about the digits' model, run in as many processes."""
    port, script = free_port(), ROOT / "scripts" / "measure_scale.py"
    command = ["step", "--models", "digits", "--output", output, *flags]
    places = [joining(rank, port, processes) for rank in range(processes)] if processes > 1 else [ONE_THREAD]
    codes = [f"{place}; os.environ['CUDA_VISIBLE_DEVICES'] = ''" for place in places]
    runs = [Run(command, output.parent, code, script) for code in codes]
    results = [run.end() for run in runs]
    assert [result.status for result in results] == [0] * processes, results
    return plan_scale.read(output)


# What is measured


def test_three_processes_send_what_the_formula_says(tmp_path):
    flags = ["--batch=2", "--rounds=2", "--precision", "fp32", "bf16", "--ways", "one", "ddp", "fsdp"]
    lines = measured(tmp_path / "scale.jsonl", *flags, processes=3)
    assert [(line["precision"], line["way"]) for line in lines] == list(
        itertools.product(("fp32", "bf16"), ("one", "ddp", "fsdp"))
    )
    for line in lines:
        assert line["processes"] == 3
        assert line["payload"] == line["expected"]
        low, median, high = (line["seconds"][index] for index in (1, 0, 2))
        assert 0 < low <= median <= high
        sizes = line["bytes"]
        assert sizes["peak"] > 0
        # A third, and what fills up the rows that three processes cannot share out evenly: 10 to 12, 1 to 3.
        whole = 1_225_776 / 3 if line["way"] == "fsdp" else DIGITS
        assert sizes["parameters"] == sizes["gradients"] == whole
        assert sizes["optimizer"] == 2 * sizes["parameters"] + 4 * STATES
    one, ddp, fsdp = lines[:3]
    assert one["payload"] == {}
    # Activations are smaller in bf16, but of two images the copies are larger that autocast makes of the weights.
    assert lines[5]["bytes"]["saved"] < one["bytes"]["saved"] < lines[3]["bytes"]["saved"]
    assert one["bytes"]["saved"] == ddp["bytes"]["saved"] == fsdp["bytes"]["saved"]
    # Five gatherings (four blocks and the rest) forward, five backward, and five sums.
    assert fsdp["calls"] == {"_allgather_base_": 10, "_reduce_scatter_base_": 5}
    # Other processes of the machine may send, too. gloo adds up everything where FSDP asks for a part of the sum.
    assert ddp["wire"] > 4 / 3 * DIGITS
    assert fsdp["wire"] > 8 / 3 * DIGITS


def test_checkpointing_keeps_less(tmp_path):
    (line,) = measured(tmp_path / "scale.jsonl", "--batch=16", "--rounds=1", "--activation_checkpointing")
    assert line["checkpointing"] is True
    assert (line["way"], line["processes"], line["wire"]) == ("one", 1, None)
    sizes = line["bytes"]
    assert sizes["peak"] > sizes["parameters"] + sizes["gradients"] + sizes["optimizer"] == 4 * DIGITS + 4 * STATES
    saved = measure_scale.SavedForBackward()
    with saved.hooks:
        measure_scale.build("digits")(torch.zeros(16, 3, 8, 8), labels=torch.zeros(16, dtype=torch.int64))
    assert 4 * sizes["saved"] < saved.bytes
    # Of each of four blocks at least what comes in: 16 images, 17 tokens, a width of 96.
    assert sizes["saved"] > 4 * 16 * 17 * 96 * 4


def test_saved_tensors_are_counted_once_and_parameters_not():
    layer = nn.Linear(5, 7)
    saved = measure_scale.SavedForBackward()
    with saved.hooks:
        x = torch.randn(3, 2, 5, requires_grad=True)  # of three dimensions: the weight is saved as a view of itself
        (layer(x).relu() * layer(x[:2]).sum()).sum()
    # x, whole for both layers; what ReLU gave (for ReLU and the product); the sum.
    assert saved.bytes == 4 * (30 + 42 + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read in Linux's way")
def test_the_peak_is_that_since_the_last_reset():
    device = torch.device("cpu")
    before = measure_scale.peak_memory(device, reset=True)
    torch.ones(50_000_000)  # 200 MB, and gone again
    assert 195e6 < measure_scale.peak_memory(device) - before < 220e6
    assert measure_scale.peak_memory(device, reset=True) - before < 20e6


def test_the_formula_by_hand():
    module = nn.ParameterList([torch.zeros(5, 3), torch.zeros(1, 7)])
    ddp = measure_scale.expected_payload(module, "ddp", "bf16", 2)
    assert ddp == {"allreduce_": 4 * 22}
    fsdp = measure_scale.expected_payload(module, "fsdp", "fp32", 2)  # 6 rows of 3, 2 of 7
    assert fsdp == {"_allgather_base_": 2 * 4 * 32, "_reduce_scatter_base_": 4 * 32}
    assert measure_scale.expected_payload(module, "fsdp", "bf16", 4) == {  # 8 rows of 3, 4 of 7
        "_allgather_base_": 2 * 2 * 52,
        "_reduce_scatter_base_": 2 * 52,
    }
    assert measure_scale.expected_payload(module, "one", "fp32", 2) == {}
    assert measure_scale.sent(ddp, 4) == 2 * 3 / 4 * 88
    assert measure_scale.sent(fsdp, 4) == 3 / 4 * 3 * 128


def test_loading_is_measured_on_photographs_of_the_usual_size():
    file = measure_scale.photograph(np.random.default_rng(1))
    assert 90_000 < len(file) < 130_000
    with Image.open(measure_scale.io.BytesIO(file)) as image:
        assert (image.size, image.format) == ((500, 375), "JPEG")
        assert np.asarray(image).std() > 20
    threads = torch.get_num_threads()
    line = measure_scale.measure_loading("digits", Namespace(images=3, rounds=2))
    torch.set_num_threads(threads)
    assert (line["images"], line["rounds"], line["threads"]) == (3, 2, 1)
    median, low, high = line["images_per_second"]
    assert 0 < low <= median <= high


# What is planned


def rows(*flags):
    return plan_scale.plan_rows(plan_scale.parse(["plan", *flags]))


def test_a_plan_by_hand():
    # Of ViT-S/16 and an image: the patches, 11 whole blocks, and of the last what [CLS] needs.
    block, last = 197 * 12 * 384**2 + 2 * 197**2 * 384, (197 * 3 + 9) * 384**2 + 2 * 197 * 384
    operations = 3 * 2 * (196 * 768 * 384 + 11 * block + last)
    one, eight, many = rows("--peak_tflops=1000", "--efficiency=0.5", "--batch=512")
    compute = 512 * operations / 500e12
    assert one["step"] == one["compute"] == pytest.approx(compute)
    gradients = 4 * 22_050_664
    talk = 2 * 7 / 8 * gradients / 300e9
    assert (eight["compute"], eight["talk"]) == pytest.approx((compute / 8, talk))
    assert eight["step"] == pytest.approx(compute / 8 + talk)
    assert many["step"] == pytest.approx(compute / 64 + 2 * 63 / 64 * gradients / 50e9)
    assert one["hours"]["ImageNet-1k", 90] == pytest.approx(90 * 2503 * compute / 3600)
    assert one["hours"]["ImageNet-21k", 30] == pytest.approx(30 * 27729 * compute / 3600)
    assert one["workers"] == pytest.approx(512 / compute / 100)


def test_loading_and_hidden_communication_change_a_plan():
    given = ("--peak_tflops=1000", "--efficiency=0.5", "--batch=512", "--devices=8", "--images_per_worker=50")
    (free,) = rows(*given)
    (hidden,) = rows(*given, "--hidden=0.75")
    assert hidden["step"] == pytest.approx(free["compute"] + free["talk"] / 4)
    (limited,) = rows(*given, "--workers=4")
    assert limited["step"] == pytest.approx(64 / (4 * 50))
    (enough,) = rows(*given, "--workers=100000")
    assert enough["step"] == free["step"]


def test_a_measured_plan_takes_one_device_and_says_so(tmp_path):
    step = {"kind": "step", "way": "one", "checkpointing": False, "model": "digits", "precision": "bf16", "batch": 50}
    others = [{"kind": "loading", "model": "digits"}, {**step, "way": "ddp", "device": "CPU", "seconds": [9, 9, 9]}]
    lines = [*others, {**step, "device": "A", "seconds": [0.5, 0.4, 0.6]}]
    file = tmp_path / "measured.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    flags = ["--measured", str(file), "--models=digits", "--devices=1"]
    assert rows(*flags)[0]["compute"] == pytest.approx(1024 * 0.5 / 50)
    said = plan_scale.plan(plan_scale.parse(["plan", *flags]))
    assert said.startswith("MEASURED: the computing, in bf16 on one device (A). Calculated: the rest")
    said = plan_scale.plan(plan_scale.parse(["plan", "--peak_tflops=9", "--efficiency=0.1"]))
    assert said.startswith("CALCULATED, not measured: 9 TFLOPS of a device at 10%")
    with file.open("a") as stream:
        stream.write("\n" + json.dumps({**step, "device": "B", "seconds": [0.1, 0.1, 0.1]}))
    with pytest.raises(SystemExit, match="on A and B"):
        rows(*flags)
    assert rows(*flags, "--device=B")[0]["compute"] == pytest.approx(1024 * 0.1 / 50)
    with pytest.raises(SystemExit, match="on no device"):
        rows(*flags, "--precision=fp32")


@pytest.mark.parametrize(
    "flags", [[], ["--peak_tflops=9"], ["--measured=docs/scale.jsonl", "--peak_tflops=9", "--efficiency=0.1"]]
)
def test_a_plan_is_measured_or_calculated(flags, capsys):
    with pytest.raises(SystemExit):
        plan_scale.parse(["plan", *flags])
    assert "give one of the two" in capsys.readouterr().err


def test_a_price_is_that_of_all_devices():
    text = plan_scale.plan(plan_scale.parse(["plan", "--peak_tflops=989", "--efficiency=0.35", "--price=2"]))
    cells = re.findall(r"([\d.,]+) \(([\d.,]+), ([\d.,]+)\)", text)
    assert len(cells) == 12
    for cell in cells:
        hours, total, price = (float(number.replace(",", "")) for number in cell)
        assert price == pytest.approx(2 * total, rel=0.1, abs=1)
        assert total >= hours


# The page


def commands(program):
    """The commands of a script on the page, without the ends of lines that continue, but those for the reader's own."""
    lines = re.findall(rf"^(?:python|torchrun .*) scripts/{program}.py (.*)$", PAGE.replace("\\\n", " "), re.MULTILINE)
    return [" ".join(line.split()) for line in lines if "outputs/" not in line]


@pytest.mark.parametrize("command", [pytest.param(command, id=command[:60]) for command in commands("plan_scale")])
def test_the_tables_of_the_page_are_what_its_commands_print(command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    options = plan_scale.parse(shlex.split(command))
    printed = plan_scale.tables(plan_scale.read(options.file)) if options.verb == "table" else plan_scale.plan(options)
    for part in printed.split("\n\n"):
        assert part in PAGE
    if options.verb == "plan" and options.picture:
        assert f"]({options.picture.relative_to('docs')})" in PAGE
        options.picture = tmp_path / "picture.png"
        plan_scale.draw(options)
        with Image.open(options.picture) as picture:
            assert picture.format == "PNG"


def test_every_measurement_stands_beside_its_command():
    assert {line["command"].removeprefix("scripts/measure_scale.py ") for line in MEASURED} == set(
        commands("measure_scale")
    )


def test_the_measurements_of_the_page_agree_with_the_formula():
    assert {line["way"] for line in MEASURED if line["kind"] == "step"} == {"one", "ddp", "fsdp"}
    for line in MEASURED:
        assert line["model"] in preset_names()
        assert line.get("payload") == line.get("expected")


def test_what_fills_up_shards_grows_with_the_processes():
    with torch.device("meta"):
        model = measure_scale.build("vit-base-patch16-224")
    plain = sum(weight.numel() for weight in model.parameters())
    for processes, said in re.findall(r"(\d+) processes gather (\d+) % more", PAGE):
        gathered = measure_scale.expected_payload(model, "fsdp", "fp32", int(processes))["_allgather_base_"]
        assert round(100 * (gathered / (8 * plain) - 1)) == int(said)
    assert "processes gather" in PAGE
