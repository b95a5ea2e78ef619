# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Predictions as a table: whole or not at all, by several processes, and going on where they were interrupted."""

import csv
import json
import os
import shutil
import signal
import socket
import weakref
from pathlib import Path

import pandas as pd
import pytest
import torch
from pictures import noise
from runs import Run, Service, contents, free_port, joining, refused, vit_scratch

from modeling_vit_scratch.data.dataset_loading import load_images
from modeling_vit_scratch.prediction import classifier as prediction
from modeling_vit_scratch.prediction import table as prediction_table
from modeling_vit_scratch.prediction import writing
from modeling_vit_scratch.prediction.classifier import Prediction, predict
from modeling_vit_scratch.prediction.writing import write_predictions


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tables of several processes are compared to the last digit, which depends on how many threads add up."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(digits_run):
    return str(digits_run[0])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Twenty digits of the test split as files."""
    folder = tmp_path_factory.mktemp("digits")
    for index, image in enumerate(load_images("digits")["test"].select(range(20))["image"]):
        (folder / f"{index:02}.png").write_bytes(image["bytes"])
    return folder


# The table


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


READERS = {
    ".jsonl": lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()],
    ".csv": read_csv,
    ".parquet": lambda path: pd.read_parquet(path).to_dict("records"),
}


def test_the_three_formats_hold_the_same(checkpoint, digits, tmp_path):
    folder = digits
    expected = [
        {"file": item.file, "rank": rank, "label": item.labels[rank - 1], "score": item.scores[rank - 1]}
        for item in predict(checkpoint, [str(folder)], top_k=2)
        for rank in (1, 2)
    ]
    assert len(expected) == 40
    for suffix in READERS:
        path = tmp_path / f"table{suffix}"
        result = vit_scratch("predict", checkpoint, folder, "--top-k=2", "--output", path)
        assert (result.status, result.out) == (0, f"20 images written to {path}\n")
        assert [
            row | {"rank": int(row["rank"]), "score": float(row["score"])} for row in READERS[suffix](path)
        ] == expected


@pytest.mark.parametrize("suffix", list(READERS))
def test_any_name_survives_a_table(tmp_path, suffix):
    names = ['a "quoted", name', "ligne\nnouvelle", "日本 ü", "NA", "007"]
    items = [Prediction(f"/pictures/{name}.png", [name], [0.1 + 0.2]) for name in names]
    path = tmp_path / f"table{suffix}"
    write_predictions(items, str(path))
    rows = READERS[suffix](path)
    assert [row["label"] for row in rows] == names
    assert [float(row["score"]) for row in rows] == [0.1 + 0.2] * 5


@pytest.mark.parametrize("suffix", list(READERS))
def test_a_table_is_written_as_the_predictions_come(tmp_path, suffix):
    place = tmp_path / f"table{suffix}"
    alive, most = weakref.WeakSet(), 0

    class Tracked(Prediction):
        __hash__ = object.__hash__

    def predictions():
        nonlocal most
        for index in range(5000):
            item = Tracked(f"/pictures/{index}.png", ["cat", "dog"], [0.75, 0.25])
            alive.add(item)
            most = max(most, len(alive))
            yield item

    assert write_predictions(predictions(), str(place)) == 5000
    assert most <= 2 * writing.WRITTEN_TOGETHER
    rows = READERS[suffix](place)
    assert len(rows) == 10_000
    assert [rows[index]["file"] for index in (0, 1, -1)] == [f"/pictures/{index}.png" for index in (0, 0, 4999)]


@pytest.mark.parametrize("suffix", list(READERS))
def test_no_predictions_are_a_table_without_rows(tmp_path, suffix):
    assert write_predictions([], str(tmp_path / f"table{suffix}")) == 0
    assert len(READERS[suffix](tmp_path / f"table{suffix}")) == 0


def refused_output(checkpoint, output) -> str:
    """The line with which an output is refused before the images are even looked at."""
    return refused("predict", checkpoint, "/no/such/image.png", "--output", output)


@pytest.mark.parametrize("name", ["table", "table.txt", "table.json", "table.jsonl.gz", ".csv"])
def test_an_unknown_format_is_refused_before_any_work(checkpoint, tmp_path, name):
    assert "must end in one of .jsonl, .csv, .parquet." in refused_output(checkpoint, tmp_path / name)


def test_a_place_that_cannot_be_written_is_refused_before_any_work(checkpoint, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("mine")
    assert "folder.csv is a folder: name a file." in refused_output(checkpoint, tmp_path / "folder.csv")
    for place in (tmp_path / "missing" / "table.csv", tmp_path / "file" / "table.csv", "/proc/table.csv"):
        assert f"--output {place} cannot be written: " in refused_output(checkpoint, place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv"]


OLD_TABLE = "file,rank,label,score\nold.png,1,old,1.0\n"


@pytest.mark.parametrize("suffix", list(READERS))
def test_a_table_is_replaced_when_the_new_one_is_whole(checkpoint, digits, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"table{suffix}"
    write_predictions([Prediction("old.png", ["old"], [1.0])], str(path))
    old = path.read_bytes()
    write = writing.OUTPUT_WRITERS[suffix]

    def failing_write(table, place):
        write(table, place)
        assert path.read_bytes() == old
        raise OSError("the disk is full")

    monkeypatch.setitem(writing.OUTPUT_WRITERS, suffix, failing_write)
    command = ("predict", checkpoint, digits / "00.png", "--output", path)
    assert refused(*command) == "vit-scratch predict: the disk is full"
    assert path.read_bytes() == old
    assert sorted(os.listdir(tmp_path)) == [path.name, f"{path.name}.parts"]
    monkeypatch.setitem(writing.OUTPUT_WRITERS, suffix, write)
    result = vit_scratch(*command)
    assert (result.status, result.err) == (0, "vit-scratch predict: goes on: 1 of 1 image done before.\n")
    assert len(READERS[suffix](path)) == 1
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_command_that_is_stopped_leaves_the_old_table_and_what_it_had_done(
    checkpoint, digits, tmp_path, monkeypatch, number
):
    path = tmp_path / "table.csv"
    path.write_text(OLD_TABLE)

    def stopped(tables, place):
        writing._write_csv(tables, place)
        signal.raise_signal(number)

    monkeypatch.setitem(writing.OUTPUT_WRITERS, ".csv", stopped)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background
    result = vit_scratch("predict", checkpoint, digits, "--output", path)
    signal.signal(signal.SIGINT, before)
    expected = "vit-scratch predict: interrupted; the same command goes on.\n"
    assert (result.status, result.err) == (128 + number, expected)
    assert path.read_text() == OLD_TABLE
    assert sorted(os.listdir(tmp_path)) == [path.name, f"{path.name}.parts"]


@pytest.mark.parametrize("suffix", list(READERS))
def test_a_file_that_is_no_table_is_not_replaced(checkpoint, digits, tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    for content in (b"mine\n", b'{"mine": 1}\n', b"[1]\n", b"\xff\xfe\n"):
        path.write_bytes(content)
        line = refused("predict", checkpoint, digits, "--output", path)
        assert line.endswith(f"{path} is not a table of predictions: move it, or name another --output.")
        assert path.read_bytes() == content
    path.write_bytes(b"")  # as `mktemp` makes it
    assert vit_scratch("predict", checkpoint, digits, "--output", path).status == 0


@pytest.mark.parametrize("damage", ["fewer lines", "half a line"])
def test_a_damaged_part_is_refused(checkpoint, digits, tmp_path, monkeypatch, damage):
    command = ("predict", checkpoint, digits, "--output", tmp_path / "table.csv")
    with monkeypatch.context() as patch:
        patch.setattr(prediction_table.Parts, "to_table", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            vit_scratch(*command)
    part = tmp_path / "table.csv.parts" / "00000000.jsonl"
    text = part.read_text()
    part.write_text("".join(text.splitlines(True)[:3]) if damage == "fewer lines" else text[:-20])
    again = "delete it, and the same command computes its predictions again."
    assert refused(*command).endswith(f"{part} is damaged: {again}")
    part.unlink()
    assert vit_scratch(*command).status == 0
    assert len(read_csv(tmp_path / "table.csv")) == 20


@pytest.mark.parametrize("name", ["table.csv", "table"])
def test_a_table_behind_a_link_is_written_where_the_link_leads(checkpoint, digits, tmp_path, name):
    place, link = tmp_path / "elsewhere" / name, tmp_path / "link.csv"
    place.parent.mkdir()
    link.symlink_to(place)
    assert vit_scratch("predict", checkpoint, digits, "--output", link).status == 0
    assert link.is_symlink()
    assert len(read_csv(place)) == 20


@pytest.mark.parametrize("suffix", list(READERS))
def test_a_file_name_that_is_no_utf_8_is_spelled_out(checkpoint, digits, tmp_path, suffix):
    name = os.fsdecode(b"r\xe9sum\xe9.png")
    try:
        shutil.copy(digits / "00.png", tmp_path / name)
    except OSError:
        pytest.skip("the file system has no such names")
    table = tmp_path / f"table{suffix}"
    assert vit_scratch("predict", checkpoint, tmp_path / name, "--output", table).status == 0
    assert READERS[suffix](table)[0]["file"] == f"{tmp_path}/r\\udce9sum\\udce9.png"


def test_if_all_images_are_bad_it_says_so_of_each(checkpoint, tmp_path):
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(b"no picture")
    result = vit_scratch("predict", checkpoint, tmp_path, "--output", tmp_path / "table.csv")
    assert result.status == 1
    assert len(result.err.splitlines()) == 2
    assert (
        result.out
        == f"0 images written to {tmp_path / 'table.csv'}, 2 skipped ({tmp_path / 'table.csv'}.skipped.csv)\n"
    )
    assert (tmp_path / "table.csv").read_text() == "file,rank,label,score\n"


def test_files_are_named_as_they_were_given(checkpoint, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.png").write_bytes(b"")
    result = vit_scratch("predict", checkpoint, digits, "bad.png", "--output", "table.csv")
    assert result.out == "20 images written to table.csv, 1 skipped (table.csv.skipped.csv)\n"


def test_what_could_not_be_read_is_listed_with_the_reason(checkpoint, digits, tmp_path):
    (tmp_path / 'bad, "odd".png').write_bytes(b"")
    command = ("predict", checkpoint, digits, tmp_path / 'bad, "odd".png', "--output", tmp_path / "table.csv")
    result = vit_scratch(*command)
    assert (result.status, result.out.count("20 images written to")) == (1, 1)
    (row,) = read_csv(tmp_path / "table.csv.skipped.csv")
    assert row["file"] == str(tmp_path / 'bad, "odd".png')
    assert f"skipped: {row['reason']}\n" in result.err
    shutil.copy(digits / "00.png", row["file"])
    assert vit_scratch(*command).status == 0
    assert not (tmp_path / "table.csv.skipped.csv").exists()  # a list of other times would mislead


def test_tables_that_differ_by_their_suffix_have_lists_of_their_own(checkpoint, digits, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    vit_scratch("predict", checkpoint, tmp_path / "bad.png", "--output", tmp_path / "table.csv")
    assert vit_scratch("predict", checkpoint, digits, "--output", tmp_path / "table.jsonl").status == 0
    assert (tmp_path / "table.csv.skipped.csv").exists()


# What is not this command's to replace or delete


def table_of(path, *files):
    """A parquet file of images."""
    images = [{"bytes": Path(file).read_bytes(), "path": None} for file in files]
    pd.DataFrame({"image": images}).to_parquet(path)
    return path


LINKS = {
    "itself": lambda path, output: output,
    "a link": lambda path, output: output.symlink_to(path) or output,
    "a hard link": lambda path, output: output.hardlink_to(path) or output,
}


@pytest.mark.parametrize("link", list(LINKS))
def test_a_table_never_replaces_the_images_that_it_is_of(checkpoint, digits, tmp_path, link):
    images = table_of(tmp_path / "images.parquet", digits / "00.png")
    output = images if link == "itself" else LINKS[link](images, tmp_path / "table.parquet")
    before = contents(tmp_path)
    for given in (images, tmp_path, tmp_path / "*.parquet"):
        line = refused("predict", checkpoint, given, "--output", output)
        assert line.endswith(f"{images} is both read and the output: name another output.")
    assert contents(tmp_path) == before


def test_a_table_may_lie_among_the_images_and_is_replaced_there(checkpoint, digits, tmp_path):
    shutil.copy(digits / "00.png", tmp_path)
    for _ in range(2):
        assert vit_scratch("predict", checkpoint, tmp_path, "--output", tmp_path / "table.csv").status == 0
    assert sorted(os.listdir(tmp_path)) == ["00.png", "table.csv"]


@pytest.mark.parametrize("name", ["image", "text", "link", "empty"])
def test_a_file_where_bad_images_are_listed_is_left_if_it_is_no_such_list(checkpoint, digits, tmp_path, name):
    place, notes = tmp_path / "table.csv.skipped.csv", tmp_path / "notes"
    notes.write_text("file,reason\nmine,mine\n")
    {
        "image": lambda: shutil.copy(digits / "00.png", place),
        "text": lambda: place.write_text("file,reason,remark\n"),
        "link": lambda: place.symlink_to(notes),
        "empty": place.touch,
    }[name]()
    before = contents(tmp_path)
    for images in (digits / "00.png", place):
        line = refused("predict", checkpoint, images, "--output", tmp_path / "table.csv")
        assert f"{place} is where images that cannot be read are listed, and holds something else: move it" in line
    assert contents(tmp_path) == before
    assert place.is_symlink() == (name == "link")


def test_a_folder_where_parts_go_is_left_if_it_is_somebody_elses(checkpoint, digits, tmp_path):
    table, elsewhere = tmp_path / "table.csv", tmp_path / "elsewhere"
    elsewhere.mkdir()
    folders = {
        "notes.txt": lambda place: place.mkdir() or (place / "notes.txt").write_text("mine"),
        "plan.json": lambda place: place.mkdir() or (place / "plan.json").write_text('{"tomorrow": "work"}'),
        "no JSON": lambda place: place.mkdir() or (place / "plan.json").write_text("work"),
        "a part": lambda place: place.mkdir() or (place / "00000000.jsonl").write_text("mine"),
        "a link": lambda place: place.symlink_to(elsewhere),
        "a file": lambda place: place.write_text("mine"),
    }
    for number, make in enumerate(folders.values()):
        table = tmp_path / f"{number}.csv"
        make(Path(f"{table}.parts"))
        before = contents(tmp_path)
        line = refused("predict", checkpoint, digits, "--output", table)
        assert f"{table}.parts should hold the parts of {table}, but is something else: move it, or name" in line
        assert contents(tmp_path) == before


def test_what_others_put_among_the_parts_stays(checkpoint, digits, tmp_path, monkeypatch):
    write, parts = prediction_table.Parts.to_table, tmp_path / "table.csv.parts"

    def noting(*given):
        (parts / "notes.jsonl").write_text("mine")
        return write(*given)

    monkeypatch.setattr(prediction_table.Parts, "to_table", noting)
    assert vit_scratch("predict", checkpoint, digits, "--output", tmp_path / "table.csv").status == 0
    assert contents(parts).keys() == {"notes.jsonl"}


def test_a_lock_that_leads_elsewhere_is_not_followed(checkpoint, digits, tmp_path):
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "table.csv.parts").mkdir()
    (tmp_path / "table.csv.parts" / "lock").symlink_to(tmp_path / "notes")
    line = refused("predict", checkpoint, digits, "--output", tmp_path / "table.csv")
    assert f"{tmp_path / 'table.csv.parts' / 'lock'} should be a lock file, but is something else: move it." in line
    assert (tmp_path / "notes").read_text() == "mine"


# Many images


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A hundred images, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("many")
    for index in range(99):
        noise((8, 8), seed=index).save(folder / f"{index:03}.png")
    (folder / "050b.png").write_bytes(b"no picture")
    return folder


SMALL_PARTS = "import modeling_vit_scratch.prediction.table as table; table.PART_SIZE = 10\n"
SMALL_PARTS += "import torch; torch.set_num_threads(1)\n"


@pytest.fixture(scope="module")
def expected(checkpoint, many, tmp_path_factory):
    """The table of the hundred, made at once."""
    path = tmp_path_factory.mktemp("expected") / "table.csv"
    assert vit_scratch("predict", checkpoint, many, "--output", path).status == 1
    return path.read_text()


def table_command(checkpoint, many, table):
    return ("predict", checkpoint, many, "--batch-size=10", "--output", table)


# Dies when the fourth part has been written.
DYING = """
import os, signal
write = table.Parts._write
def dying(self, path, text):
    write(self, path, text)
    if path.name == "00000003.jsonl":
        os.kill(os.getpid(), signal.SIGKILL)
