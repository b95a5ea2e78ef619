# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Pre-training on images without labels: what is hidden, what a run prints and leaves, what can be made of it."""

import json
import math
import re
import shutil
import signal

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from datasets import Image as ImageFeature
from huggingface_hub import ModelCard
from pictures import noise
from PIL import Image
from runs import RUN, SMALL, Run, classes_of_pictures, contents, refused, same_weights, vit_scratch, weights
from sklearn.datasets import load_digits
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
)

from modeling_vit_scratch import ViTScratchBackbone
from modeling_vit_scratch.data.dataset_loading import load_unlabelled
from modeling_vit_scratch.data.sampling import TrainingImages, collate
from modeling_vit_scratch.presets import preset_names, preset_path
from modeling_vit_scratch.training import pretraining
from modeling_vit_scratch.training.masking import BlockMasks, MaskedImages, block_pixels
from modeling_vit_scratch.training.pretraining import build_model, settle
from modeling_vit_scratch.training.recipes import RecipeParser, parse_recipe, recipe_of
from modeling_vit_scratch.training.run_images import load_splits
from modeling_vit_scratch.training.training_arguments import NOT_IN_PRETRAINING, ModelArguments, PretrainingArguments

MASKS = BlockMasks(grid_size=(6, 8), block_size=(2, 1), ratio=0.6, seed=3)
# The learning rate 0 leaves every weight as it was at the start.
UNTRAINED = ("--max_steps=1", "--learning_rate=0")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images at any depth, in a folder that says nothing of classes."""
    root = tmp_path_factory.mktemp("data") / "photos"
    classes_of_pictures(root / "2024", images=6)
    (root / "2024" / "cat" / "more").mkdir()
    for index in range(2):
        noise((9, 10 + index)).save(root / f"loose{index}.png")
        noise((11, 10 + index)).save(root / "2024" / "cat" / "more" / f"deep{index}.png")
    return root  # 22 images


@pytest.fixture(scope="module")
def pretrained(photos, tmp_path_factory):
    """One run of three epochs: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "pretrained"
    flags = ("--train_val_split=0.2", "--num_train_epochs=3", "--per_device_train_batch_size=4")
    result = pretrained_by(folder, f"--data={photos}", *flags)
    assert (result.status, result.err) == (0, "")
    return folder, result


@pytest.fixture
def pretrain(photos, tmp_path, monkeypatch):
    """Pre-train on the photos without a picture; gives the folder and what was printed: pretrain("--seed=1")."""
    monkeypatch.setattr(pretraining, "draw_pretraining", lambda *arguments: None)

    def pretrain(*flags: object, data=photos, name: str = "run"):
        result = pretrained_by(tmp_path / name, f"--data={data}", *flags)
        assert (result.status, result.err) == (0, ""), result
        return tmp_path / name, result

    return pretrain


def pretrained_by(folder, *flags: object):
    command = ("pretrain", "pretrain-masked", "--model=digits", *SMALL[:2], f"--output_dir={folder}")
    return vit_scratch(*command, *flags)


def values(result) -> dict[str, str]:
    """The plan and the closing lines by their first word."""
    return {line[:10].strip(): line[11:] for line in result.lines if line[10:11] == " "}


# What is hidden


def test_the_share_is_exact_and_made_of_whole_blocks():
    for draw in range(50):
        mask = MASKS(draw)
        assert (mask.dtype, mask.shape) == (torch.bool, (48,))
        blocks = mask.view(3, 2, 8)  # rows of blocks, rows of a block, columns
        assert torch.equal(blocks[:, 0], blocks[:, 1])
        assert blocks[:, 0].sum() == math.ceil(0.6 * 24) == MASKS.num_hidden


def test_masks_differ_between_draws_and_seeds_and_are_the_same_again():
    masks = [tuple(MASKS(draw).tolist()) for draw in range(200)]
    assert len(set(masks)) == 200
    assert masks == [tuple(MASKS(draw).tolist()) for draw in range(200)]
    other = BlockMasks(grid_size=(6, 8), block_size=(2, 1), ratio=0.6, seed=4)
    assert not set(masks) & {tuple(other(draw).tolist()) for draw in range(200)}


