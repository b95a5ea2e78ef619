# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The verb `predict`."""

import os
import signal
import sys
from typing import Any

from ..system.machine import keep_freed_memory
from ..text import counted, for_terminal, show
from .parsing import (
    SOME_IMAGES_BAD,
    Parser,
    add_batch_size,
    add_checkpoint_flags,
    add_speed,
    positive,
    quiet,
    stoppable,
)


def predict(argv: list[str]) -> int:
    """Run `vit-scratch predict`; the exit status."""
    parser = Parser(prog="vit-scratch predict", description="Say what is on images.")
    parser.add_argument("checkpoint", help="folder or Hub id")
    parser.add_argument(
        "images",
        nargs="+",
        help="files, folders (all images in them, whatever their names), parquet files, and 'patterns/**/*.jpg'",
    )
    parser.add_argument("--top_k", "--top-k", type=positive, default=1, help="labels per image (default: 1)")
    parser.add_argument(
        "--output",
        help="write a table to this file: .jsonl, .csv or .parquet; the same command goes on if it was interrupted, "
        "and images that cannot be read are listed beside it, in a file that ends in .skipped.csv",
    )
    parser.add_argument("--image_column_name", help="column of the images in parquet files (default: found by itself)")
    add_batch_size(parser)
    add_speed(parser)
    add_checkpoint_flags(parser)
    options = vars(parser.parse_args(argv))
    quiet()
    keep_freed_memory()
    with stoppable():
        return _print_predictions(options) if options["output"] is None else _write_predictions(options)


def _print_predictions(options: dict[str, Any]) -> int:
    from ..prediction import classifier

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("several processes cannot print one list: name a table with --output.")
    del options["output"]
    status = 0
    for item in classifier.predict(**options):
        if isinstance(item, classifier.Prediction):
            ranked = zip(item.labels, item.scores, strict=True)
            cells = [item.file, *(f"{label} {score:.2%}" for label, score in ranked)]
            print(*map(for_terminal, cells), sep="\t")
        else:
            status = SOME_IMAGES_BAD
            show([f"vit-scratch predict: skipped: {item}"], sys.stderr)
    return status


def _write_predictions(options: dict[str, Any]) -> int:
    from ..prediction.table import predict_table
    from ..system.interruption import Interrupted

    try:
        written = predict_table(**options, say=lambda sentence: show([f"vit-scratch predict: {sentence}"], sys.stderr))
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "signal", signal.SIGINT)
        raise Interrupted(number, "interrupted; the same command goes on.") from interrupt
    if written is None:  # in another process than the first
        return 0
    skipped = f", {written.bad:,} skipped ({written.bad_list})" if written.bad else ""
    show([f"{counted(written.predicted, 'image')} written to {options['output']}{skipped}"])
    return SOME_IMAGES_BAD if written.bad or written.not_read else 0
