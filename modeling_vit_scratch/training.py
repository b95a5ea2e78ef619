# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The main job: from images in classes to a checkpoint that anyone can load, with transformers' `Trainer`."""

import dataclasses
import json
import os
import shlex
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import DatasetDict
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    default_data_collator,
    set_seed,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import get_last_checkpoint

from .arguments import DataArguments, ModelArguments, TrainingArguments
from .augmentation import preprocessing, variations
from .data import load_images, with_splits, without_bad_images
from .hub import FinishedRun, write_model_card
from .layers_vit_scratch import height_width
from .metrics import compute_metrics
from .presets import preset_names, preset_path
from .report import EpochReport, SplitResults, clock, draw_training, plan, results_lines

INCOMPLETE = ".incomplete"
PICTURE = "training.png"
RECIPE = "recipe.yaml"


def train(model_arguments: ModelArguments, data: DataArguments, arguments: TrainingArguments) -> dict[str, float]:
    """Train, evaluate, and write a self-contained checkpoint to `arguments.output_dir`.

    The test split takes no part in any choice: it is evaluated once, at the end, with the best checkpoint.

    Returns:
        The final metrics, each named by its split: `validation_accuracy`, `test_accuracy`, ….

    Raises:
        ValueError: if the arguments, the data or the output folder will not do, before anything is trained.
    """
    began = time.monotonic()
    recipe = recipe_of(model_arguments, data, arguments)
    checkpoint = claim_output_dir(arguments)
    set_seed(arguments.seed)
    splits, news = load_splits(data)
    label_names = splits["train"].features["label"].names
    model, processor, origin = build_model(model_arguments, label_names)
    _say(arguments, [*news, origin, *plan(model, processor, splits, data, arguments), ""])
    trainer = build_trainer(model, processor, splits, data, arguments)
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.monotonic() - began

    results = {name: predict_split(trainer, name, splits[name], processor) for name in splits if name != "train"}
    metrics = {
        f"{name}_{metric}": value
        for name, result in results.items()
        for metric, value in compute_metrics(result.logits, result.labels, len(label_names)).items()
    }
    run = FinishedRun(
        name=Path(str(arguments.output_dir)).resolve().name,
        model=model,
        processor=processor,
        recipe=recipe,
        image_counts={name: dataset.num_rows for name, dataset in splits.items()},
        metrics=metrics,
        label_names=label_names,
        results=results.get("test") or results.get("validation"),
        seconds=seconds,
        processes=arguments.world_size,
    )
    write_checkpoint(trainer, run, Path(str(arguments.output_dir)))
    _say(arguments, ["", *results_lines(run.results, metrics), "", *_closing(trainer, seconds)])
    return metrics


def _say(arguments: TrainingArguments, lines: list[str]) -> None:
    if arguments.process_index == 0:
        print(*lines, sep="\n", flush=True)


def _closing(trainer: Trainer, seconds: float) -> list[str]:
    output, best = str(trainer.args.output_dir), trainer.state.best_model_checkpoint
    return [
        f"trained    in {clock(seconds)}; checkpoint {output}"
        + (f", the best one ({Path(best).name})" if best else ""),
        f"picture    {os.path.join(output, PICTURE)}",
        f"predict    vit-scratch predict {shlex.quote(output)} IMAGE_OR_FOLDER",
    ]


# --- Before training -------------------------------------------------------------------------------------------------


def claim_output_dir(arguments: TrainingArguments) -> str | None:
    """Make sure that the output folder can take this run.

    Returns:
        The checkpoint to resume from, if `resume_from_checkpoint` asks for it.

    Raises:
        ValueError: if the folder cannot be written, or holds another run.
    """
    output = Path(arguments.output_dir or "")
    resume = arguments.resume_from_checkpoint
    if resume is not None and str(resume).lower() != "false":
        if str(resume).lower() != "true":
            if not Path(resume).is_dir():
                raise ValueError(f"there is no checkpoint {resume} to resume from.")
            return str(resume)
        last = get_last_checkpoint(str(output)) if output.is_dir() else None
        if last is None:
            raise ValueError(f"{output} holds no checkpoint to resume from; leave out --resume_from_checkpoint.")
        return last
    with arguments.main_process_first(local=False, desc="output folder"):
        if arguments.process_index == 0:
            _claim(output, overwrite=arguments.overwrite_output_dir)
    return None


def _claim(output: Path, *, overwrite: bool) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise ValueError(f"the output folder {output} cannot be written: {error.strerror}.") from error
    if not any(output.iterdir()):
        return
    is_run = (output / RECIPE).is_file() or any(output.glob("checkpoint-*"))
    if not (is_run and overwrite):
        what = "already holds a run" if is_run else "is not empty"
        hint = ", --resume_from_checkpoint true to go on, or --overwrite_output_dir to start anew" if is_run else ""
        raise ValueError(f"the output folder {output} {what}: choose another --output_dir{hint}.")
    for path in output.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def load_splits(data: DataArguments) -> tuple[DatasetDict, list[str]]:
    """The splits that the arguments ask for, every image checked, and a line for each image that was left out."""
    splits = load_images(
        data.data,
        config_name=data.data_config_name,
        image_column_name=data.image_column_name,
        label_column_name=data.label_column_name,
    )
    splits = with_splits(
        splits, validation_share=data.train_val_split, test_share=data.train_test_split, seed=data.split_seed
    )
    splits, left_out = without_bad_images(splits, skip=data.skip_bad_images)
    return splits, [f"left out   {sentence}" for sentence in left_out]


