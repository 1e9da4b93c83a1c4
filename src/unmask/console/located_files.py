"""The files that `unmask predict` writes for segmentation and detection."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from unmask.annotations import AnyAnnotations, ClassMaps
from unmask.console.file_names import FreeNames
from unmask.console.geojson import boxes_as_features
from unmask.console.output import notes, writing
from unmask.data.geotiff import GeoTags, geo_tags, write_map
from unmask.errors import ResourceError
from unmask.files import write_text
from unmask.pictures.colors import class_colors
from unmask.pictures.sheet import to_rgb
from unmask.runs.examples import painted
from unmask.runs.predict import Predictor
from unmask.tasks.detections import Detections
from unmask.tasks.run_lengths import run_lengths

MARK = "predictions.json"
"""The file by which a folder of predictions is known."""

_LARGEST = 1600  # pixels of a drawn picture's longer side
_BYTE = 255  # classes that a byte can count, besides one number for none


class Pictured(NamedTuple):
    """A picture to look at."""

    name: str
    pixels: Tensor
    known: Any
    """Its annotation, if it is of the run's kind and classes; else None."""
    file: Path | None = None
    """The file that it comes from; None if it has none of its own."""


class LocatedFiles:
    """The files of predictions: pictures, and maps or detections."""

    def __init__(self, out: Path, kind: AnyAnnotations) -> None:
        self.out, self.kind = out, kind
        self._names = FreeNames()
        self._is_noted = False
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        with writing(out):
            (out / "pictures").mkdir(parents=True, exist_ok=True)
            if isinstance(kind, ClassMaps):
                (out / "maps").mkdir(exist_ok=True)
            write_text(out / MARK, "{}")

    def write(self, one: Pictured, found: Any, predictor: Predictor) -> None:
        """The files of a picture."""
        flat = self._names.of(one.name)
        picture = predictor.tuned.statistics.stretched(one.pixels)
        with writing(self.out):
            to_rgb(painted(picture, found, self.kind, _LARGEST)).save(
                self.out / "pictures" / f"{flat}.png"
            )
            if isinstance(self.kind, ClassMaps):
                _write_map(
                    one, found, len(self.kind.names), self.out / "maps" / flat, self._geo(one)
                )
                return
            self._write_features(flat, found, self._geo(one))
        number = len(self._images) + 1
        height, width = one.pixels.shape[-2:]
        self._images.append({"id": number, "file_name": one.name, "width": width, "height": height})
        self._annotations += _annotations(found, number, len(self._annotations) + 1)

    def _geo(self, one: Pictured) -> GeoTags | None:
        """Where a picture lies on the Earth; None if it does not say so, or cannot be asked."""
        try:
            return None if one.file is None else geo_tags(one.file)
        except ResourceError as error:
            if not self._is_noted:
                notes.note(f"coordinates of GeoTIFFs are not written: {error}")
            self._is_noted = True
            return None

    def _write_features(self, flat: str, found: Detections, geo: GeoTags | None) -> None:
        """The boxes in map coordinates, if the picture has them."""
        features = None if geo is None else boxes_as_features(found, self.kind.names, geo)
        if features is not None:
            (self.out / "boxes").mkdir(exist_ok=True)
            write_text(self.out / "boxes" / f"{flat}.geojson", json.dumps(features))

    def finish(self) -> None:
        """The file of all detections, or of the classes of maps."""
        names = self.kind.names
        content: dict[str, Any] = {"classes": list(names)}
        if not isinstance(self.kind, ClassMaps):
            categories = [
                {"id": number, "name": name} for number, name in enumerate(names, start=1)
            ]
            content = {
                "images": self._images,
                "annotations": self._annotations,
                "categories": categories,
            }
        with writing(self.out):
            write_text(self.out / MARK, json.dumps(content))


def _write_map(one: Pictured, classes: Tensor, count: int, path: Path, geo: GeoTags | None) -> None:
    """The number of each pixel's class, with a palette: a GeoTIFF if the picture was one, else a PNG.

    Pixels without any value have no class; their number is 255. With more than 255 classes numbers have 16 bits, and no
    palette, and that number is 65535.
    """
    kind = np.uint8 if count <= _BYTE else np.uint16
    no_data = int(np.iinfo(kind).max)
    values = classes.numpy().astype(kind)
    if one.pixels.is_floating_point():
        values[one.pixels.isnan().all(0).numpy()] = no_data
    colors = class_colors(count)
    if geo is not None:
        write_map(path.with_name(f"{path.name}.tif"), values, geo, no_data, colors)
        return
    image = Image.fromarray(values)
    if kind == np.uint8:
        levels = [level for color in colors for level in color]
        image.putpalette(levels + [0] * (3 * 256 - len(levels)))  # with fewer, 255 would lose bits
    image.save(path.with_name(f"{path.name}.png"))


def _annotations(found: Detections, image: int, first: int) -> list[dict[str, Any]]:
    """Detections as COCO's annotations, each with its score."""
    rows: list[dict[str, Any]] = []
    masks = None if found.masks is None else run_lengths(found.masks)
    for row, (box, score, number) in enumerate(
        zip(found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True)
    ):
        left, top, right, bottom = (round(side, 2) for side in box)
        entry: dict[str, Any] = {
            "id": first + row,
            "image_id": image,
            "category_id": number + 1,
            "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
            "area": round((right - left) * (bottom - top), 2),
            "iscrowd": 0,
            "score": round(score, 4),
        }
        if masks is not None:
            entry |= {"area": sum(masks[row]["counts"][1::2]), "segmentation": masks[row]}
        rows.append(entry)
    return rows
