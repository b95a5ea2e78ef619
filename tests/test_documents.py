# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What README.md and docs/ say is so: their Python runs, their links lead somewhere, their commands are commands."""

import argparse
import importlib
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import HfApi
from pictures import noise
from runs import SMALL, classes_of_pictures, vit_scratch
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

import modeling_vit_scratch
from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification
from modeling_vit_scratch.cli import VERBS
from modeling_vit_scratch.presets import preset_names, recipe_names
from modeling_vit_scratch.training.recipes import parse_recipe

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Whose blocks go on where the one before ended; all others stand alone.
IN_ONE_SESSION = ("walkthrough.md",)


def python_of(document: Path) -> list[str]:
    blocks = re.findall(r"```python\n(.*?)```", document.read_text("utf-8"), re.DOTALL)
    return ["\n".join(blocks)] if document.name in IN_ONE_SESSION else blocks


BLOCKS = [
    pytest.param(block, id=f"{document.name}-{index}")
    for document in DOCUMENTS
    for index, block in enumerate(python_of(document))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_python_block_runs_after_the_quickstart(block, digits_run, digits_exports, tmp_path, monkeypatch):
    shutil.copytree(digits_run[0], tmp_path / "outputs" / "digits", ignore=shutil.ignore_patterns("checkpoint-*"))
    for folder in digits_exports[0].values():
        (tmp_path / "outputs" / folder.name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "block", "exec"), {"__name__": "block"})


def test_the_layers_of_the_readme_have_the_shapes_in_its_comments():
    block = next(block for (block,) in (item.values for item in BLOCKS) if "PatchEmbedding(" in block)
    shapes = []
    namespace = {"check": lambda x: shapes.append(tuple(x.shape))}
    exec(re.sub(r"^(x = .*?)  # \(.*$", r"\1; check(x)", block, flags=re.MULTILINE), namespace)
    said = re.findall(r"^x = .*#( \(.*\))$", block, re.MULTILINE)
    assert len(said) == 5
    assert [f" {shape}" for shape in shapes] == said


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(document):
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", document.read_text("utf-8")):
        path, _, heading = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            assert heading in [title.lower().replace(" ", "-") for title in headings], link


def test_every_command_names_a_verb_a_recipe_and_a_preset_that_exist():
    text = "\n".join(document.read_text("utf-8") for document in DOCUMENTS)
    commands = re.findall(r"^(?:\.venv/bin/)?vit-scratch (\S+) (.*)$", text, re.MULTILINE)
    assert {verb for verb, _ in commands} == set(VERBS)
    for verb, rest in commands:
        if verb in ("train", "pretrain"):
            assert rest.split()[0] in recipe_names()
    for model in re.findall(r"--model (vit-\S+|article|digits)", text):
        assert model.strip("`") in preset_names()


# Their commands take hours, on data that is not here, and the scripts have tests of their own; those of the last one
# are what the fixture `digits_exports` runs.
TESTED_ELSEWHERE = ("performance.md", "results.md", "scale.md", "deployment.md")
# A step in place of a training, and what the small checkpoints do not say as large ones do.
SHORT = {"train": ["--max_steps=1", "--dataloader_num_workers=0"], "pretrain": ["--max_steps=1"]}

UNSAID = {
    "vit_b_16.pth": ["--config_overrides=num_attention_heads=2"],
    "image-folder": ["--config_overrides=num_hidden_layers=1,hidden_size=48,intermediate_size=48"],
}


