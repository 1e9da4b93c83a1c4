"""Scoring a detector: average precision of 5,000 pictures with 36,000 boxes, beside pycocotools.

    python benchmarks/average_precision.py --out benchmarks/average-precision.json
    python benchmarks/average_precision.py --masks --pictures 1000 --boxes 7200

As many pictures, classes and objects as COCO's validation set has, drawn at random, and detections near and off them. Both get
the same numbers and must agree to six digits before times are printed. unmask's time is all of it: adding pictures one by one and
the scores of every class; pycocotools' is loading, matching and summing, and for masks making run lengths of them, which is
told apart too. Processor time of one thread, in turns.
"""

import argparse
import contextlib
import io
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from unmask.annotations import Objects
from unmask.tasks.average_precision import Precisions
from unmask.tasks.detection_scores import DetectionScore
from unmask.tasks.detections import Detections

CLASSES = 80
HEIGHT, WIDTH = 480, 640
GOAL = 1 / 5

Pictures = list[tuple[Detections, Objects]]


def draw(pictures: int, boxes: int, detections: int, masks: bool) -> Pictures:
    """Objects of all sizes in each picture; three guesses near each, and others anywhere."""
    random = np.random.default_rng(0)
    counts = random.multinomial(boxes, np.full(pictures, 1 / pictures))
    drawn: Pictures = []
    for count in counts.tolist():
        sides = 8 + random.random((count, 2)) ** 2 * (WIDTH // 2)
        corners = random.random((count, 2)) * (WIDTH - 16, HEIGHT - 16)
        known = clip(np.concatenate([corners, corners + sides], 1))
        classes = random.integers(0, CLASSES, count)
        noise = random.normal(size=(3, count, 4)) * np.array([1, 5, 20])[:, None, None]
        near = clip((known + noise).reshape(-1, 4))
        guessed = np.tile(classes, 3)
        rest = max(0, detections - len(near))
        start = random.random((rest, 2)) * (WIDTH - 64, HEIGHT - 64)
        far = clip(np.concatenate([start, start + random.uniform(8, 200, (rest, 2))], 1))
        found = np.concatenate([near, far]).astype(np.float32)
        numbers = np.concatenate([guessed, random.integers(0, CLASSES, rest)])
        scores = torch.from_numpy(random.random(len(found)).astype(np.float32))
        truth = torch.from_numpy(known.astype(np.float32))
        drawn.append(
            (
                Detections(
                    torch.from_numpy(found), scores, torch.from_numpy(numbers), filled(found, masks)
                ),
                Objects(truth, torch.from_numpy(classes), filled(known, masks)),
            )
        )
    return drawn


def clip(boxes: Any) -> Any:
    """Boxes in the picture, of whole pixels and at least two wide and high."""
    boxes = np.round(boxes)
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, WIDTH)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, HEIGHT)
    boxes[:, 2] = np.maximum(boxes[:, 2], np.minimum(boxes[:, 0], WIDTH - 2) + 2)
    boxes[:, 3] = np.maximum(boxes[:, 3], np.minimum(boxes[:, 1], HEIGHT - 2) + 2)
    boxes[:, :2] = np.minimum(boxes[:, :2], boxes[:, 2:] - 2)
    return boxes


def filled(boxes: Any, masks: bool) -> torch.Tensor | None:
    """A mask for each box that leaves out its upper left quarter."""
    if not masks:
        return None
    found = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(found, boxes.astype(int).tolist(), strict=True):
        mask[top:bottom, left:right] = True
        mask[top : (top + bottom) // 2, left : (left + right) // 2] = False
    return found


def ours(pictures: Pictures, masks: bool) -> tuple[float, list[float]]:
    """Seconds, and the AP of boxes and masks."""
    started = process_time()
    scoring = Precisions(tuple(map(str, range(CLASSES))), masks)
    for found, known in pictures:
        scoring.add((found,), (known,))
    score: DetectionScore = scoring.result()
    parts = [part for part in (score.box, score.mask) if part]
    return process_time() - started, [part.ap or 0.0 for part in parts]


def in_files(pictures: Pictures, masks: bool) -> tuple[dict[str, Any], list[dict[str, Any]], float]:
    """The truth and the detections as pycocotools reads them from JSON, and seconds for the run lengths of masks."""
    seconds = 0.0
    truth: list[dict[str, Any]] = []
    guesses: list[dict[str, Any]] = []
    for number, (found, known) in enumerate(pictures, 1):
        for objects, rows in ((known, truth), (found, guesses)):
            for row, (left, top, right, bottom) in enumerate(objects.boxes.tolist()):
                box = [left, top, right - left, bottom - top]
                entry = {"image_id": number, "category_id": int(objects.classes[row]) + 1}
                entry |= {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "id": len(rows) + 1}
                if objects is found:
                    entry["score"] = float(found.scores[row])
                if masks:
                    started = process_time()
                    flat = np.asfortranarray(objects.masks[row].numpy().astype(np.uint8))
                    entry["segmentation"] = run_lengths.encode(flat)
                    entry["area"] = float(run_lengths.area(entry["segmentation"]))
                    seconds += process_time() - started
                rows.append(entry)
    images = [{"id": n + 1, "width": WIDTH, "height": HEIGHT} for n in range(len(pictures))]
    names = [{"id": n + 1, "name": str(n)} for n in range(CLASSES)]
    return {"images": images, "annotations": truth, "categories": names}, guesses, seconds


def theirs(
    content: dict[str, Any], guesses: list[dict[str, Any]], masks: bool
) -> tuple[float, list[float]]:
    """Seconds, and the AP of boxes and masks, by pycocotools."""
    guesses = [dict(guess) for guess in guesses]  # it writes into them
    started, found = process_time(), list[float]()
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = content
        known.createIndex()
        detected = known.loadRes(guesses)
        for part in ("bbox", "segm") if masks else ("bbox",):
            scoring = COCOeval(known, detected, part)
            scoring.evaluate()
            scoring.accumulate()
            scoring.summarize()
            found.append(float(scoring.stats[0]))
    return process_time() - started, found


def spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--boxes", type=int, default=36_000)
    parser.add_argument("--detections", type=int, default=100, help="in a picture")
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures = draw(options.pictures, options.boxes, options.detections, options.masks)
    content, guesses, encoding = in_files(pictures, options.masks)
    mine: list[float] = []
    other: list[float] = []
    for _ in range(options.rounds):
        seconds, found = ours(pictures, options.masks)
        mine.append(seconds)
        seconds, expected = theirs(content, guesses, options.masks)
        other.append(encoding + seconds)
        assert np.allclose(found, expected, atol=1e-6), (found, expected)
    ratio = statistics.median(mine) / statistics.median(other)
    print(
        f"{options.pictures:,} pictures, {options.boxes:,} objects, {len(guesses):,} detections"
        f"{', masks' if options.masks else ''}: AP {found}\n"
        f"  unmask       {spread(mine)}\n  pycocotools  {spread(other)}\n"
        f"  (of which run lengths of masks {encoding:.2f} s)\n  ratio        {ratio:.3f}{'' if options.masks else f' (goal {GOAL})'}"
    )
    if options.out:
        figures = vars(options) | {
            "out": None,
            "unmask": mine,
            "pycocotools": other,
            "run_lengths": encoding,
            "ratio": ratio,
        }
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
