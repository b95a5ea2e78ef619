# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The output folder: nobody's work is lost in it, nothing half-written looks finished, interrupted runs go on."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from datasets import Dataset
from pictures import noise
from runs import RUN, SMALL, Run, classes_of_pictures, contents, refused, same_weights, vit_scratch

from modeling_vit_scratch.data import checking
from modeling_vit_scratch.training import classification, run_folder, saving
from modeling_vit_scratch.training.report import EpochReport
from modeling_vit_scratch.training.run_folder import CHECKED, RUN_FILES, SAMPLE_SIZE, checkpoints_in, rotate_checkpoints

CHOOSE = "choose another --output_dir"


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    monkeypatch.setattr(classification, "draw_training", lambda *arguments: None)


@pytest.fixture
def command(tmp_path):
    """The beginning of a command that trains on few pictures for a moment."""
    data = classes_of_pictures(tmp_path / "pictures")
    return ("train", "digits", *SMALL, f"--data={data}", "--num_train_epochs=3", "--report_to=none")


@pytest.fixture
def finished(digits_run, tmp_path):
    """A copy of the folder of a finished run, to be spoilt."""
    return shutil.copytree(digits_run[0], tmp_path / "finished")


# Where a run may write


@pytest.mark.parametrize("place", ["a file", "a file/below", "a file/far/below", "/proc/nothing"])
def test_a_folder_that_cannot_be_made_is_refused_before_any_work(command, tmp_path, place):
    (tmp_path / "a file").write_text("mine")
    line = refused(*command, f"--output_dir={tmp_path / place}")
    assert line.startswith(f"vit-scratch train: the output folder {tmp_path / place} cannot be written: ")
    assert (tmp_path / "a file").read_text() == "mine"


def test_a_folder_is_made_with_those_above_it(command, tmp_path):
    output = tmp_path / "far" / "below"
    assert vit_scratch(*command, f"--output_dir={output}").status == 0
    assert (output / "config.json").is_file()


def test_an_empty_folder_is_taken(command, tmp_path):
    (tmp_path / "empty").mkdir()
    assert vit_scratch(*command, f"--output_dir={tmp_path / 'empty'}").status == 0


def test_a_run_is_not_overwritten_by_accident(command, finished):
    before = contents(finished)
    line = refused(*command, f"--output_dir={finished}")
    assert f"{finished} already holds a run: {CHOOSE}, --resume_from_checkpoint true" in line
    assert "--overwrite_output_dir to start anew." in line
    assert contents(finished) == before


def test_a_run_that_was_interrupted_is_a_run_too(command, tmp_path):
    for content in ("checkpoint-20", ".incomplete"):
        (tmp_path / content / content).mkdir(parents=True)
        assert "already holds a run" in refused(*command, f"--output_dir={tmp_path / content}")


@pytest.mark.parametrize("flags", [(), ("--overwrite_output_dir",)])
@pytest.mark.parametrize("name", ["notes.txt", "recipe.yaml", "config.json", "README.md"])
def test_other_files_are_never_overwritten(command, tmp_path, name, flags):
    # A project may well have a README.md or a recipe.yaml: that makes its folder no run.
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / name).write_text("mine")
    assert f"{project} is not empty: {CHOOSE}." in refused(*command, *flags, f"--output_dir={project}")
    assert set(contents(project)) == {"src", name}


def test_a_run_is_overwritten_if_that_is_wanted(command, finished):
    result = vit_scratch(*command, f"--output_dir={finished}", "--overwrite_output_dir")
    assert result.status == 0
    assert {path.name for path in finished.iterdir() if path.is_file()} == RUN - {"training.png"}
    assert not (finished / "checkpoint-80").exists()


def test_a_file_of_others_in_the_folder_of_a_run_stops_that(command, finished):
    (finished / "notes.txt").write_text("what I found out")
    before = contents(finished)
    line = refused(*command, f"--output_dir={finished}", "--overwrite_output_dir")
    assert f"{finished} is not overwritten: it holds notes.txt, which no run wrote." in line
    assert contents(finished) == before


@pytest.mark.parametrize("flag", ["--metric_for_best_model=accuracy", "--model=nothing", "--data=/nothing"])
def test_a_run_that_is_refused_overwrites_nothing(command, finished, flag):
    before = contents(finished)
    refused(*command, f"--output_dir={finished}", "--overwrite_output_dir", flag)
    assert contents(finished) == before


