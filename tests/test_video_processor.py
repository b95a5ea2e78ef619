# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What a video model is given of a video: which frames, which part of them, and which numbers."""

import json

import numpy as np
import pytest
import torch
from forks import python
from PIL import Image
from test_vivit import classifier
from transformers import AutoImageProcessor

from modeling_vit_scratch import ViViTScratchImageProcessor
from modeling_vit_scratch.model.image_processing_vivit_scratch import clip_indices


def numbered(frames: int = 20, height: int = 30, width: int = 40) -> np.ndarray:
    """A video whose frames are as bright as their number, darker from left to right."""
    video = np.zeros((frames, height, width, 3), np.uint8)
    video += np.arange(frames, dtype=np.uint8)[:, None, None, None] * 10
    video[..., 2] = np.arange(width, dtype=np.uint8)
    return video


SMALL = {"num_frames": 4, "frame_stride": 2, "size": {"shortest_edge": 30}, "crop_size": {"height": 30, "width": 30}}


def frames_of(pixel_values) -> list[int]:
    """The numbers of the frames in a clip (F, C, H, W)."""
    return [round(float(frame[0].mean() + 1) * 127.5 / 10) for frame in pixel_values]


@pytest.mark.parametrize(
    ("total", "start", "expected"),
    [
        (20, "center", [6, 8, 10, 12]),
        (20, "start", [0, 2, 4, 6]),
        (20, 13, [13, 15, 17, 19]),
        (20, 17, [17, 19, 1, 3]),
        (3, "center", [0, 2, 1, 0]),
        (1, "center", [0, 0, 0, 0]),
    ],
)
def test_a_clip_is_every_so_many_frames_and_a_short_video_begins_again(total, start, expected):
    assert clip_indices(total, 4, 2, start) == expected


def test_a_clip_is_in_the_middle_unless_another_is_asked_for():
    processor = ViViTScratchImageProcessor(**SMALL)
    inputs = processor(numbered(), return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 4, 3, 30, 30)
    assert frames_of(inputs["pixel_values"][0]) == [6, 8, 10, 12]
    assert frames_of(processor(numbered(), start=1, frame_stride=3)["pixel_values"][0]) == [1, 4, 7, 10]
    assert frames_of(processor(numbered(), num_frames=2)["pixel_values"][0]) == [8, 10]


def test_bytes_become_numbers_from_minus_one_to_one():
    processor = ViViTScratchImageProcessor(**SMALL)
    video = np.zeros((4, 30, 30, 3), np.uint8)
    video[..., 1] = 255
    (clip,) = processor(video, do_sample_frames=False)["pixel_values"]
    assert (clip[:, 0] == -1).all()
    assert (clip[:, 1] == 1).all()
    exact = np.arange(256, dtype=np.uint8).repeat(4).reshape(1, 32, 32, 1).repeat(3, axis=3)
    wide = ViViTScratchImageProcessor(num_frames=1, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    np.testing.assert_allclose(wide(exact)["pixel_values"][0, 0].transpose(1, 2, 0), exact[0] / 127.5 - 1, atol=2e-7)


def test_a_video_is_a_path_a_list_of_frames_an_array_or_a_list_of_these(tmp_path):
    processor, video = ViViTScratchImageProcessor(**SMALL), numbered()
    images = [Image.fromarray(frame) for frame in video]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], lossless=True)
    (tmp_path / "frames").mkdir()
    for number, image in enumerate(images):
        image.save(tmp_path / "frames" / f"{number}.png")
    expected = processor(video)["pixel_values"]
    for given in (str(tmp_path / "a.webp"), tmp_path / "frames", images, list(video), [video], [images], video[None]):
        np.testing.assert_array_equal(processor(given)["pixel_values"], expected)
    both = processor([tmp_path / "a.webp", video])["pixel_values"]
    np.testing.assert_array_equal(both, np.concatenate((expected, expected)))


