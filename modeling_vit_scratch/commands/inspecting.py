# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The verbs `dry-run` and `explain`."""

import sys
from pathlib import Path

from ..text import show
from .parsing import (
    SOME_IMAGES_BAD,
    Parser,
    add_checkpoint_flags,
    add_token_merging,
    image_size,
    positive,
    quiet,
    stoppable,
)

# Of the files that `dry-run --output` writes, so that none of another kind is replaced by mistake.
ENDINGS = {"text": (".txt", ".md"), "json": (".json",), "html": (".html", ".htm")}


def dry_run(argv: list[str]) -> int:
    """Run `vit-scratch dry-run`; the exit status."""
    parser = Parser(prog="vit-scratch dry-run", description="What goes into each layer of a model and comes out.")
    parser.add_argument("model", nargs="?", default="article", help="preset, folder or Hub id (default: article)")
    parser.add_argument("--image", metavar="FILE", help="an image to run it on (default: random numbers)")
    parser.add_argument("--batch", metavar="N", type=positive, default=1, help="images at a time (default: 1)")
    parser.add_argument("--full", action="store_true", help="show each layer, instead of those that repeat as one")
    parser.add_argument("--format", choices=("text", "json", "html"), default="text", help="(default: text)")
    parser.add_argument(
        "--output", metavar="FILE", help="write to a file (.txt, .json or .html, which is replaced) instead of printing"
    )
    add_token_merging(parser)
    add_checkpoint_flags(parser)
    options = vars(parser.parse_args(argv))
    quiet()
    from ..hub.cards import name_of
    from ..hub.checkpoint import find_model
    from ..hub.fetching import files_of
    from ..inspection import dry_run as dry_running
    from ..inspection.dry_run_report import FORMATS
    from ..inspection.model_loading import model_of, pixels_of
    from ..system.folders import check_file, check_not_an_input

    if options["output"] is not None:
        check_file(options["output"])
        image_files = [] if options["image"] is None else [options["image"]]
        check_not_an_input(options["output"], [*image_files, *files_of(options["model"])])
        endings = ENDINGS[options["format"]]
        if Path(options["output"]).suffix.lower() not in endings:
            raise ValueError(f"--output {options['output']} must end in {' or '.join(endings)}.")
    image, batch, full, format, output = (options.pop(name) for name in ("image", "batch", "full", "format", "output"))
    with stoppable():
        trusted = options.pop("trust_remote_code")
        source = find_model(options.pop("model"), options.pop("revision"), trust_remote_code=trusted)
        name = f"the preset {source}" if source.preset else name_of(str(source))
        model, processor = model_of(source, trust_remote_code=trusted, **options)
        try:
            run = dry_running.dry_run(model, pixels_of(model, processor, image, batch), name)
        except RuntimeError as error:  # of several kinds, on CPUs without a class of its own
            if "memory" not in str(error):
                raise
            raise ValueError(f"{batch:,} images do not fit into the memory: give a smaller --batch.") from error
    text = FORMATS[format](run, full)
    if output is None:
        show(text.splitlines())
    else:
        Path(output).write_text(text + "\n", encoding="utf-8")
        show([f"written    {output}"])
    return 0


def explain(argv: list[str]) -> int:
    """Run `vit-scratch explain`; the exit status."""
    parser = Parser(prog="vit-scratch explain", description="See where on images a classifier's answers come from.")
    parser.add_argument("checkpoint", help="folder or Hub id")
    parser.add_argument("images", nargs="+", help="files, folders, parquet files, and 'patterns/**/*.jpg'")
    parser.add_argument("--output", "--out", metavar="DIR", required=True, help="new folder for pictures and page")
    parser.add_argument("--label", metavar="NAME", help="the class to explain (default: the most likely one)")
    parser.add_argument(
        "--image_size",
        "--image-size",
        metavar="H[,W]",
        type=image_size,
        help="pixels to resize the images to, with the positions fitted (default: what the image processor does)",
    )
    add_token_merging(parser)
    add_checkpoint_flags(parser)
    options = vars(parser.parse_args(argv))
    quiet()
    from ..inspection.explaining import write_explanations

    skipped = []

    def say(sentence: str) -> None:
        skipped.append(sentence)
        show([f"vit-scratch explain: {sentence}"], sys.stderr)

    with stoppable():
        lines = write_explanations(**options, say=say)
    show(lines)
    return SOME_IMAGES_BAD if skipped else 0
