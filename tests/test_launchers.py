# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Several processes train one model: launched by accelerate or torchrun, they print, write and measure as one."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from forks import started
from runs import (
    NO_PICTURE,
    RUN,
    SMALL,
    Run,
    contents,
    free_port,
    joining,
    named_numbers,
    same_weights,
    vit_scratch,
    weights,
)
from torch.distributed.run import get_args_parser
from transformers import AutoConfig, AutoModelForImageClassification

from modeling_vit_scratch.presets import preset_path, recipe_names, shipped_path
from modeling_vit_scratch.training import classification
from modeling_vit_scratch.training.recipes import parse_recipe

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_FILES = sorted(shipped_path("configuration/accelerate").glob("*.yaml"))
ACCELERATE = "from accelerate.commands.accelerate_cli import main; main()"
# 208 and 360 images in batches of 50 for two processes: the last ones have to be filled up.
FLAGS = (
    "digits",
    *SMALL,
    "--per_device_eval_batch_size=50",
    "--max_steps=4",
    "--learning_rate=5e-3",
    "--eval_strategy=steps",
    "--eval_steps=2",
)


def in_two_processes(*arguments, folder):
    """Run a command in two processes as a launcher starts them, without waiting for what launchers import."""
    port = free_port()
    runs = [Run([*arguments, "--use_cpu"], folder, f"{joining(rank, port)}\n{NO_PICTURE}") for rank in range(2)]
    return [run.end() for run in runs]


@pytest.fixture
def port():
    return free_port()


def test_two_processes_do_one_job(tmp_path):
    output = tmp_path / "outputs" / "run"
    results = in_two_processes("train", *FLAGS, f"--output_dir={output}", folder=tmp_path)
    assert [result.status for result in results] == [0, 0], results
    printed, lines = "".join(result.out for result in results), results[0].lines

    # One of them prints.
    assert sum(line.startswith("device ") for line in printed.splitlines()) == 1
    assert "cpu:0 x 2 processes, fp32, sdpa attention" in printed
    assert "4 steps in batches of 128" in printed
    assert [line[:9] for line in lines if line.startswith("epoch")] == ["epoch 0.2", "epoch 0.4"]
    assert not any("vit-scratch" in result.err for result in results)

    # They leave one folder, as one process does, with numbers in it.
    assert [path.name for path in output.parent.iterdir()] == ["run"]
    assert {path.name for path in output.iterdir() if path.is_file()} == RUN - {"training.png"}
    assert all(weight.isfinite().all() for weight in weights(output).values())
    assert "2 x 1" in (output / "README.md").read_text(encoding="utf-8")

    # Each image was counted once: one process alone measures the same.
    trained = {line.split()[0]: line.split()[1] for line in lines if line.startswith(("test_", "validation_"))}
    measured = named_numbers(vit_scratch("evaluate", output, "digits"))
    assert len(measured) == 4
    assert {name: trained[name] for name in measured} == measured


def test_a_mistake_ends_all_processes(digits_run, tmp_path):
    folder, _ = digits_run
    before = contents(folder)
    for result in in_two_processes("train", *FLAGS, f"--output_dir={folder}", folder=tmp_path):
        assert (result.status, result.out) == (2, "")
        assert f"vit-scratch train: the output folder {folder} already holds a run" in result.err
    assert contents(folder) == before


# Several machines


def test_two_machines_of_accelerate_do_one_job(tmp_path, port):
    file = ROOT / "configuration" / "accelerate" / "multi-node.yaml"
    machines = []
    for rank in range(2):
        command = ["launch", "--config_file", file, "--num_processes=2", "--mixed_precision=no"]
        command += [f"--machine_rank={rank}", "--main_process_ip=127.0.0.1", f"--main_process_port={port}"]
        command += [ROOT / "scripts" / "train.py", *FLAGS, "--max_steps=2", f"--output_dir={tmp_path / 'run'}"]
        out, err = tmp_path / f"out-{rank}", tmp_path / f"err-{rank}"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        machines.append(started(ACCELERATE, *command, "--use_cpu", environment=environment, out=out, err=err))
    for machine in machines:
        machine.join()
    results = [[(tmp_path / f"{name}-{rank}").read_text() for name in ("out", "err")] for rank in range(2)]
    assert [machine.exitcode for machine in machines] == [0, 0], results
    # The first one prints, and they leave one folder.
    assert "cpu:0 x 2 processes" in results[0][0]
    assert results[1][0] == ""
    assert {path.name for path in (tmp_path / "run").iterdir() if path.is_file()} == RUN
    assert "2 x 1" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")


