"""A folder of vectors of a map's tiles, open for locating."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unmask.data import GroundMap
from unmask.data.ground_map import MapTiles
from unmask.data.labelled import with_channels
from unmask.data.statistics import read_as
from unmask.data.views import center_crop
from unmask.encoders.chunks import in_chunks
from unmask.errors import DataError, ResourceError, RunError
from unmask.files import read_json, write_text
from unmask.places.grid import Grid, grids_of
from unmask.runs.model import Model
from unmask.traits import Places
from unmask.vectors.encoder import encoder_of
from unmask.vectors.manifest import Encoding
from unmask.vectors.matrix import Searched, open_vectors
from unmask.vectors.parts import read_places

_LOOK = "_look.json"
_LOOKED_AT = 256  # tiles that the map's colours are measured on
_PIXELS_OF_TILE = 2000  # about so many, at most


@dataclass(frozen=True)
class OpenedPlaces:
    """See the module."""

    searched: Searched
    places: Places
    grids: list[Grid]
    """One for each ground size, the smallest first."""
    model: Model
    source: GroundMap
    """Where the map was."""
    matrix: Float[Tensor, "n k"]
    """A vector of length 1 of each tile."""
    encode: Callable[[Shaped[Tensor, "b c side side"]], Float[Tensor, "b k"]]
    """Vectors of squares, as those of the tiles are."""
    mean: Float[Tensor, " c"]
    """Of the map's channels."""
    deviation: Float[Tensor, " c"]

    @property
    def side(self) -> int:
        """Pixels of a square that the encoder sees in whole or in part."""
        return max(self.model.spec.image_size)

    def relit(self, image: Shaped[Tensor, "c h w"]) -> Shaped[Tensor, "c h w"]:
        """A picture with the mean and the deviation of the map's colours, since light, season and camera differ."""
        values = image.float()
        flat = values.flatten(1)
        known = flat[:, ~flat.isnan().any(0)]
        mean, deviation = known.mean(1), known.std(1).clamp(min=1e-6)
        scale = (self.deviation / deviation)[:, None, None]
        moved = (values - mean[:, None, None]) * scale + self.mean[:, None, None]
        return moved.round().clamp(0, 255).to(torch.uint8) if image.dtype == torch.uint8 else moved


def open_places(root: Path, encoder: str | None, device: str) -> OpenedPlaces:
    """Open a folder that `unmask embed` made of a map.

    Raises:
        RunError: if it holds vectors of other pictures, or its encoder is not found.
    """
    searched = open_vectors(root)
    source = searched.manifest.data
    places = read_places(searched.folder.facts(searched.manifest))
    if places is None or not isinstance(source, GroundMap):
        raise RunError(
            f"{root} holds vectors of pictures, not of a map; make them with `unmask embed ENCODER MAP --out PLACES`, where MAP is "
            "a GeoTIFF, a picture with a world file or --corners, or web tiles"
        )
    model = encoder_of(root, searched.manifest, encoder, device)
    encode = partial(encoded, model, searched.manifest.encoding, searched.ready)
    statistics = model.spec.statistics
    scale = 255.0 if statistics.values == "uint8" else 1.0
    return OpenedPlaces(
        searched,
        places,
        grids_of(places),
        model,
        source,
        searched.matrix,
        encode,
        torch.tensor(statistics.mean) * scale,
        torch.tensor(statistics.std) * scale,
    )


def encoded(
    model: Model,
    encoding: Encoding,
    ready: Callable[[Tensor], Tensor],
    images: Shaped[Tensor, "b c side side"],
) -> Float[Tensor, "b k"]:
    """Vectors of squares by an encoder, whitened and of length 1, as `unmask embed` makes those of tiles."""

    def forward(batch: Tensor) -> tuple[Tensor, ...]:
        tokens = model.encoder.encode(batch)
        return ((tokens.cls if encoding.pooling == "class" else tokens.patches).mean(1),)

    size = model.spec.image_size
    batch = model.checked(torch.stack([center_crop(image, size) for image in images]))
    (vectors,) = in_chunks(forward, batch, list(range(len(batch))), encoding.chunk, model.device)
    vectors = vectors.cpu()
    return ready(vectors.half().float() if encoding.stored == "float16" else vectors)


def map_of(opened: OpenedPlaces) -> MapTiles | str:
    """The map, cut as it was embedded, or why it cannot be read now.

    Raises:
        RunError: if it has changed since.
    """
    try:
        source = opened.source.open()
    except (DataError, ResourceError) as error:
        return str(error)
    if source.fingerprint != opened.searched.manifest.map_fingerprint:
        raise RunError(
            f"the map {opened.source.path} has changed since {opened.searched.folder.root} was made; embed it again, into "
            "another folder"
        )
    spec = opened.model.spec
    tiles = with_channels(
        read_as(source, spec.statistics), spec.channels, "the encoder was trained on"
    )
    assert isinstance(tiles, MapTiles)
    return tiles


def with_look(opened: OpenedPlaces, tiles: MapTiles) -> OpenedPlaces:
    """The same places with the colours of the map, measured once; until then those that the encoder was trained on."""
    path = opened.searched.folder.root / _LOOK
    wanted = opened.searched.manifest.map_fingerprint
    with contextlib.suppress(OSError, DataError, KeyError, TypeError):
        known = read_json(path)
        if known["map"] == wanted:
            mean, deviation = torch.tensor(known["mean"]), torch.tensor(known["deviation"])
            return replace(opened, mean=mean, deviation=deviation)
    chosen = np.unique(np.linspace(0, len(tiles) - 1, min(len(tiles), _LOOKED_AT)).astype(int))
    parts: list[Tensor] = []
    for row in chosen.tolist():
        with contextlib.suppress(DataError):  # a tile of one colour, which has no vector either
            values = tiles[row].image.flatten(1)
            parts.append(values[:, :: max(7, values.shape[1] // _PIXELS_OF_TILE)].clone())
    if not parts:
        raise RunError(
            f"none of the tiles of {opened.source.path} that were looked at shows anything"
        )
    pixels = torch.cat(parts, 1).double()
    mean, deviation = pixels.mean(1).float(), pixels.std(1).float()
    with contextlib.suppress(OSError):  # a folder that this user may only read
        content = {"map": wanted, "mean": mean.tolist(), "deviation": deviation.tolist()}
        write_text(path, json.dumps(content) + "\n")
    return replace(opened, mean=mean, deviation=deviation)
