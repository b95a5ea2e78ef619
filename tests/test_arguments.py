# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The arguments of a training run: their defaults, what follows from what, and what is refused."""

import pytest
import torch

from modeling_vit_scratch.arguments import (
    DataArguments,
    ModelArguments,
    TrainingArguments,
    given_values,
    parse_overrides,
)

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


# The data


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_val_split": 1.0}, "train_val_split must be at least 0 and below 1, got 1.0"),
        ({"train_val_split": -0.1}, "train_val_split must be"),
        ({"train_val_split": float("nan")}, "train_val_split must be"),
        ({"train_test_split": 1.5}, "train_test_split must be"),
        ({"train_val_split": 0.5, "train_test_split": 0.5}, "leave no image to train on"),
        ({"horizontal_flip": 1.1}, "horizontal_flip must be between 0 and 1, got 1.1"),
        ({"rotation": -1.0}, "rotation must be 0 degrees or more, got -1.0"),
        ({"translation": 1.0}, "translation must be"),
        ({"scaling": -0.1}, "scaling must be"),
        ({"random_resized_crop": 0.0}, "random_resized_crop must be above 0 and at most 1, got 0.0"),
        ({"random_resized_crop": 1.1}, "random_resized_crop must be"),
    ],
)
def test_shares_and_sizes_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**values)


def test_the_ends_of_the_ranges_are_allowed():
    DataArguments(train_val_split=0, train_test_split=0, horizontal_flip=1, random_resized_crop=1, rotation=360)


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
    ["remove_unused_columns", "dataloader_drop_last", "prediction_loss_only", "batch_eval_metrics", "push_to_hub"],
)
def test_switches_that_the_job_cannot_do_with_are_refused_with_the_reason(name):
    with pytest.raises(ValueError, match=rf"^{name}=True (would|is) .*; leave it false\.$"):
        TrainingArguments(**{name: True})


def test_workers_persist_only_where_there_are_workers():
    assert not TrainingArguments(dataloader_persistent_workers=True).dataloader_persistent_workers
    assert TrainingArguments(dataloader_persistent_workers=True, dataloader_num_workers=1).dataloader_persistent_workers


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
    assert given_values(DataArguments(rotation=5.0, train_val_split=0.15)) == {"rotation": 5.0}


def test_what_follows_from_other_values_or_the_machine_was_not_given():
    assert TrainingArguments().given == {}
    arguments = TrainingArguments(eval_strategy="steps", eval_steps=3, dataloader_persistent_workers=True)
    assert arguments.given == {"eval_strategy": "steps", "eval_steps": 3, "dataloader_persistent_workers": True}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_train_epochs", 0),
        ("num_train_epochs", -1),
        ("per_device_train_batch_size", 0),
        ("per_device_eval_batch_size", 0),
        ("gradient_accumulation_steps", 0),
    ],
)
def test_a_run_that_would_do_nothing_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
        TrainingArguments(**{name: value})
