# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Recipes: what a YAML file may say, how flags win over it, and how every mistake is answered."""

import dataclasses

import pytest
import yaml

from modeling_vit_scratch.presets import recipe_names, recipe_path
from modeling_vit_scratch.training.recipes import (
    RecipeParser,
    argument_classes,
    argument_kinds,
    parse_recipe,
    recipe_of,
)


@pytest.fixture
def parse(tmp_path):
    """Parse a recipe that is given as text: parse("model: digits", "--seed", "3")."""

    def parse(text: str, *flags: str):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return parse_recipe(str(path), list(flags))

    return parse


def refusal(parse, *arguments) -> str:
    """The message with which a recipe or flag is refused: one sentence."""
    with pytest.raises(ValueError, match=r"^[^\n]+\.$") as error:
        parse(*arguments)
    return str(error.value)


# The shipped recipes


def verb_of(name: str) -> str:
    """The verb that a recipe is for."""
    return "pretrain" if "mask_ratio" in yaml.safe_load(recipe_path(name).read_text(encoding="utf-8")) else "train"


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_says_what_it_means_to(name):
    written = yaml.safe_load(recipe_path(name).read_text(encoding="utf-8"))
    groups = parse_recipe(name, [], verb_of(name))
    said = {field.name: getattr(group, field.name) for group in groups for field in dataclasses.fields(group)}
    assert written
    for key, value in written.items():
        assert said[key] == type(said[key])(value), key


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_begins_with_its_command(name):
    header = recipe_path(name).read_text(encoding="utf-8").partition("\nmodel:")[0]
    assert f"\n#   vit-scratch {verb_of(name)} {name}" in header
    assert all(line.startswith("#") for line in header.splitlines())


def test_the_output_folder_is_named_after_the_recipe_unless_it_is_given(parse):
    assert parse_recipe("digits", []).training.output_dir == "outputs/digits"
    assert parse("model: digits").training.output_dir == "outputs/mine"
    assert parse("output_dir: here").training.output_dir == "here"
    assert parse("output_dir: here", "--output_dir", "there").training.output_dir == "there"


# Values


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("learning_rate: 1e-3", 0.001),
        ("learning_rate: 0.001", 0.001),
        ("num_train_epochs: 3", 3.0),
        ("max_steps: 10", 10),
        ("eval_strategy: no", "no"),
        ("eval_strategy: 'no'", "no"),
        ("bf16: no", False),
        ("strict_images: yes", True),
        ("load_best_model_at_end: false", False),
        ("run_name: 007", "007"),
        ("run_name: 2026-01-01", "2026-01-01"),
        ("run_name: no", "no"),
        ("run_name: ''", ""),
        ("save_total_limit: null", None),
        ("lr_scheduler_kwargs: {min_lr: 1e-5, num_cycles: 0.5}", {"min_lr": 1e-5, "num_cycles": 0.5}),
        ("lr_scheduler_kwargs:\n  min_lr: 1e-5", {"min_lr": 1e-5}),
        ("lr_scheduler_kwargs: '{\"min_lr\": 1e-5}'", {"min_lr": 1e-5}),
        ("label_names: [labels, more]", ["labels", "more"]),
        ("label_names: labels", ["labels"]),
        ("report_to: none", []),
        ("report_to: []", []),
        ("report_to: wandb", ["wandb"]),
        ("report_to: [wandb, tensorboard]", ["wandb", "tensorboard"]),
        ("dataloader_num_workers: 3", 3),
        ("random_resized_crop: 1", 1.0),
        ("progressive_image_size: 96", 96),
        ("rand_augment_num_ops: 2", 2),
        ("class_weights: auto", "auto"),
        ("class_weights: cat=1,dog=2.5", "cat=1,dog=2.5"),
        ("patch_dropout: 0.5", 0.5),
        ("finetuning: lora", "lora"),
        ("optim_args: a=1,b=2", "a=1,b=2"),
        ("model: --odd=name", "--odd=name"),
        ("image_column_name: Bild", "Bild"),
    ],
)
def test_a_value_is_what_its_argument_says(parse, line, value):
    name = line.partition(":")[0]
    found = next(getattr(group, name) for group in parse(line) if hasattr(group, name))
    assert found == value
    assert isinstance(found, type(value))


