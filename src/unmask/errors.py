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
import re
import shlex
from collections.abc import Iterable


class UnmaskError(Exception):
    """Base of all errors that a user can fix."""


class DataError(UnmaskError):
    """Images, folders or files that cannot be used."""


class SettingsError(UnmaskError, ValueError):
    """A recipe, flag or value that is not valid."""

    keys: tuple[str, ...] = ()
    """Where the spec with the value lies in the JSON values that were read, if it was read from some."""


class RunError(UnmaskError):
    """A run folder that is in use, unfinished, changed or from another version."""


class ResourceError(UnmaskError):
    """Too little memory or disk space, a missing package or a missing device."""


class DivergedError(UnmaskError):
    """A loss that is no longer finite."""


def loading_died(error: Exception) -> ResourceError | None:
    """Our error for a loading process that has died, or cannot hand over images; None for other errors.

    torch checks its loading processes in a signal handler, so the error can be raised anywhere in the program.
    """
    words = str(error)
    if _SHARED.search(words):
        return ResourceError(
            "/dev/shm, through which loading processes hand over images, is full; enlarge it (in docker: "
            "docker run --shm-size=8g), or use fewer --workers, or --workers 0"
        )
    if "Too many open files" in words or "items of ancdata" in words:
        return ResourceError(
            "the loading processes need more open files than the system allows; raise the limit (ulimit -n 65536), "
            "or use fewer --workers, or --workers 0"
        )
    # an error that was raised inside of a loading process begins "Caught RuntimeError in"
    died = _DIED.match(words)
    if died is None:
        return None
    return ResourceError(
        f"a loading process died, most likely because memory ran out ({died['how'].strip()}); use fewer --workers, "
        "or --workers 0"
    )


_DIED = re.compile(r"DataLoader worker (?P<how>\(pid[^\n.]*)")
_SHARED = re.compile(r"</?torch_\d|shared memory\(shm\)|Bus error")
"""Words of torch's errors about shared memory; without room there, the system may also send a bus error."""


def loading_lacks_memory(error: Exception) -> ResourceError | None:
    """Our error for memory that ran out inside of a loading process; None for other errors."""
    signs = ("can't allocate memory", "Cannot allocate memory")
    if not (isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)):
        return None
    return ResourceError(
        "memory ran out in a loading process; use fewer --workers, or --workers 0, or a smaller --batch-size"
    )


def without_home(error: Exception) -> SettingsError | None:
    """Our error for a path that begins with ~ where the system knows no home folder; None for other errors."""
    if "Could not determine home directory" not in str(error):
        return None
    return SettingsError(
        "a path begins with ~, and this system knows no such home folder; write the whole path"
    )


def with_extra(extra: str) -> str:
    """The command that installs an extra of this package, for a message that a package is missing."""
    return f'`pip install "unmask[{extra}]"` (in a clone: `pip install ".[{extra}]"`)'


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its kind if it says nothing.

    >>> first_line(ValueError("not an image\\nat byte 7"))
    'not an image'
    >>> first_line(EOFError())
    'EOFError'
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def number_of(count: int, noun: str, ending: str = "s") -> str:
    """A number with its noun, in the plural except for one.

    >>> number_of(1, "block"), number_of(1200, "image"), number_of(2, "process", "es")
    ('1 block', '1,200 images', '2 processes')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{ending}"


def listed(words: Iterable[str], most: int = 6) -> str:
    """Words separated by commas; if there are many, the first ones and the number of others."""
    words = list(words)
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


_SPELLINGS = (
    ("base", "b"),
    ("large", "l"),
    ("huge", "h"),
    ("small", "s"),
    ("tiny", "ti"),
    ("patch", ""),
    ("vit", ""),
)
"""How others write the names of models, and how we do."""


def closest(wrong: str, known: Iterable[str]) -> str | None:
    """The known name that is most like a wrong one, also where others spell the model differently; None if none is.

    >>> closest("mae_vit_base_patch16", ["mae-b16", "mae-ti4"])
    'mae-b16'
    """
    names = sorted(known)
    plain = wrong.lower().replace("_", "-")
    for theirs, ours in _SPELLINGS:
        plain = plain.replace(theirs, ours)
    plain = re.sub(r"-?(?<![a-z])(ti|[sblh])-?(?=\d|$)", r"-\1", re.sub("-+", "-", plain)).strip(
        "-"
    )
    starting = [name for name in names if re.fullmatch(re.escape(plain) + r"\d+", name)]
    close = difflib.get_close_matches(plain, names, n=1) or difflib.get_close_matches(
        wrong, names, n=1
    )
    return (starting or close or [None])[0]


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A clause with the closest of the known names, and then all of them.

    >>> did_you_mean("mae-b61", ["mae-b16", "mae-l16"])
    "did you mean 'mae-b16'? Known: mae-b16, mae-l16"
    >>> did_you_mean("qqq", ["mae-b16", "mae-l16"])
    'known: mae-b16, mae-l16'
    """
    names = sorted(known)
    near = closest(wrong, names)
    return (
        f"did you mean {near!r}? Known: {', '.join(names)}"
        if near
        else f"known: {', '.join(names)}"
    )


def typed(command: str, *words: object) -> str:
    """A command line of unmask, quoted so that it can be pasted.

    >>> typed("pretrain", "my photos")
    "unmask pretrain 'my photos'"
    """
    return shlex.join(["unmask", command, *map(str, words)])
