"""Everything that unmask raises for a user's mistake.

UnmaskError
├── DataError       images, folders and files that cannot be used
├── SettingsError   a recipe, flag or value that makes no sense
├── RunError        a run folder that is taken, unfinished, changed or from another version
├── ResourceError   too little memory or disk, a missing package or device
└── DivergedError   a loss that is no longer finite

Each message says what was wrong (with the value), why it matters, and how to mend it. The command
line prints the message alone; a traceback means a mistake of ours.
"""

import difflib
from collections.abc import Iterable


class UnmaskError(Exception):
    """Base of all errors that a user can mend."""


class DataError(UnmaskError):
    """Images, folders or files that cannot be used."""


class SettingsError(UnmaskError, ValueError):
    """A recipe, flag or value that makes no sense."""


class RunError(UnmaskError):
    """A run folder that is taken, unfinished, changed or from another version."""


class ResourceError(UnmaskError):
    """Too little memory or disk, a missing package or a missing device."""


class DivergedError(UnmaskError):
    """A loss that is no longer finite."""


def loading_died(error: RuntimeError) -> ResourceError | None:
    """What torch raises, anywhere in the program, when a loading process has died; None of other errors."""
    # A RuntimeError raised inside a worker has these words too, but begins "Caught RuntimeError in".
    if not str(error).startswith("DataLoader worker (pid"):
        return None
    return ResourceError(
        f"a loading process died, most likely for want of memory ({error}); try fewer with --workers, or --workers 0"
    )


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A clause naming the nearest of the known names and then all of them.

    >>> did_you_mean("mae-b61", ["mae-b16", "mae-l16"])
    "did you mean 'mae-b16'? Known: mae-b16, mae-l16"
    """
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, n=1)
    question = f"did you mean {near[0]!r}? " if near else ""
    return f"{question}Known: {', '.join(names)}"
