"""`--labels-file` through the commands: from images and a CSV to an mAP."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands.said import Unmask
from PIL import Image
from runs import tiny, tiny_transfer

import unmask as package
from unmask.errors import SettingsError
from unmask.evaluation.frozen import LINEAR, PROBES
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
    monkeypatch.setitem(PROBES, "linear", (replace(LINEAR, least_steps=40), "cls"))
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
    assert "use a percentage of the images, such as 10%, or all" in said.err


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
    words = (*command.split(), photos / "photos", "--out", tmp_path / "out", "--labels-file")
    said = unmask(*words, photos / "labels.csv")
    assert "needs exactly one class per image" in said.err
    rows = [f"{side}/{n:02}.png,{n % 3}" for side in ("dark", "bright") for n in range(12)]
    (tmp_path / "thirds.csv").write_text("\n".join(["file_name,label", *rows]) + "\n")
    said = unmask(*words, tmp_path / "thirds.csv")
    assert "far enough" in said.err
    assert "3 classes" in said.out


class TestBesideTheImages:
    TUNING = ("--epochs", "1", "--threads", "1", "--workers", "0", "--out", "tuned")

    @pytest.fixture
    def flat(self, tmp_path: Path) -> Path:
        """Twelve images without class folders."""
        return write_pictures(tmp_path / "flat", 12)

    @pytest.mark.parametrize("name", ["labels.csv", "Metadata.JSONL"])
    def test_is_used_and_said(
        self, unmask: Unmask, trained: RunFolder, flat: Path, name: str
    ) -> None:
        write_rows(flat / name, owls(11))
        said = unmask("finetune", trained.root, flat, *self.TUNING)
        assert said.status == 0, said.err
        words = (
            f"labels from {flat / name} (11 of 12 images have a row); --labels-file none ignores it"
        )
        assert words in said.out
        assert f"unmask predict tuned {flat} --labels-file {flat / name}" in said.out
        said = unmask("predict", "tuned", flat)
        assert words in said.err
        assert "on 11 images" in said.out
        said = unmask("predict", "tuned", flat, "--labels-file", "none")
        assert "labels from" not in said.err
        assert "top-1" not in said.out
        Path("tuned/results.json").unlink()
        assert unmask("finetune", "--resume", "tuned").status == 0

    def test_is_used_by_evaluate_and_from_python(
        self, unmask: Unmask, trained: RunFolder, flat: Path
    ) -> None:
        write_rows(flat / "labels.csv", owls(12))
        said = unmask("evaluate", trained.root, flat, "--json")
        assert json.loads(said.raw)["classes"] == 2
        assert "labels from" in said.err
        assert package.evaluate(trained.root, flat).chance == 0.5
        said = unmask("evaluate", trained.root, flat, "--labels-file", "none")
        assert said.status == 1
        assert "has no labels" in said.err

    @pytest.mark.parametrize("command", ["compare", "study mask-ratio"])
    def test_is_used_by_studies(
        self, unmask: Unmask, flat: Path, command: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(*_: object, **__: object) -> None:
            raise SettingsError("far enough")

        monkeypatch.setattr(f"unmask.commands.{command.split()[0]}.measured_costs", stop)
        write_rows(flat / "labels.csv", owls(12))
        said = unmask(*command.split(), flat, "--out", "out")
        assert "far enough" in said.err
        assert "labels from" in said.out
        assert "2 classes" in said.out

    @pytest.mark.parametrize("within", ["", "train/"])
    def test_of_splits(
        self, unmask: Unmask, trained: RunFolder, tmp_path: Path, within: str
    ) -> None:
        root = tmp_path / "sets"
        for split, count in (("train", 8), ("test", 4)):
            write_pictures(root / split, count)
            if within:
                write_rows(root / split / "metadata.csv", owls(count))
        if not within:
            rows = [
                (f"{s}/{name}", o) for s, n in (("train", 8), ("test", 4)) for name, o in owls(n)
            ]
            write_rows(root / "metadata.csv", rows)
        said = unmask("evaluate", trained.root, root)
        assert said.status == 0, said.err
        assert f"labels from {root}/{within}metadata.csv" in said.err
        assert "(12 of 12 images have a row)" in said.err
        assert "8 for training, 4 for testing" in said.out
        said = unmask(
            "evaluate", trained.root, root, "--labels-file", f"{root}/{within}metadata.csv"
        )
        assert "8 for training, 4 for testing" in said.out

    def test_class_folders_come_first(
        self, unmask: Unmask, trained: RunFolder, photos: Path
    ) -> None:
        file = photos / "photos" / "labels.csv"
        write_rows(file, [("dark/00.png", "owl")])
        said = unmask("evaluate", trained.root, photos / "photos")
        file.unlink()
        assert said.status == 0, said.err
        assert (
            f"labels file not used: {file}, because the images have other labels; --labels-file {file} uses it"
        ) in said.err

    @pytest.mark.parametrize(
        ("rows", "reason"),
        [
            ("file_name,label\n000.png,a\nx.png,a\ny.png,b\nz.png,b\n", "only 1 of 4 rows of"),
            ("file_name,label\nx.png,a\n", "has no row for an image; its first is x.png"),
            ("name,label\n000.png,a\n", "has no column file_name"),
            ("file_name,text\n000.png,a cat\n001.png,a dog\n", "names 2 classes for 2 images"),
            ("file_name,a,b\n000.png,x,1\n", "the column of a class must be 0 or 1"),
            ("file_name,a,a\n000.png,1,1\n", "has two columns a; rename or remove one"),
            ("file_name,label\n,a\n", "row 2 of"),
        ],
    )
    def test_a_file_that_does_not_fit_is_named(
        self, unmask: Unmask, tuned: Path, flat: Path, rows: str, reason: str
    ) -> None:
        (flat / "labels.csv").write_text(rows)
        said = unmask("predict", tuned, flat)
        assert said.status == 0, said.err
        assert "labels file not used: " in said.err
        assert f"{flat}/labels.csv" in said.err
        assert reason in said.err
        assert "top-1" not in said.out

    def test_the_next_file_is_tried(self, unmask: Unmask, tuned: Path, flat: Path) -> None:
        (flat / "labels.csv").write_text("image,class\n")
        write_rows(flat / "metadata.csv", owls(12))
        write_rows(flat / "metadata.jsonl", owls(12))
        said = unmask("predict", tuned, flat)
        assert f"labels from {flat}/metadata.csv" in said.err
        assert f"{flat}/metadata.jsonl, because another file comes first" in said.err


@pytest.fixture(scope="module")
def tuned(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of fine-tuning."""
    folder = tiny_transfer.begin(tmp_path_factory.mktemp("predict") / "tuned", classes)
    tiny_transfer.go_on(folder)
    return folder.root


