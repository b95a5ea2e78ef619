# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The model card: what the Hub reads in it, what a person reads, and that neither says more than was measured."""

import json
import os
import re
import shutil

import pytest
import yaml
from forks import python
from huggingface_hub import ModelCard
from pictures import noise
from runs import SMALL, classes_of_pictures, vit_scratch
from transformers import AutoImageProcessor, ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from modeling_vit_scratch.hub.cards import describe, inherited, name_of
from modeling_vit_scratch.hub.fetching import Checkpoint
from modeling_vit_scratch.model.publishing_vit_scratch import copy_license
from modeling_vit_scratch.presets import preset_names, preset_path
from modeling_vit_scratch.text import for_markdown
from modeling_vit_scratch.training import classification
from modeling_vit_scratch.training.run_card import FinishedRun, card_metadata, data_sentence

ODD_NAMES = ["a|b", "*bold* _it_", "# 1: 'x' \"y\"", "<b>&amp;", "[link](here)", "日本 ü", "`code`"]


@pytest.fixture(scope="module")
def card(digits_run):
    return ModelCard.load(digits_run[0] / "README.md")


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train for a step without a picture; gives the folder."""
    monkeypatch.setattr(classification, "draw_training", lambda *arguments: None)

    def train(*flags: object, name: str = "run"):
        folder = tmp_path / name
        result = vit_scratch("train", "digits", *SMALL, "--max_steps=1", f"--output_dir={folder}", *flags)
        assert result.status == 0, result.err
        return folder

    return train


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, split as Markdown does: not at an escaped bar."""
    lines = text[text.index(heading) :].splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def shown(text: str) -> str:
    """What a person sees of Markdown without markup: the backslashes gone."""
    return re.sub(r"\\(.)", r"\1", text)


# What the Hub reads


def test_the_header_names_library_task_and_results(card, digits_run):
    header = card.data.to_dict()
    assert header["library_name"] == "transformers"
    assert header["pipeline_tag"] == "image-classification"
    assert header["metrics"] == ["accuracy", "f1", "top_5_accuracy"]
    (model,) = header["model-index"]
    assert model["name"] == "digits"
    measured = json.loads((digits_run[0] / "all_results.json").read_text(encoding="utf-8"))
    listed = {}
    for result in model["results"]:
        assert result["task"] == {"type": "image-classification"}
        assert result["dataset"] == {"name": "digits", "type": "digits", "split": result["dataset"]["split"]}
        for metric in result["metrics"]:
            assert metric["name"].startswith(f"{result['dataset']['split']}_")
            listed[metric["name"]] = metric["value"]
    assert listed == {name: value for name, value in measured.items() if not name.endswith("calibration_error")}


