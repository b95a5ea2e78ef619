# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The command line: `vit-scratch VERB …`. The verbs are in `commands/`.

Nothing that takes time is imported before a verb has read its flags, so that help and mistakes are answered at once.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import __version__
from .commands import evaluating, exporting, importing, inspecting, predicting, publishing, showing, training
from .commands.parsing import Parser
from .system.machine import let_waiting_threads_sleep
from .text import escape_unshowable, show

USER_ERROR = 2
PIPE_CLOSED = 128 + 13  # as of a program that SIGPIPE ends


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit status: 0, 1 if some images could not be read, 2 for a mistake of the user's."""
    for stream in (sys.stdout, sys.stderr):
        escape_unshowable(stream)
    parser = Parser(
        prog="vit-scratch",
        usage="vit-scratch VERB …",
        description="The Vision Transformer of the article: train it, score it, use it, bring it anyone's weights.",
        epilog="Each verb explains itself: vit-scratch VERB --help",
    )
    parser.add_argument("--version", action="version", version=f"vit-scratch {__version__}")
    parser.add_argument("verb", metavar="VERB", help="; ".join(f"{name}: {verb[1]}" for name, verb in VERBS.items()))
    argv = sys.argv[1:] if argv is None else argv
    name = parser.prog
    try:
        verb = parser.parse_args(argv[:1]).verb
        if verb not in VERBS:
            parser.error(f"there is no verb {verb!r}, the verbs are {', '.join(VERBS)}")
        name += f" {verb}"
        let_waiting_threads_sleep()
        with _logged_on_stderr(name):
            status = VERBS[verb][0](argv[1:])
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who reads what is printed has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return PIPE_CLOSED
    except _mistakes() as error:
        show([f"{name}: {' '.join(str(error).split())}"], sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt as interrupt:
        hint = "; the same command goes on from the last checkpoint" if name.endswith("train") else ""
        if os.environ.get("RANK", "0") == "0":  # all processes of a run stop together
            show([f"{name}: {str(interrupt) or f'interrupted{hint}.'}"], sys.stderr)
        return 128 + getattr(interrupt, "signal", signal.SIGINT)


def _mistakes() -> tuple[type[Exception], ...]:
    """What a user's mistake raises; a configuration's wrong value, an error of a library that need not be loaded."""
    errors = sys.modules.get("huggingface_hub.errors")
    return (ValueError, OSError) if errors is None else (ValueError, OSError, errors.StrictDataclassError)


@contextmanager
def _logged_on_stderr(name: str) -> Iterator[None]:
    """Print what the package logs, a line each that begins with the name of the verb."""
    logger, handler = logging.getLogger(__package__), logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False  # libraries may have handlers of their own at the root
    try:
        yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)


VERBS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (training.train, "train a model by a recipe"),
    "pretrain": (training.pretrain, "train a model on images without labels, to be fine-tuned"),
    "evaluate": (evaluating.evaluate, "score a checkpoint on labelled images"),
    "predict": (predicting.predict, "say what is on images"),
    "dry-run": (inspecting.dry_run, "see what goes into each layer and comes out"),
    "explain": (inspecting.explain, "see where on images a classifier's answers come from"),
    "import": (importing.import_, "load the weights of another library"),
    "export": (exporting.export, "write a checkpoint for another library, or as a file that runs without any"),
    "push": (publishing.push, "publish a checkpoint on the Hub"),
    "demo": (showing.demo, "show a checkpoint on a page in the browser"),
}
