# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Two processes with half of the weights each (FSDP2) train what one process trains, and leave what it leaves."""

import copy
import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from runs import (
    FORKS,
    NO_PICTURE,
    RUN,
    SMALL,
    Run,
    classes_of_pictures,
    free_port,
    joining,
    named_numbers,
    same_weights,
    vit_scratch,
    weights,
)
from safetensors.torch import load_file
from test_optimizers import adamw, learn, small
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForImageClassification

from modeling_vit_scratch.training import classification
from modeling_vit_scratch.training.optimizers import MuonForBlocks
from modeling_vit_scratch.training.sharding import check_checkpoint, check_plugin, sharded_like, whole

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_FILE = ROOT / "configuration" / "accelerate" / "fsdp.yaml"
# Six steps an epoch, of 208 images in all and 181 in the last: the shares differ. What is dropped would, too.
FLAGS = (
    "digits",
    *SMALL,
    "--config_overrides=num_hidden_layers=2,hidden_size=32,intermediate_size=48,attention_probs_dropout_prob=0",
    "--num_train_epochs=2",
    "--logging_strategy=steps",
    "--logging_steps=1",
    "--report_to=none",
)
ALONE, TOGETHER = "--per_device_train_batch_size=208", "--per_device_train_batch_size=104"

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="needs torch.distributed with gloo")


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    monkeypatch.setattr(classification, "draw_training", lambda *arguments: None)


def sharded(*arguments, folder, before=""):
    """Run a command in two processes that share the weights, as `accelerate launch`, or torchrun and --fsdp, do it."""
    port, settings = free_port(), {} if "--fsdp" in arguments else settings_of_fsdp()
    code = f"os.environ |= {settings}; import sharded_on_cpu\n{NO_PICTURE}\n{before}"
    runs = [Run([*arguments, "--use_cpu"], folder, f"{joining(rank, port)}; {code}") for rank in range(2)]
    return [run.end() for run in runs]


def settings_of_fsdp():
    """The environment that `accelerate launch` makes of our launch file."""
    parsed = launch_command_parser().parse_args(["--config_file", str(LAUNCH_FILE), "--mixed_precision=no", "train.py"])
    settings, _, _ = _validate_launch_command(parsed)
    environment = prepare_multi_gpu_env(settings)
    return {name: value for name, value in environment.items() if name.startswith(("ACCELERATE_", "FSDP_"))}


def losses(folder):
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def assert_close(one, other, tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=tolerance, rtol=0, msg=name)


# The same as one


def test_the_losses_and_the_checkpoint_are_those_of_one_process(tmp_path):
    # With rates by layer, and an average of the weights, which is validated without being saved, too.
    flags = (*FLAGS, "--label_smoothing_factor=0.1", "--class_weights=auto", "--ema_decay=0.9", "--layer_decay=0.5")
    flags += ("--eval_strategy=steps", "--eval_steps=3", "--save_strategy=steps", "--save_steps=6")
    assert vit_scratch("train", *flags, ALONE, f"--output_dir={tmp_path / 'one'}").status == 0
    results = sharded("train", *flags, TOGETHER, f"--output_dir={tmp_path / 'two'}", folder=tmp_path)
    assert [result.status for result in results] == [0, 0], results
    said = "".join(result.err for result in results)
    assert "Warning" not in said

    # Each has half of what there is.
    held = re.findall(r"(\w+): (\d+) bytes of (\d+) here", said)
    assert sorted(name for name, *_ in held) == ["optimizer"] * 2 + ["weights"] * 2
    assert all(0.45 < int(here) / int(everywhere) < 0.55 for _, here, everywhere in held)

    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 12
    assert max(one) - min(one) > 0.05  # it learned
    assert two == pytest.approx(one, abs=1e-4)

    # Each image was counted once, and with the weights that were saved.
    trained = [line.split() for line in results[0].lines if line.startswith("test_")]
    assert dict(trained) == named_numbers(vit_scratch("evaluate", tmp_path / "two", "digits"))

    # The checkpoint is whole, with the code of the model, and loads anywhere.
    assert {path.name for path in (tmp_path / "two").iterdir() if path.is_file()} == RUN - {"training.png"}
    assert "2 x 1" in (tmp_path / "two" / "README.md").read_text(encoding="utf-8")
    models = [AutoModelForImageClassification.from_pretrained(tmp_path / name) for name in ("one", "two")]
    assert [type(model).__name__ for model in models] == ["ViTScratchForImageClassification"] * 2
    # Adam makes steps of full length from gradients that are nothing but rounding, as those of the keys' biases.
    assert_close(*(model.state_dict() for model in models), tolerance=2e-4)


def test_a_stopped_run_ends_as_one_that_was_not(tmp_path):
    flags = (*FLAGS, TOGETHER, "--ema_decay=0.9", "--muon_learning_rate=0.02", "--save_total_limit=3")
    for name, before, status in (
        ("whole", "", 0),
        ("parted", "os.environ['STOP_AT'] = '8'", 143),
        ("parted", "", 0),
    ):
        command = ("train", *flags, "--fsdp", f"--output_dir={tmp_path / name}")
        results = sharded(*command, folder=tmp_path, before=before)
        assert [result.status for result in results] == [status] * 2, results
    assert re.search(r"resumed    \S+/checkpoint-(9|10)\n", results[0].out)
    assert same_weights(tmp_path / "whole", tmp_path / "parted")
    assert losses(tmp_path / "parted") == losses(tmp_path / "whole")

    # One process has another optimizer than two with half of it each, and says so.
    checkpoint = max(tmp_path.glob("whole/checkpoint-*"))
    elsewhere = (f"--output_dir={tmp_path / 'alone'}", f"--resume_from_checkpoint={checkpoint}")
    result = vit_scratch("train", *flags, *elsewhere, "--gradient_accumulation_steps=2")
    assert result.status == 2
    assert result.err == (
        f"vit-scratch train: {checkpoint} is of a run with FSDP, and this one is without it: launch it as that one was "
        "launched.\n"
    )


