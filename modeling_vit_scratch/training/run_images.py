# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The images of a run: checked, in splits, and the same ones when the run is resumed.

A run that went on with other images would be validated on some that it was trained on, so each checkpoint holds a
digest of its images, and what was checked is remembered in the output folder for the next start.
"""

import json
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from ..data.checking import NO_IMAGES, KnownImages, check_images, duplicates
from ..data.dataset_loading import load_images, load_unlabelled
from ..data.image_arguments import DataArguments
from ..data.splits import classes_without_images, with_splits
from ..data.streaming import ImageStream, stream_images
from .run_folder import CHECKED, INCOMPLETE, STATE
from .training_arguments import TrainingArguments

# Split -> how many images it has, and digests of them and their labels: in their order, and in whatever order.
Fingerprint = dict[str, dict[str, Any]]


class RunImages(NamedTuple):
    """The images of a run."""

    splits: DatasetDict
    news: list[str]  # lines for the terminal: what was left out, what is in two splits or classes, which are in none
    notes: list[str]  # the same for the card, which names no files
    fingerprint: Fingerprint
    known: KnownImages


def load_splits(data: DataArguments, *, labelled: bool = True, known: KnownImages = NO_IMAGES) -> RunImages:
    """The splits that the arguments ask for, every image checked; without labels there is no test split.

    Args:
        data: where the images are and how they are split.
        labelled: whether labels are wanted.
        known: images that need not be decoded again.

    Raises:
        ValueError: if there are none, or they will not do.
    """
    where: dict[str, Any] = {"config_name": data.data_config_name, "image_column_name": data.image_column_name}
    if labelled:
        where["label_column_name"] = data.label_column_name
    if data.streaming:
        stream, others = stream_images(data.data, **where, labelled=labelled, buffer_size=data.shuffle_buffer_size)
        return _with_stream(stream, others, data, known)
    loaded = load_images(data.data, **where) if labelled else load_unlabelled(data.data, **where)
    checked = check_images(loaded, strict=data.strict_images, known=known)
    shares = {"validation_share": data.train_val_split, "test_share": data.train_test_split if labelled else 0}
    splits, contents = with_splits(checked.splits, checked.contents, **shares, seed=data.split_seed)
    return RunImages(
        splits, *_remarks(splits, contents, checked.left_out), _fingerprint(splits, contents), checked.known
    )


def _with_stream(stream: ImageStream, others: DatasetDict, data: DataArguments, known: KnownImages) -> RunImages:
    """The images of a train split that is streamed, which are checked when they come, and of other splits."""
    checked = check_images(others, strict=data.strict_images, known=known)
    news, notes = _remarks(checked.splits, checked.contents, checked.left_out)
    if "validation" not in others:
        news.append("validation none: a stream is not divided, and the data has no validation split")
    if data.train_test_split and "test" not in others:
        news.append("test       none: a stream is not divided, and the data has no test split")
    splits: Any = {"train": stream, **checked.splits}
    # Nobody reads a stream to know it: it is taken for the same if each of its shards has as many images.
    train = {"train": {"images": stream.num_rows, "digest": _digest(np.asarray(stream.shard_sizes))}}
    return RunImages(splits, news, notes, train | _fingerprint(checked.splits, checked.contents), checked.known)


def _remarks(splits: DatasetDict, contents: dict[str, np.ndarray], left_out: list[str]) -> tuple[list[str], list[str]]:
    """What a person should know of the images: lines for the terminal, and sentences for the card."""
    shared, missing = duplicates(splits, contents), classes_without_images(splits)
    news = [f"left out   {sentence}" for sentence in left_out]
    news += [f"duplicate  {fact}: {names}" for fact, names in shared.items()]
    news += [f"{name:<10} {fact}" for name, fact in missing.items()]
    facts = [*shared, *(f"{name} {fact}" for name, fact in missing.items())]
    if left_out:
        were = "s that cannot be read were" if len(left_out) > 1 else " that cannot be read was"
        facts.insert(0, f"{len(left_out):,} image{were} left out")
    return news, [f"{fact}." for fact in facts]


# --- Whether they are the same ---------------------------------------------------------------------------------------


def _fingerprint(splits: DatasetDict, contents: dict[str, np.ndarray]) -> Fingerprint:
    result = {}
    for name, dataset in splits.items():
        images, labels = contents[name], _labels(dataset)
        rows = np.stack([each.astype("<u8") for each in (images, labels) if len(each)])
        unordered = _digest(rows[:, np.lexsort(rows)])
        result[name] = {"images": dataset.num_rows, "digest": _digest(images, labels), "unordered": unordered}
    return result


def _labels(dataset: Dataset) -> np.ndarray:
    return np.asarray(dataset["label"][:] if "label" in dataset.features else [])


def _digest(*numbers: np.ndarray) -> str:
    return blake2b(b"".join(each.astype("<u8").tobytes() for each in numbers), digest_size=16).hexdigest()


class ImagesOfRun(TrainerCallback, ExportableState):
    """Has the fingerprint of the images written to `trainer_state.json`, which is in each checkpoint.

    Args:
        fingerprint: of the splits.
        per_step: images that a step takes of the train split, in all processes.
    """

    def __init__(self, fingerprint: Fingerprint, per_step: int):
        self.fingerprint = fingerprint
        self.per_step = per_step

    def state(self) -> dict[str, Any]:
        """What transformers writes of a callback."""
        return {"args": {"fingerprint": self.fingerprint, "per_step": self.per_step}, "attributes": {}}


def images_per_step(arguments: TrainingArguments) -> int:
    """Images of the train split that a step takes, in all processes."""
    return arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size


def check_same_images(checkpoint: str, fingerprint: Fingerprint, arguments: TrainingArguments) -> None:
    """Refuse to go on from a checkpoint with other images, the same ones in other splits, or more or fewer a step.

    Raises:
        ValueError: with what changed.
    """
    state = json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))
    saved = state.get("stateful_callbacks", {}).get(ImagesOfRun.__name__)
    if saved is None:
        return  # of an earlier version
    _check_same_steps(checkpoint, saved["args"].get("per_step"), arguments)
    before: Fingerprint = saved["args"]["fingerprint"]
    nothing = {"images": 0, "digest": ""}
    changed = {
        name: (before.get(name, nothing), fingerprint.get(name, nothing))
        for name in {**before, **fingerprint}
        if before.get(name, nothing)["digest"] != fingerprint.get(name, nothing)["digest"]
    }
    if changed:
        changes = "; ".join(f"in {name} {_change(*pair)}" for name, pair in changed.items())
        moved = all(_only_moved(*pair) for pair in changed.values())
        what = f"the images are not in the order that {checkpoint} was trained with ({changes})"
        if not moved:
            what = f"the images are not those that {checkpoint} was trained and validated on ({changes})"
            what += ", so it could be validated on what it was trained on"
        raise ValueError(
            f"{what}: put them and the settings of their splits back as they were, or start anew with "
            "--overwrite_output_dir or in another --output_dir."
        )


def _check_same_steps(checkpoint: str, before: int | None, arguments: TrainingArguments) -> None:
    """A run goes on at a step: with other steps that is another place in the images, and some would never come."""
    now = images_per_step(arguments)
    if before not in (None, now):
        raise ValueError(
            f"{checkpoint} was trained with {before} images a step, and now it would be {now} "
            f"(per_device_train_batch_size {arguments.per_device_train_batch_size} x gradient_accumulation_steps "
            f"{arguments.gradient_accumulation_steps} x processes {arguments.world_size}): make it {before} again to "
            f"resume, or begin another run with --model {checkpoint}."
        )


def _only_moved(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether images are the same, with the same labels, in another order; earlier versions did not say."""
    return "unordered" in before and before["unordered"] == now.get("unordered")


def _change(before: dict[str, Any], now: dict[str, Any]) -> str:
    if _only_moved(before, now):
        return "the same images in another order: were files renamed?"
    then, images = before["images"], now["images"]
    if then == images:
        return f"as many images, {images:,}, but others, or with other labels"
    difference = abs(images - then)
    comparison = f"{difference:,} image{'s' * (difference > 1)} {'more' if images > then else 'fewer'}"
    return f"{comparison}, {images:,} instead of {then:,}"


# --- What was checked ------------------------------------------------------------------------------------------------


def known_images(arguments: TrainingArguments) -> KnownImages:
    """What an earlier start of a run found readable, as the output folder remembers it."""
    return KnownImages.read(Path(str(arguments.output_dir)) / CHECKED)


def remember(arguments: TrainingArguments, known: KnownImages) -> None:
    """Keep in the output folder what was found readable, until the run has ended."""
    if arguments.process_index == 0:
        output = Path(str(arguments.output_dir))
        known.write(output / INCOMPLETE)
        os.replace(output / INCOMPLETE, output / CHECKED)