class TestJsonLines:
    @pytest.mark.parametrize(
        ("lines", "reason"),
        [
            ('{"file_name": "000.png", "label": "a"}\n{"label": "b"}\n', "row 2 of"),
            ('{"file_name": "000.png", "label": {"a": 1}}\n', "row 1 of"),
            ('["000.png", "a"]\n', "is not a JSON object such as"),
            ("[" * 100_000 + "\n", "nested too deeply"),
            ('{"file_name": "' + "a" * 2**20 + '"}\n', "is larger than 1,048,576 bytes"),
            ("file_name,label\n", "is not valid JSON"),
            ("", "has no column file_name"),
        ],
    )
    def test_errors_name_the_line(
        self, unmask: Unmask, trained: RunFolder, tmp_path: Path, lines: str, reason: str
    ) -> None:
        data = write_pictures(tmp_path / "flat", 12)
        (tmp_path / "x.jsonl").write_text(lines)
        said = unmask("evaluate", trained.root, data, "--labels-file", tmp_path / "x.jsonl")
        assert said.status == 1
        assert reason in said.err
        assert f"{tmp_path}/x.jsonl" in said.err

    def test_several_classes_and_unknown_ones(
        self, unmask: Unmask, trained: RunFolder, tmp_path: Path
    ) -> None:
        data = write_pictures(tmp_path / "flat", 12)
        lines = [{"file_name": name, "label": [owl, "bird"]} for name, owl in owls(11)]
        rows = "\n".join(map(json.dumps, [*lines, {"file_name": "011.png"}]))
        (tmp_path / "x.jsonl").write_text(rows + "\n")
        said = unmask("evaluate", trained.root, data, "--labels-file", tmp_path / "x.jsonl")
        assert said.status == 0, said.err
        assert "1 images without labels are skipped" in said.out
        assert "3 classes" in said.out


def test_paths_that_are_not_text(unmask: Unmask, trained: RunFolder, tmp_path: Path) -> None:
    data = write_pictures(Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe4ume")), 12)
    write_rows(data / "labels.csv", owls(12))
    said = unmask("evaluate", trained.root, data)
    assert said.status == 0, said.err
    assert "labels from" in said.err
    names, classes = zip(*owls(12), strict=True)
    with (data / "x.parquet").open("wb") as file:
        pq.write_table(pa.table({"file_name": names, "label": classes}), file)
    said = unmask("evaluate", trained.root, data, "--labels-file", data / "x.parquet")
    assert said.status == 0, said.err
    table = data / "table"
    table.mkdir()
    images = [file.read_bytes() for file in sorted(data.glob("*.png"))]
    with (table / "train.parquet").open("wb") as file:
        pq.write_table(pa.table({"image": images, "label": classes}), file)
    said = unmask("evaluate", trained.root, table)
    assert said.status == 0, said.err
    assert "2 classes" in said.out


def write_pictures(folder: Path, count: int) -> Path:
    """Images in one folder: 000.png and so on."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 255, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def owls(count: int) -> list[tuple[str, str]]:
    """The name of each image, and its class: cat or owl in turn."""
    return [(f"{number:03}.png", ("cat", "owl")[number % 2]) for number in range(count)]


def write_rows(file: Path, rows: list[tuple[str, str]]) -> None:
    """A labels file as CSV or JSON lines."""
    lines = ["file_name,label", *map(",".join, rows)]
    if file.suffix.lower() == ".jsonl":
        lines = [json.dumps({"file_name": name, "label": label}) for name, label in rows]
    file.write_text("\n".join(lines) + "\n")
