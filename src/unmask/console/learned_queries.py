"""Queries that an encoder has learned from: their scores would be too good."""

from collections.abc import Sequence
from pathlib import Path

from unmask.console.output import notes
from unmask.data import AnySource, Digits, GroundMap
from unmask.data.annotated import pictures_alone
from unmask.data.map_files import pictures_of_map
from unmask.errors import DataError, SettingsError, UnmaskError, first_line
from unmask.runs.model import Model
from unmask.traits import InFiles


def say_unknown_start(model: Model) -> None:
    """Say where nothing is known of the images that a model, or the weights that it started from, has learned from."""
    run = model.run
    if run is None:
        notes.note(
            f"which images {model.about} has learned from is not known, so queries may be among them"
        )
    elif run.init is not None and not run.learned_before:
        notes.note(
            f"the encoder started from {run.init}; which images these weights have learned from is not known, so queries may be among them"
        )


def refuse_learned(sources: Sequence[AnySource], queries: Sequence[Path]) -> None:
    """Refuse queries that are files of these sources; say of which sources this is not known.

    Raises:
        SettingsError: with the first of the queries, and where it was learned from.
    """
    for data in sources:
        where = str(getattr(data, "path", "images in memory"))
        try:
            files = _files_of(data)
        except UnmaskError as error:
            _say_unknown(where, first_line(error))
            continue
        if files is None:
            _say_unknown(where, "its images are not files of their own")
            continue
        theirs = {_identity(file) for file in files}
        learned = [path for path in queries if _identity(path) in theirs]
        if learned:
            raise SettingsError(
                f"the encoder has learned from {len(learned):,} of the queries, such as {learned[0]} (it was trained on {where}), so "
                "the scores would be too good; leave them out, or take another encoder"
            )


def _say_unknown(where: str, reason: str) -> None:
    notes.note(
        f"the encoder was trained on {where}; whether queries were among these images is not known ({reason})"
    )


def _files_of(data: AnySource) -> list[Path] | None:
    """The files that a run has learned from; None if its images are not files, as in shards or tables."""
    if isinstance(data, GroundMap):
        place = Path(data.path).expanduser()
        if not place.exists():
            raise DataError(f"{data.path} is gone")
        return pictures_of_map(place)
    if isinstance(data, Digits):
        return []
    source = pictures_alone(data)
    if not isinstance(source, InFiles):
        return None
    files = [source.file(position) for position in range(len(source))]
    return [file for file in files if file is not None] or None


def _identity(path: Path) -> tuple[int, int] | None:
    """Equal for all paths of a file, also through links; None if it is gone."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
