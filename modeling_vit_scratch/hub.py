# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The model card that every saved checkpoint carries, with the metadata that the Hub reads."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from .augmentation import describe
from .layers_vit_scratch import height_width
from .metrics import per_class_report
from .presets import shipped_path
from .report import SplitResults, clock

# Names by which the Hub knows our metrics.
HUB_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "top5_accuracy": "top_5_accuracy"}
LIBRARIES = ("torch", "transformers", "datasets", "accelerate")


@dataclass
class FinishedRun:
    """What there is to say of a training run at its end."""

    name: str
    model: PreTrainedModel
    processor: BaseImageProcessor
    recipe: dict[str, Any]
    image_counts: dict[str, int]  # by split
    metrics: dict[str, float]  # named by split
    label_names: list[str]
    results: SplitResults | None  # of the split that the per-class table is of
    seconds: float
    processes: int


def write_model_card(run: FinishedRun, path: Path) -> None:
    """Render `model_card.md` for a run into a README.md at `path`."""
    config = run.model.config
    height, width = height_width(config.image_size)
    # The card is read elsewhere: it names the data, not where it lay.
    recipe = run.recipe | {"data": data_name(run.recipe)}
    card = ModelCard.from_template(
        card_metadata(run),
        template_path=str(shipped_path("model_card.md")),
        model_name=run.name,
        model_id=".",
        num_hidden_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        num_parameters=f"{run.model.num_parameters():,}",
        norm_first=config.norm_first,
        image_height=height,
        image_width=width,
        labels=run.label_names,
        preprocessing=describe(run.processor),
        data=_data_sentence(run.recipe),
        counts={split: f"{count:,}" for split, count in run.image_counts.items()},
        metrics=run.metrics,
        per_class=_per_class(run.results),
        final_split=run.results.name if run.results else "",
        duration=clock(run.seconds),
        hardware=_hardware(run),
        versions=", ".join(f"{library} {version(library)}" for library in LIBRARIES),
        recipe=yaml.safe_dump(recipe, sort_keys=False).strip(),
    )
    card.save(path)


def card_metadata(run: FinishedRun) -> ModelCardData:
    """The header of the card: what the Hub lists, filters and draws."""
    data = data_name(run.recipe)
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
        for key, value in run.metrics.items()
        for split, _, metric in [key.partition("_")]
        if metric in HUB_METRICS
    ]
    return ModelCardData(
        model_name=run.name,
        eval_results=results or None,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["vit-scratch", "vision-transformer"],
        metrics=sorted({result.metric_type for result in results}) or None,
    )


def data_name(recipe: dict[str, Any]) -> str:
    """The name of a recipe's data: that of a Hub dataset, or of a folder or file without the path to it."""
    data = str(recipe["data"])
    return Path(data).resolve().name if Path(data).exists() else data


def _data_sentence(recipe: dict[str, Any]) -> str:
    if recipe["data"] == "digits":
        return "Scikit-learn's handwritten digits: 1,797 grey scans of 8x8 pixels, ten classes (`load_digits`)."
    return f"`{data_name(recipe)}`; splits that the data itself does not have were drawn from its train split."


def _per_class(results: SplitResults | None) -> list:
    return per_class_report(results.logits, results.labels, results.label_names) if results else []


def _hardware(run: FinishedRun) -> str:
    device = run.model.device
    if device.type == "cuda":
        return f"{run.processes} x {torch.cuda.get_device_name(device)}"
    return f"{run.processes} x {torch.get_num_threads()} threads of a CPU ({platform.machine()})"
