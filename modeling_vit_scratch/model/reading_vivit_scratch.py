# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Videos: the frames of a file or of a folder of images, by number, to the bit those of decoding from the start.

    video = open_video("clip.mp4")
    clip = video.read(range(0, 64, 2))  # (32, height, width, 3)

Files of `VIDEO_SUFFIXES` are decoded by PyAV (`pip install "vit-scratch[video]"`), animations and folders of frames by
Pillow. What is read may come from anybody: no file makes this one run a program, or open another file.

What is damaged: a file that ends too early (cut off while it was copied, or shorter than it declares) is a video that
ends with its last whole frame. A frame that is there and cannot be decoded, or needs one that cannot, raises
`VideoError` when it is read; frames that do not need it are read. Codecs have no checksums: noise that decodes to a
picture is seen by nobody.

This file needs nothing but numpy and Pillow.
"""

import os
import re
import stat
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv")
ANIMATION_SUFFIXES = (".gif", ".webp", ".apng")
# Of the images that are the frames of a folder.
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
# A folder of frames does not say at which rate they were taken.
FOLDER_RATE = 25.0
# What browsers show a frame for that says no time, in milliseconds.
UNTIMED = 100

# FFmpeg's and Pillow's names of what is read. Others would open what a file names (playlists) or run a program (EPS).
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,asf,flv"
ANIMATIONS = ("GIF", "WEBP", "PNG")
PICTURES = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "PPM")


class VideoError(ValueError):
    """A video that cannot be read; its text is one sentence that names the file."""


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a file is named as a video or an animation is; a still GIF or WebP is a video of one frame."""
    name = Path(path).name.lower()
    return not name.startswith(".") and name.endswith((*VIDEO_SUFFIXES, *ANIMATION_SUFFIXES))


def frame_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The images that lie in a folder, in the order that their numbers say: frame2 before frame10."""
    names = (entry.name for entry in os.scandir(folder) if not entry.is_dir())
    frames = [name for name in names if not name.startswith(".") and name.lower().endswith(FRAME_SUFFIXES)]
    return [Path(folder, name) for name in sorted(frames, key=lambda name: (_natural(name), name))]


def _natural(name: str) -> list[str | int]:
    """Texts and numbers in turn, which compare as people count."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", name.lower()))]


class Video:
    """The frames of a file or folder, which is open only while frames are read; made by `open_video`.

    Attributes:
        path: of the file or folder.
        num_frames: frames that there are, whatever the file declares.
    """

    def __init__(self, path: Path, num_frames: int):
        self.path = path
        self.num_frames = num_frames
        self._size: tuple[int, int] | None = None

    @property
    def timestamps(self) -> np.ndarray:
        """When each frame is shown: (num_frames,) float64, in seconds from the first frame on, rising."""
        raise NotImplementedError

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels, upright."""
        if self._size is None:
            self.read([0])
        assert self._size is not None
        return self._size

    def read(self, indices: Sequence[int] | np.ndarray | range) -> np.ndarray:
        """Decode frames.

        Args:
            indices: numbers of frames from 0 on, in any order, repeats allowed.

        Returns:
            uint8 RGB, (len(indices), height, width, 3), upright; transparency is dropped.

        Raises:
            VideoError: if there are not so many frames, or if one of them cannot be decoded.
        """
        numbers = np.asarray(indices, dtype=np.int64 if len(indices) == 0 else None)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise VideoError(f"Frames of {self.path} are read by whole numbers, not by {numbers.tolist()!r}.")
        for number in numbers[(numbers < 0) | (numbers >= self.num_frames)]:
            raise VideoError(f"{self.path} has {self.num_frames} frames, numbered from 0: there is no frame {number}.")
        if not len(numbers):
            return np.empty((0, *self.size, 3), np.uint8)
        clip = None
        for number, pixels in self._decoded(np.unique(numbers).tolist()):
            self._check_size(number, pixels.shape[:2])
            clip = np.empty((len(numbers), *pixels.shape), np.uint8) if clip is None else clip
            clip[numbers == number] = pixels
        assert clip is not None
        return clip

    def _decoded(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers, in any order, and pixels of frames, given their numbers, rising; all of them or a VideoError."""
        raise NotImplementedError

    def _check_size(self, number: int, size: tuple[int, ...]) -> None:
        if self._size is None:
            self._size = (size[0], size[1])
        if size != self._size:
            (height, width), (old_height, old_width) = size, self._size
            raise VideoError(
                f"{self.path} has frames of several sizes, {old_width}x{old_height} and, frame {number}, "
                f"{width}x{height}, where a video has one."
            )


