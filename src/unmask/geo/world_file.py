"""World files: six lines beside a picture that say where it lies (.jgw, .pgw, .tfw, .wld), and .prj with its system."""

from pathlib import Path

from unmask.errors import DataError
from unmask.geo.crs import DEGREES, Crs, crs_named
from unmask.geo.georeference import Georeference

_MIDDLE = 0.5  # a world file gives the middle of the first pixel


def world_file(picture: Path) -> Path | None:
    """The world file of a picture: a.jgw, a.jpgw or a.wld beside a.jpg, in any case; None if there is none."""
    ending = picture.suffix.lstrip(".")
    if not ending:
        return None
    names = (f"{ending[0]}{ending[-1]}w", f"{ending}w", "wld")
    for name in names:
        for spelling in (name.lower(), name.upper()):
            beside = picture.with_suffix(f".{spelling}")
            if beside.is_file():
                return beside
    return None


def read_world_file(file: Path, crs: str | None) -> Georeference:
    """The georeference of a world file.

    Args:
        file: the world file; a .prj beside it with the same name may hold the system as WKT.
        crs: the system, if the user says it.

    Raises:
        DataError: if the file is damaged, or nothing says what its coordinates are.
        ResourceError: if the system needs pyproj, which is missing.
    """
    try:
        words = file.read_text(encoding="utf-8-sig").split()
        a, d, b, e, x, y = (float(word.replace(",", ".")) for word in words)
    except (OSError, ValueError):
        raise DataError(
            f"{file} is not a world file; it must hold six numbers, a line each: the steps of a column in x and y, those of a "
            "row, and x and y of the middle of the first pixel"
        ) from None
    left, top = x - _MIDDLE * (a + b), y - _MIDDLE * (d + e)
    return Georeference((a, b, left, d, e, top), _crs_of(file, crs, left, top, max(abs(a), abs(d))))


def _crs_of(file: Path, crs: str | None, left: float, top: float, step: float) -> Crs:
    """The system: as the user says, as a .prj says, or degrees if the numbers can be nothing else."""
    if crs is not None:
        return crs_named(crs)
    beside = file.with_suffix(".prj")
    if beside.is_file():
        return crs_named(beside.read_text(encoding="utf-8", errors="replace"))
    if (
        abs(left) <= 180 and abs(top) <= 90 and step < 0.1
    ):  # of metres, a pixel of 0.1 near x = y = 0
        return DEGREES
    raise DataError(
        f"{file} has coordinates that are not degrees ({left:,.0f}, {top:,.0f}), and no .prj beside it names their system; "
        "add --crs, such as --crs EPSG:32651"
    )
