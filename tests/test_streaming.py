# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Train splits that are read while they are trained on: every image once, in one process, whatever happens."""

import http.server
import io
import shutil
import tarfile
import threading
from functools import partial
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from pictures import encoded, noise, plain, row
from runs import SMALL, Result, Run, free_port, joining, refused, same_weights, vit_scratch
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor

from modeling_vit_scratch.data.augmentation import variations
from modeling_vit_scratch.data.dataset_loading import load_images
from modeling_vit_scratch.data.image_arguments import AugmentationArguments
from modeling_vit_scratch.data.images import BadImageError
from modeling_vit_scratch.data.sampling import UNREADABLE, collate
from modeling_vit_scratch.data.streaming import StreamBatches, StreamedImages, StreamError, stream_images
from modeling_vit_scratch.presets import preset_path

ROOT = Path(__file__).resolve().parents[1]
SEED = 5


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch):
    """At the end of parquet files, datasets sleeps for five seconds, in case a thread of its own is still reading."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


def write_tar(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, files in samples.items():
            for suffix, content in files.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def write_shards(folder: Path, *sizes: int, split: str = "train", classes: int = 3) -> str:
    """WebDataset shards of bright and dark pictures; returns the pattern that finds them."""
    number = 0
    for shard, size in enumerate(sizes):
        samples = {}
        for _ in range(size):
            label = number % classes
            picture = encoded(plain((80 * label + number % 60,) * 3, (9, 9)))
            samples[f"{split}{number:04}"] = {"png": picture, "cls": str(label).encode()}
            number += 1
        write_tar(folder / f"{split}-{shard:03}.tar", samples)
    return str(folder / f"{split}-{{000..{len(sizes) - 1:03}}}.tar")


def name_of(row: dict) -> str:
    """The file, without the shard."""
    return row["image"]["path"].partition(" of ")[0]


def names(batches: list) -> list[str]:
    return [name_of(row) for batch in batches for _, row in batch]


def epoch_of(stream, batch_size: int, num_processes: int = 1, process_index: int = 0, epoch: int = 0) -> list:
    batches = StreamBatches(stream, SEED, batch_size, num_processes, process_index)
    batches.set_epoch(epoch)
    read = list(batches)
    assert len(read) == len(batches)
    return read


# --- Every image once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(6, 6, 6, 6), (5, 9, 1, 8, 2), (13,)], ids=["even", "uneven", "one"])
@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_processes_together_read_every_image_once_in_an_epoch(tmp_path, sizes, num_processes, batch_size):
    stream, _ = stream_images(write_shards(tmp_path, *sizes), buffer_size=3)
    assert stream.num_rows == sum(sizes)
    draws = []
    for epoch in (0, 1):
        shares = [epoch_of(stream, batch_size, num_processes, index, epoch) for index in range(num_processes)]
        assert len({len(batches) for batches in shares}) == 1  # all take the same number of steps
        for batches in shares:
            assert all(1 <= len(batch) <= batch_size for batch in batches)
        pairs = {(draw, name_of(row)) for batches in shares for batch in batches for draw, row in batch}
        assert sorted(name for _, name in pairs) == [f"train{number:04}.png" for number in range(sum(sizes))]
        draws += [draw for draw, _ in pairs]
        # Where a process has one image too few for the steps it takes its last one again, and no other is repeated.
        drawn = sum(len(batch) for batches in shares for batch in batches)
        assert sum(sizes) <= drawn <= sum(sizes) + num_processes - 1
    assert len(set(draws)) == 2 * sum(sizes)  # and so each image varies anew


def test_even_shards_are_read_by_one_process_each(tmp_path):
    stream, _ = stream_images(write_shards(tmp_path, 6, 6, 6, 6))
    assert stream.has_whole_shards(2)
    first = {int(name[5:9]) // 6 for name in names(epoch_of(stream, 4, 2, 0))}
    second = {int(name[5:9]) // 6 for name in names(epoch_of(stream, 4, 2, 1))}
    assert (first, second) == ({0, 2}, {1, 3})


def test_uneven_shards_are_read_by_all_processes(tmp_path):
    stream, _ = stream_images(write_shards(tmp_path, 20, 6))
    assert not stream.has_whole_shards(2)
    assert stream.sizes(2) == [13, 13]
    assert stream.described(2) == "streamed from 2 shards, each read by all processes, shuffled among 1,000"


def test_the_order_is_another_one_in_each_epoch_and_goes_across_shards(tmp_path):
    stream, _ = stream_images(write_shards(tmp_path, 8, 8, 8))
    orders = [names(epoch_of(stream, 4, epoch=epoch)) for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert len({int(name[5:9]) // 8 for name in orders[0][:8]}) > 1


def test_a_process_without_images_is_refused(tmp_path):
    stream, _ = stream_images(write_shards(tmp_path, 2))
    with pytest.raises(ValueError, match="has 2 images, fewer than the 3 processes"):
        StreamBatches(stream, SEED, 1, 3, 0)


# --- What is read ----------------------------------------------------------------------------------------------------


def test_labels_are_the_numbers_in_the_shards(tmp_path):
    samples = {
        f"{n}": {"jpg": encoded(noise(seed=n), "JPEG"), "cls": str(label).encode()} for n, label in enumerate((10, 3))
    }
    write_tar(tmp_path / "a.tar", samples)
    stream, others = stream_images(str(tmp_path / "a.tar"))
    assert stream.features["label"].names == ["3", "10"]
    assert {name_of(row): row["label"] for _, row in epoch_of(stream, 2)[0]} == {"0.jpg": 1, "1.jpg": 0}
    assert not others


def test_labels_may_be_texts(tmp_path):
    samples = {f"a/{n}": {"png": encoded(noise()), "txt": label} for n, label in enumerate((b"dog", b"cat", b"dog"))}
    write_tar(tmp_path / "a.tar", samples)
    stream, _ = stream_images(str(tmp_path / "a.tar"), label_column_name="txt")
    assert stream.features["label"].names == ["cat", "dog"]
    assert sorted(row["label"] for _, row in epoch_of(stream, 3)[0]) == [0, 1, 1]


def write_parquet(path: Path, labels: list, class_names: list[str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"image": [row(encoded(noise(seed=n)), f"{n}.png") for n in range(len(labels))], "label": labels}
    if class_names is None:
        pq.write_table(pa.table(rows), path)
    else:
        features = Features({"image": ImageFeature(), "label": ClassLabel(names=class_names)})
        Dataset.from_dict(rows, features=features).to_parquet(path)


@pytest.mark.parametrize("class_names", [["dog", "cat"], None], ids=["named", "numbered"])
def test_parquet_files_and_their_other_splits(tmp_path, class_names):
    write_parquet(tmp_path / "train-0.parquet", [0, 1, 1], class_names)
    write_parquet(tmp_path / "train-1.parquet", [1, 0], class_names)
    write_parquet(tmp_path / "val-0.parquet", [1, 1], class_names)
    stream, others = stream_images(str(tmp_path))
    assert stream.shard_sizes == [3, 2]
    expected = class_names or ["0", "1"]
    assert stream.features["label"].names == others["validation"].features["label"].names == expected
    assert list(others["validation"]["label"]) == [1, 1]
    assert sorted(row["label"] for batch in epoch_of(stream, 2) for _, row in batch) == [0, 0, 1, 1, 1]


def test_images_without_labels(tmp_path):
    write_tar(tmp_path / "a.tar", {f"{n}": {"png": encoded(noise(seed=n))} for n in range(5)})
    stream, _ = stream_images(str(tmp_path / "a.tar"), labelled=False)
    assert list(stream.features) == ["image"]
    assert sorted(names(epoch_of(stream, 2))) == [f"{n}.png" for n in range(5)]


class SilentHandler(http.server.SimpleHTTPRequestHandler):
    """Hands files out, and writes no line for each."""

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder that a server on this machine hands out: (the folder, its URL)."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SilentHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_shards_behind_urls(served):
    folder, url = served
    write_shards(folder, 4, 3)
    stream, _ = stream_images(f"{url}/train-{{000..001}}.tar")
    assert stream.shard_sizes == [4, 3]
    assert len(set(names(epoch_of(stream, 3)))) == 7


def test_parquet_files_behind_urls(served):
    folder, url = served
    write_parquet(folder / "pets.parquet", [0, 1, 0], ["cat", "dog"])
    stream, _ = stream_images(f"{url}/pets.parquet")
    assert (stream.shard_sizes, stream.features["label"].names) == ([3], ["cat", "dog"])
    assert len(epoch_of(stream, 2)) == 2


def test_a_hub_dataset(tmp_path, monkeypatch):
    # A Hub on which `someone/pets` is a folder, read by datasets itself.
    def builder(name: str, config_name: str | None):
        assert (name, config_name) == ("someone/pets", None)
        return datasets.load_dataset_builder(str(tmp_path / "repository"))

    monkeypatch.setattr("modeling_vit_scratch.data.shards.load_dataset_builder", builder)
    for split, count in (("train", 4), ("validation", 2)):
        labels = [n % 2 for n in range(count)]
        write_parquet(tmp_path / "repository" / "data" / f"{split}-0.parquet", labels, ["cat", "dog"])
    stream, others = stream_images("someone/pets")
    assert stream.shard_sizes == [4]
    assert others["validation"].num_rows == 2
    assert len(epoch_of(stream, 3)) == 2


def test_shards_that_fit_a_disk_need_no_streaming(tmp_path):
    write_shards(tmp_path, 3, 3)
    write_shards(tmp_path, 2, split="val")
    splits = load_images(str(tmp_path))
    assert {split: dataset.num_rows for split, dataset in splits.items()} == {"train": 6, "validation": 2}
    assert splits["train"].features["label"].names == ["0", "1", "2"]


# --- What is refused -------------------------------------------------------------------------------------------------


def sentence(source: object, **options) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        stream_images(str(source), **options)
    return str(error.value)


def test_what_is_no_shard_is_refused(tmp_path):
    assert sentence(tmp_path / "no.tar") == f"there is no folder or file {tmp_path}/no.tar."
    assert sentence(tmp_path / "*.tar") == f"no file matches {tmp_path}/*.tar."
    assert sentence("digits") == "digits come with scikit-learn: leave out --streaming."
    (tmp_path / "cat").mkdir()
    plain(3).save(tmp_path / "cat" / "1.png")
    assert "leave out --streaming, images in folders are read as they are needed anyway" in sentence(tmp_path)
    assert "cannot be streamed: it takes parquet files or WebDataset shards" in sentence(tmp_path / "cat" / "1.png")


def test_a_folder_of_both_kinds_is_refused(tmp_path):
    write_shards(tmp_path, 3)
    write_parquet(tmp_path / "more.parquet", [0, 1])
    said = f"{tmp_path} holds parquet files and WebDataset shards: give one kind of them, "
    assert sentence(tmp_path) == f"{said}{tmp_path}/*.parquet or {tmp_path}/*.tar."
    with pytest.raises(ValueError, match="holds parquet files and WebDataset shards"):
        load_images(str(tmp_path))


def test_a_url_that_is_not_streamed_is_refused():
    with pytest.raises(ValueError, match="a URL, which only training with --streaming true reads: download it first"):
        load_images("http://127.0.0.1/train-000.tar")


def test_a_broken_shard_is_named_before_anything_is_trained(tmp_path):
    pattern = write_shards(tmp_path, 3, 3)
    (tmp_path / "train-001.tar").write_bytes(b"no archive")
    assert sentence(pattern).startswith(f"{tmp_path}/train-001.tar could not be read as webdataset: ")


def test_a_shard_without_images_is_named_if_it_is_the_first(tmp_path):
    write_tar(tmp_path / "train-.tar", {})
    write_shards(tmp_path, 3, split="train")
    assert sentence(tmp_path).startswith(f"{tmp_path}/train-.tar could not be read as webdataset: ")


def test_splits_without_train_are_refused(tmp_path):
    write_shards(tmp_path, 2, split="val")
    write_shards(tmp_path, 2, split="test")
    assert "has no train split, only " in sentence(tmp_path)


def test_one_class_is_refused(tmp_path):
    assert "has the classes 0; a classifier needs two or more" in sentence(write_shards(tmp_path, 3, classes=1))


@pytest.mark.parametrize(("missing", "class_names"), [(-1, ["cat", "dog"]), (None, None)], ids=["named", "numbered"])
def test_a_label_that_is_no_class_is_an_error_of_the_stream(tmp_path, missing, class_names):
    write_parquet(tmp_path / "a.parquet", [0, 1, missing], class_names)
    stream, _ = stream_images(str(tmp_path / "a.parquet"))
    assert len(stream.features["label"].names) == 2
    with pytest.raises(StreamError, match=f"has an image with the label {missing}, which is none of the 2 classes"):
        epoch_of(stream, 1)


def test_shards_that_have_changed_are_an_error_of_the_stream(tmp_path):
    stream, _ = stream_images(write_shards(tmp_path, 6))
    write_shards(tmp_path, 4)
    with pytest.raises(StreamError, match="has fewer images than when the run began: did it change"):
        epoch_of(stream, 2)


# --- Loading ---------------------------------------------------------------------------------------------------------


def streamed(stream, **options) -> StreamedImages:
    processor = AutoImageProcessor.from_pretrained(preset_path("digits"))
    vary = variations(AugmentationArguments(rotation=30, horizontal_flip=0.5), (8, 8))
    return StreamedImages(stream, processor, list(vary.values()), SEED, **options)


def loaded(images: StreamedImages, workers: int, first: int = 0) -> list[torch.Tensor]:
    loader = DataLoader(images, batch_sampler=images.batches(4), collate_fn=collate, num_workers=workers)
    loader = prepare_data_loader(loader, torch.device("cpu"), num_processes=1, process_index=0)
    return [batch["pixel_values"] for batch in (skip_first_batches(loader, first) if first else loader)]


def test_workers_and_skipped_batches_change_nothing(tmp_path):
    images = streamed(stream_images(write_shards(tmp_path, 7, 6, 9), buffer_size=5)[0])
    expected = loaded(images, workers=0)
    assert len(expected) == 6
    for workers, first in ((2, 0), (0, 3), (2, 3)):
        for one, other in zip(expected[first:], loaded(images, workers, first), strict=True):
            assert torch.equal(one, other)


def test_an_image_that_cannot_be_read_gives_way_to_one_of_its_batch(tmp_path):
    samples = {f"{n}": {"png": encoded(plain(60 * n)), "cls": b"01"[n % 2 : n % 2 + 1]} for n in range(4)}
    samples["2"]["png"] = b"broken"
    stream, _ = stream_images(str(write_tar(tmp_path / "a.tar", samples)))
    assert stream.described(1) == "streamed from 1 shard, shuffled among 1,000"
    (batch,) = epoch_of(stream, 4)
    examples = streamed(stream).__getitems__(batch)
    assert [sentence for example in examples for sentence in example[UNREADABLE]] == [
        "2.png of a.tar is empty, or of no known image format."
    ]
    assert len(examples) == 4
    place = [name_of(row) for _, row in batch].index("2.png")
    first = next(index for index in range(4) if index != place)
    assert examples[place]["label"] == examples[first]["label"]
    with pytest.raises(
        BadImageError, match=r"2\.png of a\.tar is empty.* Repair or delete it, or leave out --strict_images"
    ):
        streamed(stream, strict=True).__getitems__(batch)
    with pytest.raises(BadImageError, match="none of the 1 image of a batch can be read"):
        streamed(stream).__getitems__([batch[place]])


def test_a_label_without_an_image_is_named_too(tmp_path):
    samples = {f"{n}": {"png": encoded(plain(20 * n)), "cls": b"01"[n % 2 : n % 2 + 1]} for n in range(7)}
    del samples["6"]["png"]  # `datasets` takes the columns from the first five
    stream, _ = stream_images(str(write_tar(tmp_path / "a.tar", samples)))
    examples = streamed(stream).__getitems__(epoch_of(stream, 7)[0])
    assert [sentence for example in examples for sentence in example[UNREADABLE]] == [
        "an image of a.tar does not exist."
    ]
    assert len(examples) == 7


# --- Runs ------------------------------------------------------------------------------------------------------------

FLAGS = ("digits", SMALL[0], "--streaming=true", "--shuffle_buffer_size=8", "--per_device_train_batch_size=4")
FLAGS = (*FLAGS, "--num_train_epochs=3", "--eval_strategy=steps", "--eval_steps=4", "--report_to=none")


# Code that does something at the beginning of a step.
ON_STEP = """
import os, signal
from modeling_vit_scratch.training.trainer import ViTTrainer
step = ViTTrainer.training_step
def surprised(self, *arguments, **options):
    if self.state.global_step == {step}: {what}
    return step(self, *arguments, **options)
