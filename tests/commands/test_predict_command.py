"""`unmask predict`: what a fine-tuned classifier says of files and of sets of images."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from commands.said import Unmask
from PIL import Image
from runs import tiny, tiny_transfer
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from unmask.runs.folder import RunFolder
from unmask.runs.predict import Answer, confusion, load_predictor
from unmask.tasks.task import Prediction


@pytest.fixture(scope="module")
def tuned(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of fine-tuning; nothing may write to it."""
    folder = tiny_transfer.begin(tmp_path_factory.mktemp("predict") / "tuned", classes)
    tiny_transfer.go_on(folder)
    return folder


def test_a_file(unmask: Unmask, tuned: RunFolder, classes: Path) -> None:
    file = classes / "dogs" / "03.png"
    said = unmask("predict", tuned.root, file, "--json")
    assert said.status == 0, said.err
    (row,) = json.loads(said.raw)["images"]
    predictor = load_predictor(tuned.root)
    recipe = predictor.tuned.job.recipe
    (view,) = recipe.test_views(predictor.model.read(file), recipe.image_size)
    with torch.no_grad():
        expected = predictor.tuned.predict(view[None])[0].softmax(0)
    found = {guess["class"]: guess["probability"] for guess in row["guesses"]}
    assert found["cats"] == pytest.approx(expected[0].item(), abs=1e-6)
    assert found["dogs"] == pytest.approx(expected[1].item(), abs=1e-6)
    assert row["guesses"][0]["probability"] >= row["guesses"][1]["probability"]


def test_several_files_and_one_class_of_each(
    unmask: Unmask, tuned: RunFolder, classes: Path
) -> None:
    files = [classes / "cats" / "00.png", classes / "dogs" / "00.png"]
    said = unmask("predict", tuned.root, *files, "--top", "1")
    assert said.status == 0
    assert said.out.count("%") == 2
    assert "top-1" not in said.out  # single files have no labels


