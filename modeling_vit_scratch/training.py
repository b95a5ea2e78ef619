# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The main job: from images in classes to a checkpoint that anyone can load, with transformers' `Trainer`."""

import os
import shlex
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    set_seed,
)
from transformers.image_processing_utils import BaseImageProcessor

from .arguments import Arguments, DataArguments, ModelArguments, TrainingArguments, parse_overrides
from .augmentation import Variation, preprocessing, variations
from .batch_augmentation import BatchAugmentation
from .configuration_vit_scratch import ViTScratchConfig
from .data import load_images, with_splits
from .finetuning import check_finetuning, check_resumable, is_preset, merge, prepare
from .images import without_bad_images
from .interruption import StopSignal
from .layers_vit_scratch import height_width
from .losses import ClassificationLoss, class_weights
from .metrics import compute_metrics
from .prediction import check_checkpoint, loading
from .presets import preset_path
from .recipes import AnyArguments, recipe_of
from .report import EpochReport, SplitResults, clock, plan, results_lines
from .run_folder import (
    PICTURE,
    SAMPLE,
    check_output_dir,
    check_same_labels,
    claimed_output_dir,
    resume_point,
    write_checkpoint,
)
from .sampling import TrainingImages
from .streaming import ImageStream, StreamedImages, stream_images
from .trainer import ViTTrainer
from .training_card import FinishedRun

# Parts of the body that a checkpoint of another job lacks: only classifiers pool, only pre-training masks.
OF_ONE_JOB = ("pooler.", "mask_patches.")


def train(arguments: Arguments) -> dict[str, float]:
    """Train, evaluate, and write a self-contained checkpoint to the output folder.

    The test split takes no part in any choice: it is evaluated once, at the end, with the best checkpoint.

    Returns:
        The final metrics, each named by its split: `validation_accuracy`, `test_accuracy`, ….

    Raises:
        ValueError: if the arguments, the data or the output folder will not do, before anything is trained; or if
            training failed.
        Interrupted: if the process was asked to end; there is a checkpoint to go on from.
    """
    began = time.monotonic()
    check_finetuning(arguments)
    training = arguments.training
    recipe = recipe_of(arguments)
    checkpoint = resume_point(training, recipe)
    if checkpoint is None:
        check_output_dir(training, recipe)
    splits, news = load_splits(arguments.data)
    label_names = splits["train"].features["label"].names
    if checkpoint is not None:
        check_same_labels(checkpoint, label_names)
    check_metric(training, splits)
    set_seed(training.seed)
    model, processor, origin = build_model(arguments.model, label_names)
    adapted, tuned = prepare(model, arguments.model)
    if checkpoint is not None:
        check_resumable(model, checkpoint)
        origin = f"resumed    {checkpoint}"
    stop = StopSignal()
    trainer, varied = build_trainer(model, processor, splits, arguments, stop)
    say(training, [*news, origin, *tuned, *plan(trainer, splits, varied), ""])
    keep = checkpoint is not None or not training.overwrite_output_dir
    with claimed_output_dir(training, recipe, keep=keep):
        with stop.listening():
            trainer.train(resume_from_checkpoint=checkpoint)
        seconds = time.monotonic() - began
        adapter = merge(adapted) if adapted else {}
        more = {"model": model, "adapter": adapter, "seconds": seconds, "resumed": checkpoint is not None}
        run = finished_run(trainer, processor, splits, recipe, **more)
        trainer.end_workers()
        write_checkpoint(trainer, run, sample=first_image(splits))
    say(training, ["", *results_lines(run.results, run.metrics), "", *_closing(run, str(training.output_dir))])
    if training.push_to_hub:
        say(training, trainer.push_to_hub())
    return run.metrics


def first_image(splits: DatasetDict) -> Any:
    """An image of the last split, of those that the model was least chosen by."""
    return next(iter(list(splits.values())[-1]))["image"]


def say(arguments: TrainingArguments, lines: list[str]) -> None:
    """Print lines, once however many processes there are."""
    if arguments.process_index == 0:
        print(*lines, sep="\n", flush=True)


