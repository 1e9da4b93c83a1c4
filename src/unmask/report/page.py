"""The page of a run: one HTML file that needs nothing else, written from what lies in the run's folder."""

import base64
import io
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from unmask.contracts import Size
from unmask.data import AnySource, Digits, Held, LabelsFile
from unmask.errors import RunError, number_of
from unmask.files import told_apart, write_text
from unmask.measures import Measure
from unmask.report.charts import MOST, charts, joint_charts, style_of
from unmask.report.curves import Curves
from unmask.report.looks import strips
from unmask.report.remarks import remarks
from unmask.report.scores import Table, evaluations, measures, results, set_aside
from unmask.report.settings import differing, settings
from unmask.report.svg import svg_of
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.spec import kind_of
from unmask.training.logbook import read_log
from unmask.training.schedules import epochs_in_words

LARGEST = 3_000_000
"""Bytes that a page stays below, by leaving out pictures."""

_AROUND = 1000  # bytes of HTML around a picture, and more
_LOSSLESS = 40_000  # bytes; a larger picture is compressed with losses

Row = tuple[str, str]


class Recorded(NamedTuple):
    """A run and the curves of its log."""

    run: Run
    folder: RunFolder
    curves: Curves


def recorded(folder: RunFolder) -> Recorded:
    """The run in a folder.

    Raises:
        RunError: if there is no run, or no step of it has been logged.
    """
    run = Run.read(folder)
    curves = Curves(read_log(folder.log))
    if not curves.step:
        raise RunError(
            f"{folder.root} has no log yet (no line in {folder.log.name}), so there is nothing to report"
        )
    return Recorded(run, folder, curves)


def write_page(one: Recorded, path: Path, *, is_training: bool = False) -> None:
    """Write the report of a run."""
    write_text(path, page(one, is_training=is_training))


def page(one: Recorded, *, is_training: bool = False) -> str:
    """The report of a run as HTML."""
    run, folder, curves = one
    command = command_of(folder)
    values: dict[str, Any] = dict(
        name=folder.root.absolute().name,
        job=run.job.command,
        remarks=remarks(run, folder, curves, is_training=is_training),
        command=command,
        plan=_plan(run, curves),
        charts=[(chart.title, svg_of(chart)) for chart in charts(curves) if curves.buckets],
        scores=_tables(one),
        set_aside=set_aside(folder),
        settings=settings(run),
    )
    drawings = sorted([*folder.root.glob("*.png"), *folder.evaluations.glob("*.png")])

    def rendered(pictures: _Pictures) -> str:
        return _render(
            "run.html",
            **values,
            strips=pictures.uris((strip.caption, strip.path) for strip in strips(folder)),
            drawings=pictures.uris((path.stem, path) for path in drawings),
            left_out=pictures.left_out,
        )

    return _filled(rendered)


def write_comparison(several: list[Recorded], path: Path) -> None:
    """Write a page that shows several runs side by side and marks the settings that differ."""
    write_text(path, comparison(several))


def comparison(several: list[Recorded]) -> str:
    """Several runs side by side as HTML."""
    names = told_apart([one.folder.root.absolute() for one in several])
    differ, same = differing([settings(one.run) for one in several])
    values: dict[str, Any] = dict(
        name=" and ".join(names) if len(names) < 3 else f"{len(names)} runs",
        runs=[(name, style_of(place)) for place, name in enumerate(names)],
        figures_of_runs=_figures(several),
        charts=[
            (chart.title, svg_of(chart)) for chart in joint_charts([one.curves for one in several])
        ],
        most=MOST,
        scores=[
            (name, tables)
            for name, one in zip(names, several, strict=True)
            if (tables := _tables(one))
        ],
        differ=differ,
        same=same,
    )

    def rendered(pictures: _Pictures) -> str:
        last = [
            pictures.uris((strip.caption, strip.path) for strip in strips(one.folder)[-2:])
            for one in several
        ]
        shown = [(name, uris) for name, uris in zip(names, last, strict=True) if uris]
        return _render("comparison.html", **values, strips=shown, left_out=pictures.left_out)

    return _filled(rendered)


def _filled(rendered: Callable[["_Pictures"], str]) -> str:
    """A page with as many of its pictures as keep it below `LARGEST` bytes; it says how many are left out."""
    text = rendered(_Pictures(0))
    return rendered(_Pictures(LARGEST - len(text.encode("utf-8", "backslashreplace")) - _AROUND))


def command_of(folder: RunFolder) -> str:
    """The command line that started a run; empty if it was not started on a command line."""
    try:
        return folder.command_line.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


class _Pictures:
    """Pictures as text inside the page, while there is room for them."""

    def __init__(self, room: int) -> None:
        """`room` is the number of bytes that they may take."""
        self._room = room
        self.left_out = 0
        """Number of pictures for which there was no room."""

    def uris(self, named: Iterable[tuple[str, Path]]) -> list[tuple[str, str]]:
        """(name, picture for the `src` of an image) of those that can be read, and for which there is room."""
        return [(name, uri) for name, path in named if (uri := self._uri(path))]

    def _uri(self, path: Path) -> str:
        if self._room <= 0:
            self.left_out += 1
            return ""
        try:
            content, kind = path.read_bytes(), "png"
            if len(content) > _LOSSLESS:
                content, kind = _compressed(content), "webp"
        except (OSError, ValueError, Image.DecompressionBombError):
            return ""
        text = base64.b64encode(content).decode()
        if len(text) + _AROUND > self._room:
            self.left_out += 1
            return ""
        self._room -= len(text) + _AROUND
        return f"data:image/{kind};base64,{text}"


