"""The tab of a folder of vectors: the pictures that are most like another one."""

import json
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from unmask.contracts import Size
from unmask.data import AnySource
from unmask.data.views import center_crop
from unmask.errors import number_of
from unmask.evaluation.vectors import Fitted
from unmask.formats.onnx_graphs import Graph
from unmask.page.samples import Reader
from unmask.page.shown import Shown, about_of
from unmask.pictures.sheet import to_rgb
from unmask.progress import counted
from unmask.runs.model import Model
from unmask.vectors.manifest import Manifest
from unmask.vectors.matrix import Searched
from unmask.vectors.sheets import Shelf

MOST = 5000
"""Pictures that a page holds: more would take a browser long to fetch."""

_LARGEST = 64  # pixels of a side of a thumbnail
_COLUMNS, _ROWS = 20, 25  # thumbnails on a sheet
_QUALITY = 80
_GREY = 128  # in place of a picture that is not there


class Neighbours(NamedTuple):
    """A folder of vectors for a page."""

    shown: Shown
    note: str | None
    """What a user should know of its pictures."""


class Searching(nn.Module):
    """The vector of a picture as it is searched with: pooled, whitened, and of length 1."""

    outputs = ("vector",)
    mean: Tensor
    directions: Tensor | None

    def __init__(self, encoder: Any, manifest: Manifest, fitted: Fitted) -> None:
        super().__init__()
        self.encoder, self.rule = encoder, manifest.encoding
        self.register_buffer("mean", fitted.mean)
        self.register_buffer("directions", fitted.directions)

    def forward(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """The vectors of whole images; see `Searched.ready`."""
        encoded = self.encoder.encode(images)
        tokens = encoded.cls if self.rule.pooling == "class" else encoded.patches
        vectors = tokens.mean(1)
        if self.rule.stored == "float16":
            vectors = vectors.half().float()  # as those in the parts
        vectors = vectors - self.mean
        if self.directions is not None:
            vectors = vectors @ self.directions
        return nn.functional.normalize(vectors, dim=1)


def neighbours(name: str, searched: Searched, model: Model) -> Neighbours:
    """A folder of vectors and its encoder; of more pictures than `MOST`, evenly spaced ones."""
    manifest = searched.manifest
    encoding, size = manifest.encoding, manifest.encoding.image_size
    whole = len(searched.columns)
    rows = np.unique(np.linspace(0, whole - 1, min(whole, MOST)).astype(int))
    graph = Graph(
        "neighbours",
        Searching(model.encoder, manifest, searched.fitted).eval(),
        Searching.outputs,
        size,
        encoding.encoder.patch_size,
        encoding.statistics,
        {
            "origin": model.spec.origin,
            "weights_hash": encoding.weights,
            "pooling": encoding.pooling,
        },
        any_size=False,
    )
    reader = Reader(
        name,
        encoding.statistics,
        encoding.bands,
        lambda pixels: center_crop(pixels, size),
        manifest.data,
    )
    files, missing = _files(searched, rows, manifest.data)
    count = (
        f"{len(rows):,} of {number_of(whole, 'picture')}"
        if whole > MOST
        else number_of(whole, "picture")
    )
    about = about_of(model.spec.origin, graph, count)
    shown = Shown("neighbours", name, about, graph, reader, {"view": {"outer": list(size)}}, files)
    notes: list[str] = []
    if whole > MOST:
        notes.append(
            f"{name} has {whole:,} pictures, and a page holds {MOST:,} of them, evenly spaced"
        )
    if missing:
        notes.append(
            f"{number_of(missing, 'picture')} of {name} cannot be read where `unmask embed` found them, so the page shows grey in "
            "their place"
        )
    return Neighbours(shown, "; ".join(notes) or None)


def _files(
    searched: Searched, rows: NDArray[np.int64], data: AnySource
) -> tuple[dict[str, bytes], int]:
    """Vectors, names and thumbnails of some pictures, and how many of these cannot be read."""
    encoding = searched.manifest.encoding
    shrink = min(1.0, _LARGEST / max(encoding.image_size))
    tile = Size(*(max(1, round(side * shrink)) for side in encoding.image_size))
    shelf = Shelf(data, encoding.statistics, tile)
    columns = {
        name: searched.columns[name].take(rows).to_pylist() for name in ("name", "split", "label")
    }
    sheets: list[Image.Image] = []
    missing = 0
    each = zip(columns["split"], columns["name"], strict=True)
    for number, (split, name) in enumerate(counted(each, len(rows), "reading thumbnails")):
        place = number % (_COLUMNS * _ROWS)
        if place == 0:
            left = min(_COLUMNS * _ROWS, len(rows) - number)
            height = tile.height * -(-left // _COLUMNS)
            sheets.append(Image.new("RGB", (_COLUMNS * tile.width, height), (_GREY,) * 3))
        picture = shelf.picture(split, name)
        if picture is None:
            missing += 1
            continue
        corner = (place % _COLUMNS * tile.width, place // _COLUMNS * tile.height)
        sheets[-1].paste(to_rgb(picture), corner)
    matrix = searched.matrix[torch.from_numpy(rows)].numpy().astype("<f4")
    about = {
        **columns,
        "width": matrix.shape[1],
        "tile": list(tile),
        "columns": _COLUMNS,
        "rows": _ROWS,
        "sheets": len(sheets),
    }
    return {
        "vectors.bin": matrix.tobytes(),
        "pictures.json": json.dumps(about).encode(),
        **{f"thumbnails-{number}.jpg": _jpeg(sheet) for number, sheet in enumerate(sheets)},
    }, missing


def _jpeg(sheet: Image.Image) -> bytes:
    content = BytesIO()
    sheet.save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()
