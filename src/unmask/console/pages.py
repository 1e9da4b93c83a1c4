"""A page in Markdown on a terminal: its text, and its tables drawn as wide as the terminal allows."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markdown import Markdown
from rich.table import Table

from unmask.console.screen import Screen

_PICTURE = re.compile(r"^!\[.*$", re.MULTILINE)
_BETWEEN = 3  # columns between two cells
_EDGES = 2  # columns left and right of a table
_RULE = re.compile(r"\|[-:| ]+\|")


def say_page(page: str, screen: Screen) -> None:
    """Print a page as a result: drawn on a terminal, without its pictures; as it is in a pipe or file."""
    if not screen.rich.is_terminal:
        screen.result(page)
        return
    for part in drawn_page(page, screen.rich.width):
        screen.result(part)


def drawn_page(page: str, width: int) -> Iterator[RenderableType]:
    """The text of a page as Markdown, and its tables, each split into several if it is wider than `width` columns."""
    lines = _PICTURE.sub("", page).split("\n")
    for is_table, part in groupby(lines, key=lambda line: line.startswith("|")):
        if is_table:
            rows = [_cells(line) for line in part if not _RULE.fullmatch(line)]
            yield from _tables(rows, width)
        elif (text := "\n".join(part)).strip():
            yield Markdown(text)


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("**", "") for cell in line.strip().strip("|").split("|")]


def _tables(rows: Sequence[list[str]], width: int) -> Iterator[Table]:
    """Tables of as many columns as fit, each with the first column of all."""
    headings, *body = rows
    # headings may break between words, cells may not
    widths = [
        max([len(row[place]) for row in body] + [len(word) for word in heading.split()] + [1])
        for place, heading in enumerate(headings)
    ]
    groups: list[list[int]] = [[]]
    for place in range(1, len(headings)):
        needed = sum(widths[other] + _BETWEEN for other in [0, *groups[-1], place])
        if needed + _EDGES > width and groups[-1]:
            # a heading that occurs twice says nothing without the column before it
            is_pair = headings.count(headings[place]) > 1 and len(groups[-1]) > 1
            groups.append([groups[-1].pop()] if is_pair else [])
        groups[-1].append(place)
    for places in groups:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column(headings[0], width=widths[0])
        for place in places:
            table.add_column(headings[place], justify="right", width=widths[place])
        for row in body:
            table.add_row(row[0], *(row[place] for place in places))
        yield table
