# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The folder of a run: may it be written, where does an interrupted run go on, and the checkpoint at the end."""

import json
import os
import shutil
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from transformers import Trainer

from .arguments import TrainingArguments
from .columns import listed
from .images import read_image
from .report import draw_training
from .training_card import FinishedRun, write_model_card

INCOMPLETE = ".incomplete"
PICTURE = "training.png"
RECIPE = "recipe.yaml"
SAMPLE = "sample.png"
SAMPLE_SIZE = (512, 512)
STATE = "trainer_state.json"  # transformers' name
# What a run may leave in its folder; anything else there is not ours to delete.
RUN_FILES = (
    "README.md",
    "all_results.json",
    "checkpoint-*",
    "config.json",
    "*_vit_scratch.py",
    "model*.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "runs",
    INCOMPLETE,
    PICTURE,
    RECIPE,
    SAMPLE,
    STATE,
)


def resume_point(arguments: TrainingArguments) -> str | None:
    """The checkpoint that `resume_from_checkpoint` asks for, if it does: a folder, or with `true` the last of the run.

    Raises:
        ValueError: if there is none from which training can go on.
    """
    resume = arguments.resume_from_checkpoint
    if resume is None or str(resume).lower() == "false":
        return None
    if str(resume).lower() != "true":
        if not _can_go_on(Path(resume)):
            raise ValueError(f"{resume} is no checkpoint to resume from: name a folder checkpoint-<step> of a run.")
        return str(resume)
    checkpoints = [path for path in Path(arguments.output_dir or "").glob("checkpoint-[0-9]*") if _can_go_on(path)]
    if not checkpoints:
        raise ValueError(
            f"{arguments.output_dir} holds no checkpoint to resume from; leave out --resume_from_checkpoint."
        )
    return str(max(checkpoints, key=lambda path: int(path.name.split("-")[1])))


def _can_go_on(checkpoint: Path) -> bool:
    """Whether a folder holds a state of training; it is written last, so an interrupted checkpoint has none."""
    return all((checkpoint / name).is_file() for name in ("scheduler.pt", STATE))


def check_same_labels(checkpoint: str, label_names: list[str]) -> None:
    """Refuse to go on from a checkpoint with other classes than those of the data.

    Raises:
        ValueError: with how many classes each has.
    """
    id2label = json.loads((Path(checkpoint) / "config.json").read_text(encoding="utf-8")).get("id2label", {})
    before = [label for _, label in sorted(id2label.items(), key=lambda item: int(item[0]))]
    if before != label_names:
        raise ValueError(
            f"{checkpoint} was trained on the {len(before)} classes {listed(before)}, and the data has the "
            f"{len(label_names)} classes {listed(label_names)}: start anew, with --model {checkpoint} to fine-tune it."
        )


def check_output_dir(arguments: TrainingArguments) -> None:
    """Make sure, without writing anything, that the output folder can take this run.

    Raises:
        ValueError: if the folder cannot be written, holds another run that is not to be overwritten, or anything else.
    """
    output = Path(arguments.output_dir or "")
    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"the output folder {output} cannot be written: {error.strerror}.") from error
    names = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    if not names:
        return
    is_run = {RECIPE, STATE} <= set(names) or any(fnmatch(name, "checkpoint-*") or name == INCOMPLETE for name in names)
    if not is_run:
        raise ValueError(f"the output folder {output} is not empty: choose another --output_dir.")
    if not arguments.overwrite_output_dir:
        raise ValueError(
            f"the output folder {output} already holds a run: choose another --output_dir, "
            "--resume_from_checkpoint true to go on, or --overwrite_output_dir to start anew."
        )
    foreign = [name for name in names if not any(fnmatch(name, pattern) for pattern in RUN_FILES)]
    if foreign:
        raise ValueError(
            f"the output folder {output} is not overwritten: it holds {foreign[0]}, which no run wrote. Move that, or "
            "choose another --output_dir."
        )


def claim_output_dir(arguments: TrainingArguments) -> None:
    """Empty or make the output folder, which `check_output_dir` let through in every process."""
    output = Path(arguments.output_dir or "")
    arguments.distributed_state.wait_for_everyone()
    if arguments.process_index == 0:
        output.mkdir(parents=True, exist_ok=True)
        for path in output.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    arguments.distributed_state.wait_for_everyone()


def write_checkpoint(trainer: Trainer, run: FinishedRun, sample: Any) -> None:
    """Write the final checkpoint, whole or not at all, beside the checkpoints of the run.

    Everything is written into a folder of its own first and then moved; `config.json`, without which nothing loads,
    goes first and comes last.

    Args:
        trainer: after training.
        run: what the card says.
        sample: an image to try the checkpoint on, whatever `read_image` takes.
    """
    output = Path(str(trainer.args.output_dir))
    staging = output / INCOMPLETE
    if trainer.is_world_process_zero():
        shutil.rmtree(staging, ignore_errors=True)
    trainer.save_model(str(staging))
    if not trainer.is_world_process_zero():
        return
    (staging / "training_args.bin").unlink(missing_ok=True)  # a pickle; the recipe says the same
    (staging / RECIPE).write_text(yaml.safe_dump(run.recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
    (staging / "all_results.json").write_text(json.dumps(run.metrics, indent=2) + "\n", encoding="utf-8")
    trainer.state.save_to_json(str(staging / STATE))
    if run.results is not None:
        draw_training(trainer.state.log_history, run.results, staging / PICTURE)
    picture = read_image(sample)
    picture.thumbnail(SAMPLE_SIZE)
    picture.save(staging / SAMPLE)
    write_model_card(run, staging / "README.md")
    (output / "config.json").unlink(missing_ok=True)
    for path in sorted(staging.iterdir(), key=lambda path: path.name == "config.json"):
        os.replace(path, output / path.name)
    staging.rmdir()