def test_a_flag_wins_over_the_recipe(parse):
    text = (
        "model: digits\nlearning_rate: 0.5\nbf16: true\nsave_total_limit: 3\nlabel_names: [a, b]\n"
        "train_val_split: 0.5\nmixup_alpha: 0.8\ncutmix_alpha: 1"
    )
    flags = ["--learning_rate", "0.25", "--bf16", "false", "--label_names", "c", "--train-val-split=0.125"]
    model, data, augmentation, training = parse(text, *flags, "--mixup_alpha=0.2")
    assert (training.learning_rate, training.bf16, training.label_names) == (0.25, False, ["c"])
    assert data.train_val_split == 0.125
    assert (augmentation.mixup_alpha, augmentation.cutmix_alpha) == (0.2, 1.0)
    assert (model.model, training.save_total_limit) == ("digits", 3)


def test_a_flag_can_go_back_to_the_default(parse):
    assert parse("seed: 7\nbf16: true", "--seed=42", "--no_load_best_model_at_end").training.seed == 42


def test_switches_need_no_value(parse):
    assert parse("model: digits", "--strict_images").data.strict_images
    assert not parse("model: digits", "--no_load_best_model_at_end").training.load_best_model_at_end


# Mistakes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", "mine.yaml has the unknown key 'learning_rat' (did you mean 'learning_rate'?)."),
        ("hidden_size: 96", "'hidden_size' (a field of the model: set it with config_overrides, as 'hidden_size=…')."),
        ("quux: 1", "mine.yaml has the unknown key 'quux'."),
        ("1: 1", "mine.yaml has the unknown key 1."),
        ("learning_rate: fast", "mine.yaml: argument --learning_rate: invalid float value: 'fast'."),
        ("learning_rate: true", "invalid float value: 'true'"),
        ("max_steps: 2.5", "argument --max_steps: invalid int value: '2.5'"),
        ("bf16: maybe", "argument --bf16: Truthy value expected: got maybe"),
        ("lr_scheduler_type: cosin", "argument --lr_scheduler_type: invalid choice: 'cosin' (choose from 'linear',"),
        ("eval_strategy: sometimes", "argument --eval_strategy: invalid choice: 'sometimes' (choose from 'no',"),
        ("save_strategy: sometimes", "argument --save_strategy: invalid choice: 'sometimes' (choose from 'no',"),
        ("learning_rate: [1, 2]", "mine.yaml gives 'learning_rate' the value [1, 2], which must be a single one."),
        ("learning_rate: {a: 1}", "gives 'learning_rate' the value {'a': 1}, which must be a single one."),
        ("lr_scheduler_kwargs: [1]", "gives 'lr_scheduler_kwargs' the value [1], which must be a single one."),
        ("num_train_epochs:", "mine.yaml gives 'num_train_epochs' no value; leave the line out."),
        ("- model", "mine.yaml must hold lines 'key: value', got list."),
        ("", "mine.yaml must hold lines 'key: value', got NoneType."),
        ("model: [", "mine.yaml is not YAML: while parsing a flow node"),
        ("model: a: b", "mine.yaml is not YAML: mapping values are not allowed here"),
        ("train_val_split: 2", "train_val_split must be at least 0 and below 1, got 2.0."),
        ("mixup_alpha: -1", "mixup_alpha must be 0 or more, got -1.0."),
        ("finetuning: some", "argument --finetuning: invalid choice: 'some' (choose from 'full', 'linear_probe', 'lor"),
        ("skip_bad_images: true", "mine.yaml has the unknown key 'skip_bad_images'"),
        ("config_overrides: hiden_size=3", "config_overrides has the unknown field 'hiden_size'"),
    ],
)
def test_a_mistake_in_a_recipe_is_answered_in_one_sentence(parse, text, message):
    assert message in refusal(parse, text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning_rat", "3"], "unknown flag --learning_rat (did you mean 'learning_rate'?)"),
        (["--learning-rat=3"], "unknown flag --learning-rat=3 (did you mean 'learning_rate'?)"),
        (["--hidden_size", "96"], "unknown flag --hidden_size (a field of the model: set it with config_overrides"),
        (["--quux"], "unknown flag --quux; see vit-scratch train --help."),
        (["-x"], "unknown flag -x;"),
        (["3"], "a flag is expected in place of 3;"),
        (["--seed", "one"], "argument --seed: invalid int value: 'one'."),
        (["--seed"], "argument --seed: expected one argument."),
        (["--optim", "adam"], "argument --optim: invalid choice: 'adam'"),
    ],
)
def test_a_mistake_in_a_flag_is_answered_in_one_sentence(parse, flags, message):
    assert message in refusal(parse, "model: digits", *flags)


def test_a_flag_must_be_written_in_full(parse):
    # Otherwise a misspelt flag sets another one, as --learning_rat did.
    for name in argument_kinds():
        assert "unknown flag" in refusal(parse, "model: digits", f"--{name[:-1]}=1")


