"""Line charts as SVG."""

import random
import re
import xml.etree.ElementTree as ET

import pytest

from unmask.report.svg import Chart, Line, number, svg_of, ticks


def points_of(chart: Chart) -> list[list[tuple[float, float]]]:
    """Where the lines of a chart run, in the units of the drawing."""
    tree = ET.fromstring(svg_of(chart))
    return [
        [
            (float(x), float(y))
            for x, y in (pair.split(",") for pair in line.attrib["points"].split())
        ]
        for line in tree.iter("polyline")
    ]


def test_values_lie_where_the_axis_says() -> None:
    """A linear map: found from two ticks, it gives the values of all points back."""
    values = [(1.0, 0.31), (50.0, 0.9), (100.0, 0.55)]
    chart = Chart("loss", "Loss", "", [Line(values)])
    tree = ET.fromstring(svg_of(chart))
    heights = {
        float(text.text or ""): float(text.attrib["y"])
        for text in tree.iter("text")
        if text.attrib.get("text-anchor") == "end" and text.text != "step"
    }
    (low, y_low), (high, y_high) = min(heights.items()), max(heights.items())
    (line,) = points_of(chart)
    for (_, y), (_, value) in zip(line, values, strict=True):
        assert low + (y - y_low) / (y_high - y_low) * (high - low) == pytest.approx(value, abs=2e-3)
    assert [x for x, _ in line] == sorted(x for x, _ in line)


@pytest.mark.parametrize(
    "values",
    [[(1.0, 0.5)], [(1.0, 0.0), (2.0, 0.0)], [(1.0, -3.0), (9.0, -3.0)], [(1.0, 1e-9), (2.0, 1e9)]],
    ids=["one point", "all zero", "constant", "far apart"],
)
def test_odd_values_stay_inside_the_drawing(values: list[tuple[float, float]]) -> None:
    for from_zero in (False, True):
        (line,) = points_of(Chart("x", "x", "", [Line(values)], from_zero=from_zero))
        assert all(0 <= x <= 400 and 0 <= y <= 236 for x, y in line)


def test_words_are_escaped() -> None:
    chart = Chart("x", "<b>&", "a > b", [Line([(1.0, 1.0), (2.0, 3.0)], 'say "<i>"')])
    tree = ET.fromstring(svg_of(chart))
    assert [element.text for element in tree.iter("title")] == ["<b>&"]


def test_ticks_are_round_and_cover_the_values() -> None:
    draw = random.Random(0)
    for _ in range(200):
        scale = 10 ** draw.randint(-6, 6)
        low = draw.uniform(-10, 10) * scale
        high = low + draw.uniform(0.01, 10) * scale
        places = ticks(low, high, 5)
        step = places[1] - places[0] if len(places) > 1 else high - low
        assert len(places) <= 7
        assert places[0] <= low + 1e-6 * step
        assert places[-1] <= high + 1e-6 * step
        assert high - places[-1] <= step * (1 + 1e-6)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.0003, "3e-4"), (0.25, "0.25"), (12.5, "12.5"), (1_200, "1,200"), (25_000, "25k"), (3e6, "3M")],
)  # fmt: skip
def test_numbers_are_short(value: float, words: str) -> None:
    assert number(value) == words
    assert re.fullmatch(r"-?[\d.,]+(e-?\d+|[kMG])?", number(value))