ViTTrainer.training_step = surprised
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 6, 5, 7, 6)
    write_shards(folder, 9, split="val")
    return folder


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    result = vit_scratch("train", *FLAGS, f"--data={shards}", f"--output_dir={output}", "--dataloader_num_workers=0")
    assert (result.status, result.err) == (0, "")
    return output, result


def test_a_run_says_what_it_streams_and_validates(undisturbed):
    output, result = undisturbed
    assert "train      24 images of 3 classes, streamed from 4 shards, shuffled among 8" in result.lines
    assert "validation 9 images: 0 3, 1 3, 2 3" in result.lines
    assert "schedule   3 epochs, 18 steps in batches of 4, learning rate 0.001 (cosine)" in result.lines
    assert (output / "sample.png").is_file()
    assert "streaming: true" in (output / "recipe.yaml").read_text(encoding="utf-8")


def test_a_killed_run_ends_with_the_same_weights_whatever_the_workers(undisturbed, shards, tmp_path):
    command = ["train", *FLAGS, f"--data={shards}", f"--output_dir={tmp_path / 'run'}", "--dataloader_num_workers=1"]
    kill = ON_STEP.format(step=10, what="os.kill(os.getpid(), signal.SIGKILL)")
    assert Run(command, tmp_path, kill).end().status == -9
    assert (tmp_path / "run" / "checkpoint-8").is_dir()  # in the middle of the second epoch
    result = Run(command, tmp_path).end()
    assert (result.status, result.err) == (0, "")
    assert f"resumed    {tmp_path / 'run' / 'checkpoint-8'}" in result.lines
    assert same_weights(tmp_path / "run", undisturbed[0])