def test_fine_tuning_with_lora_and_a_new_head(digits_run, tmp_path):
    # Its weights are loaded in one process, and sent to the other.
    assert settings_of_fsdp()["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "true"
    flags = ["finetune", f"--model={digits_run[0]}", f"--data={classes_of_pictures(tmp_path / 'pictures')}"]
    flags += ["--config_overrides=attention_probs_dropout_prob=0", "--num_train_epochs=2", "--logging_strategy=steps"]
    flags += ["--logging_steps=1", "--finetuning=lora", "--learning_rate=5e-3", "--dataloader_num_workers=0"]
    flags += ["--mixup_alpha=0", "--cutmix_alpha=0", "--drop_path_rate=0", "--report_to=none"]
    for name, batch_size, run in (("one", 8, vit_scratch), ("two", 4, partial(sharded, folder=tmp_path))):
        size = f"--per_device_train_batch_size={batch_size}"
        results = run("train", *flags, size, f"--output_dir={tmp_path / name}")
        assert {result.status for result in (results if name == "two" else [results])} == {0}, results
    assert len(losses(tmp_path / "one")) > 2
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert_close(weights(tmp_path / "two"), weights(tmp_path / "one"), tolerance=2e-4)
    adapters = [load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("two", "one")]
    assert_close(*adapters, tolerance=2e-4)


def test_pretraining_too(tmp_path):
    flags = ["pretrain-masked", "--data=digits", *SMALL, "--config_overrides=attention_probs_dropout_prob=0"]
    flags += ["--model=digits", "--num_train_epochs=1", "--logging_strategy=steps", "--logging_steps=1"]
    assert vit_scratch("pretrain", *flags, ALONE, f"--output_dir={tmp_path / 'one'}").status == 0
    results = sharded("pretrain", *flags, TOGETHER, f"--output_dir={tmp_path / 'two'}", folder=tmp_path)
    assert [result.status for result in results] == [0, 0], results
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)


def test_weights_that_are_spoilt_in_one_process_end_both(tmp_path):
    spoil = """
from modeling_vit_scratch.training.trainer import ViTTrainer
after_step = ViTTrainer.after_step
def spoilt(self):
    if self.state.global_step == 6 and self.args.process_index == 1:
        next(self.model.parameters()).data.to_local().fill_(float('nan'))
    return after_step(self)
ViTTrainer.after_step = spoilt
"""
    flags = (*FLAGS, TOGETHER, "--eval_strategy=no", "--save_strategy=steps", "--save_steps=6")
    results = sharded("train", *flags, f"--output_dir={tmp_path / 'run'}", folder=tmp_path, before=spoil)
    for result in results:
        assert result.status == 2
        assert "the training loss was not a finite number at step 6: lower --learning_rate" in result.err
    assert not list(tmp_path.glob("run/*checkpoint-*"))


# Muon


def test_muon_makes_the_steps_that_it_makes_of_whole_matrices(tmp_path):
    processes = [FORKS.Process(target=_learn_with_muon, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def _learn_with_muon(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    alone = small(use_swiglu_ffn=True)
    model = copy.deepcopy(alone)
    for module in (*model.vit.encoder, model):
        fully_shard(module)
    optimizers = [MuonForBlocks(adamw(each), each, 0.02, 0.05) for each in (alone, model)]
    for each, optimizer in zip((alone, model), optimizers, strict=True):
        learn(each, optimizer, steps=3)
    expected = dict(alone.named_parameters())
    for name, weight in model.named_parameters():
        assert isinstance(weight, DTensor)
        assert torch.equal(weight.full_tensor(), expected[name]), name
    # What is sharded comes back whole.
    for weight in model.parameters():
        assert torch.equal(sharded_like(whole(weight), weight).to_local(), weight.to_local())
    dist.destroy_process_group()


# Refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fsdp_version": 1, "state_dict_type": "FULL_STATE_DICT"}, "fsdp_version must be 2, got 1: FSDP1 does not"),
        (
            {"fsdp_version": 2, "state_dict_type": "SHARDED_STATE_DICT"},
            "fsdp_state_dict_type must be FULL_STATE_DICT, got SHARDED_STATE_DICT",
        ),
    ],
    ids=["FSDP1", "sharded checkpoints"],
)
@pytest.mark.filterwarnings("ignore:FSDP1 is deprecated")  # it is what the first case is about
def test_what_leaves_no_whole_checkpoint_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        check_plugin(FullyShardedDataParallelPlugin(**settings))


def test_it_is_refused_before_training(tmp_path):
    before = "os.environ['FSDP_STATE_DICT_TYPE'] = 'SHARDED_STATE_DICT'"
    results = sharded("train", *FLAGS, f"--output_dir={tmp_path / 'run'}", folder=tmp_path, before=before)
    for result in results:
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith("vit-scratch train: fsdp_state_dict_type must be FULL_STATE_DICT, got SHARDED")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_without_shards_is_not_one_to_go_on_from(tmp_path):
    check_checkpoint(None, sharded=True)
    check_checkpoint(str(tmp_path), sharded=False)
    with pytest.raises(ValueError, match="is of a run without FSDP, and this one is with it"):
        check_checkpoint(str(tmp_path), sharded=True)
