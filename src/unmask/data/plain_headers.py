"""Plain JPEGs and PNGs known by their own markers: Pillow needs ten times as long to say so, a twentieth of a small image's decode.

Only what is plain beyond doubt is known here; of everything else Pillow decides.
"""

import struct
from typing import NamedTuple

from unmask.contracts import Size

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PLAIN = (b"\x08\x00", b"\x08\x02")
"""8 bits of grey or of RGB."""
_PNG_PASSED_OVER = frozenset(
    [b"gAMA", b"sRGB", b"pHYs", b"cHRM", b"iCCP", b"tEXt", b"tIME", b"bKGD"]
)
_FRAMES = frozenset([0xC0, 0xC1, 0xC2])
"""Baseline, extended and progressive frames."""
_TABLES = frozenset([0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)])
_FORMATS_OF_SEVERAL_PICTURES = 0xE2, b"MPF\0"


class Plain(NamedTuple):
    """A file without transparency, palette, second picture or more than 8 bits."""

    format: str
    size: Size


def plain_file(data: bytes) -> Plain | None:
    """What a plain JPEG or PNG of 8 bits, grey or RGB, says of itself; None for any doubt."""
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg(data)
    return _png(data) if data[:8] == _PNG else None


def _jpeg(data: bytes) -> Plain | None:
    """Walk from marker to marker up to the frame."""
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, place + 4)
            if bits != 8 or channels not in (1, 3) or not height or not width:
                return None
            return Plain("JPEG", Size(height, width))
        if (
            marker not in _TABLES
            or (marker, data[place + 4 : place + 8]) == _FORMATS_OF_SEVERAL_PICTURES
        ):
            return None
        place += 2 + (data[place + 2] << 8 | data[place + 3])
    return None


def _png(data: bytes) -> Plain | None:
    """Walk from chunk to chunk up to the pixels."""
    if data[12:16] != b"IHDR" or data[24:26] not in _PNG_PLAIN:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    place = 33
    while (kind := data[place + 4 : place + 8]) in _PNG_PASSED_OVER:
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return Plain("PNG", Size(height, width)) if kind == b"IDAT" and height and width else None
