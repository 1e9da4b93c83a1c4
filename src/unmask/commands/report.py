"""`unmask report RUN ...`: write the report of a run, or a page that compares several runs."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from unmask.console.arguments import parse
from unmask.console.output import check_writable, console, writing
from unmask.errors import SettingsError
from unmask.report.page import recorded, write_comparison, write_page
from unmask.runs.folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags of `unmask report`."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    """A folder of a run; several to compare them."""

    out: str | None = None
    """The page to write; report.html in the folder of the run, or comparison.html here for several runs."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    args = parse(
        Arguments, arguments, "report", "Write the report of a run, or compare runs side by side."
    )
    if not args.runs:
        raise SettingsError(
            "which run? `unmask report runs/NAME`, or several folders to compare them"
        )
    folders = [RunFolder(run) for run in dict.fromkeys(args.runs)]
    several = [recorded(folder) for folder in folders]
    default = folders[0].report if len(folders) == 1 else Path("comparison.html")
    path = Path(args.out) if args.out else default
    check_writable(path)
    with writing(path):
        if len(several) == 1:
            write_page(several[0], path)
        else:
            write_comparison(several, path)
    console.print(f"written: {path}")
    return 0
