# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Text of others steers no terminal, computes in no table, marks up no page, and names no file that cannot be."""

import ast
import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from pictures import noise
from runs import CHECKPOINT, vit_scratch
from transformers import AutoConfig

from modeling_vit_scratch import cli
from modeling_vit_scratch.text import counted, for_code, for_csv, for_file_name, for_markdown, for_terminal

EVIL = "a\x1b[2J\x07\n\u202eb\x9b"
SHOWN = "a\\x1b[2J\\x07\\n\\u202eb\\x9b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (EVIL, SHOWN),
        ("Grüße, 日本 🙂 e\u0301", "Grüße, 日本 🙂 e\u0301"),
        ("a\tb\u2028c\u00a0d\u200fe", "a\\tb\\u2028c\\xa0d\\u200fe"),
        ("\udcff.png", "\\udcff.png"),
    ],
)
def test_a_terminal_shows_what_would_steer_it(text, expected):
    assert for_terminal(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$$x$$ costs $5", r"\$\$x\$\$ costs \$5"),
        ("- no list", r"\- no list"),
        ("+ no list", r"\+ no list"),
        ("=== no heading", r"\=== no heading"),
        ("1. no list", r"1\. no list"),
        ("12) no list", r"12\) no list"),
        ("3.5 and C++ and a-b = c", "3.5 and C++ and a-b = c"),
        (":hugs: @someone", r"\:hugs: \@someone"),
        ("https://example.org", r"https\://example.org"),
        ("x^2 [^1] ~~a~~", r"x\^2 \[\^1\] \~\~a\~\~"),
        ("\x1b[31m \u202e", r"\\x1b\[31m \\u202e"),
    ],
)
def test_markdown_has_no_markup_formula_emoji_or_mention_of_others(text, expected):
    assert for_markdown(text) == expected


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@SUM(1)", "\t=1", "\n=1", "-", "=", "-1e5"])
def test_a_cell_that_a_spreadsheet_would_compute_gets_an_apostrophe(text):
    assert for_csv(text) == f"'{text}"


def test_a_carriage_return_ends_no_row():
    assert for_csv("\r=1") == "'\\r=1"
    assert for_csv("a\rb") == "a\\rb"


@pytest.mark.parametrize("text", ["-1", "+3", "-0.5", "7", "a=b", "'", "", "hot-dog", " =1"])
def test_other_cells_are_as_they_are_also_labels_that_are_numbers(text):
    assert for_csv(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hot dog", "hot dog"),
        ("../../etc/passwd", "_.._etc_passwd"),
        (".hidden", "hidden"),
        ("..", "_"),
        ("", "_"),
        ("a\x1b\nb", "a_x1b_nb"),
        ("C:\\a|b?", "C__a_b_"),
        ("end. ", "end"),
        ("\udcff", "_udcff"),
    ],
)
def test_a_file_name_stays_in_its_folder(text, expected):
    assert for_file_name(text) == expected


def test_a_file_name_has_the_characters_that_the_file_system_has(monkeypatch):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    assert for_file_name("Käse 猫") == "Käse _u732b"


@pytest.mark.parametrize("character", ["a", "ß", "日", "🙂", "\x1b", "\udcff"])
def test_a_file_name_leaves_room_for_number_and_suffix_and_cuts_no_character(character, tmp_path):
    name = for_file_name(character * 255)
    assert 190 < len(name.encode()) <= 200
    (tmp_path / f"00001-{name}.png").touch()


