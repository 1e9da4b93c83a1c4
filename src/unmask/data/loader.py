"""Feeds of images to batches: which images, loaded in which processes, copied while the GPU computes.

What a feed loads, and how that becomes a batch, is its own: see `Feed` and its members, `data.cpu_feed`,
`data.gpu_crops` and `data.gpu_decode`.
"""

import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset

from unmask.annotations import nested_map
from unmask.contracts import Batch, ImageSource, Part, Size
from unmask.data.order import samples
from unmask.errors import DataError, UnmaskError, loading_died
from unmask.randomness import derive

T = TypeVar("T")

_ATTEMPTS = 100
_EXAMPLES = 8  # images read for measurements; the rest are repetitions

Failures = list[tuple[str, str]]


@runtime_checkable
class Noting(Protocol):
    """What keeps the list of images that could not be used."""

    def add(self, failures: Failures) -> None:
        """Note (name, reason) pairs."""
        ...


class Wanted(NamedTuple):
    """What to load of a batch."""

    keys: list[tuple[int, int]]
    """(epoch, index) of each image."""

    epoch: int
    """Of the batch's first image, whether or not that is among them."""

    size: Size
    """Pixels of a crop."""


@runtime_checkable
class Feed(Protocol):
    """A source's images as an objective sees them, the work divided between loading processes and the training."""

    source: ImageSource
    seed: int

    def size_at(self, epoch: int) -> Size:
        """Pixels of a crop in an epoch."""
        ...

    def load(self, wanted: Wanted, failures: Failures) -> Any:
        """What loading processes do for a batch: a nest of tensors on the CPU, for `arrive`.

        Images that cannot be decoded are replaced, and noted in `failures`.

        Raises:
            DataError: if too many in a row cannot be decoded.
        """
        ...

    def arrive(self, loaded: Any, device: torch.device, failures: Failures) -> Batch:
        """What the training process makes of it: the batch on the device, without waiting for a copy."""
        ...


CropSize = Size | Callable[[int], Size]
"""Pixels of a crop; or a function of the epoch that gives them, and can be pickled."""


def size_in(size: CropSize, epoch: int) -> Size:
    """Pixels of a crop in an epoch."""
    return size(epoch) if callable(size) else size


def read_or_replace(
    read: Callable[[int], T],
    source: ImageSource,
    seed: int,
    key: tuple[int, int],
    failures: Failures,
) -> tuple[T, int]:
    """What `read` gives for the image of a key (epoch, index), and the image's position.

    An image that cannot be decoded is noted in `failures`, and replaced by the first readable one of a sequence
    drawn from (seed, epoch, index).

    Raises:
        DataError: if none of a hundred can be decoded.
    """
    epoch, index = key
    candidate = index
    for attempt in range(_ATTEMPTS):
        try:
            return read(candidate), candidate
        except DataError as error:
            failures.append((source.name(candidate), str(error)))
        candidate = derive("replace", seed, epoch, index, attempt) % len(source)
    raise DataError(f"{_ATTEMPTS} images in a row cannot be decoded; the last: {failures[-1]}")


def batches(
    feed: Feed,
    *,
    batch_size: int,
    first_step: int,
    steps: int,
    workers: int,
    device: torch.device,
    set_aside: Noting,
    rows: list[int] | None = None,
) -> Iterator[Batch]:
    """The batches of steps first_step to steps-1, on the device; or some rows of each alone.

    Raises:
        DataError: when too many images cannot be decoded.
        RunError: when the images change while they are read.
        ResourceError: when a worker dies.
    """
    part = Part(torch.tensor(rows), batch_size) if rows is not None else None
    wanted = (
        _wanted(feed, samples(step, batch_size, len(feed.source), feed.seed), rows)
        for step in range(first_step, steps)
    )

    def loaded() -> Iterator[Any]:
        for batch, failures in fetched(_Loading(feed), wanted, workers, device.type == "cuda"):
            set_aside.add(failures)
            if isinstance(batch, UnmaskError):
                raise batch
            yield batch

    def arrived(batch: Any) -> Batch:
        failures: Failures = []
        batch = feed.arrive(batch, device, failures)
        set_aside.add(failures)
        return batch

    for batch in on_device(loaded(), arrived, device):
        yield batch._replace(part=part)


def _wanted(feed: Feed, keys: list[tuple[int, int]], rows: list[int] | None) -> Wanted:
    epoch = keys[0][0]
    chosen = keys if rows is None else [keys[row] for row in rows]
    return Wanted(chosen, epoch, feed.size_at(epoch))


def example_of(feed: Feed, size: Size, device: torch.device) -> Callable[[int], Batch]:
    """Batches to measure with: a function of the number of images, all on the device.

    A few images, evenly spread over the source, are loaded as in epoch 0, and repeated. So annotations are as many
    as in training.

    Raises:
        DataError: if too many in a row cannot be decoded.
    """
    count = len(feed.source)
    few = min(_EXAMPLES, count)
    keys = [(0, place * count // few) for place in range(few)]
    batch = feed.arrive(feed.load(Wanted(keys, 0, size), []), device, [])
    return lambda images: batch.rows([place % few for place in range(images)])


class _Loading(Dataset[tuple[Any, Failures]]):
    """What a feed loads, by what is wanted."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __getitems__(self, wanted: Wanted) -> tuple[Any, Failures]:
        """What was loaded, and the files that had to be replaced in it.

        An error is handed over as a value: raised in a worker, it would arrive as a traceback.
        """
        failures: Failures = []
        try:
            return self.feed.load(wanted, failures), failures
        except UnmaskError as error:
            return error, failures


def fetched(
    data: Dataset[Any], wanted: Iterable[Any], workers: int, pinned: bool = False
) -> Iterator[Any]:
    """What a data set gives for each of the lists wanted, collated by itself, from so many processes.

    Raises:
        ResourceError: when a worker dies.
    """
    loader = DataLoader(
        data,
        batch_sampler=wanted,  # pyright: ignore[reportArgumentType] - any iterable of lists of keys
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pinned,
        worker_init_fn=_leave_stopping_to_others,
    )
    try:
        yield from loader
    except RuntimeError as error:
        died = loading_died(error)
        if died is None:
            raise
        raise died from None


def _as_it_is(batch: T) -> T:
    return batch


def _leave_stopping_to_others(_: int) -> None:
    """In a loading process: Ctrl-C, and the first SIGTERM, are for the training, which ends its step and saves.

    Both reach a whole group of processes (a terminal's, a job's of Slurm).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def on_device(
    loaded: Iterator[Any], arrived: Callable[[Any], Batch], device: torch.device
) -> Iterator[Batch]:
    """The batches as they arrive on the device; a GPU copies the next one while it computes.

    The copy runs on a stream of its own, from pinned memory. The computing stream waits for it, the
    program does not.
    """
    if device.type != "cuda":
        yield from map(arrived, loaded)
        return
    copying, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    copying.wait_stream(computing)  # which may still be filling what a feed keeps on the GPU
    ready: Batch | None = None
    for batch in loaded:
        with torch.cuda.stream(copying):
            coming = arrived(batch)
            copied = copying.record_event()
        if ready is not None:
            yield ready
        computing.wait_event(copied)
        _keep_until_used(coming, computing)
        ready = coming
    if ready is not None:
        yield ready


def _keep_until_used(batch: Batch, computing: torch.cuda.Stream) -> None:
    """Let no tensor's memory be taken while the computing stream uses it."""

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        tensor.record_stream(computing)
        return tensor

    nested_map(keep, batch)
