"""What goes on beside training and must not change it: the report of the run, and trackers."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import nn

from unmask.console.hardware import RunFlags
from unmask.console.output import notes
from unmask.contracts import ImageSource
from unmask.report.live import LiveReport
from unmask.report.trackers import Trackers, tracker_names
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.runs.training import Progress
from unmask.training.checkpoint import Checkpoint
from unmask.training.distributed import here

Observe = Callable[[Iterable[Progress]], Iterator[Progress]]


class Observers(NamedTuple):
    """What was asked for. Only the first process is told; the others report nothing."""

    report: bool = False
    """Whether to write the report."""
    trackers: tuple[str, ...] = ()
    """The names of the trackers that get the log."""


def observers_of(flags: RunFlags) -> Observers:
    """What the flags ask for.

    Raises:
        SettingsError: for a tracker that does not exist.
        ResourceError: for one whose package is missing.
    """
    return Observers(not flags.no_report, tracker_names(flags.track))


@contextmanager
def observed(
    asked: Observers,
    run: Run,
    folder: RunFolder,
    source: ImageSource,
    module: nn.Module,
    start: Checkpoint | None,
) -> Generator[Observe]:
    """Yields a function that passes on the reports of a training, which goes on whatever happens here.

    The last page is written when training has ended in any way, with the score if there is one.
    """

    if not here().first:
        asked = Observers()
    first_step = start.info.step if start else 0
    report = (
        LiveReport(run, folder, source, module, first_step, notes.note) if asked.report else None
    )
    trackers = Trackers(asked.trackers, run, folder, first_step, notes.warn)
    last_step = first_step

    def observe(reports: Iterable[Progress]) -> Iterator[Progress]:
        nonlocal last_step
        for progress in reports:
            last_step = progress.step
            if report is not None:
                report.see(progress)
            trackers.log(progress.lines)
            yield progress

    try:
        yield observe
    finally:
        try:
            if report is not None:
                report.finish()
        finally:
            trackers.log_score(last_step)
            trackers.close()