def build_model(arguments: ModelArguments, label_names: list[str]) -> tuple[PreTrainedModel, BaseImageProcessor, str]:
    """The model, its image processor, and a line that says where the weights come from.

    A preset gives a model with new weights; anything else is a checkpoint, whose head is kept if its labels are the
    same and replaced if not.

    Raises:
        ValueError: if there is no such preset or checkpoint, or the overrides do not fit the configuration.
    """
    preset = arguments.model in preset_names()
    source = str(preset_path(arguments.model)) if preset else arguments.model
    options: dict[str, Any] = {"trust_remote_code": arguments.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **options)
        processor = AutoImageProcessor.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{source!r} is no preset ({', '.join(preset_names())}), and no checkpoint that can be loaded: {error}"
        ) from error
    old_names = [label for _, label in sorted(config.id2label.items())]
    config.id2label = dict(enumerate(label_names))
    config.label2id = {label: index for index, label in enumerate(label_names)}
    if arguments.config_overrides:
        config.update_from_string(arguments.config_overrides)
    height, width = height_width(config.image_size)
    processor.size = {"height": height, "width": width}
    if arguments.attn_implementation:
        options["attn_implementation"] = arguments.attn_implementation
    if preset:
        model = AutoModelForImageClassification.from_config(config, **options)
        return model, processor, f"new        {arguments.model}, with random weights"
    model = AutoModelForImageClassification.from_pretrained(
        source, config=config, ignore_mismatched_sizes=True, use_safetensors=True, **options
    )
    if old_names == label_names:
        return model, processor, f"loaded     {source}, its head kept: the labels are the same"
    model.classification_head.fc.reset_parameters()  # where the sizes match, the old head was loaded
    return model, processor, f"loaded     {source}, with a new head for the {len(label_names)} classes of the data"


def build_trainer(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    splits: DatasetDict,
    data: DataArguments,
    arguments: TrainingArguments,
) -> Trainer:
    """The `Trainer` of the main job; it validates on the split `validation`, if there is one."""
    vary = variations(data, height_width(model.config.image_size))
    validation = splits.get("validation")
    if validation is None:
        # Without it nothing says which checkpoint is best: end with the last.
        arguments.eval_strategy, arguments.load_best_model_at_end = "no", False
    num_labels = len(splits["train"].features["label"].names)

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        return compute_metrics(np.asarray(prediction.predictions), np.asarray(prediction.label_ids), num_labels)

    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=default_data_collator,
        train_dataset=splits["train"].with_transform(preprocessing(processor, vary)),
        eval_dataset={} if validation is None else {"validation": validation.with_transform(preprocessing(processor))},
        processing_class=processor,
        compute_metrics=metrics,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    batch = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    trainer.add_callback(EpochReport(batch))
    return trainer


def predict_split(trainer: Trainer, name: str, dataset, processor: BaseImageProcessor) -> SplitResults:
    """The logits of a split, gathered from all processes."""
    output = trainer.predict(dataset.with_transform(preprocessing(processor)), metric_key_prefix=name)
    return SplitResults(name, dataset, np.asarray(output.predictions), np.asarray(output.label_ids))


# --- After training --------------------------------------------------------------------------------------------------


def recipe_of(*groups: Any) -> dict[str, Any]:
    """The settings of a run that differ from the defaults, and its model and data: a recipe that repeats it."""
    recipe = {}
    for group in groups:
        default = type(group)()
        for item in dataclasses.fields(group):
            value = getattr(group, item.name)
            if item.init and (item.name in ("model", "data") or value != getattr(default, item.name)):
                recipe[item.name] = value
    # Left to each machine: where to write, and what follows from the processes of a launcher.
    for name in ("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "local_rank"):
        recipe.pop(name, None)
    return json.loads(json.dumps(recipe, default=lambda value: getattr(value, "value", str(value))))


def write_checkpoint(trainer: Trainer, run: FinishedRun, output: Path) -> None:
    """Write the final checkpoint, whole or not at all, beside the checkpoints of the run.

    Everything is written into a folder of its own first and then moved; `config.json`, without which nothing loads,
    comes last.
    """
    staging = output / INCOMPLETE
    trainer.save_model(str(staging))
    if not trainer.is_world_process_zero():
        return
    (staging / "training_args.bin").unlink(missing_ok=True)  # a pickle; the recipe says the same
    (staging / RECIPE).write_text(yaml.safe_dump(run.recipe, sort_keys=False), encoding="utf-8")
    (staging / "all_results.json").write_text(json.dumps(run.metrics, indent=2) + "\n", encoding="utf-8")
    trainer.state.save_to_json(str(staging / "trainer_state.json"))
    if run.results is not None:
        draw_training(trainer.state.log_history, run.results, staging / PICTURE)
    write_model_card(run, staging / "README.md")
    for path in sorted(staging.iterdir(), key=lambda path: path.name == "config.json"):
        os.replace(path, output / path.name)
    staging.rmdir()
