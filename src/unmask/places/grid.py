"""Tiles of one ground size as a grid: rows and columns of the map, and how far they lead on the ground."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from unmask.geo.distance import local_metres, metres_per_degree
from unmask.traits import Places


@dataclass(frozen=True)
class Grid:
    """See the module."""

    metres: float
    """Side of a tile."""
    rows: Int[NDArray[np.int64], "r c"]
    """The row of each tile's vector; -1 where there is no tile."""
    origin: Float[NDArray[np.float64], "2"]
    """Longitude and latitude that metres are counted from."""
    middle: Float[NDArray[np.float64], "2"]
    """East and north of row 0 and column 0, in metres from the origin."""
    leads: Float[NDArray[np.float64], "2 2"]
    """East and north of a step to the next column, and to the next row, in metres."""
    known: Float[NDArray[np.float64], "r c 2"]
    """Longitude and latitude of the middle of each tile; NaN where there is no tile."""

    @property
    def steps(self) -> tuple[float, float]:
        """Metres from a column to the next, and from a row to the next."""
        across, down = np.linalg.norm(self.leads, axis=1).tolist()
        return across, down

    @property
    def bearing(self) -> float:
        """The compass direction of "up" in the map, in degrees."""
        east, north = self.leads[1]
        return float(np.degrees(np.arctan2(-east, -north)) % 360)

    def degrees(self, row: float, column: float) -> tuple[float, float]:
        """Longitude and latitude of a place in the grid, from -180 to 180 and from -90 to 90.

        From the tile that it lies in; where there is none, from the whole grid, which is less exact for large maps.
        """
        height, width = self.rows.shape
        cell = min(max(round(row), 0), height - 1), min(max(round(column), 0), width - 1)
        start, metres = self.known[cell], np.array([column - cell[1], row - cell[0]]) @ self.leads
        if np.isnan(start).any():
            start, metres = self.origin, self.middle + np.array([column, row]) @ self.leads
        latitude = start[1] + metres[1] / metres_per_degree(start[1:])[0, 1]
        east = metres_per_degree((start[1:] + latitude) / 2)[0, 0]
        return float((start[0] + metres[0] / east + 180) % 360 - 180), float(latitude)


def grids_of(places: Places) -> list[Grid]:
    """The grids of a map's tiles, by ground size, the smallest first."""
    return [_grid(places, metres) for metres in sorted(set(places.metres.tolist()))]


def _grid(places: Places, metres: float) -> Grid:
    numbers = np.flatnonzero(places.metres == metres)
    cells, degrees = places.cells[numbers], places.degrees[numbers]
    rows = np.full(tuple(cells.max(0) + 1), -1)
    rows[tuple(cells.T)] = numbers
    known = np.full((*rows.shape, 2), np.nan)
    known[tuple(cells.T)] = degrees
    origin = degrees[
        0
    ]  # not their mean, which is on the other side of the Earth for a map across 180 degrees
    metric = local_metres(degrees, origin)
    across, down, middle = _leads(cells, metric, metres)
    return Grid(metres, rows, origin, middle, np.stack([across, down]), known)


def _leads(
    cells: Int[NDArray[np.int64], "n 2"], metric: Float[NDArray[np.float64], "n 2"], metres: float
) -> tuple[Float[NDArray[np.float64], "2"], ...]:
    """Where a step to the next column and row leads, and the middle of row 0 and column 0.

    Cells in one line, be it a row, a column or a diagonal, do not say both: then steps are squares, and a single cell's lead east.
    """
    if np.linalg.matrix_rank(cells - cells[0]) == 2:
        design = np.column_stack([cells[:, ::-1], np.ones(len(cells))])
        across, down, middle = np.linalg.lstsq(design, metric, rcond=None)[0]
        return across, down, middle
    apart = cells[-1] - cells[0]  # cells are in order
    if not apart.any():
        lead = np.array([metres, 0.0])
    else:
        # across = (p, q) and down = (q, -p): row (q, -p) + column (p, q) = (east, north)
        row, column = apart.tolist()
        lead = np.linalg.solve([[column, row], [-row, column]], metric[-1] - metric[0])
    down = np.array([lead[1], -lead[0]])
    row, column = cells[0].tolist()
    return lead, down, metric[0] - column * lead - row * down
