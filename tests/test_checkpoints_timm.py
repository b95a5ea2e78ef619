"""Checkpoints of timm, and of the research code that shares its names: what they compute in timm, they compute here."""

import json

import golden_cases
import numpy as np
import pytest
import torch
from golden_cases import IMAGES, ROOT
from pictures import noise
from PIL import Image
from safetensors.torch import load_file, save_file

from modeling_vit_scratch import ViTScratchForImageClassification, ViTScratchModel
from modeling_vit_scratch.checkpoints import convert_state_dict, read_checkpoint
from modeling_vit_scratch.checkpoints.files import Source
from modeling_vit_scratch.checkpoints.timm import LINEAGE

CASES = golden_cases.cases("timm")
SIZES = ("trained", "larger", "wide")
HEADS = {"num_attention_heads": 2}  # of all golden cases
ASKS_FOR_HEADS = r"does not say num_attention_heads.*: add --config.overrides 'num_attention_heads=…'"
ASKS_FOR_SIZE = r"does not say image_size.*: add --config.overrides 'image_size=…'"

# What the names of timm's own architectures imply, and how the others that look alike can be told.
ARCHITECTURES = json.loads((ROOT / "timm_architectures.json").read_text("utf-8"))
PLAIN = {name: dict(zip(ARCHITECTURES["columns"], row, strict=True)) for name, row in ARCHITECTURES["plain"].items()}
OTHERS = ARCHITECTURES["others"]


def golden_tensors(case: str) -> dict[str, torch.Tensor]:
    return load_file(ROOT / "timm" / case / "model.safetensors")


def golden_config(case: str) -> dict:
    return json.loads((ROOT / "timm" / case / "config.json").read_text("utf-8"))


@pytest.fixture
def imported(tmp_path):
    """A function that writes a folder as timm does and imports it."""

    def write_and_import(tensors: dict[str, torch.Tensor], config: dict, **options):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
        return read_checkpoint(tmp_path, **options)

    return write_and_import


@pytest.fixture
def from_file(tmp_path):
    """A function that saves what training code saves as one file, and imports it."""

    def save_and_import(content: dict, **options):
        torch.save(content, tmp_path / "checkpoint.pth")
        return read_checkpoint(tmp_path / "checkpoint.pth", **options)

    return save_and_import


def wrong_outputs(model, case: str, *, but: tuple[str, ...] = ()) -> dict[str, float]:
    """The outputs of a model on the images of the size it was made for that are not those of a golden case."""
    expected = load_file(ROOT / "timm" / case / "expected.safetensors")
    outputs = golden_cases.outputs(model, IMAGES["trained"])
    names = {name.removeprefix("trained.") for name in expected if name.startswith("trained.")} - set(but)
    assert len(names) >= 2
    errors = {name: golden_cases.relative(outputs[name], expected[f"trained.{name}"]) for name in names}
    return {name: error for name, error in errors.items() if error > 1e-5}


# --- The numbers of timm ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_hidden_states_and_logits_are_those_of_timm_at_any_size(case):
    differences = golden_cases.differences("timm", case)
    assert {name.split(".")[0] for name in differences} == set(SIZES)
    assert {name: value for name, value in differences.items() if value > 1e-5} == {}


def test_only_an_export_of_an_older_release_needs_to_be_told_anything():
    assert [case for case in CASES if golden_cases.facts("timm", case)] == ["old_export"]
    assert all(golden_cases.imported("timm", case).notes == [] for case in CASES if case != "old_export")


