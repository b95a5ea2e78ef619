# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The dry run: the article's shapes, and numbers that are those of the pass."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
import torch
from pictures import noise
from runs import refused, vit_scratch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    BertConfig,
    BertModel,
    Data2VecVisionConfig,
    Data2VecVisionForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)

from modeling_vit_scratch import (
    ViTScratchBackbone,
    ViTScratchConfig,
    ViTScratchForImageClassification,
    ViTScratchForMaskedImageModeling,
)
from modeling_vit_scratch.inspection import layer_costs as measuring
from modeling_vit_scratch.inspection.dry_run import REFUSED, dry_run, folded
from modeling_vit_scratch.inspection.dry_run_report import as_json, as_text
from modeling_vit_scratch.presets import preset_names, preset_path

SMALL = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
SMALL |= {"intermediate_size": 48, "num_labels": 5}


def small(**settings) -> ViTScratchForImageClassification:
    torch.manual_seed(0)
    return ViTScratchForImageClassification(ViTScratchConfig(**SMALL | settings))


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def hooks(model: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.fixture(scope="module")
def article():
    """The dry run of the article's own model, each layer timed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "TIMED_PASSES", 1)
        result = vit_scratch("dry-run", "--format=json")
    assert result.status == 0, result.err
    return json.loads(result.out)


# The article


def test_the_steps_and_shapes_are_the_articles(article):
    steps = [
        (layer["step"], layer["name"], layer["count"], tuple(layer["shape_in"]), tuple(layer["shape_out"]))
        for layer in [*article["layers"], article["whole"]]
    ]
    assert steps == [
        (1, "PatchEmbedding", 1, (1, 3, 224, 224), (1, 196, 768)),
        (2, "PositionalEncoding", 1, (1, 196, 768), (1, 196, 768)),
        (3, "AddClsToken", 1, (1, 196, 768), (1, 197, 768)),
        (4, "TransformerEncoderBlock", 12, (1, 197, 768), (1, 197, 768)),
        (5, "ClassificationHead", 1, (1, 197, 768), (1, 2)),
        (6, "VisionTransformer", 1, (1, 3, 224, 224), (1, 2)),
    ]
    in_words = [layer["shapes_in_words"] for layer in article["layers"]]
    assert in_words == [
        "(batch, channels, height, width) → (batch, patches, width)",
        "(batch, patches, width) → (batch, patches, width)",
        "(batch, patches, width) → (batch, tokens, width)",
        "(batch, tokens, width) → (batch, tokens, width)",
        "(batch, tokens, width) → (batch, classes)",
    ]


def test_the_layers_have_all_the_parameters_and_take_most_of_the_time(article):
    layers, whole = article["layers"], article["whole"]
    assert sum(layer["parameters"] for layer in layers) == whole["parameters"] == 85_797_890
    assert sum(layer["multiply_adds"] for layer in layers) == whole["multiply_adds"]
    assert sum(layer["activation_bytes"] for layer in layers) == whole["activation_bytes"]
    assert 0.8 < sum(layer["share"] for layer in layers) <= 1.05
    blocks = layers[3]
    assert [part["path"].rpartition(".")[2] for part in blocks["parts"]] == ["attention", "norm1", "ff", "norm2"]
    assert sum(part["parameters"] for part in blocks["parts"]) == blocks["parameters"]


# The numbers are those of the pass


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"norm_first": True, "use_final_layer_norm": True, "use_swiglu_ffn": True, "num_register_tokens": 2},
        {"attn_implementation": "eager"},
        {"image_size": [32, 64], "num_channels": 1, "head_dim": 4},
        {"use_cls_token": False, "pooling": "mean"},
        {"pooling": "attention"},
    ],
    ids=["article", "others", "eager", "not square", "mean", "attention pooling"],
)
def test_the_multiply_adds_are_those_of_torchs_counter_and_of_the_formula(settings):
    settings = dict(settings)
    kernel = settings.pop("attn_implementation", "sdpa")
    model = small(**settings)
    model.set_attn_implementation("eager")  # of whose products torch's counter knows all
    height, width = (32, 64) if "image_size" in settings else (32, 32)
    pixel_values = images(2, model.config.num_channels, height, width)
    model.requires_grad_(False)  # or the counter hangs hooks for gradients on parameters that modules take as inputs
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(pixel_values, output_hidden_states=True)
    model.requires_grad_(True).set_attn_implementation(kernel)
    run = dry_run(model, pixel_values)
    assert 2 * run.whole.multiply_adds == counter.get_total_flops()
    head = run.layers[-1].multiply_adds
    body = AutoModel.from_config(model.config)  # which computes all tokens of its last block, too
    operations = body.floating_point_ops({"pixel_values": pixel_values})
    assert run.whole.multiply_adds - head == operations // 3 // 2
    assert run.in_use.multiply_adds - head == model.floating_point_ops({"pixel_values": pixel_values}) // 3 // 2


def test_what_is_kept_is_what_training_holds_when_the_pass_is_over():
    model, kept = small().eval(), []  # dropout keeps masks besides
    run = dry_run(model, images(2, 3, 32, 32))
    parameters = {item.untyped_storage().data_ptr() for item in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x), x)[1], lambda x: x):
        model(images(2, 3, 32, 32), output_hidden_states=True)
    storages = {item.untyped_storage().data_ptr(): item.untyped_storage().nbytes() for item in kept}
    assert run.whole.activation_bytes == sum(size for place, size in storages.items() if place not in parameters)
    attention = run.layers[3].parts[0]
    queries_keys_values = 3 * 4 * 2 * 17 * 24  # bytes: fp32, two images, 17 tokens of width 24
    assert attention.activation_bytes > queries_keys_values


def test_times_are_of_the_layer_and_not_of_the_hooks():
    model = small()
    slow = model.vit.encoder[1].ff
    forward, big = slow.forward, torch.randn(600, 600)

    def waste(x):
        for _ in range(10):
            big @ big
        return forward(x)

    slow.forward = waste
    run = dry_run(model, images(1, 3, 32, 32))
    blocks = run.layers[3:6]
    assert max(blocks, key=lambda layer: layer.seconds) is blocks[1]
    assert max(blocks[1].parts, key=lambda part: part.seconds).name.startswith("Linear")
    assert run.share(blocks[1]) > 0.5


def test_the_model_is_as_it_was():
    model = small()
    pixel_values = images(1, 3, 32, 32)
    before, hooked = model.eval()(pixel_values, output_hidden_states=True).logits, hooks(model)
    model.train()
    dry_run(model, pixel_values)
    assert model.training
    assert torch.equal(model.eval()(pixel_values, output_hidden_states=True).logits, before)
    assert hooks(model) == hooked
    assert all(item.grad is None for item in model.parameters())


# Any model


def test_blocks_that_merge_patches_are_told_apart():
    run = dry_run(small(token_merging=[3, 2, 0]), images(1, 3, 32, 32))
    blocks = [layer for layer in folded(run.layers) if layer.step == 4]
    assert [layer.shape_out[1] for layer in blocks] == [14, 12, 12]
    alike = dry_run(small(token_merging=[0, 0, 2]), images(1, 3, 32, 32))
    assert [layer.count for layer in folded(alike.layers) if layer.step == 4] == [2, 1]
    assert "each patch gets the vector of the token" in as_text(alike)
    assert "each patch gets the vector of the token" not in as_text(dry_run(small(), images(1, 3, 32, 32)))


def test_what_folds_has_the_sums_of_what_is_unfolded():
    run = dry_run(small(), images(1, 3, 32, 32))
    (folded_blocks,) = [layer for layer in folded(run.layers) if layer.step == 4]
    blocks = [layer for layer in run.layers if layer.step == 4]
    assert len(blocks) == folded_blocks.count == 3
    for name in ("parameters", "multiply_adds", "activation_bytes", "seconds"):
        assert getattr(folded_blocks, name) == sum(getattr(layer, name) for layer in blocks)
        for index, part in enumerate(folded_blocks.parts):
            assert getattr(part, name) == sum(getattr(layer.parts[index], name) for layer in blocks)


@pytest.mark.parametrize("preset", sorted(set(preset_names()) & {"digits", "vit-micro-patch4-32"}))
def test_a_preset_runs_by_its_name(preset):
    result = vit_scratch("dry-run", preset, "--batch=2")
    assert (result.status, result.err) == (0, "")
    config = AutoConfig.from_pretrained(preset_path(preset))
    assert result.lines[0].startswith(f"the preset {preset} on 2 images of ")
    assert f"TransformerEncoderBlock × {config.num_hidden_layers}" in result.out


def test_a_checkpoint_runs_on_an_image(digits_run, tmp_path):
    noise((40, 20)).save(tmp_path / "image.png")
    result = vit_scratch("dry-run", digits_run[0], "--image", tmp_path / "image.png", "--full")
    assert result.status == 0, result.err
    depth = AutoConfig.from_pretrained(digits_run[0]).num_hidden_layers
    assert len(re.findall(r"^4 +TransformerEncoderBlock ", result.out, re.MULTILINE)) == depth
    assert "(1, 1, 8, 8)" in result.out or "(1, 3, 8, 8)" in result.out


def test_models_without_a_head_and_those_of_transformers_run(tmp_path):
    body = AutoModel.from_config(ViTScratchConfig(**SMALL))
    assert [layer.name for layer in folded(dry_run(body, images(1, 3, 32, 32)).layers)][-2:] == [
        "TransformerEncoderBlock",
        "Pooler",
    ]
    painter = ViTScratchForMaskedImageModeling(ViTScratchConfig(**SMALL))
    assert dry_run(painter, images(1, 3, 32, 32)).layers[-1].name == "PixelDecoder"
    sizes = {name: value for name, value in SMALL.items() if name != "num_labels"}
    theirs = ViTForImageClassification(ViTConfig(**sizes))
    run = dry_run(theirs, images(1, 3, 32, 32))
    assert [(layer.name, layer.count) for layer in folded(run.layers)] == [
        ("ViTEmbeddings", 1),
        ("ViTLayer", 3),
        ("LayerNorm", 1),
        ("Linear", 1),
    ]
    assert run.whole.name == "ViTForImageClassification"
    theirs.save_pretrained(tmp_path)
    assert "ViTLayer × 3" in vit_scratch("dry-run", tmp_path).out


def saved(model, folder) -> str:
    """A model of others in a folder, as they save it."""
    model.save_pretrained(folder)
    return str(folder)


def test_the_model_that_runs_is_the_one_that_was_saved(tmp_path):
    sizes = {name: value for name, value in SMALL.items() if name != "num_labels"}
    models = {
        "with a teacher": DeiTForImageClassificationWithTeacher(DeiTConfig(**sizes)),
        "of two blocks": ViTScratchBackbone(ViTScratchConfig(**sizes, out_indices=[2])),
        "with a decoder": ViTMAEForPreTraining(
            ViTMAEConfig(**sizes, decoder_hidden_size=24, decoder_num_hidden_layers=1, decoder_num_attention_heads=3)
        ),
    }
    for name, model in models.items():
        result = vit_scratch("dry-run", saved(model, tmp_path / name), "--format=json")
        assert result.status == 0, result.err
        whole = json.loads(result.out)["whole"]
        assert (whole["name"], whole["parameters"]) == (type(model).__name__, model.num_parameters())


@pytest.mark.parametrize("name", ["set_seed", "AutoTokenizer", "BertModel", "RagRetriever", "nn", "Unknown", 7])
def test_a_name_in_a_checkpoint_opens_nothing_but_a_model_of_its_configuration(tmp_path, name):
    sizes = {name: value for name, value in SMALL.items() if name != "num_labels"}
    place = saved(ViTForImageClassification(ViTConfig(**sizes)), tmp_path / "vit")
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    (tmp_path / "vit" / "config.json").write_text(json.dumps(config | {"architectures": [name]}))
    result = vit_scratch("dry-run", place, "--format=json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["whole"]["name"] == "ViTModel"


def test_the_words_for_transformers_models_are_true(tmp_path):
    sizes = {name: value for name, value in SMALL.items() if name != "num_labels"}
    run = json.loads(as_json(dry_run(ViTForImageClassification(ViTConfig(**sizes)), images(1, 3, 32, 32))))
    assert run["layers"][0]["shapes_in_words"].endswith("→ (batch, tokens, width)")  # 16 patches and [CLS]
    assert run["whole"]["shapes_in_words"].endswith("→ (batch, classes)")


@pytest.mark.parametrize("bias", ["use_relative_position_bias", "use_shared_relative_position_bias"])
def test_layers_that_take_no_tensor_are_left_out_and_nothing_is_spoilt(bias):
    sizes = {name: value for name, value in SMALL.items() if name != "num_labels"}
    model = Data2VecVisionForImageClassification(Data2VecVisionConfig(**sizes, **{bias: True}))
    run = dry_run(model, images(1, 3, 32, 32))
    assert run.whole.parameters == model.num_parameters()
    model.train()(images(2, 3, 32, 32)).logits.sum().backward()  # of what it keeps between passes


def test_a_model_that_takes_more_than_images_is_refused(tmp_path):
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 24}
    line = refused("dry-run", saved(BertModel(BertConfig(**sizes)), tmp_path / "bert"))
    assert line.endswith("a model of type bert takes more than images, or others: " + REFUSED)


def test_a_preset_wins_over_a_folder_of_its_name_and_says_so(digits_run, tmp_path, monkeypatch):
    shutil.copytree(digits_run[0], tmp_path / "digits", ignore=shutil.ignore_patterns("checkpoint-*"))
    monkeypatch.chdir(tmp_path)
    assert vit_scratch("dry-run", "digits").lines[0].startswith("the preset digits on 1 image")
    assert vit_scratch("dry-run", "./digits").lines[0].startswith("digits on 1 image")


# As a table, as JSON, as a page


def test_the_table_has_a_row_for_each_step_and_the_whole():
    text = as_text(dry_run(small(), images(1, 3, 32, 32), "a model"))
    assert text.startswith("a model on 1 image of 32x32 pixels (cpu, float32)\n")
    rows = [line.split()[:2] for line in text.splitlines() if line[:1].isdigit()]
    assert rows == [
        ["1", "PatchEmbedding"],
        ["2", "PositionalEncoding"],
        ["3", "AddClsToken"],
        ["4", "TransformerEncoderBlock"],
        ["5", "ClassificationHead"],
        ["6", "VisionTransformer"],
    ]
    widths = {len(line) for line in text.splitlines() if line[:1].isdigit()}
    assert len(widths) == 1  # the numbers stand below each other


def test_the_page_needs_nothing_but_itself_and_shows_names_as_they_are(digits_run, tmp_path):
    place = shutil.copytree(digits_run[0], tmp_path / "a <b> & c", ignore=shutil.ignore_patterns("checkpoint-*"))
    page = tmp_path / "page.html"
    result = vit_scratch("dry-run", place, "--format=html", "--output", page)
    assert result.out == f"written    {page}\n"
    text = page.read_text(encoding="utf-8")
    assert "a &lt;b&gt; &amp; c on 1 image" in text
    assert not re.search(r"https?://|<script|<link|src=", text)

    class Rows(HTMLParser):
        kinds: list[str] = []

        def handle_starttag(self, tag, attributes):
            if tag == "tr":
                self.kinds.append(dict(attributes).get("class"))

    parser = Rows()
    parser.feed(text)
    assert parser.kinds[0] is None
    assert parser.kinds.count("whole") == 1
    assert parser.kinds.count("step") == 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no/where"], "there is no folder no/where, and the Hub cannot be reached to fetch no/where."),
        (["artcle"], "there is no preset 'artcle' (did you mean 'article'?); the presets are "),
        (["digits", "--batch=100000000"], "100,000,000 images do not fit into the memory: give a smaller --batch."),
        (["--batch=0"], "argument --batch: must be a whole number from 1 on, got '0'"),
        (["digits", "--image=missing.png"], "missing.png does not exist."),
        (["digits", "--output=photo.jpg"], "--output photo.jpg must end in .txt or .md."),
        (["digits", "--format=json", "--output=photo.html"], "--output photo.html must end in .json."),
        (["digits", "--output=no/where.html"], "--output no/where.html cannot be written: No such file or directory."),
        (["digits", "--revision=main"], "revision main is of a model on the Hub, and digits is a preset."),
    ],
    ids=["model", "preset", "many", "batch", "image", "picture", "kind", "output", "revision"],
)
def test_a_mistake_is_one_sentence(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused("dry-run", *arguments)


def test_images_of_another_size_than_the_models_are_refused():
    model = AutoModelForImageClassification.from_config(ViTScratchConfig(**SMALL))
    model(images(1, 3, 32, 32), output_hidden_states=True)  # transformers hooks itself in at the first time
    before = hooks(model)
    with pytest.raises(ValueError, match="the images are 24x24 pixels"):
        dry_run(model, images(1, 3, 24, 24))
    assert hooks(model) == before
