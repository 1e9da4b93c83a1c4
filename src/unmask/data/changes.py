"""Whether files were written to since they were last looked at."""

import os
from pathlib import Path


def size_and_time(file: Path) -> tuple[int, int]:
    """Bytes and time of change of a file: equal while nobody writes to it."""
    return size_and_change(file.stat())


def size_and_change(found: os.stat_result) -> tuple[int, int]:
    """The same, of what the system says of a file. A tool that sets the time back does not hide a change."""
    return found.st_size, max(found.st_mtime_ns, found.st_ctime_ns)
