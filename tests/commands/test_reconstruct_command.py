"""`unmask reconstruct`: the sheet, its figures and its honesty."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands.said import Unmask
from PIL import Image
from runs import tiny

import unmask as package
from unmask.runs.folder import RunFolder


def figures_of(unmask: Unmask, *words: object) -> dict[str, Any]:
    said = unmask("reconstruct", *words, "--json")
    assert said.status == 0, said.err
    return json.loads(said.raw)


@pytest.mark.parametrize(
    ("flags", "hidden"),
    [
        ([], 15),
        (["--ratio", "0.5"], 10),
        (["--masking", "random"], 15),
        (["--masking", "random", "--ratio", "0.25"], 5),
        (["--masking", "block"], 10),
        (["--masking", "block", "--ratio", "0.3"], 6),
        (["--masking", "grid"], 14),
        (["--masking", "grid", "--ratio", "0.889"], 16),
    ],
)
def test_every_masking(
    unmask: Unmask, trained: RunFolder, images: Path, flags: list[str], hidden: int
) -> None:
    """12 x 10 pixels at about the area of 8 x 8, in patches of 2: a grid of 4 x 4 or 5 x 4."""
    (figure,) = figures_of(unmask, trained.root, images / "03.png", *flags)["images"]
    assert figure["image"] == "03.png"
    assert figure["patches"] == GRID[0] * GRID[1]
    assert figure["hidden"] == (hidden if GRID == (5, 4) else figure["hidden"])
    assert 0 < figure["error"] < 255
    assert 0 < figure["interpolation_error"] < 255
    assert 0 < figure["nearest_training_error"] < 255
    assert figure["nearest_training_image"] != "03.png"


def test_the_function_rebuilds_the_same_and_writes_no_file(
    unmask: Unmask, trained: RunFolder, images: Path
) -> None:
    files = [images / "03.png", images / "04.png"]
    found = package.reconstruct(trained.root, files, masking="random", ratio=0.5, seed=2)
    assert not list(Path().iterdir())
    flags = ["--masking", "random", "--ratio", "0.5", "--seed", "2"]
    answer = figures_of(unmask, trained.root, *files, *flags)
    assert found.notes == answer["notes"]
    for one, figure in zip(found.images, answer["images"], strict=True):
        assert one.name == figure["image"]
        assert one.reconstruction.error == pytest.approx(figure["error"], abs=0.005)
        assert one.nearest is not None
        assert one.nearest[1] == figure["nearest_training_image"]
    with Image.open("sheet.png") as sheet:
        assert np.array_equal(np.asarray(sheet), np.asarray(found.sheet))


def test_the_function_takes_maskings_and_painted_pixels(trained: RunFolder, images: Path) -> None:
    (one,) = package.reconstruct(
        trained.root, images / "03.png", masking=package.RandomMasking(ratio=0.25)
    ).images
    assert one.mask.removed.float().mean() == 0.25
    painted = torch.zeros(12, 10, dtype=torch.bool)
    painted[6:] = True
    (one,) = package.reconstruct(trained.root, images / "03.png", mask=painted).images
    assert one.mask.removed.reshape(GRID)[:2].sum() == 0
    assert len(package.reconstruct(trained.root, package.Folder(path=str(images))).images) == 12


GRID = (4, 4)
"""round(12 x s / 2) x round(10 x s / 2) patches, where s x s = 64 / 120."""


def test_sheet_and_words(unmask: Unmask, trained: RunFolder, images: Path) -> None:
    words = [images / "00.png", images / "01.png", "--out", "a/b/sheet.png"]
    said = unmask("reconstruct", trained.root, *words)
    assert said.status == 0
    assert "00.png: 12 of 16 hidden, error" in said.out
    assert "written: a/b/sheet.png" in said.out
    standing = re.findall(
        r"error ([\d.]+) of 255, interpolation ([\d.]+) \(model (\w+)\)", said.out
    )
    assert len(standing) == 2
    for error, interpolation, word in standing:
        assert word == ("ahead" if float(error) < float(interpolation) else "behind")
    ahead = sum(word == "ahead" for *_, word in standing)
    assert f"ahead of interpolation in {ahead} of 2 images; mean error" in said.out
    assert "levels of hidden patches: from the 8 nearest visible patches" in said.out
    assert "nearest training image: by the visible patches, among 12" in said.out
    with Image.open("a/b/sheet.png") as sheet:
        assert sheet.width > 4 * 256
        assert sheet.height > 2 * 256
        assert len(sheet.convert("RGB").getcolors(2**20) or []) > 100


def test_folder_of_images(unmask: Unmask, trained: RunFolder, images: Path) -> None:
    found = figures_of(unmask, trained.root, images)["images"]
    assert [row["image"] for row in found] == [f"{n:02}.png" for n in range(12)]


@pytest.mark.slow
def test_digits(unmask: Unmask, tmp_path: Path) -> None:
    run = tiny.begin(tmp_path / "run", "digits")
    tiny.one_step(run)
    found = figures_of(unmask, run.root, "digits")["images"]
    assert len(found) == 8
    assert all(row["hidden"] == 12 for row in found)


def test_same_seed_same_figures(unmask: Unmask, trained: RunFolder, images: Path) -> None:
    words = (trained.root, images / "03.png", images / "04.png")
    first, second = figures_of(unmask, *words), figures_of(unmask, *words)
    assert first == second
    assert figures_of(unmask, *words, "--seed", "1")["images"] != first["images"]


def test_a_seed_gives_each_image_a_mask_of_its_own(
    unmask: Unmask, trained: RunFolder, images: Path, tmp_path: Path
) -> None:
    shutil.copy(images / "00.png", tmp_path / "same.png")
    one, other = figures_of(unmask, trained.root, images / "00.png", tmp_path / "same.png")[
        "images"
    ]
    assert one["error"] != other["error"]


def test_true_levels_are_confessed(unmask: Unmask, trained: RunFolder, images: Path) -> None:
    words = (trained.root, images / "00.png")
    honest = figures_of(unmask, *words)
    cheating = figures_of(unmask, *words, "--levels", "true")
    assert any("THE TRUE ONES" in note for note in cheating["notes"])
    assert not any("TRUE" in note for note in honest["notes"])
    assert honest["images"][0]["error"] != cheating["images"][0]["error"]


def paint(path: Path, transparent: bool) -> Path:
    """The upper half of a picture of another size, white, or opaque."""
    flags = np.zeros((40, 30), bool)
    flags[:20] = True
    if transparent:
        pixels = np.full((40, 30, 4), 90, np.uint8)
        pixels[..., 3] = flags * 255
    else:
        pixels = (flags * 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("transparent", [False, True])
def test_painted_mask(
    unmask: Unmask, trained: RunFolder, images: Path, tmp_path: Path, transparent: bool
) -> None:
    mask = paint(tmp_path / "mask.png", transparent)
    (figure,) = figures_of(unmask, trained.root, images / "00.png", "--mask", mask)["images"]
    assert (figure["hidden"], figure["patches"]) == (8, 16)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--ratio", "1.5"], "--ratio must lie between 0 and 1, got 1.5; MAE uses 0.75"),
        (["--ratio", "0"], "--ratio must lie between 0 and 1, got 0"),
        (["--ratio", "0.99"], "keep none of the 16 patches"),
        (["--masking", "grid", "--ratio", "0.5"], "a grid cannot hide 0.5; it hides 0.75"),
        (["--masking", "gird"], "gird"),
        (["--mask", "gone.png"], "--mask: gone.png does not exist; give a file"),
        (["--mask", "MASK", "--ratio", "0.5"], "leave out --masking and --ratio"),
        (["--mask", "MASK", "--masking", "grid"], "leave out --masking and --ratio"),
        (
            ["--mask", "BLACK"],
            "hides none of the 16 patches, so there is nothing to rebuild; paint",
        ),
        (
            ["--mask", "WHITE"],
            "hides all of the 16 patches, so there is nothing to rebuild them from",
        ),
        (["--out", "sheet.doc"], "--out sheet.doc has no ending of a picture; use .png"),
        (["--levels", "ture"], "ture"),
        (["gone.png"], "gone.png does not exist; give image files, or a folder of them"),
        (["TEXT"], "not an image of a known format"),
        (["EMPTY"], "no image found in"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input(
    unmask: Unmask, trained: RunFolder, images: Path, tmp_path: Path, flags: list[str], words: str
) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "TEXT").write_text("words")
    paint(tmp_path / "mask.png", False)
    Image.new("L", (8, 8), 0).save(tmp_path / "black.png")
    Image.new("L", (8, 8), 255).save(tmp_path / "white.png")
    places = {
        "MASK": tmp_path / "mask.png",
        "BLACK": tmp_path / "black.png",
        "WHITE": tmp_path / "white.png",
        "TEXT": tmp_path / "TEXT",
        "EMPTY": tmp_path / "EMPTY",
    }
    said = unmask(
        "reconstruct", trained.root, images / "00.png", *(places.get(f, f) for f in flags)
    )
    assert said.status in (1, 2)
    assert words in said.all


def test_no_image(unmask: Unmask, trained: RunFolder, tmp_path: Path) -> None:
    said = unmask("reconstruct", trained.root, tmp_path)
    assert said.status == 1
    assert "no image found in" in said.err


def test_images_of_the_run_are_gone(unmask: Unmask, images: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(images, tmp_path / "copy")
    run = tiny.finished_run(tmp_path / "run", copy)
    shutil.rmtree(copy)
    figures = figures_of(unmask, run.root, images / "00.png")
    assert "nearest_training_error" not in figures["images"][0]
    assert any("no comparison" in note and "does not exist" in note for note in figures["notes"])


def test_many_images_are_cut_to_a_sheet(unmask: Unmask, trained: RunFolder, tmp_path: Path) -> None:
    tiny.write_images(tmp_path / "many", 66)
    said = unmask("reconstruct", trained.root, tmp_path / "many")
    assert "8 of the 66 images in" in said.err


@pytest.mark.slow
def test_many_files_are_cut_to_a_sheet(unmask: Unmask, trained: RunFolder, tmp_path: Path) -> None:
    files = sorted(tiny.write_images(tmp_path / "many", 66).iterdir())
    said = unmask("reconstruct", trained.root, *files)
    assert "66 images are too many for a sheet; the first 64 are shown" in said.err


def test_json_stays_json_with_many_images(
    unmask: Unmask, trained: RunFolder, tmp_path: Path
) -> None:
    tiny.write_images(tmp_path / "many", 66)
    assert len(figures_of(unmask, trained.root, tmp_path / "many")["images"]) == 8


def test_figures_are_valid_json_without_another_training_image(
    unmask: Unmask, tmp_path: Path
) -> None:
    images = tiny.write_images(tmp_path / "one", 1)
    run = tiny.finished_run(tmp_path / "run", images)
    said = unmask("reconstruct", run.root, images, "--json")
    json.loads(said.raw, parse_constant=pytest.fail)


@pytest.mark.parametrize("device", ["gpu:99", "cuda:99"])
def test_missing_device(unmask: Unmask, trained: RunFolder, images: Path, device: str) -> None:
    said = unmask("reconstruct", trained.root, images, "--device", device)
    assert said.status == 1
    assert "--device cuda:99 cannot be used here" in said.err
    assert "mkldnn" not in said.err


def test_digits_with_a_colour_run(unmask: Unmask, trained: RunFolder) -> None:
    assert unmask("reconstruct", trained.root, "digits").status in (0, 1)
