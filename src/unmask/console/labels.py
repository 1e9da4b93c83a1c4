"""DATA with labels: from --labels-file, else from a file beside the images."""

from pathlib import Path
from typing import Any

from unmask.console.screen import Screen, console
from unmask.data import AnySource
from unmask.data.band_files import BandReading
from unmask.data.kinds import as_source, find_source
from unmask.data.labels_beside import NO_FILE, with_labels_beside
from unmask.errors import SettingsError


def labelled_source(
    data: str | Path | AnySource | Any,
    kind: str | None,
    labels_file: str | None,
    like: BandReading | None = None,
    to: Screen = console,
) -> AnySource:
    """The source of DATA, of what a program holds too, and unchanged if it is a spec already; prints which labels file beside the images is used, or why it is not.

    Raises:
        SettingsError: see `find_source`; or for a labels file with a spec.
        DataError: if the images cannot be read.
    """
    if not isinstance(data, str | Path):
        if labels_file is not None:
            raise SettingsError(
                "labels_file goes with a path; for the spec of a source use LabelsFile(data=..., labels=...)"
            )
        return as_source(data, labels=True)
    if labels_file is not None:
        named = None if labels_file == NO_FILE else labels_file
        return find_source(str(data), kind, labels_file=named, like=like)
    source, notes = with_labels_beside(find_source(str(data), kind, like=like))
    for note in notes:
        to.print(note)
    return source
