# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""For every test: no network, and no trace in the user's caches. Read before any library is."""

import gc
import os
import tempfile
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

CACHE = tempfile.TemporaryDirectory(prefix="vit-scratch-tests-")
os.environ |= {"HF_HOME": CACHE.name, "HF_HUB_OFFLINE": "1"}


def pytest_collection_finish():
    # What was imported is there to stay. Trainers look for garbage, and among it they would for a third of a second.
    gc.freeze()


def pytest_unconfigure():
    CACHE.cleanup()


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """The seconds that the client of the Hub would have slept, and a push between its attempts."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    from modeling_vit_scratch import pushing

    naps: list[float] = []
    for module in (_http, file_download, pushing):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=naps.append))
    return naps


@pytest.fixture(scope="module")
def session():
    """What the client keeps for all requests, which goes by no proxy; making it for each test would take most of it."""
    from huggingface_hub import close_session

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        close_session()
        yield
        close_session()


@pytest.fixture
def open_hub(monkeypatch, naps, session):
    """Open a Hub on this machine that is the Hub of this process: with the settings of `Hub`."""
    import transformers
    from hub_server import Hub
    from huggingface_hub import constants

    with ExitStack() as stack:

        def open_hub(**settings) -> Hub:
            hub = stack.enter_context(Hub(**settings))
            monkeypatch.setattr(constants, "ENDPOINT", hub.url)  # no mistake of a test leaves this machine
            template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
            monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
            monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)  # it remembers the Hub of its first call
            return hub

        yield open_hub


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
