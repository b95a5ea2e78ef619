# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Settings that cannot work are refused at once, in a sentence, and leave nothing behind."""

import dataclasses
import json
import re

import pytest
import transformers
from runs import SMALL, classes_of_pictures, contents, refused, vit_scratch
from transformers import SchedulerType

from modeling_vit_scratch.training.recipes import parse_recipe
from modeling_vit_scratch.training.trainer import ViTTrainer
from modeling_vit_scratch.training.training_arguments import MUST_BE_OFF, MUST_BE_ON

# Every setting of transformers, decided: what is refused if it is not as it must be, what another test is about, and
# what is transformers' or torch's own affair, and works.
REFUSED = {*MUST_BE_OFF, *MUST_BE_ON, "train_sampling_strategy", "hub_strategy", "label_names"}
NO_EFFECT = {"length_column_name", "do_train", "do_eval", "do_predict", "use_cache", "local_rank"}
WORK = {
    "output_dir",
    "per_device_train_batch_size",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "optim",
    "optim_args",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "optim_target_modules",
    "gradient_accumulation_steps",
    "max_grad_norm",
    "label_smoothing_factor",
    "bf16",
    "fp16",
    "tf32",
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
    "use_liger_kernel",
    "liger_kernel_config",
    "neftune_noise_alpha",
    "torch_empty_cache_steps",
    "logging_strategy",
    "logging_steps",
    "logging_first_step",
    "log_on_each_node",
    "logging_nan_inf_filter",
    "include_num_input_tokens_seen",
    "log_level",
    "log_level_replica",
    "disable_tqdm",
    "report_to",
    "run_name",
    "project",
    "trackio_space_id",
    "trackio_bucket_id",
    "trackio_static_space_id",
    "eval_strategy",
    "eval_steps",
    "eval_delay",
    "per_device_eval_batch_size",
    "eval_on_start",
    "eval_accumulation_steps",
    "include_for_metrics",
    "save_only_model",
    "save_strategy",
    "save_steps",
    "save_on_each_node",
    "save_total_limit",
    "enable_jit_checkpoint",
    "push_to_hub",
    "hub_token",
    "hub_private_repo",
    "hub_model_id",
    "hub_always_push",
    "hub_revision",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "ignore_data_skip",
    "restore_callback_states_from_checkpoint",
    "full_determinism",
    "seed",
    "data_seed",
    "use_cpu",
    "accelerator_config",
    "parallelism_config",
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context",
    "ddp_find_unused_parameters",
    "ddp_bucket_cap_mb",
    "ddp_broadcast_buffers",
    "ddp_static_graph",
    "ddp_backend",
    "ddp_timeout",
    "fsdp",
    "fsdp_config",
    "deepspeed",
    "debug",
    "skip_memory_metrics",
    "resume_from_checkpoint",
}


def test_every_setting_of_transformers_is_decided():
    fields = {item.name for item in dataclasses.fields(transformers.TrainingArguments)}
    assert fields <= REFUSED | NO_EFFECT | WORK, fields - REFUSED - NO_EFFECT - WORK


