# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What clients of the page send: a regular file of this server's uploads is read, within limits, and nothing else."""

import io
import os
import struct

import pytest
from pictures import encoded, noise
from PIL import Image

from modeling_vit_scratch.demo import uploads
from modeling_vit_scratch.demo.uploads import names_url, pixels_limited, read_upload


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "uploads").mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    return tmp_path / "uploads"


def sentence(upload: object) -> str:
    """What is said of something that is refused."""
    with pytest.raises(ValueError, match=r"\.$") as refusal, pixels_limited():
        read_upload(upload)
    return str(refusal.value)


def in_an_icon(image: Image.Image) -> bytes:
    """An icon that says it has 16x16 pixels, with an image of another size in it."""
    content = encoded(image)
    return struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(content), 22) + content


def test_an_upload_is_read_under_the_name_that_its_user_gave_it(folder):
    (folder / "0").write_bytes(encoded(noise((7, 5))))
    name, image = read_upload({"path": str(folder / "0"), "orig_name": "holiday.png"})
    assert (name, image.size, image.mode) == ("holiday.png", (7, 5), "RGB")
    assert read_upload({"path": str(folder / "0")})[0] == "0"


def test_a_link_to_an_upload_will_do_and_one_out_of_the_folder_will_not(folder, tmp_path):
    for place in (folder, tmp_path):
        (place / "x.png").write_bytes(encoded(noise((7, 5))))
    (folder / "inside.png").symlink_to(folder / "x.png")
    (folder / "outside.png").symlink_to(tmp_path / "x.png")
    assert read_upload({"path": str(folder / "inside.png")})[1].size == (7, 5)
    missing = "outside.png is not among the files that were uploaded to this page: upload it again."
    assert sentence({"path": str(folder / "outside.png")}) == missing
    os.unlink(folder / "outside.png")
    assert sentence({"path": str(folder / "outside.png")}) == missing


@pytest.mark.parametrize("name", ["\x1b[31mred\x1b[0m\n.png", "x" * 100_000, "\ud800.png", 3, ["x"], {}, None, "\0"])
def test_a_name_is_short_and_has_nothing_that_steers_a_terminal(folder, name):
    (folder / "0").write_bytes(encoded(noise((7, 5))))
    shown, _ = read_upload({"path": str(folder / "0"), "orig_name": name})
    assert shown.isprintable()
    assert 0 < len(shown) <= 255
    assert shown.encode()


def test_a_file_that_is_too_large_is_not_read(folder):
    (folder / "0").touch()
    os.truncate(folder / "0", 50_000_001)
    assert sentence({"path": str(folder / "0")}) == "0 has more than 50 MB: upload a smaller file."


def test_an_image_that_hides_its_size_in_an_icon_is_refused(folder):
    (folder / "x.ico").write_bytes(in_an_icon(Image.new("1", (7100, 7100))))
    assert "x.ico has more than 50,000,000 pixels" in sentence({"path": str(folder / "x.ico")})
    (folder / "x.ico").write_bytes(in_an_icon(noise((16, 16))))
    assert read_upload({"path": str(folder / "x.ico")})[1].size == (16, 16)


def test_a_sliver_is_refused_that_a_processor_would_make_enormous(folder):
    (folder / "x.png").write_bytes(encoded(noise((1, 101))))
    assert sentence({"path": str(folder / "x.png")}) == (
        "x.png is 1 × 101 pixels: one side may be 100 times as long as the other at most."
    )


def test_one_image_is_decoded_at_a_time_whoever_asks(folder, monkeypatch):
    (folder / "0").write_bytes(encoded(noise((7, 5))))
    locked = []
    monkeypatch.setattr(uploads, "read_image", lambda *_, **__: locked.append(uploads.DECODING.locked()) or noise())
    read_upload({"path": str(folder / "0")})
    assert locked == [True]


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        ([{"path": "https://example.com/x.png"}], True),
        ([None, [{"deep": {"path": "HTTPS://example.com"}}]], True),
        ([{"path": "/tmp/x.png", "url": "http://127.0.0.1:7860/gradio_api/file=/tmp/x.png"}], False),
        ([3, "https://example.com", {"path": 3}], False),
    ],
)
def test_a_url_in_place_of_a_path_is_found(data, is_one):
    assert names_url(data) is is_one


def test_formats_that_run_programs_are_not_opened(folder):
    file = io.BytesIO()
    noise((7, 5)).save(file, "EPS")
    (folder / "x.png").write_bytes(file.getvalue())
    assert sentence({"path": str(folder / "x.png")}) == "x.png is empty, or of no known image format."


def test_the_limit_of_pillow_is_that_of_the_page_only_while_it_is_served():
    before = Image.MAX_IMAGE_PIXELS
    with pixels_limited():
        assert 2 * Image.MAX_IMAGE_PIXELS == uploads.MOST_PIXELS
    assert before == Image.MAX_IMAGE_PIXELS
