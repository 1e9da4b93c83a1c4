"""Where the pixels of a raster lie on the Earth."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from unmask.errors import DataError
from unmask.geo.crs import Crs, Points
from unmask.geo.distance import local_metres

Affine = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f: x = a column + b row + c, and y = d column + e row + f."""


@dataclass(frozen=True)
class Georeference:
    """From column and row to coordinates and back. A pixel is a square from its number to the next; its middle is at + 0.5."""

    affine: Affine
    crs: Crs

    def __post_init__(self) -> None:
        """Raises DataError if the affine map cannot be turned round."""
        a, b, _, d, e, _ = self.affine
        if not np.isfinite(self.affine).all() or a * e - b * d == 0:
            raise DataError(
                f"its georeference is damaged: the steps of a pixel are {a:g} {b:g} and {d:g} {e:g}"
            )

    def to_degrees(self, pixels: Points) -> Points:
        """Longitude and latitude of columns and rows."""
        matrix = np.array(self.affine).reshape(2, 3)
        return self.crs.to_degrees(np.asarray(pixels, float) @ matrix[:, :2].T + matrix[:, 2])

    def to_pixels(self, degrees: Points) -> Points:
        """Columns and rows of longitudes and latitudes."""
        matrix = np.array(self.affine).reshape(2, 3)
        places = self.crs.from_degrees(np.asarray(degrees, float)) - matrix[:, 2]
        return places @ np.linalg.inv(matrix[:, :2]).T

    def steps(self, pixels: Points) -> Float[NDArray[np.float64], "... 2 2"]:
        """How far a column and a row lead, each in metres east and north; measured over a pixel around places."""
        half = np.array([[0.5, 0.0], [0.0, 0.5]])
        middle = np.asarray(pixels, float)[..., None, :]
        before, after = self.to_degrees(middle - half), self.to_degrees(middle + half)
        return local_metres(after, before)

    def check(self, width: int, height: int) -> None:
        """Refuse what cannot be where a map of this size lies, seen from above.

        Raises:
            DataError: with its corners, if they are not on the Earth or the map is mirrored.
        """
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
        degrees = self.to_degrees(corners)
        said = "; ".join(f"{latitude:g}, {longitude:g}" for longitude, latitude in degrees.tolist())
        if not np.isfinite(degrees).all() or (np.abs(degrees) > [[360, 90]]).any():
            raise DataError(
                f"its corners would lie at latitude and longitude {said}, which is not on the Earth; --corners takes latitude "
                "first, and --crs names the system of the coordinates"
            )
        a, b, _, d, e, _ = self.affine
        if a * e - b * d > 0:
            raise DataError(
                f"it would be mirrored, with corners at latitude and longitude {said}; --corners takes the top left corner first, "
                "then the bottom right one"
            )

    def metres_per_pixel(self, pixels: Points) -> Float[NDArray[np.float64], "... 2"]:
        """Ground size of a pixel along a row and along a column, in metres."""
        return np.linalg.norm(self.steps(pixels), axis=-1)

    def bearing(self, pixels: Points) -> Float[NDArray[np.float64], "..."]:
        """The compass direction of "up" in the raster, in degrees from north over east."""
        down = self.steps(pixels)[..., 1, :]
        return np.asarray(np.degrees(np.arctan2(-down[..., 0], -down[..., 1])) % 360)


def from_corners(width: int, height: int, corners: tuple[float, ...], crs: Crs) -> Georeference:
    """The georeference of a picture by latitude and longitude of its corners.

    Args:
        width: columns of the picture.
        height: rows of the picture.
        corners: of the top left and bottom right corner, or of all four, clockwise from the top left.
        crs: where the picture's rows and columns are straight and even.

    Raises:
        DataError: if there are other numbers of corners, or four are not those of a parallelogram.
    """
    if len(corners) not in (4, 8):
        raise DataError(
            f"--corners takes latitude and longitude of two corners (top left, bottom right) or of four, clockwise; got "
            f"{len(corners)} numbers"
        )
    places = crs.from_degrees(np.array(corners).reshape(-1, 2)[:, ::-1].astype(float))
    if len(places) == 2:
        (left, top), (right, bottom) = places
        across, down = (right - left) / width, (bottom - top) / height
        return Georeference((across, 0.0, left, 0.0, down, top), crs)
    pixels = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    design = np.column_stack([pixels, np.ones(4)])
    solved = np.linalg.lstsq(design, places, rcond=None)[0].T
    georeference = Georeference(tuple(map(float, solved.ravel())), crs)  # pyright: ignore[reportArgumentType]
    wrong = np.abs(georeference.to_pixels(crs.to_degrees(places)) - pixels).max()
    if wrong > 0.02 * max(width, height):
        raise DataError(
            f"the four --corners are not those of a picture seen from straight above: they are off by {wrong:,.0f} pixels; "
            "give them clockwise, from the top left"
        )
    return georeference
