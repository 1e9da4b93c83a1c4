"""How much is printed: --quiet, --verbose, and the environment variable that stands for them; and by which process."""

import os
from collections.abc import Sequence
from typing import Literal

from unmask.errors import SettingsError

VERBOSITY = "UNMASK_VERBOSITY"
"""The environment variable that says how much is printed: quiet, normal or verbose."""

_FLAGS = {"--quiet": "quiet", "-q": "quiet", "--verbose": "verbose", "-v": "verbose"}


def verbosity() -> Literal["quiet", "normal", "verbose"]:
    """How much is printed."""
    value = os.environ.get(VERBOSITY)
    return value if value in ("quiet", "verbose") else "normal"


def is_first_process() -> bool:
    """Whether this process is the only one, or the first of those that torchrun started, which prints for all."""
    rank = os.environ.get("RANK", "0")
    return "MASTER_ADDR" not in os.environ or rank == "0" or not rank.isdecimal()


def take_verbosity(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line without --quiet (-q) and --verbose (-v), which hold from now on.

    Raises:
        SettingsError: for both of them.
    """
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    chosen = [word for word in words if word in _FLAGS]
    if len({_FLAGS[word] for word in chosen}) > 1:
        raise SettingsError(f"{' and '.join(chosen)} contradict each other; leave out one of them")
    if chosen:
        os.environ[VERBOSITY] = _FLAGS[chosen[0]]
    return [word for word in words if word not in _FLAGS] + list(arguments[len(words) :])
