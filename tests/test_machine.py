# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What one batch frees is there for the next one, threads that wait sleep, and of several GPUs a process uses one."""

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from runs import SMALL, Run, vit_scratch, weights

from modeling_vit_scratch.system.machine import PATIENT_THREADS, idle_gpus
from modeling_vit_scratch.training import classification, pretraining, report

# The page faults of making and freeing 64 MB ten times, as a layer does with its activations.
FAULTS = """
import resource, sys
import torch
from modeling_vit_scratch.system.machine import keep_freed_memory
{setting}
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for times in (3, 10):  # the first have to be got from the system
    before = faults()
    for _ in range(times):
        torch.ones(2**24)
print(faults() - before)
sys.exit()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_memory_that_was_freed_is_not_got_from_the_system_again(tmp_path):
    default, kept = (
        int(Run([], tmp_path, FAULTS.format(setting=line)).end().out) for line in ("", "keep_freed_memory()")
    )
    pages = 10 * 64 * 2**20 // 2**12
    assert default > pages / 4  # or there is nothing to save
    assert kept < pages / 100


# Threads that wait for each other

# What the environment says when torch is about to be loaded.
BEFORE_TORCH = """
import json, os, sys

class Watch:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == "torch":
            print(json.dumps(dict(os.environ)), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch)
sys.argv = ["vit-scratch", *sys.argv[1:]]
from modeling_vit_scratch.cli import main
main()
"""


@pytest.mark.parametrize("own", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "5"}, {"KMP_BLOCKTIME": "1"}])
def test_a_verb_lets_them_sleep_unless_the_user_says_how_they_wait(own, tmp_path):
    inherited = {name: value for name, value in os.environ.items() if name not in PATIENT_THREADS}
    command = [sys.executable, "-c", BEFORE_TORCH, "train", "digits", "--output_dir", str(tmp_path / "out")]
    result = subprocess.run(command, env=inherited | own, capture_output=True, text=True, check=True)
    environment = json.loads(result.stdout)
    setting = {name: value for name, value in environment.items() if name in PATIENT_THREADS}
    assert setting == (own or {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"})


# Several GPUs, no launcher


@pytest.fixture
def four_gpus(monkeypatch):
    """What transformers makes of a machine with four GPUs: `nn.DataParallel`, which on the CPU runs the model once."""
    monkeypatch.setattr(transformers.TrainingArguments, "n_gpu", property(lambda arguments: 4))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.mark.parametrize("verb", ["train", "pretrain"])
def test_a_run_is_the_same_whether_it_sees_one_gpu_or_several(verb, tmp_path, monkeypatch, request):
    monkeypatch.setattr(classification, "draw_training", lambda *arguments: None)
    monkeypatch.setattr(pretraining, "draw_pretraining", lambda *arguments: None)
    flags = [
        verb,
        {"train": "digits", "pretrain": "pretrain-masked"}[verb],
        "--model=digits",
        "--data=digits",
        SMALL[0],
    ]
    flags += ["--max_steps=2", "--eval_strategy=no", "--dataloader_num_workers=0", "--per_device_train_batch_size=8"]
    for name in ("one", "four"):
        if name == "four":
            request.getfixturevalue("four_gpus")
            monkeypatch.setattr(report, "idle_gpus", lambda kind: idle_gpus("cuda"))
        result = vit_scratch(*flags, f"--output_dir={tmp_path / name}")
        assert result.status == 0, result.err
        assert ("GPUs       1 of 4 is used; torchrun --nproc_per_node=4 -m " in result.out) is (name == "four")
        assert "in batches of 8," in result.out
    one, four = (weights(tmp_path / name) for name in ("one", "four"))
    assert all(torch.equal(four[name], one[name]) for name in one)


def test_what_is_evaluated_is_the_same_whether_it_sees_one_gpu_or_several(digits_run, four_gpus):
    result = vit_scratch("evaluate", digits_run[0], "digits")
    assert result.out
    assert all(line in digits_run[1].lines for line in result.lines if line.startswith("test_"))
    assert result.err == (
        "vit-scratch evaluate: of the GPUs 1 of 4 is used; torchrun --nproc_per_node=4 -m modeling_vit_scratch …, or "
        "accelerate launch, starts a process for each.\n"
    )


def test_nothing_is_said_of_gpus_that_are_used_or_not_meant(four_gpus, monkeypatch):
    assert idle_gpus("cpu") == ""
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert idle_gpus("cuda") == ""
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert idle_gpus("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert idle_gpus("cuda") == ""
