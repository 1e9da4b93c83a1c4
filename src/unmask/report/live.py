"""The report of a run that trains: rewritten once a minute and at the end, with pictures at the looks.

It only reads what training has written or yields, and an error in it ends the report, not the training.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from torch import nn

from unmask.contracts import ImageSource
from unmask.errors import first_line
from unmask.report.curves import Curves
from unmask.report.looks import Looks, are_possible
from unmask.report.page import Recorded, write_page
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.runs.training import Progress
from unmask.training.distributed import here
from unmask.training.logbook import read_log

_SECONDS = 60.0
_SHARE = 100
"""A page that took a second to write is not written again for 100 seconds, so that writing takes under a hundredth."""


class LiveReport:
    """The report of a run in this process, which must be the first of its processes."""

    def __init__(
        self,
        run: Run,
        folder: RunFolder,
        source: ImageSource,
        module: nn.Module,
        first_step: int,
        say: Callable[[str], object],
    ) -> None:
        """`module` is the one that trains; `first_step` is that of the checkpoint; `say` prints a note."""
        self._run, self._folder, self._module, self._say = run, folder, module, say
        self._curves, self._next, self._seen = Curves(), time.monotonic() + _SECONDS, first_step
        self._looks = Looks(run, folder, source) if are_possible(run, module) else None
        self._said: set[str] = set()
        with self._guarded("the report of the steps so far cannot be read"):
            self._curves.add(line for line in read_log(folder.log) if line["step"] <= first_step)
            if self._looks is not None:
                self._looks.forget_after(first_step)

    def see(self, progress: Progress) -> None:
        """Take what a step has brought; writes the page if the last time is a minute ago."""
        self._curves.add(progress.lines)
        self._seen = progress.step
        # with several processes, the others would wait
        if self._looks is not None and self._looks.due(progress.step) and here().count == 1:
            self._look()
        if progress.lines and time.monotonic() >= self._next:
            started = time.monotonic()
            self._write(is_training=True)
            ended = time.monotonic()
            self._next = ended + max(_SECONDS, _SHARE * (ended - started))

    def finish(self) -> None:
        """Write the last page; with several processes, whose looks have no pictures, with one look at the images."""
        if self._looks is not None and here().count > 1 and self._seen:
            self._look(from_checkpoint=True)
        with self._guarded(f"{self._folder.log} cannot be read for the report"):
            # from the file, which also has the step whose loss was not finite
            self._curves = Curves(read_log(self._folder.log))
        if self._curves.step:
            self._write(is_training=False)

    def _look(self, *, from_checkpoint: bool = False) -> None:
        """Take the pictures of a step; after an error there are no more."""
        looks, self._looks = self._looks, None
        assert looks is not None
        with self._guarded("the report has no more pictures"):
            if from_checkpoint:
                checkpoint = self._folder.newest_whole()[0]
                looks.take(checkpoint.info.step, checkpoint.read("model"))
            else:
                looks.take(self._seen, self._module.state_dict())
            self._looks = looks

    def _write(self, *, is_training: bool) -> None:
        with self._guarded(f"{self._folder.report} could not be written"):
            one = Recorded(self._run, self._folder, self._curves)
            write_page(one, self._folder.report, is_training=is_training)

    @contextmanager
    def _guarded(self, words: str) -> Generator[None]:
        """Around all that may fail: a run is complete without its report, so an error is a note, and only once."""
        try:
            yield
        except Exception as error:  # whatever it is, training goes on
            if words not in self._said:
                self._say(f"{words} ({first_line(error)}); training is not affected")
            self._said.add(words)
