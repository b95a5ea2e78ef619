# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""From videos to the input of a video model: which frames, how large, and which numbers.

Without torchvision, of which transformers' own video processors need some.

Shapes: B batch, F frames of a clip, V views, C channels, H and W height and width in pixels.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from .reading_vivit_scratch import open_video

# Where a clip begins in a video, if not at a frame that is named.
PLACES = ("center", "start")


class ViViTScratchImageProcessor(BaseImageProcessor):
    """Sample a clip of a video, resize, crop and normalise its frames: -> `pixel_values` (B, F, C, H, W).

    Pixels become numbers from -1 to 1, as scenic's models have learned them (transformers' processor for ViViT makes
    -3 to 1 of them by default).

    Args:
        num_frames: F.
        frame_stride: every so many frames of a video are taken; a video that is shorter than a clip begins again.
        size: `{"shortest_edge": pixels}`, to which the shorter side is resized, or `{"height": …, "width": …}`.
        do_center_crop, crop_size: whether the middle is cut out, and how large, `{"height": …, "width": …}`.
        resample: the filter of Pillow's, 2 for bilinear.
        image_mean, image_std: of each channel, once pixels are numbers from 0 to 1.
    """

    _auto_class = "AutoImageProcessor"
    model_input_names = ["pixel_values"]

    def __init__(
        self,
        num_frames: int = 32,
        frame_stride: int = 2,
        size: dict[str, int] | None = None,
        do_center_crop: bool = True,
        crop_size: dict[str, int] | None = None,
        resample: int = 2,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (("num_frames", num_frames), ("frame_stride", frame_stride)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number, 1 or more, got {value!r}.")
        self.num_frames, self.frame_stride = num_frames, frame_stride
        self.size = {"shortest_edge": 256} if size is None else dict(size)
        self.do_center_crop = do_center_crop
        self.crop_size = {"height": 224, "width": 224} if crop_size is None else dict(crop_size)
        self.resample = resample
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    def __call__(  # type: ignore[override]  # of videos
        self,
        videos: Any,
        *,
        num_frames: int | None = None,
        frame_stride: int | None = None,
        start: int | str = "center",
        do_sample_frames: bool = True,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Prepare one clip of each video.

        Args:
            videos: a path (a video file, an animation, or a folder of frames); a list of frames (PIL images, or arrays
                (height, width, 3) of bytes); an array (frames, height, width, 3); or a list of any of these.
            num_frames, frame_stride: instead of the processor's own.
            start: the frame at which clips begin; "center" for those in the middle, "start" for the first.
            do_sample_frames: false if the frames given are the clip.
            return_tensors: "pt" or "np".

        Raises:
            ValueError: if something is no video, or has no frames (`VideoError` with its path if it cannot be read).
        """
        number = self.num_frames if num_frames is None else num_frames
        stride = self.frame_stride if frame_stride is None else frame_stride
        clips = []
        for video in as_list(videos):
            frames = _Frames(video)
            wanted = list(range(len(frames)))
            if do_sample_frames:
                wanted = clip_indices(len(frames), number, stride, start)
            clips.append(self.prepare(frames[wanted]))
        if len({clip.shape for clip in clips}) > 1:
            raise ValueError(f"clips of one batch must have one size, got {sorted({clip.shape for clip in clips})}.")
        return BatchFeature({"pixel_values": np.stack(clips)}, tensor_type=return_tensors)

    def views(self, video: Any, clips: int, crops: int, return_tensors: str | None = None) -> BatchFeature:
        """Evenly spaced clips of one video, and crops along the longer side of each: `pixel_values` (V, F, C, H, W).

        The score of a video is the mean of the logits of its views (ViViT, section 4.2: 4 clips, 3 crops).
        """
        frames = _Frames(video)
        last = max(len(frames) - (self.num_frames - 1) * self.frame_stride - 1, 0)
        starts: list[int | str] = ["center"]
        if clips > 1:
            starts = np.linspace(0, last, clips).round().astype(int).tolist()
        found = []
        for start in starts:
            pixels = frames[clip_indices(len(frames), self.num_frames, self.frame_stride, start)]
            found += [
                self.prepare(pixels, float(place)) for place in (np.linspace(0, 1, crops) if crops > 1 else [0.5])
            ]
        return BatchFeature({"pixel_values": np.stack(found)}, tensor_type=return_tensors)

    def prepare(self, frames: np.ndarray, place: float = 0.5) -> np.ndarray:
        """Resize, crop and normalise frames (F, height, width, 3): -> (F, C, H, W), float32.

        Args:
            frames: bytes.
            place: where along the longer side the crop is, from 0 to 1.
        """
        height, width = self._resized(*frames.shape[1:3])
        if (height, width) != frames.shape[1:3]:
            frames = np.stack(
                [np.asarray(Image.fromarray(frame).resize((width, height), self.resample)) for frame in frames]
            )
        if self.do_center_crop:
            frames = _cropped(frames, self.crop_size["height"], self.crop_size["width"], place)
        mean, std = np.asarray(self.image_mean, np.float32), np.asarray(self.image_std, np.float32)
        # One look into a table for each byte: (256, C).
        table = (np.arange(256, dtype=np.float32)[:, None] / np.float32(255) - mean) / std
        return np.stack([table[frames[..., channel], channel] for channel in range(frames.shape[3])], axis=1)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if "shortest_edge" not in self.size:
            return self.size["height"], self.size["width"]
        edge = self.size["shortest_edge"]
        if height <= width:
            return edge, max(edge, round(width * edge / height))
        return max(edge, round(height * edge / width)), edge


def clip_indices(total: int, number: int, stride: int, start: int | str = "center") -> list[int]:
    """Which frames of a video make a clip; a video that is too short begins again at its end.

    Args:
        total: frames of the video.
        number: frames of the clip.
        stride: every so many frames are taken.
        start: the first frame, "center" for a clip in the middle, "start" for 0.

    Raises:
        ValueError: if a number is below 1, or the video does not have such a first frame.
    """
    for name, value in (("num_frames", number), ("frame_stride", stride)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if start == "center":
        start = max((total - (number - 1) * stride - 1) // 2, 0)
    elif start == "start":
        start = 0
    if isinstance(start, str):
        raise ValueError(f"start must be a frame, or of {', '.join(PLACES)}, got {start!r}.")
    if not 0 <= start < total:
        raise ValueError(f"a clip cannot begin at frame {start} of a video of {total} frames.")
    return [(start + step * stride) % total for step in range(number)]


def as_list(videos: Any) -> list[Any]:
    """Videos as a list of videos, whatever way one or many are given."""
    if isinstance(videos, str | os.PathLike):
        return [videos]
    if isinstance(videos, np.ndarray) or hasattr(videos, "numpy"):
        videos = np.asarray(videos)
        return list(videos) if videos.ndim == 5 else [videos]
    videos = list(videos)
    if not videos:
        raise ValueError("there are no videos.")
    first = videos[0]
    is_frame = isinstance(first, Image.Image) or getattr(first, "ndim", None) == 3
    return [videos] if is_frame else videos


class _Frames:
    """The frames of a video, which may lie in a file."""

    def __init__(self, video: Any):
        if isinstance(video, str | os.PathLike):
            self.video: Any = open_video(video)
            self.number = self.video.num_frames
            return
        if not isinstance(video, np.ndarray):
            video = [np.asarray(frame.convert("RGB") if isinstance(frame, Image.Image) else frame) for frame in video]
            shapes = {frame.shape for frame in video}
            if len(shapes) != 1:
                raise ValueError(f"the frames of a video must have one size, got {sorted(shapes)}.")
            video = np.stack(video)
        if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8:
            raise ValueError(
                f"a video must have the shape (frames, height, width, 3) and bytes, got {video.shape} of {video.dtype}."
            )
        self.video, self.number = video, len(video)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, indices: Sequence[int]) -> np.ndarray:
        if isinstance(self.video, np.ndarray):
            return self.video[list(indices)]
        return self.video.read(list(indices))


def _cropped(frames: np.ndarray, height: int, width: int, place: float) -> np.ndarray:
    """The part of frames (F, rows, columns, 3) along the longer side, and in the middle of the other."""
    rows, columns = frames.shape[1:3]
    if rows < height or columns < width:
        raise ValueError(
            f"frames of {rows}x{columns} pixels (height x width) are too small for a crop of {height}x{width}."
        )
    down, across = (place, 0.5) if rows > columns else (0.5, place)
    top, left = round((rows - height) * down), round((columns - width) * across)
    return frames[:, top : top + height, left : left + width]


__all__ = ["ViViTScratchImageProcessor"]
