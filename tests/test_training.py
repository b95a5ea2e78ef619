# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The main job from the command to the checkpoint: what it prints, what it leaves, where it starts from.

Where the output folder may be, and what is in it when a run is interrupted, is in test_run_folder.py.
"""

import json
import os
import re
import shutil

import pytest
import torch
import yaml
from datasets import DatasetDict
from pictures import noise
from runs import RUN, SMALL, classes_of_pictures, named_numbers, refused, same_weights, vit_scratch, weights
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    Trainer,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from modeling_vit_scratch import ViTScratchForMaskedImageModeling, ViTScratchModel
from modeling_vit_scratch.data.images import read_image
from modeling_vit_scratch.training import classification
from modeling_vit_scratch.training import classification as training
from modeling_vit_scratch.training.recipes import parse_recipe, recipe_of
from modeling_vit_scratch.training.run_folder import CHECKED
from modeling_vit_scratch.training.run_images import load_splits

# The learning rate 0 leaves every weight as it was at the start.
UNTRAINED = ("--max_steps=1", "--learning_rate=0")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return classes_of_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture
def no_picture(monkeypatch):
    """Do not draw: most of the time that a small run takes."""
    monkeypatch.setattr(classification, "draw_training", lambda *arguments: None)


@pytest.fixture
def train(pictures, tmp_path, no_picture):
    """Train on pictures of three classes; gives the folder and what was printed: train("--seed=1")."""

    def train(*flags: object, data=pictures, name: str = "run", small: bool = True):
        folder = tmp_path / name
        overrides = SMALL if small else SMALL[1:]
        result = vit_scratch("train", "digits", *overrides, f"--data={data}", f"--output_dir={folder}", *flags)
        assert result.status == 0, result.err
        assert result.err == ""
        return folder, result

    return train


# What it prints


def test_the_plan_comes_first(digits_run):
    folder, result = digits_run
    plan = result.lines[: result.lines.index("")]
    values = {line[:10].strip(): line[11:] for line in plan}
    model = AutoModelForImageClassification.from_pretrained(folder)
    assert values["new"] == "digits, with random weights"
    assert values["model"] == (
        "ViTScratchForImageClassification: depth 1, width 32, 4 heads, post-norm; "
        f"{model.num_parameters():,} parameters, {model.num_parameters():,} trained"
    )
    assert re.fullmatch(r"\S+, fp32, sdpa attention", values["device"])
    assert values["images"].startswith("resized to 8x8 pixels, whatever the aspect ratio (bicubic)")
    assert values["training"] == "rotated by up to 12 degrees, moved by up to 8%, scaled by up to 10%"
    assert values["schedule"] == "4 epochs, 80 steps in batches of 64, learning rate 0.005 (cosine)"
    assert values["output"] == str(folder)


def test_the_plan_counts_every_class_of_every_split(digits_run):
    sizes = {}
    for line in digits_run[1].lines:
        match = re.fullmatch(r"(train|validation|test) +([\d,]+) images: (.*)", line)
        if match:
            split, total, classes = match.groups()
            counts = dict(re.findall(r"(\d) (\d+)", classes))
            assert list(counts) == [str(digit) for digit in range(10)]
            sizes[split] = int(total.replace(",", ""))
            assert sum(map(int, counts.values())) == sizes[split]
    assert sizes == {"train": 1229, "validation": 208, "test": 360}


def test_a_line_after_every_epoch(digits_run):
    lines = [line for line in digits_run[1].lines if line.startswith("epoch ")]
    assert len(lines) == 4
    for number, line in enumerate(lines, start=1):
        assert re.fullmatch(
            rf"epoch {number}/4  train loss \d\.\d{{4}}  validation loss \d\.\d{{4}}  "
            r"validation accuracy \d+\.\d\d%  [\d,]+ images/s  \d+% waiting for images( \(more [^)]+\))?  "
            r"0:00:\d\d left",
            line,
        )


def test_results_come_last_with_the_split_in_every_name(digits_run):
    folder, result = digits_run
    after = result.lines[result.lines.index("test split, 360 images:") :]
    assert [line.split()[0] for line in after[2:12]] == [str(digit) for digit in range(10)]
    measured = json.loads((folder / "all_results.json").read_text(encoding="utf-8"))
    metrics = ("accuracy", "top5_accuracy", "macro_f1", "expected_calibration_error")
    assert list(measured) == [f"{split}_{metric}" for split in ("validation", "test") for metric in metrics]
    assert named_numbers(result) == {name: f"{value:.4f}" for name, value in measured.items()}
    assert measured["test_accuracy"] > 0.3  # it learned something, so that equal numbers elsewhere mean something


def test_it_ends_with_where_everything_is(digits_run):
    folder, result = digits_run
    trained, picture, predict = result.lines[-3:]
    assert re.fullmatch(rf"trained    in 0:00:\d\d; checkpoint {folder} \(best validation_loss\)", trained)
    assert picture == f"picture    {folder}/training.png"
    assert predict == f"predict    vit-scratch predict {folder} {folder}/sample.png"


# What it leaves


def test_the_folder_holds_a_checkpoint_and_its_story_and_no_pickle(digits_run):
    folder, _ = digits_run
    files = {path.name for path in folder.iterdir() if path.is_file()}
    folders = {path.name for path in folder.iterdir() if path.is_dir()}
    assert files == RUN
    assert folders - {"runs"} == {"checkpoint-80"}  # TensorBoard's, where it is installed
    for path in folder.iterdir():
        assert path.is_dir() or not path.read_bytes().startswith((b"\x80", b"PK"))  # pickles, torch's archives


def test_the_configuration_knows_labels_and_code(digits_run):
    folder, _ = digits_run
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {str(digit): str(digit) for digit in range(10)}
    assert config["label2id"] == {str(digit): digit for digit in range(10)}
    assert config["architectures"] == ["ViTScratchForImageClassification"]
    assert config["auto_map"]["AutoModelForImageClassification"] == (
        "modeling_vit_scratch.ViTScratchForImageClassification"
    )
    processor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert processor["size"] == {"height": 8, "width": 8}


def test_the_history_is_kept(digits_run):
    state = json.loads((digits_run[0] / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 80
    assert sum("eval_validation_accuracy" in entry for entry in state["log_history"]) == 4
    assert not any("test" in key for entry in state["log_history"] for key in entry)


def test_the_operations_of_the_run_are_those_of_its_images(digits_run):
    folder, _ = digits_run
    model = AutoModelForImageClassification.from_pretrained(folder)
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    images = 4 * 1229  # four epochs
    assert state["total_flos"] == model.floating_point_ops({"pixel_values": torch.empty(images, 3, 8, 8)})


def test_picture_and_sample_are_images(digits_run):
    folder, _ = digits_run
    assert read_image(folder / "training.png").size == (1500, 1000)
    splits = load_splits(training.DataArguments()).splits
    assert read_image(folder / "sample.png").tobytes() == read_image(splits["test"][0]["image"]).tobytes()


def test_evaluate_measures_what_training_printed(digits_run):
    folder, trained = digits_run
    evaluated = vit_scratch("evaluate", folder, "digits", "--split", "test")
    assert evaluated.status == 0
    numbers = named_numbers(evaluated)
    assert numbers["test_accuracy"] == named_numbers(trained)["test_accuracy"]
    assert numbers == {name: value for name, value in named_numbers(trained).items() if name.startswith("test_")}


def test_the_recipe_repeats_the_run_bit_for_bit(digits_run, tmp_path, no_picture):
    folder, trained = digits_run
    result = vit_scratch("train", folder / "recipe.yaml", f"--output_dir={tmp_path / 'again'}")
    assert result.status == 0, result.err
    assert same_weights(folder, tmp_path / "again")
    assert named_numbers(result) == named_numbers(trained)
    assert yaml.safe_load((tmp_path / "again" / "recipe.yaml").read_text()) == yaml.safe_load(
        (folder / "recipe.yaml").read_text()
    )


# Seeds and splits


def test_a_seed_decides_the_weights_and_not_the_splits(train, monkeypatch):
    splits = []
    build = training.Classification.build_trainer

    def watched(job, built, given, stop):
        splits.append(given)
        return build(job, built, given, stop)

    monkeypatch.setattr(training.Classification, "build_trainer", watched)
    one, _ = train("--max_steps=2", "--seed=1", name="one")
    same, _ = train("--max_steps=2", "--seed=1", name="same")
    other, _ = train("--max_steps=2", "--seed=2", name="other")
    assert same_weights(one, same)
    assert not same_weights(one, other)
    images = [{name: [image["path"] for image in split["image"]] for name, split in given.items()} for given in splits]
    assert images[0] == images[1] == images[2]
    assert not set(images[0]["train"]) & set(images[0]["validation"])


def test_the_test_split_takes_part_in_no_choice(train, tmp_path):
    # The same train split, and test splits with other images under every label.
    for name, order in (("straight", ("cat", "dog")), ("swapped", ("dog", "cat"))):
        classes_of_pictures(tmp_path / name / "train")
        for label, content in zip(("cat", "dog"), order, strict=True):
            shutil.copytree(tmp_path / name / "train" / content, tmp_path / name / "test" / label)
    flags = ("--num_train_epochs=8", "--learning_rate=1e-2")
    straight, straight_result = train(*flags, data=tmp_path / "straight", name="one")
    swapped, swapped_result = train(*flags, data=tmp_path / "swapped", name="other")
    assert same_weights(straight, swapped)
    for split, alike in (("validation", True), ("test", False)):
        one, other = (
            {name: value for name, value in named_numbers(result).items() if name.startswith(split)}
            for result in (straight_result, swapped_result)
        )
        assert (one == other) is alike


def test_the_test_split_is_looked_at_once_at_the_end(train, pictures, monkeypatch):
    looks = []
    predict, evaluate = Trainer.predict, Trainer.evaluate

    def watched_predict(self, dataset, **options):
        looks.append((options["metric_key_prefix"], self.state.global_step, dataset.num_rows))
        return predict(self, dataset, **options)

    def watched_evaluate(self, *arguments, **options):
        looks.append((options.get("metric_key_prefix"), self.state.global_step, None))
        return evaluate(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "predict", watched_predict)
    monkeypatch.setattr(Trainer, "evaluate", watched_evaluate)
    train("--num_train_epochs=2", "--train_val_split=0.25", "--train_test_split=0.125")
    data = training.DataArguments(data=str(pictures), train_val_split=0.25, train_test_split=0.125)
    validation, test = (load_splits(data).splits[name].num_rows for name in ("validation", "test"))
    validating = [look for look in looks if look[2] is None]
    assert {prefix for prefix, *_ in validating} == {None, "eval_validation"}
    assert looks[len(validating) :] == [("validation", 2, validation), ("test", 2, test)]


def test_it_ends_with_the_best_checkpoint(train):
    # The best by a loss that is told to be good when it is high: not the last.
    flags = ("--num_train_epochs=3", "--learning_rate=3e-3", "--metric_for_best_model=validation_loss")
    flags += ("--train_val_split=0.25",)
    folder, result = train(*flags, "--greater_is_better=true", name="best")
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    losses = [entry["eval_validation_loss"] for entry in state["log_history"] if "eval_validation_loss" in entry]
    best = losses.index(max(losses)) + 1
    assert best != 3
    assert state["best_global_step"] == best
    assert same_weights(folder, folder / f"checkpoint-{best}")
    assert "(best validation_loss)" in result.out
    last, result = train(*flags, "--no_load_best_model_at_end", name="last")
    assert same_weights(last, last / "checkpoint-3")
    assert not same_weights(last, folder)
    assert "(the last one)" in result.out


# Ways to train


def test_it_trains_without_a_validation_split(train):
    folder, result = train("--train_val_split=0", "--train_test_split=0.25", "--num_train_epochs=2")
    lines = [line for line in result.lines if line.startswith("epoch ")]
    assert [re.sub(r"[\d,.]+ images/s.*", "N images/s", re.sub(r"\d\.\d{4}", "L", line)) for line in lines] == [
        "epoch 1/2  train loss L  N images/s",
        "epoch 2/2  train loss L  N images/s",
    ]
    assert {name.partition("_")[0] for name in named_numbers(result)} == {"test"}
    assert f"checkpoint {folder} (the last one)" in result.out
    assert same_weights(folder, folder / "checkpoint-2")


def test_it_trains_with_a_train_split_alone(train):
    folder, result = train("--train_val_split=0", "--max_steps=2")
    assert json.loads((folder / "all_results.json").read_text()) == {}
    assert named_numbers(result) == {}
    assert {path.name for path in folder.iterdir() if path.is_file()} == RUN - {"training.png"}
    assert "picture" not in "".join(result.lines[-3:])
    assert result.lines[-1].endswith(f"vit-scratch predict {folder} {folder}/sample.png")


def test_steps_instead_of_epochs(train):
    folder, result = train(
        "--max_steps=6", "--eval_strategy=steps", "--eval_steps=2", "--metric_for_best_model=validation_macro_f1"
    )
    lines = [line for line in result.lines if line.startswith("epoch ")]
    assert len(lines) == 3
    assert all("train loss" in line and "validation loss" in line and "images/s" in line for line in lines)
    assert "schedule   6 steps in batches of 64" in result.out
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 6
    assert "(best validation_macro_f1)" in result.out


@pytest.mark.parametrize(
    ("flags", "metric"),
    [
        ([], "validation_accuracy"),
        (["--class_weights=auto"], "validation_macro_f1"),
        (["--class_weights=auto", "--metric_for_best_model=validation_accuracy"], "validation_accuracy"),
        (["--class_weights=auto", "--metric_for_best_model=validation_loss"], "validation_loss"),
    ],
)
def test_class_weights_have_the_best_checkpoint_chosen_by_macro_f1_unless_another_metric_is_named(
    pictures, tmp_path, monkeypatch, flags, metric
):
    def stop(arguments, splits):
        check_metric(arguments, splits)
        chosen = arguments.metric_for_best_model, arguments.greater_is_better
        raise ValueError(f"chosen by {chosen}")

    check_metric = training.check_metric
    monkeypatch.setattr(training, "check_metric", stop)
    arguments = parse_recipe("image-folder", [f"--data={pictures}", f"--output_dir={tmp_path / 'run'}", *flags])
    with pytest.raises(ValueError, match=re.escape(f"chosen by {(metric, metric != 'validation_loss')}")):
        training.train(arguments)
    # What the run was told, or took for told, is in its recipe.
    assert recipe_of(arguments).get("metric_for_best_model") == (metric if flags else None)


def test_it_trains_without_validating_on_the_way(train):
    _, result = train("--max_steps=2", "--eval_strategy=no")
    assert "validation_accuracy" in named_numbers(result)  # once, at the end
    assert not any("validation" in line for line in result.lines if line.startswith("epoch "))
    assert "(the last one)" in result.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--attn_implementation=eager",), "fp32, eager attention"),
        (("--bf16",), "bf16 mixed precision, sdpa attention"),
        (("--per_device_train_batch_size=4", "--gradient_accumulation_steps=3"), "2 steps in batches of 12"),
        (("--rotation=0", "--translation=0", "--scaling=0"), "training   images not varied"),
        (("--lr_scheduler_type=constant",), "learning rate 0.001 (constant)"),
    ],
)
def test_what_is_asked_for_is_what_the_plan_says(train, flags, said):
    assert said in train("--max_steps=2", *flags)[1].out


def test_mixed_precision_saves_what_was_trained_and_nothing_rounded(train):
    # Before the final checkpoint is written, all splits are predicted.
    folder, _ = train(
        "--max_steps=2", "--bf16", "--ema_decay=0.5", "--load_best_model_at_end=false", "--save_total_limit=2"
    )
    assert same_weights(folder, folder / "checkpoint-2")
    for name, weight in weights(folder).items():
        assert weight.dtype == torch.float32
        assert not torch.equal(weight, weight.bfloat16().float()), name


def test_processes_that_load_images_vary_them_alike_in_every_run(train):
    flags = ("--max_steps=3", "--dataloader_num_workers=1")
    one, _ = train(*flags, name="one")
    again, _ = train(*flags, name="again")
    assert same_weights(one, again)


def test_an_override_of_the_size_reaches_the_processor(train):
    folder, result = train(*UNTRAINED, "--config_overrides=image_size=[12,16],depth=1", small=False)
    assert "images     resized to 12x16 pixels" in result.out
    assert AutoConfig.from_pretrained(folder).image_size == [12, 16]
    assert AutoImageProcessor.from_pretrained(folder).size == {"height": 12, "width": 16}
    assert vit_scratch("predict", folder, folder / "sample.png").status == 0


def test_images_that_cannot_be_read_are_left_out_by_name(train, tmp_path):
    data = classes_of_pictures(tmp_path / "data")
    (data / "cat" / "003.png").write_bytes(b"no picture")
    _, result = train("--max_steps=1", data=data)
    assert f"left out   {data}/cat/003.png is empty, or of no known image format." in result.lines


# Fine-tuning


def body_of(folder):
    return {name: weight for name, weight in weights(folder).items() if name.startswith("vit.")}


def head_of(folder):
    return {name: weight for name, weight in weights(folder).items() if not name.startswith("vit.")}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_labels_keep_the_head(digits_run, train):
    base, _ = digits_run
    folder, result = train(*UNTRAINED, f"--model={base}", data="digits", small=False)
    assert f"loaded     {base}, its head kept: the labels are the same" in result.lines
    assert same_weights(base, folder)
    assert named_numbers(result)["test_accuracy"] == named_numbers(digits_run[1])["test_accuracy"]


@pytest.mark.parametrize("count", [3, 10])
def test_other_labels_get_a_new_head_on_the_old_body(digits_run, train, tmp_path, count):
    base, _ = digits_run
    for index in range(count):
        (tmp_path / "data" / f"kind {index}").mkdir(parents=True)
        for seed in range(3):
            noise(seed=seed).save(tmp_path / "data" / f"kind {index}" / f"{seed}.png")
    flags = (*UNTRAINED, "--train_val_split=0", f"--model={base}")
    folder, result = train(*flags, data=tmp_path / "data", small=False)
    assert f"loaded     {base}, with a new head for the {count} classes of the data" in result.lines
    assert equal(body_of(base), body_of(folder))
    assert head_of(folder)["classification_head.fc.weight"].shape == (count, 32)
    assert not equal(head_of(base), head_of(folder))
    assert all(weight.abs().sum() > 0 for weight in head_of(folder).values())
    labels = AutoConfig.from_pretrained(folder).id2label
    assert labels == {index: f"kind {index}" for index in range(count)}


def test_a_fine_tuned_model_learns(digits_run, train):
    base, trained = digits_run
    _, result = train("--num_train_epochs=1", f"--model={base}", data="digits", small=False)
    first = next(line for line in result.lines if line.startswith("epoch 1/1"))
    start = next(line for line in trained.lines if line.startswith("epoch 1/4"))
    loss = re.compile(r"validation loss (\d\.\d+)")
    assert float(loss.search(first)[1]) < float(loss.search(start)[1])


@pytest.mark.parametrize("model_class", [ViTScratchModel, ViTScratchForMaskedImageModeling])
def test_a_body_without_a_head_will_do(digits_run, train, tmp_path, model_class):
    base, _ = digits_run
    config = AutoConfig.from_pretrained(base)
    torch.manual_seed(0)
    model_class.from_pretrained(base, config=config).save_pretrained(tmp_path / "body")
    shutil.copy(base / "preprocessor_config.json", tmp_path / "body")
    folder, result = train(*UNTRAINED, f"--model={tmp_path / 'body'}", data="digits", small=False)
    assert "with a new head for the 10 classes of the data" in result.out
    assert equal(body_of(base), body_of(folder))


def test_half_precision_weights_are_trained_in_full_precision(digits_run, train, tmp_path):
    base, _ = digits_run
    half = tmp_path / "half"
    shutil.copytree(base, half)
    AutoModelForImageClassification.from_pretrained(base).to(torch.bfloat16).save_pretrained(half)
    assert {weight.dtype for weight in weights(half).values()} == {torch.bfloat16}
    folder, _ = train(*UNTRAINED, f"--model={half}", data="digits", small=False)
    assert {weight.dtype for weight in weights(folder).values()} == {torch.float32}


def test_an_override_that_leaves_the_weights_alone_is_taken(digits_run, train):
    base, _ = digits_run
    flags = (f"--model={base}", "--config_overrides=attention_probs_dropout_prob=0.25")
    folder, _ = train(*UNTRAINED, *flags, data="digits", small=False)
    assert AutoConfig.from_pretrained(folder).attention_probs_dropout_prob == 0.25
    assert same_weights(base, folder)


@pytest.mark.parametrize("override", ["hidden_size=64", "num_hidden_layers=2", "image_size=16"])
def test_an_override_that_the_weights_do_not_fit_is_refused(digits_run, tmp_path, override):
    # Otherwise it would go on with random weights and call it fine-tuning.
    message = refused_training(tmp_path, f"--model={digits_run[0]}", f"--config_overrides={override}")
    assert "do not fit the configuration: " in message
    assert "do not override fields that change the body of a checkpoint (`vit-scratch import --image-size`" in message


# What is refused, before anything is written


def refused_training(tmp_path, *flags: str, data="digits") -> str:
    """The one line with which a run is refused that leaves no output folder behind."""
    output = tmp_path / "refused"
    line = refused("train", "digits", SMALL[1], f"--data={data}", f"--output_dir={output}", *flags)
    assert line.startswith("vit-scratch train: ")
    assert not output.exists()
    return line


def broken(base, folder, kind):
    """A copy of a checkpoint with one thing wrong."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    if kind == "truncated":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif kind == "not json":
        (folder / "config.json").write_text("{")
    elif kind == "other type":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))
    else:
        (folder / kind).unlink()
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "model.safetensors is cut short or damaged: copy or download it again"),
        ("model.safetensors", "no file named model.safetensors"),
        ("config.json", "Should have a `model_type` key in its config.json"),
        ("preprocessor_config.json", "it has no image processor (preprocessor_config.json)"),
        ("not json", "is not a valid JSON file"),
        ("other type", "Field 'hidden_size' expected int, got str (value: 'wide')"),
    ],
)
def test_a_broken_checkpoint_is_named_by_every_verb(digits_run, tmp_path, kind, message):
    folder = broken(digits_run[0], tmp_path / "broken", kind)
    lines = [
        refused_training(tmp_path, f"--model={folder}"),
        refused("evaluate", folder, "digits"),
        refused("predict", folder, digits_run[0] / "sample.png"),
    ]
    for line in lines:
        assert f"the checkpoint {folder} cannot be loaded: " in line or kind == "truncated"
        assert message in line


