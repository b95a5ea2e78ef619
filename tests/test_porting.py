# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""`vit-scratch import` and `export`, the whole way: real processes, real folders, and a Hub on this machine.

What the lineages are is in test_checkpoints_*.py; here is what becomes of a name, a folder and an output.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
from pathlib import Path

import golden_cases
import pytest
import torch
import transformers
from forks import python
from hub_server import Hub
from huggingface_hub import ModelCard
from PIL import Image
from runs import (
    CHECKPOINT,
    CODE,
    TERMS,
    Result,
    classes_of_pictures,
    contents,
    licensed,
    refused,
    terms,
    vit_scratch,
    weights,
)
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import modeling_vit_scratch
from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification, ViTScratchModel, porting
from modeling_vit_scratch.porting import import_checkpoint

LABELS = {0: "cat", 1: "dog", 2: "hot dog"}
SIZES = {"image_size": 12, "patch_size": 4, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
VIT = {
    **SIZES,
    "intermediate_size": 20,
    "id2label": LABELS,
    "norm_first": True,
    "use_cls_position": True,
    "use_final_layer_norm": True,
}
IMPORTED = {*CHECKPOINT, "LICENSE", "README.md"}


def make_peer(seed: int = 0) -> transformers.PreTrainedModel:
    """A model of transformers whose every parameter is random."""
    torch.manual_seed(seed)
    config = transformers.ViTConfig(**SIZES, intermediate_size=20, id2label=LABELS, label2id={})
    peer = transformers.ViTForImageClassification(config).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(std=0.3)
    return peer


def save_peer(folder: Path, seed: int = 0) -> transformers.PreTrainedModel:
    peer = make_peer(seed)
    peer.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 12, "width": 12}, image_mean=[0.2] * 3).save_pretrained(folder)
    return peer


@pytest.fixture(scope="module")
def peer_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("peer") / "vit-tiny"
    save_peer(folder)
    return licensed(folder)


def save_ours(folder: Path, **fields: object) -> ViTScratchForImageClassification:
    torch.manual_seed(1)
    model = ViTScratchForImageClassification(ViTScratchConfig(**{**VIT, **fields})).eval()
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 12, "width": 12}).save_pretrained(folder)
    return model


@pytest.fixture
def ours(tmp_path) -> Path:
    save_ours(tmp_path / "ours")
    return licensed(tmp_path / "ours")


def pixels(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *(size or (12, 12)), generator=torch.Generator().manual_seed(2))


def logits(model: torch.nn.Module, images: torch.Tensor, **options) -> torch.Tensor:
    with torch.no_grad():
        return model(images, **options).logits


# The whole way

USE_WITHOUT_THE_PACKAGE = """
import importlib.abc, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_vit_scratch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification

folder, given, results = sys.argv[1:]
model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
given = load_file(given)["pixels"]
prepared = AutoImageProcessor.from_pretrained(folder)(Image.new("RGB", (20, 17), "teal"), return_tensors="pt")
with torch.no_grad():
    outputs = {"logits": model(given).logits, "prepared": prepared.pixel_values}
    outputs["of the picture"] = model(**prepared).logits
save_file(outputs, results)
"""


@pytest.fixture(scope="module")
def imported(peer_folder, tmp_path_factory) -> tuple[Path, Result]:
    """What a real process made of the folder of transformers: the folder, and what it printed."""
    folder = tmp_path_factory.mktemp("imported") / "mein modèle 日本"
    return folder, vit_scratch("import", peer_folder, folder)


def test_an_import_says_what_it_read_and_what_comes_next(imported, peer_folder):
    folder, result = imported
    assert (result.status, result.err) == (0, "")
    assert result.lines == [
        f"read       {peer_folder}, a checkpoint of transformers: 8,563 parameters, images of 12x12 pixels, 3 labels",
        f"written    {folder}",
        f"fine-tune  vit-scratch train finetune --model '{folder}' --data FOLDER",
    ]


