# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Processes of their own in a hundredth of the time: forked from one that has imported the libraries, and not us.

Nothing of this package is in them until they import it, so they also stand for those who do not have it.
"""

import gc
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

# All that the package imports, which takes seconds.
LIBRARIES = [
    *("accelerate", "datasets", "evaluate", "jinja2", "kornia.augmentation", "matplotlib.figure", "numpy", "pandas"),
    *("matplotlib.backends.backend_agg", "peft", "PIL.Image", "pyarrow.parquet", "safetensors.torch", "scipy", "torch"),
    *("sklearn.datasets", "sklearn.metrics", "torch.distributed.tensor", "torch.utils.tensorboard", "transformers"),
    *("transformers.pipelines", "transformers.models.auto.modeling_auto", "transformers.trainer", "yaml"),
]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(LIBRARIES)


class Result(NamedTuple):
    """What a process gave back; a negative status is the signal that ended it."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def python(code: str, *arguments: object, environment: dict[str, str] | None = None, cwd: Path | None = None) -> Result:
    """Run code as `python -c` does, where this package is only if it is imported; nobody answers at its input.

    Args:
        code: of Python.
        *arguments: `sys.argv` behind its first.
        environment: all of it; by default that of the tests.
        cwd: the folder it runs in.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = started(code, *arguments, environment=environment, cwd=cwd, out=out, err=err)
        process.join()
        return Result(process.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def started(
    code: str,
    *arguments: object,
    out: Path,
    err: Path,
    environment: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> multiprocessing.process.BaseProcess:
    """The process of `python` while it runs; what it prints goes to two files, or named pipes."""
    given = (code, list(map(str, arguments)), environment, cwd and str(cwd), str(out), str(err))
    process = FORKS.Process(target=_run_code, args=given)
    process.start()
    return process


def _run_code(
    code: str, arguments: list[str], environment: dict[str, str] | None, cwd: str | None, out: str, err: str
) -> None:
    as_a_program(out, err)
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
        _libraries_read_the_environment()
    if cwd is not None:
        os.chdir(cwd)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


def as_a_program(out: str, err: str) -> None:
    """Make a forked process one as a shell starts it, whose output goes to two files."""
    gc.freeze()  # what was imported is there to stay: looking for garbage among it takes a third of a second each time
    gc.set_threshold(50_000, 20, 50)
    os.setsid()  # a signal to its group is not one to the tests
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` has it ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored in the background
    multiprocessing.set_start_method("fork", force=True)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # to the end
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115  # to the end


def _libraries_read_the_environment() -> None:
    """Let the libraries, which read it when they are imported, have the settings of today."""
    import transformers
    from huggingface_hub import constants

    importlib.reload(constants)
    # The code of other models, which is found where the tests themselves keep theirs.
    sys.path[:] = [path for path in sys.path if not Path(path, "transformers_modules").is_dir()]
    modules = os.environ.get("HF_MODULES_CACHE", os.path.join(constants.HF_HOME, "modules"))
    for module in (transformers.utils.hub, transformers.dynamic_module_utils):
        module.HF_MODULES_CACHE = modules
