"""What several commands print in the same way: progress of training, what the images lack, sizes and times."""

import csv
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unmask.console.bars import State, watched
from unmask.console.screen import Screen, console, notes
from unmask.console.verbosity import verbosity
from unmask.contracts import ImageSource
from unmask.data.labelled import with_channels
from unmask.errors import ResourceError, number_of
from unmask.files import unwritable
from unmask.runs import training
from unmask.runs.model import Model, load
from unmask.training.hardware import find_device
from unmask.training.logbook import LOADING_MATTERS, TIMES
from unmask.traits import Noted

_LONGEST_NAME = 24  # letters
_FEW = 0.02  # share of the images; a greater loss is a warning


def bands_in_words(channels: int) -> str:
    """The kind of images with this many channels, in words."""
    return {1: "grey", 3: "colour"}.get(channels, f"{channels}-band")


def images_in_words(source: ImageSource) -> str:
    """How many images of which kind there are, such as 1,200 colour images."""
    return number_of(len(source), f"{bands_in_words(source.channels)} image")


def loaded(path: str, device: str) -> Model:
    """The model of a run or of weights; prints what was skipped and what to know about it."""
    model = load(path, str(find_device(device)))
    for line in model.damaged:
        notes.warn(f"skipped a damaged checkpoint: {line}")
    for line in model.notes:
        notes.note(line)
    return model


def matched(source: ImageSource, channels: int, trained_on: str) -> ImageSource:
    """The images with the channels of a model, see `with_channels`; says so if they had others."""
    images = with_channels(source, channels, trained_on)
    if source.channels != channels:
        how = "repeated in 3 channels" if channels == 3 else "converted to grey"
        notes.note(
            f"{bands_in_words(source.channels)} images are {how}, because {trained_on} "
            f"{bands_in_words(channels)} images"
        )
    return images


def shown(reports: Iterable[training.Progress], name: str) -> Iterator[training.Progress]:
    """Pass reports on and show progress."""
    short = name.rpartition(":")[2][:_LONGEST_NAME]
    return watched(console, reports, short, _state)


def _state(report: training.Progress) -> State | None:
    """The mean loss and speed of the last steps; with --verbose, FLOP/s and memory too."""
    count = len(report.lines)
    if not count:
        return None
    mean = {key: sum(line[key] for line in report.lines) / count for key in ("loss", *TIMES)}
    words = [f"loss {mean['loss']:.4f}", f"{mean['images_per_second']:,.0f} img/s"]
    if mean["waiting"] > LOADING_MATTERS:
        words.append(f"waiting for images {mean['waiting']:.0%}")
    if verbosity() == "verbose":
        speed = f"{flops(mean['flops_per_second'])} ({mean['mfu']:.0%} of peak)"
        words += [speed, gib(mean["peak_memory"])]
    where = f"step {report.step:,} of {report.steps:,}"
    return State(report.step, report.steps, where, tuple(words))


def say_left_out(source: ImageSource, to: Screen = console) -> None:
    """Print which files cannot be used, which other files were skipped, and notes such as labels without an image.

    What is lost is said in proportion: as a warning, if it is more than a few of the images.
    """
    beside = source.beside if isinstance(source, Noted) else Counter[str]()
    lost = len(source.refused) + beside.total()
    warns = lost > _FEW * (len(source) + lost)
    if source.refused:
        name, reason = source.refused[0]
        _say(f"{len(source.refused):,} cannot be used, the first is {name}: {reason}", to, warns)
    if beside:
        places = ", ".join(f"{count:,} in {place}" for place, count in beside.most_common(5))
        _say(
            f"{beside.total():,} images are not used, because they are in neither train nor test: {places} "
            "(to pretrain on them, move them into train, or give their folder as DATA)",
            to,
            warns,
        )
    if source.others:
        kinds = ", ".join(f"{count} {ending}" for ending, count in source.others.most_common(5))
        _say(f"skipped, not images: {kinds}", to)
    for note in source.notes if isinstance(source, Noted) else ():
        _say(note, to)


def _say(words: str, to: Screen, warns: bool = False) -> None:
    """Print a line below the one that names the images."""
    if warns:
        to.warn(words)
    else:
        to.print(f"          {words}")


def other_recipes() -> str:
    """How to choose another recipe, in words."""
    return "--recipe chooses another (`unmask help recipes` lists them)"


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed.

    Raises:
        ResourceError: with the reason.
    """
    reason = "it is a folder" if path.is_dir() else unwritable(path)
    if reason:
        raise ResourceError(f"{path} cannot be written ({reason}); choose another file with --out")


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Create the folder of a file to write, and name the file if an error stops the writing.

    Raises:
        ResourceError: if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be written ({error.strerror or error}); choose another file with --out"
        ) from None


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table; names of files that are not valid text are escaped.

    Raises:
        ResourceError: if the file cannot be written.
    """
    with (
        writing(path),
        path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def duration(seconds: float) -> str:
    """A time in a readable unit."""
    if 0 < seconds < 1:
        return f"{max(seconds, 0.1):.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def flops(per_second: float) -> str:
    """FLOP/s in a readable unit."""
    if per_second >= 1e12:
        return f"{per_second / 1e12:,.1f} TFLOP/s"
    return f"{per_second / 1e9:,.{0 if per_second >= 1e10 else 1}f} GFLOP/s"


def gib(number: float) -> str:
    """A number of bytes in a readable unit."""
    if 0 < number < 2**20:
        return f"{number / 2**10:.0f} KiB"
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
