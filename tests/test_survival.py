# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Runs that are killed, stopped, out of disk, or that meet a bad image lose nothing, and end as if undisturbed.

The runs are processes of their own, and are really killed; what kills them is code that they run beside the package's.
"""

import os
import re
import shutil
import signal
import socket
from pathlib import Path

import pytest
from runs import NO_PICTURE, RUN, SMALL, Run, classes_of_pictures, refused, same_weights

# Six steps an epoch, and a checkpoint after every fourth: in the middle of an epoch, and not at its end.
COMMAND = (
    *("train", "digits", SMALL[0], "--num_train_epochs=3", "--per_device_train_batch_size=4", "--split_seed=1"),
    *("--train_val_split=0.2", "--eval_strategy=steps", "--eval_steps=4", "--dataloader_num_workers=1"),
    *("--rotation=12", "--random_resized_crop=0.5", "--horizontal_flip=0.5"),
)
STEPS = 18
# All that draws random numbers or keeps a state of its own.
EVERYTHING = (
    *("--ema_decay=0.9", "--patch_dropout=0.25", "--drop_path_rate=0.1", "--class_weights=auto"),
    "--muon_learning_rate=0.01",
    *(
        "--mixup_alpha=0.5",
        "--cutmix_alpha=1",
        "--random_erasing=0.3",
        "--rand_augment_num_ops=1",
        "--color_jitter=0.3",
    ),
    *("--progressive_image_size=4", "--repeated_augmentation=2", "--gradient_accumulation_steps=2", "--eval_steps=2"),
)
# The beginning of a program that can end itself as `kill -9` ends it.
KILLING = """
import os, signal, shutil, torch
from modeling_vit_scratch.training import saving
from modeling_vit_scratch.training.trainer import ViTTrainer
def die(): os.kill(os.getpid(), signal.SIGKILL)
def before(owner, name, when):
    original = getattr(owner, name)
    def wrapper(*arguments, **options):
        if when(*arguments): die()
        return original(*arguments, **options)
    setattr(owner, name, wrapper)
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return classes_of_pictures(tmp_path_factory.mktemp("data") / "pictures", images=10)


@pytest.fixture
def start(pictures, tmp_path):
    """Begin the command in a process of its own: start("folder", "--flag", before="code that runs first")."""

    def start(name: str, *flags: str, data: Path = pictures, before: str = "") -> Run:
        return begun(tmp_path / name, *flags, data=data, before=before)

    return start


@pytest.fixture
def run(start):
    """The same, to its end."""
    return lambda *arguments, **options: start(*arguments, **options).end()


def begun(output: Path, *flags: str, data: Path, before: str = "") -> Run:
    return Run([*COMMAND, f"--data={data}", f"--output_dir={output}", *flags], output.parent, f"{NO_PICTURE}\n{before}")


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


@pytest.fixture(scope="module")
def undisturbed(pictures, tmp_path_factory):
    """The folders of two runs that nothing happened to, by their flags."""
    folders = {}
    for flags in ((), EVERYTHING):
        folders[flags] = tmp_path_factory.mktemp("undisturbed") / "run"
        result = begun(folders[flags], *flags, data=pictures).end()
        assert (result.status, result.err) == (0, "")
    return folders


# Killed