def test_the_fields_of_a_plain_vit():
    config = golden_cases.imported("timm", "plain").model.config
    read = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": None,
        "intermediate_size": 12,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": [12, 12],
        "patch_size": [4, 4],
        "num_channels": 3,
        "norm_first": True,
        "position_interpolation": "bicubic_antialias",
        "use_cls_token": True,
        "use_cls_position": True,
        "num_register_tokens": 0,
        "use_final_layer_norm": True,
        "use_pooled_layer_norm": False,
        "pooling": "cls",
        "attention_probs_dropout_prob": 0.0,
    }
    assert {name: getattr(config, name) for name in read} == read


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("clip", {"layer_norm_eps": 1e-5, "hidden_act": "gelu", "use_pre_layer_norm": True, "patch_bias": False}),
        ("clip_quickgelu", {"layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"}),
        ("siglip", {"hidden_act": "gelu", "pooling": "attention", "use_cls_token": False}),
        ("siglip_tanh", {"hidden_act": "gelu_pytorch_tanh", "pooling": "attention"}),
        ("siglip_gap", {"pooling": "mean", "use_final_layer_norm": True, "use_pooled_layer_norm": False}),
        ("mean_fc_norm", {"pooling": "mean", "use_final_layer_norm": False, "use_pooled_layer_norm": True}),
        ("deit3", {"use_cls_position": False, "layerscale_value": 1e-5}),
        ("deit_distilled", {"pooling": "cls_distillation", "num_register_tokens": 1}),
        ("dinov2_swiglu", {"use_swiglu_ffn": True, "intermediate_size": 6}),
        ("dinov2_registers", {"num_register_tokens": 4, "use_cls_token": True, "use_cls_position": False}),
        ("registers_gap", {"num_register_tokens": 4, "use_cls_token": False}),
        ("no_qkv_bias", {"qkv_bias": False}),
    ],
)
def test_the_fields_in_which_other_families_differ(case, fields):
    config = golden_cases.imported("timm", case).model.config
    assert {name: getattr(config, name) for name in fields} == fields


def test_positions_that_cover_registers_are_added_to_these():
    tensors = golden_tensors("registers_with_positions")
    assert (tensors["reg_token"].shape, tensors["pos_embed"].shape) == ((1, 4, 8), (1, 4 + 9, 8))
    model = golden_cases.imported("timm", "registers_with_positions").model.vit
    torch.testing.assert_close(
        model.register_tokens.register_tokens, tensors["reg_token"] + tensors["pos_embed"][:, :4]
    )
    torch.testing.assert_close(model.positional_encoding.positional_embedding, tensors["pos_embed"][:, 4:])


@pytest.mark.parametrize("case", CASES)
def test_positions_fitted_once_are_the_same_as_those_fitted_on_the_way(case):
    image = IMAGES["wide"]
    fitted = golden_cases.imported("timm", case, image_size=(12, 20))
    assert fitted.model.config.image_size == [12, 20]
    assert "resampled the positions from 3x3 to 3x5 patches (bicubic_antialias)" in fitted.notes
    expected = golden_cases.outputs(golden_cases.imported("timm", case).model, image)
    with torch.no_grad():
        outputs = fitted.model(image, output_hidden_states=True)  # without interpolate_pos_encoding
    assert golden_cases.relative(torch.stack(outputs.hidden_states), expected["hidden_states"]) < 1e-5
    last = outputs.logits if fitted.has_head else outputs.last_hidden_state
    assert golden_cases.relative(last, expected["logits" if fitted.has_head else "last_hidden_state"]) < 1e-5


def test_a_model_without_a_head_is_a_base_model_and_one_with_labels_gets_a_new_head():
    assert isinstance(golden_cases.imported("timm", "dinov2_registers").model, ViTScratchModel)
    classifier = golden_cases.imported("timm", "dinov2_registers", num_labels=3)
    assert isinstance(classifier.model, ViTScratchForImageClassification)
    assert "new random head for 3 labels" in classifier.notes


def test_the_names_alone_are_converted_too():
    model = golden_cases.imported("timm", "registers_with_positions").model
    converted = convert_state_dict(
        golden_tensors("registers_with_positions"), config=golden_config("registers_with_positions")
    )
    assert model.load_state_dict(converted, strict=True)


# --- What only the name of an architecture tells ---------------------------------------------------------------------


