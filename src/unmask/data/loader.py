"""Batches from a feed of images: which images, loaded by which processes, copied while the GPU computes.

A feed defines what loading processes read and how it becomes a batch: see `Feed`, and its implementations
`data.cpu_feed`, `data.gpu_crops` and `data.gpu_decode`.
"""

import csv
import io
import os
import signal
from collections.abc import Callable, Iterable, Iterator, KeysView
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from unmask.annotations import nested_map
from unmask.contracts import Batch, ImageSource, Part, Size
from unmask.data.order import samples
from unmask.errors import DataError, UnmaskError, loading_died, loading_lacks_memory
from unmask.files import write_text
from unmask.randomness import derive

T = TypeVar("T")
W = TypeVar("W")

_ATTEMPTS = 100  # a hundred bad images in a row mean that the data set, not a file, is broken
BATCHES_AHEAD = 2
"""Batches that each loading process holds ready."""
_HEADER = ("file", "reason")
_EXAMPLES = 8  # images read for measurements; larger batches repeat them

Failures = list[tuple[str, str]]

CropSize = Size | Callable[[float], Size]
"""Pixels of a crop, or a function from the epochs that are over to them, which can be pickled."""


@runtime_checkable
class Noting(Protocol):
    """A list of images that could not be used."""

    def add(self, failures: Failures) -> None:
        """Add (name, reason) pairs."""
        ...


class SetAside:
    """The skipped files in `set_aside.csv`, each once, with the reason."""

    def __init__(self, path: Path, total: int, limit: float) -> None:
        """`total` is the number of image files; if more than a share of `limit` is skipped, the run stops."""
        self.path, self.total, self.limit = path, total, limit
        self._rows, self._is_whole = _listed(path)

    @property
    def names(self) -> KeysView[str]:
        """The skipped files."""
        return self._rows.keys()

    def add(self, failures: Failures) -> None:
        """Add (name, reason) pairs; raises DataError if too many files are skipped, after writing the list."""
        plain = [(_plain(name), _plain(reason)) for name, reason in failures]
        new = {name: reason for name, reason in plain if name not in self._rows}
        if not new:
            return
        self._rows |= new
        if self._is_whole:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                file.write(_as_csv(new.items()))
        else:
            write_text(self.path, _as_csv([_HEADER, *self._rows.items()]))
            self._is_whole = True
        if len(self._rows) > self.limit * self.total:
            name, reason = next(reversed(new.items()))
            raise DataError(
                f"{len(self._rows)} of {self.total} images cannot be used, more than the allowed "
                f"{self.limit:.0%}; the last is {name}: {reason}. {self.path} lists them all; "
                "repair or remove them, or allow more with --max-set-aside"
            )


def _listed(path: Path) -> tuple[dict[str, str], bool]:
    """The reasons in a list by file, and whether more can be appended: a killed process may have left it incomplete."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}, False
    text = content.decode("utf-8", "backslashreplace")
    rows: list[list[str]] = []
    with suppress(csv.Error):
        rows.extend(csv.reader(io.StringIO(text, newline="")))
    is_whole = rows[:1] == [list(_HEADER)] and text.endswith("\n") and text.encode() == content
    return {
        row[0]: row[1] for row in rows if len(row) == 2 and row[0] and row != list(_HEADER)
    }, is_whole


def _as_csv(rows: Iterable[tuple[str, str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


class Wanted(NamedTuple):
    """The images to load for a batch."""

    keys: list[tuple[int, int]]
    """(epoch, index) of each image."""

    epoch: int
    """Epoch of the first image of the whole batch, even if another process loads that image."""

    size: Size
    """Pixels of a crop."""


@runtime_checkable
class Feed(Protocol):
    """A source's images as an objective sees them. Loading processes and the training process share the work."""

    source: ImageSource
    size: CropSize
    """Pixels of a crop."""
    seed: int

    def load(self, wanted: Wanted, failures: Failures) -> Any:
        """Run in a loading process: nested tensors on the CPU, for `arrive`.

        Images that cannot be decoded are replaced and added to `failures`.

        Raises:
            DataError: if too many in a row cannot be decoded.
        """
        ...

    def arrive(self, loaded: Any, device: torch.device, failures: Failures) -> Batch:
        """Run in the training process: the batch on the device, without waiting for copies."""
        ...


def read_or_replace(
    read: Callable[[int], T],
    source: ImageSource,
    seed: int,
    key: tuple[int, int],
    failures: Failures,
) -> tuple[T, int]:
    """The result of `read` for the image of a key (epoch, index), and the image's position.

    An image that cannot be decoded is added to `failures` and replaced by the first readable one of a sequence drawn
    from (seed, epoch, index).

    Raises:
        DataError: if a hundred images in a row cannot be decoded.
    """
    epoch, index = key
    candidate = index
    for attempt in range(_ATTEMPTS):
        try:
            return read(candidate), candidate
        except DataError as error:
            failures.append((source.name(candidate), str(error)))
        candidate = derive("replace", seed, epoch, index, attempt) % len(source)
    name, reason = failures[-1]
    raise DataError(f"{_ATTEMPTS} images in a row cannot be decoded; the last is {name}: {reason}")


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
    """The batches of steps first_step to steps-1, on the device; with `rows`, only these rows of each batch.

    Raises:
        DataError: if too many images cannot be decoded.
        RunError: if the images change while they are read.
        ResourceError: if a worker dies, or memory runs out in it.
    """
    part = Part(torch.tensor(rows), batch_size) if rows is not None else None
    count = len(feed.source)
    wanted = (
        _wanted(feed, samples(step, batch_size, count, feed.seed), step * batch_size / count, rows)
        for step in range(first_step, steps)
    )

    loaded = fetched(feed.load, wanted, workers, set_aside.add, pinned=device.type == "cuda")

    def arrived(batch: Any) -> Batch:
        failures: Failures = []
        batch = feed.arrive(batch, device, failures)
        set_aside.add(failures)
        return batch

    for batch in on_device(loaded, arrived, device):
        yield batch._replace(part=part)


