"""Labels and columns of shards and Parquet, as a user of the commands meets them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands.said import Unmask
from data.test_shards import png, write_tar
from runs import tiny_transfer

from unmask.data import Parquet, Shards
from unmask.runs.folder import RunFolder

IMAGES = [png(20 + 10 * (row % 2) + row, 10) for row in range(20)]
LABELS = [float(row % 2) for row in range(20)]
CHECK = ["--protocol", "knn", "--json"]


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("form", ["tar cls", "tar json", "parquet", "text", "labels file"])
def test_one_set_of_labels_has_the_same_classes_everywhere(
    unmask: Unmask, trained: RunFolder, tmp_path: Path, form: str
) -> None:
    """0.0 and 1.0, which a table with a missing label makes of 0 and 1."""
    flags: list[Any] = []
    data = tmp_path / ("x.parquet" if form in ("parquet", "text", "labels file") else "x.tar")
    if data.suffix == ".tar":
        beside = {"tar cls": "{}", "tar json": '{{"label": {}}}'}[form]
        ending = form.split()[1]
        members = [
            member
            for row, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True))
            for member in (
                (f"{row}.png", image),
                (f"{row}.{ending}", beside.format(label).encode()),
            )
        ]
        write_tar(data, members)
    elif form == "labels file":
        names = [f"x.parquet:{row}" for row in range(20)]
        parquet(data, image=IMAGES)
        flags = [
            "--labels-file",
            parquet(tmp_path / "labels.parquet", file_name=names, label=LABELS),
        ]
    else:
        label = LABELS if form == "parquet" else pa.array(map(str, LABELS), pa.string_view())
        parquet(data, image=IMAGES, label=label)
    said = unmask("evaluate", trained.root, data, *CHECK, *flags)
    assert said.status == 0, said.err
    figures = json.loads(said.raw)
    assert (figures["classes"], figures["train_images"], figures["test_images"]) == (2, 16, 4)
    assert figures["measure"] == "top-1"


def test_several_labels_of_an_image_in_parquet(
    unmask: Unmask, trained: RunFolder, tmp_path: Path
) -> None:
    label = pa.array([[row % 2, 2] for row in range(20)], pa.large_list(pa.uint8()))
    recipe = ["--recipe", f"{tiny_transfer.__file__}:TRANSFER", "--threads", 1, "--workers", 0]
    data = parquet(tmp_path / "x.parquet", image=IMAGES, label=label)
    said = unmask("finetune", trained.root, data, *recipe, "--out", tmp_path / "run")
    assert said.status == 0, said.err
    assert "of 3 classes" in said.out


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (np.linspace(0, 1, 20), "column label is not read as classes: 0.0526"),
        ([{"x": 1}] * 20, "column label of type struct<x: int64> is not read as classes"),
    ],
)
def test_a_column_that_is_not_read_is_named_twice(
    unmask: Unmask, trained: RunFolder, tmp_path: Path, label: Any, said: str
) -> None:
    """Where images are listed, and where labels are needed; nobody is told to make class folders alone."""
    data = parquet(tmp_path / "x.parquet", image=IMAGES, label=label)
    answer = unmask("evaluate", trained.root, data, *CHECK)
    assert answer.status == 1
    assert said in answer.err
    flags = ["--recipe", "mae-digits", "--batch-size", 8, "--epochs", 1, "--threads", 1]
    answer = unmask("pretrain", data, *flags, "--workers", 0, "--out", tmp_path / "run")
    assert answer.status == 0
    assert said in answer.out


def test_the_choice_of_a_column_is_said(unmask: Unmask, tmp_path: Path) -> None:
    data = parquet(tmp_path / "x.parquet", thumb=[png(3, 10)] * 20, image=IMAGES)
    flags = ["--recipe", "mae-digits", "--batch-size", 8, "--epochs", 1, "--threads", 1]
    said = unmask("pretrain", data, *flags, "--workers", 0, "--out", tmp_path / "run")
    assert said.status == 0
    assert "images from column image; thumb holds bytes too" in said.out


def test_packed_labels_of_all_kinds_come_back(unmask: Unmask, tmp_path: Path) -> None:

    label = pa.array([[row % 2] if row % 5 else [] if row % 2 else None for row in range(20)])
    data = parquet(tmp_path / "x.parquet", image=IMAGES, label=label)
    assert unmask("pack", data, tmp_path / "shards", "--workers", 0).status == 0
    sources = [Parquet(path=str(data)).open(), Shards(path=str(tmp_path / "shards")).open()]
    assert sources[0].annotations == sources[1].annotations
    assert sources[0].labels().tolist() == sources[1].labels().tolist()
