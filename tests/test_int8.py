"""Faster prediction: 8-bit integers, bf16 and token merging, from Python and from the command line."""

import onnx
import pytest
import torch
from runs import refused, vit_scratch
from transformers import ResNetConfig, ResNetForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.data.dataset_loading import load_images
from modeling_vit_scratch.evaluation.scoring import evaluate
from modeling_vit_scratch.hub.checkpoint import load_checkpoint
from modeling_vit_scratch.tracing import int8, onnx_file
from modeling_vit_scratch.tracing.int8 import Int8Classifier

TINY = {
    "image_size": [24, 35],
    "patch_size": [6, 7],
    "hidden_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 6,
    "intermediate_size": 56,
    "num_labels": 9,
}
ORIGINAL_VIT = {"norm_first": True, "use_cls_position": True, "use_final_layer_norm": True}


def tiny(**fields):
    torch.manual_seed(0)
    return ViTScratchForImageClassification(ViTScratchConfig(**{**TINY, **fields})).eval()


def images(batch):
    return torch.randn(batch, 3, 24, 35, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def checkpoint(digits_run):
    return str(digits_run[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    for index, image in enumerate(load_images("digits")["test"].select(range(20))["image"]):
        (folder / f"{index:02}.png").write_bytes(image["bytes"])
    return str(folder)


@pytest.fixture(scope="module")
def rounded(checkpoint):
    """The digits as int8 sees them."""
    return evaluate(checkpoint, "digits", precision="int8")


@pytest.fixture(scope="module")
def classifier():
    """What several tests ask, made once: it takes seconds."""
    return Int8Classifier(tiny(), images(2))


@pytest.mark.parametrize(
    "fields", [{}, {**ORIGINAL_VIT, "token_merging": 4, "use_swiglu_ffn": True, "num_hidden_layers": 2}], ids=str
)
def test_the_logits_are_nearly_those_of_torch(fields, classifier):
    model = tiny(**fields)
    classifier = Int8Classifier(tiny(**fields), images(2)) if fields else classifier
    for batch in (1, 2, 7):
        logits, exact = classifier(images(batch)).logits, model(images(batch)).logits.detach()
        error = (logits - exact).abs().mean() / exact.std()
        assert 1e-4 < error < 0.15  # rounded, and no more than that


def test_with_labels_it_has_the_loss(classifier):
    labels = torch.tensor([3, 0])
    outputs = classifier(images(2), labels=labels)
    torch.testing.assert_close(outputs.loss, torch.nn.functional.cross_entropy(outputs.logits, labels))


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_a_trained_model_is_as_good_as_before(checkpoint, rounded, precision):
    exact = evaluate(checkpoint, "digits")
    faster = rounded if precision == "int8" else evaluate(checkpoint, "digits", precision=precision)
    accuracies = [(results.outcome.predictions == results.labels).mean() for results in (exact, faster)]
    assert abs(accuracies[0] - accuracies[1]) < 0.02
    assert (exact.outcome.confidences != faster.outcome.confidences).any()


def test_merging_on_demand_is_merging_by_the_configuration(checkpoint):
    model, _, _ = load_checkpoint(checkpoint, token_merging=2)
    assert model.config.token_merging == 2
    assert load_checkpoint(checkpoint)[0].config.token_merging == 0


def test_the_commands_take_both(checkpoint, folder):
    exact = vit_scratch("predict", checkpoint, folder)
    faster = vit_scratch("predict", checkpoint, folder, "--precision", "int8", "--token-merging", "1")
    assert (faster.status, faster.err) == (0, "")
    assert len(faster.lines) == len(exact.lines) == 20
    labels = [[line.split("\t")[1].split()[0] for line in result.lines] for result in (exact, faster)]
    assert sum(a == b for a, b in zip(*labels, strict=True)) >= 18
    assert faster.lines != exact.lines


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_precision_is_the_one_asked_for_whatever_the_checkpoint_was_saved_in(
    checkpoint, rounded, tmp_path, precision
):
    model, processor, _ = load_checkpoint(checkpoint)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    processor.save_pretrained(tmp_path / "half")
    loaded, _, _ = load_checkpoint(str(tmp_path / "half"), precision=precision)
    assert loaded.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    single = rounded if precision == "int8" else evaluate(checkpoint, "digits", precision=precision)
    half = evaluate(str(tmp_path / "half"), "digits", precision=precision)
    assert (single.outcome.predictions == half.outcome.predictions).mean() > 0.95


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_other_classifiers_of_transformers_go_through_too(tmp_path, folder, precision):
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8}
    ResNetForImageClassification(ResNetConfig(**sizes, layer_type="basic", num_labels=10)).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    result = vit_scratch("predict", tmp_path, folder, "--precision", precision)
    assert (result.status, result.err, len(result.lines)) == (0, "", 20)
    message = refused("predict", tmp_path, folder, "--token-merging", "2")
    assert message == "vit-scratch predict: a model of type resnet cannot merge tokens."


def test_in_int8_images_have_the_size_of_the_example(classifier):
    with pytest.raises(ValueError, match=r"in int8 the images must be 3x24x35 .*, got 3x24x42: resize them"):
        classifier(torch.randn(1, 3, 24, 42))


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_an_unknown_precision_is_refused(checkpoint, folder, verb):
    message = refused(verb, checkpoint, folder, "--precision", "int4")
    assert message == f"vit-scratch {verb}: precision must be one of fp32, bf16, int8, got 'int4'."


def test_without_onnx_runtime_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(onnx_file, "NEEDED", ("onnx", "onnxruntime_that_nobody_has"))
    with pytest.raises(ValueError, match=r"int8 needs onnxruntime_that_nobody_has: pip install 'vit-scratch\[onnx\]'"):
        Int8Classifier(tiny(), images(2))


@pytest.mark.parametrize(
    ("capabilities", "wide"),
    [
        ({"architecture": "x86_64", "avx512_vnni": True}, True),
        ({"architecture": "x86_64", "avx2": True, "avx512_vnni": False}, False),
        ({"architecture": "aarch64"}, True),
        ({}, False),
    ],
    ids=str,
)
def test_some_processors_add_products_of_8_bits_without_overflow(monkeypatch, capabilities, wide):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert int8.has_wide_products() is wide


def test_for_the_others_weights_have_7_bits(tmp_path):
    onnx_file.write_onnx(tiny(), images(2), tmp_path / "exact.onnx")
    for seven_bits, largest in ((True, 64), (False, 127)):
        int8.quantize(tmp_path / "exact.onnx", tmp_path / "int8.onnx", seven_bits=seven_bits)
        stored = onnx.load(tmp_path / "int8.onnx").graph.initializer
        weights = [onnx.numpy_helper.to_array(item) for item in stored if item.data_type == onnx.TensorProto.INT8]
        matrices = [weight for weight in weights if weight.ndim == 2]
        assert len(matrices) == 5  # four of the block, and the head
        assert max(abs(weight.astype(int)).max() for weight in matrices) == largest
