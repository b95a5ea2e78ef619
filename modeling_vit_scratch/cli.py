# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The command line: `vit-scratch VERB …`. Each verb is a function of the package with its arguments as flags."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from . import __version__
from .memory import keep_freed_memory

USER_ERROR = 2
SOME_IMAGES_BAD = 1
PIPE_CLOSED = 128 + 13  # as of a program that SIGPIPE ends


class Parser(argparse.ArgumentParser):
    """A parser of flags written in full; a mistake is a `ValueError` rather than usage lines and the end."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str):
        """Raise instead of exiting, so that every user error takes one way to the terminal."""
        raise ValueError(f"{message}; see {self.prog} --help.")


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit status: 0, 1 if some images could not be read, 2 for a mistake of the user's."""
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
    from huggingface_hub.errors import StrictDataclassError

    try:
        verb = parser.parse_args(argv[:1]).verb
        if verb not in VERBS:
            parser.error(f"there is no verb {verb!r}, the verbs are {', '.join(VERBS)}")
        name += f" {verb}"
        _quiet()
        status = VERBS[verb][0](argv[1:])
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who reads what is printed has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return PIPE_CLOSED
    except (ValueError, OSError, StrictDataclassError) as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt as interrupt:
        hint = "; the same command goes on from the last checkpoint" if name.endswith("train") else ""
        if os.environ.get("RANK", "0") == "0":  # all processes of a run stop together
            print(f"{name}: {str(interrupt) or f'interrupted{hint}.'}", file=sys.stderr)
        return 128 + getattr(interrupt, "signal", signal.SIGINT)


def _quiet() -> None:
    """Leave the terminal to our own lines: the libraries' bars and advice are for those who program with them."""
    import huggingface_hub
    from transformers.utils import logging

    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"  # not all verbs need the library
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()


def _by_recipe(argv: list[str], verb: str) -> int:
    from .presets import recipe_names
    from .recipes import RecipeParser, parse_recipe

    if not argv or argv[0].startswith("-"):
        if not {"-h", "--help"} & set(argv):
            raise ValueError(f"name a recipe first: one of {', '.join(recipe_names())}, or a YAML file; then flags.")
        RecipeParser(verb).print_help()
        return 0
    arguments = parse_recipe(argv[0], argv[1:], verb)
    if verb == "train":
        from .training import train

        run: Callable[[Any], Any] = train
    else:
        from .pretraining import pretrain

        run = pretrain
    keep_freed_memory()
    with stoppable():
        run(arguments)
    return 0


def _add_speed(parser: Parser) -> None:
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


def _add_batch_size(parser: Parser) -> None:
    parser.add_argument(
        "--batch_size", "--batch-size", type=positive, default=64, help="images at a time (default: 64)"
    )


def add_data(parser: Parser) -> None:
    """Flags that say which images of labelled data are meant."""
    parser.add_argument("--split", help="train, validation or test (default: test, else validation, else all images)")
    parser.add_argument("--data_config_name", dest="config_name", help="configuration of a Hub dataset")
    parser.add_argument("--image_column_name", help="column of the images (default: found by itself)")
    parser.add_argument("--label_column_name", help="column of the labels (default: found by itself)")


def _evaluate(argv: list[str]) -> int:
    parser = Parser(prog="vit-scratch evaluate", description="Score a checkpoint on labelled images.")
    parser.add_argument("checkpoint", help="folder or Hub id")
    parser.add_argument("data", help="'digits', a folder of class folders, parquet files, or a Hub dataset")
    add_data(parser)
    _add_batch_size(parser)
    parser.add_argument("--strict_images", action="store_true", help="stop at images that cannot be read")
    _add_speed(parser)
    add_checkpoint_flags(parser)
    arguments = parser.parse_args(argv)
    from .evaluation import evaluate
    from .metrics import compute_metrics
    from .report import results_lines

    keep_freed_memory()
    with stoppable():
        results = evaluate(**vars(arguments))
    for sentence in results.left_out:
        print(f"vit-scratch evaluate: left out: {sentence}", file=sys.stderr)
    metrics = compute_metrics(results.logits, results.labels, len(results.label_names))
    print(*results_lines(results, {f"{results.name}_{name}": value for name, value in metrics.items()}), sep="\n")
    return 0


def _predict(argv: list[str]) -> int:
    parser = Parser(prog="vit-scratch predict", description="Say what is on images.")
    parser.add_argument("checkpoint", help="folder or Hub id")
    parser.add_argument(
        "images",
        nargs="+",
        help="files, folders (all in them whose names end as images' do), parquet files, and 'patterns/**/*.jpg'",
    )
    parser.add_argument("--top_k", "--top-k", type=positive, default=1, help="labels per image (default: 1)")
    parser.add_argument(
        "--output",
        help="write a table to this file: .jsonl, .csv or .parquet; the same command goes on if it was interrupted, "
        "and images that cannot be read are listed beside it, in a file that ends in .skipped.csv",
    )
    parser.add_argument("--image_column_name", help="column of the images in parquet files (default: found by itself)")
    _add_batch_size(parser)
    _add_speed(parser)
    add_checkpoint_flags(parser)
    options = vars(parser.parse_args(argv))
    keep_freed_memory()
    with stoppable():
        return _print_predictions(options) if options["output"] is None else _write_predictions(options)


def _print_predictions(options: dict[str, Any]) -> int:
    from .prediction import Prediction, predict

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("several processes cannot print one list: name a table with --output.")
    del options["output"]
    status = 0
    for item in predict(**options):
        if isinstance(item, Prediction):
            ranked = zip(item.labels, item.scores, strict=True)
            print(on_one_line(item.file), *(f"{label} {score:.2%}" for label, score in ranked), sep="\t")
        else:
            status = SOME_IMAGES_BAD
            print(f"vit-scratch predict: skipped: {item}", file=sys.stderr)
    return status