def open_video(path: str | os.PathLike[str]) -> Video:
    """Find the frames of a video, without decoding them.

    Args:
        path: of a video file (`VIDEO_SUFFIXES`, by PyAV), of an animated GIF, WebP or PNG, or of a folder with an image
            for each frame (`FRAME_SUFFIXES`).

    Raises:
        VideoError: if it is missing, empty, not a video, without pictures or a whole frame, so large that it may be a
            decompression bomb, or if PyAV is needed and not installed.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _Folder(path)
        if not stat.S_ISREG(mode):
            raise VideoError(f"{path} is no regular file.")  # a pipe, say, from which reading may never end
        if path.stat().st_size == 0:
            raise VideoError(f"{path} is empty.")
    except FileNotFoundError as error:
        raise VideoError(f"{path} does not exist.") from error
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {error.strerror}.") from error
    return _Animation(path) if path.name.lower().endswith((*ANIMATION_SUFFIXES, *FRAME_SUFFIXES)) else _File(path)


class _Animation(Video):
    """A GIF, WebP or PNG with any number of frames, by Pillow."""

    def __init__(self, path: Path):
        with self._opened(path) as image:
            super().__init__(path, getattr(image, "n_frames", 1))

    @staticmethod
    @contextmanager
    def _opened(path: Path) -> Iterator[Image.Image]:
        with _pillow(path), Image.open(path, formats=(*ANIMATIONS, *PICTURES)) as image:
            yield image

    @cached_property
    def timestamps(self) -> np.ndarray:
        ends = [0.0]
        with self._opened(self.path) as image:
            for number in range(self.num_frames - 1):
                image.seek(number)
                image.load()  # WebP says it only now
                ends.append(ends[-1] + (image.info.get("duration") or UNTIMED))
        return np.array(ends) / 1000

    def _decoded(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        with self._opened(self.path) as image:
            for number in wanted:
                image.seek(number)
                yield number, _pixels(image, self.path)


class _Folder(Video):
    """A folder with an image for each frame, by Pillow."""

    def __init__(self, path: Path):
        self.frames = frame_files(path)
        if not self.frames:
            raise VideoError(f"{path} holds no frames, which are images ({', '.join(FRAME_SUFFIXES)}).")
        super().__init__(path, len(self.frames))

    @property
    def timestamps(self) -> np.ndarray:
        return np.arange(self.num_frames) / FOLDER_RATE

    def _decoded(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for number in wanted:
            path = self.frames[number]
            with _pillow(path), Image.open(path, formats=PICTURES) as image:
                yield number, _pixels(image, path)


def _pixels(image: Image.Image, path: Path) -> np.ndarray:
    """Upright RGB of the frame that an image is at, (height, width, 3)."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise VideoError(f"{path} has values of more than 8 bits, whose range is unknown: convert it to 8 bits.")
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@contextmanager
def _pillow(path: Path) -> Iterator[None]:
    """Errors of Pillow's as ours."""
    try:
        yield
    except VideoError:
        raise
    except Image.UnidentifiedImageError as error:
        raise VideoError(f"{path} is empty, or of no format that is read.") from error
    except Image.DecompressionBombError as error:
        raise VideoError(f"{path} is refused, it may be a decompression bomb: {error}") from error
    except Exception as error:  # its decoders raise many kinds
        reason = getattr(error, "strerror", None) or f"it is damaged or cut off ({error})"
        raise VideoError(f"{path} cannot be read: {reason}.") from error


