"""`unmask predict` for segmentation and detection: pictures, label maps, COCO JSON, and the score where the truth is known."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unmask.annotations import AnyAnnotations, ClassMaps
from unmask.console.classes import say_table, write_table
from unmask.console.output import console, matched, notes, say_left_out, writing
from unmask.data import AnySource
from unmask.data.in_order import Unreadable
from unmask.errors import DataError, SettingsError
from unmask.files import write_text
from unmask.pictures.located import class_colors
from unmask.pictures.sheet import to_rgb
from unmask.progress import counted
from unmask.runs.examples import LEAST_SCORE, painted
from unmask.runs.locate import locate
from unmask.runs.predict import Predictor, truth_of
from unmask.tasks.detections import Detections
from unmask.traits import Tabular

_SHOWN = 20  # pictures listed on the console
_LARGEST = 1600  # pixels of a drawn picture's longer side
_BYTE = 256


class Pictured(NamedTuple):
    """A picture to look at."""

    name: str
    pixels: Tensor
    known: Any
    """Its annotation, if it is of the run's kind and classes; else None."""


def predict_located(
    predictor: Predictor,
    pictures: Iterator[Pictured],
    total: int,
    out: Path,
    tiles: bool,
    as_json: bool,
) -> None:
    """Locate, print, and write into the folder `out`; scores too where annotations are known."""
    kind = predictor.tuned.job.annotations
    scoring: Any = predictor.tuned.job.recipe.task.scoring(kind)
    lines, entries, known = list[str](), list[dict[str, Any]](), 0
    files = _Files(out, kind)
    for one in counted(pictures, total, "predicting"):
        found = locate(predictor.tuned, one.pixels, tiles)
        if one.known is not None:
            scoring.add((found,), (one.known,))
            known += 1
        entry = _entry(one.name, found, kind)
        entries.append(entry)
        lines.append(_line(entry))
        files.write(one, found, predictor)
    files.finish()
    score = scoring.result() if known else None
    if score is not None:
        if isinstance(score, Tabular):
            with writing(out):
                write_table(score, out / "classes.csv")
            if not as_json:
                say_table(score, out / "classes.csv")
        if not as_json:
            console.result(score.line())
    if as_json:
        print(json.dumps({"images": entries}))
        return
    for line in lines[:_SHOWN]:
        console.result(line)
    if len(lines) > _SHOWN:
        console.print(f"and {len(lines) - _SHOWN:,} more")
    console.print(f"written: {out}")


def pictures_of_files(predictor: Predictor, files: tuple[str, ...]) -> Iterator[Pictured]:
    """Image files."""
    for file in files:
        yield Pictured(Path(file).name, predictor.model.read(file), None)


def pictures_of_source(
    predictor: Predictor, data: AnySource, unreadable: Unreadable
) -> tuple[Iterator[Pictured], int]:
    """The test images of a source, and how many there are."""
    opened = data.open(data.splits()[-1])
    say_left_out(opened, notes)
    images = matched(opened, predictor.model.spec.channels, "this run was trained on")
    source, scored, note = truth_of(predictor, images)
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
            yield Pictured(source.name(position), pixels, annotation if scored else None)

    return each(), len(source)


def check_folder(out: Path) -> None:
    """Refuse a folder of other things.

    Raises:
        SettingsError: if it holds files that this command did not write.
    """
    if out.exists() and (
        not out.is_dir() or (any(out.iterdir()) and not (out / _Files.MARK).exists())
    ):
        raise SettingsError(
            f"{out} exists already and holds other files; give another folder with --out"
        )


class _Files:
    """The files of predictions: pictures, and maps or detections."""

    MARK = "predictions.json"

    def __init__(self, out: Path, kind: AnyAnnotations) -> None:
        self.out, self.kind = out, kind
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        with writing(out):
            (out / "pictures").mkdir(parents=True, exist_ok=True)
            if isinstance(kind, ClassMaps):
                (out / "maps").mkdir(exist_ok=True)
            write_text(out / self.MARK, "{}")

    def write(self, one: Pictured, found: Any, predictor: Predictor) -> None:
        """The files of a picture."""
        flat = (
            "__".join(PurePosixPath(one.name).with_suffix("").parts[-3:]).replace("/", "_")
            or "picture"
        )
        picture = predictor.tuned.statistics.stretched(one.pixels)
        with writing(self.out):
            to_rgb(painted(picture, found, self.kind, _LARGEST)).save(
                self.out / "pictures" / f"{flat}.png"
            )
            if isinstance(self.kind, ClassMaps):
                _map_image(found, len(self.kind.names)).save(self.out / "maps" / f"{flat}.png")
                return
        number = len(self._images) + 1
        height, width = one.pixels.shape[-2:]
        self._images.append({"id": number, "file_name": one.name, "width": width, "height": height})
        self._annotations += _annotations(found, number, len(self._annotations) + 1)

    def finish(self) -> None:
        """The file of all detections, or of the classes of maps."""
        names = self.kind.names
        content: dict[str, Any] = {"classes": list(names)}
        if not isinstance(self.kind, ClassMaps):
            categories = [
                {"id": number, "name": name} for number, name in enumerate(names, start=1)
            ]
            content = {
                "images": self._images,
                "annotations": self._annotations,
                "categories": categories,
            }
        with writing(self.out):
            write_text(self.out / self.MARK, json.dumps(content))


def _map_image(classes: Tensor, count: int) -> Image.Image:
    """The number of each pixel's class as a picture with a palette; of more than 256 classes as 16-bit values."""
    if count > _BYTE:
        return Image.fromarray(classes.numpy().astype(np.uint16))
    image = Image.fromarray(classes.numpy().astype(np.uint8), "P")
    image.putpalette([level for color in class_colors(count) for level in color])
    return image


def _annotations(found: Detections, image: int, first: int) -> list[dict[str, Any]]:
    """Detections as COCO's annotations, each with its score."""
    rows: list[dict[str, Any]] = []
    for row, (box, score, number) in enumerate(
        zip(found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True)
    ):
        left, top, right, bottom = (round(side, 2) for side in box)
        entry: dict[str, Any] = {
            "id": first + row,
            "image_id": image,
            "category_id": number + 1,
            "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
            "area": round((right - left) * (bottom - top), 2),
            "iscrowd": 0,
            "score": round(score, 4),
        }
        if found.masks is not None:
            entry |= {"area": int(found.masks[row].sum()), "segmentation": _runs(found.masks[row])}
        rows.append(entry)
    return rows


def _runs(mask: Tensor) -> dict[str, Any]:
    """A mask as COCO's uncompressed run lengths: column by column, beginning with pixels outside."""
    flat = mask.T.flatten().to(torch.int8)
    ends = torch.nonzero(torch.diff(flat)).flatten() + 1
    bounds = torch.cat([torch.zeros(1, dtype=torch.long), ends, torch.tensor([len(flat)])])
    counts = torch.diff(bounds).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if len(flat) and flat[0] else counts}


def _entry(name: str, found: Any, kind: AnyAnnotations) -> dict[str, Any]:
    """What was found in a picture, as JSON."""
    if isinstance(kind, ClassMaps):
        counts = torch.bincount(found.flatten(), minlength=len(kind.names)) / found.numel()
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
