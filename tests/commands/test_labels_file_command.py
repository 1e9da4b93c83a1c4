"""`--labels-file` through the commands: from images and a CSV to an mAP."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands.said import Unmask
from runs import tiny

import unmask as package
from unmask.errors import SettingsError
from unmask.evaluation.frozen import LINEAR
from unmask.runs.folder import RunFolder

RECIPE = Path(__file__).parents[1] / "runs" / "tiny_transfer.py"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and beside them labels.csv: dark ones are owls, every third one is a cat."""
    root = tmp_path_factory.mktemp("labels")
    tiny.write_classes(root / "photos", ("dark", "bright"), 12)
    rows = ["file_name,label"]
    for number in range(24):
        dark, cat = number < 12, number % 3 == 0
        name = f"{'dark' if dark else 'bright'}/{number % 12:02}.png"
        rows.append(f"{name},{';'.join(['owl'] * dark + ['cat'] * cat) or '[]'}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


@pytest.mark.parametrize(
    "protocol", ["knn", "logistic", pytest.param("linear", marks=pytest.mark.slow)]
)
def test_evaluate_gives_an_map(
    unmask: Unmask,
    trained: RunFolder,
    photos: Path,
    protocol: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unmask.evaluation.frozen.LINEAR", replace(LINEAR, least_steps=40))
    words = ("evaluate", trained.root, photos / "photos", "--labels-file", photos / "labels.csv")
    said = unmask(*words, "--protocol", protocol, "--seeds", "1", "--json")
    assert said.status == 0, said.err
    answer = json.loads(said.raw)
    assert (answer["measure"], answer["classes"]) == ("mAP", 2)
    assert answer["train_images"] + answer["test_images"] == 24
    assert all(answer["chance"] / 2 < row["accuracy"] <= 1 for row in answer["scores"])
    found = package.evaluate(
        trained.root,
        photos / "photos",
        protocol=protocol,
        seeds=1,
        labels_file=photos / "labels.csv",
    )
    assert found.measure == "mAP"
    assert [row.values for row in found.rows] == [row["accuracies"] for row in answer["scores"]]


@pytest.mark.parametrize(
    "flags", [["--protocol", "finetune"], ["--protocol", "linear", "--augment"]]
)
def test_trained_protocols_give_an_map(
    unmask: Unmask, trained: RunFolder, photos: Path, flags: list[str]
) -> None:
    words = ("evaluate", trained.root, photos / "photos", "--labels-file", photos / "labels.csv")
    said = unmask(*words, *flags, "--epochs", "1", "--seeds", "1")
    assert said.status == 0, said.err
    assert "mAP" in said.out


def test_few_labels_of_each_class_are_refused(
    unmask: Unmask, trained: RunFolder, photos: Path
) -> None:
    words = ("evaluate", trained.root, photos / "photos", "--labels-file", photos / "labels.csv")
    said = unmask(*words, "--labels", "2")
    assert said.status == 1
    assert "use --labels all" in said.err


def test_finetune_and_predict(unmask: Unmask, trained: RunFolder, photos: Path) -> None:
    data, file = photos / "photos", photos / "labels.csv"
    flags = ["--recipe", f"{RECIPE}:TRANSFER", "--threads", "1", "--workers", "0"]
    said = unmask("finetune", trained.root, data, "--labels-file", file, *flags, "--out", "run")
    assert said.status == 0, said.err
    assert "test mAP" in said.out
    assert json.loads(Path("run/results.json").read_text())["mean_average_precision"] > 0

    said = unmask("predict", "run", data, "--labels-file", file, "--out", "answers.csv")
    assert said.status == 0, said.err
    assert "mAP" in said.out
    rows = {
        row["image"]: row for row in csv.DictReader(Path("answers.csv").read_text().splitlines())
    }
    assert len(rows) == 24
    assert rows["dark/00.png"]["class"].split(";") == ["cat", "owl"]
    assert package.predict("run", data, labels_file=file).score is not None


@pytest.mark.parametrize("command", ["compare", "study mask-ratio"])
def test_studies_take_labels_of_one_class_from_a_file(
    unmask: Unmask, photos: Path, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise SettingsError("far enough")

    monkeypatch.setattr(f"unmask.commands.{command.split()[0]}.measured_costs", stop)
    words = (*command.split(), photos / "photos", "--out", tmp_path, "--labels-file")
    said = unmask(*words, photos / "labels.csv")
    assert "needs exactly one class per image" in said.err
    rows = [f"{side}/{n:02}.png,{n % 3}" for side in ("dark", "bright") for n in range(12)]
    (tmp_path / "thirds.csv").write_text("\n".join(["file_name,label", *rows]) + "\n")
    said = unmask(*words, tmp_path / "thirds.csv")
    assert "far enough" in said.err
    assert "3 classes" in said.out
