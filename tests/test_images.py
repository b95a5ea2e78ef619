# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Reading images: the right pixels of every kind of file, and one sentence for each that cannot be read."""

import gc
import io
import os
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from pictures import encoded, noise, oriented, plain, row
from PIL import Image
from transformers.image_utils import load_image

from modeling_vit_scratch.data.image_files import IMAGE_SUFFIXES, images_in
from modeling_vit_scratch.data.images import (
    BadImageError,
    read_image,
)

SIXTEEN_BIT = np.array([[0, 128, 129, 257], [300, 32896, 65278, 65535]], dtype=np.uint16)
SIXTEEN_BIT_AS_8 = [[0, 0, 1, 1], [1, 128, 254, 255]]  # 65,535 / 255 = 257 steps of 16 bits to one of 8
SIXTEEN_BIT_CUT_OFF = [[0, 128, 129, 255], [255, 255, 255, 255]]


def pixels(picture: Image.Image) -> list:
    return np.asarray(picture).tolist()


def sentence(image) -> str:
    """What is said of an image that cannot be read."""
    with pytest.raises(BadImageError) as error:
        read_image(image)
    return str(error.value)


# --- Which files are images ------------------------------------------------------------------------------------------


def test_images_are_known_by_their_suffix_and_come_in_the_order_of_their_names(tmp_path):
    for name in ("b.jpg", "a b.PNG", "ü.WebP", "c.tif", "notes.txt", "Thumbs.db", "weights.h5", ".DS_Store", ".a.png"):
        (tmp_path / name).touch()
    assert [path.name for path in images_in(tmp_path)] == ["a b.PNG", "b.jpg", "c.tif", "ü.WebP"]


