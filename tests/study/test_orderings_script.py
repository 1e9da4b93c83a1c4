"""studies/orderings.py: the power of the paired test, verdicts, and that the page is what the files give."""

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "studies" / "orderings.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="orderings")


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_are_those_of_published_tables(
    script: dict[str, Any], effect: float, seeds: int
) -> None:
    """Sizes for a paired t-test at 5 %, two-sided, power 80 % (G*Power 3.1)."""
    assert script["seeds_needed"](effect, 1.0) == seeds
    assert script["seeds_needed"](-3 * effect, 3.0) == seeds
    assert script["seeds_needed"](0.01, 1.0) is None


def test_verdicts_are_those_of_the_paired_test(script: dict[str, Any]) -> None:
    paired = script["paired"]
    assert paired([1.0], 1.0) == "one seed"
    assert paired([1.0, 1.1, 0.9], 0.3) == "agree"
    assert paired([1.0, 1.1, 0.9], -0.3) == "disagree"
    assert paired([1.0, -1.1, 0.9], 0.3) == "within noise"  # t = 0.4


def test_differences_pair_seeds_that_both_have(script: dict[str, Any]) -> None:
    ordering = script["ORDERINGS"][0]
    scores = {
        (ordering.better, "knn"): {"0": 5.0, "1": 7.0, "3": 1.0},
        (ordering.worse, "knn"): {"1": 4.0, "0": 1.0, "2": 9.0},
    }
    assert script["differences"](scores, ordering, "knn") == [4.0, 3.0]


def test_the_page_is_up_to_date(script: dict[str, Any]) -> None:
    page = (SCRIPT.parent / "README.md").read_text(encoding="utf-8")
    assert script["table"]() in page
    assert len(script["ORDERINGS"]) == 13