def test_a_run_does_not_go_on_with_shards_of_other_sizes(undisturbed, shards, tmp_path):
    output = shutil.copytree(undisturbed[0], tmp_path / "run")
    data = shutil.copytree(shards, tmp_path / "shards")
    command = ("train", *FLAGS, f"--data={data}", f"--output_dir={output}", "--resume_from_checkpoint=true")
    write_shards(data, 6, 5, 7, 8)
    assert "(in train 2 images more, 26 instead of 24)" in refused(*command, "--dataloader_num_workers=0")


def test_a_stream_that_breaks_loses_nothing(shards, tmp_path):
    breaks = """
from modeling_vit_scratch.data.streaming import ImageStream
labelled = ImageStream._labelled
read = []
def breaking(self, row):
    read.append(row)
    if len(read) > 40: raise ConnectionError('the server went away')
    return labelled(self, row)
ImageStream._labelled = breaking
"""
    command = ["train", *FLAGS, f"--data={shards}", f"--output_dir={tmp_path / 'run'}", "--dataloader_num_workers=0"]
    result = Run(command, tmp_path, breaks).end()
    assert result.status == 2
    assert result.err == (
        f"vit-scratch train: {shards} could not be read on: the server went away. The last checkpoint is "
        f"{tmp_path / 'run' / 'checkpoint-8'}. The same command goes on.\n"
    )


