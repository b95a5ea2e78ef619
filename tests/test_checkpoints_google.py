"""Google's JAX checkpoints: vision_transformer and big_vision give what they give in JAX, in all their spellings."""

import golden_cases
import numpy as np
import pytest
import torch

from modeling_vit_scratch import ViTScratchForImageClassification, ViTScratchModel
from modeling_vit_scratch.checkpoints import convert_state_dict, read_checkpoint

CASES = [(lineage, case) for lineage in ("vision_transformer", "big_vision") for case in golden_cases.cases(lineage)]
BLOCK = "Transformer/encoderblock"
ATTENTION = "MultiHeadDotProductAttention_0"


def arrays(lineage: str, case: str) -> dict[str, np.ndarray]:
    return dict(np.load(golden_cases.checkpoint(lineage, case)))


@pytest.fixture
def imported(tmp_path):
    """A function that saves arrays and imports the file."""

    def save_and_import(arrays: dict[str, np.ndarray], **options):
        np.savez(tmp_path / "model.npz", **arrays)
        return read_checkpoint(tmp_path / "model.npz", **options)

    return save_and_import


def same_weights(model, other) -> bool:
    states = model.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(map(torch.equal, *(state.values() for state in states)))


# --- The numbers of JAX ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lineage", "case"), CASES)
def test_hidden_states_and_logits_are_those_of_jax_at_any_size(lineage, case):
    differences = golden_cases.differences(lineage, case)
    assert len(differences) >= 3
    assert {name: value for name, value in differences.items() if value > 1e-5} == {}


def test_nothing_but_what_was_said_needs_to_be_told():
    told = {case: golden_cases.facts(*case) for case in CASES}
    assert {case: facts for case, facts in told.items() if facts} == {
        ("vision_transformer", "wide"): {"image_size": [12, 20]},
        ("big_vision", "wide"): {"image_size": [12, 20]},
        ("big_vision", "sincos2d"): {"image_size": 12},
    }


# --- What the shapes tell --------------------------------------------------------------------------------------------


def test_the_fields_of_a_vision_transformer():
    config = golden_cases.imported("vision_transformer", "token").model.config
    read = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": None,
        "intermediate_size": 12,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "image_size": [12, 12],
        "patch_size": [4, 4],
        "num_channels": 3,
        "norm_first": True,
        "position_interpolation": "bilinear_align_corners",
        "use_cls_token": True,
        "use_cls_position": True,
        "use_final_layer_norm": True,
        "pooling": "cls",
        "pooler_output_size": None,
        "num_labels": 5,
    }
    assert {name: getattr(config, name) for name in read} == read


@pytest.mark.parametrize(
    ("lineage", "case", "fields"),
    [
        ("vision_transformer", "gap", {"use_cls_token": False, "use_cls_position": False, "pooling": "mean"}),
        ("vision_transformer", "representation", {"pooler_output_size": 6}),
        ("big_vision", "tok", {"use_cls_token": True, "use_cls_position": False, "pooling": "cls"}),
        ("big_vision", "map", {"use_cls_token": False, "pooling": "attention"}),
        ("big_vision", "sincos2d", {"position_embedding_type": "sincos2d", "pooling": "mean"}),
        ("big_vision", "scan", {"num_hidden_layers": 2}),
    ],
)
def test_the_fields_in_which_other_variants_differ(lineage, case, fields):
    config = golden_cases.imported(lineage, case).model.config
    assert {name: getattr(config, name) for name in fields} == fields


def test_heads_wider_or_narrower_than_the_model_divided_by_their_number(imported):
    changed = arrays("big_vision", "gap")
    for name in ("query", "key", "value"):
        changed[f"{BLOCK}_0/{ATTENTION}/{name}/kernel"] = np.ones((8, 5, 3), np.float32)
        changed[f"{BLOCK}_0/{ATTENTION}/{name}/bias"] = np.ones((5, 3), np.float32)
    changed[f"{BLOCK}_0/{ATTENTION}/out/kernel"] = np.ones((5, 3, 8), np.float32)
    config = imported(changed).model.config
    assert (config.num_attention_heads, config.head_dim) == (5, 3)


def test_a_tower_without_a_head_is_a_base_model_and_one_with_labels_gets_a_new_head():
    assert isinstance(golden_cases.imported("big_vision", "image_tower").model, ViTScratchModel)
    classifier = golden_cases.imported("big_vision", "image_tower", num_labels=3).model
    assert isinstance(classifier, ViTScratchForImageClassification)
    assert classifier.classification_head.fc.weight.shape == (3, 8)


