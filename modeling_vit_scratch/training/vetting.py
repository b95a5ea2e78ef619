# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Settings that transformers, accelerate or torch would refuse in the middle of a run, tried before it begins.

Help, which needs none of this, does not wait for what is imported in the functions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments

# Where to log -> what to install, if the names differ.
PACKAGES = {"azure_ml": "azureml-mlflow", "comet_ml": "comet_ml", "flyte": "flytekit", "kubeflow": "kubeflow-sdk"}


@contextmanager
def settings_of_others() -> Iterator[None]:
    """Make a sentence of what libraries raise over a setting: a package that is missing, a value that does not fit.

    Raises:
        ValueError: with what the library said.
    """
    try:
        yield
    except (ImportError, RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        said = " ".join(str(error).split()).rstrip(".") or "no reason given"
        raise ValueError(f"these settings cannot be used here: {said} ({type(error).__name__}).") from error


def check_report_to(report_to: str | list[str] | None) -> None:
    """Refuse to log where that cannot be.

    Raises:
        ValueError: with what to install, or the names that there are.
    """
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    for name in [report_to] if isinstance(report_to, str) else report_to or []:
        if name in ("all", "none"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ValueError(f"report_to must be none, all, or of {known}, got {name!r}.")
        if name not in get_available_reporting_integrations():
            raise ValueError(
                f"report_to {name} needs a package that is not installed: pip install {PACKAGES.get(name, name)}, or "
                "--report_to none."
            )


def check_settings(arguments: "TrainingArguments") -> None:
    """Refuse settings that need a package that is not installed, or would end a run at its first validation.

    Raises:
        ValueError: with what to install, or what to leave out.
    """
    from transformers.debug_utils import DebugOption
    from transformers.utils import is_liger_kernel_available, is_torch_xla_available

    check_report_to(arguments.report_to)
    if arguments.use_liger_kernel and not is_liger_kernel_available():
        raise ValueError("use_liger_kernel=True needs a package that is not installed: pip install liger-kernel.")
    if DebugOption.TPU_METRICS_DEBUG in arguments.debug and not is_torch_xla_available():
        raise ValueError("debug tpu_metrics_debug needs a TPU and torch_xla: leave it out.")
    if arguments.label_names not in (None, ["labels"]):
        raise ValueError(
            f"label_names must be left out, got {' '.join(arguments.label_names)}: models of this package take labels."
        )
    if arguments.data_seed is not None:
        raise ValueError(
            f"data_seed must be left out, got {arguments.data_seed}: the order of the images follows seed."
        )
    if arguments.dataloader_multiprocessing_context is not None and not arguments.dataloader_num_workers:
        raise ValueError(
            f"dataloader_multiprocessing_context {arguments.dataloader_multiprocessing_context} is for processes that "
            "load images, and dataloader_num_workers is 0: leave it out, or have some."
        )
    if "num_steps" in (cast(Any, arguments.accelerator_config).gradient_accumulation_kwargs or {}):
        raise ValueError("num_steps in accelerator_config is not taken: give gradient_accumulation_steps.")
    for item in filter(None, (arguments.optim_args or "").split(",")):
        if "=" not in item:
            raise ValueError(f"optim_args must be name=value,…, got {item!r}.")


def check_schedule(trainer: "Trainer") -> None:
    """Refuse an optimizer or a scheduler that could not be made, by making them for a model of one number.

    Raises:
        ValueError: with what is wrong.
    """
    import torch
    from transformers import Trainer, get_scheduler

    args = trainer.args
    with settings_of_others():
        Trainer.get_optimizer_cls_and_kwargs(args, cast(Any, trainer.model))
        get_scheduler(
            args.lr_scheduler_type,
            optimizer=torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=args.learning_rate),
            num_warmup_steps=1,
            num_training_steps=2,
            scheduler_specific_kwargs=dict(cast(dict, args.lr_scheduler_kwargs) or {}),
        )