def shapes_of(row: dict) -> dict[str, tuple[int, ...]]:
    """The shapes of one block of an architecture, as far as they say anything."""
    width, patch_size = row["width"], row["patch_size"]
    hidden = 2 * width
    tokens = {
        "cls_token": (1, 1, width) if row["class_token"] else None,
        "reg_token": (1, row["registers"], width) if row["registers"] else None,
        "dist_token": (1, 1, width) if row["distillation"] else None,
        "attn_pool.latent": (1, 1, width) if row["pooling"] == "map" else None,
        "head_dist.weight": (7, width) if row["distillation"] else None,
        f"{row['norm']}.weight": (width,) if row["norm"] else None,
    }
    return {
        "patch_embed.proj.weight": (width, 3, patch_size, patch_size),
        "patch_embed.proj.bias": (width,),
        "pos_embed": (1, row["positions"], width),
        "blocks.0.norm1.bias": (width,),
        "blocks.0.attn.qkv.weight": (3 * width, width),
        "blocks.0.mlp.fc1.weight": (2 * hidden if row["activation"] == "swiglu" else hidden, width),
        "blocks.0.mlp.fc2.weight": (width, hidden),
        "head.weight": (7, width),
        **{name: shape for name, shape in tokens.items() if shape is not None},
    }


def fields_of_name(name: str, row: dict, config: dict) -> dict:
    """What the import understands of an architecture of timm of which nothing was changed."""
    settings = {"architecture": name, "pretrained_cfg": {"input_size": [3, row["image_size"], row["image_size"]]}}
    reading = LINEAGE.read(Source(name, {}, shapes_of(row), settings | config), {})
    assert reading.unknown == ()
    return reading.fields


def expected_fields(row: dict) -> dict:
    """What timm itself makes of an architecture, in our words."""
    whole = row["image_size"] // row["patch_size"]
    gated = row["activation"] == "swiglu"
    pooling = {"token": "cls", "avg": "mean", "map": "attention"}[row["pooling"]]
    return {
        "num_attention_heads": row["heads"],
        "layer_norm_eps": row["eps"],
        "use_swiglu_ffn": gated,
        # With a gate there is no activation to choose.
        "hidden_act": None if gated else {"gelu_tanh": "gelu_pytorch_tanh"}.get(row["activation"], row["activation"]),
        "use_cls_token": row["class_token"],
        "num_register_tokens": row["registers"] + row["distillation"],
        "use_cls_position": row["class_token"] and row["positions"] > whole**2,
        "pooling": "cls_distillation" if row["distillation"] else pooling,
        "use_final_layer_norm": row["norm"] == "norm",
        "use_pooled_layer_norm": row["norm"] == "fc_norm",
        "image_size": [whole * row["patch_size"]] * 2,
    }


@pytest.mark.parametrize("written_by", ["today", "older"])
def test_every_architecture_of_timm_is_what_its_name_says(written_by):
    assert (ARCHITECTURES["timm"], len(PLAIN), len(OTHERS)) == ("1.0.31", 151, 104)
    wrong = {}
    for name, row in PLAIN.items():
        config = {"global_pool": row["pooling"]}
        if written_by == "today":
            size = [row["image_size"], row["image_size"]]
            config["model_args"] = {"img_size": size, "in_chans": 3, "num_classes": 7, "global_pool": row["pooling"]}
        fields = {"hidden_act": "gelu"} | fields_of_name(name, row, config)
        expected = expected_fields(row)
        if expected["use_swiglu_ffn"]:
            fields["hidden_act"] = None
        found = {field: fields[field] for field in expected}
        if found != expected:
            wrong[name] = {field: (found[field], expected[field]) for field in found if found[field] != expected[field]}
    assert wrong == {}


def test_the_head_reads_what_the_weights_imply_where_not_even_the_pooling_is_told():
    silent = {name: row for name, row in PLAIN.items() if row["norm"] == "fc_norm" or not row["class_token"]}
    assert len(silent) > 40
    for name, row in silent.items():
        pooling = {"avg": "mean", "map": "attention"}[row["pooling"]]
        assert fields_of_name(name, row, {})["pooling"] == pooling


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_with_the_same_names_of_tensors_are_refused(name, imported):
    telltale = OTHERS[name]
    tensors = golden_tensors("plain")
    if "lacks" in telltale:
        del tensors[telltale["lacks"]]
    if "has" in telltale:
        tensors[telltale["has"]] = torch.ones(1)
    refusal = r"no plain ViT|whose blocks are not those of a plain ViT|RMSNorm|no learned positions"
    with pytest.raises(ValueError, match=refusal):
        imported(tensors, golden_config("plain") | {"architecture": name})


