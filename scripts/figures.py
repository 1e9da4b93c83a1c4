"""Figures in README, docs and studies without a command that made them.

    python scripts/figures.py

A section has figures if it holds at least three numbers with a unit or a per cent sign, or a table with numbers. Its command
may stand in the section, in one above it, or on a page that it links to. Prints file, line and heading of the others.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/*.md", "studies/*.md", "benchmarks/README.md")
LEAST = 3  # numbers
LIMITS = {"docs/data.md: Parquet"}
"""Sections whose numbers are limits that the code sets, not measurements."""

_FIGURE = re.compile(r"\d[\d,.]*\s?(?:%|points\b|ms\b|GiB\b|MiB\b|GB\b|images/s|times\b|hours?\b)")
_NUMBERS = re.compile(r"\|\s*[+-]?\d[\d,.]*\s*(?:%|±|\|)")
_COMMAND = re.compile(
    r"(?:python3?|unmask|torchrun) [\w./-]|scripts?/\w+\.py|benchmarks/\w+\.py|studies/\w+\.py"
)
_LINK = re.compile(r"\]\(([^)#:]+\.md)")


class Section(NamedTuple):
    """A part of a page under a heading."""

    page: Path
    line: int
    level: int
    heading: str
    text: str

    @property
    def has_figures(self) -> bool:
        """Whether it shows measured numbers."""
        return len(_FIGURE.findall(self.text)) + len(_NUMBERS.findall(self.text)) >= LEAST


def sections(page: Path) -> list[Section]:
    """The sections of a page; what stands above the first heading is one too."""
    found = [Section(page, 1, 0, page.name, "")]
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.startswith("```")
        level = 0 if fenced else len(line) - len(line.lstrip("#"))
        if level and line[level : level + 1] == " ":
            found.append(Section(page, number, level, line[level + 1 :], ""))
        else:
            found[-1] = found[-1]._replace(text=f"{found[-1].text}{line}\n")
    return found


def without_command(page: Path) -> Iterator[Section]:
    """The sections with figures for which no command is named."""
    above: list[Section] = []
    for section in sections(page):
        above = [each for each in above if each.level < section.level]
        texts = [section.text, *(each.text for each in above)]
        linked = [page.parent / link for link in _LINK.findall(section.text)]
        texts += [other.read_text(encoding="utf-8") for other in linked if other.is_file()]
        where = f"{page.relative_to(ROOT)}: {section.heading}"
        named = where in LIMITS or any(_COMMAND.search(text) for text in texts)
        if section.has_figures and not named:
            yield section
        above.append(section)


def main() -> int:
    """Print them; the status is how many there are, at most 1."""
    found = [
        section
        for pattern in PAGES
        for page in sorted(ROOT.glob(pattern))
        for section in without_command(page)
    ]
    for section in found:
        print(f"{section.page.relative_to(ROOT)}:{section.line}: {section.heading}")
    print(f"{len(found)} sections with figures name no command")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
