"""Checkpoints of transformers, each made by transformers itself with random weights, and what became of them here."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from modeling_vit_scratch import ViTScratchForImageClassification, ViTScratchModel
from modeling_vit_scratch.checkpoints import read_checkpoint

# 3 x 3 patches of 4 pixels, width 24, 3 heads of 8, 2 blocks, 7 labels.
TINY = {
    "image_size": 12,
    "patch_size": 4,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_labels": 7,
}
MLP = {**TINY, "intermediate_size": 20}
DINOV2 = {**TINY, "mlp_ratio": 2, "layerscale_value": 0.3}
MAE = {**MLP, "decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
SIZES = {"trained": (12, 12), "larger": (20, 20), "smaller": (8, 8), "wide": (12, 20), "tall": (24, 8)}
MODELS = [
    ("ViTForImageClassification", MLP),
    ("ViTForImageClassification", {**MLP, "qkv_bias": False, "hidden_act": "gelu_new", "layer_norm_eps": 1e-3}),
    ("ViTModel", MLP),  # with a pooler
    ("ViTModel", {**MLP, "pooler_output_size": 10}),
    ("DeiTForImageClassification", MLP),
    ("DeiTForImageClassificationWithTeacher", MLP),
    ("DeiTModel", MLP),
    ("ViTMAEForPreTraining", MAE),
    ("ViTMAEModel", MAE),
    ("ViTMSNForImageClassification", MLP),
    ("IJepaModel", MLP),
    ("IJepaForImageClassification", MLP),
    ("Dinov2Model", DINOV2),
    ("Dinov2ForImageClassification", DINOV2),
    ("Dinov2ForImageClassification", {**DINOV2, "use_swiglu_ffn": True}),
    ("Dinov2WithRegistersModel", {**DINOV2, "num_register_tokens": 3}),
    ("Dinov2WithRegistersForImageClassification", {**DINOV2, "use_swiglu_ffn": True, "num_register_tokens": 2}),
]
IDS = [f"{name}-{index}" for index, (name, _) in enumerate(MODELS)]


def make(name: str, fields: dict) -> transformers.PreTrainedModel:
    """A model of transformers whose every parameter is random, biases, norms and tokens included."""
    torch.manual_seed(3)
    model_class = getattr(transformers, name)
    # The classes know their configuration, and its defaults are of the published size.
    model = model_class(model_class.config_class(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def images(size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def relative(outputs: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert outputs.shape == expected.shape
    return ((outputs - expected).abs().max() / expected.abs().max()).item()


@torch.no_grad()
def run_peer(peer, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
    options = {"output_hidden_states": True}
    if "dinov2" not in peer.config.model_type:  # which fits its positions unasked
        options["interpolate_pos_encoding"] = True
    if "vit_mae" in peer.config.model_type:
        peer = peer.vit if hasattr(peer, "vit") else peer
        peer.config.mask_ratio = 0.0
        tokens = (pixel_values.shape[2] // 4) * (pixel_values.shape[3] // 4)
        options["noise"] = torch.arange(tokens).repeat(2, 1).float()  # keeps the patches in order
    body = getattr(peer, peer.base_model_prefix, peer)
    base = body(pixel_values, **options)
    results = {"last hidden state": base.last_hidden_state, "hidden states": torch.stack(base.hidden_states)}
    if getattr(base, "pooler_output", None) is not None and body is peer:
        results["pooled"] = base.pooler_output
    if body is not peer and "MAE" not in type(peer).__name__:
        results["logits"] = peer(pixel_values, **options).logits
    return results


@torch.no_grad()
def run_ours(model, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
    options = {"output_hidden_states": True, "interpolate_pos_encoding": True}
    base = getattr(model, "vit", model)(pixel_values, **options)
    results = {"last hidden state": base.last_hidden_state, "hidden states": torch.stack(base.hidden_states)}
    results["pooled"] = base.pooler_output
    if isinstance(model, ViTScratchForImageClassification):
        results["logits"] = model(pixel_values, **options).logits
    return results


@pytest.mark.parametrize("names", ["of 4.x", "of 5.x"])
@pytest.mark.parametrize(("name", "fields"), MODELS, ids=IDS)
def test_hidden_states_and_logits_are_those_of_transformers_at_any_size(name, fields, names, tmp_path):
    peer = make(name, fields)
    peer.save_pretrained(tmp_path, save_original_format=names == "of 4.x")
    imported = read_checkpoint(tmp_path)
    assert imported.format == "transformers"
    for size, (height, width) in SIZES.items():
        expected = run_peer(peer, images((height, width)))
        outputs = run_ours(imported.model, images((height, width)))
        for what, tensor in expected.items():
            assert relative(outputs[what], tensor) < 1e-5, (size, what)
        assert ("logits" in outputs) == ("logits" in expected)


# --- What comes with the weights -------------------------------------------------------------------------------------


def saved(tmp_path, name="ViTForImageClassification", fields=MLP, processor=None, **options):
    model = make(name, fields)
    model.save_pretrained(tmp_path, **options)
    if processor is not None:
        processor.save_pretrained(tmp_path)
    return model


def test_the_names_in_the_file_are_those_of_either_version(tmp_path):
    for original, layer in ((True, "encoder.layer.0.attention.attention.query"), (False, "layers.0.attention.q_proj")):
        saved(tmp_path / str(original), save_original_format=original)
        assert f"vit.{layer}.weight" in load_file(tmp_path / str(original) / "model.safetensors")


def test_labels_and_the_kind_of_problem_are_taken_over(tmp_path):
    names = {index: f"class {index}" for index in range(7)}
    saved(tmp_path, fields={**MLP, "id2label": names, "problem_type": "multi_label_classification"})
    config = read_checkpoint(tmp_path).model.config
    assert config.id2label == names
    assert config.label2id["class 6"] == 6
    assert config.problem_type == "multi_label_classification"


def test_the_image_processor_is_the_sources_own(tmp_path):
    processor = BitImageProcessorPil(size={"shortest_edge": 14}, crop_size=12, image_mean=[0.1, 0.2, 0.3])
    saved(tmp_path, "Dinov2Model", DINOV2, processor)
    ours = read_checkpoint(tmp_path).image_processor
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 23, 3), dtype=np.uint8))
    expected = processor(photo, return_tensors="pt")["pixel_values"]
    assert expected.shape == (1, 3, 12, 12)
    assert torch.equal(ours(photo, return_tensors="pt")["pixel_values"], expected)


def test_without_an_image_processor_what_is_assumed_is_said(tmp_path):
    saved(tmp_path)
    imported = read_checkpoint(tmp_path)
    assert imported.notes == [
        "assumed that images are resized without a crop (bicubic) and normalised with mean and deviation 0.5"
    ]
    assert imported.image_processor.size == {"height": 12, "width": 12}


def test_a_model_without_a_pooler_in_its_file_gets_none(tmp_path):
    # DINO's weights are so: transformers would add a pooler with random weights.
    make("ViTModel", MLP).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in state.items() if "pooler" not in name},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    model = read_checkpoint(tmp_path).model
    assert type(model) is ViTScratchModel
    assert model.config.pooler_output_size is None
    outputs = run_ours(model, images((12, 12)))
    assert torch.equal(outputs["pooled"], outputs["last hidden state"][:, 0])


def test_the_decoder_of_pretraining_is_named_as_ignored(tmp_path):
    saved(tmp_path, "ViTMAEForPreTraining", MAE)
    notes = read_checkpoint(tmp_path).notes
    assert any(re.fullmatch(r"ignored decoder\.\* \(\d+ tensors\): it belongs to the decoder of .*", n) for n in notes)


@pytest.mark.parametrize("name", ["Dinov2Model", "Dinov2WithRegistersForImageClassification"])
def test_the_mask_token_of_pretraining_is_named_as_ignored(name, tmp_path):
    saved(tmp_path, name, DINOV2)
    note = "ignored embeddings.mask_token: it stands for masked patches in pre-training"
    assert note in read_checkpoint(tmp_path).notes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_stay_so(dtype, tmp_path):
    make("ViTForImageClassification", MLP).to(dtype).save_pretrained(tmp_path)
    model = read_checkpoint(tmp_path).model
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_a_checkpoint_in_several_files(tmp_path):
    peer = saved(tmp_path, max_shard_size="10kB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    pixel_values = images((12, 12))
    assert (
        relative(
            run_ours(read_checkpoint(tmp_path).model, pixel_values)["logits"], run_peer(peer, pixel_values)["logits"]
        )
        < 1e-5
    )


def test_a_checkpoint_in_the_old_file_format(tmp_path):
    peer = saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(peer.state_dict(), tmp_path / "pytorch_model.bin")
    pixel_values = images((12, 12))
    assert (
        relative(
            run_ours(read_checkpoint(tmp_path).model, pixel_values)["logits"], run_peer(peer, pixel_values)["logits"]
        )
        < 1e-5
    )


# --- Refused ---------------------------------------------------------------------------------------------------------


def test_weights_that_are_missing_are_named(tmp_path):
    saved(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["vit.encoder.layer.1.output.dense.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"is not whole: it lacks 1 of its tensors, among them .*layers\.1\.mlp\.fc2\.weight"
    ):
        read_checkpoint(tmp_path)


def test_a_tensor_that_should_have_been_used_ends_the_import(tmp_path):
    saved(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["vit.encoder.layer.0.extra.weight"] = torch.ones(3)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 of its tensors have no place in .*, among them .*extra\.weight"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_labels": 3, "id2label": None}, r"classifier.* is \(7.*\) instead of \(3"),
        ({"qkv_bias": False}, "6 of its tensors have no place"),
        ({"hidden_act": "foo"}, "transformers cannot load .*foo"),
    ],
)
def test_a_configuration_of_another_model_than_the_weights_is_refused(change, message, tmp_path):
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path)


def test_a_pooler_that_bends_otherwise_is_refused(tmp_path):
    saved(tmp_path, "ViTModel", {**MLP, "pooler_act": "relu"})
    with pytest.raises(ValueError, match="pooler's activation is 'relu'; vit-scratch has tanh"):
        read_checkpoint(tmp_path)


def test_a_file_without_its_configuration_is_refused(tmp_path):
    saved(tmp_path / "whole")
    alone = shutil.copy(tmp_path / "whole" / "model.safetensors", tmp_path)
    with pytest.raises(ValueError, match=r"names of transformers, but no config\.json of transformers beside it"):
        read_checkpoint(alone)


def test_other_models_with_patches_are_refused_by_their_type(tmp_path):
    config = transformers.YolosConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=20, image_size=[32, 32]
    )
    transformers.YolosModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model of transformers' type 'yolos', which is no plain ViT"):
        read_checkpoint(tmp_path)


def test_code_in_a_folder_does_not_run(tmp_path):
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    read_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


# --- Image processors that would fail later --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_mean": [0.5]}, "cannot prepare a picture"),
        ({"rescale_factor": "x"}, "cannot prepare a picture"),
        ({"image_std": [0, 0, 0]}, "not finite"),
        ({"do_resize": True, "size": {"shortest_edge": 12}, "do_center_crop": False}, "no fixed size"),
        ({"resample": 99}, "cannot prepare a picture"),
    ],
    ids=str,
)
def test_an_image_processor_that_would_fail_later_is_refused(settings, message, tmp_path):
    saved(tmp_path, processor=BitImageProcessorPil(size={"shortest_edge": 14}, crop_size=12))
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(ValueError, match=f"image processor of the source .*{message}"):
        read_checkpoint(tmp_path)


def test_code_that_an_image_processor_names_is_not_passed_on(tmp_path):
    saved(tmp_path / "theirs", processor=BitImageProcessorPil(size={"shortest_edge": 14}, crop_size=12))
    file = tmp_path / "theirs" / "preprocessor_config.json"
    named = {"auto_map": {"AutoImageProcessor": "someone/else--evil.Processor"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | named))
    read_checkpoint(tmp_path / "theirs").image_processor.save_pretrained(tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "preprocessor_config.json").read_text())
    assert written["image_processor_type"] == "BitImageProcessor"
    assert "auto_map" not in written


def test_a_grey_model_is_imported_and_what_that_means_is_said(tmp_path):
    peer = saved(tmp_path, fields={**MLP, "num_channels": 1})
    imported = read_checkpoint(tmp_path)
    assert any("takes images of 1 channels" in note for note in imported.notes)
    grey = imported.image_processor(Image.new("L", (30, 20), 90), return_tensors="pt")["pixel_values"]
    assert grey.shape == (1, 1, 12, 12)
    assert relative(run_ours(imported.model, grey)["logits"], run_peer(peer, grey)["logits"]) < 1e-5


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    peer = make("ViTForImageClassification", MLP)
    with torch.no_grad():
        peer.classifier.bias[2] = float("nan")
    peer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"classification_head\.fc\.bias holds numbers that are NaN or infinite"):
        read_checkpoint(tmp_path)
    assert read_checkpoint(tmp_path, num_labels=3).has_head  # the head is another one then
