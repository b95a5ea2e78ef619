# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Predictions of any number of images as a table: by several processes, and going on where they were interrupted.

Until all images are done, the predictions lie beside the table in a folder of parts, each of which one process has
written whole. The table is made of them at the end, and the folder goes.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm

from ..data.images import BadImageError
from ..hub.fetching import Checkpoint
from ..system.locking import locked
from ..text import counted, for_table
from .classifier import Classifier, Prediction, batches_of
from .sources import ImageSources, file_states
from .writing import (
    check_bad_list,
    check_inputs_stay,
    check_output,
    check_replaceable,
    write_bad_list,
    write_predictions,
)

# Images of a part, rounded up to whole batches.
PART_SIZE = 1024
# In the folder of the parts: what the predictions depend on; the states of the files that they are of; parts.
PLAN, STATES, LOCK = "plan.json", "files.txt", "lock"
OURS = re.compile(r"lock|(plan\.json|files\.txt|\d{8,}\.jsonl)(\.\d+\.incomplete)?")
# As long may one process wait for the slowest one.
PATIENCE = timedelta(weeks=4)

Result = Prediction | BadImageError


class Written(NamedTuple):
    """What is in a table."""

    predicted: int
    bad: int  # images that could not be read
    bad_list: str | None  # the file that lists them, if there are any
    not_read: tuple[str, ...] = ()  # sentences about what lies among the images and is none


def predict_table(
    checkpoint: str,
    images: list[str],
    output: str,
    *,
    top_k: int = 1,
    batch_size: int = 64,
    image_column_name: str | None = None,
    precision: str = "fp32",
    token_merging: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
) -> Written | None:
    """Write what is on images to a table; the same call goes on where one like it was interrupted.

    Processes that `accelerate launch` or `torchrun` started share the images out.

    Args:
        output: the file, of one of the kinds in `OUTPUT_WRITERS`.
        say: is told, in a sentence each, which images cannot be read, and what was done before.
        checkpoint, images, top_k, batch_size, image_column_name, precision, token_merging, revision,
            trust_remote_code: those of `predict`.

    Returns:
        What is in the table, in process 0.

    Raises:
        ValueError: if the checkpoint, the images or the output will not do, or other predictions were begun for it.
    """
    check_output(output)
    sources = ImageSources(images, image_column_name)
    files = sources.files()
    check_inputs_stay(output, files)
    check_replaceable(output)
    states = file_states(files)
    options: dict[str, Any] = {"precision": precision, "token_merging": token_merging}
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    classifier = Classifier(checkpoint, state.device, revision=revision, trust_remote_code=trust_remote_code, **options)
    plan = {
        "images": _digest(sources.identity()),
        "files": _digest("\n".join(states)),
        "checkpoint": _identity(classifier.checkpoint),
        "top_k": top_k,
        **options,
    }
    part_size = -(-PART_SIZE // batch_size) * batch_size
    parts = Parts(output, plan, len(sources), part_size, dict(zip(files, states, strict=True)))
    written = None
    with parts.claimed(state):
        if state.is_main_process and parts.num_done():
            say(f"goes on: {parts.num_done():,} of {counted(len(sources), 'image')} done before.")
        _predict_parts(classifier, sources, parts, state, batch_size, top_k, say)
        state.wait_for_everyone()
        if state.is_main_process:
            written = parts.to_table(sources.unread)._replace(not_read=tuple(sources.not_read))
            for sentence in sources.not_read:
                say(f"skipped: {sentence}.")
        state.wait_for_everyone()
    return written


def _predict_parts(
    classifier: Classifier,
    sources: ImageSources,
    parts: "Parts",
    state: PartialState,
    batch_size: int,
    top_k: int,
    say: Callable[[str], None],
) -> None:
    """Predict those parts that are this process's share and not done."""
    (missing,) = broadcast_object_list([[number for number in range(parts.count) if not parts.is_done(number)]])
    share = missing[state.process_index :: state.num_processes]
    batches = [(number, batch) for number in share for batch in batches_of(parts.images(number), batch_size)]
    total = sum(len(batch) for _, batch in batches)
    bar = tqdm(total=total, unit="image", leave=False, disable=None if state.is_main_process else True)
    results: list[Result] = []
    with bar:
        predictions = classifier.predict(sources, [batch for _, batch in batches], top_k)
        for (number, batch), found in zip(batches, predictions, strict=True):
            for item in found:
                if isinstance(item, BadImageError):
                    say(f"skipped: {item}")
            results += found
            bar.update(len(found))
            if batch[-1] == parts.images(number)[-1]:
                parts.write(number, results, sources)
                results = []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _identity(checkpoint: Checkpoint) -> list[Any]:
    """What says whether a checkpoint is another one; of files, their sizes and times, not what is in them."""
    if checkpoint.commit is not None:
        return [checkpoint.name, checkpoint.commit]
    folder = checkpoint.place
    files = [folder / "config.json", folder / "preprocessor_config.json", *sorted(folder.glob("*.safetensors"))]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]


