# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Images that are predicted: in order, as if one by one, and with few pixels and few bytes in memory at once."""

import threading
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from pictures import encoded, noise
from transformers import AutoImageProcessor

from modeling_vit_scratch.data import model_input, sampling
from modeling_vit_scratch.data.images import BadImageError, read_image
from modeling_vit_scratch.data.model_input import pixel_values
from modeling_vit_scratch.data.sampling import TrainingImages
from modeling_vit_scratch.prediction import classifier, reading, sources
from modeling_vit_scratch.prediction.classifier import Classifier, Prediction, batches_of
from modeling_vit_scratch.prediction.reading import Batch, Reader, Room
from modeling_vit_scratch.prediction.sources import ImageSources
from modeling_vit_scratch.presets import preset_path

SIZES = [(5, 7), (90, 60), (7, 5), (6, 6), (80, 70), (60, 90), (9, 4), (8, 8), (100, 50), (5, 5)]


@pytest.fixture(scope="module")
def processor():
    return AutoImageProcessor.from_pretrained(preset_path("digits"))


@pytest.fixture
def files(tmp_path):
    """Small and large images, among them one that cannot be read and one that is cut off."""
    for index, size in enumerate(SIZES):
        noise(size, seed=index).save(tmp_path / f"{index}.png")
    (tmp_path / "4.png").write_bytes(b"no picture")
    (tmp_path / "5.png").write_bytes((tmp_path / "5.png").read_bytes()[:9000])
    return [str(tmp_path / f"{index}.png") for index in range(len(SIZES))]


def tracking(decode):
    """What decodes images, and the most pixels of its images that were alive at a time, in `found["most"]`."""
    found, lock = {"most": 0, "pixels": 0}, threading.Lock()

    def counted(change):
        with lock:
            found["pixels"] += change
            found["most"] = max(found["most"], found["pixels"])

    def tracked(image, **options):
        picture = decode(image, **options)
        counted(picture.width * picture.height)
        weakref.finalize(picture, counted, -picture.width * picture.height)
        return picture

    return tracked, found


@pytest.fixture
def alive(monkeypatch):
    tracked, found = tracking(reading.decoded)
    monkeypatch.setattr(reading, "decoded", tracked)
    return found


@pytest.fixture
def few_together(monkeypatch):
    """Set how many pixels may be together: few_together(100)."""

    def few_together(pixels):
        for module in (model_input, reading):
            monkeypatch.setattr(module, "PIXELS_TOGETHER", pixels)

    return few_together


def test_what_is_read_is_what_is_read_one_by_one(processor, files, few_together):
    few_together(100)
    pixels, problems = Reader(processor).read(files)
    bad = [index for index, problem in enumerate(problems) if problem is not None]
    assert bad == [4, 5]
    expected = pixel_values(processor, [read_image(file) for index, file in enumerate(files) if index not in bad])
    assert torch.equal(pixels, expected)
    nothing, problems = Reader(processor).read([files[4]])
    assert (nothing, len(problems)) == (None, 1)


def test_small_images_are_prepared_together_and_large_ones_are_not(processor, files, few_together, monkeypatch):
    together, prepare = [], model_input._pixel_values
    few_together(100)
    monkeypatch.setattr(model_input, "_pixel_values", lambda *given: together.append(len(given[1])) or prepare(*given))
    Reader(processor).read(files)
    assert together == [2, 3, 2, 1]  # up to the first that makes them too many


def test_what_cannot_be_read_keeps_no_pixels(processor, files):
    _, problems = Reader(processor).read(files)
    for problem in (problems[4], problems[5]):
        assert isinstance(problem, BadImageError)
        assert (problem.__traceback__, problem.__cause__, problem.__context__) == (None, None, None)