table.Parts._write = dying
"""


def test_the_same_command_goes_on_after_a_kill_without_computing_again(
    checkpoint, many, expected, tmp_path, monkeypatch
):
    command = table_command(checkpoint, many, tmp_path / "table.csv")
    killed = Run(command, tmp_path, before=SMALL_PARTS + DYING).end()
    assert killed.status == -signal.SIGKILL
    assert not (tmp_path / "table.csv").exists()
    computed = []
    top = prediction.Classifier._top
    monkeypatch.setattr(prediction.Classifier, "_top", lambda *given: (computed.append(len(given[1])), top(*given))[1])
    result = vit_scratch(*command)  # with parts of another size, which those that were begun keep
    assert result.status == 1
    assert result.err.splitlines()[0] == "vit-scratch predict: goes on: 40 of 100 images done before."
    assert sum(computed) == 59
    assert (tmp_path / "table.csv").read_text() == expected
    assert len(read_csv(tmp_path / "table.csv.skipped.csv")) == 1
    assert not (tmp_path / "table.csv.parts").exists()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda command: (*command, "--top-k=2"), "top_k"),
        (lambda command: (*command, "--precision=bf16"), "precision"),
        (lambda command: (*command[:2], command[2] / "000.png", *command[3:]), "images"),
    ],
    ids=["top_k", "precision", "images"],
)
def test_what_was_begun_otherwise_is_not_mixed_in(checkpoint, many, tmp_path, change, names):
    command = table_command(checkpoint, many, tmp_path / "table.csv")
    assert Run(command, tmp_path, before=SMALL_PARTS + DYING).end().status == -signal.SIGKILL
    before = contents(tmp_path)
    line = refused(*change(command))
    parts = tmp_path / "table.csv.parts"
    assert line == (
        f"vit-scratch predict: {parts} holds predictions that were begun with other settings ({names}): delete it, or "
        "name another --output."
    )
    assert contents(tmp_path) == before


def begun(command, tmp_path):
    """Begin a table and be killed after its fourth part of ten images."""
    assert Run(command, tmp_path, before=SMALL_PARTS + DYING).end().status == -signal.SIGKILL


def test_images_that_changed_are_not_mixed_with_what_they_were(checkpoint, many, tmp_path):
    images = shutil.copytree(many, tmp_path / "images")
    command, parts = table_command(checkpoint, images, tmp_path / "table.csv"), tmp_path / "table.csv.parts"
    begun(command, tmp_path)
    shutil.copy(images / "001.png", images / "000.png")
    what_to_do = f"changed since the predictions in {parts} were begun: delete that folder to start over, or name"
    assert f"{images / '000.png'} has {what_to_do} another --output." in refused(*command)
    (images / "098.png").write_bytes(b"")
    assert f"{images / '000.png'} and 1 more have {what_to_do}" in refused(*command)
    shutil.rmtree(parts)
    assert vit_scratch(*command).status == 1
    assert not parts.exists()


def test_a_parquet_file_that_changed_is_not_mixed_with_what_it_was(checkpoint, many, tmp_path):
    images = table_of(tmp_path / "images.parquet", *sorted(many.iterdir()))
    command = table_command(checkpoint, images, tmp_path / "table.csv")
    begun(command, tmp_path)
    os.utime(images, ns=(1, 1))
    assert f"{images} has changed since the predictions in" in refused(*command)


def test_another_checkpoint_is_noticed(checkpoint, many, tmp_path):
    other = shutil.copytree(checkpoint, tmp_path / "checkpoint", ignore=shutil.ignore_patterns("checkpoint-*"))
    command = table_command(other, many, tmp_path / "table.csv")
    assert Run(command, tmp_path, before=SMALL_PARTS + DYING).end().status == -signal.SIGKILL
    os.utime(other / "model.safetensors", ns=(1, 1))  # as if trained again
    assert "begun with other settings (checkpoint)" in refused(*command)


def test_several_processes_share_the_images_out_without_overlap(checkpoint, many, expected, tmp_path):
    # Each process notes what it computes.
    noting = (
        SMALL_PARTS
        + "write = table.Parts._write\n"
        + "def noting(self, path, text):\n    write(self, path, text)\n"
        + f"    print(path.name, file=open(f'{tmp_path}/wrote-{{os.environ[\"RANK\"]}}.txt', 'a'))\n"
        + "table.Parts._write = noting\n"
    )
    port, command = free_port(), table_command(checkpoint, many, tmp_path / "table.csv")
    runs = [Run(command, tmp_path, before=f"{joining(rank, port)}\n{noting}") for rank in range(2)]
    done = [run.end() for run in runs]
    table, skipped = tmp_path / "table.csv", tmp_path / "table.csv.skipped.csv"
    assert f"99 images written to {table}, 1 skipped ({skipped})\n" in done[0].out, done
    assert table.read_text() == expected
    wrote = [(tmp_path / f"wrote-{rank}.txt").read_text().split() for rank in range(2)]
    shares = [[name for name in names if name.endswith(".jsonl")] for names in wrote]
    assert [len(share) for share in shares] == [5, 5]
    assert sorted(shares[0] + shares[1]) == [f"{number:08}.jsonl" for number in range(10)]


def test_two_commands_for_one_table_end_with_a_table_and_a_sentence(checkpoint, digits, tmp_path, monkeypatch):
    table = tmp_path / "table.csv"
    write, commands = prediction_table.Parts.to_table, []

    def overtaken(*given):
        monkeypatch.setattr(prediction_table.Parts, "to_table", write)
        commands.append(vit_scratch("predict", checkpoint, digits, "--output", table))  # which finds the parts done
        return write(*given)

    monkeypatch.setattr(prediction_table.Parts, "to_table", overtaken)
    line = refused("predict", checkpoint, digits, "--output", table)
    assert line.startswith(f"vit-scratch predict: {table}.parts was emptied by another command for the same table")
    assert commands[0].status == 0
    assert len(read_csv(table)) == 20


# Stops in the middle and waits, as one does that has long to go.
WAITING = """
write = table.Parts.write
def waiting(self, *arguments):
    write(self, *arguments)
    print("wrote a part", flush=True)
    import signal
    signal.pause()
table.Parts.write = waiting
"""


def test_a_second_command_for_a_table_is_refused_while_the_first_one_lives(checkpoint, many, expected, tmp_path):
    command = table_command(checkpoint, many, tmp_path / "table.csv")
    first = Service(command, tmp_path, before=SMALL_PARTS + WAITING)
    before = contents(tmp_path / "table.csv.parts")
    line = refused(*command)
    holder = f"process {first.process.pid} on {socket.gethostname()}"
    assert line == (
        f"vit-scratch predict: {holder} is writing {tmp_path / 'table.csv'}: wait for it, or name another --output."
    )
    assert contents(tmp_path / "table.csv.parts") == before
    first.end(signal.SIGKILL)
    assert vit_scratch(*command).status == 1
    assert (tmp_path / "table.csv").read_text() == expected


def test_a_command_that_fails_before_the_first_part_leaves_nothing(checkpoint, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction.Classifier, "predict", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        vit_scratch("predict", checkpoint, digits, "--output", tmp_path / "table.csv")
    assert list(tmp_path.iterdir()) == []


def test_several_processes_print_no_list(checkpoint, many, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    line = refused("predict", checkpoint, many)
    assert line == "vit-scratch predict: several processes cannot print one list: name a table with --output."