class Parts:
    """The predictions of a table that is not finished yet, in files of so many images each.

    Args:
        output: the table.
        plan: what the predictions depend on.
        num_images: how many images there are.
        part_size: images of a part, unless parts of another size were begun.
        files: the files that are read, and their states.

    Raises:
        ValueError: if parts of another plan were begun, or of other states of the files; or if what is there by the
            name of the folder is not ours.
    """

    def __init__(self, output: str, plan: dict[str, Any], num_images: int, part_size: int, files: dict[str, str]):
        self.output = output
        self.table = os.path.realpath(output)  # a link stays one
        self.folder = Path(f"{self.table}.parts")
        self.num_images = num_images
        self.files = files
        self.plan = plan | {"part_size": part_size}
        before = self._begun()
        if before is not None:
            self._check_same(before, plan)
            self.plan = before
        self.count = -(-num_images // self.plan["part_size"])

    def _begun(self) -> dict[str, Any] | None:
        """The plan of the parts that were begun, if some were.

        Raises:
            ValueError: if what is there by the name of the folder is not ours.
        """
        if not os.path.lexists(self.folder):
            return None
        if self.folder.is_dir() and not self.folder.is_symlink():
            with suppress(OSError, ValueError):
                plan = json.loads((self.folder / PLAN).read_text(encoding="utf-8"))
                if isinstance(plan, dict) and {"images", "checkpoint", "part_size"} <= plan.keys():
                    return plan
            names = os.listdir(self.folder)
            # One that was killed before its first part has no plan.
            if PLAN not in names and all(OURS.fullmatch(name) and not name.endswith(".jsonl") for name in names):
                return None
        raise ValueError(
            f"{self.folder} should hold the parts of {self.output}, but is something else: move it, or name another "
            "--output."
        )

    def _check_same(self, before: dict[str, Any], plan: dict[str, Any]) -> None:
        """Refuse to go on with parts of another plan.

        Raises:
            ValueError: with what is different.
        """
        other = [name for name in plan if before.get(name) != plan[name]]
        if other == ["files"] and (changed := self._changed()):
            more = f" and {len(changed) - 1:,} more have" if len(changed) > 1 else " has"
            raise ValueError(
                f"{changed[0]}{more} changed since the predictions in {self.folder} were begun: delete that folder to "
                "start over, or name another --output."
            )
        other = [name for name in other if name != "files" or len(other) == 1]  # other images are in other files
        if other:
            raise ValueError(
                f"{self.folder} holds predictions that were begun with other settings ({', '.join(other)}): delete "
                "it, or name another --output."
            )

    def _changed(self) -> list[str]:
        """The files whose states are not those that were noted."""
        try:
            noted = (self.folder / STATES).read_text(encoding="utf-8").split("\n")
        except OSError:
            return []
        return [file for (file, state), before in zip(self.files.items(), noted, strict=False) if state != before]

    @contextmanager
    def claimed(self, state: PartialState) -> Iterator[None]:
        """Make the folder of the parts, and keep other commands for the same table out meanwhile.

        Raises:
            ValueError: if one is going on.
        """
        if state.is_main_process:
            self.folder.mkdir(exist_ok=True)
        try:
            holds = f"is writing {self.output}: wait for it, or name another --output."
            with locked(self.folder / LOCK, state, holds):
                yield
        finally:
            if state.is_main_process and self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def images(self, number: int) -> range:
        """The numbers of the images of a part."""
        size = self.plan["part_size"]
        return range(number * size, min((number + 1) * size, self.num_images))

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08}.jsonl"

    def is_done(self, number: int) -> bool:
        """Whether the predictions of a part are there."""
        return self._file(number).is_file()

    def num_done(self) -> int:
        """How many images are in parts that are there."""
        return sum(len(self._part(number)) for number in range(self.count) if self.is_done(number))

    def write(self, number: int, results: list[Result], sources: ImageSources) -> None:
        """Write a part, whole or not at all."""
        lines = []
        for index, item in zip(self.images(number), results, strict=True):
            what = {"error": str(item)} if isinstance(item, BadImageError) else {"l": item.labels, "s": item.scores}
            lines.append(json.dumps({"file": for_table(sources.name(index)), **what}, allow_nan=False) + "\n")
        if not (self.folder / PLAN).is_file():
            self._write(self.folder / STATES, "\n".join(self.files.values()))
            self._write(self.folder / PLAN, json.dumps(self.plan, allow_nan=False))
        self._write(self._file(number), "".join(lines))

    def _write(self, path: Path, text: str) -> None:
        incomplete = path.with_name(f"{path.name}.{os.getpid()}.incomplete")
        try:
            incomplete.unlink(missing_ok=True)
            with incomplete.open("x", encoding="utf-8") as file:  # which follows no link
                file.write(text)
            os.replace(incomplete, path)
        except OSError as error:
            incomplete.unlink(missing_ok=True)
            raise ValueError(
                f"{self.folder} cannot be written: {error.strerror}. What is done is kept: make room, and the same "
                "command goes on."
            ) from error

    def _part(self, number: int) -> list[dict[str, Any]]:
        """The rows of a part.

        Raises:
            ValueError: if it is gone, or is not what was written.
        """
        file = self._file(number)
        try:
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError as error:
            raise ValueError(
                f"{self.folder} was emptied by another command for the same table: see what it wrote, or run this one "
                "again."
            ) from error
        except ValueError:
            rows = []
        if len(rows) != len(self.images(number)):
            raise ValueError(f"{file} is damaged: delete it, and the same command computes its predictions again.")
        return rows

    def _rows(self) -> Iterator[dict[str, Any]]:
        for number in range(self.count):
            yield from self._part(number)

    def to_table(self, unread: Sequence[tuple[str, str]] = ()) -> Written:
        """Make the table, and the list of what could not be read, if there is anything; then the parts go.

        Args:
            unread: files that are none of the images, with a sentence for each.
        """
        bad = [*((row["file"], row["error"]) for row in self._rows() if "error" in row), *unread]
        good = (Prediction(row["file"], row["l"], row["s"]) for row in self._rows() if "error" not in row)
        check_bad_list(self.table)
        predicted = write_predictions(good, self.table, Path(self.output).suffix)
        bad_list = write_bad_list(bad, self.table)
        self._clear()
        if bad_list is not None and not os.path.isabs(self.output):
            bad_list = os.path.relpath(bad_list)
        return Written(predicted, len(bad), bad_list)

    def _clear(self) -> None:
        """Delete the parts, the plan last, without which they would not be known as ours; what others put there stays.

        Another command for the same table may be doing so.
        """
        with suppress(OSError):
            for name in sorted(os.listdir(self.folder), key=PLAN.__eq__):
                if OURS.fullmatch(name):
                    (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()