def commands_of(document: Path) -> list[list[str]]:
    """The commands of our own in a document that end by themselves, as a shell would take them apart."""
    blocks = re.findall(r"```bash\n(.*?)```", document.read_text("utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("vit-scratch ")]
    # A page that is served until somebody stops it, which tests/test_demo.py does; and graphs of ONNX, which take long
    # to write, and which tests/test_int8.py and tests/test_deployment.py write.
    served = [command for command in commands if command[1] == "demo" and "--space" not in command]
    graphs = [command for command in commands if {"int8", "onnx"} & set(command)]
    # The article's own model at its own size, which tests/test_dry_run.py runs.
    large = [command for command in commands if command[1:3] == ["dry-run", "--format"]]
    return [command[1:] for command in commands if command not in served + graphs + large]


def all_commands() -> list[list[str]]:
    """Those of all documents in order, each once."""
    documents = [document for document in DOCUMENTS if document.name not in TESTED_ELSEWHERE]
    commands = [tuple(command) for document in documents for command in commands_of(document)]
    return [list(command) for command in dict.fromkeys(commands)]


def sources(hub, folder: Path) -> None:
    """What the documents import, by its names: small checkpoints of the same lineages."""
    golden = ROOT / "tests" / "golden"
    shutil.copy(golden / "torchvision" / "plain" / "model.pth", folder / "vit_b_16.pth")
    shutil.copy(golden / "vision_transformer" / "token" / "model.npz", folder / "B_16.npz")
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 12, "image_size": 16, "patch_size": 8}
    article = ViTScratchForImageClassification(ViTScratchConfig(**sizes, intermediate_size=16)).state_dict()
    names = {name: name.removeprefix("vit.").replace("in_proj.", "in_proj_") for name in article}
    torch.save({names[name]: tensor for name, tensor in article.items()}, folder / "article.pth")
    dinov2 = folder / "theirs of transformers"
    Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes)).save_pretrained(dinov2)
    places = {
        "timm/vit_small_patch16_224.augreg_in21k_ft_in1k": golden / "timm" / "flexivit",
        "facebook/dinov2-with-registers-base": dinov2,
    }
    for name, place in places.items():
        api = HfApi(endpoint=hub.url, token=hub.token(name.split("/")[0]))
        api.create_repo(name)
        api.upload_folder(repo_id=name, folder_path=place, allow_patterns=["config.json", "model.safetensors"])


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's, of its HTTP library
def test_every_command_runs(digits_run, open_hub, tmp_path, monkeypatch):
    hub = open_hub(large=10_000_000)
    sources(hub, tmp_path)
    monkeypatch.setenv("HF_TOKEN", hub.token("your-name"))
    classes_of_pictures(tmp_path / "photos")
    classes_of_pictures(tmp_path / "more-photos")
    (tmp_path / "unlabelled").mkdir()
    for index in range(30):
        noise((9, 11), seed=index).save(tmp_path / "unlabelled" / f"{index}.png")
    noise((30, 20)).save(tmp_path / "holiday.jpg")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits_run[0], "outputs/digits", ignore=shutil.ignore_patterns("checkpoint-*"))
    first = ["train", "digits", *SMALL, "--data=photos", "--output_dir=outputs/pets", "--max_steps=1"]
    for command in (first, ["push", "outputs/pets", "your-name/pets", "--private"], *all_commands()):
        for name in new_places(command):
            shutil.rmtree(name, ignore_errors=True)
        more = [] if command is first else SHORT.get(command[0], []) + UNSAID.get(command[1], [])
        result = vit_scratch(*command, *more)
        assert result.status == 0, (command, result.err)


def new_places(command: list[str]) -> list[str]:
    """The folders that a command makes, which must not be there."""
    named = [command[index + 1] for index, word in enumerate(command) if word in ("--output_dir", "--out", "--space")]
    return [*named, *([command[2]] if command[0] in ("import", "export") else [])]


def script_commands() -> list[tuple[str, ...]]:
    """What the documents say of our scripts in Python, in blocks and within sentences: script, arguments."""
    texts = [document.read_text("utf-8").replace("\\\n", " ") for document in DOCUMENTS]
    code = [code for text in texts for code in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
    lines = [line for block in code for line in block.splitlines()]
    lines += [" ".join(inline.split()) for text in texts for inline in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    called = (
        re.match(r"(?:\w+=\S+ )*(?:python|torchrun|accelerate launch)\b.*?scripts/(\w+)\.py(.*)", line)
        for line in lines
    )
    commands = ((found[1], *shlex.split(found[2], comments=True)) for found in called if found)
    return [command for command in dict.fromkeys(commands) if "…" not in command]


class UnderstoodError(Exception):
    """The arguments of a script are such as it takes."""


@pytest.mark.parametrize("command", script_commands(), ids=" ".join)
def test_every_script_takes_the_arguments_that_are_named(command, monkeypatch, capsys):
    """The scripts measure for hours: each begins here, and ends where it has understood what is asked of it."""
    script, *arguments = command
    if script == "train":
        assert parse_recipe(arguments[0], [*arguments[1:], "--use_cpu"])
        return
    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)

        def stop(parser, *given, parse=parse):
            parse(parser, *given)
            raise UnderstoodError

        monkeypatch.setattr(argparse.ArgumentParser, name, stop)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
    with pytest.raises(UnderstoodError):
        runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")


def test_every_training_that_was_measured_is_one_that_can_be_repeated():
    """The recipes of documents whose commands take hours: each is understood."""
    found = 0
    for document in DOCUMENTS:
        for block in re.findall(r"```bash\n(.*?)```", document.read_text("utf-8").replace("\\\n", " "), re.DOTALL):
            for verb, rest in re.findall(r"^vit-scratch (train|pretrain) (.*)$", block, re.MULTILINE):
                recipe, *flags = shlex.split(rest, comments=True)
                assert parse_recipe(recipe, flags, verb)
                found += 1
    assert found > 5


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["version"], citation["license"]) == (modeling_vit_scratch.__version__, "Apache-2.0")


def test_every_script_that_is_named_exists():
    for document in DOCUMENTS:
        for script in re.findall(r"scripts/[\w.]+", document.read_text("utf-8")):
            assert (ROOT / script.rstrip(".")).is_file(), script


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_what_a_shell_script_imports_of_the_package_is_there(script):
    for module, names in re.findall(
        r"^from (modeling_vit_scratch[\w.]*) import (.+)$", script.read_text("utf-8"), re.M
    ):
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
