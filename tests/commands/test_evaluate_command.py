"""`unmask evaluate`: scores for people and for programs."""

import json
import shutil
from pathlib import Path

import pytest
from commands.said import Unmask
from runs import tiny

from unmask.runs.folder import RunFolder


@pytest.mark.parametrize("protocol", ["knn", "logistic"])
def test_json_holds_all_figures(
    unmask: Unmask, trained: RunFolder, classes: Path, protocol: str
) -> None:
    said = unmask("evaluate", trained.root, classes, "--protocol", protocol, "--json")
    assert said.status == 0
    figures = json.loads(said.raw)
    about = {key: value for key, value in figures.items() if key != "scores"}
    assert about == {
        "run": str(trained.root),
        "weights": "tiny, step 6",
        "step": 6,
        "data": str(classes),
        "split": "20% of each class for testing, drawn from seed 0",
        "train_images": 16,
        "test_images": 4,
        "classes": 2,
        "chance": 0.5,
        "left_out": 0,
    }
    assert [(row["protocol"], row["feature"]) for row in figures["scores"]] == [
        (protocol, "cls"),
        (protocol, "mean"),
    ]
    assert all(0.5 <= row["accuracy"] <= 1 for row in figures["scores"])  # dark against bright


def test_table_for_people(unmask: Unmask, trained: RunFolder, classes: Path) -> None:
    said = unmask("evaluate", trained.root, classes, "--control", "random")
    assert said.status == 0
    for words in (
        f"{trained.root} (tiny, step 6) on {classes}: 16 images to learn from, 4 to test on",
        "20% of each class for testing, drawn from seed 0",
        "pretrained knn class token",
        "random",
        "chance 50.0%",
    ):
        assert words in said.out


def test_control_is_the_encoder_before_training(
    unmask: Unmask, trained: RunFolder, classes: Path
) -> None:
    words = ("evaluate", trained.root, classes, "--control", "random", "--json")
    first, second = unmask(*words), unmask(*words)
    assert first.raw == second.raw
    assert {row["arm"] for row in json.loads(first.raw)["scores"]} == {
        "pretrained",
        "random initialisation",
    }


def test_split_of_the_data_is_taken(
    unmask: Unmask, trained: RunFolder, classes: Path, tmp_path: Path
) -> None:
    shutil.copytree(classes, tmp_path / "data" / "train")
    tiny.write_classes(tmp_path / "data" / "val", count=3)
    said = unmask("evaluate", trained.root, tmp_path / "data", "--json")
    figures = json.loads(said.raw)
    assert figures["split"] == "the data's own train and test folders"
    assert (figures["train_images"], figures["test_images"]) == (20, 6)


def test_unlabelled_images(unmask: Unmask, trained: RunFolder, images: Path) -> None:
    said = unmask("evaluate", trained.root, images)
    assert said.status == 1
    assert "evaluation needs labelled images: put each class in a folder of its own" in said.err


def test_other_channels(unmask: Unmask, trained: RunFolder) -> None:
    said = unmask("evaluate", trained.root, "digits")
    assert said.status == 1
    assert f"{trained.root} was trained on 3 channels, and digits has 1" in said.err


def test_misspelt_protocol(unmask: Unmask, trained: RunFolder, classes: Path) -> None:
    said = unmask("evaluate", trained.root, classes, "--protocol", "knnn")
    assert said.status == 2
    assert "'knn', 'logistic'" in said.err


def test_missing_words(unmask: Unmask, trained: RunFolder) -> None:
    assert unmask("evaluate", trained.root).status == 2
    assert unmask("evaluate").status == 2


def test_unreadable_images_are_left_out_and_counted(
    unmask: Unmask, trained: RunFolder, classes: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(classes, tmp_path / "data")
    cut = data / "cats" / "03.png"
    cut.write_bytes(cut.read_bytes()[:60])
    said = unmask("evaluate", trained.root, data, "--json")
    assert json.loads(said.raw)["left_out"] == 1
    assert "1 images left out, the first cats/03.png" in unmask("evaluate", trained.root, data).out


def test_json_stays_json_beside_a_damaged_checkpoint(
    unmask: Unmask, classes: Path, tmp_path: Path
) -> None:
    folder = tiny.begin(tmp_path / "run", classes)
    tiny.one_step(folder), tiny.one_step(folder)
    (tiny.newest(folder).folder / "info.json").write_text("{")
    said = unmask("evaluate", folder.root, classes, "--json")
    assert json.loads(said.raw)["step"] == 1


def test_very_few_images_for_the_logistic_classifier(
    unmask: Unmask, trained: RunFolder, tmp_path: Path
) -> None:
    data = tiny.write_classes(tmp_path / "data", count=2)
    said = unmask("evaluate", trained.root, data, "--protocol", "logistic")
    assert "nan" not in said.all


def test_nothing_to_test_on(unmask: Unmask, trained: RunFolder, tmp_path: Path) -> None:
    data = tiny.write_classes(tmp_path / "data", count=1)
    said = unmask("evaluate", trained.root, data)
    assert said.status == 1
    assert "nan" not in said.all
