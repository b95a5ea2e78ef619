# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Imported before a training, it has weights really sharded (FSDP2) by processes on a CPU.

accelerate shards on GPUs alone: in `AcceleratorState.__init__`, where it finds processes on CPUs (MULTI_CPU), it leaves
the settings of FSDP aside, and DDP takes over without a word. Here they pass for processes on GPUs while it decides;
the rest of accelerate, of transformers and of the package is as it is.
"""

import os
import signal
import sys

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard

from modeling_vit_scratch.training.trainer import ViTTrainer

decide = AcceleratorState.__init__
learn = ViTTrainer.training_step
begin = ViTTrainer.begin_average


def decide_as_on_gpus(self, *arguments, **options):
    if PartialState().distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    decide(self, *arguments, **options)


def check_shards(self):
    """Whatever the test is of, the weights and what the optimizer keeps of them are in two halves."""
    begin(self)
    assert isinstance(self.model, FSDPModule)
    for parameter in self.model.parameters():
        assert isinstance(parameter, DTensor)
        assert parameter.device_mesh.size() == 2
        assert parameter.placements == (Shard(0),)


def learn_and_tell(self, *arguments, **options):
    if self.state.global_step == int(os.environ.get("STOP_AT", -1)) and self.args.process_index == 1:
        signal.raise_signal(signal.SIGTERM)
    loss = learn(self, *arguments, **options)
    if self.state.global_step == 1:
        state = self.optimizer.state.values()
        kept = [tensor for tensors in state for tensor in tensors.values() if isinstance(tensor, DTensor)]
        for name, tensors in (("weights", list(self.model.parameters())), ("optimizer", kept)):
            here, everywhere = (sum(map(bytes_of, tensors)) for bytes_of in (local_bytes, whole_bytes))
            print(f"{name}: {here} bytes of {everywhere} here", file=sys.stderr)
    return loss


def local_bytes(tensor):
    return tensor.to_local().nbytes


def whole_bytes(tensor):
    return tensor.numel() * tensor.element_size()


AcceleratorState.__init__ = decide_as_on_gpus
ViTTrainer.begin_average = check_shards
ViTTrainer.training_step = learn_and_tell
