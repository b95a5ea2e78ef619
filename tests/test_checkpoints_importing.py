# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What an import does whatever the lineage: it recognises, loses nothing, changes nothing, and fits size and labels.

The lineages have files of their own; here are checkpoints of this library and of the article, and all that is no ViT.
"""

import io
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from runs import Run, contents, refused, vit_scratch, weights
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from modeling_vit_scratch import (
    ViTScratchBackbone,
    ViTScratchConfig,
    ViTScratchForImageClassification,
    ViTScratchForMaskedImageModeling,
    ViTScratchModel,
)
from modeling_vit_scratch.checkpoints import LINEAGES, convert_state_dict, read_checkpoint
from modeling_vit_scratch.checkpoints.tables import Rule, apply, joined, renames, unapply

# 3 x 4 patches of 4 pixels, width 24, 3 heads of 8, 2 blocks, 3 labels.
TINY = {
    "image_size": [12, 16],
    "patch_size": 4,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "id2label": {0: "cat", 1: "dog", 2: "hot dog"},
}
VIT = {**TINY, "norm_first": True, "use_cls_position": True, "use_final_layer_norm": True}
TOLD = {"num_attention_heads": 3, "image_size": [12, 16]}  # what files of the article do not say
TOLD_FLAG = "--config_overrides=num_attention_heads=3,image_size=[12,16]"


def make(fields: dict, model_class=ViTScratchForImageClassification) -> torch.nn.Module:
    """A model whose every parameter is random."""
    torch.manual_seed(5)
    model = model_class(ViTScratchConfig(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def saved(folder: Path, fields: dict = VIT, model_class=ViTScratchForImageClassification) -> torch.nn.Module:
    model = make(fields, model_class)
    model.save_pretrained(folder)
    return model


def article_state(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A state dict of the article's own model."""
    state = make(TINY).to(dtype).state_dict()
    return {name.removeprefix("vit.").replace("in_proj.", "in_proj_"): tensor for name, tensor in state.items()}


def article_file(folder: Path, changes: dict[str, torch.Tensor | None] | None = None) -> Path:
    """A file of the article's model, with some tensors replaced, added or (None) left out."""
    state = {**article_state(), **(changes or {})}
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, folder / "article.pth")
    return folder / "article.pth"


def images(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(6))


def logits(model: torch.nn.Module, pixels: torch.Tensor, **options) -> torch.Tensor:
    with torch.no_grad():
        return model(pixels, **options).logits


def refusal(source: Path, *flags: object) -> str:
    """The line with which an import is refused: it names the source, ends like a sentence, and nothing is written."""
    before = contents(source.parent)
    line = refused("import", source, source.parent / "out", *flags)
    assert line.startswith(f"vit-scratch import: {source}"), line
    assert line.endswith("."), line
    assert contents(source.parent) == before
    return line.removeprefix(f"vit-scratch import: {source}").removeprefix("/").strip()


# Recognition: what is no plain ViT


def file_of_names(folder: Path, *names: str) -> Path:
    save_file({name: torch.zeros(1) for name in names}, folder / "model.safetensors")
    return folder / "model.safetensors"


