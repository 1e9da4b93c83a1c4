"""Drawn landscapes of fields, roads and houses: no two places are alike, and two seeds have nothing in common."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

LATITUDE, LONGITUDE = 24.26, 120.72
METRES_PER_DEGREE = 110_773.0
"""Of latitude, here."""


def landscape(side: int, seed: int) -> NDArray[np.uint8]:
    """A square of so many pixels, as seen from above."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side), (104, 116, 78))
    draw = ImageDraw.Draw(image)
    for _ in range(side * side // 2500):  # fields
        x, y = random.uniform(0, side, 2)
        turn = random.uniform(0, np.pi)
        across, down = random.uniform(12, 70, 2)
        corners = [(-across, -down), (across, -down), (across, down), (-across, down)]
        c, s = np.cos(turn), np.sin(turn)
        colour = tuple((np.array([95, 105, 70]) + random.normal(0, 26, 3)).clip(0, 255).astype(int))
        draw.polygon([(x + c * u - s * v, y + s * u + c * v) for u, v in corners], fill=colour)
    for _ in range(side // 60):  # roads
        points = [tuple(random.uniform(0, side, 2)) for _ in range(2)]
        draw.line(points, fill=(150, 148, 145), width=int(random.integers(3, 8)))
    for _ in range(side * side // 1500):  # houses and trees
        x, y, r = *random.uniform(0, side, 2), random.uniform(2, 6)
        colour = (170, 90, 70) if random.random() < 0.5 else (45, 70, 40)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    noise = random.normal(0, 6, (side, side, 3))
    return (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)


def write_map(path: Path, side: int, seed: int, metres_per_pixel: float) -> Path:
    """A landscape as a picture with a world file in degrees."""
    Image.fromarray(landscape(side, seed)).save(path)
    down = metres_per_pixel / METRES_PER_DEGREE
    across = metres_per_pixel / (METRES_PER_DEGREE * np.cos(np.radians(LATITUDE)) * 1.0045)
    lines = (across, 0.0, 0.0, -down, LONGITUDE + across / 2, LATITUDE - down / 2)
    path.with_suffix(".pgw").write_text("".join(f"{number:.14f}\n" for number in lines))
    return path
