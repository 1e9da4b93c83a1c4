"""Maps through the commands: pretrain on one, embed it, locate pieces of it, and measure how well that goes."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands.said import Unmask
from geo import scenes
from PIL import Image
from runs import tiny

import unmask as unmask_package
from unmask.commands import embed
from unmask.contracts import Size
from unmask.data import GroundMap
from unmask.data.camera_facts import width_by_focal
from unmask.encoders import ViT
from unmask.geo.distance import metres_between
from unmask.runs.folder import RunFolder

STEP = 0.7 / 111_000
"""Degrees of a pixel of the map."""

KNOWN = ("--ground-size", 60, "--heading", 0, "--turns", 4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map with a world file."""
    return scenes.with_world_file(tmp_path_factory.mktemp("map") / "map.png", STEP)


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder that has learned from the map for seconds."""
    recipe = replace(
        tiny.RECIPE,
        encoder=ViT(patch_size=4, embed_dim=48, depth=2, num_heads=4),
        image_size=Size(24, 24),
        batch_size=16,
        epochs=3.0,
        schedule=replace(tiny.RECIPE.schedule, base_lr=0.02),
    )
    data = GroundMap(path=str(world), tile_metres=(36.0,))
    return unmask_package.pretrain(data, recipe=recipe, out=tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def places(world: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map's vectors."""
    root = tmp_path_factory.mktemp("places") / "places"
    cut = ["--tile-metres", "36", "--tile-overlap", "0.75"]
    embed.main([str(run), str(world), "--out", str(root), "--threads", "1", *cut])
    return root