def _closing(run: FinishedRun, output: str) -> list[str]:
    picture, sample = os.path.join(output, PICTURE), os.path.join(output, SAMPLE)
    which = f"best {run.chosen_by}" if run.chosen_by else "the last one"
    return [
        f"trained    in {clock(run.seconds)}; checkpoint {output} ({which})",
        *([f"picture    {picture}"] if os.path.exists(picture) else []),
        f"predict    vit-scratch predict {shlex.quote(output)} {shlex.quote(sample)}",
    ]


# --- Before training -------------------------------------------------------------------------------------------------


def load_splits(data: DataArguments) -> tuple[DatasetDict, list[str]]:
    """The splits that the arguments ask for, every image checked, and a line for each image that was left out."""
    where: dict[str, Any] = {
        "config_name": data.data_config_name,
        "image_column_name": data.image_column_name,
        "label_column_name": data.label_column_name,
    }
    if data.streaming:
        return with_stream(*stream_images(data.data, **where, buffer_size=data.shuffle_buffer_size), data)
    splits = load_images(data.data, **where)
    splits = with_splits(
        splits, validation_share=data.train_val_split, test_share=data.train_test_split, seed=data.split_seed
    )
    splits, left_out = without_bad_images(splits, strict=data.strict_images)
    return splits, [f"left out   {sentence}" for sentence in left_out]


def with_stream(stream: ImageStream, others: DatasetDict, data: DataArguments) -> tuple[DatasetDict, list[str]]:
    """What `load_splits` returns, of a train split that is streamed: its images are checked when they come."""
    others, left_out = without_bad_images(others, strict=data.strict_images)
    news = [f"left out   {sentence}" for sentence in left_out]
    if "validation" not in others:
        news.append("validation none: a stream is not divided, and the data has no validation split")
    if data.train_test_split and "test" not in others:
        news.append("test       none: a stream is not divided, and the data has no test split")
    splits: Any = {"train": stream, **others}
    return splits, news


def training_images(
    train_split: Any, processor: BaseImageProcessor, steps: list[Variation], arguments: AnyArguments
) -> TrainingImages:
    """The images that are trained on, in memory's reach or streamed, varied by these steps.

    Raises:
        ValueError: if variants of an image are to be in a batch of a stream.
    """
    seed, strict = arguments.training.seed, arguments.data.strict_images
    repeats = arguments.augmentation.repeated_augmentation
    if not isinstance(train_split, ImageStream):
        return TrainingImages(train_split, processor, steps, seed, strict, repeats)
    if repeats > 1:
        raise ValueError("repeated_augmentation is not for images that are streamed: leave it out.")
    return StreamedImages(train_split, processor, steps, seed, strict)


def check_metric(arguments: TrainingArguments, splits: DatasetDict) -> None:
    """Refuse a `metric_for_best_model` that validation will not give.

    Raises:
        ValueError: with the names that there are.
    """
    num_labels = len(splits["train"].features["label"].names)
    metrics = ["loss", *compute_metrics(np.zeros((1, num_labels)), np.zeros(1, dtype=int), num_labels)]
    names = [f"validation_{metric}" for metric in metrics]
    if str(arguments.metric_for_best_model).removeprefix("eval_") not in names:
        raise ValueError(
            f"metric_for_best_model must be one of {', '.join(names)}, got {arguments.metric_for_best_model!r}."
        )


class Start(NamedTuple):
    """Where a model begins."""

    source: str  # a folder or a Hub id
    preset: bool  # the source has no weights
    config: ViTScratchConfig
    processor: BaseImageProcessor
    options: dict[str, Any]  # of loading


