"""What answers are measured against: an encoder that learned nothing, and raw pixels, located in the same way; and chance."""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Size
from unmask.data.ground_map import MapTiles
from unmask.data.views import center_crop
from unmask.errors import RunError
from unmask.places.opened import OpenedPlaces, encoded
from unmask.progress import counted
from unmask.traits import Places
from unmask.vectors.matrix import rule_of, unit

RAW_SIDE = 8
"""Pixels of a side, in grey: about the area that a patch has in an encoder's grid."""

_AT_ONCE = 64


def untrained(opened: OpenedPlaces, tiles: MapTiles) -> OpenedPlaces:
    """The same encoder with random weights, its vectors whitened in the same way."""
    model = copy(opened.model)
    seed = model.run.seed if model.run else 0
    model.encoder = model.spec.build_encoder(seed).to(model.device).eval()
    manifest = opened.searched.manifest
    plain = partial(encoded, model, manifest.encoding, lambda vectors: vectors)
    vectors = torch.cat([plain(part) for part in _squares(opened, tiles, "untrained encoder")])
    fitted = rule_of(manifest, len(vectors)).fit(vectors)
    encode = partial(encoded, model, manifest.encoding, partial(unit, fitted))
    return replace(opened, matrix=unit(fitted, vectors), encode=encode)


def raw(opened: OpenedPlaces, tiles: MapTiles) -> OpenedPlaces:
    """Grey tiles of 8 x 8 pixels, with mean 0 and length 1, so that scores are correlations."""
    parts = [raw_vectors(part) for part in _squares(opened, tiles, "raw pixels")]
    return replace(opened, matrix=torch.cat(parts), encode=raw_vectors)


def raw_vectors(images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
    """Vectors of raw pixels of squares."""
    grey = images.float().mean(1, keepdim=True)
    small = F.adaptive_avg_pool2d(grey, RAW_SIDE).flatten(1)
    return F.normalize(small - small.mean(1, keepdim=True), dim=1)


def _squares(
    opened: OpenedPlaces, tiles: MapTiles, words: str
) -> Iterator[Shaped[Tensor, "b c h w"]]:
    """The tiles that have a vector, in the order of the vectors, as the encoder sees them."""
    chosen, size = _positions(opened, tiles), Size(opened.side, opened.side)
    starts = range(0, len(chosen), _AT_ONCE)
    for start in counted(starts, len(chosen), f"embedding ({words})", lambda _: _AT_ONCE):
        rows = chosen[start : start + _AT_ONCE]
        yield torch.stack([center_crop(tiles[row].image, size) for row in rows])


def _positions(opened: OpenedPlaces, tiles: MapTiles) -> list[int]:
    """Where the tile of each vector is among the tiles of the map.

    Raises:
        RunError: if the map is no longer cut into all of them.
    """

    def keys(places: Places) -> Iterator[tuple[float, int, int]]:
        for metres, (row, column) in zip(
            places.metres.tolist(), places.cells.tolist(), strict=True
        ):
            yield metres, row, column

    there = {key: position for position, key in enumerate(keys(tiles.places()))}
    try:
        return [there[key] for key in keys(opened.places)]
    except KeyError as error:
        raise RunError(
            f"{opened.searched.folder.root} holds a tile of {error.args[0][0]:g} m that the map is no longer cut into; embed the map "
            "again, into another folder"
        ) from None
