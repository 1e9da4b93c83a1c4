"""`unmask predict` for segmentation and detection: pictures, label maps, COCO JSON, and the score where the truth is known."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unmask.annotations import AnyAnnotations, ClassMaps
from unmask.console.classes import say_table, write_table
from unmask.console.located_files import MARK, LocatedFiles, Pictured
from unmask.console.output import console, matched, notes, say_left_out, writing
from unmask.data import AnySource
from unmask.data.in_order import Unreadable
from unmask.data.statistics import read_as
from unmask.errors import DataError, SettingsError
from unmask.progress import counted
from unmask.runs.examples import LEAST_SCORE
from unmask.runs.locate import locate
from unmask.runs.predict import Predictor, scored_kind, truth_of
from unmask.spec import to_json
from unmask.traits import InFiles

_SHOWN = 20  # pictures listed on the console


class Pictures(NamedTuple):
    """Pictures to look at."""

    each: Iterator[Pictured]
    number: int
    scored_kind: AnyAnnotations
    """The annotations that they are scored by, if they have any."""


def predict_located(
    predictor: Predictor,
    pictures: Pictures,
    out: Path,
    tiles: bool,
    as_json: bool,
) -> None:
    """Locate, print, and write into the folder `out`; scores too where annotations are known."""
    kind = predictor.tuned.job.annotations
    scoring: Any = predictor.tuned.job.recipe.task.scoring(pictures.scored_kind)
    lines, entries, known = list[str](), list[dict[str, Any]](), 0
    files = LocatedFiles(out, kind)
    for one in counted(pictures.each, pictures.number, "predicting"):
        found = locate(predictor.tuned, one.pixels, tiles)
        if one.known is not None:
            scoring.add((found,), (one.known,))
            known += 1
        entry = _entry(one, found, kind)
        entries.append(entry)
        lines.append(_line(entry))
        files.write(one, found, predictor)
    files.finish()
    score = scoring.result() if known else None
    if score is not None:
        with writing(out):
            write_table(score, out / "classes.csv")
    if as_json:
        print(json.dumps({**({} if score is None else to_json(score)), "images": entries}))
        return
    if score is not None:
        say_table(score, out / "classes.csv")
        console.result(score.line())
    for line in lines[:_SHOWN]:
        console.result(line)
    if len(lines) > _SHOWN:
        console.print(f"and {len(lines) - _SHOWN:,} more")
    console.print(f"written: {out}")


def pictures_of_files(predictor: Predictor, files: tuple[str, ...]) -> Pictures:
    """Image files."""
    each = (
        Pictured(Path(file).name, predictor.model.read(file), None, Path(file)) for file in files
    )
    return Pictures(each, len(files), predictor.tuned.job.annotations)


def pictures_of_source(predictor: Predictor, data: AnySource, unreadable: Unreadable) -> Pictures:
    """The test images of a source."""
    opened = data.open(data.splits()[-1])
    say_left_out(opened, notes)
    images = matched(opened, predictor.model.spec.channels, "this run was trained on")
    trained = predictor.tuned.job.annotations
    source, scored, note = truth_of(trained, read_as(images, predictor.tuned.statistics))
    if note is not None:
        notes.note(note)

    def each() -> Iterator[Pictured]:
        for position in range(len(source)):
            try:
                image, annotation = source[position]
            except DataError as error:
                unreadable.append((source.name(position), str(error)))
                continue
            pixels = predictor.tuned.statistics.in_units(image)
            file = source.file(position) if isinstance(source, InFiles) else None
            yield Pictured(source.name(position), pixels, annotation if scored else None, file)

    return Pictures(each(), len(source), scored_kind(source, trained))


def check_folder(out: Path, mark: str = MARK) -> None:
    """Refuse a folder of other things; `mark` is the name of the file by which our own is known.

    Raises:
        SettingsError: if it holds files that this command did not write.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / mark).exists())):
        raise SettingsError(
            f"{out} exists already and holds other files; give another folder with --out"
        )


def _entry(one: Pictured, found: Any, kind: AnyAnnotations) -> dict[str, Any]:
    """What was found in a picture, as JSON; pixels without any value do not count."""
    name = one.name
    if isinstance(kind, ClassMaps):
        has_value = ~one.pixels.isnan().all(0)
        counts = torch.bincount(found[has_value], minlength=len(kind.names))
        counts = counts / max(1, int(has_value.sum()))
        order = counts.argsort(descending=True, stable=True).tolist()
        shares = {kind.names[i]: round(float(counts[i]), 4) for i in order if counts[i] > 0}
        return {"image": name, "shares": shares}
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True)
    objects = [
        {
            "class": kind.names[number],
            "score": round(score, 4),
            "box": [round(side, 1) for side in box],
        }
        for box, score, number in rows
    ]
    return {"image": name, "objects": objects}


def _line(entry: dict[str, Any]) -> str:
    if "shares" in entry:
        return f"{entry['image']}: " + ", ".join(
            f"{name} {share:.0%}" for name, share in entry["shares"].items()
        )
    sure = Counter(one["class"] for one in entry["objects"] if one["score"] >= LEAST_SCORE)
    words = ", ".join(f"{count} {name}" for name, count in sure.most_common())
    return f"{entry['image']}: {words or f'no object with a score of {LEAST_SCORE:.0%} or more'}"
