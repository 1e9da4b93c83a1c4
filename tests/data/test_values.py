"""Every source says what values its images hold; no image has to be decoded for that."""

import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from geo import scenes
from reference.dense import WRITERS
from rules.members import MEMBERS
from runs import tiny

from unmask.contracts import Size
from unmask.data import AnySource, Digits, Folder, GroundMap, LabelsFile, Parquet, Shards, Tiff
from unmask.data.held import hold
from unmask.data.labelled import Subset
from unmask.encoders import ViT
from unmask.errors import DataError
from unmask.formats.model import FORMAT, ModelSpec
from unmask.runs.weights import statistics_for
from unmask.spec import kinds


def folder(root: Path) -> Folder:
    return Folder(path=str(tiny.write_images(root / "photos", 4)))


def shards(root: Path) -> Shards:
    with tarfile.open(root / "photos.tar", "w") as tar:
        tar.add(folder(root).path, "photos")
    return Shards(path=str(root / "photos.tar"))


def arrays_in_shards(root: Path) -> Shards:
    with tarfile.open(root / "bands.tar", "w") as tar:
        tar.add(bands(root).path, "bands")
    return Shards(path=str(root / "bands.tar"))


def parquet(root: Path) -> Parquet:
    files = sorted(Path(folder(root).path).iterdir())
    pq.write_table(pa.table({"image": [f.read_bytes() for f in files]}), root / "x.parquet")
    return Parquet(path=str(root / "x.parquet"))


def bands(root: Path, kind: Any = np.float32, **spec: Any) -> Tiff:
    (root / "bands").mkdir()
    for number in range(4):
        np.save(root / "bands" / f"{number}.npy", np.full((4, 8, 8), number, dtype=kind))
    return Tiff(path=str(root / "bands"), **spec)


def with_labels(root: Path) -> LabelsFile:
    file = root / "labels.csv"
    file.write_text("file_name,label\n0.npy,a\n1.npy,b\n")
    return LabelsFile(data=bands(root), labels=str(file))


def dense(kind: str, root: Path) -> AnySource:
    """A set with class maps or objects."""
    WRITERS["maps" if kind == "instance-maps" else kind](root / kind)
    return kinds(AnySource)[kind](path=str(root / kind))


def ground_map(root: Path) -> AnySource:
    """A map with a world file, cut into tiles."""
    return GroundMap(path=str(scenes.with_world_file(root / "map.png")), tile_metres=(60.0,))


SOURCES = {
    **{
        kind: (partial(dense, kind), "uint8")
        for kind in ("maps", "instance-maps", "coco", "yolo", "voc")
    },
    "folder": (folder, "uint8"),
    "digits": (lambda _: Digits(), "uint8"),
    "shards": (shards, "uint8"),
    "parquet": (parquet, "uint8"),
    "tiff": (bands, "float32"),
    "tiff of bytes": (lambda root: bands(root, np.uint8), "uint8"),
    "tiff of bytes, some missing": (lambda root: bands(root, np.uint8, no_data=7.0), "float32"),
    "labels-file": (with_labels, "float32"),
    "arrays in shards": (arrays_in_shards, "float32"),
    "ground-map": (ground_map, "uint8"),
    "held": (
        lambda _: hold(np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8), labels=False),
        "uint8",
    ),
}


def test_every_source_is_tried_here() -> None:
    assert MEMBERS["source"].keys() <= SOURCES.keys()


@pytest.mark.parametrize("kind", SOURCES)
def test_they_are_what_is_decoded(tmp_path: Path, kind: str) -> None:
    make, values = SOURCES[kind]
    spec: AnySource = make(tmp_path)
    source = spec.open("train")
    assert source.values == values
    assert source[0].image.dtype == getattr(torch, values)
    part = Subset(source, np.array([1]))
    assert part.values == values


def test_weights_keep_their_statistics_though_the_first_image_is_damaged(tmp_path: Path) -> None:
    source = folder(tmp_path).open("train")
    first = tmp_path / "photos" / source.name(0)
    first.write_bytes(first.read_bytes()[:60])
    source = Folder(path=str(first.parent)).open("train")
    with pytest.raises(DataError):
        source[0]
    spec = ModelSpec(
        format=FORMAT,
        encoder=ViT(patch_size=2, embed_dim=8, depth=1, num_heads=2),
        objective=None,
        image_size=Size(8, 8),
        channels=3,
        statistics=tiny.IMAGENET,
        origin="test",
    )
    assert statistics_for(spec, source) == tiny.IMAGENET
    assert statistics_for(spec, Digits().open("train")) is None
    (tmp_path / "other").mkdir()
    assert statistics_for(spec, bands(tmp_path / "other").open("train")) is None


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    """The first of bytes, whose header cannot be read, makes no difference to what the others hold."""
    spec = bands(tmp_path, np.uint8)
    (tmp_path / "bands" / "0.npy").write_bytes(b"\x93NUMPY")
    source = spec.open("train")
    assert (len(source), source.values) == (3, "uint8")
