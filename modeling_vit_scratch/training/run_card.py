# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The card of a trained checkpoint, with the metadata that the Hub reads."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import EvalResult, ModelCardData, try_to_load_from_cache
from transformers import PreTrainedModel, Trainer
from transformers.image_processing_utils import BaseImageProcessor

from ..evaluation.metrics import ClassScores, per_class_report
from ..evaluation.results import SplitResults
from ..hub.cards import architecture, header, in_words, inherited, name_of, render
from ..hub.fetching import Checkpoint, hub_id_of, is_hub_id
from ..model.publishing_vit_scratch import CARD, copy_license
from ..presets import is_preset
from ..text import for_code, for_markdown
from .report import clock

# Names by which the Hub knows our metrics.
HUB_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "top5_accuracy": "top_5_accuracy"}
LIBRARIES = ("vit-scratch", "torch", "transformers", "datasets", "accelerate")


@dataclass
class FinishedRun:
    """What there is to say of a training run at its end."""

    name: str
    model: PreTrainedModel
    processor: BaseImageProcessor
    recipe: dict[str, Any]
    image_counts: dict[str, int]  # by split
    metrics: dict[str, float]  # named by split
    chosen_by: str | None  # the metric that says which checkpoint is best; without one it is the last
    processes: int
    seconds: float
    resumed: bool  # `seconds` are those since then
    notes: list[str] = field(default_factory=list)  # sentences: what to know of the images
    label_names: list[str] = field(default_factory=list)
    results: SplitResults | None = None  # of the split that the per-class table is of
    adapter: dict[str, bytes] = field(default_factory=dict)  # PEFT's files, by name, of a run with LoRA

    @classmethod
    def of(
        cls, trainer: Trainer, splits: Mapping[str, Any], recipe: dict[str, Any], metrics: dict[str, float], **more: Any
    ) -> "FinishedRun":
        """What trainer and splits say of a run, and what `more` does of the fields."""
        arguments, state = trainer.args, trainer.state
        has_best = arguments.load_best_model_at_end and state.best_model_checkpoint
        known: dict[str, Any] = {
            "name": Path(str(arguments.output_dir)).resolve().name,
            "model": trainer.model,
            "processor": trainer.processing_class,
            "recipe": recipe,
            "image_counts": {name: dataset.num_rows for name, dataset in splits.items()},
            "metrics": metrics,
            "chosen_by": str(arguments.metric_for_best_model).removeprefix("eval_") if has_best else None,
            "processes": arguments.world_size,
        }
        return cls(**(known | more))

    @property
    def classifies(self) -> bool:
        """Whether the model knows classes; a pre-trained one knows none."""
        return bool(self.label_names)


def write_model_card(run: FinishedRun, path: Path) -> None:
    """Render `model_card.md` for a run into a README.md at `path`, with the file of its license beside it."""
    metadata = card_metadata(run)
    render(
        metadata,
        path,
        **architecture(run.name, run.model, run.processor),
        origin=_origin(run),
        sample="sample.png",
        has_adapter=bool(run.adapter),
        labels=[for_markdown(label) for label in run.label_names],
        classifies=run.classifies,
        verb="train" if run.classifies else "pretrain",
        data=data_sentence(run.recipe),
        counts={split: f"{count:,}" for split, count in run.image_counts.items()},
        metrics=run.metrics,
        chosen_by=run.chosen_by,
        per_class=_per_class(run.results),
        final_split=run.results.name if run.results else "",
        notes=[for_markdown(note) for note in run.notes],
        duration=f"{clock(run.seconds)} (h:mm:ss) {'since it was resumed' if run.resumed else 'in all'}",
        hardware=_hardware(run),
        versions=f"Python {platform.python_version()}, "
        + ", ".join(f"{library} {version(library)}" for library in LIBRARIES),
        recipe=yaml.safe_dump(_without_places(run.recipe), sort_keys=False, allow_unicode=True).strip(),
    )
    copy_license(_source(run).place, metadata.to_dict(), path.parent)


def card_metadata(run: FinishedRun) -> ModelCardData:
    """The header of the card: what the Hub lists, filters and draws."""
    data = name_of(run.recipe["data"])
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=data,
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
    return header(
        run.name,
        classifies=run.classifies,
        terms=inherited(_source(run)),
        datasets=[run.recipe["data"]] if is_hub_id(run.recipe["data"]) else None,
        eval_results=results or None,
        metrics=sorted({result.metric_type for result in results}) or None,
    )


def _without_places(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe for the card, which is read elsewhere: it names data and checkpoints, not where they lay."""
    named = {key: name_of(value) if isinstance(value, str) else value for key, value in recipe.items()}
    if _starts_from_a_folder(recipe):
        named["model"] = f"./{named['model']}"  # by its name alone it could be taken for a preset
    return named


def _starts_from_a_folder(recipe: dict[str, Any]) -> bool:
    """Whether a run fine-tuned a checkpoint of this machine, which others do not have."""
    return not is_preset(recipe["model"]) and hub_id_of(recipe["model"]) is None


def _source(run: FinishedRun) -> Checkpoint:
    """What the weights began with; of the Hub, the commit stands in the configuration of the model.

    A run that was resumed looked there again, where something else may be by now: of its beginning no commit is known.
    """
    model = run.recipe["model"]
    hub_id = hub_id_of(model)
    if hub_id is None:
        return Checkpoint(model, Path(model), preset=is_preset(model))
    commit = "" if run.resumed else getattr(getattr(run.model, "config", None), "_commit_hash", "")
    card = try_to_load_from_cache(hub_id, CARD, revision=commit or None)
    return Checkpoint(hub_id, Path(card).parent if isinstance(card, str) else Path(model), commit)


def _origin(run: FinishedRun) -> str:
    """How the weights came about, for a sentence."""
    verb = "trained" if run.classifies else "pre-trained"
    if is_preset(run.recipe["model"]):
        return f"{verb} with vit-scratch"
    source = in_words(_source(run))
    if _starts_from_a_folder(run.recipe):
        source = f"{for_code(name_of(run.recipe['model']))}, a checkpoint that is not published with it"
    return f"{'fine-tuned' if run.classifies else verb} with vit-scratch from {source}"


def data_sentence(recipe: dict[str, Any]) -> str:
    """Where the images came from, for a person."""
    if recipe["data"] == "digits":
        return "Scikit-learn's handwritten digits: 1,797 grey scans of 8x8 pixels, ten classes (`load_digits`)."
    name = for_markdown(name_of(recipe["data"]))
    return f"{name}; splits that the data itself does not have were drawn from its train split."


def _per_class(results: SplitResults | None) -> list[ClassScores]:
    if results is None:
        return []
    rows = per_class_report(results.outcome, results.labels, results.label_names)
    return [row._replace(label=for_markdown(row.label)) for row in rows]


def _hardware(run: FinishedRun) -> str:
    device = run.model.device
    if device.type == "cuda":
        return f"{run.processes} x {torch.cuda.get_device_name(device)}"
    return f"the CPU ({platform.machine()}), processes x threads: {run.processes} x {torch.get_num_threads()}"
