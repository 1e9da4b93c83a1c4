"""The page of a run, written again when there is something new to show."""

from collections.abc import Callable

from unmask.errors import RunError, first_line
from unmask.report.page import recorded, write_page
from unmask.runs.folder import RunFolder


def write_again(folder: RunFolder, say: Callable[[str], object]) -> bool:
    """Write the page of a run again, if it has one; says whether it was written.

    Where a process trains the run, that process writes the page. `say` prints why a page could not be written.
    """
    if not folder.report.exists():
        return False
    try:
        with folder.lock():
            write_page(recorded(folder), folder.report)
    except RunError:  # another process has the lock
        return False
    except Exception as error:  # whatever it is, what was asked for is done
        say(f"{folder.report} could not be written again ({first_line(error)})")
        return False
    return True
