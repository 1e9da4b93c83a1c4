"""Images to batches: order, views, collation; the same for any number of workers."""

import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from unmask.contracts import Batch, ImageSource, Part, Sample, Size
from unmask.data.multi_views import AnyPretrainingViews
from unmask.data.order import samples
from unmask.errors import DataError, UnmaskError, loading_died
from unmask.randomness import derive

T = TypeVar("T")

_ATTEMPTS = 100

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
    """Of the batch's first image, whether or not that is among them; it decides the size of all crops."""


class Viewed(Dataset[tuple[Batch | UnmaskError, Failures]]):
    """A source's images as an objective sees them, by (epoch, index).

    The size of crops may depend on the epoch; then `size` is a function of it that can be pickled.
    """

    def __init__(
        self,
        source: ImageSource,
        views: AnyPretrainingViews,
        size: Size | Callable[[int], Size],
        seed: int,
    ) -> None:
        self.source, self.views, self.size, self.seed = source, views, size, seed

    def __getitems__(self, wanted: Wanted) -> tuple[Batch | UnmaskError, Failures]:
        """What torch's loader calls; see `load`."""
        return self.load(wanted)

    def load(self, wanted: Wanted) -> tuple[Batch | UnmaskError, Failures]:
        """A whole batch, and the files that had to be replaced in it.

        An error is handed over as a value: raised in a worker, it would arrive as a traceback.
        """
        failures: Failures = []
        try:
            size = self.size_at(wanted.epoch)
            rows = [self.row(epoch, index, size, failures) for epoch, index in wanted.keys]
        except UnmaskError as error:
            return error, failures
        views = self.together([row[0] for row in rows])
        labels, index = (
            torch.tensor(numbers) for numbers in ([r[1] for r in rows], [r[2] for r in rows])
        )
        return Batch(views, labels, index, wanted.epoch), failures

    def together(self, rows: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """The views of all images, one tensor of each kind."""
        return tuple(default_collate(list(crops)) for crops in zip(*rows, strict=True))

    def arrived(self, batch: Batch, device: torch.device, failures: Failures) -> Batch:
        """A batch that was loaded, on the device, for the objective; copied without waiting."""
        return to_device(batch, device)

    def size_at(self, epoch: int) -> Size:
        """Pixels of a crop in an epoch."""
        return self.size(epoch) if callable(self.size) else self.size

    def row(self, epoch: int, index: int, size: Size, failures: Failures) -> tuple[Any, int, int]:
        """Views and label of one image, and its position, which is another's if it cannot be read."""
        sample, found = self._readable(epoch, index, failures)
        return self.views(sample.image, size, self.seed, epoch, index), sample.label, found

    def _readable(self, epoch: int, index: int, failures: Failures) -> tuple[Sample, int]:
        """The image at `index`, or the first readable one of a sequence drawn from (seed, epoch, index)."""
        candidate = index
        for attempt in range(_ATTEMPTS):
            try:
                return self.read(candidate), candidate
            except DataError as error:
                failures.append((self.source.name(candidate), str(error)))
            candidate = derive("replace", self.seed, epoch, index, attempt) % len(self.source)
        raise DataError(f"{_ATTEMPTS} images in a row cannot be decoded; the last: {failures[-1]}")

    def read(self, position: int) -> Sample:
        """An image of the source; raises DataError if it cannot be decoded."""
        return self.source[position]


def batches(
    images: Viewed,
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
        _those(samples(step, batch_size, len(images.source), images.seed), rows)
        for step in range(first_step, steps)
    )

    def loaded() -> Iterator[Batch]:
        for batch, failures in fetched(images, wanted, workers, pinned=device.type == "cuda"):
            set_aside.add(failures)
            if isinstance(batch, UnmaskError):
                raise batch
            yield batch._replace(part=part)

    def arrived(batch: Batch) -> Batch:
        failures: Failures = []
        batch = images.arrived(batch, device, failures)
        set_aside.add(failures)
        return batch

    yield from on_device(loaded(), arrived, device)


def fetched(
    data: Dataset[Any], wanted: Iterable[Any], workers: int, *, pinned: bool = False
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


def _those(keys: list[tuple[int, int]], rows: list[int] | None) -> Wanted:
    return Wanted(keys if rows is None else [keys[row] for row in rows], epoch=keys[0][0])


def on_device(
    batches: Iterator[Batch], arrived: Callable[[Batch], Batch], device: torch.device
) -> Iterator[Batch]:
    """The batches as they arrive on the device; a GPU copies the next one while it computes.

    The copy runs on a stream of its own, from pinned memory. The computing stream waits for it, the
    program does not.
    """
    if device.type != "cuda":
        yield from map(arrived, batches)
        return
    copying, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    ready: Batch | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            coming = arrived(batch)
            copied = copying.record_event()
        if ready is not None:
            yield ready
        computing.wait_event(copied)
        for tensor in (*coming.views, coming.labels, coming.index):
            tensor.record_stream(computing)  # so that its memory is not taken while in use
        ready = coming
    if ready is not None:
        yield ready


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device, copied without waiting."""
    return batch._replace(
        views=tuple(view.to(device, non_blocking=True) for view in batch.views),
        labels=batch.labels.to(device, non_blocking=True),
        index=batch.index.to(device, non_blocking=True),
    )
