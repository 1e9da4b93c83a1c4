"""Coordinates on the Earth: reference systems, distances, georeferences of rasters, and map tiles of the web."""