def test_look_alikes_that_only_their_name_tells_apart():
    alike = {name for name, telltale in OTHERS.items() if not telltale}
    assert {"vit_base_patch16_rpn_224", "vit_pe_core_base_patch16_224", "test_vit3"} <= alike


# --- What was changed by arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "arguments", "fields"),
    [
        ("clip_quickgelu", {"act_layer": "gelu"}, {"hidden_act": "gelu", "layer_norm_eps": 1e-5}),
        ("clip", {"act_layer": "quick_gelu"}, {"hidden_act": "quick_gelu"}),
        ("plain", {"act_layer": "gelu_tanh"}, {"hidden_act": "gelu_pytorch_tanh"}),
        ("clip_quickgelu", {"act_layer": None}, {"hidden_act": "gelu"}),  # timm's own default, not the name's
        ("clip", {"norm_layer": "layernorm"}, {"layer_norm_eps": 1e-6}),
        ("clip", {"norm_layer": "LayerNorm"}, {"layer_norm_eps": 1e-6}),
        ("clip", {"norm_layer": "LayerNormFp32"}, {"layer_norm_eps": 1e-6}),
        ("plain", {"num_heads": 4}, {"num_attention_heads": 4}),
        ("plain", {"img_size": 12}, {"image_size": 12}),
        ("plain", {"img_size": [12, 12]}, {"image_size": [12, 12]}),
        ("plain", {"global_pool": "avg"}, {"pooling": "mean"}),
        ("plain", {"global_pool": "avg", "pool_include_prefix": True}, {"pooling": "mean_tokens"}),
        ("plain", {"pool_include_prefix": True}, {"pooling": "cls"}),
        ("registers_gap", {"pool_include_prefix": True}, {"pooling": "mean_tokens"}),
        ("gap", {"pool_include_prefix": True}, {"pooling": "mean"}),  # there is nothing in front of the patches
        ("gap", {"class_token": False}, {"use_cls_token": False, "pooling": "mean"}),
    ],
)
def test_arguments_overrule_the_name(case, arguments, fields, imported):
    config = golden_config(case)
    config["model_args"] |= arguments
    found = imported(golden_tensors(case), config).model.config
    assert {name: getattr(found, name) for name in fields} == fields


def test_an_image_that_is_no_square(imported):
    fitted = golden_cases.imported("timm", "plain", image_size=(12, 20)).model
    tensors = golden_tensors("plain")
    positions = fitted.vit.positional_encoding.positional_embedding
    tensors["pos_embed"] = torch.cat((tensors["pos_embed"][:, :1], positions), dim=1).detach()
    config = golden_config("plain")
    config["model_args"]["img_size"] = [12, 20]
    model = imported(tensors, config).model
    assert model.config.image_size == [12, 20]
    assert torch.equal(model(IMAGES["wide"]).logits, fitted(IMAGES["wide"]).logits)


def test_heads_are_those_of_the_architecture_even_if_its_width_was_changed(imported):
    config = golden_config("plain") | {"architecture": "test_vit"}
    del config["model_args"]["num_heads"]
    assert imported(golden_tensors("plain"), config).model.config.num_attention_heads == 2


@pytest.mark.parametrize(
    ("case", "arguments", "refusal"),
    [
        ("plain", {"act_layer": "mish"}, "act_layer 'mish' is none of those"),
        (
            "dinov2_swiglu",
            {"act_layer": "gelu"},
            "act_layer 'gelu' is none of those .*: silu, as its networks are gated",
        ),
        ("plain", {"norm_layer": "rmsnorm"}, "norm_layer 'rmsnorm' is not LayerNorm"),
        ("plain", {"global_pool": "avgmax"}, "global_pool 'avgmax' is none of those"),
        ("siglip", {"class_token": True, "reg_tokens": 1, "pool_include_prefix": True}, "has no counterpart"),
        ("plain", {"img_size": 20}, r"has 10 positions; images of 20 pixels need others"),
    ],
)
def test_arguments_without_a_counterpart_are_refused(case, arguments, refusal, imported):
    tensors, config = golden_tensors(case), golden_config(case)
    config["model_args"] |= arguments
    if arguments.get("reg_tokens"):
        tensors["reg_token"] = torch.ones(1, 1, 8)
    with pytest.raises(ValueError, match=refusal):
        imported(tensors, config)


