# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The configuration: its names and defaults, what it refuses, and what a saved one brings back."""

import copy
import dataclasses
import json
import logging
import pickle

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from transformers import AutoConfig, PreTrainedConfig, Trainer, TrainingArguments, ViTConfig

from modeling_vit_scratch import (
    ViTScratchBackbone,
    ViTScratchConfig,
    ViTScratchForImageClassification,
    ViTScratchForMaskedImageModeling,
    ViTScratchModel,
)

# Public API: a released checkpoint has these names in its config.json, and keeps loading.
FIELDS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "head_dim": None,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "use_swiglu_ffn": False,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.1,
    "drop_path_rate": 0.0,
    "patch_dropout": 0.0,
    "token_merging": 0,
    "token_merging_schedule": "constant",
    "layer_norm_eps": 1e-5,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "patch_bias": True,
    "use_dual_patch_norm": False,
    "qkv_bias": True,
    "out_proj_bias": True,
    "layerscale_value": None,
    "norm_first": False,
    "position_embedding_type": "learned",
    "position_interpolation": "bicubic_antialias",
    "interpolate_pos_encoding": False,
    "use_cls_token": True,
    "use_cls_position": False,
    "num_register_tokens": 0,
    "use_pre_layer_norm": False,
    "use_final_layer_norm": False,
    "pooling": "cls",
    "use_pooled_layer_norm": False,
    "pooler_output_size": None,
    "initialization": "article",
    "initializer_range": 0.02,
    "encoder_stride": None,
    "apply_layernorm": True,
    "reshape_hidden_states": True,
}
ALIASES = {
    "embedding_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "ff_dim": "intermediate_size",
    "num_classes": "num_labels",
}
CODE = {
    "AutoConfig": "configuration_vit_scratch.ViTScratchConfig",
    "AutoModel": "modeling_vit_scratch.ViTScratchModel",
    "AutoModelForImageClassification": "modeling_vit_scratch.ViTScratchForImageClassification",
    "AutoModelForMaskedImageModeling": "modeling_vit_scratch.ViTScratchForMaskedImageModeling",
    "AutoBackbone": "modeling_vit_scratch.ViTScratchBackbone",
}
TINY = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 19,
    "image_size": [10, 21],
    "patch_size": [5, 7],
}
TRIPLE = {0: "dog", 1: "cat", 2: "eel"}


def tiny(**changes) -> ViTScratchConfig:
    return ViTScratchConfig(**{**TINY, **changes})


def reloaded(config: ViTScratchConfig, folder, **overrides) -> ViTScratchConfig:
    config.save_pretrained(folder)
    return ViTScratchConfig.from_pretrained(folder, **overrides)


def saved_json(folder) -> dict:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


