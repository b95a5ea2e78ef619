# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The verb `import`."""

import sys

from ..text import show
from .parsing import Parser, add_revision, image_size, positive, quiet, stoppable


def import_(argv: list[str]) -> int:
    """Run `vit-scratch import`; the exit status."""
    parser = Parser(
        prog="vit-scratch import",
        description="Load the ViT weights of another library: transformers, timm, torchvision, Google's .npz, "
        "the article's code, lucidrains' vit-pytorch.",
    )
    parser.add_argument("source", help="a file, a folder, or a Hub id")
    parser.add_argument("output", help="new folder for the checkpoint")
    parser.add_argument(
        "--format",
        metavar="F",
        help="transformers, timm, torchvision, google, article, lucidrains or vit-scratch (default: recognised by the "
        "contents)",
    )
    parser.add_argument(
        "--image_size",
        "--image-size",
        metavar="H[,W]",
        type=image_size,
        help="pixels: resample the positions to this size",
    )
    parser.add_argument(
        "--num_labels", "--num-labels", metavar="N", type=positive, help="a new head for so many labels"
    )
    parser.add_argument(
        "--config_overrides",
        "--config-overrides",
        metavar="NAME=VALUE,…",
        default="",
        help="what the source does not say, as fields of the configuration: 'num_attention_heads=12'",
    )
    add_revision(parser)
    arguments = parser.parse_args(argv)
    quiet()
    from huggingface_hub.utils import enable_progress_bars

    from ..overrides import parse_overrides
    from ..porting import import_checkpoint, import_lines

    if sys.stderr.isatty():
        enable_progress_bars()  # of downloads, which take long
    options = vars(arguments)
    options["config_overrides"] = parse_overrides(arguments.config_overrides)
    with stoppable():
        imported = import_checkpoint(**options)
    show(import_lines(imported, arguments.source, arguments.output))
    return 0