def test_an_unknown_recipe_is_answered_with_those_that_there_are(tmp_path):
    shipped = ", ".join(recipe_names())
    assert f"no recipe 'digit' (did you mean 'digits'?); the recipes are {shipped}." in refusal(
        parse_recipe, "digit", []
    )
    missing = tmp_path / "missing.yaml"
    assert (
        refusal(parse_recipe, str(missing), []) == f"there is no recipe {missing}; the shipped recipes are {shipped}."
    )
    (tmp_path / "folder.yaml").mkdir()
    assert "there is no recipe" in refusal(parse_recipe, str(tmp_path / "folder.yaml"), [])


def test_a_recipe_must_be_text(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00model")
    assert "binary.yaml is not YAML" in refusal(parse_recipe, str(tmp_path / "binary.yaml"), [])


# The recipe that a run leaves


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--learning_rate=1e-3", "--lr_scheduler_type=cosine", "--seed=3", "--bf16", "--no_load_best_model_at_end"],
        ["--eval_strategy=no", "--optim_args=a=1", "--label_names", "labels", "more"],
        ["--eval_strategy=steps", "--eval_steps=2", "--metric_for_best_model=validation_loss"],
        ['--lr_scheduler_kwargs={"min_lr": 1e-5}', "--config_overrides=depth=2,image_size=[8,12]", "--rotation=5"],
        ['--accelerator_config={"split_batches": true}', "--dataloader_num_workers=2", "--warmup_steps=0.1"],
        ["--data=pictures of cats: #1", "--model=Grüße/日本", "--strict_images", "--random_resized_crop=0.5"],
        ["--mixup_alpha=0.8", "--repeated_augmentation=3", "--ema_decay=0.999", "--layer_decay=0.75"],
        ["--patch_dropout=0.5", "--finetuning=lora", "--class_weights=auto", "--no_dataloader_persistent_workers"],
    ],
)
def test_it_gives_the_same_arguments_again(parse, flags):
    once = parse("train_val_split: 0.25\nsave_total_limit: null\nreport_to: [none]", *flags)
    recipe = recipe_of(once)
    again = parse(yaml.safe_dump(recipe), f"--output_dir={once.training.output_dir}")
    assert recipe_of(again) == recipe
    for one, other in zip(once, again, strict=True):
        assert dataclasses.asdict(one) == dataclasses.asdict(other)


def test_it_says_what_was_given_and_no_more(parse):
    recipe = recipe_of(parse("learning_rate: 0.5\ntrain_val_split: 0.15", "--eval_strategy=steps", "--eval_steps=3"))
    assert recipe == {
        "model": "vit-tiny-patch16-224",
        "data": "digits",
        "learning_rate": 0.5,
        "eval_strategy": "steps",
        "eval_steps": 3,
    }


def test_it_holds_no_secret_and_no_place(parse):
    flags = ["--hub_token=hf_secret", "--output_dir=here", "--overwrite_output_dir", "--resume_from_checkpoint=there"]
    assert recipe_of(parse("model: digits", *flags)) == {"model": "digits", "data": "digits"}


# Help


def test_help_names_the_recipes_and_shows_our_flags_first():
    text = " ".join(RecipeParser().format_help().split())
    assert text.startswith("usage: vit-scratch train RECIPE [--flag value …] Train a model by a recipe")
    assert all(name in text for name in recipe_names())
    order = [text.index(f" --{name} ") for name in ("model", "data", "mixup_alpha", "learning_rate")]
    assert order == sorted(order)
    for cls in argument_classes("train"):
        assert f"{cls._argument_group_name}:" in text


def test_help_shows_every_flag_in_one_spelling():
    text = RecipeParser().format_help()
    for name in argument_kinds():
        assert f"  --{name} " in text
    assert "--learning-rate" not in text


# --- Optional numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["muon_learning_rate", "drop_path_rate", "patch_dropout", "save_total_limit"])
def test_the_word_none_takes_a_number_of_a_recipe_away(name, tmp_path):
    recipe = tmp_path / "numbers.yaml"
    recipe.write_text(f"model: digits\ndata: digits\n{name}: {1 if name == 'save_total_limit' else 0.5}\n")
    given, without = (parse_recipe(str(recipe), flags) for flags in ([], [f"--{name}", "none"]))
    values = [{**vars(each.model), **vars(each.training)}[name] for each in (given, without)]
    assert values[0] is not None
    assert values[1] is None
    with pytest.raises(ValueError, match=f"{name}: invalid (float|int) value: 'nothing'"):
        parse_recipe(str(recipe), [f"--{name}", "nothing"])