@pytest.fixture(scope="module")
def evil(digits_run, tmp_path_factory):
    """The small run's checkpoint with names of classes that steer a terminal, begin formulas, and mark up a page."""
    folder = tmp_path_factory.mktemp("evil") / "checkpoint"
    folder.mkdir()
    for name in CHECKPOINT:
        shutil.copyfile(digits_run[0] / name, folder / name)
    config = AutoConfig.from_pretrained(folder)
    config.id2label = {index: f"={index}{EVIL}$x$猫" for index in range(10)}
    config.label2id = {label: index for index, label in config.id2label.items()}
    config.save_pretrained(folder)
    for name in CHECKPOINT - {"config.json"}:
        shutil.copyfile(digits_run[0] / name, folder / name)
    noise((9, 8)).save(folder / "=2+\x1b[31m.png")
    (folder / "-bad\x1b.png").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "CHECKPOINT", "CHECKPOINT", "--top_k", "3"),
        ("predict", "CHECKPOINT", "CHECKPOINT", "--output", "NEW\x1b.csv"),
        ("explain", "CHECKPOINT", "CHECKPOINT", "--output", "NEW\x1b"),
        ("explain", "CHECKPOINT", "CHECKPOINT", "--output", "NEW\x1b", "--label", "none\x1b"),
        ("evaluate", "CHECKPOINT", "digits"),
        ("evaluate", "CHECKPOINT\x1b", "digits"),
        ("dry-run", "CHECKPOINT", "--output", "NEW\x1b"),
        ("dry-run", "CHECKPOINT", "--image", "CHECKPOINT/-bad\x1b.png"),
        ("no\x1b",),
    ],
    ids=ascii,
)
def test_no_verb_lets_a_name_steer_the_terminal(evil, tmp_path, command):
    words = (word.replace("CHECKPOINT", str(evil)).replace("NEW", str(tmp_path / "new")) for word in command)
    result = vit_scratch(*words)
    assert result.err or result.out
    for line in [*result.out.split("\n"), *result.err.split("\n")]:
        assert all(character.isprintable() or character == "\t" for character in line), line


def test_training_shows_names_of_classes_on_their_lines(tmp_path):
    for index, name in enumerate(("a\x1b[2J", "b\nc")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for seed in range(4):
            noise((9, 8), seed=10 * index + seed).save(tmp_path / "data" / name / f"{seed}.png")
    (tmp_path / "data" / "b\nc" / "\x1b.png").write_bytes(b"")
    flags = ("--num_train_epochs=1", "--dataloader_num_workers=0", "--report_to=none", "--train_val_split=0.5")
    output = tmp_path / "run"
    result = vit_scratch("train", "digits", *flags, f"--data={tmp_path / 'data'}", f"--output_dir={output}")
    assert (result.status, result.err) == (0, "")
    assert all(line.isprintable() for line in result.lines)
    assert any(re.search(r"a\\x1b\[2J \d, b\\nc \d", line) for line in result.lines)
    scored = vit_scratch("evaluate", output, tmp_path / "data")
    assert all(line.isprintable() for line in [*scored.lines, *scored.err.splitlines()])
    assert {line.split("  ")[0] for line in scored.lines[2:4]} == {"a\\x1b[2J", "b\\nc"}


def test_the_tables_hold_no_formulas_and_the_same_names(evil, tmp_path):
    assert vit_scratch("predict", evil, evil, "--output", tmp_path / "table.csv").status == 1
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == f"{evil}/=2+\x1b[31m.png"
    assert row["label"].startswith("'=")
    assert EVIL in row["label"]
    assert float(row["score"]) > 0
    with open(tmp_path / "table.csv.skipped.csv", encoding="utf-8", newline="") as file:
        bad, *others = csv.DictReader(file)
    assert bad["file"] == f"{evil}/-bad\x1b.png"
    assert [row["file"] for row in others] == [f"{evil}/model.safetensors"]


def test_a_file_whose_name_begins_a_formula_is_listed_with_an_apostrophe(evil, tmp_path, monkeypatch):
    monkeypatch.chdir(evil)
    assert vit_scratch("predict", evil, "=2+\x1b[31m.png", "./-bad\x1b.png", "--output", tmp_path / "t.csv").status == 1
    lines = (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1].startswith("'=2+\x1b[31m.png,1,")


# Terminals whose encoding lacks characters


@pytest.fixture(params=["cp1252", "ascii"])
def terminal(request, monkeypatch):
    """Runs a command where the terminal has few characters, as `PYTHONIOENCODING` or the locale makes it."""

    def run(*arguments: object) -> tuple[int, str, str]:
        # As Python opens them: the standard output raises for what it lacks, the standard error escapes it.
        streams = [
            io.TextIOWrapper(io.BytesIO(), request.param, errors, newline="\n")
            for errors in ("strict", "backslashreplace")
        ]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code or 0
        for stream in streams:
            stream.flush()
        return status, *(stream.buffer.getvalue().decode(request.param) for stream in streams)

    return run


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("predict", "CHECKPOINT", "CHECKPOINT", "PICTURE", "--top_k", "3"), 1),
        (("predict", "CHECKPOINT", "PICTURE", "--output", "NEW.csv"), 0),
        (("explain", "CHECKPOINT", "PICTURE", "--output", "NEW"), 0),
        (("evaluate", "CHECKPOINT", "PICTURE"), 2),
        (("dry-run", "CHECKPOINT", "--image", "猫"), 2),
        (("train", "digits", "--help"), 0),
        (("--help",), 0),
        (("猫",), 2),
    ],
    ids=ascii,
)
def test_a_terminal_that_lacks_characters_shows_escapes_and_the_command_goes_on(
    evil, tmp_path, terminal, command, status
):
    shutil.copyfile(evil / "=2+\x1b[31m.png", tmp_path / "猫.png")
    (tmp_path / "犬.png").write_bytes(b"")
    places = {"CHECKPOINT": str(evil), "PICTURE": str(tmp_path / "猫.png"), "NEW": str(tmp_path / "新")}
    for name, place in places.items():
        command = tuple(word.replace(name, place) for word in command)
    ended, out, err = terminal(*command)
    assert ended == status, err
    shown = f"{out}{err}"
    assert shown
    if str(evil) in command and "--output" not in command:
        assert "\\u732b" in shown