class Malice:
    """Unpickled, it makes a folder."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_a_pickle_is_never_opened(digits_run, tmp_path):
    folder = broken(digits_run[0], tmp_path / "pickled", "model.safetensors")
    canary = tmp_path / "canary"
    torch.save({"weight": Malice(canary)}, folder / "pytorch_model.bin")
    for line in (
        refused_training(tmp_path, f"--model={folder}"),
        refused("evaluate", folder, "digits"),
        refused("predict", folder, digits_run[0] / "sample.png"),
    ):
        assert "no file named model.safetensors" in line
    assert not canary.exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert canary.exists()  # the trap was set


def test_another_architecture_is_refused_in_training_only(tmp_path, digits_run):
    labels = [str(digit) for digit in range(10)]
    sizes = {"image_size": 8, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(
        **sizes, id2label=dict(enumerate(labels)), label2id={label: index for index, label in enumerate(labels)}
    )
    folder = tmp_path / "vit"
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder)
    assert f"{folder} is a model of the type 'vit'; vit-scratch trains its own" in refused_training(
        tmp_path, f"--model={folder}"
    )
    assert vit_scratch("predict", folder, digits_run[0] / "sample.png").status == 0
    assert "test_accuracy" in named_numbers(vit_scratch("evaluate", folder, "digits"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("vit-tiny-16", "there is no preset 'vit-tiny-16' (did you mean 'vit-tiny-patch"),
        ("./nothing", "there is no checkpoint folder ./nothing."),
        ("/no/such/folder", "there is no checkpoint folder /no/such/folder."),
        ("no/body", "there is no folder no/body, and the Hub cannot be reached to fetch no/body."),
    ],
)
def test_a_model_that_does_not_exist_is_named(tmp_path, model, message):
    assert message in refused_training(tmp_path, f"--model={model}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--config_overrides=hidden_size=wide",), "config_overrides make no model: Field 'hidden_size' expected int"),
        (("--config_overrides=hidden_size=33",), "make no model: hidden_size 33 is not a multiple of num_attention"),
        (("--config_overrides=image_size=9",), "make no model: image_size 9 is not a multiple of patch_size 2"),
        (("--attn_implementation=fast",), 'attn_implementation="fast"` is not supported'),
        (("--attn_implementation=flash_attention_2",), "cannot be loaded: FlashAttention2"),
        (("--save_strategy=steps", "--save_steps=5"), "save_strategy steps and eval_strategy epoch must be the"),
        (("--metric_for_best_model=accuracy",), "metric_for_best_model must be one of validation_loss, validation_acc"),
        (("--bf16_full_eval",), "bf16_full_eval=True would round the weights themselves, and the checkpoint would be"),
        (("--remove_unused_columns",), "remove_unused_columns=True would drop the image column; leave it false."),
        (("--learning_rate=fast",), "argument --learning_rate: invalid float value: 'fast'."),
        (("--data=/no/such/folder",), "/no/such/folder"),
        (("--train_val_split=0.0001",), "a share of 0.0001 of 1,437 images for the validation split"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_line(tmp_path, flags, message):
    assert message in refused_training(tmp_path, *flags)


def test_images_that_cannot_be_read_are_refused_by_name_if_that_is_wanted(tmp_path):
    data = classes_of_pictures(tmp_path / "data", images=3)
    (data / "dog" / "001.png").write_bytes(b"")
    line = refused_training(tmp_path, "--strict_images", data=data)
    assert f"{data}/dog/001.png" in line
    assert "--strict_images" in line


# What goes wrong while it trains


def failed_training(tmp_path, *flags):
    """What a run said and left that was refused after it had begun."""
    output = tmp_path / "failed"
    result = vit_scratch("train", "digits", *SMALL, f"--output_dir={output}", *flags)
    assert (result.status, result.err.count("\n")) == (2, 1)
    return result.err, output


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    error, output = failed_training(tmp_path, "--learning_rate=1e9", "--max_steps=8")
    assert re.search(r"the training loss was not a finite number at step \d: lower --learning_rate, .*\.\n$", error)
    assert not (output / "config.json").exists()


def test_an_error_in_the_middle_leaves_nothing_that_loads(tmp_path, monkeypatch):
    step = Trainer.training_step

    def failing_step(self, *arguments, **options):
        if self.state.global_step == 3:
            raise OSError("the disk is gone")
        return step(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "training_step", failing_step)
    flags = ("--max_steps=8", "--eval_strategy=steps", "--eval_steps=1")
    error, output = failed_training(tmp_path, *flags)
    assert error == "vit-scratch train: the disk is gone\n"
    left = {path.name for path in output.iterdir()}
    assert "checkpoint-3" in left
    assert all(name.startswith("checkpoint-") or name in ("recipe.yaml", "runs", CHECKED) for name in left)
    assert f"{output} holds a run that did not end" in refused("evaluate", output, "digits")


# The functions


def test_load_splits_draws_what_the_data_lacks(pictures):
    arguments = training.DataArguments(data=str(pictures), train_val_split=0.25, train_test_split=0.25)
    splits, news, *_ = load_splits(arguments)
    assert isinstance(splits, DatasetDict)
    assert list(splits) == ["train", "validation", "test"]
    assert sum(split.num_rows for split in splits.values()) == 24
    assert news == []
