"""Means and deviations in the tables of studies come from the scores beside them."""

import csv
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import pytest

STUDIES = Path(__file__).parents[2] / "studies"

TABLES = {
    "dense.md": ("dense-bccd.csv", "dense-pennfudan.csv", "dense-camvid.csv"),
    "places.md": ("places.csv", "places-naip.csv"),
    "vectors.md": ("vectors.csv",),
}


def spreads(file: Path) -> set[str]:
    """All means over seeds with their deviations, as pages write them: shares, per cent, and whole metres."""
    groups: dict[tuple[str, ...], list[float]] = defaultdict(list)
    with file.open() as opened:
        for row in csv.DictReader(opened):
            values = {name: row.pop(name) for name in ("value", "score") if name in row}
            if not values:  # a column for each measure
                about = {name: row.pop(name) for name in ("seed", "arm")}
                values, row = row, about
            row.pop("seed")
            for name, value in values.items():
                if value:
                    groups[*row.values(), name].append(float(value))
    found: set[str] = set()
    for scores in groups.values():
        if len(scores) > 1:
            for factor, digits in ((1, 0), (1, 2), (100, 1)):
                middle, spread = factor * mean(scores), factor * stdev(scores)
                found.add(f"{middle:.{digits}f} ± {spread:.{digits}f}")
    return found


@pytest.mark.parametrize("page", TABLES)
def test_spreads_come_from_the_scores(page: str) -> None:
    known = set[str]().union(*(spreads(STUDIES / name) for name in TABLES[page]))
    lines = (STUDIES / page).read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    written = [cell for row in rows for cell in re.findall(r"[\d.]+ ± [\d.]+", row)]
    assert len(written) > 10
    assert set(written) <= known, set(written) - known
