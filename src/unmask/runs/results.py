"""What `results.json` holds: a score, and how many images were left out of it."""

from typing import Any, NamedTuple

from unmask.errors import RunError, SettingsError
from unmask.files import read_object
from unmask.measures import Scored
from unmask.runs.folder import RunFolder
from unmask.spec import from_json, to_json

_BESIDE = ("left_out", "images_per_second")
"""What stands beside the fields of the score."""


class Results(NamedTuple):
    """A score that was read again."""

    score: Scored
    left_out: int
    """Test images that could not be read."""


def results_of(score: Any, left_out: int, images_per_second: float) -> dict[str, Any]:
    """The values of `results.json`."""
    beside = (left_out, images_per_second)
    return {**to_json(score), **dict(zip(_BESIDE, beside, strict=True))}


def read_results(folder: RunFolder, score_types: tuple[type[Scored], ...]) -> Results | None:
    """The score in the folder of a run; None before its end. `score_types` are those of its job, none if it has no score.

    Raises:
        RunError: if the file holds no score of such a run, or one of another version.
    """
    values = read_object(folder.results)
    if not values or not score_types:
        return None
    fields = {name: value for name, value in values.items() if name not in _BESIDE}
    reason = ""
    for kind in score_types:
        try:
            return Results(from_json(kind, fields), int(values.get("left_out", 0)))
        except SettingsError as error:
            reason = str(error)
    raise RunError(f"{folder.results} does not hold the score of this run ({reason})")
