"""How files are read, through the commands: 16 bits, alpha, frames, bands in files of their own, odd names and shapes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from commands.said import Said, Unmask
from PIL import Image
from runs import tiny

import unmask as package
from unmask.data import Shards, Tiff, geometry
from unmask.data.decode import decode
from unmask.data.deep import FULL
from unmask.data.kinds import find_source
from unmask.data.statistics import measure
from unmask.runs.folder import RunFolder
from unmask.runs.images_of_run import as_begun
from unmask.runs.run import Run

DEEP = (1000.0, 2000.0)


def write_deep(folder: Path, count: int = 8, ending: str = "png", high: int = 2000) -> Path:
    """12 bits of a camera in files of 16, with one hot pixel each."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        values = np.linspace(1000, high, 40 * 40).reshape(40, 40) + random.integers(0, 2, (40, 40))
        values = np.rint(values).clip(1000, high).astype(np.uint16)
        values[3, 3] = 65535
        Image.fromarray(values).save(folder / f"{number}.{ending}")
    return folder


def pretrained(unmask: Unmask, data: Path, recipe: list[str], *words: str) -> Said:
    said = unmask("pretrain", data, *recipe, "--out", "run", *words)
    assert said.status == 0, said.err
    return said


class TestSixteenBits:
    @pytest.mark.parametrize("ending", ["png", "tif"])
    def test_the_range_is_measured_said_and_kept(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str], ending: str
    ) -> None:
        data = write_deep(tmp_path / "cells", ending=ending)
        said = pretrained(unmask, data, recipe)
        assert (
            "8 images have 16 bits: values 1001 to 2000 (measured) become 0 to 255" in said.out
            or ("8 images have 16 bits: values 1000 to 2000 (measured) become 0 to 255" in said.out)
        )
        statistics = Run.read(RunFolder("run"), "pretrain").statistics
        assert statistics.std[0] > 0.2
        assert statistics.levels is not None
        assert np.allclose(statistics.levels, DEEP, atol=2)

    def test_later_pictures_are_read_in_the_same_range(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        data = write_deep(tmp_path / "cells")
        pretrained(unmask, data, recipe)
        darker = write_deep(tmp_path / "darker", high=1500)
        pixels = package.load("run").read(darker / "0.png")
        assert 120 < pixels[0, -1, -1] < 130  # 1500 lies in the middle of the range
        said = unmask("reconstruct", "run", darker)
        assert said.status == 0, said.err
        sheet = np.asarray(Image.open("sheet.png").convert("L"))
        assert sheet.std() > 30
        found = unmask("convert", "run", "hf", "--to", "huggingface")
        assert found.status == 0, found.err
        levels = package.load("hf").spec.statistics.levels
        assert levels == Run.read(RunFolder("run"), "pretrain").statistics.levels

    def test_a_run_of_an_older_version_keeps_the_full_range(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        data = write_deep(tmp_path / "cells")
        pretrained(unmask, data, recipe)
        spec = json.loads(Path("run/spec.json").read_text())
        spec["spec_version"] = 2
        del spec["statistics"]["levels"], spec["data"]["by_content"]
        Path("run/spec.json").write_text(json.dumps(spec))
        shutil.rmtree("run/checkpoints")
        run = Run.read(RunFolder("run"), "pretrain")
        begun = as_begun(run, run.data)
        assert begun is not None
        assert torch.equal(begun.train[0].image, decode((data / "0.png").read_bytes(), 1, FULL))
        said = unmask("pretrain", "--resume", "run")
        assert said.status == 0, said.err
        assert package.load("run").read(data / "0.png").max() == 255  # the hot pixel
        assert package.load("run").read(data / "0.png").median() < 8

    def test_packed_pictures_hand_their_range_on(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        data = write_deep(tmp_path / "cells")
        assert unmask("pack", data, tmp_path / "packed").status == 0
        pretrained(unmask, tmp_path / "packed", recipe)
        levels = Run.read(RunFolder("run"), "pretrain").statistics.levels
        assert levels is not None
        assert np.allclose(levels, DEEP, atol=2)

    def test_both_splits_are_packed_in_one_range(self, unmask: Unmask, tmp_path: Path) -> None:
        write_deep(tmp_path / "cells" / "train")
        write_deep(tmp_path / "cells" / "test", high=1500)
        assert unmask("pack", tmp_path / "cells", tmp_path / "packed").status == 0
        pixels = Shards(path=str(tmp_path / "packed")).open("test")[0].image
        assert 120 < pixels[0, -1, -1] < 130

    def test_a_folder_with_a_broken_one_among_others(
        self, unmask: Unmask, images: Path, tmp_path: Path, recipe: list[str]
    ) -> None:
        data = tmp_path / "mixed"
        shutil.copytree(images, data)
        whole = (write_deep(tmp_path / "deep", count=1) / "0.png").read_bytes()
        (data / "deep.png").write_bytes(whole[:400])
        said = pretrained(unmask, data, recipe, "--max-set-aside", "0.5")
        assert "1 images have 16 bits; none of those looked at can be read" in said.out

    def test_colour_tiff_keeps_its_values(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        (tmp_path / "scenes").mkdir()
        for number in range(4):
            values = np.random.default_rng(number).integers(0, 4096, (20, 24, 3), np.uint16)
            tifffile.imwrite(tmp_path / "scenes" / f"{number}.tif", values, photometric="rgb")
        pretrained(unmask, tmp_path / "scenes", recipe)
        assert 1900 < Run.read(RunFolder("run"), "pretrain").statistics.mean[0] < 2200

    def test_a_model_of_all_values_reads_a_folder_like_its_own(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        data = write_deep(tmp_path / "cells")
        pretrained(unmask, data, recipe, "--data-kind", "tiff")
        said = unmask("reconstruct", "run", data, "--json")
        assert said.status == 0, said.err
        assert all(image["error"] < 500 for image in json.loads(said.raw)["images"])

    def test_all_values_are_kept_on_request(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        data = write_deep(tmp_path / "cells")
        pretrained(unmask, data, recipe, "--data-kind", "tiff")
        statistics = Run.read(RunFolder("run"), "pretrain").statistics
        assert statistics.values == "float32"
        assert 1400 < statistics.mean[0] < 1600
        assert unmask("reconstruct", "run", data / "0.png").status == 0


class TestAlpha:
    @staticmethod
    def write(folder: Path, alpha: Any, count: int = 4) -> Path:
        folder.mkdir()
        random = np.random.default_rng(0)
        for number in range(count):
            colours = random.integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(np.dstack([colours, np.broadcast_to(alpha, (32, 32))])).save(
                folder / f"{number}.png"
            )
        return folder

    def test_a_band_without_an_opaque_pixel_is_a_channel(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        band = np.arange(32, dtype=np.uint8)
        said = pretrained(unmask, self.write(tmp_path / "scenes", band), recipe)
        assert "4 4-band" in said.out
        assert (
            "no pixel is opaque (in 4 images looked at), so alpha is read as a channel" in said.out
        )
        assert torch.equal(
            package.load("run").read(tmp_path / "scenes" / "0.png")[3, 0], torch.from_numpy(band)
        )

    def test_an_older_run_keeps_its_channels(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        """It laid the band on white, as a run of three channels."""
        data = self.write(tmp_path / "scenes", np.arange(32, dtype=np.uint8))
        source = find_source(str(data)).open().decoded_to(3)
        run = Run.read(tiny.begin(tmp_path / "run", data), "pretrain")
        old = replace(run, channels=3, statistics=measure(source))
        begun = as_begun(old, run.data)
        assert begun is not None
        assert torch.equal(begun.train[0].image, source[0].image)

    def test_transparency_on_white_is_said(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        alpha = np.where(np.arange(32) < 16, 0, 255).astype(np.uint8)
        said = pretrained(unmask, self.write(tmp_path / "icons", alpha), recipe)
        assert "4 colour" in said.out
        assert "transparency is laid on white (in 4 of the 4 images looked at)" in said.out

    def test_opaque_alpha_is_not_worth_a_word(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        said = pretrained(unmask, self.write(tmp_path / "shots", np.uint8(255)), recipe)
        assert "transparency" not in said.out


class TestContent:
    def test_images_with_odd_names_are_images(
        self, unmask: Unmask, images: Path, tmp_path: Path, recipe: list[str]
    ) -> None:
        data = tmp_path / "web"
        shutil.copytree(images, data)
        first, *_ = sorted(data.glob("*.*"))
        for name in ("a.jfif", "3fe1", "x.jpg_large", "y.jpg_large", "z.DIB"):
            shutil.copy(first, data / name)
        (data / "notes").write_text("of no use")
        (data / "b.jpg_large").write_text("not an image")
        said = pretrained(unmask, data, recipe)
        assert f"{12 + 5} colour images in {data}" in said.out
        assert "skipped, not images: 1 (no ending), 1 .jpg_large" in said.out
        found = unmask("evaluate", "run", data / "3fe1")
        assert found.status == 1  # a file is no set of images

    def test_a_format_without_its_package_is_named(
        self, unmask: Unmask, images: Path, tmp_path: Path, recipe: list[str]
    ) -> None:
        data = tmp_path / "phone"
        shutil.copytree(images, data)
        fixtures = Path(__file__).parents[1] / "fixtures"
        shutil.copy(fixtures / "ramp.jxl", data)
        shutil.copy(fixtures / "ramp.heif", data)
        said = pretrained(unmask, data, recipe, "--max-set-aside", "0.5")
        assert "13 colour" in said.out
        assert "pip install pillow-jxl-plugin" in said.out


class TestFrames:
    @staticmethod
    def write(folder: Path, axes: str | None, shape: tuple[int, ...], **options: Any) -> Path:
        folder.mkdir()
        for number in range(3):
            values = np.random.default_rng(number).integers(0, 4096, shape).astype(np.uint16)
            settings = {"imagej": True, "metadata": {"axes": axes}} if axes else {"metadata": None}
            tifffile.imwrite(
                folder / f"{number}.tif", values, photometric="minisblack", **settings | options
            )
        return folder

    def test_depth_and_time_are_pictures(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        data = self.write(tmp_path / "stacks", "ZCYX", (5, 3, 24, 20))
        said = pretrained(unmask, data, recipe)
        assert "15 colour" in said.out
        assert "3 files have several pictures (axes Z), 5 in the first; --frames bands" in said.out

    def test_they_may_be_bands(self, unmask: Unmask, tmp_path: Path, recipe: list[str]) -> None:
        data = self.write(tmp_path / "stacks", "ZCYX", (5, 3, 24, 20))
        said = pretrained(unmask, data, recipe, "--frames", "bands")
        assert "3 15-band" in said.out

    def test_pages_without_a_name_are_bands_unless_asked(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        data = self.write(tmp_path / "pages", None, (4, 24, 20))
        said = pretrained(unmask, data, recipe)
        assert "3 4-band" in said.out
        assert "(axes I), read as bands; --frames pictures" in said.out
        said = unmask("pretrain", data, *recipe, "--out", "other", "--frames", "pictures")
        assert "12 grey" in said.out

    def test_a_resumed_run_reads_the_same_frames(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        data = self.write(tmp_path / "stacks", "TYX", (4, 24, 20))
        pretrained(unmask, data, recipe)
        shutil.copytree("run", "again")
        shutil.rmtree("again/checkpoints")
        Path("again/log.jsonl").unlink()
        said = unmask("pretrain", "--resume", "again")
        assert said.status == 0, said.err
        tiny.assert_same_end(RunFolder("run"), RunFolder("again"))


class TestBandsInFiles:
    @staticmethod
    def write(folder: Path) -> Path:
        folder.mkdir()
        for scene in range(3):
            for band in ("B02", "B03", "B8A"):
                values = np.random.default_rng(scene).integers(0, 9000, (24, 20)).astype(np.uint16)
                Image.fromarray(values).save(folder / f"s{scene}_{band}_10m.tif")
        return folder

    def test_are_stacked(self, unmask: Unmask, tmp_path: Path, recipe: list[str]) -> None:
        data = self.write(tmp_path / "scenes")
        said = pretrained(unmask, data, recipe, "--bands", "B02,B8A")
        assert "3 2-band" in said.out
        assert Run.read(RunFolder("run"), "pretrain").channels == 2
        assert unmask("reconstruct", "run", data).status == 0

    def test_are_noticed(self, unmask: Unmask, tmp_path: Path, recipe: list[str]) -> None:
        said = pretrained(unmask, self.write(tmp_path / "scenes"), recipe)
        assert "9 grey" in said.out
        assert "--bands B02,B03,B8A reads them as bands of one image" in said.out

    def test_a_missing_band_is_named(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str]
    ) -> None:
        data = self.write(tmp_path / "scenes")
        (data / "s1_B03_10m.tif").unlink()
        said = pretrained(unmask, data, recipe, "--bands", "B02,B03", "--max-set-aside", "0.5")
        assert "s1_B02_10m.tif: without its file of B03" in said.out

    @pytest.mark.parametrize(
        ("bands", "words"),
        [
            ("B99,B98", "no file has a word of --bands B99,B98 in its name"),
            ("B02,B02", "--bands must be different words"),
        ],
    )
    def test_wrong_words(
        self, unmask: Unmask, tmp_path: Path, recipe: list[str], bands: str, words: str
    ) -> None:
        data = self.write(tmp_path / "scenes")
        said = unmask("pretrain", data, *recipe, "--out", "run", "--bands", bands)
        assert said.status == 1
        assert words in said.err


def test_damaged_exif_does_not_stop_a_pack(unmask: Unmask, images: Path, tmp_path: Path) -> None:
    data = tmp_path / "photos"
    shutil.copytree(images, data)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 20)).save(data / "z.jpg", exif=exif)
    content = (data / "z.jpg").read_bytes()
    place = content.index(b"Exif\0\0") + 6
    (data / "z.jpg").write_bytes(content[:place] + b"damaged!" + content[place + 8 :])
    said = unmask("pack", data, tmp_path / "packed", "--max-set-aside", "0.5")
    assert said.status == 0, said.err


def test_a_scene_too_large_for_pillow_is_read_as_bands(tmp_path: Path) -> None:
    """Its header says 20,000 x 20,000 pixels, from which on Pillow refuses to open it."""
    tifffile.imwrite(
        tmp_path / "a.tif", shape=(20_000, 20_000), dtype=np.uint8, photometric="minisblack"
    )
    assert isinstance(find_source(str(tmp_path)), Tiff)


def test_a_thin_picture_takes_little_memory(
    unmask: Unmask, images: Path, tmp_path: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "thin"
    shutil.copytree(images, data)
    Image.new("RGB", (1, 60_000), "red").save(data / "thin.png")
    resize, largest = geometry.resize, 0

    def watched(image: torch.Tensor, size: Any) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, size.height * size.width)
        return resize(image, size)

    monkeypatch.setattr(geometry, "resize", watched)
    pretrained(unmask, data, recipe)
    assert unmask("reconstruct", "run", data / "thin.png").status == 0
    assert unmask("reconstruct", "run", data).status == 0
    assert 0 < largest < 200_000
