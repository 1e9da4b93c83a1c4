"""How much is printed: --quiet, --verbose, and the environment variable that stands for them."""

import os
from collections.abc import Sequence
from typing import Literal

VERBOSITY = "UNMASK_VERBOSITY"
"""The environment variable that says how much is printed: quiet, normal or verbose."""

_FLAGS = {"--quiet": "quiet", "-q": "quiet", "--verbose": "verbose", "-v": "verbose"}


def verbosity() -> Literal["quiet", "normal", "verbose"]:
    """How much is printed."""
    value = os.environ.get(VERBOSITY)
    return value if value in ("quiet", "verbose") else "normal"


def take_verbosity(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command without --quiet and --verbose (-v), which hold from now on."""
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    chosen = [word for word in words if word in _FLAGS]
    if chosen:
        os.environ[VERBOSITY] = _FLAGS[chosen[-1]]
    return [word for word in words if word not in _FLAGS] + list(arguments[len(words) :])
