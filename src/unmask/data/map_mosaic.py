"""Maps of many pictures: web tiles of equal size side by side."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray

from unmask.contracts import Size
from unmask.data.map_facts import kept_cells
from unmask.data.map_rasters import Pixels, Recent, Window, decoded, no_cells, overlap
from unmask.data.web_tile_files import TileFile
from unmask.errors import DataError, first_line


class MosaicRaster:
    """Pictures of equal size side by side, such as tiles of a web map; missing ones and transparent pixels are holes."""

    def __init__(self, tiles: dict[tuple[int, int], TileFile], side: int, digest: str) -> None:
        """`tiles` holds the file of each place (row, column), counted from the first."""
        self._tiles, self._side, self._digest = tiles, side, digest
        rows, columns = (max(key[axis] for key in tiles) + 1 for axis in (0, 1))
        self.size, self.channels = Size(rows * side, columns * side), 3
        self.dtype = np.dtype(np.uint8)
        whole = len(tiles) == rows * columns
        self.has_holes = not whole or not all(tile.opaque for tile in tiles.values())
        self._recent: Recent = Recent()

    def read(self, window: Window) -> Pixels:
        """See `Raster`."""
        side = self._side
        values = np.zeros((self.channels, window.height, window.width), np.uint8)
        holes = np.ones((window.height, window.width), bool)
        broken = ""
        for row in range(window.top // side, -(-(window.top + window.height) // side)):
            for column in range(window.left // side, -(-(window.left + window.width) // side)):
                key = (row, column)
                if key not in self._tiles:
                    continue
                inside, part = overlap(window, row * side, column * side, side, side)
                try:
                    tile = self._recent.get(key, lambda key=key: self._decoded(key))
                except DataError as error:
                    broken = broken or str(error)
                    continue
                assert tile is not None
                values[:, *inside] = tile[: self.channels, *part]
                holes[inside] = tile[-1, *part] == 0
        return Pixels(values, holes, broken)

    def hole_cells(self, cell: int) -> Bool[NDArray[np.bool_], "rows columns"]:
        """See `Raster`; only tiles that may be transparent are decoded, once until the files change."""
        key = [self._digest, self._side, cell]
        return kept_cells(key, self.size, cell, lambda: self._hole_cells(cell))

    def _hole_cells(self, cell: int) -> Bool[NDArray[np.bool_], "rows columns"]:
        bad, side = no_cells(self.size, cell), self._side
        rows, columns = self.size.height // side, self.size.width // side
        for row in range(rows):
            for column in range(columns):
                tile = self._tiles.get((row, column))
                if tile is not None and tile.opaque:
                    continue
                top, left = row * side, column * side
                if tile is None:
                    bottom, right = -(-(top + side) // cell), -(-(left + side) // cell)
                    bad[top // cell : bottom, left // cell : right] = True
                    continue
                pixels = self.read(Window(left, top, side, side))
                if not pixels.broken:
                    y, x = np.nonzero(pixels.holes)
                    bad[(y + top) // cell, (x + left) // cell] = True
        return bad

    def fingerprint(self) -> str:
        """See `Raster`."""
        return self._digest

    def _decoded(self, key: tuple[int, int]) -> Shaped[NDArray[Any], "c h w"]:
        """A tile, with alpha as its last channel; raises DataError with its name."""
        tile, side = self._tiles[key], self._side
        try:
            pixels, transparent = decoded(tile.read())
        except (OSError, DataError) as error:
            raise DataError(
                f"the web tile {tile.name} cannot be read ({first_line(error)})"
            ) from None
        if pixels.shape[1:] != (side, side):
            raise DataError(
                f"the web tile {tile.name} has {pixels.shape[2]} x {pixels.shape[1]} pixels, and the others {side} a side; keep one size"
            )
        shown = np.broadcast_to(pixels[: self.channels], (self.channels, side, side))
        return np.concatenate([shown, 255 * ~transparent[None]]).astype(np.uint8)
