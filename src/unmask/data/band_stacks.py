"""Images whose bands are in files of their own, such as scene_B02.tif and scene_B03.tif."""

import re
from collections import defaultdict

from unmask.data.labels import Names
from unmask.errors import DataError

_USUAL = re.compile(r"(?<![A-Za-z0-9])(B\d{1,2}A?|band[_-]?\d{1,2})(?![A-Za-z0-9])", re.IGNORECASE)
"""Words that Sentinel-2, Landsat and others have for bands."""
_LOOKED_AT = 1000

Stacks = list[tuple[int, ...]]
"""For each image, the rows of its files in the order of the bands."""


def stacks(names: Names, bands: tuple[str, ...]) -> tuple[Stacks, list[tuple[str, str]], int]:
    """Files whose names differ only in the word of the band, (name, reason) of incomplete images, and the number of others.

    The word must stand alone, between characters that are neither letters nor digits; it may also be a folder.

    Raises:
        DataError: if no file has one of the words, or two files have the same name apart from other endings.
    """
    rows: defaultdict[str, dict[str, int]] = defaultdict(dict)
    words = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(map(re.escape, bands))})(?![A-Za-z0-9])")
    others = 0
    for row in range(len(names)):
        name = names[row]
        found = list(words.finditer(name))
        if not found:
            others += 1
            continue
        last = found[-1]
        rows[name[: last.start()] + "*" + name[last.end() :]][last[0]] = row
    if not rows:
        raise DataError(
            f"no file has a word of --bands {','.join(bands)} in its name; the first is {names[0] if len(names) else 'none'}"
        )
    whole: Stacks = []
    refused: list[tuple[str, str]] = []
    for files in rows.values():
        if missing := [band for band in bands if band not in files]:
            refused.append(
                (names[min(files.values())], f"without its file of {', '.join(missing)}")
            )
        else:
            whole.append(tuple(files[band] for band in bands))
    return whole, refused, others


def looks_like_stacks(names: Names) -> str | None:
    """A note if names end in different bands of the same scenes; None if they do not."""
    scenes: defaultdict[str, list[str]] = defaultdict(list)
    looked_at = min(len(names), _LOOKED_AT)
    for row in range(looked_at):
        name = names[row]
        found = list(_USUAL.finditer(name))
        if not found:
            return None
        scenes[name[: found[-1].start()] + name[found[-1].end() :]].append(found[-1][0])
    if looked_at < 2 or any(len(bands) < 2 for bands in scenes.values()):
        return None
    bands = ",".join(sorted(next(iter(scenes.values()))))
    return f"names differ only in a band, such as {names[0]}; --bands {bands} reads them as bands of one image"
