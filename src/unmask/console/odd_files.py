"""What `unmask odd` prints and writes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from unmask.console.file_names import FreeNames
from unmask.console.output import console, write_csv, writing
from unmask.contracts import ImageSource, Size
from unmask.data.views import SquashedImage
from unmask.evaluation.odd import Memory
from unmask.evaluation.odd_file import SCORES
from unmask.evaluation.odd_run import Finding, Look, Measures
from unmask.files import write_text
from unmask.pictures.heat import with_edges, with_heat
from unmask.pictures.sheet import Row, save_sheet, sheet, to_rgb
from unmask.spec import to_json

_SHOWN = 20  # images listed on the console
_DRAWN = 8  # images on the sheet
_ROWS: dict[str, str] = {
    "image_auroc": "images, AUROC",
    "image_precision": "images, average precision",
    "pixel_auroc": "pixels, AUROC",
    "pixel_precision": "pixels, average precision",
    "region_overlap": "regions, PRO at 30 %",
    "found": "odd images found",
    "false_alarms": "normal images called odd",
}


def say_measures(measures: dict[str, Measures], size: Size) -> None:
    """Print the measures of the encoder and of the controls as a table."""
    first = next(iter(measures.values()))
    if not first.images:
        return
    table = Table("", *measures, box=SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, words in _ROWS.items():
        values = [getattr(each, name) for each in measures.values()]
        if any(value is not None for value in values):
            table.add_row(words, *("" if value is None else f"{value:.1%}" for value in values))
    console.result(table)
    where = f"pixels at {size.height} x {size.width}"
    stand = (
        f"; no test image is normal, so {first.stand_ins} held-out normal images stand in"
        if first.stand_ins
        else ""
    )
    console.print(f"{first.odd:,} of {first.images:,} test images are odd; {where}{stand}")


def say_findings(findings: Sequence[Finding], memory: Memory) -> None:
    """Print the oddest images, and how many are odd."""
    limit = memory.threshold
    ordered = sorted(findings, key=lambda one: -one.score)
    for one in ordered[:_SHOWN]:
        console.result(f"{one.name}: {one.score:.3f}, {'odd' if one.odd else 'normal'}")
    if len(ordered) > _SHOWN:
        console.print(f"and {len(ordered) - _SHOWN:,} more, in scores.csv")
    count = sum(one.odd for one in findings)
    console.result(f"{count:,} of {len(findings):,} images are odd (above {limit.score:.3f})")


def say_threshold(memory: Memory) -> None:
    """Print what the memory and the threshold are."""
    limit, grid = memory.threshold, memory.grid
    console.print(
        f"memory    {len(memory.vectors):,} patches of normal images, {grid.height} x {grid.width} in an image"
    )
    alone = (
        ""
        if limit.alarms <= memory.rule.alarms + 1e-9
        else "; more normal images allow a smaller share"
    )
    console.print(
        f"threshold {limit.score:.3f}: by {limit.images} held-out normal images, at most {limit.alarms:.0%} of normal "
        f"images are above it{alone}"
    )


def write_findings(
    out: Path,
    findings: Sequence[Finding],
    memory: Memory,
    measures: dict[str, Measures],
    facts: dict[str, Any],
) -> list[Path]:
    """The score of each image as CSV, and the measures as JSON."""
    table, numbers = out / "scores.csv", out / SCORES
    rows = [
        {
            "image": one.name,
            "score": f"{one.score:.6g}",
            "odd": "yes" if one.odd else "no",
            "truth": "" if one.truth is None else ("odd" if one.truth.image else "normal"),
        }
        for one in findings
    ]
    write_csv(table, ("image", "score", "odd", "truth"), rows)
    with writing(numbers):
        content = as_json(findings, memory, measures, facts)
        write_text(numbers, json.dumps(content, indent=1) + "\n")
    return [table, numbers]


def as_json(
    findings: Sequence[Finding],
    memory: Memory,
    measures: dict[str, Measures],
    facts: dict[str, Any],
) -> dict[str, Any]:
    """All that was found, as JSON."""
    limit = memory.threshold
    return {
        **facts,
        "rule": to_json(memory.rule),
        "threshold": limit.score,
        "expected_alarms": limit.alarms,
        "held_out": limit.images,
        "measures": {arm: to_json(each) for arm, each in measures.items() if each.images},
        "images": [
            {
                "image": one.name,
                "score": round(one.score, 6),
                "odd": one.odd,
                **({} if one.truth is None else {"truth": one.truth.image}),
            }
            for one in findings
        ],
    }


def draw_sheet(
    path: Path, findings: Sequence[Finding], source: ImageSource, memory: Memory, look: Look
) -> None:
    """A sheet of the oddest and of the most normal images: as they are, with heat, and with what is known."""
    ordered = sorted(findings, key=lambda one: -one.score)
    shown = ordered if len(ordered) <= _DRAWN else [*ordered[: _DRAWN - 2], *ordered[-2:]]
    known = any(one.truth is not None and one.truth.pixels is not None for one in shown)
    rows: list[Row] = []
    for one in shown:
        picture = _picture(source, one, look)
        pictures = [picture, _heated(picture, one, memory, look)]
        if known:
            pixels = None if one.truth is None else one.truth.pixels
            pictures.append(picture if pixels is None else with_edges(picture, pixels.float()))
        truth = "" if one.truth is None else f", is {'odd' if one.truth.image else 'normal'}"
        said = "odd" if one.odd else "normal"
        rows.append(Row(pictures, f"{one.name}: {one.score:.3f}, {said}{truth}"))
    headings = ["picture", "distance from normal", *(["known"] if known else [])]
    note = (
        "Colours begin where one normal patch in twenty lies; one in a thousand reaches orange-red."
    )
    save_sheet(sheet(headings, rows, [note]), path)


def write_maps(
    out: Path, findings: Sequence[Finding], source: ImageSource, memory: Memory, look: Look
) -> None:
    """A picture of each image with its heat, in `maps/`."""
    (out / "maps").mkdir(exist_ok=True)
    names = FreeNames()
    for one in findings:
        picture = _picture(source, one, look)
        name = names.of(one.name)
        to_rgb(_heated(picture, one, memory, look)).save(out / "maps" / f"{name}.png")


def _picture(source: ImageSource, one: Finding, look: Look) -> Tensor:
    statistics = look.spec.statistics
    pixels = statistics.in_units(source[one.position][0])
    (view,) = SquashedImage()(pixels, look.size)
    return statistics.stretched(view)


def _heated(picture: Tensor, one: Finding, memory: Memory, look: Look) -> Tensor:
    return with_heat(picture, memory.heat(memory.map(one.distances, look.size)))
