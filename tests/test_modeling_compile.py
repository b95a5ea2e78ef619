"""The models under torch.compile, torch.export and FlexAttention."""

import pytest
import torch

from modeling_vit_scratch import (
    ViTScratchBackbone,
    ViTScratchConfig,
    ViTScratchForImageClassification,
    ViTScratchForMaskedImageModeling,
    ViTScratchModel,
)

# 4 x 5 patches of 6 x 7 pixels, width 48, 6 heads of 8, 2 blocks, 9 labels: no two axes alike.
TINY = {
    "image_size": [24, 35],
    "patch_size": [6, 7],
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "intermediate_size": 56,
    "num_labels": 9,
}
TASKS = [ViTScratchModel, ViTScratchForImageClassification, ViTScratchForMaskedImageModeling, ViTScratchBackbone]
FIT = {"interpolate_pos_encoding": True}

# transformers 5.23 sets a global of its own while a model that can record outputs is traced strictly.
SIDE_EFFECT_OF_TRANSFORMERS = pytest.mark.filterwarnings(
    "ignore:While compiling, we found certain side effects:UserWarning"
)
# torch 2.13's own compiler and FlexAttention, and transformers' call of it, use what torch deprecates.
TORCH_DEPRECATIONS = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'> should not be:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),  # where it is meant
]


def torch_deprecations(test):
    for mark in TORCH_DEPRECATIONS:
        test = mark(test)
    return test


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()


def tiny(task=ViTScratchForImageClassification, **fields):
    torch.manual_seed(0)
    return task(ViTScratchConfig(**{**TINY, **fields})).eval()


def images(batch=2, height=24, width=35):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def padding_mask(batch=2):
    """Images cover 2 of the 4 rows of patches and 3 of the 5 columns, in turn."""
    mask = torch.ones(batch, 4, 5, dtype=torch.bool)
    mask[0::2, 2:] = False
    mask[1::2, :, 3:] = False
    return mask.flatten(1)


def tensors(outputs):
    flat = []
    for value in outputs.values() if isinstance(outputs, dict) else outputs:
        flat += tensors(value) if isinstance(value, tuple) else [value]
    return flat


def assert_same(outputs, expected):
    outputs, expected = tensors(outputs), tensors(expected)
    assert len(outputs) == len(expected) > 0
    for output, reference in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, reference, atol=1e-5, rtol=1e-5)


# --- torch.compile ---------------------------------------------------------------------------------------------------


@torch_deprecations
def test_the_whole_classifier_is_one_compiled_graph():
    model = tiny()
    with torch.no_grad():
        assert_same(torch.compile(model, fullgraph=True)(images()), model(images()))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"patch_attention_mask": padding_mask()},
        {**FIT, "patch_attention_mask": padding_mask()},
        {**FIT, "pixel_values": images(height=36, width=28)},
        {"output_attentions": True},
        {"output_hidden_states": True},
        {"labels": torch.tensor([8, 3])},
    ],
    ids=["masked", "masked and fitted", "fitted", "attentions", "hidden states", "loss"],
)
def test_every_argument_of_the_classifier_compiles_to_one_graph(kwargs):
    model = tiny(pooling="mean")
    kwargs = {"pixel_values": images(), **kwargs}
    expected = model(**kwargs)
    # `aot_eager` is the compiler without the code generation, which the test above has.
    assert_same(torch.compile(model, fullgraph=True, backend="aot_eager")(**kwargs), expected)


@pytest.mark.parametrize("task", TASKS)
def test_every_model_compiles_to_one_graph(task):
    model = tiny(task)
    kwargs = {"pixel_values": images(), "patch_attention_mask": padding_mask()}
    if task is ViTScratchForMaskedImageModeling:
        kwargs["bool_masked_pos"] = torch.arange(40).view(2, 20) % 3 == 0
    expected = model(**kwargs)
    assert_same(torch.compile(model, fullgraph=True, backend="aot_eager")(**kwargs), expected)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_training_step_has_the_same_gradients(checkpointing):
    model = tiny(attention_probs_dropout_prob=0.0).train()
    gradients = []
    for step in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        step(images(), labels=torch.tensor([8, 3])).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        if checkpointing:
            model.activation_checkpointing_enable()
    assert_same(*gradients)


