"""The names of devices that a user may type."""

import re

from unmask.errors import SettingsError

_NAME = re.compile(r"auto|cpu|cuda(:\d+)?|mps")


def device_name(word: str) -> str:
    """The device that a word means, as torch calls it, or auto; gpu is cuda.

    Raises:
        SettingsError: for any other word, with those that may be typed.
    """
    name = re.sub(r"^gpu(?=:|$)", "cuda", word.lower())
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"--device must be cpu, cuda (or gpu), cuda:1 for the second GPU, mps, or auto; got {word!r}"
        )
    return name
