"""Our checkpoints out: what transformers and timm load themselves, and what they cannot express."""

import json
import math

import golden_cases
import numpy as np
import pytest
import torch
import transformers
from golden_cases import IMAGES, ROOT
from pictures import noise
from safetensors.torch import load_file
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification, ViTScratchModel
from modeling_vit_scratch.checkpoints import read_checkpoint
from modeling_vit_scratch.checkpoints.export_timm import crop_share, mlp_ratio
from modeling_vit_scratch.checkpoints.lineage_export import export_model
from modeling_vit_scratch.checkpoints.processor_settings import resize_and_crop
from modeling_vit_scratch.porting import export_checkpoint

# A ViT as transformers and timm have it: 3x3 patches of 4 pixels, width 16, 2 heads of 8, 2 blocks, 5 labels.
VIT = {
    "image_size": 12,
    "patch_size": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 5,
    "norm_first": True,
    "use_cls_position": True,
    "use_final_layer_norm": True,
    "layer_norm_eps": 1e-6,
    "attention_probs_dropout_prob": 0.0,
}
ARTICLE = {**VIT, "norm_first": False, "use_cls_position": False, "use_final_layer_norm": False, "layer_norm_eps": 1e-5}
GREY_LEVEL = 1.01 / 255 / 0.224  # of the pixels as the models get them
NO_CLS = {"use_cls_token": False, "use_cls_position": False}
SINCOS2D = {"position_embedding_type": "sincos2d", "use_cls_position": False}
NO_BIASES = {"patch_bias": False, "qkv_bias": False, "out_proj_bias": False}
DEIT = {"num_register_tokens": 1, "pooling": "cls_distillation"}
DINOV2 = {"layerscale_value": 0.3, "pooling": "cls_mean"}
SWIGLU = {"use_swiglu_ffn": True, "layerscale_value": 0.3, "intermediate_size": 24}
FC_NORM = {"use_final_layer_norm": False, "use_pooled_layer_norm": True}
CLIP = {"use_pre_layer_norm": True, "patch_bias": False, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def make(changes: dict, *, head: bool = True):
    """A model of ours whose every parameter is random, biases, norms and tokens included."""
    torch.manual_seed(0)
    model = (ViTScratchForImageClassification if head else ViTScratchModel)(
        ViTScratchConfig(**{**VIT, **changes})
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def images(model) -> torch.Tensor:
    config = model.config
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    return torch.randn(2, config.num_channels, height, width, generator=torch.Generator().manual_seed(1))


def processor_for(model, size: tuple[int, int] | None = None, **settings) -> ViTImageProcessorPil:
    trained = model.config.image_size
    size = size or ((trained, trained) if isinstance(trained, int) else tuple(trained))
    return ViTImageProcessorPil(**resize_and_crop(size, **settings))


def export(model, folder, format: str, **settings) -> list[str]:
    return export_model(model, processor_for(model, **settings), folder, format=format).lines


def config_of(folder) -> dict:
    return json.loads((folder / "config.json").read_text("utf-8"))


@torch.no_grad()
def run(model) -> dict[str, torch.Tensor]:
    """What a model of ours computes from images of the size that it is made for."""
    has_head = isinstance(model, ViTScratchForImageClassification)
    base = (model.vit if has_head else model)(images(model), output_hidden_states=True)
    found = {
        "hidden states": torch.stack(base.hidden_states),
        "last hidden state": base.last_hidden_state,
        "pooled": base.pooler_output,
    }
    return found | ({"logits": model(images(model)).logits} if has_head else {})


def differing(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> dict[str, float]:
    """The outputs that both have and that are not the same."""
    assert found.keys() <= expected.keys()
    errors = {name: golden_cases.relative(found[name], expected[name]) for name in found}
    return {name: error for name, error in errors.items() if error > 1e-5}


# --- transformers ----------------------------------------------------------------------------------------------------

TO_TRANSFORMERS = [
    ("ViTForImageClassification", {}),
    ("ViTForImageClassification", {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-12, "qkv_bias": False}),
    ("ViTForImageClassification", {"image_size": [12, 20], "intermediate_size": 37}),
    ("ViTForImageClassification", {"patch_size": [4, 2], "num_channels": 1}),
    ("ViTForImageClassification", {"patch_bias": False, "out_proj_bias": False}),
    ("ViTForImageClassification", {"use_cls_position": False}),
    ("ViTForImageClassification", SINCOS2D),
    ("DeiTForImageClassificationWithTeacher", DEIT),
    ("DeiTForImageClassificationWithTeacher", {**DEIT, **SINCOS2D, "num_labels": 1}),
    ("DeiTForImageClassification", {"num_register_tokens": 1}),
    ("IJepaForImageClassification", {**NO_CLS, "pooling": "mean"}),
    ("IJepaForImageClassification", {**NO_CLS, **SINCOS2D, "pooling": "mean"}),
    ("Dinov2ForImageClassification", DINOV2),
    ("Dinov2ForImageClassification", {**DINOV2, **SWIGLU}),
    ("Dinov2ForImageClassification", {"layerscale_value": 0.3}),
    ("Dinov2ForImageClassification", {**DINOV2, "patch_size": [4, 2]}),
    ("Dinov2ForImageClassification", {"pooling": "mean"}),
    ("Dinov2ForImageClassification", {**DINOV2, **NO_BIASES, **SINCOS2D}),
    ("Dinov2WithRegistersForImageClassification", {**DINOV2, "num_register_tokens": 3}),
    ("Dinov2WithRegistersForImageClassification", {**DINOV2, **SWIGLU, "num_register_tokens": 1}),
    ("Dinov2WithRegistersForImageClassification", {"num_register_tokens": 2}),
]
BODIES_TO_TRANSFORMERS = [
    ("ViTModel", {}),
    ("ViTModel", {"pooler_output_size": 10}),
    ("ViTModel", {"pooling": "mean"}),
    ("DeiTModel", {"num_register_tokens": 1}),
    ("DeiTModel", {"num_register_tokens": 1, "pooler_output_size": 16}),
    ("IJepaModel", {**NO_CLS, "pooling": "mean"}),
    ("Dinov2Model", {**DINOV2, "image_size": 16}),
    ("Dinov2WithRegistersModel", {**DINOV2, **SWIGLU, "num_register_tokens": 4}),
]


def named(models: list) -> list[str]:
    return [f"{name}-{index}" for index, (name, _) in enumerate(models)]


def load_with_transformers(lines: list[str], folder):
    """Load an export as its own second line says, and check that nothing is missing or left over."""
    call = lines[1].removeprefix("load").strip()
    name = call.split(".")[0]
    options = {"add_pooling_layer": False} if call.endswith(", add_pooling_layer=False)") else {}
    peer, report = getattr(transformers, name).from_pretrained(folder, output_loading_info=True, **options)
    assert {what: keys for what, keys in report.items() if keys} == {}
    assert type(peer).__name__ == name == config_of(folder)["architectures"][0]
    return peer.eval()


@torch.no_grad()
def run_transformers(peer, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
    body = getattr(peer, peer.base_model_prefix, peer)
    base = body(pixel_values, output_hidden_states=True)
    found = {"hidden states": torch.stack(base.hidden_states), "last hidden state": base.last_hidden_state}
    if body is not peer:
        found["logits"] = peer(pixel_values).logits
    elif getattr(peer, "pooler", None) is not None:
        found["pooled"] = base.pooler_output
    return found


@pytest.mark.parametrize(("name", "changes"), TO_TRANSFORMERS, ids=named(TO_TRANSFORMERS))
def test_transformers_loads_our_classifiers_and_computes_the_same(name, changes, tmp_path):
    model = make(changes)
    lines = export(model, tmp_path, "transformers")
    assert lines[:2] == [f"became     transformers' {name}", f'load       {name}.from_pretrained("FOLDER")']
    peer = load_with_transformers(lines, tmp_path)
    assert differing(run_transformers(peer, images(model)), run(model)) == {}


@pytest.mark.parametrize(("name", "changes"), BODIES_TO_TRANSFORMERS, ids=named(BODIES_TO_TRANSFORMERS))
def test_transformers_loads_our_base_models_and_computes_the_same(name, changes, tmp_path):
    model = make(changes, head=False)
    lines = export(model, tmp_path, "transformers")
    assert lines[0] == f"became     transformers' {name}"
    peer = load_with_transformers(lines, tmp_path)
    found = run_transformers(peer, images(model))
    assert differing(found, run(model)) == {}
    assert ("pooled" in found) == ("pooler_output_size" in changes)


@pytest.mark.parametrize(
    ("changes", "head"),
    [
        *((changes, True) for _, changes in TO_TRANSFORMERS),
        *((changes, False) for _, changes in BODIES_TO_TRANSFORMERS),
    ],
)
def test_what_went_to_transformers_comes_back_the_same(changes, head, tmp_path):
    model = make(changes, head=head)
    export(model, tmp_path, "transformers")
    back = read_checkpoint(tmp_path)
    assert (back.format, back.has_head) == ("transformers", head)
    outputs = run(back.model)
    # Transformers has no name for what is pooled without parameters of its own, so that is the [CLS] token again.
    if "pooler_output_size" not in changes:
        del outputs["pooled"]
    assert differing(outputs, run(model)) == {}


@pytest.mark.parametrize("case", ["plain", "old_names"])
def test_models_of_torchvision_can_go_to_transformers(case, tmp_path):
    imported = golden_cases.imported("torchvision", case)
    lines = export_model(imported.model, imported.image_processor, tmp_path, format="transformers").lines
    peer = load_with_transformers(lines, tmp_path)
    expected = load_file(ROOT / "torchvision" / case / "expected.safetensors")
    found = run_transformers(peer, IMAGES["trained"])["logits"]
    assert golden_cases.relative(found, expected["trained.logits"]) < 1e-5
    assert (
        lines[2] == "note       to images of another size transformers fits the positions in its own way, not as here"
    )


def test_an_export_to_transformers_has_labels_and_an_image_processor(tmp_path):
    model = make(
        {"num_labels": 3, "id2label": {0: "apple", 1: "pear", 2: "plum"}, "problem_type": "multi_label_classification"}
    )
    export(model, tmp_path, "transformers", resized=14, mean=(0.1, 0.2, 0.3))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.model_type == "vit"
    assert config.id2label == {0: "apple", 1: "pear", 2: "plum"}
    assert config.label2id == {"apple": 0, "pear": 1, "plum": 2}
    assert config.problem_type == "multi_label_classification"
    assert "auto_map" not in config_of(tmp_path)  # it needs no code of ours
    picture = noise((60, 45))
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path)(picture, return_tensors="np")
    ours = processor_for(model, resized=14, mean=(0.1, 0.2, 0.3))(picture, return_tensors="np")
    # Where torchvision is installed, transformers resizes with it, and rounds elsewhere.
    assert np.abs(np.asarray(theirs["pixel_values"]) - ours["pixel_values"]).max() <= GREY_LEVEL


@pytest.mark.parametrize(
    ("changes", "asks"), [({}, True), (DINOV2, False), ({**DINOV2, "num_register_tokens": 1}, False)]
)
@pytest.mark.parametrize(("fits", "size"), [(True, None), (False, (20, 20))])
def test_images_of_other_sizes_have_to_be_allowed_by_those_who_pass_them(changes, asks, fits, size, tmp_path):
    note = "note       its images may be of other sizes: pass interpolate_pos_encoding=True with them"
    model = make({**changes, "interpolate_pos_encoding": fits, "position_interpolation": "bicubic"})
    assert (note in export(model, tmp_path, "transformers", size=size)) == asks
    # Unless the model is for images of one size, and they are of that.
    other = make({**changes, "position_interpolation": "bicubic"})
    assert note not in export(other, tmp_path, "transformers")


def test_what_training_needs_goes_to_transformers_too(tmp_path):
    model = make({**DINOV2, "layerscale_value": 0.25, "drop_path_rate": 0.1, "hidden_dropout_prob": 0.2})
    export(model, tmp_path, "transformers")
    config = config_of(tmp_path)
    assert [config[name] for name in ("layerscale_value", "drop_path_rate", "hidden_dropout_prob")] == [0.25, 0.1, 0.2]


@pytest.mark.parametrize(
    ("changes", "interpolation"),
    [({}, "bicubic"), (DINOV2, "bicubic"), ({**DINOV2, "num_register_tokens": 1}, "bicubic_antialias")],
)
def test_another_way_of_fitting_positions_than_that_of_transformers_is_said(changes, interpolation, tmp_path):
    note = "note       to images of another size transformers fits the positions in its own way, not as here"
    for ours in ("bicubic", "bicubic_antialias"):
        model = make({**changes, "position_interpolation": ours})
        assert export(model, tmp_path, "transformers")[2:] == [note] * (ours != interpolation)
    assert export(make({**changes, **SINCOS2D}), tmp_path, "transformers")[2:] == [note]


def test_the_dtype_stays(tmp_path):
    model = make({**DINOV2, "num_register_tokens": 1}).to(torch.bfloat16)
    export(model, tmp_path, "transformers")
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (ARTICLE, ["norm_first=False", "norm_first=True", "use_final_layer_norm=False", "use_final_layer_norm=True"]),
        ({"use_dual_patch_norm": True}, ["use_dual_patch_norm=True", "use_dual_patch_norm=False"]),
        ({"head_dim": 4}, ["head_dim=4", "head_dim=None"]),
        ({"use_pre_layer_norm": True}, ["use_pre_layer_norm=True", "use_pre_layer_norm=False"]),
        (FC_NORM, ["use_pooled_layer_norm=True", "use_pooled_layer_norm=False"]),
        ({"position_embedding_type": "none", "use_cls_position": False}, ["position_embedding_type='none'"]),
        ({"pooler_output_size": 10}, ["pooler_output_size=10", "pooler_output_size=None"]),
        ({"pooling": "attention"}, ["pooling='attention'", "pooling='cls'"]),
        ({"pooling": "mean_tokens"}, ["pooling='mean_tokens'", "pooling='cls'"]),
        ({**NO_CLS, "pooling": "mean", "num_register_tokens": 1}, ["num_register_tokens=1", "num_register_tokens=0"]),
        ({**NO_CLS, "pooling": "mean", "layerscale_value": 0.1}, ["layerscale_value=0.1", "layerscale_value=None"]),
        # DINOv2's networks are a whole number of times as wide as the model; gated ones two thirds of that.
        (
            {**DINOV2, "intermediate_size": 40},
            ["intermediate_size=40", "intermediate_size=16 or 32 or 48 or 64 or 80 or 96 or"],
        ),
        (
            {**DINOV2, **SWIGLU, "intermediate_size": 32 + 1},
            ["intermediate_size=33", "intermediate_size=16 or 24 or 32 or 48 or"],
        ),
        # It would take these positions for those of a square, and fit them to the image.
        ({**DINOV2, "image_size": [12, 20]}, ["image_size=[12, 20]", "image_size='a square'"]),
    ],
)
def test_what_transformers_cannot_express_is_named(changes, named, tmp_path):
    with pytest.raises(
        ValueError, match=r"cannot be exported: transformers' '.*' has no counterpart for .*; it always computes"
    ) as info:
        export(make(changes), tmp_path, "transformers")
    assert [part for part in named if part not in str(info.value)] == []
    assert list(tmp_path.iterdir()) == []


def test_a_pooler_of_transformers_reads_cls_only(tmp_path):
    with pytest.raises(ValueError, match=r"for pooling='mean'; it always computes pooling='cls'\.$"):
        export(make({"pooling": "mean", "pooler_output_size": 10}, head=False), tmp_path, "transformers")


# --- timm ------------------------------------------------------------------------------------------------------------

TO_TIMM = [
    {},
    {"layer_norm_eps": 1e-5},
    {"hidden_act": "quick_gelu"},
    {"hidden_act": "gelu_new", "num_labels": 1},
    {"image_size": [12, 20], "patch_size": [4, 2], "num_channels": 1},
    {"image_size": 8, "intermediate_size": 41},
    {**NO_BIASES, "layerscale_value": 0.3},
    {"layerscale_value": 0.0},
    {"use_cls_position": False},
    SINCOS2D,
    DEIT,
    {**DEIT, **SINCOS2D, "num_labels": 1},
    {**DEIT, **NO_BIASES, "layerscale_value": 0.3, "use_final_layer_norm": False},
    {"num_register_tokens": 3},
    {"num_register_tokens": 3, "use_cls_position": False},
    {"num_register_tokens": 1, "use_cls_position": False, "pooling": "mean", **FC_NORM},
    {**NO_CLS, "pooling": "mean"},
    {**NO_CLS, "num_register_tokens": 2, "pooling": "mean_tokens"},
    {"pooling": "mean_tokens", **FC_NORM},
    {"pooling": "mean", "use_final_layer_norm": False},
    {"pooling": "cls", **FC_NORM},
    {**NO_CLS, "pooling": "attention"},
    {"pooling": "attention", "num_register_tokens": 1, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-5},
    {"pooling": "attention", **FC_NORM},
    CLIP,
    {**CLIP, "num_register_tokens": 1, "pooling": "mean"},
    SWIGLU,
    {**SWIGLU, "num_register_tokens": 2, "use_cls_position": False, "intermediate_size": 23, "num_labels": 0},
    {**SWIGLU, "use_pre_layer_norm": True, "patch_bias": False, "pooling": "mean", **FC_NORM},
]


def folded(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same function with the positions of registers added to these, and two heads that are the same.

    That is what remains of them here: registers have no position of their own, and the logits of both heads are
    averaged.
    """
    tensors = dict(tensors)
    registers = next((name for name in ("reg_token", "dist_token") if name in tensors), None)
    positions, num_cls = tensors["pos_embed"], int("cls_token" in tensors)
    covered = positions.shape[1] - 9
    if registers and covered > num_cls:
        of_cls, of_registers, of_patches = positions.split((num_cls, covered - num_cls, 9), dim=1)
        tensors[registers] = tensors[registers] + of_registers
        left = (of_cls, torch.zeros_like(of_registers), of_patches) if num_cls else (of_patches,)
        tensors["pos_embed"] = torch.cat(left, dim=1)
    if "head_dist.bias" in tensors:
        mean = (tensors["head.bias"] + tensors["head_dist.bias"]) / 2
        tensors |= {"head.bias": mean, "head_dist.bias": mean}
    return tensors


@pytest.mark.parametrize("case", golden_cases.cases("timm"))
def test_what_came_from_timm_goes_back_the_same(case, tmp_path):
    imported = golden_cases.imported("timm", case)
    export_model(imported.model, imported.image_processor, tmp_path, format="timm")
    before = load_file(ROOT / "timm" / case / "model.safetensors")
    after = load_file(tmp_path / "model.safetensors")
    changed = {name for name, tensor in folded(before).items() if not torch.equal(tensor, before[name])}
    of_registers = {"pos_embed", "reg_token"}
    assert changed == {
        "registers_with_positions": of_registers,
        "registers_map": of_registers,
        "deit_distilled": {"pos_embed", "dist_token", "head.bias", "head_dist.bias"},
    }.get(case, set())
    assert before.keys() == after.keys()
    assert [name for name, tensor in folded(before).items() if not torch.equal(tensor, after[name])] == []
    again = read_checkpoint(tmp_path).model
    expected = load_file(ROOT / "timm" / case / "expected.safetensors")
    last = golden_cases.outputs(again, IMAGES["trained"])["last_hidden_state"]
    assert golden_cases.relative(last, expected["trained.last_hidden_state"]) < 1e-5


@pytest.mark.parametrize("changes", TO_TIMM, ids=range(len(TO_TIMM)))
def test_what_went_to_timm_comes_back_the_same(changes, tmp_path):
    model = make(changes)
    export(model, tmp_path, "timm")
    back = read_checkpoint(tmp_path)
    assert (back.format, back.has_head) == ("timm", model.config.num_labels > 0)
    outputs = run(back.model)
    expected = run(model)
    if not back.has_head:
        expected["logits"] = expected["pooled"]
    assert differing(outputs, expected) == {}


def shapes_in_timm(written: dict) -> dict[str, tuple[int, ...]]:
    """The tensors of the model that timm builds from a configuration: its `VisionTransformer`, argument by argument."""
    arguments = written["model_args"]
    width, hidden = arguments["embed_dim"], int(arguments["embed_dim"] * arguments["mlp_ratio"])
    two_heads = written["architecture"] == "deit_base_distilled_patch16_224"
    gated = written["architecture"] == "vit_giant_patch14_dinov2"
    registers = arguments.get("reg_tokens", 0)
    num_patches = math.prod(s // p for s, p in zip(arguments["img_size"], arguments["patch_size"], strict=True))
    prefix = 2 if two_heads else arguments["class_token"] + registers
    shapes = {
        "pos_embed": (1, num_patches + (prefix if two_heads or not arguments["no_embed_class"] else 0), width),
        "patch_embed.proj.weight": (width, arguments["in_chans"], *arguments["patch_size"]),
    }
    tokens = {"cls_token": arguments["class_token"], "reg_token": registers, "dist_token": two_heads}
    shapes |= {name: (1, int(count), width) for name, count in tokens.items() if count}
    linear = {"head": (arguments["num_classes"], width), "head_dist": (arguments["num_classes"], width)}
    linear = {name: shape for name, shape in linear.items() if shape[0] and (name == "head" or two_heads)}
    norms = ["norm_pre"] * arguments["pre_norm"]
    norms += ["fc_norm" if arguments["fc_norm"] else "norm"] * arguments["final_norm"]
    networks = {}
    for index in range(arguments["depth"]):
        block = f"blocks.{index}"
        norms += [f"{block}.norm1", f"{block}.norm2"]
        linear |= {f"{block}.attn.qkv": (3 * width, width), f"{block}.attn.proj": (width, width)}
        networks[f"{block}.mlp"] = gated
        if arguments["init_values"]:
            shapes |= {f"{block}.ls1.gamma": (width,), f"{block}.ls2.gamma": (width,)}
    if arguments["global_pool"] == "map":
        shapes["attn_pool.latent"] = (1, 1, width)
        norms.append("attn_pool.norm")
        linear |= {"attn_pool.q": (width, width), "attn_pool.kv": (2 * width, width), "attn_pool.proj": (width, width)}
        networks["attn_pool.mlp"] = False
    for name, is_gated in networks.items():
        linear |= {f"{name}.fc1": (hidden, width), f"{name}.fc2": (width, hidden // 2 if is_gated else hidden)}
    shapes |= {f"{name}.weight": shape for name, shape in linear.items()}
    shapes |= {f"{name}.weight": (width,) for name in norms} | {f"{name}.bias": (width,) for name in norms}
    biases = {f"{name}.bias": (shape[0],) for name, shape in linear.items()}
    if not arguments["qkv_bias"]:
        biases = {name: shape for name, shape in biases.items() if not name.endswith("attn.qkv.bias")}
    if not arguments["pre_norm"]:
        biases["patch_embed.proj.bias"] = (width,)
    return shapes | biases


@pytest.mark.parametrize("changes", TO_TIMM, ids=range(len(TO_TIMM)))
def test_the_tensors_are_those_of_the_model_that_timm_builds(changes, tmp_path):
    export(make(changes), tmp_path, "timm")
    tensors = load_file(tmp_path / "model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes_in_timm(config_of(tmp_path))


def test_of_two_heads_both_are_the_classifier(tmp_path):
    export(make(DEIT), tmp_path, "timm")
    assert config_of(tmp_path)["pretrained_cfg"]["classifier"] == ["head", "head_dist"]


@pytest.mark.parametrize(
    ("changes", "architecture"),
    [
        ({}, "vit_base_patch16_224"),
        ({"layer_norm_eps": 1e-5}, "vit_base_patch16_clip_224"),
        (SWIGLU, "vit_giant_patch14_dinov2"),
        (DEIT, "deit_base_distilled_patch16_224"),
    ],
)
def test_what_no_argument_of_timm_sets_is_in_the_name_of_an_architecture(changes, architecture, tmp_path):
    model = make(changes)
    lines = export(model, tmp_path, "timm")
    assert lines == [
        f"became     timm's {architecture}, with its arguments changed",
        'load       timm.create_model("local-dir:FOLDER", pretrained=True)',
    ]
    assert config_of(tmp_path)["architecture"] == architecture
    config = read_checkpoint(tmp_path).model.config
    for name in ("layer_norm_eps", "use_swiglu_ffn", "hidden_act", "pooling", "num_attention_heads"):
        assert getattr(config, name) == getattr(model.config, name)


def test_the_configuration_says_all_that_timm_needs(tmp_path):
    model = make(
        {"image_size": [12, 20], "num_register_tokens": 2, "num_labels": 2, "id2label": {0: "apple", 1: "pear"}}
    )
    lines = export(model, tmp_path, "timm", resample="bilinear", mean=(0.1, 0.2, 0.3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert len(lines) == 2
    assert config_of(tmp_path) == {
        "architecture": "vit_base_patch16_224",
        "num_classes": 2,
        "num_features": 16,
        "global_pool": "token",
        "label_names": ["apple", "pear"],
        "model_args": {
            "img_size": [12, 20],
            "patch_size": [4, 4],
            "in_chans": 3,
            "num_classes": 2,
            "global_pool": "token",
            "embed_dim": 16,
            "depth": 2,
            "num_heads": 2,
            "mlp_ratio": 2.0,
            "qkv_bias": True,
            "init_values": None,
            "class_token": True,
            "no_embed_class": False,
            "pre_norm": False,
            "final_norm": True,
            "fc_norm": False,
            "reg_tokens": 2,
            "act_layer": "gelu",
        },
        "pretrained_cfg": {
            "input_size": [3, 12, 20],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": [0.1, 0.2, 0.3],
            "std": [0.229, 0.224, 0.225],
            "num_classes": 2,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


@pytest.mark.parametrize(("fits", "size"), [(True, None), (True, (20, 20)), (False, (20, 20))])
def test_of_images_of_other_sizes_timm_is_told(fits, size, tmp_path):
    model = make({"interpolate_pos_encoding": fits})
    export(model, tmp_path, "timm", size=size)
    config = config_of(tmp_path)
    assert config["model_args"]["img_size"] == [12, 12]  # of the positions
    assert config["model_args"]["dynamic_img_size"] is True
    assert config["pretrained_cfg"]["input_size"] == [3, *(size or (12, 12))]
    assert config["pretrained_cfg"]["fixed_input_size"] is False
    back = read_checkpoint(tmp_path)
    assert back.model.config.interpolate_pos_encoding
    pixels = back.image_processor(noise((60, 45)), return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, *(size or (12, 12)))
    with torch.no_grad():
        expected = model(pixels, interpolate_pos_encoding=True).logits
        assert golden_cases.relative(back.model(pixels).logits, expected) < 1e-5


@pytest.mark.parametrize("changes", [{"position_interpolation": "bicubic"}, SINCOS2D])
def test_another_way_of_fitting_positions_than_that_of_timm_is_said(changes, tmp_path):
    note = "note       to images of another size timm fits the positions in its own way, not as here"
    assert export(make(changes), tmp_path, "timm")[2:] == [note]


@pytest.mark.parametrize("settings", [{}, {"resized": 14}, {"resized": (14, 14)}, {"resample": "lanczos"}])
def test_images_are_prepared_the_same_after_a_round_trip(settings, tmp_path):
    model = make({})
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    export(model, tmp_path, "timm", mean=mean, std=std, **settings)
    picture = noise((60, 45))
    before = processor_for(model, mean=mean, std=std, **settings)(picture, return_tensors="np")["pixel_values"]
    after = read_checkpoint(tmp_path).image_processor(picture, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(before, after, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [120.0] * 3, "image_std": [60.0] * 3},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
    ],
)
def test_other_ways_of_scaling_pixels_become_a_mean_and_a_deviation(changes, tmp_path):
    model = make({})
    processor = processor_for(model)
    for name, value in changes.items():
        setattr(processor, name, value)
    export_model(model, processor, tmp_path, format="timm")
    picture = noise((60, 45))
    before = processor(picture, return_tensors="np")["pixel_values"]
    after = read_checkpoint(tmp_path).image_processor(picture, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(before, after, rtol=0, atol=1e-5)


def test_a_share_gives_the_size_before_the_crop_exactly():
    pairs = [(crop, before) for crop in range(8, 520, 8) for before in range(crop, crop + 80)]
    assert all(math.floor(crop / crop_share([crop], [before])) == before for crop, before in pairs)
    assert any(math.floor(crop / (crop / before)) != before for crop, before in pairs)  # which is why
    share = crop_share([12, 20], [13, 22])  # 0.9 of both, cut off
    assert (math.floor(12 / share), math.floor(20 / share)) == (13, 22)


def test_a_ratio_gives_the_width_of_the_network_exactly():
    pairs = [(width, hidden) for hidden in (16, 28, 192, 384, 768, 1152) for width in range(1, 5000, 3)]
    assert all(int(hidden * mlp_ratio(width, hidden)) == width for width, hidden in pairs)
    assert any(int(hidden * (width / hidden)) != width for width, hidden in pairs)  # which is why
    assert mlp_ratio(3072, 768) == 4.0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (ARTICLE, ["timm has no counterpart for norm_first=False; it always computes norm_first=True."]),
        ({"use_dual_patch_norm": True}, ["use_dual_patch_norm=True", "use_dual_patch_norm=False"]),
        ({"head_dim": 4}, ["head_dim=4", "head_dim=None"]),
        ({"layer_norm_eps": 1e-12}, ["layer_norm_eps=1e-12", "layer_norm_eps=1e-06 or 1e-05"]),
        ({"pooler_output_size": 10}, ["pooler_output_size=10", "pooler_output_size=None"]),
        ({"pooling": "cls_mean"}, ["pooling='cls_mean'"]),
        ({"position_embedding_type": "none", "use_cls_position": False}, ["position_embedding_type='none'"]),
        ({"use_pre_layer_norm": True}, ["patch_bias=True", "patch_bias=False"]),
        # And the final one.
        ({"use_pooled_layer_norm": True}, ["use_pooled_layer_norm=True", "use_pooled_layer_norm=False"]),
        ({"hidden_act": "tanh"}, ["hidden_act='tanh'", "hidden_act='gelu' or 'gelu_pytorch_tanh' or 'quick_gelu' or "]),
        ({**SWIGLU, "layer_norm_eps": 1e-5}, ["layer_norm_eps=1e-05", "layer_norm_eps=1e-06"]),
        ({**SWIGLU, "pooling": "attention"}, ["pooling='attention'", "pooling='cls' or 'mean' or 'mean_tokens'"]),
        ({**DEIT, "num_register_tokens": 2}, ["num_register_tokens=2", "num_register_tokens=1"]),
        ({**DEIT, "layer_norm_eps": 1e-5}, ["layer_norm_eps=1e-05", "layer_norm_eps=1e-06"]),
        ({**DEIT, "num_labels": 0}, ["pooling='cls_distillation'", "pooling='cls'"]),
    ],
)
def test_what_timm_cannot_express_is_named(changes, named, tmp_path):
    with pytest.raises(
        ValueError, match=r"cannot be exported: timm has no counterpart for .*; it always computes"
    ) as info:
        export(make(changes), tmp_path, "timm")
    assert [part for part in named if part not in str(info.value)] == []
    assert list(tmp_path.iterdir()) == []


def test_timm_itself_loads_our_models_and_computes_the_same(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is none of our dependencies; this runs where it is installed")
    flexible = make({"interpolate_pos_encoding": True})
    (tmp_path / "flexible").mkdir()
    export(flexible, tmp_path / "flexible", "timm", size=(20, 20))
    peer = timm.create_model(f"local-dir:{tmp_path / 'flexible'}", pretrained=True).eval()
    assert timm.data.resolve_model_data_config(peer)["input_size"] == (3, 20, 20)
    with torch.no_grad():
        assert golden_cases.relative(peer(IMAGES["larger"]), flexible(IMAGES["larger"]).logits) < 1e-5
    for index, changes in enumerate(TO_TIMM):
        model = make(changes)
        folder = tmp_path / str(index)
        folder.mkdir()
        export(model, folder, "timm", resized=14 if model.config.image_size == 12 else None)
        peer = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        with torch.no_grad():
            found = {"logits": peer(images(model)), "last hidden state": peer.forward_features(images(model))}
        assert differing(found, run(model)) == {}, changes
        if model.config.image_size == 12 and model.config.num_channels == 3:
            transform = timm.data.create_transform(**timm.data.resolve_model_data_config(peer))
            picture = noise((60, 45))
            pixels = processor_for(model, resized=14)(picture, return_tensors="np")["pixel_values"][0]
            assert np.abs(transform(picture).numpy() - pixels).max() <= GREY_LEVEL


# --- Both ------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_on_disk_is_exported_whole_or_not_at_all(tmp_path):
    source, model = tmp_path / "ours", make({})
    model.save_pretrained(source)
    processor_for(model).save_pretrained(source)
    for format, files in (("timm", 3), ("transformers", 4)):
        export_checkpoint(str(source), tmp_path / format, format=format)
        assert len(list((tmp_path / format).iterdir())) == files
        outputs = run(read_checkpoint(tmp_path / format).model)
        assert differing(outputs, run(model)) == {}
    make(ARTICLE).save_pretrained(source)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match="norm_first=False"):
        export_checkpoint(str(source), tmp_path / "refused", format="timm")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_there_is_no_export_to_other_libraries(tmp_path):
    with pytest.raises(ValueError, match="there is no export to 'jax'; there is one to transformers, timm"):
        export(make({}), tmp_path, "jax")