def starting_point(arguments: ModelArguments) -> Start:
    """The configuration and the image processor that the arguments name, with what they override.

    Raises:
        ValueError: if there is no such preset or checkpoint, it is of another architecture, or the overrides do not
            fit.
    """
    preset = is_preset(arguments.model)
    source = str(preset_path(arguments.model)) if preset else arguments.model
    options: dict[str, Any] = {"trust_remote_code": arguments.trust_remote_code}
    if not preset:
        check_checkpoint(source)
    with loading(source):
        config = AutoConfig.from_pretrained(source, **options)
        processor = AutoImageProcessor.from_pretrained(source, **options)
    if config.model_type != ViTScratchConfig.model_type:
        raise ValueError(
            f"{source} is a model of the type {config.model_type!r}; vit-scratch trains its own, "
            f"{ViTScratchConfig.model_type!r}: load the weights of a ViT with `vit-scratch import` first (evaluate and "
            "predict take any image classifier)."
        )
    overrides = parse_overrides(arguments.config_overrides)
    for name in ("drop_path_rate", "patch_dropout"):
        if getattr(arguments, name) is not None:
            overrides[name] = getattr(arguments, name)
    _override(config, processor, overrides)
    if arguments.attn_implementation:
        options["attn_implementation"] = arguments.attn_implementation
    return Start(source, preset, config, processor, options)


def build_model(arguments: ModelArguments, label_names: list[str]) -> tuple[PreTrainedModel, BaseImageProcessor, str]:
    """The model, its image processor, and a line that says where the weights come from.

    A preset gives a model with new weights; anything else is a checkpoint, whose head is kept if its labels are the
    same and replaced if not.

    Raises:
        ValueError: if there is no such preset or checkpoint, it is of another architecture, or the overrides do not
            fit.
    """
    start = starting_point(arguments)
    config, processor = start.config, start.processor
    old_names = [label for _, label in sorted((config.id2label or {}).items())]
    config.id2label = dict(enumerate(label_names))
    config.label2id = {label: index for index, label in enumerate(label_names)}
    if start.preset:
        with loading(start.source):
            model = AutoModelForImageClassification.from_config(config, **start.options)
        return model, processor, f"new        {arguments.model}, with random weights"
    model, whole = load_weights(start, AutoModelForImageClassification)
    if whole and old_names == label_names:
        return model, processor, f"loaded     {start.source}, its head kept: the labels are the same"
    _renew_head(model)  # where the sizes match, the old head was loaded
    return (
        model,
        processor,
        f"loaded     {start.source}, with a new head for the {len(label_names)} classes of the data",
    )


def _override(config: ViTScratchConfig, processor: Any, overrides: dict[str, Any]) -> None:
    """Change fields of a configuration, and the size that the processor makes images with that of the model."""
    old_size = height_width(config.image_size)
    try:
        for name, value in overrides.items():
            setattr(config, name, value)
        config.validate()
    except StrictDataclassError as error:
        raise ValueError(f"config_overrides make no model: {error.__cause__}") from error
    height, width = height_width(config.image_size)
    if (height, width) != old_size:
        processor.size = {"height": height, "width": width}


def load_weights(start: Start, auto_class: Any) -> tuple[PreTrainedModel, bool]:
    """A checkpoint's weights in the model that its configuration describes, and whether all of them were there.

    Args:
        start: with the checkpoint.
        auto_class: one of transformers', for the job of the model.

    Raises:
        ValueError: if weights of the body are missing or of another size.
    """
    with loading(start.source):
        model, report = auto_class.from_pretrained(
            start.source,
            config=start.config,
            dtype=torch.float32,  # mixed precision keeps its own copies
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **start.options,
        )
    # With FSDP one process makes the new weights, and the others, which get them later, were given no memory for them.
    without_memory = {name: weight for name, weight in model.state_dict().items() if weight.is_meta}
    replacements = {name: torch.zeros_like(weight, device="cpu") for name, weight in without_memory.items()}
    model.load_state_dict(replacements, strict=False, assign=True)
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    body = f"{model.base_model_prefix}."
    wrong = sorted(key for key in absent if key.startswith(body) and not key.removeprefix(body).startswith(OF_ONE_JOB))
    if wrong:
        raise ValueError(
            f"the weights of {start.source} do not fit the configuration: {len(wrong)} are missing or of another size, "
            f"among them {wrong[0]}; do not override fields that change the body of a checkpoint (`vit-scratch import "
            "--image-size` fits one to another image size)."
        )
    return model, not absent


