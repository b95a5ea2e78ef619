"""The models in two processes: what they compute together is what one computes alone."""

import os

import pytest
import torch
import torch.distributed as dist
from runs import FORKS
from safetensors.torch import load_file
from torch import multiprocessing
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers.distributed.configuration_utils import DistributedConfig

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification, ViTScratchForMaskedImageModeling

# No dropout, so that the processes together compute what one does. No final norm, which the FSDP plan names.
TINY = {
    "image_size": [24, 35],
    "patch_size": [6, 7],
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 56,
    "num_labels": 9,
    "attention_probs_dropout_prob": 0.0,
}

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="needs torch.distributed with gloo")


def batch():
    """Four images and their labels."""
    return torch.randn(4, 3, 24, 35, generator=torch.Generator().manual_seed(1)), torch.tensor([8, 3, 0, 3])


def masked_patches():
    return torch.arange(80).view(4, 20) % 4 == 0  # five in every image


def gradients(model):
    return {name: getattr(p.grad, "full_tensor", lambda p=p: p.grad)() for name, p in model.named_parameters()}


def assert_same(state, expected):
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def in_two_processes(work, folder):
    """Run `work(rank, folder)` in two processes of one gloo group; an error in one of them is raised here."""
    multiprocessing.start_processes(_in_group, (work, str(folder)), nprocs=2, start_method=FORKS.get_start_method())


def _in_group(rank, work, folder):
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    try:
        work(rank, folder)
    finally:
        dist.destroy_process_group()


@pytest.fixture
def folder(tmp_path):
    """A folder with a checkpoint."""
    torch.manual_seed(0)
    ViTScratchForImageClassification(ViTScratchConfig(**TINY)).save_pretrained(tmp_path / "model")
    return tmp_path


def _train_data_parallel(rank, folder):
    images, labels = batch()
    half = slice(2 * rank, 2 * rank + 2)
    for task, inputs in (
        (ViTScratchForImageClassification, {"labels": labels}),
        (ViTScratchForMaskedImageModeling, {"bool_masked_pos": masked_patches()}),
    ):
        torch.manual_seed(0)
        alone = task.from_pretrained(f"{folder}/model")
        alone(images, **inputs).loss.backward()
        torch.manual_seed(0)
        model = task.from_pretrained(f"{folder}/model")
        parallel = DistributedDataParallel(model)
        for _ in range(2):  # a parameter without gradient is noticed in the second step
            model.zero_grad()
            parallel(images[half], **{name: value[half] for name, value in inputs.items()}).loss.backward()
        assert_same(gradients(model), gradients(alone))


def test_data_parallel_gradients_are_those_of_the_whole_batch(folder):
    in_two_processes(_train_data_parallel, folder)


def _train_tensor_parallel(rank, folder):
    images, labels = batch()
    alone = ViTScratchForImageClassification.from_pretrained(f"{folder}/model")
    expected = alone(images, labels=labels)
    expected.loss.backward()
    model = ViTScratchForImageClassification.from_pretrained(
        f"{folder}/model", distributed_config=DistributedConfig(tp_size=2, tp_plan="auto")
    )
    for layer in (model.vit.encoder[1].attention.in_proj, model.vit.encoder[1].attention.out_proj):
        assert isinstance(layer.weight, DTensor)
        assert layer.weight.to_local().numel() == layer.weight.numel() // 2
    outputs = model(images, labels=labels)
    torch.testing.assert_close(outputs.logits, expected.logits, atol=1e-5, rtol=0)
    with torch.no_grad():  # transformers has another path for inference
        torch.testing.assert_close(model(images).logits, expected.logits, atol=1e-5, rtol=0)
    outputs.loss.backward()
    assert_same(gradients(model), gradients(alone))
    model.save_pretrained(f"{folder}/gathered")


def test_tensor_parallel_logits_and_gradients_are_those_of_one_process(folder):
    in_two_processes(_train_tensor_parallel, folder)
    names = "model/model.safetensors", "gathered/model.safetensors"
    stored, gathered = (load_file(folder / name) for name in names)
    assert_same(gathered, stored)


def _train_fully_sharded(rank, folder):
    images, labels = batch()
    alone = ViTScratchForImageClassification.from_pretrained(f"{folder}/model")
    alone(images, labels=labels).loss.backward()
    model = ViTScratchForImageClassification.from_pretrained(
        f"{folder}/model", distributed_config=DistributedConfig(fsdp_size=2)
    ).train()
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    half = slice(2 * rank, 2 * rank + 2)
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.zero_grad()
        model(images[half], labels=labels[half]).loss.backward()
        assert_same(gradients(model), gradients(alone))


def test_fully_sharded_gradients_are_those_of_the_whole_batch(folder):
    in_two_processes(_train_fully_sharded, folder)