def test_the_folder_is_a_whole_checkpoint_and_nothing_is_left_beside_it(imported):
    folder, _ = imported
    assert os.listdir(folder.parent) == [folder.name]
    assert {path.name for path in folder.iterdir()} == IMPORTED
    package = Path(modeling_vit_scratch.__file__).parent
    for name in CODE:
        assert (folder / name).read_bytes() == (package / "model" / name).read_bytes()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "vit_scratch"
    assert config["architectures"] == ["ViTScratchForImageClassification"]
    assert config["id2label"] == {str(index): label for index, label in LABELS.items()}
    assert folder.stat().st_mode & 0o777 == 0o777 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_no_file_says_where_the_source_lay(imported, peer_folder):
    folder, _ = imported
    for path in folder.iterdir():
        content = path.read_bytes()
        assert str(peer_folder.parent).encode() not in content, path.name
        assert str(folder.parent).encode() not in content, path.name


def test_the_card_says_where_the_weights_are_from_and_how_to_use_them(imported):
    folder, _ = imported
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.base_model is None  # a folder is no model of the Hub
    assert card.text.lstrip().startswith("# mein modèle 日本\n")
    assert "imported from vit-tiny" in card.text
    assert "| 2 | hot dog |" in card.text
    assert "normalised with mean [0.2, 0.2, 0.2]" in card.text


def test_without_the_package_it_computes_what_transformers_computes(imported, peer_folder, tmp_path):
    folder, _ = imported
    save_file({"pixels": pixels()}, tmp_path / "given")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    given = (folder, tmp_path / "given", tmp_path / "results")
    done = python(USE_WITHOUT_THE_PACKAGE, *given, environment=environment, cwd=tmp_path)
    assert done.status == 0, done.err
    outputs = load_file(tmp_path / "results")
    peer = transformers.ViTForImageClassification.from_pretrained(peer_folder)
    prepared = AutoImageProcessor.from_pretrained(peer_folder)(Image.new("RGB", (20, 17), "teal"), return_tensors="pt")
    assert torch.equal(outputs["prepared"], prepared.pixel_values)
    torch.testing.assert_close(outputs["logits"], logits(peer, pixels()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs["of the picture"], logits(peer, prepared.pixel_values), rtol=1e-5, atol=1e-5)


def test_an_imported_checkpoint_predicts_with_its_labels(imported, peer_folder, tmp_path):
    folder, _ = imported
    data = classes_of_pictures(tmp_path / "data", images=2)
    result = vit_scratch("predict", folder, data, "--top-k", 3)
    assert (result.status, len(result.lines)) == (0, 6), result.err
    peer = transformers.pipeline("image-classification", model=str(peer_folder))
    for line in result.lines:
        file, *ranked = line.split("\t")
        expected = [f"{item['label']} {item['score']:.2%}" for item in peer(Image.open(file), top_k=3)]
        assert ranked == expected
    assert vit_scratch("evaluate", folder, data).lines[0] == "all 6 images:"


def test_an_imported_checkpoint_is_fine_tuned_with_the_command_that_the_import_prints(imported, tmp_path):
    folder, result = imported
    data = classes_of_pictures(tmp_path / "the data")
    command = result.lines[-1].removeprefix("fine-tune").strip().replace("FOLDER", shlex.quote(str(data)))
    program, *arguments = shlex.split(command)
    assert program == "vit-scratch"
    flags = ("--max_steps=1", "--warmup_steps=0", "--dataloader_num_workers=0", f"--output_dir={tmp_path / 'run'}")
    trained = vit_scratch(*arguments, *flags)
    assert trained.status == 0, trained.err
    assert terms(folder) == terms(tmp_path / "run") == TERMS
    before, after = weights(folder), weights(tmp_path / "run")
    assert before.keys() == after.keys()
    changed = {name: float((after[name] - before[name]).abs().max()) for name in before}
    assert any(changed.values())
    assert max(changed.values()) < 0.1  # it went on from there
    assert json.loads((tmp_path / "run" / "config.json").read_text())["id2label"] == {
        str(index): label for index, label in LABELS.items()
    }


def test_labels_of_other_data_get_a_new_head_in_training(imported, tmp_path):
    folder, _ = imported
    data = classes_of_pictures(tmp_path / "data")
    (data / "cat").rename(data / "lion")
    flags = ("--max_steps=1", "--dataloader_num_workers=0", f"--output_dir={tmp_path / 'run'}")
    trained = vit_scratch("train", "image-folder", "--model", folder, "--data", data, *flags)
    assert trained.status == 0, trained.err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["id2label"] == {"0": "dog", "1": "hot dog", "2": "lion"}


def test_the_function_gives_what_the_command_writes(imported, peer_folder, tmp_path):
    folder, _ = imported
    model = import_checkpoint(peer_folder).model
    written = weights(folder)
    assert all(torch.equal(tensor, written[name]) for name, tensor in model.state_dict().items())
    assert import_checkpoint(str(peer_folder), str(tmp_path / "out")).format == "transformers"
    assert contents(tmp_path / "out").keys() == contents(folder).keys()


def test_a_body_is_imported_with_a_card_that_shows_how_features_are_made(tmp_path):
    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig(**SIZES), add_pooling_layer=False).save_pretrained(tmp_path / "body")
    result = vit_scratch("import", tmp_path / "body", tmp_path / "out")
    assert result.status == 0, result.err
    assert "images of 12x12 pixels, no head" in result.lines[0]
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert "pooler_output" in card.text
    assert isinstance(transformers.AutoModel.from_pretrained(tmp_path / "out"), ViTScratchModel)
    line = refused("predict", tmp_path / "out", classes_of_pictures(tmp_path / "data", images=1))
    assert "is no image classifier" in line


