"""Segmentation and detection through the commands: from the data to the score, predictions and Python."""

import csv
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands.pages import words_of
from commands.said import Unmask
from PIL import Image
from reference.dense import WRITERS, Thing, coco, picture, write_coco, write_map
from runs import tiny

import unmask as package
from unmask.annotations import ClassMaps, ObjectLabels, Objects
from unmask.console import hardware, train
from unmask.data import Coco, InstanceMaps, Maps
from unmask.errors import RunError
from unmask.page.runtime import FILES
from unmask.runs import plan
from unmask.runs.folder import RunFolder
from unmask.runs.predict import truth_of
from unmask.runs.run import Run
from unmask.training.logbook import read_log

QUICK = ["--threads", "1", "--workers", "0", "--batch-size", "2"]
SMALL = [
    "--image-size", "16", "--encoder.patch-size", "4", "--encoder.embed-dim", "24",
    "--encoder.depth", "4", "--encoder.num-heads", "3",
]  # fmt: skip
RECIPES = {
    "maps": "segment-ti8",
    "coco": "detect-mini",
    "yolo": "detect-mini",
    "voc": "detect-mini",
}
PARTS = {
    "maps": ["--task.head.channels", "8"],
    "coco": ["--task.channels", "8", "--task.sampled", "16"],
}
PARTS |= {"yolo": PARTS["coco"], "voc": PARTS["coco"]}


def tuned(unmask: Unmask, kind: str, out: Path, data: Path, *more: str) -> str:
    """What a short fine-tuning run says."""
    said = unmask(
        "finetune", "scratch", data, "--recipe", RECIPES[kind], "--out", out, "--epochs", "2",
        *QUICK, *SMALL, *PARTS[kind], *more,
    )  # fmt: skip
    assert said.status == 0, said.err
    return said.all


def opened(file: Path) -> Any:
    """The values of a picture."""
    with Image.open(file) as image:
        return np.array(image)


def shown_score(kind: str, results: dict[str, Any]) -> tuple[str, float]:
    """The main measure of a run, and its value in `results.json`."""
    if kind == "maps":
        return "mIoU", results["mean_iou"]
    part = "mask" if results["mask"] else "box"
    return f"{part} AP", results[part]["ap"]


def losses(root: Path) -> list[float]:
    return [line["loss"] for line in read_log(RunFolder(root).log) if "loss" in line]


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("yolo", "voc")]


