# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints in the middle of a run: each is whole or not there, whenever the process is killed."""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers.trainer_callback import ExportableState

from ..system.folders import delete, open_to_others
from .run_folder import INCOMPLETE_CHECKPOINT, STATE, checkpoints_in, rotate_checkpoints
from .training_arguments import TrainingArguments

if TYPE_CHECKING:
    from .trainer import ViTTrainer

# The trained weights of a checkpoint whose `model.safetensors` holds their average.
TRAINED_WEIGHTS = "trained_weights.safetensors"


def save_checkpoint(trainer: "ViTTrainer") -> None:
    """Write a checkpoint beside its place, in all processes, and move it there when it is whole.

    Raises:
        ValueError: if it cannot be written; earlier ones stay.
    """
    step, output = trainer.state.global_step, Path(str(trainer.args.output_dir))
    incomplete = output / f"{INCOMPLETE_CHECKPOINT}-{step}"
    if trainer.args.should_save:
        shutil.rmtree(incomplete, ignore_errors=True)
    trainer.store_flos()
    try:
        _write(trainer, incomplete)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(incomplete, ignore_errors=True)
        raise ValueError(
            f"the checkpoint of step {step} could not be written to {output}: "
            f"{getattr(error, 'strerror', None) or error}. {what_is_kept(trainer.args)} Make room and run the same "
            "command to go on."
        ) from error
    trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        delete(output / f"checkpoint-{step}")  # of a run that was resumed from an earlier one
        os.replace(incomplete, output / f"checkpoint-{step}")
        rotate_checkpoints(
            output_dir=str(output),
            save_total_limit=trainer.save_total_limit,
            best_model_checkpoint=trainer.state.best_model_checkpoint,
        )
    trainer.accelerator.wait_for_everyone()


def _write(trainer: "ViTTrainer", folder: Path) -> None:
    state = trainer.state
    with nullcontext() if trainer.average is None else trainer.average.in_place():
        trainer.save_model(str(folder), _internal_call=True)
        trainer._save_optimizer_and_scheduler(str(folder))
        trained = {} if trainer.average is None else trainer.average.state_dict()  # all processes gather it
        if trained and trainer.args.should_save:
            save_file(trained, trained_weights(folder))
    trainer._save_scaler(str(folder))
    trainer._save_rng_state(str(folder))
    if state.best_global_step:  # in every process: each loads it at the end
        best = Path(str(trainer.args.output_dir)) / f"checkpoint-{state.best_global_step}"
        if best.exists() or state.best_global_step == state.global_step:
            state.best_model_checkpoint = str(best)
    if not trainer.args.should_save:
        return
    for callback in [*trainer.callback_handler.callbacks, trainer.control]:
        if isinstance(callback, ExportableState):
            states: Any = state.stateful_callbacks
            states[type(callback).__name__] = callback.state()
    state.save_to_json(str(folder / STATE))
    open_to_others(folder)


def trained_weights(folder: str | Path) -> Path:
    """Where a checkpoint has the trained weights, if the model in it is their average."""
    return Path(folder) / TRAINED_WEIGHTS


def what_is_kept(arguments: TrainingArguments) -> str:
    """Which checkpoint a run that fails can go on from, as a sentence."""
    checkpoints = checkpoints_in(Path(str(arguments.output_dir)))
    return f"The last checkpoint is {checkpoints[-1]}." if checkpoints else "There is no checkpoint yet."