def test_machines_that_do_not_share_the_output_folder_are_told_so(tmp_path, port):
    before = "from modeling_vit_scratch.training import run_folder; run_folder.SLOWEST_DISK = 0"
    runs = [
        Run(
            ["train", *FLAGS, "--use_cpu", f"--output_dir={tmp_path / f'disk-{rank}'}"],
            tmp_path,
            f"{joining(rank, port)}\n{before}",
        )
        for rank in range(2)
    ]
    for rank, result in enumerate(run.end() for run in runs):
        assert result.status == 2
        assert result.err == (
            f"vit-scratch train: the output folder {tmp_path}/disk-{rank} is not one and the same on all "
            "machines: choose an --output_dir on a disk that they share.\n"
        )
    assert not (tmp_path / "disk-0").exists()


# Launch files


def test_there_are_files_for_the_usual_machines():
    names = ["cpu-2-processes", "fsdp", "multi-gpu", "multi-node", "single-gpu"]
    assert [path.stem for path in LAUNCH_FILES] == names


def commands_of(path: Path, program: str) -> list[list[str]]:
    """The commands of a program that stand in the comment at the top of a launch file."""
    header = path.read_text(encoding="utf-8").partition("\ncompute_environment")[0]
    lines = (line.removeprefix("#").strip() for line in header.splitlines() if line.startswith("#   "))
    return [shlex.split(line) for line in lines if line.startswith(program)]


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.stem)
def test_a_launch_file_is_one_for_accelerate(path):
    config = load_config_from_file(str(path))  # refuses unknown keys
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert config.distributed_type == written["distributed_type"]
    assert config.num_processes == written["num_processes"]
    assert config.mixed_precision == written["mixed_precision"]


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.stem)
def test_the_commands_in_a_launch_file_are_some_that_work(path):
    commands = commands_of(path, "accelerate launch ")
    assert len(commands) == (2 if path.stem == "multi-node" else 1)
    for machine, command in enumerate(commands):
        parsed = launch_command_parser().parse_args(command[2:])
        assert (ROOT / parsed.config_file) == ROOT / "configuration" / "accelerate" / path.name
        check_script(parsed)
        parsed.config_file = str(path)
        settings, _, _ = _validate_launch_command(parsed)
        assert settings.use_fsdp is (path.stem == "fsdp")
        assert settings.multi_gpu is (path.stem in ("cpu-2-processes", "multi-gpu", "multi-node"))
        if path.stem == "multi-node":
            assert (settings.machine_rank, settings.main_process_ip) == (machine, "FIRST")
            assert (settings.num_machines, settings.num_processes, settings.main_process_port) == (2, 16, 29500)


def test_torchrun_starts_as_many_on_several_machines():
    (path,) = (path for path in LAUNCH_FILES if path.stem == "multi-node")
    ((_, *arguments),) = commands_of(path, "torchrun ")
    parsed = get_args_parser().parse_args(arguments)
    check_script(parsed)
    assert "--bf16" in parsed.training_script_args
    assert int(parsed.nnodes) * int(parsed.nproc_per_node) == 16
    assert (parsed.rdzv_backend, parsed.rdzv_endpoint) == ("c10d", "FIRST:29500")


def check_script(parsed):
    """What a launcher is to start is our script, with a recipe and flags that there are."""
    assert (ROOT / parsed.training_script).is_file()
    recipe, *flags = parsed.training_script_args
    assert recipe in recipe_names()
    parse_recipe(recipe, flags)