def test_a_labelled_set_is_scored_and_listed(
    unmask: Unmask, tuned: RunFolder, classes: Path
) -> None:
    said = unmask("predict", tuned.root, classes, "--top", "2", "--out", "here/guesses.csv")
    assert said.status == 0, said.err
    rows = list(csv.DictReader(Path("here/guesses.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 20
    right = sum(row["class"] == row["guess 1"] for row in rows) / 20
    assert f"top-1 {right:.2%}, balanced {right:.2%} on 20 images" in said.out
    for row in rows:
        total = float(row["probability 1"]) + float(row["probability 2"])
        assert total == pytest.approx(1, abs=1e-5)
        assert row["image"].startswith(row["class"])
    figures = json.loads(unmask("predict", tuned.root, classes, "--json").raw)
    assert figures["top1"] == right
    for path in (Path("here/guesses.png"), tuned.root / f"confusion-{classes.name}.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 400
    assert "written: here/guesses.png" in said.out


def test_precision_recall_and_f1_of_each_class(
    unmask: Unmask, tuned: RunFolder, tmp_path: Path
) -> None:
    """As scikit-learn computes them, on images that the classifier gets wrong in part."""
    data = tiny.write_classes(tmp_path / "data", ("cats", "dogs"), 15)
    for number in range(6):  # six bright images among the dark ones
        shutil.copy(data / "dogs" / f"{number:02}.png", data / "cats" / f"wrong-{number}.png")
    said = unmask("predict", tuned.root, data, "--out", "guesses.csv")
    assert said.status == 0, said.err
    assert said.out.index("top-1") < said.out.index("cats/00.png")
    assert "and 16 more" in said.out

    rows = list(csv.DictReader(Path("guesses.csv").read_text(encoding="utf-8").splitlines()))
    truth, guesses = ([row[name] for row in rows] for name in ("class", "guess 1"))
    assert truth != guesses
    names = ["cats", "dogs"]
    expected = precision_recall_fscore_support(truth, guesses, labels=names, zero_division=0)
    figures = list(csv.DictReader(Path("guesses-classes.csv").read_text("utf-8").splitlines()))
    assert [row["class"] for row in figures] == names
    for name, values in zip(("precision", "recall", "F1", "images"), expected, strict=True):
        assert [float(row[name]) for row in figures] == pytest.approx(values, abs=1e-5)
    means = " ".join(f"{values.mean():.1%}" for values in expected[:3])
    assert f"mean of classes 36 {means}" in said.out
    wrong = sum(a != b for a, b in zip(truth, guesses, strict=True))
    with Image.open("guesses-mistakes.png") as sheet:
        assert sheet.height > 128 * min(wrong, 8)
        assert sheet.info["Software"] == "unmask"


def test_no_sheet_of_mistakes_without_mistakes(
    unmask: Unmask, tuned: RunFolder, classes: Path
) -> None:
    first = unmask("predict", tuned.root, classes, "--out", "guesses.csv", "--json")
    perfect = json.loads(first.raw)["top1"] == 1
    assert Path("guesses-mistakes.png").exists() != perfect


def test_what_is_taken_for_what() -> None:
    """Counts that scikit-learn gives too."""
    pairs = [(0, 0), (0, 1), (0, 1), (2, 2), (2, 0)]
    guesses = [
        Answer(f"{n}", (true,), Prediction([said, 3], [0.9, 0.1], [said]))
        for n, (true, said) in enumerate(pairs)
    ]
    truth, best = zip(*pairs, strict=True)
    expected = confusion_matrix(truth, best, labels=range(4))
    assert confusion(guesses, 4).tolist() == expected.tolist()


def test_images_without_labels(unmask: Unmask, tuned: RunFolder, images: Path) -> None:
    said = unmask("predict", tuned.root, images)
    assert said.status == 0
    assert "00.png: " in said.out
    assert "top-1" not in said.out


def test_other_classes(unmask: Unmask, tuned: RunFolder, classes: Path, tmp_path: Path) -> None:
    data = tiny.write_classes(tmp_path / "data", ("cats", "dogs", "emus"), 2)
    said = unmask("predict", tuned.root, data, "--json")
    assert said.status == 0, said.err
    assert (
        "note: 2 images are not scored, because the classifier has no class emus; it has cats, dogs"
        in said.err
    )
    result = json.loads(said.raw)
    assert 0 <= result["top1"] <= 1
    assert [image["class"] for image in result["images"]] == ["cats"] * 2 + ["dogs"] * 2 + [
        None
    ] * 2


def test_folders_that_are_no_classes(unmask: Unmask, tuned: RunFolder, tmp_path: Path) -> None:
    data = tiny.write_classes(tmp_path / "data", ("monday", "tuesday"), 2)
    said = unmask("predict", tuned.root, data)
    assert said.status == 0, said.err
    assert "the images' labels are not the classifier's classes: monday, tuesday" in said.err
    assert "top-1" not in said.out
    assert said.out.count(".png: ") == 4


def test_grey_images_answer_as_files_and_as_a_folder(
    unmask: Unmask, tuned: RunFolder, tmp_path: Path
) -> None:
    data = tiny.write_images(tmp_path / "data", 2, channels=1)
    folder = unmask("predict", tuned.root, data, "--json")
    assert folder.status == 0, folder.err
    assert "grey images are repeated in 3 channels, because this classifier was" in folder.err
    files = unmask("predict", tuned.root, *sorted(data.iterdir()), "--json")
    shares = [
        [guess["probability"] for guess in image["guesses"]]
        for said in (folder, files)
        for image in json.loads(said.raw)["images"]
    ]
    assert shares[0] == pytest.approx(shares[2], abs=1e-6)
    assert shares[1] == pytest.approx(shares[3], abs=1e-6)


def test_unreadable_images(unmask: Unmask, tuned: RunFolder, classes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(classes, tmp_path / "data")
    cut = data / "cats" / "03.png"
    cut.write_bytes(cut.read_bytes()[:60])
    said = unmask("predict", tuned.root, data)
    assert "1 unreadable images skipped; the first is cats/03.png" in said.err
    assert "on 19 images" in said.out
    alone = unmask("predict", tuned.root, cut)
    assert alone.status == 1
    assert "03.png: " in alone.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top", "0"], "--top must be at least 1, got 0"),
        (["digits"], "give image files or one data set, got 2 names"),
    ],
)
def test_wrong_words(
    unmask: Unmask, tuned: RunFolder, classes: Path, words: list[str], message: str
) -> None:
    said = unmask("predict", tuned.root, classes / "cats" / "00.png", *words)
    assert said.status == 1
    assert message in said.err


def test_a_run_without_classes(unmask: Unmask, trained: RunFolder, classes: Path) -> None:
    said = unmask("predict", trained.root, classes)
    assert said.status == 1
    assert f"train a classifier with `unmask finetune {trained.root} DATA`" in said.err
