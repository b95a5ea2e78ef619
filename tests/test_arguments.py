# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The arguments of a training run: their defaults, what follows from what, and what is refused."""

import dataclasses
import os

import pytest
import torch

from modeling_vit_scratch.data.image_arguments import AugmentationArguments, DataArguments
from modeling_vit_scratch.overrides import parse_overrides
from modeling_vit_scratch.system.machine import spare_cores
from modeling_vit_scratch.training import training_arguments as arguments_module
from modeling_vit_scratch.training.recipes import argument_classes
from modeling_vit_scratch.training.training_arguments import Arguments, ModelArguments, TrainingArguments, given_values

NAN, INFINITY = float("nan"), float("inf")

# All together


def test_the_arguments_of_a_run_are_those_of_the_four_classes():
    assert list(Arguments._fields) == ["model", "data", "augmentation", "training"]
    assert argument_classes("train") == [ModelArguments, DataArguments, AugmentationArguments, TrainingArguments]


@pytest.mark.parametrize("verb", ["train", "pretrain"])
def test_a_name_belongs_to_one_class_so_that_it_can_be_a_flag(verb):
    names = [item.name for cls in argument_classes(verb) for item in dataclasses.fields(cls)]
    assert len(names) == len(set(names))


# The model


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", {}),
        ("num_hidden_layers=4", {"num_hidden_layers": 4}),
        ("num_hidden_layers=4,hidden_size=96", {"num_hidden_layers": 4, "hidden_size": 96}),
        (" depth=4 , num_heads=3 ", {"depth": 4, "num_heads": 3}),
        ("image_size=[32,48],patch_size=[4, 6],depth=2", {"image_size": [32, 48], "patch_size": [4, 6], "depth": 2}),
        ("layer_norm_eps=1e-6", {"layer_norm_eps": 1e-6}),
        ("drop_path_rate=0.1,norm_first=true", {"drop_path_rate": 0.1, "norm_first": True}),
        ("position_embedding_type=none,hidden_act=relu", {"position_embedding_type": "none", "hidden_act": "relu"}),
    ],
)
def test_overrides_are_read_as_values_of_fields(text, fields):
    values = parse_overrides(text)
    assert values == fields
    assert [type(value) for value in values.values()] == [type(value) for value in fields.values()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hidden_sze=96", r"the unknown field 'hidden_sze' \(did you mean 'hidden_size'\?\)\."),
        ("num_layers=4", r"the unknown field 'num_layers'"),
        ("hidden_size", r"must be name=value,name=value,…, got 'hidden_size'\."),
        ("hidden_size=96,4", r"must be name=value,name=value,…, got 'hidden_size=96,4'\."),
        ("to_dict=3", r"the unknown field 'to_dict'"),
        ("num_labels=3", r"cannot set num_labels: the labels are those of the data\."),
        ("num_classes=3", r"cannot set num_classes"),
        ("id2label=x", r"cannot set id2label"),
    ],
)
def test_overrides_of_no_field_are_refused_before_anything_is_loaded(text, message):
    with pytest.raises(ValueError, match=message):
        ModelArguments(config_overrides=text)


# Numbers and their ranges


