"""DATA with class maps or objects through the commands: which kind it is, and that pixels alone are learned from."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands.said import Unmask
from reference.dense import (
    COUNT,
    WRITERS,
    Thing,
    coco,
    picture,
    write_boxes,
    write_lines,
    write_map,
    write_maps,
)
from runs import tiny

from unmask.annotations import Objects, Unlabelled
from unmask.contracts import Size
from unmask.data import AnySource, Coco
from unmask.data.annotated import found_in, pictures_alone, present_in
from unmask.data.cpu_feed import CpuFeed
from unmask.data.kinds import find_source, is_data, kind_of
from unmask.data.labelled import Subset
from unmask.data.loader import SetAside, batches
from unmask.data.pack_manifest import read_pack
from unmask.data.views import CenterCrop
from unmask.errors import DataError, SettingsError
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.spec import kind_of as public_name
from unmask.traits import Noted

SHORT = [
    "--recipe", "segment-ti8", "--epochs", "1", "--batch-size", "2", "--threads", "1", "--workers", "0", "--image-size",
    "16", "--encoder.patch-size", "4", "--encoder.embed-dim", "24", "--encoder.depth", "4", "--encoder.num-heads", "3",
    "--task.head.channels", "8",
]  # fmt: skip
"""Flags of a small segmentation."""


@pytest.mark.parametrize("kind", WRITERS)
def test_the_kind_is_detected_and_pictures_are_counted_alone(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path)
    data: AnySource = find_source(str(tmp_path))
    assert public_name(AnySource, data) == kind
    source = data.open()
    assert len(source) == COUNT
    assert found_in(source) is not None
    present = present_in(Subset(source, np.array([1, 3])))
    assert present is not None
    assert len(present) == 2
    alone = pictures_alone(data)
    assert len(alone) == COUNT
    assert alone.annotations == Unlabelled()
    assert not {alone.name(row) for row in range(COUNT)} & {f"masks/{n}.png" for n in range(COUNT)}


def test_a_file_is_data_too(tmp_path: Path) -> None:
    write_boxes(tmp_path)
    file = tmp_path / "annotations" / "instances_train.json"
    assert find_source(str(file)) == Coco(path=str(file))
    assert is_data(str(file))
    write_lines(tmp_path / "yolo")
    (tmp_path / "yolo" / "data.yaml").write_text("train: images/train\nnames: [a]\n")
    assert kind_of(str(tmp_path / "yolo" / "data.yaml")) == "yolo"
    (tmp_path / "table.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="is a table; give the folder of its images"):
        find_source(str(tmp_path / "table.json"))


@pytest.mark.parametrize(
    "names", [("images", "labels"), ("masks", "images"), ("cats", "annotations")]
)
def test_folders_of_classes_stay_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        for number in range(3):
            picture(tmp_path / name / f"{name}-{number}.png")
    assert kind_of(str(tmp_path)) == "folder"


def test_class_folders_with_boxes_beside_them_stay_classes(tmp_path: Path) -> None:
    names = [f"{animal}/{number}.png" for animal in ("cats", "dogs") for number in range(2)]
    for split in ("train", "val"):
        for name in names:
            picture(tmp_path / split / name)
    (tmp_path / "annotations").mkdir()
    content = coco({name: [Thing((1, 2, 3, 4))] for name in names})
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    assert find_source(str(tmp_path)).open().annotations.names == ("cats", "dogs")
    assert len(find_source(str(tmp_path), "coco").open()) == 4


def test_files_of_other_tools_are_no_annotations(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "config.yaml").write_text("model: resnet\nnames: x\n")
    (tmp_path / "meta.json").write_text('{"version": 1}')
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("a photograph of a cat on a mat\n")
    assert kind_of(str(tmp_path)) == "folder"


def test_a_labels_file_and_bands_are_refused_with_the_way_out(tmp_path: Path) -> None:
    write_boxes(tmp_path)
    with pytest.raises(SettingsError, match=r"has its own annotations; .* add --data-kind folder"):
        find_source(str(tmp_path), labels_file="labels.csv")


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("yolo", "voc")]
QUICK = ["--threads", "1", "--workers", "0"]


@pytest.mark.parametrize("kind", ["maps", "coco", *SLOW])
def test_pretraining_sees_the_pictures_alone_and_resumes(
    kind: str, tmp_path: Path, unmask: Unmask
) -> None:
    WRITERS[kind](tmp_path / "data")
    out = tmp_path / "run"
    recipe = f"{tiny.__file__}:RECIPE"
    done = unmask(
        "pretrain", tmp_path / "data", "--recipe", recipe, "--epochs", "1", "--out", out, *QUICK
    )
    assert done.status == 0, done.err
    assert f"{COUNT} colour images in" in done.out
    assert f"pictures alone are used; annotations ({kind}) are not read" in done.out
    spec = json.loads((out / "spec.json").read_text())
    assert (spec["images"], spec["data"]["kind"]) == (COUNT, kind)
    again = unmask("pretrain", "--resume", out)
    assert again.status == 0, again.err
    shown = unmask("reconstruct", out, tmp_path / "data", "--out", tmp_path / "sheet.png")
    assert shown.status == 0, shown.err


def test_packing_refuses_annotations_and_packs_the_pictures_alone(
    tmp_path: Path, unmask: Unmask
) -> None:
    write_maps(tmp_path / "data")
    refused = unmask("pack", tmp_path / "data", tmp_path / "shards", "--workers", "0")
    assert refused.status != 0
    words = "a folder of shards cannot carry class maps yet; train on the original images, or pack the pictures alone"
    assert words in " ".join(refused.err.split())
    packed = unmask(
        "pack", tmp_path / "data", tmp_path / "shards", "--workers", "0", "--pictures-alone"
    )
    assert packed.status == 0, packed.err
    pack = read_pack(tmp_path / "shards")
    assert pack is not None
    assert pack.splits["train"].images == COUNT


def test_shards_with_class_maps_are_refused_and_boxes_in_tables_are_named(tmp_path: Path) -> None:
    write_maps(tmp_path / "data")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "data", arcname=".")
    with pytest.raises(
        DataError, match=r"class maps beside its pictures, such as masks/.\.png, .* unpack them"
    ):
        find_source(str(tmp_path / "a.tar")).open()
    image = {"bytes": (tmp_path / "data" / "images" / "0.png").read_bytes(), "path": "0.png"}
    pq.write_table(
        pa.table({"image": [image], "objects": [{"bbox": [[1, 2, 3, 4]]}]}), tmp_path / "a.parquet"
    )
    source = find_source(str(tmp_path / "a.parquet")).open()
    assert isinstance(source, Noted)
    assert any(note.startswith("boxes in column objects are not read") for note in source.notes)


def test_classification_of_boxes_is_refused(
    tmp_path: Path, unmask: Unmask, trained: RunFolder
) -> None:
    write_boxes(tmp_path / "data")
    refused = unmask("evaluate", trained.root, tmp_path / "data", "--threads", "1")
    assert refused.status != 0
    assert "comes with boxes" in " ".join(refused.err.split())


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_annotations_that_follow_their_pictures(
    kind: str, workers: int, tmp_path: Path
) -> None:
    """Also in loading processes, which share the arrays of the annotations."""
    WRITERS[kind](tmp_path)
    source = find_source(str(tmp_path)).open()
    feed = CpuFeed(source, CenterCrop(), Size(10, 10), 0)
    aside = SetAside(tmp_path / "aside.csv", COUNT, 0)
    cpu = torch.device("cpu")
    (batch,) = batches(
        feed, batch_size=4, first_step=0, steps=1, workers=workers, device=cpu, set_aside=aside
    )
    for row, index in enumerate(batch.index.tolist()):
        known = source[index].annotation
        if isinstance(known, torch.Tensor):
            assert isinstance(batch.annotations, torch.Tensor)
            assert torch.equal(batch.annotations[row], known[:, 5:15])
        else:
            assert isinstance(batch.annotations, tuple)
            assert isinstance(known, Objects)
            left = torch.tensor([5.0, 0.0, 5.0, 0.0])
            clipped = (known.boxes - left).clamp(0, 10)
            seen = clipped[:, 2] > clipped[:, 0]
            assert torch.equal(batch.annotations[row].boxes, clipped[seen])


def test_ignored_values_are_named_stored_and_scored_alike(tmp_path: Path, unmask: Unmask) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    for number in range(6):
        picture(data / "images" / f"{number}.png")
        values = np.full((10, 20), number % 2)
        values[:2], values[2:4, :5] = 7, 255
        write_map(data / "masks" / f"{number}.png", values)
    (data / "classes.txt").write_text("road\nsky\n")
    wrong = unmask("finetune", "scratch", data, *SHORT)
    assert "has the values 7 in 20.0% of its pixels" in wrong.err
    assert "classes.txt does not name; add them, or ignore them with --ignore 7,255" in wrong.err
    said = unmask("finetune", "scratch", data, *SHORT, "--ignore", "7,255", "--out", out)
    assert said.status == 0, said.err
    assert "25.0% of all are ignored" in said.out
    assert "--ignore 7,255" in said.out  # of the command to use it
    spec = Run.read(RunFolder(out), "finetune")
    assert spec.data.ignored == (7, 255)
    assert json.loads((out / "results.json").read_text())["pixels"] == 150
    # predict scores the pixels of the run, whatever its own command line says not
    shown = unmask("predict", out, data, "--threads", "1", "--out", tmp_path / "found")
    assert shown.status == 0, shown.err
    assert "mIoU" in shown.out
    said = unmask("evaluate", out, data, "--ignore", "7,255", "--control", "none", "--threads", "1")
    assert said.status == 0, said.err
    for wrong, words in (
        (unmask("evaluate", out, data, "--control", "none"), "--ignore 7,255"),
        (unmask("finetune", "scratch", data, "--ignore", "seven"), "list of values of class maps"),
        (
            unmask("finetune", "scratch", "digits", "--ignore", "0"),
            "these images are of kind digits",
        ),
        (unmask("evaluate", out, "digits", "--ignore", "0"), "these images are of kind digits"),
        (unmask("finetune", "--resume", out, "--ignore", "255"), "so --ignore cannot change"),
    ):
        assert wrong.status == 1
        assert words in wrong.err


def test_colours_are_ignored_by_name(tmp_path: Path, unmask: Unmask) -> None:
    for number in range(2):
        picture(tmp_path / "images" / f"{number}.png")
        write_map(tmp_path / "masks" / f"{number}.png", np.full((10, 20, 3), (9, 8, 7)), "RGB")
    (tmp_path / "classes.csv").write_text("name,r,g,b\nroad,9,8,7\nsky,1,2,3\n")
    wrong = unmask("finetune", "scratch", tmp_path, "--ignore", "0")
    assert "--ignore 0 is for numbers, and" in wrong.err
    assert "call ignored colours void there" in wrong.err
