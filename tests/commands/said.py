"""What a command gave back."""

import re
from collections.abc import Callable
from typing import NamedTuple


class Said(NamedTuple):
    """An exit status and words, without frames and line breaks."""

    status: int
    out: str
    err: str
    raw: str
    """Standard output as it was."""

    @property
    def all(self) -> str:
        """Both streams."""
        return f"{self.out} {self.err}"


Unmask = Callable[..., Said]


def plain(text: str) -> str:
    """Words parted by single spaces; the frames that tyro and rich draw are gone."""
    return re.sub(r"[│┃┏┓┗┛┡┩└┘╇┴━╭╮╰╯─\s]+", " ", text).strip()