# --- How files spell and arrange the same weights --------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["params/", "opt/target/", "img/", "params/img/", "opt/target/img/"])
def test_a_prefix_changes_nothing(prefix, imported):
    plain = golden_cases.imported("big_vision", "tok").model
    prefixed = {prefix + name: array for name, array in arrays("big_vision", "tok").items()}
    assert same_weights(imported(prefixed).model, plain)


def test_blocks_numbered_by_class_or_altogether_are_the_same(imported):
    plain = golden_cases.imported("big_vision", "tok").model
    old = {"LayerNorm_1": "LayerNorm_2", "MlpBlock_0": "MlpBlock_3", ATTENTION: "MultiHeadDotProductAttention_1"}
    renamed = arrays("big_vision", "tok")
    for today, before in old.items():
        renamed = {name.replace(today, before): array for name, array in renamed.items()}
    assert f"{BLOCK}_0/MlpBlock_3/Dense_0/kernel" in renamed
    assert same_weights(imported(renamed).model, plain)


def test_stacked_blocks_are_the_same_as_one_by_one(imported):
    plain = golden_cases.imported("big_vision", "tok").model
    single = arrays("big_vision", "tok")
    stacked = {name: array for name, array in single.items() if BLOCK not in name}
    for name in [name for name in single if f"{BLOCK}_0" in name]:
        stacked[name.replace("block_0", "block")] = np.stack([single[name], single[name.replace("block_0", "block_1")]])
    model = imported(stacked).model
    assert same_weights(model, plain)
    assert all(parameter.untyped_storage().nbytes() == parameter.nbytes for parameter in model.parameters())


def test_attention_pooling_that_was_no_module_of_its_own_is_the_same(imported):
    plain = golden_cases.imported("big_vision", "map").model
    inlined = {name.removeprefix("MAPHead_0/"): array for name, array in arrays("big_vision", "map").items()}
    assert "probe" in inlined
    assert same_weights(imported(inlined).model, plain)


@pytest.mark.parametrize("place", ["pos_embedding", "Transformer/pos_embedding"])
def test_positions_of_old_files_of_big_vision_include_that_of_cls(place, imported):
    plain = golden_cases.imported("vision_transformer", "token").model
    moved = arrays("vision_transformer", "token")
    moved[place] = moved.pop("Transformer/posembed_input/pos_embedding")
    assert same_weights(imported(moved).model, plain)


def test_bfloat16_stays_what_it_is(imported):
    plain = golden_cases.imported("big_vision", "tok").model
    # The golden weights have no more digits than bfloat16, of which numpy knows no more than that it has two bytes.
    halves = {
        name: (array.view(np.uint32) >> 16).astype(np.uint16).view("V2")
        for name, array in arrays("big_vision", "tok").items()
    }
    model = imported(halves).model
    assert model.dtype == torch.bfloat16
    assert same_weights(model.float(), plain)


def test_a_model_of_an_imported_file_can_be_saved_and_loaded(tmp_path):
    for case in ("token", "gap"):
        model = golden_cases.imported("vision_transformer", case).model
        model.save_pretrained(tmp_path)
        assert same_weights(ViTScratchForImageClassification.from_pretrained(tmp_path), model)


def test_the_names_alone_are_converted_too():
    tensors = {name: torch.from_numpy(array) for name, array in arrays("big_vision", "gap").items()}
    model = golden_cases.imported("big_vision", "gap").model
    assert model.load_state_dict(convert_state_dict(tensors), strict=True)


# --- Notes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "left_out"),
    [
        (
            "training",
            [
                ("chrono/accum_train_time", "it is the clock of the training run"),
                ("opt/0/0/*", "it is the state of the optimiser"),
            ],
        ),
        (
            "image_tower",
            [
                ("params/b", "it scales the similarities of images and texts"),
                ("params/txt/Embed_0/embedding", "it belongs to the text tower"),
            ],
        ),
        ("tok", []),
    ],
)
def test_what_does_not_belong_to_the_model_is_left_out_with_its_reason(case, left_out):
    notes = [note for note in golden_cases.imported("big_vision", case).notes if note.startswith("ignored")]
    assert len(notes) == len(left_out)
    for note, (name, reason) in zip(notes, left_out, strict=True):
        assert note.startswith(f"ignored {name}")
        assert note.endswith(f": {reason}")