def test_training_goes_on_where_the_terminal_lacks_characters_and_its_files_have_them(tmp_path, terminal):
    for index, name in enumerate(("猫", "犬")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for seed in range(4):
            noise((9, 8), seed=10 * index + seed).save(tmp_path / "data" / name / f"{seed}.png")
    flags = ("--num_train_epochs=1", "--dataloader_num_workers=0", "--report_to=none", "--train_val_split=0.5")
    output = tmp_path / "run"
    status, out, _ = terminal("train", "digits", *flags, f"--data={tmp_path / 'data'}", f"--output_dir={output}")
    assert status == 0
    assert "\\u732b" in out
    assert json.loads((output / "config.json").read_text("utf-8"))["id2label"] == {"0": "犬", "1": "猫"}
    assert "猫" in (output / "README.md").read_text("utf-8")
    status, out, _ = terminal("evaluate", output, tmp_path / "data")
    assert status == 0
    assert "\\u732b  " in out


@pytest.mark.parametrize("folder", ["modeling_vit_scratch", "scripts"])
def test_files_are_utf_8_whatever_the_locale(folder):
    opening = {"open", "fdopen", "read_text", "write_text", "NamedTemporaryFile"}
    for file in (Path(__file__).parents[1] / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            call = ast.unparse(node) if isinstance(node, ast.Call) else ""
            name = getattr(node.func, "attr", getattr(node.func, "id", "")) if call else ""
            if name in opening and not call.startswith(
                ("Image.", "av.", "os.open", "tarfile.", "archive.", "distribution(")
            ):
                assert re.search(r"encoding=|'utf-8'|'[rwax]\+?b'|'/proc/", call), f"{file}:{node.lineno}: {call}"


@pytest.mark.parametrize(
    ("text", "code"), [("a_b*|", "`a_b*|`"), ("a`b", "`` a`b ``"), ("``\n`", "``` ``\\n` ```"), ("cat", "`cat`")]
)
def test_code_in_markdown(text, code):
    assert for_code(text) == code


@pytest.mark.parametrize(
    ("number", "what", "said"), [(1, "image", "1 image"), (0, "image", "0 images"), (1200, "class", "1,200 classes")]
)
def test_what_is_counted_is_in_the_plural_unless_it_is_one(number, what, said):
    assert counted(number, what) == said