@pytest.mark.parametrize(
    ("cls", "name", "allowed", "refused", "message"),
    [
        (ModelArguments, "drop_path_rate", [None, 0, 0.99], [-0.1, 1.0, NAN], "at least 0 and below 1"),
        (ModelArguments, "patch_dropout", [None, 0, 0.99], [-0.1, 1.0, NAN], "at least 0 and below 1"),
        (ModelArguments, "lora_rank", [1, 64], [0, -1], "at least 1"),
        (ModelArguments, "lora_alpha", [0.5, 64], [0.0, -1.0, INFINITY, NAN], "above 0"),
        (DataArguments, "train_val_split", [0, 0.99], [-0.1, 1.0, NAN], "at least 0 and below 1"),
        (DataArguments, "train_test_split", [0, 0.5], [-0.1, 1.5, NAN], "at least 0 and below 1"),
        (AugmentationArguments, "random_resized_crop", [None, 0.01, 1], [0.0, 1.1, NAN], "above 0 and at most 1"),
        (AugmentationArguments, "horizontal_flip", [0, 1], [-0.1, 1.1, NAN], "between 0 and 1"),
        (AugmentationArguments, "rotation", [0, 360], [-1.0, INFINITY, NAN], "0 or more"),
        (AugmentationArguments, "translation", [0, 0.99], [-0.1, 1.0, NAN], "at least 0 and below 1"),
        (AugmentationArguments, "scaling", [0, 0.99], [-0.1, 1.0, NAN], "at least 0 and below 1"),
        (AugmentationArguments, "rand_augment_num_ops", [0, 3], [-1], "0 or more"),
        (AugmentationArguments, "rand_augment_magnitude", [1, 29], [0, 30], "from 1 to 29"),
        (AugmentationArguments, "color_jitter", [0, 1], [-0.1, 1.1, NAN], "between 0 and 1"),
        (AugmentationArguments, "random_erasing", [0, 1], [-0.1, 1.1, NAN], "between 0 and 1"),
        (AugmentationArguments, "mixup_alpha", [0, 8], [-0.1, INFINITY, NAN], "0 or more"),
        (AugmentationArguments, "cutmix_alpha", [0, 8], [-0.1, INFINITY, NAN], "0 or more"),
        (AugmentationArguments, "repeated_augmentation", [1, 4], [0, -1], "at least 1"),
        (AugmentationArguments, "progressive_image_size", [None, 1], [0, -32], "at least 1"),
        (TrainingArguments, "layer_decay", [0.01, 1], [0.0, 1.1, NAN], "above 0 and at most 1"),
        (TrainingArguments, "ema_decay", [0, 0.9999], [-0.1, 1.0, NAN], "at least 0 and below 1"),
        (TrainingArguments, "num_train_epochs", [0.1, 300], [0, -1, INFINITY, NAN], "above 0"),
        (TrainingArguments, "per_device_train_batch_size", [1], [0, -1], "at least 1"),
        (TrainingArguments, "per_device_eval_batch_size", [1], [0, -1], "at least 1"),
        (TrainingArguments, "gradient_accumulation_steps", [1], [0, -1], "at least 1"),
    ],
)
def test_a_number_out_of_its_range_is_refused_with_its_name_and_value(cls, name, allowed, refused, message):
    for value in allowed:
        assert getattr(cls(**{name: value}), name) == value
    for value in refused:
        with pytest.raises(ValueError, match=rf"^{name} must be {message}, got {value}\.$"):
            cls(**{name: value})


def test_the_splits_must_leave_something_to_train_on():
    assert DataArguments(train_val_split=0.5, train_test_split=0.49)
    with pytest.raises(
        ValueError, match=r"^train_val_split 0.5 and train_test_split 0.5 leave no image to train on\.$"
    ):
        DataArguments(train_val_split=0.5, train_test_split=0.5)


def test_where_the_steps_are_counted_the_epochs_do_not_matter():
    assert TrainingArguments(max_steps=5, num_train_epochs=0).max_steps == 5


# The data


def test_by_default_images_that_cannot_be_read_do_not_stop_a_run():
    assert DataArguments().strict_images is False


# What varies images


def test_by_default_images_are_not_varied():
    assert given_values(AugmentationArguments()) == {}
    off = {"random_resized_crop": None, "progressive_image_size": None, "repeated_augmentation": 1}
    strength = {"rand_augment_magnitude": 9}  # of no operations
    values = dataclasses.asdict(AugmentationArguments())
    assert {name: value for name, value in values.items() if value != 0} == off | strength


# Training


def test_by_default_it_validates_logs_and_saves_every_epoch_and_ends_with_the_best():
    arguments = TrainingArguments()
    assert (arguments.eval_strategy, arguments.logging_strategy, arguments.save_strategy) == ("epoch",) * 3
    assert arguments.load_best_model_at_end
    assert arguments.metric_for_best_model == "validation_accuracy"
    assert arguments.greater_is_better is True
    assert arguments.save_total_limit == 1
    assert arguments.logging_nan_inf_filter is False


def test_logging_and_saving_follow_validation_by_steps():
    arguments = TrainingArguments(eval_strategy="steps", eval_steps=7)
    assert (arguments.logging_strategy, arguments.logging_steps) == ("steps", 7)
    assert (arguments.save_strategy, arguments.save_steps) == ("steps", 7)


def test_validation_by_steps_without_a_number_is_as_often_as_logging():
    arguments = TrainingArguments(eval_strategy="steps", logging_steps=5)
    assert (arguments.eval_steps, arguments.save_steps) == (5, 5)


def test_what_is_said_of_logging_and_saving_is_kept():
    arguments = TrainingArguments(
        eval_strategy="steps", eval_steps=7, logging_strategy="epoch", save_strategy="steps", save_steps=14
    )
    assert (arguments.logging_strategy, arguments.save_steps) == ("epoch", 14)


def test_without_validation_there_is_no_best_but_it_saves():
    arguments = TrainingArguments(eval_strategy="no")
    assert not arguments.load_best_model_at_end
    assert arguments.save_strategy == "epoch"


