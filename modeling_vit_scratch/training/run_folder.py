# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The folder of a run: may it be written, where does an interrupted run go on, and the checkpoint at the end."""

import glob
import json
import logging
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from accelerate.utils import broadcast_object_list, gather_object
from transformers import Trainer, TrainerCallback

from ..data.columns import listed, one_form
from ..data.dataset_loading import is_image_folder
from ..data.images import read_image
from ..hub.pushing import STATE
from ..presets import is_preset
from ..system.folders import SET_ASIDE, check_not_an_input, delete, lies_in, open_to_others
from ..system.locking import locked
from ..text import counted
from .finetuning import ADAPTER
from .run_card import FinishedRun, write_model_card
from .training_arguments import TrainingArguments
from .vetting import settings_of_others

logger = logging.getLogger(__name__)
CHECKED = "checked_images.npy"
INCOMPLETE = ".incomplete"
INCOMPLETE_CHECKPOINT = ".incomplete-checkpoint"
LOCK = f"{INCOMPLETE}-lock"
PICTURE = "training.png"
RECIPE = "recipe.yaml"
OVERWRITTEN = f"{INCOMPLETE}-overwritten"  # what is about to be deleted
SAMPLE = "sample.png"
SAMPLE_SIZE = (512, 512)
HOLDS = "is training in the output folder {}: wait for it, stop it, or choose another --output_dir."
# Seconds after which a network file system shows to one machine what another one wrote.
SLOWEST_DISK = 60.0
# What a run may leave in its folder; anything else there is not ours to delete.
RUN_FILES = (
    "README.md",
    "all_results.json",
    "checkpoint-*",
    "config.json",
    "*_vit_scratch.py",
    "*_vivit_scratch.py",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "runs",
    ADAPTER,
    CHECKED,
    INCOMPLETE,
    f"{INCOMPLETE}-{PICTURE}",
    f"{INCOMPLETE_CHECKPOINT}-*",
    f"{LOCK}*",
    PICTURE,
    RECIPE,
    SAMPLE,
    OVERWRITTEN,
    SET_ASIDE,
    STATE,
)


# Settings that say which optimizer there is, and what of them does.
OPTIMIZER: dict[str, Callable[[Any], Any]] = {
    "optim": lambda name: name,
    "muon_learning_rate": lambda rate: rate is None,
    "layer_decay": lambda decay: decay in (None, 1),
}
CHECKPOINT = re.compile(r"checkpoint-([0-9]+)")


def resume_point(arguments: TrainingArguments, recipe: dict[str, Any]) -> str | None:
    """The checkpoint at which training begins, if there is one.

    A run that was interrupted goes on from its last whole checkpoint when the same command is given again;
    `resume_from_checkpoint` names another checkpoint, insists on the last (`true`) or declines (`false`).

    Args:
        arguments: with the output folder.
        recipe: the settings of this run.

    Raises:
        ValueError: if the checkpoint asked for is none from which training can go on, or the output folder holds an
            interrupted run with other settings.
    """
    resume, output = arguments.resume_from_checkpoint, Path(arguments.output_dir or "")
    if str(resume).lower() == "false" or (resume is None and arguments.overwrite_output_dir):
        return None
    if resume is not None and str(resume).lower() != "true":
        if not _can_go_on(Path(resume)):
            raise ValueError(f"{resume} is no checkpoint to resume from: name a folder checkpoint-<step> of a run.")
        return str(resume)
    checkpoints = [path for path in checkpoints_in(output) if _can_go_on(path)]
    last = str(checkpoints[-1]) if checkpoints else None
    if resume is None:
        return last if _was_interrupted(output, recipe) else None
    if last is None:
        raise ValueError(
            f"{arguments.output_dir} holds no checkpoint to resume from; leave out --resume_from_checkpoint."
        )
    return last


