"""The pieces that fixes are calibrated on show no holes of the map."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from geo import scenes
from numpy.typing import NDArray

from unmask.contracts import Size
from unmask.data import GroundMap
from unmask.data.ground_map import MapTiles
from unmask.places.calibration import drawn
from unmask.places.grid import grids_of
from unmask.places.locating import Beliefs

NO_DATA = {"float32": -9999.0, "uint8": 0.0}
RANDOM = np.random.default_rng(0)


def map_with(holes: NDArray[Any], dtype: str, root: Path) -> MapTiles:
    """A map of values from 100 to 150, in pixels of 0.5 m."""
    values = RANDOM.integers(100, 150, (*holes.shape, 3)).astype(dtype)
    values[holes] = NO_DATA[dtype]
    tags: list[Any] = [
        (33550, 12, 3, (0.5, 0.5, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 250_000.0, 2_680_000.0, 0.0), True),
        (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, scenes.UTM), True),
    ]
    path = root / "map.tif"
    tifffile.imwrite(path, values, photometric="rgb", extratags=tags, metadata=None)
    return GroundMap(path=str(path), tile_metres=(16.0,), no_data=NO_DATA[dtype]).open()


def a_corner() -> NDArray[Any]:
    rows, columns = np.indices((300, 360))
    return rows + columns < 250


def dots() -> NDArray[Any]:
    """So near to one another that every piece shows some, while some tiles lie between them."""
    holes = np.zeros((300, 360), bool)
    holes[::50, ::50] = True
    return holes


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("holes", [a_corner, dots])
def test_pieces_show_no_holes(holes: Any, dtype: str, tmp_path: Path) -> None:
    tiles = map_with(holes(), dtype, tmp_path)
    (grid,) = grids_of(tiles.places())
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        image = drawn(tiles, grid, Size(60, 60), Beliefs(30.0), random).image
        assert image.dtype == getattr(torch, dtype)
        values = image.float()
        # the darkest light of bytes: -0.1 of 255, 0.8 times, gamma 1.4, 0.9 times, and noise
        assert values.min() >= (70 if dtype == "float32" else 1)
        assert 1 < values.std() < 30
        if holes is a_corner and dtype == "float32":  # drawn elsewhere, not filled
            blocks = values.unfold(1, 6, 6).unfold(2, 6, 6).flatten(3)
            assert blocks.std(-1).min() > 2.5


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_holes_are_nan_in_windows_and_in_the_overview(dtype: str, tmp_path: Path) -> None:
    holes = a_corner()
    tiles = map_with(holes, dtype, tmp_path)
    overview = tiles.overview(120)
    assert overview.shape == (3, 100, 120)
    assert np.array_equal(overview.isnan().numpy(), np.broadcast_to(holes[::3, ::3], (3, 100, 120)))
    assert overview.nan_to_num(100).min() == 100
