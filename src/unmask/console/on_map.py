"""What users say of the pictures to locate, and how answers are told."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unmask.console.output import console, notes
from unmask.contracts import Size
from unmask.data.camera_facts import camera_facts, gps_position, width_by_angle, width_by_focal
from unmask.errors import SettingsError
from unmask.places.calibration import Calibration
from unmask.places.locating import Beliefs, Located, Near

_ABSURD = (1.0, 50_000.0)
"""Ground widths that no picture of a drone has, in metres."""

_NOT_EARTH = (90.0, 180.0)


class Known(NamedTuple):
    """What flags say of all pictures; None where they say nothing."""

    width: float | None
    height: float | None
    field_of_view: float | None
    """Across the picture's width, in degrees."""


def parse_near(text: str | None) -> Near | None:
    """Parse "24.26,120.72,500".

    Raises:
        SettingsError: if it is no place with a radius.
    """
    if text is None:
        return None
    try:
        latitude, longitude, radius = (float(word) for word in text.split(","))
    except ValueError:
        raise SettingsError(
            f"--near takes latitude, longitude and a radius in metres, such as 24.262,120.720,300; got {text!r}"
        ) from None
    if abs(latitude) > _NOT_EARTH[0] or abs(longitude) > _NOT_EARTH[1] or not radius > 0:
        raise SettingsError(
            f"--near {text}: latitude comes first and lies from -90 to 90, longitude from -180 to 180, and the radius is above 0"
        )
    return Near(latitude, longitude, radius)


def near_gps(paths: Sequence[Path], radius: float) -> list[Near | None]:
    """The circles around the positions in the EXIF of pictures, None for those that state none; only for `--prior-from-exif`.

    Raises:
        SettingsError: if none of them states one.
    """
    positions = [gps_position(path) for path in paths]
    if not any(positions):
        raise SettingsError(
            f"{paths[0]}{' and the others state' if len(paths) > 1 else ' states'} no GPS position in EXIF; leave out "
            "--prior-from-exif, or give --near LATITUDE,LONGITUDE,RADIUS"
        )
    for path, position in zip(paths, positions, strict=True):
        if position is None:
            where = "on the whole map, because it states no GPS position in EXIF"
        else:
            where = f"within {radius:g} m of {position[0]:.6f}, {position[1]:.6f}, its GPS position in EXIF"
        notes.note(f"{path.name} is looked for {where}")
    return [None if position is None else Near(*position, radius) for position in positions]


def width_of(path: Path, size: Size, known: Known) -> tuple[float | None, str]:
    """The ground width of a picture in metres, and where it comes from, in words.

    Raises:
        SettingsError: if it is absurd, or a height comes without a field of view.
        DataError: if the file is no image.
    """
    width, source = _width_of(path, size, known)
    if width is not None and not _ABSURD[0] <= width <= _ABSURD[1]:
        raise SettingsError(
            f"{path.name} would show {width:,.2f} m of ground across ({source}), {100 * width / size.width:.2g} cm a pixel, which no "
            "picture of a drone does; give the width of the picture in metres with --ground-size"
        )
    return width, source


def check_angle(known: Known, pictures: Sequence[tuple[Path, float | None]]) -> None:
    """Refuse a field of view that changes nothing.

    Args:
        known: what flags say.
        pictures: those whose ground size is not known otherwise, each with its height if that is known.

    Raises:
        SettingsError: if no picture has a height.
    """
    if known.field_of_view is None or known.height is not None:
        return
    heights = (height or camera_facts(path).height for path, height in pictures)
    if not any(heights):
        why = "no picture states its height (RelativeAltitude in XMP)"
        raise SettingsError(
            f"--fov changes nothing: {why if pictures else 'the ground size of every picture is known'}; leave it out, or give the "
            "height of the camera as well"
        )


