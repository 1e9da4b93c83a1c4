"""GeoJSON (RFC 7946) for QGIS and other programs for maps: detections in a GeoTIFF as boxes, and places as points."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unmask.data.geotiff import GeoTags
from unmask.tasks.detections import Detections

_LONGITUDES = 4326  # WGS 84 in degrees, which GeoJSON means if nothing is said


def boxes_as_features(
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
        facts = {"class": names[number], "score": round(score, 4)}
        features.append(_feature("Polygon", [corners], facts))
    return _collection(features, epsg)


def places_as_features(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """All places of located pictures as points, with their rank, score and verdict."""
    features = [
        _feature(
            "Point",
            [place["longitude"], place["latitude"]],
            {
                "image": answer["image"],
                "rank": rank,
                "score": place["score"],
                "margin": answer["margin"],
                "fix": answer["fix"],
            },
        )
        for answer in answers
        for rank, place in enumerate(answer["places"], 1)
    ]
    return _collection(features, _LONGITUDES)


def _feature(shape: str, coordinates: list[Any], facts: dict[str, Any]) -> dict[str, Any]:
    geometry = {"type": shape, "coordinates": coordinates}
    return {"type": "Feature", "properties": facts, "geometry": geometry}


def _collection(features: list[dict[str, Any]], epsg: int) -> dict[str, Any]:
    named = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{epsg}"}}
    crs = {} if epsg == _LONGITUDES else {"crs": named}
    return {"type": "FeatureCollection", **crs, "features": features}
