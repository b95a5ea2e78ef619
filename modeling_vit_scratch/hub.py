# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The model card that every saved checkpoint carries, with the metadata that the Hub reads."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig, Trainer

from .augmentation import describe
from .layers_vit_scratch import height_width
from .metrics import per_class_report
from .presets import shipped_path
from .report import SplitResults, clock

# Names by which the Hub knows our metrics.
HUB_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "top5_accuracy": "top_5_accuracy"}
LIBRARIES = ("torch", "transformers", "datasets", "accelerate")


def write_model_card(
    folder: Path,
    trainer: Trainer,
    results: SplitResults | None,
    metrics: dict[str, float],
    recipe: dict[str, Any],
    seconds: float,
) -> None:
    """Render `model_card.md` for a finished run into `folder/README.md`.

    Args:
        folder: the checkpoint.
        trainer: the trainer of the run, at its end.
        results: predictions of the split that the per-class table is of; None without one.
        metrics: final metrics, named by split.
        recipe: the settings of the run.
        seconds: what it took.
    """
    model: Any = trainer.model
    config: PreTrainedConfig = model.config
    name = Path(trainer.args.output_dir).resolve().name
    labels = [config.id2label[index] for index in range(config.num_labels)]
    height, width = height_width(config.image_size)
    train_split: Any = trainer.train_dataset
    counts = {"train": train_split.num_rows}
    counts |= {split: dataset.num_rows for split, dataset in trainer.eval_dataset.items()}
    if results is not None:
        counts[results.name] = results.dataset.num_rows
    card = ModelCard.from_template(
        card_metadata(name, recipe, metrics),
        template_path=str(shipped_path("model_card.md")),
        model_name=name,
        model_id=".",
        num_hidden_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        num_parameters=f"{model.num_parameters():,}",
        norm_first=config.norm_first,
        image_height=height,
        image_width=width,
        labels=labels,
        preprocessing=describe(trainer.processing_class),
        data=_data_sentence(recipe),
        counts={split: f"{count:,}" for split, count in counts.items()},
        metrics=metrics,
        per_class=per_class_report(results.logits, results.labels, labels) if results else [],
        final_split=results.name if results else "",
        duration=clock(seconds),
        hardware=_hardware(trainer),
        versions=", ".join(f"{library} {version(library)}" for library in LIBRARIES),
        recipe=yaml.safe_dump(recipe, sort_keys=False).strip(),
    )
    card.save(folder / "README.md")


def card_metadata(name: str, recipe: dict[str, Any], metrics: dict[str, float]) -> ModelCardData:
    """The header of the card: what the Hub lists, filters and draws."""
    data = _public_data_name(recipe)
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=data.lower(),
            dataset_name=data,
            dataset_split=split,
            metric_type=HUB_METRICS[metric],
            metric_name=key,
            metric_value=value,
        )
        for key, value in metrics.items()
        for split, _, metric in [key.partition("_")]
        if metric in HUB_METRICS
    ]
    return ModelCardData(
        model_name=name,
        eval_results=results or None,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["vit-scratch", "vision-transformer"],
        metrics=sorted({result.metric_type for result in results}) or None,
    )


def _public_data_name(recipe: dict[str, Any]) -> str:
    """The name of the data without the path that it had on the machine of the run."""
    return Path(str(recipe.get("data", "digits"))).name


def _data_sentence(recipe: dict[str, Any]) -> str:
    name = _public_data_name(recipe)
    if name == "digits":
        return "Scikit-learn's handwritten digits: 1,797 grey scans of 8x8 pixels, ten classes (`load_digits`)."
    return f"`{name}`; where the data has no split of its own, it was drawn from its train split."


def _hardware(trainer: Trainer) -> str:
    device = trainer.args.device
    if device.type == "cuda":
        return f"{trainer.args.world_size} x {torch.cuda.get_device_name(device)}"
    return f"{torch.get_num_threads()} threads of a CPU ({platform.machine()})"
