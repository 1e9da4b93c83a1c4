"""What the headers of a source's images say of all of them, and what a few of their pixels must tell."""

import io
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from unmask.data import cache
from unmask.data.decode import Header, alpha_of, decoders, deep_sample, read_header
from unmask.data.deep import Range, range_of
from unmask.errors import DataError
from unmask.progress import counted

_VERSION = 2  # of `Facts`
_HEADERS_READ = 100_000  # sizes and colours are known well enough; more would delay the start
_PIXELS_LOOKED_AT = 200  # images whose 16-bit range is measured
_ALPHA_LOOKED_AT = 32
_WORTH_CACHING = 1.0  # seconds of reading headers


@runtime_checkable
class Store(Protocol):
    """Where the bytes of the images are stored."""

    where: str

    def read(self, row: int) -> bytes:
        """All bytes of an image; raises DataError if it cannot be read."""
        ...

    def head(self, row: int) -> Path | io.BytesIO:
        """A path or file from which the header of an image can be read."""
        ...

    def whole(self, row: int) -> Path | io.BytesIO:
        """A path or file with the whole image."""
        ...


class Facts(NamedTuple):
    """Facts about the encoded images of a source; JSON values."""

    refused: list[tuple[int, str]]
    """(row, reason) of invalid files."""
    channels: int
    """0 if no image is valid."""
    typical: tuple[int, int]
    """Median height and width."""
    smallest_side: int
    deep: int = 0
    """Number of 16-bit images."""
    levels: tuple[float, float] | None = None
    """The measured range of their values."""
    transparent: int = 0
    """Number of images with an alpha channel that is not opaque everywhere, of those looked at."""
    looked_at: int = 0
    several: int = 0
    """Number of files with further pictures, such as animations."""

    def notes(self, channels: int, levels: Range | None) -> tuple[str, ...]:
        """What reading with these channels and levels loses or decides, a line each."""
        lines: list[str] = []
        if self.deep and levels is None:
            lines.append(f"{self.deep:,} images have 16 bits; none of those looked at can be read")
        elif self.deep and levels is not None:
            measured = "measured" if levels == self.levels else "as in training"
            lines.append(
                f"{self.deep:,} images have 16 bits: values {levels[0]:g} to {levels[1]:g} ({measured}) become 0 to 255; "
                "--data-kind tiff keeps all values"
            )
        if self.transparent and channels in (1, 3):
            lines.append(
                f"transparency is laid on white (in {self.transparent} of the {self.looked_at} images looked at)"
            )
        if channels == 4:
            lines.append(
                f"no pixel is opaque (in {self.looked_at} images looked at), so alpha is read as a channel of the data"
            )
        if self.several:
            lines.append(f"{self.several:,} files hold several pictures; the first of each is read")
        return tuple(lines)


def facts_of(store: Store, sizes: Any, state: str) -> Facts:
    """The facts of a store's images, given the size of each in bytes; cached if reading took long, until files change."""
    name = f"pictures-{_VERSION}-{'-'.join(decoders())}-{state}"
    if (cached := cache.read_json(name)) is not None:
        with suppress(TypeError):  # not what we wrote
            return Facts(**cached | {"levels": cached["levels"] and tuple(cached["levels"])})
    started = time.perf_counter()
    facts = read_facts(store, sizes)
    if time.perf_counter() - started > _WORTH_CACHING:
        cache.write_json(name, facts._asdict())
    return facts


def read_facts(store: Store, sizes: Any) -> Facts:
    """Facts from the headers of at most 100,000 evenly spaced images, and the pixels of a few."""
    refused: list[tuple[int, str]] = []
    headers: dict[int, Header] = {}
    every = max(1, -(-len(sizes) // _HEADERS_READ))
    for row in counted(range(len(sizes)), len(sizes), "reading image headers"):
        try:
            if sizes[row] == 0:
                raise DataError("empty (0 bytes)")
            if row % every == 0:
                headers[row] = read_header(store.head(row))
        except DataError as error:
            refused.append((row, str(error)))
    if not headers:
        return Facts(refused, 0, (0, 0), 0)
    seen = headers.values()
    deep = [row for row, header in headers.items() if header.deep]
    alpha = [row for row, header in headers.items() if header.alpha]
    ranges = _of_a_few(store, deep, deep_sample, _PIXELS_LOOKED_AT)
    alphas = _of_a_few(store, alpha, alpha_of, _ALPHA_LOOKED_AT)
    grey = all(header.grey for header in seen)
    channels = 1 if grey else 3
    if alphas and len(alpha) == len(headers) and all(highest < 255 for _, highest in alphas):
        channels = 4
    sides = np.array([header.size for header in seen])
    return Facts(
        refused=refused,
        channels=channels,
        typical=(int(np.median(sides[:, 0])), int(np.median(sides[:, 1]))),
        smallest_side=int(sides.min()),
        deep=len(deep),
        levels=range_of(ranges) if ranges else None,
        transparent=sum(lowest < 255 for lowest, _ in alphas),
        looked_at=len(alphas),
        several=sum(header.several for header in seen),
    )


def evenly(count: int, most: int) -> list[int]:
    """At most so many positions, evenly spaced."""
    return np.unique(np.linspace(0, max(0, count - 1), min(count, most)).astype(int)).tolist()


def _of_a_few(store: Store, rows: list[int], look: Callable[[bytes], Any], most: int) -> list[Any]:
    """What `look` finds in at most so many evenly spaced images; damaged ones are left out."""
    found: list[Any] = []
    for number in evenly(len(rows), most):
        try:
            found.append(look(store.read(rows[number])))
        except DataError:  # training sets it aside
            continue
    return found