def test_frames_are_resized_by_their_shorter_side_and_cut_in_the_middle():
    processor = ViViTScratchImageProcessor(
        **SMALL | {"size": {"shortest_edge": 60}, "crop_size": {"height": 60, "width": 60}}
    )
    clip = processor(numbered())["pixel_values"][0]
    columns = (clip[0, 2].mean(axis=0) + 1) * 127.5
    assert clip.shape == (4, 3, 60, 60)
    assert columns[[0, -1]] == pytest.approx([5, 34.5], abs=0.6)  # of 80 columns 10 are cut off on each side


def test_views_are_clips_in_even_steps_and_crops_along_the_longer_side():
    processor = ViViTScratchImageProcessor(**SMALL)
    views = processor.views(numbered(), clips=3, crops=3)["pixel_values"]
    assert views.shape == (9, 4, 3, 30, 30)
    assert [frames_of(view)[0] for view in views[::3]] == [0, 6, 13]
    assert [round(float(view[0, 2, 0, 0] + 1) * 127.5) for view in views[:3]] == [0, 5, 10]
    np.testing.assert_array_equal(
        processor.views(numbered(), 1, 1)["pixel_values"], processor(numbered())["pixel_values"]
    )


@pytest.mark.parametrize(
    ("video", "sentence"),
    [
        ([], "there are no videos"),
        (np.zeros((4, 30, 30, 3), np.float32), "must have the shape .* and bytes, got .* of float32"),
        (np.zeros((4, 20, 40, 1), np.uint8), "must have the shape"),
        ([Image.new("RGB", (9, 9)), Image.new("RGB", (8, 9))], "the frames of a video must have one size"),
    ],
    ids=["none", "no bytes", "one channel", "two sizes"],
)
def test_what_is_no_video_is_refused(video, sentence):
    with pytest.raises(ValueError, match=sentence):
        ViViTScratchImageProcessor(**SMALL)(video)


def test_settings_that_make_no_clip_are_refused():
    with pytest.raises(ValueError, match="frame_stride must be a whole number, 1 or more, got 0"):
        ViViTScratchImageProcessor(frame_stride=0)
    with pytest.raises(ValueError, match="a clip cannot begin at frame 20 of a video of 20 frames"):
        ViViTScratchImageProcessor(**SMALL)(numbered(), start=20)
    with pytest.raises(ValueError, match="too small for a crop of 99x99"):
        ViViTScratchImageProcessor(**SMALL | {"crop_size": {"height": 99, "width": 99}})(numbered())


def test_it_is_saved_and_loaded_as_any_image_processor(tmp_path):
    processor = ViViTScratchImageProcessor(**SMALL)
    processor.save_pretrained(tmp_path)
    classifier("joint").save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is ViViTScratchImageProcessor
    assert loaded.to_dict() == processor.to_dict()
    written = json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert written["auto_map"] == {"AutoImageProcessor": "image_processing_vivit_scratch.ViViTScratchImageProcessor"}


WITHOUT_THE_PACKAGE = """
import sys
sys.modules["modeling_vit_scratch"] = None
import torch
from transformers import AutoImageProcessor, AutoModelForVideoClassification
trusted = {"trust_remote_code": True}
processor = AutoImageProcessor.from_pretrained(sys.argv[1], **trusted)
model = AutoModelForVideoClassification.from_pretrained(sys.argv[1], **trusted).eval()
with torch.no_grad():
    torch.save(model(**processor(sys.argv[2], return_tensors="pt")).logits, sys.argv[3])
"""


def test_a_folder_classifies_a_file_without_the_package(tmp_path):
    folder, clip, logits = tmp_path / "model", tmp_path / "clip.webp", tmp_path / "logits.pt"
    model = classifier("joint")
    size = {"height": 24, "width": 32}
    processor = ViViTScratchImageProcessor(num_frames=8, frame_stride=1, size=size, do_center_crop=False)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    images = [Image.fromarray(frame) for frame in numbered()]
    images[0].save(clip, save_all=True, append_images=images[1:], lossless=True)
    done = python(
        WITHOUT_THE_PACKAGE, folder, clip, logits, environment={"HF_HOME": str(tmp_path / "home")}, cwd=tmp_path
    )
    assert done.status == 0, done
    with torch.no_grad():
        torch.testing.assert_close(torch.load(logits), model(**processor(clip, return_tensors="pt")).logits)