class _File(Video):
    """A file that PyAV decodes, in one thread: processes that load clips are as many as their user said.

    Frames are known by their time stamps, which containers hold. AVI does not: FFmpeg makes them up, and where it
    cannot know in which order frames are shown, they are counted instead, from the first one on.
    """

    def __init__(self, path: Path):
        self.path = path
        with self._opened() as (container, stream):
            packets = list(_whole(container, stream))
            stamps = [packet.pts for packet in packets]
            in_order = None not in stamps and stamps == sorted(stamps)
            made_up = container.format.name == "avi" and stream.codec_context.has_b_frames and in_order
            self._counted = None in stamps or bool(made_up)
            self._tick = float(1 / (stream.average_rate or FOLDER_RATE) if self._counted else stream.time_base)
        # An edit list hides frames, which may lead to others all the same.
        shown = [packet.pts for packet in packets if not packet.is_discard and _is_shown(packet)]
        if self._counted:
            self._keys, self._stamps, self._torn = [], list(range(len(shown))), False
        else:
            self._keys = sorted(packet.pts for packet in packets if packet.is_keyframe)
            # What is shown before the first key frame needs frames that were cut away.
            first = min(self._keys or stamps, default=0)
            self._stamps = sorted({stamp for stamp in shown if stamp >= first})
            self._torn = min(stamps, default=first) < first
        if not self._stamps:
            raise VideoError(f"{path} holds no whole frame.")
        super().__init__(path, len(self._stamps))

    @property
    def timestamps(self) -> np.ndarray:
        return (np.array(self._stamps) - self._stamps[0]) * self._tick

    @contextmanager
    def _opened(self, strict: bool = True) -> Iterator[tuple[Any, Any]]:
        """The container and its first stream of pictures, whose errors are raised if strict, or else made up for."""
        av = _pyav(self.path)
        try:
            container = av.open(
                f"file:{os.path.abspath(self.path)}",
                options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"},
                metadata_errors="ignore",
            )
        except (av.FFmpegError, OSError) as error:
            raise VideoError(
                f"{self.path} cannot be read: it is no video, or its index is damaged or cut off ({error.strerror})."
            ) from error
        with container:
            covers = av.stream.Disposition.attached_pic
            streams = [stream for stream in container.streams.video if not stream.disposition & covers]
            if not streams:
                raise VideoError(f"{self.path} has no pictures (no video stream).")
            self._set_up(streams[0], strict)
            yield container, streams[0]

    def _set_up(self, stream: Any, strict: bool) -> None:
        context = stream.codec_context
        if context is None:
            raise VideoError(f"{self.path} is of a codec that PyAV does not decode.")
        context.thread_count = 1
        context.thread_type = "NONE"
        context.options = {"err_detect": "explode"} if strict else {}
        if (limit := Image.MAX_IMAGE_PIXELS) is not None:
            context.options |= {"max_pixels": str(2 * limit)}  # where Pillow refuses an image, too
            if context.width * context.height > 2 * limit:
                raise VideoError(
                    f"{self.path} is refused, it may be a decompression bomb: its frames have {context.width:,}x"
                    f"{context.height:,} pixels."
                )

    def _decoded(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        av = _pyav(self.path)
        missing = {self._stamps[number]: number for number in wanted}
        convert = av.video.reformatter.VideoReformatter()
        reason = ""
        for start, strict in self._starts(self._stamps[wanted[0]]):
            try:
                for stamp, frame in self._frames(start, strict):
                    if stamp in missing and not frame.is_corrupt:
                        yield missing.pop(stamp), _upright(frame, convert)
                        if not missing:
                            return
            except av.FFmpegError as error:
                reason = f" ({error.strerror})"
        number = min(missing.values())
        raise VideoError(f"{self.path} is damaged: frame {number} of {self.num_frames} cannot be decoded{reason}.")

    def _starts(self, stamp: int) -> Iterator[tuple[int | None, bool]]:
        """Where to decode from, and whether strictly: the first that leads to all frames serves.

        That is the key frame before a frame, or else the beginning. A file that was cut out of a longer one may begin
        with frames that refer to what lies before; H.264 takes them for errors, and marks what it makes up for them.
        """
        place = bisect_right(self._keys, stamp)
        if place > 1:
            yield self._keys[place - 1], True
        yield None, True
        if self._torn:
            yield None, False

    def _frames(self, start: int | None, strict: bool) -> Iterator[tuple[int, Any]]:
        """Frames in the order in which they are shown, each with its time stamp, or its number if they are counted."""
        with self._opened(strict) as (container, stream):
            if start is not None:
                container.seek(start, stream=stream)
            since = start if start is not None else min(self._keys, default=None)
            numbers = count()
            for place, packet in enumerate(chain(_whole(container, stream), [None])):
                if place == 0 and start is not None and not (packet and packet.is_keyframe and packet.pts <= start):
                    return
                for frame in self._decode(stream, packet, since):
                    yield next(numbers) if self._counted else frame.pts, frame

    def _decode(self, stream: Any, packet: Any, since: int | None) -> list[Any]:
        """What comes out of the decoder; nothing of what is shown before its key frame and refers to what it lacks."""
        try:
            return stream.codec_context.decode(packet)
        except _pyav(self.path).FFmpegError:
            if packet is None or since is None or packet.pts >= since:
                raise
            return []


def _pyav(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise VideoError(f'{path} is read after pip install "vit-scratch[video]".') from error
    return av


def _whole(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream, to the first that is cut off or not there."""
    av = _pyav(container.name)
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                return
            if packet.size:
                yield packet
    except av.FFmpegError:
        return


def _is_shown(packet: Any) -> bool:
    """Whether a packet has a frame of its own: some of VP8 are only for others to refer to, and a bit says so."""
    return packet.stream.codec_context.name != "vp8" or bool(bytes(packet)[0] & 0x10)


def _upright(frame: Any, convert: Any) -> np.ndarray:
    """RGB of a frame, turned as its file says, (height, width, 3)."""
    pixels = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return np.rot90(pixels, round(frame.rotation / 90))
