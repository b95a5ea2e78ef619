# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""No output of a command is one of its inputs, and only what is a command's own is deleted."""

import os
import shutil

import pytest
from pictures import noise
from runs import contents, refused, vit_scratch

from modeling_vit_scratch.system.folders import check_not_an_input, delete


@pytest.fixture
def checkpoint(digits_run, tmp_path):
    """A copy of a checkpoint."""
    return shutil.copytree(digits_run[0], tmp_path / "checkpoint", ignore=shutil.ignore_patterns("checkpoint-*"))


@pytest.fixture
def image(tmp_path):
    noise((8, 8)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_a_file_is_an_input_by_whatever_name(tmp_path):
    file, other = tmp_path / "file", tmp_path / "other"
    file.touch()
    other.touch()
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "hard").hardlink_to(file)
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in ("file", "link", "hard", "folder/link", "folder/../" + tmp_path.name + "/file"):
        for output, given in ((tmp_path / name, file), (file, tmp_path / name)):
            with pytest.raises(ValueError, match=r" is both read and the output: name another output\."):
                check_not_an_input(output, [other, given])
    check_not_an_input(file, [other, tmp_path, "missing", "owner/name", "a" * 5000, "\0"])
    check_not_an_input(tmp_path / "new", [tmp_path, tmp_path / "new"])


def test_a_folder_is_no_output_if_an_input_is_in_it(tmp_path):
    deep = tmp_path / "output" / "far" / "below"
    deep.mkdir(parents=True)
    (tmp_path / "link").symlink_to(deep)
    (deep / "elsewhere").symlink_to(tmp_path)
    for given in (deep, tmp_path / "link", deep / "elsewhere"):
        with pytest.raises(ValueError, match=r" is read and lies in the output .*: name another output"):
            check_not_an_input(tmp_path / "output", [given])
    with pytest.raises(ValueError, match="is both read and the output"):
        check_not_an_input(tmp_path / "link", [deep])
    check_not_an_input(deep, [tmp_path, tmp_path / "output" / "far"])


def test_a_link_is_deleted_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for _ in range(2):  # what is gone is gone
        delete(tmp_path / "link")
        assert os.listdir(tmp_path) == ["folder"]
    delete(tmp_path / "folder")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["image.png", "link.png", "hard.png", "checkpoint/config.json", "link.json"])
def test_a_dry_run_does_not_write_over_its_image_or_its_model(checkpoint, image, tmp_path, name):
    (tmp_path / "link.png").symlink_to(image)
    (tmp_path / "hard.png").hardlink_to(image)
    (tmp_path / "link.json").symlink_to(checkpoint / "preprocessor_config.json")
    before = contents(tmp_path)
    line = refused("dry-run", checkpoint, "--image", image, "--output", tmp_path / name)
    assert line.endswith(" is both read and the output: name another output.")
    assert contents(tmp_path) == before


def test_a_dry_run_may_be_kept_beside_the_model_and_is_replaced_there(checkpoint, image):
    for _ in range(2):
        result = vit_scratch("dry-run", checkpoint, "--image", image, "--output", checkpoint / "dry-run.txt")
        assert result.status == 0


FOLDERS = {
    "explain": lambda checkpoint, image, output: ("explain", checkpoint, image, "--output", output),
    "import": lambda checkpoint, image, output: ("import", checkpoint, output),
    "export to timm": lambda checkpoint, image, output: ("export", checkpoint, output, "--format=timm"),
    "export to a file": lambda checkpoint, image, output: ("export", checkpoint, output, "--format=torch-export"),
}


@pytest.mark.parametrize("verb", list(FOLDERS))
def test_a_new_folder_is_neither_the_checkpoint_nor_an_image(checkpoint, image, tmp_path, verb):
    (tmp_path / "link").symlink_to(checkpoint)
    before = contents(tmp_path)
    for output in (checkpoint, tmp_path / "link", tmp_path, image):
        line = refused(*FOLDERS[verb](checkpoint, image, output))
        assert line.endswith(f"{output} already exists: name a new folder.")
    assert contents(tmp_path) == before
