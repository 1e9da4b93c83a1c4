"""The measures of scores, their words, and the table of classes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from unmask.annotations import ClassLabels, ClassMaps, MultiLabels, ObjectLabels, Objects
from unmask.errors import RunError
from unmask.files import write_text
from unmask.measures import Baseline, Measure, ScoreTable, cell_words
from unmask.runs.folder import RunFolder
from unmask.runs.results import read_results, results_of
from unmask.spec import kinds
from unmask.tasks import AnyTask
from unmask.tasks.detections import Detections

NAMES = ("road", "tree")
BOX = torch.tensor([[1.0, 2.0, 9.0, 8.0]])
MASK = torch.ones(1, 10, 10).bool()


def objects(masks: bool) -> tuple[Any, Any]:
    """An object, and the detection that is exactly on it."""
    known, mask = torch.tensor([1]), MASK if masks else None
    return (Detections(BOX, torch.tensor([0.9]), known, mask),), (Objects(BOX, known, mask),)


ANSWERS: dict[str, list[tuple[Any, Any, Any]]] = {
    "classify": [(ClassLabels(names=NAMES), torch.eye(2), torch.tensor([0, 0]))],
    "multi-label": [(MultiLabels(names=NAMES), torch.eye(2), torch.eye(2))],
    "segment": [(ClassMaps(names=NAMES), (torch.eye(4).long(),), (torch.zeros(4, 4).long(),))],
    "detect": [
        (ObjectLabels(names=NAMES, masks=masks), *objects(masks)) for masks in (False, True)
    ],
}
"""Annotations, outputs and truth of each task."""


@pytest.mark.parametrize("task", kinds(AnyTask))
def test_every_task_names_its_measures_and_can_read_its_score_again(
    task: str, tmp_path: Path
) -> None:
    spec: Any = kinds(AnyTask)[task]()
    for annotations, outputs, truth in ANSWERS[task]:
        scoring = spec.scoring(annotations)
        scoring.add(outputs, truth)
        score = scoring.result()
        first, *others = score.measures()
        assert (first.name, first.value, first.better) == (score.measure, score.value, "higher")
        assert first.baseline is not None
        assert "test images" in [one.name for one in others]
        table = score.table()
        assert [row[0] for row in table.rows] == list(NAMES)
        assert table.ranked_by in table.headings[table.described :]

        folder = RunFolder(tmp_path)
        write_text(folder.results, json.dumps(results_of(score, 3, 1.5)))
        again = read_results(folder, spec.score_types)
        assert again is not None
        assert again.score == score
        assert again.left_out == 3


def test_a_score_of_another_version_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    types = kinds(AnyTask)["segment"]().score_types
    assert read_results(folder, types) is None
    write_text(folder.results, '{"top1": 0.5}')
    with pytest.raises(
        RunError, match=r"results\.json does not hold the score of this run .*mean_iou"
    ):
        read_results(folder, types)
    assert read_results(folder, ()) is None


def test_the_direction_of_a_measure_decides_what_is_better() -> None:
    assert Measure("mIoU", 0.5).beats(0.4)
    assert not Measure("mIoU", 0.4).beats(0.4)
    assert Measure("error", 0.3, better="lower").beats(0.4)
    assert not Measure("box AP", None).beats(0.0)


def test_values_are_shown_with_their_unit() -> None:
    assert Measure("mIoU", 0.4567).words == "45.7%"
    assert Measure("PSNR", 8.213, "dB").words == "8.21 dB"
    assert Measure("images", 12345, "count", None).words == "12,345"
    assert Measure("box AP", None).words == "not defined"
    baseline = Baseline("k-means", 3.0)
    assert Measure("PSNR", 8.2, "dB", baseline=baseline).baseline_words == "k-means 3.00 dB"
    assert [cell_words(cell) for cell in ("sky", 1200, 0.25, None)] == [
        "sky",
        "1,200",
        "25.0%",
        "-",
    ]


def test_the_weakest_classes_keep_their_order() -> None:
    scores = [0.9, None, 0.1, 0.5]
    rows = tuple((name, score) for name, score in zip("abcd", scores, strict=True))
    table = ScoreTable(("class", "IoU"), rows, described=1, ranked_by="IoU")
    assert [row[0] for row in table.weakest(2)] == ["c", "d"]
    assert table.weakest(10) == list(rows)
    assert table.mean() == ("mean of classes", pytest.approx(0.5))
