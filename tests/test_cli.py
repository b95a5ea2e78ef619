# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The command line as such: verbs, help, exit statuses, and one line for every mistake.

What the verbs do is in test_training.py, test_prediction.py and others; what recipes may say is in test_recipes.py.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from runs import refused, vit_scratch

from modeling_vit_scratch import __version__, cli
from modeling_vit_scratch.presets import recipe_names

VERBS = ("train", "evaluate", "predict")


def words(text: str) -> str:
    return " ".join(text.split())


# Verbs


def test_without_a_verb_it_asks_for_one():
    assert refused() == "vit-scratch: the following arguments are required: VERB; see vit-scratch --help."


def test_an_unknown_verb_is_answered_with_those_that_there_are():
    line = refused("trian", "digits")
    verbs = "train, pretrain, evaluate, predict, dry-run, explain, import, export, push, demo"
    assert line == f"vit-scratch: there is no verb 'trian', the verbs are {verbs}; see vit-scratch --help."


def test_version():
    result = vit_scratch("--version")
    assert (result.status, result.out, result.err) == (0, f"vit-scratch {__version__}\n", "")


# Help


def test_help_names_the_verbs_and_how_to_ask_them():
    result = vit_scratch("--help")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("usage: vit-scratch VERB …\n")
    for verb in VERBS:
        assert f"{verb}: " in words(result.out)
    assert "vit-scratch VERB --help" in result.out


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (
            ("train",),
            ["usage: vit-scratch train RECIPE [--flag value …]", *recipe_names(), "--model", "--learning_rate"],
        ),
        (("evaluate",), ["usage: vit-scratch evaluate", "checkpoint", "data", "--split", "--batch_size"]),
        (("predict",), ["usage: vit-scratch predict", "checkpoint", "images", "--top_k", "--output", ".parquet"]),
        (("demo",), ["usage: vit-scratch demo", "checkpoint", "--examples", "--space", "--server_name", "--port"]),
    ],
)
def test_every_verb_explains_itself(verb, flag, said):
    result = vit_scratch(*verb, flag)
    assert (result.status, result.err) == (0, "")
    text = words(result.out)
    assert text.startswith(said[0])
    assert all(part in text for part in said)
    assert max(map(len, result.out.splitlines())) < 120 or verb == ("train",)  # its lists of choices are as they are


def test_help_after_a_recipe_shows_what_the_recipe_sets():
    before, after = vit_scratch("train", "--help"), vit_scratch("train", "digits", "--help")
    assert (before.status, after.status) == (0, 0)
    seed = re.compile(r"--seed SEED .*? \(default: (\d+)\)")
    assert seed.search(words(before.out))[1] == "42"
    assert seed.search(words(after.out))[1] == "0"


# Help and mistakes need none of the libraries; the flags of training are those of transformers and ours; and what is on
# a picture is said without those that read tables and draw.
AT_ONCE = """
import contextlib, io, sys
from modeling_vit_scratch.cli import VERBS, main

def answer(*arguments):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return main(list(arguments))
        except SystemExit as end:
            return end.code

short = [verb for verb in VERBS if verb not in ("train", "pretrain")]
asked = [["--help"], ["--version"], *([verb, "--help"] for verb in short)]
mistaken = [[], ["trian"], ["train"], ["train", "digts"], ["pretrain"], *([verb, "--misspelt"] for verb in short)]
assert {answer(*arguments) for arguments in asked} <= {0, None}
assert {answer(*arguments) for arguments in mistaken} == {2}
assert answer("export", "checkpoint", "output", "--format=onnx", "--calibrate_images=8") == 2
loaded = {"torch", "transformers", "huggingface_hub", "datasets", "pandas", "numpy", "PIL"} & sys.modules.keys()
assert not loaded, loaded
assert answer("train", "--help") == answer("pretrain", "digits", "--help") == 0
assert "modeling_vit_scratch.model.modeling_vit_scratch" not in sys.modules
assert answer("predict", *sys.argv[1:]) == 0
loaded = {"datasets", "pandas", "pyarrow", "sklearn", "matplotlib", "kornia", "onnx"} & sys.modules.keys()
assert not loaded, loaded
"""


def test_a_command_loads_no_library_that_it_does_not_need(digits_run):
    folder, _ = digits_run
    command = [sys.executable, "-c", AT_ONCE, folder, folder / "sample.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# Mistakes: exit status 2, one line on stderr, no traceback, nothing on stdout (see `refused`)


def test_training_needs_a_recipe_first():
    line = refused("train")
    assert line.startswith("vit-scratch train: name a recipe first: one of ")
    assert all(name in line for name in recipe_names())
    assert refused("train", "--max_steps=1", "digits") == line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("evaluate",), "the following arguments are required: checkpoint, data; see vit-scratch evaluate --help."),
        (("evaluate", "checkpoint"), "the following arguments are required: data"),
        (("evaluate", "checkpoint", "digits", "more"), "unrecognized arguments: more"),
        (("evaluate", "checkpoint", "digits", "--spl", "test"), "unrecognized arguments: --spl test"),
        (("evaluate", "checkpoint", "digits", "--batch_size", "0"), "must be a whole number from 1 on, got '0'"),
        (("evaluate", "checkpoint", "digits"), "there is no checkpoint folder checkpoint."),
        (("predict",), "the following arguments are required: checkpoint, images; see vit-scratch predict --help."),
        (("predict", "checkpoint"), "the following arguments are required: images"),
        (("predict", "checkpoint", "image", "--top", "3"), "unrecognized arguments: --top 3"),
        (("predict", "checkpoint", "image", "--top_k", "many"), "must be a whole number from 1 on, got 'many'"),
        (("predict", "checkpoint", "image", "--top-k", "-1"), "must be a whole number from 1 on, got '-1'"),
        (("predict", "checkpoint", "image", "--output"), "argument --output: expected one argument"),
        (("demo",), "the following arguments are required: checkpoint; see vit-scratch demo --help."),
        (("demo", "checkpoint", "--port", "http"), "must be a whole number from 0 on, got 'http'"),
    ],
)
def test_a_mistake_is_answered_in_one_line(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").write_text("")
    line = refused(*arguments)
    assert line.startswith(f"vit-scratch {arguments[0]}: ")
    assert said in line
    assert os.listdir(tmp_path) == ["image"]


def test_a_message_of_several_lines_becomes_one(monkeypatch):
    def fail(argv):
        raise ValueError("one\n  two\n\nthree")

    monkeypatch.setitem(cli.VERBS, "predict", (fail, ""))
    assert refused("predict") == "vit-scratch predict: one two three"


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    def fail(argv):
        raise KeyError("a bug")

    monkeypatch.setitem(cli.VERBS, "predict", (fail, ""))
    with pytest.raises(KeyError, match="a bug"):
        vit_scratch("predict")


def test_the_package_is_a_program_for_launchers(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vit-scratch", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("modeling_vit_scratch", run_name="__main__")
    assert end.value.code in (0, None)
    assert capsys.readouterr().out == f"vit-scratch {__version__}\n"


def test_the_command_that_training_prints_at_its_end_runs_as_it_is(digits_run, monkeypatch, tmp_path):
    folder, result = digits_run
    name, *arguments = shlex.split(result.lines[-1].removeprefix("predict").strip())
    (script,) = entry_points(group="console_scripts", name=name)
    assert script.load() is cli.main
    monkeypatch.chdir(tmp_path)
    printed = vit_scratch(*arguments)
    assert (printed.status, printed.err) == (0, "")
    assert re.fullmatch(rf"{folder}/sample\.png\t\d \d+\.\d\d%\n", printed.out)
