"""Text of the page can be read, light and dark (WCAG 2.2: a contrast of 4.5 for text, 3 for lines)."""

import re
from pathlib import Path

import pytest

import unmask

STYLE = (Path(unmask.__file__).parent / "report" / "templates" / "style.html").read_text()
LIGHT, DARK = (
    dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
    for block in re.findall(r":root \{(.*?)\}", STYLE, flags=re.DOTALL)
)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast(colours: dict[str, str]) -> None:
    for ground in ("paper", "card"):
        for text in ("ink", "soft", "good", "warning"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for line in "abcdef":
            assert contrast(colours[line], colours[ground]) >= 3, (line, ground)
    assert contrast(colours["ink"], colours["mark"]) >= 4.5


def test_the_measure_of_contrast() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_numbers_in_tables_that_scroll_are_not_broken() -> None:
    """`anywhere` lets a column shrink to one letter, so that a narrow screen shows 48. above 0%."""
    rules = re.findall(r"\n([^\n{}]+)\{([^{}]*overflow-wrap: (\S+);[^{}]*)\}", STYLE)
    wraps = {selector.strip(): wrap for selector, _, wrap in rules}
    assert wraps["td, tbody th"] == "anywhere"
    assert wraps[".wide td, .wide th"] == "break-word"