@pytest.mark.parametrize("model", ["", "/", "/checkpoint-80", "/../finished", "/../link"])
def test_a_run_never_overwrites_the_model_that_it_begins_with(command, finished, tmp_path, model):
    (tmp_path / "link").symlink_to(finished)
    before = contents(finished)
    for flag in "--overwrite_output_dir", "--resume_from_checkpoint=true":
        line = refused(*command, f"--model={finished}{model}", f"--output_dir={finished}", flag)
        assert "name another output." in line
    assert contents(finished) == before


@pytest.mark.parametrize("place", ["runs", "runs/*/000.png", "runs/../runs"])
@pytest.mark.parametrize("verb", ["train", "pretrain"])
def test_a_run_never_overwrites_its_images(command, finished, verb, place):
    classes_of_pictures(finished / "runs")  # of which a run may make one itself
    before = contents(finished)
    begin = command if verb == "train" else ("pretrain", "pretrain-masked")
    line = refused(*begin, f"--data={finished / place}", f"--output_dir={finished}", "--overwrite_output_dir")
    assert line.endswith(f" lies in the output {finished}: name another output.")
    assert contents(finished) == before


@pytest.mark.parametrize("place", ["out", "cat/out", "link/far/below"])
@pytest.mark.parametrize("verb", ["train", "pretrain"])
def test_a_run_never_becomes_a_part_of_its_data(command, tmp_path, verb, place):
    data = tmp_path / "pictures"
    (tmp_path / "pictures" / "link").symlink_to(tmp_path)
    before = contents(data)
    begin = command if verb == "train" else ("pretrain", "pretrain-masked", f"--data={data}")
    assert refused(*begin, f"--output_dir={data / place}").endswith(
        f"the output folder {data / place} lies in the data folder {data}, where it could be taken for a class: choose "
        "another --output_dir."
    )
    assert contents(data) == before


