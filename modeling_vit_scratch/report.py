# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a training run tells a person: the plan before it starts, a line per epoch, the results, one picture."""

import math
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_utils import SchedulerType

from .arguments import TrainingArguments
from .card import describe
from .images import read_image
from .metrics import confusion_matrix, per_class_report
from .streaming import ImageStream

# Class counts on one line up to this many classes; beyond, their range.
MOST_CLASSES_LISTED = 12
SAMPLES_SHOWN = 12
# Share of the time of training above which waiting for images is worth a hint.
MOST_WAITING = 0.1
ALL = "all"  # in place of a split's name: images that no split divides
LONGEST_DRAWN = 20  # characters of a class name


@dataclass
class SplitResults:
    """A split with what the model made of it: `logits` (B, K) and `labels` (B,)."""

    name: str
    dataset: Dataset
    logits: np.ndarray
    labels: np.ndarray
    left_out: list[str] = field(default_factory=list)  # a sentence for each image that could not be read

    @property
    def label_names(self) -> list[str]:
        """The K classes in the order of the logits."""
        return self.dataset.features["label"].names

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits: (B, K)."""
        return torch.from_numpy(self.logits).float().softmax(-1).numpy()


def plan(trainer: Any, splits: DatasetDict, varied: list[str]) -> list[str]:
    """What the run is about to do, a line for each thing that a user may want to stop it for.

    Args:
        trainer: a `ViTTrainer`.
        splits: of the run.
        varied: a phrase for each way in which training images are varied.
    """
    model, arguments = trainer.model, trainer.args
    config = model.config
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    processes = f" x {arguments.world_size} processes" if arguments.world_size > 1 else ""
    batch = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    batches = len(trainer.train_dataset.batches(arguments.train_batch_size, arguments.world_size))
    return [
        f"model      {type(model).__name__}: depth {config.num_hidden_layers}, width {config.hidden_size}, "
        f"{config.num_attention_heads} heads, {'pre' if config.norm_first else 'post'}-norm; "
        f"{model.num_parameters():,} parameters, {trained:,} trained",
        f"device     {arguments.device}{processes}, {_precision(arguments)}, {config._attn_implementation} attention",
        f"images     {describe(trainer.processing_class)}",
        f"training   {', '.join(varied) or 'images not varied'}",
        *(_split_line(name, dataset, arguments) for name, dataset in splits.items()),
        f"schedule   {_duration(arguments, batches)} in batches of {batch}, learning rate {arguments.learning_rate:g} "
        f"({SchedulerType(arguments.lr_scheduler_type).value})",
        f"output     {arguments.output_dir}",
    ]


def _precision(arguments: TrainingArguments) -> str:
    # Not `arguments.bf16`: a launcher can ask for it, too.
    return "fp32" if arguments.mixed_precision == "no" else f"{arguments.mixed_precision} mixed precision"


def _duration(arguments: TrainingArguments, batches: int) -> str:
    if arguments.max_steps > 0:
        return f"{arguments.max_steps:,} steps"
    steps = math.ceil(arguments.num_train_epochs * math.ceil(batches / arguments.gradient_accumulation_steps))
    return f"{arguments.num_train_epochs:g} epochs, {steps:,} steps"


def _split_line(name: str, dataset: Any, arguments: TrainingArguments) -> str:
    names = dataset.features["label"].names if "label" in dataset.features else []
    if isinstance(dataset, ImageStream):
        classes = f" of {len(names)} classes" if names else ""
        return f"{name:<10} {dataset.num_rows:,} images{classes}, {dataset.described(arguments.world_size)}"
    if not names:
        return f"{name:<10} {dataset.num_rows:,} images"
    counts = np.bincount(np.asarray(dataset["label"][:]), minlength=len(names))
    if len(names) <= MOST_CLASSES_LISTED:
        classes = ", ".join(f"{label} {count:,}" for label, count in zip(names, counts, strict=True))
    else:
        classes = f"{len(names)} classes of {counts.min():,} to {counts.max():,}"
    return f"{name:<10} {dataset.num_rows:,} images: {classes}"


class EpochReport(TrainerCallback):
    """A progress bar while it trains, on a terminal, and a line at each validation, or without one at each log."""

    def __init__(self, num_images: int):
        self.num_images = num_images  # of the train split
        self.bar: tqdm | None = None
        self.train_loss: float | None = None
        self.waited = 0.0  # seconds, since the last line
        self.unreadable: set[str] = set()

    def on_train_begin(self, args, state, control, **kwargs):
        """Start the bar and the clocks."""
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", leave=False, disable=None)
        self.first_step, self.began = state.global_step, time.monotonic()
        self._start_stretch(state)

    def _start_stretch(self, state):
        """Time from here on what lies between two lines, without the validation."""
        self.last_epoch, self.last_line = state.epoch or 0, time.monotonic()
        self.trained_until, self.waited = self.last_line, 0.0

    def name_unreadable(self, sentences: list[str]) -> None:
        """Name each image that could not be read once, however often it is asked for."""
        for sentence in sentences:
            if sentence not in self.unreadable:
                self.unreadable.add(sentence)
                with tqdm.external_write_mode():
                    print(f"left out   {sentence}", flush=True)

    def on_step_end(self, args, state, control, **kwargs):
        """Move the bar."""
        self.trained_until = time.monotonic()
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Note the training loss."""
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        self.train_loss = loss
        if args.eval_strategy == "no":
            self._print_line(args, state, [])

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Print the line."""
        metrics = metrics or {}
        if "eval_validation_loss" in metrics:
            validation = [f"validation loss {metrics['eval_validation_loss']:.4f}"]
            if "eval_validation_accuracy" in metrics:
                validation += [f"validation accuracy {metrics['eval_validation_accuracy']:.2%}"]
            self._print_line(args, state, validation)

    def _print_line(self, args, state, validation: list[str]) -> None:
        parts = [f"epoch {round(state.epoch or 0, 2):g}/{state.num_train_epochs}"]
        if self.train_loss is not None:
            parts.append(f"train loss {self.train_loss:.4f}")
        parts += validation
        if self.trained_until > self.last_line:
            images = (state.epoch - self.last_epoch) * self.num_images
            seconds = self.trained_until - self.last_line
            parts.append(f"{images / seconds:,.0f} images/s")
            parts.append(f"{self.waited / seconds:.0%} waiting for images")
            if self.waited / seconds > MOST_WAITING:
                parts[-1] += f" (more --dataloader_num_workers than {args.dataloader_num_workers} may help)"
        steps = state.global_step - self.first_step
        if steps:
            left = (time.monotonic() - self.began) / steps * (state.max_steps - state.global_step)
            parts.append(f"{clock(left)} left")
        if state.is_world_process_zero:
            with tqdm.external_write_mode():
                print(*parts, sep="  ", flush=True)
        self._start_stretch(state)

    def on_train_end(self, args, state, control, **kwargs):
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def clock(seconds: float) -> str:
    """Seconds as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def results_lines(results: SplitResults | None, metrics: dict[str, float]) -> list[str]:
    """A table of the classes and the metrics of all splits, for a terminal."""
    lines = []
    if results is not None:
        rows = per_class_report(results.logits, results.labels, results.label_names)
        width = max(len("class"), *(len(row.label) for row in rows))
        which = "all" if results.name == ALL else f"{results.name} split,"
        lines += [f"{which} {results.dataset.num_rows:,} images:"]
        lines += [f"{'class':<{width}}  precision  recall      f1  images"]
        lines += [
            f"{row.label:<{width}}  {row.precision:>9.2%} {row.recall:>7.2%} {row.f1:>7.2%} {row.support:>7,}"
            for row in rows
        ]
        lines += [""]
    return lines + [f"{name:<40} {value:.4f}" for name, value in metrics.items()]


