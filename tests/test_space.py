# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A Space: the folder has all that it takes to run and nothing private, and it runs, alone and without a network."""

import json
import os
import shutil
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from forks import started
from gradio_client import Client, handle_file
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement
from pictures import noise, oriented
from PIL import Image
from runs import CODE, TERMS, contents, free_port, licensed, refused, same_weights, terms, vit_scratch

from modeling_vit_scratch.data.images import read_image
from modeling_vit_scratch.demo import space
from modeling_vit_scratch.prediction.classifier import predict

ROOT = Path(space.__file__).resolve().parent.parent
# Of what a Space's configuration may be on the Hub.
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture(scope="module")
def checkpoint(digits_run, tmp_path_factory) -> Path:
    """A checkpoint as a run leaves it, with a license and with a path of this machine."""
    folder = tmp_path_factory.mktemp("private place") / "my digits"
    shutil.copytree(digits_run[0], folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"_name_or_path": str(folder)}), encoding="utf-8")
    licensed(folder)
    (folder / "optimizer.pt").write_bytes(b"mine")
    (folder / "adapter_model.safetensors").write_bytes(b"mine")
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("photos") / "holiday.jpg"
    exif = oriented(6)
    exif[0x010E] = "where I live"  # the description
    noise((60, 40)).save(file, exif=exif)
    return file


@pytest.fixture(scope="module")
def written(checkpoint, photo, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spaces") / "digits"
    options = ("--title", "Digits: a demo", "--examples", checkpoint / "sample.png", photo, "--token-merging", 2)
    result = vit_scratch("demo", checkpoint, "--space", folder, *options)
    publish = f"publish    hf upload OWNER/NAME {folder} --repo-type space\n"
    assert (result.status, result.err) == (0, "")
    examples = f"01 sample.png, 02 holiday.png: delete from {folder}/examples what is not for everyone"
    assert result.out == f"written    {folder}\nexamples   {examples}\n{publish}"
    return folder


def test_it_holds_the_app_the_package_and_the_checkpoint(written, checkpoint):
    assert terms(written) == TERMS
    assert {path.name for path in written.iterdir()} == {
        "LICENSE",
        "README.md",
        "app.py",
        "checkpoint",
        "examples",
        "modeling_vit_scratch",
        "requirements.txt",
    }
    assert set(os.listdir(written / "checkpoint")) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert same_weights(written / "checkpoint", checkpoint)
    package = contents(written / "modeling_vit_scratch")
    assert not [name for name in package if "__pycache__" in name]
    for file in (ROOT / "modeling_vit_scratch").rglob("*.py"):
        copy = written / "modeling_vit_scratch" / file.relative_to(ROOT / "modeling_vit_scratch")
        assert copy.read_bytes() == file.read_bytes()
    assert {"configuration/recipes", "configuration/models", "model_card.md", "LICENSE"} <= set(package)


def test_nothing_private_is_in_it(written, checkpoint, photo):
    private = [str(place).encode() for place in (checkpoint.parent, photo.parent, ROOT / "modeling_vit_scratch")]
    for file in written.rglob("*"):
        if file.is_file():
            assert not [place for place in private if place in file.read_bytes()], file
    assert sorted(os.listdir(written / "examples")) == ["01 sample.png", "02 holiday.png"]
    with Image.open(written / "examples" / "02 holiday.png") as example:
        assert not example.getexif()
        assert not example.info
        assert example.tobytes() == read_image(str(photo)).tobytes()


def test_the_hub_understands_its_card(written):
    card = SpaceCard.load(written / "README.md")
    data = card.data.to_dict()
    assert data.pop("python_version") == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert {data.pop("colorFrom"), data.pop("colorTo")} <= COLOURS
    assert len(data.pop("emoji")) == 1
    assert data == {
        "title": "Digits: a demo",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "app_file": "app.py",
        **TERMS,
    }
    assert (written / data["app_file"]).is_file()


def test_its_requirements_are_what_is_installed_here_and_no_more_than_it_needs(written):
    lines = (written / "requirements.txt").read_text().splitlines()
    packages = {item.name: str(item.specifier) for item in map(Requirement, lines)}
    assert {"torch", "transformers", "pillow", "safetensors"} <= set(packages)
    assert not {"gradio", "pytest", "onnx", "peft", "vit-scratch"} & set(packages)
    for name, specifier in packages.items():
        assert specifier == f"=={version(name).split('+')[0]}"


# Arguments: the folder of the Space, and the places that have this package.
ALONE = """
import runpy, socket, sys
folder, *places = sys.argv[1:]
sys.path = [folder, *(path for path in sys.path if path not in places)]

connect = socket.socket.connect
def connect_here(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost"):
        print("went to the network:", address, file=sys.stderr)
        raise OSError("there is no network")
    return connect(self, address)
socket.socket.connect = connect_here

import modeling_vit_scratch
assert modeling_vit_scratch.__file__.startswith(folder), modeling_vit_scratch.__file__
runpy.run_path(f"{folder}/app.py", run_name="__main__")
"""


def test_it_runs_alone_and_says_what_predict_says(written, checkpoint, photo, tmp_path):
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "GRADIO_SERVER_PORT": str(port), "TMPDIR": str(tmp_path)}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
    places, out, err = (ROOT, ROOT / "tests", ROOT / "scripts", ""), tmp_path / "out", tmp_path / "err"
    os.mkfifo(out)
    process = started(ALONE, written, *places, environment=environment, cwd=tmp_path, out=out, err=err)
    with out.open(encoding="utf-8") as printed:
        try:
            first = printed.readline()
            assert first == f"Digits: a demo is at http://127.0.0.1:{port}/\n", err.read_text(encoding="utf-8")
            client = Client(
                f"http://127.0.0.1:{port}", verbose=False, analytics_enabled=False, httpx_kwargs={"timeout": 120}
            )
            _, label, *_ = client.predict(handle_file(str(photo)), api_name="/classify")
        finally:
            process.terminate()
        process.join()
    assert (process.exitcode, err.read_text(encoding="utf-8")) == (
        128 + signal.SIGTERM,
        "vit-scratch demo: interrupted.\n",
    )
    assert not list(tmp_path.glob("vit-scratch-demo-*"))  # what was uploaded
    [expected] = predict(str(checkpoint), [str(photo)], top_k=5, token_merging=2)
    shown = {item["label"]: item["confidence"] for item in label["confidences"]}
    assert list(shown) == expected.labels
    assert list(shown.values()) == pytest.approx(expected.scores, abs=1e-6)