@pytest.fixture
def transformers_warnings(monkeypatch, caplog):
    """What transformers logs as a warning: its loggers do not pass their records on to the root logger."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    return caplog


# --- Names and defaults ----------------------------------------------------------------------------------------------


def test_the_fields_and_their_defaults_are_public():
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    ours = {f.name: f.default for f in dataclasses.fields(ViTScratchConfig) if f.name not in inherited}
    assert ours == FIELDS
    assert ViTScratchConfig.attribute_map == ALIASES
    assert ViTScratchConfig.model_type == "vit_scratch"


def test_a_saved_config_has_every_field_and_the_code_of_the_model(tmp_path):
    ViTScratchConfig().save_pretrained(tmp_path)
    written = saved_json(tmp_path)
    others = {"auto_map", "model_type", "out_features", "out_indices", "transformers_version"}
    assert written.keys() == FIELDS.keys() | others
    assert {name: written[name] for name in FIELDS} == FIELDS
    assert written["auto_map"] == CODE


def test_the_call_of_the_article_gives_the_defaults():
    article = ViTScratchConfig(
        image_size=224, patch_size=16, embedding_dim=768, num_heads=12, ff_dim=3072, num_classes=2, depth=12
    )
    assert article == ViTScratchConfig()
    assert article.num_labels == 2


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_is_the_field_everywhere(alias, name, tmp_path):
    config = ViTScratchConfig(**{alias: 24})
    assert getattr(config, name) == getattr(config, alias) == 24
    setattr(config, alias, 32)
    assert getattr(config, name) == 32
    setattr(config, name, 48)
    assert getattr(config, alias) == 48
    overridden = reloaded(config, tmp_path, **{alias: 96})
    assert getattr(overridden, name) == getattr(overridden, alias) == 96
    assert alias not in saved_json(tmp_path)


@pytest.mark.parametrize(
    ("alias", "name", "values"),
    [
        ("embedding_dim", "hidden_size", (24, 36)),
        ("depth", "num_hidden_layers", (3, 5)),
        ("num_heads", "num_attention_heads", (2, 3)),
        ("ff_dim", "intermediate_size", (19, 23)),
        ("num_classes", "num_labels", (3, 5)),
        ("embedding_dim", "hidden_size", (24, 768)),  # the second is the default, and yet was asked for
        ("depth", "num_hidden_layers", (5, 12)),
    ],
)
def test_an_alias_and_its_field_that_differ_are_refused(alias, name, values):
    with pytest.raises(ValueError, match=f"{alias}={values[0]} and {name}={values[1]} are one setting"):
        ViTScratchConfig(**{alias: values[0], name: values[1]})


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_and_its_field_that_agree_are_accepted(alias, name):
    assert getattr(ViTScratchConfig(**{alias: 24, name: 24}), name) == 24


def test_auto_config_knows_the_model_type():
    assert type(AutoConfig.for_model("vit_scratch", embedding_dim=24)) is ViTScratchConfig
    assert AutoConfig.for_model("vit_scratch", embedding_dim=24).hidden_size == 24


# --- What is refused -------------------------------------------------------------------------------------------------

REFUSED = [
    ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
    ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, got 0"),
    ({"num_attention_heads": -3}, "num_attention_heads must be at least 1, got -3"),
    ({"intermediate_size": 0}, "intermediate_size must be at least 1, got 0"),
    ({"num_channels": 0}, "num_channels must be at least 1, got 0"),
    ({"hidden_size": 65}, "hidden_size 65 is not a multiple of num_attention_heads 3"),
    ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob must be at least 0 and below 1, got 1.0"),
    ({"attention_probs_dropout_prob": -0.1}, "attention_probs_dropout_prob must be at least 0 and below 1, got -0.1"),
    ({"drop_path_rate": 1}, "drop_path_rate must be at least 0 and below 1, got 1"),
    ({"drop_path_rate": float("nan")}, "drop_path_rate must be at least 0 and below 1, got nan"),
    ({"patch_dropout": 1.0}, "patch_dropout must be at least 0 and below 1, got 1.0"),
    ({"patch_dropout": -0.5}, "patch_dropout must be at least 0 and below 1, got -0.5"),
    ({"layer_norm_eps": 0.0}, "layer_norm_eps must be above 0, got 0.0"),
    ({"layer_norm_eps": float("nan")}, "layer_norm_eps must be above 0, got nan"),
    ({"initializer_range": -0.02}, "initializer_range must be above 0, got -0.02"),
    ({"hidden_act": "gelo"}, "hidden_act 'gelo' is unknown; transformers knows .*gelu"),
    ({"image_size": 0}, "image_size must be pixels.* got 0"),
    ({"image_size": [10, 21, 3]}, r"image_size must be pixels.* got \[10, 21, 3\]"),
    ({"image_size": []}, r"image_size must be pixels.* got \[\]"),
    ({"patch_size": [5, 0]}, r"patch_size must be pixels.* got \[5, 0\]"),
    ({"encoder_stride": -7}, "encoder_stride must be pixels.* got -7"),
    ({"encoder_stride": [7]}, r"encoder_stride must be pixels.* got \[7\]"),
    ({"image_size": [11, 21]}, r"\[11, 21\] is not a multiple of patch_size \[5, 7\]: the height 11 leaves 1 pixels"),
    ({"image_size": [10, 23]}, r"\[10, 23\] is not a multiple of patch_size \[5, 7\]: the width 23 leaves 2 pixels"),
    ({"hidden_size": 18, "position_embedding_type": "sincos2d"}, "multiple of 4, got 18"),
    ({"use_cls_token": False}, "pooling 'cls' needs use_cls_token=True"),
    ({"use_cls_token": False, "pooling": "cls_mean"}, "pooling 'cls_mean' needs use_cls_token=True"),
    ({"pooling": "cls_distillation"}, "pooling 'cls_distillation' needs num_register_tokens=1"),
    ({"num_register_tokens": -1}, "num_register_tokens must be at least 0, got -1"),
    ({"head_dim": 0}, "head_dim must be at least 1, or None, got 0"),
    ({"pooler_output_size": -3}, "pooler_output_size must be at least 1, or None, got -3"),
    ({"hidden_size": 65, "head_dim": 8, "pooling": "attention"}, "hidden_size 65 is not a multiple of num_attention"),
    ({"layerscale_value": float("nan")}, "layerscale_value must be a finite number, or None, got nan"),
    (
        {"use_cls_position": True, "use_cls_token": False, "pooling": "mean"},
        "use_cls_position=True needs .* got use_cls_token=False and position_embedding_type='learned'",
    ),
    (
        {"use_cls_position": True, "position_embedding_type": "sincos2d"},
        "use_cls_position=True needs .* got use_cls_token=True and position_embedding_type='sincos2d'",
    ),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[str(values) for values, _ in REFUSED])
def test_values_that_cannot_make_a_model_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        tiny(**values)


@pytest.mark.parametrize("num_labels", [-1, 2.5, "3", None])
@pytest.mark.parametrize("name", ["num_labels", "num_classes"])
def test_a_number_of_labels_that_is_no_number_is_refused(name, num_labels):
    with pytest.raises(ValueError, match=f"num_labels must be a whole number, 0 or more, got {num_labels!r}"):
        tiny(**{name: num_labels})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", "12"),
        ("hidden_size", 12.0),
        ("hidden_size", None),
        ("num_channels", True),
        ("image_size", 224.0),
        ("image_size", (10, 21, 3)),
        ("patch_size", "16"),
        ("drop_path_rate", "0.1"),
        ("patch_dropout", None),
        ("qkv_bias", "false"),
        ("norm_first", 1),
        ("hidden_act", None),
        ("pooling", "max"),
        ("position_interpolation", "nearest"),
        ("num_register_tokens", 1.5),
        ("layerscale_value", "small"),
        ("position_embedding_type", "rotary"),
        ("initialization", "xavier"),
    ],
)
def test_a_value_of_another_type_is_refused(name, value, tmp_path):
    with pytest.raises(StrictDataclassFieldValidationError, match=f"'{name}'"):
        tiny(**{name: value})
    config = tiny()
    with pytest.raises(StrictDataclassFieldValidationError, match=f"'{name}'"):
        setattr(config, name, value)
    with pytest.raises(StrictDataclassFieldValidationError, match=f"'{name}'"):
        reloaded(tiny(), tmp_path, **{name: value})


def test_a_value_of_another_type_is_refused_under_an_alias():
    with pytest.raises(StrictDataclassFieldValidationError, match="'hidden_size'"):
        ViTScratchConfig(embedding_dim="768")


def test_an_unknown_field_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no field 'hiden_size', 'num_layers'; its fields are") as error:
        ViTScratchConfig(num_layers=3, hidden_size=24, hiden_size=36)
    for name in [*FIELDS, *ALIASES]:
        assert name in str(error.value)


def test_a_misspelt_key_in_a_file_is_refused(tmp_path):
    tiny().save_pretrained(tmp_path)
    written = saved_json(tmp_path)
    written["droppath_rate"] = written.pop("drop_path_rate")
    (tmp_path / "config.json").write_text(json.dumps(written), encoding="utf-8")
    for loader in (ViTScratchConfig, AutoConfig):
        with pytest.raises(ValueError, match="no field 'droppath_rate'"):
            loader.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "model_class",
    [ViTScratchModel, ViTScratchForImageClassification, ViTScratchForMaskedImageModeling, ViTScratchBackbone],
)
def test_a_bad_override_is_refused_when_a_model_is_built(model_class, tmp_path):
    config = reloaded(tiny(), tmp_path, hidden_size=65)
    with pytest.raises(ValueError, match="hidden_size 65 is not a multiple of num_attention_heads 3"):
        model_class(config)


def test_a_config_that_cannot_make_a_model_is_not_saved(tmp_path):
    config = tiny()
    config.hidden_size = 65
    with pytest.raises(StrictDataclassClassValidationError, match="hidden_size 65 is not a multiple"):
        config.save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()


# --- What a saved config brings back ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"image_size": 35, "patch_size": 7, "encoder_stride": 5},
        {"image_size": (10, 21), "patch_size": (5, 7), "encoder_stride": (5, 7)},
        {"id2label": TRIPLE, "label2id": {"dog": 0, "cat": 1, "eel": 2}, "problem_type": "multi_label_classification"},
        {"num_labels": 0},
        {"num_labels": 1, "problem_type": "regression"},
        {"out_features": ["stem", "stage2"], "reshape_hidden_states": False, "apply_layernorm": False},
        {"norm_first": True, "use_cls_position": True, "use_final_layer_norm": True, "layer_norm_eps": 1e-6},
        {"use_cls_token": False, "pooling": "mean", "position_embedding_type": "sincos2d", "qkv_bias": False},
        {"drop_path_rate": 0, "hidden_dropout_prob": 0.25, "initialization": "truncated_normal"},
        {"patch_dropout": 0.5},
        {"hidden_size": 13, "head_dim": 5, "out_proj_bias": False, "layerscale_value": 1e-5, "use_swiglu_ffn": True},
        {"patch_bias": False, "use_dual_patch_norm": True, "position_interpolation": "bilinear_align_corners"},
        {"num_register_tokens": 1, "pooling": "cls_distillation", "use_pre_layer_norm": True},
        {"pooling": "attention", "use_pooled_layer_norm": True, "pooler_output_size": 5},
        {"dtype": "bfloat16", "output_hidden_states": True, "return_dict": False},
    ],
    ids=str,
)
def test_a_saved_config_comes_back_as_it_was(values, tmp_path):
    config = tiny(**values)
    back = reloaded(config, tmp_path)
    assert back.to_dict() == config.to_dict()
    assert reloaded(back, tmp_path / "again") == back
    for name in values.keys() - {"image_size", "patch_size", "encoder_stride"}:
        assert getattr(back, name) == getattr(config, name)
    assert type(AutoConfig.from_pretrained(tmp_path)) is ViTScratchConfig


def test_sizes_come_back_as_height_and_width(tmp_path):
    back = reloaded(tiny(image_size=(10, 21), patch_size=(5, 7), encoder_stride=[7, 5]), tmp_path)
    assert (back.image_size, back.patch_size, back.encoder_stride) == ([10, 21], [5, 7], [7, 5])


def test_the_code_of_the_model_is_written_anew(tmp_path):
    elsewhere = {auto_class: f"someone/else--{reference}" for auto_class, reference in CODE.items()}
    config = tiny(auto_map=elsewhere)
    assert config.auto_map == elsewhere  # where the Auto classes look while they load
    config.save_pretrained(tmp_path)
    assert saved_json(tmp_path)["auto_map"] == CODE


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config))])
def test_a_copy_is_equal_and_independent(duplicate):
    config = tiny(id2label=TRIPLE, out_indices=[0, 2], output_attentions=True, attn_implementation="sdpa")
    other = duplicate(config)
    assert other == config
    assert other.to_dict() == config.to_dict()
    assert other.depth == 2
    other.num_hidden_layers = 5
    assert other != config
    assert config.num_hidden_layers == 2


def test_configs_that_differ_in_a_field_differ():
    assert tiny() == tiny()
    assert tiny() != tiny(norm_first=True)
    assert tiny() != tiny(num_labels=3)


def test_a_checkpoint_made_shorter_is_saved_and_loads_again(tmp_path):
    config = reloaded(tiny(num_hidden_layers=3), tmp_path / "three", num_hidden_layers=1)
    ViTScratchForImageClassification(config).save_pretrained(tmp_path / "one")
    back = ViTScratchForImageClassification.from_pretrained(tmp_path / "one")
    assert back.config.num_hidden_layers == len(back.vit.encoder) == 1


def test_building_a_backbone_leaves_the_config_as_it_was(tmp_path):
    config = tiny()
    assert ViTScratchBackbone(config).out_features == ["stage2"]
    config.num_hidden_layers = 1
    assert reloaded(config, tmp_path).num_hidden_layers == 1


def test_a_stage_that_a_shorter_model_lacks_is_refused(tmp_path):
    config = reloaded(tiny(out_features=["stage2"]), tmp_path, num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"\['stem', 'stage1'\] got \['stage2'\]"):
        ViTScratchForImageClassification(config)
    with pytest.raises(StrictDataclassClassValidationError, match=r"\['stem', 'stage1'\] got \['stage2'\]"):
        config.save_pretrained(tmp_path / "one")


# What transformers or a user sets on the config of a model; `Trainer` sets `use_cache` on that of every model it gets.
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_cache", False),
        ("tie_last_hidden_states", False),
        ("fusion_config", {"patch_embeddings": True}),
        ("custom_pipelines", {}),
        ("note", "the user's own"),
    ],
)
def test_whatever_was_set_on_a_config_it_loads_again_once_saved(name, value, tmp_path):
    config = tiny()
    setattr(config, name, value)
    assert reloaded(config, tmp_path).hidden_size == 12


def test_what_the_trainer_saves_loads_again(tmp_path):
    model = ViTScratchForImageClassification(tiny())
    arguments = TrainingArguments(output_dir=str(tmp_path / "run"), report_to="none", use_cpu=True, disable_tqdm=True)
    Trainer(model=model, args=arguments).save_model(str(tmp_path / "model"))
    back = ViTScratchForImageClassification.from_pretrained(tmp_path / "model")
    assert back.config.hidden_size == 12


# --- As transformers users expect it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"num_labels": 5},
        {"num_labels": 1},
        {"num_labels": 0},
        {"id2label": TRIPLE, "label2id": {"dog": 0, "cat": 1, "eel": 2}},
        {"id2label": {"0": "dog", "1": "cat", "2": "eel"}, "label2id": {"dog": "0", "cat": "1", "eel": "2"}},
        {"id2label": {}, "label2id": {}},
        {"num_labels": 3, "id2label": TRIPLE, "label2id": {"dog": 0, "cat": 1, "eel": 2}},
    ],
    ids=str,
)
def test_labels_are_those_of_transformers(labels):
    ours, peer = ViTScratchConfig(**labels), ViTConfig(**labels)
    assert (ours.num_labels, ours.id2label, ours.label2id) == (peer.num_labels, peer.id2label, peer.label2id)


def test_names_alone_give_their_indices():
    config = ViTScratchConfig(id2label=TRIPLE)
    assert config.num_labels == config.num_classes == 3
    assert config.label2id == {"dog": 0, "cat": 1, "eel": 2}


def test_another_number_of_labels_gives_new_names():
    config = ViTScratchConfig(id2label=TRIPLE)
    config.num_classes = 2
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1}


@pytest.mark.parametrize("name", ["num_labels", "num_classes"])
def test_another_number_of_labels_overrides_a_saved_one_and_says_so(name, tmp_path, caplog):
    back = reloaded(tiny(id2label=TRIPLE), tmp_path, **{name: 5})
    assert back.num_labels == len(back.label2id) == 5
    assert "num_labels=5: the 3 names of the saved labels are not its" in caplog.text


@pytest.mark.parametrize("name", ["num_labels", "num_classes"])
def test_names_are_never_dropped_for_a_number_of_labels(name, tmp_path):
    with pytest.raises(ValueError, match="num_labels=5 and id2label, which has 3 names, do not agree: leave one out"):
        ViTScratchConfig(id2label=TRIPLE, **{name: 5})
    assert ViTScratchConfig(id2label=TRIPLE, **{name: 3}).id2label == TRIPLE
    with pytest.raises(ValueError, match="num_labels=5 and id2label, which has 3 names"):
        reloaded(tiny(), tmp_path, id2label=TRIPLE, **{name: 5})


def test_names_that_override_saved_ones_bring_their_indices(tmp_path):
    back = reloaded(tiny(id2label={0: "old", 1: "older"}), tmp_path, id2label=TRIPLE)
    assert back.id2label == TRIPLE
    assert back.label2id == {"dog": 0, "cat": 1, "eel": 2}


@pytest.mark.parametrize("config_class", [ViTConfig, ViTScratchConfig])
def test_labels_of_a_dataset_override_those_of_a_checkpoint(config_class, tmp_path):
    # As in the image classification example of transformers, keys and indices as strings included.
    config_class(**TINY).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(
        tmp_path,
        num_labels=3,
        id2label={"0": "dog", "1": "cat", "2": "eel"},
        label2id={"dog": "0", "cat": "1", "eel": "2"},
        finetuning_task="image-classification",
    )
    assert type(config) is config_class
    assert config.num_labels == 3
    assert config.label2id["eel"] == "2"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_name_or_path", "someone/a-model"),
        ("_commit_hash", "0123abc"),
        ("_attn_implementation_internal", "eager"),
        ("name_or_path", "someone/a-model"),
        ("architectures", ["ViTScratchForImageClassification"]),
        ("transformers_version", "4.57.0"),
        ("model_type", "vit_scratch"),
        ("torch_dtype", "float16"),
        ("dtype", "float16"),
        ("problem_type", "regression"),
        ("return_dict", True),
        ("output_hidden_states", True),
        ("output_attentions", True),
        ("attn_implementation", "eager"),
        ("is_encoder_decoder", False),
        ("chunk_size_feed_forward", 0),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("use_cache", False),
        ("tie_last_hidden_states", True),
    ],
)
def test_a_key_that_transformers_writes_is_accepted_in_a_file(key, value):
    for config_class in (ViTConfig, ViTScratchConfig):
        assert config_class.from_dict({**TINY, key: value}).hidden_size == 12


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
def test_the_dtype_has_an_old_name_and_a_new_one(key):
    assert tiny(**{key: "float16"}).dtype == torch.float16


def test_one_label_is_no_single_label_classification():
    with pytest.raises(ValueError, match="requires `num_labels > 1`"):
        tiny(num_labels=1, problem_type="single_label_classification")


@pytest.mark.parametrize("kernel", ["sdpa", "eager", None])
def test_attention_maps_may_be_asked_for_with_any_kernel(kernel, tmp_path):
    config = tiny(output_attentions=True, attn_implementation=kernel)
    assert config.output_attentions is True
    assert config._attn_implementation == kernel
    config.output_attentions = False
    assert config.output_attentions is False
    config.output_attentions = True
    assert config._attn_implementation == kernel
    back = reloaded(config, tmp_path, attn_implementation=kernel)
    assert back.output_attentions is True
    back = ViTScratchConfig.from_pretrained(tmp_path, output_attentions=False)
    assert back.output_attentions is False


# --- Stages of a backbone --------------------------------------------------------------------------------------------


def test_the_stages_are_the_embeddings_and_the_blocks():
    config = tiny(num_hidden_layers=3)
    assert config.stage_names == ["stem", "stage1", "stage2", "stage3"]
    config.depth = 1
    assert config.stage_names == ["stem", "stage1"]


@pytest.mark.parametrize(
    ("asked", "features", "indices"),
    [
        ({}, ["stage2"], [2]),
        ({"out_features": None, "out_indices": None}, ["stage2"], [2]),
        ({"out_features": ["stem", "stage2"]}, ["stem", "stage2"], [0, 2]),
        ({"out_indices": [1, 2]}, ["stage1", "stage2"], [1, 2]),
        ({"out_indices": (0, 2)}, ["stem", "stage2"], [0, 2]),
        ({"out_indices": [-1]}, ["stage2"], [-1]),
        ({"out_features": ["stage1"], "out_indices": [1]}, ["stage1"], [1]),
    ],
    ids=str,
)
def test_stages_are_asked_for_by_name_or_index(asked, features, indices, tmp_path):
    config = tiny(**asked)
    assert (config.out_features, config.out_indices) == (features, indices)
    back = reloaded(config, tmp_path)
    assert (back.out_features, back.out_indices) == (features, indices)


def test_the_stage_of_a_backbone_is_the_last_whichever_that_is(tmp_path):
    config = ViTScratchConfig()
    assert (config.out_features, config.out_indices) == (["stage12"], [12])
    config.num_hidden_layers = 5
    assert config.stage_names[-1:] == config.out_features == ["stage5"]
    assert ViTScratchBackbone(tiny(num_hidden_layers=1)).channels == [tiny().hidden_size]
    chosen = tiny(out_features=["stage1"])
    chosen.out_features = None
    assert (chosen.out_features, chosen.out_indices) == (["stage2"], [2])
    back = reloaded(chosen, tmp_path, num_hidden_layers=4)
    assert (back.out_features, back.out_indices) == (["stage4"], [4])


def test_names_and_indices_of_stages_follow_each_other(tmp_path):
    config = tiny(out_features=["stage1"])
    config.out_indices = [0, 2]
    assert config.out_features == ["stem", "stage2"]
    config.out_features = ["stage1"]
    assert config.out_indices == [1]
    back = reloaded(config, tmp_path, out_features=["stage2"])
    assert (back.out_features, back.out_indices) == (["stage2"], [2])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"out_features": ["stage3"]}, r"\['stem', 'stage1', 'stage2'\] got \['stage3'\]"),
        ({"out_features": ["stage2", "stem"]}, "same order"),
        ({"out_indices": [3]}, r"got \[3\]"),
        ({"out_indices": [1, 1]}, "duplicates"),
        ({"out_features": ["stage1"], "out_indices": [2]}, "same stages"),
    ],
    ids=str,
)
def test_stages_that_the_model_does_not_have_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        tiny(**asked)


# --- What the model's parts ask it for -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "prefix", "pooled"),
    [
        ({}, 1, 12),
        ({"use_cls_token": False, "pooling": "mean", "num_register_tokens": 2}, 2, 12),
        ({"num_register_tokens": 3, "pooling": "cls_mean"}, 4, 24),
        ({"num_register_tokens": 1, "pooling": "cls_distillation"}, 2, 24),
        ({"pooling": "cls_mean", "pooler_output_size": 7}, 1, 7),
    ],
)
def test_the_tokens_in_front_and_the_width_of_the_pooled_vector_follow(fields, prefix, pooled):
    config = tiny(**fields)
    assert (config.num_prefix_tokens, config.pooled_size) == (prefix, pooled)
