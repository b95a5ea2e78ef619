# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a training run tells a person: the plan before it starts, and a line per epoch."""

import math
import time
from typing import Any

import numpy as np
from datasets import DatasetDict
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_utils import SchedulerType

from ..data.streaming import ImageStream
from ..hub.cards import describe
from ..system.machine import idle_gpus
from ..text import counted, show
from .training_arguments import TrainingArguments

# Class counts on one line up to this many classes; beyond, their range.
MOST_CLASSES_LISTED = 12
# Share of the time of training above which waiting for images is worth a hint.
MOST_WAITING = 0.1


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
    idle = idle_gpus(arguments.device.type)
    batches = len(trainer.train_dataset.batches(arguments.train_batch_size, arguments.world_size))
    return [
        f"model      {type(model).__name__}: depth {config.num_hidden_layers}, width {config.hidden_size}, "
        f"{config.num_attention_heads} heads, {'pre' if config.norm_first else 'post'}-norm; "
        f"{model.num_parameters():,} parameters, {trained:,} trained",
        f"device     {arguments.device}{processes}, {_precision(arguments)}, {config._attn_implementation} attention",
        *([f"GPUs       {idle}"] if idle else []),
        f"images     {describe(trainer.processing_class)}",
        f"training   {', '.join(varied) or 'images not varied'}",
        *(split_line(name, dataset, arguments) for name, dataset in splits.items()),
        f"schedule   {_duration(arguments, batches)} in batches of {batch:,}, learning rate "
        f"{arguments.learning_rate:g} ({SchedulerType(arguments.lr_scheduler_type).value})",
        f"output     {arguments.output_dir}",
    ]


def _precision(arguments: TrainingArguments) -> str:
    # Not `arguments.bf16`: a launcher can ask for it, too.
    return "fp32" if arguments.mixed_precision == "no" else f"{arguments.mixed_precision} mixed precision"


def _duration(arguments: TrainingArguments, batches: int) -> str:
    if arguments.max_steps > 0:
        return f"{arguments.max_steps:,} step{'s' * (arguments.max_steps != 1)}"
    steps = math.ceil(arguments.num_train_epochs * math.ceil(batches / arguments.gradient_accumulation_steps))
    epochs = f"{arguments.num_train_epochs:g} epoch{'s' * (arguments.num_train_epochs != 1)}"
    return f"{epochs}, {steps:,} step{'s' * (steps != 1)}"


def split_line(name: str, dataset: Any, arguments: TrainingArguments) -> str:
    """How many images a split has, and of which classes."""
    names = dataset.features["label"].names if "label" in dataset.features else []
    if isinstance(dataset, ImageStream):
        classes = f" of {counted(len(names), 'class')}" if names else ""
        return f"{name:<10} {counted(dataset.num_rows, 'image')}{classes}, {dataset.described(arguments.world_size)}"
    if not names:
        return f"{name:<10} {counted(dataset.num_rows, 'image')}"
    counts = np.bincount(np.asarray(dataset["label"][:]), minlength=len(names))
    if len(names) <= MOST_CLASSES_LISTED:
        classes = ", ".join(f"{label} {count:,}" for label, count in zip(names, counts, strict=True))
    else:
        fewest, most = counts.min(), counts.max()
        each = counted(most, "image") if fewest == most else f"{fewest:,} to {most:,} images"
        classes = f"{len(names):,} classes of {each} each"
    return f"{name:<10} {counted(dataset.num_rows, 'image')}: {classes}"


class EpochReport(TrainerCallback):
    """A progress bar while it trains, on a terminal, and a line at each validation, or without one at each log."""

    def __init__(self, num_images: int):
        self.num_images = num_images  # of the train split
        self.bar: tqdm | None = None
        self.train_loss: float | None = None
        self.waited = 0.0  # seconds, since the last line
        self.unreadable: set[str] = set()
        self.advised = False  # of more workers: once is enough

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
                    show([f"left out   {sentence}"])

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
            if self.waited / seconds > MOST_WAITING and not self.advised:
                self.advised = True
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
