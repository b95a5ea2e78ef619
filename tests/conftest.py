# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""For every test: no network, and no trace in the user's caches. Read before any library is."""

import os
import tempfile

import pytest

CACHE = tempfile.TemporaryDirectory(prefix="vit-scratch-tests-")
os.environ |= {"HF_HOME": CACHE.name, "HF_HUB_OFFLINE": "1"}


def pytest_unconfigure():
    CACHE.cleanup()


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """One small training run on the digits, as the command line makes it: its folder, and what it printed."""
    from runs import SMALL, vit_scratch

    folder = tmp_path_factory.mktemp("runs") / "digits"
    flags = ["--num_train_epochs=4", "--learning_rate=5e-3", f"--output_dir={folder}"]
    result = vit_scratch("train", "digits", *SMALL, *flags)
    assert result.status == 0, result.err
    return folder, result


@pytest.fixture(scope="session")
def digits_exports(digits_run, tmp_path_factory):
    """That run as ONNX and as a program of torch.export, as the command line makes them: folders, what was printed."""
    from runs import vit_scratch

    root = tmp_path_factory.mktemp("exports")
    folders = {"onnx": root / "digits-onnx", "torch-export": root / "digits-torch"}
    results = {}
    for name, folder in folders.items():
        results[name] = vit_scratch("export", digits_run[0], folder, "--format", name)
        assert results[name].status == 0, results[name].err
    return folders, results