def test_fsdp_wraps_the_encoder_blocks():
    settings = yaml.safe_load((LAUNCH_FILES[1]).read_text(encoding="utf-8"))["fsdp_config"]
    names = settings["fsdp_transformer_layer_cls_to_wrap"]
    with torch.device("meta"):
        model = AutoModelForImageClassification.from_config(AutoConfig.from_pretrained(preset_path("digits")))
    assert type(model)._no_split_modules == [names]
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=settings["fsdp_version"],
        auto_wrap_policy=settings["fsdp_auto_wrap_policy"].lower(),
        transformer_cls_names_to_wrap=[names],
    )
    plugin.set_auto_wrap_policy(model)
    wrapped = [
        name
        for name, module in model.named_modules()
        if plugin.auto_wrap_policy(module=module, recurse=False, nonwrapped_numel=0)
    ]
    assert all(re.fullmatch(r"vit\.encoder\.\d", name) for name in wrapped)
    assert len(wrapped) == model.config.num_hidden_layers


# The same losses


def test_the_number_of_processes_does_not_change_the_losses(tmp_path, monkeypatch):
    monkeypatch.setattr(classification, "draw_training", lambda *arguments: None)
    # 1,229 images make the last batch of an epoch smaller, and the images are varied. What a model drops is drawn by
    # each process for itself.
    flags = (
        "digits",
        *SMALL,
        "--config_overrides=num_hidden_layers=1,hidden_size=32,intermediate_size=48,attention_probs_dropout_prob=0",
        "--num_train_epochs=2",
        "--logging_strategy=steps",
        "--logging_steps=1",
        "--label_smoothing_factor=0.1",
        "--class_weights=auto",
        "--per_device_eval_batch_size=50",  # the last batch of several processes is filled up
        "--report_to=none",
    )
    ways = {"one": ["--per_device_train_batch_size=100"], "two": ["--per_device_train_batch_size=50"]}
    ways["accumulating"] = ["--per_device_train_batch_size=25", "--gradient_accumulation_steps=4"]
    for name in ("one", "accumulating"):
        assert vit_scratch("train", *flags, *ways[name], f"--output_dir={tmp_path / name}").status == 0
    results = in_two_processes("train", *flags, *ways["two"], f"--output_dir={tmp_path / 'two'}", folder=tmp_path)
    assert [result.status for result in results] == [0, 0], results
    losses, validated = {}, {}
    for name in ways:
        history = json.loads((tmp_path / name / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        losses[name] = [entry["loss"] for entry in history if "loss" in entry]
        validated[name] = [entry["eval_validation_loss"] for entry in history if "eval_validation_loss" in entry]
    assert len(losses["one"]) == 26
    assert len(validated["one"]) == 2
    assert validated["two"] == pytest.approx(validated["one"], abs=1e-5)
    assert max(losses["one"]) - min(losses["one"]) > 0.1  # it learned
    assert losses["two"] == pytest.approx(losses["one"], abs=1e-4)
    assert losses["accumulating"] == pytest.approx(losses["one"], abs=1e-4)


def test_an_average_of_the_weights_and_a_resumed_run_do_not_mind_two_processes(tmp_path):
    flags = ["digits", *SMALL, "--eval_strategy=steps", "--eval_steps=2", "--ema_decay=0.9", "--mixup_alpha=0.5"]
    for name, steps in (("whole", 4), ("parted", 2), ("parted", 4)):
        # The first two of four steps are trained as the beginning of four: the learning rate is constant.
        command = ["train", *flags, f"--max_steps={steps}", "--lr_scheduler_type=constant", "--warmup_steps=0"]
        command += [f"--output_dir={tmp_path / name}"]
        command += ["--resume_from_checkpoint=true"] if (tmp_path / name).exists() else []
        results = in_two_processes(*command, folder=tmp_path)
        assert [result.status for result in results] == [0, 0], results
    assert same_weights(tmp_path / "whole", tmp_path / "parted")
    # What is dropped, and what varies a batch, each process draws for itself, and goes on from where it was.
    whole, parted = (
        [
            torch.load(tmp_path / name / "checkpoint-4" / f"rng_state_{rank}.pth", weights_only=False)["cpu"]
            for rank in range(2)
        ]
        for name in ("whole", "parted")
    )
    assert not torch.equal(*whole)
    assert all(map(torch.equal, parted, whole))
