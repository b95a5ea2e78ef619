# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Ways to fine-tune: what stays as it was, what is trained, and that the end is a plain checkpoint."""

import importlib.util
import json
import warnings

import pytest
import torch
from runs import RUN, SMALL, classes_of_pictures, named_numbers, refused, same_weights, vit_scratch, weights
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.training import classification
from modeling_vit_scratch.training.finetuning import block_layers, merge, prepare
from modeling_vit_scratch.training.report import EpochReport
from modeling_vit_scratch.training.training_arguments import ModelArguments

LORA = ("--finetuning=lora", "--lora_rank=3", "--lora_alpha=12")
PARTS = ("base_layer", "lora_A.default", "lora_B.default")  # of a layer, by PEFT's names
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "patch_dropout")


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    monkeypatch.setattr(classification, "draw_training", lambda *arguments: None)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return classes_of_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture
def command(digits_run, pictures):
    """The beginning of a command that fine-tunes a model of the digits on few pictures of three classes."""
    # Not the first checkpoint: its learning rate is 0 while it warms up, and accuracies of few images tie.
    flags = ("--num_train_epochs=2", "--warmup_steps=0", "--metric_for_best_model=validation_loss", "--layer_decay=1")
    return ("train", "finetune", *SMALL[1:], f"--model={digits_run[0]}", f"--data={pictures}", *flags)


@pytest.fixture
def train(command, tmp_path):
    """Fine-tune; gives the folder and what was printed: train("--finetuning=lora")."""

    def train(*flags: object, name: str = "run"):
        result = vit_scratch(*command, f"--output_dir={tmp_path / name}", *flags)
        assert (result.status, result.err) == (0, "")
        return tmp_path / name, result

    return train


def small(**changes) -> ViTScratchForImageClassification:
    sizes = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 20, "image_size": 8, "patch_size": 2}
    torch.manual_seed(0)
    return ViTScratchForImageClassification(
        ViTScratchConfig(**{"num_hidden_layers": 2, "num_labels": 5} | sizes | changes)
    )


def prepared(model, finetuning: str, **changes):
    """PEFT's view of a model, if there is one, after `prepare`."""
    return prepare(model, ModelArguments(finetuning=finetuning, **changes))[0]


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(pixel_values=images()).logits


def trained(model) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def changed(one, other) -> set[str]:
    """Names of the weights that differ between two checkpoints."""
    before, after = weights(one), weights(other)
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def plan(result) -> dict[str, str]:
    return {line[:10].strip(): line[11:] for line in result.lines[: result.lines.index("")]}


# Everything


def test_by_default_everything_is_trained(digits_run, train):
    folder, result = train("--learning_rate=1e-3")
    assert "tuning" not in plan(result)
    assert changed(digits_run[0], folder) == weights(folder).keys()
    assert not (folder / "adapter").exists()


# The head alone


def test_a_linear_probe_changes_the_head_alone(digits_run, train):
    folder, result = train("--finetuning=linear_probe", "--learning_rate=1e-2")
    assert plan(result)["tuning"] == "linear probe: the head alone; the body is frozen, and its dropout is off"
    assert plan(result)["model"].endswith(", 99 trained")
    assert changed(digits_run[0], folder) == {"classification_head.fc.weight", "classification_head.fc.bias"}
    assert {path.name for path in folder.iterdir() if path.is_file()} == RUN - {"training.png"}


def test_a_linear_probe_learns(train):
    _, result = train("--finetuning=linear_probe", "--learning_rate=1e-1", "--num_train_epochs=12")
    losses = [float(line.split("validation loss ")[1].split()[0]) for line in result.lines if line.startswith("epoch")]
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("finetuning", ["full", "linear_probe"])
def test_nothing_in_the_body_of_a_linear_probe_is_random(finetuning):
    model = small(**dict.fromkeys(RATES, 0.5))
    prepared(model, finetuning)
    model.train()  # as the Trainer does before each step
    probe = finetuning == "linear_probe"
    assert model.classification_head.training
    assert model.vit.training is not probe
    with torch.no_grad():
        same = torch.equal(model(pixel_values=images()).logits, model(pixel_values=images()).logits)
    assert same is probe


