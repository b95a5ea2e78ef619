# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Images are read and made the input of a model by several threads, with few pixels and few bytes in memory at once."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Condition, Lock
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from ..data.images import BadImageError, decoded
from ..data.model_input import PIXELS_TOGETHER, joined, parts_of_pixel_values
from .sources import ImageSources

# Images that a thread takes at a time, unless they have so many bytes.
READ_TOGETHER, BYTES_TOGETHER = 8, 2**22
# Pixels of images with more than `PIXELS_TOGETHER` each that all threads decode at once, unless one has more: five
# photographs of 24 megapixels.
MOST_PIXELS = 2**27


class Prepared(NamedTuple):
    """Images that were read: (B, C, H, W) of those that can be, or None; for each, what is wrong with it, or None."""

    pixels: Tensor | None
    problems: list[BadImageError | None]


class Room:
    """Room for pixels, which threads share.

    Args:
        size: how many there may be.
    """

    def __init__(self, size: int):
        self.size = self.free = size
        self.changed = Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Hold so many pixels, or all that there may be, once there is room for them."""
        pixels = min(pixels, self.size)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


class Reader:
    """Makes images the input of a model; several threads may ask at once.

    Args:
        processor: the model's.
    """

    def __init__(self, processor: Any):
        self.processor = processor
        self.room = Room(MOST_PIXELS)

    def read(self, images: Sequence[Any]) -> Prepared:
        """Read images, whatever `read_image` takes, while the caller keeps Pillow silent."""
        problems: list[BadImageError | None] = []

        def readable() -> Iterator[Image.Image]:
            for image in images:
                with ExitStack() as held:
                    try:
                        picture = self._decoded(image, held)
                    except BadImageError as error:
                        # Without what led to it, which has the pixels that could be decoded.
                        problems.append(BadImageError(str(error)))
                        continue
                    problems.append(None)
                    yield picture
                    del picture  # before its room is given back

        parts = parts_of_pixel_values(self.processor, readable())
        return Prepared(joined(parts) if parts else None, problems)

    def _decoded(self, image: Any, held: ExitStack) -> Image.Image:
        def admit(pixels: int) -> None:
            if pixels > PIXELS_TOGETHER:
                held.enter_context(self.room.taken(pixels))

        return decoded(image, admit=admit)


class Batch:
    """The images of a batch, which threads take in their order, a few at a time.

    Args:
        reader: which makes them the input of a model.
        sources: all images.
        numbers: of those of the batch.
    """

    def __init__(self, reader: Reader, sources: ImageSources, numbers: range):
        self.reader, self.sources = reader, sources
        self.left = numbers
        self.lock = Lock()

    def read(self) -> list[tuple[int, Prepared]]:
        """Read images as long as there are any left: the number of the first, and what they are, of each few."""
        done: list[tuple[int, Prepared]] = []
        while True:
            first, images = self._take()
            if not images:
                return done
            done.append((first, self.reader.read(images)))

    def _take(self) -> tuple[int, list[Any]]:
        # One thread at a time, for a parquet file is read from its beginning to its end.
        with self.lock:
            images: list[Any] = []
            first, size = self.left.start, 0
            while self.left and len(images) < READ_TOGETHER and size < BYTES_TOGETHER:
                image = self.sources[self.left[0]]
                self.left = self.left[1:]
                size += len(image["bytes"] or b"") if isinstance(image, dict) else 0
                images.append(image)
            return first, images
