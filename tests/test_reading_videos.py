# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Videos: each frame is the one that was asked for, and what cannot be read is one sentence that names the file."""

import gc
import multiprocessing
import os
import random
import re
import resource
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from transformers.dynamic_module_utils import get_imports

from modeling_vit_scratch.model import decoding_vivit_scratch, reading_vivit_scratch
from modeling_vit_scratch.model.reading_vivit_scratch import (
    ANIMATION_SUFFIXES,
    VIDEO_SUFFIXES,
    VideoError,
    frame_files,
    is_video,
    open_video,
)

HEIGHT, WIDTH, NUM_FRAMES = 48, 64, 40
BITS = 8
H264 = {"codec": "libx264", "options": {"bf": "2", "g": "12", "x264-params": "scenecut=0"}}
VP9 = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8", "g": "12"}}
# B-frames where the container has them, and a key frame every twelve.
FIVE_CONTAINERS = {
    "mp4": H264,
    "mkv": H264,
    "mov": H264,
    "webm": VP9,
    "avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "12", "qmin": "1", "qmax": "2"}},
}
OTHERS = {
    "avi": H264,  # of which the container does not say in which order frames are shown
    "mkv": {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:open-gop=1:log-level=none:pools=1"}},
    "mp4": {"codec": "libx264", "options": {"bf": "3", "x264-params": "keyint=12:open-gop=1:scenecut=0"}},
    "webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8", "g": "12"}},
    "mpg": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}},
    "wmv": {"codec": "wmv2", "options": {"g": "12", "b": "2M"}},
    "flv": {"codec": "flv1", "options": {"g": "12", "b": "2M"}},
}