@pytest.fixture(autouse=True)
def _few_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration takes seconds with all of them."""
    monkeypatch.setattr("unmask.places.calibration.PIECES", 6)


def piece(folder: Path, east: float, north: float, name: str = "a.png", turn: int = 0) -> Path:
    """What is 60 x 48 m around a place that many metres from the middle of the scene; its upper edge points to `turn`."""
    a = np.radians(turn)
    v, u = np.mgrid[:96, :120] + 0.5
    right, below = u / 2 - 30, v / 2 - 24
    x = right * np.cos(a) - below * np.sin(a) + east
    y = -right * np.sin(a) - below * np.cos(a) + north
    longitude, latitude = degrees(x, y)
    path = folder / name
    Image.fromarray(scenes.colours(longitude, latitude)).save(path)
    return path


def degrees(east: Any, north: Any) -> tuple[Any, Any]:
    """Longitude and latitude of metres from the middle of the scene, to a few centimetres."""
    return scenes.LONGITUDE + east / 101_490, scenes.LATITUDE + north / 110_775


def test_from_a_map_to_places(unmask: Unmask, world: Path, tmp_path: Path) -> None:
    recipe = f"{tiny.__file__}:RECIPE"
    quick = ("--recipe", recipe, "--epochs", 1, "--threads", 1, "--workers", 0, "--out", "run")
    said = unmask("pretrain", world, *quick, "--tile-metres", 24)
    assert said.status == 0, said.err
    assert "colour images in" in said.out
    spec = json.loads(Path("run/spec.json").read_text())
    assert spec["data"]["kind"] == "ground-map"
    said = unmask(
        "embed", "run", world, "--out", "places", "--tile-metres", "24,36", "--threads", 1
    )
    assert said.status == 0, said.err
    table = pq.read_table("places")
    assert set(table["tile_metres"].to_pylist()) == {24.0, 36.0}
    geo = json.loads((pq.read_schema("places/part-00000.parquet").metadata or {})[b"geo"])
    assert geo["columns"]["geometry"]["encoding"] == "WKB"
    first = table.slice(0, 1).to_pylist()[0]
    point = np.frombuffer(first["geometry"][5:], "<f8")
    assert point.tolist() == [first["longitude"], first["latitude"]]
    manifest = json.loads(Path("places/_manifest.json").read_text())
    assert manifest["data"]["path"] == str(world)
    assert manifest["map_fingerprint"]
    said = unmask("locate", "places", piece(tmp_path, 0, 0), *KNOWN, "--threads", 1)
    assert said.status == 0, said.err
    assert "60 m of ground across, from --ground-size; heading 0 degrees" in said.out
    assert Path("located.png").exists()


def located(unmask: Unmask, *words: object) -> Any:
    said = unmask("locate", *words, "--json", "--threads", 1)
    assert said.status == 0, said.err
    return json.loads(said.out)["queries"]


def away(answer: Any, east: float, north: float) -> float:
    first = answer["places"][0]
    found = np.array([first["longitude"], first["latitude"]])
    return float(metres_between(found, np.array(degrees(east, north))))


def test_pieces_of_the_map_are_found(unmask: Unmask, places: Path, tmp_path: Path) -> None:
    at = [(0, 0), (-50, 40), (45, -35), (-20, -60)]
    pictures = [piece(tmp_path, *place, f"{n}.png") for n, place in enumerate(at)]
    answers = located(unmask, places, *pictures, *KNOWN)
    assert sum(away(one, *place) <= 18 for one, place in zip(answers, at, strict=True)) >= 3
    turned = [piece(tmp_path, *place, f"t{n}.png", turn=90) for n, place in enumerate(at)]
    by_heading = located(unmask, places, *turned, *KNOWN[:2], "--heading", 90, "--turns", 4)
    assert sum(away(one, *place) <= 18 for one, place in zip(by_heading, at, strict=True)) >= 3
    unknown = located(unmask, places, *turned, *KNOWN[:2], "--turns", 4)
    assert sum(away(one, *place) <= 18 for one, place in zip(unknown, at, strict=True)) >= 1


def test_near_geojson_and_no_gps(unmask: Unmask, places: Path, tmp_path: Path) -> None:
    picture = piece(tmp_path, 40, 40)
    longitude, latitude = degrees(-60, -60)
    near = f"{latitude},{longitude},20"
    (answer,) = located(unmask, places, picture, *KNOWN, "--near", near, "--geojson", "a.geojson")
    assert away(answer, -60, -60) < 27  # places are refined by up to half a step
    said = unmask("locate", places, picture, *KNOWN, "--near", near, "--threads", 1)
    assert "a radius of 20 m is too small for tiles of 36 m" in said.out + said.err
    features = json.loads(Path("a.geojson").read_text())["features"]
    first = answer["places"][0]
    assert features[0]["geometry"]["coordinates"] == [first["longitude"], first["latitude"]]
    with Image.open(picture) as image:
        exif = image.getexif()
        exif[0x010F] = "maker"  # Pillow writes no EXIF that holds a position alone
        exif.get_ifd(0x8825).update({1: "N", 2: (24.0, 15.0, 0.0), 3: "E", 4: (120.0, 43.0, 0.0)})
        image.save(tmp_path / "gps.png", exif=exif)
    plain, tagged = located(unmask, places, picture, tmp_path / "gps.png", *KNOWN)
    assert tagged | {"image": ""} == plain | {"image": ""}


def test_the_size_of_a_picture_from_height(unmask: Unmask, places: Path, tmp_path: Path) -> None:
    picture = piece(tmp_path, 0, 0)
    (one,) = located(unmask, places, picture, "--height", 50, "--fov", 61.93, "--turns", 4)
    assert one["ground_size"] == pytest.approx(60, abs=0.1)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf drone-dji:RelativeAltitude="+50.00"/></x:xmpmeta>'
    with Image.open(picture) as image:
        exif = image.getexif()
        exif.get_ifd(0x8769)[0xA405] = 30
        image.save(tmp_path / "a.jpg", exif=exif, xmp=xmp)
    (one,) = located(unmask, places, tmp_path / "a.jpg", "--turns", 4)
    diagonal = 50 * 43.267 / 30
    assert one["ground_size"] == pytest.approx(diagonal * 0.6 * 120 / 96, abs=0.1)
    said = unmask("locate", places, picture, "--turns", 4, "--threads", 1)
    assert "unknown ground size: 45, 63, 90 m across are tried" in said.out


def test_evaluation(unmask: Unmask, places: Path, tmp_path: Path) -> None:
    at = [(0, 0), (-50, 40), (45, -35)]
    with (tmp_path / "queries.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "latitude", "longitude", "heading"])
        for number, place in enumerate(at):
            piece(tmp_path, *place, f"{number}.png")
            longitude, latitude = degrees(*place)
            rows.writerow([f"{number}.png", latitude, longitude, 0])
    said = unmask(
        "evaluate", places, "--queries", tmp_path / "queries.csv", "--ground-size", 60, "--threads", 1,
        "--out", "scores.json",
    )  # fmt: skip
    assert said.status == 0, said.err
    result = json.loads(Path("scores.json").read_text())
    assert [one["arm"] for one in result["scores"]] == ["the encoder", "untrained", "raw pixels", "chance"]  # fmt: skip
    encoder, _, _, chance = result["scores"]
    assert encoder["within"]["half a tile"] > chance["within"]["half a tile"]
    assert encoder["recall"]["R@10"] >= encoder["recall"]["R@5"] >= encoder["recall"]["R@1"]
    assert result["map_learned_from"] is True
    assert "has learned from this map" in said.out
    for arm in result["scores"][:3]:
        assert 0 <= arm["coverage"] <= 1


def test_a_black_border_is_no_place(unmask: Unmask, run: Path, world: Path, tmp_path: Path) -> None:
    """Its tiles have no vector; controls are scored on the same tiles as the encoder."""
    bordered = scenes.with_world_file(tmp_path / "bordered.png", STEP)
    pixels = np.array(Image.open(bordered))
    pixels[:, : pixels.shape[1] // 3] = 0
    Image.fromarray(pixels).save(bordered)
    cut = ["--tile-metres", "36", "--tile-overlap", "0.75", "--out", "places", "--threads", "1"]
    assert unmask("embed", run, bordered, *cut).status == 0
    (answer,) = located(unmask, "places", piece(tmp_path, 45, -35), *KNOWN)
    assert away(answer, 45, -35) < 18
    longitude, latitude = degrees(45, -35)
    Path("queries.csv").write_text(
        f"file_name,latitude,longitude,heading\n{tmp_path / 'a.png'},{latitude},{longitude},0\n"
    )
    words = ["--queries", "queries.csv", "--ground-size", 60, "--threads", 1, "--out", "s.json"]
    said = unmask("evaluate", "places", *words)
    assert said.status == 0, said.err
    scores = {one["arm"]: one for one in json.loads(Path("s.json").read_text())["scores"]}
    assert scores["raw pixels"]["within"]["half a tile"] == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("nan,120.7", "latitude must be a number, got 'nan'"),
        ("120.7,24.2", "is no place in degrees"),
        ("north,120.7", "latitude must be a number, got 'north'"),
    ],
)
def test_places_of_queries_are_checked(
    unmask: Unmask, places: Path, tmp_path: Path, row: str, said: str
) -> None:
    piece(tmp_path, 0, 0)
    file = tmp_path / "queries.csv"
    file.write_text(f"file_name,latitude,longitude\na.png,{row}\n")
    wrong = unmask("evaluate", places, "--queries", file, "--ground-size", 60, "--threads", 1)
    assert wrong.status == 1
    assert f"queries.csv, line 2: {said}" in wrong.err or said in wrong.err


def test_a_portrait_picture_is_narrower_by_its_proportions() -> None:
    """The same camera held upright: its width is the height that it has when held level."""
    for proportions in (4 / 3, 3 / 2, 1.0):
        level, upright = (width_by_focal(80, 24, p) for p in (proportions, 1 / proportions))
        assert upright == pytest.approx(level / proportions)


def test_what_is_printed_cuts_the_map_alike(unmask: Unmask, run: Path) -> None:
    said = unmask("pretrain", "--resume", run)
    assert "--data-kind ground-map" in said.out
    assert "--tile-metres 36" in said.out


WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "no picture": ((), "which pictures"),
    "too small": (("{a}", "--ground-size", 20), "shows less than a tile of 36 m"),
    "too large": (("{a}", "--ground-size", 900), "larger than the map"),
    "absurd": (("{a}", "--ground-size", 0.2), "0.17 cm a pixel, which no picture of a drone does"),
    "height alone": (("{a}", "--height", 50), "add --fov"),
    "near": (("{a}", "--near", "120.7,24.2"), "latitude, longitude and a radius"),
    "near swapped": (("{a}", "--near", "120.7,24.2,50"), "latitude comes first"),
    "two priors": (
        ("{a}", "--near", "24.2,120.7,50", "--prior-from-exif", 50),
        "leave one out",
    ),
    "two widths": (("{a}", "--ground-size", 60, "--height", 50), "leave out one of the two"),
    "no position": (
        ("{a}", "--ground-size", 60, "--prior-from-exif", 50),
        "states no GPS position",
    ),
    "no track": (
        ("{a}", "--ground-size", 60, "--near", "10,10,50", "--sequence", 20),
        "leaves no tile",
    ),
    "no track between": (
        ("{a}", "{b}", "--ground-size", 60, "--prior-from-exif", 20, "--sequence", 1),
        "no track with steps of up to 1 m goes through all pictures",
    ),
    "near elsewhere": (("{a}", "--ground-size", 60, "--near", "10,10,50"), "leaves no tile"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_located_is_said(
    case: str, unmask: Unmask, places: Path, tmp_path: Path
) -> None:
    words, expected = WRONG[case]
    picture = piece(tmp_path, 0, 0)
    south, north = (
        with_gps(picture, tmp_path / name, (24.0, 15.0, seconds), (120.0, 43.0, 12.0))
        for name, seconds in (("south.png", 34.8), ("north.png", 38.6))
    )
    if "{b}" in words:
        words = [{"{a}": south, "{b}": north}.get(word, word) for word in words]
    filled = [str(word).format(a=picture) for word in words]
    said = unmask("locate", places, *filled, "--turns", 4, "--threads", 1)
    assert said.status == 1
    assert expected in said.err


def test_other_vectors_a_changed_map_and_a_map_that_is_gone(
    unmask: Unmask, trained: RunFolder, images: Path, tmp_path: Path
) -> None:
    picture = piece(tmp_path, 0, 0)
    embed.main([str(trained.root), str(images), "--out", "vectors", "--threads", "1"])
    said = unmask("locate", "vectors", picture, *KNOWN)
    assert "holds vectors of pictures, not of a map" in said.err
    own = scenes.with_world_file(tmp_path / "own.png", STEP)
    words = ["--out", "places", "--tile-metres", "36", "--threads", "1"]
    embed.main([str(trained.root), str(own), *words])
    moved = own.rename(tmp_path / "moved.png")
    said = unmask("locate", "places", picture, *KNOWN, "--threads", 1)
    assert said.status == 0
    assert "no verdict" in said.out
    moved.rename(own)
    pixels = np.array(Image.open(own))
    Image.fromarray(255 - pixels).save(own)
    said = unmask("locate", "places", picture, *KNOWN, "--threads", 1)
    assert "has changed since" in said.err
    said = unmask("embed", trained.root, own, *words)
    assert "changed since" in said.err


def test_flags_of_maps_are_for_maps(unmask: Unmask, images: Path, trained: RunFolder) -> None:
    said = unmask("embed", trained.root, images, "--out", "v", "--tile-metres", 20)
    assert "does not say where it lies" in said.err or "holds no web tiles" in said.err
    said = unmask(
        "embed", trained.root, images, "--out", "v", "--tile-metres", 20, "--data-kind", "folder"
    )
    assert "are for maps, not for folder" in said.err
    said = unmask("embed", trained.root, images, "--out", "v", "--corners", "a,b")
    assert "--corners must be numbers" in said.err


def test_a_position_in_exif_is_a_prior_if_it_is_asked_for(
    unmask: Unmask, places: Path, tmp_path: Path
) -> None:
    # about 60 m west and south of the middle of the scene
    with_gps(piece(tmp_path, 40, 40), tmp_path / "gps.png", (24.0, 15.0, 34.8), (120.0, 43.0, 10.9))
    words = (places, tmp_path / "gps.png", *KNOWN, "--prior-from-exif", 30, "--threads", 1)
    said = unmask("locate", *words)
    assert said.status == 0, said.err
    assert "within 30 m of 24.259667, 120.719694, its GPS position in EXIF" in said.err
    (answer,) = located(unmask, *words[:-2])
    assert away(answer, -61.6, -59.1) < 39


def with_gps(picture: Path, out: Path, north: tuple[float, ...], east: tuple[float, ...]) -> Path:
    """The picture with a position in EXIF, in degrees, minutes and seconds."""
    with Image.open(picture) as image:
        exif = image.getexif()
        exif[0x010F] = "maker"
        exif.get_ifd(0x8825).update({1: "N", 2: north, 3: "E", 4: east})
        image.save(out, exif=exif)
    return out


@pytest.mark.parametrize("sequence", [(), ("--sequence", 400)])
def test_pictures_without_a_position_or_with_one_elsewhere_do_not_end_the_others(
    sequence: tuple[object, ...], unmask: Unmask, places: Path, tmp_path: Path
) -> None:
    plain = piece(tmp_path, 40, 40)
    here = with_gps(plain, tmp_path / "here.png", (24.0, 15.0, 34.8), (120.0, 43.0, 10.9))
    far = with_gps(plain, tmp_path / "far.png", (10.0, 0.0, 0.0), (120.0, 43.0, 10.9))
    words = (places, plain, far, here, *KNOWN, "--prior-from-exif", 30, *sequence)
    said = unmask("locate", *words, "--threads", 1, "--geojson", "places.geojson")
    assert said.status == 0, said.err
    assert "a.png is looked for on the whole map, because it states no GPS position" in said.err
    assert "far.png: no fix, no tile lies within 30 m of its GPS position, 10.000000" in said.out
    alone, elsewhere, near = located(unmask, *words)
    assert (elsewhere["fix"], elsewhere["places"]) == (False, [])
    assert "no tile lies within 30 m" in elsewhere["reason"]
    assert elsewhere.keys() == {*near.keys(), "reason"}
    assert elsewhere["margin"] is None
    assert away(near, -61.6, -59.1) < 39
    assert alone["places"]
    points = json.loads(Path("places.geojson").read_text())["features"]
    assert {point["properties"]["image"] for point in points} == {str(plain), str(here)}


def test_a_sequence_is_smoothed_over_its_track(
    unmask: Unmask, places: Path, tmp_path: Path
) -> None:
    """A picture of another place in the middle is put between its neighbours; alone it is elsewhere."""
    at = [(-40, 0), (-20, 0), (60, 60), (20, 0), (40, 0)]
    pictures = [piece(tmp_path, *place, f"{n}.png") for n, place in enumerate(at)]
    alone = located(unmask, places, *pictures, *KNOWN)
    track = located(unmask, places, *pictures, *KNOWN, "--sequence", 30)
    assert away(alone[2], 60, 60) < 18
    assert away(track[2], 0, 0) < 36
    for number in (0, 1, 3, 4):
        assert away(track[number], *at[number]) < 30
    assert track[2]["fix"] is False  # it was put there by its neighbours alone


def test_a_sequence_goes_on_over_a_picture_that_is_refused(
    unmask: Unmask, places: Path, tmp_path: Path
) -> None:
    """Its neighbours are 120 m apart: more than one step of 70 m, and less than two."""
    first, last = (piece(tmp_path, east, 0, f"{east}.png") for east in (-60, 60))
    far = with_gps(first, tmp_path / "far.png", (10.0, 0.0, 0.0), (120.0, 43.0, 10.9))
    words = (first, far, last, *KNOWN, "--prior-from-exif", 30, "--sequence", 70)
    track = located(unmask, places, *words)
    assert away(track[0], -60, 0) < 18
    assert away(track[2], 60, 0) < 18


def test_photographs_of_a_map_that_was_learned_are_no_queries(
    unmask: Unmask, tmp_path: Path
) -> None:
    """Whatever their paths are spelled like; a photograph that is no part of the map is one."""
    root = scenes.write_centres(tmp_path / "flight", metres=90.0, pixels=130)
    recipe = f"{tiny.__file__}:RECIPE"
    quick = ("--recipe", recipe, "--epochs", 1, "--threads", 1, "--workers", 0, "--out", "run")
    assert unmask("pretrain", root, *quick, "--tile-metres", 36).status == 0
    cut = ["--tile-metres", "36", "--out", "places", "--threads", "1"]
    assert unmask("embed", "run", root, *cut).status == 0
    piece(tmp_path, 0, 0, "new.png")
    longitude, latitude = degrees(0, 0)
    for name, status in (("flight/../flight/000.png", 1), ("new.png", 0)):
        row = f"{name},{latitude},{longitude},0,60"
        (tmp_path / "q.csv").write_text(
            f"file_name,latitude,longitude,heading,ground_size\n{row}\n"
        )
        words = ("--queries", tmp_path / "q.csv", "--control", "none", "--threads", 1)
        said = unmask("evaluate", "places", *words, "--out", "s.json")
        assert said.status == status, said.err
        assert ("has learned from 1 of the queries" in said.err) == bool(status)
        assert ("has learned from this map" in said.out) != bool(status)


def test_photographs_that_an_earlier_run_has_learned_from_are_no_queries(
    unmask: Unmask, recipe: list[str], world: Path, tmp_path: Path
) -> None:
    """Pretrained on photographs, then on the map from there."""
    photos = tiny.write_images(tmp_path / "photos")
    learned = piece(photos, 0, 0, "learned.png")
    quick = (*recipe, "--no-report")
    assert unmask("pretrain", photos, *quick, "--out", "first").status == 0
    words = (world, *quick, "--init", "first", "--tile-metres", 80, "--out", "second")
    assert unmask("pretrain", *words).status == 0
    cut = ("--out", "places", "--threads", 1)
    assert unmask("embed", "second", world, "--tile-metres", 80, *cut).status == 0
    Path("q.csv").write_text(f"file_name,latitude,longitude\n{learned},24.2602,120.7203\n")
    said = unmask("evaluate", "places", "--queries", "q.csv", "--threads", 1)
    assert said.status == 1
    assert f"has learned from 1 of the queries, such as {learned}" in said.err
    assert "photos), so the scores" in said.err


def scored(unmask: Unmask, places: Path, table: str, *more: object) -> tuple[Any, str]:
    """The scores of queries, and what is said beside them."""
    Path("q.csv").write_text(table)
    words = ("--queries", "q.csv", "--control", "none", "--headings", "none", "--threads", 1)
    said = unmask("evaluate", places, *words, "--out", "scores.json", *more)
    assert said.status == 0, said.err
    return json.loads(Path("scores.json").read_text())["scores"], said.err


def test_positions_in_exif_do_not_change_scores(
    unmask: Unmask, places: Path, tmp_path: Path
) -> None:
    (tmp_path / "tagged").mkdir()
    plain = piece(tmp_path, 40, 40)
    tagged = with_gps(plain, tmp_path / "tagged/a.png", (24.0, 15.0, 34.8), (120.0, 43.0, 10.9))
    longitude, latitude = degrees(40, 40)
    one, other = (
        scored(unmask, places, f"file_name,lat,lon,width_m\n{path},{latitude},{longitude},60\n")
        for path in (plain, tagged)
    )
    assert one == other


def test_pixels_of_the_map_count_before_degrees(
    unmask: Unmask, places: Path, world: Path, tmp_path: Path
) -> None:
    """Where a table has both, and they contradict each other."""
    picture = piece(tmp_path, 40, 40)
    point = np.array(degrees(40, 40))
    x, y = GroundMap(path=str(world)).opened().georeference.to_pixels(point).tolist()
    head = "file_name,latitude,longitude,ground_size"
    right, _ = scored(unmask, places, f"{head}\n{picture},{point[1]},{point[0]},60\n")
    both, said = scored(unmask, places, f"{head},x,y\n{picture},-24,10,60,{x},{y}\n")
    assert both[0]["median"] == pytest.approx(right[0]["median"], abs=0.01)
    assert "far outside" not in said


def test_queries_far_outside_the_map_are_said(unmask: Unmask, places: Path, tmp_path: Path) -> None:
    """One beside the map is not far; longitudes without their sign are."""
    lines = ["file_name,latitude,longitude,ground_size"]
    for number, east in enumerate((0, 300, 0, 0)):
        piece(tmp_path, 0, 0, f"{number}.png")
        longitude, latitude = degrees(east, 0)
        longitude *= -1 if number > 1 else 1
        lines.append(f"{tmp_path}/{number}.png,{latitude},{longitude},60")
    _, said = scored(unmask, places, "\n".join(lines) + "\n")
    assert "2 of 4 queries lie far outside the map, such as 2.png, " in said
    assert "at latitude 24.2602 and longitude -120.72" in said


def test_a_field_of_view_without_a_height_is_refused(
    unmask: Unmask, places: Path, tmp_path: Path
) -> None:
    """Heights may be those of a flag, of the table or of XMP."""
    picture = piece(tmp_path, 0, 0)
    said = unmask("locate", places, picture, "--fov", 60)
    assert said.status == 1
    assert "--fov changes nothing: no picture states its height" in said.err
    head, row = "file_name,latitude,longitude", f"{picture},24.2602,120.7203"
    for table, more, expected in [
        (f"{head}\n{row}\n", ("--ground-size", 60), "--ground-size says how wide"),
        (f"{head}\n{row}\n", (), "no picture states its height"),
        (f"{head},ground_size\n{row},60\n", (), "the ground size of every picture is known"),
    ]:
        Path("q.csv").write_text(table)
        said = unmask("evaluate", places, "--queries", "q.csv", "--fov", 62, *more)
        assert said.status == 1
        assert expected in said.err
    scored(unmask, places, f"{head},height\n{row},50\n", "--fov", 62)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf drone-dji:RelativeAltitude="+50.00"/></x:xmpmeta>'
    with Image.open(picture) as image:
        image.save(tmp_path / "a.jpg", xmp=xmp)
    (one,) = located(unmask, places, tmp_path / "a.jpg", "--fov", 61.93, "--turns", 4)
    assert one["ground_size"] == pytest.approx(60, abs=0.1)


def test_margins_and_pictures_that_are_not_drawn_are_said(
    unmask: Unmask, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.commands.locate._MOST_PANELS", 1)
    pictures = [piece(tmp_path, 0, 0), piece(tmp_path, 40, 40, "b.png")]
    answers = located(unmask, places, *pictures, *KNOWN)
    said = unmask("locate", places, *pictures, *KNOWN, "--threads", 1)
    assert "located.png shows the first 1 of 2 pictures" in said.err
    for picture, answer in zip(pictures, answers, strict=True):
        verdict = "fix" if answer["fix"] else "no fix"
        assert f"{picture}: {verdict}, margin {answer['margin']:.3f} " in said.out
    said = unmask("locate", places, pictures[0], *KNOWN, "--threads", 1)
    assert "shows the first" not in said.err


def test_another_encoder_is_refused(
    unmask: Unmask, places: Path, trained: RunFolder, tmp_path: Path
) -> None:
    said = unmask("locate", places, piece(tmp_path, 0, 0), *KNOWN, "--encoder", trained.root)
    assert said.status == 1
    assert f"{trained.root} is not the encoder of" in said.err


def test_flags_that_change_nothing_are_refused(
    unmask: Unmask, places: Path, images: Path, trained: RunFolder, tmp_path: Path
) -> None:
    (tmp_path / "q.csv").write_text("file_name,latitude,longitude\n")
    for words, said in [
        (("--protocol", "linear"), "--protocol has no meaning with --queries"),
        (("--labels", "5"), "--labels has no meaning with --queries"),
        (("--control", "scratch"), "--control scratch has no meaning with --queries"),
    ]:
        wrong = unmask("evaluate", places, "--queries", tmp_path / "q.csv", *words)
        assert wrong.status == 1
        assert said in wrong.err
    wrong = unmask("evaluate", trained.root, images, "--fov", 60)
    assert "--fov needs --queries QUERIES.csv" in wrong.err


def test_queries_of_two_sizes_have_the_chance_of_their_own_tiles(
    unmask: Unmask, run: Path, world: Path, tmp_path: Path
) -> None:
    cut = ["--tile-metres", "24,48", "--out", "places", "--threads", "1"]
    assert unmask("embed", run, world, *cut).status == 0
    lines = ["file_name,latitude,longitude,heading,ground_size"]
    for number, width in enumerate((40, 90)):
        piece(tmp_path, 10, 20, f"{number}.png")
        longitude, latitude = degrees(10, 20)
        lines.append(f"{number}.png,{latitude},{longitude},0,{width}")
    (tmp_path / "q.csv").write_text("\n".join(lines) + "\n")
    words = ("--queries", tmp_path / "q.csv", "--threads", 1, "--out", "s.json")
    said = unmask("evaluate", "places", *words)
    assert said.status == 0, said.err
    result = json.loads(Path("s.json").read_text())
    assert result["tile_metres"] == [24.0, 48.0]
    assert "tiles of 24, 48 m" in said.out
    table = pq.read_table("places").to_pylist()
    truth, shares = np.array(degrees(10, 20)), []
    for metres in (24.0, 48.0):
        tiles = np.array([[t["longitude"], t["latitude"]] for t in table if t["tile_metres"] == metres])  # fmt: skip
        shares.append((metres_between(tiles, truth) <= metres / 2).mean())
    assert result["scores"][-1]["within"]["half a tile"] == pytest.approx(np.mean(shares))


def test_places_are_trained_on_the_map(unmask: Unmask, run: Path, world: Path) -> None:
    """From the encoder of masked pretraining; then its vectors find pieces of the map."""
    Path("mine.py").write_text(
        "from dataclasses import replace\n"
        "from unmask.contracts import Size\n"
        "from unmask.encoders import ViT\n"
        "from unmask.recipes import find_recipe\n"
        "PLACE = replace(find_recipe('place-ti16'), image_size=Size(24, 24), batch_size=16, epochs=2.0,\n"
        "    encoder=ViT(patch_size=4, embed_dim=48, depth=2, num_heads=4))\n"
    )
    words = ("--init", run, "--recipe", "mine.py:PLACE", "--tile-metres", 36, "--out", "placed")
    said = unmask("pretrain", world, *words, "--threads", 1, "--workers", 0)
    assert said.status == 0, said.err
    assert "views 2 of 24 pixels" in said.out
    assert "find places: unmask embed placed" in said.out
    log = [json.loads(line) for line in Path("placed/log.jsonl").read_text().splitlines()]
    steps = [line for line in log if "loss" in line]
    assert all(np.isfinite(line["loss"]) and 0.3 < line["overlap"] < 1 for line in steps)
