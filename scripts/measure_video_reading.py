"""How many clips a second one core reads from a video, and what memory many clips take.

    python scripts/measure_video_reading.py [--container mp4|mkv|webm|avi|mov] [--keys K] [--rounds R] [--clips N]

A clip is 32 frames, every second one, from the middle of a video of 250 frames of 320x240 that is made here: disks
over a landscape that moves, with a little noise. For each clip the file is opened, looked through and read, as in
training.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from PIL import Image

from modeling_vit_scratch.model.reading_vivit_scratch import open_video

NUM_FRAMES, HEIGHT, WIDTH = 250, 240, 320
CLIP = range(93, 157, 2)
H264 = ("libx264", {"crf": "23", "preset": "medium"})
CODECS = {
    "mp4": H264,
    "mkv": H264,
    "mov": H264,
    "webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "6", "crf": "31", "b": "0"}),
    "avi": ("mpeg4", {"bf": "2", "qscale": "4"}),
}


def pictures() -> np.ndarray:
    """Frames of a scene, (NUM_FRAMES, HEIGHT, WIDTH, 3) uint8."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    # As in photographs, there is more of what is coarse than of what is fine.
    grids = [(draw.normal(0, 2.5 * size, (HEIGHT // size, WIDTH // size)), size) for size in (2, 4, 8, 16)]
    background = 120 + sum(np.asarray(Image.fromarray(grid).resize((WIDTH, HEIGHT))) for grid, _ in grids)
    frames = np.empty((NUM_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for number in range(NUM_FRAMES):
        frame = np.repeat(np.roll(background, number, 1)[..., None], 3, -1) + draw.normal(0, 1, (HEIGHT, WIDTH, 1))
        for shape in range(6):
            row = HEIGHT / 2 + 80 * np.sin(number / 20 + shape)
            column = WIDTH / 2 + 120 * np.cos(number / 30 + 2 * shape)
            frame[(rows - row) ** 2 + (columns - column) ** 2 < 400] = 40 * shape
        frames[number] = frame.clip(0, 255)
    return frames


def write_video(path: Path, keys: int) -> None:
    codec, options = CODECS[path.suffix[1:]]
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options={**options, "g": str(keys)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in pictures():
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))


def read_clip(path: Path) -> float:
    """Seconds of processor time, of all threads, that a clip takes."""
    began = time.process_time()
    clip = open_video(path).read(CLIP)
    assert clip.shape == (32, HEIGHT, WIDTH, 3)
    return time.process_time() - began


def memory() -> float:
    """What this process takes now, in MB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="How many clips a second one core reads from a video.")
    parser.add_argument("--container", choices=CODECS, default="mp4")
    parser.add_argument("--keys", type=int, default=48, help="frames from one key frame to the next")
    parser.add_argument("--rounds", type=int, default=25, help="clips that are timed")
    parser.add_argument("--clips", type=int, default=1000, help="clips over which memory is looked at")
    arguments = parser.parse_args()
    print("python", *sys.argv)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"video.{arguments.container}")
        write_video(path, arguments.keys)
        read_clip(path)
        times = [read_clip(path) for _ in range(arguments.rounds)]
        median = statistics.median(times)
        print(f"{path.name}, {path.stat().st_size / 1e3:,.0f} kB: {1 / median:.1f} clips a second and core")
        print(f"a clip: median {median * 1e3:.1f} ms, from {min(times) * 1e3:.1f} to {max(times) * 1e3:.1f}")
        before, files = memory(), len(os.listdir("/proc/self/fd"))
        for _ in range(arguments.clips):
            read_clip(path)
        print(f"memory after {arguments.clips:,} clips more: {before:.1f} to {memory():.1f} MB")
        print(f"open files: {files} to {len(os.listdir('/proc/self/fd'))}")


if __name__ == "__main__":
    main()