def test_the_header_comes_back_from_the_file_as_it_was_written(card, digits_run):
    text = (digits_run[0] / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    assert text.endswith(".\n")
    assert yaml.safe_load(text.split("---\n")[1]) == card.data.to_dict()
    results = card.data.eval_results
    assert {(result.dataset_split, result.metric_type) for result in results} == {
        (split, metric) for split in ("validation", "test") for metric in ("accuracy", "f1", "top_5_accuracy")
    }


@pytest.mark.parametrize(
    ("recipe", "base_model", "datasets"),
    [
        ({"model": "digits", "data": "digits"}, None, None),
        ({"model": "acme/vit", "data": "acme/cats"}, "acme/vit", ["acme/cats"]),
        ({"model": "/home/me/vit", "data": "/home/me/cats"}, None, None),
    ],
    ids=["preset", "Hub", "folders"],
)
def test_the_header_names_what_others_can_get_from_the_hub(recipe, base_model, datasets):
    run = FinishedRun("run", None, None, recipe, {}, {}, None, processes=1, seconds=1.0, resumed=False)
    header = card_metadata(run)
    assert (header.base_model, header.datasets) == (base_model, datasets)


def test_a_run_without_any_measurement_claims_none(train, tmp_path):
    data = classes_of_pictures(tmp_path / "data", images=3)
    folder = train(f"--data={data}", "--train_val_split=0")
    card = ModelCard.load(folder / "README.md")
    assert "model-index" not in card.data.to_dict()
    assert "None: the data had no validation or test split." in card.text
    assert "training.png" not in card.text
    assert table(card.text, "## Data") == [["split", "images"], ["---", "---"], ["train", "9"]]


# What a person reads


def test_the_card_is_whole_and_in_order(card):
    headings = re.findall(r"^#+ .*$", card.text, re.MULTILINE)
    assert headings == ["# digits", "## Use", "## Labels", "## Data", "## Results", "## Training", "## Limits"]
    assert not re.search(r"\{\{|\{%|None|Undefined", card.text)


def test_the_tables_hold_what_was_measured(card, digits_run):
    measured = json.loads((digits_run[0] / "all_results.json").read_text(encoding="utf-8"))
    assert table(card.text, "## Results")[2:] == [[name, f"{value:.4f}"] for name, value in measured.items()]
    classes = table(card.text, "Each class, test split:")
    assert classes[0] == ["class", "precision", "recall", "F1", "images"]
    assert [row[0] for row in classes[2:]] == [str(digit) for digit in range(10)]
    assert sum(int(row[4]) for row in classes[2:]) == 360
    assert table(card.text, "## Data")[2:] == [["train", "1,229"], ["validation", "208"], ["test", "360"]]
    assert "checkpoint with the best validation_loss" in card.text


def test_it_says_how_images_are_prepared_and_what_the_model_is(card, digits_run):
    plan = {line[:10].strip(): line[11:] for line in digits_run[1].lines[:12]}
    assert plan["images"] in card.text
    assert "8x8 pixels" in card.text
    assert "after each skip connection (post-norm)" in card.text


def test_the_recipe_in_it_is_that_of_the_run(card, digits_run):
    block = re.search(r"```yaml\n(.*?)```", card.text, re.DOTALL)[1]
    assert yaml.safe_load(block) == yaml.safe_load((digits_run[0] / "recipe.yaml").read_text(encoding="utf-8"))


def test_a_run_without_a_test_split_shows_the_validation_split(train, tmp_path):
    data = classes_of_pictures(tmp_path / "data")
    card = ModelCard.load(train(f"--data={data}") / "README.md")
    assert "Each class, validation split:" in card.text
    assert "test_accuracy" not in card.text
    assert {result.dataset_split for result in card.data.eval_results} == {"validation"}


def test_the_last_checkpoint_is_not_called_the_best(train, tmp_path):
    data = classes_of_pictures(tmp_path / "data")
    text = (train(f"--data={data}", "--eval_strategy=no") / "README.md").read_text(encoding="utf-8")
    assert "Of the last checkpoint." in text
    assert "with the best" not in text


def test_names_with_markup_are_shown_as_they_are(train, tmp_path):
    data = tmp_path / 'data: "it\'s" #1 | *new*'
    for index, name in enumerate(ODD_NAMES):
        (data / name).mkdir(parents=True)
        for seed in range(2):
            noise(seed=10 * index + seed).save(data / name / f"{seed}.png")
    folder = train(f"--data={data}", "--train_val_split=0.5", name="run: *odd* | 'name'")
    card = ModelCard.load(folder / "README.md")
    names = sorted(os.listdir(data))
    assert [shown(row[1]) for row in table(card.text, "## Labels")[2:]] == names
    assert [shown(row[0]) for row in table(card.text, "Each class")[2:]] == names
    assert all(len(row) == 5 for row in table(card.text, "Each class"))
    assert shown(re.search(r"^# (.*)$", card.text, re.MULTILINE)[1]) == "run: *odd* | 'name'"
    assert card.data.eval_results[0].dataset_name == data.name
    assert card.data.model_name == "run: *odd* | 'name'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", "cat"),
        ("hot dog", "hot dog"),
        ("a|b", r"a\|b"),
        ("two\nlines", "two lines"),
        ("*a* _b_ `c`", r"\*a\* \_b\_ \`c\`"),
        ("<br>", r"\<br\>"),
        ("back\\slash", r"back\\slash"),
        ("Grüße, 日本: 'x' \"y\"", "Grüße, 日本: 'x' \"y\""),
    ],
)
def test_markdown(text, expected):
    assert for_markdown(text) == expected


def test_it_says_what_is_to_know_of_the_images(train, tmp_path, monkeypatch):
    data = classes_of_pictures(tmp_path / "data")
    (data / "cat" / "bad.png").write_bytes(b"no image")
    shutil.copy(data / "cat" / "000.png", data / "dog" / "copy.png")
    (data / "few").mkdir()
    noise(seed=1).save(data / "few" / "one.png")
    folder = train(f"--data={data}", "--train_val_split=0.4")
    text = (folder / "README.md").read_text(encoding="utf-8")
    notes = [line for line in text[text.index("## Data") : text.index("## Results")].splitlines() if line[:2] == "- "]
    assert notes == [
        "- 1 image that cannot be read was left out.",
        "- 1 image is in two classes.",
        "- validation has no image of few: its scores say nothing about it.",
    ]