def _width_of(path: Path, size: Size, known: Known) -> tuple[float | None, str]:
    if known.width is not None:
        return known.width, "--ground-size"
    if known.height is not None and known.field_of_view is not None:
        return width_by_angle(known.height, known.field_of_view), "height and field of view"
    facts = camera_facts(path)
    height = known.height if known.height is not None else facts.height
    if height is None:
        return None, "not known"
    if known.field_of_view is not None:
        return width_by_angle(height, known.field_of_view), "height in XMP and field of view"
    if facts.focal_35 is None:
        if known.height is not None:
            raise SettingsError(
                f"--height needs the field of view, because {path.name} does not state its focal length (EXIF); add --fov with the "
                "angle across the picture's width in degrees, or give --ground-size"
            )
        return None, "not known"
    where = "" if known.height is not None else " in XMP"
    return (
        width_by_focal(height, facts.focal_35, size.width / size.height),
        f"height{where} and focal length in EXIF",
    )


def say_beliefs(beliefs: Beliefs, size: Size, largest: float, source: str) -> None:
    """Print what is assumed of the pictures."""
    widths = ", ".join(f"{width:,.0f}" for width in beliefs.widths(size, largest))
    known = f"{widths} m of ground across, from {source}"
    if beliefs.width is None:
        known = f"unknown ground size: {widths} m across are tried; --ground-size makes answers far better"
    turned = (
        f"{beliefs.turns} directions are tried"
        if beliefs.heading is None
        else f"heading {beliefs.heading:g} degrees"
    )
    console.print(f"pictures  {known}; {turned}")


def say_calibration(
    result: Calibration | None, reason: str, radius: float | None, metres: float
) -> None:
    """Print from which margin on an answer is a fix, within a radius if there is one, on tiles of so many metres."""
    if result is None:
        console.warn(
            f"no threshold can be measured, because the map cannot be read ({reason}); answers come without a verdict"
        )
    elif math.isinf(result.threshold) and radius is not None and radius < metres:
        console.warn(
            f"a radius of {radius:g} m is too small for tiles of {metres:g} m: a margin needs two places that are a tile apart, so "
            "nothing will be called a fix; take a larger radius, or embed the map with smaller --tile-metres"
        )
    elif math.isinf(result.threshold):
        console.warn(
            f"on this map no margin tells right answers from wrong ones (of {result.pieces} changed pieces of it, "
            f"{result.right:.0%} come first at their own place), so nothing will be called a fix"
        )
    else:
        console.print(
            f"fixes     from a margin of {result.threshold:.3f} on; of {result.pieces} turned and relit pieces of the map "
            f"{result.found:.0%} are found so, and {result.false_fixes:.0%} of wrong answers pass"
        )


def is_fix(located: Located, calibration: Calibration | None) -> bool | None:
    """Whether the margin is high enough; None if nothing was calibrated."""
    return None if calibration is None else located.margin >= calibration.threshold


def elsewhere(name: str, near: Near) -> dict[str, Any]:
    """The answer for a picture whose own GPS position leaves no tile of the map, as JSON."""
    reason = f"no tile lies within {near.radius:g} m of its GPS position, {near.latitude:.6f}, {near.longitude:.6f}"
    unknown = dict.fromkeys(("margin", "ground_size", "heading", "tile_metres"))
    return {"image": name, "fix": False, "reason": reason, **unknown, "places": []}


def as_json(name: str, located: Located, fix: bool | None, wanted: int) -> dict[str, Any]:
    """An answer as JSON."""
    return {
        "image": name,
        "fix": fix,
        "margin": round(located.margin, 6),
        "ground_size": round(located.peaks[0].view.width, 2),
        "heading": round(located.peaks[0].view.heading, 2),
        "tile_metres": located.field.grid.metres,
        "places": [
            {
                "latitude": round(latitude, 8),
                "longitude": round(longitude, 8),
                "score": round(peak.score, 6),
            }
            for (longitude, latitude), peak in zip(located.degrees, located.peaks, strict=True)
        ][:wanted],
    }