@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs torch.distributed with gloo")
def test_two_processes_stream_one_run_and_go_on_where_they_stopped(shards, tmp_path):
    def run(name: str, before: str = "") -> list[Result]:
        command = ["train", *FLAGS, f"--data={shards}", f"--output_dir={tmp_path / name}", "--use_cpu"]
        port = free_port()
        runs = [Run(command, tmp_path, f"{joining(rank, port)}\n{before}") for rank in range(2)]
        return [run.end() for run in runs]

    undisturbed = run("undisturbed")
    assert [result.status for result in undisturbed] == [0, 0]
    assert "24 images of 3 classes, streamed from 4 shards, each read by all processes" in undisturbed[0].out
    assert "3 epochs, 9 steps in batches of 8" in undisturbed[0].out

    stopped = run("run", ON_STEP.format(step=3, what="os.kill(os.getpid(), signal.SIGTERM)"))
    assert [result.status for result in stopped] == [128 + 15] * 2
    assert "stopped at step 5 of 9 with a checkpoint; the same command goes on from there." in stopped[0].err
    assert stopped[1].err == ""  # it is said once
    assert [result.status for result in run("run")] == [0, 0]
    assert same_weights(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (("train", "val"), "validation 9 images"),
        (("train",), "validation none: a stream is not divided, and the data has no validation split"),
    ],
    ids=["validated", "not validated"],
)
def test_images_without_labels_are_streamed_for_pre_training(tmp_path, splits, said):
    for split in splits:
        write_shards(tmp_path / "shards", 9, split=split)
    flags = ("--model=digits", SMALL[0], "--dataloader_num_workers=0", "--num_train_epochs=1", "--report_to=none")
    where = (f"--data={tmp_path / 'shards'}", "--streaming=true", f"--output_dir={tmp_path / 'run'}")
    result = vit_scratch("pretrain", "pretrain-masked", *flags, *where)
    assert (result.status, result.err) == (0, "")
    assert "train      9 images, streamed from 1 shard, shuffled among 1,000" in result.lines
    assert said in result.lines
    assert (tmp_path / "run" / "training.png").is_file()  # with what it painted, of either split


def test_settings_that_need_all_images_at_hand_are_refused(shards, tmp_path):
    flags = ("train", *FLAGS, f"--data={shards}", f"--output_dir={tmp_path / 'run'}")
    assert "class_weights auto counts the labels of all images" in refused(*flags, "--class_weights=auto")
    assert "repeated_augmentation is not for images that are streamed" in refused(*flags, "--repeated_augmentation=2")
    assert not (tmp_path / "run").exists()
    result = vit_scratch(*flags, "--class_weights=0=1,1=2,2=3", "--max_steps=1", "--dataloader_num_workers=0")
    assert (result.status, result.err) == (0, "")
