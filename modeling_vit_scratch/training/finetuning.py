# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""How much of a checkpoint is trained: all of it, its head alone, or its head and low-rank additions to the blocks.

Whichever it is, the `Trainer` gets the plain model, and the checkpoint at the end is one.
"""

import importlib.util
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from ..presets import is_preset
from .sharding import reshard, whole
from .training_arguments import Arguments, ModelArguments

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER = "adapter"  # folder beside the merged checkpoint, for users of PEFT


def check_finetuning(arguments: Arguments) -> None:
    """Refuse, before anything is loaded, what cannot be fine-tuned in the way that is asked for.

    Raises:
        ValueError: if there are no trained weights to start from, PEFT is missing, or Muon would have no matrices.
    """
    model, finetuning = arguments.model, arguments.model.finetuning
    if finetuning == "full":
        return
    if is_preset(model.model):
        raise ValueError(
            f"finetuning {finetuning!r} leaves the body of a checkpoint as it is, and the preset {model.model} has "
            "random weights: name a checkpoint with --model."
        )
    if arguments.training.muon_learning_rate is not None:
        raise ValueError(
            f"muon_learning_rate is for the matrices of the blocks, and finetuning {finetuning!r} does not train them: "
            "leave it out, as the recipe 'finetune' does."
        )
    if finetuning == "lora" and importlib.util.find_spec("peft") is None:
        raise ValueError("finetuning 'lora' needs PEFT, which is not installed: pip install peft.")


def prepare(model: PreTrainedModel, arguments: ModelArguments) -> tuple["PeftModel | None", list[str]]:
    """Freeze what is not to be trained and add what is to be trained besides, in place.

    Returns:
        PEFT's view of the model, for `merge`, or None without LoRA; and the line that says what is trained, if not all.
    """
    if arguments.finetuning == "linear_probe":
        _freeze(model.base_model)
        return None, ["tuning     linear probe: the head alone; the body is frozen, and its dropout is off"]
    if arguments.finetuning == "lora":
        layers = block_layers(model)
        adapted = _add_adapters(model, layers, arguments.lora_rank, arguments.lora_alpha)
        rank = f"LoRA of rank {arguments.lora_rank} on {len(layers)} linear layers"
        return adapted, [f"tuning     {rank}, and the head; the rest of the body is frozen"]
    return None, []


def _freeze(body: nn.Module) -> None:
    """Stop training a module; from now on it is in evaluation mode, whatever the mode of what it is part of.

    Nothing that it computes is random then, so the head learns from the features that it is used with. The rates of
    dropout, stochastic depth and patch dropout in the configuration stay: they are for who trains the body again.
    """
    body.requires_grad_(False).eval()
    body.train = lambda mode=True: body  # type: ignore[method-assign]  # the Trainer calls it before each step


def block_layers(model: Any) -> list[str]:
    """Names of the linear layers of all blocks.

    Args:
        model: which declares its `layer_depths`.
    """
    depths = model.layer_depths()
    last = max(depths.values())
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and 0 < depths[f"{name}.weight"] < last
    ]


def _add_adapters(model: PreTrainedModel, layers: list[str], rank: int, alpha: float) -> "PeftModel":
    """Add to each layer W a product: (W + alpha / rank * B A) x (LoRA, Hu et al. 2021, arXiv 2106.09685, section 4.1).

    PEFT replaces the layers in place, and lets a copy of the head be trained.
    """
    from peft import LoraConfig, get_peft_model

    head = [name for name, module in model.named_children() if module is not model.base_model]
    scale: Any = alpha  # PEFT's annotation wants whole numbers, its arithmetic does not
    config = LoraConfig(r=rank, lora_alpha=scale, target_modules=layers, modules_to_save=head)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # PEFT asks transformers so
        return get_peft_model(model, config)


def merge(adapted: "PeftModel") -> dict[str, bytes]:
    """Make the plain model of one with adapters, in place, with their products in its weights.

    Returns:
        PEFT's files of the adapters and the head, by name, for `PeftModel.from_pretrained`.
    """
    reshard(adapted)  # the products are to be added to the shards
    trained = {name: whole(weight).detach() for name, weight in adapted.named_parameters() if weight.requires_grad}
    with tempfile.TemporaryDirectory() as folder:
        adapted.save_pretrained(folder, save_embedding_layers=False, state_dict=trained)
        # Its README is a form to fill in; the checkpoint has a card.
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != "README.md"}
    adapted.merge_and_unload()
    return files


def check_resumable(model: PreTrainedModel, checkpoint: str) -> None:
    """Refuse to go on from a checkpoint whose weights are not those of the model: transformers would leave them out.

    Raises:
        ValueError: naming one of them.
    """
    path = Path(checkpoint) / SAFE_WEIGHTS_NAME
    if not path.is_file():
        return  # of sharded training
    with safe_open(path, framework="pt") as file:
        saved = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  # no mapping
    weights = {name: list(weight.shape) for name, weight in model.state_dict().items()}
    different = sorted(name for name in {*saved, *weights} if saved.get(name) != weights.get(name))
    if different:
        raise ValueError(
            f"{checkpoint} holds other weights than this run trains, among them {different[0]}: --model, --finetuning, "
            "--lora_rank and --config_overrides must be those that it was trained with."
        )
