"""Fine-tuning with several amounts of labels and seeds: one ordinary run for each, and a table."""

import csv
import gzip
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands.said import Said, Unmask
from commands.test_dense_command import PARTS, QUICK, RECIPES, SMALL, tuned
from reference.dense import WRITERS
from runs import tiny

from unmask.console import train
from unmask.console.command_line import from_anywhere
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run


@pytest.fixture(autouse=True)
def _quick_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask.training.step_cost._LONG_ENOUGH", 0.0)
    monkeypatch.setattr("unmask.training.step_cost._CEILING_SECONDS", 0.0)


CLASSIFY = ["--recipe", "finetune-ti4", *SMALL]


def series(unmask: Unmask, encoder: object, data: Path, kind: str, out: Path, *more: str) -> Said:
    """What a series of short runs says."""
    shape = ["--recipe", RECIPES[kind], *SMALL] if encoder == "scratch" else SMALL[:2]
    return unmask(
        "finetune", encoder, data, *shape, "--epochs", "2", "--out", out, *QUICK, *PARTS[kind], "--no-report",
        *more,
    )  # fmt: skip


def names_of(root: Path) -> set[str]:
    """The training images of a run."""
    with gzip.open(root / "image_names.bin") as file:
        return set(file.read().decode().split("\0"))


def rows_of(root: Path) -> list[dict[str, str]]:
    with (root / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["maps", pytest.param("coco", marks=pytest.mark.slow)])
def test_a_series_with_few_labels(kind: str, tmp_path: Path, unmask: Unmask) -> None:
    data, first, out = tmp_path / "data", tmp_path / "first", tmp_path / "series"
    WRITERS[kind](data)
    tuned(unmask, kind, first, data)
    said = series(unmask, first, data, kind, out, "--labels", "40%,all", "--seeds", "1")
    assert said.status == 0, said.err
    measure = "mIoU" if kind == "maps" else "box AP"
    assert f"{measure}, %" in said.out
    assert "run 4 of 4: labels all, seed 0, from scratch" in said.out
    assert "4 runs left to begin, about" in said.out
    assert said.out.count("verdict labels") == 2
    assert said.out.count("measuring the cost") == 1
    written = rows_of(out)
    rows = [row for row in written if row["measure"] == measure]
    assert len(rows) == 4

    every = {path.name: Run.read(RunFolder(path), "finetune") for path in out.glob("*-seed*")}
    assert len(every) == 4
    assert len({run.steps for run in every.values()}) == 1
    assert {run.images for run in every.values()} == {2, 5}
    few, known = (names_of(out / f"{one}-seed0-pretrained") for one in ("40pct", "all"))
    assert few < known
    assert few == names_of(out / "40pct-seed0-from-scratch")
    assert every["40pct-seed0-pretrained"].init is not None
    control = every["40pct-seed0-from-scratch"]
    assert control.init is None
    assert control.recipe.optimizer.layer_decay == 1.0
    assert control.statistics == every["40pct-seed0-pretrained"].statistics
    for row in rows:
        name = f"{row['labels'].replace('%', 'pct')}-seed{row['seed']}-{row['encoder'].replace(' ', '-')}"
        results = json.loads((out / name / "results.json").read_text())
        value = results["mean_iou"] if kind == "maps" else results["box"]["ap"]
        assert float(row["value"]) == pytest.approx(value, rel=1e-5)

    # the same again makes nothing, and one that is missing is made alone
    before = {path: path.stat().st_mtime_ns for path in out.rglob("results.json")}
    said = unmask("finetune", "--resume", out)
    assert said.status == 0, said.err
    assert said.out.count(": finished, ") == 4
    assert {path: path.stat().st_mtime_ns for path in out.rglob("results.json")} == before
    assert rows_of(out) == written
    said = series(unmask, first, data, kind, out, "--labels", "all", "--seeds", "2")
    assert said.out.count(": finished, ") == 2
    assert "run 4 of 4: labels all, seed 1, from scratch" in said.out


