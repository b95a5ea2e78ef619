# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The verb `push`."""

import os
import sys
from pathlib import Path

from ..text import show
from .parsing import Parser, quiet, stoppable


def push(argv: list[str]) -> int:
    """Run `vit-scratch push`; the exit status."""
    parser = Parser(prog="vit-scratch push", description="Publish a checkpoint on the Hub, with its card.")
    parser.add_argument("checkpoint", help="folder")
    parser.add_argument("repo_id", help="owner/name, or name for one of yours; it is made if there is none")
    parser.add_argument("--private", action="store_const", const=True, help="make a new repository private")
    parser.add_argument("--revision", metavar="R", help="branch; it is made if there is none (default: main)")
    parser.add_argument("--create_pr", "--create-pr", action="store_true", help="open a pull request instead")
    parser.add_argument("--license", metavar="L", help="by the Hub's name for it, such as apache-2.0, for the card")
    parser.add_argument(
        "--images",
        action="store_true",
        help="publish the pictures that show images of your data, too: sample.png and training.png",
    )
    options = vars(parser.parse_args(argv))
    if not os.path.isdir(options["checkpoint"]):
        raise ValueError(f"there is no checkpoint folder {options['checkpoint']}.")
    quiet()
    from huggingface_hub.utils import enable_progress_bars

    from ..hub import pushing
    from ..hub.checkpoint import check_finished
    from ..hub.fetching import Checkpoint

    check_finished(Checkpoint(options["checkpoint"], Path(options["checkpoint"])))
    if sys.stderr.isatty():
        enable_progress_bars()  # of uploads, which take long
    with stoppable():
        published = pushing.push(**options, say=lambda sentence: show([f"vit-scratch push: {sentence}"], sys.stderr))
    show(pushing.push_lines(published, options["revision"]))
    return 0
