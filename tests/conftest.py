# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""For every test: no network, no trace in the user's caches, no setting of the shell. Read before any library is."""

import gc
import json
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from modeling_vit_scratch.system.machine import let_waiting_threads_sleep

# Python looks for garbage after 700 new objects, which is a tenth of the time of importing and tracing.
gc.set_threshold(50_000, 20, 50)

# What may be inherited: where programs and the machine's parts are, how many threads there are, and who asked.
KEPT = re.compile(
    "PATH|TE?MP(DIR)?|LD_LIBRARY_PATH|VIRTUAL_ENV|CUDA_VISIBLE_DEVICES|(OMP|MKL|PYTEST|COV|VIT_SCRATCH)_.*|"
    "SYSTEMROOT|WINDIR|COMSPEC|PATHEXT|(LOCAL)?APPDATA|PROGRAM(DATA|FILES.*)|PYCHARM_HOSTED|TOKENIZERS_PARALLELISM"
)
for name in list(os.environ):
    if not KEPT.fullmatch(name.upper()):
        del os.environ[name]
os.umask(0o022)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # or the test processes wait for each other's threads
let_waiting_threads_sleep()
CACHE = tempfile.TemporaryDirectory(prefix="vit-scratch-tests-")
os.environ |= {"HOME": CACHE.name, "HF_HOME": CACHE.name, "HF_HUB_OFFLINE": "1", "LANG": "C.UTF-8", "TZ": "UTC"}


def pytest_collection_finish():
    # What was imported is there to stay. Each trainer looks for garbage when it begins, which would take a third of the
    # time of a small run; Python does so now and then in any case.
    from accelerate.utils import memory

    gc.freeze()
    memory.gc = SimpleNamespace(collect=lambda: 0)


def pytest_unconfigure():
    CACHE.cleanup()


@pytest.fixture(scope="session", autouse=True)
def digits_read_once():
    """The digits are unpacked once, not for each of a hundred runs."""
    from functools import cache

    from datasets import DatasetDict

    from modeling_vit_scratch.data import dataset_loading as loading

    digits = cache(loading._digits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_digits", lambda: DatasetDict(digits()))
        yield


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """The seconds that the client of the Hub would have slept, and a push between its attempts."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    from modeling_vit_scratch.hub import pushing

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
def made_once(tmp_path_factory):
    """Make folders that all processes of the tests look at, and none changes: made_once("name", how to make it)."""
    from filelock import FileLock
    from forks import Result

    root = tmp_path_factory.getbasetemp()
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "made-once"
    shared.mkdir(exist_ok=True)

    def made_once(name: str, make: Callable[[Path], Result]) -> tuple[Path, Result]:
        folder, printed = shared / name, shared / f"{name}.json"
        with FileLock(shared / f"{name}.lock"):
            if not printed.exists():
                result = make(folder)
                assert result.status == 0, result.err
                printed.write_text(json.dumps(result), encoding="utf-8")
        return folder, Result(*json.loads(printed.read_text(encoding="utf-8")))

    return made_once


@pytest.fixture(scope="session")
def digits_run(made_once):
    """One small training run on the digits, as the command line makes it: its folder, and what it printed."""
    from runs import SMALL, vit_scratch

    flags = ("--num_train_epochs=4", "--learning_rate=5e-3")
    return made_once("digits", lambda folder: vit_scratch("train", "digits", *SMALL, *flags, f"--output_dir={folder}"))


@pytest.fixture(scope="session")
def digits_exports(digits_run, made_once):
    """That run as ONNX and as a program of torch.export, as the command line makes them: folders, what was printed."""
    from runs import vit_scratch

    folders, results = {}, {}
    for format, name in (("onnx", "digits-onnx"), ("torch-export", "digits-torch")):
        flag = f"--format={format}"
        folders[format], results[format] = made_once(
            name, lambda folder, flag=flag: vit_scratch("export", digits_run[0], folder, flag)
        )
    return folders, results