def _wanted(feed: Feed, keys: list[tuple[int, int]], seen: float, rows: list[int] | None) -> Wanted:
    """What to load for a batch, before which `seen` epochs are over."""
    chosen = keys if rows is None else [keys[row] for row in rows]
    return Wanted(chosen, keys[0][0], feed.size(seen) if callable(feed.size) else feed.size)


def example_of(feed: Feed, size: Size, device: torch.device) -> Callable[[int], Batch]:
    """Batches for measurements, on the device: a function of the number of images.

    A few images, evenly spaced in the source, are loaded as in epoch 0 and repeated, so that they have as many
    annotations as in training.

    Raises:
        DataError: if too many in a row cannot be decoded.
    """
    count = len(feed.source)
    examples = min(_EXAMPLES, count)
    keys = [(0, i * count // examples) for i in range(examples)]
    batch = feed.arrive(feed.load(Wanted(keys, 0, size), []), device, [])
    return lambda images: batch.rows([i % examples for i in range(images)])


def chunks(positions: range, length: int) -> list[range]:
    """Consecutive parts of a range; the last may be shorter."""
    return [positions[start : start + length] for start in range(0, len(positions), length)]


class _Loading(Dataset[Any]):
    """A function as a data set for torch's DataLoader."""

    def __init__(self, load: Callable[[Any, Failures], Any]) -> None:
        self.load = load

    def __getitems__(self, wanted: Any) -> tuple[Any, Failures]:
        """Errors are returned as values: raised in a worker, they would become tracebacks."""
        failures: Failures = []
        in_worker = get_worker_info() is not None
        try:
            loaded = self.load(wanted, failures)
            # else the thread that sends it would do this, and its errors are lost
            return nested_map(Tensor.share_memory_, loaded) if in_worker else loaded, failures
        except UnmaskError as error:
            return error, failures
        except (OSError, RuntimeError, MemoryError) as error:
            scarce = in_worker and (loading_died(error) or loading_lacks_memory(error))
            if not scarce:
                raise
            return scarce, failures


def fetched(
    load: Callable[[W, Failures], T],
    wanted: Iterable[W],
    workers: int,
    note: Callable[[Failures], object] | None = None,
    pinned: bool = False,
) -> Iterator[T]:
    """The result of `load` for each element of `wanted`, in order, computed by `workers` processes.

    The failures that `load` adds to its list are passed to `note`, also if it then raises an error.

    Raises:
        ResourceError: if a worker dies, or memory runs out in it.
    """
    loader = DataLoader(
        _Loading(load),
        batch_sampler=wanted,  # pyright: ignore[reportArgumentType] - any iterable
        num_workers=workers,
        prefetch_factor=BATCHES_AHEAD if workers else None,
        collate_fn=_unchanged,
        pin_memory=pinned,
        worker_init_fn=_begin_worker,
    )
    try:
        for result, failures in loader:
            if note is not None:
                note(failures)
            if isinstance(result, UnmaskError):
                raise result
            yield result
    except (OSError, RuntimeError) as error:
        died = loading_died(error) if workers else None
        if died is None:
            raise
        raise died from None


def _unchanged(batch: T) -> T:
    return batch


def _begin_worker(_: int) -> None:
    """What a loading process does before it loads."""
    _ignore_first_signals()
    end_with_parent()


def end_with_parent() -> None:
    """Let this process end within a second of the one that started it, even if that one was killed.

    torch's loading processes look for it only while they wait for work, not while their results wait to be read.
    """
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        # where other children of the parent hold its sentinel open, only the number of the parent changes
        while parent.is_alive() and os.getppid() == parent.pid:
            parent.join(1.0)
        os._exit(1)

    Thread(target=watch, name="watching the parent", daemon=True).start()


def _ignore_first_signals() -> None:
    """Ignore Ctrl-C and the first SIGTERM in a loading process.

    Both reach every process of a terminal or a Slurm job. The training process handles them: it finishes its step,
    for which it needs the loading processes, and saves.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def on_device(
    loaded: Iterator[Any], arrived: Callable[[Any], Batch], device: torch.device
) -> Iterator[Batch]:
    """The batches on the device; a GPU copies the next one while it computes.

    The copy runs on a separate stream, from pinned memory. The computing stream waits for it; the CPU does not.
    """
    if device.type != "cuda":
        yield from map(arrived, loaded)
        return
    copying, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    # The computing stream may still be writing images that a feed keeps on the GPU.
    copying.wait_stream(computing)
    ready: Batch | None = None
    for batch in loaded:
        with torch.cuda.stream(copying):
            following = arrived(batch)
            copied = copying.record_event()
        if ready is not None:
            yield ready
        computing.wait_event(copied)
        _record_use(following, computing)
        ready = following
    if ready is not None:
        yield ready


def _record_use(batch: Batch, computing: torch.cuda.Stream) -> None:
    """Tell the allocator not to reuse the batch's memory while the computing stream needs it."""

    def record(tensor: torch.Tensor) -> torch.Tensor:
        tensor.record_stream(computing)
        return tensor

    nested_map(record, batch)


def _plain(text: str) -> str:
    """Text that UTF-8 can encode, even if a file name is not valid text."""
    return text.encode("utf-8", "backslashreplace").decode()
