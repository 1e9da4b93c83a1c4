"""`unmask report RUN ...`: write the report of a run, or a page that compares several runs."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from unmask.console.arguments import parse
from unmask.console.output import check_writable, console, writing
from unmask.errors import ResourceError, RunError, SettingsError
from unmask.report.page import Recorded, recorded, write_comparison, write_page
from unmask.report.trackers import Trackers, look_at, tracker_names
from unmask.runs.folder import RunFolder
from unmask.training.logbook import read_log


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask report`."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    """A folder of a run; several to compare them."""

    out: str | None = None
    """The page to write; report.html in the folder of the run, or comparison.html here for several runs."""

    send: str | None = None
    """Send the log of a run to trackers instead: tensorboard, mlflow, trackio, wandb, or several with commas."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(Arguments, arguments, "report")
    if not args.runs:
        raise SettingsError(
            "which run? `unmask report runs/NAME`, or several folders to compare them"
        )
    names = tracker_names(args.send)
    folders = [RunFolder(run) for run in dict.fromkeys(args.runs)]
    several = [recorded(folder) for folder in folders]
    if args.send is not None:
        if args.out is not None:
            raise SettingsError("--send writes no page; leave out --out")
        for one in several:
            _send(one, names)
        return 0
    default = folders[0].report if len(folders) == 1 else Path("comparison.html")
    path = Path(args.out) if args.out else default
    check_writable(path)
    with writing(path):
        if len(several) == 1:
            write_page(several[0], path, is_training=_is_training(folders[0]))
        else:
            write_comparison(several, path)
    console.print(f"written: {path}")
    return 0


def _is_training(folder: RunFolder) -> bool:
    """Whether a process trains this run now."""
    try:
        with folder.lock():
            return False
    except RunError:
        return True
    except ResourceError:  # a folder that this user may only read
        return False


def _send(one: Recorded, names: tuple[str, ...]) -> None:
    """Send the log of a run as a new run of each tracker.

    Raises:
        ResourceError: if a tracker fails.
    """
    failures: list[str] = []
    trackers = Trackers(names, one.run, one.folder, 0, failures.append)
    trackers.log_all(read_log(one.folder.log))
    trackers.log_score(one.curves.step)
    trackers.close(keep=False)
    for name in trackers.names:
        console.print(f"sent: {one.folder.root} to {name}; look at it: {look_at(name, one.folder)}")
    if failures:
        raise ResourceError("; ".join(failures))