@pytest.fixture
def command(tmp_path):
    data = classes_of_pictures(tmp_path / "pictures")
    return ("train", "digits", *SMALL, f"--data={data}", "--num_train_epochs=1", "--report_to=none")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--report_to=wandb"], "report_to wandb needs a package that is not installed: pip install wandb"),
        (["--report_to=mlflow"], "report_to mlflow needs a package that is not installed: pip install mlflow"),
        (["--report_to=paper"], "report_to must be none, all, or of azure_ml, .*, got 'paper'"),
        (["--eval_do_concat_batches=false"], "eval_do_concat_batches=False would leave a split in pieces"),
        (["--train_sampling_strategy=group_by_length"], "train_sampling_strategy must be random, got group_by_length"),
        (["--optim=adamw_bnb_8bit"], "optim or optim_args cannot be used here: .*bitsandbytes"),
        (["--optim=galore_adamw"], "optim or optim_args cannot be used here: "),
        (["--deepspeed=zero.json"], "deepspeed needs a package that is not installed: pip install deepspeed"),
        (["--max_steps=0"], "max_steps must be 1 or more, or -1 for num_train_epochs, got 0"),
        (["--adam_beta1=2"], "adam_beta1 must be at least 0 and below 1, got 2.0"),
        (["--warmup_steps=nan"], "warmup_steps must be 0 or more, got nan"),
        (["--ddp_backend=gloo"], "ddp_backend gloo is for several processes, and this is one"),
        (["--accelerator_config=none-such.json"], "accelerator_config must be .* a file of it, got 'none-such.json'"),
        (["--optim_args=foo=1"], "optim adamw_torch.* takes nothing of optim_args 'foo=1'"),
        (["--use_cache=true"], "use_cache does nothing for images"),
        (
            ['--activation_checkpointing_kwargs={"use_reentrant": true}'],
            "activation_checkpointing_kwargs does nothing without activation_checkpointing",
        ),
        (
            ['--activation_checkpointing_kwargs={"every_n_layers": 0}', "--activation_checkpointing=true"],
            "every_n_layers in activation_checkpointing_kwargs must be at least 1, got 0",
        ),
        (["--seed=-1"], "seed must be between 0 and 4294967295, got -1"),
        (["--torch_compile_backend=none-such"], "torch_compile_backend must be of eager, .*, got 'none-such'"),
        (["--lr_scheduler_kwargs=oops"], "lr_scheduler_kwargs must be an object of JSON, .*, got 'oops'"),
        (['--lr_scheduler_kwargs=["a"]'], "lr_scheduler_kwargs must be an object of JSON"),
        (
            ['--activation_checkpointing_kwargs={"x": 1}', "--activation_checkpointing=true"],
            "activation_checkpointing_kwargs takes every_n_layers, .*, got x",
        ),
        (['--fsdp_config={"min_num_params": 1}'], "fsdp_config does nothing without fsdp"),
        (["--optim_target_modules=mlp"], "optim_target_modules does nothing with optim adamw_torch"),
        (['--accelerator_config={"split_batches": true}'], "split_batches in accelerator_config is not taken"),
        (
            ["--use_liger_kernel=true"],
            "use_liger_kernel=True needs a package that is not installed: pip install liger-kernel",
        ),
        (["--eval_use_gather_object=true"], "eval_use_gather_object=True would gather .* in pieces"),
        (["--auto_find_batch_size=true"], "auto_find_batch_size=True would make smaller batches"),
        (["--dataloader_in_order=false"], "dataloader_in_order=False would leave the order of the images to chance"),
        (["--label_names=label"], "label_names must be left out, got label"),
        (["--debug=tpu_metrics_debug"], "debug tpu_metrics_debug needs a TPU"),
        (["--dataloader_multiprocessing_context=spawn"], "spawn is for processes that load images"),
        (
            ['--accelerator_config={"gradient_accumulation_kwargs": {"num_steps": 3}}'],
            "give gradient_accumulation_steps",
        ),
        (["--optim_args=fused"], "optim_args must be name=value,…, got 'fused'"),
        (["--label_smoothing_factor=-0.1"], "label_smoothing_factor must be between 0 and 1, got -0.1"),
        (["--label_smoothing_factor=2"], "label_smoothing_factor must be between 0 and 1, got 2.0"),
        (["--learning_rate=inf"], "learning_rate must be 0 or more, got inf"),
        (["--weight_decay=nan"], "weight_decay must be 0 or more, got nan"),
        (["--max_grad_norm=nan"], "max_grad_norm must be 0 or more, got nan"),
        (["--eval_strategy=steps", "--eval_steps=-3"], "eval_steps must be above 0, got -3"),
        (["--lr_scheduler_type=cosine_with_min_lr"], "min_lr or min_lr_rate should be set"),
        (
            ["--lr_scheduler_type=cosine", '--lr_scheduler_kwargs={"rate": 3}'],
            "lr_scheduler_type or lr_scheduler_kwargs cannot be used here: .*rate",
        ),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_before_anything_is_written(flags, sentence, command, tmp_path):
    before = contents(tmp_path)
    line = refused(*command, f"--output_dir={tmp_path / 'run'}", *flags)
    assert re.search(sentence, line), line
    assert contents(tmp_path) == before