def _compressed(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        image.thumbnail((1400, 1400))
        file = io.BytesIO()
        image.save(file, "WEBP", quality=85)
    return file.getvalue()


def _plan(run: Run, curves: Curves) -> list[Row]:
    """The plan of a run, a row for each part."""
    recipe, hardware, statistics = run.recipe, run.hardware, run.statistics
    rows: list[Row] = [("recipe", run.recipe_name)]
    encoder = getattr(recipe, "encoder", None)
    if encoder is not None:
        rows.append(
            (
                "encoder",
                f"{number_of(encoder.depth, 'block')} of {encoder.embed_dim}, patches of {encoder.patch_size}",
            )
        )
    kinds = settings(run)
    rows += [
        (part, kinds[part])
        for part in ("objective", "objective.masking", "objective.target", "task", "tokenizer")
        if part in kinds
    ]
    each = ", ".join
    length = epochs_in_words(recipe.epochs)
    if run.minutes is not None:
        length = "1 minute" if run.minutes == 1 else f"{run.minutes:g} minutes"
    rows += [
        ("initial weights", run.init or f"random, seed {run.seed}"),
        (
            "data",
            f"{run.images:,} images of {number_of(run.channels, 'channel')} in {_place(run.data)}",
        ),
        ("crops", f"{Size(*recipe.image_size)} pixels"),
        (
            "statistics",
            f"mean {each(f'{value:.4g}' for value in statistics.mean)}; deviation "
            f"{each(f'{value:.4g}' for value in statistics.std)} ({statistics.source})",
        ),
        (
            "training",
            f"{length}, {curves.ends or run.steps:,} steps of {recipe.batch_size:,} images, learning rate up to "
            f"{recipe.schedule.peak(recipe.batch_size):.3g}",
        ),
        (
            "machine",
            f"{hardware.device}, {hardware.precision}, {number_of(hardware.processes, 'process', 'es')}, "
            f"{number_of(hardware.threads, 'thread')}, {number_of(hardware.workers, 'loading process', 'es')}",
        ),
        ("versions", f"unmask {run.unmask_version}, torch {run.torch_version}"),
    ]
    return rows


def _place(data: AnySource) -> str:
    if isinstance(data, Digits):
        return "scikit-learn's digits"
    if isinstance(data, Held):
        return "images given from Python"
    labels = f" with labels of {data.labels}" if isinstance(data, LabelsFile) else ""
    return f"{data.path} ({kind_of(AnySource, data)}){labels}"


class Figures(NamedTuple):
    """A row of figures with a value for each run."""

    name: str
    values: list[str]
    best: tuple[int, ...] = ()
    """The places of the best values."""


def _figures(several: list[Recorded]) -> list[Figures]:
    """What came out of each run."""

    def last(one: Recorded, name: str, form: str) -> str:
        value = one.curves.checks[-1].get(name) if one.curves.checks else None
        return "" if value is None else format(value, form)

    def mean(one: Recorded, name: str, form: str, start: float = 0.0) -> str:
        value = one.curves.mean(name, start)
        return "" if value is None else format(value, form)

    rows = [
        (
            "steps done",
            [f"{one.curves.step:,} of {one.curves.ends or one.run.steps:,}" for one in several],
        ),
        ("loss in the last tenth", [mean(one, "loss", ".4f", 0.9) for one in several]),
        ("images per second", [mean(one, "images_per_second", ",.0f") for one in several]),
        ("time waiting for images", [mean(one, "waiting", ".0%") for one in several]),
        ("effective rank", [last(one, "effective_rank", ".1f") for one in several]),
        ("neighbours of the same class", [last(one, "knn", ".1%") for one in several]),
    ]
    figures = [Figures(name, values) for name, values in rows if any(values)]
    return [*_scores(several), *figures]


def _scores(several: list[Recorded]) -> list[Figures]:
    """The scores of the runs, of which the best are marked if all runs have the same images."""
    of_runs = [measures(one.run, one.folder) for one in several]
    same_images = all(one.run.data == several[0].run.data for one in several)
    rows: list[Figures] = []
    for name in dict.fromkeys(name for of_run in of_runs for name in of_run):
        row = [of_run.get(name) for of_run in of_runs]
        best = _best(row) if same_images else ()
        rows.append(Figures(name, ["" if one is None else one.words for one in row], best))
    return rows


def _best(row: list[Measure | None]) -> tuple[int, ...]:
    """The places of the best values; none if all are equal."""
    scored = {
        place: one
        for place, one in enumerate(row)
        if one is not None and one.value is not None and one.better is not None
    }
    best = [
        place
        for place, one in scored.items()
        if not any(
            other.value is not None and other.beats(one.value or 0.0) for other in scored.values()
        )
    ]
    return tuple(best) if len(best) < len(scored) else ()


def _tables(one: Recorded) -> list[Table]:
    """The scores of a run; one that cannot be read is named in the remarks."""
    own: list[Table] = []
    with suppress(RunError):
        own = results(one.run, one.folder, command_of(one.folder))
    return own + evaluations(one.folder)
