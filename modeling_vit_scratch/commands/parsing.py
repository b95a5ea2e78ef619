# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What the verbs have in common: a parser, flags, what flags may be, and how a command is stopped."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SOME_IMAGES_BAD = 1
# Of schedulers, and of a terminal that is closed, where there is such a signal.
ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Parser(argparse.ArgumentParser):
    """A parser of flags written in full; a mistake is a `ValueError` rather than usage lines and the end."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str):
        """Raise instead of exiting, so that every user error takes one way to the terminal."""
        raise ValueError(f"{message}; see {self.prog} --help.")


def add_speed(parser: Parser) -> None:
    """Flags that make a model faster, at a price."""
    parser.add_argument(
        "--precision", default="fp32", help="fp32, bf16, or int8 (on the CPU, with ONNX Runtime) (default: fp32)"
    )
    add_token_merging(parser)


def add_token_merging(parser: Parser) -> None:
    """A flag that lets a model merge patches."""
    parser.add_argument(
        "--token_merging",
        "--token-merging",
        type=count,
        metavar="R",
        help="patches that each block merges away: faster, a little less accurate (default: what the checkpoint says)",
    )


def add_revision(parser: Parser) -> None:
    """A flag that says which state of a repository is meant."""
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a Hub id (default: main)")


def add_checkpoint_flags(parser: Parser) -> None:
    """Flags that say which state of a checkpoint is meant, and whether its code may run."""
    add_revision(parser)
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the checkpoint")


def add_batch_size(parser: Parser) -> None:
    """A flag for how many images are computed together."""
    parser.add_argument(
        "--batch_size", "--batch-size", type=positive, default=64, help="images at a time (default: 64)"
    )


def add_data(parser: Parser) -> None:
    """Flags that say which images of labelled data are meant."""
    parser.add_argument("--split", help="train, validation or test (default: test, else validation, else all images)")
    parser.add_argument("--data_config_name", dest="config_name", help="configuration of a Hub dataset")
    parser.add_argument("--image_column_name", help="column of the images (default: found by itself)")
    parser.add_argument("--label_column_name", help="column of the labels (default: found by itself)")


def image_size(text: str) -> int | tuple[int, int]:
    """A flag's height, or height and width, in pixels."""
    sides = text.split(",")
    if len(sides) > 2 or not all(side.strip().isdecimal() and int(side) > 0 for side in sides):
        raise argparse.ArgumentTypeError(f"must be pixels, H or H,W, got {text!r}")
    return int(text) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def count(text: str) -> int:
    """A flag's whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A flag's whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)


def quiet() -> None:
    """Leave the terminal to our own lines: the libraries' bars and advice are for those who program with them.

    Each verb calls it once its flags are read: it loads the libraries.
    """
    import huggingface_hub
    from transformers.utils import logging

    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"  # not all verbs need the library
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()


@contextmanager
def stoppable() -> Iterator[None]:
    """Let what was begun be undone when the process is asked to end, as schedulers do."""
    from ..system.interruption import Interrupted

    def stop(number: int, frame: object) -> None:
        raise Interrupted(number)

    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in ENDING_SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