BLOCK = ("patch_embed.proj.weight", "pos_embed", "blocks.0.norm1.weight", "blocks.0.attn.qkv.weight")
STRANGERS = {
    "ResNet": (("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "fc.weight"), "it is a ConvNet"),
    "VGG": (("features.0.weight", "classifier.0.weight"), "it is a ConvNet"),
    "ConvNeXt of torchvision": (("features.0.0.weight", "features.1.0.layer_scale"), "it is a ConvNet"),
    "ConvNeXt of timm": (("stem.0.weight", "stages.0.blocks.0.conv_dw.weight", "head.fc.weight"), "it is a ConvNet"),
    "EfficientNet": (("conv_stem.weight", "bn1.running_var", "blocks.0.0.conv_dw.weight"), "it is a ConvNet"),
    "RegNet": (("stem.conv.weight", "stem.bn.running_mean", "s1.b1.conv1.conv.weight"), "it has batch normalisation"),
    "MAE with a linear probe": ((*BLOCK, "head.0.running_mean", "head.1.weight"), "it has batch normalisation"),
    "Swin of torchvision": (("features.1.0.attn.relative_position_bias_table",), "it has relative positions"),
    "Swin of timm": (("layers.0.blocks.0.attn.relative_position_index",), "it has relative positions"),
    "Swin V2": (("layers.0.blocks.0.attn.logit_scale", "layers.0.blocks.0.attn.qkv.weight"), "attention is in windows"),
    "BEiT of timm": ((*BLOCK, "blocks.0.attn.relative_position_bias_table"), "it has relative positions"),
    "BEiT with shared positions": ((*BLOCK, "rel_pos_bias.relative_position_bias_table"), "it has relative positions"),
    "SAM": (("image_encoder.blocks.0.attn.rel_pos_h", "image_encoder.pos_embed"), "it has relative positions"),
    "DINOv3": ((*BLOCK, "rope_embed.periods"), "it has rotary positions (RoPE)"),
    "EVA-02": ((*BLOCK, "rope.freqs_cos"), "it has rotary positions (RoPE)"),
    "EVA": ((*BLOCK, "blocks.0.gamma_1"), "its blocks have parts that a plain ViT's lack"),
    "ViT with normalised queries": ((*BLOCK, "blocks.0.attn.q_norm.weight"), "parts that a plain ViT's lack"),
    "ViT with parallel branches": ((*BLOCK, "blocks.0.attns.0.qkv.weight"), "its blocks have parallel branches"),
    "hybrid of timm": (
        (*BLOCK, "patch_embed.backbone.stem.conv.weight"),
        "it is a hybrid, with a ConvNet before the transformer",
    ),
    "hybrid of Google": (
        ("conv_root/kernel", "embedding/kernel", "Transformer/encoder_norm/scale"),
        "it is a hybrid, with a ConvNet before the transformer",
    ),
    "BERT": (("bert.embeddings.word_embeddings.weight",), "it is a language model"),
    "GPT-2": (("transformer.wte.weight", "transformer.wpe.weight"), "it is a language model"),
    "Qwen": (("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"), "it is a language model"),
    "adapter": (
        ("base_model.model.vit.encoder.layer.0.attention.attention.query.lora_A.weight",),
        "it is an adapter (LoRA), not a model: merge it into its model first",
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_plain_vit_is_refused_with_what_it_is(name, tmp_path):
    names, said = STRANGERS[name]
    line = refusal(file_of_names(tmp_path, *names))
    assert line.startswith("is no plain ViT: ")
    assert said in line
    assert any(f"({tensor.removeprefix('model.')})." in line for tensor in names)


SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
FOREIGN_MODELS = {
    "BeitForImageClassification": (
        {**SMALL, "image_size": 32, "use_relative_position_bias": True},
        "relative positions",
    ),
    "SwinForImageClassification": ({"embed_dim": 8, "depths": [1], "num_heads": [1]}, "it has relative positions"),
    "ConvNextForImageClassification": ({"hidden_sizes": [4] * 4, "depths": [1] * 4}, "it is a ConvNet"),
    "ResNetForImageClassification": (
        {"embedding_size": 4, "hidden_sizes": [4], "depths": [1], "layer_type": "basic"},
        "it has batch normalisation",
    ),
    "DINOv3ViTModel": ({**SMALL, "image_size": 32}, "its config.json says dinov3_vit, and its tensors have names such"),
    "CLIPVisionModel": (SMALL, "its config.json says clip_vision_model, and its tensors have names such as"),
    "GPT2LMHeadModel": ({"n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 9}, "it is a language model"),
    "YolosModel": ({**SMALL, "image_size": [32, 32]}, "'yolos', which is no plain ViT that vit-scratch knows"),
}


@pytest.mark.parametrize("name", FOREIGN_MODELS)
def test_other_models_of_transformers_are_refused_with_what_they_are(name, tmp_path):
    fields, said = FOREIGN_MODELS[name]
    model_class = getattr(transformers, name)
    model_class(model_class.config_class(**fields)).save_pretrained(tmp_path / "peer")
    assert said in refusal(tmp_path / "peer")


def test_names_that_nobody_knows_are_shown(tmp_path):
    line = refusal(file_of_names(tmp_path, "stem.proj.weight", "blocks.0.mlp_tokens.fc1.weight", "c", "d"))
    assert line.startswith("is of none of the formats that vit-scratch knows (vit-scratch, transformers, timm, ")
    assert line.endswith("its tensors have names such as blocks.0.mlp_tokens.fc1.weight, c, d.")


@pytest.mark.parametrize("wrapper", ["net.", "visual.trunk."])
def test_a_vit_inside_another_model_is_not_taken_for_the_whole(wrapper, tmp_path):
    line = refusal(file_of_names(tmp_path, *(wrapper + name for name in BLOCK)))
    assert line.startswith(f"has {wrapper}patch_embed.proj.weight where the format timm has patch_embed.proj.weight: ")
    assert line.endswith("it is part of another model, or wrapped.")


# Recognition: the format can be named


@pytest.mark.parametrize("name", LINEAGES)
def test_a_format_that_the_source_does_not_have_is_refused_with_what_it_lacks(name, tmp_path):
    # Each of the files lacks what distinguishes this lineage.
    source = saved(tmp_path / "ours") and tmp_path / "ours" if name != "vit-scratch" else article_file(tmp_path)
    assert f"is not of the format {name}: it has no tensor " in refusal(source, "--format", name)


def test_a_format_that_does_not_exist_is_answered_with_those_that_do(tmp_path):
    line = refused("import", article_file(tmp_path), tmp_path / "out", "--format=keras")
    assert line == (
        "vit-scratch import: there is no format 'keras'; the formats are vit-scratch, transformers, timm, torchvision, "
        "google, article, lucidrains."
    )
    assert not (tmp_path / "out").exists()


def test_the_format_that_it_has_may_be_named(tmp_path):
    recognised = read_checkpoint(article_file(tmp_path), config_overrides=TOLD)
    named = read_checkpoint(article_file(tmp_path), format="article", config_overrides=TOLD)
    assert recognised.format == named.format == "article"
    assert torch.equal(logits(recognised.model, images(12, 16)), logits(named.model, images(12, 16)))


def test_a_folder_of_ours_without_its_configuration_is_not_guessed_at(tmp_path):
    saved(tmp_path / "ours")
    (tmp_path / "ours" / "config.json").unlink()
    assert refusal(tmp_path / "ours") == "has our names, but no config.json of ours beside it: name its folder."


# Nothing is lost: every tensor has a place, or a reason; every parameter has a tensor


def test_tensors_without_a_place_are_named(tmp_path):
    source = article_file(tmp_path, {"extra.weight": torch.ones(1), "encoder.0.gate": torch.ones(1)})
    line = refusal(source, TOLD_FLAG)
    assert line.startswith("is no plain ViT: 2 of its tensors have no place in the model, among them ")
    assert "extra.weight" in line
    assert "encoder.0.gate" in line


@pytest.mark.parametrize("name", article_state())
def test_a_file_that_lacks_a_tensor_is_not_whole(name, tmp_path):
    line = refusal(article_file(tmp_path, {name: None}), TOLD_FLAG)
    if "in_proj_weight" in name or "projection.weight" in name:  # by which the lineage is recognised
        assert "is of none of the formats" in line or "is not whole" in line
    elif name == "classification_head.fc.weight":
        assert line == "has classification_head.fc.bias, which the model that it describes does not have."
    else:
        assert line.startswith("is not whole: ")
        assert name.replace("in_proj_", "in_proj.") in line


def test_a_file_without_a_head_is_a_body(tmp_path):
    names = [name for name in article_state() if name.startswith("classification_head.")]
    imported = read_checkpoint(article_file(tmp_path, dict.fromkeys(names)), config_overrides=TOLD)
    assert isinstance(imported.model, ViTScratchModel)
    assert not imported.has_head


@pytest.mark.parametrize("name", article_state())
def test_a_tensor_of_another_shape_is_refused(name, tmp_path):
    longer = torch.cat([article_state()[name]] * 2)
    line = refusal(article_file(tmp_path, {name: longer}), TOLD_FLAG)
    assert "does not fit what it describes: " in line or "makes no model" in line


@pytest.mark.parametrize("name", article_state())
def test_a_tensor_of_another_rank_is_refused(name, tmp_path):
    flat = article_state()[name].flatten()
    scalar = torch.tensor(1.0)
    for tensor in (flat, scalar):
        if tensor.shape != article_state()[name].shape:
            line = refusal(article_file(tmp_path, {name: tensor}), TOLD_FLAG)
            assert "tuple" not in line


def test_what_is_ignored_is_said_with_the_reason(tmp_path):
    saved(tmp_path / "ours", model_class=ViTScratchForMaskedImageModeling)
    notes = read_checkpoint(tmp_path / "ours").notes
    assert "ignored decoder.0.bias, decoder.0.weight: it belongs to the decoder of pre-training" in notes
    assert "ignored vit.mask_patches.mask_token: it stands for masked patches in pre-training" in notes


def test_two_tensors_that_mean_the_same_are_refused(tmp_path):
    state = {"linear_head.weight": torch.ones(1), "mlp_head.weight": torch.ones(1)}
    rules = renames({"linear_head.+": "head.+", "mlp_head.+": "head.+"})
    with pytest.raises(ValueError, match=r"^mlp_head\.weight is there beside another tensor of the same meaning\.$"):
        apply(rules, state)


# Types


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_their_type_in_the_folder_too(dtype, tmp_path):
    torch.save(article_state(dtype), tmp_path / "article.pth")
    assert vit_scratch("import", tmp_path / "article.pth", tmp_path / "out", TOLD_FLAG).status == 0
    assert {tensor.dtype for tensor in weights(tmp_path / "out").values()} == {dtype}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_new_heads_and_resampled_positions_have_the_type_of_the_rest(dtype, tmp_path):
    torch.save(article_state(dtype), tmp_path / "article.pth")
    imported = read_checkpoint(tmp_path / "article.pth", config_overrides=TOLD, image_size=(20, 8), num_labels=5)
    assert {tensor.dtype for tensor in imported.model.state_dict().values()} == {dtype}
    assert logits(imported.model, images(20, 8).to(dtype)).isfinite().all()


def test_a_model_of_mixed_types_computes(tmp_path):
    # Norms are often kept in float32 where the rest is halved.
    state = {name: tensor if "norm" in name else tensor.half() for name, tensor in article_state().items()}
    torch.save(state, tmp_path / "mixed.pth")
    model = read_checkpoint(tmp_path / "mixed.pth", config_overrides=TOLD).model
    expected = logits(read_checkpoint(article_file(tmp_path), config_overrides=TOLD).model, images(12, 16))
    outputs = logits(model, images(12, 16).to(model.dtype))
    torch.testing.assert_close(outputs.float(), expected, rtol=0.02, atol=0.02)


def test_quantised_weights_are_refused(tmp_path):
    name = "encoder.0.ff.0.weight"
    line = refusal(article_file(tmp_path, {name: torch.ones(20, 24, dtype=torch.int8)}), TOLD_FLAG)
    assert name in line
    assert "int8" in line


# Nothing is changed, and nothing is copied needlessly


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_what_becomes_of_the_model_does_not_reach_the_file(kind, tmp_path):
    file = tmp_path / f"article.{kind}"
    torch.save(article_state(), file) if kind == "pth" else save_file(article_state(), file)
    before = file.read_bytes()
    imported = read_checkpoint(file, config_overrides=TOLD, image_size=(20, 8), num_labels=5)
    with torch.no_grad():
        for parameter in imported.model.parameters():
            parameter.fill_(7)
    assert file.read_bytes() == before


def test_a_state_dict_is_left_as_it_is_and_its_tensors_are_taken_over():
    state = article_state()
    names, copies = list(state), {name: tensor.clone() for name, tensor in state.items()}
    ours = convert_state_dict(state)
    assert list(state) == names
    assert all(torch.equal(state[name], copies[name]) for name in names)
    assert {tensor.data_ptr() for tensor in ours.values()} == {tensor.data_ptr() for tensor in state.values()}
    ViTScratchForImageClassification(ViTScratchConfig(**TINY)).load_state_dict(ours)


def test_a_state_dict_may_be_wrapped_as_in_a_file():
    state = article_state()
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    ours, expected = convert_state_dict(wrapped), convert_state_dict(state)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


def test_a_state_dict_of_no_lineage_is_refused():
    with pytest.raises(ValueError, match=r"^the state dict is of none of the formats .* such as a, b\.$"):
        convert_state_dict({"a": torch.ones(1), "b": torch.ones(1)})
    with pytest.raises(ValueError, match=r"^the state dict holds no tensors\.$"):
        convert_state_dict({})
    with pytest.raises(ValueError, match=r"^the state dict is not of the format timm"):
        convert_state_dict(article_state(), format="timm")
    incomplete = article_state()
    del incomplete["positional_encoding.positional_embedding"]
    with pytest.raises(ValueError, match=r"^the state dict is not whole: .*positional_embedding is missing\.$"):
        convert_state_dict(incomplete)


def test_a_state_dict_does_not_bring_in_a_folder_that_happens_to_be_here(tmp_path, monkeypatch):
    peer = transformers.ViTModel(transformers.ViTConfig(**SMALL, image_size=32), add_pooling_layer=False)
    peer.save_pretrained(tmp_path)
    monkeypatch.chdir(tmp_path)
    state = {name: tensor + 1 for name, tensor in peer.state_dict().items()}
    with pytest.raises(ValueError, match=r"^the state dict .*\.$"):
        convert_state_dict(state, config=json.loads((tmp_path / "config.json").read_text()))


IMPORT_AND_MEASURE = """
import sys
from pathlib import Path
from modeling_vit_scratch.porting import import_checkpoint
import modeling_vit_scratch.model.modeling_vit_scratch

def memory(field):
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024

source, output = sys.argv[1:]
told = {"num_attention_heads": 12}
import_checkpoint(source + "-small", output + "-small", config_overrides={"num_attention_heads": 3})  # warms up
before = memory("RssAnon"), memory("VmHWM")
imported = import_checkpoint(source, output, config_overrides=told)
print(memory("RssAnon") - before[0], memory("VmHWM") - before[1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process is counted by Linux")
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_an_import_holds_the_weights_once(kind, tmp_path):
    config = ViTScratchConfig(image_size=64, depth=4)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in ViTScratchForImageClassification(config).state_dict().items()}
    large = {
        name.removeprefix("vit.").replace("in_proj.", "in_proj_"): torch.zeros(shape) for name, shape in shapes.items()
    }
    small = {name: tensor for name, tensor in article_state().items() if "positional" not in name}
    small |= {"positional_encoding.positional_embedding": torch.zeros(1, 9, 24)}
    file = tmp_path / "weights"
    for path, state in ((file, large), (tmp_path / "weights-small", small)):
        torch.save(state, path) if kind == "pth" else save_file(state, path)
    megabytes = file.stat().st_size / 2**20
    assert megabytes > 100
    script = tmp_path / "program.py"
    script.write_text(IMPORT_AND_MEASURE)
    done = Run([file, tmp_path / "out"], tmp_path, script=script).end()
    assert done.status == 0, done.err
    anonymous, peak = map(float, done.out.split())
    assert peak < 1.3 * megabytes
    if kind == "safetensors":  # whose tensors are pages of the file, which the system may take back
        assert anonymous < 0.2 * megabytes


# Another image size


@pytest.mark.parametrize(
    "interpolation", ["bicubic_antialias", "bicubic", "bicubic_align_corners", "bilinear_align_corners"]
)
@pytest.mark.parametrize("size", [(20, 20), (8, 24), (8, 8)])
def test_resampled_positions_are_those_that_the_model_itself_makes_at_that_size(size, interpolation, tmp_path):
    model = saved(tmp_path, {**VIT, "position_interpolation": interpolation})
    imported = read_checkpoint(tmp_path, image_size=size)
    outputs = logits(imported.model, images(*size))
    expected = logits(model, images(*size), interpolate_pos_encoding=True)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)
    assert (
        f"resampled the positions from 3x4 to {size[0] // 4}x{size[1] // 4} patches ({interpolation})" in imported.notes
    )
    position = imported.model.state_dict()["vit.positional_encoding.positional_embedding"]
    assert position.shape == (1, size[0] * size[1] // 16, 24)


@pytest.mark.parametrize(("flag", "expected"), [("16", 16), ("20,8", [20, 8]), ("24, 24", 24), ("12,16", [12, 16])])
def test_the_size_can_be_one_number_or_two(flag, expected, tmp_path):
    saved(tmp_path / "ours")
    result = vit_scratch("import", tmp_path / "ours", tmp_path / "out", f"--image-size={flag}")
    assert result.status == 0, result.err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["image_size"] == expected
    assert sum("resampled" in line for line in result.lines) == (flag != "12,16")  # one line, unless it is the same
    height, width = (expected, expected) if isinstance(expected, int) else expected
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    pixels = processor(Image.new("RGB", (30, 20)), return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, height, width)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert logits(model, pixels).shape == (1, 3)


@pytest.mark.parametrize("flag", ["0", "-8", "8,8,8", "8x8", "", "8,", "eight", "8.0"])
def test_what_is_no_size_is_refused(flag, tmp_path):
    line = refused("import", article_file(tmp_path), tmp_path / "out", f"--image-size={flag}")
    assert f"must be pixels, H or H,W, got {flag!r}" in line
    assert not (tmp_path / "out").exists()


def test_a_size_that_the_patches_do_not_divide_is_refused(tmp_path):
    saved(tmp_path / "ours")
    line = refused("import", tmp_path / "ours", tmp_path / "out", "--image-size=12,18")
    assert "image_size [12, 18] is not a multiple of patch_size 4: the width 18 leaves 2 pixels over" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("positions", ["sincos2d", "none"])
def test_positions_that_are_not_learned_need_no_resampling(positions, tmp_path):
    model = saved(tmp_path, {**VIT, "position_embedding_type": positions, "use_cls_position": False})
    imported = read_checkpoint(tmp_path, image_size=(20, 8))
    assert not [note for note in imported.notes if "resampled" in note]
    expected = logits(model, images(20, 8), interpolate_pos_encoding=True)
    torch.testing.assert_close(logits(imported.model, images(20, 8)), expected, rtol=1e-5, atol=1e-5)


def test_the_share_of_an_image_that_is_cut_off_stays_the_same(tmp_path):
    saved(tmp_path)
    crop = {"do_center_crop": True, "crop_size": {"height": 12, "width": 16}}
    ViTImageProcessorPil(size={"height": 15, "width": 20}, **crop, resample=3).save_pretrained(tmp_path)
    processor = read_checkpoint(tmp_path, image_size=(24, 48)).image_processor
    assert {side: processor.size[side] for side in ("height", "width")} == {"height": 30, "width": 60}
    pixels = np.zeros((30, 60, 3), np.uint8)
    pixels[3:27, 6:54] = 255  # is left
    prepared = processor(Image.fromarray(pixels), return_tensors="pt").pixel_values
    assert prepared.shape == (1, 3, 24, 48)
    assert prepared.unique().tolist() == [1.0]


def test_the_shorter_side_before_a_crop_grows_with_the_crop(tmp_path):
    saved(tmp_path)
    crop = {"do_center_crop": True, "crop_size": {"height": 12, "width": 16}}
    ViTImageProcessorPil(size={"shortest_edge": 18}, **crop).save_pretrained(tmp_path)
    processor = read_checkpoint(tmp_path, image_size=24).image_processor
    assert processor.size["shortest_edge"] == 36
    assert (processor.crop_size["height"], processor.crop_size["width"]) == (24, 24)
    assert processor(Image.new("RGB", (90, 50)), return_tensors="pt").pixel_values.shape == (1, 3, 24, 24)


def test_a_preprocessing_that_is_assumed_is_said(tmp_path):
    saved(tmp_path)
    assumed = "assumed that images are resized without a crop (bicubic) and normalised with mean and deviation 0.5"
    assert assumed in read_checkpoint(tmp_path).notes
    ViTImageProcessorPil(size={"height": 12, "width": 16}).save_pretrained(tmp_path)
    assert assumed not in read_checkpoint(tmp_path).notes


# Other labels


def test_a_new_head_replaces_the_old_one_and_both_are_named(tmp_path):
    model = saved(tmp_path)
    imported = read_checkpoint(tmp_path, num_labels=5)
    assert [note for note in imported.notes if "head" in note] == [
        "ignored the old head (classification_head.fc.bias, classification_head.fc.weight): its labels are replaced",
        "new random head for 5 labels",
    ]
    state, old = imported.model.state_dict(), model.state_dict()
    assert state["classification_head.fc.weight"].shape == (5, 24)
    assert state["classification_head.fc.weight"].std() > 0
    assert all(torch.equal(state[name], old[name]) for name in old if not name.startswith("classification_head."))
    assert imported.model.config.id2label == {index: f"LABEL_{index}" for index in range(5)}
    assert logits(imported.model, images(12, 16)).shape == (2, 5)


def test_the_hidden_layer_of_the_old_head_goes_with_it(tmp_path):
    saved(tmp_path, {**VIT, "pooler_output_size": 10})
    imported = read_checkpoint(tmp_path, num_labels=5)
    assert imported.model.config.pooler_output_size is None
    assert imported.model.state_dict()["classification_head.fc.weight"].shape == (5, 24)
    (note,) = [note for note in imported.notes if note.startswith("ignored")]
    assert "pooler.dense.weight" in note
    assert "classification_head.fc.weight" in note


def test_a_body_gets_a_head(tmp_path):
    saved(tmp_path, model_class=ViTScratchModel)
    assert not read_checkpoint(tmp_path).has_head
    imported = read_checkpoint(tmp_path, num_labels=5)
    assert imported.has_head
    assert [note for note in imported.notes if "head" in note] == ["new random head for 5 labels"]
    assert logits(imported.model, images(12, 16)).shape == (2, 5)


def test_a_new_head_is_the_same_each_time_with_the_same_seed(tmp_path):
    saved(tmp_path)
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(read_checkpoint(tmp_path, num_labels=5).model.classification_head.fc.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


# What the source does not say


def test_what_the_source_does_not_say_is_asked_for_with_the_flag_that_says_it(tmp_path):
    line = refusal(article_file(tmp_path))
    assert line.startswith("does not say num_attention_heads")
    assert "and image_size" in line
    assert "add --config_overrides 'num_attention_heads=…,image_size=…' (in Python: config_overrides)." in line
    flag = "num_attention_heads=3,image_size=[12,16]"
    assert vit_scratch("import", tmp_path / "article.pth", tmp_path / "out", "--config-overrides", flag).status == 0


def test_what_is_told_wins_over_what_the_source_says(tmp_path):
    model = saved(tmp_path)
    imported = read_checkpoint(tmp_path, config_overrides={"layer_norm_eps": 0.5, "hidden_act": "relu"})
    assert (imported.model.config.layer_norm_eps, imported.model.config.hidden_act) == (0.5, "relu")
    model = ViTScratchForImageClassification.from_pretrained(tmp_path, layer_norm_eps=0.5, hidden_act="relu")
    torch.testing.assert_close(logits(imported.model, images(12, 16)), logits(model, images(12, 16)))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("depth=3", "is not whole: it has nothing for 12 tensors, such as vit.encoder.2."),
        ("num_hidden_layers=3", "is not whole: it has nothing for 12 tensors, such as vit.encoder.2."),
        ("num_hidden_layers=1", "has vit.encoder.1.attention.in_proj.bias, which the model that it describes does not"),
        ("num_attention_heads=5", "hidden_size 24 is not a multiple of num_attention_heads 5."),
        ("intermediate_size=24", "encoder.0.ff.0.bias is (20,) and must be (24,); correct the fields with --config"),
        (
            "image_size=16",
            "positional_embedding is (1, 12, 24) and must be (1, 16, 24); --image-size (in Python: image_size) fits",
        ),
        ("use_cls_token=false", "use_cls_token"),
    ],
)
def test_what_contradicts_the_weights_is_refused(told, said, tmp_path):
    saved(tmp_path / "ours")
    assert said in refusal(tmp_path / "ours", f"--config_overrides={told}")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("num_heads_=3", "config_overrides has the unknown field 'num_heads_' (did you mean 'num_heads'?)."),
        ("num_heads", "config_overrides must be name=value,name=value,…, got 'num_heads'."),
        ("num_labels=3", "config_overrides cannot set num_labels"),
        ("norm_first=maybe", "config_overrides has norm_first='maybe'"),
        ("hidden_size=many", "config_overrides has hidden_size='many'"),
    ],
)
def test_what_is_no_fact_is_refused(told, said, tmp_path):
    line = refused("import", article_file(tmp_path), tmp_path / "out", f"--config_overrides={told}")
    assert said in line
    assert not (tmp_path / "out").exists()


def test_the_articles_names_of_fields_are_understood(tmp_path):
    result = vit_scratch(
        "import", article_file(tmp_path), tmp_path / "out", "--config_overrides=num_heads=3,image_size=[12,16]"
    )
    assert result.status == 0, result.err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_attention_heads"] == 3


# Our own checkpoints


@pytest.mark.parametrize("model_class", [ViTScratchForImageClassification, ViTScratchModel, ViTScratchBackbone])
def test_a_checkpoint_of_ours_comes_back_as_it_was(model_class, tmp_path):
    model = saved(tmp_path, model_class=model_class)
    imported = read_checkpoint(tmp_path)
    assert imported.format == "vit-scratch"
    state = imported.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert state.keys() == model.state_dict().keys()
    assert imported.model.config.id2label == TINY["id2label"]
    assert not imported.model.training


@pytest.mark.parametrize(
    "fields",
    [
        {**TINY, "drop_path_rate": 0.1, "problem_type": "multi_label_classification"},
        {**VIT, "use_swiglu_ffn": True, "num_register_tokens": 2, "layerscale_value": 0.1, "pooling": "cls_mean"},
        {**VIT, "pooling": "attention", "use_pooled_layer_norm": True, "pooler_output_size": 10, "qkv_bias": False},
        {**VIT, "patch_size": [4, 8], "head_dim": 4, "out_features": ["stage1"]},
    ],
)
def test_all_settings_of_ours_come_back_with_another_size(fields, tmp_path):
    model = saved(tmp_path, fields)
    imported = read_checkpoint(tmp_path, image_size=(20, 32))
    expected = {**model.config.to_dict(), "image_size": [20, 32]}
    assert {**imported.model.config.to_dict(), "dtype": None} == {**expected, "dtype": None}
    torch.testing.assert_close(
        logits(imported.model, images(20, 32)),
        logits(model, images(20, 32), interpolate_pos_encoding=True),
        rtol=1e-5,
        atol=1e-5,
    )


def test_a_checkpoint_fitted_to_another_size_can_be_fitted_again(tmp_path):
    saved(tmp_path / "first")
    for source, output, size in (("first", "second", "20,8"), ("second", "third", "12,16")):
        result = vit_scratch("import", tmp_path / source, tmp_path / output, f"--image-size={size}")
        assert result.status == 0, result.err
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "third")
    assert list(model.config.image_size) == [12, 16]
    assert model.config.id2label == TINY["id2label"]
    first = weights(tmp_path / "first")
    for name, tensor in weights(tmp_path / "third").items():
        assert torch.equal(tensor, first[name]) == ("positional" not in name)


def test_a_file_of_ours_finds_what_lies_beside_it(tmp_path):
    model = saved(tmp_path)
    imported = read_checkpoint(tmp_path / "model.safetensors", image_size=20)
    expected = logits(model, images(20, 20), interpolate_pos_encoding=True)
    torch.testing.assert_close(logits(imported.model, images(20, 20)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"), [("image_sise", 16), ("hidden_size", "wide"), ("hidden_size", 23), ("model_type", "vitt")]
)
def test_a_configuration_of_ours_that_makes_no_model_is_refused(field, value, tmp_path):
    saved(tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    (tmp_path / "ours" / "config.json").write_text(json.dumps({**config, field: value}))
    assert refusal(tmp_path / "ours")


def saved_checkpoint(folder: Path, kind: str) -> Path:
    """A folder of ours or of transformers, to which an image processor is to be added."""
    if kind == "vit-scratch":
        saved(folder)
    else:
        config = transformers.ViTConfig(**SMALL, image_size=32)
        transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("answer", ["", "y\n"])
@pytest.mark.parametrize("kind", ["vit-scratch", "transformers"])
def test_code_beside_an_image_processor_does_not_run_and_nobody_is_asked(kind, answer, tmp_path, monkeypatch):
    source, canary = saved_checkpoint(tmp_path / "source", kind), tmp_path / "canary"
    (source / "processing.py").write_text(
        f"open({str(canary)!r}, 'w').close()\n"
        "from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil\n"
        "class Strange(ViTImageProcessorPil): pass\n"
    )
    described = {"image_processor_type": "Strange", "auto_map": {"AutoImageProcessor": "processing.Strange"}}
    (source / "preprocessor_config.json").write_text(json.dumps(described))
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    line = refused("import", source, tmp_path / "out")
    assert f"{source}/preprocessor_config.json makes no image processor: " in line
    assert not canary.exists()
    assert not (tmp_path / "out").exists()
    AutoImageProcessor.from_pretrained(source, trust_remote_code=True)
    assert canary.exists()  # so it would have told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a whole JSON file: "),
        ("[]", "must hold a JSON object, got list."),
        ('{"size": "large"}', "makes no image processor: "),
        ('{"image_processor_type": "Strange"}', "makes no image processor: "),
    ],
)
@pytest.mark.parametrize("kind", ["vit-scratch", "transformers"])
def test_a_broken_image_processor_is_refused(kind, content, message, tmp_path):
    source = saved_checkpoint(tmp_path / "source", kind)
    (source / "preprocessor_config.json").write_text(content)
    assert f"preprocessor_config.json {message}" in refusal(source)


def test_an_imported_folder_is_a_checkpoint_like_any_other(tmp_path):
    saved(tmp_path / "ours", model_class=ViTScratchModel)
    assert vit_scratch("import", tmp_path / "ours", tmp_path / "out").status == 0
    body = AutoModel.from_pretrained(tmp_path / "out")
    assert isinstance(body, ViTScratchModel)
    shutil.rmtree(tmp_path / "ours")
    with torch.no_grad():
        assert body(images(12, 16)).last_hidden_state.shape == (2, 13, 24)


# The language of the tables


def test_a_star_stands_for_the_number_of_a_block_and_a_plus_for_weight_and_bias():
    rules = renames({"blocks.*.norm.+": "encoder.*.norm1.+", "head.+": "fc.+"})
    names = ["blocks.0.norm.weight", "blocks.11.norm.bias", "head.bias"]
    others = [
        "blocks.x.norm.weight",
        "blocks.0.norm.running_mean",
        "my.head.bias",
        "head.weight.0",
        "blocks.0xnorm.bias",
    ]
    theirs = {name: torch.tensor(float(index)) for index, name in enumerate(names + others)}
    ours, used = apply(rules, theirs)
    assert {name: int(tensor) for name, tensor in ours.items()} == {
        "encoder.0.norm1.weight": 0,
        "encoder.11.norm1.bias": 1,
        "fc.bias": 2,
    }
    assert used == set(names)
    assert unapply(rules, ours) == {name: theirs[name] for name in names}


def test_several_tensors_become_one_and_come_back():
    rule = Rule(
        tuple(f"blocks.*.{name}.+" for name in "qkv"),
        ("encoder.*.in_proj.+",),
        joined,
        lambda tensor: tensor.chunk(3),
    )
    theirs = {
        f"blocks.{block}.{name}.{kind}": torch.full((2, 2) if kind == "weight" else (2,), float(ord(name)))
        for block in (0, 7)
        for name in "qkv"
        for kind in ("weight", "bias")
    }
    ours, used = apply([rule], theirs)
    assert used == theirs.keys()
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == {
        f"encoder.{block}.in_proj.{kind}": (6, 2) if kind == "weight" else (6,)
        for block in (0, 7)
        for kind in ("weight", "bias")
    }
    back = unapply([rule], ours)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)
    del theirs["blocks.7.v.bias"]
    with pytest.raises(ValueError, match=r"^blocks\.7\.v\.bias is missing beside blocks\.7\.q\.bias\.$"):
        apply([rule], theirs)


def test_a_tensor_of_ours_that_no_rule_leads_back_is_named():
    one_way = Rule(("theirs",), ("ours",), joined)
    with pytest.raises(ValueError, match=r"^ours has no counterpart\.$"):
        unapply([one_way], {"ours": torch.ones(1)})


def test_a_part_that_is_missing_beside_another_is_named_with_the_file(tmp_path):
    # DeiT's distillation token has no meaning without its position.
    source = file_of_names(tmp_path, *BLOCK)
    width = 12
    state = {
        "cls_token": torch.zeros(1, 1, width),
        "dist_token": torch.zeros(1, 1, width),
        "pos_embed": torch.zeros(1, 11, width),
        "patch_embed.proj.weight": torch.zeros(width, 3, 4, 4),
        "patch_embed.proj.bias": torch.zeros(width),
        "norm.weight": torch.zeros(width),
        "norm.bias": torch.zeros(width),
        "head.weight": torch.zeros(2, width),
        "head.bias": torch.zeros(2),
        "head_dist.weight": torch.zeros(2, width),  # and no head_dist.bias
    }
    shapes = {"norm1": (), "norm2": (), "attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (2, 1), "mlp.fc2": (1, 2)}
    for name, factors in shapes.items():
        state[f"blocks.0.{name}.weight"] = torch.zeros([factor * width for factor in factors] or width)
        state[f"blocks.0.{name}.bias"] = torch.zeros(math.prod(factors[:1]) * width)
    save_file(state, source)
    line = refusal(source, "--config_overrides=num_attention_heads=3")
    assert "head_dist.bias" in line
