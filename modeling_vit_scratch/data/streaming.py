# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Training images that are read while they are trained on, because a disk would not hold them.

They come in *shards*: parquet files, or the tar files of WebDataset, on a disk, behind URLs, or of a Hub dataset.
`datasets` reads and shuffles them. Each process has one reader, which knows how many images it will see: so all
processes take the same number of steps, and in an epoch every image is in exactly one of them, once. What is read
follows from the seed and the epoch alone; a resumed run reads again what it had read of its epoch, without decoding it.

The workers of the loader decode and vary what the reader has read, so their number changes nothing either.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from datasets import ClassLabel, DatasetDict, Features, IterableDataset, load_dataset
from datasets import Image as ImageFeature
from torch.utils.data import Sampler

from ..text import counted
from .columns import image_column, label_column, listed, one_form, only_images, undecoded, with_labels
from .dataset_loading import is_digits, reason_of
from .images import BadImageError, read_image
from .sampling import UNREADABLE, TrainingImages
from .shards import count_images, find_shards, literally

# Where `datasets` says which tar file an image is of.
SHARD = "__url__"
# Shards are shared out whole, unless a process then had so many times the images of another one.
MOST_UNEVEN = 1.1

Row = dict[str, Any]


class StreamError(ValueError):
    """What is streamed could not be read on; its text is one sentence."""


@dataclass
class ImageStream:
    """The train split of a source, unread.

    Attributes:
        source: where the images are, for messages.
        rows: the columns `image`, undecoded, and `label`, if there are labels, as the shards have them.
        shard_sizes: images of each shard.
        labels: what stands in the shards -> index of the class; `None` without labels.
        features: the columns as they are trained on.
        buffer_size: rows among which the next one is drawn.
    """

    source: str
    rows: IterableDataset
    shard_sizes: list[int]
    labels: Mapping[Any, int] | None
    features: Features
    buffer_size: int

    @property
    def num_rows(self) -> int:
        """Images in all shards."""
        return sum(self.shard_sizes)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def described(self, num_processes: int) -> str:
        """How it is read, in a phrase."""
        shards = len(self.shard_sizes)
        how = f"streamed from {shards} shard{'s' * (shards > 1)}"
        if num_processes > 1:
            how += (
                ", each read by one process" if self.has_whole_shards(num_processes) else ", each read by all processes"
            )
        return f"{how}, shuffled among {self.buffer_size:,}"

    def has_whole_shards(self, num_processes: int) -> bool:
        """Whether processes get shards of their own; if not, each reads all and takes every so many images."""
        shares = [sum(self.shard_sizes[index::num_processes]) for index in range(num_processes)]
        return 0 < max(shares) <= MOST_UNEVEN * min(shares)

    def sizes(self, num_processes: int) -> list[int]:
        """Images of each process."""
        if self.has_whole_shards(num_processes):
            return [sum(self.shard_sizes[index::num_processes]) for index in range(num_processes)]
        return [len(range(index, self.num_rows, num_processes)) for index in range(num_processes)]

    def read(self, seed: int, epoch: int, num_processes: int, process_index: int) -> Iterator[Row]:
        """The rows of one process in the order of an epoch.

        Raises:
            StreamError: if a shard cannot be read, or a label is none of the classes.
        """
        stream, whole = self.rows, self.has_whole_shards(num_processes)
        if whole:
            stream = stream.shard(num_processes, process_index, contiguous=False)
        stream = stream.shuffle(seed=seed, buffer_size=self.buffer_size)
        stream.set_epoch(epoch)
        rows: Iterator[Row] = iter(stream)
        if not whole:
            rows = islice(rows, process_index, None, num_processes)
        try:
            yield from (self._labelled(_named(row)) for row in rows)
        except StreamError:
            raise
        except Exception as error:  # each format and each network has its own
            raise StreamError(f"{self.source} could not be read on: {reason_of(error).rstrip('.')}.") from error

    def _labelled(self, row: Row) -> Row:
        if self.labels is None:
            return row
        label = self.labels.get(row["label"])
        if label is None:
            raise StreamError(
                f"{self.source} has an image with the label {row['label']!r}, which is none of the {len(self.labels)} "
                "classes."
            )
        return {**row, "label": label}


def _named(row: Row) -> Row:
    """The row, with the shard in the name of its image: there may be thousands, with the same names in each."""
    shard = row.pop(SHARD, None)
    if shard is not None:
        image = row["image"] or {"bytes": None, "path": "an image"}  # that a label stands without
        row["image"] = {**image, "path": f"{image['path']} of {PurePosixPath(shard).name}"}
    return row


