"""What parts of a measurement on a GPU share: the device with its figures, time limits, and the table at the end."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import bare  # noqa: F401 - before unmask
import torch

from unmask.training.hardware import Precision
from unmask.training.kernels import can_compile


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    batches: dict[str, list[int]] = field(
        default_factory=lambda: {
            "mae-b16": [512, 1024], "mae-l16": [1024], "mae-h14": [512],
        }
    )  # fmt: skip
    peers: str = "mae-b16"
    peer_batch: int = 512
    """One of the batches of `peers`, whose step they are compared with."""

    finetune: str = "finetune-b16"
    finetune_batch: int = 256
    dense: tuple[tuple[str, int, int], ...] = (("segment-b16", 512, 16), ("detect-b16", 1024, 8))
    """Recipes for class maps and objects, the side of their images, and how many there are at a time."""

    parity: str = "mae-b16"
    parity_batch: int = 32
    others: str = "b16"
    other_batch: int = 1024
    pictures: int = 256
    loaders: tuple[tuple[str, int], ...] = (("cpu", 4), ("cpu", 16), ("gpu", 4))
    """What decodes, and how many processes load."""

    seconds: float = 4.0
    """Of each timing, after a step that compiles."""

    patience: int = 1
    """Times the limits of parts: a busy CPU that only tries the script out may take long."""


TINY = Scale(
    batches={"mae-digits": [2, 4]},
    peers="mae-digits",
    peer_batch=2,
    finetune="finetune-digits",
    finetune_batch=4,
    dense=(("segment-ti8", 32, 2), ("detect-mini", 64, 1)),
    parity="mae-digits",
    parity_batch=8,
    others="ti4",
    other_batch=1,
    pictures=4,
    loaders=(("cpu", 0), ("gpu", 0)),
    seconds=0.02,
    patience=20,
)


@dataclass(frozen=True)
class Row:
    """One line of the table at the end."""

    what: str
    batch: int = 0
    milliseconds: float = 0.0
    images_per_second: float = 0.0
    flops_per_second: float = 0.0
    mfu: float = 0.0
    peak_memory: int = 0
    note: str = ""


@dataclass
class Bed:
    """The device, its ceiling, and all that was found."""

    device: torch.device
    precision: Precision
    scale: Scale
    compiles: bool
    ceiling: float = math.inf
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Keep a row and print it."""
        self.rows.append(row)
        print(f"    {line(row)}", flush=True)

    def say(self, name: str, value: Any) -> None:
        """Keep a fact and print it."""
        self.facts[name] = value
        print(f"    {name}: {value}", flush=True)


def new_bed(tiny: bool) -> Bed:
    """The bed of this machine; says what it is.

    Raises:
        SystemExit: without a GPU, unless `tiny` only tries the script out.
    """
    cuda = torch.cuda.is_available()
    if not cuda and not tiny:
        raise SystemExit("no GPU here; --tiny tries the script out on a CPU")
    device = torch.device("cuda" if cuda else "cpu")
    scale = TINY if tiny else Scale()
    bed = Bed(device, "bfloat16", scale, compiles=cuda and can_compile(device))
    bed.say("device", torch.cuda.get_device_name() if cuda else "cpu")
    bed.say("torch", torch.__version__)
    bed.say("blocks", "compiled" if bed.compiles else "plain: torch cannot compile here")
    return bed


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after this long."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(seconds: float, part: Callable[[Bed], None], bed: Bed) -> str:
    """Run a part of at most so many seconds, whatever it meets; empty, or why it is absent or failed."""
    began = time.perf_counter()
    try:
        with limited(seconds):
            part(bed)
    except ImportError as error:
        return f"absent ({error.name})"
    except SystemExit as error:
        return f"absent ({error})"
    except Exception as error:  # whatever a part meets, the others are still worth having
        late = time.perf_counter() - began >= seconds  # a compiler wraps the alarm in its own
        told = f"stopped after {seconds:.0f} s" if late else str(error).partition("\n")[0]
        return f"failed: {type(error).__name__}: {told}"
    finally:
        print(f"    took {time.perf_counter() - began:.1f} s", flush=True)
        if bed.device.type == "cuda":
            torch.cuda.empty_cache()
    return ""


def line(row: Row) -> str:
    """A row in words."""
    cells = [f"{row.what:38}", f"{row.batch:5,}", f"{row.images_per_second:9,.1f} images/s"]
    if row.milliseconds:
        cells += [f"{row.milliseconds:9,.2f} ms", f"{row.flops_per_second / 1e12:7.2f} TFLOP/s"]
        cells += [f"{row.mfu:6.1%} MFU", f"{row.peak_memory / 2**30:6.2f} GiB"]
    return "  ".join([*cells, row.note]).rstrip()


def table(rows: list[Row]) -> str:
    """All rows as Markdown."""
    head = "| | batch | ms | images/s | TFLOP/s | MFU | peak GiB | |\n|---|---:|---:|---:|---:|---:|---:|---|"
    body = (
        f"| {row.what} | {row.batch:,} | {row.milliseconds:,.2f} | {row.images_per_second:,.1f} "
        f"| {row.flops_per_second / 1e12:.2f} | {row.mfu:.1%} | {row.peak_memory / 2**30:.2f} "
        f"| {row.note} |"
        for row in rows
    )
    return "\n".join([head, *body])


def comparisons(rows: list[Row]) -> list[str]:
    """unmask over each peer, at the same batch size."""
    said: list[str] = []
    for row in rows:
        if not row.what.startswith(("transformers", "lightly")):
            continue
        name = row.what.split()[1].rstrip(",")
        same = [r for r in rows if r.what == f"unmask {name}" and r.batch == row.batch]
        if same:
            said.append(f"{same[0].images_per_second / row.images_per_second:.2f} times {row.what}")
    return said
