# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Settings that transformers, accelerate or torch would refuse in the middle of a run, tried before it begins.

Help, which needs none of this, does not wait for what is imported in the functions.
"""

import copy
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments

# Where to log -> what to install, if the names differ.
PACKAGES = {"azure_ml": "azureml-mlflow", "comet_ml": "comet_ml", "flyte": "flytekit", "kubeflow": "kubeflow-sdk"}


# Of `accelerator_config`, what the loaders of this package do not ask.
NOT_ASKED = ("split_batches", "dispatch_batches", "even_batches", "use_seedable_sampler")
# What transformers takes for checkpointed activations, and `torch.utils.checkpoint` that a text can say.
CHECKPOINTING = (
    *("every_n_layers", "offload"),
    *("use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop"),
)


# What does nothing without another setting.
NEEDS = {
    "fsdp_config": "fsdp",
    "liger_kernel_config": "use_liger_kernel",
    **dict.fromkeys(("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"), "activation_checkpointing"),
}
OF_LANGUAGE_MODELS = ("use_cache", "include_num_input_tokens_seen", "include_for_metrics", "length_column_name")


@contextmanager
def settings_of_others(*names: str) -> Iterator[None]:
    """Make a sentence of what libraries raise over a setting: a package that is missing, a value that does not fit.

    Args:
        names: of the settings that it can be about, if they are known.

    Raises:
        ValueError: with what the library said.
    """
    try:
        yield
    except ValueError as error:
        if not names:
            raise  # it is a sentence of ours
        raise ValueError(f"{' or '.join(names)} cannot be used so: {str(error).rstrip('.')}.") from error
    except (ImportError, RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        said = " ".join(str(error).split()).rstrip(".") or "no reason given"
        which = " or ".join(names) or "these settings"
        raise ValueError(f"{which} cannot be used here: {said} ({type(error).__name__}).") from error


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


def check_values(arguments: "TrainingArguments") -> None:
    """Refuse values that transformers would refuse without the name of the setting, before it sees them.

    Raises:
        ValueError: with what is wrong.
    """
    from accelerate.utils import DynamoBackend, is_deepspeed_available

    if arguments.deepspeed and not is_deepspeed_available():
        raise ValueError("deepspeed needs a package that is not installed: pip install deepspeed.")
    backends = [backend.value.lower() for backend in DynamoBackend if backend != DynamoBackend.NO]
    if arguments.torch_compile_backend not in (None, *backends):
        raise ValueError(
            f"torch_compile_backend must be of {', '.join(backends)}, got {arguments.torch_compile_backend!r}."
        )
    if arguments.ddp_backend is not None and os.environ.get("WORLD_SIZE", "1") == "1":
        raise ValueError(
            f"ddp_backend {arguments.ddp_backend} is for several processes, and this is one: leave it out, or begin "
            "with torchrun or accelerate launch."
        )
    for name in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs", "lr_scheduler_kwargs"):
        _check_object(name, getattr(arguments, name))
    for name in ("accelerator_config", "fsdp_config"):
        value = getattr(arguments, name)
        if not (isinstance(value, str) and Path(value).is_file()):
            _check_object(name, value, " or a file of it")


def _check_object(name: str, value: Any, otherwise: str = "") -> None:
    with suppress(ValueError):  # no JSON
        value = json.loads(value) if isinstance(value, str) else value
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an object of JSON, such as '{{\"a\": 1}}'{otherwise}, got {value!r}.")


def check_settings(arguments: Any) -> None:
    """Refuse settings that need a package that is not installed, would end a run later, or would do nothing.

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
    every = (arguments.activation_checkpointing_kwargs or {}).get("every_n_layers", 1)
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"every_n_layers in activation_checkpointing_kwargs must be at least 1, got {every!r}.")
    unknown = sorted(set(arguments.activation_checkpointing_kwargs or {}) - set(CHECKPOINTING))
    if unknown:
        raise ValueError(f"activation_checkpointing_kwargs takes {', '.join(CHECKPOINTING)}, got {', '.join(unknown)}.")
    _check_effect(arguments)
    _check_accelerator(arguments.accelerator_config)
    for item in filter(None, (arguments.optim_args or "").split(",")):
        if "=" not in item:
            raise ValueError(f"optim_args must be name=value,…, got {item!r}.")


def _check_effect(arguments: Any) -> None:
    """Refuse what would do nothing."""
    if arguments.data_seed is not None:
        raise ValueError(
            f"data_seed must be left out, got {arguments.data_seed}: the order of the images follows seed."
        )
    if arguments.dataloader_multiprocessing_context is not None and not arguments.dataloader_num_workers:
        raise ValueError(
            f"dataloader_multiprocessing_context {arguments.dataloader_multiprocessing_context} is for processes that "
            "load images, and dataloader_num_workers is 0: leave it out, or have some."
        )
    for name, needed in NEEDS.items():
        if name in arguments.given and not getattr(arguments, needed):
            raise ValueError(f"{name} does nothing without {needed}: give that, too, or leave it out.")
    for name in OF_LANGUAGE_MODELS:
        if name in arguments.given:
            raise ValueError(f"{name} does nothing for images: leave it out.")
    if arguments.optim_target_modules and not any(name in arguments.optim for name in ("galore", "apollo")):
        raise ValueError(f"optim_target_modules does nothing with optim {arguments.optim.value}: leave it out.")


def _check_accelerator(config: Any) -> None:
    if "num_steps" in (config.gradient_accumulation_kwargs or {}):
        raise ValueError("num_steps in accelerator_config is not taken: give gradient_accumulation_steps.")
    default = type(config)()
    for name in NOT_ASKED:
        if getattr(config, name) != getattr(default, name):
            raise ValueError(f"{name} in accelerator_config is not taken: images are drawn by our own order.")


def check_schedule(trainer: "Trainer") -> None:
    """Refuse an optimizer or a scheduler that could not be made, by making them for a model of one number.

    Raises:
        ValueError: with what is wrong.
    """
    import torch
    from transformers import Trainer, get_scheduler

    args = trainer.args
    with settings_of_others("optim", "optim_args"):
        made = Trainer.get_optimizer_cls_and_kwargs(args, cast(Any, trainer.model))
        if args.optim_args:
            without = copy.copy(args)
            without.optim_args = None
            ignored = made == Trainer.get_optimizer_cls_and_kwargs(without, cast(Any, trainer.model))
    if args.optim_args and ignored:
        raise ValueError(
            f"optim {cast(Any, args.optim).value} takes nothing of optim_args {args.optim_args!r}: leave it out."
        )
    with settings_of_others("lr_scheduler_type", "lr_scheduler_kwargs"):
        get_scheduler(
            args.lr_scheduler_type,
            optimizer=torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=args.learning_rate),
            num_warmup_steps=1,
            num_training_steps=2,
            scheduler_specific_kwargs=dict(cast(dict, args.lr_scheduler_kwargs) or {}),
        )
