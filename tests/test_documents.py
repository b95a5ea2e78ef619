# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What README.md and docs/ say is so: their Python runs, their links lead somewhere, their commands are commands."""

import re
import shutil
from pathlib import Path

import pytest

from modeling_vit_scratch.cli import VERBS
from modeling_vit_scratch.presets import preset_names, recipe_names

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{document.name}-{index}")
    for document in DOCUMENTS
    for index, block in enumerate(re.findall(r"```python\n(.*?)```", document.read_text("utf-8"), re.DOTALL))
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


def test_every_script_that_is_named_exists():
    for document in DOCUMENTS:
        for script in re.findall(r"scripts/[\w.]+", document.read_text("utf-8")):
            assert (ROOT / script.rstrip(".")).is_file(), script