def test_attention_that_sees_cls_is_refused(imported):
    tensors, config = golden_tensors("siglip"), golden_config("siglip")
    tensors["cls_token"] = torch.ones(1, 1, 8)
    config["model_args"] |= {"class_token": True, "no_embed_class": True, "pool_include_prefix": True}
    with pytest.raises(ValueError, match="pool_include_prefix with attention pooling has no counterpart"):
        imported(tensors, config)


# --- Exports of older releases, without arguments --------------------------------------------------------------------


def test_an_old_export_speaks_of_its_architecture_not_of_its_weights():
    config = golden_config("old_export")
    assert "model_args" not in config
    assert (config["num_classes"], config["pretrained_cfg"]["num_classes"]) == (5, 1000)
    assert config["pretrained_cfg"]["input_size"] == [3, 224, 224]
    assert golden_tensors("old_export")["pos_embed"].shape == (1, 10, 8)


def test_of_an_old_export_heads_are_asked_for_and_a_square_is_assumed():
    with pytest.raises(ValueError, match=ASKS_FOR_HEADS):
        golden_cases.imported("timm", "old_export", config_overrides={})
    imported = golden_cases.imported("timm", "old_export", config_overrides=HEADS)
    assert "assumed square images, 12x12 pixels for 10 positions" in imported.notes
    assert imported.model.config.num_labels == 5
    assert wrong_outputs(imported.model, "old_export") == {}


def test_an_old_export_of_an_unchanged_architecture_tells_all_by_its_name():
    row = PLAIN["vit_tiny_patch16_224"]
    fields = fields_of_name("vit_tiny_patch16_224", row, {})
    assert (fields["num_attention_heads"], fields["image_size"]) == (3, [224, 224])
    # Another width means that it was changed, and its heads with it, maybe.
    wider = Source("wider", {}, shapes_of(row | {"width": 256}), {"architecture": "vit_tiny_patch16_224"})
    assert LINEAGE.read(wider, {}).unknown == ("num_attention_heads",)


def test_an_architecture_that_is_not_known_does_not_tell_its_heads(imported):
    config = golden_config("old_export") | {"architecture": "vit_enormous_patch4_12"}
    with pytest.raises(ValueError, match=ASKS_FOR_HEADS):
        imported(golden_tensors("old_export"), config)


@pytest.mark.parametrize(
    ("registers", "positions"),
    [
        (4, 9),  # 3x3 patches, or 2x2 with [CLS] and four registers
        (0, 12),  # no square at all
    ],
)
def test_an_image_size_that_is_not_certain_is_asked_for(registers, positions, imported):
    tensors, config = golden_tensors("old_export"), golden_config("old_export")
    tensors["pos_embed"] = torch.ones(1, positions, 8)
    if registers:
        tensors["reg_token"] = torch.ones(1, registers, 8)
    with pytest.raises(ValueError, match=ASKS_FOR_SIZE):
        imported(tensors, config, config_overrides=HEADS)


def test_of_patches_that_are_no_squares_the_image_size_is_asked_for(imported):
    tensors, config = golden_tensors("old_export"), golden_config("old_export")
    tensors["patch_embed.proj.weight"] = torch.ones(8, 3, 4, 2)
    with pytest.raises(ValueError, match=ASKS_FOR_SIZE):
        imported(tensors, config, config_overrides=HEADS)


def test_the_representation_layer_of_old_releases_is_followed_by_tanh(imported):
    tensors = golden_tensors("plain")
    generator = torch.Generator().manual_seed(0)
    layer = {"pre_logits.fc.weight": (6, 8), "pre_logits.fc.bias": (6,), "head.weight": (5, 6)}
    tensors |= {name: torch.randn(shape, generator=generator) for name, shape in layer.items()}
    outputs = golden_cases.outputs(imported(tensors, golden_config("plain")).model, IMAGES["trained"])
    hidden = outputs["last_hidden_state"][:, 0] @ tensors["pre_logits.fc.weight"].T + tensors["pre_logits.fc.bias"]
    torch.testing.assert_close(outputs["pooled"], hidden.tanh())
    torch.testing.assert_close(outputs["logits"], hidden.tanh() @ tensors["head.weight"].T + tensors["head.bias"])


