# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Transformers' `Trainer` with what training a ViT on one's own images asks for.

Its data come in an order that a resumed run repeats; batches are augmented on their device; weights may be averaged and
layers learn at rates of their own; a checkpoint is written whole or not at all; a signal ends the run at a checkpoint.
"""

import logging
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import gather_object
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, default_data_collator, set_seed
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..data.batch_augmentation import BatchAugmentation
from ..data.images import BadImageError
from ..data.sampling import UNREADABLE, TrainingImages, collate, leave_signals
from ..data.streaming import StreamError
from ..system.interruption import Interrupted, StopSignal, Vote
from .averaging import WeightAverage
from .masking import MaskedImages
from .optimizers import MuonForBlocks, decay_by_layer
from .report import EpochReport
from .run_folder import keep_the_best
from .run_publishing import make_run_repository, push_run
from .saving import save_checkpoint, trained_weights, what_is_kept
from .sharding import check_checkpoint, check_plugin, keep_origin, local
from .training_arguments import TrainingArguments

logger = logging.getLogger(__name__)


class ViTTrainer(Trainer):
    """The `Trainer` of both jobs, classification and masked image modelling.

    Args:
        args: with our additions to transformers' arguments.
        train_dataset: draws of images.
        batch_augmentation: what varies a batch on its device.
        report: what the person at the terminal is told.
        stop: whether the run was asked to end.
        **options: those of `Trainer`.

    Raises:
        ValueError: if the weights are to be sharded in a way that ends without a whole checkpoint.
    """

    args: TrainingArguments
    train_dataset: TrainingImages | MaskedImages
    hub_model_id: Any  # with `push_to_hub` the name of the repository; transformers annotates None

    def __init__(
        self,
        *,
        args: TrainingArguments,
        train_dataset: TrainingImages | MaskedImages,
        batch_augmentation: BatchAugmentation | None,
        report: EpochReport,
        stop: StopSignal,
        **options: Any,
    ):
        super().__init__(args=args, train_dataset=train_dataset, data_collator=default_data_collator, **options)
        check_plugin(getattr(self.accelerator.state, "fsdp_plugin", None))
        self.batch_augmentation = batch_augmentation
        self.report = report
        self.stop = stop
        self.vote = Vote()
        self.step_loss: Tensor | None = None
        self.average: WeightAverage | None = None
        self.resumed_from: str | None = None
        self.loaders: list[DataLoader] = []
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                callback.logging_dir = str(Path(str(args.output_dir)) / "runs")  # one, however often it goes on
        self.add_callback(report)
        self.add_callback(_AroundSteps(self))

    def train(self, resume_from_checkpoint: str | None = None, **options: Any):  # type: ignore[override]  # True is no name
        """Train as transformers does.

        Raises:
            ValueError: if training cannot go on from the checkpoint, the loss is no number, or a checkpoint cannot be
                written.
            Interrupted: if the run was asked to end.
        """
        check_checkpoint(resume_from_checkpoint, self.is_fsdp_enabled)
        self.resumed_from = resume_from_checkpoint
        # At the end transformers would delete all that is named checkpoint-1-something, whoever made it.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        self.save_total_limit = limit
        try:
            with warnings.catch_warnings():
                # The patches are a view of what the convolution gave, and nothing is done in place to them.
                warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
                output = super().train(resume_from_checkpoint, **options)
        except RuntimeError as error:
            # A signal to all processes of a job ends those that load images.
            if self.stop.received is not None and "DataLoader worker" in str(error):
                raise Interrupted(self.stop.received) from error
            raise
        finally:
            self.args.save_total_limit = limit
        self._end_average()
        if limit == 1 and self.args.should_save:
            keep_the_best(str(self.args.output_dir), self.state.best_model_checkpoint)
        return output

    # --- Images ------------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """The images of this process, in an order and in variants that depend on the seed and the epoch alone."""
        args = self.args
        batches = self.train_dataset.batches(args.train_batch_size, args.world_size, args.process_index)
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=collate,
            worker_init_fn=leave_signals,
            num_workers=self.args.dataloader_num_workers or 0,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
            generator=torch.Generator(),  # or each start of workers would draw from the one that training draws from
        )
        # The batches are shared out already.
        prepared = prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=True)
        self.loaders.append(prepared)
        return prepared

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Transformers', with workers that a signal to the whole group does not end."""
        loader = super().get_eval_dataloader(eval_dataset)
        loader.base_dataloader.worker_init_fn = leave_signals  # type: ignore[attr-defined]  # accelerate's loader
        self.loaders.append(loader)
        return loader

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Transformers'."""
        loader = super().get_test_dataloader(test_dataset)
        self.loaders.append(loader)
        return loader

    def end_workers(self) -> None:
        """End the processes that load images; each that is left to the garbage collector takes it five seconds."""
        for loader in self.loaders:
            iterator: Any = loader._iterator
            if iterator is not None:
                iterator._shutdown_workers()
        self.loaders = []

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The batches of a step, and the number of its images in all processes, by which its loss is divided.

        How long they were waited for, and which images could not be read, is reported.
        """
        began = time.monotonic()
        try:
            batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        except BadImageError as error:  # from a worker it comes with the worker's traceback
            raise BadImageError(str(error).strip().rpartition("BadImageError: ")[2]) from error
        except StreamError as error:
            raise ValueError(f"{error} {what_is_kept(self.args)} The same command goes on.") from error
        self.report.waited += time.monotonic() - began
        if self.compute_loss_func is None:  # transformers counts labels alone
            num_images = torch.tensor(sum(len(batch["pixel_values"]) for batch in batches), device=device)
            num_items = self.accelerator.gather(num_images).sum()
        for batch in batches:
            self.report.name_unreadable(batch.pop(UNREADABLE, []))
        return batches, num_items

    # --- A step ------------------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Vary the batch, learn from it, and note whether the loss is a number."""
        if self.batch_augmentation:
            progress = self.state.global_step / self.state.max_steps
            images = inputs["pixel_values"]
            inputs["pixel_values"], inputs["labels"] = self.batch_augmentation(images, inputs["labels"], progress)
            if inputs["pixel_values"].shape != images.shape:
                inputs["interpolate_pos_encoding"] = True
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.step_loss = loss if self.step_loss is None else self.step_loss + loss
        return loss

    def after_step(self) -> bool:
        """Agree with the other processes on how the step went; whether the run is to end here.

        Raises:
            ValueError: if the loss was not finite.
        """
        failed, stop = self.vote.result()
        self._refuse(failed)
        assert self.step_loss is not None
        self.vote.cast(self.state.global_step, self.step_loss, self.stop.received)
        self.step_loss = None
        if self.average is not None:
            self.average.update(self.state.global_step)
        return stop

    def _refuse(self, failed: bool) -> None:
        if failed:
            raise ValueError(
                f"the training loss was not a finite number at step {self.vote.step}: lower --learning_rate, raise "
                f"--warmup_steps, or train in fp32. {what_is_kept(self.args)}"
            )

    # --- The Hub -----------------------------------------------------------------------------------------------------

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository, in process 0, before anything is trained for it.

        Raises:
            ValueError: if it cannot be written.
        """
        if self.is_world_process_zero():
            self.hub_model_id = make_run_repository(self.args, token, private)

    def push_to_hub(self) -> list[str]:  # type: ignore[override]  # transformers saves and describes it first
        """Publish the finished checkpoint in the output folder; what became of it, for a person.

        Raises:
            ValueError: if it could not be published, with the command that does it later.
        """
        return push_run(self.args, self.hub_model_id) if self.is_world_process_zero() else []

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """The model's count: that of `Trainer` takes each pixel for a token."""
        return cast(Any, self.model).floating_point_ops(inputs)

    # --- Learning rates and averages ---------------------------------------------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Transformers' optimizer, with a learning rate for each layer and Muon for the blocks if that is asked for."""
        if self.optimizer is None:
            model = model or self.model
            self.optimizer = super().create_optimizer(model)
            if self.args.layer_decay < 1:
                decay_by_layer(self.optimizer, model, self.args.layer_decay)
            if self.args.muon_learning_rate is not None:
                rate, weight_decay = self.args.muon_learning_rate, self.args.weight_decay
                self.optimizer = MuonForBlocks(self.optimizer, model, rate, weight_decay)
        return self.optimizer

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """All parameters but those that the model declares to be left alone."""
        spared = cast(Any, model).no_weight_decay()
        return [name for name, _ in model.named_parameters() if name not in spared]

    def begin_average(self) -> None:
        """Begin the moving average of the weights as the run begins, or go on with that of its checkpoint."""
        keep_origin(self.model_wrapped)
        if self.args.ema_decay:
            self.average = WeightAverage(self.accelerator.unwrap_model(self.model_wrapped), self.args.ema_decay)
            if self.resumed_from is not None:
                # The checkpoint's model is the average, which is in the model now.
                self.average.load_state_dict(load_file(trained_weights(self.resumed_from)))
                self.average.swap()

    def _end_average(self) -> None:
        """Leave the average in the model, unless the best checkpoint is in it, which holds one already."""
        best_in_place = self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None
        if self.average is not None and not best_in_place:
            self.average.swap()
        self.average = None

    def evaluation_loop(self, *arguments: Any, **options: Any):
        """Evaluate the average of the weights, if there is one; the loss of a classifier is the mean of all images."""
        if self.is_in_train:
            self._refuse(self.vote.result()[0])  # rather than score what is no number
        # The randomness of training is left as it was, whether workers were started here or before.
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        averaged = nullcontext() if self.average is None else self.average.in_place()
        with averaged, torch.random.fork_rng(devices):
            output = super().evaluation_loop(*arguments, **options)
        if self.compute_loss_func is not None:
            # Transformers' is the mean of the batches, and those of several processes are filled up with images again.
            metrics: Any = output.metrics
            *_, losses = cast(Any, output.predictions)  # of each image, at the end
            (name,) = (name for name in metrics if name.endswith("_loss"))
            metrics[name] = float(losses.mean(dtype=float))
        return output

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint, whole or not at all.

        Raises:
            ValueError: if it cannot be written, or the weights are no numbers any more; earlier ones stay.
        """
        # A last update may have spoilt them after the last finite loss.
        weights_finite = all(bool(local(weight).isfinite().all()) for weight in model.parameters())
        all_finite = all(gather_object([weights_finite]))  # a process may have only a part of them
        self._refuse(self.vote.result()[0] or not all_finite)
        save_checkpoint(self)


class _AroundSteps(TrainerCallback):
    """Seeds each process, calls the trainer around steps, and ends a run that was asked to end once it is saved."""

    def __init__(self, trainer: ViTTrainer):
        self.trainer = trainer
        self.ending = False

    def on_train_begin(self, args, state, control, **kwargs):
        # The weights are made, from the seed that all processes share. What varies a batch, and what the model drops,
        # each process draws for itself; a run that goes on restores the state of each.
        set_seed(args.seed + args.process_index)
        self.trainer.begin_average()

    def on_step_end(self, args, state, control, **kwargs):
        if self.trainer.after_step():
            self.ending = True
        # What is due at the end of an epoch, such as validation, comes first: the resumed run would not make up for it.
        if self.ending and not float(state.epoch).is_integer():
            control.should_save = True

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.ending:
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        if self.ending and state.global_step < state.max_steps:
            raise Interrupted(
                self.trainer.stop.received or signal.SIGTERM,
                f"stopped at step {state.global_step:,} of {state.max_steps:,} with a checkpoint; the same command "
                "goes on from there.",
            )
