"""The tutorials, command by command, on stand-ins for the reader's pictures; trainings are cut to an epoch or some seconds."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from docs.pages import ROOT, command_lines, run
from PIL import Image
from runs import tiny

from unmask import MAE, ViT, convert
from unmask.objectives.decoders import SelfAttentionDecoder

TUTORIALS = ROOT / "docs" / "tutorials"
SIDE = 48
IN_UTM: list[Any] = [
    (33550, 12, 3, (10.0, 10.0, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 250_000.0, 2_680_000.0, 0.0), True),
    (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 32651), True),
]
"""Tags of a GeoTIFF of 10 m a pixel."""

NOTHING = 65535
NO_DATA = (42113, 2, 6, str(NOTHING), True)
"""GDAL's tag of the value that stands for missing pixels."""

BANDS: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}


def picture(random: np.random.Generator, channels: int = 1, kind: int = 0) -> np.ndarray:
    """Stripes of one of two widths in noise, of 16 bits [h w c]."""
    rows = np.arange(SIDE)[:, None, None] // (2 + 4 * kind) % 2
    values = 4000 + 9000 * rows + random.normal(0, 800, (SIDE, SIDE, channels))
    return values.clip(0, 65535).astype(np.uint16)


def plates(random: np.random.Generator) -> None:
    """Grey pictures of 16 bits, and labels of some."""
    Path("plates").mkdir()
    lines = ["file_name,label"]
    for number in range(1, 61):
        kind = number % 2
        tifffile.imwrite(f"plates/{number:04}.tif", picture(random, kind=kind)[..., 0])
        if number <= 30:
            lines.append(f"{number:04}.tif,{('healthy', 'infected')[kind]}")
    Path("labels.csv").write_text("\n".join(lines) + "\n")


def tiles(random: np.random.Generator) -> None:
    """GeoTIFFs of four bands, class maps of some, and a scene."""
    for folder in ("tiles", "fields/images", "fields/masks"):
        Path(folder).mkdir(parents=True)
    for number in range(1, 25):
        kind = number % 2
        pixels = picture(random, 4, kind)
        pixels[:5, :5] = NOTHING
        tifffile.imwrite(f"tiles/{number:04}.tif", pixels, **BANDS, extratags=[*IN_UTM, NO_DATA])
        if number <= 12:
            tifffile.imwrite(f"fields/images/{number:04}.tif", pixels, **BANDS)
            halves = np.full((SIDE, SIDE), kind, np.uint8)
            halves[:, : SIDE // 2] = 1 - kind
            Image.fromarray(halves).save(f"fields/masks/{number:04}.png")
    Path("fields/classes.txt").write_text("meadow\nfield\n")
    scene = np.concatenate([picture(random, 4, 0), picture(random, 4, 1)], 1)
    tifffile.imwrite("scene.tif", scene, **BANDS, extratags=IN_UTM)


def line(random: np.random.Generator) -> None:
    """Good parts and scratched ones, and boxes around scratches."""
    for folder in ("line/train/good", "line/test/good", "line/test/scratch", "defects/images"):
        Path(folder).mkdir(parents=True)
    pictures, boxes = [], []
    for number in range(30):
        pixels = (picture(random, 3) // 256).astype(np.uint8)
        place = "train/good" if number < 16 else "test/good" if number < 20 else "test/scratch"
        if number >= 20:
            left, top = random.integers(4, SIDE - 20, 2).tolist()
            pixels[top : top + 4, left : left + 14] = 255
            pictures.append(
                {"id": number, "file_name": f"{number:02}.png", "width": SIDE, "height": SIDE}
            )
            boxes.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [left, top, 14, 4],
                    "area": 56,
                    "iscrowd": 0,
                }
            )
            Image.fromarray(pixels).save(f"defects/images/{number:02}.png")
        Image.fromarray(pixels).save(f"line/{place}/{number:02}.png")
    categories = [{"id": 1, "name": "scratch"}]
    coco = {"images": pictures, "annotations": boxes, "categories": categories}
    Path("defects/annotations.json").write_text(json.dumps(coco))


def published(random: np.random.Generator) -> None:
    """Photographs in two classes, and a small model in the layout of the published checkpoints, under their names."""
    tiny.write_classes(Path("photos"), count=12)
    tiny.write_images(Path(), 1)
    with Image.open("00.png") as image:
        image.save("photo.jpg")
    recipe = replace(
        tiny.RECIPE,
        encoder=ViT(patch_size=4, embed_dim=192, depth=1, num_heads=3),
        objective=MAE(decoder=SelfAttentionDecoder(embed_dim=512, depth=1, num_heads=16)),
    )
    tiny.finished_run(Path("small"), "photos", recipe=recipe)
    for name in ("mae_visualize_vit_large.pth", "mae_pretrain_vit_base.pth"):
        convert("small", name, to="fair")


READERS: dict[str, Callable[[np.random.Generator], None]] = {
    "microscope": plates,
    "satellite": tiles,
    "factory": line,
    "published-code": published,
}


def shortened(command: str) -> str:
    """A command whose training takes seconds, by a tiny recipe where `--minutes` would choose one."""
    minutes = "--epochs 1" if "--init" in command else f"--recipe {tiny.__file__}:RECIPE"
    command = re.sub(r"--minutes \d+", minutes, command)
    if command.startswith("unmask finetune"):
        command += " --epochs 1 --image-size 32"
    if command.startswith(("unmask finetune", "unmask pretrain")):
        command += " --threads 1 --workers 0"
    return command


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_every_command_works(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unmask.console.hardware.cores", lambda: 1)
    READERS[name](np.random.default_rng(0))
    commands = list(command_lines(TUTORIALS / f"{name}.md"))
    assert len(commands) >= 4
    for command in commands:
        assert run(shortened(command), monkeypatch) == 0, (command, capsys.readouterr())
    if name == "satellite":
        with tifffile.TiffFile(next(Path("maps").rglob("*.tif"))) as answer:
            assert answer.pages[0].tags[33922].value[3:5] == (250_000.0, 2_680_000.0)


def test_all_tutorials_are_read() -> None:
    assert {page.stem for page in TUTORIALS.glob("*.md")} == set(READERS)
