# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The command line, called in this process, and what the tests ask about the folders that it leaves."""

import hashlib
import io
import os
import runpy
import signal
import socket
import sys
import uuid
from collections.abc import Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import torch
import transformers
from forks import FORKS, Result, as_a_program
from huggingface_hub import metadata_load
from PIL import Image
from safetensors.torch import load_file

from modeling_vit_scratch.cli import main

# The recipe `digits` with a smaller model, no processes beside this one, and the rest pinned: the tests count images
# and steps, and the recipe may be tuned.
SMALL = (
    "--config_overrides=num_hidden_layers=1,hidden_size=32,intermediate_size=48",
    "--dataloader_num_workers=0",
    "--train_val_split=0.15",
    "--per_device_train_batch_size=64",
    "--rotation=12",
    "--translation=0.08",
    "--scaling=0.1",
)
CODE = {
    "additions_vit_scratch.py",
    "configuration_vit_scratch.py",
    "initialization_vit_scratch.py",
    "layers_vit_scratch.py",
    "encoder_vit_scratch.py",
    "merging_vit_scratch.py",
    "modeling_vit_scratch.py",
    "packing_vit_scratch.py",
    "pretrained_vit_scratch.py",
    "publishing_vit_scratch.py",
}
CHECKPOINT = {"config.json", "model.safetensors", "preprocessor_config.json", *CODE}
RUN = {
    *CHECKPOINT,
    "README.md",
    "all_results.json",
    "recipe.yaml",
    "sample.png",
    "trainer_state.json",
    "training.png",
}


def vit_scratch(*arguments: object) -> Result:
    """Run a command as the console script does, but in this process."""
    out, err = io.StringIO(), io.StringIO()
    with _libraries_as_they_were(), redirect_stdout(out), redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # --help, --version
            status = stop.code
    return Result(status, out.getvalue(), err.getvalue())


@contextmanager
def _libraries_as_they_were():
    """The command line silences libraries for a process that ends soon; this one goes on."""
    levels = transformers.logging.get_verbosity(), huggingface_hub.logging.get_verbosity()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(levels[0])
        huggingface_hub.logging.set_verbosity(levels[1])
        transformers.logging.enable_progress_bar()
        datasets.enable_progress_bars()


# Code for a run whose picture nobody looks at: it is drawn for people, and would take more time than a short training.
NO_PICTURE = "from modeling_vit_scratch.training import classification as job; job.draw_training = lambda *given: None"


class Run:
    """A command in a process of its own, which can be killed: forked from one that has imported the libraries.

    Args:
        arguments: of the command.
        before: code that the process runs first.
        folder: where what it prints is kept.
        script: a file of Python that the process runs in place of the console script.
    """

    def __init__(self, arguments: Sequence[object], folder: Path, before: str = "", script: Path | None = None):
        self.files = [folder / f".{uuid.uuid4()}.{stream}" for stream in ("out", "err")]
        self.start(arguments, before, script)

    def start(self, arguments: Sequence[object], before: str, script: Path | None) -> None:
        target = (list(map(str, arguments)), before, script and str(script), *map(str, self.files))
        self.process = FORKS.Process(target=_run_alone, args=target)
        self.process.start()

    def end(self) -> Result:
        """Wait for the end; a negative status is the signal that killed the process."""
        self.process.join()
        return Result(self.process.exitcode, *(file.read_text(encoding="utf-8") for file in self.files))


class Service(Run):
    """A command that goes on after its first line, `first`, which is waited for; it is ended by a signal."""

    def start(self, arguments: Sequence[object], before: str, script: Path | None) -> None:
        os.mkfifo(self.files[0])
        super().start(arguments, before, script)
        self.out = self.files[0].open(encoding="utf-8")
        self.first = self.out.readline()
        assert self.first, self.files[1].read_text(encoding="utf-8")

    def end(self, number: int = signal.SIGTERM) -> Result:
        """End it by a signal, and give what it printed after the first line."""
        os.kill(self.process.pid, number)
        with self.out:
            rest = self.out.read()
        self.process.join()
        return Result(self.process.exitcode, rest, self.files[1].read_text(encoding="utf-8"))


def _run_alone(arguments: list[str], before: str, script: str | None, out: str, err: str) -> None:
    as_a_program(out, err)
    exec(before, {})
    if script is None:
        sys.exit(main(arguments))
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def free_port() -> int:
    """A port that is free now, for processes to find each other at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def joining(rank: int, port: int, processes: int = 2) -> str:
    """Code that makes a process one of some that work together, as `torchrun` does; they find each other at `port`."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    place["MASTER_PORT"] = port
    environment = {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in place.items()}
    return f"import os, torch; os.environ |= {environment}; torch.set_num_threads(1)"


def refused(*arguments: object) -> str:
    """Run a command that must be refused: exit status 2, nothing on stdout, one line on stderr, which is returned."""
    result = vit_scratch(*arguments)
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1), result
    return result.err.strip()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    """Whether two checkpoints are equal bit for bit."""
    one_weights, other_weights = weights(one), weights(other)
    assert one_weights.keys() == other_weights.keys()
    return all(torch.equal(one_weights[name], other_weights[name]) for name in one_weights)


# Of a card whose license the Hub does not know by a name.
TERMS = {"license": "other", "license_name": "for-cats-only", "license_link": "LICENSE"}


def licensed(folder: Path) -> Path:
    """A checkpoint with these terms in its card, and the license beside it."""
    (folder / "LICENSE").write_text("For cats only.\n", encoding="utf-8")
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else "---\n---\n"
    header = "".join(f"{name}: {value}\n" for name, value in TERMS.items())
    card.write_text(text.replace("---\n", f"---\n{header}", 1), encoding="utf-8")
    return folder


def terms(folder: Path) -> dict[str, str]:
    """What the card of a folder says of its license, which lies beside it if it is named as a file."""
    said = metadata_load(folder / "README.md") or {}
    if said.get("license_link") == "LICENSE":
        assert (folder / "LICENSE").read_text(encoding="utf-8") == "For cats only.\n"
    return {name: value for name, value in said.items() if name.startswith("license")}


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with a hash of what is in it: whether anything was touched."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def named_numbers(result: Result) -> dict[str, str]:
    """The metrics that a command printed, `test_accuracy  0.9750`, by name."""
    pairs = [line.split() for line in result.lines]
    return {
        pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[0].startswith(("test_", "validation_", "train_"))
    }


def classes_of_pictures(root: Path, images: int = 8) -> Path:
    """A folder of three class folders that can be told apart by brightness, small enough to train on in a moment."""
    for name, brightness in {"cat": 40, "dog": 128, "hot dog": 215}.items():
        (root / name).mkdir(parents=True)
        for index in range(images):
            noise = np.random.default_rng((brightness, index)).integers(-40, 41, (9, 11 + index, 3))
            Image.fromarray((brightness + noise).astype(np.uint8)).save(root / name / f"{index:03}.png")
    return root