def test_a_stopped_series_goes_on_bit_for_bit(
    tmp_path: Path, unmask: Unmask, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, whole, halves = tmp_path / "data", tmp_path / "whole", tmp_path / "halves"
    WRITERS["maps"](data)
    flags = ("--labels", "40%", "--seeds", "2")
    assert series(unmask, "scratch", data, "maps", whole, *flags).status == 0
    real = train.training
    begun: list[Path] = []

    def interrupted(run: Run, folder: RunFolder, *rest: Any) -> Iterator[Any]:
        begun.append(folder.root)
        for report in real(run, folder, *rest):
            if report.step == 2 and len(begun) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield report

    monkeypatch.setattr(train, "training", interrupted)
    said = series(unmask, "scratch", data, "maps", halves, *flags)
    assert said.status == 128 + signal.SIGTERM
    assert "the whole series goes on with: unmask finetune scratch" in said.out
    assert not (halves / "scores.csv").exists()
    monkeypatch.setattr(train, "training", real)
    said = series(unmask, "scratch", data, "maps", halves, *flags)
    assert said.status == 0, said.err
    assert "run 1 of 2: labels 40%, seed 0, from scratch: finished, mIoU" in said.out
    assert "from step 3 of 5" in said.out
    for seed in (0, 1):
        ends = (RunFolder(root / f"40pct-seed{seed}-from-scratch") for root in (halves, whole))
        tiny.assert_same_end(*ends)
    assert rows_of(halves) == rows_of(whole)


def test_class_folders(tmp_path: Path, unmask: Unmask) -> None:
    data, out = tiny.write_classes(tmp_path / "animals"), tmp_path / "series"
    words = (
        "finetune",
        "scratch",
        data,
        *CLASSIFY,
        "--epochs",
        "1",
        "--threads",
        "1",
        "--workers",
        "0",
    )
    said = unmask(*words, "--labels", "2,50%", "--seeds", "1", "--out", out)
    assert said.status == 0, said.err
    assert "labels 2 (4), 50% (8) images" in said.out
    assert {row["measure"] for row in rows_of(out)} == {"top-1", "balanced accuracy"}
    # a run of the series is an ordinary one
    shown = unmask("predict", out / "2-seed0-from-scratch", data, "--threads", "1")
    assert shown.status == 0, shown.err


def test_a_series_goes_on_from_any_folder(
    tmp_path: Path, unmask: Unmask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a relative DATA, a relative labels file and a recipe of a file; and a folder that has the name of a value."""
    images = tiny.write_images(tmp_path / "pictures")
    names = sorted(path.name for path in images.iterdir())
    lines = [f"{name},{'ab'[number % 2]}" for number, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,label", *lines]) + "\n")
    own = "from unmask.recipes import TRANSFERS\nOWN = TRANSFERS['finetune-ti4'].recipe\n"
    (tmp_path / "own.py").write_text(own)
    (tmp_path / "50%,all").mkdir()
    monkeypatch.chdir(tmp_path)
    words = ["scratch", "pictures", "--labels-file=labels.csv", "--recipe", "own.py:OWN", *SMALL]
    few = ["--epochs", "1", "--labels", "50%,all", "--seeds", "1", "--out", "series"]
    said = unmask("finetune", *words, *few, "--threads", "1", "--workers", "0")
    assert said.status == 0, said.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = unmask("finetune", "--resume", "../series")
    assert again.status == 0, again.err
    assert again.out.count(": finished, ") == 2
    assert not list((tmp_path / "elsewhere").iterdir())


def test_paths_of_a_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words, files of flags and patterns become absolute; recipes and other values stay, whatever has their name."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a", "finetune-b16", "all"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "own.py").touch()
    words = ["photos/*/shard-{000..002}.tar", "--recipe", "finetune-b16", "--labels", "all"]
    assert from_anywhere(words) == [f"{tmp_path}/{words[0]}", *words[1:]]
    assert from_anywhere(["photos", "--recipe=own.py:OWN", "--out", "all"]) == [
        f"{tmp_path}/photos", f"--recipe={tmp_path}/own.py:OWN", "--out", f"{tmp_path}/all",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--labels", "0%"], "such as 1,5,10,1%,10%,all, got '0%'"),
        (["--labels", "150%"], "such as 1,5,10,1%,10%,all, got '150%'"),
        (["--labels", "few"], "such as 1,5,10,1%,10%,all, got 'few'"),
        (["--labels", "5"], "5 labels of each class cannot be drawn, because each of these images may show several"),
        (["--labels", "10%,all,10%"], "an amount of labels is there twice: 10%,all,10%; leave out one"),
        (["--labels", "1%,10%"], "the amounts of labels 1% and 10% are both 1 image; leave out one"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--seeds", "many"], "--seeds"),
        (["--labels", "20%", "task.head.norm:batch"], "batch normalisation needs at least 4 at a time"),
    ],
)  # fmt: skip
def test_wrong_series(flags: list[str], words: str, tmp_path: Path, unmask: Unmask) -> None:
    WRITERS["maps"](tmp_path / "data")
    said = series(unmask, "scratch", tmp_path / "data", "maps", tmp_path / "out", *flags)
    assert said.status == 1
    assert words in said.err
    assert not list(tmp_path.glob("out/*"))


def test_folders_of_other_series_and_runs(tmp_path: Path, unmask: Unmask) -> None:
    WRITERS["maps"](tmp_path / "data")
    words = (unmask, "scratch", tmp_path / "data", "maps", tmp_path / "out")
    flags = ("--labels", "all", "--seeds", "1")
    assert series(*words, *flags).status == 0
    wrong = series(*words, *flags, "--lr", "0.5")
    assert "all-seed0-from-scratch holds a run with other settings" in wrong.err
    WRITERS["maps"](tmp_path / "other")
    wrong = series(unmask, "scratch", tmp_path / "other", *words[3:], *flags)
    assert "holds a series of other runs" in wrong.err
    member = tmp_path / "out" / "all-seed0-from-scratch"
    wrong = unmask("finetune", "--resume", member, "--labels", "10%")
    assert "--resume continues a run exactly, so --labels cannot change" in wrong.err
