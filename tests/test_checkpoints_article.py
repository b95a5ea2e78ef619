"""Weights of the article's own code, with the `batch_first=True` that its prose means, as a model of ours."""

import golden_cases
import pytest
import torch

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.checkpoints import convert_state_dict, read_checkpoint

HEADS = {"num_attention_heads": 2}


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return torch.load(golden_cases.checkpoint("article", "plain"), weights_only=True)


@pytest.mark.parametrize("case", golden_cases.cases("article"))
def test_hidden_states_and_logits_are_those_of_the_articles_code(case):
    differences = golden_cases.differences("article", case)
    assert len(differences) == 4
    assert {name: value for name, value in differences.items() if value > 1e-5} == {}


def test_the_configuration_is_the_articles():
    config = golden_cases.imported("article", "plain").model.config
    articles = ViTScratchConfig(
        image_size=[12, 12], patch_size=[4, 4], embedding_dim=8, num_heads=2, ff_dim=12, num_classes=5, depth=2
    )
    assert config.to_diff_dict() == articles.to_diff_dict()


def test_the_names_alone_are_converted_without_being_told_anything(weights):
    model = golden_cases.imported("article", "plain").model
    converted = convert_state_dict(weights)
    fresh = ViTScratchForImageClassification(model.config).eval()
    fresh.load_state_dict(converted, strict=True)
    image = golden_cases.IMAGES["trained"]
    torch.testing.assert_close(fresh(image).logits, model(image).logits, atol=0, rtol=0)
    for name, tensor in converted.items():
        assert any(tensor is original for original in weights.values()), f"{name} is a copy"


def test_it_is_said_which_reading_of_the_article_is_meant():
    notes = golden_cases.imported("article", "plain").notes
    assert any("each token attends to those of its own image" in note for note in notes)


@pytest.mark.parametrize("container", ["model", "state_dict"])
def test_what_training_code_wraps_around_a_state_dict_is_taken_off(container, weights, tmp_path):
    wrapped = {container: {f"module.{name}": tensor for name, tensor in weights.items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "article.pt")
    model = read_checkpoint(tmp_path / "article.pt", config_overrides=HEADS).model
    image = golden_cases.IMAGES["trained"]
    expected = golden_cases.imported("article", "plain").model
    torch.testing.assert_close(model(image).logits, expected(image).logits, atol=0, rtol=0)


# --- What must be told -----------------------------------------------------------------------------------------------


def test_the_head_count_is_asked_for():
    with pytest.raises(ValueError, match=r"does not say num_attention_heads .*: .*'num_attention_heads=…'"):
        golden_cases.imported("article", "plain", config_overrides={})


def test_the_image_size_is_asked_for_where_the_positions_are_no_square():
    with pytest.raises(ValueError, match=r"does not say image_size .*: "):
        golden_cases.imported("article", "wide", config_overrides=HEADS)


def test_an_image_size_that_does_not_fit_the_positions_is_refused():
    with pytest.raises(ValueError, match=r"positional_embedding is \(1, 9, 8\) and must be \(1, 16, 8\)"):
        golden_cases.imported("article", "plain", config_overrides={**HEADS, "image_size": 16})


# --- What is refused -------------------------------------------------------------------------------------------------


def saved(tensors: dict[str, torch.Tensor], folder):
    torch.save(tensors, folder / "article.pt")
    return folder / "article.pt"


@pytest.mark.parametrize("lacking", ["cls_token.cls_token", "encoder.1.norm2.bias", "patch_embedding.projection.bias"])
def test_a_state_dict_that_is_not_whole_is_refused(lacking, weights, tmp_path):
    del weights[lacking]
    with pytest.raises(ValueError, match=rf"not whole: it has nothing for 1 tensors, such as vit\.{lacking}"):
        read_checkpoint(saved(weights, tmp_path), config_overrides=HEADS)


def test_a_state_dict_without_positions_is_refused(weights, tmp_path):
    del weights["positional_encoding.positional_embedding"]
    with pytest.raises(ValueError, match=r"not whole: positional_encoding\.positional_embedding is missing"):
        read_checkpoint(saved(weights, tmp_path), config_overrides=HEADS)


def test_a_tensor_that_the_article_does_not_have_is_refused(weights):
    with pytest.raises(ValueError, match=r"no place in the model, among them norm\.weight"):
        convert_state_dict({**weights, "norm.weight": torch.ones(8)})


def test_weights_of_ours_and_of_others_are_not_taken_for_the_articles(weights):
    ours = golden_cases.imported("article", "plain").model.state_dict()
    for other in (ours, {"conv1.weight": torch.ones(1)}):
        with pytest.raises(ValueError, match=r"not of the format article|no plain ViT"):
            convert_state_dict(other, format="article")