# --- torch.export ----------------------------------------------------------------------------------------------------

BATCH = torch.export.Dim("batch", max=64)


@SIDE_EFFECT_OF_TRANSFORMERS
@pytest.mark.parametrize(
    ("task", "strict"), [*((task, False) for task in TASKS), (ViTScratchForImageClassification, True)]
)
def test_an_exported_model_takes_a_batch_of_any_size(task, strict):
    model = tiny(task)
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: BATCH},), strict=strict)
    for batch in (1, 2, 5):
        assert_same(program.module()(images(batch)), model(images(batch)))


@SIDE_EFFECT_OF_TRANSFORMERS
@pytest.mark.parametrize(
    ("fields", "strict"), [({}, True), ({"position_embedding_type": "sincos2d", "pooling": "mean"}, False)]
)
def test_an_exported_model_takes_a_padding_mask(fields, strict):
    model = tiny(**fields)
    program = torch.export.export(
        model,
        (),
        {"pixel_values": images(), "patch_attention_mask": padding_mask(), **FIT},
        dynamic_shapes={
            "pixel_values": {0: BATCH},
            "patch_attention_mask": {0: BATCH},
            "interpolate_pos_encoding": None,
        },
        strict=strict,
    )
    kwargs = {"pixel_values": images(5), "patch_attention_mask": padding_mask(5), **FIT}
    assert_same(program.module()(**kwargs), model(**kwargs))


@SIDE_EFFECT_OF_TRANSFORMERS
@pytest.mark.parametrize(("output", "strict"), [("output_attentions", True), ("output_hidden_states", False)])
def test_an_exported_model_returns_attentions_and_hidden_states(output, strict):
    model = tiny(**{output: True})
    model(images())  # transformers installs the hooks that record at the first call
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: BATCH},), strict=strict)
    assert len(model(images()).to_tuple()) == 2
    assert_same(program.module()(images(5)), model(images(5)))


@SIDE_EFFECT_OF_TRANSFORMERS
@pytest.mark.parametrize(("encoding", "strict"), [("learned", True), ("sincos2d", False)])
def test_an_exported_model_takes_images_of_any_size(encoding, strict):
    model = tiny(position_embedding_type=encoding)
    rows, columns = torch.export.Dim("rows", min=2, max=12), torch.export.Dim("columns", min=2, max=12)
    program = torch.export.export(
        model,
        (),
        {"pixel_values": images(height=36, width=28), **FIT},
        dynamic_shapes={"pixel_values": {0: BATCH, 2: 6 * rows, 3: 7 * columns}, "interpolate_pos_encoding": None},
        strict=strict,
    )
    for size in ((36, 28), (48, 70), (24, 70), (36, 35), (24, 35)):  # the last is the trained one
        x = images(5, *size)
        assert_same(program.module()(pixel_values=x, **FIT), model(x, **FIT))


# --- FlexAttention ---------------------------------------------------------------------------------------------------


@torch_deprecations
def test_flex_attention_agrees_with_sdpa():
    model = tiny(ViTScratchModel)
    # FlexAttention has no backward on the CPU, and compiling it takes seconds for each kind of mask.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        masks = (None, padding_mask(), torch.ones(2, 20))
        expected = [model(images(), patch_attention_mask=mask) for mask in masks]
        model.set_attn_implementation("flex_attention")
        assert model.config._attn_implementation == "flex_attention"
        for mask, outputs in zip(masks, expected, strict=True):
            assert_same(model(images(), patch_attention_mask=mask), outputs)
