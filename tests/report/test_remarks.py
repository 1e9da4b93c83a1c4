"""The sentences on top of a report."""

from pathlib import Path

import pytest
from runs import tiny

from unmask.report.curves import Curves
from unmask.report.remarks import remarks
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run

STEPS = 60  # of the run, so that the log has a first and a last tenth


@pytest.fixture
def folder(tmp_path: Path, images_here: Path) -> RunFolder:
    """A run that has not taken a step; the logs are those of the tests."""
    return tiny.begin(tmp_path / "run", images_here)


def said(folder: RunFolder, **last: float) -> dict[str, str]:
    """The remarks on a log whose losses fall, with these fields in the last line: words by mark."""
    lines = [
        {"step": step, "loss": 1 - step / 100, "waiting": 0.02, "images_per_second": 50.0}
        for step in range(1, STEPS + 1)
    ]
    lines[-1] |= last
    every = remarks(Run.read(folder), folder, Curves(lines), is_training=False)
    return {one.words: one.mark for one in every}


def mark_of(words: str, every: dict[str, str]) -> str:
    return next(mark for sentence, mark in every.items() if sentence.startswith(words))


CHECK = {"effective_rank": 6.0, "possible_rank": 8.0, "rank_random": 5.0, "looked_at": 400.0}


def test_a_good_run(folder: RunFolder) -> None:
    every = said(folder, **CHECK, knn=0.8, knn_random=0.3, knn_chance=0.1)
    assert set(every.values()) == {"good"}
    for words in ("Finished", "The loss fell", "No collapse", "k-NN is better", "Loading keeps up"):
        assert mark_of(words, every) == "good"


@pytest.mark.parametrize(
    ("knn", "words", "mark"),
    [
        (0.33, "k-NN shows no difference yet", "plain"),  # one standard error
        (0.20, "k-NN is worse", "warning"),
        (0.45, "k-NN is better", "good"),
    ],
)
def test_neighbours_are_judged_by_their_error(
    folder: RunFolder, knn: float, words: str, mark: str
) -> None:
    every = said(folder, **CHECK, knn=knn, knn_random=0.3, knn_chance=0.1)
    assert mark_of(words, every) == mark


def test_a_collapse(folder: RunFolder) -> None:
    every = said(folder, **(CHECK | {"effective_rank": 1.0, "rank_random": 40.0}))
    assert mark_of("Collapsed at step 60", every) == "warning"


def test_waiting_and_a_rising_loss(folder: RunFolder) -> None:
    lines = [
        {"step": step, "loss": 1 + step / 100, "waiting": 0.4, "images_per_second": 50.0}
        for step in range(1, STEPS + 1)
    ]
    run = Run.read(folder)
    every = {one.words: one.mark for one in remarks(run, folder, Curves(lines), is_training=False)}
    assert mark_of("The loss did not fall", every) == "warning"
    assert mark_of("Loading slows training: 50 images/s, 40%", every) == "warning"


def test_images_that_could_not_be_used(folder: RunFolder) -> None:
    folder.set_aside.write_text("file,reason\na.png,empty\nb.png,cut off\n")
    assert mark_of("2 images (14.3%) could not be used", said(folder)) == "warning"


def test_the_own_verdicts_of_an_evaluation_are_taken(folder: RunFolder) -> None:
    folder.evaluations.mkdir()
    (folder.evaluations / "knn-cells.json").write_text(
        '{"measure": "mIoU", "scores": [{"arm": "pretrained", "accuracy": 0.9}, {"arm": "raw pixels", "accuracy": 0.8}]}'
    )
    words = "knn-cells: mIoU 90.0% at best, 10.0 points above raw pixels (80.0%)."
    assert said(folder)[words] == "good"
    (folder.evaluations / "knn-cells.json").write_text(
        '{"scores": [], "verdicts": [{"outcome": "worse", "words": "worse than raw pixels: -2 points"}]}'
    )
    assert said(folder)["knn-cells: worse than raw pixels: -2 points."] == "warning"
