"""Pictures, labels and weights that stand in for the reader's, and commands that take seconds on them."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import tifffile
from PIL import Image
from runs import tiny, tiny_transfer

from unmask import MAE, ViT, convert
from unmask.commands import finetune
from unmask.objectives.decoders import SelfAttentionDecoder

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


def everything(random: np.random.Generator) -> None:
    """What the how-to pages name: pictures, annotations, runs, weights, vectors."""
    # pictures
    published(random)
    tiny.write_images(Path("more"), size=(60, 80))
    for name in ("FOLDER", "LABELLED", "NEWPLACE", "OTHER", "cifar10"):
        shutil.copytree("photos", name)
    for name in ("more-photos", "normal", "test", "new", "NORMAL", "TEST"):
        shutil.copytree("more", name)
    for name in ("picture.jpg", "some.jpg", "a.jpg", "b.jpg", "street.jpg"):
        shutil.copy("photo.jpg", name)
    shutil.copy("more/00.png", "map.png")

    # annotations
    names = sorted(path.relative_to("photos").as_posix() for path in Path("photos").rglob("*.png"))
    rows = [f"{name},{name.split('/')[0]}" for name in names]
    Path("labels.csv").write_text("\n".join(["file_name,label", *rows]) + "\n")
    line(random)
    Path("line").rename("bottle")
    shutil.copytree("defects/images", "images")
    shutil.copy("defects/annotations.json", "cells.json")
    shutil.copytree("defects/images", "coco/train2017")
    Path("coco/annotations").mkdir()
    shutil.copy("cells.json", "coco/annotations/instances_train2017.json")
    streets(random)

    # runs and weights
    tiny.finished_run(Path("runs/NAME"), "photos")
    for name in ("mine", "A", "B", "small", "large", "mae-ti16-photos"):
        shutil.copytree("runs/NAME", f"runs/{name}")
    tiny_transfer.go_on(tiny_transfer.begin(Path("runs/CLASSIFIER"), "photos"))
    for name in ("classifier", "SCRATCH", "TUNED"):
        shutil.copytree("runs/CLASSIFIER", f"runs/{name}")
    for name, data in (("DETECTOR", "cells.json"), ("SEGMENTER", "street")):
        command = shortened(f"unmask finetune runs/NAME {data} --out runs/{name}")
        assert finetune.main(command.split()[2:]) == 0
    shutil.copy("mae_pretrain_vit_base.pth", "vit_base.pth")
    convert("small", "vit-mae-base", to="huggingface")


def streets(random: np.random.Generator) -> None:
    """Pictures of two kinds of stripes, and their class maps."""
    for folder in ("street/images", "street/masks"):
        Path(folder).mkdir(parents=True)
    for number in range(12):
        left, right = ((picture(random, 3, kind) // 256).astype(np.uint8) for kind in (0, 1))
        left[:, SIDE // 2 :] = right[:, SIDE // 2 :]
        classes = np.zeros((SIDE, SIDE), np.uint8)
        classes[:, SIDE // 2 :] = 1
        Image.fromarray(left).save(f"street/images/{number:02}.png")
        Image.fromarray(classes).save(f"street/masks/{number:02}.png")
    Path("street/classes.txt").write_text("road\nhouse\n")


def shortened(command: str, out: str = "") -> str:
    """A command that takes seconds: a tiny recipe where no weights decide, one epoch; written to `out` where it names no folder."""
    words = command.split()
    name = words[1]
    if name in ("pretrain", "finetune", "tokenizer"):
        if "--resume" not in words:
            command = re.sub(r" --(minutes|recipe|epochs) \S+", "", command)
            if name == "tokenizer":
                command += f" --recipe {tiny.__file__}:TOKENIZING"
            elif name == "finetune" or "--init" in words or "--like" in words:
                command += " --epochs 1"
            else:
                command += f" --recipe {tiny.__file__}:RECIPE"
            if out and "--out" not in words:
                command += f" --out {out}"
        if name == "finetune" and "--resume" not in words:
            command += " --image-size 32"
        if "--labels" in words:
            command = re.sub(r"--labels \S+", "--labels 50% --seeds 1", command)
        command += " --threads 1 --workers 0"
    elif name == "bench":
        command = re.sub(r" --(recipe|workers) \S+", "", command)
        command += " --recipe mae-digits --micro-batch 2 --threads 1"
    elif name == "odd":
        command = re.sub(r"--image-size \d+", "--image-size 16", command)
    return command


def make_room(command: str) -> None:
    """Before a training: delete what lies in its --out, and put a run without a step where it resumes one."""
    words = command.split()
    if words[1] not in ("pretrain", "finetune"):
        return
    for flag in ("--out", "--resume"):
        if flag in words:
            root = Path(words[words.index(flag) + 1])
            shutil.rmtree(root, ignore_errors=True)
            if flag == "--resume":
                begin = tiny_transfer.begin if words[1] == "finetune" else tiny.begin
                begin(root, "photos")


def with_tiny_recipes(patch: pytest.MonkeyPatch) -> None:
    """Let Python train with the recipes of the tests, whatever a page names."""
    start = "unmask.console.pretraining_start"
    named = SimpleNamespace(recipe=tiny.RECIPE)
    patch.setattr(f"{start}.choose_recipe", lambda *_: ("tiny", "it is a test"))
    patch.setattr(f"{start}.RECIPES", {"tiny": named})
    patch.setattr("unmask.commands.pretrain.find_recipe", lambda _: tiny.RECIPE)
    patch.setattr("unmask.commands.pretrain.with_smaller_parts", lambda recipe, *_: recipe)
    patch.setattr("unmask.commands.finetune.recipe_of", lambda *_: ("tiny", tiny_transfer.TRANSFER))
    patch.setattr("unmask.console.hardware.cores", lambda: 1)
    patch.setattr("unmask.console.hardware.free_cores", lambda: 1)
    # pages have classes without annotations
    patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