def test_a_run_may_lie_beside_files_of_many_images(command, tmp_path):
    rows = {"image": [{"bytes": path.read_bytes()} for path in sorted((tmp_path / "pictures").glob("*/00[0-3].png"))]}
    Dataset.from_dict({**rows, "label": [index // 4 for index in range(12)]}).to_parquet(tmp_path / "train.parquet")
    output = tmp_path / "out"
    assert vit_scratch(*command, f"--data={tmp_path}", f"--output_dir={output}", "--max_steps=1").status == 0


def test_a_run_in_a_data_folder_is_no_class(command, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "pictures" / "run")
    assert refused(*command, f"--output_dir={tmp_path / 'out'}").endswith(
        f"{tmp_path}/pictures/run holds a run of vit-scratch, not the images of a class: move it out of "
        f"{tmp_path}/pictures."
    )


@pytest.mark.parametrize(("place", "how"), [("dangling", "is"), ("dangling/below", "lies below")])
def test_a_link_to_nothing_is_no_output_folder(command, tmp_path, place, how):
    (tmp_path / "dangling").symlink_to("nowhere")
    assert refused(*command, f"--output_dir={tmp_path / place}").endswith(
        f"the output folder {tmp_path / place} {how} a link to something that does not exist: mend the link, or choose "
        "another --output_dir."
    )
    assert not (tmp_path / "nowhere").exists()


def test_a_copy_of_a_checkpoint_is_somebody_elses(command, finished):
    (finished / "checkpoint-80-copy").mkdir()
    line = refused(*command, f"--output_dir={finished}", "--overwrite_output_dir")
    assert f"{finished} is not overwritten: it holds checkpoint-80-copy, which no run wrote." in line


def test_only_checkpoints_of_the_run_are_rotated(tmp_path):
    for name in ("2", "10", "9", "100", "3-copy", "best"):
        (tmp_path / f"checkpoint-{name}").mkdir()
    for limit, left in (None, "2 9 10 100"), (3, "2 10 100"), (1, "2 100"), (1, "2 100"):
        rotate_checkpoints(str(tmp_path), limit, str(tmp_path / "checkpoint-2"))
        names = [path.name.split("-")[1] for path in checkpoints_in(tmp_path)]
        assert " ".join(names) == left
    assert (tmp_path / "checkpoint-3-copy").is_dir()
    assert (tmp_path / "checkpoint-best").is_dir()


def test_only_checkpoints_of_the_run_are_deleted_at_its_end(command, tmp_path, monkeypatch):
    rotate = saving.rotate_checkpoints

    def with_a_copy(**options):
        rotate(**options)
        (tmp_path / "run" / "checkpoint-1-copy").mkdir(exist_ok=True)

    monkeypatch.setattr(saving, "rotate_checkpoints", with_a_copy)
    result = vit_scratch(*command, "--num_train_epochs=2", "--output_dir", tmp_path / "run")
    assert result.status == 0, result.err
    left = sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*"))
    assert len(left) == 2  # the best one, and what is not of the run
    assert "checkpoint-1-copy" in left


def test_a_checkpoint_of_another_folder_gives_no_leave_to_write_over_files(command, finished, tmp_path, monkeypatch):
    interrupted(command, tmp_path / "run", monkeypatch, after=1)
    project = tmp_path / "project"
    project.mkdir()
    (project / "README.md").write_text("mine")
    flags = (f"--resume_from_checkpoint={tmp_path / 'run' / 'checkpoint-1'}", f"--output_dir={project}")
    assert f"{project} is not empty: {CHOOSE}." in refused(*command, *flags)
    assert (project / "README.md").read_text() == "mine"


def test_what_a_run_leaves_is_what_a_run_may_overwrite(finished):
    for path in finished.iterdir():
        assert any(path.match(pattern) for pattern in RUN_FILES), path.name


# Going on


def interrupted(command, output, monkeypatch, *, after: int):
    """Train and stop, as Ctrl+C would, when the line of a later epoch is due."""
    print_line = EpochReport._print_line

    def stop(self, args, state, validation):
        print_line(self, args, state, validation)
        if state.epoch > after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochReport, "_print_line", stop)
        result = vit_scratch(*command, f"--output_dir={output}")
    assert (result.status, result.err) == (
        130,
        "vit-scratch train: interrupted; the same command goes on from the last checkpoint.\n",
    )
    assert {path.name for path in output.iterdir()} == {f"checkpoint-{after}", "recipe.yaml", CHECKED}


def test_an_interrupted_run_goes_on_to_the_same_end(command, tmp_path, monkeypatch):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert vit_scratch(*command, f"--output_dir={whole}").status == 0
    interrupted(command, parted, monkeypatch, after=1)
    result = vit_scratch(*command, f"--output_dir={parted}")
    assert result.status == 0
    assert f"resumed    {parted}/checkpoint-1" in result.lines
    assert [line[:9] for line in result.lines if line.startswith("epoch")] == ["epoch 2/3", "epoch 3/3"]
    assert same_weights(whole, parted)
    assert re.search(
        r"\b0:00:\d\d \(h:mm:ss\) since it was resumed on ", (parted / "README.md").read_text(encoding="utf-8")
    )


def test_it_does_not_go_on_with_other_classes(command, tmp_path, monkeypatch):
    output, other = tmp_path / "run", classes_of_pictures(tmp_path / "other")
    interrupted(command, output, monkeypatch, after=1)
    (other / "cat").rename(other / "lion")
    line = refused(*command, f"--output_dir={output}", f"--data={other}", "--resume_from_checkpoint=true")
    assert "was trained on the 3 classes cat, dog, hot dog, and the data has the 3 classes dog, hot dog, lion" in line


def test_it_does_not_go_on_when_the_images_changed(command, tmp_path, monkeypatch):
    # Some of those that it was trained on would be validated on.
    output, data, kept = tmp_path / "run", tmp_path / "pictures", tmp_path / "kept"
    interrupted(command, output, monkeypatch, after=1)
    shutil.copytree(data, kept)
    before = contents(output)

    def said() -> str:
        line = refused(*command, f"--output_dir={output}")
        assert refused(*command, f"--output_dir={output}", "--resume_from_checkpoint=true") == line
        assert contents(output) == before
        start = f"vit-scratch train: the images are not those that {output}/checkpoint-1 was trained and validated on ("
        end = (
            "), so it could be validated on what it was trained on: put them and the settings of their splits back as "
            "they were, or start anew with --overwrite_output_dir or in another --output_dir."
        )
        assert line.startswith(start)
        assert line.endswith(end)
        shutil.rmtree(data)
        shutil.copytree(kept, data)
        return line.removeprefix(start).removesuffix(end)

    for index in range(60):
        noise(seed=index).save(data / "cat" / f"more-{index}.png")
    more = re.fullmatch(r"in train (\d+) images more, \d+ instead of \d+; in validation (\d+) images more, .*", said())
    assert int(more[1]) + int(more[2]) == 60
    noise(seed=99).save(data / "cat" / "000.png")  # replaced; it draws a split of its own
    assert said().startswith("in train ")
    (data / "cat" / "001.png").rename(data / "dog" / "cat.png")
    assert said() == "in train as many images, 21, but others, or with other labels"
    (data / "cat" / "001.png").unlink()
    assert said() == "in train 1 image fewer, 20 instead of 21"
    assert vit_scratch(*command, f"--output_dir={output}").status == 0  # as they were, though the files are others


def test_images_in_another_order_are_called_that(command, tmp_path, monkeypatch):
    output = tmp_path / "run"
    interrupted(command, output, monkeypatch, after=1)
    images = tmp_path / "pictures" / "dog"
    for name in ("000", "001", "002"):  # some of which are trained on
        (images / f"{name}.png").rename(images / f"z{name}.png")
    assert refused(*command, f"--output_dir={output}") == (
        f"vit-scratch train: the images are not in the order that {output}/checkpoint-1 was trained with (in train the "
        "same images in another order: were files renamed?): put them and the settings of their splits back as they "
        "were, or start anew with --overwrite_output_dir or in another --output_dir."
    )


def test_nor_with_other_splits_of_the_same_images(command, tmp_path, monkeypatch):
    output = tmp_path / "run"
    interrupted(command, output, monkeypatch, after=1)
    flags = (f"--output_dir={output}", "--resume_from_checkpoint=true")
    assert "in train " in refused(*command, *flags, "--split_seed=1")
    assert "in validation " in refused(*command, *flags, "--train_val_split=0.5")
    assert vit_scratch(*command, *flags, "--learning_rate=1e-4").status == 0


def test_a_folder_that_was_moved_has_the_same_images_and_none_is_decoded_again(command, tmp_path, monkeypatch):
    output = tmp_path / "run"
    interrupted(command, output, monkeypatch, after=1)
    monkeypatch.setattr(checking, "decoded", lambda image: pytest.fail("decoded again"))
    (tmp_path / "pictures").rename(tmp_path / "moved")
    flags = (f"--data={tmp_path / 'moved'}", f"--output_dir={output}", "--resume_from_checkpoint=true")
    assert vit_scratch(*command, *flags).status == 0
    assert not (output / CHECKED).exists()  # which names files: the run has ended


def test_a_run_of_an_earlier_version_goes_on_without_a_word_of_its_images(command, tmp_path, monkeypatch):
    output = tmp_path / "run"
    interrupted(command, output, monkeypatch, after=1)
    state = output / "checkpoint-1" / "trainer_state.json"
    content = json.loads(state.read_text())
    del content["stateful_callbacks"]["ImagesOfRun"]
    state.write_text(json.dumps(content))
    assert vit_scratch(*command, f"--output_dir={output}").status == 0


def test_the_folder_of_an_interrupted_run_is_no_checkpoint_but_holds_some(command, tmp_path, monkeypatch):
    output = tmp_path / "run"
    interrupted(command, output, monkeypatch, after=1)
    picture = tmp_path / "pictures" / "cat" / "000.png"
    assert f"{output} holds a run that did not end" in refused("predict", output, picture)
    assert vit_scratch("predict", output / "checkpoint-1", picture).status == 0


def test_it_goes_on_from_the_last_checkpoint_that_is_whole(command, tmp_path, monkeypatch):
    output = tmp_path / "run"
    interrupted(command, output, monkeypatch, after=1)
    shutil.copytree(output / "checkpoint-1", output / "checkpoint-2")
    (output / "checkpoint-2" / "trainer_state.json").unlink()  # written last
    result = vit_scratch(*command, f"--output_dir={output}")
    assert result.status == 0
    assert next(line for line in result.lines if line.startswith("epoch")).startswith("epoch 2/3")


def test_it_goes_on_from_a_checkpoint_that_is_named(command, tmp_path, monkeypatch):
    output = tmp_path / "run"
    interrupted(command, output, monkeypatch, after=1)
    result = vit_scratch(*command, f"--output_dir={output}", f"--resume_from_checkpoint={output / 'checkpoint-1'}")
    assert result.status == 0
    assert (output / "config.json").is_file()


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(command, tmp_path):
    output = tmp_path / "run"
    line = refused(*command, f"--output_dir={output}", "--resume_from_checkpoint=true")
    assert f"{output} holds no checkpoint to resume from; leave out --resume_from_checkpoint." in line
    assert not output.exists()


def test_the_finished_checkpoint_is_no_state_of_training(command, finished, tmp_path):
    # It has no optimiser: training would silently begin anew with its weights.
    line = refused(*command, f"--output_dir={tmp_path / 'run'}", f"--resume_from_checkpoint={finished}")
    assert f"{finished} is no checkpoint to resume from: name a folder checkpoint-<step> of a run." in line
    line = refused(*command, f"--output_dir={tmp_path / 'run'}", f"--resume_from_checkpoint={tmp_path / 'none'}")
    assert "is no checkpoint to resume from" in line


def test_resuming_can_be_declined(command, tmp_path):
    assert vit_scratch(*command, f"--output_dir={tmp_path / 'run'}", "--resume_from_checkpoint=false").status == 0


# Whole or not at all


def test_a_killed_run_leaves_nothing_that_loads_and_goes_on(command, tmp_path):
    output = tmp_path / "run"
    arguments = [*command, "--num_train_epochs=400", f"--output_dir={output}"]
    printed = tmp_path / "printed"
    os.mkfifo(printed)  # so that the lines are read when they are printed
    run = Run(arguments, tmp_path, f"import os; os.dup2(os.open({str(printed)!r}, os.O_WRONLY), 1)")
    deadline = time.monotonic() + 120
    with printed.open() as lines:
        for line in lines:
            if line.startswith("epoch 5/") or time.monotonic() > deadline:
                break
        run.process.kill()
    assert run.end().status == -signal.SIGKILL
    assert line.startswith("epoch 5/")
    assert all(
        path.name.startswith(("checkpoint-", ".incomplete", "recipe.yaml", CHECKED)) for path in output.iterdir()
    )
    assert f"{output} holds a run that did not end" in refused("evaluate", output, "digits")
    flags = ("--num_train_epochs=7", "--resume_from_checkpoint=true", "--dataloader_num_workers=0")
    assert vit_scratch(*command, *flags, f"--output_dir={output}").status == 0
    assert vit_scratch("predict", output, output / "sample.png").status == 0


@pytest.mark.parametrize("moved", [0, 5, 10])
def test_a_checkpoint_that_is_being_replaced_does_not_load(command, tmp_path, monkeypatch, moved):
    output = tmp_path / "run"
    assert vit_scratch(*command, f"--output_dir={output}").status == 0
    replace, count = os.replace, iter(range(100))

    def failing_replace(source, target):
        if Path(source).parent.name == ".incomplete" and next(count) == moved:
            raise OSError("the disk is full")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing_replace)
        result = vit_scratch(*command, f"--output_dir={output}", "--resume_from_checkpoint=true")
    assert (result.status, result.err) == (2, "vit-scratch train: the disk is full\n")
    assert not (output / "config.json").exists()
    assert vit_scratch(*command, f"--output_dir={output}", "--resume_from_checkpoint=true").status == 0
    assert {path.name for path in output.iterdir() if path.is_file()} == RUN - {"training.png"}
    assert not (output / ".incomplete").exists()


def test_what_an_earlier_attempt_left_is_not_mixed_in(command, tmp_path, monkeypatch):
    output = tmp_path / "run"
    interrupted(command, output, monkeypatch, after=1)
    (output / ".incomplete").mkdir()
    (output / ".incomplete" / "training.png").write_text("of another run")
    assert vit_scratch(*command, f"--output_dir={output}").status == 0
    assert {path.name for path in output.iterdir() if path.is_file()} == RUN - {"training.png"}


# The sample


def test_the_sample_is_small_whatever_the_image(tmp_path):
    data = tmp_path / "pictures"
    for name in ("cat", "dog"):
        (data / name).mkdir(parents=True)
        for seed in range(2):
            noise((1200, 300), seed=seed).save(data / name / f"{seed}.png")
    output = tmp_path / "run"
    command = ("train", "digits", *SMALL, f"--data={data}", "--train_val_split=0", "--max_steps=1")
    assert vit_scratch(*command, f"--output_dir={output}").status == 0
    sample = run_folder.read_image(output / "sample.png")
    assert sample.size == (SAMPLE_SIZE[0], SAMPLE_SIZE[0] // 4)


# The picture and the modes


def test_a_picture_that_cannot_be_drawn_does_not_cost_the_checkpoint(command, tmp_path, monkeypatch):
    there = []

    def fail(*arguments):
        there.append((tmp_path / "run" / "config.json").is_file())
        raise MemoryError("no room for a matrix\n\x1b[31m")

    monkeypatch.setattr(classification, "draw_training", fail)
    result = vit_scratch(*command, f"--output_dir={tmp_path / 'run'}")
    assert (result.status, result.err, there) == (0, "", [True])
    assert "picture    none: it could not be drawn (no room for a matrix \\x1b[31m)" in result.lines
    assert {path.name for path in (tmp_path / "run").iterdir() if not path.is_dir()} == RUN - {"training.png"}
    assert vit_scratch("predict", tmp_path / "run", tmp_path / "run" / "sample.png").status == 0


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_files_have_the_modes_that_the_umask_says(command, tmp_path, mask):
    before = os.umask(mask)
    try:
        assert vit_scratch(*command, f"--output_dir={tmp_path / 'run'}", "--ema_decay=0.9").status == 0
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert {"model.safetensors", "trained_weights.safetensors"} <= {path.name for path in files}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(0o666 & ~mask)}