def picture(number: int, noisy: bool = True) -> np.ndarray:
    """A frame that says its number in black and white blocks, the highest bit at its left, over noise or grey."""
    bits = np.array([number >> bit & 1 for bit in reversed(range(BITS))], np.uint8) * 200 + 20
    upper = np.repeat(bits, WIDTH // BITS)[None].repeat(HEIGHT // 2, 0)
    lower = np.random.default_rng(number).integers(0, 255, (HEIGHT // 2, WIDTH), np.uint8) if noisy else 120 + 0 * upper
    return np.concatenate([upper, lower])[..., None].repeat(3, -1)


def number_in(pixels: np.ndarray) -> int:
    blocks = pixels[: HEIGHT // 2].reshape(HEIGHT // 2, BITS, WIDTH // BITS, 3).mean((0, 2, 3)) > 120
    return int(sum(bit << place for place, bit in enumerate(reversed(blocks.tolist()))))


def numbers_in(clip: np.ndarray) -> list[int]:
    return [number_in(pixels) for pixels in clip]


def write(
    path: Path,
    codec="libx264",
    options=None,
    frames=range(NUM_FRAMES),
    pixel_format="yuv420p",
    milliseconds=None,
    container=None,
    rotation=None,
    noisy=True,
) -> Path:
    """A video whose frames say their numbers, 25 a second or at given times."""
    with av.open(path, "w", options=container or {}) as output:
        stream = output.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        stream.codec_context.thread_count = 1
        if rotation is not None:
            stream.set_display_rotation(**rotation)
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for place, number in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, noisy), format="rgb24")
            if milliseconds is not None:
                frame.pts, frame.time_base = milliseconds[place], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def decoded_from_the_start(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


@pytest.fixture(scope="module")
def mp4(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("mp4") / "clip.mp4", **H264)


@pytest.fixture(scope="module")
def faststart(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("faststart") / "clip.mp4"
    return write(path, **H264, container={"movflags": "faststart"})


def kinds(containers: dict) -> list:
    return [
        pytest.param(suffix, settings, id=f"{suffix}-{settings['codec']}") for suffix, settings in containers.items()
    ]


@pytest.mark.parametrize(("suffix", "settings"), kinds(FIVE_CONTAINERS) + kinds(OTHERS))
def test_each_frame_is_the_one_asked_for_in_order_and_after_a_seek(tmp_path, suffix, settings):
    path = write(tmp_path / f"clip.{suffix}", **settings)
    video = open_video(path)
    assert (video.num_frames, video.size) == (NUM_FRAMES, (HEIGHT, WIDTH))
    np.testing.assert_allclose(video.timestamps, np.arange(NUM_FRAMES) / 25, atol=1e-3)
    assert video.timestamps.dtype == np.float64
    whole = video.read(range(NUM_FRAMES))
    assert numbers_in(whole) == list(range(NUM_FRAMES))
    np.testing.assert_array_equal(whole, decoded_from_the_start(path))
    for number in range(NUM_FRAMES):
        np.testing.assert_array_equal(video.read([number]), whole[[number]])


def test_frames_come_in_the_order_asked_for_and_repeat(mp4):
    clip = open_video(mp4).read([30, 7, 7, 31, 0])
    assert clip.dtype == np.uint8
    assert clip.shape == (5, HEIGHT, WIDTH, 3)
    assert numbers_in(clip) == [30, 7, 7, 31, 0]
    assert open_video(str(mp4)).read([]).shape == (0, HEIGHT, WIDTH, 3)


def test_a_seek_decodes_from_the_key_frame_before_and_no_further_than_asked(mp4, monkeypatch):
    video = open_video(mp4)
    decoded = []
    original = type(video._source)._decode
    monkeypatch.setattr(type(video._source), "_decode", lambda self, *rest: decoded.append(1) or original(self, *rest))
    video.read([27])
    assert len(decoded) < 10


def test_times_are_those_of_the_file_where_the_rate_varies(tmp_path):
    times = np.cumsum([0, *random.Random(0).choices([20, 40, 150], k=NUM_FRAMES - 1)])
    video = open_video(write(tmp_path / "phone.mp4", **H264, milliseconds=times.tolist()))
    assert video.num_frames == NUM_FRAMES
    np.testing.assert_allclose(video.timestamps, times / 1000, atol=1e-3)
    assert numbers_in(video.read([39, 12, 13, 25])) == [39, 12, 13, 25]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_a_video_held_sideways_or_mirrored_is_read_upright(tmp_path, degrees, mirrored):
    path = write(tmp_path / "phone.mp4", frames=[5, 6], rotation={"degrees": degrees, "hflip": mirrored})
    video = open_video(path)
    upright = np.rot90(decoded_from_the_start(path), degrees // 90, axes=(1, 2))
    upright = upright[:, :, ::-1] if mirrored else upright
    assert video.size == upright.shape[1:3]
    np.testing.assert_array_equal(video.read([0, 1]), upright)


def test_ten_bits_become_eight(tmp_path):
    path = write(tmp_path / "phone.mp4", **OTHERS["mkv"], pixel_format="yuv420p10le")
    clip = open_video(path).read(range(NUM_FRAMES))
    assert numbers_in(clip) == list(range(NUM_FRAMES))
    np.testing.assert_array_equal(clip, decoded_from_the_start(path))


def test_alpha_is_dropped(tmp_path):
    path = tmp_path / "overlay.webm"
    with av.open(path, "w") as output:
        stream = output.add_stream("libvpx-vp9", rate=25, options=VP9["options"])
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuva420p"
        for number in range(6):
            transparent = np.concatenate([picture(number), np.zeros((HEIGHT, WIDTH, 1), np.uint8)], -1)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(transparent, format="rgba")))
        output.mux(stream.encode(None))
    assert numbers_in(open_video(path).read(range(6))) == list(range(6))


def test_one_frame_is_a_video(tmp_path):
    video = open_video(write(tmp_path / "clip.mp4", frames=[9]))
    assert (video.num_frames, video.timestamps.tolist()) == (1, [0.0])
    assert numbers_in(video.read([0, 0])) == [9, 9]


def test_a_video_shorter_than_the_clip_says_how_long_it_is(tmp_path):
    video = open_video(write(tmp_path / "clip.mp4", frames=range(5)))
    with pytest.raises(VideoError, match=r"clip\.mp4 has 5 frames, numbered from 0: there is no frame 5\.$"):
        video.read(range(8))
    with pytest.raises(VideoError, match="no frame -1"):
        video.read([-1])
    with pytest.raises(VideoError, match="by whole numbers, not by"):
        video.read([0.5])


def cut(source: Path, target: Path, begin: float) -> Path:
    """What a video editor makes without encoding again: it begins at the key frame before, which is hidden."""
    with av.open(str(source)) as file, av.open(str(target), "w") as output:
        stream = file.streams.video[0]
        copy = output.add_stream_from_template(stream)
        offset = int(begin / stream.time_base)
        file.seek(offset, stream=stream)
        for packet in file.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, copy
                output.mux(packet)
    return target


@pytest.mark.parametrize("settings", [H264, OTHERS["mp4"]], ids=["closed", "open"])
@pytest.mark.parametrize("noisy", [True, False])
def test_frames_that_an_edit_hides_are_not_counted(tmp_path, settings, noisy):
    source = write(tmp_path / "long.mp4", **settings, noisy=noisy)
    video = open_video(cut(source, tmp_path / "cut.mp4", begin=20 / 25))
    assert video.num_frames == 20
    np.testing.assert_allclose(video.timestamps, np.arange(20) / 25)
    assert numbers_in(video.read(range(20))) == list(range(20, 40))
    assert numbers_in(video.read([17])) == [37]


def test_a_file_without_its_first_key_frame_begins_with_the_next(tmp_path, mp4):
    target = tmp_path / "cut.mkv"
    with av.open(str(mp4)) as file, av.open(str(target), "w") as output:
        copy = output.add_stream_from_template(file.streams.video[0])
        for packet in list(file.demux(video=0))[5:-1]:
            packet.stream = copy
            output.mux(packet)
    video = open_video(target)
    assert numbers_in(video.read(range(video.num_frames))) == list(range(12, 40))
    assert video.timestamps[0] == 0


def with_bytes(source: Path, target: Path, change) -> Path:
    target.write_bytes(change(bytearray(source.read_bytes())))
    return target


def test_a_file_that_declares_more_frames_than_it_has_ends_with_its_last_whole_one(tmp_path, faststart):
    half = with_bytes(faststart, tmp_path / "clip.mp4", lambda data: data[: len(data) * 3 // 5])
    with av.open(str(half)) as file:
        assert file.streams.video[0].frames == NUM_FRAMES
    video = open_video(half)
    assert 10 < video.num_frames < 35
    shown = numbers_in(video.read(range(video.num_frames)))
    assert shown == [round(time * 25) for time in video.timestamps]


def test_a_matroska_file_cut_off_ends_with_its_last_whole_frame(tmp_path):
    path = write(tmp_path / "whole.mkv", **H264)
    video = open_video(with_bytes(path, tmp_path / "half.mkv", lambda data: data[: len(data) * 3 // 5]))
    assert 10 < video.num_frames < 35
    assert numbers_in(video.read(range(video.num_frames))) == [round(time * 25) for time in video.timestamps]


def noise_in_the_middle(data: bytearray) -> bytearray:
    middle = len(data) // 2
    data[middle : middle + 2000] = random.Random(0).randbytes(2000)
    return data


def test_noise_in_the_middle_is_named_and_what_does_not_need_it_is_read(tmp_path, faststart):
    path = with_bytes(faststart, tmp_path / "noise.mp4", noise_in_the_middle)
    video = open_video(path)
    read, refused = {}, {}
    for number in range(NUM_FRAMES):
        try:
            read[number] = number_in(video.read([number])[0])
        except VideoError as error:
            refused[number] = str(error)
    assert all(number == shown for number, shown in read.items())
    assert {0, 39} <= read.keys()
    assert 1 <= len(refused) <= 12
    for number, message in refused.items():
        assert re.search(rf"noise\.mp4 is damaged: frame {number} of 40 cannot be decoded( \(.*\))?\.$", message)
    with pytest.raises(VideoError, match="damaged"):
        video.read(range(NUM_FRAMES))


def sound_alone(path: Path) -> Path:
    with av.open(path, "w") as output:
        stream = output.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def an_index_lost(path: Path, mp4: Path) -> Path:
    return with_bytes(mp4, path, lambda data: data[: len(data) * 9 // 10])


def only_the_index(path: Path, faststart: Path) -> Path:
    return with_bytes(faststart, path, lambda data: data[: data.index(b"mdat") + 8])


def a_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


UNREADABLE = {
    "nothing there": (lambda path, *_: path, "does not exist"),
    "0 bytes": (lambda path, *_: path.write_bytes(b""), "is empty"),
    "a text": (lambda path, *_: path.write_text("a film by us\n" * 50), "is no video, or its index is damaged"),
    "sound alone": (lambda path, *_: sound_alone(path), "has no pictures"),
    "cut before the index": (lambda path, mp4, _: an_index_lost(path, mp4), "or its index is damaged or cut off"),
    "cut after the index": (lambda path, _, faststart: only_the_index(path, faststart), "holds no whole frame"),
    "a pipe": (lambda path, *_: a_pipe(path), "is no regular file"),
    "a list of other files": (
        lambda path, mp4, _: path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{mp4}\n"),
        "is no video",
    ),
    "another list of files": (
        lambda path, mp4, _: path.write_text(f"ffconcat version 1.0\nfile {mp4}\n"),
        "is no video",
    ),
}


@pytest.mark.parametrize(("make", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_video_is_one_sentence_that_names_the_file(tmp_path, mp4, faststart, make, reason):
    path = tmp_path / "clip.mp4"
    make(path, mp4, faststart)
    with pytest.raises(VideoError) as caught:
        open_video(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert reason in message
    assert message.endswith(".")
    assert "\n" not in message


def test_frames_so_large_that_they_may_be_a_bomb_are_refused(tmp_path, mp4, monkeypatch):
    animation = animated(tmp_path / "a.gif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 2 - 1)
    for path in (mp4, animation):
        with pytest.raises(VideoError, match=rf"{path.name} is refused, it may be a decompression bomb"):
            open_video(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_video(mp4).size == (HEIGHT, WIDTH)


def test_without_pyav_a_video_says_what_to_install(mp4, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=r'clip\.mp4 is read after pip install "vit-scratch\[video\]"\.$'):
        open_video(mp4)
    assert open_video(animated(tmp_path / "a.gif")).num_frames == 12  # this needs none


def test_a_name_is_no_address_or_option(tmp_path, mp4, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("http:clip.mp4", "-i clip%03d?#é.mp4", "pipe:0"):
        shutil.copy(mp4, name)
        assert open_video(name).num_frames == NUM_FRAMES


def animated(path: Path, milliseconds: int | list[int] = 70) -> Path:
    frames = [Image.fromarray(picture(number)) for number in range(12)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, lossless=True, loop=0)
    return path


@pytest.mark.parametrize("name", ["clip.gif", "clip.webp", "clip.apng"])
def test_animations_are_videos(tmp_path, name):
    video = open_video(animated(tmp_path / name, [50, 100, 150, 50] * 3))
    assert (video.num_frames, video.size) == (12, (HEIGHT, WIDTH))
    np.testing.assert_allclose(video.timestamps[:5], [0, 0.05, 0.15, 0.3, 0.35])
    clip = video.read([7, 3, 3, 11])
    np.testing.assert_array_equal(clip, np.stack([picture(number) for number in (7, 3, 3, 11)]))


def test_a_still_image_is_a_video_of_one_frame(tmp_path):
    Image.fromarray(picture(3)).save(tmp_path / "still.png")
    video = open_video(tmp_path / "still.png")
    assert (video.num_frames, video.timestamps.tolist(), numbers_in(video.read([0]))) == (1, [0.0], [3])


@pytest.mark.parametrize("name", ["clip.gif", "clip.webp", "clip.apng"])
def test_an_animation_cut_off_is_named(tmp_path, name):
    whole = animated(tmp_path / name)
    path = with_bytes(whole, tmp_path / f"half-{name}", lambda data: data[: len(data) // 2])
    with pytest.raises(VideoError, match=rf"half-{name} (is|cannot be read: it is damaged or cut off) .*\.$"):
        open_video(path).read(range(12))


def folder_of_frames(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        Image.fromarray(picture(number)).save(folder / name)
    return folder


def test_a_folder_of_frames_is_a_video_in_the_order_of_its_numbers(tmp_path):
    names = [f"frame{number}.png" for number in range(12)]
    folder = folder_of_frames(tmp_path / "clip", names)
    (folder / "notes.txt").write_text("by hand")
    (folder / "._frame0.png").write_text("left by a system")
    video = open_video(folder)
    assert [path.name for path in frame_files(folder)] == names
    assert (video.num_frames, video.size) == (12, (HEIGHT, WIDTH))
    np.testing.assert_allclose(video.timestamps, np.arange(12) / 25)
    np.testing.assert_array_equal(video.read([10, 2, 2]), np.stack([picture(number) for number in (10, 2, 2)]))


def test_a_folder_that_is_no_video_names_what_is_wrong(tmp_path):
    folder = folder_of_frames(tmp_path / "clip", ["1.png", "2.png"])
    Image.new("RGB", (7, 5)).save(folder / "3.png")
    with pytest.raises(VideoError, match=r"clip has frames of several sizes, 64x48 and, frame 2, 7x5, where a video"):
        open_video(folder).read([0, 2])
    (folder / "4.png").write_bytes(b"no image")
    with pytest.raises(VideoError, match=r"4\.png is empty, or of no format that is read\.$"):
        open_video(folder).read([3])
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(folder / "5.png")
    with pytest.raises(VideoError, match=r"5\.png has values of more than 8 bits"):
        open_video(folder).read([4])
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match=r"empty holds no frames, which are images \(\.jpg, "):
        open_video(tmp_path / "empty")


def test_videos_are_known_by_their_suffix():
    assert all(is_video(f"clip{suffix}") and is_video(f"CLIP{suffix.upper()}") for suffix in VIDEO_SUFFIXES)
    assert all(is_video(Path("clip").with_suffix(suffix)) for suffix in ANIMATION_SUFFIXES)
    assert not any(map(is_video, ["clip.jpg", "clip.txt", "mp4", "._clip.mp4", ".mp4"]))


def read_often(path: str, times: int) -> tuple[int, int]:
    """Growth of the memory in KiB over reads of a file after the first few, and files that stay open."""
    for _ in range(5):
        open_video(path).read(range(5, 25, 2))
    before, opened = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(os.listdir("/proc/self/fd"))
    for _ in range(times):
        open_video(path).read(range(5, 25, 2))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return after - before, len(os.listdir("/proc/self/fd")) - opened


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted as Linux shows them")
def test_many_reads_take_no_more_memory_than_a_few_and_leave_nothing_open(mp4):
    growth, left_open = read_often(str(mp4), times=50)
    assert growth < 2048
    assert left_open == 0


def test_no_frame_waits_for_python_to_look_for_garbage(mp4):
    gc.collect()
    gc.disable()
    try:
        open_video(mp4).read(range(NUM_FRAMES))
        assert not [thing for thing in gc.get_objects() if isinstance(thing, av.VideoFrame) and thing.width == WIDTH]
    finally:
        gc.enable()


@pytest.mark.parametrize("module", [decoding_vivit_scratch, reading_vivit_scratch])
def test_a_checkpoint_that_carries_the_reader_asks_for_no_pyav(module):
    assert set(get_imports(module.__file__)) - sys.stdlib_module_names <= {"numpy", "PIL"}


def test_decoding_starts_no_threads(mp4):
    threads = Path("/proc/self/task")
    if not threads.exists():
        pytest.skip("threads are counted as Linux shows them")
    before, seen = len(list(threads.iterdir())), []
    video = open_video(mp4)
    for _ in video._source.frames(list(range(NUM_FRAMES))):
        seen.append(len(list(threads.iterdir())))
    assert max(seen) == before


def test_a_video_goes_to_another_process(mp4):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        clip = pool.apply(open_video(mp4).read, ([3, 30],))
    assert numbers_in(clip) == [3, 30]