def test_a_run_goes_on_with_its_own_optimizer(command, tmp_path):
    run = [*command, f"--output_dir={tmp_path / 'run'}"]
    assert vit_scratch(*run).status == 0
    longer = [*run, "--num_train_epochs=2", "--resume_from_checkpoint=true"]
    assert "was trained with optim not given, and now it is sgd" in refused(*longer, "--optim=sgd")
    other = "none" if "muon_learning_rate" in (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8") else "0.01"
    assert "was trained with muon_learning_rate " in refused(*longer, f"--muon_learning_rate={other}")
    assert vit_scratch(*longer).status == 0


def test_class_weights_stand_in_a_recipe_as_a_mapping_and_are_switched_off_by_none(tmp_path):
    recipe = tmp_path / "pets.yaml"
    recipe.write_text("class_weights: {cat: 2, 'dog, small': 1}\n", encoding="utf-8")
    assert json.loads(parse_recipe(str(recipe), []).data.class_weights) == {"cat": 2, "dog, small": 1}
    assert parse_recipe(str(recipe), ["--class_weights", "none"]).data.class_weights is None


def test_what_fails_before_the_first_step_leaves_nothing(command, tmp_path, monkeypatch):
    output = tmp_path / "run"
    output.mkdir()
    (output / ".lock-of-somebody").touch()
    before = contents(tmp_path)

    def fail(*arguments, **options):
        raise ValueError("there is no room for a first step.")

    with monkeypatch.context() as patch:
        patch.setattr(ViTTrainer, "training_step", fail)
        for folder in (tmp_path / "new", tmp_path / "new" / "below"):
            assert "no room for a first step" in refused_late(*command, f"--output_dir={folder}")
            assert not folder.exists()
    assert {name for name in contents(tmp_path) if not name.startswith("new")} == set(before)
    assert vit_scratch(*command, f"--output_dir={tmp_path / 'new'}", "--seed=3").status == 0


def refused_late(*arguments):
    """What is said of a run that has said its plan before."""
    result = vit_scratch(*arguments)
    assert (result.status, result.err.count("\n")) == (2, 1), result
    return result.err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--per_device_train_batch_size=8"], "4 images a step, and now it would be 8"),
        (["--gradient_accumulation_steps=3"], "4 images a step, and now it would be 12"),
    ],
    ids=str,
)
def test_a_run_goes_on_with_as_many_images_a_step(flags, sentence, command, tmp_path):
    output = tmp_path / "run"
    four = [*command, f"--output_dir={output}", "--per_device_train_batch_size=4"]
    assert vit_scratch(*four).status == 0
    longer = ["--num_train_epochs=2", "--resume_from_checkpoint=true"]
    assert sentence in refused(*four, *longer, *flags)
    two = ["--per_device_train_batch_size=2", "--gradient_accumulation_steps=2"]
    assert vit_scratch(*four, *longer, *two).status == 0
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["epoch"] == 2


# --- Schedules -------------------------------------------------------------------------------------------------------

NEED = {
    "cosine_with_min_lr": {"min_lr": 1e-5},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-5},
    "warmup_stable_decay": {"num_decay_steps": 1},
}


@pytest.mark.parametrize("scheduler", [each.value for each in SchedulerType])
def test_every_schedule_of_transformers_goes_with_muon(scheduler, command, tmp_path):
    flags = [f"--lr_scheduler_type={scheduler}", "--muon_learning_rate=0.02", "--per_device_train_batch_size=4"]
    if scheduler in NEED:
        flags.append(f"--lr_scheduler_kwargs={json.dumps(NEED[scheduler])}")
    result = vit_scratch(*command, f"--output_dir={tmp_path / 'run'}", *flags)
    assert result.status == 0, result.err


# --- What was there before -------------------------------------------------------------------------------------------


@pytest.fixture
def refused_in_the_first_step(monkeypatch):
    """What is said of a command whose settings torch refuses when it first computes with them."""

    def unfit(*arguments):
        raise RuntimeError("no kernel does this")

    def run(*command):
        with monkeypatch.context() as patch:
            patch.setattr(ViTTrainer, "training_step", unfit)
            return refused_late(*command)

    return run


def test_a_run_is_overwritten_by_one_that_makes_a_step(command, tmp_path, refused_in_the_first_step):
    output = tmp_path / "run"
    assert vit_scratch(*command, f"--output_dir={output}").status == 0
    before = contents(output)
    overwrite = [*command, f"--output_dir={output}", "--overwrite_output_dir"]
    assert "settings cannot be used here: no kernel does this" in refused_in_the_first_step(*overwrite, "--seed=4")
    assert contents(output) == before
    assert vit_scratch(*overwrite, "--seed=3").status == 0
    assert contents(output).keys() == before.keys()
    assert contents(output) != before


def test_a_run_goes_on_by_its_own_command_after_one_with_an_unfit_setting(
    command, tmp_path, monkeypatch, refused_in_the_first_step
):
    output, step = tmp_path / "run", ViTTrainer.training_step
    command = [*command, f"--output_dir={output}", "--num_train_epochs=2", "--per_device_train_batch_size=8"]
    epoch = 3  # steps

    def fail_later(self, *arguments, **options):
        if self.state.global_step == epoch:
            raise ValueError("there is no room for a second epoch.")
        return step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ViTTrainer, "training_step", fail_later)
        refused_late(*command)
    before = contents(output)
    assert any(name.startswith("checkpoint-") for name in before)
    assert "no kernel does this" in refused_in_the_first_step(*command, "--resume_from_checkpoint=true", "--seed=4")
    assert contents(output) == before
    result = vit_scratch(*command)
    assert result.status == 0
    assert "resumed" in result.out