def _write_predictions(options: dict[str, Any]) -> int:
    from .interruption import Interrupted
    from .prediction_table import predict_table

    try:
        written = predict_table(
            **options, say=lambda sentence: print(f"vit-scratch predict: {sentence}", file=sys.stderr)
        )
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "signal", signal.SIGINT)
        raise Interrupted(number, "interrupted; the same command goes on.") from interrupt
    if written is None:  # in another process than the first
        return 0
    skipped = f", {written.bad:,} skipped ({written.bad_list})" if written.bad else ""
    print(f"{written.predicted:,} images written to {options['output']}{skipped}")
    return SOME_IMAGES_BAD if written.bad else 0


def _import(argv: list[str]) -> int:
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
    from huggingface_hub.utils import enable_progress_bars

    from .arguments import parse_overrides
    from .porting import import_checkpoint, import_lines

    if sys.stderr.isatty():
        enable_progress_bars()  # of downloads, which take long
    options = vars(arguments)
    options["config_overrides"] = parse_overrides(arguments.config_overrides)
    with stoppable():
        imported = import_checkpoint(**options)
    print(*import_lines(imported, arguments.source, arguments.output), sep="\n")
    return 0


def _export(argv: list[str]) -> int:
    from .deployment.command import export

    return export(argv)


def _dry_run(argv: list[str]) -> int:
    from .inspection.command import dry_run_verb

    return dry_run_verb(argv)


def _explain(argv: list[str]) -> int:
    from .inspection.command import explain_verb

    return explain_verb(argv)


def _push(argv: list[str]) -> int:
    parser = Parser(prog="vit-scratch push", description="Publish a checkpoint on the Hub, with its card.")
    parser.add_argument("checkpoint", help="folder")
    parser.add_argument("repo_id", help="owner/name, or name for one of yours; it is made if there is none")
    parser.add_argument("--private", action="store_const", const=True, help="make a new repository private")
    parser.add_argument("--revision", metavar="R", help="branch; it is made if there is none (default: main)")
    parser.add_argument("--create_pr", "--create-pr", action="store_true", help="open a pull request instead")
    parser.add_argument("--license", metavar="L", help="by the Hub's name for it, such as apache-2.0, for the card")
    parser.add_argument(
        "--no_images",
        "--no-images",
        dest="images",
        action="store_false",
        help="leave out what shows images of the data",
    )
    options = vars(parser.parse_args(argv))
    from huggingface_hub.utils import enable_progress_bars

    from .hub import push, push_lines
    from .prediction import check_checkpoint

    if not os.path.isdir(options["checkpoint"]):
        raise ValueError(f"there is no checkpoint folder {options['checkpoint']}.")
    check_checkpoint(options["checkpoint"])
    if sys.stderr.isatty():
        enable_progress_bars()  # of uploads, which take long
    with stoppable():
        published = push(**options, say=lambda sentence: print(f"vit-scratch push: {sentence}", file=sys.stderr))
    print(*push_lines(published, options["revision"]), sep="\n")
    return 0


def _demo(argv: list[str]) -> int:
    parser = Parser(prog="vit-scratch demo", description="Show a checkpoint on a page in the browser.")
    parser.add_argument("checkpoint", help="folder or Hub id")
    parser.add_argument(
        "--examples", nargs="*", default=[], metavar="IMAGE", help="image files and folders to try it with"
    )
    parser.add_argument("--title", help="name over the page (default: that of the checkpoint)")
    parser.add_argument("--space", metavar="DIR", help="write a folder that is ready to be a Hub Space, instead")
    parser.add_argument(
        "--server_name", "--server-name", "--host", help="address to listen at (default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument(
        "--server_port", "--server-port", "--port", type=count, help="port (default: the first free one from 7860 on)"
    )
    _add_speed(parser)
    add_checkpoint_flags(parser)
    options = vars(parser.parse_args(argv))
    try:
        from .serving import serve
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ValueError("the demo needs gradio: pip install 'vit-scratch[demo]'.") from error
    from .space import write_space

    space, address = options.pop("space"), {name: options.pop(name) for name in ("server_name", "server_port")}
    with stoppable():
        if space is None:
            serve(**options, **address)
        elif any(value is not None for value in address.values()):
            raise ValueError("--space writes a folder and serves nothing: leave out --server_name and --server_port.")
        else:
            print(*write_space(output=space, **options), sep="\n")
    return 0


def on_one_line(name: str) -> str:
    """A file name as it is shown: what would break the line, and bytes that are no text, as Python spells them."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let what was begun be undone when the process is asked to end, as schedulers do."""
    from .interruption import Interrupted

    def stop(number: int, frame: object) -> None:
        raise Interrupted(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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


VERBS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (partial(_by_recipe, verb="train"), "train a model by a recipe"),
    "pretrain": (partial(_by_recipe, verb="pretrain"), "train a model on images without labels, to be fine-tuned"),
    "evaluate": (_evaluate, "score a checkpoint on labelled images"),
    "predict": (_predict, "say what is on images"),
    "dry-run": (_dry_run, "see what goes into each layer and comes out"),
    "explain": (_explain, "see where on images a classifier's answers come from"),
    "import": (_import, "load the weights of another library"),
    "export": (_export, "write a checkpoint for another library, or as a file that runs without any"),
    "push": (_push, "publish a checkpoint on the Hub"),
    "demo": (_demo, "show a checkpoint on a page in the browser"),
}
