# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The verbs `dry-run` and `explain` of the command line."""

from pathlib import Path

from ..cli import Parser, add_checkpoint_flags, add_token_merging, positive, stoppable


def dry_run_verb(argv: list[str]) -> int:
    """Run `vit-scratch dry-run`; the exit status."""
    parser = Parser(prog="vit-scratch dry-run", description="What goes into each layer of a model and comes out.")
    parser.add_argument("model", nargs="?", default="article", help="preset, folder or Hub id (default: article)")
    parser.add_argument("--image", metavar="FILE", help="an image to run it on (default: random numbers)")
    parser.add_argument("--batch", metavar="N", type=positive, default=1, help="images at a time (default: 1)")
    parser.add_argument("--full", action="store_true", help="show each layer, instead of those that repeat as one")
    parser.add_argument("--format", choices=("text", "json", "html"), default="text", help="(default: text)")
    parser.add_argument("--output", metavar="FILE", help="write to a file, instead of printing")
    add_token_merging(parser)
    add_checkpoint_flags(parser)
    options = vars(parser.parse_args(argv))
    from ..card import name_of
    from .dry_run import dry_run
    from .dry_run_report import FORMATS
    from .loading import model_of, pixels_of

    image, batch, full, format, output = (options.pop(name) for name in ("image", "batch", "full", "format", "output"))
    with stoppable():
        model, processor = model_of(**options)
        run = dry_run(model, pixels_of(model, processor, image, batch), name_of(options["model"]))
    text = FORMATS[format](run, full)
    if output is None:
        print(text)
    else:
        Path(output).write_text(text + "\n", encoding="utf-8")
        print(f"written    {output}")
    return 0
