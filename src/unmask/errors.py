"""The exceptions that unmask raises for users' mistakes and for problems of their data or machine.

UnmaskError
├── DataError       images, folders or files that cannot be used
├── SettingsError   a recipe, flag or value that is not valid
├── RunError        a run folder that is in use, unfinished, changed or from another version
├── ResourceError   too little memory or disk space, a missing package or device
└── DivergedError   a loss that is no longer finite

Each message says what is wrong (with the value), why it matters, and how to fix it. The command line prints only the
message; a traceback means a bug in unmask.
"""

import difflib
import shlex
from collections.abc import Iterable


class UnmaskError(Exception):
    """Base of all errors that a user can fix."""


class DataError(UnmaskError):
    """Images, folders or files that cannot be used."""


class SettingsError(UnmaskError, ValueError):
    """A recipe, flag or value that is not valid."""


class RunError(UnmaskError):
    """A run folder that is in use, unfinished, changed or from another version."""


class ResourceError(UnmaskError):
    """Too little memory or disk space, a missing package or a missing device."""


class DivergedError(UnmaskError):
    """A loss that is no longer finite."""


def loading_died(error: RuntimeError) -> ResourceError | None:
    """Our error for a loading process that has died, from torch's RuntimeError; None for other errors.

    torch checks its loading processes in a signal handler, so the error can be raised anywhere in the program.
    """
    # A RuntimeError raised inside a worker has these words too, but begins "Caught RuntimeError in".
    if not str(error).startswith("DataLoader worker (pid"):
        return None
    return ResourceError(
        f"a loading process died, most likely because memory ran out ({error}); use fewer --workers, "
        "or --workers 0"
    )


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A clause with the closest of the known names, and then all of them.

    >>> did_you_mean("mae-b61", ["mae-b16", "mae-l16"])
    "did you mean 'mae-b16'? Known: mae-b16, mae-l16"
    """
    names = sorted(known)
    closest = difflib.get_close_matches(wrong, names, n=1)
    question = f"did you mean {closest[0]!r}? " if closest else ""
    return f"{question}Known: {', '.join(names)}"


def typed(command: str, *words: object) -> str:
    """A command line of unmask, quoted so that it can be pasted.

    >>> typed("pretrain", "my photos")
    "unmask pretrain 'my photos'"
    """
    return shlex.join(["unmask", command, *map(str, words)])