# --- Names of the classes --------------------------------------------------------------------------------------------

FRUITS = ["apple", "pear", "plum", "quince", "medlar"]


def test_classes_have_the_names_and_where_there_are_such_the_descriptions_of_timm():
    config = golden_cases.imported("timm", "plain").model.config
    assert golden_config("plain")["label_names"] == FRUITS
    assert config.id2label == {0: "a pome", 1: "a pome", 2: "a drupe", 3: "quince", 4: "medlar"}


@pytest.mark.parametrize(
    "change",
    [
        {"label_names": FRUITS},
        {"label_names": {str(index): name for index, name in enumerate(FRUITS)}},
        {"labels": FRUITS},  # of old releases
        {"pretrained_cfg": {"label_names": FRUITS}},  # of a model that was loaded from the Hub, and saved again
    ],
)
def test_the_places_and_forms_of_names(change, imported):
    config = golden_config("plain")
    del config["label_names"], config["label_descriptions"]
    assert imported(golden_tensors("plain"), config | change).model.config.id2label == dict(enumerate(FRUITS))


def test_names_with_gaps_are_filled(imported):
    config = golden_config("plain") | {"label_names": {"1": "n1", "3": "n3"}, "label_descriptions": {"n3": "a crane"}}
    names = imported(golden_tensors("plain"), config).model.config.id2label
    assert names == {0: "LABEL_0", 1: "n1", 2: "LABEL_2", 3: "a crane", 4: "LABEL_4"}


def test_the_names_of_another_head_are_left_out(imported):
    config = golden_config("plain") | {"label_names": [f"n{index}" for index in range(1000)]}
    found = imported(golden_tensors("plain"), config)
    assert found.model.config.num_labels == 5
    assert found.notes == ["ignored the names of 1000 classes, as the head has 5"]


# --- How images are prepared -----------------------------------------------------------------------------------------


def by_hand(
    picture: Image.Image, resized: tuple[int, int], crop: tuple[int, int], resample: Image.Resampling, mean, std
) -> np.ndarray:
    """Resize with Pillow, cut out the centre and normalise; sizes are (height, width)."""
    (height, width), (crop_height, crop_width) = resized, crop
    pixels = np.asarray(picture.resize((width, height), resample), dtype=np.float32) / 255
    top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
    pixels = pixels[top : top + crop_height, left : left + crop_width]
    return ((pixels - np.array(mean)) / np.array(std)).transpose(2, 0, 1)


BICUBIC, BILINEAR, LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS


