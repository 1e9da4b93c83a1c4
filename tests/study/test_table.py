"""What seeds allow to be said, against the textbook's numbers."""

import math

import pytest

from unmask.study.table import compared, differ, informative


def welch(one: list[float], other: list[float]) -> float:
    """The statistic of Welch's test, by hand."""

    def moments(values: list[float]) -> tuple[float, float, int]:
        mean = sum(values) / len(values)
        return mean, sum((v - mean) ** 2 for v in values) / (len(values) - 1), len(values)

    (a, va, na), (b, vb, nb) = moments(one), moments(other)
    return abs(a - b) / math.sqrt(va / na + vb / nb)


def test_differences_are_those_of_a_table_of_student_s_distribution() -> None:
    """Equal variances and three draws each: four degrees of freedom, 2.776 at 5 % on two sides."""
    one = [0.50, 0.51, 0.52]
    step = 2.776 * math.sqrt(2 * 0.01**2 / 3)
    for off, expected in ((0.99 * step, False), (1.01 * step, True)):
        other = [value + off for value in one]
        assert (welch(one, other) > 2.776) == expected
        assert differ(one, other) == expected
        assert differ(other, one) == expected


def test_one_draw_says_nothing() -> None:
    assert not differ([0.1], [0.9])
    assert not differ([0.1, 0.1], [0.9])
    assert informative([0.9], [0.1]) is None


def test_equal_draws_differ_if_they_are_not_the_same() -> None:
    assert differ([0.5, 0.5], [0.6, 0.6])
    assert not differ([0.5, 0.5], [0.5, 0.5])
    equal = [142 / 280] * 3  # of which scipy warns, and warnings are errors here
    assert differ(equal, [0.60, 0.61, 0.62])
    assert not differ(equal, [0.40, 0.51, 0.62])


def test_order_of_pairs() -> None:
    ours = {
        "a": [0.50, 0.51, 0.52],
        "b": [0.70, 0.71, 0.72],
        "c": [0.50, 0.52, 0.51],
        "unknown": [0.9, 0.9, 0.9],
    }
    published = {"a": 80.0, "b": 79.0, "c": 78.0, "d": 1.0}
    pairs = {(p.better, p.worse): p for p in compared(ours, published, {})}
    assert {names: p.verdict for names, p in pairs.items()} == {
        ("a", "b"): "disagree",
        ("a", "c"): "within noise",
        ("b", "c"): "agree",
    }
    assert pairs["b", "c"].ours == pytest.approx(20.0)
    assert pairs["b", "c"].published == pytest.approx(1.0)
    assert not compared(ours, {"a": 80.0, "b": 80.0}, {}), "a tie has no order"
    (one,) = compared({"a": [0.5], "b": [0.6]}, {"a": 1.0, "b": 2.0}, {})
    assert one.verdict == "one seed"


def test_pairs_of_unequal_training_have_no_order() -> None:
    ours = {name: [0.5, 0.6] for name in "abcd"}
    published = {"a": 83.6, "b": 83.7, "c": 82.9, "d": 83.0}
    pairs = compared(ours, published, {"a": 800, "b": 800, "c": 100})
    assert [(pair.better, pair.worse) for pair in pairs] == [("b", "a")]


def test_informative_means_three_standard_errors() -> None:
    random = [0.30, 0.31, 0.32]
    error = math.sqrt(2 * 0.01**2 / 3)
    for off, expected in ((2.9 * error, False), (3.1 * error, True), (-0.5, False)):
        assert informative([value + off for value in random], random) is expected