def test_notes_are_printed_and_stand_in_the_card(ours, tmp_path):
    result = vit_scratch("import", ours, tmp_path / "out", "--image-size=8,16", "--num-labels=5")
    assert result.status == 0, result.err
    notes = [line.removeprefix("note").strip() for line in result.lines if line.startswith("note ")]
    assert notes[0] == "resampled the positions from 3x3 to 2x4 patches (bicubic_antialias)"
    assert notes[-1] == "new random head for 5 labels"
    shown = re.sub(r"\\(.)", r"\1", ModelCard.load(tmp_path / "out" / "README.md").text)
    assert all(f"- {note}\n" in shown for note in notes)


# Verbs and flags


def test_the_verbs_are_listed_with_the_others():
    text = " ".join(vit_scratch("--help").out.split())
    assert "import: load the weights of another library; export: write a checkpoint for another library, or as" in text


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (
            "import",
            ["source", "output", "--format", "--image_size", "--num_labels", "--config_overrides", "--revision"],
        ),
        ("export", ["checkpoint", "output", "--format {transformers,timm,onnx,onnx-int8,torch-export}"]),
    ],
)
def test_the_verbs_explain_themselves(verb, said):
    result = vit_scratch(verb, "--help")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(f"usage: vit-scratch {verb} ")
    assert all(part in result.out for part in said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import",), "the following arguments are required: source, output; see vit-scratch import --help."),
        (("import", "a"), "the following arguments are required: output"),
        (("import", "a", "b", "c"), "unrecognized arguments: c"),
        (("import", "a", "b", "--num-labels=0"), "must be a whole number from 1 on, got '0'"),
        (("import", "a", "b"), "there is no file or folder a, and it is no name on the Hub (owner/model)."),
        (("import", "a.pth", "b"), "there is no file or folder a.pth, and it is no name on the Hub (owner/model)."),
        (("import", "./a/b", "out"), "there is no file or folder ./a/b"),
        (("import", "a/b/c", "out"), "there is no file or folder a/b/c"),
        (("import", "~/a", "out"), "there is no file or folder ~/a"),
        (("import", "hf-hub:a", "out"), "there is no file or folder hf-hub:a, and it is no name on the Hub"),
        (("export",), "the following arguments are required: checkpoint, output, --format; see vit-scratch export"),
        (("export", "a", "b"), "the following arguments are required: --format"),
        (("export", "a", "b", "--format=keras"), "invalid choice: 'keras'"),
        (("export", "a", "b", "--format=timm"), "there is no file or folder a"),
    ],
)
def test_a_mistake_is_answered_in_one_line(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(*arguments)
    assert line.startswith(f"vit-scratch {arguments[0]}: ")
    assert said in line
    assert os.listdir(tmp_path) == []


# The output: whole, or not at all


@pytest.mark.parametrize("verb", ["import", "export"])
def test_what_is_there_is_not_replaced(verb, ours, tmp_path):
    flags = ("--format=timm",) if verb == "export" else ()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "other link").symlink_to(tmp_path / "empty")
    before = contents(tmp_path)
    for name in ("file", "folder", "link", "other link"):
        line = refused(verb, ours, tmp_path / name, *flags)
        assert line == f"vit-scratch {verb}: {tmp_path / name} already exists: name a new folder."
    assert contents(tmp_path) == before


