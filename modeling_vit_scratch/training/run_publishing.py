# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""`--push_to_hub`: the repository is made before a run, and the finished checkpoint goes there."""

import logging
import shlex
from pathlib import Path

from ..hub.pushing import make_repository, push, push_lines
from .training_arguments import TrainingArguments

logger = logging.getLogger(__name__)


def make_run_repository(arguments: TrainingArguments, token: str | None = None, private: bool | None = None) -> str:
    """Make the repository of a run, called as its output folder unless it has a name; the whole name.

    Raises:
        ValueError: if it cannot be written.
    """
    name = arguments.hub_model_id or Path(str(arguments.output_dir)).resolve().name
    private = arguments.hub_private_repo if private is None else private
    return make_repository(name, private=private, token=token or arguments.hub_token)


def push_run(arguments: TrainingArguments, repository: str) -> list[str]:
    """Publish the finished checkpoint in the output folder; what became of it, for a person.

    Raises:
        ValueError: if it could not be published, with the command that does it later.
    """
    try:
        published = push(
            str(arguments.output_dir),
            repository,
            revision=arguments.hub_revision,
            token=arguments.hub_token,
            images=arguments.hub_images,
            say=logger.warning,
        )
        return push_lines(published, arguments.hub_revision)
    except ValueError as error:
        command = f"vit-scratch push {shlex.quote(str(arguments.output_dir))} {repository}"
        raise ValueError(f"{error} The checkpoint is whole; `{command}` publishes it.") from error