def test_images_in_folders_inside_follow_and_hidden_folders_are_left_out(tmp_path):
    for name in ("z.png", "b/2.png", "b/1.png", "a/deep/3.png", ".cache/4.png", "__MACOSX/5.png", "@eaDir/6.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in images_in(tmp_path)]
    assert found == ["z.png", "a/deep/3.png", "b/1.png", "b/2.png"]


def test_links_to_images_count_and_links_to_folders_do_not(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (folder / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "circle").symlink_to(tmp_path)
    assert [path.name for path in images_in(folder)] == ["broken.png", "link.png"]


def test_a_folder_that_is_a_link_is_read(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert list(images_in(tmp_path / "link")) == [tmp_path / "link" / "1.png"]


def test_pillow_reads_what_every_suffix_stands_for():
    formats = Image.registered_extensions()
    assert [suffix for suffix in IMAGE_SUFFIXES if formats.get(suffix) not in Image.OPEN] == []


# --- The pixels ------------------------------------------------------------------------------------------------------

WITH_ALPHA = noise(mode="RGB").copy()
WITH_ALPHA.putalpha(noise(mode="L", seed=1))
PALETTE = noise(mode="RGB").quantize(16)

KINDS = {
    "rgb.png": encoded(noise()),
    "rgb.jpg": encoded(noise(), "JPEG"),
    "rgb.webp": encoded(noise(), "WEBP", lossless=True),
    "rgb.bmp": encoded(noise(), "BMP"),
    "rgb.ppm": encoded(noise(), "PPM"),
    "rgb.tif": encoded(noise(), "TIFF", compression="tiff_lzw"),
    "rgb.jp2": encoded(noise((32, 32)), "JPEG2000"),
    "grey.png": encoded(noise(mode="L")),
    "grey.jpg": encoded(noise(mode="L"), "JPEG"),
    "grey-with-a-transparent-value.png": encoded(noise(mode="L"), transparency=3),
    "one-bit.png": encoded(noise(mode="1")),
    "one-bit.tif": encoded(noise(mode="1"), "TIFF", compression="group4"),
    "palette.png": encoded(PALETTE),
    "palette.gif": encoded(PALETTE, "GIF"),
    "palette-with-a-transparent-colour.png": encoded(PALETTE, transparency=2),
    "palette-with-half-transparent-colours.png": encoded(PALETTE, transparency=bytes(range(0, 160, 10))),
    "rgb-with-a-transparent-colour.png": encoded(noise(), transparency=(1, 2, 3)),
    "rgba.png": encoded(WITH_ALPHA),
    "rgba.webp": encoded(WITH_ALPHA, "WEBP", lossless=True, exact=True),
    "la.png": encoded(WITH_ALPHA.convert("LA")),
    "cmyk.jpg": encoded(noise(mode="CMYK"), "JPEG"),
    "cmyk.tif": encoded(noise(mode="CMYK"), "TIFF"),
    "animated.gif": encoded(PALETTE, "GIF", save_all=True, append_images=[noise(seed=2), noise(seed=3)]),
    "animated.webp": encoded(noise(), "WEBP", save_all=True, append_images=[noise(seed=2)], lossless=True),
    **{f"orientation-{turn}.jpg": encoded(noise(), "JPEG", exif=oriented(turn)) for turn in range(1, 9)},
    **{f"orientation-{turn}.png": encoded(noise(), exif=oriented(turn)) for turn in range(1, 9)},
    "orientation-6.webp": encoded(noise(), "WEBP", exif=oriented(6)),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_pixels_are_those_of_transformers_pipelines(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(KINDS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = load_image(str(path))
    for source in (path, str(path), row(None, path), row(KINDS[name]), row(KINDS[name], "elsewhere.png")):
        picture = read_image(source)
        assert picture.mode == "RGB"
        assert picture.size == expected.size
        assert pixels(picture) == pixels(expected)
    with Image.open(path) as opened:
        assert pixels(read_image(opened)) == pixels(expected)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (plain(77, mode="L"), (77, 77, 77)),
        (plain(1, mode="1"), (255, 255, 255)),
        (plain((10, 20, 30, 0), mode="RGBA"), (10, 20, 30)),
        (plain((40, 0), mode="LA"), (40, 40, 40)),
        (plain((0, 255, 255, 0), mode="CMYK"), (255, 0, 0)),
        (plain((200, 100, 50)).quantize(2), (200, 100, 50)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_a_colour_of_each_mode_worked_out_by_hand(picture, expected):
    assert pixels(read_image(picture)) == [[list(expected)] * 7] * 5


def test_a_turned_image_is_set_upright():
    stored = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]]], dtype=np.uint8))  # red, and green to its right
    upright = read_image(row(encoded(stored, exif=oriented(6))))  # 6: turn it clockwise to look at it
    assert pixels(upright) == [[[255, 0, 0]], [[0, 255, 0]]]


def test_an_animation_gives_its_first_frame():
    red, green = plain((255, 0, 0)), plain((0, 255, 0))
    picture = read_image(row(encoded(red, "GIF", save_all=True, append_images=[green])))
    assert pixels(picture) == [[[255, 0, 0]] * 7] * 5


SIXTEEN_BIT_FILES = {
    "png": encoded(Image.fromarray(SIXTEEN_BIT)),
    "tiff": encoded(Image.fromarray(SIXTEEN_BIT), "TIFF"),
    "tiff, big-endian": encoded(Image.frombytes("I;16B", (4, 2), SIXTEEN_BIT.astype(">u2").tobytes()), "TIFF"),
    "jpeg 2000": encoded(Image.fromarray(SIXTEEN_BIT), "JPEG2000", irreversible=False),
    "pgm": b"P5 4 2 65535\n" + SIXTEEN_BIT.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("kind", SIXTEEN_BIT_FILES)
def test_16_bit_grey_is_scaled_to_8_bits_where_a_plain_conversion_cuts_it_off(kind, tmp_path):
    path = tmp_path / "scan"
    path.write_bytes(SIXTEEN_BIT_FILES[kind])
    picture = np.asarray(read_image(path))
    assert picture.shape == (2, 4, 3)
    for channel in range(3):
        assert picture[..., channel].tolist() == SIXTEEN_BIT_AS_8
    assert pixels(load_image(str(path)).getchannel("R")) == SIXTEEN_BIT_CUT_OFF


def test_16_bit_grey_is_set_upright_too():
    turned = read_image(row(encoded(Image.fromarray(SIXTEEN_BIT), exif=oriented(3))))
    assert pixels(turned.getchannel("R")) == [[255, 254, 128, 1], [1, 1, 0, 0]]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bit_values_are_refused_since_nobody_knows_what_white_is(kind, tmp_path):
    path = tmp_path / "depth.tif"
    Image.fromarray(np.array([[0, 1], [1, 1]], dtype=kind)).save(path)
    assert sentence(path) == f"{path} has 32-bit values, whose range is unknown: convert it to 8 or 16 bits."


def test_a_picture_that_is_open_stays_as_it_was(tmp_path):
    path = tmp_path / "animated.gif"
    path.write_bytes(KINDS["animated.gif"])
    with Image.open(path) as picture:
        first = pixels(read_image(picture))
        picture.seek(1)
        assert pixels(picture.convert("RGB")) != first
    turned = noise()
    turned.info["exif"] = oriented(6).tobytes()
    assert read_image(turned).size == (5, 7)
    assert turned.size == (7, 5)


def test_no_file_is_left_open(tmp_path):
    path = tmp_path / "animated.gif"  # Pillow itself closes files of one frame only
    path.write_bytes(KINDS["animated.gif"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_image(path)
        gc.collect()
    assert [warning for warning in caught if warning.category is ResourceWarning] == []


# --- What cannot be read ---------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and then only begins."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))


def test_a_missing_file():
    assert sentence("no/such.png") == "no/such.png does not exist."
    assert sentence(row(None, "no/such.png")) == "no/such.png does not exist."


def test_a_row_without_an_image():
    assert sentence(row(None)) == sentence(None) == "the image is missing: the row holds none."


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert sentence(tmp_path / "pipe.png") == f"{tmp_path / 'pipe.png'} is no regular file."


def test_a_folder(tmp_path):
    assert sentence(tmp_path) == f"{tmp_path} cannot be read: Is a directory."


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG", b"<svg/>"])
def test_an_empty_file_or_one_of_another_kind(content, tmp_path):
    path = tmp_path / "1.jpg"
    path.write_bytes(content)
    assert sentence(path) == f"{path} is empty, or of no known image format."
    assert sentence(row(content)) == "the image is empty, or of no known image format."


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "PPM", "WEBP"])
def test_a_truncated_file(file_format, share, tmp_path):
    content = encoded(noise((64, 48)), file_format)
    path = tmp_path / "cut off"
    path.write_bytes(content[: int(share * len(content))])
    said = sentence(path)
    if file_format not in ("TIFF", "WEBP"):  # whose tables are at the end, or whose whole is checked at once
        assert said.startswith(f"{path} cannot be read: it is corrupt or truncated (")
    assert said.startswith(str(path))
    assert said.endswith(".")


def test_a_file_with_damaged_bytes_in_the_middle():
    content = bytearray(encoded(noise((64, 48))))
    content[len(content) // 2] ^= 0xFF
    assert sentence(row(bytes(content), "scan.png")).startswith("scan.png cannot be read: it is corrupt or truncated (")


def test_a_decompression_bomb():
    said = sentence(row(png_header(60_000, 50_000), "bomb.png"))
    assert said.startswith("bomb.png is refused, it may be a decompression bomb: Image size (3000000000 pixels)")


def test_a_picture_that_pillow_only_warns_of_is_read(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    assert read_image(row(encoded(noise((7, 5))))).size == (7, 5)
    assert "decompression bomb" in sentence(row(encoded(noise((7, 9)))))


def test_damaged_exif_is_passed_over_and_other_warnings_are_not():
    exif = oriented(3).tobytes()
    content = encoded(noise(), "JPEG", exif=exif[:-14])
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        Image.open(io.BytesIO(content)).getexif()
    filters = list(warnings.filters)
    assert pixels(read_image(row(content))) == pixels(Image.open(io.BytesIO(encoded(noise(), "JPEG"))))
    assert warnings.filters == filters


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_whatever_is_damaged_there_is_an_image_or_one_sentence(file_format):
    chance = random.Random(0)
    exif = {"exif": oriented(6)} if file_format in ("PNG", "JPEG", "WEBP") else {}
    whole = encoded(noise((12, 9)), file_format, **exif)
    outcomes = set()
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            content[chance.randrange(min(len(content), 200))] = chance.randrange(256)
        try:
            outcomes.add(read_image(row(bytes(content))).mode)
        except BadImageError as error:
            outcomes.add(str(error)[: len("the image ")])
    assert outcomes - {"RGB"} == {"the image "}