# What nobody else needs to know


def test_it_holds_no_local_path(train, tmp_path, digits_run, monkeypatch):
    data = classes_of_pictures(tmp_path / "secret place" / "pets")
    monkeypatch.chdir(tmp_path)
    for name, given in (("absolute", data), ("relative", "secret place/pets"), ("dotted", "./secret place/pets/.")):
        folder = train(f"--data={given}", f"--model={digits_run[0]}", "--config_overrides=", name=name)
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert "secret" not in text
        assert str(tmp_path) not in text
        assert str(digits_run[0].parent) not in text
        assert "data: pets" in text
        assert "model: ./digits" in text  # which is a preset's name, too
        assert "fine-tuned with vit-scratch from `digits`, a checkpoint that is not published with it" in text


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("digits", "digits"),
        ("cats", "cats"),
        ("organisation/cats", "organisation/cats"),
        ("/home/me/cats", "cats"),
        ("/home/me/cats/*.parquet", "*.parquet"),
        ("my/cats/*.parquet", "*.parquet"),
        ("~/cats", "cats"),
        ("../me/cats", "cats"),
        ("cosine", "cosine"),
    ],
)
def test_of_a_path_the_card_tells_the_last_part(value, name):
    assert name_of(value) == name


def test_of_the_folder_that_one_stands_in_it_tells_the_name(tmp_path, monkeypatch):
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path / "pets")
    assert name_of(".") == "pets"


def test_a_token_is_written_nowhere(train, tmp_path):
    data = classes_of_pictures(tmp_path / "data", images=3)
    folder = train(f"--data={data}", "--train_val_split=0", "--hub_token=hf_secret")
    texts = [path for path in folder.iterdir() if path.is_file()]
    assert not any(b"hf_secret" in path.read_bytes() for path in texts)


# The snippet


def snippet(folder) -> str:
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]


def test_the_snippet_runs_where_the_package_is_not(digits_run, tmp_path):
    # In a copy of the folder, as one who downloaded it has it; None in sys.modules makes an import fail.
    folder = shutil.copytree(digits_run[0], tmp_path / "downloaded", ignore=shutil.ignore_patterns("checkpoint-*"))
    code = snippet(folder)
    assert 'model=".", trust_remote_code=True' in code
    blocked = f"import sys; sys.modules['modeling_vit_scratch'] = None\n{code}"
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    process = python(blocked, environment=environment, cwd=folder)
    assert process.status == 0, process.err
    printed = vit_scratch("predict", folder, folder / "sample.png", "--top_k=1").out.split("\t")[1]
    label = re.search(r"\[\{'label': '(\d)'", process.out) or re.search(r"'label': '(\d)'", process.out)
    assert label[1] == printed.split()[0]


# Functions


def test_the_data_is_said_in_a_sentence():
    assert data_sentence({"data": "digits"}).startswith("Scikit-learn's handwritten digits: 1,797")
    assert data_sentence({"data": "/home/me/my_cats"}).startswith(
        r"my\_cats; splits that the data itself does not have"
    )


@pytest.mark.parametrize(
    ("header", "terms"),
    [
        ("license: other\nlicense_name: own\nlicense_link: LICENSE", {"license": "other", "license_name": "own"}),
        ("license: mit\nmodel-index: nonsense", {"license": "mit"}),
        ("license: [mit, other]\nlicense_link: 3", {"license": ["mit", "other"]}),
        ("license: other\nlicense_link: javascript:alert(1)", {"license": "other"}),
        ("license: other\nlicense_link: ../secret", {"license": "other"}),
        ("license: other\nlicense_link: .hidden", {"license": "other"}),
        ("license: other\nlicense_link: file:///etc/passwd", {"license": "other"}),
    ],
)
def test_the_terms_of_a_card_are_read_whatever_else_is_in_it(tmp_path, header, terms):
    (tmp_path / "README.md").write_text(f"---\n{header}\n---\n", encoding="utf-8")
    link = {"license_link": "LICENSE"} if "LICENSE" in header else {}
    assert inherited(Checkpoint("vit", tmp_path)) == terms | link
    # A file of a repository is found from elsewhere, too.
    link = {"license_link": "https://huggingface.co/someone/vit/blob/v1/LICENSE"} if link else {}
    assert inherited(Checkpoint("someone/vit", tmp_path, "v1")) == terms | link | {"base_model": "someone/vit"}
    assert inherited(Checkpoint("article", tmp_path, preset=True)) == {}


