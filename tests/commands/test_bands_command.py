"""Images of many bands, through every command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands.said import Unmask
from PIL import Image
from runs import tiny

import unmask as package
from unmask.errors import DataError, SettingsError
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run

BANDS = 13


def write_scenes(folder: Path, bands: int = BANDS, count: int = 6) -> Path:
    """Smooth scenes whose bands lie far apart, with missing values."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:20, 0:18]
    for number in range(count):
        slopes = random.uniform(-1, 1, (2, bands, 1, 1))
        scene = (slopes[0] * rows + slopes[1] * columns) * 10.0 ** np.arange(bands)[:, None, None]
        scene[:, :3, :2] = np.nan
        np.save(folder / f"{number}.npy", scene.astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("bands") / "scenes")


@pytest.fixture(scope="module")
def trained_on_bands(scenes: Path) -> RunFolder:
    return tiny.finished_run(scenes.parent / "run", scenes)


def test_pretrain_says_what_it_found(unmask: Unmask, scenes: Path, recipe: list[str]) -> None:
    said = unmask("pretrain", scenes, *recipe, "--out", "run")
    assert said.status == 0, said.err
    assert f"6 {BANDS}-band images in {scenes}, about 20 x 18 pixels" in said.out
    assert "96 % of values lie within" in said.out
    assert "measured on 6 images" in said.out
    run = Run.read(RunFolder("run"), "pretrain")
    assert run.statistics.values == "float32"
    assert run.statistics.std[5] > 1e4 * run.statistics.std[0]
    kept = json.loads(Path("run/statistics.json").read_text())
    assert kept["mean"] == list(run.statistics.mean)


def test_channels_are_chosen_and_kept_for_later_commands(
    unmask: Unmask, scenes: Path, recipe: list[str]
) -> None:
    said = unmask("pretrain", scenes, *recipe, "--out", "run", "--channels", "4,3")
    assert said.status == 0, said.err
    assert "6 2-band" in said.out
    assert unmask("reconstruct", "run", scenes).status == 0
    assert unmask("reconstruct", "run", scenes / "0.npy").status == 0
    model = package.load("run")
    assert model.read(scenes / "0.npy").shape == (2, 20, 18)
    again = unmask("pretrain", scenes, "--like", "run", "--out", "again")
    assert again.status == 0, again.err
    tiny.assert_same_end(RunFolder("run"), RunFolder("again"))


def test_what_it_sees_as_missing(unmask: Unmask, tmp_path: Path, recipe: list[str]) -> None:
    scene = np.random.default_rng(0).integers(1, 200, (4, 9, 9)).astype(np.int16)
    scene[:, :2] = -999
    np.save(tmp_path / "a.npy", scene)
    said = unmask("pretrain", tmp_path, *recipe, "--out", "run", "--no-data", "-999")
    assert said.status == 0, said.err
    assert min(Run.read(RunFolder("run"), "pretrain").statistics.low) > 0


def test_every_band_is_rebuilt(trained_on_bands: RunFolder, scenes: Path) -> None:
    """In its own units, and with an error over all of them."""
    model = package.load(trained_on_bands.root)
    result = model.reconstruct(scenes / "2.npy", seed=1)
    for picture in (result.masked, result.rebuilt, result.pasted, result.original):
        assert picture.shape[0] == BANDS
    assert result.rebuilt.isfinite().all()
    spread = result.rebuilt.flatten(1).std(1)
    assert spread[9] > 1e6 * spread[1]
    assert result.original.isnan().any()
    assert result.error > 0
    assert result.interpolation_error > 0


def test_sheet_shows_three_bands(unmask: Unmask, trained_on_bands: RunFolder, scenes: Path) -> None:
    said = unmask("reconstruct", trained_on_bands.root, scenes, "--bands", "4,3,2", "--json")
    assert said.status == 0, said.err
    notes = json.loads(said.raw)["notes"]
    assert f"channels 4, 3, 2 as red, green, blue; errors over all {BANDS}" in notes
    assert any(
        "2nd to its 98th percentile" in note and "missing is white" in note for note in notes
    )
    with Image.open("sheet.png") as sheet:
        assert len(sheet.convert("RGB").getcolors(2**20) or []) > 50


