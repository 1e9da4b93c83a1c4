"""Figures on the pages stand beside the commands that made them."""

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "figures.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="figures")


def test_every_section_with_figures_names_a_command(script: dict[str, Any]) -> None:
    assert script["main"]() == 0


def test_figures_without_a_command_are_found(script: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Speed\n\n## Here\n\n12 ms, 4 % and 3 GiB.\n\n## There\n\n`unmask bench`: 12 ms, 4 % and 3 GiB.\n\n"
        "### Below it\n\n| a | 1.5 | 2 % | 3 |\n|---|---|---|---|\n\n## Words\n\nNothing of 1, 2 and 3.\n"
    )
    script["without_command"].__globals__["ROOT"] = tmp_path
    assert [one.heading for one in script["without_command"](page)] == ["Here"]
