# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Video files: which frames they have, and the pixels of some of them, by PyAV (`pip install "vit-scratch[video]"`).

What is read may come from anybody: no file makes this one run a program, or open another file.

This file needs nothing but numpy and Pillow, and PyAV when a file is opened.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Container, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# FFmpeg's names of what is read. Of others, playlists would open the files that they name.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,asf,flv"
# Decoders that may be told with each packet whether to leave it out.
LEAVING_OUT = ("h264", "hevc")
# Frames a second, where a file does not say.
RATE = 25.0


class VideoError(ValueError):
    """A video that cannot be read; its text is one sentence that names the file."""


class VideoFile:
    """The frames of a file, decoded in one thread: processes that load clips are as many as their user said.

    Frames are known by their time stamps, which containers hold. AVI does not: FFmpeg makes them up, and where it
    cannot know in which order frames are shown, they are counted instead, from the first one on.
    """

    def __init__(self, path: Path):
        self.path = path
        self._is_torn = False
        stamps: list[Any] = []  # each None where the container does not say it
        shown: list[Any] = []
        keys: list[Any] = []
        with self._opened() as (container, stream):
            for packet in _whole(path, container, stream):
                stamps.append(packet.pts)
                if _is_shown(packet):
                    shown.append(packet.pts)
                if packet.is_keyframe:
                    self._is_torn = self._is_torn if keys else _refers_back(packet)
                    keys.append(packet.pts)
            made_up = container.format.name == "avi" and stream.codec_context.has_b_frames
            self._counted = None in stamps or bool(made_up and stamps == sorted(stamps))
            self._tick = float(1 / (stream.average_rate or RATE) if self._counted else stream.time_base)
        if self._counted:
            self._keys, self._stamps = [], list(range(len(shown)))
        else:
            self._keys = sorted(keys)
            # What is shown before the first key frame needs frames that were cut away.
            first = min(keys or stamps, default=0)
            self._stamps = sorted({stamp for stamp in shown if stamp >= first})
        if not self._stamps:
            raise VideoError(f"{path} holds no whole frame.")

    @property
    def num_frames(self) -> int:
        return len(self._stamps)

    @property
    def timestamps(self) -> np.ndarray:
        return (np.array(self._stamps) - self._stamps[0]) * self._tick

    @contextmanager
    def _opened(self, strict: bool = True) -> Iterator[tuple[Any, Any]]:
        """The container and its first stream of pictures, whose errors are raised if strict, or else made up for."""
        av = _pyav(self.path)
        allowed = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file", **_limit()}
        try:
            container = av.open(f"file:{os.path.abspath(self.path)}", options=allowed, metadata_errors="ignore")
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
        context.options = _limit() | ({"err_detect": "explode"} if strict else {})
        if _limit() and context.width * context.height > int(_limit()["max_pixels"]):
            raise VideoError(
                f"{self.path} is refused, it may be a decompression bomb: its frames have "
                f"{context.width:,}x{context.height:,} pixels."
            )

    def frames(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers and pixels of frames, in any order, given their numbers, rising: all of them or a VideoError."""
        av = _pyav(self.path)
        missing = {self._stamps[number]: number for number in wanted}
        to_rgb = _Converter(av.video.reformatter.VideoReformatter)
        reason = ""
        for start, needed, strict in self._attempts(missing):
            try:
                with closing(self._decoded(start, needed, strict)) as decoded:
                    for stamp, frame in decoded:
                        if stamp in missing and not frame.is_corrupt:
                            yield missing.pop(stamp), to_rgb(frame)
                            if not missing:
                                return
            except av.FFmpegError as error:
                reason = f" ({error.strerror})"
        number = min(missing.values())
        raise VideoError(f"{self.path} is damaged: frame {number} of {self.num_frames} cannot be decoded{reason}.")

    def _attempts(self, missing: dict[int, int]) -> Iterator[tuple[int | None, Container[int] | None, bool]]:
        """Where to decode from, all that is decoded if not every frame, and whether strictly: until nothing is missing.

        At first that is the key frame before the first frame, and what is neither needed nor referred to is left out;
        then all from the beginning. What was cut out of a longer video may begin with orders about frames that lie
        before, which FFmpeg takes for errors: then most of what it makes up for others is marked.
        """
        place = bisect_right(self._keys, min(missing))
        yield self._keys[place - 1] if place > 1 else None, None if self._counted else missing, True
        yield None, None, True
        if self._is_torn:
            yield None, None, False

    def _decoded(self, start: int | None, needed: Container[int] | None, strict: bool) -> Generator[tuple[int, Any]]:
        """Frames in the order in which they are shown, each with its time stamp, or its number if they are counted."""
        with self._opened(strict) as (container, stream):
            if start is not None:
                container.seek(start, stream=stream)
            since = start if start is not None else min(self._keys, default=None)
            numbers = count()
            for place, packet in enumerate(chain(_whole(self.path, container, stream), [None])):
                if place == 0 and start is not None and not (packet and packet.is_keyframe and packet.pts <= start):
                    return
                if packet is not None and needed is not None and stream.codec_context.name in LEAVING_OUT:
                    stream.codec_context.skip_frame = "DEFAULT" if packet.pts in needed else "NONREF"
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


def _limit() -> dict[str, str]:
    """The size of frames at which FFmpeg stops, as Pillow does."""
    return {} if Image.MAX_IMAGE_PIXELS is None else {"max_pixels": str(2 * Image.MAX_IMAGE_PIXELS)}


def _pyav(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise VideoError(f'{path} is read after pip install "vit-scratch[video]".') from error
    return av


def _whole(path: Path, container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream, to the first that is cut off or not there."""
    av = _pyav(path)
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                return
            if packet.size:
                yield packet
    except av.FFmpegError:
        return


def _is_shown(packet: Any) -> bool:
    """Whether a packet has a frame to be seen: others are hidden by an edit list, or are there to be referred to."""
    is_vp8 = packet.stream.codec_context.name == "vp8"  # it says so in a bit
    return not packet.is_discard and (not is_vp8 or bool(bytes(packet)[0] & 0x10))


def _refers_back(packet: Any) -> bool:
    """Whether the key frame of a packet is one of H.264 behind which others may refer to frames before it (no IDR)."""
    context, data = packet.stream.codec_context, bytes(packet)
    if context.name != "h264":
        return False
    if not context.extradata or context.extradata[0] != 1:  # units begin with a mark
        return re.search(b"\0\0\1[\x25\x45\x65]", data) is None
    length, kinds = (context.extradata[4] & 3) + 1, []
    while len(data) > length:  # units begin with their length
        kinds.append(data[length] & 31)
        data = data[length + int.from_bytes(data[:length]) :]
    return 5 not in kinds


class _Converter:
    """Makes RGB of the frames of a file, (height, width, 3), turned and mirrored as the first of them says."""

    def __init__(self, reformatter: Any):
        self._reformatter = reformatter
        self._to_rgb = reformatter()
        self._display: tuple[int, int, int, int] | None = None

    def __call__(self, frame: Any) -> np.ndarray:
        pixels = self._to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
        # Where a column and a row of the file are shown: (a x + c y, b x + d y).
        a, b, c, d = self._display = self._display or self._display_of(frame)
        if abs(b) > abs(a):
            pixels, a, d = pixels.transpose(1, 0, 2), c, b
        return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]

    def _display_of(self, frame: Any) -> tuple[int, int, int, int]:
        # Who asks a frame for what comes with it makes a circle, which keeps its pixels until Python looks for garbage.
        tiny = self._reformatter().reformat(frame, width=2, height=2, format="gray", threads=1)
        matrix = tiny.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return 1, 0, 0, 1
        (a, b, _), (c, d, _), _ = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3).tolist()
        return a, b, c, d