@pytest.mark.parametrize(
    ("metric", "greater"),
    [
        ("validation_accuracy", True),
        ("validation_loss", False),
        ("validation_expected_calibration_error", False),
        ("validation_macro_f1", True),
    ],
)
def test_a_loss_or_an_error_is_best_when_it_is_small(metric, greater):
    assert TrainingArguments(metric_for_best_model=metric).greater_is_better is greater


def test_which_is_better_can_be_said():
    assert TrainingArguments(metric_for_best_model="validation_loss", greater_is_better=True).greater_is_better is True


@pytest.mark.parametrize(
    "name",
    [
        "remove_unused_columns",
        "dataloader_drop_last",
        "prediction_loss_only",
        "batch_eval_metrics",
        "bf16_full_eval",
        "fp16_full_eval",
    ],
)
def test_switches_that_the_job_cannot_do_with_are_refused_with_the_reason(name):
    with pytest.raises(ValueError, match=rf"^{name}=True (would|is) .*; leave it false\.$"):
        TrainingArguments(**{name: True})


def test_images_weigh_alike_in_all_processes_or_it_is_refused():
    with pytest.raises(
        ValueError, match=r"^average_tokens_across_devices=False would weigh an image by the process that"
    ):
        TrainingArguments(average_tokens_across_devices=False)


@pytest.mark.parametrize(
    ("cores", "processes", "workers"),
    [
        (1, None, 0),
        (2, None, 1),
        (8, None, 7),
        (9, None, 8),
        (128, None, 8),  # more rarely help
        (128, "1", 8),
        (16, "4", 3),
        (64, "8", 7),
        (7, "4", 0),
        (2, "4", 0),
    ],
)
def test_images_are_loaded_by_the_cores_that_training_leaves(monkeypatch, cores, processes, workers):
    # Those that the process may use, which in a container are not all that there are.
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1000)
    if processes is None:
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    else:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert spare_cores() == workers


@pytest.mark.parametrize(("cores", "workers"), [(5, 4), (None, 0)])
def test_where_a_system_does_not_say_which_cores_it_lends_all_count(monkeypatch, cores, workers):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert spare_cores() == workers


def test_by_default_there_are_as_many_workers_as_can_be_spared(monkeypatch):
    monkeypatch.setattr(arguments_module, "spare_cores", lambda: 5)
    assert TrainingArguments().dataloader_num_workers == 5
    assert TrainingArguments(dataloader_num_workers=2).dataloader_num_workers == 2
    assert TrainingArguments(dataloader_num_workers=0).dataloader_num_workers == 0


def test_workers_are_kept_from_epoch_to_epoch_where_there_are_any():
    assert TrainingArguments(dataloader_num_workers=1).dataloader_persistent_workers
    assert not TrainingArguments(dataloader_num_workers=0).dataloader_persistent_workers
    given = {"dataloader_num_workers": 1, "dataloader_persistent_workers": False}
    assert not TrainingArguments(**given).dataloader_persistent_workers


@pytest.mark.parametrize("installed", [True, False])
def test_it_logs_to_tensorboard_if_that_is_installed_unless_told_otherwise(monkeypatch, installed):
    monkeypatch.setattr(arguments_module, "is_tensorboard_available", lambda: installed)
    assert TrainingArguments().report_to == (["tensorboard"] if installed else [])
    assert TrainingArguments(report_to="none").report_to == []
    assert TrainingArguments(report_to="wandb").report_to == ["wandb"]
    assert TrainingArguments(report_to=["wandb", "tensorboard"]).report_to == ["wandb", "tensorboard"]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is about machines without an accelerator")
def test_without_an_accelerator_it_uses_the_cpu_on_purpose():
    # Only then do launched processes work together, is bf16 allowed, and is no memory pinned.
    arguments = TrainingArguments(bf16=True)
    assert arguments.use_cpu
    assert arguments.mixed_precision == "bf16"
    assert not arguments.dataloader_pin_memory


# What was given


def test_given_are_the_values_that_differ_from_the_defaults():
    assert given_values(ModelArguments(model="digits")) == {"model": "digits"}
    assert given_values(DataArguments(train_test_split=0.25, train_val_split=0.15)) == {"train_test_split": 0.25}
    assert given_values(AugmentationArguments(rotation=5.0, scaling=0.0)) == {"rotation": 5.0}


def test_what_follows_from_other_values_or_the_machine_was_not_given():
    assert TrainingArguments().given == {}
    arguments = TrainingArguments(eval_strategy="steps", eval_steps=3, dataloader_persistent_workers=False)
    assert arguments.given == {"eval_strategy": "steps", "eval_steps": 3, "dataloader_persistent_workers": False}
