"""One known scene, drawn as a map in several reference systems and kinds of files: colours are functions of the ground."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import tifffile
from numpy.typing import NDArray
from PIL import Image

from unmask.geo.distance import metres_per_degree
from unmask.geo.web_tiles import georeference_of

LONGITUDE, LATITUDE = 120.7203, 24.2602
"""The middle of the scene."""

UTM = 32651
METRES = 240
"""A side of the scene."""

MARK = (LONGITUDE + 0.00031, LATITUDE - 0.00027)
"""Longitude and latitude of a white disc."""

_MARK_METRES = 6.0
_UTM = pyproj.Transformer.from_crs(4326, UTM, always_xy=True)


def colours(longitude: NDArray[Any], latitude: NDArray[Any]) -> NDArray[np.uint8]:
    """The colours of places: waves of several lengths, so that no two parts look alike, and a white disc; [... 3]."""
    x, y = _UTM.transform(longitude, latitude)
    x0, y0 = _UTM.transform(LONGITUDE, LATITUDE)
    east, north = np.asarray(x) - x0, np.asarray(y) - y0
    random = np.random.default_rng(5)
    channels = []
    for _ in range(3):
        waves = sum(
            np.sin(2 * np.pi * (east * np.cos(a) + north * np.sin(a)) / length + phase)
            for length, a, phase in zip(
                random.uniform(30, 120, 12),
                random.uniform(0, 2 * np.pi, 12),
                random.uniform(0, 6, 12),
                strict=True,
            )
        )
        channels.append(110 + 22 * waves)
    pixels = np.clip(np.stack(channels, -1), 0, 215)
    mark_x, mark_y = _UTM.transform(*MARK)
    disc = np.hypot(np.asarray(x) - mark_x, np.asarray(y) - mark_y) < _MARK_METRES
    return np.where(disc[..., None], 255, pixels).astype(np.uint8)


def drawn(crs: int, step: float, turn: float = 0.0) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """The scene in a system, and its affine map [2 3]; `turn` rotates the rows, in degrees."""
    to_system = pyproj.Transformer.from_crs(UTM, crs, always_xy=True)
    to_degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    x0, y0 = _UTM.transform(LONGITUDE, LATITUDE)
    half = METRES / 2
    x, y = to_system.transform(
        [x0 - half, x0 + half, x0 - half, x0 + half], [y0 - half, y0 - half, y0 + half, y0 + half]
    )
    columns, rows = int((max(x) - min(x)) / step), int((max(y) - min(y)) / step)
    a = np.radians(turn)
    linear = step * np.array([[np.cos(a), np.sin(a)], [np.sin(a), -np.cos(a)]])
    middle = np.array([np.mean(x), np.mean(y)])
    offset = middle - linear @ np.array([columns / 2, rows / 2])
    v, u = np.mgrid[:rows, :columns] + 0.5
    places = np.stack([u, v], -1) @ linear.T + offset
    pixels = colours(*to_degrees.transform(places[..., 0], places[..., 1]))
    return pixels, np.column_stack([linear, offset])


def write_geotiff(
    path: Path, crs: int, step: float, turn: float = 0.0, **options: Any
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """The scene as a GeoTIFF, by scale and tie point, or by a transformation if it is turned."""
    pixels, affine = drawn(crs, step, turn)
    key = 2048 if crs == 4326 else 3072
    keys = (1, 1, 0, 3, 1024, 0, 1, 2 if crs == 4326 else 1, 1025, 0, 1, 1, key, 0, 1, crs)
    if turn:
        matrix = np.eye(4)
        matrix[:2, [0, 1, 3]] = affine
        tags: list[Any] = [(34264, 12, 16, tuple(matrix.ravel()), True)]
    else:
        tags = [
            (33550, 12, 3, (affine[0, 0], -affine[1, 1], 0.0), True),
            (33922, 12, 6, (0.0, 0.0, 0.0, affine[0, 2], affine[1, 2], 0.0), True),
        ]
    tags.append((34735, 3, len(keys), keys, True))
    tifffile.imwrite(path, pixels, photometric="rgb", extratags=tags, metadata=None, **options)
    return pixels, affine


def with_world_file(path: Path, step: float = 0.000005) -> Path:
    """The scene as a picture with a world file in degrees."""
    pixels, affine = drawn(4326, step)
    Image.fromarray(pixels).save(path)
    (a, b, c), (d, e, f) = affine.tolist()
    numbers = (a, d, b, e, c + (a + b) / 2, f + (d + e) / 2)
    ending = path.suffix[1] + path.suffix[-1] + "w"
    path.with_suffix(f".{ending}").write_text("".join(f"{number:.12f}\n" for number in numbers))
    return path


def web_tiles(zoom: int) -> dict[tuple[int, int], Image.Image]:
    """The scene as web tiles of 256 pixels."""
    corners = [(LONGITUDE - 0.0012, LATITUDE + 0.0011), (LONGITUDE + 0.0012, LATITUDE - 0.0011)]
    inverse = georeference_of(zoom, 0, 0, 256).to_pixels
    (left, top), (right, bottom) = (inverse(np.array(corner)) // 256 for corner in corners)
    tiles: dict[tuple[int, int], Image.Image] = {}
    for tile_x in range(int(left), int(right) + 1):
        for tile_y in range(int(top), int(bottom) + 1):
            v, u = np.mgrid[:256, :256] + 0.5
            geo = georeference_of(zoom, tile_x, tile_y, 256)
            degrees = geo.to_degrees(np.stack([u, v], -1))
            tiles[tile_x, tile_y] = Image.fromarray(colours(degrees[..., 0], degrees[..., 1]))
    return tiles


def write_tiles(root: Path, zoom: int, number: Callable[[int], int] = lambda y: y) -> Path:
    """The scene as a folder of web tiles; `number` gives the name of a row."""
    for (x, y), picture in web_tiles(zoom).items():
        file = root / str(zoom) / str(x) / f"{number(y)}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)
    return root


def mark_in(pixels: NDArray[Any]) -> NDArray[Any]:
    """Column and row of the middle of the white disc in pixels [3 h w]."""
    rows, columns = np.nonzero((pixels > 240).all(0))
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def write_centres(root: Path, metres: float = 60.0, pixels: int = 120, turn: float = 0.0) -> Path:
    """The scene as pictures that overlap, with a CSV of their middles; each is turned by a little more than the one before."""
    root.mkdir()
    lines = ["file_name,latitude,longitude,ground_size,heading"]
    x0, y0 = _UTM.transform(LONGITUDE, LATITUDE)
    places = np.arange(-METRES / 2 + metres / 2, METRES / 2, metres * 0.6)
    for number, (east, north) in enumerate((e, n) for e in places for n in places):
        longitude, latitude = _UTM.transform(x0 + east, y0 + north, direction="INVERSE")
        a = np.radians(turn * number)
        v, u = ((np.mgrid[:pixels, :pixels] + 0.5) / pixels - 0.5) * metres
        right, up = u * np.cos(a) - v * np.sin(a), -v * np.cos(a) - u * np.sin(a)
        # metres east and north of the middle, on the ellipsoid
        per_degree = metres_per_degree(np.array(latitude))
        ground = colours(longitude + right / per_degree[0], latitude + up / per_degree[1])
        Image.fromarray(ground).save(root / f"{number:03}.png")
        lines.append(f"{number:03}.png,{latitude:.9f},{longitude:.9f},{metres},{turn * number}")
    (root / "centres.csv").write_text("\n".join(lines) + "\n")
    return root