def test_every_place_is_hidden_alike():
    often = sum(MASKS(draw).float() for draw in range(2000)) / 2000
    # Five standard deviations around 15 of 24.
    assert (often - 15 / 24).abs().max() < 5 * math.sqrt(15 / 24 * 9 / 24 / 2000)


@pytest.mark.parametrize(("ratio", "hidden"), [(0.01, 1), (0.5, 5), (0.7, 7), (0.71, 8), (0.99, 9)])
def test_the_share_is_rounded_up_and_something_stays_visible(ratio, hidden):
    masks = BlockMasks(grid_size=(2, 5), block_size=(1, 1), ratio=ratio, seed=0)
    assert masks(7).sum() == masks.num_hidden == hidden


@pytest.mark.parametrize(
    ("image_size", "patch_size", "side"),
    [
        ((192, 192), (16, 16), 32),  # SimMIM's
        ((224, 224), (16, 16), 32),
        ((224, 224), (32, 32), 32),
        ((224, 224), (14, 14), 28),
        ((384, 384), (16, 16), 64),
        ((32, 32), (4, 4), 4),
        ((8, 8), (2, 2), 2),
        ((48, 96), (4, 8), 8),
    ],
)
def test_blocks_are_by_default_a_sixth_of_the_image_or_what_comes_closest(image_size, patch_size, side):
    assert block_pixels(None, image_size, patch_size) == side
    assert block_pixels(side, image_size, patch_size) == side


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_be_masked(name):
    config = AutoConfig.from_pretrained(preset_path(name))
    side = block_pixels(None, (config.image_size,) * 2, (config.patch_size,) * 2)
    assert 0 < (config.image_size // side) ** 2 <= 64


@pytest.mark.parametrize(
    ("asked_for", "image_size", "patch_size", "message"),
    [
        (6, (24, 24), (4, 4), "made of patches of 4x4 pixels and divide images of 24x24: one of 4, 8, 12, got 6."),
        (24, (24, 24), (4, 4), "one of 4, 8, 12, got 24."),
        (4, (24, 48), (4, 8), "made of patches of 4x8 pixels and divide images of 24x48: one of 8, 24, got 4."),
        (None, (24, 24), (24, 24), "images of 24x24 pixels in patches of 24x24 cannot be divided into squares"),
        (None, (24, 24), (24, 12), "images of 24x24 pixels in patches of 24x12 cannot be divided into squares"),
    ],
)
def test_a_side_that_does_not_fit_is_refused_with_those_that_do(asked_for, image_size, patch_size, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        block_pixels(asked_for, image_size, patch_size)


def test_an_image_has_another_mask_in_each_epoch_and_is_otherwise_left_alone(photos):
    dataset = load_unlabelled(str(photos))["train"]
    plain = TrainingImages(dataset, AutoImageProcessor.from_pretrained(preset_path("digits")))
    masks = BlockMasks(grid_size=(4, 4), block_size=(1, 1), ratio=0.6, seed=0)
    masked = MaskedImages(plain, masks)
    assert len(masked) == 22
    draws = [3, 4, 3 + 22, 3 + 2 * 22]
    examples = masked.__getitems__(draws)
    for draw, example, image in zip(draws, examples, plain.__getitems__(draws), strict=True):
        assert torch.equal(example["bool_masked_pos"], masks(draw))
        assert torch.equal(example["bool_masked_pos"], masked[draw]["bool_masked_pos"])
        assert torch.equal(example["pixel_values"], image["pixel_values"])
    assert len({tuple(example["bool_masked_pos"].tolist()) for example in examples}) == 4
    batch = collate(examples)
    assert set(batch) == {"pixel_values", "bool_masked_pos", "unreadable"}
    assert batch["bool_masked_pos"].shape == (4, 16)
    assert batch["bool_masked_pos"].dtype == torch.bool


# What a run prints and leaves


def test_the_plan_says_what_is_hidden_and_counts_images(pretrained):
    folder, result = pretrained
    plan = values(result)
    model = AutoModelForMaskedImageModeling.from_pretrained(folder)
    assert plan["new"] == "digits, with random weights"
    assert plan["model"].startswith("ViTScratchForMaskedImageModeling: depth 1, width 32, 4 heads, post-norm; ")
    assert plan["model"].endswith(f"; {model.num_parameters():,} parameters, {model.num_parameters():,} trained")
    assert plan["training"] == (
        "random crops of at least 67% of the area, mirrored with probability 0.5, 10 of 16 squares of 2x2 pixels hidden"
    )
    assert (plan["train"], plan["validation"]) == ("17 images", "5 images")
    assert plan["schedule"] == "3 epochs, 15 steps in batches of 4, learning rate 0.001 (cosine)"


def test_a_line_after_every_epoch_without_an_accuracy(pretrained):
    lines = [line for line in pretrained[1].lines if line.startswith("epoch ")]
    assert len(lines) == 3
    for number, line in enumerate(lines, start=1):
        start = rf"epoch {number}/3  train loss \d\.\d{{4}}  validation loss \d\.\d{{4}}  [\d,]+ images/s  "
        assert re.match(start, line), line


def test_it_ends_with_the_loss_and_how_to_go_on(pretrained):
    folder, result = pretrained
    loss = json.loads((folder / "all_results.json").read_text())["validation_loss"]
    first, _, *rest = result.lines[-5:]
    assert first.split() == ["validation_loss", f"{loss:.4f}"]
    assert re.fullmatch(rf"trained    in 0:00:\d\d; checkpoint {folder} \(best validation_loss\)", rest[0])
    assert rest[1:] == [
        f"picture    {folder}/training.png",
        f"fine-tune  vit-scratch train finetune --model {folder} --data LABELLED",
    ]


def test_the_folder_holds_a_checkpoint_and_its_story(pretrained):
    folder, _ = pretrained
    assert {path.name for path in folder.iterdir() if path.is_file()} == RUN
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["ViTScratchForMaskedImageModeling"]
    assert "id2label" not in config
    state = json.loads((folder / "trainer_state.json").read_text())
    losses = [entry["eval_validation_loss"] for entry in state["log_history"] if "eval_validation_loss" in entry]
    assert state["best_metric"] == min(losses)
    measured = json.loads((folder / "all_results.json").read_text())
    assert measured == {"validation_loss": pytest.approx(min(losses), rel=1e-6)}
    with Image.open(folder / "training.png") as picture:
        assert min(picture.size) > 500


def test_the_card_says_what_it_is_and_what_it_is_not(pretrained):
    card = ModelCard.load(pretrained[0] / "README.md")
    header, text = card.data.to_dict(), " ".join(card.text.split())
    assert header["pipeline_tag"] == "image-feature-extraction"
    assert "model-index" not in header
    assert "pre-trained with vit-scratch by masked image modelling" in text
    assert "no classifier" in text
    assert "| train | 17 | | validation | 5 |" in text
    assert "`vit-scratch train finetune --model . --data LABELLED`" in text
    assert "`vit-scratch pretrain recipe.yaml` repeats it" in text
    assert "](training.png)" in text
    assert not re.search("accuracy|test split|## Labels", text)
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    namespace = {}
    exec(code.replace('"."', repr(str(pretrained[0]))), namespace)
    assert namespace["model"].config.num_labels == 2


def test_the_recipe_that_it_leaves_repeats_it(pretrained, pretrain):
    folder, _ = pretrained
    again, _ = pretrain(f"--data={yaml.safe_load((folder / 'recipe.yaml').read_text())['data']}", name="unused")
    assert not same_weights(folder, again)  # the recipe matters
    result = vit_scratch("pretrain", folder / "recipe.yaml", f"--output_dir={again.parent / 'again'}")
    assert (result.status, result.err) == (0, "")
    assert same_weights(folder, again.parent / "again")


def test_the_picture_holds_images_what_was_seen_and_what_was_painted(pretrain, monkeypatch):
    drawn = []
    monkeypatch.setattr(pretraining, "draw_pretraining", lambda history, pictures, path: drawn.append(pictures))
    folder, _ = pretrain(*UNTRAINED, "--train_val_split=0.25", "--split_seed=5")
    model = AutoModelForMaskedImageModeling.from_pretrained(folder)
    (pictures,) = drawn
    assert len(pictures) == round(0.25 * 22)
    masks = BlockMasks(grid_size=(4, 4), block_size=(1, 1), ratio=0.6, seed=5)
    for index, (image, seen, painted) in enumerate(pictures):
        hidden = np.kron(masks(index).view(4, 4).numpy(), np.ones((2, 2), bool)).astype(bool)
        assert np.array_equal(seen[~hidden], image[~hidden])
        assert (seen[hidden] == 0.5).all()
        assert np.array_equal(painted[~hidden], image[~hidden])
        pixels = torch.from_numpy(image).movedim(2, 0)[None] * 2 - 1  # the preset has mean and deviation 0.5
        with torch.no_grad():
            expected = model(pixels, bool_masked_pos=masks(index)[None]).reconstruction[0].movedim(0, 2) / 2 + 0.5
        assert np.allclose(painted[hidden], expected.clamp(0, 1).numpy()[hidden], atol=1e-5)


# How it is trained and validated


def test_the_validation_loss_is_that_of_the_model_with_fixed_masks(pretrained, photos):
    folder, _ = pretrained
    model = AutoModelForMaskedImageModeling.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    data = parse_recipe(str(folder / "recipe.yaml"), [], "pretrain").data
    validation = load_splits(data, labelled=False).splits["validation"]
    masks = BlockMasks(grid_size=(4, 4), block_size=(1, 1), ratio=0.6, seed=data.split_seed)
    losses = []
    for row, example in enumerate(validation):
        pixels = processor(Image.open(example["image"]["path"]).convert("RGB"), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            losses.append(model(pixels, bool_masked_pos=masks(row)[None]).loss.item())
    measured = json.loads((folder / "all_results.json").read_text())["validation_loss"]
    assert sum(losses) / len(losses) == pytest.approx(measured, rel=1e-5)


def test_seeds_share_what_is_validated_on_but_not_what_is_trained_on(pretrain):
    # One checkpoint, so that only images and masks can make a difference.
    start, _ = pretrain(*UNTRAINED, name="start")
    losses = []
    for name, flags in {"a": (), "b": ("--seed=1",), "c": ("--split_seed=1",)}.items():
        folder, result = pretrain(*UNTRAINED, *flags, f"--model={start}", "--config_overrides=", name=name)
        (train,) = re.findall(r"train loss (\d\.\d+)", result.out)
        losses.append((train, json.loads((folder / "all_results.json").read_text())["validation_loss"]))
    assert losses[0][0] != losses[1][0]
    assert losses[0][1] == losses[1][1] != losses[2][1]


def test_accumulated_batches_count_as_one(pretrain):
    # 21 images: the last step of the epoch has 5 of them, 4 and 1 in batches of 4.
    flags = (
        "--max_steps=3",
        "--learning_rate=0",
        "--logging_steps=1",
        "--logging_strategy=steps",
        "--eval_strategy=no",
    )
    shown = []
    for name, sizes in {
        "one": ["--per_device_train_batch_size=8"],
        "two": ["--per_device_train_batch_size=4", "--gradient_accumulation_steps=2"],
        "four": ["--per_device_train_batch_size=2", "--gradient_accumulation_steps=4"],
    }.items():
        folder, _ = pretrain(*flags, *sizes, name=name)
        history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        shown.append([entry[key] for entry in history for key in ("loss", "grad_norm") if key in entry])
    assert len(shown[0]) == 6
    assert shown[1] == pytest.approx(shown[0], rel=1e-6)
    assert shown[2] == pytest.approx(shown[0], rel=1e-6)


def test_it_learns_to_paint_by_what_it_sees(pretrain):
    flags = ("--num_train_epochs=5", "--per_device_train_batch_size=16", "--learning_rate=1e-2")
    _, result = pretrain(*flags, "--horizontal_flip=0", "--random_resized_crop=1", data="digits")
    # Who sees nothing of an image does best with the median of each pixel.
    pixels = load_digits().images / 8 - 1
    blind = np.abs(pixels - np.median(pixels, axis=0)).mean()
    losses = [float(loss) for loss in re.findall(r"validation loss (\d\.\d+)", result.out)]
    assert losses[-1] < 0.95 * blind < losses[0]


def test_without_validation_the_last_checkpoint_is_taken(pretrain):
    folder, result = pretrain("--train_val_split=0", "--max_steps=2")
    assert "validation loss" not in result.out
    assert "validation" not in values(result)
    assert result.lines[-2].endswith("(the last one)")
    assert json.loads((folder / "all_results.json").read_text()) == {}
    assert "None: the data had no validation split." in (folder / "README.md").read_text()


def test_several_variants_of_an_image_in_a_batch_have_masks_of_their_own(pretrain):
    _, result = pretrain("--max_steps=1", "--repeated_augmentation=2", "--mask_patch_size=4", "--mask_ratio=0.75")
    assert values(result)["training"].endswith("2 variants of an image in a batch, 3 of 4 squares of 4x4 pixels hidden")


def test_several_processes_see_the_masks_that_one_would(photos):
    # All that a process knows of an example is its draw.
    masks = BlockMasks(grid_size=(4, 4), block_size=(1, 1), ratio=0.6, seed=0)
    dataset = load_unlabelled(str(photos))["train"]
    images = MaskedImages(TrainingImages(dataset, AutoImageProcessor.from_pretrained(preset_path("digits"))), masks)
    together = images.__getitems__(list(range(6)))
    apart = [*images.__getitems__([0, 2, 4]), *images.__getitems__([1, 3, 5])]
    for example, index in zip(apart, [0, 2, 4, 1, 3, 5], strict=True):
        assert torch.equal(example["bool_masked_pos"], together[index]["bool_masked_pos"])


# What it learns from


def test_class_folders_are_only_folders(tmp_path):
    root = classes_of_pictures(tmp_path / "pictures")
    splits = load_unlabelled(str(root))
    assert {name: (split.column_names, split.num_rows) for name, split in splits.items()} == {"train": (["image"], 24)}


def test_the_splits_of_a_folder_are_kept_and_its_test_split_is_left_alone(tmp_path):
    for split, count in {"Train": 4, "val": 2, "test": 3}.items():
        (tmp_path / split / "deep").mkdir(parents=True)
        for index in range(count):
            noise((8, 9)).save(tmp_path / split / "deep" / f"{index}.png")
    assert {name: split.num_rows for name, split in load_unlabelled(str(tmp_path)).items()} == {
        "train": 4,
        "validation": 2,
    }
    # Beside anything else they are names like others.
    noise((8, 9)).save(tmp_path / "loose.png")
    assert {name: split.num_rows for name, split in load_unlabelled(str(tmp_path)).items()} == {"train": 10}


@pytest.mark.parametrize("with_labels", [False, True])
def test_of_a_table_only_the_image_column_is_read(tmp_path, pretrain, with_labels):
    rows = {"Bild": [noise((8, 8 + index)) for index in range(10)], "image": ["text"] * 10}
    if with_labels:
        rows["label"] = [None] * 10
    table = Dataset.from_dict(rows).cast_column("Bild", ImageFeature())
    table.to_parquet(tmp_path / "mine.parquet")
    _, result = pretrain(
        *UNTRAINED, "--image_column_name=Bild", "--train_val_split=0.2", data=tmp_path / "mine.parquet"
    )
    assert (values(result)["train"], values(result)["validation"]) == ("8 images", "2 images")


def test_digits_leave_their_test_split_alone():
    assert {name: split.num_rows for name, split in load_unlabelled("digits").items()} == {"train": 1437}


def test_bad_images_are_left_out_by_name_or_refused(photos, tmp_path, pretrain):
    data = tmp_path / "photos"
    shutil.copytree(photos, data)
    (data / "2024" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (data / "empty.png").touch()
    _, result = pretrain(*UNTRAINED, "--train_val_split=0", data=data)
    assert [line for line in result.lines if line.startswith("left out")] == [
        f"left out   {data}/{name} is empty, or of no known image format." for name in ("empty.png", "2024/broken.jpg")
    ]
    assert values(result)["train"] == "22 images"
    flags = ("--train_val_split=0", "--strict_images", f"--output_dir={tmp_path / 'strict'}")
    assert "2 of the 24 images of the train split cannot be read" in refused(
        "pretrain", "pretrain-masked", f"--data={data}", *flags
    )
    assert not (tmp_path / "strict").exists()


def test_data_without_images_is_refused(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "notes.txt").touch()
    message = refused("pretrain", "pretrain-masked", f"--data={data}", f"--output_dir={tmp_path / 'run'}")
    assert message == f"vit-scratch pretrain: {data} holds no images."
    (data / "tables").mkdir()
    Dataset.from_dict({"label": [1, 2]}).to_parquet(data / "tables" / "t.parquet")
    with pytest.raises(ValueError, match=f"holds no images, but parquet files: give {data}/tables"):
        load_unlabelled(str(data))
    with pytest.raises(ValueError, match=r"has no column that could hold the images; its columns are label \(int64\)"):
        load_unlabelled(str(data / "tables"))


# Recipes and flags


@pytest.mark.parametrize("name", NOT_IN_PRETRAINING)
def test_what_needs_labels_or_another_job_is_refused_in_a_sentence(name, tmp_path):
    given = {
        "label_column_name": "kind",
        "class_weights": "auto",
        "finetuning": "lora",
        "lora_rank": 4,
        "lora_alpha": 8,
        "rand_augment_num_ops": 2,
        "rand_augment_magnitude": 5,
        "progressive_image_size": 4,
    }.get(name, 0.25)
    message = refused("pretrain", "pretrain-masked", f"--{name}={given}", f"--output_dir={tmp_path / 'run'}")
    assert message == f"vit-scratch pretrain: {name} {NOT_IN_PRETRAINING[name]}: leave it out."
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--mask_ratio=1", "mask_ratio must be above 0 and below 1, got 1.0."),
        ("--mask_ratio=0", "mask_ratio must be above 0 and below 1, got 0.0."),
        ("--mask_patch_size=0", "mask_patch_size must be at least 1, got 0."),
        (
            "--mask_patch_size=3",
            "mask_patch_size must be made of patches of 2x2 pixels and divide images of 8x8: one of",
        ),
        (
            "--metric_for_best_model=validation_accuracy",
            "metric_for_best_model must be validation_loss, got",
        ),
        (
            "--mask_rati=0.5",
            "unknown flag --mask_rati=0.5 (did you mean 'mask_ratio'?); see vit-scratch pretrain --help.",
        ),
        ("--config_overrides=encoder_stride=4", "the encoder_stride 4 of digits is not its patch_size 2"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(photos, tmp_path, flag, message):
    output = f"--output_dir={tmp_path / 'run'}"
    command = ("pretrain", "pretrain-masked", "--model=digits", f"--data={photos}", output, flag)
    assert f"vit-scratch pretrain: {message}" in refused(*command)
    assert not (tmp_path / "run").exists()


def test_the_recipes_of_the_two_verbs_are_not_taken_for_each_other(pretrained):
    assert "has the unknown key 'mask_ratio' (a setting of vit-scratch pretrain)." in refused(
        "train", pretrained[0] / "recipe.yaml"
    )
    assert "unknown flag --mask_patch_size=4 (a setting of vit-scratch pretrain)" in refused(
        "train", "digits", "--mask_patch_size=4"
    )
    assert "label_smoothing_factor needs labels" in refused("pretrain", "digits")


def test_the_recipe_gives_the_same_arguments_again(tmp_path):
    flags = ["--mask_patch_size=8", "--seed=3", "--learning_rate=1e-4", "--horizontal_flip=0"]
    once = parse_recipe("pretrain-masked", flags, "pretrain")
    assert isinstance(once, PretrainingArguments)
    recipe = recipe_of(once)
    assert (recipe["mask_ratio"], recipe["mask_patch_size"]) == (0.6, 8)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    again = parse_recipe(str(tmp_path / "mine.yaml"), [], "pretrain")
    assert recipe_of(again) == recipe
    settle(again)
    assert recipe_of(again) == recipe
    assert (again.training.metric_for_best_model, again.training.greater_is_better) == ("validation_loss", False)


def test_help_shows_the_flags_of_pretraining_and_not_those_that_are_refused():
    text = RecipeParser("pretrain").format_help()
    assert text.startswith("usage: vit-scratch pretrain RECIPE [--flag value …]")
    assert all(f"  --{name} " in text for name in ("mask_ratio", "mask_patch_size", "learning_rate", "horizontal_flip"))
    assert not any(f"--{name} " in text for name in NOT_IN_PRETRAINING)
    assert "mask_ratio" not in RecipeParser().format_help()
    assert "Pretrain a model by a recipe" in vit_scratch("pretrain", "--help").out
    assert "name a recipe first" in refused("pretrain")


# What can be made of it


def test_a_classifier_begins_with_its_body(pretrained, tmp_path):
    folder, _ = pretrained
    data = classes_of_pictures(tmp_path / "pictures")
    flags = (f"--data={data}", *UNTRAINED, *SMALL[1:2])
    result = vit_scratch("train", "image-folder", f"--model={folder}", *flags, f"--output_dir={tmp_path / 'tuned'}")
    assert (result.status, result.err) == (0, "")
    assert values(result)["loaded"] == f"{folder}, with a new head for the 3 classes of the data"
    before, after = weights(folder), weights(tmp_path / "tuned")
    body = {name for name in before if name.startswith("vit.") and "mask" not in name}
    assert body == {name for name in after if name.startswith("vit.")}
    assert all(torch.equal(before[name], after[name]) for name in body)


def test_it_loads_into_a_classifier_without_noise(pretrained, caplog):
    model, report = AutoModelForImageClassification.from_pretrained(
        pretrained[0], num_labels=5, output_loading_info=True
    )
    assert sorted(report.pop("missing_keys")) == ["classification_head.fc.bias", "classification_head.fc.weight"]
    assert not any(report.values())
    assert model.classification_head.fc.out_features == 5
    assert model.vit.mask_patches is None
    for auto_class in (AutoModel, ViTScratchBackbone):
        report = auto_class.from_pretrained(str(pretrained[0]), output_loading_info=True)[1]
        assert not any(report.values())
    # Transformers names the weights of the new head, as it does for all models.
    assert not re.search("UNEXPECTED|num_labels", caplog.text)


@pytest.mark.parametrize("overrides", ["pooling=attention", "pooler_output_size=7", "use_pooled_layer_norm=true"])
def test_a_classifier_that_pools_with_weights_of_its_own_can_begin_with_it(pretrain, tmp_path, overrides):
    folder, _ = pretrain(*UNTRAINED, f"--config_overrides=num_hidden_layers=1,{overrides}")
    data = classes_of_pictures(tmp_path / "pictures")
    flags = (f"--data={data}", *UNTRAINED, *SMALL[1:2], f"--output_dir={tmp_path / 'tuned'}")
    result = vit_scratch("train", "image-folder", f"--model={folder}", *flags)
    assert (result.status, result.err) == (0, "")
    assert values(result)["loaded"] == f"{folder}, with a new head for the 3 classes of the data"


def test_it_is_not_taken_for_a_classifier(pretrained, tmp_path):
    folder, _ = pretrained
    data = classes_of_pictures(tmp_path / "pictures")
    for command in (("predict", folder, folder / "sample.png"), ("evaluate", folder, data)):
        assert f"the checkpoint {folder} is no image classifier" in refused(*command)


def test_pretraining_goes_on_from_a_checkpoint_and_from_a_classifier(pretrained, digits_run):
    model, _, origin = build_model(ModelArguments(model=str(pretrained[0])))
    assert origin == f"loaded     {pretrained[0]}"
    before = weights(pretrained[0])
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    model, _, origin = build_model(ModelArguments(model=str(digits_run[0])))
    assert origin == f"loaded     {digits_run[0]}, with a new decoder"
    before = weights(digits_run[0])
    assert all(
        torch.equal(weight, before[name])
        for name, weight in model.state_dict().items()
        if name.startswith("vit.") and "mask" not in name
    )


# Interrupted

COMMAND = (
    *("pretrain", "pretrain-masked", "--model=digits", SMALL[0], "--num_train_epochs=3", "--train_val_split=0.2"),
    *("--per_device_train_batch_size=4", "--eval_strategy=steps", "--eval_steps=4", "--dataloader_num_workers=1"),
    *("--ema_decay=0.9", "--drop_path_rate=0.1", "--repeated_augmentation=2"),
)
KILLING = """
import os, signal
from modeling_vit_scratch.training import pretraining
from modeling_vit_scratch.training.trainer import ViTTrainer
pretraining.draw_pretraining = lambda *arguments: None
def end_at(step, number):
    original = ViTTrainer.training_step
    def training_step(self, *arguments, **options):
        if self.state.global_step == step:
            os.kill(os.getpid(), number)
        return original(self, *arguments, **options)
    ViTTrainer.training_step = training_step
"""


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    result = begun(folder, photos)
    assert (result.status, result.err) == (0, "")
    return folder


def begun(folder, photos, *flags: str, end: str = ""):
    command = [*COMMAND, f"--data={photos}", f"--output_dir={folder}", *flags]
    return Run(command, folder.parent, f"{KILLING}\n{end}").end()


@pytest.mark.parametrize(
    ("step", "number"), [(2, signal.SIGKILL), (7, signal.SIGKILL), (9, signal.SIGKILL), (7, signal.SIGTERM)]
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(undisturbed, photos, tmp_path, step, number):
    result = begun(tmp_path / "run", photos, end=f"end_at({step}, {int(number)})")
    if number == signal.SIGTERM:
        assert result.status == 128 + number
        assert re.match(r"vit-scratch pretrain: stopped at step \d+ of 15 with a checkpoint; the same", result.err)
    else:
        assert result.status == -number
    assert not (tmp_path / "run" / "config.json").exists()
    result = begun(tmp_path / "run", photos)
    assert (result.status, result.err) == (0, "")
    assert ("resumed" in result.out) == (step > 4)
    assert same_weights(undisturbed, tmp_path / "run")
    results = [json.loads((folder / "all_results.json").read_text()) for folder in (undisturbed, tmp_path / "run")]
    assert results[0] == results[1]


def test_the_number_of_processes_that_load_images_does_not_matter(undisturbed, photos, tmp_path):
    assert begun(tmp_path / "run", photos, "--dataloader_num_workers=0").status == 0
    assert same_weights(undisturbed, tmp_path / "run")


def test_a_run_with_other_masks_is_not_taken_for_the_interrupted_one(photos, tmp_path):
    assert begun(tmp_path / "run", photos, end=f"end_at(6, {int(signal.SIGKILL)})").status == -signal.SIGKILL
    before = contents(tmp_path / "run")
    result = begun(tmp_path / "run", photos, "--mask_ratio=0.5")
    assert result.status == 2
    assert "holds an interrupted run with other settings (mask_ratio 0.6, now 0.5)" in result.err
    assert contents(tmp_path / "run") == before
    # Nor is one with other images.
    data = shutil.copytree(photos, tmp_path / "photos")
    noise(seed=77).save(data / "another.png")
    result = begun(tmp_path / "run", data, "--resume_from_checkpoint=true")
    assert result.status == 2
    assert "1 image more" in result.err
    assert contents(tmp_path / "run") == before