def test_the_rates_of_dropout_do_not_reach_a_linear_probe_and_stay_in_its_configuration(train):
    plain, _ = train("--finetuning=linear_probe", name="plain")
    flags = ("--finetuning=linear_probe", "--drop_path_rate=0.5", "--patch_dropout=0.5")
    random, _ = train(*flags, "--config_overrides=hidden_dropout_prob=0.5,attention_probs_dropout_prob=0.5")
    assert same_weights(plain, random)
    config = AutoConfig.from_pretrained(random)
    assert [getattr(config, name) for name in RATES] == [0.5] * 4


# LoRA


def test_lora_ends_with_a_plain_checkpoint(digits_run, train):
    folder, result = train(*LORA, "--learning_rate=1e-2")
    assert plan(result)["tuning"] == "LoRA of rank 3 on 4 linear layers, and the head; the rest of the body is frozen"
    inner = 3 * (32 + 96) + 3 * (32 + 32) + 2 * 3 * (32 + 48)
    assert plan(result)["model"].endswith(f", {inner + 99:,} trained")
    block = {f"vit.encoder.0.{name}.weight" for name in ("attention.in_proj", "attention.out_proj", "ff.0", "ff.2")}
    assert changed(digits_run[0], folder) == {
        *block,
        "classification_head.fc.weight",
        "classification_head.fc.bias",
    }
    before, after = weights(digits_run[0]), weights(folder)
    for name in block:  # what was added is of that rank
        values = torch.linalg.svdvals(after[name].double() - before[name].double())
        assert values[2] > 1e-4 > 1e-6 > values[3]
    assert (folder / "config.json").is_file()
    assert {path.name for path in folder.iterdir() if path.is_file()} == RUN - {"training.png"}