@pytest.mark.parametrize("header", [b"license: [mit", b"- license", b"license: gr\xfcn"])
def test_a_card_that_cannot_be_read_is_named(tmp_path, caplog, header):
    card = tmp_path / "README.md"
    card.write_bytes(b"---\n" + header + b"\n---\n")
    assert inherited(Checkpoint("vit", tmp_path)) == {}
    said = f"the card {card} cannot be read: its license, if it has one, is not taken over"
    assert [record.getMessage() for record in caplog.records] == [said]
    assert inherited(Checkpoint("someone/vit", tmp_path, "v1")) == {"base_model": "someone/vit"}


def test_a_card_that_is_not_there_is_not_missed(tmp_path, caplog):
    (tmp_path / "vit.pth").touch()
    for place in (tmp_path, tmp_path / "vit.pth", tmp_path / "none"):
        assert inherited(Checkpoint("vit", place)) == {}
    assert caplog.records == []


# The file of a license


LINKED = {"license_link": "LICENSE"}


def test_the_file_of_a_license_is_copied_as_it_is(tmp_path):
    (tmp_path / "LICENSE").write_bytes(b"for cats\r\n")
    (tmp_path / "new").mkdir()
    copy_license(tmp_path, LINKED, tmp_path / "new")
    assert (tmp_path / "new" / "LICENSE").read_bytes() == b"for cats\r\n"


def test_what_is_there_is_not_replaced_by_the_file_of_a_license(tmp_path):
    (tmp_path / "README.md").write_text("theirs")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "README.md").write_text("ours")
    copy_license(tmp_path, {"license_link": "README.md"}, tmp_path / "new")
    assert (tmp_path / "new" / "README.md").read_text() == "ours"


@pytest.mark.parametrize("kind", ["missing", "link", "folder", "pipe", "large", "state.json", "../LICENSE", ".LICENSE"])
def test_what_is_no_license_of_the_folder_is_not_copied(tmp_path, kind):
    source, new, name = tmp_path / "source", tmp_path / "new", kind if "." in kind else "LICENSE"
    source.mkdir()
    new.mkdir()
    (tmp_path / "LICENSE").write_text("secret")
    make = {
        "link": lambda file: file.symlink_to(tmp_path / "LICENSE"),
        "folder": lambda file: file.mkdir(),
        "pipe": os.mkfifo,
        "large": lambda file: file.write_bytes(bytes(1_000_001)),
        "missing": lambda file: None,
    }
    make.get(kind, lambda file: file.write_text("mine"))(source / name)
    copy_license(source, {"license_link": name}, new)
    assert list(new.iterdir()) == []


# --- In words --------------------------------------------------------------------------------------------------------

SIZES = {"digits": "8x8", "vit-micro-patch4-32": "32x32", "vit-tiny-patch4-32": "32x32"}


@pytest.mark.parametrize("preset", preset_names())
def test_what_the_processor_of_a_preset_does_in_words(preset):
    assert describe(AutoImageProcessor.from_pretrained(preset_path(preset))) == (
        f"resized to {SIZES.get(preset, '224x224')} pixels, whatever the aspect ratio (bicubic), "
        "normalised with mean [0.5, 0.5, 0.5] and deviation [0.5, 0.5, 0.5]"
    )


def test_other_processors_in_words():
    assert describe(ConvNextImageProcessorPil(size={"shortest_edge": 256}, do_normalize=False)) == (
        "shorter side resized to 256 pixels (bicubic)"
    )
    cropped = ViTImageProcessorPil(
        size={"shortest_edge": 40}, resample=2, do_center_crop=True, crop_size={"height": 32, "width": 24},
        image_mean=[0.1, 0.2, 0.3], image_std=[1.0, 2.0, 4.0],
    )  # fmt: skip
    assert describe(cropped) == (
        "shorter side resized to 40 pixels (bilinear), centre cropped to 32x24 pixels, "
        "normalised with mean [0.1, 0.2, 0.3] and deviation [1.0, 2.0, 4.0]"
    )
    assert describe(ViTImageProcessorPil(do_resize=False, do_normalize=False)) == "as it is"