class StreamBatches(Sampler[list[tuple[int, Row]]]):
    """The share of one process in every batch of an epoch: pairs of the number of a draw and its row.

    An epoch has as many batches as the process with most images fills; each process spreads its own evenly over them.

    Args:
        stream: what is read.
        seed: of the order.
        batch_size: most images of a batch.
        num_processes, process_index: how many there are, and which this one is.

    Raises:
        ValueError: if there are fewer images than processes.
    """

    def __init__(self, stream: ImageStream, seed: int, batch_size: int, num_processes: int = 1, process_index: int = 0):
        self.stream = stream
        self.seed = seed
        self.num_processes, self.process_index = num_processes, process_index
        self.sizes = stream.sizes(num_processes)
        if min(self.sizes) == 0:
            raise ValueError(
                f"{stream.source} has {counted(stream.num_rows, 'image')}, fewer than the {num_processes} processes."
            )
        self.num_batches = -(-max(self.sizes) // batch_size)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is of."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[tuple[int, Row]]]:
        return _ahead(self._batches())

    def _batches(self) -> Iterator[list[tuple[int, Row]]]:
        size = self.sizes[self.process_index]
        first = (self.epoch * self.num_processes + self.process_index) * max(self.sizes)
        rows = self.stream.read(self.seed, self.epoch, self.num_processes, self.process_index)
        draws = enumerate(rows, first)
        batch: list[tuple[int, Row]] = []
        for number in range(1, self.num_batches + 1):
            # Rounded up, so that the first batch of a process is never empty.
            end, begin = (-(-count * size // self.num_batches) for count in (number, number - 1))
            # A process without an image would have nothing to do in the step: it takes its last one again.
            batch = list(islice(draws, end - begin)) if end > begin else batch[-1:]
            if len(batch) < end - begin:
                raise StreamError(f"{self.stream.source} has fewer images than when the run began: did it change?")
            yield batch


def _ahead(batches: Iterator) -> Iterator:
    """The same batches, each read while the one before is worked on."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch


class StreamedImages(TrainingImages):
    """`TrainingImages` of a stream: pairs of `StreamBatches` -> `pixel_values` (C, H, W) and `label`.

    An image that cannot be read gives way to the next one of its batch that can.
    """

    dataset: ImageStream  # of which the base class asks for its number of rows alone

    def batches(self, batch_size: int, num_processes: int = 1, process_index: int = 0) -> StreamBatches:
        """What a process loads in an epoch."""
        return StreamBatches(self.dataset, self.seed, batch_size, num_processes, process_index)

    def __getitems__(self, drawn: Sequence[tuple[int, Row]]) -> list[dict[str, Any]]:  # type: ignore[override]  # rows, not numbers
        found: list[dict[str, Any] | None] = []
        unreadable: list[str] = []
        for _, row in drawn:
            try:
                found.append({**row, "image": read_image(row["image"]), UNREADABLE: []})
            except BadImageError as error:
                if self.strict:
                    raise BadImageError(f"{error} Repair or delete it, or leave out --strict_images.") from error
                unreadable.append(str(error))
                found.append(None)
        readable = [row for row in found if row is not None]
        if not readable:
            raise BadImageError(f"none of the {counted(len(drawn), 'image')} of a batch can be read. {unreadable[0]}")
        substitutes = iter(readable * len(drawn))
        rows = [dict(row or next(substitutes)) for row in found]
        rows[0][UNREADABLE] = unreadable
        return self.varied([draw for draw, _ in drawn], rows)


# --- Sources ---------------------------------------------------------------------------------------------------------


def stream_images(
    source: str,
    *,
    config_name: str | None = None,
    image_column_name: str | None = None,
    label_column_name: str | None = None,
    labelled: bool = True,
    buffer_size: int = 1000,
) -> tuple[ImageStream, DatasetDict]:
    """Open the train split of a source as a stream, and load its other splits.

    Args:
        source: parquet files or WebDataset shards (a folder, a pattern such as `train-{000..127}.tar`, or URLs of that
            form), or the id of a Hub dataset made of them.
        config_name, image_column_name, label_column_name: those of `load_images`.
        labelled: whether labels are wanted.
        buffer_size: rows among which the next one is drawn.

    Returns:
        The stream; and `validation` and `test`, where there are any, with the same classes.

    Raises:
        ValueError: if there is nothing to stream, or it is not images, with labels if they are wanted.
    """
    if is_digits(source):
        raise ValueError("digits come with scikit-learn: leave out --streaming.")
    shards = find_shards(source, config_name)
    rows, features = shards.train, shards.train.features
    if features is None:
        raise ValueError(f"{source} does not say which columns it has: it cannot be streamed.")
    image = image_column(features, image_column_name, source)
    label = label_column(features, label_column_name, source) if labelled else None
    labels_of = count_images(shards, None if label is None or isinstance(features[label], ClassLabel) else label)
    sizes = [size for size, _ in labels_of]
    if not sum(sizes):
        raise ValueError(f"{source} holds no images.")
    others = {
        split: load_dataset(shards.format, data_files=literally(files), split="train")
        for split, files in shards.files.items()
        if split != "train"
    }
    names = {image: "image"}
    if label is not None:
        names[label] = "label"
    if SHARD in features:
        names[SHARD] = SHARD
    stream = partial(
        ImageStream, source, undecoded(rows, names, f"the train split of {source}"), sizes, buffer_size=buffer_size
    )
    image_only = Features({"image": ImageFeature(decode=False)})
    if label is None:
        others.pop("test", None)
        return stream(labels=None, features=image_only), only_images(others, image, source)
    named = isinstance(features[label], ClassLabel)
    values: list[Any] = features[label].names if named else sorted({value for _, shard in labels_of for value in shard})
    class_names = list(dict.fromkeys(map(one_form, values)))
    number_of = {name: number for number, name in enumerate(class_names)}
    labels = {index if named else value: number_of[one_form(value)] for index, value in enumerate(values)}
    if len(class_names) < 2:
        raise ValueError(f"{source} has the classes {listed(class_names)}; a classifier needs two or more.")
    columns = Features({**image_only, "label": ClassLabel(names=class_names)})
    return stream(labels=labels, features=columns), DatasetDict(with_labels(others, image, label, class_names, source))