def test_each_array_is_read_once_and_the_state_of_the_optimiser_never(monkeypatch):
    read = []
    getitem = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(
        np.lib.npyio.NpzFile, "__getitem__", lambda self, name: read.append(name) or getitem(self, name)
    )
    golden_cases.imported("big_vision", "training")
    assert len(read) == len(set(read)) == 24
    assert all(name.startswith("params/") for name in read)


@pytest.mark.parametrize(
    ("lineage", "case", "note"),
    [
        ("big_vision", "gap", "the head reads the mean of the patches"),
        ("vision_transformer", "representation", "tanh after pre_logits"),
        ("big_vision", "sincos2d", "fixed positions sincos2d"),
        ("big_vision", "map", "scaled to -1 … 1"),
    ],
)
def test_what_was_assumed_is_said(lineage, case, note):
    assert any(note in line for line in golden_cases.imported(lineage, case).notes)


def test_images_are_resized_without_a_crop_and_scaled_to_minus_one_and_one():
    processor = golden_cases.imported("vision_transformer", "token").image_processor
    white = torch.full((3, 30, 50), 255, dtype=torch.uint8)
    pixels = processor(white, return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 12, 12)
    torch.testing.assert_close(pixels, torch.ones_like(pixels))
    torch.testing.assert_close(processor(0 * white, return_tensors="pt").pixel_values, -torch.ones_like(pixels))


# --- What is refused -------------------------------------------------------------------------------------------------


# The 16 positions of the last are of [CLS] and 3 x 5 patches; they would be a square without [CLS].
@pytest.mark.parametrize(
    ("lineage", "case"), [("big_vision", "sincos2d"), ("big_vision", "wide"), ("vision_transformer", "wide")]
)
def test_an_image_size_that_cannot_be_read_is_asked_for(lineage, case):
    with pytest.raises(ValueError, match=r"does not say image_size .*: add --config_overrides 'image_size=…'"):
        golden_cases.imported(lineage, case, config_overrides={})


def test_an_image_size_is_said_in_either_way():
    one = golden_cases.imported("big_vision", "sincos2d", config_overrides={"image_size": 12})
    other = golden_cases.imported("big_vision", "sincos2d", config_overrides={}, image_size=12)
    assert one.model.config.to_dict() == other.model.config.to_dict()


def test_an_image_size_that_does_not_fit_the_positions_is_refused():
    with pytest.raises(ValueError, match=r"positional_embedding is \(1, 9, 8\) and must be \(1, 25, 8\)"):
        golden_cases.imported("big_vision", "tok", config_overrides={"image_size": 20})


def test_a_hybrid_is_refused(imported):
    hybrid = {**arrays("vision_transformer", "token"), "conv_root/kernel": np.ones((7, 7, 3, 64), np.float32)}
    with pytest.raises(ValueError, match="no plain ViT: it is a hybrid, with a ConvNet before the transformer"):
        imported(hybrid)


def test_a_file_that_is_not_whole_is_refused(imported):
    lacking = arrays("big_vision", "tok")
    del lacking[f"{BLOCK}_1/{ATTENTION}/key/kernel"]
    with pytest.raises(ValueError, match=rf"{ATTENTION}/key/kernel is missing beside"):
        imported(lacking)


@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/"])
def test_a_tensor_that_no_table_knows_is_refused(prefix, imported):
    strange = {**arrays("big_vision", "tok"), "Transformer/other": np.ones(3, np.float32)}
    with pytest.raises(ValueError, match=rf"have no place in the model, among them {prefix}Transformer/other"):
        imported({prefix + name: array for name, array in strange.items()})


def test_patches_that_are_not_convolved_are_refused(imported):
    naflex = {**arrays("big_vision", "tok"), "embedding/kernel": np.ones((48, 8), np.float32)}
    with pytest.raises(ValueError, match="its patches are not projected by a convolution"):
        imported(naflex)


def test_a_place_that_is_not_known_is_refused(imported):
    elsewhere = {f"student/{name}": array for name, array in arrays("big_vision", "tok").items()}
    with pytest.raises(ValueError, match="embedding/kernel in none of the places params/, "):
        imported(elsewhere)


def test_an_array_of_python_objects_is_refused(imported):
    with pytest.raises(ValueError, match="array of Python objects, pre_logits, which could run code"):
        imported({**arrays("big_vision", "tok"), "pre_logits": np.array({}, dtype=object)})
