"""The tables of `unmask evaluate --encoders`: methods against sizes."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.console.judged import Judged, feature_words, percent, point, short
from unmask.console.output import console, writing
from unmask.console.scores import CONTROLS, with_picture, write_json
from unmask.evaluation.frozen import PLAIN, PRETRAINED, RAW, Row
from unmask.files import write_text
from unmask.pictures.accuracy import Line, accuracy_by_size, millions
from unmask.runs.weights import shape_of


class Comparison(NamedTuple):
    """A table of methods against sizes, for one feature and one number of labels."""

    feature: str
    """The feature in words."""
    labels: str
    sizes: dict[int, str]
    """Parameters, and the shape in words, from small to large."""
    rows: dict[str, dict[int, Row]]
    """By method, then by parameters; controls have rows too."""
    majority: float | None
    """The score of always answering the largest class."""

    @property
    def words(self) -> str:
        """What the table compares."""
        return f"{self.feature}, labels: {self.labels}"

    def lines(self) -> Iterator[list[str]]:
        """The cells of each line: a method, and its score for each size; last, the share of the largest class."""
        for method, rows in self.rows.items():
            yield [method, *(percent(rows[size]) if size in rows else "" for size in self.sizes)]
        if self.majority is not None:
            yield ["largest class", *[f"{self.majority:.1%}"] * len(self.sizes)]


def comparison_tables(judged: list[Judged]) -> list[Comparison]:
    """One table for each feature and number of labels that any encoder has; raw pixels are in all that they belong to."""
    sizes = {one.parameters: shape_of(one.subject.model.spec.encoder) for one in judged}
    sizes = dict(sorted(sizes.items()))
    names = _names(judged)
    found: dict[tuple[str, str, bool], Comparison] = {}
    for one, name in zip(judged, names, strict=True):
        for row in one.rows:
            if row.arm == RAW:
                continue
            key = (feature_words(row), row.labels, row.vectors == PLAIN)
            table = found.setdefault(key, Comparison(*key[:2], sizes, {}, judged[0].majority))
            _add(table, row, name, one.parameters)
    for one, name in zip(judged, names, strict=True):
        for row in one.rows:
            for (_, labels, plain), table in found.items():
                if row.arm == RAW and (labels, plain) == (row.labels, row.vectors == PLAIN):
                    _add(table, row, name, one.parameters)
    return list(found.values())


def _add(table: Comparison, row: Row, name: str, parameters: int) -> None:
    """Add a row under the name of its encoder and of its control."""
    method = name if row.arm == PRETRAINED else f"{name}, {row.arm}"
    table.rows.setdefault(method, {})[parameters] = row


def _names(judged: list[Judged]) -> list[str]:
    """The method of each encoder; with its path if another of the same method has the same size."""
    keys = [(one.method, one.parameters) for one in judged]
    return [
        one.method if keys.count(key) == 1 else f"{one.method} ({one.subject.path})"
        for one, key in zip(judged, keys, strict=True)
    ]


def say_comparison(tables: list[Comparison]) -> None:
    """Print methods against sizes."""
    for table in tables:
        heading = Table("method", box=SIMPLE_HEAD, pad_edge=False)
        for size in table.sizes:
            heading.add_column(millions(size), justify="right", no_wrap=True)
        for cells in table.lines():
            heading.add_row(*cells)
        console.result(f"{table.words}, by number of parameters of the encoder:")
        console.result(heading)


def write_comparison(judged: list[Judged], path: Path) -> list[Path]:
    """Write JSON of several encoders, and Markdown and a picture next to it."""
    markdown = path.with_suffix(".md")
    tables = comparison_tables(judged)
    with writing(path):
        write_json(path, {"encoders": [one.result() for one in judged]})
        write_text(markdown, _markdown(judged, tables))
    pictures = with_picture(path, lambda picture: _draw_sizes(judged[0], tables, picture))
    return [path, markdown, *pictures]


def _markdown(judged: list[Judged], tables: list[Comparison]) -> str:
    first = judged[0]
    lines = [
        f"# {first.question.protocol} on {short(first.data)}",
        "",
        f"{first.counts[0]:,} training images, {first.counts[1]:,} test images, {first.classes} classes, "
        f"chance {first.chance:.1%}. Test {first.measure}"
        + (", mean ± standard deviation over draws." if first.question.seeds > 1 else "."),
    ]
    for table in tables:
        columns = [f"{millions(size)}: {shape}" for size, shape in table.sizes.items()]
        lines += ["", f"## {table.words}", "", f"| method | {' | '.join(columns)} |"]
        lines.append("|---|" + "---:|" * len(columns))
        lines += [f"| {' | '.join(cells)} |" for cells in table.lines()]
    arms = {row.arm for one in judged for row in one.rows}
    lines += [f"\n{arm}: {words}." for arm, words in CONTROLS.items() if arm in arms]
    settings = dict.fromkeys(row.setting for one in judged for row in one.rows)
    lines += [f"\nSetting: {setting}." for setting in settings]
    lines += ["", "| encoder | method | parameters |", "|---|---|---:|"]
    lines += [
        f"| {one.subject.path} ({one.subject.model.about}) | {one.method} | {one.parameters:,} |"
        for one in judged
    ]
    return "\n".join(lines) + "\n"


def _draw_sizes(first: Judged, tables: list[Comparison], path: Path) -> None:
    lines: list[Line] = []
    sizes: list[list[int]] = []
    for table in tables:
        for method, rows in table.rows.items():
            name = f"{method}: {table.words}" if len(tables) > 1 else method
            control = any(row.arm != PRETRAINED for row in rows.values())
            ordered = sorted(rows)
            sizes.append(ordered)
            lines.append(Line(name, [point(rows[size]) for size in ordered], control))
    title = f"{first.question.protocol} on {short(first.data)}"
    accuracy_by_size(sizes, lines, first.measure, first.chance, title, path)