def draw_training(history: list[dict], results: SplitResults, path: Path) -> None:
    """Draw one picture of a run, a PNG: learning curves, confusion matrix, sample predictions.

    Args:
        history: `trainer.state.log_history`.
        results: the split that the matrix and the samples are of.
        path: where to write it.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False}), warnings.catch_warnings():  # a dollar in a class name is no formula
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # it draws a box
        figure = Figure(figsize=(15, 10), layout="constrained")
        grid = figure.add_gridspec(2, 1)
        top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
        losses, accuracies, matrix = top.subplots(1, 3)
        draw_losses(losses, history)
        _draw_curve(accuracies, history, "eval_validation_accuracy", "validation")
        accuracies.set(title="validation accuracy", xlabel="epoch")
        _draw_confusion(matrix, results)
        _draw_samples(bottom, results)
        figure.savefig(path, dpi=100)


def draw_losses(axes, history: list[dict]) -> None:
    """Draw the losses of a run, in training and in validation."""
    _draw_curve(axes, history, "loss", "train")
    _draw_curve(axes, history, "eval_validation_loss", "validation")
    axes.set(title="loss", xlabel="epoch")
    axes.legend()


def _draw_curve(axes, history: list[dict], key: str, label: str) -> None:
    points = [(entry["epoch"], entry[key]) for entry in history if key in entry]
    axes.plot([epoch for epoch, _ in points], [value for _, value in points], marker=".", label=label)
    axes.grid(alpha=0.3)


def _draw_confusion(axes, results: SplitResults) -> None:
    label_names = results.label_names
    counts = confusion_matrix(results.logits, results.labels, len(label_names))  # (K, K)
    axes.imshow(np.log1p(counts), cmap="Blues")
    axes.set(title=f"{results.name} images by class", xlabel="predicted", ylabel="true")
    if len(label_names) <= MOST_CLASSES_LISTED:
        short = [_short(name) for name in label_names]
        axes.set_xticks(range(len(short)), short, rotation=90 if max(map(len, short)) > 2 else 0)
        axes.set_yticks(range(len(short)), short)
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                shade = "white" if counts[row, column] > counts.max() / 4 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade, fontsize=8)


def _draw_samples(figure, results: SplitResults) -> None:
    """The mistakes that the model is surest of, then the other images from the first on."""
    probabilities, label_names = results.probabilities, [_short(name) for name in results.label_names]
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    order = np.lexsort((np.arange(len(predicted)), -confidence * (predicted != results.labels)))[:SAMPLES_SHOWN]
    half = SAMPLES_SHOWN // 2
    order = np.concatenate(
        [order[:half], np.setdiff1d(np.arange(len(predicted)), order[:half])[: SAMPLES_SHOWN - half]]
    )
    figure.suptitle(f"{results.name} images: the surest mistakes, if any, then the first ones")
    places = figure.subplots(2, SAMPLES_SHOWN // 2).flat
    for axes, index in zip(places, order, strict=False):  # a small split leaves places empty
        axes.imshow(read_image(results.dataset[int(index)]["image"]))
        right = predicted[index] == results.labels[index]
        title = f"{label_names[predicted[index]]} {confidence[index]:.0%}"
        if not right:
            title += f"\n(is {label_names[results.labels[index]]})"
        axes.set_title(title, color="darkgreen" if right else "crimson", fontsize=9)
    for axes in figure.axes:
        axes.set_axis_off()


def _short(name: str) -> str:
    """A class name that fits above a small image; names tend to differ at one of their ends."""
    return name if len(name) <= LONGEST_DRAWN else f"{name[: LONGEST_DRAWN - 8]}…{name[-7:]}"
