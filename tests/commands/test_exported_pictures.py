"""Exports are proved on picture files: other libraries see what `embed` sees, and the model card's code runs."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands.said import Unmask
from formats.models import BANDED, BANDS, GREY, TINY, weights_of, written
from PIL import Image
from runs import tiny
from torch import Tensor

import unmask as package
from unmask.channels import IMAGENET
from unmask.contracts import Size
from unmask.formats import read_named
from unmask.formats.model import ModelSpec
from unmask.formats.timm import Timm
from unmask.runs.folder import RunFolder

SQUARE = replace(TINY, image_size=Size(32, 32))
GREY_ALONE = replace(SQUARE, channels=1, statistics=GREY, objective=None)
WIDE = replace(TINY, image_size=Size(16, 48), objective=None)
SPECS = {
    "colour": SQUARE,
    "grey": GREY_ALONE,
    "wide": WIDE,
    "tall": replace(WIDE, image_size=Size(48, 16)),
}


def photo(path: str, size: tuple[int, int] = (720, 360), grey: bool = False) -> Path:
    """A picture with something in every part, turned by its EXIF note; of a size that all libraries round alike."""
    random = np.random.default_rng(0)
    small = random.integers(0, 255, (9, 16) if grey else (9, 16, 3), np.uint8)
    image = Image.fromarray(small).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, quality=95, exif=exif)
    return Path(path)


def exported(unmask: Unmask, spec: ModelSpec, layout: str) -> str:
    """What `convert` says of weights in our layout."""
    written(weights_of(spec), Path("source"), "unmask")
    said = unmask("convert", "source", "mine", "--to", layout)
    assert said.status == 0, said.all
    return said.out


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("layout", ["huggingface", "timm"])
def test_a_picture_goes_through_both(unmask: Unmask, name: str, layout: str) -> None:
    out = exported(unmask, SPECS[name], layout)
    found = re.search(
        r"a synthetic picture of \d+ x 360 pixels, from the file to the features in \w+ \S+ largest difference of a "
        r"pixel ([\d.e+-]+) of 255, of a feature ([\d.e+-]+)",
        out,
    )
    assert found is not None, out
    assert float(found[1]) <= 2
    assert float(found[2]) < 0.05


def blocks_of(card: str) -> list[str]:
    """The code blocks of a card."""
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def result_of(code: str) -> Tensor:
    """The features that a block of code computes."""
    names: dict[str, Any] = {}
    exec(code, names)
    return names["features"].detach()


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("layout", ["huggingface", "timm", "unmask"])
def test_the_code_of_the_card_gives_the_features(unmask: Unmask, name: str, layout: str) -> None:
    """In all libraries, after the conversions that the card names; JPEG decoders and resizings round differently."""
    exported(unmask, SPECS[name], layout)
    photo("photo.jpg", grey=name == "grey")
    card = Path("mine/README.md").read_text()
    expected = package.load("source").embed(["photo.jpg"])
    blocks = blocks_of(card)
    assert len(blocks) == 3
    for code in blocks:
        if "converted" in code:
            library = "timm" if "import timm" in code else "huggingface"
            command = f"unmask convert mine converted --to {library}"
            assert command in card
            continue
        features = result_of(code)
        wanted = expected.cls if "import timm" in code else expected.mean
        torch.testing.assert_close(features, wanted, atol=0.05, rtol=0)
        assert result_of(code).equal(features)


def test_conversions_that_the_card_names(unmask: Unmask) -> None:
    exported(unmask, SQUARE, "unmask")
    photo("photo.jpg")
    for code in blocks_of(Path("mine/README.md").read_text()):
        if "converted" in code:
            library = "timm" if "import timm" in code else "huggingface"
            unmask("convert", "mine", library, "--to", library)
            result_of(code.replace("converted", library))


def test_arrays_that_are_no_pictures(unmask: Unmask) -> None:
    """The card shows how they are normalised, and the export carries all of the statistics."""
    for layout in ("huggingface", "timm"):
        spec = replace(BANDED, objective=None)
        out = unmask_out(unmask, spec, layout)
        assert "not compared on a picture file: images with 5 channels of float32" in out
        card = Path(f"{layout}/README.md").read_text()
        assert (
            "range: 0, 0, 0, 0, 0 is black, 3000, 3000, 3000, 3000, 3000 is white (units of the data)"
            in card
        )
        for code in blocks_of(card):
            if "converted" not in code:
                assert result_of(code).isfinite().all()
        assert read_named(layout)[1].spec.statistics == BANDS


def unmask_out(unmask: Unmask, spec: ModelSpec, layout: str) -> str:
    if not Path("source").exists():
        written(weights_of(spec), Path("source"), "unmask")
    said = unmask("convert", "source", layout, "--to", layout)
    assert said.status == 0, said.all
    return said.out


@pytest.mark.parametrize("layout", ["unmask", "fair", "timm", "huggingface"])
def test_the_range_of_16_bit_images_goes_along(unmask: Unmask, layout: str) -> None:
    narrow = replace(IMAGENET, low=(0.01, 0.0, 0.02), high=(0.3, 0.25, 0.5), source="measured")
    exported(unmask, replace(SQUARE, statistics=narrow), layout)
    assert read_named("mine")[1].spec.statistics == narrow


def test_one_of_the_runs_own_images(unmask: Unmask, tmp_path: Path) -> None:
    images = tiny.write_images(tmp_path / "photos", count=8, size=(16, 24))
    folder = tiny.finished_run(tmp_path / "run", images)
    for layout in ("huggingface", "timm"):
        said = unmask("convert", folder.root, layout, "--to", layout)
        assert said.status == 0
        assert "checked 00.png, from the file to the features in" in said.out
    images.rename(tmp_path / "elsewhere")
    said = unmask("convert", folder.root, "again", "--to", "timm")
    assert said.status == 0
    assert "checked a synthetic picture of" in said.out


@pytest.mark.parametrize(
    "change", [{"crop_pct": 0.9}, {"interpolation": "bilinear"}, {"mean": [0.5] * 3}]
)
def test_settings_that_show_another_picture_are_an_error(
    unmask: Unmask, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    right = Timm._config

    def wrong(layout: Timm, spec: ModelSpec) -> dict[str, Any]:
        config = right(layout, spec)
        return {**config, "pretrained_cfg": config["pretrained_cfg"] | change}

    monkeypatch.setattr(Timm, "_config", wrong)
    written(weights_of(SQUARE), Path("source"), "unmask")
    said = unmask("convert", "source", "mine", "--to", "timm")
    assert said.status == 1
    assert "warning: that is more than rounding: do not use its settings for pictures" in said.out


def test_settings_are_written(unmask: Unmask, trained: RunFolder) -> None:
    unmask("convert", trained.root, "hf", "--to", "huggingface")
    settings = json.loads(Path("hf/preprocessor_config.json").read_text())
    assert settings["resample"] == 3
    assert settings["size"] == {"shortest_edge": 8}
    assert settings["crop_size"] == {"height": 8, "width": 8}
    assert all(settings[f"do_{what}"] for what in ("resize", "center_crop", "rescale", "normalize"))
    unmask("convert", trained.root, "timm", "--to", "timm")
    settings = json.loads(Path("timm/config.json").read_text())["pretrained_cfg"]
    assert settings["crop_pct"] == 1.0
    assert settings["interpolation"] == "bicubic"
    assert settings["input_size"] == [3, 8, 8]


def test_without_transformers(
    unmask: Unmask, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.formats.huggingface.find_spec", lambda name: None)
    said = unmask("convert", trained.root, "hf", "--to", "huggingface")
    assert said.status == 0
    assert "not checked: transformers is not installed" in said.out
    assert "not compared on a picture file: the library is not installed" in said.out