MOMENTS = {
    "before the first checkpoint": "before(ViTTrainer, 'training_step', lambda self, *_: self.state.global_step == 2)",
    "between two checkpoints": "before(ViTTrainer, 'training_step', lambda self, *_: self.state.global_step == 6)",
    "before a checkpoint": "before(ViTTrainer, '_save_checkpoint', lambda self, *_: self.state.global_step == 8)",
    "in the middle of a file": """
save = torch.save
def half(state, path):
    save(state, path)
    if 'checkpoint-8' in str(path) and 'optimizer' in str(path):
        os.truncate(path, os.path.getsize(path) // 2)
        die()
torch.save = half
""",
    "before a checkpoint is in its place": "before(os, 'replace', lambda _, target: 'checkpoint-8' in str(target))",
    "before an old checkpoint is deleted": """
rotate = saving.rotate_checkpoints
def rotating(**options):
    if os.path.isdir(ROOT + '/checkpoint-8'): die()
    rotate(**options)
saving.rotate_checkpoints = rotating
""",
    "in the middle of deleting it": """
def half_deleted(path, *arguments, **options):
    os.unlink(os.path.join(path, 'model.safetensors'))
    die()
rotate = saving.rotate_checkpoints
def rotating(**options):
    if os.path.isdir(ROOT + '/checkpoint-12'): shutil.rmtree = half_deleted
    rotate(**options)
saving.rotate_checkpoints = rotating
""",
    "after training": "before(ViTTrainer, 'predict', lambda *_: True)",
    "in the middle of the end": "before(os, 'replace', lambda _, target: 'model.safetensors' in str(target))",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(run, undisturbed, tmp_path, moment):
    code = f"ROOT = {str(tmp_path / 'run')!r}\n{KILLING}{MOMENTS[moment]}"
    assert run("run", before=code).status == -signal.SIGKILL
    assert not (tmp_path / "run" / "config.json").exists()
    result = run("run")
    assert (result.status, result.err) == (0, "")
    assert same_weights(undisturbed[()], tmp_path / "run")
    # Nothing of the first attempt is left over.
    left = {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith("checkpoint-")}
    assert left - {"runs"} == RUN - {"training.png"}


@pytest.mark.parametrize("step", [3, 5])
def test_it_does_so_with_all_that_draws_random_numbers_or_keeps_a_state(run, undisturbed, tmp_path, step):
    code = f"{KILLING}before(ViTTrainer, 'training_step', lambda self, *_: self.state.global_step == {step})"
    assert run("run", *EVERYTHING, before=code).status == -signal.SIGKILL
    result = run("run", *EVERYTHING)
    assert (result.status, result.err) == (0, "")
    assert f"resumed    {tmp_path}/run/checkpoint-{step // 2 * 2}" in result.lines
    assert same_weights(undisturbed[EVERYTHING], tmp_path / "run")


def test_it_does_so_again_and_again(run, undisturbed, tmp_path):
    code = f"{KILLING}before(ViTTrainer, 'after_step', lambda self: self.state.global_step % 5 == 0)"
    results = [run("run", before=code) for _ in range(2)]
    assert [result.status for result in results] == [-signal.SIGKILL] * 2
    assert run("run").status == 0
    assert same_weights(undisturbed[()], tmp_path / "run")


def test_the_number_of_processes_that_load_images_does_not_matter(run, undisturbed, tmp_path):
    code = f"{KILLING}before(ViTTrainer, 'training_step', lambda self, *_: self.state.global_step == 6)"
    assert run("run", before=code).status == -signal.SIGKILL
    result = run("run", "--dataloader_num_workers=0", "--resume_from_checkpoint=true")
    assert result.status == 0
    assert same_weights(undisturbed[()], tmp_path / "run")


# The same command, or another


def killed(run, step: int = 6) -> None:
    code = f"{KILLING}before(ViTTrainer, 'training_step', lambda self, *_: self.state.global_step == {step})"
    assert run("run", before=code).status == -signal.SIGKILL


def test_a_run_with_other_settings_is_not_taken_for_the_interrupted_one(run, tmp_path):
    killed(run)
    result = run("run", "--learning_rate=0.5")
    assert result.status == 2
    assert result.err == (
        f"vit-scratch train: the output folder {tmp_path}/run holds an interrupted run with other settings "
        "(learning_rate 0.001, now 0.5): --resume_from_checkpoint true goes on with the new ones, "
        "--overwrite_output_dir starts anew.\n"
    )
    assert checkpoints(tmp_path / "run") == ["checkpoint-4"]
    result = run("run", "--learning_rate=0.5", "--overwrite_output_dir")
    assert result.out.startswith("new ")


def test_an_interrupted_run_without_a_checkpoint_is_in_nobodys_way(run, tmp_path):
    killed(run, step=2)
    assert checkpoints(tmp_path / "run") == []
    result = run("run", "--learning_rate=0.5")
    assert (result.status, result.out.startswith("new ")) == (0, True)


def test_the_run_that_a_killed_start_would_have_overwritten_comes_back(run, undisturbed, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(undisturbed[()], output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    code = f"{KILLING}before(ViTTrainer, 'training_step', lambda self, *_: True)"
    assert run("run", "--learning_rate=0.5", "--overwrite_output_dir", before=code).status == -signal.SIGKILL
    assert not (output / "config.json").exists()
    assert f"the run that was there is in {output / '.incomplete-before'}." in refused("evaluate", output, "digits")
    result = run("run", "--learning_rate=0.5")
    assert (result.status, result.out) == (2, "")
    put_back, refusal = result.err.splitlines()
    assert put_back.endswith("the run that was here before a start that was killed is put back.")
    assert "already holds a run" in refusal
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_two_runs_do_not_share_a_folder(start, run, undisturbed, tmp_path):
    # The first one halts in its sixth step until someone reads what it has to say.
    os.mkfifo(tmp_path / "halted")
    halt = "lambda self, *_: self.state.global_step == 6 and open(HALTED, 'w').close()"
    first = start("run", before=f"HALTED = '{tmp_path}/halted'\n{KILLING}before(ViTTrainer, 'training_step', {halt})")
    while not (tmp_path / "run" / "checkpoint-4" / "trainer_state.json").exists():
        first.process.join(0.02)
        assert first.process.is_alive()
    holder = f"process {first.process.pid} on {socket.gethostname()}"
    for flag in (), ("--overwrite_output_dir",):
        second = run("run", *flag)
        assert second.status == 2
        assert second.err == (
            f"vit-scratch train: {holder} is training in the output folder {tmp_path}/run: wait for it, stop it, or "
            "choose another --output_dir.\n"
        )
    # Nobody waits for the lock of a dead process, nor for those that loaded its images.
    os.kill(first.process.pid, signal.SIGKILL)
    assert first.end().status == -signal.SIGKILL
    third = run("run")
    assert (third.status, third.err) == (0, "")
    assert f"resumed    {tmp_path}/run/checkpoint-4" in third.out
    assert same_weights(undisturbed[()], tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))
    # One account for TensorBoard, where it is installed, of the run that was killed and of what went on.
    assert not any(path.is_dir() for path in (tmp_path / "run").glob("runs/*"))


def test_a_run_that_was_killed_before_all_else_is_begun_again(run, tmp_path):
    (tmp_path / "run").mkdir()
    for name in (".incomplete-lock", ".incomplete-lock-0f"):
        (tmp_path / "run" / name).write_text("process 1 on elsewhere")
    assert run("run").status == 0


def test_a_finished_run_is_not_gone_on_with(undisturbed, pictures):
    folder = undisturbed[()]
    result = begun(folder, data=pictures).end()
    assert result.status == 2
    assert f"{folder} already holds a run: choose another --output_dir" in result.err


# Stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("to_group", [False, True], ids=["to the process", "to its group"])
def test_a_signal_ends_it_at_a_checkpoint_and_it_goes_on(undisturbed, start, run, tmp_path, number, to_group):
    # In the 7th of 18 steps: the process says when that is, and waits for the signal.
    waits = tmp_path / "waits"
    code = f"""{KILLING}
step = ViTTrainer.training_step
def waiting(self, *arguments, **options):
    if self.state.global_step == 6 and self.stop.received is None:
        open({str(waits)!r}, 'w').close()
        while self.stop.received is None: pass
    return step(self, *arguments, **options)
ViTTrainer.training_step = waiting
"""
    process = start("run", before=code)
    while not waits.exists():
        process.process.join(0.02)
        assert process.process.is_alive()
    (os.killpg if to_group else os.kill)(process.process.pid, number)
    result = process.end()
    assert result.status == 128 + number
    stopped = re.fullmatch(
        r"vit-scratch train: stopped at step (\d+) of 18 with a checkpoint; the same command goes on from there\.\n",
        result.err,
    )
    assert stopped, result.err
    assert f"checkpoint-{stopped[1]}" in checkpoints(tmp_path / "run")
    result = run("run")
    assert f"resumed    {tmp_path}/run/checkpoint-{stopped[1]}" in result.out
    assert same_weights(undisturbed[()], tmp_path / "run")


def test_a_signal_at_the_end_of_an_epoch_does_not_cost_its_validation(run, tmp_path):
    by_epoch = ("--eval_strategy=epoch",)
    code = f"""{KILLING}
step = ViTTrainer.training_step
def asked(self, *arguments, **options):
    if self.state.global_step == 4: signal.raise_signal(signal.SIGTERM)
    return step(self, *arguments, **options)
ViTTrainer.training_step = asked
"""
    assert run("whole", *by_epoch).status == 0
    assert run("run", *by_epoch, before=code).status == 128 + signal.SIGTERM
    assert checkpoints(tmp_path / "run") == ["checkpoint-6"]
    assert run("run", *by_epoch).status == 0
    assert same_weights(tmp_path / "whole", tmp_path / "run")
    states = [(tmp_path / name / "trainer_state.json").read_text() for name in ("whole", "run")]
    assert states[0].count("eval_validation_loss") == states[1].count("eval_validation_loss") == 3


# Failing


def test_a_full_disk_is_said_and_what_was_whole_stays(run, undisturbed, tmp_path):
    # A limit on the size of files, from the second checkpoint on: the kernel refuses to write on, as on a full disk.
    code = f"""{KILLING}
import resource
write = ViTTrainer.save_model
def full(self, *arguments, **options):
    if self.state.global_step == 8:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
    write(self, *arguments, **options)
ViTTrainer.save_model = full
"""
    result = run("run", before=code)
    assert result.status == 2
    assert result.err.count("\n") == 1
    assert f"the checkpoint of step 8 could not be written to {tmp_path}/run: " in result.err
    assert f"The last checkpoint is {tmp_path}/run/checkpoint-4. Make room and run the same command" in result.err
    assert checkpoints(tmp_path / "run") == ["checkpoint-4"]
    assert not list((tmp_path / "run").glob(".incomplete*"))
    assert run("run").status == 0
    assert same_weights(undisturbed[()], tmp_path / "run")


def test_a_loss_that_is_no_number_is_never_saved(run, tmp_path):
    code = f"""{KILLING}
step = ViTTrainer.training_step
def spoilt(self, model, inputs, *arguments, **options):
    if self.state.global_step == 7: inputs['pixel_values'] *= float('nan')
    return step(self, model, inputs, *arguments, **options)
ViTTrainer.training_step = spoilt
"""
    result = run("run", before=code)
    assert result.status == 2
    assert result.err == (
        "vit-scratch train: the training loss was not a finite number at step 8: lower --learning_rate, raise "
        f"--warmup_steps, or train in fp32. The last checkpoint is {tmp_path}/run/checkpoint-4.\n"
    )
    assert checkpoints(tmp_path / "run") == ["checkpoint-4"]


def test_an_image_that_fails_on_the_way_is_named_once_and_the_run_goes_on(run, tmp_path):
    data = classes_of_pictures(tmp_path / "pictures", images=10)
    code = f"""{KILLING}
step = ViTTrainer.training_step
def failing(self, *arguments, **options):
    if self.state.global_step == 3:
        for name in ('cat/001.png', 'dog/002.png'): open({str(data)!r} + '/' + name, 'w').close()
    return step(self, *arguments, **options)
ViTTrainer.training_step = failing
"""
    result = run("run", "--train_val_split=0", data=data, before=code)
    assert (result.status, result.err) == (0, "")
    left_out = [line for line in result.lines if line.startswith("left out")]
    assert sorted(left_out) == [
        f"left out   {data}/{name} is empty, or of no known image format." for name in ("cat/001.png", "dog/002.png")
    ]


def test_with_strict_images_such_an_image_ends_it_and_nothing_is_lost(run, tmp_path):
    data = classes_of_pictures(tmp_path / "pictures", images=10)
    code = f"""{KILLING}
step = ViTTrainer.training_step
def failing(self, *arguments, **options):
    if self.state.global_step == 6: open({str(data / "cat" / "001.png")!r}, 'w').close()
    return step(self, *arguments, **options)
ViTTrainer.training_step = failing
"""
    flags = ("--strict_images", "--train_val_split=0", "--save_strategy=steps", "--save_steps=4")
    result = run("run", *flags, data=data, before=code)
    assert result.status == 2
    assert result.err == f"vit-scratch train: {data}/cat/001.png is empty, or of no known image format.\n"
    # It depends on how far ahead images are loaded.
    assert checkpoints(tmp_path / "run") in (["checkpoint-4"], ["checkpoint-8"])