def _renew_head(model: PreTrainedModel) -> None:
    """Give new random weights to all that stands outside the body."""
    fresh = type(model)(model.config).state_dict()
    body = f"{model.base_model_prefix}."
    model.load_state_dict({name: weight for name, weight in fresh.items() if not name.startswith(body)}, strict=False)


def build_trainer(
    model: PreTrainedModel, processor: BaseImageProcessor, splits: DatasetDict, arguments: Arguments, stop: StopSignal
) -> tuple[ViTTrainer, list[str]]:
    """The `Trainer` of the main job, and a phrase for each way in which it varies images.

    It validates on the split `validation`, if there is one.
    """
    training, augmentation = arguments.training, arguments.augmentation
    image_size = height_width(model.config.image_size)
    vary = variations(augmentation, image_size)
    train_split, validation = splits["train"], splits.get("validation")
    label_names = train_split.features["label"].names
    mean, std = normalisation(processor)
    on_batches = BatchAugmentation(
        augmentation,
        image_mean=mean,
        image_std=std,
        patch_size=height_width(model.config.patch_size),
        image_size=image_size,
        num_labels=len(label_names),
    )
    if validation is None:
        # Without it nothing says which checkpoint is best: end with the last.
        training.eval_strategy, training.load_best_model_at_end = "no", False

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        return compute_metrics(np.asarray(prediction.predictions), np.asarray(prediction.label_ids), len(label_names))

    trainer = ViTTrainer(
        model=model,
        args=training,
        train_dataset=training_images(train_split, processor, list(vary.values()), arguments),
        batch_augmentation=on_batches,
        report=EpochReport(train_split.num_rows),
        stop=stop,
        eval_dataset={} if validation is None else {"validation": validation.with_transform(preprocessing(processor))},
        processing_class=processor,
        compute_loss_func=classification_loss(training, arguments.data, train_split),
        compute_metrics=metrics,
    )
    repeated = augmentation.repeated_augmentation
    more = [f"{repeated} variants of an image in a batch"] if repeated > 1 else []
    return trainer, [*vary, *on_batches.phrases, *more]


def normalisation(processor: Any) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel that an image processor turns into 0 and 1."""
    if processor.do_normalize:
        return list(processor.image_mean), list(processor.image_std)
    return [0.0] * 3, [1.0] * 3


def classification_loss(training: TrainingArguments, data: DataArguments, train_split: Dataset) -> ClassificationLoss:
    """The loss with the smoothing and the class weights that the arguments ask for."""
    weights = None
    if data.class_weights is not None:
        # Of the labels of a stream, of which "auto" was refused, nobody asks.
        labels = np.asarray(train_split["label"][:] if data.class_weights == "auto" else [], dtype=int)
        weights = class_weights(data.class_weights, train_split.features["label"].names, labels)
    return ClassificationLoss(training.label_smoothing_factor, weights)


# --- After training --------------------------------------------------------------------------------------------------


def finished_run(
    trainer: Trainer, processor: BaseImageProcessor, splits: DatasetDict, recipe: dict[str, Any], **more: Any
) -> FinishedRun:
    """Measure what was trained, on every split but `train`, and gather what there is to say of the run."""
    label_names = splits["train"].features["label"].names
    results = {name: predict_split(trainer, name, splits[name], processor) for name in splits if name != "train"}
    metrics = {
        f"{name}_{metric}": value
        for name, result in results.items()
        for metric, value in compute_metrics(result.logits, result.labels, len(label_names)).items()
    }
    final = results.get("test") or results.get("validation")
    return FinishedRun.of(trainer, splits, recipe, metrics, label_names=label_names, results=final, **more)


def predict_split(trainer: Trainer, name: str, dataset: Dataset, processor: BaseImageProcessor) -> SplitResults:
    """The logits of a split, gathered from all processes."""
    output = trainer.predict(dataset.with_transform(preprocessing(processor)), metric_key_prefix=name)
    return SplitResults(name, dataset, np.asarray(output.predictions), np.asarray(output.label_ids))