# The picture is 45 pixels high and 60 wide, the crop 12x12.
@pytest.mark.parametrize(
    ("settings", "resized", "resample"),
    [
        ({"crop_pct": 0.75, "interpolation": "bicubic"}, (16, 21), BICUBIC),
        ({"crop_pct": 0.6, "interpolation": "bilinear"}, (20, 26), BILINEAR),
        ({"crop_pct": 0.85, "interpolation": "lanczos"}, (14, 18), LANCZOS),  # 14.1 is cut off
        ({"crop_pct": 0.85, "interpolation": "random"}, (14, 18), BICUBIC),  # of training
        ({"crop_pct": 1.0, "interpolation": "bicubic"}, (12, 16), BICUBIC),
        ({"crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "squash"}, (12, 12), BICUBIC),
        ({"crop_pct": 0.75, "interpolation": "bicubic", "crop_mode": "squash"}, (16, 16), BICUBIC),
    ],
)
def test_images_are_prepared_as_timm_does_it(settings, resized, resample, imported):
    config = golden_config("plain")
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    config["pretrained_cfg"] |= {"mean": mean, "std": std, **settings}
    processor = imported(golden_tensors("plain"), config).image_processor
    picture = noise((60, 45))
    pixels = processor(picture, return_tensors="np")["pixel_values"][0]
    expected = by_hand(picture, resized, (12, 12), resample, mean, std)
    assert pixels.shape == expected.shape
    grey_level = 1 / 255 / min(std)
    assert np.abs(pixels - expected).max() <= 1.01 * grey_level


def test_what_a_configuration_does_not_say_is_that_of_imagenet():
    row = PLAIN["vit_base_patch16_224"]
    source = Source("silent", {}, shapes_of(row), {"pretrained_cfg": {"crop_pct": None}})
    settings = LINEAGE.read(source, HEADS).preprocessing
    assert settings == {
        "do_convert_rgb": True,
        "size": {"shortest_edge": 256},  # 224 / 0.875
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "resample": BICUBIC,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }


def test_settings_at_the_root_of_a_configuration_count_too(imported):
    old = golden_config("plain")
    config = {**old.pop("pretrained_cfg"), **old, "mean": [0.1, 0.2, 0.3]}  # of old releases
    assert tuple(imported(golden_tensors("plain"), config).image_processor.image_mean) == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(("mode", "image_size"), [("border", [12, 12]), ("center", [12, 20])])
def test_what_our_image_processor_cannot_do_is_said(mode, image_size, imported):
    tensors, config = golden_tensors("plain"), golden_config("plain")
    config["pretrained_cfg"]["crop_mode"] = mode
    config["model_args"]["img_size"] = image_size
    tensors["pos_embed"] = torch.ones(1, 1 + image_size[0] * image_size[1] // 16, 8)
    (note,) = imported(tensors, config).notes
    assert note == f"timm keeps the proportions of images (crop_mode {mode!r}), which are not kept here"


@pytest.mark.parametrize(("argument", "setting"), [({"dynamic_img_size": True}, {}), ({}, {"fixed_input_size": False})])
def test_a_model_that_fits_its_positions_to_each_image_still_does(argument, setting, imported):
    config = golden_config("plain")
    config["model_args"] |= argument
    config["pretrained_cfg"] |= {"input_size": [3, 20, 20], "crop_pct": 1.0, **setting}
    found = imported(golden_tensors("plain"), config)
    assert found.model.config.image_size == [12, 12]
    pixels = found.image_processor(noise((60, 45)), return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 20, 20)
    assert found.model(pixels).logits.shape == (1, 5)
    expected = load_file(ROOT / "timm" / "plain" / "expected.safetensors")["larger.logits"]
    with torch.no_grad():
        assert golden_cases.relative(found.model(IMAGES["larger"]).logits, expected) < 1e-5


# --- Images whose edge no patch covers -------------------------------------------------------------------------------


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_the_edge_that_timm_ignores_is_cut_off_beforehand(crop_mode, imported):
    # As so400m at 384 pixels with patches of 14; here 14 with patches of 4.
    config = golden_config("plain")
    config["model_args"]["img_size"] = [14, 14]
    config["pretrained_cfg"] |= {"input_size": [3, 14, 14], "crop_pct": 0.7, "crop_mode": crop_mode}
    found = imported(golden_tensors("plain"), config)
    assert found.notes == ["of images of 14x14 pixels timm ignores the edge: they are cut to 12x12"]
    assert found.model.config.image_size == [12, 12]
    assert wrong_outputs(found.model, "plain") == {}
    # 14 / 0.7 is 20, and of these the whole patches are cut out.
    assert found.image_processor.crop_size == {"height": 12, "width": 12}
    size = {"shortest_edge": 20} if crop_mode == "center" else {"height": 20, "width": 20}
    assert found.image_processor.size == size


def test_so400m_of_384_pixels_is_cut_to_27_patches():
    name = "vit_so400m_patch14_siglip_384"
    assert fields_of_name(name, PLAIN[name], {})["image_size"] == [27 * 14, 27 * 14]


# --- Files of facebookresearch, which share timm's names -------------------------------------------------------------


def without_head(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}


def deit() -> dict:
    return {"model": golden_tensors("plain")}


def deit_distilled() -> dict:
    return {"model": golden_tensors("deit_distilled"), "epoch": 299}


def dino() -> dict:
    backbone = without_head(golden_tensors("plain"))
    head = {"head.mlp.0.weight": torch.ones(3, 8), "head.last_layer.weight_g": torch.ones(3, 1)}
    teacher = {f"backbone.{name}": tensor for name, tensor in backbone.items()} | head
    student = {f"module.{name}": torch.zeros_like(tensor) for name, tensor in teacher.items()}
    return {"student": student, "teacher": teacher, "epoch": 100, "args": {"arch": "vit_tiny"}}


def mae() -> dict:
    decoder = {"decoder_pos_embed": torch.ones(1, 10, 6), "decoder_blocks.0.attn.qkv.weight": torch.ones(18, 6)}
    return {"model": without_head(golden_tensors("plain")) | decoder | {"mask_token": torch.ones(1, 1, 6)}}


def mae_fine_tuned() -> dict:
    return {"model": golden_tensors("mean_fc_norm")}


def with_position_of_cls(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same function with a position of [CLS], which its token makes up for."""
    position = torch.full((1, 1, 8), 0.25)
    return tensors | {
        "cls_token": tensors["cls_token"] - position,
        "pos_embed": torch.cat((position, tensors["pos_embed"]), dim=1),
    }


def dinov2() -> dict:
    renamed = {
        name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): tensor
        for name, tensor in golden_tensors("dinov2_swiglu").items()
    }
    assert "blocks.0.mlp.w12.weight" in renamed
    return renamed | {"mask_token": torch.ones(1, 8)}


def dinov2_with_registers() -> dict:
    tensors = golden_tensors("dinov2_registers")
    tensors["register_tokens"] = tensors.pop("reg_token")
    return with_position_of_cls(tensors) | {"mask_token": torch.ones(1, 8)}


FILES = {
    deit: "plain",
    deit_distilled: "deit_distilled",
    dino: "plain",
    mae: "plain",
    mae_fine_tuned: "mean_fc_norm",
    dinov2: "dinov2_swiglu",
    dinov2_with_registers: "dinov2_registers",
}


@pytest.mark.parametrize(("make", "case"), FILES.items(), ids=[make.__name__ for make in FILES])
def test_a_file_alone_needs_its_heads_and_computes_the_same(make, case, from_file):
    with pytest.raises(ValueError, match=ASKS_FOR_HEADS):
        from_file(make())
    found = from_file(make(), config_overrides=HEADS)
    assert found.format == "timm"
    # Where the golden case has a head and the file has not, there is nothing to compare it with.
    but = () if found.has_head else ("logits",)
    assert wrong_outputs(found.model, case, but=but) == {}
    assert found.model.config.image_size == [12, 12]


def test_what_a_file_alone_does_not_say_is_assumed_aloud(from_file):
    first, *others = from_file(deit(), config_overrides=HEADS).notes
    assert first.startswith("assumed LayerNorm's epsilon 1e-6, the exact GELU, a head that reads the [CLS] token")
    assert "assumed images of 12x12 pixels, as the positions form a square" in others


@pytest.mark.parametrize(
    ("make", "left_out"),
    [
        (
            dino,
            "ignored head.mlp.0.weight, head.last_layer.weight_g: it belongs to the projection head of pre-training",
        ),
        (
            mae,
            "ignored decoder_pos_embed, decoder_blocks.0.attn.qkv.weight: it belongs to the decoder of pre-training",
        ),
        (mae, "ignored mask_token: it stands for masked patches in pre-training"),
        (dinov2, "ignored mask_token: it stands for masked patches in pre-training"),
    ],
)
def test_what_belongs_to_pre_training_is_left_out_with_its_reason(make, left_out, from_file):
    assert left_out in from_file(make(), config_overrides=HEADS).notes


# --- What is refused -------------------------------------------------------------------------------------------------


def test_a_model_without_learned_positions_is_refused(imported):
    tensors = golden_tensors("plain")
    del tensors["pos_embed"]
    with pytest.raises(ValueError, match="has no learned positions"):
        imported(tensors, golden_config("plain"))


def test_a_tensor_that_no_table_knows_is_refused(imported):
    with pytest.raises(ValueError, match=r"have no place in the model, among them blocks\.0\.adapter\.weight"):
        imported(golden_tensors("plain") | {"blocks.0.adapter.weight": torch.ones(1)}, golden_config("plain"))


def test_a_file_that_is_not_whole_is_refused(imported):
    tensors = golden_tensors("plain")
    del tensors["blocks.1.attn.qkv.bias"]
    with pytest.raises(ValueError, match=r"nothing for 1 tensors, such as vit\.encoder\.1\.attention\.in_proj\.bias"):
        imported(tensors, golden_config("plain"))
