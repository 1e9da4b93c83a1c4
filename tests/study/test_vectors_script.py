"""studies/vectors.py: squares of defects, planted copies, and that every part runs on a small encoder."""

import csv
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference.sources import Memory
from runs import tiny

from unmask.annotations import ObjectLabels, Objects
from unmask.contracts import Sample

SCRIPT = Path(__file__).parents[2] / "studies" / "vectors.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    yield runpy.run_path(str(SCRIPT), run_name="vectors")
    sys.modules.pop("features", None)


class Boxed(Memory):
    """One image of two squares by one, with a box in the right one."""

    def __init__(self) -> None:
        super().__init__(torch.arange(3 * 64 * 128).reshape(1, 3, 64, 128).to(torch.uint8))
        self.annotations = ObjectLabels(names=("dent",), masks=False)

    def __getitem__(self, position: int) -> Sample:
        box = torch.tensor([[70.0, 10, 80, 30]])
        return super().__getitem__(position)._replace(annotation=Objects(box, torch.tensor([0])))


def test_squares_without_boxes_are_normal(script: dict[str, Any], tmp_path: Path) -> None:
    script["write_squares"](Boxed(), tmp_path, False)
    script["write_squares"](Boxed(), tmp_path, True)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    assert files == {
        "normal/00000-0-0.png",
        "test/good/00000-0-0.png",
        "test/defect/00000-0-64.png",
        "ground_truth/defect/00000-0-64_mask.png",
    }
    mask = np.array(Image.open(tmp_path / "ground_truth/defect/00000-0-64_mask.png"))
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 29, 6, 15)
    expected = Boxed()[0].image[:, :, 64:].permute(1, 2, 0).numpy()
    assert (np.array(Image.open(tmp_path / "test/defect/00000-0-64.png")) == expected).all()


@pytest.mark.slow
def test_every_part_runs(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, count in (("train", 12), ("test", 6)):
        tiny.write_classes(tmp_path / "animals" / split, ("good", "dogs"), count=count)
    data = tmp_path / "animals"
    run = tiny.finished_run(tmp_path / "run", data).root
    pair, triple = f"{run}:{data}", f"{run}:{data / 'train' / 'good'}:{data}"
    words = ["--retrieval", pair, "--duplicates", pair, "--odd", triple, "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", ["vectors.py", *words, "--out", str(tmp_path / "found")])
    threads = torch.get_num_threads()
    script["main"]()
    torch.set_num_threads(threads)
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["part"] for row in rows} == {"retrieval", "duplicates", "odd"}
    retrieval = [row for row in rows if row["part"] == "retrieval"]
    assert len({(row["encoder"], row["seed"]) for row in retrieval}) == 4
    shares = [row for row in rows if not row["measure"].startswith("pairs")]
    assert all(0 <= float(row["score"]) <= 1 for row in shares)
    copies = {row["measure"]: float(row["score"]) for row in rows if row["part"] == "duplicates"}
    assert copies["another file"] == 1 > copies["rotated by 90 degrees"]
    assert {row["measure"] for row in rows if row["part"] == "odd"} >= {"image AUROC", "image AP"}
    text = (tmp_path / "found.md").read_text()
    assert "| data | encoder | k-NN | R@1 | mAP@R |" in text
