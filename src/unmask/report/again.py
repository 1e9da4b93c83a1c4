"""The page of a run, written again when there is something new to show."""

from unmask.errors import UnmaskError
from unmask.report.page import recorded, write_page
from unmask.runs.folder import RunFolder


def write_again(folder: RunFolder) -> bool:
    """Write the page of a run again, if it has one; says whether it was written.

    Where a process trains the run, that process writes the page. A page that cannot be written stays as it is.
    """
    if not folder.report.exists():
        return False
    try:
        with folder.lock():
            write_page(recorded(folder), folder.report)
    except (UnmaskError, OSError):
        return False
    return True
