# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Locks: held by one command, and never somebody else's file."""

import os

import pytest
from accelerate import PartialState

from modeling_vit_scratch.system.locking import locked


def hold(path):
    return locked(path, PartialState(cpu=True), "is busy: wait.")


def test_a_lock_names_its_holder_and_goes_in_the_end(tmp_path):
    path = tmp_path / "lock"
    path.write_text("process 1 on a machine that went down")
    with hold(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert not path.exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda path, other: path.symlink_to(other),
        lambda path, other: path.symlink_to(other.with_name("not there")),
        lambda path, other: path.hardlink_to(other),
        lambda path, other: path.write_text("mine"),
        lambda path, other: path.mkdir(),
        lambda path, other: os.mkfifo(path),
    ],
    ids=["link", "dangling link", "hard link", "file of somebody", "folder", "pipe"],
)
def test_what_is_no_lock_is_left_as_it_is(tmp_path, make):
    path, other = tmp_path / "lock", tmp_path / "other"
    other.write_text("mine")
    make(path, other)
    with pytest.raises(ValueError, match="lock should be a lock file, but is something else: move it"), hold(path):
        pass
    assert os.path.lexists(path)
    assert other.read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["lock", "other"]
