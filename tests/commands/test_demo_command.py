"""`unmask demo`, much shortened: what it writes and what it says."""

import json
import re
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands.said import Unmask
from PIL import Image
from runs import tiny

from unmask.commands import demo
from unmask.data.views import CenterCrop
from unmask.evaluation import few_labels
from unmask.recipes import RECIPES


class Here(ProcessPoolExecutor):
    """A pool of processes that is this process: nothing has to be imported again."""

    def __init__(self, *settings: object, **more: object) -> None:
        pass

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        """Do it now."""
        future: Future[Any] = Future()
        future.set_result(work(*args))
        return future


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny recipe, few steps of fine-tuning, and two counts of labels."""
    recipe = replace(tiny.RECIPE, views=CenterCrop(), batch_size=64)
    monkeypatch.setattr(
        demo, "RECIPES", {"mae-digits": replace(RECIPES["mae-digits"], recipe=recipe)}
    )
    monkeypatch.setattr(demo, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(demo, "_LABELS", (1, 3))
    monkeypatch.setattr(few_labels, "STEPS", 2)


@pytest.mark.slow
def test_demo(unmask: Unmask, short: None) -> None:
    said = unmask("demo", "--epochs", "1", "--seeds", "1", "--out", "shown")
    assert said.status == 0
    assert "1,442 handwritten digits without labels; 355 others are kept" in said.out
    out = Path("shown")
    for name in ("table.md", "results.json", "loss.png", "sheet.png", "run"):
        assert f"{out / name} " in said.out
        assert (out / name).exists()
    assert said.out.endswith("unmask pretrain FOLDER_OF_IMAGES --minutes 20")

    rows = json.loads((out / "results.json").read_text())
    arms = {(row["method"], row["encoder"]) for row in rows}
    assert arms == {
        ("linear classifier", "raw pixels"),
        ("linear classifier", "random weights"),
        ("linear classifier", "pretrained"),
        ("fine-tuning", "random weights"),
        ("fine-tuning", "pretrained"),
    }
    assert len(rows) == 2 * len(arms)
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    raw = {
        row["labels_per_class"]: row["accuracy"] for row in rows if row["encoder"] == "raw pixels"
    }
    assert raw[3] > raw[1] > 0.3  # chance is 0.1

    table = (out / "table.md").read_text()
    assert "| linear classifier | pretrained |" in table
    assert "1 per class" in table
    gains = re.findall(
        r"^\| (.*) \| (.*) \| ([+-][\d.]+) \((.*)\) \| ([+-][\d.]+) \((.*)\) \|$", table, re.M
    )
    accuracy = {
        (row["method"], row["encoder"], row["labels_per_class"]): row["accuracy"] for row in rows
    }
    assert len(gains) == 3
    for method, other, *cells in gains:
        for labels, points, word in ((1, *cells[:2]), (3, *cells[2:])):
            gain = accuracy[method, "pretrained", labels] - accuracy[method, other, labels]
            assert float(points) == pytest.approx(100 * gain, abs=0.051)
            assert word == ("wins" if gain > 0 else "loses" if gain < 0 else "within noise")
    assert "gain of pretraining in points" in said.out
    assert "so it lacks steps" in said.out, "two steps are too few"
    for name in ("loss.png", "sheet.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300

    again = unmask("demo", "--epochs", "1", "--seeds", "1", "--out", "shown")
    assert again.status == 1
    assert "shown holds a demo already" in again.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--epochs", "0"], "--epochs must be above 0, got 0"),
        (["--epochs", "-1"], "--epochs must be above 0, got -1"),
    ],
)
def test_bad_flags(unmask: Unmask, flags: list[str], words: str) -> None:
    said = unmask("demo", *flags)
    assert said.status == 1
    assert words in said.err
    assert not Path("unmask-demo").exists()


def test_pages_show_the_table_of_the_demo() -> None:
    root = Path(__file__).parents[2]
    head = "| method | encoder |"
    tables = [
        [line for line in (root / page).read_text().split(head)[1].splitlines() if line[:1] == "|"]
        for page in ("README.md", "studies/digits.md")
    ]
    assert tables[0][:6] == tables[1][:6]
    rows = [tuple(line.strip("| ").split(" | ")[:2]) for line in tables[0][1:6]]
    starts = (few_labels.RAW, demo._RANDOM, demo._PRETRAINED)
    assert rows == [
        *((few_labels.LINEAR, start) for start in starts),
        *((few_labels.TUNED, start) for start in starts[1:]),
    ]