@pytest.mark.parametrize("source", ["someone/digits", "hf-hub:someone/digits"])
def test_a_checkpoint_of_the_hub_stays_there_and_its_commit_is_shown(checkpoint, tmp_path, open_hub, source):
    commit = open_hub().add("someone/digits", checkpoint)
    result = vit_scratch("demo", source, "--space", tmp_path / "space")
    assert result.status == 0, result.err
    assert f"using the Hub's someone/digits at commit {commit[:7]}" in result.err
    assert len(result.err.splitlines()) == 1
    assert result.lines[0] == f"written    {tmp_path / 'space'}"
    assert sorted(os.listdir(tmp_path / "space")) == ["README.md", "app.py", "modeling_vit_scratch", "requirements.txt"]
    card = SpaceCard.load(tmp_path / "space" / "README.md")
    assert card.data.models == ["someone/digits"]
    assert card.data.license_name == TERMS["license_name"]
    app = (tmp_path / "space" / "app.py").read_text()
    assert '    "someone/digits",\n' in app
    assert f'    "--revision={commit}",\n' in app


def test_the_image_of_the_data_is_in_it_only_if_it_is_named(checkpoint, tmp_path):
    lines = space.write_space(str(checkpoint), str(tmp_path / "space"))
    sample = checkpoint / "sample.png"
    assert lines[1] == f"left out   sample.png, which shows one of your images: --examples {sample} publishes it"
    assert not list((tmp_path / "space").rglob("*.png"))


def test_a_folder_that_is_not_empty_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert f"{tmp_path} already exists: name a new folder." in refused("demo", checkpoint, "--space", tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_it_is_written_whole_or_not_at_all(checkpoint, photo, tmp_path, monkeypatch):
    (tmp_path / "bad.jpg").write_bytes(photo.read_bytes()[:200])
    line = refused("demo", checkpoint, "--space", tmp_path / "space", "--examples", tmp_path / "bad.jpg")
    assert "bad.jpg cannot be read" in line

    def full(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr(space, "_card", full)
    assert "the disk is full" in refused("demo", checkpoint, "--space", tmp_path / "space")
    assert os.listdir(tmp_path) == ["bad.jpg"]


def test_the_code_of_a_checkpoint_goes_along_if_it_is_to_run(checkpoint, tmp_path):
    result = vit_scratch("demo", checkpoint, "--space", tmp_path / "space", "--trust_remote_code", "--precision=bf16")
    assert result.status == 0
    assert set(os.listdir(tmp_path / "space" / "checkpoint")) >= CODE
    app = (tmp_path / "space" / "app.py").read_text()
    for flag in ("--title=my digits", "--precision=bf16", "--trust_remote_code"):
        assert f'    "{flag}",\n' in app
    assert "--token_merging" not in app