def test_one_band_is_grey(unmask: Unmask, trained_on_bands: RunFolder, scenes: Path) -> None:
    said = unmask("reconstruct", trained_on_bands.root, scenes / "0.npy", "--bands", "7")
    assert "channels 7 as grey" in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bands", "1,2"], "--bands names one channel or three of the 13, such as 3,2,1"),
        (["--bands", "1,2,14"], "--bands names one channel or three of the 13"),
        (["--bands", "red"], "--bands must be a list of channels counted from 1"),
    ],
)
def test_bands_that_are_not_there(
    unmask: Unmask, trained_on_bands: RunFolder, scenes: Path, words: list[str], message: str
) -> None:
    said = unmask("reconstruct", trained_on_bands.root, scenes, *words)
    assert said.status == 1
    assert message in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--channels", "0"], "--channels must be a list of channels counted from 1"),
        (["--channels", "14"], "has 13 channels; channel 14 does not exist"),
        (["--no-data", "none"], "--no-data must be a number, got 'none'"),
        (["--statistics", "imagenet"], "is for uint8 pixels, but the images are float32"),
        (["--statistics", "gone.json"], "imagenet, measure or a JSON file"),
        (["--data-kind", "tif"], "unknown --data-kind 'tif'; did you mean 'tiff'"),
    ],
)
def test_bad_flags(
    unmask: Unmask, scenes: Path, recipe: list[str], words: list[str], message: str
) -> None:
    said = unmask("pretrain", scenes, *recipe, "--out", "run", *words)
    assert said.status == 1
    assert message in said.err
    assert not Path("run").exists()


def test_channels_of_plain_pictures(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    said = unmask("pretrain", images, *recipe, "--channels", "1")
    assert said.status == 1
    assert "--channels must be left out, because" in said.err


def test_images_of_another_kind_are_refused_by_the_model(
    trained_on_bands: RunFolder, images: Path, tmp_path: Path
) -> None:
    model = package.load(trained_on_bands.root)
    np.save(tmp_path / "a.npy", np.zeros((5, 8, 8), np.float32))
    with pytest.raises(DataError, match="has 5 channels, but the model was trained on 13"):
        model.reconstruct(tmp_path / "a.npy")
    with pytest.raises(SettingsError, match="a float32 tensor"):
        model.embed(torch.zeros(1, BANDS, 8, 8, dtype=torch.uint8))
    bytes_root = tiny.finished_run(tmp_path / "run", images).root
    bytes_model = package.load(bytes_root)
    with pytest.raises(DataError, match="floats must lie from 0 to 1, got 7 to 7"):
        bytes_model.fit(torch.full((3, 8, 8), 7.0))
    # floats of files have units of their own, even if they happen to lie from 0 to 1
    (tmp_path / "scenes").mkdir()
    np.save(tmp_path / "scenes" / "a.npy", np.zeros((3, 8, 8), np.float32))
    for function in (bytes_model.embed, lambda data: package.reconstruct(bytes_root, data)):
        with pytest.raises(DataError, match="pixels are float32, but the model was trained on uin"):
            function(tmp_path / "scenes")


@pytest.mark.slow
def test_features_of_bands(unmask: Unmask, tmp_path: Path) -> None:
    for name in ("dry", "wet"):
        write_scenes(tmp_path / "data" / name, 4, 5)
    run = tiny.finished_run(tmp_path / "run", tmp_path / "data")
    said = unmask("evaluate", run.root, tmp_path / "data", "--json")
    assert said.status == 0, said.err
    assert json.loads(said.raw)["classes"] == 2


def test_a_missing_band_is_named(unmask: Unmask, tmp_path: Path, recipe: list[str]) -> None:
    scene = np.ones((3, 8, 8), np.float32)
    scene[1] = np.nan
    np.save(tmp_path / "a.npy", scene)
    said = unmask("pretrain", tmp_path, *recipe)
    assert said.status == 1
    assert "channel 2 has only missing values in" in said.err


def test_a_classifier_reads_bands_as_in_training(
    unmask: Unmask, tmp_path: Path, recipe: list[str]
) -> None:
    fields = tmp_path / "fields"
    for name in ("dry", "wet"):
        write_scenes(fields / name, bands=4)
    assert unmask("pretrain", fields, *recipe, "--channels", "4,2", "--out", "run").status == 0
    made = unmask(
        "finetune", "run", fields, "--epochs", "1", "--batch-size", "2", "--image-size", "16", "--workers", "0",
        "--out", "tuned",
    )  # fmt: skip
    assert made.status == 0, made.err
    assert package.load("tuned").read(fields / "dry" / "0.npy").shape == (2, 20, 18)
    for asked in (fields, fields / "dry" / "0.npy"):
        said = unmask("predict", "tuned", asked)
        assert said.status == 0, said.err
    again = unmask(
        "finetune", "tuned", fields, "--epochs", "1", "--batch-size", "2", "--workers", "0", "--out", "twice"
    )  # fmt: skip
    assert again.status == 0, again.err
