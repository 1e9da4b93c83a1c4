"""Predictions for GeoTIFFs: class maps and boxes with the coordinates of the picture, by files and by folders."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from commands.said import Unmask
from commands.test_dense_command import tuned
from PIL import Image
from reference.dense import Thing, coco, write_map

GEO = (
    (33550, 12, 3, (30.0, 30.0, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 619395.0, -410205.0, 0.0), True),
    (34735, 3, 12, (1, 1, 0, 2, 1025, 0, 1, 1, 3072, 0, 1, 32622), True),
)
"""30 m a pixel, UTM zone 22 north, from an upper left corner."""
NO_DATA = (42113, 2, 4, "0.0", True)  # as GDAL writes it for bytes
HEIGHT, WIDTH = 12, 20


def scene(file: Path) -> None:
    """A scene of random bytes without data at its left edge, and without one band's in another place."""
    random = np.random.default_rng(len(file.name))
    pixels = random.integers(1, 256, (HEIGHT, WIDTH, 4), np.uint8)
    pixels[:, :3] = 0
    pixels[5, 10, 0] = 0
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        file,
        pixels,
        photometric="minisblack",
        planarconfig="contig",
        extratags=[*GEO, NO_DATA],
    )


@pytest.fixture
def segmenter(tmp_path: Path, unmask: Unmask) -> Path:
    """A run on scenes with maps of two classes; its data lie beside it."""
    for number in range(6):
        scene(tmp_path / "data" / "images" / f"{number}.tif")
        write_map(
            tmp_path / "data" / "masks" / f"{number}.png", np.full((HEIGHT, WIDTH), number % 2)
        )
    tuned(unmask, "maps", tmp_path / "run", tmp_path / "data")
    return tmp_path / "run"


def check_map(file: Path) -> None:
    """The map lies where the scene lies, has two classes, and no class where nothing is known."""
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        for code, kind, length, value, _ in GEO:
            tag = page.tags[code]
            assert (tag.dtype, tag.count, tag.value) == (kind, length, value)
        assert str(page.tags[42113].value) == "255"
        values = page.asarray()
    assert values.shape == (HEIGHT, WIDTH)
    assert (values[:, :3] == 255).all()
    assert (values[:, 3:] <= 1).all()


def test_maps_of_scenes_keep_their_coordinates(
    segmenter: Path, tmp_path: Path, unmask: Unmask
) -> None:
    data = tmp_path / "data"
    (tmp_path / "more").mkdir()
    new = tmp_path / "more" / "new.TIF"
    scene(new)
    for images, more in ((new, []), (new, ["--tiles"]), (data, []), (new.parent, [])):
        said = unmask(
            "predict", segmenter, images, "--out", tmp_path / "found", *more, "--threads", "1"
        )
        assert said.status == 0, said.err
        files = sorted((tmp_path / "found" / "maps").iterdir())
        assert all(file.suffix == ".tif" for file in files)
        assert any(file.stem == "new" for file in files) or images == data
        for file in files:
            check_map(file)
    plain = tmp_path / "plain.npy"
    np.save(plain, tifffile.imread(new).transpose(2, 0, 1))
    said = unmask("predict", segmenter, plain, "--threads", "1")
    assert said.status == 0, said.err
    with Image.open(segmenter / "predictions-plain" / "maps" / "plain.png") as image:
        assert image.size == (WIDTH, HEIGHT)


def test_without_tifffile_maps_are_pictures_and_a_note_says_so(
    segmenter: Path, tmp_path: Path, unmask: Unmask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.console.located_files.geo_tags", missing)
    said = unmask("predict", segmenter, tmp_path / "data", "--out", tmp_path / "found")
    assert said.status == 0, said.err
    assert said.err.count("coordinates of GeoTIFFs are not written: tifffile is missing") == 1
    maps = list((tmp_path / "found" / "maps").iterdir())
    assert {file.suffix for file in maps} == {".png"}
    for file in maps:
        with Image.open(file) as image:
            values = np.array(image)
        assert (values[:, :3] == 255).all()
        assert (values[:, 3:] <= 1).all()


def missing(file: Path) -> None:
    """What happens without the package."""
    from unmask.errors import ResourceError

    raise ResourceError("tifffile is missing")


def test_boxes_in_scenes_have_coordinates(tmp_path: Path, unmask: Unmask) -> None:
    data = tmp_path / "data"
    content = coco(
        {f"{n}.tif": [Thing((4, 2, 6, 5))] for n in range(6)}, width=WIDTH, height=HEIGHT
    )
    for image in content["images"]:
        scene(data / "images" / "train" / image["file_name"])
    (data / "annotations").mkdir()
    (data / "annotations" / "instances_train.json").write_text(json.dumps(content))
    tuned(unmask, "coco", tmp_path / "run", data)
    said = unmask("predict", tmp_path / "run", data, "--out", tmp_path / "found", "--threads", "1")
    assert said.status == 0, said.err
    written = json.loads((tmp_path / "found" / "predictions.json").read_text())
    count = 0
    for image in written["images"]:
        name = Path(image["file_name"]).with_suffix(".geojson").name
        features = json.loads((tmp_path / "found" / "boxes" / name).read_text())
        assert features["crs"]["properties"]["name"].endswith("EPSG::32622")
        boxes = [one["bbox"] for one in written["annotations"] if one["image_id"] == image["id"]]
        count += len(boxes)
        for feature, (left, top, width, height) in zip(features["features"], boxes, strict=True):
            (ring,) = feature["geometry"]["coordinates"]
            xs, ys = zip(*ring, strict=True)
            assert ring[0] == ring[-1]
            assert min(xs) == pytest.approx(619395 + 30 * left, abs=0.5)
            assert max(xs) == pytest.approx(619395 + 30 * (left + width), abs=0.5)
            assert max(ys) == pytest.approx(-410205 - 30 * top, abs=0.5)
            assert min(ys) == pytest.approx(-410205 - 30 * (top + height), abs=0.5)
            area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2
            assert area > 0  # the right-hand rule of RFC 7946
    assert count > 0
