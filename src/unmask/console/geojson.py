"""Detections in a GeoTIFF as GeoJSON (RFC 7946): boxes in map coordinates, for QGIS and other programs for maps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unmask.data.geotiff import GeoTags
from unmask.tasks.detections import Detections

_LONGITUDES = 4326  # WGS 84 in degrees, which GeoJSON means if nothing is said


def feature_collection(
    found: Detections, names: Sequence[str], geo: GeoTags
) -> dict[str, Any] | None:
    """A polygon for each box; None if the file does not say by numbers where its pixels lie.

    Other coordinates than degrees are named by `crs`, which RFC 7946 has dropped and GDAL and QGIS write and read.
    """
    affine, epsg = geo.transform, geo.epsg
    if affine is None or epsg is None:
        return None
    features: list[dict[str, Any]] = []
    for (left, top, right, bottom), score, number in zip(
        found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True
    ):
        ring = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
        corners = [(affine @ np.array([x, y, 1.0])).tolist() for x, y in ring]
        features.append(
            {
                "type": "Feature",
                "properties": {"class": names[number], "score": round(score, 4)},
                "geometry": {"type": "Polygon", "coordinates": [corners]},
            }
        )
    named = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{epsg}"}}
    crs = {} if epsg == _LONGITUDES else {"crs": named}
    return {"type": "FeatureCollection", **crs, "features": features}