def test_users_of_peft_find_its_files(digits_run, train):
    from peft import PeftModel

    folder, _ = train(*LORA, "--learning_rate=1e-2")
    assert {path.name for path in (folder / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"]) == (3, 12)
    assert config["base_model_name_or_path"] == str(digits_run[0])
    base = AutoModelForImageClassification.from_pretrained(digits_run[0], num_labels=3, ignore_mismatched_sizes=True)
    assert not torch.allclose(logits(base), logits(AutoModelForImageClassification.from_pretrained(folder)), atol=1e-2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # PEFT asks transformers so
        adapted = PeftModel.from_pretrained(base, folder / "adapter")
    merged = logits(AutoModelForImageClassification.from_pretrained(folder))
    torch.testing.assert_close(logits(adapted), merged, rtol=0, atol=1e-5)


ARCHITECTURES = [
    {},
    {"norm_first": True, "use_swiglu_ffn": True, "layerscale_value": 0.5},
    {"pooling": "attention", "use_cls_token": False, "pooler_output_size": 7, "qkv_bias": False},
    {"num_hidden_layers": 7, "pooling": "attention", "use_dual_patch_norm": True},  # PEFT abbreviates long lists
]


@pytest.mark.parametrize("changes", ARCHITECTURES)
def test_the_linear_layers_of_the_blocks_are_adapted_and_no_others(changes):
    model = small(**changes)
    names = list(model.state_dict())
    adapted = prepared(model, "lora", lora_rank=2)
    depth = changes.get("num_hidden_layers", 2)
    layers = [
        f"vit.encoder.{index}.{name}"
        for index in range(depth)
        for name in ("attention.in_proj", "attention.out_proj", "ff.0", "ff.2")
    ]
    assert trained(model) == {
        *(f"{layer}.lora_{letter}.default.weight" for layer in layers for letter in "AB"),
        "classification_head.modules_to_save.default.fc.weight",
        "classification_head.modules_to_save.default.fc.bias",
    }
    torch.manual_seed(2)
    for name, weight in model.named_parameters():
        if name in trained(model):
            nn.init.normal_(weight, std=0.3)
    before = logits(model)
    merge(adapted)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)
    assert block_layers(model) == layers


def test_at_first_lora_changes_nothing():
    model = small()
    before = logits(model)
    prepared(model, "lora")
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_weight_that_is_to_be_trained_receives_a_gradient(checkpointing):
    model = small(norm_first=True)
    prepared(model, "lora")
    if checkpointing:
        model.activation_checkpointing_enable()
    for name, weight in model.named_parameters():
        if name.endswith("lora_B.default.weight"):  # 0 at first, and then A has no gradient yet
            nn.init.normal_(weight)
    model.train()(pixel_values=images(), labels=torch.arange(4)).loss.backward()
    with_gradient = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert with_gradient == trained(model)
    assert all(weight.grad.abs().sum() > 0 for weight in model.parameters() if weight.requires_grad)


def test_what_is_written_is_what_was_measured(digits_run, train, tmp_path):
    flags = (f"--model={digits_run[0]}", "--data=digits", *LORA, "--learning_rate=1e-2", "--num_train_epochs=1")
    folder, result = train(*flags)
    evaluated = vit_scratch("evaluate", folder, "digits")
    assert named_numbers(evaluated).items() <= named_numbers(result).items()
    assert "test_accuracy" in named_numbers(evaluated)


@pytest.mark.parametrize("flags", [("--ema_decay=0.9",), ("--layer_decay=0.5",), ("--activation_checkpointing",)])
def test_lora_goes_with_other_ways_to_train(digits_run, train, flags):
    plain, _ = train(*LORA, "--learning_rate=1e-2", name="plain")
    other, _ = train(*LORA, "--learning_rate=1e-2", *flags, name="other")
    frozen = {name for name in weights(plain) if name.startswith("vit.")} - changed(digits_run[0], plain)
    assert frozen.isdisjoint(changed(digits_run[0], other))
    assert bool(changed(plain, other)) is (flags != ("--activation_checkpointing",))


def test_lora_ends_with_the_best_checkpoint(train):
    # The best by a loss that is told to be good when it is high: not the last.
    folder, _ = train(*LORA, "--learning_rate=3e-2", "--num_train_epochs=3", "--greater_is_better=true")
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    losses = [entry["eval_validation_loss"] for entry in state["log_history"] if "eval_validation_loss" in entry]
    best = losses.index(max(losses)) + 1
    assert best != 3
    saved, merged = weights(folder / f"checkpoint-{best}"), weights(folder)
    for layer in ("attention.in_proj", "attention.out_proj", "ff.0", "ff.2"):
        parts = {name: saved[f"vit.encoder.0.{layer}.{name}.weight"] for name in PARTS}
        expected = parts["base_layer"] + 12 / 3 * parts["lora_B.default"] @ parts["lora_A.default"]
        torch.testing.assert_close(merged[f"vit.encoder.0.{layer}.weight"], expected)
    head = saved["classification_head.modules_to_save.default.fc.weight"]
    assert torch.equal(merged["classification_head.fc.weight"], head)


# Going on


def interrupted(command, output, monkeypatch, *flags):
    """Train and stop, as Ctrl+C would, when the line of the second epoch is due."""
    print_line = EpochReport._print_line

    def stop(self, args, state, validation):
        print_line(self, args, state, validation)
        if state.epoch > 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochReport, "_print_line", stop)
        assert vit_scratch(*command, *flags, f"--output_dir={output}").status == 130
    assert (output / "checkpoint-1").is_dir()
    assert not (output / "config.json").exists()


@pytest.mark.parametrize("flags", [LORA, (*LORA, "--ema_decay=0.9"), ("--finetuning=linear_probe",)])
def test_an_interrupted_run_goes_on_to_the_same_end(command, train, tmp_path, monkeypatch, flags):
    flags = (*flags, "--learning_rate=1e-2", "--num_train_epochs=3", "--drop_path_rate=0.2")
    whole, _ = train(*flags, name="whole")
    interrupted(command, tmp_path / "parted", monkeypatch, *flags)
    parted, result = train(*flags, name="parted")
    assert f"resumed    {parted}/checkpoint-1" in result.lines
    assert same_weights(whole, parted)
    if flags[0] == "--finetuning=lora":
        name = "adapter/adapter_model.safetensors"
        assert (whole / name).read_bytes() == (parted / name).read_bytes()


def test_what_an_earlier_attempt_left_of_the_adapter_is_no_obstacle(command, train, tmp_path, monkeypatch):
    interrupted(command, tmp_path / "run", monkeypatch, *LORA)
    (tmp_path / "run" / "adapter").mkdir()
    (tmp_path / "run" / "adapter" / "old").touch()
    folder, result = train(*LORA)
    assert f"resumed    {folder}/checkpoint-1" in result.lines
    assert not (folder / "adapter" / "old").exists()


@pytest.mark.parametrize("flag", ["--lora_rank=2", "--finetuning=full"])
def test_it_does_not_go_on_with_other_weights(command, tmp_path, monkeypatch, flag):
    interrupted(command, tmp_path / "run", monkeypatch, *LORA)
    line = refused(*command, *LORA, flag, f"--output_dir={tmp_path / 'run'}", "--resume_from_checkpoint=true")
    assert "run/checkpoint-1 holds other weights than this run trains, among them " in line
    assert line.endswith(
        "--model, --finetuning, --lora_rank and --config_overrides must be those that it was trained with."
    )


def test_the_middle_of_a_run_with_lora_is_no_checkpoint_to_use(command, train, pictures, tmp_path, monkeypatch):
    interrupted(command, tmp_path / "run", monkeypatch, *LORA)
    middle = tmp_path / "run" / "checkpoint-1"
    picture = pictures / "cat" / "000.png"
    for line in (
        refused("predict", middle, picture),
        refused("evaluate", middle, pictures),
        refused(*command, f"--model={middle}", f"--output_dir={tmp_path / 'other'}"),
    ):
        assert f"{middle} is from the middle of a run with LoRA" in line
    folder, _ = train(*LORA)
    assert vit_scratch("predict", folder, picture).status == 0


# What is refused, before anything is loaded


def refusal(tmp_path, *flags) -> str:
    """The line with which a run is refused whose data do not exist: it does not come to them."""
    line = refused(
        "train", "finetune", "--data=/nothing", "--model=no/where", f"--output_dir={tmp_path / 'run'}", *flags
    )
    assert not (tmp_path / "run").exists()
    return line


@pytest.mark.parametrize("finetuning", ["linear_probe", "lora"])
@pytest.mark.parametrize("preset", ["digits", "no-such-preset"])
def test_random_weights_are_trained_in_full_only(tmp_path, finetuning, preset):
    assert refusal(tmp_path, f"--finetuning={finetuning}", f"--model={preset}") == (
        f"vit-scratch train: finetuning '{finetuning}' leaves the body of a checkpoint as it is, and the preset "
        f"{preset} has random weights: name a checkpoint with --model."
    )


def test_lora_needs_peft(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find_spec(name, *rest)
    )
    assert refusal(tmp_path, "--finetuning=lora") == (
        "vit-scratch train: finetuning 'lora' needs PEFT, which is not installed: pip install peft."
    )
    assert "/nothing" in refusal(tmp_path, "--finetuning=linear_probe")


@pytest.mark.parametrize("finetuning", ["linear_probe", "lora"])
def test_muon_needs_the_matrices_of_the_blocks(tmp_path, finetuning):
    line = refusal(tmp_path, f"--finetuning={finetuning}", "--muon_learning_rate=0.02", "--layer_decay=1")
    assert "muon_learning_rate is for the matrices of the blocks, and finetuning" in line


def test_the_recipe_asks_for_a_checkpoint(pictures, tmp_path):
    line = refused("train", "finetune", f"--data={pictures}", f"--output_dir={tmp_path / 'run'}")
    assert line == "vit-scratch train: there is no checkpoint folder ./checkpoint."
