"""Train a small ViT by our recipe, and transformers' ViT of the same dimensions by its example script's.

    python scripts/compare_training.py time --data CIFAR10                    # seconds per step, in interleaved rounds
    python scripts/compare_training.py train --data CIFAR10 --minutes 20      # the runs; go on when given again
    python scripts/compare_training.py draw                                   # the table, and one picture

CIFAR10 is the id of a Hub dataset or a pattern of parquet files, whose classes `cat` and `dog` are used. Settings are
chosen with `--choose`, which validates on a fifth of the train split; without it the whole train split is trained on,
and the curves are those of the test split, of which nothing is chosen.

A run's length is a number of steps: on transformers' side as many as the given minutes have room for, by the seconds
per step that `time` measured; on ours as the recipe says. So other work on the machine lengthens the runs, but changes
no result.
"""

import argparse
import itertools
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

from modeling_vit_scratch.system.machine import let_waiting_threads_sleep

let_waiting_threads_sleep()  # before torch is loaded

import numpy as np
import torch
import transformers
from datasets import DatasetDict
from transformers import EvalPrediction, ViTConfig, ViTForImageClassification

from modeling_vit_scratch import ViTScratchForImageClassification
from modeling_vit_scratch.data.augmentation import random_mirror, random_resized_crop
from modeling_vit_scratch.data.dataset_loading import load_images
from modeling_vit_scratch.data.model_input import preprocessing
from modeling_vit_scratch.data.sampling import UNREADABLE, TrainingImages, collate
from modeling_vit_scratch.data.splits import parted
from modeling_vit_scratch.evaluation.metrics import Outcome, compute_metrics, outcome_of
from modeling_vit_scratch.system.interruption import StopSignal
from modeling_vit_scratch.training.classification import Classification, train
from modeling_vit_scratch.training.recipes import parse_recipe
from modeling_vit_scratch.training.run import Built
from modeling_vit_scratch.training.starting import build_model
from modeling_vit_scratch.training.training_arguments import Arguments

