"""Pieces of a map are found, and pictures from elsewhere are not, at one threshold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from places.landscape import write_map

import unmask
from unmask.commands import embed
from unmask.contracts import Size
from unmask.data import GroundMap
from unmask.data.ground_map import MapTiles
from unmask.encoders import ViT
from unmask.geo.distance import metres_between
from unmask.places.calibration import drawn, measured
from unmask.places.locating import Beliefs, field_for, grid_for, judged
from unmask.places.opened import map_of, open_places, with_look
from unmask.recipes import find_recipe

METRES, SIDE, WIDTH, PICTURES = 40.0, 640, 130.0, 40
SEED = 99
"""Not that of the calibration, whose pieces are others."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pieces_of_the_map_are_found_and_others_are_not(tmp_path: Path) -> None:
    """Turned in any direction, of 0.7 to 1.4 times the width that the threshold was measured at, and relit."""
    path = write_map(tmp_path / "map.png", SIDE, 1, 0.5)
    small = ViT(patch_size=4, embed_dim=64, depth=3, num_heads=4)
    usual = find_recipe("place-ti16")
    recipe = replace(
        usual,
        encoder=small,
        image_size=Size(32, 32),
        batch_size=64,
        epochs=4.0,
        schedule=replace(usual.schedule, warmup_epochs=1.0, base_lr=4e-3),
    )
    data = GroundMap(path=str(path), tile_metres=(METRES,), tile_overlap=0.75)
    run = unmask.pretrain(data, recipe=recipe, out=tmp_path / "run")
    cut = ["--tile-metres", f"{METRES:g}", "--tile-overlap", "0.75", "--device", "cpu"]
    embed.main([str(run), str(path), "--out", str(tmp_path / "places"), "--threads", "1", *cut])
    opened = open_places(tmp_path / "places", None, "cpu")
    tiles = map_of(opened)
    assert isinstance(tiles, MapTiles)
    opened = with_look(opened, tiles)
    elsewhere = replace(data, path=str(write_map(tmp_path / "else.png", SIDE, 2, 0.5))).open()
    size = Size(96, 96)
    threshold = measured(opened, tiles, size, Beliefs(WIDTH)).threshold
    random = torch.Generator().manual_seed(SEED)
    found = refused = 0
    for number in range(PICTURES):
        beliefs = Beliefs(WIDTH * 0.7 * 2 ** (number / (PICTURES - 1)))
        grid = grid_for(opened, size, beliefs)
        piece = drawn(tiles, grid, size, beliefs, random)
        best = judged(field_for(opened, piece.image, beliefs), 2)
        away = float(metres_between(np.array(best.degrees[0]), piece.degrees))
        found += best.margin >= threshold and away <= METRES / 2
        other = drawn(elsewhere, grid, size, beliefs, random)
        refused += judged(field_for(opened, other.image, beliefs), 2).margin < threshold
    assert found >= 0.8 * PICTURES
    assert refused >= 0.95 * PICTURES