def _was_interrupted(output: Path, recipe: dict[str, Any]) -> bool:
    """Whether a folder holds a run with these settings that did not end.

    Raises:
        ValueError: if it holds one with others.
    """
    before = _begun(output)
    if before is None or (output / "config.json").exists():
        return False
    changed = [
        f"{name} {before.get(name, 'not given')}, now {recipe.get(name, 'not given')}"
        for name in sorted({*before, *recipe})
        if before.get(name) != recipe.get(name)
    ]
    if changed and any(map(_can_go_on, checkpoints_in(output))):  # without one there is nothing to lose
        raise ValueError(
            f"the output folder {output} holds an interrupted run with other settings ({'; '.join(changed)}): "
            "--resume_from_checkpoint true goes on with the new ones, --overwrite_output_dir starts anew."
        )
    return True


def _begun(output: Path) -> dict[str, Any] | None:
    """The recipe of the run that was begun in a folder, if one was, and nothing else is there."""
    if not (output / RECIPE).is_file() or _foreign(output):
        return None
    try:
        recipe = yaml.safe_load((output / RECIPE).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    return recipe if isinstance(recipe, dict) and {"model", "data"} <= recipe.keys() else None


def _foreign(output: Path) -> list[str]:
    """What lies in a folder that no run writes."""
    return [name for name in sorted(os.listdir(output)) if not _is_ours(name)]


def _is_ours(name: str) -> bool:
    """Whether a name is one that a run gives; `checkpoint-best` is a copy that somebody keeps."""
    if name.startswith("checkpoint-"):
        return CHECKPOINT.fullmatch(name) is not None
    return any(fnmatch(name, pattern) for pattern in RUN_FILES)


def _can_go_on(checkpoint: Path) -> bool:
    """Whether a folder holds a state of training; it is written last, so an interrupted checkpoint has none."""
    return all((checkpoint / name).is_file() for name in ("scheduler.pt", STATE))


def checkpoints_in(output: Path) -> list[Path]:
    """The checkpoints of a run in their order; `checkpoint-7-copy`, which transformers takes for one, is somebody's."""
    found = {path: CHECKPOINT.fullmatch(path.name) for path in output.glob("checkpoint-*")}
    steps = {path: int(match[1]) for path, match in found.items() if match is not None}
    return sorted(steps, key=steps.__getitem__)


def rotate_checkpoints(output_dir: str, save_total_limit: int | None, best_model_checkpoint: str | None) -> None:
    """Delete the oldest checkpoints of a run beyond a number of them, but for the best one and the last."""
    checkpoints = checkpoints_in(Path(output_dir))
    if not checkpoints or (save_total_limit or 0) <= 0:
        return
    kept = {checkpoints[-1], Path(best_model_checkpoint or "")}
    others = [path for path in checkpoints if path not in kept]
    most = max(save_total_limit or 0, len(checkpoints) - len(others))
    for path in others[: max(len(checkpoints) - most, 0)]:
        delete(path)


def keep_the_best(output_dir: str, best_model_checkpoint: str | None) -> None:
    """Delete the checkpoints of a run that has ended, but for the best one; all stay if that is not among them."""
    checkpoints = checkpoints_in(Path(output_dir))
    best = Path(best_model_checkpoint or "").resolve()
    if best in [path.resolve() for path in checkpoints]:
        for path in checkpoints:
            if path.resolve() != best:
                delete(path)


def check_same_labels(checkpoint: str, label_names: list[str]) -> None:
    """Refuse to go on from a checkpoint with other classes than those of the data.

    Raises:
        ValueError: with how many classes each has.
    """
    id2label = json.loads((Path(checkpoint) / "config.json").read_text(encoding="utf-8")).get("id2label", {})
    before = [label for _, label in sorted(id2label.items(), key=lambda item: int(item[0]))]
    if [one_form(label) for label in before] != [one_form(label) for label in label_names]:
        raise ValueError(
            f"{checkpoint} was trained on the {counted(len(before), 'class')} {listed(before)}, and the data has the "
            f"{counted(len(label_names), 'class')} {listed(label_names)}: start anew in another --output_dir, with "
            f"--model {checkpoint} to fine-tune it."
        )


def check_same_optimizer(checkpoint: str, recipe: dict[str, Any]) -> None:
    """Refuse to go on with another optimizer than that whose state a checkpoint holds.

    Raises:
        ValueError: with the setting that differs.
    """
    before = _begun(Path(checkpoint).parent)
    for name, kind in OPTIMIZER.items():
        if before is not None and kind(before.get(name)) != kind(recipe.get(name)):
            raise ValueError(
                f"{checkpoint} was trained with {name} {before.get(name, 'not given')}, and now it is "
                f"{recipe.get(name, 'not given')}: the state of one optimizer is none of another. Give the same, or "
                f"begin another run with --model {checkpoint}."
            )


def check_output_dir(arguments: TrainingArguments, recipe: dict[str, Any], checkpoint: str | None) -> None:
    """Make sure, without writing anything, that the output folder can take this run.

    It can if there is nothing in it, or the checkpoint from which this run goes on, or what this very run left when it
    was interrupted before its first one.

    Raises:
        ValueError: if the folder cannot be written, holds the model or the data, another run that is not to be
            overwritten, or anything else.
    """
    output = Path(arguments.output_dir or "")
    check_not_an_input(output, _inputs(recipe))
    _check_place(output, str(recipe["data"]))
    if checkpoint is not None and Path(checkpoint).resolve().parent == output.resolve():
        return
    names = {path.name for path in output.iterdir()} if output.is_dir() else set()
    names = {name for name in names if not name.startswith(LOCK)}  # a run may have been killed before all else
    if not names:
        return
    is_run = {RECIPE, STATE} <= names or any(name.startswith(("checkpoint-", INCOMPLETE)) for name in names)
    if not is_run and _begun(output) is None:
        raise ValueError(f"the output folder {output} is not empty: choose another --output_dir.")
    if not arguments.overwrite_output_dir:
        if arguments.resume_from_checkpoint is None and _was_interrupted(output, recipe):
            return
        raise ValueError(
            f"the output folder {output} already holds a run: choose another --output_dir, "
            "--resume_from_checkpoint true to go on, or --overwrite_output_dir to start anew."
        )
    foreign = _foreign(output)
    if foreign:
        raise ValueError(
            f"the output folder {output} is not overwritten: it holds {foreign[0]}, which no run wrote. Move that, or "
            "choose another --output_dir."
        )


def _check_place(output: Path, data: str) -> None:
    """Refuse an output folder that cannot be made or written, or that would become a part of the data.

    Raises:
        ValueError: with what is wrong.
    """
    places = (output, *output.absolute().parents)
    if any(path.is_symlink() and not path.exists() for path in places):
        how = "is" if output.is_symlink() else "lies below"
        raise ValueError(
            f"the output folder {output} {how} a link to something that does not exist: mend the link, or choose "
            "another --output_dir."
        )
    if data != "digits" and is_image_folder(data) and lies_in(output, Path(data).expanduser()):
        raise ValueError(
            f"the output folder {output} lies in the data folder {data}, where it could be taken for a class: choose "
            "another --output_dir."
        )
    try:
        with tempfile.TemporaryFile(dir=next(path for path in places if path.exists())):
            pass
    except OSError as error:
        raise ValueError(f"the output folder {output} cannot be written: {error.strerror}.") from error


def _inputs(recipe: dict[str, Any]) -> list[str]:
    """The files and folders that the model and the data of a run may be."""
    model, data = str(recipe["model"]), os.path.expanduser(str(recipe["data"]))
    return [
        *([] if is_preset(model) else [model]),
        *([] if data == "digits" else [data, *glob.glob(data)]),
    ]


@contextmanager
def claimed_output_dir(trainer: Trainer, recipe: dict[str, Any], *, keep: bool) -> Iterator[None]:
    """Make the output folder or empty it, note in it which run it belongs to, and keep other runs out meanwhile.

    What was there is set aside until a step is made: what fails before leaves the folder as it was.

    Args:
        trainer: with the output folder, which `check_output_dir` let through in every process.
        recipe: the settings of this run.
        keep: leave the checkpoints that are there, to go on from them.

    Raises:
        ValueError: if the processes are on machines that do not see the same folder, or another run is going on in it.
    """
    arguments: Any = trainer.args
    output = Path(arguments.output_dir or "")
    missing = _missing(output)
    first_step = _FirstStep(output / SET_ASIDE)
    trainer.add_callback(first_step)
    arguments.distributed_state.wait_for_everyone()
    try:
        _check_shared(arguments)
        lock = locked(output / LOCK, arguments.distributed_state, HOLDS.format(output))
        with lock, _cleared(arguments, recipe, keep, first_step):
            yield
    except BaseException as error:
        if first_step.made:
            raise
        if arguments.process_index == 0:
            _remove_folders(missing)
        with settings_of_others():
            raise error


@contextmanager
def _cleared(
    arguments: TrainingArguments, recipe: dict[str, Any], keep: bool, first_step: "_FirstStep"
) -> Iterator[None]:
    """The folder, which this run has to itself, with the recipe; as it was if there is an error before a step."""
    output, kept = Path(arguments.output_dir or ""), set[str]()
    if arguments.process_index == 0:
        _set_aside(output, keep)
        kept = set(os.listdir(output))
        write_recipe(recipe, output / INCOMPLETE)
        os.replace(output / INCOMPLETE, output / RECIPE)
    arguments.distributed_state.wait_for_everyone()
    try:
        yield
    except BaseException:
        if arguments.process_index == 0 and not first_step.made:
            _take_back(output, kept)
        raise
    first_step.settle(arguments)  # where there was no step left to make


class _FirstStep(TrainerCallback):
    """Whether a step was made; then what the folder held before is deleted."""

    def __init__(self, old: Path):
        self.old = old
        self.made = False

    def on_step_end(self, args, state, control, **kwargs):
        self.settle(args)

    def settle(self, arguments: Any) -> None:
        if not self.made and arguments.process_index == 0 and self.old.exists():
            gone = self.old.with_name(OVERWRITTEN)
            os.replace(self.old, gone)  # who is killed while it is deleted does not find a half of it
            delete(gone)
        self.made = True


@contextmanager
def no_output_dir(arguments: TrainingArguments) -> Iterator[None]:
    """Take away the output folder that transformers' `Trainer` makes before it is known if there will be a run."""
    output = Path(arguments.output_dir or "")
    missing = _missing(output)
    try:
        yield
    finally:
        if arguments.process_index == 0:
            _remove_folders(missing)


def _missing(output: Path) -> list[Path]:
    """The folders that have to be made for a folder, itself first."""
    return [path for path in (output, *output.absolute().parents) if not path.exists()]


def _take_back(output: Path, kept: set[str]) -> None:
    """Delete what a run that never began wrote into its folder, and put back what it set aside."""
    for path in list(output.iterdir()):
        if _is_ours(path.name) and path.name not in kept:
            delete(path)
    _put_back(output)


def restore(arguments: TrainingArguments) -> None:
    """Put back the run that a start had set aside which was killed before its first step, and say so.

    Raises:
        ValueError: if that start is going on.
    """
    output, state = Path(arguments.output_dir or ""), arguments.distributed_state
    (found,) = broadcast_object_list([(output / SET_ASIDE).is_dir()])
    if not found or state is None:
        return
    with locked(output / LOCK, state, HOLDS.format(output)):
        if arguments.process_index == 0:
            _restore(output)
            logger.warning("%s: the run that was here before a start that was killed is put back.", output)


def _restore(output: Path) -> None:
    aside = {path.name for path in (output / SET_ASIDE).iterdir()}
    # The recipe of the killed start is written when all is set aside; what is beside it then is that start's.
    if aside > {RECIPE} and (output / RECIPE).is_file():
        for path in list(output.iterdir()):
            if _is_ours(path.name) and path.name != SET_ASIDE and not path.name.startswith(LOCK):
                delete(path)
    _put_back(output)


def _put_back(output: Path) -> None:
    """Move what was set aside to where it was."""
    for path in list((output / SET_ASIDE).iterdir()):
        if (output / path.name).exists():
            delete(output / path.name)
        os.replace(path, output / path.name)
    (output / SET_ASIDE).rmdir()


def _remove_folders(made: list[Path]) -> None:
    for path in made:
        with suppress(OSError):  # somebody else uses it by now
            path.rmdir()


def _set_aside(output: Path, keep: bool) -> None:
    """Move what this run does not go on from out of its way."""
    for path in list(output.iterdir()):
        if path.name.startswith(INCOMPLETE) and path.name != LOCK:
            delete(path)
    (output / SET_ASIDE).mkdir()
    for path in list(output.iterdir()):
        if path.name == RECIPE or (_is_ours(path.name) and not keep and path.name not in (LOCK, SET_ASIDE)):
            os.replace(path, output / SET_ASIDE / path.name)


def _check_shared(arguments: TrainingArguments) -> None:
    """Make the output folder in process 0, and see whether it is there for all: checkpoints are written by some.

    Raises:
        ValueError: in all processes, if it is not.
    """
    output = Path(arguments.output_dir or "")
    (name,) = broadcast_object_list([f"{LOCK}-{uuid.uuid4()}"])
    if arguments.process_index == 0:
        output.mkdir(parents=True, exist_ok=True)
        (output / name).touch()
    arguments.distributed_state.wait_for_everyone()
    patience = time.monotonic() + SLOWEST_DISK
    while not (output / name).exists() and time.monotonic() < patience:
        time.sleep(0.1)
    seen = gather_object([(output / name).exists()])
    if arguments.process_index == 0:
        (output / name).unlink()
    if not all(seen):
        raise ValueError(
            f"the output folder {output} is not one and the same on all machines: choose an --output_dir on a disk "
            "that they share."
        )


def write_recipe(recipe: dict[str, Any], path: Path) -> None:
    """Write the settings of a run as the recipe that repeats it."""
    path.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")


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
    trainer.save_model(str(staging), _internal_call=True)  # or transformers would publish what is there
    if not trainer.is_world_process_zero():
        return
    (staging / "training_args.bin").unlink(missing_ok=True)  # a pickle; the recipe says the same
    write_recipe(run.recipe, staging / RECIPE)
    (staging / "all_results.json").write_text(
        json.dumps(run.metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    trainer.state.save_to_json(str(staging / STATE))
    picture = read_image(sample)
    picture.thumbnail(SAMPLE_SIZE)
    picture.save(staging / SAMPLE)
    if run.adapter:
        (staging / ADAPTER).mkdir()
    for name, content in run.adapter.items():
        (staging / ADAPTER / name).write_bytes(content)
    write_model_card(run, staging / "README.md")
    open_to_others(staging)
    (output / "config.json").unlink(missing_ok=True)
    shutil.rmtree(output / ADAPTER, ignore_errors=True)  # of a run that was stopped right here
    for path in sorted(staging.iterdir(), key=lambda path: path.name == "config.json"):
        os.replace(path, output / path.name)
    (output / CHECKED).unlink(missing_ok=True)
    staging.rmdir()


def draw_picture(trainer: Trainer, draw: Callable[[Path], None] | None) -> list[str]:
    """Draw the picture of a run whose checkpoint is in place: nothing that goes wrong here takes that away.

    Args:
        trainer: that of `write_checkpoint`.
        draw: what draws the picture to a path, if there is to be one.

    Returns:
        A line that says why there is no picture, if it could not be drawn.
    """
    if draw is None or not trainer.is_world_process_zero():
        return []
    output = Path(str(trainer.args.output_dir))
    incomplete = output / f"{INCOMPLETE}-{PICTURE}"
    try:
        draw(incomplete)
        if incomplete.exists():
            os.replace(incomplete, output / PICTURE)
    except Exception as error:  # of whatever kind: it is but a picture
        for path in (incomplete, output / PICTURE):  # that of a run before
            path.unlink(missing_ok=True)
        return [f"picture    none: it could not be drawn ({' '.join(str(error).split()) or type(error).__name__})"]
    return []
