# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The verb `evaluate`."""

import sys

from ..system.machine import idle_gpus, keep_freed_memory
from ..text import show
from .parsing import (
    SOME_IMAGES_BAD,
    Parser,
    add_batch_size,
    add_checkpoint_flags,
    add_data,
    add_speed,
    quiet,
    stoppable,
)


def evaluate(argv: list[str]) -> int:
    """Run `vit-scratch evaluate`; the exit status."""
    parser = Parser(
        prog="vit-scratch evaluate",
        description="Score a checkpoint on labelled images. The exit status is 1 if images could not be read and were "
        "left out.",
    )
    parser.add_argument("checkpoint", help="folder or Hub id")
    parser.add_argument("data", help="'digits', a folder of class folders, parquet files, or a Hub dataset")
    add_data(parser)
    add_batch_size(parser)
    parser.add_argument("--strict_images", action="store_true", help="stop at images that cannot be read")
    add_speed(parser)
    add_checkpoint_flags(parser)
    arguments = parser.parse_args(argv)
    quiet()
    from ..evaluation import scoring
    from ..evaluation.metrics import compute_metrics
    from ..evaluation.results import results_lines

    keep_freed_memory()
    with stoppable():
        results = scoring.evaluate(**vars(arguments))
    if idle := idle_gpus():
        show([f"vit-scratch evaluate: of the GPUs {idle}."], sys.stderr)
    for sentence in results.left_out:
        show([f"vit-scratch evaluate: left out: {sentence}"], sys.stderr)
    metrics = compute_metrics(results.outcome, results.labels, len(results.label_names))
    show(results_lines(results, {f"{results.name}_{name}": value for name, value in metrics.items()}))
    return SOME_IMAGES_BAD if results.left_out or results.unread else 0