def test_few_pixels_are_in_memory_however_many_threads_there_are(
    digits_run, alive, few_together, tmp_path, monkeypatch
):
    monkeypatch.setattr(classifier, "spare_cores", lambda: 7)
    few_together(100)
    for index in range(48):
        noise((60, 50), seed=index).save(tmp_path / f"{index:02}.png")
    images, model = ImageSources([str(tmp_path)]), Classifier(str(digits_run[0]))
    model.reader.room = Room(7000)
    found = [item for batch in model.predict(images, batches_of(range(48), 24), 1) for item in batch]
    assert alive["most"] <= 2 * 60 * 50
    assert alive["pixels"] == 0
    assert model.reader.room.free == 7000
    assert [item.file for item in found] == [images.name(number) for number in range(48)]
    alone = [item for batch in model.predict(images, batches_of(range(48), 1), 1) for item in batch]
    assert all(isinstance(item, Prediction) for item in alone)
    np.testing.assert_allclose([item.scores for item in found], [item.scores for item in alone], atol=1e-6)


def test_evaluation_and_training_have_few_pixels_in_memory_too(processor, few_together, tmp_path, monkeypatch):
    few_together(100)
    for index in range(12):
        noise((60, 50), seed=index).save(tmp_path / f"{index:02}.png")
    files = [{"bytes": None, "path": str(file)} for file in sorted(tmp_path.iterdir())]
    images = Dataset.from_dict({"image": files}, features=Features({"image": ImageFeature(decode=False)}))
    expected = pixel_values(processor, [read_image(file) for file in files])
    for module in (model_input, sampling):
        tracked, found = tracking(read_image)
        monkeypatch.setattr(module, "read_image", tracked)
        if module is model_input:
            prepared = images.with_transform(model_input.preprocessing(processor))[:12]["pixel_values"]
        else:
            prepared = [row["pixel_values"] for row in TrainingImages(images, processor, [], 0).__getitems__(range(12))]
        assert torch.equal(torch.stack(list(prepared)), expected)
        assert found["most"] <= 2 * 60 * 50
        assert found["pixels"] == 0


def test_an_image_that_is_larger_than_the_room_is_read_alone(processor, tmp_path, few_together):
    few_together(10)
    noise((60, 50)).save(tmp_path / "large.png")
    reader = Reader(processor)
    reader.room = Room(20)
    pixels, _ = reader.read([str(tmp_path / "large.png")] * 3)
    assert len(pixels) == 3
    assert reader.room.free == 20


def test_a_mistake_gives_the_room_back():
    room = Room(5)
    with pytest.raises(ZeroDivisionError), room.taken(3):
        raise ZeroDivisionError
    assert room.free == 5


def parquet(path, contents):
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": content, "path": None} for content in contents]
    pq.write_table(pa.table({"image": pa.array(rows, kind), "label": list(range(len(rows)))}), path)
    return ImageSources([str(path)])


def test_threads_take_images_in_order_and_few_bytes_at_a_time(processor, tmp_path, monkeypatch):
    contents = [encoded(noise((40, 40 if index < 4 else 5), seed=index)) for index in range(16)]
    monkeypatch.setattr(reading, "BYTES_TOGETHER", 2 * len(contents[0]))
    batch, taken = Batch(Reader(processor), parquet(tmp_path / "t.parquet", contents), range(16)), []
    while (few := batch._take())[1]:
        taken.append((few[0], len(few[1])))
    assert taken == [(0, 2), (2, 2), (4, 8), (12, 4)]


def test_rows_of_parquet_files_are_read_by_their_bytes(tmp_path, monkeypatch):
    large, small = ([encoded(noise((size, size), seed=index)) for index in range(12)] for size in (40, 4))
    monkeypatch.setattr(sources, "BYTES_TOGETHER", 3 * max(map(len, large)))
    for contents, fewest, most in ((large, 2, 3), (small, 16, 16)):
        images = parquet(tmp_path / "t.parquet", contents)
        assert [images[number]["bytes"] for number in range(12)] == contents
        assert len(images.sources[0].rows) <= most
        group = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
        assert fewest <= images.sources[0]._rows_together(group) <= most