def test_a_folder_is_not_imported_over_itself(ours):
    before = contents(ours)
    assert "already exists" in refused("import", ours, ours)
    assert contents(ours) == before


def test_an_empty_folder_may_be_filled(ours, tmp_path):
    (tmp_path / "out").mkdir()
    assert vit_scratch("import", ours, tmp_path / "out").status == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == IMPORTED


def test_the_folder_that_one_stands_in_is_not_replaced(ours, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert refused("import", ours, ".") == "vit-scratch import: . already exists: name a new folder."
    assert refused("import", ours, tmp_path / "here").endswith("here already exists: name a new folder.")
    assert sorted(os.listdir(tmp_path)) == ["here", "ours"]


def test_folders_above_the_output_are_made(ours, tmp_path):
    assert vit_scratch("import", ours, tmp_path / "new" / "deep" / "out").status == 0
    assert {path.name for path in (tmp_path / "new" / "deep" / "out").iterdir()} == IMPORTED
    assert os.listdir(tmp_path / "new" / "deep") == ["out"]


@pytest.mark.parametrize("output", ["file/out", "/proc/out", "/proc/new/out"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(output, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "source").mkdir()  # holds nothing, which would be said otherwise
    line = refused("import", tmp_path / "source", tmp_path / output)
    assert line.startswith(f"vit-scratch import: {tmp_path / output} cannot be written: ")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may write everywhere")
def test_a_folder_that_this_user_may_not_write_is_refused(ours, tmp_path):
    (tmp_path / "parent").mkdir(mode=0o555)
    line = refused("import", ours, tmp_path / "parent" / "out")
    assert line.endswith("parent/out cannot be written: Permission denied.")


@pytest.mark.parametrize("name", ["with spaces", "ünïcode 日本", "-dash", "~", "a'b", "x.pth"])
def test_any_name_will_do(name, ours, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ours, tmp_path / "sources" / name)
    result = vit_scratch("import", "--", f"sources/{name}", name)
    assert result.status == 0, result.err
    assert {path.name for path in (tmp_path / name).iterdir()} == IMPORTED
    words = shlex.split(result.lines[-1].removeprefix("fine-tune"))
    assert words[words.index("--model") + 1] == name
    assert ModelCard.load(tmp_path / name / "README.md").data.model_name == name


@pytest.mark.parametrize("step", ["write_import_card", "new_folder"])
@pytest.mark.parametrize("interruption", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_import_that_fails_in_the_middle_leaves_nothing(step, interruption, ours, tmp_path, monkeypatch):
    def fail(*arguments):
        raise interruption

    monkeypatch.setattr(porting, step, fail)
    before = contents(tmp_path)
    result = vit_scratch("import", ours, tmp_path / "new" / "out")
    expected = (130, "interrupted.") if isinstance(interruption, KeyboardInterrupt) else (2, "No space left on device")
    assert (result.status, result.out) == (expected[0], "")
    assert result.err.startswith("vit-scratch import: ")
    assert expected[1] in result.err
    assert contents(tmp_path) == before


@pytest.mark.skipif(os.name != "posix", reason="schedulers of POSIX send this signal")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])  # of a scheduler, and of a terminal that is closed
def test_an_import_that_is_asked_to_end_leaves_nothing(ours, tmp_path, monkeypatch, name):
    number = getattr(signal, name)
    monkeypatch.setattr(porting, "write_import_card", lambda *arguments: os.kill(os.getpid(), number))
    before, handler = contents(tmp_path), signal.signal(number, signal.SIG_DFL)  # `nohup` may have it ignored
    try:
        assert vit_scratch("import", ours, tmp_path / "new" / "out").status == 128 + number
        assert contents(tmp_path) == before
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, handler)


@pytest.mark.skipif(os.name != "posix", reason="this signal is of POSIX")
def test_what_is_not_to_end_with_its_terminal_does_not(ours, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        write = porting.write_import_card

        def hang_up(*arguments):
            os.kill(os.getpid(), signal.SIGHUP)
            write(*arguments)

        monkeypatch.setattr(porting, "write_import_card", hang_up)
        assert vit_scratch("import", ours, tmp_path / "out").status == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
from modeling_vit_scratch import cli, porting

def kill(*arguments):
    assert (arguments[-1].parent / "model.safetensors").stat().st_size > 0
    os.kill(os.getpid(), signal.SIGKILL)

porting.write_import_card = kill
cli.main(["import", *sys.argv[1:]])
"""


def test_an_import_that_is_killed_in_the_middle_leaves_no_output(ours, tmp_path):
    done = python(KILLED_IN_THE_MIDDLE, ours, tmp_path / "out")
    assert done.status == -signal.SIGKILL, done.err
    assert not (tmp_path / "out").exists()
    assert vit_scratch("import", ours, tmp_path / "out").status == 0  # what was left does not stand in the way
    assert {path.name for path in (tmp_path / "out").iterdir()} == IMPORTED


# Export


def test_an_export_to_transformers_computes_the_same(ours, tmp_path):
    result = vit_scratch("export", ours, tmp_path / "out", "--format", "transformers")
    assert (result.status, result.err) == (0, "")
    assert result.lines[0] == "became     transformers' ViTForImageClassification"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "LICENSE",
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    peer = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert type(peer) is transformers.ViTForImageClassification
    assert peer.config.id2label == LABELS
    model = AutoModelForImageClassification.from_pretrained(ours)
    torch.testing.assert_close(logits(peer, pixels()), logits(model, pixels()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("library", ["transformers", "timm"])
def test_what_was_exported_comes_back_as_it_was(library, ours, tmp_path):
    result = vit_scratch("export", ours, tmp_path / "exported", f"--format={library}")
    assert result.status == 0, result.err
    assert result.lines
    for path in (tmp_path / "exported").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    result = vit_scratch("import", tmp_path / "exported", tmp_path / "back")
    assert result.status == 0, result.err
    assert f"a checkpoint of {library}: " in result.lines[0]
    assert terms(tmp_path / "exported") == terms(tmp_path / "back") == TERMS
    first, back = weights(ours), weights(tmp_path / "back")
    assert first.keys() == back.keys()
    assert all(torch.equal(first[name], back[name]) for name in first)
    models = [AutoModelForImageClassification.from_pretrained(tmp_path / name) for name in ("ours", "back")]
    torch.testing.assert_close(*(logits(model, pixels()) for model in models))
    assert models[0].config.id2label == models[1].config.id2label
    picture = Image.effect_noise((20, 17), 50).convert("RGB")
    prepared = [
        AutoImageProcessor.from_pretrained(tmp_path / name)(picture, return_tensors="pt").pixel_values
        for name in ("ours", "back")
    ]
    torch.testing.assert_close(*prepared)


@pytest.mark.parametrize("library", ["transformers", "timm"])
def test_the_card_of_an_export_says_how_it_is_used_and_that_runs(library, ours, tmp_path, monkeypatch):
    pytest.importorskip(library, reason="timm is none of our dependencies; this runs where it is installed")
    assert vit_scratch("export", ours, tmp_path / "out", f"--format={library}").status == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == (library, "image-classification")
    assert "vit-scratch" in card.data.tags
    assert "| 1 | dog |" in card.text
    assert "{" not in card.text
    monkeypatch.chdir(tmp_path / "out")
    picture = Image.effect_noise((12, 12), 50).convert("RGB")
    picture.save("photo.jpg")
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", card.text, re.DOTALL)[1], names)
    prepared = AutoImageProcessor.from_pretrained(ours)(Image.open("photo.jpg"), return_tensors="pt").pixel_values
    expected = logits(AutoModelForImageClassification.from_pretrained(ours), prepared)
    found = names["output"] if library == "timm" else names["output"].logits
    torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("library", ["transformers", "timm"])
def test_what_another_library_cannot_express_is_named_and_nothing_is_written(library, tmp_path):
    save_ours(tmp_path / "ours", norm_first=False, use_final_layer_norm=False)
    before = contents(tmp_path)
    line = refused("export", tmp_path / "ours", tmp_path / "new" / "out", f"--format={library}")
    assert "norm_first=False" in line
    assert contents(tmp_path) == before


def test_only_checkpoints_of_ours_are_exported(peer_folder, tmp_path):
    line = refused("export", peer_folder, tmp_path / "out", "--format=timm")
    assert line.startswith(f"vit-scratch export: {peer_folder} is not of the format vit-scratch: ")
    assert line.endswith(".")
    assert os.listdir(tmp_path) == []


# The Hub


@pytest.fixture(scope="module")
def hub(peer_folder, tmp_path_factory):
    files = {path.name: path.read_bytes() for path in peer_folder.iterdir()}
    other = tmp_path_factory.mktemp("hub")
    save_peer(other / "v1", seed=1)
    older = {path.name: path.read_bytes() for path in (other / "v1").iterdir()}
    torch.save(make_peer().state_dict(), other / "pytorch_model.bin")
    configurations = {name: content for name, content in files.items() if name.endswith(".json")}
    npz = golden_cases.checkpoint("vision_transformer", "token").read_bytes()
    large = {"pytorch_model.bin": b"not asked for", "tf_model.h5": b"", "events.out": b"", "code.py": b"", "x.png": b""}
    with Hub() as hub:
        hub.add("acme/vit-tiny", files | large)
        hub.add("acme/vit-tiny", older, "v1")
        hub.add("acme/B_16", {"B_16.npz": npz, "README.md": b""})
        hub.add("acme/old", {**configurations, "pytorch_model.bin": (other / "pytorch_model.bin").read_bytes()})
        hub.add("acme/nothing", {"README.md": b""})
        hub.add("acme/gated", files, gated="manual")
        yield hub


RUN_COMMANDS = """
import json, sys
from runs import vit_scratch
print(json.dumps([vit_scratch(*command) for command in json.loads(sys.argv[1])]))
"""


def with_hub(environment: dict[str, str], *commands: list[object]) -> list[Result]:
    """Run commands in one process of their own, whose environment says where the Hub is."""
    listed = json.dumps([[str(argument) for argument in command] for command in commands])
    done = python(RUN_COMMANDS, listed, environment=environment)
    assert done.status == 0, done.err
    return [Result(*result) for result in json.loads(done.out)]


NAMES = {
    "plain": ("acme/vit-tiny",),
    "prefix": ("hf-hub:acme/vit-tiny",),
    "revision": ("acme/vit-tiny", "--revision=v1"),
    "npz": ("acme/B_16",),
    "bin": ("acme/old",),
    "nothing": ("acme/nothing",),
    "missing": ("acme/none",),
    "gated": ("acme/gated",),
    "missing revision": ("acme/vit-tiny", "--revision=v7"),
}


@pytest.fixture(scope="module")
def from_hub(hub, tmp_path_factory) -> tuple[Path, dict[str, Result]]:
    """What became of each of the names: the folder of the outputs, and what was printed."""
    root = tmp_path_factory.mktemp("from hub")
    commands = [["import", source, root / "out" / name, *flags] for name, (source, *flags) in NAMES.items()]
    results = with_hub(hub.environment(root / "cache"), *commands)
    return root, dict(zip(NAMES, results, strict=True))


@pytest.mark.parametrize("name", ["plain", "prefix", "bin"])
def test_a_name_on_the_hub_is_fetched_and_imported(name, from_hub):
    root, results = from_hub
    source = NAMES[name][0].removeprefix("hf-hub:")
    prefix = "" if name == "prefix" else f"{source} is no folder here: "
    using = rf"vit-scratch import: {prefix}using the Hub's {source} at commit \w{{7}}\n"
    assert results[name].status == 0
    assert re.fullmatch(using, results[name].err)
    assert results[name].lines[0] == (
        f"read       {NAMES[name][0]}, a checkpoint of transformers: 8,563 parameters, images of 12x12 pixels, 3 labels"
    )
    model = AutoModelForImageClassification.from_pretrained(root / "out" / name)
    torch.testing.assert_close(logits(model, pixels()), logits(make_peer(), pixels()), rtol=1e-5, atol=1e-5)
    assert list(AutoImageProcessor.from_pretrained(root / "out" / name).image_mean) == [0.2] * 3


def test_a_revision_can_be_named(from_hub):
    root, results = from_hub
    assert results["revision"].status == 0, results["revision"].err
    model = AutoModelForImageClassification.from_pretrained(root / "out" / "revision")
    torch.testing.assert_close(logits(model, pixels()), logits(make_peer(1), pixels()), rtol=1e-5, atol=1e-5)


def test_a_repository_of_an_npz_alone_is_fetched(from_hub):
    root, results = from_hub
    assert results["npz"].status == 0, results["npz"].err
    assert results["npz"].lines[0].startswith("read       acme/B_16, a checkpoint of google: ")
    expected = golden_cases.imported("vision_transformer", "token").model
    model = AutoModelForImageClassification.from_pretrained(root / "out" / "npz")
    assert torch.equal(logits(model, pixels()), logits(expected, pixels()))


@pytest.mark.parametrize("name", ["plain", "prefix", "revision", "npz"])
def test_the_card_of_an_import_from_the_hub_names_its_base_model(name, from_hub):
    root, _ = from_hub
    card = ModelCard.load(root / "out" / name / "README.md")
    assert card.data.base_model == NAMES[name][0].removeprefix("hf-hub:")
    said = terms(root / "out" / name)
    if name in ("plain", "prefix"):  # v1 has no card
        link = said.pop("license_link")
        assert re.fullmatch(r"https://huggingface\.co/acme/vit-tiny/blob/\w{40}/LICENSE", link)
        assert said.items() < TERMS.items()
    else:
        assert said == {}
    shown = re.sub(r"\\(.)", r"\1", card.text)
    assert f"imported from {NAMES[name][0].removeprefix('hf-hub:')}" in shown.replace("hf-hub:", "")


def test_nothing_says_where_the_cache_lies(from_hub):
    root, _ = from_hub
    for path in root.glob("out/*/*"):
        assert str(root).encode() not in path.read_bytes(), path


def test_only_what_is_needed_is_fetched(from_hub, hub):
    fetched = {seen.path.rpartition("/")[2] for seen in hub.asked("HEAD", "/resolve/")}  # before it is fetched
    configuration = {"config.json", "preprocessor_config.json"}
    # The cards tell the licenses.
    assert fetched == {*configuration, "model.safetensors", "B_16.npz", "pytorch_model.bin", "README.md"}
    of_tiny = {seen.path.rpartition("/")[2] for seen in hub.asked("HEAD", "/acme/vit-tiny/resolve/")}
    assert of_tiny == {*configuration, "model.safetensors", "README.md"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "and the Hub's acme/none is not found: it does not exist, or it is private"),
        ("gated", "and the Hub's acme/gated is gated: ask for access on its page"),
        ("missing revision", "and the Hub's acme/vit-tiny has no revision v7."),
        ("nothing", "and the Hub's acme/nothing holds no weights: "),
    ],
)
def test_what_cannot_be_fetched_is_said_in_one_sentence(name, said, from_hub):
    root, results = from_hub
    status, out, err = results[name]
    assert (status, out) == (2, "")
    *using, err = err.splitlines(keepends=True)  # of a repository that is there, its commit
    assert len(using) == (name == "nothing")
    assert err.startswith("vit-scratch import: there is no folder acme/")
    assert said in err
    assert err.endswith(".\n")
    assert not (root / "out" / name).exists()


def test_what_was_fetched_once_needs_no_hub_again(from_hub, hub, tmp_path):
    root, _ = from_hub
    again, other = (["import", f"acme/{name}", tmp_path / name] for name in ("vit-tiny", "other"))
    with socket.socket() as down:
        down.bind(("127.0.0.1", 0))  # and does not listen
        nowhere = {"HF_ENDPOINT": f"http://127.0.0.1:{down.getsockname()[1]}"}
        first, second = with_hub(hub.environment(root / "cache") | nowhere, again, other)
    assert first.status == 0, first.err
    assert {path.name for path in (tmp_path / "vit-tiny").iterdir()} == IMPORTED - {"LICENSE"}
    assert (second.status, second.out, second.err.count("\n")) == (2, "", 1)
    assert "the Hub cannot be reached to fetch acme/other" in second.err
    assert not (tmp_path / "other").exists()


def test_a_folder_here_comes_before_a_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_peer(Path("acme") / "vit-tiny")
    result = vit_scratch("import", "acme/vit-tiny", "out")  # and there is no Hub at all
    assert result.status == 0, result.err
    assert ModelCard.load(tmp_path / "out" / "README.md").data.base_model is None


def test_a_revision_of_what_lies_here_is_refused(ours, tmp_path):
    line = refused("import", ours, tmp_path / "out", "--revision=v1")
    assert line == f"vit-scratch import: revision v1 is of a model on the Hub, and {ours} is on this machine."


def test_a_name_is_not_looked_for_where_the_hub_is_not_to_be_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused("import", "acme/vit-tiny", "out")
    assert line.startswith("vit-scratch import: there is no folder acme/vit-tiny, and the Hub cannot be reached")
    assert os.listdir(tmp_path) == []
