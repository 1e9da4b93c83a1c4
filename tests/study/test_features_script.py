"""studies/features.py: its measure of retrieval, and that it runs on a small encoder."""

import csv
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.problems import random
from runs import tiny

SCRIPT = Path(__file__).parents[2] / "studies" / "features.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="features")


def test_map_at_r_is_that_of_its_definition(script: dict[str, Any]) -> None:
    """The precision at each right answer among the first R, over R (Musgrave and others, 2020, section 3.3)."""
    gallery, queries = (
        torch.randn(30, 4, generator=random(0)),
        torch.randn(7, 4, generator=random(1)),
    )
    labels = torch.arange(30) % 4
    truth = torch.arange(7) % 5  # nothing in the gallery is of class 4
    expected = []
    for query, own in zip(queries.numpy(), truth.tolist(), strict=True):
        cosine = gallery.numpy() @ query / np.linalg.norm(gallery.numpy(), axis=1)
        right = labels.numpy()[np.argsort(-cosine)] == own
        r = int((labels == own).sum())
        found = [right[: i + 1].mean() for i in range(r) if right[i]]
        expected.append(sum(found) / r if r else 0.0)
    found = script["map_at_r"](gallery, labels, queries, truth)
    assert found == pytest.approx(np.mean(expected), rel=1e-5)  # float32


def test_variants_that_are_the_same_are_scored_once(script: dict[str, Any]) -> None:
    words = [variant.words for variant in script["VARIANTS"]]
    assert len(words) == len(set(words)) == 2 * (6 + 6 + 11)
    assert "gem, middle block: position means subtracted, whitened to 64" in words
    assert not any("position" in word for word in words if word.startswith(("class", "mean")))


def test_several_encoders_on_one_set_are_told_apart(script: dict[str, Any]) -> None:
    pairs = ["runs/a:data/cells", "runs/b:data/cells", "runs/a:data/steel"]
    assert script["names_of"](pairs) == ["cells, a", "cells, b", "steel"]


@pytest.mark.slow
def test_the_study_chooses_and_confirms(script: dict[str, Any], tmp_path: Path) -> None:
    data = tiny.write_classes(tmp_path / "animals", count=20)
    run = tiny.finished_run(tmp_path / "run", data)
    script["study"]([f"{run.root}:{data}"], 100, tmp_path / "found", script["VARIANTS"])
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["encoder"] for row in rows} == {"trained", "random weights", "raw pixels"}
    assert {row["stage"] for row in rows} == {"held out", "test"}
    assert all(0 <= float(row["score"]) <= 1 for row in rows)
    tested = {row["variant"] for row in rows if row["stage"] == "test"}
    assert {"class: plain", "mean: plain"} < tested
    text = (tmp_path / "found.md").read_text()
    assert "animals: 32 training and 8 test images" in text