@pytest.mark.parametrize("kind", ["maps", "coco", *SLOW])
def test_from_the_data_to_predictions(kind: str, tmp_path: Path, unmask: Unmask) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    WRITERS[kind](data)
    said = tuned(unmask, kind, out, data)
    measure, found = ("mIoU", "pixels in") if kind == "maps" else ("AP", "objects in")
    assert found in said
    assert measure in said
    assert torch.tensor(losses(out)).isfinite().all()
    results = json.loads((out / "results.json").read_text())
    assert results["images"] > 0
    with (out / "classes.csv").open(newline="") as file:
        headings, *rows = csv.reader(file)
    assert len(rows) == len(results["classes"])
    page = words_of((out / "report.html").read_text())
    main, value = shown_score(kind, results)
    assert f"Score: {main} {value:.1%}" in page
    for words in ("Score on test images", "Scores of each class", *headings, *(r[0] for r in rows)):
        assert words in page, words
    assert opened(out / "predictions.png").shape[1] > 300
    assert Run.read(RunFolder(out), "finetune").recipe.task.needs.__name__ in (
        "ClassMaps", "ObjectLabels",
    )  # fmt: skip
    shown = unmask("predict", out, data, "--out", tmp_path / "found", "--threads", "1")
    assert shown.status == 0, shown.err
    assert measure in shown.out
    assert "mean of classes" in shown.out
    written = json.loads((tmp_path / "found" / "predictions.json").read_text())
    assert ("classes" if kind == "maps" else "annotations") in written
    file = tmp_path / "new.png"
    picture(file)
    for more in (["--tiles"], []):
        answer = unmask("predict", out, file, "--json", *more, "--threads", "1")
        assert answer.status == 0, answer.err
        (entry,) = json.loads(answer.raw)["images"]
        assert entry["image"] == "new.png"
        assert ("shares" if kind == "maps" else "objects") in entry
    twin = tmp_path / "other" / "new.png"
    picture(twin)
    both = unmask("predict", out, file, twin, "--out", tmp_path / "both", "--threads", "1")
    assert both.status == 0, both.err
    drawn = sorted(path.name for path in (tmp_path / "both" / "pictures").iterdir())
    assert drawn == ["new-2.png", "new.png"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    refused = unmask("predict", out, file, "--out", tmp_path / "mine", "--threads", "1")
    assert "mine exists already and holds other files" in refused.err
    model = package.load(out)
    assert (".segment(images)" if kind == "maps" else ".detect(images)") in repr(model)
    shape = opened(file).shape[:2]
    if kind == "maps":
        (maps,) = model.segment(file)
        assert tuple(maps.classes.shape) == shape
        label = opened(out / "predictions-new" / "maps" / "new.png")
        assert np.array_equal(label, maps.classes.numpy())
    else:
        (objects,) = model.detect(file)
        assert objects.boxes.shape[1] == 4
        assert bool((objects.boxes[:, 2] <= shape[1]).all())
    method, other = ("segment", "detect") if kind == "maps" else ("detect", "segment")
    with pytest.raises(RunError, match=rf"use \.{method}\(images\)"):
        getattr(model, other)(file)
    with pytest.raises(RunError, match=rf"use \.{method}\(images\)"):
        model.predict(file)
    if kind != "maps":
        for words in (("convert", out, "files", "--to", "onnx"), ("page", out, "--out", "page")):
            refused = unmask(*words)
            assert "is a detector, and these cannot be exported to ONNX" in refused.err
            assert not (Path("files").exists())
            assert not (Path("page").exists())
    else:
        Path("ort").mkdir()
        for name in FILES:
            Path("ort", name).write_text("")
        said = unmask("page", out, "--out", "page", "--runtime", "ort", "--samples", "1")
        assert said.status == 0, said.err
        index = json.loads(Path("page/page.json").read_text())
        assert [one["tab"] for one in index["models"]] == ["segmentation"]
        assert index["models"][0]["description"]["classes"] == written["classes"]
        assert [one["views"]["0"]["whole"] for one in index["samples"]] == [list(shape)]


@pytest.mark.parametrize("kind", ["maps", "coco"])
def test_a_stopped_run_goes_on_bit_for_bit(
    kind: str, tmp_path: Path, unmask: Unmask, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, whole, halves = tmp_path / "data", tmp_path / "whole", tmp_path / "halves"
    WRITERS[kind](data)
    tuned(unmask, kind, whole, data)
    real = train.training

    def interrupted(*args: Any) -> Iterator[Any]:
        for report in real(*args):
            if report.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield report

    monkeypatch.setattr(train, "training", interrupted)
    words = (
        "finetune",
        "scratch",
        data,
        "--recipe",
        RECIPES[kind],
        "--out",
        halves,
        "--epochs",
        "2",
    )
    said = unmask(*words, *QUICK, *SMALL, *PARTS[kind])
    assert said.status == 128 + signal.SIGTERM
    monkeypatch.setattr(train, "training", real)
    said = unmask("finetune", "--resume", halves)
    assert said.status == 0, said.err
    tiny.assert_same_end(RunFolder(halves), RunFolder(whole))
    one, other = (json.loads((root / "results.json").read_text()) for root in (halves, whole))
    for changing in ("images_per_second",):
        one.pop(changing), other.pop(changing)
    assert one == other


def test_the_task_may_be_forced(tmp_path: Path, unmask: Unmask) -> None:
    data = tmp_path / "data"
    names = [f"{animal}/{number}.png" for animal in ("cats", "dogs") for number in range(3)]
    for name in names:
        picture(data / "train" / name)
    (data / "annotations").mkdir()
    content = coco({name: [Thing((1, 2, 3, 4))] for name in names})
    (data / "annotations" / "instances_train.json").write_text(json.dumps(content))
    said = tuned(unmask, "coco", tmp_path / "run", data, "--task", "detect")
    assert "box AP" in said
    wrong = unmask("finetune", "scratch", data, "--task", "segment", *QUICK)
    assert "--task segment needs class maps beside the pictures" in wrong.err
    wrong = unmask("finetune", "scratch", data, "--task", "paint", *QUICK)
    assert "--task must be classify, segment or detect" in wrong.err
    wrong = unmask("finetune", "scratch", data, "--task", "detect", "--data-kind", "coco", *QUICK)
    assert "not both" in wrong.err


def test_recipes_for_other_annotations_are_refused(tmp_path: Path, unmask: Unmask) -> None:
    WRITERS["maps"](tmp_path / "maps")
    for recipe in ("finetune-ti4", "detect-mini"):
        wrong = unmask("finetune", "scratch", tmp_path / "maps", "--recipe", recipe, *QUICK)
        assert wrong.status == 1
        assert "come with class maps; leave out --recipe" in wrong.err
    wrong = unmask("finetune", "scratch", "digits", "--recipe", "segment-ti8", *QUICK)
    assert "come with classes of whole images; leave out --recipe" in wrong.err


def test_odd_pictures_train_and_are_predicted(tmp_path: Path, unmask: Unmask) -> None:
    """No object, one pixel, the whole picture, and a class that no picture shows."""
    boxes = {
        "0.png": [],
        "1.png": [(5, 5, 1, 1)],
        "2.png": [(0, 0, 20, 10)],
        "3.png": [(1, 2, 3, 4)],
    }
    things = {
        name: [Thing(box, 1, [outline(*box)]) for box in some] for name, some in boxes.items()
    }
    data, run = tmp_path / "data", tmp_path / "run"
    write_coco(data, coco(things, ("cell", "dog")))
    said = tuned(unmask, "coco", run, data)
    assert "no objects" in said
    again = unmask("predict", run, data, "--out", tmp_path / "again", "--threads", "1")
    assert again.status == 0, again.err
    assert "mask AP" in again.out
    written = json.loads((tmp_path / "again" / "predictions.json").read_text())
    assert {one["file_name"] for one in written["images"]} == boxes.keys()
    # boxes alone, of one of two classes
    WRITERS["voc"](tmp_path / "dogs")
    fewer = unmask("predict", run, tmp_path / "dogs", "--json", "--threads", "1")
    assert fewer.status == 0, fewer.err
    assert "masks are not scored, because the images have boxes alone" in fewer.err
    score = json.loads(fewer.raw)
    assert score["mask"] is None
    assert score["box"]["ap"] is not None
    assert {one["name"]: one["objects"] for one in score["classes"]} == {"cell": 0, "dog": 6}


def outline(left: int, top: int, width: int, height: int) -> list[int]:
    """The corners of a box."""
    right, bottom = left + width, top + height
    return [left, top, right, top, right, bottom, left, bottom]


@pytest.mark.parametrize("names", [("dog",), ("dog", "cell"), ("cell", "dog"), ("cow", "dog")])
def test_annotations_are_scored_by_the_names_of_their_classes(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Of a part of the classes, or in another order; not if the run lacks one of them."""
    things = {"a.png": [Thing((1, 2, 3, 4), names.index("dog"), [outline(1, 2, 3, 4)])]}
    write_coco(tmp_path, coco(things, names))
    kind = ObjectLabels(names=("cell", "dog"), masks=True)
    source, scored, note = truth_of(kind, Coco(path=str(tmp_path)).open())
    if "cow" in names:
        assert (scored, note) == (
            False,
            "not scored, because the run has no class cow; it has cell, dog",
        )
        return
    assert (scored, note) == (True, None)
    known = source[0].annotation
    assert isinstance(known, Objects)
    assert known.classes.tolist() == [1]
    assert source.annotations == kind


def test_class_maps_without_names_are_scored_by_their_values(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    write_map(tmp_path / "masks" / "a.png", np.full((10, 20), 7))
    kind = ClassMaps(names=("0", "3", "7"))
    source, scored, note = truth_of(kind, Maps(path=str(tmp_path)).open())
    assert (scored, note) == (True, None)
    known = source[0].annotation
    assert isinstance(known, torch.Tensor)
    assert known.unique().tolist() == [2]


def test_maps_of_objects_have_the_number_of_their_class(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    write_map(tmp_path / "masks" / "a.png", np.arange(200).reshape(10, 20) // 100)
    kind = ObjectLabels(names=("cell", "object"), masks=True)
    source, scored, _ = truth_of(kind, InstanceMaps(path=str(tmp_path)).open())
    known = source[0].annotation
    assert scored
    assert isinstance(known, Objects)
    assert known.classes.tolist() == [1]


def test_frozen_protocols_on_class_maps(tmp_path: Path, unmask: Unmask) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    WRITERS["maps"](data)
    tuned(unmask, "maps", out, data)
    said = unmask("evaluate", out, data, "--threads", "1")
    assert said.status == 0, said.err
    assert all(words in said.out for words in ("pretrained", "random init", "raw pixels", "mIoU"))
    assert "protocol knn: pictures and maps squashed to 16 x 16" in said.out
    assert "verdict" not in said.out  # two test pictures tell nothing
    page = words_of((out / "report.html").read_text())
    assert "mIoU" in page[page.index("test images of") :]
    (file,) = (out / "evaluations").glob("knn-*.json")
    stored = json.loads(file.read_text())
    assert stored["scores"][0]["arm"] == "pretrained"
    assert len(stored["scores"]) == 4
    assert stored["command"].startswith("unmask evaluate")
    alone = unmask(
        "evaluate", out, data, "--protocol", "capi-logistic", "--control", "none", "--json",
        "--threads", "1",
    )  # fmt: skip
    assert alone.status == 0, alone.err
    (row,) = json.loads(alone.raw)["scores"]
    assert 0 <= row["mean_iou"] <= 1
    shutil.copytree(out, tmp_path / "other")
    several = ["--encoders", f"{out},{tmp_path / 'other'}", "--out", "both.json", "--threads", "1"]
    both = unmask("evaluate", data, *several)
    assert both.status == 0, both.err
    assert all(f"encoder {root}" in both.out for root in (out, tmp_path / "other"))
    one, other = json.loads(Path("both.json").read_text())["encoders"]
    assert one["scores"][0]["mean_iou"] == stored["scores"][0]["mean_iou"]
    assert [score["accuracy"] for score in other["scores"]] == [
        score["accuracy"] for score in one["scores"]
    ]
    wrong = unmask("evaluate", out, data, "--protocol", "finetune")
    assert "--protocol finetune is not for class maps" in wrong.err
    wrong = unmask("evaluate", out, "digits", "--protocol", "capi-knn")
    assert "--protocol capi-knn is for pictures with class maps, and digits has none" in wrong.err


def test_class_maps_end_with_a_verdict(tmp_path: Path, unmask: Unmask) -> None:
    """Pictures of one colour each: its class is read off raw pixels, so the encoder gains nothing over them."""
    data, out = tmp_path / "data", tmp_path / "run"
    for split, count in (("train", 8), ("test", 12)):
        for number in range(count):
            file, map_file = (data / split / part / f"{number}.png" for part in ("images", "masks"))
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 10), (60 + 120 * (number % 2),) * 3).save(file)
            write_map(map_file, np.full((10, 20), number % 2))
    tuned(unmask, "maps", out, data)
    said = unmask("evaluate", out, data, "--threads", "1")
    assert said.status == 0, said.err
    (file,) = (out / "evaluations").glob("knn-*.json")
    verdicts = json.loads(file.read_text())["verdicts"]
    assert [one["control"] for one in verdicts] == ["random initialisation", "raw pixels"]
    for one in verdicts:
        assert f"verdict {one['words']}" in said.out
        assert one["low"] <= one["difference"] <= one["high"]
        assert one["images"] == 12
    assert verdicts[1]["outcome"] == "no difference shown"
    page = words_of((out / "report.html").read_text())
    assert verdicts[1]["words"] in page


@pytest.mark.parametrize("kind", ["maps", "coco"])
def test_activations_are_computed_again_where_memory_asks_for_it(
    kind: str, tmp_path: Path, unmask: Unmask, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, plain, lean = tmp_path / "data", tmp_path / "plain", tmp_path / "lean"
    WRITERS[kind](data)
    flags = ("--task.drop-path", "0.2", "--image-size", "32", "--micro-batch", "2")
    assert "computed again" not in tuned(unmask, kind, plain, data, *flags)
    needed = [
        memory_of(plain, saves_memory, 2) for saves_memory in (False, True)
    ]  # with activations kept, and computed again
    assert needed[1] < needed[0]
    monkeypatch.setattr(plan, "memory_available", lambda device: int(sum(needed) / 2 / 0.85))
    said = tuned(unmask, kind, lean, data, *flags)
    assert "activations of blocks are computed again in the backward pass" in said
    assert Run.read(RunFolder(lean), "finetune").hardware.recompute
    tiny.assert_same_end(RunFolder(lean), RunFolder(plain))
    monkeypatch.setattr(plan, "memory_available", lambda device: int(0.9 * needed[1] / 0.85))
    refused = unmask(
        "finetune", "scratch", data, "--recipe", RECIPES[kind], *QUICK, *SMALL, *PARTS[kind], *flags
    )
    assert refused.status == 1
    assert "--micro-batch 1 would fit" in refused.err or "choose a smaller recipe" in refused.err


@pytest.mark.parametrize("is_short", [True, False])
def test_a_trial_that_runs_out_of_memory_is_made_again_with_less(
    tmp_path: Path, unmask: Unmask, monkeypatch: pytest.MonkeyPatch, is_short: bool
) -> None:
    WRITERS["maps"](tmp_path / "data")
    trials: list[bool] = []

    def trial(module: Any, *others: Any) -> Any:
        trials.append(module.saves_memory)
        if not module.saves_memory:
            words = "CUDA out of memory" if is_short else "a kernel failed"
            raise torch.OutOfMemoryError(words) if is_short else RuntimeError(words)
        return plan.trial(module, *others)

    monkeypatch.setattr(hardware, "trial", trial)
    if is_short:
        said = tuned(unmask, "maps", tmp_path / "run", tmp_path / "data")
        assert "activations of blocks are computed again in the backward pass" in said
        assert trials == [False, True]
    else:
        with pytest.raises(RuntimeError, match="a kernel failed"):
            tuned(unmask, "maps", tmp_path / "run", tmp_path / "data")
        assert trials == [False]


def test_batches_that_no_memory_mends_are_measured_once(
    tmp_path: Path, unmask: Unmask, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS["maps"](tmp_path / "data")
    trials: list[bool] = []

    def trial(module: Any, *others: Any) -> Any:
        trials.append(module.saves_memory)
        return plan.trial(module, *others)

    monkeypatch.setattr(hardware, "trial", trial)
    said = unmask(
        "finetune", "scratch", tmp_path / "data", "--recipe", RECIPES["maps"], *QUICK, *SMALL, *PARTS["maps"],
        "--micro-batch", "1", "task.head.norm:batch",
    )  # fmt: skip
    assert said.status == 1
    assert "batch normalisation needs at least 4 images at a time" in said.err
    assert trials == [False]


def memory_of(root: Path, saves_memory: bool, images: int) -> int:
    """What the plan says that a step of a finished run needs, with so many images at a time."""
    run = Run.read(RunFolder(root), "finetune")
    module = run.build()
    module.saves_memory = saves_memory
    source = run.job.open(run.data, run.seed).train
    return plan.trial(module, run.recipe, source, run.hardware).memory(images)


def test_reports_compare_scores_and_say_which_are_no_better_than_nothing(
    tmp_path: Path, unmask: Unmask
) -> None:
    WRITERS["maps"](tmp_path / "data")
    tuned(unmask, "maps", tmp_path / "one", tmp_path / "data")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    results = json.loads((tmp_path / "one" / "results.json").read_text())
    for name, value in (("one", 0.25), ("two", 0.99)):
        changed = json.dumps(results | {"mean_iou": value, "chance": 0.25})
        (tmp_path / name / "results.json").write_text(changed)
    out = tmp_path / "both.html"
    assert unmask("report", tmp_path / "one", tmp_path / "two", "--out", out).status == 0
    row = re.search(r"<tr><th[^>]*>mIoU</th>(.*?)</tr>", out.read_text())
    assert row is not None
    assert row[1] == '<td>25.0%</td><td><b class="best">99.0%</b></td>'
    for name, warned in (("one", True), ("two", False)):
        assert unmask("report", tmp_path / name).status == 0
        page = words_of((tmp_path / name / "report.html").read_text())
        assert ("The mIoU is no better than that without a trained model" in page) == warned
    (tmp_path / "two" / "results.json").write_text('{"top1": 0.5}')
    assert unmask("report", tmp_path / "two").status == 0
    page = words_of((tmp_path / "two" / "report.html").read_text())
    assert "results.json does not hold the score of this run" in page
