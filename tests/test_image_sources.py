# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Which images the names on a command line mean, and in which order."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encoded, noise

from modeling_vit_scratch.data.images import BadImageError, read_image
from modeling_vit_scratch.prediction.sources import ImageSources, file_states


def picture(index: int) -> bytes:
    return encoded(noise((5, 7), seed=index))


def write_parquet(path, count, group=None, first=0, **columns):
    path.parent.mkdir(exist_ok=True)
    images = [{"bytes": picture(first + index), "path": None} for index in range(count)]
    table = pa.table(columns or {"label": list(range(count)), "image": images})
    pq.write_table(table, path, row_group_size=group)
    return str(path)


def names(sources: ImageSources) -> list[str]:
    return [sources.name(number) for number in range(len(sources))]


def test_files_folders_patterns_and_parquet_files_keep_their_order(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "b/deep/3.png", "b/photo", "a.png", "c-1.png", "c-2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(0))
    table = write_parquet(tmp_path / "t.parquet", 2)
    given = [tmp_path / "c-?.png", table, tmp_path / "b", tmp_path / "a.png", tmp_path / "**" / "3.*"]
    expected = [
        "c-1.png",
        "c-2.png",
        "t.parquet#0",
        "t.parquet#1",
        "b/1.JPG",
        "b/2.png",
        "b/photo",
        "b/deep/3.png",
        "a.png",
    ]
    sources = ImageSources([str(name) for name in given])
    assert names(sources) == [str(tmp_path / name) for name in [*expected, "b/deep/3.png"]]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    for name in ("[1].png", "1.png"):
        (tmp_path / name).write_bytes(picture(0))
    assert names(ImageSources([str(tmp_path / "[1].png")])) == [str(tmp_path / "[1].png")]


def test_of_a_folder_without_images_the_parquet_files_are_meant(tmp_path):
    for number in (1, 0):
        write_parquet(tmp_path / "data" / f"{number}.parquet", 2)
    folder = tmp_path / "data"
    expected = [f"{folder / name}#{row}" for name in ("0.parquet", "1.parquet") for row in (0, 1)]
    assert names(ImageSources([str(folder)])) == expected


@pytest.mark.parametrize("group", [1, 3, 1000], ids=lambda size: f"groups of {size}")
def test_each_row_of_a_parquet_file_is_its_own_image_in_any_order(tmp_path, group, monkeypatch):
    monkeypatch.setattr("modeling_vit_scratch.prediction.sources.ROWS_TOGETHER", 2)
    sources = ImageSources([write_parquet(tmp_path / "t.parquet", 11, group)])
    order = [*range(11), *random.Random(0).sample(range(11), 11)]
    for number in order:
        assert sources[number]["bytes"] == picture(number)


def test_few_rows_are_in_memory_at_once_however_large_a_group_is(tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_vit_scratch.prediction.sources.ROWS_TOGETHER", 4)
    sources = ImageSources([write_parquet(tmp_path / "t.parquet", 50)])
    (table,) = sources.sources
    for number in range(50):
        assert sources[number]["bytes"] == picture(number)
        assert len(table.rows) <= 4


def test_the_images_of_a_parquet_file_may_be_bytes_alone_paths_or_missing(tmp_path):
    (tmp_path / "elsewhere.png").write_bytes(picture(1))
    images = [None, {"bytes": None, "path": str(tmp_path / "elsewhere.png")}, {"bytes": picture(2), "path": "x.png"}]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    sources = ImageSources([write_parquet(tmp_path / "t.parquet", 3, image=pa.array(images, kind))])
    with pytest.raises(BadImageError, match=r"t\.parquet#0 is empty, or of no known image format\."):
        read_image(sources[0])
    assert [read_image(sources[number]).size for number in (1, 2)] == [noise((5, 7)).size] * 2
    plain = ImageSources([write_parquet(tmp_path / "plain.parquet", 1, img=[picture(3)])])
    assert plain[0]["bytes"] == picture(3)


def test_a_column_can_be_named(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", 1, before=[picture(0)], after=[picture(1)])
    with pytest.raises(ValueError, match="several columns that could hold the images"):
        ImageSources([path])
    assert ImageSources([path], "after")[0]["bytes"] == picture(1)


def test_what_cannot_be_meant_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for name, said in {
        "missing.png": "there is no image or folder",
        "*.jpg": "there is no image or folder like",
        "empty": "holds no images",
        "broken.parquet": "is no parquet file that can be read",
        write_parquet(tmp_path / "none.parquet", 0, image=pa.array([], pa.binary())): "there are no images in",
    }.items():
        with pytest.raises(ValueError, match=said) as refusal:
            ImageSources([str(tmp_path / name)])
        assert str(tmp_path / name) in str(refusal.value)


def test_the_files_that_are_read_are_those_named_and_those_that_rows_lead_to(tmp_path):
    (tmp_path / "elsewhere.png").write_bytes(picture(1))
    images = [{"bytes": None, "path": str(tmp_path / "elsewhere.png")}, {"bytes": picture(2), "path": "x.png"}, None]
    leading = write_parquet(tmp_path / "leading.parquet", 3, image=images)
    whole = write_parquet(tmp_path / "whole.parquet", 2)
    plain = write_parquet(tmp_path / "plain.parquet", 1, img=[picture(3)])
    files = ImageSources([leading, str(tmp_path / "elsewhere.png"), whole, plain]).files()
    elsewhere = str(tmp_path / "elsewhere.png")
    assert files == [leading, elsewhere, "x.png", elsewhere, whole, plain]
    states = file_states(files)
    assert states[2] == ""  # it is not there
    assert states[1] == f"{len(picture(1))} {(tmp_path / 'elsewhere.png').stat().st_mtime_ns}"