CLASSES = ("cat", "dog")
EVALUATIONS = 25  # points of a curve
# The example script's own values, but for the learning rate, which was chosen; the batch is that of our recipe.
EXAMPLE_SCRIPT = {"lr_scheduler_type": "linear", "warmup_steps": 0, "weight_decay": 0.0}
SHARED_DIMENSIONS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("image_size", "patch_size", "layer_norm_eps", "num_labels"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("time", "train", "draw"))
    parser.add_argument("--data", help="Hub dataset, or pattern of parquet files")
    parser.add_argument("--output", type=Path, default=Path("outputs/compare-training"))
    parser.add_argument("--recipe", default="cats-vs-dogs-from-scratch", help="of our side")
    parser.add_argument("--sides", nargs="+", choices=("ours", "transformers"), default=["transformers", "ours"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=20.0, help="of transformers' side")
    parser.add_argument("--learning_rate", type=float, default=3e-4, help="of transformers' side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10, help="of `time`")
    parser.add_argument("--choose", action="store_true", help="validate on a fifth of the train split")
    parser.add_argument("flags", nargs="*", help="after --, for our recipe")
    options = parser.parse_intermixed_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    {"time": time_steps, "train": train_both, "draw": draw}[options.what](options)


# --- Both sides ------------------------------------------------------------------------------------------------------


def splits_of(options: argparse.Namespace) -> DatasetDict:
    """The train split, and as `validation` the images that the curves are of."""
    loaded = load_images(options.data)
    names = loaded["train"].features["label"].names
    kept = [names.index(name) for name in CLASSES]
    splits = DatasetDict()
    for split, dataset in loaded.items():
        labels = np.asarray(dataset["label"][:])
        rows = dataset.select(np.flatnonzero(np.isin(labels, kept)))
        renumbered = [kept.index(label) for label in rows["label"]]
        feature = type(rows.features["label"])(names=list(CLASSES))
        splits[split] = rows.remove_columns("label").add_column("label", renumbered, feature=feature)
    if options.choose:
        train, validation = parted(splits["train"], round(0.2 * splits["train"].num_rows), seed=0)
        return DatasetDict(train=train, validation=validation)
    return DatasetDict(train=splits["train"], validation=splits["test"])


def our_arguments(options: argparse.Namespace, output: Path, seed: int) -> Arguments:
    flags = {
        "data": write_parquet(options),
        "output_dir": output,
        "seed": seed,
        "eval_strategy": "steps",
        "eval_steps": 1 / EVALUATIONS,
        "train_val_split": 0,
        "train_test_split": 0,
        "load_best_model_at_end": False,  # the curve's last point is the result: nothing is chosen by it
        "report_to": "none",
    }
    return parse_recipe(options.recipe, [*(f"--{name}={value}" for name, value in flags.items()), *options.flags])


def write_parquet(options: argparse.Namespace) -> Path:
    folder = options.output / f"data-{'choose' if options.choose else 'final'}"
    if not folder.exists():
        incomplete = options.output / ".incomplete-data"
        for split, dataset in splits_of(options).items():
            incomplete.mkdir(exist_ok=True)
            dataset.to_parquet(incomplete / f"{split}.parquet")
        incomplete.rename(folder)
    return folder


def same_dimensions(ours: ViTScratchForImageClassification) -> ViTForImageClassification:
    """Transformers' ViT with the dimensions, and so the number of parameters, of our model."""
    peer = ViTForImageClassification(
        ViTConfig(**{name: getattr(ours.config, name) for name in SHARED_DIMENSIONS}, attn_implementation="sdpa")
    )
    assert peer.num_parameters() == ours.num_parameters(), (peer.num_parameters(), ours.num_parameters())
    return peer


def transformers_trainer(
    options: argparse.Namespace, arguments: Arguments, output: Path, seed: int, steps: int
) -> tuple[transformers.Trainer, ViTScratchForImageClassification]:
    """Transformers' side, and our model of its dimensions, which counts the operations."""
    splits = load_images(str(write_parquet(options)))
    ours, processor, _ = build_model(arguments.model, list(CLASSES))
    transformers.set_seed(seed)
    size = (ours.config.image_size, ours.config.image_size)
    # The transforms of examples/pytorch/image-classification/run_image_classification.py.
    varied = [partial(random_resized_crop, least_area=0.08, size=size), partial(random_mirror, probability=0.5)]
    trainer = transformers.Trainer(
        model=same_dimensions(ours),
        args=transformers.TrainingArguments(
            str(output),
            max_steps=steps,
            learning_rate=options.learning_rate,
            per_device_train_batch_size=arguments.training.per_device_train_batch_size,
            per_device_eval_batch_size=256,
            eval_strategy="steps",
            eval_steps=1 / EVALUATIONS,
            save_strategy="steps",
            save_steps=1 / EVALUATIONS,
            save_total_limit=1,
            logging_steps=1 / EVALUATIONS,
            seed=seed,
            use_cpu=True,
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=True,
            **EXAMPLE_SCRIPT,
        ),
        train_dataset=TrainingImages(splits["train"], processor, varied, seed=seed),
        eval_dataset=splits["validation"].with_transform(preprocessing(processor)),
        data_collator=_collate,
        compute_metrics=_accuracy,
    )
    return trainer, ours


def _collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
    batch = collate([{UNREADABLE: [], **example} for example in examples])
    return {name: batch[name] for name in ("pixel_values", "labels")}


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    logits, labels = map(np.asarray, (prediction.predictions, prediction.label_ids))
    outcome = outcome_of(torch.from_numpy(logits), torch.from_numpy(labels), len(CLASSES))
    return compute_metrics(Outcome(*map(np.asarray, outcome)), labels, len(CLASSES))


# --- Seconds per step ------------------------------------------------------------------------------------------------


def time_steps(options: argparse.Namespace) -> None:
    """Time steps of both sides, with what each does to its images, in interleaved rounds."""
    arguments = our_arguments(options, options.output / "time-ours", 0)
    peer, _ = transformers_trainer(options, arguments, options.output / "time-transformers", 0, 1000)
    splits = load_images(str(write_parquet(options)))
    model, processor, _ = build_model(arguments.model, list(CLASSES))
    our_trainer, _ = Classification(arguments).build_trainer(Built(model, processor, []), splits, StopSignal())
    steps: dict[str, list[float]] = {"ours": [], "transformers": []}
    loops = {}
    for side, trainer in (("ours", our_trainer), ("transformers", peer)):
        loops[side] = stepping(trainer)
        next(loops[side])  # the first step allocates
    for _ in range(options.rounds):
        for side, loop in loops.items():
            began = time.perf_counter()
            for _ in range(5):
                next(loop)
            steps[side].append((time.perf_counter() - began) / 5)
    batch = arguments.training.per_device_train_batch_size
    result = {side: statistics.median(seconds) for side, seconds in steps.items()}
    for side, seconds in steps.items():
        print(
            f"{side:<13} {1000 * result[side]:.0f} ms per step of {batch} images "
            f"({1000 * min(seconds):.0f} to {1000 * max(seconds):.0f}), {batch / result[side]:.0f} images/s"
        )
    (options.output / "seconds.json").write_text(json.dumps(result) + "\n", "utf-8")


def stepping(trainer: transformers.Trainer):
    """Steps of a trainer, one at a time, in the middle of its schedule."""
    trainer.create_optimizer_and_scheduler(trainer.args.max_steps)
    trainer.state.max_steps, trainer.state.global_step = trainer.args.max_steps, trainer.args.max_steps // 2
    trainer.current_gradient_accumulation_steps = 1
    while True:
        for batch in trainer.get_train_dataloader():
            batch.pop(UNREADABLE, None)
            trainer.training_step(trainer.model, batch, torch.tensor(len(batch["labels"])))
            torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
            trainer.optimizer.step()
            trainer.model.zero_grad()
            yield


# --- The runs --------------------------------------------------------------------------------------------------------


def train_both(options: argparse.Namespace) -> None:
    """Train both sides with every seed; a run that is there already is not repeated."""
    seconds = json.loads((options.output / "seconds.json").read_text("utf-8"))
    peer_steps = int(60 * options.minutes / seconds["transformers"])
    for seed, side in itertools.product(options.seeds, options.sides):
        output = options.output / f"{side}-{seed}"
        if (output / "curve.json").exists():
            continue
        print(f"{side}, seed {seed} …", flush=True)
        arguments = our_arguments(options, output, seed)
        if side == "ours":
            train(arguments)
            state = json.loads((output / "trainer_state.json").read_text("utf-8"))
            history = [
                (entry["step"], entry["eval_validation_accuracy"])
                for entry in state["log_history"]
                if "eval_validation_accuracy" in entry
            ]
            operations = state["total_flos"] / state["global_step"]
            if arguments.training.muon_learning_rate is not None:
                operations += muon_operations(build_model(arguments.model, list(CLASSES))[0])
        else:
            trainer, ours = transformers_trainer(options, arguments, output, seed, peer_steps)
            trainer.train(resume_from_checkpoint=any(output.glob("checkpoint-*")))
            history = [
                (entry["step"], entry["eval_accuracy"])
                for entry in trainer.state.log_history
                if "eval_accuracy" in entry
            ]
            size = ours.config.image_size
            batch = torch.empty(trainer.args.per_device_train_batch_size, 3, size, size)
            operations = ours.floating_point_ops({"pixel_values": batch})
        curve = {"operations_per_step": operations, "seconds_per_step": seconds[side]}
        curve["accuracy"] = history
        (output / "curve.json").write_text(json.dumps(curve) + "\n", "utf-8")
        print(f"{side}, seed {seed}: {history[-1][1]:.2%}", flush=True)


def muon_operations(model: ViTScratchForImageClassification) -> int:
    """Those of a step of Muon, which `total_flos` leaves out: for each matrix five times three products."""
    depths, stacked = model.layer_depths(), model.stacked_matrices()
    operations = 0
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and 0 < depths[name] < max(depths.values()):
            matrices = stacked.get(name, 1)
            short, long = sorted((weight.shape[0] // matrices, weight.shape[1]))
            operations += matrices * 5 * (4 * short**2 * long + 2 * short**3)
    return operations


# --- What came out ---------------------------------------------------------------------------------------------------


def draw(options: argparse.Namespace) -> None:
    """Print what each side needed to reach what transformers' side ended with, and draw the curves."""
    from matplotlib.figure import Figure

    curves = {
        side: [
            json.loads((options.output / f"{side}-{seed}" / "curve.json").read_text("utf-8"))
            for seed in options.seeds
            if (options.output / f"{side}-{seed}" / "curve.json").exists()
        ]
        for side in options.sides
    }
    finals = {side: [curve["accuracy"][-1][1] for curve in runs] for side, runs in curves.items()}
    for side, values in finals.items():
        print(f"{side:<13} ends at {statistics.mean(values):.2%} ({min(values):.2%} to {max(values):.2%})")
    goal = statistics.mean(finals["transformers"])
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    needed: dict[tuple[str, str], float] = {}
    for axes, (unit, per_step) in zip(panels, units(), strict=True):
        for side, runs in curves.items():
            steps = np.array([step for step, _ in runs[0]["accuracy"]])
            amounts = steps * per_step(runs[0])
            accuracies = np.array([[accuracy for _, accuracy in run["accuracy"]] for run in runs])
            mean = accuracies.mean(0)
            axes.plot(amounts, 100 * mean, marker=".", label=side)
            axes.fill_between(amounts, 100 * accuracies.min(0), 100 * accuracies.max(0), alpha=0.2)
            reached = np.flatnonzero(mean >= goal)
            needed[unit, side] = float(amounts[reached[0]]) if len(reached) else float("nan")
            print(f"{side:<13} reaches {goal:.2%} after {needed[unit, side]:.3g} {unit}")
        print(f"ratio         {needed[unit, 'ours'] / needed[unit, 'transformers']:.2f} of the {unit}")
        axes.axhline(100 * goal, color="grey", linewidth=0.8)
        axes.set(xlabel=unit)
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="accuracy, %", title="CIFAR-10's cats and dogs, the same small ViT")
    panels[1].legend()
    figure.savefig(options.output / "curves.png", dpi=120)
    print(f"picture       {options.output / 'curves.png'}")


def units():
    """What a step costs, in each unit."""
    return (
        ("minutes of training", lambda run: run["seconds_per_step"] / 60),
        ("PFLOP of training", lambda run: run["operations_per_step"] / 1e15),
    )


if __name__ == "__main__":
    main()
