# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The verb `export`: checkpoints of other libraries, and files that need none of them."""

import argparse

from ..text import show
from .parsing import Parser, add_data, add_revision, count, positive, quiet, stoppable

LIBRARIES = ("transformers", "timm")
# As `deployment.exporting.FORMATS`, which loads what --help can do without.
FILES = ("onnx", "onnx-int8", "torch-export")
OF_CALIBRATION = ("split", "config_name", "image_column_name", "label_column_name", "calibrate_images")
IMAGES = 1000


def export(argv: list[str]) -> int:
    """Run `vit-scratch export`; the exit status."""
    arguments = _parser().parse_args(argv)
    _check(arguments)
    quiet()
    with stoppable():
        lines = _to_a_library(arguments) if arguments.format in LIBRARIES else _to_a_file(arguments)
    show(lines)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="vit-scratch export",
        description="Write a checkpoint as one that another library loads itself, or as a file that runs without any.",
    )
    parser.add_argument("checkpoint", help="folder or Hub id")
    parser.add_argument("output", help="new folder")
    parser.add_argument(
        "--format",
        required=True,
        choices=(*LIBRARIES, *FILES),
        help="the other library; or ONNX in fp32, ONNX in 8-bit integers, or a program of torch.export",
    )
    parser.add_argument(
        "--config_overrides",
        "--config-overrides",
        metavar="NAME=VALUE,…",
        help="to transformers and timm: fields of the configuration to change, as far as the weights allow: "
        "'layer_norm_eps=1e-6'",
    )
    parser.add_argument(
        "--token_merging",
        "--token-merging",
        type=count,
        metavar="R",
        help="to ONNX and torch-export: patches that each block merges away (default: what the checkpoint says)",
    )
    add_revision(parser)
    parser.add_argument(
        "--calibrate",
        metavar="DATA",
        help="to onnx-int8: measure on these images what the integers cost: 'digits', a folder of class folders or of "
        "images without labels, parquet files, or a Hub dataset",
    )
    parser.add_argument(
        "--calibrate_images",
        "--calibrate-images",
        metavar="N",
        type=positive,
        help=f"how many of them, spread evenly (default: {IMAGES:,})",
    )
    add_data(parser)
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Refuse flags that the format does not have, rather than to leave them unheard.

    Raises:
        ValueError: naming the flag.
    """
    format = arguments.format
    if arguments.config_overrides is not None and format not in LIBRARIES:
        raise ValueError("--config_overrides is for the formats transformers and timm.")
    if arguments.token_merging is not None and format not in FILES:
        raise ValueError(f"--token_merging is for the formats {', '.join(FILES)}.")
    if arguments.calibrate is not None and format != "onnx-int8":
        raise ValueError(f"--calibrate is for the format onnx-int8: {format} does not round.")
    for name in OF_CALIBRATION:
        if getattr(arguments, name) is not None and arguments.calibrate is None:
            flag = "data_config_name" if name == "config_name" else name
            raise ValueError(f"--{flag} is about the images of --calibrate DATA, which is missing.")


def _to_a_library(arguments: argparse.Namespace) -> list[str]:
    from ..overrides import parse_overrides
    from ..porting import export_checkpoint

    return export_checkpoint(
        arguments.checkpoint,
        arguments.output,
        format=arguments.format,
        config_overrides=parse_overrides(arguments.config_overrides or ""),
        revision=arguments.revision,
    )


def _to_a_file(arguments: argparse.Namespace) -> list[str]:
    from ..deployment.calibration import Calibration
    from ..deployment.file_export import export_classifier

    calibration = None
    if arguments.calibrate is not None:
        calibration = Calibration(
            data=arguments.calibrate,
            split=arguments.split,
            config_name=arguments.config_name,
            image_column_name=arguments.image_column_name,
            label_column_name=arguments.label_column_name,
            images=arguments.calibrate_images or IMAGES,
        )
    return export_classifier(
        arguments.checkpoint,
        arguments.output,
        format=arguments.format,
        token_merging=arguments.token_merging,
        revision=arguments.revision,
        calibration=calibration,
    )
