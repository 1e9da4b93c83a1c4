"""Small sets of pictures with class maps or objects, written in each format as literally as it is described."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

ROTATE = 0x0112
"""EXIF's tag of the orientation."""


class Thing(NamedTuple):
    """An object: box as left, top, width and height, class by number, and polygons."""

    box: Sequence[float]
    number: int = 0
    polygons: Any = None
    crowd: int = 0


def picture(
    path: Path, width: int = 20, height: int = 10, orientation: int = 1, mode: str = "RGB"
) -> None:
    """A picture of noise, rotated by EXIF as stated."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(path.name))
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    exif = Image.Exif()
    if orientation != 1:
        exif[ROTATE] = orientation
    Image.fromarray(random.integers(0, 256, shape, np.uint8), mode).save(path, exif=exif)


def coco(
    things: dict[str, list[Thing]],
    names: Sequence[str] = ("cell",),
    width: int = 20,
    height: int = 10,
    ids: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The content of a COCO file, whose categories have these ids."""
    ids = ids or range(1, len(names) + 1)
    annotations: list[dict[str, Any]] = []
    for image, objects in enumerate(things.values(), 1):
        for thing in objects:
            entry: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": ids[thing.number],
                "bbox": list(thing.box),
                "iscrowd": thing.crowd,
            }
            if thing.polygons is not None:
                entry["segmentation"] = thing.polygons
            annotations.append(entry)
    images = [
        {"id": number, "file_name": name, "width": width, "height": height}
        for number, name in enumerate(things, 1)
    ]
    categories = [{"id": one, "name": name} for one, name in zip(ids, names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(
    root: Path, content: dict[str, Any], split: str = "train", **picture_options: Any
) -> Path:
    """A COCO data set: annotations/instances_SPLIT.json and images/SPLIT/, with all pictures."""
    for image in content["images"]:
        picture(root / "images" / split / image["file_name"], **picture_options)
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def write_yolo(
    root: Path, lines: dict[str, str | None], split: str = "train", **picture_options: Any
) -> None:
    """Pictures and label files of a YOLO data set; None for a picture without one."""
    for name, text in lines.items():
        picture(root / "images" / split / name, **picture_options)
        label = root / "labels" / split / f"{Path(name).stem}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            label.write_text(text)


def voc_xml(objects: str, width: int = 20, height: int = 10) -> str:
    """An XML file of Pascal VOC."""
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>a.png</filename>{size}{objects}</annotation>"


def voc_object(name: str, corners: Sequence[object], difficult: int = 0) -> str:
    """An object of such a file, with xmin, ymin, xmax and ymax."""
    sides = "".join(
        f"<{side}>{value}</{side}>"
        for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{sides}</bndbox></object>"


def write_map(
    path: Path, values: Any, mode: str | None = None, palette: Sequence[int] = ()
) -> None:
    """A class map as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, np.uint8), mode)
    if palette:
        image.putpalette(list(palette))
    image.save(path)


COUNT = 6
"""Pictures of the sets below."""


def write_maps(root: Path) -> None:
    """Pictures with class maps of two classes."""
    for number in range(COUNT):
        picture(root / "images" / f"{number}.png")
        write_map(root / "masks" / f"{number}.png", np.full((10, 20), number % 2))


def write_boxes(root: Path) -> None:
    """A box in each picture, in COCO's format."""
    write_coco(root, coco({f"{n}.png": [Thing((1, 2, 3, 4))] for n in range(COUNT)}))


def write_outlined(root: Path) -> None:
    """A box with an outline in each picture but the first, which has none, in COCO's format."""
    outline = [[1, 2, 7, 2, 7, 8, 1, 8]]
    things = {f"{n}.png": [Thing((1, 2, 6, 6), 0, outline)][: n > 0] for n in range(COUNT)}
    write_coco(root, coco(things))


def write_lines(root: Path) -> None:
    """A box in each picture, in YOLO's format."""
    write_yolo(root, {f"{n}.png": "0 0.5 0.5 0.2 0.2\n" for n in range(COUNT)})


def write_xml(root: Path) -> None:
    """A box in each picture, in Pascal VOC's format."""
    for number in range(COUNT):
        picture(root / "JPEGImages" / f"{number}.png")
        (root / "Annotations").mkdir(exist_ok=True)
        text = voc_xml(voc_object("dog", (1, 1, 4, 4)))
        (root / "Annotations" / f"{number}.xml").write_text(text)


WRITERS: dict[str, Callable[[Path], None]] = {
    "maps": write_maps,
    "coco": write_boxes,
    "yolo": write_lines,
    "voc": write_xml,
}
"""Writes a small set of each kind."""
